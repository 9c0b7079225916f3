"The environment's files agree with each other, with what is installed, and with what the package imports."
import ast, configparser, importlib.metadata, re, subprocess, sys, tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = [Requirement(line) for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")]
DECLARED = [Requirement(d) for d in PROJECT["project"]["dependencies"]]
DEVELOPMENT = [Requirement(d) for d in PROJECT["project"]["optional-dependencies"]["dev"]]
MODULES = sorted(p for p in (ROOT / "medcrypt").rglob("*.py") if p.name != "_modidx.py")
ORDER = ("core", "imaging", "crypto", "vault", "learning", "evaluation", "baselines", "cli")
PLATFORMS = {"linux-x86_64": ("linux", "Linux", "x86_64"), "linux-arm": ("linux", "Linux", "aarch64"), "mac-arm": ("darwin", "Darwin", "arm64")}
MACHINES = [(f"3.{minor}", name) for minor in (11, 12, 13) for name in PLATFORMS]


def machine(python: str, name: str) -> dict:
    "Marker values of one supported machine."
    sys_platform, system, processor = PLATFORMS[name]
    return {**default_environment(), "python_version": python, "python_full_version": f"{python}.9", "implementation_version": f"{python}.9", "os_name": "posix",
            "sys_platform": sys_platform, "platform_system": system, "platform_machine": processor, "extra": ""}


def active(requirements, environment) -> list[Requirement]:
    return [r for r in requirements if r.marker is None or r.marker.evaluate(environment)]


def pins(environment=None) -> dict[str, str]:
    "Name -> version that the lock gives on one machine."
    return {canonicalize_name(r.name): next(iter(r.specifier)).version for r in active(LOCK, environment)}


# the lock

def test_lock_holds_exact_pins_only():
    for r in LOCK: assert r.url is None and not r.extras and [s.operator for s in r.specifier] == ["=="], f"requirements.lock: {r} is no exact pin"
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "--hash" not in text and "://" not in text and not re.search(r"^\s*-", text, re.M)


@pytest.mark.parametrize("python,name", MACHINES)
def test_lock_satisfies_pyproject(python, name):
    environment = machine(python, name)
    names = [canonicalize_name(r.name) for r in active(LOCK, environment)]
    assert len(names) == len(set(names)), f"requirements.lock pins {sorted({n for n in names if names.count(n) > 1})} twice"
    locked = pins(environment)
    for r in active(DECLARED + DEVELOPMENT, environment):
        version = locked.get(canonicalize_name(r.name))
        assert version, f"pyproject.toml wants {r.name}, requirements.lock does not pin it: write the lock anew (CONTRIBUTING.md)"
        assert r.specifier.contains(version, prereleases=True), f"pyproject.toml wants {r}, requirements.lock pins {version}"


def test_every_supported_python_is_tested_above():
    supported = SpecifierSet(PROJECT["project"]["requires-python"])
    assert {f"3.{minor}" for minor in range(8, 30) if f"3.{minor}.0" in supported} == {python for python, _ in MACHINES}
    classifiers = {c.rpartition(" ")[2] for c in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert classifiers == {python for python, _ in MACHINES}


def test_one_tensorflow_on_every_machine():
    for python, name in MACHINES: assert len({"tensorflow", "tensorflow-cpu"} & pins(machine(python, name)).keys()) == 1
    assert "tensorflow-cpu" in pins(machine("3.11", "linux-x86_64"))


def test_installed_versions_are_the_locked_ones():
    installed = {canonicalize_name(d.name): d.version for d in importlib.metadata.distributions()}
    wrong = [f"{name} {installed.get(name, 'missing')} (locked: {version})" for name, version in pins().items() if installed.get(name) != version]
    assert not wrong, f"run bash test.sh, which brings .venv up to the lock: {', '.join(wrong)}"


# conda

def test_environment_yml_follows_the_lock():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    pip = [d["pip"] for d in conda["dependencies"] if isinstance(d, dict)]
    plain = {re.match(r"[\w.-]+", d)[0]: d for d in conda["dependencies"] if isinstance(d, str)}
    assert conda["name"] == PROJECT["project"]["name"] and conda["channels"][0] == "conda-forge"
    assert pip == [["-r requirements.lock", "-e ."]], "the lock is the only list of versions; pip reads both lines in one resolution"
    assert set(plain) == {"python", "pip", "openjpeg"}, "every other package comes from requirements.lock"
    version = plain["python"].partition("=")[2].lstrip("=")
    assert f"{version}.0" in SpecifierSet(PROJECT["project"]["requires-python"])


# nbdev

def settings() -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read_string((ROOT / "settings.ini").read_text(encoding="utf-8"))
    return dict(parser["DEFAULT"])


def typed(key: str, value: str):
    "A value of settings.ini as nbdev 3 wants it in TOML: booleans, and lists where nbdev 2 splits."
    if key.startswith("allowed_") or key == "keywords": return value.split()
    return {"True": True, "False": False}.get(value, value)


def test_tool_nbdev_mirrors_settings_ini():
    assert PROJECT["tool"]["nbdev"] == {key: typed(key, value) for key, value in settings().items()}


def test_settings_ini_agrees_with_the_package():
    ini, project = settings(), PROJECT["project"]
    init = (ROOT / ini["lib_path"] / "__init__.py").read_text(encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert f'__version__ = "{ini["version"]}"' in init
    assert ini["version"] == project["version"] == citation["version"]
    assert f"## [{ini['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert ini["lib_name"] == project["name"] and ini["description"] == project["description"] and ini["keywords"].split() == project["keywords"]
    assert project["requires-python"].startswith(f">={ini['min_python']},")
    assert (ini["license"], project["license"], citation["license"]) == ("apache2", "Apache-2.0", "Apache-2.0")
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence and "END OF TERMS AND CONDITIONS" in licence and "APPENDIX: How to apply" in licence


def test_nbdev_reads_these_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT); monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    code = "from nbdev.config import get_config as g; c = g(); print(c.allowed_cell_metadata_keys, c.clear_all, c.update_pyproject, c.recursive, c.nbs_path.name, sep='|')"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "tags|False|False|True|nbs"


# the scripts

def test_scripts_accept_the_pythons_of_pyproject():
    lower, upper = re.fullmatch(r">=(3\.\d+),<(3\.\d+)", PROJECT["project"]["requires-python"]).groups()
    bounds = f"({lower.replace('.', ', ')}) <= sys.version_info[:2] < ({upper.replace('.', ', ')})"
    for name in ("venv.sh", "venv.py"): assert bounds in (ROOT / "scripts" / name).read_text(encoding="utf-8"), f"scripts/{name}: other bounds than requires-python"


# nothing of the place where the project was made

def tracked() -> list[Path]:
    "Files that git tracks or would track; without git, all that is not made by a run."
    try: listing = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError: listing = None
    if listing and listing.returncode == 0 and listing.stdout: names = listing.stdout.split("\0")[:-1]
    else:
        made = {".git", ".venv", "runs", ".snakemake", "build", "dist", "__pycache__", ".pytest_cache", ".hypothesis", ".ipynb_checkpoints"}
        names = [p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*") if not any(part in made or part.endswith(".egg-info") for part in p.relative_to(ROOT).parts)]
    return [ROOT / n for n in names if (ROOT / n).is_file()]


def test_no_file_names_a_package_host_or_a_home_folder():
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("python" + "hosted", "org"), ("anaconda", "org"), ("npmjs", "com"), ("npmjs", "org"), ("deb", "debian", "org"))]
    forbidden = re.compile("|".join(map(re.escape, hosts)) + r"|file:///|/home/\w|/Users/\w|/root/\w")
    found = [f"{p.relative_to(ROOT)}: {m[0]}" for p in tracked() if p != Path(__file__) and p.suffix != ".svg"
             for m in [forbidden.search(p.read_bytes().decode("utf-8", "ignore"))] if m]
    assert not found, f"works elsewhere only if these go: {', '.join(found)}"


# what the package imports

def imports(path: Path) -> set[str]:
    "Absolute dotted names that a module imports, wherever in it; `from a import b` gives a and a.b."
    package, names = path.relative_to(ROOT).with_suffix("").parts[:-1], set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [*package[:len(package) - node.level + 1], node.module])) if node.level else node.module
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def area(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "medcrypt" and len(parts) > 1 and parts[1] in ORDER else None


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_module_imports(path):
    names = imports(path)
    tools = {n.partition(".")[0] for n in names} & {"nbdev", "fastcore", "execnb", "pytest", "hypothesis"}
    assert not tools, f"{tools} are development tools"
    here = area(".".join(path.relative_to(ROOT).with_suffix("").parts))
    upwards = [n for n in names if here and area(n) and ORDER.index(area(n)) > ORDER.index(here)]
    assert not upwards, f"imports go down from {here}: {upwards}"


def test_package_imports_only_what_pyproject_declares():
    provided = importlib.metadata.packages_distributions()
    optional = [Requirement(d) for name, extra in PROJECT["project"]["optional-dependencies"].items() if name != "dev" for d in extra]
    declared, undeclared = {canonicalize_name(r.name) for r in DECLARED + optional}, {}
    for path in MODULES:
        for top in {n.partition(".")[0] for n in imports(path)} - set(sys.stdlib_module_names) - {"medcrypt"}:
            if not declared & {canonicalize_name(top), canonicalize_name(top.replace("_", "-"))} and not declared & {canonicalize_name(d) for d in provided.get(top, [])}: undeclared.setdefault(top, path.relative_to(ROOT).as_posix())
    assert not undeclared, f"pyproject.toml does not declare what these import: {undeclared}"


LIGHT = sorted(".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in MODULES
               if area(".".join(p.relative_to(ROOT).with_suffix("").parts)) in ("core", "imaging", "crypto", "vault"))


@pytest.mark.parametrize("name", ["medcrypt", *LIGHT])
def test_light_modules_never_load_tensorflow(name):
    code = f"import sys, {name}; print(*sorted({{'tensorflow', 'keras', 'nbdev', 'fastcore', 'IPython'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1500:]
    assert done.stdout.split() == []
