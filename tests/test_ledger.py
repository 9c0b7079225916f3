"Ledger: every way to tamper with rows, head, file and export; what an anchor finds; writers side by side, kill -9, a crash between row and head."
import contextlib, json, random, re, shutil, signal, sqlite3, threading, time
from contextlib import closing
from dataclasses import asdict

import pytest

from access import POLICY, NOW, RULES, VIEW, ask, run, signed, sql
from medcrypt.vault.contract import Contract
from medcrypt.vault.ledger import ContractError, canonical, digest, head_message, link, row_hash, row_message, sign, verify_export, verify_ledger
from medcrypt.vault.ledger_file import ASKED, Ledger
from medcrypt.vault.rules import Policy, Rule

LIMITED = Rule("model", "view", "study", "phantom", uses=5)
SIGNING_KEY = bytes(range(32))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    "Eight rows: grants are 3 and 6, uses of a limited rule 4 and 7."
    contract = Contract(tmp_path_factory.mktemp("ledger") / "ledger.sqlite", Policy((*RULES, LIMITED), POLICY.subjects), SIGNING_KEY)
    for i in range(8): contract.grant(Rule(f"r{i}", "view", "p", "d")) if i in (2, 5) else ask(contract, {"purpose": "study"} if i in (3, 6) else {}, NOW + i)
    return contract


@pytest.fixture
def copy(base, tmp_path):
    for name in (base.path.name, base.path.name + ".head"): shutil.copy2(base.path.with_name(name), tmp_path)
    return Contract(tmp_path / base.path.name, base.policy, SIGNING_KEY)


def put_back(copy, content):
    for name in copy.path.parent.glob("*.sqlite-*"): name.unlink()
    copy.path.write_bytes(content)


# rows

def test_untouched(copy):
    report = copy.verify()
    assert report and report.rows == 8 and report.head[0] == 8 and copy.verify(report.head) and verify_ledger(copy.path, copy.public_key, report.head)
    assert not verify_ledger(copy.path, bytes(32)) and not verify_ledger(copy.path, Contract(copy.path.with_name("x.sqlite")).public_key)
    head = json.loads(copy.path.with_name("ledger.sqlite.head").read_text())
    assert head["uses"] == {LIMITED.id: 2} and [row["use"] for row in copy.ledger.rows() if row["kind"] == "request"] == [None, None, 1, None, 2, None]


@pytest.mark.parametrize("row", range(1, 9))
@pytest.mark.parametrize("change", (
    "DELETE FROM ledger WHERE sequence = {n}", "UPDATE ledger SET body = replace(body, 'view', 'View') WHERE sequence = {n}", "UPDATE ledger SET body = body || ' ' WHERE sequence = {n}",
    "UPDATE ledger SET signature = (SELECT signature FROM ledger WHERE sequence = 9 - {n}) WHERE sequence = {n}", "UPDATE ledger SET hash = (SELECT hash FROM ledger WHERE sequence = 9 - {n}) WHERE sequence = {n}",
    "UPDATE ledger SET kind = CASE kind WHEN 'request' THEN 'grant' ELSE 'request' END WHERE sequence = {n}", "UPDATE ledger SET body = CAST(body AS BLOB) WHERE sequence = {n}",
    "UPDATE ledger SET signature = upper(signature) WHERE sequence = {n}", "UPDATE ledger SET body = 7 WHERE sequence = {n}", "UPDATE ledger SET hash = x'00' WHERE sequence = {n}",
    "UPDATE ledger SET sequence = {n} + 100 WHERE sequence = {n}", "DELETE FROM ledger WHERE sequence >= {n}", "UPDATE ledger SET body = (SELECT body FROM ledger WHERE sequence = 9 - {n}), hash = (SELECT hash FROM ledger WHERE sequence = 9 - {n}), "
    "signature = (SELECT signature FROM ledger WHERE sequence = 9 - {n}), kind = (SELECT kind FROM ledger WHERE sequence = 9 - {n}) WHERE sequence = {n}"))
def test_every_change_of_every_row_is_found(copy, change, row):
    sql(copy, change.format(n=row))
    report = copy.verify()
    assert not report and any(re.search(r"row|rows", problem) for problem in report.problems)


def test_inserting_reordering_and_cutting(copy):
    rows = "INSERT INTO ledger SELECT {to}, kind, body, hash, signature FROM ledger WHERE sequence = {of}"
    swap = ["UPDATE ledger SET sequence = 100 WHERE sequence = 3", "UPDATE ledger SET sequence = 3 WHERE sequence = 4", "UPDATE ledger SET sequence = 4 WHERE sequence = 100"]
    shift = ["DELETE FROM ledger WHERE sequence = 3", *(f"UPDATE ledger SET sequence = {n - 1} WHERE sequence = {n}" for n in range(4, 9))]
    first = ["DELETE FROM ledger WHERE sequence = 1", *(f"UPDATE ledger SET sequence = {n - 1} WHERE sequence = {n}" for n in range(2, 9))]
    content = copy.path.read_bytes()
    for statements in (swap, shift, first, [rows.format(to=9, of=8)], [rows.format(to=0, of=8)], [rows.format(to=-5, of=1)], ["DELETE FROM ledger"], ["DELETE FROM ledger WHERE sequence = 8"], ["DROP TABLE ledger"]):
        sql(copy, *statements); assert not copy.verify(), statements
        put_back(copy, content); assert copy.verify()


def rewritten(copy, change, signing_key=None):
    "Edit rows by `change` and compute every hash and link after it anew; signed anew only with a signing key."
    with closing(sqlite3.connect(copy.path)) as db:
        previous = ""
        for sequence, body, signature in db.execute("SELECT sequence, body, signature FROM ledger ORDER BY sequence").fetchall():
            fields = {**json.loads(body), "previous": previous}; change(sequence, fields)
            body = canonical(fields); hash_ = row_hash(body); signature = sign(signing_key, row_message(hash_)) if signing_key else signature
            previous = link(hash_, signature)
            db.execute("UPDATE ledger SET body = ?, hash = ?, signature = ? WHERE sequence = ?", (body, hash_, signature, sequence))
        db.commit()


def test_rehashed_rows_without_the_key_are_found(copy):
    def change(sequence, fields):
        if sequence == 4: fields["subject"] = "somebody-else"
    rewritten(copy, change)
    problems = copy.verify().problems
    assert any("row 4: not signed" in p for p in problems) and not any("row 3" in p for p in problems)


def test_a_head_vouches_for_rows_and_uses_that_were_signed_again(copy):
    "With the signing key all rows can be written anew, but not so that they agree with an older head."
    def change(sequence, fields):
        if sequence == 4: fields["use"] = None
        if sequence == 7: fields["use"] = 1
    rewritten(copy, change, SIGNING_KEY)
    problems = copy.verify().problems
    assert any(p.startswith("head: row 8 is another") for p in problems) and any(p.startswith("head: counts the uses") for p in problems) and not any("not signed" in p for p in problems)
    head = {"sequence": 8, "hash": copy.verify().head[1], "rules": digest([]), "uses": {LIMITED.id: 1}}
    copy.path.with_name("ledger.sqlite.head").write_text(json.dumps({**head, "signature": sign(SIGNING_KEY, head_message(head))}))
    assert copy.verify().problems == ("head: the rows that changed the rules are not those it was signed for",)
    def wrong(sequence, fields):
        if sequence == 4: fields["use"] = 2
    rewritten(copy, wrong, SIGNING_KEY)
    assert any(p.startswith("row 4: counts the uses") for p in copy.verify().problems)


def test_signatures_have_one_writing(copy):
    "Ed25519 with S + L instead of S (RFC 8032 section 5.1.7 refuses it), capitals, spaces."
    with closing(sqlite3.connect(copy.path)) as db: signature = db.execute("SELECT signature FROM ledger WHERE sequence = 8").fetchone()[0]
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(bytes.fromhex(signature[64:]), "little") + order
    for other in (signature[:64] + s.to_bytes(32, "little").hex(), signature.upper(), f"{signature[:2]} {signature[2:]}", signature + "00"):
        sql(copy, ("UPDATE ledger SET signature = ? WHERE sequence = 8", (other,)))
        assert any("row 8: not signed" in problem for problem in copy.verify().problems)
    sql(copy, ("UPDATE ledger SET signature = ? WHERE sequence = 8", (signature,))); assert copy.verify()


@pytest.mark.parametrize("body", ("[" * 100000, "NaN", "9" * 5000, '{"a":"\\ud800"}', "", "null", '{"sequence":5,"kind":"request","previous":[]}'))
def test_bodies_that_no_ledger_writes(copy, body):
    sql(copy, ("UPDATE ledger SET body = ?, hash = ? WHERE sequence = 5", (body, row_hash(body))))
    assert not copy.verify() and not verify_export(exported(copy), copy.public_key)


def exported(contract):
    try: return list(contract.export_rows())
    except ContractError: return []


# head and file

def test_head_tampering(copy):
    head = copy.path.with_name(copy.path.name + ".head"); good = json.loads(head.read_text())
    changes = [{"sequence": 7}, {"hash": "0" * 64}, {"rules": "0" * 64}, {"uses": {}}, {"uses": {LIMITED.id: 1}}, {"uses": None}, {"signature": "00"}, {"signature": None}, {"more": 1}, {"sequence": float("nan")}]
    for changed in (*({**good, **change} for change in changes), {k: v for k, v in good.items() if k != "uses"}):
        head.write_text(json.dumps(changed))
        assert not copy.verify() and not verify_export(exported(copy), copy.public_key)
        with pytest.raises(ContractError, match="head"): ask(copy)
    for text in ("", "[]", "nonsense", "[" * 100000):
        head.write_text(text); assert not copy.verify()
    head.unlink(); assert not copy.verify()
    with pytest.raises(ContractError, match="head is missing"): ask(copy)


def test_a_head_of_version_1_is_read_and_goes_on_as_version_2(tmp_path):
    "Heads from before rules had uses."
    contract = Contract(tmp_path / "l.sqlite", POLICY, SIGNING_KEY); ask(contract)
    path = tmp_path / "l.sqlite.head"; head = {k: v for k, v in json.loads(path.read_text()).items() if k in ("sequence", "hash", "rules")}
    path.write_text(json.dumps({**head, "signature": sign(SIGNING_KEY, b"medcrypt ledger head 1 " + canonical(head).encode())}))
    assert contract.verify() and verify_export(contract.export_rows(), contract.public_key) and ask(contract).granted
    assert json.loads(path.read_text())["uses"] == {} and contract.verify()


def test_grants_of_version_1_stay_in_force(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite", SIGNING_KEY)
    old = {k: v for k, v in asdict(RULES[0]).items() if k not in ("begins", "uses")}
    ledger.append(lambda state: {"kind": "grant", "rule": old, "time": 1.0})
    assert ask(Contract(tmp_path / "l.sqlite", Policy((), POLICY.subjects), SIGNING_KEY)).granted


@pytest.mark.parametrize("statement", ("CREATE TRIGGER t AFTER INSERT ON ledger BEGIN DELETE FROM ledger WHERE sequence = new.sequence; END", "CREATE TABLE more (x)", "CREATE VIEW v AS SELECT 1", "CREATE INDEX i ON ledger (hash)"))
def test_what_does_not_belong_in_the_file(copy, statement):
    sql(copy, statement)
    assert any("does not belong in a ledger" in p for p in copy.verify().problems)
    if "TRIGGER" in statement:   # an answer whose row is not there is not given
        with pytest.raises(ContractError, match="verify"): ask(copy)


def test_an_index_that_lies_is_found(copy):
    "Rows as they were, but the look-up for nonces no longer knows one of them."
    request = signed(copy, time=NOW + 50); assert copy.request(request, time=NOW + 50).granted and not copy.request(request, time=NOW + 50).granted
    nonce = request.nonce.encode(); content = copy.path.read_bytes()
    table = content.index(b'"' + nonce + b'"'); places = [m.start() for m in re.finditer(re.escape(nonce), content) if content[m.start() - 1:m.start()] != b'"']
    assert table and places
    for place in places: content = content[:place] + b"0" * 32 + content[place + 32:]
    put_back(copy, content)
    assert not copy.verify()


def test_nonces_are_looked_up_in_an_index(copy):
    with closing(sqlite3.connect(copy.path)) as db: plan = " ".join(str(row) for row in db.execute(f"EXPLAIN QUERY PLAN {ASKED}", ("a", "b")))
    assert "USING INDEX nonces (<expr>=? AND <expr>=?)" in plan


def test_durability(copy):
    with copy.ledger._connection() as db:
        copy.ledger._begin(db)
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal" and db.execute("PRAGMA synchronous").fetchone()[0] == 2 and db.in_transaction
        with closing(sqlite3.connect(copy.path, timeout=0)) as other, pytest.raises(sqlite3.OperationalError, match="locked"): other.execute("BEGIN IMMEDIATE")   # the decision is made inside the write transaction


def test_a_cut_ledger_is_not_continued(copy):
    sql(copy, "DELETE FROM ledger WHERE sequence >= 7")
    with pytest.raises(ContractError, match="verify"): ask(copy)
    with pytest.raises(ContractError, match="verify"): ask(Contract(copy.path, POLICY, SIGNING_KEY))
    with pytest.raises(ContractError, match="verify"): copy.explain(**VIEW)
    assert "rows 7 to 8 are gone" in " ".join(copy.verify().problems)


def test_a_deleted_ledger_is_not_started_again(copy):
    copy.path.unlink()
    for name in copy.path.parent.glob("*.sqlite-*"): name.unlink()
    with pytest.raises(ContractError): ask(Contract(copy.path, POLICY, SIGNING_KEY))
    assert not Contract(copy.path, POLICY, SIGNING_KEY).verify()


def test_forged_or_hidden_rule_rows_give_nobody_anything(copy):
    head = copy.path.with_name(copy.path.name + ".head").read_bytes(); content = copy.path.read_bytes()
    with closing(sqlite3.connect(copy.path)) as db: good = db.execute("SELECT body, hash, signature FROM ledger WHERE sequence = 8").fetchone()
    body = canonical({"kind": "grant", "rule": asdict(Rule("*", "*", "*", "*")), "time": 1.0, "sequence": 9, "previous": link(*good[1:])})
    for statement in ("UPDATE ledger SET kind = 'request' WHERE sequence = 3", "UPDATE ledger SET body = replace(body, 'r2', 'r9') WHERE sequence = 3", "DELETE FROM ledger WHERE sequence = 3",
                      "UPDATE ledger SET kind = 'grant' WHERE sequence = 1", "UPDATE ledger SET kind = 'revoke' WHERE sequence = 3", "INSERT INTO ledger VALUES (10, 'grant', '{\"kind\":\"grant\"}', 'aa', 'bb')",
                      ("INSERT INTO ledger VALUES (9, 'grant', ?, ?, ?)", (body, row_hash(body), good[2])),   # all right but the signature
                      ("INSERT INTO ledger VALUES (9, 'request', ?, ?, ?)", good), ("INSERT INTO ledger VALUES (-1, 'grant', ?, ?, ?)", (body, row_hash(body), good[2]))):
        sql(copy, statement)
        with pytest.raises(ContractError, match="verify"): ask(copy)
        assert copy.path.with_name(copy.path.name + ".head").read_bytes() == head
        put_back(copy, content)
    assert ask(copy).granted


def test_what_only_an_anchor_finds(copy):
    "Whoever kept an old copy of ledger and head can put both back: that shows only against a head noted elsewhere."
    old = {name: (copy.path.with_name(name)).read_bytes() for name in (copy.path.name, copy.path.name + ".head")}
    for _ in range(3): ask(copy)
    anchor = copy.verify().head
    put_back(copy, old[copy.path.name]); copy.path.with_name(copy.path.name + ".head").write_bytes(old[copy.path.name + ".head"])
    assert copy.verify() and "rows 9 to 11 are gone" in " ".join(copy.verify(anchor).problems)
    for _ in range(3): ask(copy, time=5)
    assert copy.verify() and "anchor: row 11" in " ".join(copy.verify(anchor).problems)


def test_not_a_ledger(tmp_path):
    with pytest.raises(ContractError, match="no such ledger"): verify_ledger(tmp_path / "missing", bytes(32))
    assert not (tmp_path / "missing").exists()
    (tmp_path / "text").write_text("not a database, but long enough to be looked at as one" * 50)
    with pytest.raises(ContractError): Contract(tmp_path / "text")
    assert not verify_ledger(tmp_path / "text", bytes(32))


def test_damaged_files_never_pass_or_crash(copy):
    content = copy.path.read_bytes(); generator = random.Random(0)
    copy.path.write_bytes(content.replace(b'"granted":true', b'"granted":trUe'))   # every copy that SQLite's pages hold, the live one among them
    with contextlib.suppress(ContractError): assert not copy.verify()
    for at in (generator.randrange(len(content)) for _ in range(60)):
        copy.path.write_bytes(content[:at] + bytes([content[at] ^ 1 << generator.randrange(8)]) + content[at + 1:])
        with contextlib.suppress(ContractError): copy.verify()
        with contextlib.suppress(ContractError): list(copy.export_rows())
    for size in (0, 100, 4096, len(content) - 1):
        copy.path.write_bytes(content[:size]); assert size == len(content) - 1 or not copy.verify()


# export

def test_export(copy, tmp_path):
    with open(tmp_path / "export.jsonl", "w") as sink: assert copy.export(sink) == 9
    lines = (tmp_path / "export.jsonl").read_text().splitlines()
    assert lines == list(copy.export_rows()) and [json.loads(line)["body"] for line in lines[1:]] == copy.ledger.rows()
    assert set(json.loads(lines[1])) == {"sequence", "kind", "body", "hash", "signature"}
    report = verify_export(open(tmp_path / "export.jsonl"), copy.public_key, copy.verify().head)
    assert report and report == copy.verify() and not verify_export(lines, Contract(tmp_path / "x.sqlite").public_key) and not verify_export([], copy.public_key)


def test_every_change_of_an_export_is_found(copy):
    lines, key = exported(copy), copy.public_key
    for i in range(9):
        assert not verify_export(lines[:i] + lines[i + 1:], key), f"line {i + 1} dropped"
        assert not verify_export(lines[:i], key), f"cut before line {i + 1}"
        for j in range(10): assert not verify_export(lines[:j] + [lines[i]] + lines[j:], key), f"line {i + 1} again at {j + 1}"
        for j in range(i):
            other = [*lines]; other[i], other[j] = lines[j], lines[i]
            assert not verify_export(other, key), f"lines {i + 1} and {j + 1} swapped"
        assert not verify_export([*lines[:i], "", *lines[i:]], key)


def test_every_changed_character_of_an_export_is_found(copy):
    lines, generator = exported(copy), random.Random(2)
    for number in (0, 1, 3, 4, 8):
        line = lines[number]
        for at in generator.sample(range(len(line)), 60):
            for changed in (line[:at] + chr(ord(line[at]) ^ 1) + line[at + 1:], line[:at] + line[at + 1:], line[:at] + " " + line[at:]):
                assert not verify_export([*lines[:number], changed, *lines[number + 1:]], copy.public_key), (number, at)
    for line in ("[" * 100000, "NaN", "null", "7", '{"head":null}', '{"sequence":9}', canonical({**json.loads(lines[8]), "sequence": True}), canonical({**json.loads(lines[8]), "sequence": 8.0}), canonical({**json.loads(lines[8]), "hash": "\ud800"}), canonical({**json.loads(lines[8]), "hash": None}),
                 canonical({**json.loads(lines[8]), "body": 7}), canonical({**json.loads(lines[8]), "kind": []}), lines[8].upper(), lines[8] + "\r"):
        for number in (0, 8): assert not verify_export([*lines[:number], line, *lines[number + 1:]], copy.public_key)


def test_an_old_head_does_not_hide_that_an_export_was_cut(copy):
    old = exported(copy)[:7]; head = {"sequence": 6, "hash": json.loads(old[6])["hash"], "rules": digest(json.loads(old[i])["hash"] for i in (3, 6)), "uses": {LIMITED.id: 1}}
    old[0] = canonical({"head": {**head, "signature": sign(SIGNING_KEY, head_message(head))}})   # as it was after six rows
    assert verify_export(old, copy.public_key) and not verify_export(old, copy.public_key, copy.verify().head)
    assert verify_export([old[0], *exported(copy)[1:]], copy.public_key)   # a head may be behind


def test_an_export_of_changed_rows_does_not_pass(copy):
    sql(copy, "UPDATE ledger SET body = replace(body, 'view', 'View') WHERE sequence = 5")
    assert any("row 5: changed" in problem for problem in verify_export(exported(copy), copy.public_key).problems)
    sql(copy, "UPDATE ledger SET body = body || ' ' WHERE sequence = 5")
    with pytest.raises(ContractError, match="row 5 is damaged"): list(copy.export_rows())
    copy.path.unlink()
    with pytest.raises(ContractError, match="no such ledger"): list(copy.export_rows())


# the class alone

def test_ledger_alone(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    fields, hash_ = ledger.append(lambda state: {"kind": "note", "n": len(state.changes)})
    assert ledger.append(lambda state: {"kind": "note", "n": len(state.changes), "sequence": 77, "previous": "x"})[0]["n"] == 1
    assert ledger.row(1, hash_) == fields and [r["sequence"] for r in ledger.rows()] == [1, 2] and ledger.verify()
    def fail(state): raise ContractError("no")
    with pytest.raises(ContractError, match="^no$"): ledger.append(fail)
    for use in (2, 0, "1", 1.5):
        with pytest.raises(ContractError, match="next number"): ledger.append(lambda state: {"kind": "request", "rule": "r", "use": use})
    assert ledger.verify().rows == 2
    for use in (1, 2): ledger.append(lambda state: {"kind": "request", "rule": "r", "use": use})
    assert ledger.peek(lambda state: dict(state.uses)) == {"r": 2} and ledger.verify().rows == 4


def test_nonces_of_each_subject(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    for subject, nonce in (("a", "1"), ("Ä😀\"\\", "2"), ("b", None)): ledger.append(lambda state: {"kind": "request", "subject": subject, "nonce": nonce})
    ledger.append(lambda state: {"kind": "note", "subject": "a", "nonce": "9"})
    asked = lambda *pairs: ledger.peek(lambda state: [state.asked(subject, nonce) for subject, nonce in pairs])
    assert asked(("a", "1"), ("Ä😀\"\\", "2"), ("b", "1"), ("a", "2"), ("A", "1"), ("b", None), ("b", "null"), ("a", "9"), ("a", "")) == [True, True] + [False] * 7


# crashes and processes

def test_rows_after_the_head_are_checked_and_counted(copy, monkeypatch):
    "A crash between the commit of a row and the writing of the head."
    def crash(*_): raise KeyboardInterrupt
    monkeypatch.setattr(Ledger, "_write_head", crash)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt): ask(copy, {"purpose": "study"})
    monkeypatch.undo()
    assert copy.verify() and copy.verify().rows == 10 and json.loads(copy.path.with_name("ledger.sqlite.head").read_text())["uses"] == {LIMITED.id: 2}
    content = copy.path.read_bytes()
    for statement in ("UPDATE ledger SET body = replace(body, 'model-1', 'model-2') WHERE sequence = 9", "DELETE FROM ledger WHERE sequence = 9", "UPDATE ledger SET signature = (SELECT signature FROM ledger WHERE sequence = 9) WHERE sequence = 10"):
        sql(copy, statement)
        with pytest.raises(ContractError, match="verify"): ask(copy)
        put_back(copy, content)
    assert [ask(copy, {"purpose": "study"}).granted for _ in range(3)] == [True, False, False]
    assert copy.verify() and json.loads(copy.path.with_name("ledger.sqlite.head").read_text())["uses"] == {LIMITED.id: 5}


WRITER = """
import sys; sys.path.insert(0, "tests"); from access import *; from medcrypt.vault.contract import Contract
c = Contract(sys.argv[1], POLICY)
for i in range(int(sys.argv[3])):
    d = c.request(signed(c, time=NOW + i, nonce=f"{int(sys.argv[2]):04x}{i:028x}"), time=NOW + i)
    print(d.sequence, d.request_hash, flush=True)
"""


def test_processes_and_threads_lose_nothing(tmp_path):
    path = tmp_path / "ledger.sqlite"   # all start at once: they also race for its creation
    processes = [run(WRITER, path, k, 30) for k in range(2)]
    outputs = [p.communicate()[0].split("\n") for p in processes]
    assert [p.returncode for p in processes] == [0, 0]
    contract = Contract(path, POLICY); wrong = []
    def work(k):
        try: [ask(contract, nonce=f"{k + 2:04x}{i:028x}") for i in range(15)]
        except Exception as error: wrong.append(error)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for t in threads: t.start()
    for t in threads: t.join()
    report, rows = contract.verify(), contract.ledger.rows()
    assert not wrong and report and report.rows == 105 and all(row["granted"] for row in rows)
    for k, count in enumerate((30, 30, 15, 15, 15)): assert [row["nonce"] for row in rows if row["nonce"].startswith(f"{k:04x}")] == [f"{k:04x}{i:028x}" for i in range(count)]
    assert len({int(line.split()[0]) for o in outputs for line in o if line}) == 60


def test_kill_9(tmp_path):
    path, generator, promised = tmp_path / "ledger.sqlite", random.Random(1), {}
    Contract(path)
    for round_ in range(5):
        process = run(WRITER, path, round_, 10**6)
        for _ in range(generator.randrange(1, 20)):
            sequence, hash_ = process.stdout.readline().split(); promised[int(sequence)] = hash_
        time.sleep(generator.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        promised |= {int(line.split()[0]): line.split()[1] for line in rest.split("\n") if re.fullmatch(r"\d+ [0-9a-f]{64}", line)}
        contract = Contract(path, POLICY); report = contract.verify()
        assert report, report.problems
        assert report.rows >= max(promised) and verify_export(contract.export_rows(), contract.public_key)
        for sequence, hash_ in promised.items(): assert contract.ledger.row(sequence, hash_)
    assert ask(contract).sequence == report.rows + 1 and contract.verify()


@pytest.mark.parametrize("statement", ("ALTER TABLE ledger ADD COLUMN note TEXT", "DROP INDEX changes; CREATE INDEX changes ON ledger (sequence) WHERE 0"))
def test_a_changed_table_or_index_is_found_and_stops_nobody_s_requests(copy, statement):
    with closing(sqlite3.connect(copy.path)) as db: db.executescript(statement)
    assert any("is not as it was made" in problem for problem in copy.verify().problems)
    if "COLUMN" in statement: assert copy.grant(Rule("x", "view", "p", "d"))   # rows go by the names of their columns
