"""Runs the smoke chain into a temporary folder, looks for the paper's tables, and runs it again: nothing may be done twice.

The folder is removed when all is well and kept, and named, when not.
"""
import shutil, subprocess, sys, tempfile, time
from pathlib import Path

TABLES = ("table1*", "table2*", "*leakage*", "*latency*", "*fidelity*", "*claims*")
IDLE_LIMIT_S = 10 # a run with nothing to do

def reproduce(out):
    "Run the command as a person would; returns its seconds."
    start = time.monotonic()
    command = [Path(sys.executable).with_name("medcrypt"), "reproduce", "--profile", "smoke", "--out", out]
    code = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL).returncode
    if code: sys.exit(f"medcrypt reproduce: exit code {code}; what it left is in {out}")
    return time.monotonic() - start

def state(out):
    "Every table, figure and executed notebook with its time of writing."
    return {p: p.stat().st_mtime_ns for name in ("figures", "notebooks") for p in (out / name).rglob("*") if p.is_file()}

def main():
    out = Path(tempfile.mkdtemp(prefix="medcrypt-smoke-")) / "run"
    first_s = reproduce(out)
    figures = out / "figures"
    missing = [f"{name}.csv" for name in TABLES if not any(p.stat().st_size for p in figures.glob(f"{name}.csv"))]
    if missing: sys.exit(f"no {', '.join(missing)} in {figures}")
    pictures = sum(p.stat().st_size > 0 for p in figures.glob("*.png"))
    if not pictures: sys.exit(f"no figure in {figures}")
    before = state(out)
    again_s = reproduce(out)
    changed = [p.name for p, written in state(out).items() if before.get(p) != written]
    if changed: sys.exit(f"a second run with nothing changed wrote {', '.join(sorted(changed))} again; see {out}")
    if again_s > IDLE_LIMIT_S: sys.exit(f"a second run with nothing to do took {again_s:.0f} s, more than {IDLE_LIMIT_S}; see {out}")
    shutil.rmtree(out.parent)
    print(f"smoke chain: {first_s:.0f} s, {pictures} figures, all {len(TABLES)} kinds of table; again: {again_s:.1f} s, nothing to do")

if __name__ == "__main__": main()
