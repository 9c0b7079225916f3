"reproduce.sh, test.sh and the set-up of .venv behind them: from any folder, twice, after a kill, beside another run."
import fcntl, importlib.util, os, shutil, subprocess, sys, time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [ROOT / "reproduce.sh", ROOT / "test.sh", ROOT / "scripts" / "venv.sh", ROOT / ".ci" / "run"]
BASH = shutil.which("bash")


def bash(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run([BASH, *map(str, command)], capture_output=True, text=True, **options)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_script_is_valid_bash(path):
    assert bash("-n", path).returncode == 0
    assert b"\r" not in path.read_bytes()
    assert path.name == "venv.sh" or os.access(path, os.X_OK)


def test_ci_runs_the_command_of_the_readme():
    assert "test.sh" in (ROOT / ".ci" / "run").read_text()
    workflow = (ROOT / ".github" / "workflows" / "reproduce.yml").read_text()
    assert "bash test.sh" in workflow and "bash reproduce.sh --profile smoke" in workflow


def test_test_sh_explains_itself_and_refuses_unknown_options(tmp_path):
    shown = bash(ROOT / "test.sh", "--help", cwd=tmp_path)
    assert shown.returncode == 0 and "--fast" in shown.stdout
    refused = bash(ROOT / "test.sh", "--quick", cwd=tmp_path)
    assert refused.returncode == 2 and refused.stderr == "test.sh: unknown option --quick; choose --fast or --help\n"


def test_reproduce_help_passes_through_from_another_folder(tmp_path):
    if not (ROOT / ".venv" / "medcrypt-stamp").is_file(): pytest.skip(".venv was not made by reproduce.sh or test.sh")
    start = time.monotonic()
    done = bash(ROOT / "reproduce.sh", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "--profile" in done.stdout and list(tmp_path.iterdir()) == []
    assert done.stderr.count("\n") == 1, "one line says what is done"
    assert time.monotonic() - start < 20


def test_a_ready_environment_costs_nothing(tmp_path):
    if not (ROOT / ".venv" / "medcrypt-stamp").is_file(): pytest.skip(".venv was not made by reproduce.sh or test.sh")
    times = []
    for _ in range(5):
        start = time.monotonic()
        done = bash("-c", '. "$1/scripts/venv.sh" && ready_venv "$1"', "-", ROOT, cwd=tmp_path)
        times.append(time.monotonic() - start)
        assert done.returncode == 0 and done.stderr == ""
    assert min(times) < 0.3


# finding a Python

def checkout(folder: Path) -> Path:
    "The scripts, a lock and package metadata: all that a set-up reads."
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("reproduce.sh", "pyproject.toml", "requirements.lock"): shutil.copy(ROOT / file, folder)
    return folder


def stub(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name; path.write_text(f"#!{BASH}\n{script}\n"); path.chmod(0o755)
    return path


# what a stub says when asked for its version, and with which code it ends the probe
OLD, BARE = 'case "$2" in *print*) echo 3.9 ;; *) exit 3 ;; esac', "exit 4"
PYTHONS = {"none at all": ({}, None, "no Python found: install Python 3.11, 3.12 or 3.13, or set PYTHON to one"),
           "too old": ({"python3": OLD}, None, "python3 is Python 3.9: install Python 3.11, 3.12 or 3.13, or set PYTHON to one"),
           "without venv": ({"python3": BARE}, None, "python3 has no venv or ensurepip module: install it"),
           "PYTHON does not run": ({}, "no-such-python", "PYTHON=no-such-python does not run: set it to Python 3.11, 3.12 or 3.13"),
           "PYTHON too old": ({"ancient": OLD}, "ancient", "ancient is Python 3.9: install")}


@pytest.mark.parametrize("kind", PYTHONS)
def test_no_usable_python_is_one_sentence(tmp_path, kind):
    stubs, chosen, sentence = PYTHONS[kind]
    tools = tmp_path / "bin"; tools.mkdir()
    (tools / "dirname").symlink_to(shutil.which("dirname"))
    for name, script in stubs.items(): stub(tools, name, script)
    folder = tmp_path / "a checkout"; folder.mkdir(); checkout(folder)
    done = bash(folder / "reproduce.sh", env={"PATH": str(tools)} | ({"PYTHON": chosen} if chosen else {}), cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "" and not (folder / ".venv").exists()
    assert done.stderr.startswith(f"medcrypt: {sentence}") and done.stderr.count("\n") == 1


# making .venv: Python's venv is real, pip's installing is played

@pytest.fixture
def setup(tmp_path, monkeypatch):
    "scripts/venv.py of a small checkout whose path has a blank; `setup.calls` collects what pip was asked."
    folder = tmp_path / "a checkout"; folder.mkdir(); checkout(folder)
    spec = importlib.util.spec_from_file_location("medcrypt_venv", folder / "scripts" / "venv.py")
    module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
    real, module.calls, module.created, module.answer = module.run, [], [], lambda: (0, "")
    def run(*command):
        command = [str(c) for c in command]
        if command[2:5] == ["-m", "pip", "install"]:
            module.calls.append(command[5:])
            code, output = module.answer()
            if not code: (module.VENV / "bin" / "medcrypt").touch()
            return code, output
        if command[2:4] == ["-m", "venv"]: module.created.append(command)
        return real(*command)
    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(sys, "executable", sys._base_executable)
    return module


def test_environment_is_made_once_updated_in_place_and_rebuilt_after_a_kill(setup, capsys):
    setup.make()
    assert setup.calls == [["--quiet", "-r", str(setup.LOCK)], ["--quiet", "--no-deps", "--no-build-isolation", "-e", str(setup.ROOT)]]
    assert len(setup.created) == 1 and not setup.UNFINISHED.exists() and setup.venv_answers("-S", setup.__file__, "check")

    setup.make()
    assert len(setup.calls) == 2, "nothing to do the second time"

    setup.LOCK.write_text(setup.LOCK.read_text() + "# changed\n")
    assert not setup.venv_answers("-S", setup.__file__, "check")
    kept = setup.STAMP.read_text()
    setup.answer = lambda: (1, "WARNING: Retrying after connection broken by 'NewConnectionError'")
    with pytest.raises(setup.SetupError, match="check the network"): setup.make()
    assert setup.STAMP.read_text() == kept and not setup.UNFINISHED.exists(), "pip had changed nothing yet: the old environment still counts"

    setup.answer = lambda: (0, "")
    setup.make()
    assert len(setup.calls) == 5 and len(setup.created) == 1, "a changed lock is installed into what is there"

    setup.LOCK.write_text(setup.LOCK.read_text() + "# again\n")
    def killed(): raise KeyboardInterrupt
    setup.answer = killed
    with pytest.raises(KeyboardInterrupt): setup.make()
    assert setup.UNFINISHED.exists() and not setup.STAMP.exists()
    setup.answer = lambda: (0, "")
    setup.make()
    assert len(setup.created) == 2, "a half-made environment is never trusted"
    assert setup.venv_answers("-S", setup.__file__, "check")

    with open(setup.ROOT / ".venv.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        other = subprocess.Popen([sys.executable, "-I", setup.__file__, "make"], stderr=subprocess.PIPE, text=True)
        assert "waiting for another set-up" in other.stderr.readline()
        fcntl.flock(file, fcntl.LOCK_UN)
        assert other.wait(30) == 0 and other.stderr.read() == "", "what the first made, the second uses"


def test_pip_s_last_words_are_shown_when_it_fails(setup, capsys):
    setup.answer = lambda: (2, "\n".join(f"line {n}" for n in range(100)) + "\nERROR: no space left on device")
    assert setup.main("make") == 1
    shown = capsys.readouterr().err
    assert "no space left on device" in shown and "line 1\n" not in shown
    assert shown.rstrip().splitlines()[-1] == "medcrypt: pip could not install requirements.lock (exit code 2, see above)"
    assert setup.UNFINISHED.exists() and not setup.STAMP.exists()


def test_something_else_called_venv_is_not_touched(setup, capsys):
    setup.VENV.mkdir(); (setup.VENV / "precious").write_text("mine")
    assert setup.main("make") == 1
    assert "is no Python environment: move it away" in capsys.readouterr().err
    assert (setup.VENV / "precious").read_text() == "mine" and len(list(setup.VENV.iterdir())) == 1


def test_a_copied_environment_is_not_trusted(setup, tmp_path):
    setup.make()
    copy = tmp_path / "b"; shutil.copytree(setup.ROOT, copy, symlinks=True)
    done = subprocess.run([copy / ".venv/bin/python", "-I", "-S", copy / "scripts/venv.py", "check"])
    assert done.returncode == 1, "its commands would still run the first checkout"


def test_incomplete_checkout_is_named(setup, capsys):
    setup.LOCK.unlink()
    assert setup.main("make") == 1 and "requirements.lock: no such file" in capsys.readouterr().err


def test_pip_is_kept_inside_the_environment(setup, monkeypatch):
    for name in ("PIP_TARGET", "PIP_USER", "PYTHONPATH", "PYTHONHOME"): monkeypatch.setenv(name, "elsewhere")
    assert not {"PIP_TARGET", "PIP_USER", "PYTHONPATH", "PYTHONHOME"} & setup.environment().keys()


def test_a_key_outside_its_file_is_found(tmp_path, root):
    import base64, importlib.util
    spec = importlib.util.spec_from_file_location("check_chain", root / "scripts" / "check_chain.py"); check = importlib.util.module_from_spec(spec); spec.loader.exec_module(check)
    key = os.urandom(32); (tmp_path / "deep").mkdir()
    forms = {"raw": key, "hex": key.hex().encode(), "upper": key.hex().upper().encode(), "base64": base64.b64encode(key), "urlsafe": base64.urlsafe_b64encode(key), "repr": repr(key).encode(), "list": str(list(key)).encode(), "json": f'"{key.hex()}"'.encode()}
    for name, form in forms.items(): (tmp_path / "deep" / name).write_bytes(b"before " + form + b" after")
    (tmp_path / "fine").write_bytes(os.urandom(5000) + key[:31]); (tmp_path / "master.key").write_text(key.hex())
    assert {path.name for path, _ in check.leaks(tmp_path, {"master": key}, (".key",))} == set(forms)
