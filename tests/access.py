"Keys, subjects, rules and signed requests that the contract's tests share. The keys are made of one byte each: they protect nothing."
import sqlite3, subprocess, sys
from contextlib import closing
from pathlib import Path

from medcrypt.crypto.keys import Key
from medcrypt.vault.requests import public_key_of, sign_request
from medcrypt.vault.rules import Policy, Rule, Subject

ROOT = Path(__file__).resolve().parents[1]
MASTER = Key(bytes(range(32)))
NAMES = {"model-1": ("model",), "clinician-7": ("clinician",), "visitor-1": ("visitor",), "guest-1": ("guest", "visitor")}
KEYS = {name: bytes([number + 1]) * 32 for number, name in enumerate(NAMES)}
SUBJECTS = tuple(Subject(name, roles, public_key_of(KEYS[name])) for name, roles in NAMES.items())
RULES = (Rule("model", "view", "research", "phantom"), Rule("clinician", "*", "care", "*"), Rule("visitor", "view", "teaching", "phantom", expires=1000))
POLICY = Policy(RULES, SUBJECTS)
VIEW = {"subject": "model-1", "role": "model", "action": "view", "purpose": "research", "dataset": "phantom"}
OPEN = {"subject": "clinician-7", "role": "clinician", "action": "decrypt", "purpose": "care", "dataset": "phantom"}
NOW = 1.8e9


def signed(contract, change=(), time=NOW, key=None, **more):
    "A request for `contract` as VIEW with changes."
    fields = {**VIEW, **dict(change)}
    return sign_request(key or KEYS[fields["subject"]], **fields, contract=contract.public_key, time=time, **more)


def ask(contract, change=(), time=NOW, clock=None, **more):
    "The contract's decision on `signed`, at the time of signing."
    return contract.request(signed(contract, change, time, **more), time=time if clock is None else clock)


def run(code, *arguments):
    "A Python process in the checkout."
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def sql(path, *statements):
    "Change a ledger behind its back; its look-up for nonces goes first, since it would refuse rows that are not JSON."
    with closing(sqlite3.connect(getattr(path, "path", path))) as db:
        for statement in ("DROP INDEX IF EXISTS nonces", *statements): db.execute(*statement) if isinstance(statement, tuple) else db.execute(statement)
        db.commit()
