"Training's bench: what is counted, what is promised, and what becomes of its processes. How fast it is, a run on a quiet machine says."
import math, subprocess, sys

import numpy as np
import pandas as pd
import pytest

keras = pytest.importorskip("keras")
from medcrypt.cli import bench_learning
from medcrypt.cli.bench_learning import EPOCHS, EXACT, FAST, OURS, READ, THEIRS, BenchError, Report, Worker, bench, envelopes, pictures, training_flops, words
from medcrypt.cli.main import main, parser
from medcrypt.core import PROFILES
from medcrypt.learning.masked_cnn import build
from medcrypt.learning.views import views

TINY = {"rounds": 2, "sizes": (16,), "count": 100, "batch": 16, "width": 4, "products": 1, "cores": 1}


def test_operations_are_counted_from_the_layers():
    stem, stage, last = 9 * 4 * 64, (2 * 9 + 1) * 4 * 4 * 16, 8
    assert training_flops(build((16, 16), mask="none", width=4)) == 6 * (stem + stage + last)
    model = build((48, 48), width=16); by_hand = sum(np.prod(w.shape) * np.prod(layer.output.shape[1:-1]) for layer in model.layers for w in layer.weights if len(w.shape) in (2, 4))
    assert training_flops(model) == 6 * by_hand and training_flops(build((64, 64), width=16)) > 1.5 * 6 * by_hand


def test_pictures_and_what_is_read_of_them():
    made = pictures(6, 32); held = envelopes(made)
    assert made.dtype == np.uint8 and made.shape == (6, 32, 32) and np.array_equal(made, pictures(6, 32)) and made.std() > 20 and len(np.unique(made[:, 0, 0])) > 1
    seen, mask = views("plain", held["plain"], workers=1); assert np.array_equal(np.rint(seen * 255), made) and mask.all()
    assert set(held) == set(READ) and all(len(views(v, held[v], workers=1)[0]) == 6 for v in READ) and .3 < views("blocks-0.5", held["blocks-0.5"])[1].mean() < .7


@pytest.fixture(scope="module")
def measured():
    lines = []
    return bench(**TINY, tick=lines.append), lines


def test_a_run_has_what_was_promised(measured):
    report, lines = measured; table, targets = report.table, report.targets
    assert table.way.tolist() == [OURS, THEIRS, EXACT, FAST] and set(table["size"]) == {16} and report.cores == 1
    assert targets.what.tolist() == [f"{OURS} / {THEIRS}, 16 pixels", *(f"reading {v} once / a fit of {bench_learning.EPOCHS} epochs, 16 pixels" for v in READ)] and targets.wanted.tolist() == [1.8, .1, .1, .1, .1] and targets.at_most.tolist() == [False, True, True, True, True]
    assert (targets.met == np.where(targets.at_most, targets.reached <= targets.wanted, targets.reached >= targets.wanted)).all() and (targets.reached_low <= targets.reached_high).all()
    ours, theirs, exact, fast = table.to_dict("records")
    assert theirs["speed"] == 1 and math.isclose(ours["speed"], ours["pictures_per_s"] / theirs["pictures_per_s"]) and math.isclose(ours["speed"], targets.reached[0])
    for row in (ours, theirs):
        assert math.isclose(row["gflop_per_s"], row["pictures_per_s"] * training_flops(build((16, 16), width=4)) / 1e9)
        limit = exact if row["precision"] == "float32" else fast; assert math.isclose(row["share"], row["gflop_per_s"] / limit["gflop_per_s"]) and 0 < row["share_low"] <= row["share_high"] < 1
    assert theirs["precision"] == "float32" and EPOCHS == PROFILES["laptop"].epochs
    assert [line for line in lines if line.startswith("round")] == [f"round {n} of 4" for n in range(1, 5)]


def test_the_words_say_what_is_met_and_what_is_not(measured):
    targets = pd.DataFrame([{"what": what, "wanted": wanted, "at_most": most, "reached": reached, "reached_low": .01, "reached_high": 3.0, "met": met} for what, wanted, most, reached, met in (("a", 1.8, False, 1.9, True), ("b", .1, True, .2, False))])
    text = words(Report(measured[0].table, targets, 2))
    assert "a: 1.9 [0.01, 3], wanted 1.8 or more: met" in text and "b: 0.2 [0.01, 3], wanted 0.1 or less: NOT met" in text and "nan" not in text and "2 fits of one thread each" in text


# answers as `serve` does, and sleeps: 50 ms for an epoch of ours, 100 ms for one of Keras's, 10 ms for a matrix product
ASLEEP = """
import sys, time
print('{"precision": "float32", "flops": 2000000}', flush=True)
for line in sys.stdin:
    what, *more = line.split(); time.sleep({"train": .05 if sys.argv[1] == "ours" else .1, "multiply": .01}[what] * int(more[-1])); print("{}", flush=True)"""


@pytest.fixture
def asleep(monkeypatch):
    "Processes that only sleep, and a list of those that were started."
    started = []
    class Watched(Worker):
        def __init__(self, *given, **options): super().__init__(*given, **options); started.append(self.process)
    monkeypatch.setattr(bench_learning, "Worker", Watched); monkeypatch.setattr(bench_learning, "CODE", ASLEEP)
    return started


def test_fits_side_by_side_count_together(asleep):
    report = bench(**TINY | {"cores": 2, "rounds": 5}); ours, theirs, exact, _ = report.table.to_dict("records")
    assert 2.5 < ours["speed"] < 5 and report.targets.met[0] and len(asleep) == 3                          # 2 epochs in 50 ms, and 2 in 200 ms
    assert 2 * 96 / .1 < ours["pictures_per_s"] < 2 * 96 / .05 and 96 / .2 < theirs["pictures_per_s"] < 96 / .1 # of 100 pictures, 96 are in whole batches
    assert 2 * 2 * 1024 ** 3 / .03 < exact["gflop_per_s"] * 1e9 < 2 * 2 * 1024 ** 3 / .01 and math.isclose(ours["share"], ours["pictures_per_s"] * 2e6 / exact["gflop_per_s"] / 1e9)
    assert all(p.returncode is not None for p in asleep)


def test_no_process_is_left_behind(asleep):
    def tick(what):
        if what == "round 1 of 4": raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): bench(**TINY, tick=tick)
    assert len(asleep) == 2 and all(p.returncode is not None for p in asleep)


def test_a_process_that_ends_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(bench_learning, "CODE", "import sys; sys.exit('no memory left')")
    with Worker("ours") as worker:
        with pytest.raises(BenchError, match=r"a process \(ours\) ended with 1: no memory left"): worker.answer()
    monkeypatch.setattr(bench_learning, "CODE", ASLEEP.replace("line.split()", "line.split(); sys.exit(7)"))
    assert main(["bench", "learning", "--sizes", "16", "--pictures", "8", "--cores", "2", "--rounds", "1"]) == 1
    assert "medcrypt: bench learning: a process (ours) ended with 7" in capsys.readouterr().err


def test_the_command_has_its_help_and_needs_no_tensorflow_itself():
    done = subprocess.run([sys.executable, "-c", "import sys; from medcrypt.cli.main import main\ntry: main(['bench', 'learning', '--help'])\nexcept SystemExit as end: assert not end.code\nimport medcrypt.cli.bench_learning; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"], capture_output=True, text=True)
    assert done.returncode == 0 and all(option in done.stdout for option in ("--rounds", "--pictures", "--sizes", "--cores")), done.stderr
    given = parser().parse_args(["bench", "learning", "--sizes", "32"]); assert given.what == "learning" and given.sizes == [32] and given.rounds == 7
