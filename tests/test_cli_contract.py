"`medcrypt contract`: a policy checked and explained, a ledger verified and exported, signing keys; exit codes and one line on stderr."
import json

import pytest

from medcrypt.cli.main import main
from medcrypt.crypto.keys import load_key
from medcrypt.vault.contract import Contract
from medcrypt.vault.requests import public_key_of, sign_request
from medcrypt.vault.rules import load_policy


@pytest.fixture
def policy(tmp_path, capsys):
    assert main(["contract", "keygen", str(tmp_path / "c7.key")]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    path = tmp_path / "policy.toml"
    path.write_text(f'[[rule]]\nrole = "clinician"\naction = "decrypt"\npurpose = "care"\ndataset = "ward-3"\nuses = 2\n\n[[subject]]\nname = "clinician-7"\nroles = ["clinician"]\n{line}\n')
    return path


ASKED = ["--role", "clinician", "--action", "decrypt", "--purpose", "care", "--dataset", "ward-3"]


def test_keygen(policy, tmp_path, capsys):
    key = load_key(tmp_path / "c7.key")
    assert public_key_of(key).hex() in policy.read_text() and key.hex() not in policy.read_text()
    assert main(["contract", "keygen", str(tmp_path / "c7.key")]) == 1 and "never overwritten" in capsys.readouterr().err and load_key(tmp_path / "c7.key") == key


def test_check_and_explain(policy, capsys):
    assert main(["contract", "check", str(policy)]) == 0 and "clinician may decrypt ward-3 for care" in capsys.readouterr().out
    assert main(["contract", "explain", str(policy), *ASKED]) == 0 and capsys.readouterr().out.startswith("granted")
    assert main(["contract", "explain", str(policy), *ASKED[:5], "research", *ASKED[6:]]) == 3
    assert "NO  purpose: the rule says care, the request research" in capsys.readouterr().out
    assert main(["contract", "explain", str(policy), *ASKED, "--subject", "visitor"]) == 3
    policy.write_text(policy.read_text().replace("uses = 2", "uses = 0"))
    assert main(["contract", "check", str(policy)]) == 1
    error = capsys.readouterr().err
    assert "policy.toml, line 6 (rule 1): uses" in error and len(error.splitlines()) == 1
    for time in ("noon", "1e99"): assert main(["contract", "explain", str(policy), *ASKED, "--time", time]) == 1
    with pytest.raises(SystemExit): main(["contract", "explain", str(policy)])


def test_the_life_of_a_ledger(policy, tmp_path, capsys):
    ledger = tmp_path / "ledger.sqlite"; contract = Contract(ledger, load_policy(policy))
    ask = lambda: contract.request(sign_request(load_key(tmp_path / "c7.key"), subject="clinician-7", role="clinician", action="decrypt", purpose="care", dataset="ward-3", contract=contract.public_key))
    assert [ask().granted for _ in range(3)] == [True, True, False]
    assert main(["contract", "explain", str(policy), *ASKED, "--ledger", str(ledger)]) == 3 and "all 2 of 2 are used" in capsys.readouterr().out
    assert main(["contract", "public-key", str(ledger)]) == 0
    (tmp_path / "ledger.pub").write_text(capsys.readouterr().out)
    assert main(["contract", "verify", str(ledger), "--public-key", str(tmp_path / "ledger.pub")]) == 0
    anchor = capsys.readouterr().out.splitlines()[1].removeprefix("anchor: ")
    assert main(["contract", "export", str(ledger), "-o", str(tmp_path / "l.jsonl")]) == 0
    lines = (tmp_path / "l.jsonl").read_text().splitlines(); assert len(lines) == 4 and all(map(json.loads, lines))
    for file in (ledger, tmp_path / "l.jsonl"): assert main(["contract", "verify", str(file), "--public-key", str(tmp_path / "ledger.pub"), "--anchor", anchor]) == 0
    assert main(["contract", "export", str(ledger), "-o", str(tmp_path / "l.jsonl")]) == 1 and "--force" in capsys.readouterr().err
    for dropped in range(1, 4):
        (tmp_path / "short.jsonl").write_text("\n".join(lines[:dropped] + lines[dropped + 1:]) + "\n")
        assert main(["contract", "verify", str(tmp_path / "short.jsonl"), "--public-key", str(tmp_path / "ledger.pub")]) == 1
    for arguments in (["verify", str(ledger), "--public-key", "00"], ["verify", str(tmp_path / "none"), "--public-key", str(tmp_path / "ledger.pub")], ["public-key", str(tmp_path / "none")], ["export", str(tmp_path / "none"), "-o", str(tmp_path / "y")]):
        capsys.readouterr(); assert main(["contract", *arguments]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "none").exists() and not (tmp_path / "y").exists()


def test_the_readme_s_example_runs(policy, tmp_path, root, monkeypatch):
    text = (root / "README.md").read_text(encoding="utf-8")
    code = text.partition("<!-- example: begin -->\n```python\n")[2].partition("```\n<!-- example: end -->")[0]
    monkeypatch.chdir(tmp_path); (tmp_path / "c7.key").rename(tmp_path / "clinician-7.key"); assert main(["keygen", "master.key"]) == 0
    names = {}; exec(code, names)
    assert names["opened"] == [b"pixels"] and names["decision"].granted and names["contract"].verify()


def test_vault_put_and_get(tmp_path, capsys):
    assert main(["keygen", str(tmp_path / "k.key")]) == 0
    for name in ("a", "b"): (tmp_path / name).write_text(name * 99); assert main(["encrypt", str(tmp_path / name), "--whole", "--key", str(tmp_path / "k.key")]) == 0
    vault, index, files = str(tmp_path / "vault"), tmp_path / "index.csv", [str(tmp_path / f"{name}.mce") for name in ("a", "b")]
    capsys.readouterr()
    for _ in range(2): assert main(["vault", "put", vault, *files, "--index", str(index)]) == 0   # twice is once
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names[:2] == names[2:] and index.read_text() == f"name,file\n{names[0]},a.mce\n{names[1]},b.mce\n"
    assert main(["vault", "verify", vault, "--index", str(index)]) == 0
    assert main(["vault", "get", vault, names[0], "-o", str(tmp_path / "back.mce")]) == 0 and (tmp_path / "back.mce").read_bytes() == (tmp_path / "a.mce").read_bytes()
    capsys.readouterr()
    for arguments, word in ((["get", vault, names[0], "-o", str(tmp_path / "back.mce")], "is there already"), (["get", vault, "0" * 64, "-o", str(tmp_path / "x")], "no object"), (["get", vault, "../a", "-o", str(tmp_path / "x")], "not an object's name"),
                            (["put", vault, str(tmp_path / "a")], "not a medcrypt envelope"), (["put", vault, str(tmp_path / "none")], "no such file"), (["put", vault, files[0], "--index", str(tmp_path / "a")], "not an object's name")):
        assert main(["vault", *arguments]) == 1
        error = capsys.readouterr().err; assert word in error and len(error.splitlines()) == 1
    assert main(["vault", "put", vault, str(tmp_path / "a"), files[1]]) == 1 and "1 of 2 files were not stored" in capsys.readouterr().err
    (tmp_path / "names.txt").write_text(names[0] + "\n"); assert main(["vault", "put", vault, *files, "--index", str(tmp_path / "names.txt")]) == 0 and (tmp_path / "names.txt").read_text() == f"{names[0]}\n{names[1]}\n"
    assert not (tmp_path / "x").exists()
    (tmp_path / "cut.mce").write_bytes((tmp_path / "a.mce").read_bytes()[:-7]); assert main(["vault", "put", vault, str(tmp_path / "cut.mce")]) == 1 and "lengths" in capsys.readouterr().err
    assert main(["vault", "verify", str(tmp_path / "nowhere")]) == 1 and "no objects here" in capsys.readouterr().out and not (tmp_path / "nowhere").exists()


def test_what_is_encrypted_for_a_data_set_opens_through_the_contract(policy, tmp_path, capsys):
    from medcrypt.crypto.envelope import unseal
    from medcrypt.vault.store import Store
    (tmp_path / "a").write_bytes(b"pixels"); key = ["--key", str(tmp_path / "k.key")]; assert main(["keygen", key[1]]) == 0
    assert main(["encrypt", str(tmp_path / "a"), "--whole", *key, "--dataset", "ward-3", "-o", str(tmp_path / "a.mce")]) == 0
    assert main(["decrypt", str(tmp_path / "a.mce"), *key, "-o", str(tmp_path / "b")]) == 1 and main(["decrypt", str(tmp_path / "a.mce"), *key, "--dataset", "ward-3", "-o", str(tmp_path / "b")]) == 0
    assert main(["encrypt", str(tmp_path / "a"), "--whole", *key, "-o", str(tmp_path / "plain.mce")]) == 0   # and one that gets its data set later
    assert main(["rekey", str(tmp_path / "plain.mce"), *key, "--new-key", key[1], "--new-dataset", "ward-3", "--in-place"]) == 0
    capsys.readouterr(); assert main(["vault", "put", str(tmp_path / "store"), str(tmp_path / "a.mce"), str(tmp_path / "plain.mce")]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    contract, store = Contract(tmp_path / "l.sqlite", load_policy(policy)), Store(tmp_path / "store")
    decision = contract.request(sign_request(load_key(tmp_path / "c7.key"), subject="clinician-7", role="clinician", action="decrypt", purpose="care", dataset="ward-3", objects=names, contract=contract.public_key))
    assert [unseal(e, k)[0] for e, k in zip(contract.fetch(store, decision), contract.data_keys(decision, store, load_key(key[1])))] == [b"pixels"] * 2


def test_check_notes_what_never_grants(policy, capsys):
    policy.write_text(policy.read_text().replace("uses = 2", "expires = 2020-01-01")); assert main(["contract", "check", str(policy)]) == 0 and "note: rule 1 has expired" in capsys.readouterr().out
    policy.write_text(""); assert main(["contract", "check", str(policy)]) == 0 and "everything is denied" in capsys.readouterr().out


@pytest.mark.parametrize("command,words", (("encrypt", "--skip-existing goes on"), ("decrypt", "nothing else was left"), ("rekey", "goes on where")))
def test_what_an_interruption_says_is_true_of_the_command(command, words, capsys, monkeypatch):
    from medcrypt.cli import file_commands
    def interrupted(given): raise KeyboardInterrupt
    interrupted.__name__ = command; monkeypatch.setattr(file_commands, command, interrupted)
    assert main([command, "a.mce", *(["--in-place"] if command == "rekey" else [])]) == 130 and words in capsys.readouterr().err
