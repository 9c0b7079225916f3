"""Runs the smoke chain into a temporary folder, looks for the paper's tables, looks for keys where none may be, and runs it again: nothing may be done twice.

The folder is removed when all is well and kept, and named, when not.
"""
import base64, json, shutil, subprocess, sys, tempfile, time
from pathlib import Path

TABLES = ("table1*", "table2*", "*leakage*", "*latency*", "*fidelity*", "*paper_mode*", "*claims*")
IDLE_LIMIT_S = 10 # a run with nothing to do

def reproduce(out, log):
    "Run the command as a person would, its words to the screen and to `log`; returns its seconds."
    start = time.monotonic()
    command = [Path(sys.executable).with_name("medcrypt"), "reproduce", "--profile", "smoke", "--out", out]
    with open(log, "a") as kept, subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        for line in run.stdout: print(line, end="", flush=True); kept.write(line)
    if run.returncode: sys.exit(f"medcrypt reproduce: exit code {run.returncode}; what it left is in {out}")
    return time.monotonic() - start

def state(out):
    "Every table, figure and executed notebook with its time of writing."
    return {p: p.stat().st_mtime_ns for name in ("figures", "notebooks") for p in (out / name).rglob("*") if p.is_file()}

def run_keys(out, objects=5):
    "Every key of a run by name: masters, data sets' keys, signing keys, and those of some objects."
    from medcrypt.crypto.envelope import data_key
    from medcrypt.crypto.keys import load_key
    from medcrypt.vault.contract import dataset_key
    files = [*(out / "work" / "keys").glob("*.key"), *(out / "work" / "vault").glob("*.sqlite.key")]
    found = {p.name: load_key(p) for p in files}
    for file in (out / "work" / "vault").glob("*.index.csv"):
        name = file.name.removesuffix(".index.csv")
        found[f"data set {name}"] = key = dataset_key(found[f"{name}.key"], name)
        for path in sorted(p for p in (file.parent / name).rglob("*") if p.is_file())[:objects]: found[f"object {path.name}"] = data_key(path.read_bytes(), key)
    return found

def leaks(root, keys, keep):
    "(file, name of the key) wherever one of the keys stands in a file below `root`, raw or written down; not in the key files, whose names end in one of `keep`."
    forms = {form: name for name, key in keys.items() for form in (bytes(key), key.hex().encode(), key.hex().upper().encode(), base64.b64encode(key)[:40], base64.urlsafe_b64encode(key)[:40], repr(bytes(key))[2:-1].encode(), str(list(key))[1:-1].encode())}
    found = []
    for path in sorted(p for p in Path(root).rglob("*") if p.is_file() and not p.name.endswith(keep)):
        data = path.read_bytes()
        found += [(path, name) for form, name in forms.items() if form in data]
    return found

def fit_alone(out):
    "Run 28_fit, which only runs that are spread over machines use: it must find the fits that 30_train left and make none."
    fits = out / "work" / "fits" / "phantom_cxr"; before = {p.name for p in fits.iterdir()}
    notebook = Path(__file__).resolve().parents[1] / "nbs" / "paper" / "28_fit.ipynb"; listed = fits / "masked-cnn.0.list.csv"
    done = subprocess.run([sys.executable, "-m", "medcrypt.cli.step", "--notebook", notebook, "--output", "notebooks/28_fit.ipynb", "--timeout", "300", "--parameters", json.dumps({"out": ".", "dataset": "phantom_cxr", "profile": "smoke", "seed": 0, "model": "masked-cnn", "repetition": 0}), "--expect", listed], cwd=out)
    if done.returncode or not listed.stat().st_size: sys.exit(f"28_fit: exit code {done.returncode}; what it left is in {out}")
    if new := {p.name for p in fits.iterdir()} - before - {listed.name}: sys.exit(f"28_fit made {len(new)} fits anew that 30_train had made: {', '.join(sorted(new))}")

def main():
    folder = Path(tempfile.mkdtemp(prefix="medcrypt-smoke-")); out, log = folder / "run", folder / "output.log"
    first_s = reproduce(out, log)
    figures = out / "figures"
    missing = [f"{name}.csv" for name in TABLES if not any(p.stat().st_size for p in figures.glob(f"{name}.csv"))]
    if missing: sys.exit(f"no {', '.join(missing)} in {figures}")
    pictures = sum(p.stat().st_size > 0 for p in figures.glob("*.png"))
    if not pictures: sys.exit(f"no figure in {figures}")
    keys = run_keys(out)
    if leaked := leaks(folder, keys, (".key",)): sys.exit("keys outside their files: " + ", ".join(f"{name} in {path}" for path, name in leaked[:10]))
    before = state(out)
    again_s = reproduce(out, log)
    changed = [p.name for p, written in state(out).items() if before.get(p) != written]
    if changed: sys.exit(f"a second run with nothing changed wrote {', '.join(sorted(changed))} again; see {out}")
    fit_alone(out)
    if again_s > IDLE_LIMIT_S: sys.exit(f"a second run with nothing to do took {again_s:.0f} s, more than {IDLE_LIMIT_S}; see {out}")
    shutil.rmtree(folder)
    print(f"smoke chain: {first_s:.0f} s, {pictures} figures, all {len(TABLES)} kinds of table, none of {len(keys)} keys outside its file; again: {again_s:.1f} s, nothing to do")

if __name__ == "__main__": main()
