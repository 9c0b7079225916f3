"""Model cards: written into both kinds of model file, read without a framework, hostile files refused in one sentence."""
import json
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcrypt.learning.model_card import CARD_BYTES, MEMBER, ModelCard, ModelError, add_card, from_json, members, read_card, save_model, to_json

GOOD = dict(name="masked-cnn", views=("plain", "blocks-p", "roi", "cbc-fixed-iv"), shape=(16, 24), labels=("nodule", "effusion"), thresholds=(.4, .25), preprocessing={"size": [16, 24], "bits": 8, "crop": None},
            modality="CXR", trained_on="radiograph phantom", synthetic=True, flips=("none", "left-right"))


def card(**changes): return ModelCard(**{**GOOD, **changes})


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("keras")
    from medcrypt.learning import masked_cnn
    return masked_cnn.build((16, 24), width=4, outputs=2, seed=1)


def file_with(path, text, member=MEMBER, before=b"some model", **options):
    path.write_bytes(before)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive: archive.writestr(member, text, **options)
    return path


def test_round_trip_of_every_field():
    assert from_json(to_json(card())) == card() and card().views == GOOD["views"] and card().thresholds == (.4, .25)
    assert from_json(to_json(card(thresholds=None))).thresholds is None
    assert json.loads(to_json(card()))["version"] == 2


@pytest.mark.parametrize("changes, words", [
    ({"name": ""}, "name"), ({"name": "a\x1b[31mred"}, "name"), ({"name": 3}, "name"), ({"name": "x" * 201}, "name"), ({"modality": None}, "modality"), ({"trained_on": ""}, "trained_on"),
    ({"views": ()}, "views"), ({"views": "plain"}, "views"), ({"views": ("../x",)}, "views"), ({"views": ("plain", "plain")}, "twice"), ({"views": ("Plain",)}, "views"), ({"views": (None,)}, "views"),
    ({"shape": (16,)}, "shape"), ({"shape": (16, 0)}, "shape"), ({"shape": (16, 1 << 20)}, "shape"), ({"shape": (16., 16)}, "shape"), ({"shape": (True, 16)}, "shape"), ({"shape": 16}, "shape"),
    ({"labels": ("a", "a")}, "twice"), ({"labels": ()}, "labels"), ({"labels": ("a\n", "b")}, "labels"), ({"labels": ("a",)}, "thresholds"),
    ({"thresholds": (.5,)}, "each of 2"), ({"thresholds": (.5, 1.5)}, "thresholds"), ({"thresholds": (.5, float("nan"))}, "thresholds"), ({"thresholds": (.5, True)}, "thresholds"), ({"thresholds": .5}, "thresholds"),
    ({"flips": ()}, "flips"), ({"flips": ("sideways",)}, "flips"), ({"flips": ([],)}, "flips"), ({"flips": ("none", "none")}, "twice"), ({"synthetic": 1}, "synthetic"), ({"started": None}, "started"), ({"preprocessing": []}, "preprocessing")])
def test_wrong_values(changes, words):
    with pytest.raises(ModelError, match=words): card(**changes)


def test_preprocessing_must_be_json_and_small():
    with pytest.raises(ModelError, match="not JSON"): to_json(card(preprocessing={"x": object()}))
    with pytest.raises(ModelError, match="not JSON"): to_json(card(preprocessing={"x": float("nan")}))
    with pytest.raises(ModelError, match="longer than"): to_json(card(preprocessing={"x": "y" * CARD_BYTES}))


def test_keras_opens_a_model_with_a_card(model, tmp_path):
    import keras
    path = save_model(model, tmp_path / "m.keras", card())
    assert read_card(path) == card() and MEMBER in members(path) and [p.name for p in tmp_path.iterdir()] == ["m.keras"]
    again = keras.saving.load_model(path, safe_mode=True)
    x = {"pixels": np.random.default_rng(0).random((2, 16, 24, 1), "float32"), "mask": np.ones((2, 16, 24, 1), "float32")}
    assert np.array_equal(np.asarray(model(x)), np.asarray(again(x)))


def test_saving_refuses_what_does_not_fit_and_leaves_what_was_there(model, tmp_path):
    path = tmp_path / "m.keras"; path.write_bytes(b"precious")
    for wrong, words in ((card(shape=(24, 16)), "its network reads"), (card(labels=("one",), thresholds=None), "names 1 labels"), (card(preprocessing={"x": object()}), "not JSON")):
        with pytest.raises(ModelError, match=words): save_model(model, path, wrong)
    with pytest.raises(ModelError, match="ends in .keras"): save_model(model, tmp_path / "m.h5", card())
    import keras
    with pytest.raises(ModelError, match="no named inputs"): save_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), path, card())
    assert path.read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 1


def test_reading_a_card_loads_no_framework(tmp_path):
    path = file_with(tmp_path / "m.tflite", to_json(card()))
    code = f"import sys; from medcrypt.learning.model_card import read_card; print(read_card({str(path)!r}).name); assert not {{'tensorflow', 'keras', 'ai_edge_litert', 'pandas'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "masked-cnn", done.stderr


def test_same_card_same_bytes(tmp_path):
    made = []
    for name in "ab": path = tmp_path / name; path.write_bytes(b"model"); add_card(path, card()); made.append(path.read_bytes())
    assert made[0] == made[1] and made[0].startswith(b"model")


def altered(**changes): return json.dumps({**json.loads(to_json(card())), **changes})


@pytest.mark.parametrize("text, words", [
    ("not json", "not JSON"), (b"\xff\xfe", "not JSON"), ("[" * 100_000, "not JSON"), ("[1]", "not a JSON object"), ("{}", "version"), (altered(version=1), "version 1"), (altered(version=True), "version True"), (altered(version="1"), "version '1'"),
    (altered(extra=1), "unknown entries"), (json.dumps({k: v for k, v in json.loads(to_json(card())).items() if k != "labels"}), "lacks labels"), (altered(labels=3), "labels"), (altered(shape=["a", 1]), "shape"), (altered(views=[["plain"]]), "views"), (altered(flips=[{}]), "flips")])
def test_wrong_cards_are_named_with_their_file(tmp_path, text, words):
    path = file_with(tmp_path / "odd.keras", text)
    with pytest.raises(ModelError, match=words) as error: read_card(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value) and len(str(error.value)) < 400


def test_files_that_are_no_models(tmp_path):
    for name, data in (("empty", b""), ("text", b"hello"), ("zeros", bytes(1000)), ("pk", b"PK\x03\x04 not a model"), ("pickle", b"\x80\x04\x95\x00.")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match="no model card"): read_card(tmp_path / name)
    with pytest.raises(ModelError, match="no such model file"): read_card(tmp_path / "none")
    with pytest.raises(ModelError, match="ordinary"): read_card(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="ordinary"): read_card(tmp_path / "pipe")
    with pytest.raises(ModelError, match="no model card"): read_card(file_with(tmp_path / "other", "{}", member="config.json"))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = file_with(tmp_path / "long.keras", to_json(card()) + b" " * CARD_BYTES)
    with pytest.raises(ModelError, match="longer than"): read_card(path)
    data = bytearray(file_with(tmp_path / "big.keras", to_json(card())).read_bytes())
    at = data.rindex(b"PK\1\2"); struct.pack_into("<L", data, at + 24, 0xFFFFFFF0)
    (tmp_path / "big.keras").write_bytes(data)
    with pytest.raises(ModelError, match="unpacks to"): read_card(tmp_path / "big.keras")
    data = bytearray(file_with(tmp_path / "lie.keras", to_json(card()) + b" " * CARD_BYTES).read_bytes())
    struct.pack_into("<L", data, data.rindex(b"PK\1\2") + 24, 100) # declares less than it unpacks to
    (tmp_path / "lie.keras").write_bytes(data)
    with pytest.raises(ModelError): read_card(tmp_path / "lie.keras")


def test_a_huge_directory_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "many.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, to_json(card()))
        for i in range(20_000): archive.writestr(f"m{i:06}", "")
    with pytest.raises(ModelError, match="directory"): members(path)
    locator = b"PK\6\7" + bytes(16)
    data = file_with(path, to_json(card())).read_bytes(); end = data.rindex(b"PK\5\6")
    path.write_bytes(data[:end] + locator + data[end:])
    with pytest.raises(ModelError, match="directory"): members(path)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_damage_is_one_error_or_a_card(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "m.keras"
    whole = bytearray(file_with(path, to_json(card())).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))): whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[:data.draw(st.integers(len(whole) - 40, len(whole)))])
    try: found = read_card(path)
    except ModelError as error: assert str(error).startswith(str(path)) and "\n" not in str(error)
    else: assert isinstance(found, ModelCard)
