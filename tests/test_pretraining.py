"""First weights from phantoms: the same ones every time, only where they fit, and known to every fit that starts from them."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medcrypt.core import PROFILES, RunPaths
from medcrypt.imaging.preprocessing import Preprocessing
from medcrypt.learning import masked_cnn
from medcrypt.learning.ladder import fit_name, hash_arrays
from medcrypt.learning.pretraining import CROP, fits_start, phantom_set, start_weights
from medcrypt.learning.rungs import Job, jobs
from medcrypt.learning.study import Study
from medcrypt.learning.training import Recipe, Trainer, TrainingError

JOB = Job("masked-cnn", "partial", "plain", True, ("plain",))
QUICK = Recipe(width=4, block=4, precision="float32", symmetry="square", epochs=2, batch=8)
CT = Preprocessing(size=24, crop=48)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    where = lambda name: folder / f"{name}.npz"
    return folder, lambda job=JOB, recipe=QUICK, preprocessing=CT, count=64, **options: start_weights(job, "CT", preprocessing, count, recipe, where, **options)


def test_a_start_is_made_once_and_again_the_same(start, tmp_path):
    folder, make = start
    first = make(); files = list(folder.glob("*.npz")); made = files[0].stat().st_mtime_ns
    make(); assert len(files) == 1 and files[0].stat().st_mtime_ns == made # kept, not made again
    elsewhere = start_weights(JOB, "CT", CT, 64, QUICK, lambda name: tmp_path / f"{name}.npz")
    assert all(np.array_equal(a, b) for a, b in zip(first, elsewhere, strict=True))


@pytest.mark.parametrize("change", [{"job": replace(JOB, mask="none", random_masks=False)}, {"recipe": replace(QUICK, width=8)}, {"count": 65}, {"preprocessing": Preprocessing(size=24, crop=40)}], ids=lambda c: next(iter(c)))
def test_another_network_or_other_phantoms_are_another_start(start, change):
    folder, make = start
    make(); before = len(list(folder.glob("*.npz"))); make(**change)
    assert len(list(folder.glob("*.npz"))) == before + 1


def test_the_recipes_length_and_batch_are_not_the_starts(start):
    folder, make = start
    make(); before = len(list(folder.glob("*.npz"))); make(recipe=replace(QUICK, epochs=9, batch=4, ramp=.1))
    assert len(list(folder.glob("*.npz"))) == before


def test_a_fit_starts_from_it_but_for_the_last_layer(start):
    weights = start[1]()
    noise, learned = (Trainer((24, 24), QUICK, 10, mask="partial", start=s) for s in (None, weights))
    for trainer in (noise, learned): trainer.reset(5)
    a, b = (t.model.get_weights() for t in (noise, learned))
    assert all(np.array_equal(x, y) for x, y in zip(b, weights)) and len(b) == len(weights) + 2
    assert all(np.array_equal(x, y) for x, y in zip(a[-2:], b[-2:])) and not np.array_equal(a[0], b[0])


def test_a_start_serves_several_outputs_and_other_picture_sizes_of_as_many_stages(start):
    trainer = Trainer((24, 28), QUICK, 10, mask="partial", outputs=3, start=start[1]())
    trainer.reset(0); assert trainer.model.output_shape == (None, 3)


@pytest.mark.parametrize("network", [{"mask": "none"}, {"mask": "partial", "conditioned": True, "tile": 4}, {"mask": "channel"}])
def test_weights_of_another_network_are_refused(start, network):
    trainer = Trainer((24, 24), QUICK, 10, start=start[1](), **network)
    with pytest.raises(TrainingError, match="another network"): trainer.reset(0)


def test_a_fits_name_and_checkpoint_know_the_start(start, tmp_path):
    weights = start[1]()
    assert len({fit_name(JOB, QUICK, 0, 0, "", start=s) for s in ("", hash_arrays(*weights))}) == 2
    noise, learned = (Trainer((24, 24), QUICK, 10, mask="partial", start=s) for s in (None, weights))
    arrays = np.zeros((4, 24, 24), "float32"), np.ones((4, 24, 24), bool), np.array([[0.], [1], [0], [1]], "float32")
    assert noise._question(0, True, True, *arrays) != learned._question(0, True, True, *arrays)


def test_phantoms_are_read_as_the_collection_is():
    pictures, answers = phantom_set("CXR", Preprocessing(size=(32, 40), crop=100, bits=12), 5)
    assert pictures.shape == (5, 32, 40) and pictures.dtype == np.uint16 and answers.shape == (5, 6) # five findings, and any
    assert ((answers[:, :5].max(1) > 0) == (answers[:, 5] > 0)).all()
    slices, malignant = phantom_set("CT", Preprocessing(size=24, planes=3), 4) # one plane is enough: convolutions do not know how wide a picture is
    assert slices.shape == (4, 24, 24) and malignant.shape == (4, 1) and CROP == 48


def test_networks_on_tiles_start_from_noise():
    made = jobs(PROFILES["full"].views)
    starts = {job.trained_on for job in made if fits_start(job)}
    assert {"plain", "resolution-4", "details-4", "cbc", "codestream"} <= starts and not starts & {"le", "etc", "neuracrypt"}
    assert not fits_start(replace(JOB, pretrained=False))


@pytest.mark.parametrize("synthetic, pretrain, wanted", [(True, 64, False), (False, 0, False), (False, 64, True)])
def test_who_starts_from_phantoms(tmp_path, synthetic, pretrain, wanted):
    study = Study(RunPaths(tmp_path), "x", replace(PROFILES["smoke"], pretrain=pretrain, epochs=2), 0)
    facts = {"synthetic": synthetic, "modality": "CT", "block": 4, "preprocessing": {"size": [24, 24], "crop": 48, "bits": 8, "planes": 1}}
    study.__dict__["data"] = type("Data", (), {"facts": facts, "__len__": lambda self: 20})()
    study.__dict__["recipe"] = QUICK
    found = study.start(JOB)
    assert (found is not None) == wanted and (tmp_path / "work" / "start").is_dir() == wanted


@pytest.mark.parametrize("options", [{"brightness": True}, {"conditioned": True}, {"conditioned": True, "mask": "none"}, {"brightness": True, "mask": "channel"}])
def test_the_networks_options_keep_what_is_hidden_hidden_and_survive_saving(tmp_path, options):
    model = masked_cnn.build((24, 24), width=4, seed=1, **options)
    draw = np.random.default_rng(0); x = draw.random((3, 24, 24, 1), dtype=np.float32); m = np.ones_like(x); m[:, 4:12] = 0
    out = np.asarray(model({"pixels": x, "mask": m}))
    if options.get("mask") != "none": assert np.array_equal(out, np.asarray(model({"pixels": np.where(m > 0, x, 7).astype("float32"), "mask": m})))
    again = masked_cnn.load(masked_cnn.save(model, Path(tmp_path) / "m.keras"))
    assert np.array_equal(out, np.asarray(again({"pixels": x, "mask": m})))


def test_filters_with_a_mean_answer_to_brightness():
    def change(**options):
        model = masked_cnn.build((24, 24), width=8, seed=1, **options)
        stem = next(layer for layer in model.layers if layer.__class__.__name__ == "PartialConv2D")
        kernel = np.asarray(stem.standardized())
        return float(np.abs(kernel.sum((0, 1, 2))).max())
    assert change() < 1e-5 < .01 < change(brightness=True)
