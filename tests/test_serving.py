"""Exports: same probabilities as Keras, constants folded, inputs by name, wrong files refused; opening .keras safely."""
import hashlib
import json
import zipfile

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from medcrypt.evaluation.serving_latency import latency_table
from medcrypt.learning import masked_cnn
from medcrypt.learning.model_card import MEMBER, ModelCard, ModelError, add_card, save_model, to_json
from medcrypt.learning.serving import Loaded, Served, averaged, export, open_model


def card(shape, outputs=1): return ModelCard("net", ("plain",), shape, tuple(f"label {i}" for i in range(outputs)), preprocessing={}, modality="CXR", trained_on="none", synthetic=True)


def built(shape, mask="channel", outputs=1, seed=0, width=4):
    # every weight random, batch statistics too
    model, draw = masked_cnn.build(shape, mask=mask, width=width, outputs=outputs, seed=seed), np.random.default_rng(seed)
    for v in model.weights:
        if len(v.shape) == 1: v.assign(np.abs(np.asarray(v)) + draw.uniform(.1, .9, v.shape))
    return model


def inputs(shape, n=5, seed=0):
    draw = np.random.default_rng(seed); pixels = draw.random((n, *shape), "float32")
    return pixels, (draw.random(pixels.shape) < .6).astype("float32")


def by_keras(model, pixels, mask): return np.asarray(model.predict_on_batch({"pixels": pixels[..., None], "mask": mask[..., None]}))


@pytest.mark.parametrize("mask", masked_cnn.MASKS)
@pytest.mark.parametrize("shape, outputs", [((16, 16), 1), ((33, 20), 3), ((64, 48), 2)])
def test_an_export_says_what_the_model_says(tmp_path, mask, shape, outputs):
    model, (pixels, visible) = built(shape, mask, outputs, seed=len(mask)), inputs(shape)
    served = Served(export(model, tmp_path / "m.tflite", card(shape, outputs)))
    expected = by_keras(model, pixels, visible)
    assert expected.std() > 1e-4 and np.abs(served.predict(pixels, visible) - expected).max() < 1e-5
    swapped = by_keras(model, visible, pixels) # inputs taken by position would give this
    if mask != "none": assert np.abs(served.predict(pixels, visible) - swapped).max() > 1e-3
    assert served.card == card(shape, outputs) and served.predict(pixels[:0], visible[:0]).shape == (0, outputs)
    assert [p.name for p in tmp_path.iterdir()] == ["m.tflite"]


@keras.saving.register_keras_serializable(package="test")
class Standardised(keras.layers.Conv2D):
    "A convolution whose kernel is standardised in every call."
    def convolution_op(self, inputs, kernel):
        mean, variance = keras.ops.moments(kernel, (0, 1, 2), keepdims=True)
        return super().convolution_op(inputs, (kernel - mean) / keras.ops.sqrt(variance + 1e-5))


def test_what_depends_on_weights_alone_is_computed_once(tmp_path):
    pixels, mask = keras.Input((16, 16, 1), name="pixels"), keras.Input((16, 16, 1), name="mask")
    x = keras.layers.Concatenate()([keras.layers.Multiply()([pixels, mask]), mask])
    for size in (4, 8): x = keras.layers.ReLU()(keras.layers.GroupNormalization(2)(Standardised(size, 3, padding="same", use_bias=False)(x)) if size == 8 else keras.layers.BatchNormalization()(Standardised(size, 3)(x)))
    model = keras.Model({"pixels": pixels, "mask": mask}, keras.layers.Dense(1, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(x)))
    served = Served(export(model, tmp_path / "m.tflite", card((16, 16))))
    operations = served.operations()
    assert operations.count("CONV_2D") == 2 and not {"VAR_HANDLE", "READ_VARIABLE", "CALL_ONCE", "TRANSPOSE"} & set(operations)
    assert operations.count("RSQRT") + operations.count("SQRT") <= 1 # the group norm's, which depends on the picture
    data = inputs((16, 16))
    assert np.abs(served.predict(*data) - by_keras(model, *data)).max() < 1e-5


@pytest.mark.parametrize("mask", masked_cnn.MASKS)
def test_only_arithmetic_on_pictures_is_left(tmp_path, mask):
    model = built((32, 32), mask); operations = Served(export(model, tmp_path / "m.tflite", card((32, 32)))).operations()
    assert not {"VAR_HANDLE", "READ_VARIABLE", "CALL_ONCE", "RSQRT", "SQRT", "SQUARED_DIFFERENCE", "TRANSPOSE"} & set(operations)
    assert operations.count("CONV_2D") == sum("Conv2D" in type(layer).__name__ for layer in model.layers) + (mask == "partial") # pixels and mask enter apart
    assert operations.count("DELEGATE") == 1


def test_an_export_that_differs_is_not_written(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"precious")
    with pytest.raises(ModelError, match="differ from the model's"): export(built((16, 16)), tmp_path / "m.tflite", card((16, 16)), tolerance=-1)
    for wrong, words in ((card((16, 24)), "network reads"), (card((16, 16), 2), "names 2 labels")):
        with pytest.raises(ModelError, match=words): export(built((16, 16)), tmp_path / "m.tflite", wrong)
    with pytest.raises(ModelError, match="ends in .tflite"): export(built((16, 16)), tmp_path / "m.bin", card((16, 16)))
    assert (tmp_path / "m.tflite").read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 1


def test_wrong_exports_are_refused_by_name(tmp_path):
    path = export(built((16, 16)), tmp_path / "m.tflite", card((16, 16)))
    data = path.read_bytes(); model = data[:data.index(b"PK\3\4")]
    def file(name, start, about=card((16, 16)), digest=None):
        p = tmp_path / name; p.write_bytes(start); add_card(p, about)
        with zipfile.ZipFile(p, "a") as archive: archive.writestr("model.sha256", digest or hashlib.sha256(start).hexdigest())
        return p
    assert Served(file("same", model)).card == card((16, 16))
    flipped = bytearray(model); flipped[len(model) // 2] ^= 1
    for p, words in ((file("text", b"nothing but text"), "no LiteRT model"), (file("cut", model[:len(model) // 2]), "can run"), (file("zeros", model[:8] + bytes(400)), "can run"), (file("bit", flipped, digest=hashlib.sha256(model).hexdigest()), "damaged"),
                     (file("shape", model, card((16, 24))), "its card says"), (file("labels", model, card((16, 16), 2)), "names 2 labels"), (file("digest", model, digest="0"), "that medcrypt exported")):
        with pytest.raises(ModelError, match=words) as error: Served(p)
        assert str(error.value).startswith(f"{p}: ")
    served = Served(path); pixels, mask = inputs((16, 16))
    for args in ((pixels[:, :8], mask[:, :8]), (pixels, mask[:1]), (pixels[0], mask[0])):
        with pytest.raises(ModelError, match="16 x 16"): served.predict(*args)


def test_a_loaded_model_gives_the_same_and_few_shapes_are_traced(tmp_path):
    model, (pixels, mask) = built((16, 24), outputs=2), inputs((16, 24), 5)
    loaded = open_model(save_model(model, tmp_path / "m.keras", card((16, 24), 2)))
    assert isinstance(loaded, Loaded) and np.allclose(loaded.predict(pixels, mask), by_keras(model, pixels, mask), atol=1e-6) and loaded.predict(pixels[:0], mask[:0]).shape == (0, 2)
    assert isinstance(open_model(export(model, tmp_path / "m.tflite", card((16, 24), 2)), threads=2), Served)
    with pytest.raises(ModelError, match="ends in .keras or .tflite"): open_model(tmp_path / "m.pkl")


def rewritten(path, target, changes):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if changes.get(name, b"") is not None: new.writestr(name, changes.get(name) or old.read(name))
        for name in set(changes) - set(old.namelist()): new.writestr(name, changes[name])
    return target


def test_hostile_keras_files(tmp_path):
    path = save_model(built((16, 16)), tmp_path / "m.keras", card((16, 16))); odd = tmp_path / "odd.keras"
    with zipfile.ZipFile(path) as archive: config, about = json.loads(archive.read("config.json")), to_json(card((16, 16)))
    Loaded(rewritten(path, odd, {}))
    marker = tmp_path / "ran"
    lam = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Lambda(lambda x, f=str(marker): (open(f, "w").close(), x)[1])])
    lam.save(tmp_path / "lambda.keras"); add_card(tmp_path / "lambda.keras", card((16, 16))); marker.unlink(missing_ok=True)
    with pytest.raises(ModelError, match="cannot|can"): Loaded(tmp_path / "lambda.keras")
    assert not marker.exists()
    for changes, words in (({"assets/x.pkl": b"\x80\x04."}, "members too many"), ({"model.weights.h5": None}, "too few"), ({"config.json": b"{"}, "can read"), ({"config.json": b"[]"}, "can read"), ({"model.weights.h5": b"not hdf5"}, "can read"),
                           ({"config.json": json.dumps({**config, "class_name": "system", "module": "os"}).encode()}, "can read"), ({MEMBER: about.replace(b"16", b"17")}, "its card says")):
        with pytest.raises(ModelError, match=words) as error: Loaded(rewritten(path, odd, changes))
        assert str(error.value).startswith(f"{odd}: ") and "\n" not in str(error.value)


def test_flips_are_averaged_with_their_masks():
    draw = np.random.default_rng(0); pixels, mask = draw.random((2, 4, 6)), draw.random((2, 4, 6)) < .5
    corner = lambda p, m: np.stack([p[:, 0, 0], m[:, 0, 0]], 1)
    assert np.array_equal(averaged(corner, pixels, mask), corner(pixels, mask))
    for flip, at in (("left-right", (0, -1)), ("up-down", (-1, 0)), ("both", (-1, -1))):
        found = averaged(corner, pixels, mask, ("none", flip))
        assert np.allclose(found[:, 0], (pixels[:, 0, 0] + pixels[:, at[0], at[1]]) / 2) and np.allclose(found[:, 1], (mask[:, 0, 0] * 1. + mask[:, at[0], at[1]]) / 2)


def test_latency_table_has_every_way(tmp_path):
    models = [built((16, 16), mask) for mask in ("channel", "none")]
    exports = [Served(export(m, tmp_path / f"{m.name}.tflite", card((16, 16)))) for m in models]
    table = latency_table(models[0], exports[0], models[1], exports[1], repeats=15, resamples=50).set_index("stage")
    assert set(table.index) == {"masked, tf.function", "masked, Model.predict", "masked, export", "plain, tf.function", "plain, export"}
    assert table.ratio["masked, tf.function"] == 1 and table.ratio_plain["plain, export"] == 1 and (table.p95_ms >= table.median_ms).all()
    assert table.ratio["masked, export"] < .5 and table.ratio["masked, Model.predict"] > 2 # the order is large, whatever the machine
