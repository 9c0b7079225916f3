"""The wrapper around papermill: what papermill lets pass is an error here, and nothing half-written stays."""
import json
import time
from pathlib import Path

import nbformat
import pytest

from medcrypt.cli import step
from medcrypt.cli.step import StepError, check_outputs, check_parameters, read_notebook, run_notebook

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not here")


def write(folder, *sources, tag=True, kernel="python3", name="nb.ipynb"):
    cells = [nbformat.v4.new_code_cell("n = 1  # how many\npath = ''  # where", metadata={"tags": ["parameters"]} if tag else {})]
    cells += [nbformat.v4.new_code_cell(s) for s in sources]
    path = folder / name
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}), path)
    return path


def test_parameters_reach_the_notebook_unchanged(tmp_path):
    nasty = "C:\\new\\table\\x00 \"q\" 's' {n} $HOME ünï"
    source = write(tmp_path, "import json; json.dump([n, path], open('got.json', 'w'))")
    run_notebook(source, tmp_path / "out.ipynb", {"n": 7, "path": nasty}, expect=("got.json",), folder=tmp_path, failed=tmp_path / "failed")
    assert json.loads((tmp_path / "got.json").read_text()) == [7, nasty]
    assert read_notebook(source) == nbformat.read(source, 4), "the source must not change"


@pytest.mark.parametrize("tags", [0, 2])
def test_exactly_one_parameters_cell(tmp_path, tags):
    source = write(tmp_path, tag=tags > 0)
    if tags == 2:
        notebook = read_notebook(source)
        notebook.cells.append(nbformat.v4.new_code_cell("k = 1", metadata={"tags": ["parameters"]}))
        nbformat.write(notebook, source)
    with pytest.raises(StepError, match=f"{tags} cells are tagged"):
        check_parameters(source, {})


def test_unknown_parameter_is_refused_before_anything_runs(tmp_path):
    source = write(tmp_path, "open('ran', 'w')")
    with pytest.raises(StepError, match="no parameter 'pth'; did you mean 'path'"):
        run_notebook(source, tmp_path / "out.ipynb", {"pth": "x"}, folder=tmp_path, failed=tmp_path / "failed")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.ipynb").exists()


def test_any_kernel_name_runs_on_this_interpreter(tmp_path):
    source = write(tmp_path, "import sys; open('exe', 'w').write(sys.prefix)", kernel="somebody's own kernel")
    run_notebook(source, tmp_path / "out.ipynb", {}, expect=("exe",), folder=tmp_path, failed=tmp_path / "failed")
    import sys
    assert (tmp_path / "exe").read_text() == sys.prefix


@pytest.mark.parametrize("source, reason", [
    ("raise RuntimeError('disk\\nfull')", "RuntimeError: disk full"),
    ("import os; os._exit(3)", "kernel died"),
    ("import time; time.sleep(600)", "longer than 3 s"),
])
def test_failures_end_soon_with_one_sentence_and_keep_what_was_there(tmp_path, source, reason):
    output = tmp_path / "out.ipynb"
    output.write_text("earlier result")
    started = time.time()
    with pytest.raises(StepError, match=reason) as caught:
        run_notebook(write(tmp_path, "open('first.json', 'w')", source), output, {}, folder=tmp_path, failed=tmp_path / "failed", timeout_s=3)
    assert time.time() - started < 60 and "\n" not in str(caught.value)
    assert output.read_text() == "earlier result"
    assert (tmp_path / "failed" / "out.ipynb").is_file() and not list(tmp_path.glob(".running*"))


def test_a_declared_output_must_be_written_by_this_run(tmp_path):
    old = tmp_path / "table.csv"
    old.write_text("a")
    import os
    os.utime(old, (1, 1))
    with pytest.raises(StepError, match="not renewed"):
        run_notebook(write(tmp_path, "n"), tmp_path / "out.ipynb", {}, expect=("table.csv",), folder=tmp_path, failed=tmp_path / "failed")
    with pytest.raises(StepError, match="not written"):
        check_outputs([tmp_path / "none.csv"], 0)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(StepError, match="empty"):
        check_outputs([tmp_path / "empty.csv"], 0)


def test_a_blank_figure_is_a_failure(tmp_path):
    from PIL import Image
    Image.new("RGB", (40, 30), "white").save(tmp_path / "blank.png")
    with pytest.raises(StepError, match="blank figure"):
        check_outputs([tmp_path / "blank.png"], 0)
    picture = Image.new("RGB", (40, 30), "white")
    picture.putpixel((3, 3), (0, 0, 0))
    picture.save(tmp_path / "drawn.png")
    check_outputs([tmp_path / "drawn.png"], 0)


@pytest.mark.parametrize("text, reason", [
    ('{"cells": [{"cell_type": "code", "sou', "not a complete notebook"),
    ('{\n<<<<<<< HEAD\n"cells": []\n=======\n>>>>>>> b\n}', "merge-conflict"),
    ("", "not a complete notebook"), ("[]", "not a"), ('{"cells": 3}', "not a"),
])
def test_broken_notebooks_are_named(tmp_path, text, reason):
    path = tmp_path / "broken.ipynb"
    path.write_text(text)
    with pytest.raises(StepError, match=reason) as caught:
        read_notebook(path)
    assert str(path) in str(caught.value)


def test_the_command_leaves_the_reason_beside_the_failed_notebook(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = write(tmp_path, "from medcrypt.core import ConfigError\nraise ConfigError('labels.csv: no such column')")
    assert step.main(["--notebook", str(source), "--output", str(tmp_path / "notebooks" / "10_x.ipynb")]) == 1
    assert "labels.csv: no such column" in (tmp_path / "failed" / "10_x.error.txt").read_text()
    assert "ConfigError" not in capsys.readouterr().err


@needs_cases
@pytest.mark.parametrize("case", sorted(p.name for p in CASES.glob("*-nb-*") if (p / "in.ipynb").is_file()) if CASES.is_dir() else [])
def test_notebook_cases(case, tmp_path):
    expected = json.loads((CASES / case / "expected.json").read_text())
    call = lambda: run_notebook(CASES / case / "in.ipynb", tmp_path / "out.ipynb", expected.get("parameters") or {}, folder=tmp_path, failed=tmp_path / "failed", timeout_s=4)
    if expected["action"] == "must_raise":
        with pytest.raises(StepError):
            call()
        assert not (tmp_path / "out.ipynb").exists()
    else:
        assert call().is_file()
