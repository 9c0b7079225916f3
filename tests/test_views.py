"""A view sees what its envelope leaves in clear and nothing else."""
import ast, random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from medcrypt.core import PROFILES, ConfigError, MedcryptError, RunPaths, seeded_bytes
from medcrypt.crypto import keys, partial, resolution, scrambled
from medcrypt.crypto.envelope import EnvelopeError, data_key, parse, seal, unseal
from medcrypt.crypto.images import seal_image, unseal_image
from medcrypt.crypto.keys import Key, new_key
from medcrypt.crypto.slots import new_private_key
from medcrypt.learning import views
from medcrypt.learning.views import VIEWS, View, ViewError, find, register, tile_of, view
from medcrypt.vault import archive

KEY = Key(seeded_bytes(1, "test")(32))
NUMBERED = {"blocks-p": ("blocks-0.5", "blocks-0.25"), "resolution-r": ("resolution-2", "resolution-4", "resolution-8"), "details-r": ("details-2", "details-4")}
NAMES = [name for entry in VIEWS for name in NUMBERED.get(entry, (entry,))]
PERCEPTUAL = [name for name, entry in VIEWS.items() if entry.reads in scrambled.SCHEMES]


def objects(picture, key=KEY, draw=None, names=NAMES, bits=8):
    random = draw or seeded_bytes(int.from_bytes(new_key()[:8], "big"))
    made = archive.seal_all(picture, key, views=names, block=4, bits=bits, random=random)
    if "codestream" in names: made["codestream"] = seal_image(picture, key, image_id="ab", bits=bits, pad_to=2 * picture.nbytes + 500, random=random)
    return made | ({"length": made["jpeg2000"]} if "length" in names else {})


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)


def smooth(shape=(24, 32), seed=0):
    return (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * 3 + np.random.default_rng(seed).integers(0, 9, shape)).astype(np.uint8)


def test_the_registry_is_the_design_s():
    assert list(VIEWS) == ["plain", "blocks-p", "roi", "resolution-r", "details-r", "le", "le-each", "ele", "ele-each", "etc", "etc-each", "pixel", "pixel-each", "neuracrypt", "neuracrypt-each", "ecb", "ecb-each", "cbc-fixed-iv", "cbc", "codestream", "length"]
    assert all(v.name == name and v.sees and v.hides and callable(v.look) for name, v in VIEWS.items())
    assert {name: v.tile for name, v in VIEWS.items() if v.tile} == {"blocks-p": 8, "roi": 8, "le": 4, "le-each": 4, "ele": 4, "ele-each": 4, "etc": 8, "etc-each": 8, "neuracrypt": 8, "neuracrypt-each": 8}


@pytest.mark.parametrize("shape", [(24, 32), (37, 16), (40, 40)])
@pytest.mark.parametrize("bits", [8, 12])
def test_every_view_of_the_registry_has_an_object_here(shape, bits):
    pixels = np.random.default_rng(0).integers(0, 2**bits, shape).astype("uint8" if bits == 8 else "uint16"); made = objects(pixels, bits=bits)
    for name in NAMES:
        seen, mask = view(name, made[name])
        assert seen.dtype == np.float32 and mask.dtype == bool and seen.shape == mask.shape
        wanted = (1, 1) if name == "length" else tuple(-(-s // 8) * 8 for s in shape) if name.startswith("neuracrypt") else shape
        assert seen.shape == wanted and (name == "length" or 0 <= seen.min() and seen.max() <= 1)
        assert mask.all() or name.startswith("blocks") or name in ("roi", "codestream") or bits == 12 and name == "cbc"
        assert tile_of(name, made[name]) == (None if find(name)[0].tile is None else 4 if name == "roi" or name.startswith("blocks") else VIEWS[name].tile)


def test_every_object_opens_exactly_for_every_holder(picture):
    friend = new_private_key(); opened = {"blocks": partial.unseal_blocks, "low": resolution.unseal_resolution, "details": resolution.unseal_resolution, "image": unseal_image, "scrambled": scrambled.unseal_scrambled}
    from medcrypt.crypto.rewrap import rewrap
    for name, envelope in objects(picture).items():
        unsealed, shared = opened[parse(envelope).header["kind"]], rewrap(envelope, KEY, [KEY, friend.public()])
        for holder in (KEY, friend, data_key(shared, KEY)): assert np.array_equal(unsealed(shared, holder)[0], picture), name
        with pytest.raises(EnvelopeError): unsealed(envelope, new_key())


def test_views_module_cannot_reach_a_key():
    tree = ast.parse(Path(views.__file__).read_text())
    imported = {f"{n.module}.{a.name}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names} | {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not [i for i in imported if "keys" in i or "unseal" in i or i.endswith(".seal")], imported
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert not {n for n in names if n.startswith(("unseal", "open_", "decrypt", "data_key"))} and not names & {"load_key", "derive", "environ", "open", "getattr", "__import__", "eval", "exec"}


def test_a_view_that_reached_for_a_key_would_be_found():
    tree = ast.parse("def look(reader, _): return scrambled.open_scrambled(reader, key)")
    names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert [n for n in names if n.startswith(("unseal", "open_"))]


def test_views_work_where_no_key_can_be_had(picture, monkeypatch):
    made = objects(picture, new_key())
    def refuse(*_, **__): raise AssertionError("a view asked for a key")
    from medcrypt.crypto import aead, envelope as envelopes, perceptual, slots
    for module, names in ((keys, ("load_key", "derive")), (envelopes, ("open_chunks", "open_whole", "open_slots", "derive")), (slots, ("open_slots",)), (aead, ("open_a256cbc_hs512",)), (perceptual, ("derive", "decrypt")), (partial, ("derive", "open_parts")), (scrambled, ("derive", "open_parts")), (resolution, ("open_parts",))):
        for name in names: assert hasattr(module, name); monkeypatch.setattr(module, name, refuse)
    for name in NAMES: view(name, made[name])
    with pytest.raises(AssertionError, match="asked for a key"): scrambled.unseal_scrambled(made["le"], KEY)


@pytest.mark.parametrize("name", ["blocks-0.5", "roi"])
def test_hidden_pixels_do_not_change_what_is_seen(picture, name):
    pixels, mask = view(name, objects(picture, draw=seeded_bytes(7), names=[name])[name])
    other = np.where(mask, picture, 255 - picture).astype(np.uint8)
    again, same = view(name, objects(other, draw=seeded_bytes(7), names=[name])[name])
    assert np.array_equal(mask, same) and np.array_equal(pixels, again) and 0 < mask.mean() < 1
    assert np.array_equal(pixels[mask], (picture[mask] / 255).astype("float32"))
    assert not np.array_equal(pixels[~mask], (picture[~mask] / 255).astype("float32"))


def test_roi_hides_the_middle_or_the_region_that_is_given(picture):
    mask = view("roi", objects(picture)["roi"])[1]
    wanted = np.ones((24, 32), bool); wanted[4:20, 8:24] = False   # 6:18 and 8:24, in whole blocks of 4
    assert np.array_equal(mask, wanted)
    corner = lambda pixels: np.add.outer(np.arange(pixels.shape[0]), np.arange(pixels.shape[1])) > 3
    made = archive.seal_all(picture, KEY, views=("roi",), block=4, bits=8, random=seeded_bytes(1), region=corner)
    wanted = np.ones((24, 32), bool); wanted[:4, :4] = False
    assert np.array_equal(view("roi", made["roi"])[1], wanted) and set(made) == {"roi", "jpeg2000"}


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_resolutions_show_a_small_picture_and_details_the_rest(factor):
    from scipy.ndimage import uniform_filter
    pixels = (128 + 60 * np.sin(np.arange(64) / 9)[:, None] + 20 * np.random.default_rng(0).normal(0, 1, (64, 64))).clip(0, 255).astype(np.uint8)
    made = objects(pixels, names=[f"resolution-{factor}", f"details-{factor}"])
    low, details = (view(f"{name}-{factor}", made[f"{name}-{factor}"])[0] for name in ("resolution", "details"))
    small = pixels.reshape(64 // factor, factor, 64 // factor, factor).mean((1, 3)) / 255
    shown = low.reshape(64 // factor, factor, 64 // factor, factor).mean((1, 3))
    assert np.corrcoef(small.ravel(), shown.ravel())[0, 1] > .97
    fine = pixels / 255 - uniform_filter(pixels / 255., 2 * factor)
    assert np.corrcoef(fine.ravel(), details.ravel())[0, 1] > .75 and abs(np.corrcoef(small.ravel(), details.reshape(64 // factor, factor, -1, factor).mean((1, 3)).ravel())[0, 1]) < .6
    spectrum = np.abs(np.fft.fft2(low - low.mean())) ** 2; k = np.abs(np.fft.fftfreq(64)); beyond = np.maximum.outer(k, k) > .8 / factor
    assert spectrum[beyond].sum() < .1 * spectrum.sum(), "nothing finer is in clear"


def test_what_is_encrypted_does_not_change_what_is_seen(picture):
    made = objects(picture)
    for name in NAMES:
        if name in ("cbc", "codestream", "length"): continue
        parts = parse(made[name]); other = seal(bytes(900), new_key(), parts.header, public=parts.public)
        for a, b in zip(view(name, made[name]), view(name, other)): assert np.array_equal(a, b)


@pytest.mark.parametrize("name", PERCEPTUAL)
def test_one_key_or_a_key_for_each_picture(name):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
    first, second, strange = (view(name, objects(pixels, key, names=[name])[name])[0] for key in (KEY, KEY, new_key()))
    parts = lambda p: sorted(t.tobytes() for t in scrambled.perceptual.to_tiles(p, 8, 8))
    if name.endswith("-each"): assert (first != second).mean() > .3 and parts(first) != parts(second)
    elif name == "neuracrypt": assert parts(first) == parts(second) and not np.array_equal(first, second)
    else: assert np.array_equal(first, second)
    assert (first != strange).mean() > .3 and parts(first) != parts(strange)


def test_the_two_views_of_a_scheme_read_the_same_kind_of_object(picture):
    made = objects(picture, names=["le", "le-each"])
    for e in made["le"], made["le-each"]: assert np.array_equal(view("le", e)[0], view("le-each", e)[0])


def test_no_scheme_has_another_s_key():
    assert len({archive.scheme_key(KEY, scheme) for scheme in scrambled.SCHEMES}) == len(scrambled.SCHEMES) and KEY not in {archive.scheme_key(KEY, scheme) for scheme in scrambled.SCHEMES}


def test_scrambled_pictures_are_scaled_by_their_own_range():
    dark = np.full((32, 32), 4095, np.uint16); dark[::2] = 0
    made = objects(dark, names=["pixel", "ecb"], bits=12)
    pixel, ecb = view("pixel", made["pixel"])[0], view("ecb", made["ecb"])[0]
    assert set(np.unique(pixel)) == {0, 1} and ecb.max() <= 1 and np.array_equal(np.round(ecb * 65535).astype("uint16"), scrambled.scrambled_picture(made["ecb"]))


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


@pytest.mark.parametrize("name", ["blocks-p", "blocks-1.5", "blocks--1", "blocks-", "plane", "", "blocks-nan", "cbc-0.5", "resolution-r", "resolution-3", "resolution-1", "resolution-64", "resolution-4.0", "details-", "resolution-\u0664", "blocks-0.\u0665", "le-0.5", "le-each-each", "cbc-each", "cbc_fixed_iv", "cbc-fixed-iv-each", "LE"])
def test_names_that_do_not_exist(name):
    with pytest.raises(ViewError, match="does not exist"): find(name)


FITS = {"length": {"length", "codestream", "jpeg2000"}, "codestream": {"length", "codestream", "jpeg2000"}, **{name: {name, name.removesuffix("-each"), name.removesuffix("-each") + "-each"} for name in PERCEPTUAL}}

@pytest.mark.parametrize("name", NAMES)
def test_a_view_refuses_every_object_that_does_not_fit(picture, name):
    for kind, envelope in objects(picture).items():
        if kind in FITS.get(name, {name}): view(name, envelope); continue
        with pytest.raises(ViewError, match=name): view(name, envelope)
        with pytest.raises(ViewError, match=name): views.views(name, [envelope])


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_bytes_that_are_no_envelope(data):
    for name in NAMES:
        with pytest.raises((EnvelopeError, ViewError)): view(name, data)


ODD = [None, 0, -1, 1, 3, 2**31, 2**70, 1.5, "x", [], {}, True, [2**13, 2**13], [2**40, 2**40], [24, 32, 3], [32, 24], [24], "uint16", "int8", "le", "neuracrypt", "raw", "jpeg2000", "blocks", "low", "image", "scrambled"]

@pytest.mark.parametrize("seed", range(3))
def test_mutated_envelopes(picture, seed):
    draw, made, errors = random.Random(seed), objects(picture), set()
    for name in NAMES * 12:
        parts = parse(made[name]); header, public = dict(parts.header), bytearray(parts.public)
        for _ in range(draw.choice((1, 1, 2))):
            if draw.random() < .7 or not public: header[draw.choice([*header, "ratio", "block", "resolutions", "scheme", "codec", "facts"])] = draw.choice(ODD)
            elif draw.random() < .5: del public[draw.randrange(len(public)):]
            else: public[draw.randrange(min(len(public), draw.choice((12, 9999))))] = draw.randrange(256)
        odd = seal(unseal(made[name], KEY)[0], KEY, header, public=bytes(public))
        if draw.random() < .2: odd = odd[:draw.randrange(len(odd))]
        try: pixels, mask = view(name, odd)
        except MedcryptError as error: errors.add(type(error)); assert type(error) in (EnvelopeError, ViewError)
        else: assert pixels.shape == mask.shape and pixels.ndim == 2 and np.isfinite(pixels).all()
    assert errors == {EnvelopeError, ViewError}


def test_many_at_once(picture):
    made = [objects(picture)["plain"], objects(255 - picture)["plain"]]
    pixels, mask = views.views("plain", made)
    assert pixels.shape == (2, 24, 32) and np.allclose(pixels[0] + pixels[1], 1)
    with pytest.raises(ViewError, match="no objects"): views.views("plain", [])
    with pytest.raises(ViewError, match="different shapes"): views.views("plain", [made[0], objects(picture[:16])["plain"]])


def test_many_at_once_keep_their_order_and_say_what_was_wrong(picture):
    draw = np.random.default_rng(3); pictures = draw.integers(0, 256, (150, 16, 16), dtype=np.uint8)
    made = [partial.seal_blocks(p, KEY, ratio=0, block=4, image_id="ab") for p in pictures]
    for workers in (1, 3, None): assert np.array_equal(views.views("plain", iter(made), workers)[0], (pictures / 255).astype("float32"))
    made[120] = objects(picture)["le"]
    with pytest.raises(ViewError, match="this one is le"): views.views("plain", made)
    made[120] = b"x"
    with pytest.raises(EnvelopeError): views.views("plain", made)


def test_adding_a_view_is_one_function_and_one_line(picture):
    before = dict(VIEWS)
    try:
        @register("half-p", "the upper part", "the rest", "blocks")
        def half(reader, part): pixels, mask = views.plain(reader); return pixels, mask & (np.arange(len(mask)) < part * len(mask))[:, None]
        pixels, mask = views.views("half-0.5", [objects(picture)["plain"]])
        assert mask[0, :12].all() and not mask[0, 12:].any() and isinstance(VIEWS["half-p"], View) and tile_of("half-0.5", objects(picture)["plain"]) is None
        with pytest.raises(ViewError, match="half-0.5"): view("half-0.5", objects(picture)["cbc"])
    finally: VIEWS.clear(); VIEWS.update(before)
    with pytest.raises(ViewError): find("half-0.5")


# archive: what is made for which view, and where it lies

@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_profiles_name_views_that_exist_and_can_be_sealed(profile):
    assert len(set(profile.views)) == len(profile.views) and "length" not in profile.views
    for name in profile.views: find(name); assert archive.object_of(name) == name
    assert profile.ratios == tuple(sorted(profile.ratios)) and [f"blocks-{r:g}" for r in profile.ratios] == [n for n in profile.views if n.startswith("blocks")]
    made = archive.seal_all(smooth((profile.ct_size,) * 2), KEY, views=profile.views, block=8, bits=8, random=seeded_bytes(1))
    assert list(made) == [*(n for n in profile.views if n != "codestream"), "jpeg2000"]


@pytest.mark.parametrize("name", ["laptop", "sample", "full"])
def test_the_ladder_has_every_view(name): assert {find(view)[0].name for view in PROFILES[name].views} == set(VIEWS) - {"length"}


def test_hidden_fractions(): assert [PROFILES[name].ratios for name in ("smoke", "laptop", "sample", "full")] == [(.5,), (.25, .5, .75, .9), (.25, .5, .75, .9), (.1, .25, .5, .75, .9)]


def test_the_archive_makes_what_the_views_need_and_no_more(tmp_path):
    pictures = np.stack([smooth((16, 16), s) for s in range(3)])
    for views_wanted, made in ((("length",), {"jpeg2000"}), (("le", "blocks-0.50"), {"le", "blocks-0.5", "jpeg2000"}), (tuple(NAMES), {*NAMES, "jpeg2000"} - {"length"})):
        run = RunPaths(tmp_path / str(len(made))); place = archive.open_archive(run, "toy")
        index = pd.DataFrame(archive.fill(place, pictures, KEY, views=views_wanted, block=4, bits=8, random=seeded_bytes(1)))
        assert set(index["view"]) == made and (index.groupby("view").size() == 3).all()
        for name, rows in index.groupby("view"):
            assert all(n in place.store(name) for n in rows.name) and (place.store(name) is place.vault) == (name in ("cbc", "jpeg2000", "codestream")) and (rows.readable.eq(0) == (name in ("cbc", "jpeg2000", "codestream"))).all()
        for name in views_wanted: views.views(name, place.fetch(name, index[index["view"] == archive.object_of(name)].sort_values("image").name.tolist()))
    readable = index.groupby("view").readable.mean()
    assert readable["plain"] == readable["le"] == readable["resolution-4"] == readable["neuracrypt-each"] == 1 and readable["blocks-0.25"] == .75 and readable["roi"] == .75
    assert index[index["view"] == "codestream"].ciphertext_bytes.nunique() == 1
    pd.testing.assert_frame_equal(index, pd.DataFrame(archive.fill(archive.open_archive(RunPaths(tmp_path / "again"), "toy"), pictures, KEY, views=tuple(NAMES), block=4, bits=8, random=seeded_bytes(1))))


@pytest.mark.parametrize("name", ["plane", "", "blocks-p", "blocks-1.5", "resolution-3", "cbc_fixed_iv", "cbc-fixed-iv-each", "first-row", "plain-each"])
def test_the_archive_refuses_what_it_cannot_make(picture, name):
    for call in (lambda: archive.object_of(name), lambda: archive.seal_all(picture, KEY, views=(name,), block=4, bits=8, random=seeded_bytes(1))):
        with pytest.raises(ConfigError, match="no object"): call()


def test_signed_pictures_are_scaled_too():
    signed = np.array([[-2048, 2047] * 8] * 16, np.int16)
    pixels, _ = view("plain", partial.seal_blocks(signed, KEY, ratio=0, block=4, image_id="ab", bits=12))
    assert pixels.min() == 0 and pixels.max() == 1
