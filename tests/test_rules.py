"Rules, subjects, policies: what is refused and where, what an explanation says, and that TOML and policy are the same thing."
import itertools, re
from pathlib import Path
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from access import KEYS, POLICY, RULES, SUBJECTS
from medcrypt.vault.ledger import ContractError
from medcrypt.vault.requests import public_key_of
from medcrypt.vault.rules import ACTIONS, Policy, Rule, Subject, dump_policy, explain, load_policy

ASKED = {"role": "model", "action": "view", "purpose": "research", "dataset": "phantom", "time": 500.0}
KEY = public_key_of(bytes(32)).hex()
ORDER = 2**255 - 19


def answer(*rules, uses=(), **change): return explain(rules, **{**ASKED, **change}, uses=dict(uses))


# rules and subjects

def test_rules_match():
    assert all(answer(Rule("*", "*", "*", "*"), action=action).granted for action in ACTIONS)
    assert answer(RULES[0]).granted
    for name, value in (("role", "Model"), ("role", "model2"), ("action", "decrypt"), ("purpose", "care"), ("dataset", "phantom2"), ("dataset", "phanto")):
        assert not answer(RULES[0], **{name: value}).granted
    assert not answer(replace(RULES[0], purpose="res*"), purpose="research").granted   # a star alone is a star


@pytest.mark.parametrize("change", ({"role": ""}, {"role": 7}, {"role": None}, {"purpose": "a\nb"}, {"purpose": " a"}, {"purpose": "a "}, {"dataset": "x" * 201}, {"action": "delete"}, {"action": "View"}, {"expires": "2030"},
                                    {"expires": float("nan")}, {"expires": float("inf")}, {"expires": True}, {"begins": "x"}, {"begins": 5, "expires": 5}, {"begins": 6, "expires": 5}, {"uses": 0}, {"uses": -1}, {"uses": True},
                                    {"uses": 1.0}, {"uses": "3"}, {"uses": 2**53}))
def test_rules_that_are_none(change):
    with pytest.raises(ContractError) as caught: Rule(**{"role": "a", "action": "view", "purpose": "b", "dataset": "c", **change})
    assert str(caught.value).startswith([*change][-1] + ":")


def test_rule_ids():
    rule = Rule("a", "view", "b", "c", begins=1, expires=2, uses=3)
    others = [replace(rule, **{name: value}) for name, value in (("role", "x"), ("action", "store"), ("purpose", "x"), ("dataset", "x"), ("begins", 0), ("begins", None), ("expires", 3), ("expires", None), ("uses", 4), ("uses", None))]
    assert len({rule.id, *(other.id for other in others)}) == 11 and re.fullmatch("[0-9a-f]{64}", rule.id)
    assert rule.id == replace(rule, begins=1.0).id and replace(rule, begins=0).id == replace(rule, begins=-0.0).id
    moments = (date(2030, 1, 1), datetime(2030, 1, 1), datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 1893456000, 1893456000.0)
    assert len({replace(rule, expires=moment).id for moment in moments}) == 1


SMALL = [b"\1" + bytes(31), bytes(32), bytes(31) + b"\x80", (ORDER - 1).to_bytes(32, "little"), bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
         bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), *((ORDER + y).to_bytes(32, "little") for y in range(19)), *((ORDER + y + 2**255).to_bytes(32, "little") for y in range(19))]   # the last 38: y not below p


@pytest.mark.parametrize("key", [*SMALL, b"\2" + bytes(31), b"", bytes(31), bytes(33), KEY, None], ids=lambda key: key.hex()[-6:] + key.hex()[:4] if isinstance(key, bytes) else repr(key)[:8])
def test_keys_that_anybody_could_sign_for_or_that_are_none(key):
    with pytest.raises(ContractError, match="^key: "): Subject("a", ("b",), key)


@pytest.mark.parametrize("change,field", (({"name": ""}, "name"), ({"name": "*"}, "name"), ({"name": "a\0"}, "name"), ({"roles": ()}, "roles"), ({"roles": "clinician"}, "roles"), ({"roles": ("*",)}, "roles"), ({"roles": (3,)}, "roles")))
def test_subjects_that_are_none(change, field):
    with pytest.raises(ContractError, match=f"^{field}: "): Subject(**{"name": "a", "roles": ("b",), "public_key": bytes.fromhex(KEY), **change})


def test_policies():
    with pytest.raises(ContractError, match="^name: subject 'model-1' is there twice"): Policy((), (*SUBJECTS, replace(SUBJECTS[0], public_key=bytes.fromhex(KEY))))
    with pytest.raises(ContractError, match="^key: subject 'other' has the key of 'model-1'"): Policy((), (*SUBJECTS, replace(SUBJECTS[0], name="other")))
    assert not POLICY.notes and not Policy((Rule("*", "view", "a", "b"),)).notes
    notes = Policy((RULES[0], Rule("nobody", "view", "a", "b"), RULES[0]), SUBJECTS).notes
    assert notes == ("rule 2: no subject has the role 'nobody'", "rule 3: is the same as rule 1, and shares its uses")
    assert Policy(subjects=[Subject("a", ["y", "x", "y"], bytes.fromhex(KEY))]).subjects[0].roles == ("x", "y")


# explain

@pytest.mark.parametrize("begins,expires,time,granted", ((None, None, -1e10, True), (500, None, 500, True), (500, None, 499.999, False), (None, 500, 499.999, True), (None, 500, 500, False), (400, 500, 450, True),
                                                         (400, 500, 399, False), (400, 500, 501, False), (-5, 0, -0.001, True), (-5, 0, 0, False), (0, 5, -0.001, False), (0, 5, 0, True)))
def test_begins_and_expires(begins, expires, time, granted):
    assert answer(replace(RULES[0], begins=begins, expires=expires), time=time).granted is granted


def test_uses():
    rule = replace(RULES[0], uses=3)
    assert [answer(rule, uses={rule.id: n}).granted for n in range(5)] == [True, True, True, False, False]
    assert answer(rule, uses={replace(rule, uses=4).id: 9}).granted   # each rule counts its own
    assert answer(RULES[0], uses={RULES[0].id: 10**9}).granted


def test_the_cheapest_rule_grants():
    limited, short, long, ever = (replace(RULES[0], **change) for change in ({"uses": 5}, {"expires": 600}, {"expires": 700}, {}))
    for rules in itertools.permutations((limited, short, long, ever)): assert answer(*rules).rule == ever
    for rules in itertools.permutations((limited, short, long)): assert answer(*rules).rule == long
    assert answer(limited, short, time=650).rule == limited
    first, second = replace(limited, uses=1), replace(limited, uses=2)
    assert answer(first, second, uses={first.id: 1}).rule == second


@pytest.mark.parametrize("change,reason", (
    ({"purpose": "care"}, "purpose: the rule says research, the request care"), ({"action": "decrypt"}, "action: the rule says view, the request decrypt"), ({"time": 1000}, "expires: the rule has expired at 1970-01-01T00:16:40Z, it is 1970-01-01T00:16:40Z"),
    ({"time": 99}, "begins: not before 1970-01-01T00:01:40Z, it is 1970-01-01T00:01:39Z"), ({"time": 99, "role": "x"}, "role: the rule says model, the request x"),
    ({"role": "x", "action": "store", "purpose": "x", "dataset": "x"}, "no rule allows this")))
def test_reasons(change, reason):
    assert answer(replace(RULES[0], begins=100, expires=1000), **change).reason == reason


def test_reasons_of_the_nearest_rule():
    far, near, used = Rule("x", "view", "y", "z"), replace(RULES[0], dataset="nih"), replace(RULES[0], uses=2)
    assert answer(far, near).reason == answer(near, far).reason == "dataset: the rule says nih, the request phantom"
    for rules in itertools.permutations((far, near, used)): assert answer(*rules, uses={used.id: 2}).reason == "uses: all 2 of 2 are used"   # near misses one too, but its words do not fit
    assert answer(replace(near, uses=2), replace(near, dataset="lidc"), uses={replace(near, uses=2).id: 2}).reason == "dataset: the rule says lidc, the request phantom"
    assert answer().reason == "no rule allows this" and not answer().granted
    granted = answer(far, RULES[0])
    assert granted.reason == f"rule {RULES[0].id[:12]}: model may view phantom for research" and [check.ok for check in granted.checks] == [False, True]
    assert [condition.name for condition in granted.checks[0].conditions] == ["role", "action", "purpose", "dataset", "begins", "expires", "uses"]


def test_a_subject_needs_the_role():
    star = Rule("*", "*", "*", "*")
    assert explain([star], **ASKED, uses={}, subject=SUBJECTS[0]).granted
    refused = explain([star], **{**ASKED, "role": "clinician"}, uses={}, subject=SUBJECTS[0])
    assert not refused.granted and refused.reason == "role: model-1 does not hold the role clinician"


@pytest.mark.parametrize("change", ({"role": "*"}, {"dataset": ""}, {"purpose": 3}, {"action": "*"}, {"action": "delete"}))
def test_what_no_request_can_ask(change):
    with pytest.raises(ContractError, match=f"^{[*change][0]}: "): answer(Rule("*", "*", "*", "*"), **change)


few = lambda *values: st.sampled_from(values)
rules = st.builds(lambda role, action, purpose, dataset, begins, length, uses: Rule(role, action, purpose, dataset, begins, None if length is None else (begins or 0) + length, uses),
                  few("a", "b", "*"), few(*ACTIONS, "*"), few("p", "q", "*"), few("d", "e", "*"), few(None, 0, 10), few(None, 5, 10), few(None, 1, 2))


@settings(max_examples=300, deadline=None)
@given(st.lists(rules, max_size=6), few("a", "b"), few(*ACTIONS), few("p", "q"), few("d", "e"), few(-1.0, 0.0, 4.0, 5.0, 10.0, 15.0, 20.0), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_explain_against_the_words_of_the_rule(rules, role, action, purpose, dataset, time, counts):
    uses = {rule.id: n for rule, n in zip(rules, counts)}
    allowing = [rule for rule in rules if rule.role in (role, "*") and rule.action in (action, "*") and rule.purpose in (purpose, "*") and rule.dataset in (dataset, "*")
                and not (rule.begins is not None and time < rule.begins) and not (rule.expires is not None and time >= rule.expires) and not (rule.uses is not None and uses[rule.id] >= rule.uses)]
    found = explain(rules, role=role, action=action, purpose=purpose, dataset=dataset, time=time, uses=uses)
    assert found.granted == bool(allowing) and [check.rule for check in found.checks if check.ok] == allowing
    assert (found.rule in allowing) if allowing else found.rule is None
    if allowing and found.rule.uses is not None: assert all(rule.uses is not None for rule in allowing)
    if not allowing and found.reason != "no rule allows this": assert any(found.reason == condition.words and not condition.ok for check in found.checks for condition in check.conditions)


# TOML

GOOD = '[[rule]]\nrole = "model"\naction = "view"\npurpose = "research"\ndataset = "*"\n'   # 5 lines
WHO = f'[[subject]]\nname = "model-1"\nroles = ["model"]\nkey = "{KEY}"\n'                     # 4 lines
OTHER = public_key_of(KEYS["guest-1"]).hex()


def written(tmp_path, text, newline="\n"):
    path = tmp_path / "rules.toml"; path.write_text(text, encoding="utf-8", newline=newline)
    return path


def test_load_policy(tmp_path):
    policy = load_policy(written(tmp_path, GOOD + "expires = 2030-01-01T00:00:00Z\n\n# comment\n" + GOOD + "begins = 2030-01-01\nuses = 3\n" + WHO + GOOD + "expires = 5\n" + GOOD))
    assert [rule.expires for rule in policy.rules] == [1893456000, None, 5, None] and (policy.rules[1].begins, policy.rules[1].uses) == (1893456000, 3)
    assert policy.subjects == (Subject("model-1", ("model",), bytes.fromhex(KEY)),)
    assert policy.notes == ()
    assert load_policy(written(tmp_path, "")) == Policy()
    policy = load_policy(written(tmp_path, "# one\n\n" + GOOD + GOOD))
    assert policy.notes == ("rule 1 (line 3): no subject has the role 'model'", "rule 2 (line 8): no subject has the role 'model'", "rule 2 (line 8): is the same as rule 1, and shares its uses")


CASES = {
    "not TOML": ("[[rule]\n", 1, "not valid TOML"),
    "not TOML, at the end": (GOOD + 'x = """abc\n\n', 6, "not valid TOML"),
    "not TOML, an open text": (GOOD + 'expires = "abc\n' + GOOD, 6, "not valid TOML"),
    "a key twice": (GOOD + 'role = "x"\n', 6, "not valid TOML"),
    "stray key": ("x = 1\n" + GOOD, 1, "unknown 'x'; a policy has"),
    "stray table": (GOOD + "\n[rules]\nx = 1\n", 7, "unknown 'rules'"),
    "one table": ("\n[rule]\nrole = 1\n", 2, r"write \[\[rule\]\]"),
    "one subject": (GOOD + "[subject]\n", 6, r"write \[\[subject\]\]"),
    "no table": ("\nrule = [1]\n", 2, r"\(rule 1\): is not a \[\[rule\]\] table"),
    "no list": ('rule = "x"\n', 1, r"write \[\[rule\]\]"),
    "inline tables": ('\n\nrule = [{role = "a"}]\n', 3, r"\(rule 1\): lacks action, purpose, dataset"),
    "misspelt": (GOOD + "\n" + GOOD.replace("action", "actoin"), 9, r"\(rule 2\): unknown key 'actoin'; did you mean 'action'\?"),
    "unknown": (GOOD + "zzz = 1\n", 6, r"\(rule 1\): unknown key 'zzz'; a rule has role, action"),
    "missing": (GOOD + "\n" + GOOD.replace('purpose = "research"\n', ""), 7, r"\(rule 2\): lacks purpose$"),
    "missing two": ("[[rule]] # c\nrole = 'x'\naction = 'view'", 1, r"\(rule 1\): lacks purpose, dataset$"),
    "unknown action": (GOOD + GOOD.replace("view", "delete"), 8, r"\(rule 2\): action: 'delete' is not one of store, view, decrypt or \*"),
    "wrong type": (GOOD.replace('"model"', "3"), 2, r"\(rule 1\): role: must be"),
    "wrong type of action": (GOOD.replace('"view"', '["view"]'), 3, r"\(rule 1\): action: must be"),
    "a table in a rule": (GOOD.replace('dataset = "*"\n', "") + "[rule.dataset]\nx = 1\n[[subject]]\n", 5, r"\(rule 1\): dataset: must be"),
    "a dotted key": (GOOD.replace('dataset = "*"', 'dataset.x = "*"'), 5, r"\(rule 1\): dataset: must be"),
    "a quoted key": (GOOD.replace("purpose = ", '"purpose"  =  ').replace('"research"', "1"), 4, r"\(rule 1\): purpose: must be"),
    "empty": (GOOD.replace('"research"', '""'), 4, r"\(rule 1\): purpose: must be"),
    "no time": (GOOD + '# c\nexpires = "soon"\n', 7, r"\(rule 1\): expires: must be a date"),
    "a local time of day": (GOOD + "begins = 07:32:00\n", 6, r"\(rule 1\): begins: must be a date"),
    "ends first": (GOOD + "expires = 2030-01-01\nbegins = 2030-01-01\n", 6, r"\(rule 1\): expires: must be after the rule begins"),
    "no use": (GOOD + "uses = 0\n", 6, r"\(rule 1\): uses: must be a whole number"),
    "half a use": (GOOD + "uses = 1.5\n", 6, r"\(rule 1\): uses: must be a whole number"),
    "a key in a text": ('[[rule]]\nrole = """\n[[rule]]\naction = 7\n"""\naction = "delete"\npurpose = "a"\ndataset = "b"\n', 2, r"\(rule 1\): role: must be"),
    "a key after a text": ("[[rule]]\nrole = '''a \\\naction = 3 \\\n'''\naction = 3\npurpose = 'x'\ndataset = 'y'\n", 2, r"\(rule 1\): role: must be"),
    "a key after a list": (WHO.replace('["model"]', '[\n"a", # key = 3\n"b",\n]').replace(KEY, KEY[:-1]), 7, r"\(subject 1\): key: must be 64"),
    "no hexadecimal digits": (GOOD + WHO.replace(KEY, "x" * 64), 9, r"\(subject 1\): key: must be 64"),
    "capitals": (WHO.replace(KEY, KEY.upper()), 4, r"\(subject 1\): key: must be 64"),
    "a key of small order": (WHO.replace(KEY, "01" + "00" * 31), 4, r"\(subject 1\): key: is of small order"),
    "no point": (WHO.replace(KEY, "02" + "00" * 31), 4, r"\(subject 1\): key: is not an Ed25519"),
    "a key that is a number": (WHO.replace(f'"{KEY}"', "3"), 4, r"\(subject 1\): key: must be 64"),
    "roles as a text": (WHO.replace('["model"]', '"model"'), 3, r"\(subject 1\): roles: must be a list"),
    "no roles": (WHO.replace('["model"]', "[]"), 3, r"\(subject 1\): roles: must be a list"),
    "all roles": (WHO.replace('["model"]', '["model", "*"]'), 3, r"\(subject 1\): roles: must say which"),
    "no name": (WHO.replace('name = "model-1"\n', ""), 1, r"\(subject 1\): lacks name$"),
    "a private key": (WHO + 'private = "x"\n', 5, r"\(subject 1\): unknown key 'private'"),
    "the same name": (WHO + WHO.replace(KEY, OTHER), 6, r"\(subject 2\): name: subject 'model-1' is there twice"),
    "the same key": (WHO + GOOD + WHO.replace("model-1", "model-2"), 13, r"\(subject 2\): key: subject 'model-2' has the key of 'model-1'"),
}


@pytest.mark.parametrize("newline", ("\n", "\r\n"), ids=("unix", "windows"))
@pytest.mark.parametrize("case", CASES)
def test_every_mistake_has_its_line(tmp_path, case, newline):
    text, line, words = CASES[case]; path = written(tmp_path, text, newline)
    with pytest.raises(ContractError) as caught: load_policy(path)
    message = str(caught.value)
    assert re.match(re.escape(f"{path}, line {line}") + r"[ :]", message) and re.search(words, message) and "\n" not in message


def test_load_policy_without_a_file(tmp_path):
    (tmp_path / "latin").write_bytes(b"# \xe9"); (tmp_path / "large").write_bytes(b"#" * 2**20 + b"\n")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "latin", tmp_path / "large"):
        with pytest.raises(ContractError, match=re.escape(str(path))): load_policy(path)


def test_a_thousand_rules_and_subjects_load_at_once(tmp_path):
    policy = Policy([replace(RULES[0], dataset=f"d{i}") for i in range(1000)], [Subject(f"model-{i}", ("model",), public_key_of(i.to_bytes(32, "big"))) for i in range(100)])
    loaded = load_policy(written(tmp_path, dump_policy(policy)))
    assert loaded == policy and loaded.lines[999] == 999 * 6 + 1


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 8), st.sampled_from(("", "[[", "]]", "[rule.x]\n", "[[rule.roles]]\n", '"""', "'", "{", "=", "\n", "#", "rule", "1", "[", "subject", ".", "name = 3\n", "\r", "\0"))), max_size=4))
def test_no_text_is_more_than_one_error(tmp_path, edits):
    text = GOOD + WHO + GOOD + "uses = 3\n" + WHO.replace(KEY, OTHER).replace("model-1", "model-2")
    for at, length, new in edits: text = text[:at] + new + text[at + length:]
    try: load_policy(written(tmp_path, text, ""))
    except ContractError as error: assert re.match(re.escape(f"{tmp_path / 'rules.toml'}, line ") + r"\d+[ :]", str(error))


words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(lambda text: text.isprintable() and text == text.strip())
moments = st.one_of(st.none(), st.floats(-9e10, 9e10), st.integers(-10**9, 10**10))
@st.composite
def any_rules(draw):
    begins, expires = draw(moments), draw(moments)
    if None not in (begins, expires) and begins >= expires: begins = None
    return Rule(draw(words), draw(few(*ACTIONS, "*")), draw(words), draw(words), begins, expires, draw(st.one_of(st.none(), st.integers(1, 2**53 - 1))))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_rules(), max_size=3), st.lists(st.tuples(words.filter(lambda w: w != "*"), st.lists(words.filter(lambda w: w != "*"), min_size=1, max_size=3)), max_size=2, unique_by=lambda pair: pair[0]))
def test_policies_round_trip(tmp_path, rules, named):
    policy = Policy(rules, [Subject(name, tuple(roles), public_key_of(bytes([i]) * 32)) for i, (name, roles) in enumerate(named)])
    loaded = load_policy(written(tmp_path, dump_policy(policy)))
    assert loaded == policy and [rule.id for rule in loaded.rules] == [rule.id for rule in policy.rules]


def test_hostile_policies_are_one_sentence_and_quick(tmp_path):
    import os, time
    path, rule = tmp_path / "p.toml", '[[rule]]\nrole = "a"\naction = "view"\npurpose = "p"\ndataset = "d"\n'
    for text, words in (("x = [\n" + "\n" * 5000 + "]\n", "statement of more than"), (".".join("a" * 9000) + " = 1\n", "longer than"), (rule + "uses = 1" + "0" * 1900 + "\n", "line 6"), (rule + "uses = 0x" + "F" * 1900 + "\n", "uses"),
                        (rule + "begins = 0x" + "F" * 1900 + "\n", "begins"), (rule + "\n" * (1 << 20), "larger than"), (rule + "\n" * 900_000, None)):
        path.write_text(text); start = time.process_time()
        if words is None: assert len(load_policy(path).rules) == 1
        else:
            with pytest.raises(ContractError, match=words): load_policy(path)
        assert time.process_time() - start < 20
    path.write_text("\ufeff" + rule, encoding="utf-8"); assert len(load_policy(path).rules) == 1   # a byte order mark is no mistake
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(ContractError, match="cannot be read"): load_policy(place)
    with pytest.raises(ContractError, match="thousands of digits"): Rule("a", "view", "p", "d", uses=10**5000)


@pytest.mark.parametrize("moment", (date(9999, 12, 31), date(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(hours=14))), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))))
def test_every_date_is_a_number_too(moment, tmp_path):
    for rule in (Rule("a", "view", "p", "d", expires=moment), Rule("a", "view", "p", "d", begins=moment)):
        assert Rule(**asdict(rule)) == rule
        (tmp_path / "p.toml").write_text(dump_policy(Policy((rule,)))); assert load_policy(tmp_path / "p.toml").rules == (rule,)
