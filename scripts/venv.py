"""Makes .venv what requirements.lock and pyproject.toml say, or tells in one sentence why it cannot. Standard library only.

    venv.py check   run by .venv's own Python: exit 0 if nothing is to be done (some 30 ms)
    venv.py make    run by any Python 3.11 to 3.13: create, update or rebuild .venv, alone among concurrent runs

.venv holds two files of ours. `medcrypt-unfinished` is there from the first change to the last: a kill leaves it behind, and the next run
then rebuilds, because pip takes a half-copied package for an installed one. `medcrypt-stamp` is written last and names what was installed.
"""
import fcntl, hashlib, json, os, shutil, subprocess, sys, tomllib
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "medcrypt-stamp"
UNFINISHED = VENV / "medcrypt-unfinished"
LOCK = ROOT / "requirements.lock"
NETWORK = ("NewConnectionError", "ConnectionError", "name resolution", "ConnectTimeout", "ReadTimeout", "Read timed out", "SSLError",
           "ProxyError", "HTTP error", "No matching distribution found")

class SetupError(Exception):
    "A set-up that cannot go on: its text is one sentence that names the thing to change."

def say(text):
    "One line for the person who waits; stdout stays free for the command that follows."
    print(f"medcrypt: {text}", file=sys.stderr, flush=True)

def fingerprint():
    "What .venv must hold: the lock, the package's metadata, this folder (a venv cannot be moved) and this Python's version."
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = {k: config["project"].get(k) for k in ("name", "version", "dependencies", "optional-dependencies", "scripts", "entry-points")}
    content = [LOCK.read_text(encoding="utf-8"), project, config["build-system"], str(VENV), sys.version_info[:2]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

def is_ready():
    "True if the stamp fits; only .venv's own Python can tell."
    return STAMP.is_file() and (VENV / "bin" / "medcrypt").is_file() and STAMP.read_text() == fingerprint()

def write_stamp():
    temporary = STAMP.with_suffix(".part")
    temporary.write_text(fingerprint())
    temporary.replace(STAMP)

def environment():
    "The caller's environment without what would send pip's files elsewhere or bring in foreign packages."
    drop = {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER"}
    return {k: v for k, v in os.environ.items() if k not in drop} | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}

def run(*command):
    "Run quietly; returns the exit code and everything that was said."
    result = subprocess.run([str(c) for c in command], env=environment(), cwd=ROOT, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return result.returncode, result.stdout

def venv_answers(*arguments):
    "True if .venv's Python runs this file, or a line of code, with success."
    try: return run(PYTHON, "-I", *arguments)[0] == 0
    except OSError: return False

def is_usable():
    "True if .venv is whole: its own Python and pip run, and it was made for this folder."
    code = "import pip, sys; sys.exit(not ((3, 11) <= sys.version_info[:2] < (3, 14)))"
    try: first_lines = (VENV / "bin" / "pip").read_text(errors="replace")[:500]
    except OSError: return False
    at_home = any(f"{before}{VENV}/bin/" in first_lines for before in '!" ')
    return at_home and not UNFINISHED.exists() and venv_answers("-c", code)

def create():
    "A fresh .venv. Raises SetupError if something else has that name."
    ours = (VENV / "pyvenv.cfg").is_file() or UNFINISHED.is_file()
    if VENV.exists() and not (VENV.is_dir() and (ours or not any(VENV.iterdir()))):
        raise SetupError(f"{VENV} is there but is no Python environment: move it away and run this again")
    say(f"creating .venv with Python {sys.version.split()[0]}")
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    for entry in VENV.iterdir():
        if entry == UNFINISHED: continue
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    code, output = run(sys.executable, "-I", "-m", "venv", VENV)
    if code: fail(output, f"{sys.executable} could not create {VENV} (exit code {code})")

def fail(output, sentence):
    print("\n".join(output.strip().splitlines()[-15:]), file=sys.stderr)
    raise SetupError(sentence)

def install():
    "Bring .venv to the lock and the package into .venv. Raises SetupError."
    stamp = STAMP.read_text() if STAMP.is_file() else None
    UNFINISHED.touch()
    STAMP.unlink(missing_ok=True)
    say("installing the packages of requirements.lock into .venv (2.4 GB and some minutes the first time)")
    code, output = run(PYTHON, "-I", "-m", "pip", "install", "--quiet", "-r", LOCK)
    if code and any(sign in output for sign in NETWORK):
        # pip fetches everything before it installs anything, so what was there is still whole.
        UNFINISHED.unlink()
        if stamp: STAMP.write_text(stamp)
        fail(output, "pip could not fetch the packages of requirements.lock: check the network (or PIP_INDEX_URL, PIP_FIND_LINKS) and run this again")
    if code: fail(output, f"pip could not install requirements.lock (exit code {code}, see above)")
    code, output = run(PYTHON, "-I", "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", ROOT)
    if code: fail(output, f"pip could not install {ROOT} (exit code {code}, see above)")
    UNFINISHED.unlink()
    if not venv_answers("-S", __file__, "stamp"): raise SetupError(f"{STAMP}: cannot be written")

@contextmanager
def alone():
    "Hold .venv.lock; the kernel releases it however this process ends."
    with open(ROOT / ".venv.lock", "a") as file:
        try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of .venv")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

def make():
    for path in (LOCK, ROOT / "pyproject.toml"):
        if not path.is_file(): raise SetupError(f"{path}: no such file; this is no complete checkout")
    with alone():
        if venv_answers("-S", __file__, "check"): return
        if not is_usable(): create()
        install()

def main(command):
    try:
        if command == "check": return 0 if is_ready() else 1
        elif command == "stamp": write_stamp()
        elif command == "make": make()
        else: raise SetupError(f"venv.py: unknown command {command!r}; choose check or make")
    except SetupError as error: say(error); return 1
    except OSError as error: say(f"{error.filename or ROOT}: {error.strerror}"); return 1
    except KeyboardInterrupt: say("set-up stopped; run this again to complete it"); return 130
    return 0

if __name__ == "__main__": sys.exit(main(*sys.argv[1:2] or [""]))
