"Store and contract: content addressing, damage, path traversal, concurrent writers, rules, forged decisions, kill -9, every way to tamper with a ledger."
import contextlib, json, os, random, re, shutil, signal, sqlite3, stat, subprocess, sys, threading, time
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime, timezone
from pathlib import Path

import pytest

from medcrypt.crypto.keys import Key, KeyFileError
from medcrypt.vault.contract import ACTIONS, Contract, ContractError, Decision, Rule, dataset_key, load_rules
from medcrypt.vault.ledger import Ledger, verify_ledger
from medcrypt.vault.store import Store, StoreError, object_name

ROOT = Path(__file__).resolve().parents[1]
KEY = Key(bytes(range(32)))
VIEW = {"subject": "model-1", "role": "model", "action": "view", "purpose": "research", "dataset": "phantom"}
RULES = [Rule("model", "view", "research", "phantom"), Rule("clinician", "*", "care", "*"), Rule("visitor", "view", "teaching", "phantom", expires=1000)]


# store

@pytest.fixture(params=("folder", "memory"))
def store(request, tmp_path):
    return Store(tmp_path / "store" if request.param == "folder" else f"memory://{tmp_path.name}-{random.random()}")


def test_put_get(store):
    assert store.names() == [] and len(store) == 0 and store.size_bytes() == 0 and store.verify()
    objects = [b"", b"a", bytes(100000)]
    names = [store.put(x) for x in objects]
    assert names == [object_name(x) for x in objects] and [store.get(n) for n in names] == objects
    assert store.put(b"a") == names[1] and store.names() == sorted(names) and len(store) == 3 and store.size_bytes() == 100001 and all(n in store for n in names)
    report = store.verify(expected=names)
    assert report and (report.objects, report.size_bytes, report.damaged, report.missing, report.foreign) == (3, 100001, (), (), ())


@pytest.mark.parametrize("name", ("", "../../etc/passwd", "/etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "a" * 65, "../" + "a" * 61, None, 7, b"a" * 64))
def test_only_digests_become_paths(store, name):
    for attempt in (lambda: store.get(name), lambda: name in store, lambda: store.verify([name])):
        with pytest.raises(StoreError): attempt()


def test_missing_and_damaged(tmp_path):
    store = Store(tmp_path); names = [store.put(bytes([i]) * 50) for i in range(4)]
    path = lambda n: tmp_path / n[:2] / n
    path(names[0]).write_bytes(b"other"); path(names[1]).unlink(); path(names[2]).write_bytes(bytes([2]) * 49)
    (tmp_path / "readme.txt").write_text("x"); (tmp_path / "zz").mkdir(); (tmp_path / "zz" / names[3]).write_text("misplaced")
    for name, word in ((names[0], "damaged"), (names[1], "no object"), (names[2], "damaged")):
        with pytest.raises(StoreError, match=word): store.get(name)
    report = store.verify(expected=names)
    assert not report and set(report.damaged) == {names[0], names[2]} and report.missing == (names[1],)
    assert set(report.foreign) >= {"readme.txt"} and names[3] in store and report.objects == 3
    with pytest.raises(StoreError, match="damaged"): store.put(bytes(50))
    assert path(names[0]).read_bytes() == b"other"   # never overwritten: someone must look at it first


def test_put_never_touches_what_is_there(tmp_path):
    store = Store(tmp_path); name = store.put(b"x"); path = tmp_path / name[:2] / name
    before = path.stat(); store.put(b"x"); after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_store_that_cannot_be_opened_or_written(tmp_path):
    with pytest.raises(StoreError, match="nowhere"): Store("nowhere://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError): Store(tmp_path / "file").put(b"x")


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    def full(*_): raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match="No space"): store.put(b"x")
    monkeypatch.undo()
    assert store.names() == [] and not [p for p in tmp_path.rglob("*") if p.is_file()]


def run(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_many_writers_one_store(tmp_path):
    code = "import sys; from medcrypt.vault.store import Store; s = Store(sys.argv[1])\nfor i in range(200): s.put(str(i).encode())"
    processes = [run(code, tmp_path) for _ in range(3)]
    assert [p.wait() for p in processes] == [0, 0, 0]
    threads = [threading.Thread(target=lambda: [Store(tmp_path).put(str(i).encode()) for i in range(150, 300)]) for _ in range(3)]
    for t in threads: t.start()
    for t in threads: t.join()
    report = Store(tmp_path).verify(object_name(str(i).encode()) for i in range(300))
    assert report and report.objects == 300 and not report.foreign


# rules

def test_rules_match():
    star = Rule("*", "*", "*", "*")
    assert all(star.matches("r", action, "p", "d") for action in ACTIONS)
    for i in range(4):
        asked = ["model", "view", "research", "phantom"]; assert RULES[0].matches(*asked)
        asked[i] = "other"; assert not RULES[0].matches(*asked)
    assert Rule("a", "view", "b", "c", expires=date(2030, 1, 1)).expires == Rule("a", "view", "b", "c", expires=datetime(2030, 1, 1, tzinfo=timezone.utc)).expires == 1893456000


@pytest.mark.parametrize("change", ({"role": ""}, {"role": 7}, {"purpose": "a\nb"}, {"dataset": "x" * 201}, {"action": "delete"}, {"action": "View"}, {"expires": "2030"}, {"expires": float("nan")}, {"expires": True}))
def test_rules_that_are_none(change):
    with pytest.raises(ContractError): Rule(**{"role": "a", "action": "view", "purpose": "b", "dataset": "c", **change})


GOOD = '[[rule]]\nrole = "model"\naction = "view"\npurpose = "research"\ndataset = "*"\n'


def test_load_rules(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(GOOD + "expires = 2030-01-01T00:00:00Z\n\n# comment\n" + GOOD + "expires = 2030-01-01\n" + GOOD + "expires = 5\n" + GOOD)
    assert [rule.expires for rule in load_rules(path)] == [1893456000, 1893456000, 5, None]
    path.write_text(""); assert load_rules(path) == []


@pytest.mark.parametrize("text,words", (
    ("[[rule]\n", "line 1"), (GOOD + "role = 3\n", "line 6"), (GOOD + "\n" + GOOD.replace("action", "actoin"), r"rule 2 \(line 7\): unknown actoin"),
    (GOOD.replace('purpose = "research"\n', ""), r"rule 1 \(line 1\): lacks purpose"), (GOOD.replace("view", "delete"), r"rule 1 \(line 1\): action: 'delete'"),
    (GOOD + 'expires = "soon"\n', "rule 1"), ("[rule]\nrole = 1\n", "nothing but"), ("rule = [1]\n", "rule 1"), ("rules = []\n", "rules"), ("x = 1\n" + GOOD, "x")))
def test_load_rules_names_file_and_line(tmp_path, text, words):
    path = tmp_path / "rules.toml"; path.write_text(text)
    with pytest.raises(ContractError, match=words) as caught: load_rules(path)
    assert str(path) in str(caught.value)


def test_load_rules_without_a_file(tmp_path):
    (tmp_path / "latin").write_bytes(b"# \xe9")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "latin"):
        with pytest.raises(ContractError, match=re.escape(str(path))): load_rules(path)


# contract

@pytest.fixture
def contract(tmp_path): return Contract(tmp_path / "ledger.sqlite", RULES)


def test_deny_by_default(tmp_path):
    contract = Contract(tmp_path / "a" / "ledger.sqlite")
    decisions = [contract.request(**{**VIEW, "action": action}) for action in ACTIONS]
    assert not any(d.granted for d in decisions) and [d.sequence for d in decisions] == [1, 2, 3] and contract.verify().rows == 3


def test_decisions(contract):
    for change, granted in (({}, True), ({"action": "decrypt"}, False), ({"role": "visitor"}, False), ({"dataset": "phantom2"}, False), ({"purpose": "care"}, False),
                            ({"role": "clinician", "purpose": "care", "action": "decrypt", "dataset": "anything"}, True)):
        assert contract.request(**{**VIEW, **change}).granted is granted
    visitor = {**VIEW, "role": "visitor", "purpose": "teaching"}
    assert contract.request(**visitor, time=999).granted and not contract.request(**visitor, time=1000).granted
    assert "expired" in contract.request(**visitor).reason
    rows = contract.ledger.rows()
    assert [row["granted"] for row in rows] == [True, False, False, False, False, True, True, False, False] and contract.verify()
    assert all(row["subject"] == "model-1" for row in rows)


@pytest.mark.parametrize("change", ({"subject": ""}, {"role": "*"}, {"dataset": "*"}, {"action": "*"}, {"action": "delete"}, {"purpose": "a\0"}, {"objects": ["../x"]}, {"time": float("nan")}, {"time": "now"}))
def test_malformed_requests(contract, change):
    with pytest.raises(ContractError): contract.request(**{**VIEW, **change})
    assert contract.verify().rows == 0


def test_ten_thousand_objects_are_one_small_row(contract):
    names = [object_name(str(i).encode()) for i in range(10000)]
    start = time.perf_counter(); decision = contract.request(**VIEW, objects=names + names[:5]); seconds = time.perf_counter() - start
    row, = contract.ledger.rows()
    assert row["objects"] == 10000 and len(json.dumps(row)) < 800 and seconds < 2 and not any(n in json.dumps(row) for n in names[:50])
    assert decision.objects == tuple(sorted(names)) and names[0] not in repr(decision)


def test_fetch(contract, tmp_path):
    store = Store(tmp_path / "store"); names = [store.put(bytes([i])) for i in range(5)]
    decision = contract.request(**VIEW, objects=names[:4])
    assert list(contract.fetch(store, decision, names[1::-1])) == [b"\1", b"\0"] and sorted(contract.fetch(store, decision)) == [bytes([i]) for i in range(4)]
    for wrong in (names, ["../x"], [names[4]]):
        with pytest.raises(ContractError): contract.fetch(store, decision, wrong)
    for action in ("store",):
        stored = contract.request(subject="a", role="clinician", purpose="care", action=action, dataset="d", objects=names); assert stored.granted
        with pytest.raises(ContractError, match="store"): contract.fetch(store, stored)
    opened = contract.request(subject="a", role="clinician", purpose="care", action="decrypt", dataset="d", objects=names)
    assert len(list(contract.fetch(store, opened))) == 5
    (tmp_path / "store" / names[0][:2] / names[0]).unlink()
    with pytest.raises(StoreError): list(contract.fetch(store, decision))


def test_data_key(contract):
    opened = contract.request(subject="a", role="clinician", purpose="care", action="decrypt", dataset="phantom")
    key = contract.data_key(opened, KEY)
    assert key == dataset_key(KEY, "phantom") != dataset_key(KEY, "nih") and len(key) == 32 and type(key) is Key
    for action in ("view", "store"):
        with pytest.raises(ContractError): contract.data_key(contract.request(subject="a", role="clinician", purpose="care", action=action, dataset="phantom"), KEY)
    with pytest.raises(ContractError): contract.data_key(contract.request(**{**VIEW, "action": "decrypt"}), KEY)


def test_forged_decisions(contract, tmp_path):
    store = Store(tmp_path / "store"); names = [store.put(bytes([i])) for i in range(3)]
    seen, denied = contract.request(**VIEW, objects=names[:2]), contract.request(**{**VIEW, "action": "decrypt"}, objects=names)
    other = Contract(tmp_path / "other.sqlite", [Rule("*", "*", "*", "*")]).request(**{**VIEW, "action": "decrypt"}, objects=names)
    forged = [replace(denied, granted=True), replace(seen, objects=tuple(sorted(names))), replace(denied, granted=True, sequence=seen.sequence, request_hash=seen.request_hash),
              replace(seen, sequence=99), replace(seen, request_hash="0" * 64), other, Decision(True, "", 1, "", "decrypt", "phantom", tuple(names))]
    for decision in forged:
        with pytest.raises(ContractError): contract.fetch(store, decision)
        with pytest.raises(ContractError): contract.data_key(decision, KEY)
    grown = replace(seen, action="decrypt")   # what counts is the row, not the claim
    with pytest.raises(ContractError): contract.data_key(grown, KEY)


def test_expiry_holds_after_the_decision(contract, tmp_path):
    store = Store(tmp_path / "store"); name = store.put(b"x")
    decision = contract.request(**{**VIEW, "role": "visitor", "purpose": "teaching"}, objects=[name], time=999)
    assert list(contract.fetch(store, decision, time=999.9)) == [b"x"]
    with pytest.raises(ContractError, match="expired"): contract.fetch(store, decision)


def test_grant_and_revoke(contract):
    rule = Rule("guest", "view", "audit", "phantom", expires=date(2035, 1, 1)); asked = {**VIEW, "role": "guest", "purpose": "audit", "time": 1.9e9}
    assert not contract.request(**asked).granted
    contract.grant(rule); assert contract.request(**asked).granted and Contract(contract.path).request(**asked).granted
    with pytest.raises(ContractError): contract.revoke(Rule("guest", "view", "audit", "nih"))
    with pytest.raises(ContractError): contract.revoke(RULES[0])
    contract.revoke(rule); assert not contract.request(**asked).granted and not Contract(contract.path).request(**asked).granted
    contract.grant(rule); assert contract.request(**asked).granted and contract.verify()
    assert [row["kind"] for row in contract.ledger.rows()] == ["request", "grant", "request", "request", "revoke", "request", "request", "grant", "request"]


def test_signing_key(tmp_path):
    contract = Contract(tmp_path / "a.sqlite", RULES); key_file = tmp_path / "a.sqlite.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600 and len(contract.public_key) == 32
    contract.request(**VIEW)
    secret = bytes.fromhex(key_file.read_text())
    for file in tmp_path.iterdir():
        if file != key_file: assert secret not in file.read_bytes() and secret.hex().encode() not in file.read_bytes()
    assert secret.hex() not in repr(vars(contract)) + repr(vars(contract.ledger))
    assert Contract(tmp_path / "a.sqlite").public_key == contract.public_key == Contract(tmp_path / "a.sqlite", signing_key=key_file).public_key == Contract(tmp_path / "a.sqlite", signing_key=Key(secret)).public_key
    with pytest.raises(ContractError): Contract(tmp_path / "a.sqlite", signing_key=KEY).request(**VIEW)   # another key does not continue this ledger
    key_file.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"): Contract(tmp_path / "a.sqlite")
    key_file.unlink()
    with pytest.raises(KeyFileError): Contract(tmp_path / "a.sqlite")
    assert not key_file.exists() and verify_ledger(tmp_path / "a.sqlite", contract.public_key).rows == 1
    with pytest.raises(ContractError): Contract(tmp_path / "b.sqlite", signing_key=b"short")


# ledger: tampering

@pytest.fixture(scope="module")
def base(tmp_path_factory):
    ledger = Contract(tmp_path_factory.mktemp("ledger") / "ledger.sqlite", RULES)
    for i in range(8): ledger.grant(Rule(f"r{i}", "view", "p", "d")) if i in (2, 5) else ledger.request(**VIEW, time=i)
    return ledger


@pytest.fixture
def copy(base, tmp_path):
    for name in (base.path.name, base.path.name + ".head", base.path.name + ".key"): shutil.copy2(base.path.with_name(name), tmp_path)
    return Contract(tmp_path / base.path.name, RULES)


def sql(contract, *statements):
    with closing(sqlite3.connect(contract.path)) as db:
        for statement in statements: db.execute(*statement) if isinstance(statement, tuple) else db.execute(statement)
        db.commit()


def test_untouched(copy):
    report = copy.verify()
    assert report and report.rows == 8 and report.head[0] == 8 and copy.verify(report.head) and verify_ledger(copy.path, copy.public_key, report.head)
    assert not verify_ledger(copy.path, bytes(32)) and not verify_ledger(copy.path, Contract(copy.path.with_name("x.sqlite")).public_key)


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
        for name in copy.path.parent.glob("*-wal"): name.unlink()
        copy.path.write_bytes(content); assert copy.verify()


def test_rehashed_rows_without_the_key_are_found(copy):
    "The strongest change without the signing key: edit a row and recompute every hash and link after it."
    import hashlib
    from medcrypt.vault.ledger import _canonical, _hash, _link
    with closing(sqlite3.connect(copy.path)) as db:
        rows = db.execute("SELECT sequence, body, signature FROM ledger ORDER BY sequence").fetchall()
        previous = ""
        for sequence, body, signature in rows:
            fields = {**json.loads(body), "previous": previous}
            if sequence == 4: fields["subject"] = "somebody-else"
            body = _canonical(fields); previous = _link(_hash(body), signature)
            db.execute("UPDATE ledger SET body = ?, hash = ? WHERE sequence = ?", (body, _hash(body), sequence))
        db.commit()
    problems = copy.verify().problems
    assert any("row 4: not signed" in p for p in problems) and not any("row 3" in p for p in problems)


def test_head_tampering(copy):
    head = copy.path.with_name(copy.path.name + ".head"); good = json.loads(head.read_text())
    for change in ({"sequence": 7}, {"hash": "0" * 64}, {"rules": "0" * 64}, {"signature": "00"}, {"signature": None}):
        head.write_text(json.dumps({**good, **change}))
        assert not copy.verify()
        with pytest.raises(ContractError, match="head"): copy.request(**VIEW)
    for text in ("", "[]", "nonsense"):
        head.write_text(text); assert not copy.verify()
    head.unlink(); assert not copy.verify()
    with pytest.raises(ContractError, match="head is missing"): copy.request(**VIEW)


def test_a_cut_ledger_is_not_continued(copy):
    sql(copy, "DELETE FROM ledger WHERE sequence >= 7")
    with pytest.raises(ContractError, match="verify"): copy.request(**VIEW)
    with pytest.raises(ContractError, match="verify"): Contract(copy.path, RULES).request(**VIEW)
    assert "rows 7 to 8 are gone" in " ".join(copy.verify().problems)


def test_a_deleted_ledger_is_not_started_again(copy):
    copy.path.unlink()
    for name in copy.path.parent.glob("*.sqlite-*"): name.unlink()
    with pytest.raises(ContractError): Contract(copy.path, RULES).request(**VIEW)
    assert not Contract(copy.path, RULES).verify()


def test_forged_or_hidden_rule_rows_give_nobody_anything(copy):
    asked = {**VIEW, "role": "r2", "purpose": "p", "dataset": "d"}
    assert copy.request(**asked).granted
    for statement in ("UPDATE ledger SET kind = 'request' WHERE sequence = 3", "UPDATE ledger SET body = replace(body, 'r2', 'r9') WHERE sequence = 3", "DELETE FROM ledger WHERE sequence = 3",
                      "UPDATE ledger SET kind = 'grant' WHERE sequence = 1", "INSERT INTO ledger VALUES (10, 'grant', '{\"kind\":\"grant\"}', 'aa', 'bb')"):
        content = copy.path.read_bytes(); sql(copy, statement)
        with pytest.raises(ContractError, match="verify"): copy.request(**asked)
        for name in copy.path.parent.glob("*-wal"): name.unlink()
        copy.path.write_bytes(content)
    assert copy.request(**asked).granted


def test_what_only_an_anchor_finds(copy):
    "Whoever kept an old copy of ledger and head can put both back: that shows only against a head noted elsewhere."
    old = {name: (copy.path.with_name(name)).read_bytes() for name in (copy.path.name, copy.path.name + ".head")}
    for _ in range(3): copy.request(**VIEW)
    anchor = copy.verify().head
    for name, data in old.items(): copy.path.with_name(name).write_bytes(data)
    for name in copy.path.parent.glob("*.sqlite-*"): name.unlink()
    assert copy.verify() and "rows 9 to 11 are gone" in " ".join(copy.verify(anchor).problems)
    for _ in range(3): copy.request(**VIEW, time=5)
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
    for size in (0, 100, 4096, len(content) - 1):
        copy.path.write_bytes(content[:size]); assert size == len(content) - 1 or not copy.verify()


# ledger: processes

WRITER = """
import sys; from medcrypt.vault.contract import Contract, Rule
c = Contract(sys.argv[1], [Rule("model", "view", "research", "phantom")])
for i in range(int(sys.argv[3])):
    d = c.request(subject=f"{sys.argv[2]}-{i}", role="model", action="view", purpose="research", dataset="phantom")
    print(d.sequence, d.request_hash, flush=True)
"""


def test_processes_and_threads_lose_nothing(tmp_path):
    path = tmp_path / "ledger.sqlite"   # all start at once: they also race for its creation
    processes = [run(WRITER, path, f"process{k}", 40) for k in range(3)]
    outputs = [p.communicate()[0].split("\n") for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0]
    contract = Contract(path, RULES); wrong = []
    def work(k):
        try: [contract.request(**{**VIEW, "subject": f"thread{k}-{i}"}) for i in range(20)]
        except Exception as error: wrong.append(error)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for t in threads: t.start()
    for t in threads: t.join()
    report, rows = contract.verify(), contract.ledger.rows()
    assert not wrong and report and report.rows == 180
    assert {row["subject"] for row in rows} == {f"process{k}-{i}" for k in range(3) for i in range(40)} | {f"thread{k}-{i}" for k in range(3) for i in range(20)}
    for k in range(3): assert [r["subject"] for r in rows if r["subject"].startswith(f"process{k}")] == [f"process{k}-{i}" for i in range(40)]
    assert len({int(line.split()[0]) for o in outputs for line in o if line}) == 120


def test_kill_9(tmp_path):
    path, generator, promised = tmp_path / "ledger.sqlite", random.Random(1), {}
    Contract(path)
    for round_ in range(6):
        process = run(WRITER, path, f"round{round_}", 10**6)
        for _ in range(generator.randrange(1, 25)):
            sequence, row_hash = process.stdout.readline().split(); promised[int(sequence)] = row_hash
        time.sleep(generator.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        promised |= {int(line.split()[0]): line.split()[1] for line in rest.split("\n") if re.fullmatch(r"\d+ [0-9a-f]{64}", line)}
        contract = Contract(path, RULES); report = contract.verify()
        assert report, report.problems
        assert report.rows >= max(promised)
        for sequence, row_hash in promised.items(): assert contract.ledger.row(sequence, row_hash)
    assert contract.request(**VIEW).sequence == report.rows + 1 and contract.verify()


def test_ledger_holds_no_object_names_and_no_keys(contract, tmp_path):
    name = object_name(b"x"); contract.request(**VIEW, objects=[name])
    opened = contract.request(subject="a", role="clinician", purpose="care", action="decrypt", dataset="phantom"); key = contract.data_key(opened, KEY)
    for file in (f for f in tmp_path.iterdir() if f.suffix != ".key"):
        data = file.read_bytes()
        assert not any(secret in data for secret in (name.encode(), bytes(key), key.hex().encode(), bytes(KEY), KEY.hex().encode()))


def test_ledger_alone(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    fields, row_hash = ledger.append(lambda changes: {"kind": "note", "n": len(changes)})
    assert ledger.append(lambda changes: {"kind": "note", "n": len(changes), "sequence": 77, "previous": "x"})[0]["n"] == 1
    assert ledger.row(1, row_hash) == fields and [r["sequence"] for r in ledger.rows()] == [1, 2] and ledger.verify()
    def fail(changes): raise ContractError("no")
    with pytest.raises(ContractError, match="^no$"): ledger.append(fail)
    assert ledger.verify().rows == 2


def test_signatures_have_one_writing(copy):
    "Ed25519 with S + L instead of S (RFC 8032 section 5.1.7 refuses it), capitals, spaces."
    signature = sqlite3.connect(copy.path).execute("SELECT signature FROM ledger WHERE sequence = 8").fetchone()[0]
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(bytes.fromhex(signature[64:]), "little") + order
    for other in (signature[:64] + s.to_bytes(32, "little").hex(), signature.upper(), f"{signature[:2]} {signature[2:]}", signature + "00"):
        sql(copy, ("UPDATE ledger SET signature = ? WHERE sequence = 8", (other,)))
        assert any("row 8: not signed" in problem for problem in copy.verify().problems)
    sql(copy, ("UPDATE ledger SET signature = ? WHERE sequence = 8", (signature,))); assert copy.verify()
