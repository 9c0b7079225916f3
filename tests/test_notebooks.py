"Hygiene of the notebooks that are committed, and the traps of nbdev that would break the chain without a word."
import ast, importlib.util, json, os, re, shutil, subprocess, sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
API = [p for p in NOTEBOOKS if p.parent.name == "api"]
PAPER = [p for p in NOTEBOOKS if p.parent.name == "paper"]
MODULES = sorted(p for p in (ROOT / "medcrypt").rglob("*.py") if p.name != "_modidx.py")
MODULE_LINES, API_CELLS, PAPER_LINES, FUNCTION_LINES = 300, 50, 150, 5

spec = importlib.util.spec_from_file_location("check_sync", ROOT / "scripts" / "check_sync.py")
check_sync = importlib.util.module_from_spec(spec); spec.loader.exec_module(check_sync)
name = lambda p: p.relative_to(ROOT).as_posix()


def source(cell) -> str: return "".join(cell["source"])


def code_cells(path: Path) -> list: return [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code" and source(c).strip()]


def python(cell) -> str:
    "A cell's code without IPython's magics."
    return "\n".join(line for line in source(cell).splitlines() if not line.lstrip().startswith(("%", "!")))


# every notebook

@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_is_whole_and_clean(path):
    assert check_sync.broken(path) is None
    notebook = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(notebook)
    ids = [c.get("id") for c in notebook["cells"]]
    assert notebook["nbformat"] == 4 and notebook["nbformat_minor"] >= 5 and all(ids) and len(ids) == len(set(ids)), "cells need ids, each its own"
    for cell in code_cells(path):
        assert not cell["outputs"] and cell["execution_count"] is None, f"cell {cell['id']} carries outputs: see 'Change the package' in CONTRIBUTING.md"
        ast.parse(python(cell))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3", "a kernel that only its author has"
    assert notebook["cells"][0]["cell_type"] == "markdown" and source(notebook["cells"][0]).startswith("# "), "a notebook begins with its title"


def test_no_notebook_is_called_index():
    assert not [name(p) for p in NOTEBOOKS if p.name == "index.ipynb"], "nbdev would want Quarto for it: the landing page is start_here.ipynb"


BROKEN = {"half-written": ('{"cells": [{"cell_type": "code", "sou', "no complete notebook"),
          "merge conflict": ('{\n "cells": [\n<<<<<<< HEAD\n  {}\n=======\n>>>>>>> other\n ]\n}', "merge-conflict markers"),
          "empty": ("", "no complete notebook"), "another format": ('{"worksheets": []}', "no cells")}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_notebook_is_named_before_anything_is_exported(tmp_path, kind):
    text, words = BROKEN[kind]
    (tmp_path / "nbs" / "api").mkdir(parents=True)
    (tmp_path / "nbs" / "api" / "00_core.ipynb").write_text(text)
    [sentence] = check_sync.differences(tmp_path)
    assert sentence.startswith("nbs/api/00_core.ipynb ") and words in sentence


@pytest.mark.shared
@pytest.mark.parametrize("case", ["90-nb-half-written", "91-nb-merge-conflict"])
def test_broken_notebooks_of_real_life(shared, case):
    assert check_sync.broken(shared / "cases" / case / "in.ipynb")


# API notebooks

def exported_modules(path: Path) -> set[str]:
    "Modules that a notebook writes to: its default, and those named by `#| export folder.module`."
    text = "\n".join(source(c) for c in code_cells(path))
    default = re.findall(r"^#\s*\|\s*default_exp\s+(\S+)", text, re.M)
    assert len(default) == 1, f"{name(path)}: {len(default)} default_exp lines; one notebook is one module"
    return set(default) | set(re.findall(r"^#\s*\|\s*exporti?[ \t]+([\w.]+)[ \t]*$", text, re.M))


@pytest.mark.parametrize("path", API, ids=name)
def test_api_notebook(path):
    cells = code_cells(path)
    assert len(cells) <= API_CELLS, f"{len(cells)} code cells"
    assert len(exported_modules(path)) == 1
    assert source(cells[-1]).startswith("#| hide") and "nbdev" in source(cells[-1]), "the last cell exports, hidden"
    assert any("assert" in source(c) for c in cells), "no lesson cell asserts anything"


def test_no_module_has_two_notebooks():
    writers = {}
    for path in API:
        for module in exported_modules(path): writers.setdefault(module, []).append(name(path))
    assert not {m: w for m, w in writers.items() if len(w) > 1}, "the later export would overwrite the earlier"
    assert not {name(p) for p in NOTEBOOKS if p.parent.name != "api" for c in code_cells(p) if re.search(r"^#\s*\|\s*(default_exp|exporti?)\b", source(c), re.M)}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_module_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES


# paper notebooks

def tagged(path: Path) -> list: return [c for c in code_cells(path) if "parameters" in c["metadata"].get("tags", [])]


def test_the_chain_has_its_notebooks():
    assert {p.name[:2] for p in PAPER} >= {"10", "20", "25", "30", "40", "45", "50", "60", "80", "90"}


@pytest.mark.parametrize("path", PAPER, ids=name)
def test_paper_notebook(path):
    cells = code_cells(path)
    assert len(tagged(path)) == 1, "exactly one cell is tagged 'parameters', or papermill runs the defaults"
    lines = sum(bool(line.strip()) for c in cells for line in source(c).splitlines())
    assert lines <= PAPER_LINES, f"{lines} lines of code: move logic into the package"
    for cell in cells:
        for node in ast.walk(ast.parse(python(cell))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < FUNCTION_LINES, f"{node.name} has over {FUNCTION_LINES} lines: move it into the package"
    markdown = "\n".join(source(c) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "markdown")
    assert "## What to notice" in markdown


@pytest.mark.parametrize("path", PAPER, ids=name)
def test_parameters_are_literals_with_a_comment(path):
    [cell] = tagged(path)
    text = source(cell)
    for node in ast.parse(text).body:
        line = text.splitlines()[node.end_lineno - 1]
        assert isinstance(node, (ast.Assign, ast.AnnAssign)), f"{line!r} is no parameter"
        ast.literal_eval(node.value)
        assert re.search(r"#\s*\S", line), f"{line!r} has no comment that says what it is"
        assert "key" not in line.partition("=")[0].lower() or "path" in line.partition("=")[0].lower(), f"{line!r}: pass the path of a key file, never a key"


def test_paper_and_lessons_are_kept_out_of_nbdev_test():
    for folder in ("paper", "lessons"): assert (ROOT / "nbs" / folder / ".notest").is_file()
    assert not (ROOT / "nbs" / "api" / ".notest").exists()


# nbdev's traps, each shown to be real and shown to be closed by our settings

def project(folder: Path, notebooks: dict[str, list], **settings) -> Path:
    "A small nbdev project with our settings.ini; a setting given as None is left out."
    (folder / "nbs").mkdir()
    lines = (ROOT / "settings.ini").read_text(encoding="utf-8").splitlines()
    for key, value in settings.items(): lines = [line for line in lines if not line.startswith(f"{key} ")] + ([f"{key} = {value}"] if value is not None else [])
    (folder / "settings.ini").write_text("\n".join(lines) + "\n")
    for path, cells in notebooks.items():
        target = folder / "nbs" / path; target.parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}}), target)
    return folder


def nbdev(command: str, folder: Path, *arguments) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"} | {"XDG_CONFIG_HOME": str(folder)}
    return subprocess.run([Path(sys.executable).with_name(command), *arguments], cwd=folder, env=env, capture_output=True, text=True)


cell = nbformat.v4.new_code_cell


@pytest.mark.parametrize("settings,kept", [({}, True), ({"allowed_cell_metadata_keys": ""}, False), ({"allowed_cell_metadata_keys": None}, False), ({"clear_all": "True"}, False)],
                         ids=["our settings", "key empty", "key absent", "clear_all"])
def test_nbdev_clean_keeps_the_parameters_tag_only_under_our_settings(tmp_path, settings, kept):
    folder = project(tmp_path, {"a.ipynb": [cell("n = 1  # how many", metadata={"tags": ["parameters"], "collapsed": True})]}, **settings)
    done = nbdev("nbdev_clean", folder)
    metadata = nbformat.read(folder / "nbs" / "a.ipynb", 4).cells[0].metadata
    assert done.returncode == 0, done.stderr
    assert metadata == ({"tags": ["parameters"]} if kept else {})


def test_nbdev_clean_alone_leaves_outputs_and_the_way_of_contributing_does_not(tmp_path):
    output = nbformat.v4.new_output("stream", text="a patient's name")
    folder = project(tmp_path, {"a.ipynb": [nbformat.v4.new_markdown_cell("# a"), cell("n = 1  # how many", metadata={"tags": ["parameters"]}, outputs=[output], execution_count=3)]})
    path = folder / "nbs" / "a.ipynb"
    assert nbdev("nbdev_clean", folder).returncode == 0 and "patient" in path.read_text()
    done = subprocess.run([sys.executable, "-m", "nbconvert", "--clear-output", "--inplace", str(path)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert nbdev("nbdev_clean", folder).returncode == 0
    last = nbformat.read(path, 4).cells[-1]
    assert last.outputs == [] and last.execution_count is None and last.metadata == {"tags": ["parameters"]}


def test_notest_keeps_a_folder_out_of_nbdev_test(tmp_path):
    ran = "from pathlib import Path; Path(r'{}').write_text('ran')"
    folder = project(tmp_path, {f"{area}/a.ipynb": [cell(ran.format(tmp_path / area))] for area in ("api", "paper", "lessons")})
    for area in ("paper", "lessons"): shutil.copy(ROOT / "nbs" / area / ".notest", folder / "nbs" / area)
    done = nbdev("nbdev_test", folder, "--n_workers", "0")
    assert done.returncode == 0, done.stderr
    assert [area for area in ("api", "paper", "lessons") if (tmp_path / area).exists()] == ["api"]
    (folder / "nbs" / "paper" / ".notest").unlink()
    nbdev("nbdev_test", folder, "--n_workers", "0")
    assert (tmp_path / "paper").exists(), "without .notest nbdev_test runs paper notebooks on their defaults"


def test_later_notebook_overwrites_an_earlier_one_of_the_same_module(tmp_path):
    folder = project(tmp_path, {f"{n}.ipynb": [cell("#| default_exp core"), cell(f"#| export\ndef {n}(): return 1")] for n in ("a_first", "b_second")})
    assert nbdev("nbdev_export", folder).returncode == 0
    text = (folder / "medcrypt" / "core.py").read_text()
    assert "def b_second" in text and "def a_first" not in text


def test_export_does_not_depend_on_the_order_of_files(tmp_path):
    notebooks = {"00_a.ipynb": [cell("#| default_exp core"), cell("#| export\ndef first(): return 1")], "01_b.ipynb": [cell("#| export core\ndef second(): return 2")]}
    forth, back = tmp_path / "forth", tmp_path / "back"
    forth.mkdir(); back.mkdir(); project(forth, notebooks); (back / "nbs").mkdir()
    shutil.copy(forth / "settings.ini", back)
    for file in sorted(notebooks, reverse=True): shutil.copy(forth / "nbs" / file, back / "nbs")
    for folder in (forth, back, back): assert nbdev("nbdev_export", folder).returncode == 0
    modules = [{p.name: p.read_bytes() for p in (folder / "medcrypt").glob("*.py")} for folder in (forth, back)]
    assert modules[0] == modules[1] and b"def second" in modules[0]["core.py"]


def small_checkout(folder: Path) -> Path:
    project(folder, {"api/00_core.ipynb": [nbformat.v4.new_markdown_cell("# core"), cell("#| default_exp core"), cell("#| export\ndef first(): return 1")]})
    shutil.copy(ROOT / "pyproject.toml", folder)
    for command in ("nbdev_export", "nbdev_clean"): assert nbdev(command, folder).returncode == 0
    return folder


CHANGES = {"module edited by hand": lambda f: (f / "medcrypt" / "core.py").open("a").write("x = 1\n"),
           "notebook not exported": lambda f: (f / "nbs/api/00_core.ipynb").write_text((f / "nbs/api/00_core.ipynb").read_text().replace("return 1", "return 2")),
           "notebook not clean": lambda f: (f / "nbs/api/00_core.ipynb").write_text((f / "nbs/api/00_core.ipynb").read_text().replace('"execution_count": null', '"execution_count": 7')),
           "module without a notebook": lambda f: (f / "medcrypt" / "old.py").write_text((f / "medcrypt" / "core.py").read_text())}


def test_check_sync_accepts_what_nbdev_wrote(tmp_path):
    before = check_sync.contents(small_checkout(tmp_path))
    assert check_sync.differences(tmp_path) == [] and check_sync.contents(tmp_path) == before


@pytest.mark.parametrize("change", CHANGES)
def test_check_sync_names_what_is_out_of_step(tmp_path, change):
    CHANGES[change](small_checkout(tmp_path))
    before = check_sync.contents(tmp_path)
    found = check_sync.differences(tmp_path)
    assert found and all(re.match(r"(nbs|medcrypt)/\S+\.(py|ipynb) (differs|is missing|comes from no notebook)$", line) for line in found)
    assert check_sync.contents(tmp_path) == before, "the checkout is judged, never changed"


@pytest.mark.parametrize("path", PAPER, ids=name)
def test_a_step_fits_with_one_thread_wherever_it_is_run(path):
    found = [argument for cell in code_cells(path) for argument in re.findall(r"training\.configure\((.*?)\)", source(cell))]
    assert found == ["1"] if any(word in python(cell) for cell in code_cells(path) for word in ("study.fit", "ablation.ablate", "training.predict", "attack_tables.")) else set(found) <= {"1"}   # in JupyterLab no chain says how many: with another number the last digits would be others
