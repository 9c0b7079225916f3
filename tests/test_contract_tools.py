"What `medcrypt contract` says: policies checked, requests explained, ledgers and exports verified, exports written and nothing else overwritten."

import pytest

from access import SUBJECTS, VIEW, ask, sql
from medcrypt.cli.contract_tools import check, explain_text, export_file, parse_time, public_key_text, verify_text
from medcrypt.crypto.keys import KeyFileError
from medcrypt.vault.contract import Contract
from medcrypt.vault.ledger import ContractError
from medcrypt.vault.rules import Policy, Rule, dump_policy

LIMITED = Policy((Rule("model", "view", "study", "phantom", begins=0, expires=4e9, uses=2), Rule("nobody", "*", "care", "*")), SUBJECTS)
STUDY = {name: value for name, value in {**VIEW, "purpose": "study"}.items()}


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.toml"; path.write_text(dump_policy(LIMITED)); return path


@pytest.fixture
def contract(tmp_path):
    contract = Contract(tmp_path / "ledger.sqlite", LIMITED)
    for _ in range(3): ask(contract, {"purpose": "study"})
    return contract


def test_check(rules):
    text = check(rules)
    assert f"{rules}: 2 rules, 4 subjects" in text and "model may view phantom for study, from 1970-01-01T00:00:00Z, until 2096-10-02T07:06:40Z, 2 uses in all" in text
    assert "subject guest-1: guest, visitor; key" in text and "note: rule 2 (line 10): no subject has the role 'nobody'" in text
    rules.write_text("[[rule]]\nrole = 3\n")
    with pytest.raises(ContractError, match="line 1 "): check(rules)


def test_explain(rules, contract):
    text = explain_text(rules, **STUDY)
    assert text.startswith(f"granted: rule {LIMITED.rules[0].id[:12]}") and "  ok  purpose: study\n" in text and "  ok  uses: 0 of 2 are used" in text and "  NO  role: the rule says nobody, the request model" in text
    assert explain_text(rules, **STUDY, ledger=contract.path).startswith("refused: uses: all 2 of 2 are used") and "  NO  uses: all 2 of 2 are used" in explain_text(rules, **STUDY, ledger=contract.path)
    for change, start in (({"time": "1969-12-31"}, "refused: begins: not before"), ({"time": 4e9}, "refused: expires: the rule has expired"), ({"subject": "x"}, "refused: subject: x is not known"), ({"role": "visitor"}, "refused: role: model-1 does not"),
                          ({"subject": None}, "granted")):
        assert explain_text(rules, **{**STUDY, **change}).startswith(start), change
    contract.grant(Rule("model", "view", "study", "*"))
    assert explain_text(rules, **STUDY, ledger=contract.path).startswith("granted") and contract.verify().rows == 4   # nothing recorded
    with pytest.raises(ContractError, match="no such ledger"): explain_text(rules, **STUDY, ledger=rules.with_name("missing"))
    assert not rules.with_name("missing").exists()
    with pytest.raises(ContractError, match="^action"): explain_text(rules, **{**STUDY, "action": "delete"})
    contract.path.with_name("ledger.sqlite.key").unlink()
    with pytest.raises(KeyFileError): explain_text(rules, **STUDY, ledger=contract.path)


def test_times():
    assert parse_time("2030-01-01") == parse_time("2030-01-01T01:00+01:00") == parse_time("1893456000") == parse_time(1893456000) == 1893456000 and parse_time(None) > 1.7e9
    for text in ("noon", "", "2030-13-01", "nan", "inf"):
        with pytest.raises(ContractError): parse_time(text)


def test_verify_and_export(contract, tmp_path):
    output, key = tmp_path / "export.jsonl", public_key_text(contract.path)
    assert key == contract.public_key.hex() and export_file(contract.path, output) == f"{output}: 3 rows and the signed head"
    (tmp_path / "public").write_text(key + "\n"); anchor = "{}:{}".format(*contract.verify().head)
    for path in (contract.path, output):
        for public in (key, tmp_path / "public", contract.public_key):
            text = verify_text(path, str(public) if not isinstance(public, bytes) else public, anchor)
            assert text.startswith(f"{path}: 3 rows") and text.endswith(f"anchor: {anchor}")
        with pytest.raises(ContractError, match="not signed with this ledger's key"): verify_text(path, "ab" * 32)
        with pytest.raises(ContractError, match="anchor: rows 4 to 9 are gone"): verify_text(path, key, "9:" + "0" * 64)
    sql(contract, "DELETE FROM ledger WHERE sequence = 2")
    with pytest.raises(ContractError, match=r"problems: row 3: follows row 1") as caught: verify_text(contract.path, key)
    assert "\n" not in str(caught.value) and verify_text(output, key)
    output.write_text("".join(line for line in output.read_text().splitlines(True) if '"sequence":2,' not in line))
    with pytest.raises(ContractError, match="row 3: follows row 1"): verify_text(output, key)


def test_what_cannot_be_verified(contract, tmp_path):
    key = contract.public_key.hex(); (tmp_path / "latin").write_bytes(b"\xe9"); (tmp_path / "empty").write_bytes(b"")
    for arguments, words in (((tmp_path / "missing", key), "cannot be read"), ((tmp_path, key), "cannot be read"), ((tmp_path / "latin", key), "neither a ledger"), ((tmp_path / "empty", key), "line 1"), ((contract.path, key.upper()), "--public-key"),
                             ((contract.path, str(tmp_path / "latin")), "--public-key"), ((contract.path, str(tmp_path / "empty")), "--public-key"), ((contract.path, key, "3"), "--anchor"), ((contract.path, key, "-1:" + "0" * 64), "--anchor")):
        with pytest.raises(ContractError, match=words): verify_text(*arguments)


def test_an_export_replaces_nothing_by_accident(contract, tmp_path):
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (tmp_path / "there").write_text("x"); (tmp_path / "link").symlink_to(contract.path)
    for output, force, words in (("there", False, "--force"), ("ledger.sqlite", True, "belongs to the ledger"), ("ledger.sqlite.head", True, "belongs to the ledger"), ("ledger.sqlite.key", True, "belongs to the ledger"), ("link", True, "belongs to the ledger"),
                                 ("no/folder", True, "no such folder"), (".", True, "ordinary")):
        with pytest.raises(ContractError, match=words): export_file(contract.path, tmp_path / output, force)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    export_file(contract.path, tmp_path / "there", force=True); assert len((tmp_path / "there").read_text().splitlines()) == 4
    with pytest.raises(ContractError, match="no such ledger"): export_file(tmp_path / "missing", tmp_path / "new")
    assert not (tmp_path / "new").exists() and not (tmp_path / "missing").exists()
    sql(contract, "UPDATE ledger SET body = 'x' WHERE sequence = 3")
    with pytest.raises(ContractError, match="row 3 is damaged"): export_file(contract.path, tmp_path / "new")
    assert not (tmp_path / "new").exists()
