"""The chain around Snakemake: what it refuses, what it re-runs, and how it survives being killed."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medcrypt.cli import chain
from medcrypt.cli import publish as publishing
from medcrypt.cli.chain import ChainError, configure, locked, prepare, sources
from medcrypt.cli.publish import publish
from medcrypt.core import PROFILES, ConfigError, MedcryptError, RunPaths, project_root, write_json
from medcrypt.learning.rungs import jobs

ROOT = project_root()


def folder_of_pictures(where, n=60, name="pics", label="label_sick"):
    import numpy as np
    from PIL import Image
    folder = where / name
    (folder / "im").mkdir(parents=True)
    draw = np.random.default_rng(0)
    rows = [f"file,{label},patient_id"]
    for i in range(n):
        picture = draw.integers(40, 120, (64, 64), dtype=np.uint8)
        if i % 2: picture[20:40, 20:40] += 60
        Image.fromarray(picture).save(folder / "im" / f"{i:03d}.png")
        rows.append(f"im/{i:03d}.png,{i % 2},p{i // 2}" if i % 4 > 1 else f"im/{i:03d}.png,{i % 2},q{i}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_sources_follow_relative_imports():
    found = {p.relative_to(ROOT).as_posix() for p in sources(ROOT / "nbs" / "paper" / "45_fidelity.ipynb", ROOT)}
    assert {"nbs/paper/45_fidelity.ipynb", "medcrypt/core.py", "medcrypt/learning/masked_cnn.py", "medcrypt/crypto/envelope.py", "medcrypt/imaging/openjpeg.py"} <= found


def test_training_does_not_depend_on_what_comes_after_it():
    train = {p.relative_to(ROOT).as_posix() for p in sources(ROOT / "nbs" / "paper" / "30_train.ipynb", ROOT)}
    assert not train & {"medcrypt/evaluation/claims.py", "medcrypt/evaluation/charts.py", "medcrypt/evaluation/report.py", "medcrypt/cli/chain.py", "medcrypt/cli/main.py"}


def test_two_phantoms_by_default_one_of_each_kind():
    datasets = configure(["phantom"], "smoke")["datasets"]
    assert {d["modality"] for d in datasets.values()} == {"CXR", "CT"} and all(d["kind"] == "phantom" for d in datasets.values())


@pytest.mark.parametrize("call, words", [
    (dict(data=["phantom"], profile_name="tiny"), "--profile"), (dict(data=["nih"], profile_name="smoke"), "--data nih"), (dict(data=["no/such/folder"], profile_name="smoke"), "no/such/folder"),
    (dict(data=["phantom"], profile_name="smoke", label="x"), "--label"), (dict(data=["phantom"], profile_name="smoke", storage=Path("no/where")), "--storage"),
    (dict(data=[], profile_name="smoke", dataset_config=Path("none.toml")), "none.toml"), (dict(data=[], profile_name="smoke", dataset_config=Path(".")), "cannot be read")])
def test_mistakes_name_the_option(call, words):
    with pytest.raises(MedcryptError, match=words): configure(**call)


def test_a_folder_becomes_a_data_set_and_its_changes_are_seen(tmp_path):
    folder = folder_of_pictures(tmp_path)
    first = configure([str(folder)], "smoke")
    [entry] = first["datasets"].values()
    assert entry["kind"] == "folder" and entry["label"] == "label_sick" and Path(entry["folder"]).is_absolute()
    assert configure([str(folder)], "smoke") == first
    (folder / "im" / "000.png").write_bytes((folder / "im" / "001.png").read_bytes())
    assert configure([str(folder)], "smoke") != first
    with pytest.raises(MedcryptError, match="--dataset-config"): configure([str(folder), str(folder_of_pictures(tmp_path / "b"))], "smoke", label="label_sick")


def test_an_output_folder_of_something_else_is_left_alone(tmp_path):
    config = configure(["phantom"], "smoke")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ChainError, match="not empty"): prepare(tmp_path, config)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.txt"]
    out = tmp_path / "run"
    prepare(out, config)
    for other in (configure(["phantom"], "laptop"), configure(["phantom"], "smoke", seed=1), configure([str(folder_of_pictures(tmp_path))], "smoke")):
        with pytest.raises(ChainError, match="--force"): prepare(out, other)
        assert json.loads((out / "config.json").read_text()) == config
    prepare(out, configure(["phantom"], "smoke", seed=1), force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ChainError, match="is a file"): chain.reproduce(config, tmp_path / "file", cores=1)


def test_a_folder_of_somebody_else_is_not_even_touched(tmp_path):
    config, folder = configure(["phantom"], "smoke"), folder_of_pictures(tmp_path)
    mine = tmp_path / "mine"; mine.mkdir(); (mine / ".lock").write_text("important")
    with pytest.raises(ChainError, match="not a run of medcrypt"): chain.reproduce(config, mine, cores=1)
    assert (mine / ".lock").read_text() == "important"
    for text in ("[]", '{"profile": "smoke"}', '{"made_by": "medcrypt", "datasets": null}', "{"):
        (mine / ".lock").unlink(missing_ok=True); (mine / "config.json").write_text(text)
        with pytest.raises(MedcryptError): chain.reproduce(config, mine, cores=1, force=True)
        assert (mine / "config.json").read_text() == text and [p.name for p in mine.iterdir()] == ["config.json"]
    mine_config = configure([str(folder)], "smoke")
    with pytest.raises(ChainError, match="inside the data folder"): chain.reproduce(mine_config, folder / "run", cores=1)
    assert not (folder / "run").exists()


def test_another_folder_of_the_same_name_or_another_question_is_another_run(tmp_path):
    first, second = folder_of_pictures(tmp_path), folder_of_pictures(tmp_path / "elsewhere")
    out = prepare(tmp_path / "o", configure([str(first)], "smoke")).out
    for other in (configure([str(second)], "smoke"), configure([str(first)], "smoke", include="im/0*"), configure([str(first)], "smoke", label="not label_sick"), configure([str(first)], "smoke", size=32)):
        with pytest.raises(ChainError, match="--force"): prepare(out, other)
    (first / "im" / "extra.png").write_bytes((first / "im" / "000.png").read_bytes())
    prepare(out, configure([str(first)], "smoke"))   # the same question on renewed files is the same run


def test_force_leaves_nothing_of_the_other_run(tmp_path):
    out = prepare(tmp_path / "o", configure(["phantom"], "smoke")).out
    (out / "figures").mkdir(); (out / "figures" / "data_phantom_ct.md").write_text("old")
    prepare(out, configure([str(folder_of_pictures(tmp_path))], "smoke"), force=True)
    assert not (out / "figures").exists()


@pytest.mark.parametrize("options, words", [({"include": "zz*"}, "no rows"), ({"label": "label_sick=5"}, "two classes"), ({"size": 8}, "16 pixels"), ({"block": 40}, "--block"), ({"group": "nobody"}, "nobody")])
def test_what_cannot_work_is_said_before_anything_is_written(tmp_path, options, words):
    with pytest.raises(MedcryptError, match=words): configure([str(folder_of_pictures(tmp_path))], "smoke", **options)


def test_too_few_patients_and_reserved_names(tmp_path):
    with pytest.raises(ConfigError, match="patients"): configure([str(folder_of_pictures(tmp_path, n=6))], "smoke")
    with pytest.raises(ConfigError, match="phantoms"): configure([str(folder_of_pictures(tmp_path / "x", name="phantom_ct"))], "smoke")


def test_rows_are_chosen_before_a_run_as_they_are_when_it_reads_them(tmp_path):
    "Unknown patients are patients of their own and duplicates do not count, in both places."
    folder = folder_of_pictures(tmp_path)
    lines = (folder / "labels.csv").read_text().splitlines()
    rows = [line.rsplit(",", 1)[0] for line in lines[1:]]
    (folder / "labels.csv").write_text("\n".join(["file,label_sick,patient_id", *(f"{row},nan" for row in rows)]))
    assert configure([str(folder)], "smoke")["datasets"]["pics"]["group"] == "patient_id"
    (folder / "labels.csv").write_text("\n".join(["file,label_sick,patient_id,duplicate_of", *(f"{row},p{i},{'im/001.png' if i % 2 and i > 3 else ''}" for i, row in enumerate(rows))]))
    with pytest.raises(ConfigError, match="2 patients with label 1"): configure([str(folder)], "smoke")


def test_a_readme_without_its_section_loses_no_figures(tmp_path):
    run = RunPaths(tmp_path / "run")
    write_json(run.config, configure(["phantom"], "smoke")); run.figures.mkdir(parents=True)
    (tmp_path / "figures").mkdir(); (tmp_path / "figures" / "kept.png").write_text("x"); (tmp_path / "README.md").write_text("no section")
    with pytest.raises(ChainError, match="README.md"): publish(run, tmp_path)
    assert (tmp_path / "figures" / "kept.png").is_file()


def test_new_files_in_the_storage_folder_are_noticed(tmp_path):
    (tmp_path / "s").mkdir(); (tmp_path / "s" / "a.dcm").write_bytes(b"1")
    before = configure(["phantom"], "smoke", storage=tmp_path / "s")
    (tmp_path / "s" / "b.dcm").write_bytes(b"2")
    assert configure(["phantom"], "smoke", storage=tmp_path / "s")["storage_fingerprint"] != before["storage_fingerprint"]


def test_an_unchanged_configuration_is_not_rewritten(tmp_path):
    config = configure(["phantom"], "smoke")
    path = prepare(tmp_path / "o", config).config
    before = path.stat().st_mtime_ns
    prepare(tmp_path / "o", config)
    assert path.stat().st_mtime_ns == before


def test_one_run_at_a_time(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", f"from medcrypt.cli.chain import locked; from pathlib import Path; import time\nwith locked(Path({str(tmp_path / '.lock')!r})): print('held', flush=True); time.sleep(60)"], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(ChainError, match=f"process {holder.pid}"):
            with locked(tmp_path / ".lock"): pass
    finally: holder.kill(); holder.wait()
    with locked(tmp_path / ".lock"): pass


def test_what_a_killed_command_left_running_is_ended(tmp_path):
    code = (f"import subprocess, sys, os, time\nfrom pathlib import Path\nfrom medcrypt.cli.chain import locked\nwith locked(Path({str(tmp_path / '.lock')!r})) as lock:\n"
            "    p = subprocess.Popen([sys.executable, '-c', 'import subprocess, sys; subprocess.run([sys.executable, \"-c\", \"import time; time.sleep(300)\"])'], pass_fds=(lock,), start_new_session=True)\n"
            "    os.pwrite(lock, f'{os.getpid()}\\n{p.pid}\\n'.encode(), 0); print(p.pid, flush=True); time.sleep(300)\n")
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    orphan = int(command.stdout.readline())
    command.kill(); command.wait()
    assert Path(f"/proc/{orphan}").exists() or sys.platform != "linux"
    with locked(tmp_path / ".lock"): pass
    import psutil
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE


def test_of_real_pictures_only_tables_and_plots_are_published(tmp_path):
    run = RunPaths(tmp_path / "run")
    write_json(run.config, configure([str(folder_of_pictures(tmp_path))], "smoke"))
    run.figures.mkdir(parents=True)
    for name in ("table1_performance.csv", "figure_roc.png", "figure_views_pics.png", "figure_views_pics.csv", "figure_pipeline_pics.svg", "figure_examples_pics.png"): (run.figures / name).write_text("x")
    (run.figures / "manifest.json").write_text("{}")
    (run.figures / "README.md").write_text("# Figures\n\n## Claims\n\n## Figures\n\n### figure_roc (from `a`)\n\n![figure_roc](figure_roc.png)\n\n### figure_views_pics (from `b`)\n\n![figure_views_pics](figure_views_pics.png)\n")
    described = tmp_path / "two.toml"; described.write_text("# how")
    target = publish(run, tmp_path, "medcrypt reproduce --profile sample", described)
    assert target == tmp_path / "figures" / "sample" and sorted(p.name for p in target.iterdir()) == ["README.md", "figure_roc.png", "manifest.json", "table1_performance.csv", "two.toml"]
    assert [Path(part["path"]).name for part in json.loads((target / "manifest.json").read_text())["files"]["outputs"]] == ["figure_roc.png", "table1_performance.csv", "two.toml"]
    text = (target / "README.md").read_text()
    assert "`medcrypt reproduce --profile sample`" in text and "figure_roc.png" in text and "figure_views" not in text and not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("last", ["figure_roc", "figure_views_pics"])
def test_a_page_without_pictures_is_the_page_of_a_run_without_them(last):
    from medcrypt.cli.publish import _of_collections
    page = lambda *names: "\n".join(["# Run", "", "## Claims", "", "## Figures", "", *(f"### {name}\n\n![{name}]({name}.png)\n" for name in names)])
    shown = _of_collections(page("figure_examples_pics", "figure_ladder", last), "Made by `x`.")
    assert shown == _of_collections(page("figure_ladder", *(n for n in (last,) if "views" not in n)), "Made by `x`.") and "views" not in shown and shown.endswith(")\n") # else it would be stale at once


def test_publishing_loses_and_tells_nothing(tmp_path):
    run, old = RunPaths(tmp_path / "run"), tmp_path / "figures" / "sample"
    write_json(run.config, configure([str(folder_of_pictures(tmp_path))], "smoke"))
    run.figures.mkdir(parents=True); (run.figures / "README.md").write_text("\n## Claims\n"); (run.figures / "claims.csv").write_text("x")
    old.mkdir(parents=True); (old / "kept.csv").write_text("x")
    described = tmp_path / "claims.csv"; described.write_text("y")
    with pytest.raises(ChainError, match="claims.csv.*rename"): publish(run, tmp_path, described=described)
    assert [p.name for p in old.iterdir()] == ["kept.csv"]
    assert publishing.as_typed(["reproduce", "--data", "/archives/ward 3", "--profile", "sample"]) == "medcrypt reproduce --data 'ward 3' --profile sample"


def test_phantoms_and_other_data_are_published_apart(tmp_path):
    run = RunPaths(tmp_path / "run")
    write_json(run.config, configure(["phantom", str(folder_of_pictures(tmp_path))], "smoke"))
    with pytest.raises(ChainError, match="apart"): publish(run, tmp_path)


def test_publishing_fills_the_readme_and_keeps_the_rest(tmp_path):
    run = RunPaths(tmp_path / "run")
    write_json(run.config, configure(["phantom"], "smoke"))
    run.figures.mkdir(parents=True)
    (run.figures / "manifest.json").write_text("{}")
    (run.figures / "claims.md").write_text("Caption of this run.\n\n| ... |\n")
    (run.figures / "claims.csv").write_text("id,where,claim,measured,verdict\nssim,4.3,a | b,-,reproduced\n")
    (tmp_path / "figures" / "phantom").mkdir(parents=True); (tmp_path / "figures" / "phantom" / "stale.png").write_text("x")
    (tmp_path / "README.md").write_text(f"before\n{publishing.CLAIMS_START}\n| old |\n{publishing.CLAIMS_END}\nafter\n")
    publish(run, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"before\n{publishing.CLAIMS_START}\nCaption of this run.\n") and text.endswith(f"{publishing.CLAIMS_END}\nafter\n")
    assert "| a \\| b (4.3) | - | ✓ **reproduced** |" in text and "old" not in text
    assert sorted(p.name for p in (tmp_path / "figures" / "phantom").iterdir()) == ["claims.csv", "claims.md", "manifest.json"]


def dry_run(out, *options):
    done = subprocess.run([sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(out), "--configfile", str(out / "config.json"), "--cores", "2", "--dry-run", "--nolock", "--quiet", "rules", *options],
                          capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_target_after_snakemake_is_one_and_no_reason_to_run_a_step_again(tmp_path, monkeypatch):
    from snakemake.cli import get_argument_parser
    asked = []
    class Process:
        pid = os.getpid()
        def __init__(self, command, **options): asked.append(command)
        def wait(self): return 0
    monkeypatch.setattr(chain.subprocess, "Popen", Process)
    with locked(tmp_path / ".lock") as lock: assert chain.snakemake(RunPaths(tmp_path), 2, lock, ("work/vault/d.index.csv", "figures/a.csv")) == 0
    parsed = get_argument_parser().parse_args(asked[0][3:])
    assert parsed.targets == ["work/vault/d.index.csv", "figures/a.csv"] and parsed.cores == 2 and len(parsed.rerun_triggers) == 4


def test_no_step_owns_a_key():
    "Snakemake deletes a step's outputs before it runs again: a key that is random for real pictures would go, and with it all that belongs to it."
    assert "work/keys" not in (ROOT / "Snakefile").read_text() and "work/vault/{dataset}.index.csv" in (ROOT / "Snakefile").read_text()


def test_the_workflow_has_a_rule_for_every_paper_notebook(tmp_path):
    prepare(tmp_path / "o", configure(["phantom"], "smoke"))
    code, text = dry_run(tmp_path / "o")
    assert code == 0, text
    snakefile = (ROOT / "Snakefile").read_text()
    for notebook in (ROOT / "nbs" / "paper").glob("*.ipynb"): assert f'needs("{notebook.stem}")' in snakefile


def test_a_full_run_has_a_step_for_every_model_and_repetition(tmp_path):
    prepare(tmp_path / "o", configure(["phantom"], "full"))
    code, text = dry_run(tmp_path / "o", "--forcerun", "fit")
    models = len(jobs(PROFILES["full"].views))
    assert code == 0 and re.search(r"^fit\s+(\d+)", text, re.M)[1] == str(5 * (2 * models + 1)), text # and the findings of the radiographs


# the real thing, on a folder of sixty small pictures and the first step alone

RUN = ("import sys, json; from pathlib import Path; from medcrypt.cli import chain\n"
       "config, out = json.loads(sys.argv[1]), Path(sys.argv[2])\n"
       "print('steps', chain.reproduce(config, out, cores=1, extra=('--until', 'data'))[1], flush=True)")


def start(config, out, **options):
    return subprocess.Popen([sys.executable, "-c", RUN, json.dumps(config), str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return int(out.rsplit("steps ", 1)[1])


def test_a_second_run_does_nothing_and_a_change_is_noticed(tmp_path):
    folder, out = folder_of_pictures(tmp_path), tmp_path / "out"
    config = configure([str(folder)], "smoke")
    assert finish(start(config, out)) == 1
    made = {p: p.stat().st_mtime_ns for p in (out / "figures").iterdir()}
    assert (out / "figures" / "data_pics.csv").is_file() and not list(out.glob("notebooks/.running*"))
    assert finish(start(config, out)) == 0
    assert made == {p: p.stat().st_mtime_ns for p in (out / "figures").iterdir()}
    for name in ("10_data-pics",): (out / "notebooks" / f"{name}.ipynb").unlink()
    assert finish(start(config, out)) == 1
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text().replace("im/000.png,0", "im/000.png,1"))
    assert finish(start(configure([str(folder)], "smoke"), out)) == 1


@pytest.mark.parametrize("whom", ["command", "everything"])
def test_kill_9_and_the_same_command_again(tmp_path, whom):
    import psutil
    folder, out = folder_of_pictures(tmp_path), tmp_path / "out"
    config = configure([str(folder)], "smoke")
    process = start(config, out)
    assert "started" in process.stdout.readline()
    time.sleep(1.5)   # the kernel is up and working
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.kill()
    if whom == "everything":
        for p in family:
            if p.is_running(): p.kill()
    process.wait()
    assert finish(start(config, out)) in ((0, 1) if whom == "command" else (1,))   # those who were not killed may finish first
    assert (out / "figures" / "data_pics.csv").is_file() and (out / "notebooks" / "10_data-pics.ipynb").is_file()
    half = [p.name for p in out.rglob("*") if p.name.startswith((".running", ".data", ".figure"))]
    assert not half, half


def test_a_failing_step_names_itself_and_keeps_its_notebook(tmp_path):
    folder, out = folder_of_pictures(tmp_path), tmp_path / "out"
    config = configure([str(folder)], "smoke")
    (folder / "im" / "007.png").write_bytes(b"no picture")
    process = start(config, out)
    _, err = process.communicate(timeout=120)
    assert process.returncode and "10_data-pics: cell" in err and "007.png" in err
    assert (out / "failed" / "10_data-pics.ipynb").is_file() and not (out / "notebooks" / "10_data-pics.ipynb").exists()


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_ends_everything_soon_and_says_how_to_go_on(tmp_path, times):
    import psutil
    folder, out = folder_of_pictures(tmp_path), tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-m", "medcrypt.cli.main", "reproduce", "--data", str(folder), "--profile", "smoke", "--out", str(out), "--cores", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "started" not in process.stdout.readline(): pass
    time.sleep(1.5)
    family = psutil.Process(process.pid).children(recursive=True)
    for _ in range(times): process.send_signal(signal.SIGINT); time.sleep(.05)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130 and "interrupted" in err and err.count("\n") == 1
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    assert finish(start(configure([str(folder)], "smoke"), out)) == 1


def test_a_checkout_path_with_blanks_and_quotes_works(tmp_path):
    home = tmp_path / "a friend's check out"
    shutil.copytree(ROOT / "nbs", home / "nbs"); shutil.copytree(ROOT / "medcrypt", home / "medcrypt"); shutil.copy(ROOT / "Snakefile", home)
    environment = {**os.environ, "PYTHONPATH": str(home), "MEDCRYPT_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps(configure([str(folder_of_pictures(tmp_path))], "smoke")), str(tmp_path / "o u t")], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "steps 1" in done.stdout, done.stderr


@pytest.mark.parametrize("said, known", [("", "LIDC-IDRI"), ('source = "my own"\n', "my own")])
def test_a_described_data_set_is_of_the_collection_that_its_layout_is(tmp_path, said, known):
    folder = folder_of_pictures(tmp_path, label="label_malignant"); table = folder / "labels.csv"
    head, *rows = table.read_text().splitlines(); table.write_text("\n".join([f"{head},malignancy_mean,diameter_mm", *(f"{row},4,9" for row in rows)]) + "\n")
    text = 'label = "label_malignant"\ngroup = "patient_id"\nmodality = "CT"\ntitle = "a sample"\n' + said
    (tmp_path / "sample.toml").write_text(f'[[dataset]]\nname = "nodules"\nfolder = "pics"\n{text}')
    made = configure([], "smoke", dataset_config=tmp_path / "sample.toml")["datasets"]["nodules"]
    assert (made["source"], made["title"]) == (known, "a sample")
    (folder / "medcrypt.toml").write_text(text)
    assert configure([str(folder)], "smoke")["datasets"]["pics"]["source"] == known
