"""The network, its training and its cross-validation: masks matter, fits repeat to the last digit, kills change nothing."""
import dataclasses, json, os, subprocess, sys, threading, time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

keras = pytest.importorskip("keras")
from medcrypt.core import PROFILES, RunPaths, rng
from medcrypt.evaluation.metrics import auc, best_threshold
from medcrypt.evaluation.observed import attacked
from medcrypt.learning import ladder, training, views
from medcrypt.learning.augmentation import AugmentationError, augment, flips, random_masks, random_ratios
from medcrypt.learning.convolutions import RELU_GAIN, PartialConv2D, StandardizedConv2D
from medcrypt.learning.ladder import cross_validate, fit_name, hash_arrays
from medcrypt.learning.masked_cnn import MASKS, build, load, save
from medcrypt.learning.model_card import ModelCard, ModelError, read_card
from medcrypt.learning.rungs import PIXELS, Job, jobs, order_of, rung
from medcrypt.learning.study import Study
from medcrypt.learning.training import PIECE, Recipe, Trainer, TrainingError, masked_crossentropy, pieces, predict

training.configure(1)  # before the first operation of this process
SMALL = Recipe(epochs=4, batch=16, width=8, block=4)
BOTH = ("float32", "mixed_bfloat16")


def pictures(n=128, side=16, seed=0):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, n)
    x = draw.random((n, side, side), dtype=np.float32) * .6
    x[:, :6, :6] += .4 * y[:, None, None]
    return x, np.ones(x.shape, np.float32), y


def new_process(code: str, *arguments, check=True, **environment):
    "Runs code that may use everything of this module, but in an interpreter of its own."
    names = "import sys; sys.path.insert(0, 'tests')\n"
    return subprocess.run([sys.executable, "-c", names + code, *map(str, arguments)], capture_output=True, text=True, check=check, cwd=Path(__file__).resolve().parents[1], env=os.environ | environment)


@pytest.fixture(scope="module")
def trainers():
    "A trainer for each precision, used by many tests: it must be as good as new every time."
    return {precision: Trainer((16, 16), dataclasses.replace(SMALL, precision=precision), 32, seconds=0) for precision in BOTH}


@pytest.fixture
def learned(monkeypatch):
    "Epochs that were really learned."
    epochs, own = [], training.pieces
    monkeypatch.setattr(training, "pieces", lambda *given, epoch, **options: epochs.append(epoch) or own(*given, epoch=epoch, **options))
    return epochs


# the network

def textbook(x, visible, kernel, gain, bias, strides):
    "Partial convolution (Liu et al. 2018) with the standardised kernel, by loops, in float64: what is visible, scaled up to the whole window, and the visible share."
    size, (rows, columns) = kernel.shape[0], x.shape[:2]
    kernel = kernel - kernel.mean((0, 1, 2)); kernel = RELU_GAIN * gain * kernel / np.sqrt(np.maximum(np.prod(kernel.shape[:3]) * kernel.var((0, 1, 2)), 1e-4))
    out = [-(-s // strides) for s in (rows, columns)]
    before = [max((o - 1) * strides + size - s, 0) // 2 for o, s in zip(out, (rows, columns))]
    y, share = np.zeros((*out, kernel.shape[-1])), np.zeros(out)
    for r, c in np.ndindex(*out):
        top, left = r * strides - before[0], c * strides - before[1]
        inside = [(i, j) for i in range(size) for j in range(size) if 0 <= top + i < rows and 0 <= left + j < columns]
        weight = sum(visible[top + i, left + j] for i, j in inside); share[r, c] = weight / size ** 2  # what lies outside the picture is hidden
        if weight: y[r, c] = sum(visible[top + i, left + j] * x[top + i, left + j] @ kernel[i, j] for i, j in inside) * size ** 2 / weight + bias
    return y, share


@pytest.mark.parametrize("kernel, strides", [(3, 1), (3, 2), (1, 1), (4, 4)])
@pytest.mark.parametrize("whole", [True, False])
def test_a_partial_convolution_is_the_textbook_s(kernel, strides, whole):
    draw = np.random.default_rng(kernel); x = draw.normal(size=(3, 9, 14, 2)).astype("float32")
    visible = (draw.random((3, 9, 14, 1)) < .5).astype("float32") if whole else draw.random((3, 9, 14, 1), dtype=np.float32)
    visible[0, :6, :6] = 0
    signal = np.concatenate([x * visible, visible], -1)
    layer, branch = PartialConv2D(6, kernel, strides), PartialConv2D(6, kernel, strides, share=False); layer(signal); branch(signal)
    weights = [draw.normal(size=w.shape).astype("float32") for w in layer.get_weights()]; layer.set_weights(weights); branch.set_weights(weights)
    out, bare = np.asarray(layer(signal)), np.asarray(branch(signal)); given, share = out[..., :5], out[..., 5]
    for n in range(3):
        wanted, v = textbook(x[n].astype(float), visible[n, :, :, 0].astype(float), *(w.astype(float) for w in weights), strides)
        assert np.abs(share[n] - v).max() < 1e-6 and np.abs(given[n][v == 0]).max(initial=0) == 0
        assert np.abs(given[n][v > 0] / v[v > 0][:, None] - wanted[v > 0]).max() < 1e-5 * max(1, np.abs(wanted).max())
    assert np.array_equal(bare[..., :5], given) and not bare[..., 5].any()
    apart = PartialConv2D(6, kernel, strides); parts = [x * visible, visible]; assert apart(parts).shape == out.shape == apart.compute_output_shape([part.shape for part in parts])
    apart.set_weights(weights); assert np.abs(np.asarray(apart(parts)) - out).max() < 1e-5 * max(1, np.abs(out).max())
    assert not whole or kernel > 3 or (share == 0).any() and (share > .6).any()


@pytest.mark.parametrize("kernel, strides", [(3, 1), (3, 2), (4, 4)])
def test_what_is_wholly_visible_is_convolved_as_ever(kernel, strides):
    draw = np.random.default_rng(0); x = draw.normal(size=(2, 12, 16, 3)).astype("float32")
    masked, plain = PartialConv2D(6, kernel, strides), StandardizedConv2D(5, kernel, strides)
    masked(np.concatenate([x, np.ones_like(x[..., :1])], -1)); plain(x); plain.set_weights([draw.normal(size=w.shape) for w in plain.get_weights()]); masked.set_weights(plain.get_weights())
    out = np.asarray(masked(np.concatenate([x, np.ones_like(x[..., :1])], -1)))[:, 1:-1, 1:-1]
    assert np.abs(out[..., 5] - 1).max() < 1e-6 and np.abs(out[..., :5] - np.asarray(plain(x))[:, 1:-1, 1:-1]).max() < 1e-4


def test_a_standardised_kernel_keeps_the_variance():
    layer = StandardizedConv2D(64, 3); x = np.random.default_rng(0).normal(size=(8, 32, 32, 16)).astype("float32")
    layer(x); layer.set_weights([5 * layer.get_weights()[0] + 3, *layer.get_weights()[1:]])
    kernel = np.asarray(layer.standardized()); assert np.abs(kernel.mean((0, 1, 2))).max() < 1e-6
    assert .9 < np.maximum(np.asarray(layer(x))[:, 1:-1, 1:-1], 0).std() < 1.1   # after a ReLU


@pytest.mark.parametrize("mask", ["channel", "partial"])
@pytest.mark.parametrize("tile", [None, 4])
def test_hidden_pixels_have_no_influence(mask, tile):
    model, (x, ones, _) = build((16, 16), mask=mask, width=8, seed=2, tile=tile), pictures(8)
    hidden = ones.copy(); hidden[:4, 4:12, 2:9] = 0; hidden[4:6] = 0
    assert np.array_equal(predict(model, x, hidden), predict(model, np.where(hidden > 0, x, 7), hidden))
    assert np.abs(predict(model, x, hidden) - predict(model, x, ones))[:6].min() > 1e-6
    assert len(set(predict(model, x, 0 * ones).tolist())) == 1


def test_plain_cnn_ignores_the_mask():
    model, (x, ones, _) = build((16, 16), mask="none", width=8), pictures(4)
    assert np.array_equal(predict(model, x, ones), predict(model, x, 0 * ones)) and predict(model, x, ones).std() > 0


@pytest.mark.parametrize("mask", MASKS)
def test_a_network_without_order_cannot_tell_tiles_apart(mask):
    x, ones, _ = pictures(8, side=32); draw = np.random.default_rng(0)
    def shuffled(a): return a.reshape(-1, 4, 8, 4, 8).swapaxes(2, 3).reshape(-1, 16, 8, 8)[:, order].reshape(-1, 4, 4, 8, 8).swapaxes(2, 3).reshape(-1, 32, 32)
    order, half = draw.permutation(16), random_masks(draw, 8, (32, 32), 8, .4)
    free, tied = (build((32, 32), mask=mask, width=4, seed=1, tile=8, ordered=ordered) for ordered in (False, True))
    assert np.abs(predict(free, x, half) - predict(free, shuffled(x), shuffled(half))).max() < 1e-5 < np.abs(predict(tied, x, half) - predict(tied, shuffled(x), shuffled(half))).max()


@pytest.mark.parametrize("tile, ordered", [(None, True), (4, True), (8, False)])
@pytest.mark.parametrize("mask", MASKS)
def test_saving_round_trips_exactly(tmp_path, mask, tile, ordered):
    model, (x, _, _) = build((16, 24), mask=mask, width=8, outputs=3, seed=5, tile=tile, ordered=ordered, dropout=.3), pictures(4)
    x = np.concatenate([x, x[:, :, :8]], 2); half = random_masks(rng(0), 4, (16, 24), 4, .5); draw = np.random.default_rng(1)
    model.set_weights([w + draw.normal(0, .1, w.shape) for w in model.get_weights()])
    path = save(model, tmp_path / "m.keras")
    assert np.array_equal(predict(model, x, half), predict(load(path), x, half)) and predict(model, x, half).shape == (4, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_says_the_same(tmp_path, backend):
    if not find_spec(backend): pytest.skip(f"{backend} is not installed")
    (x, _, _), half = pictures(6, side=33), random_masks(rng(0), 6, (33, 33), 4, .5)
    np.savez(tmp_path / "in.npz", x=x, half=half)
    made = {f"{mask}-{tile}": build((33, 33), mask=mask, width=4, seed=1, tile=tile) for mask in MASKS for tile in (None, 4)}
    for name, model in made.items(): save(model, tmp_path / f"{name}.keras")
    new_process("""
import keras, numpy as np
from pathlib import Path
from medcrypt.learning.masked_cnn import load
folder = Path(sys.argv[1]); given = np.load(folder / "in.npz")
assert keras.backend.backend() == sys.argv[2]
np.savez(folder / "out.npz", **{p.stem: load(p).predict_on_batch({"pixels": given["x"][..., None], "mask": given["half"][..., None]})[:, 0] for p in folder.glob("*.keras")})""", tmp_path, backend, KERAS_BACKEND=backend)
    found = np.load(tmp_path / "out.npz")
    for name, model in made.items(): assert np.abs(found[name] - predict(model, x, half)).max() < 1e-5, name


def test_model_errors(tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"PK\x03\x04 not a model")
    for call, words in ((lambda: load(tmp_path / "none.keras"), "no such"), (lambda: load(tmp_path / "bad.keras"), "not a model"), (lambda: build((8, 8)), "16 pixels"), (lambda: build((32, 32), mask="x"), "choose one"),
                        (lambda: build((32, 20), tile=11), "at most half .* 10"), (lambda: build((32, 32), tile=0), "1 pixel or more"), (lambda: save(build((16, 16), width=4), tmp_path / "m.h5"), "ends in .keras")):
        with pytest.raises(ModelError, match=words): call()


# what it is shown

def test_masks_and_shifts():
    masks = random_masks(rng(0), 300, (18, 20), 4, np.linspace(0, 1, 300))
    assert masks.shape == (300, 18, 20) and set(np.unique(masks)) == {0, 1} and masks[0].all() and not masks[-1].any()
    assert np.array_equal(masks[:, :4, :4].min((1, 2)), masks[:, :4, :4].max((1, 2)))
    ratios = random_ratios(rng(0), 4000, .8, .25)
    assert abs((ratios == 0).mean() - .25) < .03 and ratios.max() < .8 and abs(ratios[ratios > 0].mean() - .4) < .02
    x = np.tile(np.arange(12, dtype="float32"), (400, 10, 1))
    moved, m = augment(rng(1), x, np.ones_like(x), 2, "none")
    assert m.all() and {int(p[0, 5]) for p in moved} == {3, 4, 5, 6, 7} and set(np.unique(moved[:, 0, 0])) == {0, 1, 2}  # the edge is repeated, nothing comes in from the other side
    assert augment(rng(1), x, np.ones_like(x), 0, "none")[0] is x


@pytest.mark.parametrize("symmetry, shape, forms", [("none", (6, 6), 1), ("mirror", (6, 6), 2), ("square", (6, 6), 8), ("square", (6, 8), 4)])
def test_a_symmetry_gives_all_its_forms_equally_often_and_no_other(symmetry, shape, forms):
    draw = np.random.default_rng(0); one = draw.random(shape, dtype=np.float32); n = 400 * forms
    x = np.repeat(one[None], n, 0); before = x.copy()
    moved, mask = augment(rng(2), x, 1 - x, 0, symmetry)
    assert np.array_equal(mask, 1 - moved) and np.array_equal(x, before)
    found, counts = np.unique(moved.reshape(n, -1), axis=0, return_counts=True)
    group = [np.flip(p, axes) for p in ([one, one.T] if shape[0] == shape[1] else [one]) for axes in ((), (0,), (1,), (0, 1))]
    wanted = {"none": [one], "mirror": [one, one[:, ::-1]], "square": group}[symmetry]
    assert {p.tobytes() for p in found} == {np.ascontiguousarray(p).tobytes() for p in wanted} and len(counts) == forms and counts.min() > 320 and counts.max() < 480
    assert len(flips(symmetry)) == min(4, forms)


def test_an_unknown_symmetry_is_an_error():
    with pytest.raises(AugmentationError, match="symmetry: unknown name 'cube'; choose none, mirror, square"): flips("cube")


def numbered(n, side=16):
    "Picture number i is even and has the value i; label and mask follow it."
    i = np.arange(n, dtype="float32")
    return np.broadcast_to(i[:, None, None], (n, side, side)).copy(), np.broadcast_to((i % 2)[:, None, None], (n, side, side)).copy(), i[:, None] / n


@pytest.mark.parametrize("n, batch", [(1000, 8), (70, 16), (64, 16), (5, 16)])
def test_pieces_leave_out_the_last_incomplete_batch_alone(n, batch):
    got = [[np.concatenate(part) for part in zip(*pieces(*numbered(n), Recipe(batch=batch), seed=1, epoch=e, hide=False))] for e in range(3)]
    for x, m, y in got:
        which = x[:, 0, 0].astype(int)
        assert len(which) == (n // batch * batch or n) == len(set(which.tolist())) and (x == x[:, :1, :1]).all()
        assert np.array_equal(m[:, 3, 3], which % 2) and np.allclose(y[:, 0], which / n)
    assert len({tuple(x[:, 0, 0]) for x, _, _ in got}) == 3
    if n % batch and n > batch: assert len({i for x, _, _ in got for i in x[:, 0, 0]}) > n // batch * batch  # another rest in every epoch


def test_pieces_do_not_depend_on_who_takes_them(tmp_path):
    x, m, y = numbered(300); x = x + np.random.default_rng(0).random(x.shape, dtype=np.float32)
    mapped = np.memmap(tmp_path / "x", "float32", "w+", shape=x.shape); mapped[:] = x
    take = lambda pixels=x, **given: pieces(pixels, m, y, Recipe(batch=4, block=4, mixup=.4), **{"seed": 1, "epoch": 0, "hide": True} | given)
    same = lambda one, two: len(one) == len(two) and all(np.array_equal(a, b) for p, q in zip(one, two) for a, b in zip(p, q))
    once = list(take()); two = list(zip(take(), take(epoch=1)))
    slow = []
    for piece in take(): time.sleep(.02); slow.append(piece)
    assert same(once, slow) and same(once, [a for a, _ in two]) and same(once, list(take(mapped))) and len(once) == 5
    for other in (take(epoch=1), take(seed=2), take(hide=False), take(move=False)): assert not same(once, list(other))


class Slow:
    "Pictures that count how many of them were asked for."
    def __init__(self, n, side): self.n, self.side, self.taken = n, side, []
    def __len__(self): return self.n
    def __getitem__(self, index):
        if np.ndim(index): self.taken.append(len(index))
        return np.zeros((*np.shape(index), self.side, self.side), "float32")


def test_only_a_few_pieces_exist_at_a_time():
    x, before = Slow(1000, 16), threading.active_count(); size = 4 * PIECE
    got = pieces(x, Slow(1000, 16), np.zeros((1000, 1), "float32"), Recipe(batch=4), seed=0, epoch=0, hide=True)
    for number in range(1, 5): next(got); time.sleep(.05); assert x.taken == [size] * (number + 2)
    got.close()
    assert threading.active_count() == before and len(x.taken) == 6
    large = Slow(8, 1024); assert len(next(pieces(large, large, np.zeros((8, 1), "float32"), Recipe(batch=4), seed=0, epoch=0, hide=False))[0]) == 16 // 4 or large.taken[0] * 1024 ** 2 <= 1 << 24


def test_mixed_pictures_have_mixed_labels():
    x, _, y = numbered(64); x /= 64; m = np.zeros_like(x); np.einsum("nrc->nr", m)[:] = 0
    m[np.arange(64), np.arange(64) % 16] = 1   # one visible row each
    (mixed, mask, labels), = pieces(x, m, np.concatenate([y, np.where(y < .1, np.nan, 1)], 1).astype("float32"), Recipe(batch=64, mixup=.4, shift=0, symmetry="none"), seed=0, epoch=0, hide=False)
    assert np.allclose(mixed, labels[:, :1, None], atol=1e-6) and 0 <= labels[:, 0].min() and labels[:, 0].max() < 1
    assert 10 < len(set(np.round(64 * labels[:, 0], 3)) - set(range(64)))            # between two pictures
    assert set(mask.sum((1, 2))) == {0, 16}                                          # what both show
    assert 6 < np.isnan(labels[:, 1]).sum() < 14                                     # not known of one, not known of both
    (plain, _, _), = pieces(x, m, y, Recipe(batch=64, shift=0, symmetry="none"), seed=0, epoch=0, hide=False)
    assert set(np.round(64 * plain[:, 0, 0], 4)) == set(range(64))


# loss

def test_the_loss_is_the_mean_over_what_is_known():
    draw = np.random.default_rng(0); p, y = draw.random((50, 3)).astype("float32"), draw.integers(0, 2, (50, 3)).astype("float32")
    y[draw.random(y.shape) < .4] = np.nan; known = ~np.isnan(y)
    wanted = -np.mean(np.where(y == 1, np.log(p), np.log(1 - p))[known])
    assert abs(float(masked_crossentropy(y, p)) - wanted) < 1e-6
    assert float(masked_crossentropy(np.full((4, 2), np.nan, "float32"), p[:4, :2])) == 0
    assert 15 < float(masked_crossentropy(np.ones((1, 1), "float32"), np.zeros((1, 1), "float32"))) < 17   # finite
    half = float(masked_crossentropy(np.full((1, 1), .5, "float32"), np.full((1, 1), .5, "float32"))); assert abs(half - np.log(2)) < 1e-6


def test_the_gradient_of_an_unknown_label_is_zero():
    tf = pytest.importorskip("tensorflow")
    p = tf.Variable([[.2, .6], [.0, 1.0]])
    with tf.GradientTape() as tape: loss = masked_crossentropy(tf.constant([[1, np.nan], [np.nan, np.nan]]), p)
    assert np.allclose(tape.gradient(loss, p), [[-5, 0], [0, 0]])


# fits

@pytest.mark.parametrize("precision", BOTH)
def test_same_seed_same_fit_with_a_used_trainer_as_with_a_new_one(trainers, precision):
    x, ones, y = pictures()
    used, new = trainers[precision], Trainer((16, 16), dataclasses.replace(SMALL, precision=precision), 32)
    used.fit(x, ones, y, seed=9, hide=True)
    first, second = used.fit(x, ones, y, seed=3, hide=True), new.fit(x, ones, y, seed=3, hide=True)
    assert first == second and len(first) == 4 and np.array_equal(used.predict(x, ones), new.predict(x, ones))
    assert all(v.dtype == "float32" for v in new.exact.variables if "seed" not in v.path) and new.exact.dtype_policy.name == "float32"
    assert used.fit(x, ones, y, seed=4, hide=True) != first
    assert used.fit(x, ones, y, seed=3, hide=False) != first and used.fit(x, ones, y, seed=3, hide=True, move=False) != first


FIT = """
from test_learning import *
x, ones, y = pictures(); found = {}
for precision in BOTH:
    trainer = Trainer((16, 16), dataclasses.replace(SMALL, precision=precision), 32)
    found[precision] = trainer.fit(x, ones, y, seed=1, hide=True), trainer.predict(x, ones).tobytes().hex()
print(json.dumps(found))"""


def test_another_process_gives_the_same_numbers(trainers):
    x, ones, y = pictures()
    here = {precision: [trainer.fit(x, ones, y, seed=1, hide=True), trainer.predict(x, ones).tobytes().hex()] for precision, trainer in trainers.items()}
    assert json.loads(new_process(FIT).stdout.splitlines()[-1]) == here and here["float32"] != here["mixed_bfloat16"]


class Killed(Exception): pass


def stopped(trainer, path, after=3, **given):
    "A fit that ends in the tick after so many epochs, and leaves its checkpoint."
    x, ones, y = pictures(); ticks = iter(range(1, 99))
    def tick():
        if next(ticks) == after: raise Killed
    with pytest.raises(Killed): trainer.fit(*given.pop("data", (x, ones, y)), **{"seed": 1, "hide": True} | given, checkpoint=path, tick=tick)
    assert path.is_file()


KILLED = """
from test_learning import *
x, ones, y = pictures(); ticks = iter(range(1, 9))
trainer = Trainer((16, 16), dataclasses.replace(SMALL, precision=sys.argv[2]), 32, seconds=0)
trainer.fit(x, ones, y, seed=1, hide=True, checkpoint=Path(sys.argv[1]), tick=lambda: next(ticks) == 3 and os._exit(9))"""


@pytest.mark.parametrize("precision, process", [("float32", "this"), ("mixed_bfloat16", "another")])
def test_a_fit_that_was_killed_goes_on_and_ends_as_without_the_kill(tmp_path, trainers, learned, precision, process):
    x, ones, y = pictures(); trainer, path, ticks = trainers[precision], tmp_path / "fit.part", []
    if process == "this": stopped(trainer, path)
    else: assert new_process(KILLED, path, precision, check=False).returncode == 9
    assert [p.name for p in tmp_path.iterdir()] == ["fit.part"]
    trainer.fit(x, ones, y, seed=7, hide=True); learned.clear()   # of another fit, in the way
    again = trainer.fit(x, ones, y, seed=1, hide=True, checkpoint=path, tick=lambda: ticks.append(1)); answers = trainer.predict(x, ones)
    assert learned == [2, 3] and len(ticks) == 4 and not list(tmp_path.iterdir())
    assert trainer.fit(x, ones, y, seed=1, hide=True) == again and np.array_equal(trainer.predict(x, ones), answers)


OTHER = {"seed": {"seed": 2}, "hide": {"hide": False}, "move": {"move": False}, "labels": {}, "pixels": {}, "mask": {}, "schedule": {}, "recipe": {}}


@pytest.mark.parametrize("change", OTHER)
def test_another_fit_s_checkpoint_is_not_taken_up(tmp_path, trainers, learned, monkeypatch, change):
    trainer, path, (x, ones, y) = trainers["float32"], tmp_path / "fit.part", pictures()
    stopped(trainer, path); learned.clear()
    first = np.arange(128) == 0
    if change == "labels": y = np.where(first, 1 - y, y)
    if change == "pixels": x = np.where(first[:, None, None], x[:, ::-1], x)
    if change == "mask": ones = np.where(first[:, None, None], 0, ones)
    if change == "schedule": monkeypatch.setattr(trainer, "steps", 33)
    if change == "recipe": monkeypatch.setattr(trainer, "recipe", dataclasses.replace(trainer.recipe, max_ratio=.2))
    found = trainer.fit(x, ones, y, **{"seed": 1, "hide": True} | OTHER[change], checkpoint=path)
    assert learned == [0, 1, 2, 3] and trainer.fit(x, ones, y, **{"seed": 1, "hide": True} | OTHER[change]) == found and not path.exists()


def test_a_damaged_checkpoint_is_not_taken_up(tmp_path, trainers, learned):
    trainer, path, (x, ones, y) = trainers["float32"], tmp_path / "fit.part", pictures()
    stopped(trainer, path); whole = path.read_bytes(); draw = np.random.default_rng(0)
    want, question = trainer.fit(x, ones, y, seed=1, hide=True), trainer._question(1, True, True, x, ones, y.astype("float32")[:, None])
    trainer.reset(5); before = [np.asarray(v.value) for v in trainer._variables()]
    def flipped(at, bit): return whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1:]
    damaged = [b"", whole[:20], whole[:32], whole[:-1], whole[:len(whole) // 2], whole + b"\0", b"PK\3\4", *(flipped(int(draw.integers(len(whole))), int(draw.integers(8))) for _ in range(300))]
    for data in damaged: path.write_bytes(data); assert trainer._take_up(path, question) == []
    assert all(np.array_equal(a, np.asarray(b.value)) for a, b in zip(before, trainer._variables()))   # nothing was touched
    learned.clear(); assert trainer.fit(x, ones, y, seed=1, hide=True, checkpoint=path) == want and learned == [0, 1, 2, 3] and not path.exists()
    path.write_bytes(whole); learned.clear(); assert trainer.fit(x, ones, y, seed=1, hide=True, checkpoint=path) == want and learned == [2, 3]


def test_one_class_and_nan_stop_with_a_reason_and_spoil_nothing(tmp_path, trainers):
    x, ones, y = pictures(); late = x.copy(); late[50] = np.nan
    for trainer in trainers.values():
        want = trainer.fit(x, ones, y, seed=0, hide=False)
        with pytest.raises(TrainingError, match="one class"): trainer.fit(x, ones, 0 * y, seed=0, hide=False)
        with pytest.raises(TrainingError, match="one class"): trainer.fit(x, ones, np.where(y == 1, 1, np.nan), seed=0, hide=False)
        for bad in (x * np.inf, late):
            with pytest.raises(TrainingError, match=r"loss became nan in epoch 1: lower the learning rate \(0.002\) or check the pixels"): trainer.fit(bad, ones, y, seed=0, hide=False, checkpoint=tmp_path / "fit.part")
        assert not list(tmp_path.iterdir()) and trainer.fit(x, ones, y, seed=0, hide=False) == want


def textures(n=512, seed=0):
    "Three findings, each a patch of its own texture somewhere: lines along, lines across, a chessboard."
    draw = np.random.default_rng(seed); y = draw.integers(0, 2, (n, 3)).astype("float32"); x = draw.random((n, 16, 16), dtype=np.float32) * .4
    lines = np.tile([.5, 0], (6, 3)); patches = lines, lines.T, (np.indices((6, 6)).sum(0) % 2) * .5
    for i, column in np.argwhere(y): r, c = draw.integers(0, 11, 2); x[i, r:r + 6, c:c + 6] += patches[column]
    return np.minimum(x, 1), np.ones_like(x), y


def areas(answers, y): return np.array([[auc(y[:, i], answers[:, j]) for j in range(3)] for i in range(3)])


def test_it_learns_and_survives_masks():
    x, ones, y = textures(); test_x, test_ones, test_y = textures(256, seed=1); y, test_y = y[:, 2], test_y[:, 2]
    trainer = Trainer((16, 16), Recipe(epochs=16, batch=32, block=4, max_ratio=.5, learning_rate=.01), 256)
    losses = trainer.fit(x, ones, y, seed=0, hide=True)
    assert losses[-1] < losses[0] and auc(test_y, trainer.predict(test_x, test_ones)) > .9
    assert auc(test_y, trainer.predict(test_x, random_masks(rng(0), 256, (16, 16), 4, .4))) > .7
    mean = (trainer.predict(test_x, test_ones) + trainer.predict(test_x[:, :, ::-1], test_ones)) / 2
    assert np.allclose(trainer.predict(test_x, test_ones, "mirror"), mean) and trainer.predict(test_x[:0], test_ones[:0]).shape == (0,)


def test_several_labels_some_of_them_unknown():
    x, ones, y = textures(); test_x, test_ones, test_y = textures(256, 1)
    trainer = Trainer((16, 16), Recipe(epochs=14, batch=32, learning_rate=.01), 224, outputs=3)
    known = np.where((np.arange(512) % 2 == 0)[:, None] & (np.arange(3) == 2), np.nan, y)   # of the last, half of the pictures say nothing
    trainer.fit(x, ones, known, seed=0, hide=False); answers = trainer.predict(test_x, test_ones); found = areas(answers, test_y)
    assert answers.shape == (256, 3) and np.diag(found).min() > .95 and (found - 2 * np.eye(3)).max() < .7
    trainer.fit(x, ones, np.where(np.arange(3) == 2, np.nan, y), seed=0, hide=False)         # of the last, none
    found = areas(trainer.predict(test_x, test_ones), test_y); assert np.diag(found)[:2].min() > .85 and abs(found[2, 2] - .5) < .25


def test_the_loss_of_an_epoch_is_the_mean_over_its_steps(trainers):
    x, ones, y = pictures(); trainer = Trainer((16, 16), dataclasses.replace(SMALL, learning_rate=1e-12, weight_decay=0, dropout=0, epochs=1, precision="float32"), 32)
    losses = trainer.fit(x, ones, y, seed=1, hide=False, move=False)
    assert abs(losses[0] - float(masked_crossentropy(y[:, None].astype("float32"), trainer.predict(x, ones)[:, None].astype("float32")))) < 1e-5


DISTRIBUTED = """
import os; os.environ["MEDCRYPT_DEVICES"] = "CPU"
import tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from test_learning import *
x, ones, y = pictures(); trainer = Trainer((16, 16), Recipe(epochs=4, batch=16, width=8, block=4, dropout=0, precision="float32"), 32, seconds=0)
assert trainer.strategy.num_replicas_in_sync == 2 and len(trainer.strategy.experimental_local_results(trainer.model.trainable_variables[0].value)) == 2
path = Path(sys.argv[1]) / "fit.part"; stopped(trainer, path); resumed = trainer.fit(x, ones, y, seed=1, hide=True, checkpoint=path), trainer.predict(x, ones).tolist()
whole = trainer.fit(x, ones, y, seed=1, hide=True), trainer.predict(x, ones).tolist()
print(json.dumps([whole, resumed]))"""


def test_two_devices_share_a_batch(tmp_path):
    pytest.importorskip("tensorflow")
    x, ones, y = pictures(); trainer = Trainer((16, 16), Recipe(epochs=4, batch=16, width=8, block=4, dropout=0, precision="float32"), 32)
    assert trainer.strategy is None
    losses, (whole, resumed) = trainer.fit(x, ones, y, seed=1, hide=True), json.loads(new_process(DISTRIBUTED, tmp_path).stdout.splitlines()[-1])
    assert whole == resumed and np.allclose(whole[0], losses, rtol=1e-4) and np.abs(np.array(whole[1]) - trainer.predict(x, ones)).max() < 1e-4


# the ladder

@pytest.fixture
def problem():
    x, ones, y = pictures(96); index = np.arange(96)
    splits = {(s, f): (index[index % 3 != f], index[(index % 3 == (f + 1) % 3)], index[index % 3 == f]) for s in range(2) for f in range(3)}
    return {"plain": (x, ones), "blocks-0.5": (x, random_masks(rng(0), 96, (16, 16), 4, .5))}, y, splits


JOB = Job("masked-cnn", "partial", "plain", True, ("plain", "blocks-0.5"))


def test_cross_validation_goes_on_after_a_kill(tmp_path, problem, learned, monkeypatch):
    monkeypatch.setattr(ladder, "Trainer", partial(Trainer, seconds=0))
    seen, y, splits = problem; splits = {key: splits[key] for key in list(splits)[:3]}; ticks = []
    card = ModelCard("masked-cnn", ("plain", "blocks-p"), (16, 16), ("finding",), preprocessing={}, modality="CXR", trained_on="squares", synthetic=True)
    run = lambda folder, **given: cross_validate(JOB, seen, y, splits, SMALL, choose_threshold=best_threshold, fits=tmp_path / folder, save_first=tmp_path / folder / "m.keras", card=card, **given)
    whole = run("a", tick=lambda: ticks.append(1)); assert len(ticks) == 3 * 4 == len(learned)
    def kill(): ticks.append(1); len(ticks) == 2 * 4 + 3 and _raise()
    def _raise(): raise Killed
    ticks.clear(); learned.clear()
    with pytest.raises(Killed): run("b", tick=kill)
    assert sorted(p.suffix for p in (tmp_path / "b").iterdir()) == [".csv", ".csv", ".keras", ".keras", ".part"]
    ticks.clear(); learned.clear(); again = run("b", tick=lambda: ticks.append(1))
    assert learned == [2, 3] and len(ticks) == 12 and sorted(p.suffix for p in (tmp_path / "b").iterdir()) == [".csv", ".csv", ".csv", ".keras", ".keras"]
    pd.testing.assert_frame_equal(whole, again, check_exact=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").glob("*.csv")} == {p.name: p.read_bytes() for p in (tmp_path / "b").glob("*.csv")}
    assert whole.groupby("view").image.apply(sorted).map(list).tolist() == [list(range(96))] * 2
    first = whole[(whole.fold == 0) & (whole["view"] == "plain")]; held = read_card(tmp_path / "b" / "m.keras")
    assert held.thresholds == (first.threshold.iloc[0],) and held.flips == ("none", "left-right")
    test = splits[(0, 0)][2]; model = load(tmp_path / "b" / "m.keras")
    assert np.array_equal(predict(model, seen["plain"][0][test], seen["plain"][1][test], "mirror"), first.probability)
    (tmp_path / "b" / "m.keras").unlink(); learned.clear(); pd.testing.assert_frame_equal(whole, run("b"), check_exact=True)
    assert not learned and (tmp_path / "b" / "m.keras").read_bytes() == next(p for p in (tmp_path / "b").glob("*.keras") if p.name != "m.keras").read_bytes()   # Snakemake deletes outputs: the model stays beside its fit
    for model in (tmp_path / "b").glob("*.keras"): model.unlink()
    pd.testing.assert_frame_equal(whole, run("b"), check_exact=True)
    assert learned == [0, 1, 2, 3] and (tmp_path / "b" / "m.keras").is_file()   # one that is nowhere is fitted again


class Counted:
    "Stands for a trainer: answers with the mean brightness of what is visible."
    fits = []
    def __init__(self, shape, recipe, steps, **network): self.network, self.exact = network, None
    def fit(self, pixels, mask, labels, *, seed, hide, move, checkpoint, tick): Counted.fits.append((seed, hide, move, labels.shape, self.network))
    def predict(self, pixels, mask, symmetry="none"):
        mean = (pixels * mask).mean((1, 2), dtype=float); return mean if self.network["outputs"] == 1 else np.stack([mean] * self.network["outputs"], 1)


@pytest.fixture
def counted(monkeypatch): monkeypatch.setattr(ladder, "Trainer", Counted); Counted.fits = []; return Counted.fits


def test_repetitions_are_rows_of_the_whole(tmp_path, problem, counted):
    seen, y, splits = problem; run = lambda folder, **given: cross_validate(JOB, seen, y, splits, SMALL, choose_threshold=best_threshold, fits=tmp_path / folder, **given)
    whole, second = run("a"), run("b", repetitions=(1,))
    pd.testing.assert_frame_equal(whole[whole.seed == 1].reset_index(drop=True), second, check_exact=True)
    assert {p.name for p in (tmp_path / "b").iterdir()} < {p.name for p in (tmp_path / "a").iterdir()} and set(whole.seed) == {0, 1}
    assert [seed for seed, *_ in counted] == [0, 1, 2, 1000, 1001, 1002, 1000, 1001, 1002]
    pd.testing.assert_frame_equal(run("b"), whole, check_exact=True); assert len(counted) == 12


QUESTIONS = ("recipe", "label", "pixel", "mask", "examined pixel", "split", "validation", "job", "steps", "precision", "seed", "findings", "card", "threshold", "nothing")


@pytest.mark.parametrize("change", QUESTIONS)
def test_old_fits_are_not_used_for_another_question(tmp_path, problem, counted, monkeypatch, change):
    seen, y, splits = problem; split, first = splits[(0, 0)], (np.arange(96) == 0)[:, None, None]
    run = lambda seen=seen, y=y, splits={(0, 0): split}, recipe=SMALL, job=JOB, choose_threshold=lambda *_: .5, **more: cross_validate(job, seen, y, splits, recipe, choose_threshold=choose_threshold, fits=tmp_path, **more)
    card = ModelCard("m", ("plain",), (16, 16), ("finding",), preprocessing={}, modality="CXR", trained_on="squares", synthetic=True)
    run(); (x, ones), half = seen["plain"], seen["blocks-0.5"]
    if change == "recipe": run(recipe=dataclasses.replace(SMALL, weight_decay=.03))
    if change == "label": run(y=np.where(np.arange(96) == 0, 1 - y, y))
    if change == "pixel": run({**seen, "plain": (np.where(first, 0, x), ones)})
    if change == "mask": run({**seen, "plain": (x, np.where(first, 0, ones))})
    if change == "examined pixel": run({**seen, "blocks-0.5": (np.where(first, 0, x), half[1])})
    if change == "split": run(splits={(0, 0): (split[0][::-1], *split[1:])})
    if change == "validation": run(splits={(0, 0): (split[0], split[1][1:], split[2])})
    if change == "job": run(job=dataclasses.replace(JOB, tile=4))
    if change == "steps": run(splits={(0, 0): split, (0, 1): (np.arange(96), *split[1:])})   # a longer schedule for all
    if change == "precision": monkeypatch.setattr(training, "fast_precision", lambda: "float16"); run()
    if change == "seed": run(seed=1)
    if change == "findings": counted.clear(); [p.unlink() for p in tmp_path.iterdir()]; run(findings=("mass",)); run(findings=("Mass",))
    if change == "card": counted.clear(); [p.unlink() for p in tmp_path.iterdir()]; run(card=card); run(card=dataclasses.replace(card, trained_on="circles"))
    if change == "threshold": run(choose_threshold=best_threshold)   # of another source file
    if change == "nothing": run()
    assert len(list(tmp_path.iterdir())) == len(counted) == {"nothing": 1, "steps": 3}.get(change, 2)


def test_a_fit_s_name_says_all_that_it_depends_on():
    changed = {"model": "m", "mask": "none", "trained_on": "cbc", "random_masks": False, "evaluated_on": ("plain",), "move": False, "tile": 8, "ordered": False, "brightness": True, "conditioned": True, "pretrained": False}
    assert set(changed) == {f.name for f in dataclasses.fields(Job)}
    names = [fit_name(JOB, SMALL, 0, 0, "a"), fit_name(JOB, SMALL, 1, 0, "a"), fit_name(JOB, SMALL, 0, 1, "a"), fit_name(JOB, SMALL, 0, 0, "b"), *(fit_name(dataclasses.replace(JOB, **{k: v}), SMALL, 0, 0, "a") for k, v in changed.items()),
             *(fit_name(JOB, dataclasses.replace(SMALL, **{f.name: f"{getattr(SMALL, f.name)}x" if f.type == "str" or f.type is str else getattr(SMALL, f.name) + 1}), 0, 0, "a") for f in dataclasses.fields(Recipe))]
    assert len(set(names)) == len(names) == 4 + len(changed) + len(dataclasses.fields(Recipe)) and names[0] == fit_name(JOB, SMALL, 0, 0, "a")


def test_hashes_tell_shapes_and_types_apart():
    a = np.arange(6, dtype="int32")
    others = [a, a.reshape(2, 3), a.astype("int64"), a.astype("float32"), a[::-1], np.array(["a", "bc"], object), np.array(["ab", "c"], object)]
    assert len({hash_arrays(o) for o in others}) == len(others) and hash_arrays(a[::2]) == hash_arrays(a[::2].copy()) and hash_arrays(a, a) != hash_arrays(np.concatenate([a, a]))


def test_several_findings_have_rows_each(tmp_path, problem, counted):
    seen, y, splits = problem; table = np.stack([y, 1 - y], 1).astype(float); table[::5, 1] = np.nan
    rows = cross_validate(JOB, seen, table, {(0, 0): splits[(0, 0)]}, SMALL, choose_threshold=lambda answers, p: float(len(answers)), fits=tmp_path, findings=("effusion", "mass"))
    _, validation, test = splits[(0, 0)]
    assert list(rows.columns) == ["model", "view", "seed", "fold", "image", "finding", "label", "probability", "threshold"] and len(rows) == 2 * 2 * 32
    for i, name in enumerate(("effusion", "mass")):
        part = rows[(rows.finding == name) & (rows["view"] == "plain")]
        assert part.image.tolist() == test.tolist() and np.array_equal(part.label, table[test, i], equal_nan=True) and set(part.threshold) == {float((~np.isnan(table[validation, i])).sum())}
    assert counted == [(0, True, True, (64, 2), {**JOB.network, "start": None, "outputs": 2})]
    with pytest.raises(TrainingError, match="masked-cnn: 2 labels an image, and 1 names"): cross_validate(JOB, seen, table, splits, SMALL, choose_threshold=best_threshold, fits=tmp_path, findings=("a",))


def test_a_threshold_that_cannot_be_chosen_is_not_a_number(tmp_path, problem, counted):
    seen, y, splits = problem; train, validation, test = splits[(0, 0)]
    rows = cross_validate(JOB, seen, y, {(0, 0): (train, validation[y[validation] == 1], test)}, SMALL, choose_threshold=best_threshold, fits=tmp_path)
    assert rows.threshold.isna().all() and rows.probability.notna().all()


def test_a_missing_view_is_named(tmp_path, problem):
    with pytest.raises(TrainingError, match="no view cbc among plain, blocks-0.5"):
        cross_validate(Job("m", "channel", "cbc", False, ("cbc",)), *problem[:2], problem[2], SMALL, choose_threshold=best_threshold, fits=tmp_path)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_view_of_a_profile_is_served(profile):
    wanted = PROFILES[profile].views; made = jobs(wanted)
    assert {v for job in made for v in job.evaluated_on} == set(wanted) == {v for job in made for v in job.evaluated_on if rung(job.model, v) == v}
    assert len({job.slug for job in made}) == len(made) and all(job.slug.replace("-", "").replace(".", "").isalnum() for job in made)
    assert all(job.trained_on == job.evaluated_on[0] and views.find(job.trained_on) for job in made)
    both = {v for v in wanted if f"{v}-each" in wanted}
    crossed = {rung(job.model, v) for job in made for v in job.evaluated_on} - set(wanted)
    assert crossed == {f"{v}, wrong key" for v in both} and (profile not in ("laptop", "full") or "le" in both)
    for job in made[2:]:
        form = views.find(job.trained_on)[0]
        assert job.mask == "partial" and not job.random_masks and job.move == (form.name in ("resolution-r", "details-r")) and (job.tile is None) == (form.tile is None or job.move)
        assert job.ordered == (not job.trained_on.startswith(("ele", "etc", "neuracrypt")))
    assert [(j.model, j.mask, j.random_masks) for j in made[:2]] == [("masked-cnn", "partial", True), ("plain-cnn", "none", False)] and {views.find(v)[0].name for v in made[0].evaluated_on} <= set(PIXELS)
    for job in made: build((64, 64) if job.tile else (16, 16), mask=job.mask, tile=job.tile, ordered=job.ordered, width=2)


def test_jobs_take_the_tiles_of_the_schemes_and_leave_out_length():
    assert [j.tile for j in jobs(("le", "etc", "cbc"))] == [4, 8, None] and jobs(("length",)) == []
    with pytest.raises(views.ViewError, match="does not exist"): jobs(("plain", "rot13"))


def test_a_key_for_each_picture_may_be_what_other_networks_are_examined_on_alone():
    assert [(j.trained_on, j.evaluated_on) for j in jobs(("plain", "le", "le-each", "cbc"), each_key=False)[2:]] == [("le", ("le", "le-each")), ("cbc", ("cbc",))]
    own = Study(RunPaths("nowhere"), "d", dataclasses.replace(PROFILES["smoke"], views=("plain", "le", "le-each"), each_key=False), 0)
    assert [j.model for j in own.jobs] == ["masked-cnn", "plain-cnn", "masked-cnn on le"] and not any(v.endswith("-each") for v in attacked(own.profile))
    assert "le-each" in attacked(dataclasses.replace(own.profile, name="laptop", each_key=True)) and not any(v.endswith("-each") for v in attacked(dataclasses.replace(own.profile, name="laptop")))


def test_the_order_of_rungs_is_from_whole_pictures_to_ciphertext():
    order = sorted(PROFILES["full"].views, key=order_of)
    assert order[0] == "plain" and order[-2:] == ["codestream", "cbc"] and sorted(order[::-1], key=order_of) == order
    for chain in (("blocks-0.1", "blocks-0.5", "blocks-0.9", "roi"), ("details-8", "details-4", "details-2"), ("resolution-2", "resolution-4", "resolution-8"), ("pixel", "pixel-each", "le", "le-each"), ("ecb", "cbc-fixed-iv", "codestream")):
        places = [order.index(v) for v in chain]; assert places == sorted(places)
    assert sorted(["cbc", "covariate", "length", "plain"], key=order_of) == ["plain", "covariate", "length", "cbc"]
    with pytest.raises(views.ViewError): order_of("rot13")


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", [(18, 23), (16, 24)])
def test_a_tile_stem_looks_at_whole_tiles(shape, mask):
    "Also where the sides are no multiples of the tile: a pixel moves the features of its own tile and of no other."
    model = build(shape, mask=mask, width=4, tile=4, seed=1); stem = keras_layers(model, "re_lu")[0]
    x = np.random.default_rng(0).random((1, *shape, 1), dtype=np.float32); ones = np.ones_like(x)
    look = lambda x: np.asarray(keras_model(model.input, stem.output)({"pixels": x, "mask": ones}))[0]
    before = look(x); assert before.shape[:2] == (-(-shape[0] // 4), -(-shape[1] // 4))
    for row, column in ((0, 0), (3, 3), (4, 4), (15, 7), (shape[0] - 1, shape[1] - 1)):
        other = x.copy(); other[0, row, column] = 1 - other[0, row, column]
        moved = np.argwhere(np.abs(look(other) - before).max(-1) > 0)
        assert moved.tolist() == [[row // 4, column // 4]]


def keras_layers(model, word): return [layer for layer in model.layers if word in layer.name]


def keras_model(inputs, outputs):
    import keras
    return keras.Model(inputs, outputs)


def test_a_repetition_that_is_not_there_is_named(tmp_path, problem):
    seen, y, splits = problem
    with pytest.raises(TrainingError, match="no repetition 7; choose 0, 1"): cross_validate(JOB, seen, y, splits, SMALL, choose_threshold=best_threshold, fits=tmp_path, repetitions=(7,))


def test_a_training_part_of_one_class_is_named(tmp_path, problem):
    seen, y, splits = problem
    with pytest.raises(TrainingError, match="masked-cnn, repetition 0, fold 2: .*one class"): cross_validate(JOB, seen, 0 * y, {(0, 2): splits[(0, 2)]}, SMALL, choose_threshold=lambda *_: .5, fits=tmp_path)


def test_a_finding_called_NA_comes_back_from_a_finished_fit(tmp_path, problem, counted):
    seen, y, splits = problem; table = np.stack([y, 1 - y], 1).astype(float); table[::5, 1] = np.nan
    run = lambda: cross_validate(JOB, seen, table, {(0, 0): splits[(0, 0)]}, SMALL, choose_threshold=lambda *_: .5, fits=tmp_path, findings=("NA", "1"))
    fresh = run(); pd.testing.assert_frame_equal(run(), fresh, check_exact=True); assert len(counted) == 1 and set(fresh.finding) == {"NA", "1"}


def test_a_view_that_somebody_registers_has_a_place(monkeypatch):
    monkeypatch.setitem(views.VIEWS, "outline", dataclasses.replace(views.VIEWS["plain"], name="outline"))
    assert sorted(["cbc", "outline", "plain"], key=order_of) == ["plain", "outline", "cbc"]
