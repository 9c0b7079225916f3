"Lessons run from top to bottom with their solutions, and their checks notice when the solutions are missing."
import os, re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

LESSONS = sorted((Path(__file__).resolve().parents[1] / "nbs" / "lessons").glob("*.ipynb"))
SOLUTION = re.compile(r"### BEGIN SOLUTION\n.*?### END SOLUTION\n?", re.S)


def read(path): return nbformat.read(path, 4)


def code(notebook): return [c for c in notebook.cells if c.cell_type == "code"]


def run(notebook, folder):
    # without MPLBACKEND the kernel shows figures in the notebook, as it does for a reader
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute(env=environment)


def test_there_are_lessons(): assert LESSONS


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lesson_is_made_for_teaching(path):
    first = read(path).cells[0].source
    assert re.match("# Lesson [0-9]+: ", first) and all(word in first for word in ("**Goal**", "**Before**", "**Time**"))
    text = "\n".join(c.source for c in code(read(path)))
    assert text.count("### BEGIN SOLUTION") == text.count("### END SOLUTION") == len(SOLUTION.findall(text)) >= 1
    for link in re.findall(r"\]\(([^)]+\.ipynb)\)", "\n".join(c.source for c in read(path).cells)): assert (path.parent / link).is_file(), link


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lesson_runs_and_its_checks_need_the_solutions(path, tmp_path):
    done = run(read(path), tmp_path)
    assert all(c.execution_count for c in code(done)) and any("image/png" in o.get("data", {}) for c in code(done) for o in c.outputs), "a static picture"
    assert not [p for p in tmp_path.rglob("*") if p.is_file()], "a lesson leaves nothing behind"
    blank = read(path)
    for cell in code(blank): cell.source = SOLUTION.sub("...\n", cell.source)
    with pytest.raises(CellExecutionError): run(blank, tmp_path)


def test_the_landing_page_links_every_lesson():
    page = (LESSONS[0].parents[1] / "start_here.ipynb").read_text(encoding="utf-8")
    assert all(f"(lessons/{path.name})" in page for path in LESSONS)
