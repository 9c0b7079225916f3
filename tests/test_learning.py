"""Masked-CNN and its training: masks matter, fits repeat, a killed cross-validation goes on."""
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

keras = pytest.importorskip("keras")
from medcrypt.core import rng
from medcrypt.evaluation.metrics import auc, best_threshold
from medcrypt.learning import masked_cnn, simple, training
from medcrypt.learning.masked_cnn import ModelError, build, load, save
from medcrypt.learning.training import Job, Recipe, Trainer, TrainingError, augment, cross_validate, predict, random_masks

training.configure(1)  # before the first operation of this process
SMALL = Recipe(epochs=4, batch=16, width=8, block=4)


def pictures(n=128, side=16, seed=0):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, n)
    x = draw.random((n, side, side), dtype=np.float32) * .6
    x[:, :6, :6] += .4 * y[:, None, None]
    return x, np.ones(x.shape, np.float32), y


@pytest.mark.parametrize("mask", ["channel", "partial"])
def test_hidden_pixels_have_no_influence(mask):
    model, (x, ones, _) = build((16, 16), mask=mask, width=8, seed=2), pictures(8)
    hidden = ones.copy(); hidden[:, 4:12, 2:9] = 0
    assert np.array_equal(predict(model, x, hidden), predict(model, np.where(hidden > 0, x, 7), hidden))
    assert not np.allclose(predict(model, x, hidden), predict(model, x, ones))


def test_plain_cnn_ignores_the_mask():
    model, (x, ones, _) = build((16, 16), mask="none", width=8), pictures(4)
    assert np.array_equal(predict(model, x, ones), predict(model, x, 0 * ones))


@pytest.mark.parametrize("mask", masked_cnn.MASKS)
def test_saving_round_trips_exactly(tmp_path, mask):
    model, (x, ones, _) = build((16, 24), mask=mask, width=8, outputs=3, seed=5), pictures(4)
    x = np.concatenate([x, x[:, :, :8]], 2)
    inputs = {"pixels": x[..., None], "mask": np.ones_like(x)[..., None]}
    path = save(model, tmp_path / "m.keras")
    assert np.array_equal(np.asarray(model(inputs)), np.asarray(load(path)(inputs)))
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]


def test_model_errors(tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"PK\x03\x04 not a model")
    for call, words in ((lambda: load(tmp_path / "none.keras"), "no such"), (lambda: load(tmp_path / "bad.keras"), "not a model"), (lambda: build((8, 8)), "16 pixels"),
                        (lambda: build((32, 32), mask="x"), "choose one"), (lambda: save(build((16, 16), width=4), tmp_path / "m.h5"), "ends in .keras")):
        with pytest.raises(ModelError, match=words): call()


def test_same_seed_same_weights_same_fit():
    x, ones, y = pictures()
    one, two = (Trainer((16, 16), "channel", SMALL, 32) for _ in range(2))
    two.fit(x, ones, y, seed=9, hide=True)   # a used trainer must be as good as new
    first, second = one.fit(x, ones, y, seed=3, hide=True), two.fit(x, ones, y, seed=3, hide=True)
    assert first == second and np.array_equal(one.predict(x, ones), two.predict(x, ones))
    assert one.fit(x, ones, y, seed=4, hide=True) != first


def test_two_processes_give_the_same_numbers():
    code = ("import sys; sys.path.insert(0, 'tests'); import numpy as np; from test_learning import *; x, o, y = pictures();"
            "t = Trainer((16, 16), 'channel', SMALL, 32); t.fit(x, o, y, seed=1, hide=True); print(t.predict(x, o).tobytes().hex()[-4000:])")
    from pathlib import Path
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[1]).stdout for _ in range(2)]
    assert runs[0] == runs[1] and len(runs[0]) > 1000


def test_it_learns_and_survives_masks():
    x, ones, y = pictures(512); test_x, test_ones, test_y = pictures(256, seed=1)
    trainer = Trainer((16, 16), "channel", Recipe(epochs=8, batch=32, width=8, block=4, max_ratio=.5), 128)
    losses = trainer.fit(x, ones, y, seed=0, hide=True)
    assert losses[-1] < losses[0] and auc(test_y, trainer.predict(test_x, test_ones)) > .9
    half = random_masks(rng(0), 256, (16, 16), 4, .5)
    assert auc(test_y, trainer.predict(test_x, half)) > .75


def test_masks_and_augmentation():
    masks = random_masks(rng(0), 300, (18, 20), 4, np.linspace(0, 1, 300))
    assert masks.shape == (300, 18, 20) and set(np.unique(masks)) == {0, 1} and masks[0].all() and not masks[-1].any()
    assert np.array_equal(masks[:, :4, :4].min((1, 2)), masks[:, :4, :4].max((1, 2)))
    x = np.tile(np.arange(12, dtype="float32"), (40, 10, 1))
    moved, m = augment(rng(1), x, np.ones_like(x), 2)
    assert moved.shape == x.shape and m.all() and {tuple(np.sign(np.diff(p[0])).astype(int)[3:8]) for p in moved} == {(1,) * 5, (-1,) * 5}
    still, _ = augment(rng(1), x[..., :1].repeat(12, 2), np.ones_like(x), 0)
    assert np.array_equal(still, x[..., :1].repeat(12, 2))


def test_one_class_and_nan_stop_with_a_reason():
    x, ones, y = pictures(32)
    trainer = Trainer((16, 16), "channel", SMALL, 8)
    with pytest.raises(TrainingError, match="one class"): trainer.fit(x, ones, 0 * y, seed=0, hide=False)
    with pytest.raises(TrainingError, match="epoch 1, step 1"): trainer.fit(x * np.inf, ones, y, seed=0, hide=False)


@pytest.fixture
def problem():
    x, ones, y = pictures(96); index = np.arange(96)
    splits = {(0, f): (index[index % 3 != f], index[(index % 3 == (f + 1) % 3)], index[index % 3 == f]) for f in range(3)}
    return {"plain": (x, ones), "blocks-0.5": (x, random_masks(rng(0), 96, (16, 16), 4, .5))}, y, splits


JOB = Job("masked-cnn", "channel", "plain", True, ("plain", "blocks-0.5"))


def test_cross_validation_goes_on_after_a_kill(tmp_path, problem):
    seen, y, splits = problem
    whole = cross_validate(JOB, seen, y, splits, SMALL, choose_threshold=best_threshold, fits=tmp_path / "a", save_first=tmp_path / "m.keras")
    class Killed(Exception): pass
    done = []
    def kill():
        done.append(1)
        if len(done) == 2: raise Killed
    with pytest.raises(Killed): cross_validate(JOB, seen, y, splits, SMALL, choose_threshold=best_threshold, fits=tmp_path / "b", tick=kill)
    assert len(list((tmp_path / "b").iterdir())) == 2
    again = cross_validate(JOB, seen, y, splits, SMALL, choose_threshold=best_threshold, fits=tmp_path / "b")
    pd.testing.assert_frame_equal(whole, again, check_exact=True)
    assert whole.groupby("view").image.apply(sorted).map(list).tolist() == [list(range(96))] * 2


@pytest.mark.parametrize("change", ["recipe", "label", "pixel", "split"])
def test_old_fits_are_not_used_for_another_question(tmp_path, problem, change):
    seen, y, splits = problem
    splits = {(0, 0): splits[(0, 0)]}
    run = lambda seen, y, splits, recipe: cross_validate(JOB, seen, y, splits, recipe, choose_threshold=lambda *_: .5, fits=tmp_path)
    run(seen, y, splits, SMALL)
    if change == "recipe": run(seen, y, splits, Recipe(epochs=1, batch=16, width=8, block=4))
    if change == "label": run(seen, np.where(np.arange(96) == 0, 1 - y, y), splits, SMALL)
    if change == "pixel": run({**seen, "plain": (np.where(np.arange(96)[:, None, None] == 0, 0, seen["plain"][0]), seen["plain"][1])}, y, splits, SMALL)
    if change == "split": run(seen, y, {(0, 0): tuple(s[::-1] for s in splits[(0, 0)])}, SMALL)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_view_is_named(tmp_path, problem):
    with pytest.raises(TrainingError, match="no view cbc"):
        cross_validate(Job("m", "channel", "cbc", False, ("cbc",)), *problem[:2], problem[2], SMALL, choose_threshold=best_threshold, fits=tmp_path)


def test_length_alone_finds_what_length_tells_and_nothing_else(problem):
    _, y, splits = problem
    draw = np.random.default_rng(0)
    tells = simple.by_length(1000 + 200 * y + draw.normal(0, 10, 96), y, splits, choose_threshold=best_threshold)
    assert auc(tells.label.to_numpy(), tells.probability.to_numpy()) > .99
    constant = simple.by_length(np.full(96, 1000), y, splits, choose_threshold=best_threshold)
    assert [round(auc(p.label.to_numpy(), p.probability.to_numpy()), 3) for _, p in constant.groupby("fold")] == [.5] * 3
