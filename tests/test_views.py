"""A view sees what its envelope leaves in clear and nothing else."""
import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from medcrypt.core import seeded_bytes
from medcrypt.crypto import keys, partial
from medcrypt.crypto.envelope import EnvelopeError, parse
from medcrypt.crypto.images import seal_image
from medcrypt.crypto.keys import Key, new_key
from medcrypt.learning import views
from medcrypt.learning.views import VIEWS, ViewError, find, view

KEY = Key(seeded_bytes(1, "test")(32))


def objects(picture, key=KEY, draw=None):
    common = {"image_id": "ab", **({"random": draw} if draw else {})}
    return {"plain": partial.seal_blocks(picture, key, ratio=0, block=4, **common), "blocks-0.5": partial.seal_blocks(picture, key, ratio=.5, block=4, **common),
            "cbc": seal_image(picture, key, codec="raw", **common), "codestream": seal_image(picture, key, **common), "length": seal_image(picture, key, **common)}


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)


def test_every_view_of_the_registry_has_an_object_here(picture):
    assert {n for n in VIEWS} == {"plain", "blocks-p", "cbc", "codestream", "length"}
    for name, envelope in objects(picture).items():
        pixels, mask = view(name, envelope)
        assert pixels.dtype == np.float32 and mask.dtype == bool and pixels.shape == mask.shape
        assert pixels.shape == ((1, 1) if name == "length" else picture.shape)


def test_views_module_cannot_reach_a_key():
    tree = ast.parse(Path(views.__file__).read_text())
    imported = {f"{n.module}.{a.name}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names} | {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not [i for i in imported if "keys" in i or "unseal" in i or i.endswith(".seal")], imported
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert not names & {"unseal", "unseal_image", "unseal_blocks", "load_key", "derive", "environ", "open"}


def test_views_work_where_no_key_can_be_had(picture, monkeypatch):
    made = objects(picture, new_key())
    def refuse(*_, **__): raise AssertionError("a view asked for a key")
    for module, name in ((keys, "load_key"), (keys, "derive"), (partial, "unseal"), (partial, "unseal_blocks")):
        if hasattr(module, name): monkeypatch.setattr(module, name, refuse)
    for name, envelope in made.items(): view(name, envelope)


def test_hidden_pixels_do_not_change_what_is_seen(picture):
    pixels, mask = view("blocks-0.5", objects(picture, draw=seeded_bytes(7))["blocks-0.5"])
    other = np.where(mask, picture, 255 - picture).astype(np.uint8)
    again, same = view("blocks-0.5", objects(other, draw=seeded_bytes(7))["blocks-0.5"])
    assert np.array_equal(mask, same) and np.array_equal(pixels, again)
    assert np.array_equal(pixels[mask], (picture[mask] / 255).astype("float32"))
    assert not np.array_equal(pixels[~mask], (picture[~mask] / 255).astype("float32"))


def test_equal_pictures_look_different_as_ciphertext(picture):
    for name in ("cbc", "codestream"):
        first, second = (view(name, objects(picture)[name])[0] for _ in range(2))
        assert (first == second).mean() < .05 + (first == 0).mean()


def test_cbc_view_is_the_ciphertext(picture):
    envelope = objects(picture)["cbc"]
    assert np.array_equal(np.round(view("cbc", envelope)[0] * 255).astype(np.uint8).tobytes(), parse(envelope).ciphertext[:picture.size])


def test_padded_codestreams_all_look_equally_long():
    draw = np.random.default_rng(1)
    pictures = [np.zeros((32, 32), np.uint8), draw.integers(0, 256, (32, 32), dtype=np.uint8), np.full((32, 32), 9, np.uint8)]
    masks = {view("codestream", seal_image(p, KEY, image_id="ab", pad_to=2000))[1].tobytes() for p in pictures}
    lengths = {float(view("length", seal_image(p, KEY, image_id="ab", pad_to=2000))[0][0, 0]) for p in pictures}
    assert len(masks) == len(lengths) == 1
    assert len({float(view("length", seal_image(p, KEY, image_id="ab"))[0][0, 0]) for p in pictures}) > 1


@pytest.mark.parametrize("name", ["blocks-p", "blocks-1.5", "blocks--1", "blocks-", "plane", "", "blocks-nan", "cbc-0.5"])
def test_names_that_do_not_exist(name):
    with pytest.raises(ViewError, match="does not exist"): find(name)


@pytest.mark.parametrize("name, kind", [("plain", "cbc"), ("cbc", "codestream"), ("codestream", "cbc"), ("length", "plain"), ("blocks-0.5", "codestream"), ("blocks-0.25", "blocks-0.5"), ("plain", "blocks-0.5")])
def test_a_view_refuses_an_object_that_does_not_fit(picture, name, kind):
    with pytest.raises(ViewError, match=name): view(name, objects(picture)[kind])


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_bytes_that_are_no_envelope(data):
    for name in ("plain", "blocks-0.5", "cbc", "codestream", "length"):
        with pytest.raises((EnvelopeError, ViewError)): view(name, data)


def test_many_at_once(picture):
    made = [objects(picture)["plain"], objects(255 - picture)["plain"]]
    pixels, mask = views.views("plain", made)
    assert pixels.shape == (2, 24, 32) and np.allclose(pixels[0] + pixels[1], 1)
    with pytest.raises(ViewError, match="no objects"): views.views("plain", [])
    with pytest.raises(ViewError, match="different shapes"): views.views("plain", [made[0], objects(picture[:16])["plain"]])


def test_signed_pictures_are_scaled_too():
    signed = np.array([[-2048, 2047] * 8] * 16, np.int16)
    pixels, _ = view("plain", partial.seal_blocks(signed, KEY, ratio=0, block=4, image_id="ab", bits=12))
    assert pixels.min() == 0 and pixels.max() == 1
