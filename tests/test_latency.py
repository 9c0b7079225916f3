"From storage to a probability: stages, whole paths, peak memory and growth."
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from medcrypt.core import RunPaths, seeded_bytes
from medcrypt.crypto.keys import Key, write_key
from medcrypt.evaluation import frontier_charts, latency_paths, memory
from medcrypt.evaluation.latency_paths import PATHS, Bench, PathError, plain_files
from medcrypt.evaluation.plots import PlotError, is_blank
from medcrypt.evaluation.scaling import ScalingError, points, scaling_times, slopes, verdict
from medcrypt.vault import archive, contract

MASTER = Key(seeded_bytes(0, "m")(32))
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
def mean(pixels, mask): return (pixels * mask).mean((1, 2))  # a network's place, without TensorFlow


@pytest.fixture
def stored(tmp_path):
    run = RunPaths(tmp_path); objects = archive.open_archive(run, "toy")
    index = pd.DataFrame(archive.fill(objects, PICTURES, contract.dataset_key(MASTER, "toy"), views=("plain", "blocks-0.5"), block=4, bits=8, random=seeded_bytes(0, "iv")))
    return run, index, {"archive": objects, "master": MASTER, "view": "blocks-0.5"}


def plain_left(run): return list(run.work.rglob("*.j2k"))


def test_every_path_ends_in_the_right_answers_whatever_the_batch(stored):
    run, index, own = stored
    with plain_files(index, archive=own["archive"], master=MASTER, folder=run.work) as folder:
        bench = Bench(index, 7, predict=mean, folder=folder, **own)
        expected = (PICTURES / np.float32(255)).mean((1, 2))[np.resize(np.arange(3), 7)]
        for batch in (1, 3, 7, 128):
            for path in ("plain path", "decrypting path"): np.testing.assert_allclose(bench.run(path, batch), expected, atol=1e-6)
            assert (bench.run("keyless path", batch) < expected).all() # half of the pixels are missing
        for stage in bench.stages().values(): stage()
        assert set(bench.stages()) == {stage for stages in PATHS.values() for stage in stages} and len(bench.probabilities) == 7
        with pytest.raises(PathError, match="secret path"): bench.run("secret path")
    assert plain_left(run) == [] and own["archive"].contract.verify()


def test_one_request_for_any_number_of_pictures(stored):
    run, index, own = stored; rows = lambda: own["archive"].contract.verify().rows
    with plain_files(index, archive=own["archive"], master=MASTER, folder=run.work) as folder:
        for count in (1, 3, 300):
            before = rows(); Bench(index, count, predict=mean, folder=folder, **own).run("decrypting path", 8)
            assert rows() == before + 1


def test_plain_files_go_when_something_fails(stored):
    run, index, own = stored
    def fail(pixels, mask): raise OSError("broken")
    with pytest.raises(OSError, match="broken"): scaling_times(index, (2, 3), predict=fail, folder=run.work, **own)
    assert plain_left(run) == []
    with pytest.raises(PathError, match="0 pictures"): Bench(index, 0, predict=mean, folder=run.work, **own)
    with pytest.raises(PathError, match="blocks-0.25"): Bench(index, 1, predict=mean, folder=run.work, **{**own, "view": "blocks-0.25"})


def test_plain_files_are_few_private_and_do_not_outlive_a_killed_run(stored):
    run, index, own = stored; keep = {"archive": own["archive"], "master": MASTER, "folder": run.work}; left = run.work / "plain-files-killed"; left.mkdir(); (left / "7.j2k").write_bytes(b"plain")
    with plain_files(index, count=2, **keep) as folder:
        assert not left.exists() and folder.name.startswith(latency_paths.SCRATCH) and folder.stat().st_mode & 0o777 == 0o700 and len(plain_left(run)) == 2
        with plain_files(index, **keep): assert folder.exists() # another process at work keeps its own
    seen = []
    scaling_times(index, (1, 2), predict=lambda pixels, mask: (seen.append(len(plain_left(run))), mean(pixels, mask))[1], rounds=1, **{**own, "folder": run.work})
    assert set(seen) == {2} and plain_left(run) == [] # of three


def test_latency_has_every_stage_and_path(stored):
    pytest.importorskip("keras")
    from medcrypt.learning import masked_cnn
    run, index, own = stored
    table = latency_paths.latency(index, 5, model=masked_cnn.build((16, 16), width=4), folder=run.work, repeats=3, seed=0, resamples=50, **own)
    assert set(table.stage) == {s for parts in PATHS.values() for s in parts} | set(PATHS) and table.set_index("stage").ratio["plain path"] == 1 and (table.p95_ms >= table.median_ms - 1e-9).all() and (table.first_ms > 0).all()
    assert plain_left(run) == [] and own["archive"].contract.verify()


def test_more_pictures_than_there_are(stored):
    run, index, own = stored; ticks = []
    times = scaling_times(index, (2, 5, 130), predict=mean, folder=run.work, rounds=2, tick=lambda: ticks.append(1), **own)
    assert len(times) == 3 * 3 * 2 and len(ticks) == 3 * 3 * 3 and (times.time_ms > 0).all() and set(times.pictures) == {2, 5, 130}
    assert len(slopes(times, seed=0, resamples=20)) == 3 and (points(times).n == 2).all()


def grown(power=1., fixed=0., noise=0., rounds=5, sizes=(10, 30, 100, 300, 1000), seed=0):
    draw = np.random.default_rng(seed)
    return pd.DataFrame([{"dataset": "toy", "path": "plain path", "pictures": n, "round": r, "time_ms": (fixed + 2 * n ** power) * draw.lognormal(0, noise)} for n in sizes for r in range(rounds)])


@settings(max_examples=25, deadline=None)
@given(st.floats(.3, 2), st.floats(0, 200))
def test_the_fit_is_exact_without_noise(power, fixed):
    row = slopes(grown(power), seed=0, resamples=20).iloc[0]
    assert row.slope == pytest.approx(power) and row.slope_low == pytest.approx(row.slope_high) and row.upper_slope == pytest.approx(power)
    row = slopes(grown(1, fixed), seed=0, resamples=20).iloc[0]
    assert row.fixed_ms == pytest.approx(fixed, abs=1e-6) and row.picture_ms == pytest.approx(2) and row.slope <= row.upper_slope + 1e-9 <= 1 + 1e-8


def test_verdicts_of_growth():
    assert [verdict(*ends) for ends in ((.95, 1.05), (.5, .8), (1.2, 1.4), (.85, 1.3), (.92, .98))] == ["linear", "less than linear", "more than linear", "undecided", "linear"]
    assert slopes(grown(1, 0, .01), seed=0, resamples=200).verdict[0] == "linear" and slopes(grown(2, 0, .01), seed=0, resamples=200).verdict[0] == "more than linear"
    again = [slopes(grown(1, 0, .1), seed=3, resamples=100) for _ in range(2)]
    pd.testing.assert_frame_equal(*again)


def test_intervals_of_slopes_hold_the_truth():
    hits = [row.slope_low <= 1 <= row.slope_high for row in (slopes(grown(1, 0, .1, rounds=20, seed=seed), seed=seed, resamples=200).iloc[0] for seed in range(60))]
    assert np.mean(hits) > .8 # a bootstrap of 20 rounds is a little narrow


@pytest.mark.parametrize("broken", [grown(sizes=(10,)), grown(rounds=1), grown().assign(time_ms=np.nan), grown().assign(time_ms=0.)])
def test_no_slope_from_such_times(broken):
    with pytest.raises(ScalingError, match="toy"): slopes(broken, seed=0, resamples=10)


def test_the_chart_of_growth_is_drawn():
    times = pd.concat([grown().assign(path=path) for path in PATHS]); figure = frontier_charts.plot_scaling(points(times), slopes(times, seed=0, resamples=20))
    assert not is_blank(figure) and not any(axes.get_legend() for axes in figure.axes) and max(axes.get_ylim()[1] for axes in figure.axes) < 10 * times.time_ms.max()
    with pytest.raises(PlotError, match="no column"): frontier_charts.plot_scaling(pd.DataFrame({"zzz": [1]}), times)


needs_count = pytest.mark.skipif(not memory.measurable(), reason="this system does not count a process's peak memory")


@needs_count
@pytest.mark.parametrize("megabytes", (20, 80))
def test_a_peak_is_seen_after_it_is_gone(megabytes):
    def work(): np.ones(megabytes * 125_000).sum()
    for _ in range(2): # the second is no smaller: what the first freed was given back
        before, peak = memory.peak_of(work)
        assert megabytes * .95 < peak - before < megabytes * 1.3 + 5
    assert memory.peak_of(lambda: None)[1] - memory.resident_mb()[0] < 5


@needs_count
def test_a_fresh_process_is_measured(stored):
    pytest.importorskip("keras")
    from medcrypt.learning import masked_cnn
    run, index, own = stored
    write_key(run.master_key("toy"), MASTER); index.to_csv(run.index("toy"), index=False); masked_cnn.save(masked_cnn.build((16, 16), width=4), run.model("toy", "masked-cnn"))
    table = memory.memory_table(run, ["toy"], view="blocks-0.5", batches=(1, 3), rounds=2, networks=("Keras",))
    assert table[["path", "batch"]].drop_duplicates().shape[0] == 6 and (table.n == 2).all()
    assert (table.peak_mb >= table.warm_mb).all() and (table.warm_mb >= table.loaded_mb - 20).all() and (table.increase_mb_low <= table.increase_mb).all() and (table.increase_mb <= table.increase_mb_high).all() and (table.loaded_mb > 50).all()
    with pytest.raises(memory.MemoryMeasureError, match="absent"): memory.memory_table(run, ["absent"], view="blocks-0.5", networks=("Keras",))


def test_where_nothing_counts_the_table_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "no" / "such")
    table = memory.memory_table(RunPaths(tmp_path), ["a", "b"], view="blocks-0.5")
    assert not memory.measurable() and table.dataset.tolist() == ["a", "b"] and (table.n == 0).all() and table.peak_mb.isna().all()


def test_serving_needs_no_tensorflow():
    import subprocess
    code = "import sys, medcrypt.evaluation.latency_paths, medcrypt.evaluation.memory, medcrypt.evaluation.scaling; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
