"Contract: deny by default, signed requests and every way to forge or repeat them, uses under load, decisions that end, keys of single objects, explanations that agree with decisions."
import json, os, stat, tempfile, threading, time
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from access import KEYS, MASTER, NOW, OPEN, POLICY, RULES, SUBJECTS, VIEW, ask, run, signed, sql
from medcrypt.crypto.envelope import EnvelopeError, parse, seal, unseal
from medcrypt.crypto.keys import DataKey, Key, KeyFileError
from medcrypt.vault import contract as module
from medcrypt.vault.contract import Contract, ContractError, Decision, dataset_key
from medcrypt.vault.ledger import genuine, verify_ledger
from medcrypt.vault.requests import Request, public_key_of, read_request, request_message, sign_request, verify_request
from medcrypt.vault.rules import ACTIONS, Policy, Rule, Subject
from medcrypt.vault.store import Store, StoreError, object_name

NONCE = "0123456789abcdef" * 2


@pytest.fixture
def contract(tmp_path): return Contract(tmp_path / "ledger.sqlite", POLICY)


def last(contract): return contract.ledger.rows()[-1]


# decisions

def test_deny_by_default(tmp_path):
    for policy in (None, Policy(), Policy((), SUBJECTS)):
        contract = Contract(tmp_path / "a" / f"{id(policy)}.sqlite", policy)
        decisions = [ask(contract, {"action": action}) for action in ACTIONS]
        assert not any(d.granted for d in decisions) and [d.sequence for d in decisions] == [1, 2, 3] and contract.verify().rows == 3


def test_decisions(contract):
    for change, granted in (({}, True), ({"action": "decrypt"}, False), ({"role": "visitor"}, False), ({"dataset": "phantom2"}, False), ({"purpose": "care"}, False),
                            ({**OPEN, "dataset": "anything"}, True), ({**OPEN, "action": "store"}, True), ({**OPEN, "role": "model"}, False)):
        assert ask(contract, change).granted is granted, change
    visitor = {"subject": "visitor-1", "role": "visitor", "purpose": "teaching"}
    assert ask(contract, visitor, 999).granted and not ask(contract, visitor, 1000).granted and "expired" in last(contract)["reason"]
    rows = contract.ledger.rows()
    assert [row["granted"] for row in rows] == [True, False, False, False, False, True, True, False, True, False] and contract.verify()
    assert [row["subject"] for row in rows] == ["model-1"] * 5 + ["clinician-7"] * 3 + ["visitor-1"] * 2


def test_begins_edge(tmp_path):
    contract = Contract(tmp_path / "l.sqlite", Policy((replace(RULES[0], begins=NOW, expires=NOW + 10),), SUBJECTS))
    assert [ask(contract, time=at, clock=clock).granted for at, clock in ((NOW, NOW - 0.001), (NOW, NOW), (NOW, NOW + 9.999), (NOW, NOW + 10))] == [False, True, True, False]   # the contract's clock counts, not the request's


def test_policy_must_be_one(tmp_path):
    for policy in (list(RULES), RULES, "rules.toml"):
        with pytest.raises(ContractError, match="policy"): Contract(tmp_path / "l.sqlite", policy)
    for more in ({"max_age_s": 0}, {"valid_s": -1}, {"max_age_s": float("nan")}, {"valid_s": float("inf")}):
        with pytest.raises(ContractError, match=[*more][0]): Contract(tmp_path / "l.sqlite", POLICY, **more)


# malformed requests are no requests

@pytest.mark.parametrize("change", ({"subject": ""}, {"subject": "*"}, {"role": "*"}, {"dataset": "*"}, {"action": "*"}, {"action": "delete"}, {"action": None}, {"purpose": "a\0"}, {"objects": ["../x"]}, {"objects": "a" * 64},
                                    {"time": float("nan")}, {"time": "now"}, {"nonce": "0" * 31}, {"nonce": "0" * 33}, {"nonce": "A" * 32}, {"nonce": 7}, {"contract": bytes(31)}, {"contract": "00" * 32}))
def test_malformed_requests(change):
    with pytest.raises(ContractError): sign_request(KEYS["model-1"], **{**VIEW, "contract": bytes(32), **change})


@pytest.mark.parametrize("change", ({"signature": "0" * 127}, {"signature": "A" * 128}, {"signature": "0" * 128 + "\n"}, {"signature": b"0" * 128}, {"objects": ("b" * 64, "a" * 64)}, {"objects": ("a" * 64, "a" * 64)}, {"objects": ["a" * 64]},
                                    {"contract": "A" * 64}, {"nonce": "0" * 32 + "\n"}, {"time_s": None}, {"role": "model "}))
def test_malformed_values(contract, change):
    with pytest.raises(ContractError): replace(signed(contract), **change)


def test_what_is_no_request(contract):
    for value in (None, VIEW, "request", signed(contract).text()):
        with pytest.raises(ContractError, match="signed Request"): contract.request(value)
    for key in (b"short", bytes(33), "00" * 32, None):
        with pytest.raises(ContractError, match="signing_key"): sign_request(key, **VIEW, contract=bytes(32))
    assert contract.verify().rows == 0


def test_requests_as_text(contract):
    request = signed(contract, objects=["b" * 64, "a" * 64]); text = request.text()
    assert read_request(text) == request and contract.request(read_request(text), time=NOW).granted
    fields = json.loads(text)
    for other in (text + " ", text[:-1], text.replace(",", ", "), json.dumps(fields), text.replace('"role":"model"', '"role":"model","role":"model"'), json.dumps({**fields, "x": 1}, sort_keys=True, separators=(",", ":")),
                  text.replace("1800000000.0", "1800000000"), "[" * 10**5, "null", '"x"', b"x", None, text.replace('"model-1"', '"\\u006dodel-1"')):
        with pytest.raises(ContractError): read_request(other)


# forged requests

def test_every_field_is_signed(contract):
    request = signed(contract, {"role": "model"}, objects=["a" * 64])
    changes = {"subject": "guest-1", "role": "guest", "action": "decrypt", "purpose": "care", "dataset": "nih", "objects": ("b" * 64,), "contract": "0" * 64, "nonce": NONCE, "time_s": NOW + 1, "signature": request.signature[:-2] + ("01" if request.signature.endswith("00") else "00")}
    assert set(changes) == set(Request.__dataclass_fields__) and verify_request(request, public_key_of(KEYS["model-1"]))
    for name, value in changes.items():
        forged = replace(request, **{name: value})
        assert not verify_request(forged, public_key_of(KEYS["model-1"]))
        decision = contract.request(forged, time=NOW)
        assert not decision.granted and decision.reason == "signature: does not verify" and last(contract)["verified"] is False
    assert contract.request(request, time=NOW).granted and contract.verify().rows == 11   # forgeries with its nonce have not used it up


def test_signed_with_another_key(contract):
    for key in (KEYS["clinician-7"], bytes(32)):
        decision = ask(contract, key=key)
        assert not decision.granted and decision.reason == "signature: does not verify"


def test_unknown_subject(contract):
    for name in ("nobody", "Model-1", "model-1x"):
        decision = ask(contract, {"subject": name}, key=KEYS["model-1"])
        assert not decision.granted and decision.reason == f"subject: {name} is not known" and last(contract)["key"] is None


def test_another_contracts_request(contract, tmp_path):
    other = Contract(tmp_path / "other.sqlite", POLICY); request = signed(contract)
    decision = other.request(request, time=NOW)
    assert not decision.granted and decision.reason == "contract: the request is addressed to another contract" and last(other)["verified"]
    assert contract.request(request, time=NOW).granted and other.verify()


def test_replay(contract, tmp_path):
    request = signed(contract, nonce=NONCE)
    assert contract.request(request, time=NOW).granted
    for again in (request, signed(contract, nonce=NONCE), signed(contract, {"purpose": "care"}, nonce=NONCE), signed(contract, nonce=NONCE, time=NOW + 1)):
        for opened in (contract, Contract(contract.path, POLICY)):
            decision = opened.request(again, time=NOW)
            assert not decision.granted and decision.reason == "nonce: used before, the request is a replay"
    assert ask(contract, OPEN, nonce=NONCE).granted            # another subject's nonces are their own
    assert ask(contract, nonce=NONCE[::-1]).granted


def test_a_refused_request_cannot_be_tried_again(contract):
    request = signed(contract, {"role": "guest", "subject": "guest-1", "purpose": "audit"})
    assert not contract.request(request, time=NOW).granted
    contract.grant(Rule("guest", "view", "audit", "phantom"))
    assert contract.request(request, time=NOW).reason.startswith("nonce") and ask(contract, {"role": "guest", "subject": "guest-1", "purpose": "audit"}).granted
    early = signed(contract, time=NOW + 1000)
    assert "future" in contract.request(early, time=NOW).reason and contract.request(early, time=NOW + 1000).reason.startswith("nonce")


@pytest.mark.parametrize("max_age_s", (300, 5))
def test_stale_and_future_times(tmp_path, max_age_s):
    contract = Contract(tmp_path / "l.sqlite", POLICY, max_age_s=max_age_s)
    for off, word in ((-max_age_s - 0.001, "too old"), (-max_age_s, None), (0, None), (max_age_s, None), (max_age_s + 0.001, "in the future"), (-1e8, "too old"), (1e8, "in the future")):
        decision = ask(contract, time=NOW + off, clock=NOW)
        assert decision.granted is (word is None) and (word or "rule") in decision.reason, off
    assert Contract(tmp_path / "l.sqlite", POLICY).request(signed(contract, time=None)).granted   # both clocks are the real one


def test_role_not_held(tmp_path):
    contract = Contract(tmp_path / "l.sqlite", Policy((Rule("*", "*", "*", "*"),), SUBJECTS))
    decision = ask(contract, {"role": "clinician"})
    assert not decision.granted and decision.reason == "role: model-1 does not hold the role clinician"
    assert ask(contract, {"subject": "guest-1", "role": "visitor"}).granted and ask(contract, {"subject": "guest-1", "role": "guest"}).granted


def test_the_first_failing_check_is_the_reason(contract):
    "Subject, signature, contract, time, nonce, role, rules: in this order, each a row."
    other = public_key_of(bytes(32)); used = signed(contract, nonce=NONCE); contract.request(used, time=NOW)
    make = lambda change=(), key=None, contract=contract.public_key, **more: sign_request(key or KEYS["model-1"], **{**VIEW, **dict(change), "contract": contract, "time": NOW, "nonce": NONCE, **more})
    old, bad = {"time": NOW - 999}, {"role": "clinician"}
    cases = ((make({**bad, "subject": "x"}, bytes(32), other, **old), "subject"), (make(bad, bytes(32), other, **old), "signature"), (make(bad, None, other, **old), "contract"), (make(bad, **old), "time"), (make(bad), "nonce"),
             (make(bad, nonce="1" * 32), "role"), (make({"purpose": "x"}, nonce="2" * 32), "purpose"))
    for number, (request, word) in enumerate(cases):
        decision = contract.request(request, time=NOW)
        assert not decision.granted and decision.reason.startswith(word + ":") and decision.sequence == number + 2 and last(contract)["reason"] == decision.reason


def test_an_auditor_can_check_every_request_against_the_ledger(contract):
    ask(contract, OPEN, objects=["a" * 64]); ask(contract, {"purpose": "x"}); ask(contract, key=bytes(32)); ask(contract, {"subject": "x"}, key=bytes(32))
    rows = contract.ledger.rows()
    assert [genuine(bytes.fromhex(row["key"]), request_message(row), row["request_signature"]) for row in rows[:2]] == [True, True]
    assert [(row["verified"], row["nonce"], row["request_signature"]) for row in rows[2:]] == [(False, None, None)] * 2
    assert not genuine(bytes.fromhex(rows[0]["key"]), request_message({**rows[0], "objects": 2}), rows[0]["request_signature"])


# uses

LIMITED = Rule("model", "view", "study", "phantom", uses=3)
STUDY = {"purpose": "study"}


@pytest.fixture
def limited(tmp_path): return Contract(tmp_path / "limited.sqlite", Policy((*RULES, LIMITED), SUBJECTS))


def test_uses(limited):
    request = signed(limited, STUDY)
    assert limited.request(request, time=NOW).granted
    for _ in range(3): assert not limited.request(request, time=NOW).granted   # a replay uses nothing up,
    for change in ({"role": "clinician"}, {"action": "decrypt"}): assert not ask(limited, {**STUDY, **change}).granted   # nor what is refused otherwise,
    for more in ({"key": bytes(32)}, {"time": NOW - 999, "clock": NOW}): assert not ask(limited, STUDY, **more).granted
    assert limited.explain(**{**VIEW, **STUDY}, time=NOW).granted and ask(limited).granted                              # nor an explanation, nor another rule
    reopened = Contract(limited.path, limited.policy)
    assert [ask(reopened, STUDY).granted for _ in range(4)] == [True, True, False, False]
    assert last(limited)["reason"] == "uses: all 3 of 3 are used" and limited.verify()
    assert [(row["use"], row["rule"]) for row in limited.ledger.rows() if row["use"]] == [(n, LIMITED.id) for n in (1, 2, 3)]


def test_uses_of_a_granted_rule_go_on_when_it_is_granted_again(contract):
    for round_ in range(2):
        contract.grant(LIMITED)
        granted = [ask(contract, STUDY).granted for _ in range(2)]
        assert granted == [[True, True], [True, False]][round_]
        contract.revoke(LIMITED); assert not ask(contract, STUDY).granted
    contract.grant(replace(LIMITED, uses=4)); assert ask(contract, STUDY).granted   # another rule


def test_uses_are_not_reset_by_taking_rows_away(limited):
    for _ in range(3): assert ask(limited, STUDY).granted
    ask(limited)
    for statement in ("DELETE FROM ledger WHERE sequence = 1", "DELETE FROM ledger WHERE sequence < 4", "UPDATE ledger SET body = '{}' WHERE sequence = 2"):
        sql(limited, statement)
        decision = ask(Contract(limited.path, limited.policy), STUDY)
        assert not decision.granted and decision.reason == "uses: all 3 of 3 are used" and not limited.verify()
    sql(limited, f"DELETE FROM ledger WHERE sequence = {last(limited)['sequence']}")
    with pytest.raises(ContractError, match="verify"): ask(limited, STUDY)


def test_uses_are_not_reset_by_an_older_head(limited):
    head = limited.path.with_name("limited.sqlite.head"); old = head.read_bytes()
    for _ in range(3): ask(limited, STUDY)
    head.write_bytes(old)
    assert not ask(limited, STUDY).granted and limited.verify()


@pytest.mark.parametrize("at", ("before the head", "after the head"))
def test_uses_and_a_crash(limited, monkeypatch, at):
    "kill -9 between the commit of a granted row and its head: nobody got the answer, but the use counts."
    code = """
import os, sys; sys.path.insert(0, "tests"); from access import *; from medcrypt.vault.contract import Contract; from medcrypt.vault.ledger_file import Ledger
write = Ledger._write_head
def crash(self, state):
    if sys.argv[2] == "after the head": write(self, state)
    os.kill(os.getpid(), 9)
c = Contract(sys.argv[1], Policy((*RULES, Rule("model", "view", "study", "phantom", uses=3)), SUBJECTS)); Ledger._write_head = crash
ask(c, {"purpose": "study"})
"""
    for _ in range(2): assert run(code, limited.path, at).wait() == -9
    assert limited.verify() and limited.verify().rows == 2
    assert [ask(limited, STUDY).granted for _ in range(2)] == [True, False] and limited.verify()


HAMMER = """
import sys; sys.path.insert(0, "tests"); from access import *; from medcrypt.vault.contract import Contract
c = Contract(sys.argv[1], Policy((Rule("model", "view", "study", "phantom", uses=25),), SUBJECTS))
print(sum(ask(c, {"purpose": "study"}).granted for _ in range(20)))
"""


def test_exactly_n_uses_under_processes_and_threads(tmp_path):
    path = tmp_path / "l.sqlite"
    contract = Contract(path, Policy((replace(LIMITED, uses=25),), SUBJECTS)); granted = []
    processes = [run(HAMMER, path) for _ in range(2)]
    threads = [threading.Thread(target=lambda: granted.append(sum(ask(contract, STUDY).granted for _ in range(15)))) for _ in range(3)]
    for t in threads: t.start()
    for t in threads: t.join()
    outputs = [int(p.communicate()[0]) for p in processes]
    assert [p.returncode for p in processes] == [0, 0] and len(granted) == 3 and sum(outputs) + sum(granted) == 25
    report, rows = contract.verify(), contract.ledger.rows()
    assert report and report.rows == 85 and [row["use"] for row in rows if row["granted"]] == [*range(1, 26)]


def test_one_request_sent_by_many_at_once_is_granted_once(tmp_path):
    contract = Contract(tmp_path / "l.sqlite", POLICY); request = signed(contract); granted = []
    threads = [threading.Thread(target=lambda: granted.append(contract.request(request, time=NOW).granted)) for _ in range(6)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert sorted(granted) == [False] * 5 + [True]


# fetch and keys

def test_ten_thousand_objects_are_one_small_row(contract):
    names = [object_name(str(i).encode()) for i in range(10000)]; request = signed(contract, objects=names + names[:5])
    start = time.process_time(); decision = contract.request(request, time=NOW); seconds = time.process_time() - start
    row, = contract.ledger.rows()
    assert row["objects"] == 10000 and len(json.dumps(row)) < 1500 and seconds < 2 and not any(n in json.dumps(row) for n in names[:50])
    assert decision.objects == tuple(sorted(names)) and names[0] not in repr(decision) + repr(request)


@pytest.fixture
def store(tmp_path): return Store(tmp_path / "store")


def filled(store, dataset="phantom", count=4): return [store.put(seal(bytes([i]), dataset_key(MASTER, dataset), {"number": i})) for i in range(count)]


def test_fetch(contract, store, tmp_path):
    names = [store.put(bytes([i])) for i in range(5)]
    decision = ask(contract, objects=names[:4])
    assert list(contract.fetch(store, decision, names[1::-1], time=NOW)) == [b"\1", b"\0"] and sorted(contract.fetch(store, decision, time=NOW)) == [bytes([i]) for i in range(4)]
    for wrong in (names, ["../x"], [names[4]]):
        with pytest.raises(ContractError): contract.fetch(store, decision, wrong, time=NOW)
    stored = ask(contract, {**OPEN, "action": "store"}, objects=names); assert stored.granted
    with pytest.raises(ContractError, match="store"): contract.fetch(store, stored, time=NOW)
    opened = ask(contract, OPEN, objects=names)
    assert len(list(contract.fetch(store, opened, time=NOW))) == 5
    (tmp_path / "store" / names[0][:2] / names[0]).unlink()
    with pytest.raises(StoreError): list(contract.fetch(store, decision, time=NOW))


def test_data_keys_open_their_own_object_alone(contract, store):
    names = filled(store); opened = ask(contract, OPEN, objects=names[:3])
    keys = list(contract.data_keys(opened, store, MASTER, names[:3], time=NOW))
    assert len(set(keys)) == 3 and all(type(key) is DataKey for key in keys) and not {bytes(key) for key in keys} & {bytes(dataset_key(MASTER, "phantom")), bytes(MASTER)}
    for i, name in enumerate(names):
        for j, key in enumerate(keys):
            if i == j: assert unseal(store.get(name), key) == (bytes([i]), {"number": i}); continue
            with pytest.raises(EnvelopeError): unseal(store.get(name), key)
    assert list(contract.data_keys(opened, store, MASTER, [names[2]], time=NOW)) == [keys[2]]
    assert list(contract.data_keys(opened, store, MASTER, time=NOW)) == [dict(zip(names, keys))[name] for name in sorted(names[:3])]
    with pytest.raises(ContractError, match="not asked for"): contract.data_keys(opened, store, MASTER, names, time=NOW)
    assert not hasattr(contract, "data_key")


def test_data_keys_need_a_granted_decrypt(contract, store):
    names = filled(store)
    for change in ({}, {**OPEN, "action": "view"}, {**OPEN, "action": "store"}):
        decision = ask(contract, change, objects=names); assert decision.granted
        with pytest.raises(ContractError, match="this needs decrypt"): contract.data_keys(decision, store, MASTER, time=NOW)
    with pytest.raises(ContractError, match="not granted"): contract.data_keys(ask(contract, {"action": "decrypt"}, objects=names), store, MASTER, time=NOW)


def test_data_keys_of_another_data_set_or_master_key(contract, store):
    names = filled(store, "nih"); opened = ask(contract, OPEN, objects=names)
    with pytest.raises(EnvelopeError): list(contract.data_keys(opened, store, MASTER, time=NOW))
    assert len(list(contract.data_keys(ask(contract, {**OPEN, "dataset": "nih"}, objects=names), store, MASTER, time=NOW))) == 4
    with pytest.raises(EnvelopeError): list(contract.data_keys(ask(contract, {**OPEN, "dataset": "nih"}, objects=names), store, bytes(32), time=NOW))


def test_a_wrapped_key_that_was_copied_into_another_object_is_not_given(contract, store):
    "Otherwise the ledger would say that the copy was asked for, and the key of the first would be gone."
    sealing = dataset_key(MASTER, "phantom")
    secret, mine = seal(bytes(20000), sealing, chunk_bits=12), seal(b"harmless", bytes(32))
    damaged = bytearray(secret); damaged[-1] ^= 1
    size = 16 + 4096 + 16 + 32   # of a whole chunk
    crafted = {"slots": mine.replace(parse(mine).slots, parse(secret).slots), "damaged": bytes(damaged), "cut": secret[:58 + size], "cut between": secret[:58 + 3 * size], "longer": secret + secret[58:58 + size]}
    assert parse(crafted["slots"]).slots == parse(secret).slots and len(parse(crafted["cut"]).ivs) == 1 and len(parse(crafted["cut between"]).ivs) == 3
    assert list(contract.data_keys(ask(contract, OPEN, objects=[good := store.put(secret)]), store, MASTER, [good], time=NOW)) == [module.data_key(secret, sealing)]
    for how, envelope in crafted.items():
        name = store.put(envelope)
        with pytest.raises(EnvelopeError, match="cannot be opened"): list(contract.data_keys(ask(contract, OPEN, objects=[name]), store, MASTER, time=NOW))


def test_a_right_on_one_data_set_gives_no_key_of_another(contract, store):
    "Both lie in one store, against the advice; the ciphertext can be had, the key cannot."
    foreign = store.put(seal(b"of the ward", dataset_key(MASTER, "ward-3")))
    decision = ask(contract, OPEN, objects=[foreign])
    assert decision.granted and decision.dataset == "phantom" and len(list(contract.fetch(store, decision, time=NOW))) == 1
    with pytest.raises(EnvelopeError, match="cannot be opened"): list(contract.data_keys(decision, store, MASTER, time=NOW))


def test_forged_decisions(contract, store, tmp_path):
    names = filled(store, count=3)
    seen, denied, opened = ask(contract, objects=names[:2]), ask(contract, {"action": "decrypt"}, objects=names), ask(contract, OPEN, objects=names[:2])
    other = Contract(tmp_path / "other.sqlite", Policy((Rule("*", "*", "*", "*"),), SUBJECTS)); foreign = ask(other, {"action": "decrypt"}, objects=names); assert foreign.granted
    forged = [denied, replace(denied, granted=True), replace(seen, objects=tuple(sorted(names))), replace(denied, granted=True, sequence=seen.sequence, request_hash=seen.request_hash), replace(opened, objects=names[:1]),
              replace(opened, sequence=99), replace(opened, request_hash="0" * 64), foreign, Decision(True, "", 1, "", "model-1", "decrypt", "phantom", tuple(names)), replace(opened, subject="model-1"), replace(seen, subject="clinician-7"),
              replace(opened, dataset="nih"), replace(opened, action="view")]
    contract.grant(RULES[0]); row = contract.ledger.verify().head
    forged.append(replace(opened, sequence=row[0], request_hash=row[1]))   # a row, but no request
    for decision in forged:
        with pytest.raises(ContractError): contract.fetch(store, decision, time=NOW)
        with pytest.raises(ContractError): contract.data_keys(decision, store, MASTER, time=NOW)
    with pytest.raises(ContractError): contract.data_keys(replace(seen, action="decrypt"), store, MASTER, time=NOW)   # what counts is the row, not the claim
    assert list(contract.fetch(store, opened, time=NOW)) and list(contract.data_keys(opened, store, MASTER, time=NOW))
    sql(contract, ("UPDATE ledger SET body = replace(body, '\"granted\":false', '\"granted\":true') WHERE sequence = 2",))
    with pytest.raises(ContractError, match="no such row"): contract.fetch(store, denied, time=NOW)


def test_a_decision_ends_with_its_rule(contract, store):
    name = store.put(b"x"); visitor = {"subject": "visitor-1", "role": "visitor", "purpose": "teaching"}
    decision = ask(contract, visitor, 999, objects=[name])
    assert list(contract.fetch(store, decision, time=999.9)) == [b"x"]
    for later in (1000, None):
        with pytest.raises(ContractError, match="expired"): contract.fetch(store, decision, time=later)


def test_a_decision_ends_by_itself(tmp_path, store, monkeypatch):
    names = filled(store); contract = Contract(tmp_path / "l.sqlite", POLICY, valid_s=60); opened = ask(contract, OPEN, objects=names)
    assert len(list(contract.data_keys(opened, store, MASTER, time=NOW + 59.9))) == 4
    for method in (lambda: contract.fetch(store, opened, time=NOW + 60), lambda: contract.data_keys(opened, store, MASTER, time=NOW + 60), lambda: Contract(contract.path, POLICY).fetch(store, opened, time=NOW + 3000)):
        with pytest.raises(ContractError, match="expired"): method()
    now = [NOW]; monkeypatch.setattr(module.clock, "time", lambda: now[0])
    keys, objects = contract.data_keys(opened, store, MASTER), contract.fetch(store, opened)
    next(keys), next(objects); now[0] = NOW + 61
    for rest in (keys, objects):
        with pytest.raises(ContractError, match="expired"): next(rest)   # an iterator that is kept open gives nothing later


# grant, revoke, enrol, dismiss

def test_grant_and_revoke(contract):
    rule = Rule("guest", "view", "audit", "phantom", begins=date(2020, 1, 1), expires=date(2035, 1, 1), uses=100); asked = {"subject": "guest-1", "role": "guest", "purpose": "audit"}
    assert not ask(contract, asked).granted
    contract.grant(rule); assert ask(contract, asked).granted and ask(Contract(contract.path, Policy((), SUBJECTS)), asked).granted
    with pytest.raises(ContractError): contract.revoke(replace(rule, dataset="nih"))
    with pytest.raises(ContractError): contract.revoke(RULES[0])
    contract.revoke(rule); assert not ask(contract, asked).granted and not ask(Contract(contract.path, POLICY), asked).granted
    contract.grant(rule); assert ask(contract, asked).granted and contract.verify()
    assert [row["kind"] for row in contract.ledger.rows()] == ["request", "grant", "request", "request", "revoke", "request", "request", "grant", "request"]


def test_enrol_and_dismiss(contract):
    key = bytes([99]) * 32; subject = Subject("model-2", ("model",), public_key_of(key)); asked = {"subject": "model-2"}
    assert ask(contract, asked, key=key).reason == "subject: model-2 is not known"
    contract.enrol(subject); assert ask(contract, asked, key=key).granted and ask(Contract(contract.path, POLICY), asked, key=key).granted and not ask(contract, asked, key=bytes(32)).granted
    for wrong in (subject, replace(subject, name="model-3"), replace(SUBJECTS[0], public_key=public_key_of(bytes(32))), replace(SUBJECTS[0], name="model-4")):
        with pytest.raises(ContractError, match="^(name|key): "): contract.enrol(wrong)
    for name in ("model-1", "model-3"):
        with pytest.raises(ContractError, match="dismiss"): contract.dismiss(name)
    contract.dismiss("model-2"); assert not ask(contract, asked, key=key).granted
    contract.enrol(replace(subject, public_key=public_key_of(bytes([98]) * 32)))
    assert not ask(contract, asked, key=key).granted and ask(contract, asked, key=bytes([98]) * 32).granted and contract.verify()
    clash = Contract(contract.path, Policy(RULES, (Subject("model-2", ("clinician",), public_key_of(bytes([97]) * 32)),)))
    with pytest.raises(ContractError, match="model-2"): ask(clash, asked, key=bytes([97]) * 32)   # two keys for one name: nobody is let in


# explain

few = st.sampled_from
rules = st.builds(lambda role, action, purpose, dataset, begins, expires, uses: Rule(role, action, purpose, dataset, begins and NOW + begins, expires and NOW + expires, uses),
                  few(("model", "guest", "*")), few((*ACTIONS, "*")), few(("p", "q", "*")), few(("d", "*")), few((None, -10, 10)), few((None, 11, 20)), few((None, 1, 2)))
asked = st.tuples(few(("model-1", "guest-1", "nobody")), few(("model", "guest", "visitor")), few(ACTIONS), few(("p", "q")), few(("d", "e")), few((-20, 0, 10, 15, 20)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rules, max_size=4), st.lists(rules, max_size=1), st.lists(asked, min_size=1, max_size=5))
def test_explanations_are_decisions(inside, granted, requests):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        contract = Contract(f"{folder}/l.sqlite", Policy(inside, SUBJECTS)); count = {}
        for rule in granted: contract.grant(rule)
        for subject, role, action, purpose, dataset, off in requests:
            fields = {"subject": subject, "role": role, "action": action, "purpose": purpose, "dataset": dataset}
            before = contract.explain(**fields, time=NOW + off)
            decision = ask(contract, fields, NOW + off, key=KEYS.get(subject, bytes(32)))
            assert (before.granted, before.reason) == (decision.granted, decision.reason) and last(contract)["rule"] == (before.rule and before.rule.id)
            if before.rule: count[before.rule.id] = count.get(before.rule.id, 0) + 1
        assert all(count.get(rule.id, 0) <= (rule.uses or 99) for rule in (*inside, *granted)) and contract.verify().rows == len(granted) + len(requests)


def test_explain_writes_nothing(contract):
    assert contract.explain(**VIEW).granted and not contract.explain(**{**VIEW, "subject": "nobody"}).granted and contract.explain(**{k: v for k, v in VIEW.items() if k != "subject"}).granted
    assert not contract.explain(**{**VIEW, "role": "clinician"}).granted and contract.verify().rows == 0
    with pytest.raises(ContractError, match="^action"): contract.explain(**{**VIEW, "action": "*"})


# secrets

def test_signing_key(tmp_path):
    contract = Contract(tmp_path / "a.sqlite", POLICY); key_file = tmp_path / "a.sqlite.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600 and len(contract.public_key) == 32
    ask(contract)
    secret = bytes.fromhex(key_file.read_text())
    for file in tmp_path.iterdir():
        if file != key_file: assert secret not in file.read_bytes() and secret.hex().encode() not in file.read_bytes()
    assert secret.hex() not in repr(vars(contract)) + repr(vars(contract.ledger))
    assert Contract(tmp_path / "a.sqlite").public_key == contract.public_key == Contract(tmp_path / "a.sqlite", signing_key=key_file).public_key == Contract(tmp_path / "a.sqlite", signing_key=Key(secret)).public_key
    with pytest.raises(ContractError): ask(Contract(tmp_path / "a.sqlite", POLICY, signing_key=MASTER))   # another key does not continue this ledger
    key_file.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"): Contract(tmp_path / "a.sqlite")
    key_file.unlink()
    with pytest.raises(KeyFileError): Contract(tmp_path / "a.sqlite")
    assert not key_file.exists() and verify_ledger(tmp_path / "a.sqlite", contract.public_key).rows == 1
    with pytest.raises(ContractError): Contract(tmp_path / "b.sqlite", signing_key=b"short")


def test_nothing_secret_in_rows_reprs_errors_or_files(contract, store, tmp_path, monkeypatch):
    names = filled(store); opened = ask(contract, OPEN, objects=names); keys = list(contract.data_keys(opened, store, MASTER, time=NOW))
    signing = bytes.fromhex((tmp_path / "ledger.sqlite.key").read_text())
    request, texts = signed(contract, OPEN, objects=names), []
    for attempt in (lambda: contract.data_keys(replace(opened, subject="x"), store, MASTER), lambda: list(contract.data_keys(opened, store, bytes(32), time=NOW)), lambda: sign_request(KEYS["model-1"] + b"x", **VIEW, contract=bytes(32)),
                    lambda: Contract(contract.path, signing_key=signing + b"x"), lambda: dataset_key(MASTER, "phantom").x):
        try: attempt()
        except Exception as error: texts.append(repr(error) + str(error.__dict__))
    texts += [repr(value) for value in (contract, contract.ledger, vars(contract), vars(contract.ledger), opened, request, keys, contract.explain(**OPEN), dataset_key(MASTER, "phantom"))]
    texts += [file.read_bytes().decode("latin-1") for file in tmp_path.iterdir() if file.is_file() and file.suffix != ".key"] + list(contract.export_rows())
    assert len(texts) > 14
    secrets = [*keys, dataset_key(MASTER, "phantom"), MASTER, signing, *KEYS.values()]
    for secret in [bytes(s) for s in secrets]:
        for form in (secret.hex(), secret.decode("latin-1"), repr(secret)[2:-1]): assert not any(form in text for text in texts)
    assert not any(name in text for name in names for text in texts)


def test_a_rule_for_ever_does_not_end_the_ledger(contract):
    rule = Rule("model", "view", "teaching", "phantom", expires=date(9999, 12, 31))
    contract.grant(rule, time=NOW)
    assert Contract(contract.path, POLICY).request(signed(contract, {"purpose": "teaching"}), time=NOW).granted and contract.revoke(rule, time=NOW) and contract.verify()


@pytest.mark.parametrize("change", ({"sequence": 10**30}, {"sequence": -1}, {"sequence": "1"}, {"sequence": True}, {"objects": None}, {"objects": (1,)}, {"objects": ["a"]}))
def test_decisions_of_odd_values(contract, store, change):
    decision = replace(ask(contract, objects=filled(store, count=1)), **change)
    with pytest.raises(ContractError): contract.fetch(store, decision, time=NOW)
