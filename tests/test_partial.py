"Pictures and partly hidden pictures: exactness over dtypes and shapes, what the public layer depends on, hostile public sections, size of headers."
import io, struct, zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from medcrypt.core import rng, seeded_bytes
from medcrypt.crypto import partial as p
from medcrypt.crypto.envelope import EnvelopeError, Reader, data_key, parse, seal, unseal
from medcrypt.crypto.images import DTYPES, check_facts, frames_of, open_frames, seal_frames, seal_image, unseal_image
from medcrypt.crypto.keys import Key
from medcrypt.crypto.resolution import seal_resolution
from medcrypt.crypto.slots import new_private_key
from medcrypt.crypto.partial import block_mask, fill_holes, public_layer, seal_blocks, unseal_blocks
from medcrypt.imaging import jpeg2000

KEY = Key(bytes(range(32)))
SHAPES = [(1, 1), (1, 40), (37, 1), (2, 2), (16, 31), (64, 64), (45, 61)]


def picture(shape, dtype, seed=0):
    info = np.iinfo(dtype)
    smooth = np.add.outer(np.arange(shape[-2]), np.arange(shape[-1])) * 3 % 200 if shape[-1] != 3 else 0
    values = rng(seed, shape, dtype).integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    values.flat[0], values.flat[-1] = info.min, info.max
    return np.where(rng(seed, "where").random(shape) < 0.7, values // 2 + np.array(smooth).astype(dtype), values).astype(dtype)


def same(a, b): assert a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


# pictures

@pytest.mark.parametrize("codec", ("raw", "jpeg2000"))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (3, 20, 30), (20, 30, 3), (4, 20, 30, 3), (1, 9, 9), (3, 3, 3), (2, 5, 3)])
def test_image_is_exact(shape, dtype, codec):
    pixels = picture(shape, dtype)
    back, header = unseal_image(seal_image(pixels, KEY, image_id="ab", codec=codec), KEY)
    same(back, pixels)
    assert header["kind"] == "image" and header["shape"] == list(shape) and header["bits"] == 8 * pixels.dtype.itemsize


@pytest.mark.parametrize("dtype,bits,low,high", (("uint16", 12, 0, 4095), ("int16", 12, -2048, 2047), ("uint8", 1, 0, 1), ("int16", 1, -1, 0), ("int8", 8, -128, 127),
                                                ("uint16", 16, 0, 65535), ("int16", 16, -32768, 32767), ("int32", 20, -2**19, 2**19 - 1)))
def test_bits(dtype, bits, low, high):
    pixels = rng(0, bits).integers(low, high, (24, 33), dtype=dtype, endpoint=True); pixels[0, :2] = low, high
    back, header = unseal_image(seal_image(pixels, KEY, image_id="ab", bits=bits), KEY)
    same(back, pixels); assert header["bits"] == bits
    if np.iinfo(dtype).bits <= 16: same(unseal_blocks(seal_blocks(pixels, KEY, ratio=0.5, image_id="ab", bits=bits), KEY)[0], pixels)
    for wrong in (low - 1, high + 1):
        if np.iinfo(dtype).min <= wrong <= np.iinfo(dtype).max:
            pixels[3, 3] = wrong
            with pytest.raises(EnvelopeError, match="bits"): seal_image(pixels, KEY, image_id="ab", bits=bits)


def test_layouts_in_memory():
    pixels = picture((40, 50), "uint16")
    for other in (pixels.T, pixels[::-1, ::2], np.asfortranarray(pixels), pixels.astype(">u2")):
        for codec in ("raw", "jpeg2000"):
            back = unseal_image(seal_image(other, KEY, image_id="ab", codec=codec), KEY)[0]
            assert back.dtype == np.uint16 and np.array_equal(back, other)
        assert np.array_equal(unseal_blocks(seal_blocks(other, KEY, ratio=0.4, image_id="ab"), KEY)[0], other)


def test_a_single_plane_is_a_plain_codestream_and_raw_is_plain_samples():
    pixels = picture((20, 30), "uint16")
    assert unseal(seal_image(pixels, KEY, image_id="ab"), KEY)[0] == jpeg2000.encode(pixels, bits=16)
    assert unseal(seal_image(pixels, KEY, image_id="ab", codec="raw"), KEY)[0] == pixels.astype("<u2").tobytes()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(DTYPES), st.sampled_from(("raw", "jpeg2000", "htj2k")), st.sampled_from([(1, 9, 9), (3, 12, 20), (2, 12, 20, 3), (12, 20, 3), (12, 20)]))
def test_frames_one_by_one(dtype, codec, shape):
    pixels, facts = picture(shape, dtype), {"modality": "CT"}
    pieces = list(seal_frames(iter(frames_of(pixels)), [KEY], shape=shape, dtype=dtype, image_id="ab", codec=codec, facts=facts, chunk_bits=12, random=seeded_bytes(0, "f")))
    whole = seal_image(pixels, KEY, image_id="ab", codec=codec, facts=facts, chunk_bits=12, random=seeded_bytes(0, "f"))
    assert b"".join(pieces) == whole
    reader = Reader(io.BytesIO(whole)); back = list(open_frames(reader, KEY))
    assert reader.header["facts"] == facts and len(back) == len(frames_of(pixels))
    for ours, theirs in zip(frames_of(pixels), back): same(theirs, ours)
    same(unseal_image(whole, data_key(whole, KEY))[0], pixels)


def test_frames_that_do_not_fit():
    frame, options = picture((8, 9), "uint8"), {"shape": (2, 8, 9), "dtype": "uint8", "image_id": "ab"}
    for frames in ([frame], [frame] * 3, [frame, frame[:4]], [frame, frame.astype("uint16")], [frame, frame[..., None]], []):
        with pytest.raises(EnvelopeError, match="pixels"): b"".join(seal_frames(frames, [KEY], **options))
    good = b"".join(seal_frames([frame] * 2, [KEY], **options))
    assert len(unseal_image(good, KEY)[0]) == 2
    for plaintext in (unseal(good, KEY)[0][:-1], unseal(good, KEY)[0] + b"x", b"", b"\0\0\0\1"):
        with pytest.raises(EnvelopeError, match="whole"): unseal_image(seal(plaintext, KEY, parse(good).header), KEY)


def test_lossy_says_so():
    pixels = (np.hypot(*np.mgrid[-64:64, -64:64]) * 300).astype("uint16")
    envelope = seal_image(pixels, KEY, image_id="ab", rate=10)
    back, header = unseal_image(envelope, KEY)
    assert header["rate"] == 10 and back.shape == pixels.shape and back.dtype == pixels.dtype and len(envelope) < pixels.nbytes / 9
    assert 0 < np.abs(back.astype(int) - pixels).max() < 2000 or np.array_equal(back, pixels)
    for options in ({"codec": "raw"}, {}):
        with pytest.raises(EnvelopeError, match="rate"): seal_image(pixels.astype("uint32"), KEY, image_id="ab", rate=10, **options)


@pytest.mark.parametrize("seal_it", (seal_image, lambda *a, **k: seal_blocks(*a, ratio=0.5, **k)))
@pytest.mark.parametrize("pixels,options", (
    (np.zeros((4, 4)), {}), (np.zeros((4, 4), bool), {}), (np.zeros((4, 4), "uint64"), {}), (np.zeros(4, "uint8"), {}), (np.zeros((0, 4), "uint8"), {}),
    (np.zeros((2, 2, 4, 4), "uint8"), {}), ([[1, 2]], {}), (np.zeros((4, 4), "uint8"), {"image_id": "Doe"}), (np.zeros((4, 4), "uint8"), {"image_id": ""}),
    (np.zeros((4, 4), "uint8"), {"image_id": "AB"}), (np.zeros((4, 4), "uint8"), {"image_id": "ab\n"}), (np.zeros((4, 4), "uint8"), {"image_id": "a" * 33}),
    (np.zeros((4, 4), "uint8"), {"image_id": "1.2.840.113619"}), (np.zeros((4, 4), "uint8"), {"bits": 9}), (np.zeros((4, 4), "uint8"), {"bits": 0}),
    (np.zeros((4, 4), "uint8"), {"facts": {"PatientName": "x"}})))
def test_what_is_no_picture_is_refused(seal_it, pixels, options):
    with pytest.raises(EnvelopeError): seal_it(pixels, KEY, **{"image_id": "ab", **options})


def test_facts():
    good = {"modality": "CT", "view": "AP", "spacing_mm": np.array([0.5, 0.25]), "window_center": np.int16(-600), "window_width": 1500.0, "rescale_slope": 1, "bits_stored": 12}
    assert check_facts(good) == {**good, "spacing_mm": [0.5, 0.25], "window_center": -600, "window_width": 1500} and check_facts(None) == {}
    header = unseal_image(seal_image(picture((9, 9), "uint8"), KEY, image_id="ab", facts=good), KEY)[1]
    assert header["facts"] == check_facts(good) and "facts" not in unseal_image(seal_image(picture((9, 9), "uint8"), KEY, image_id="ab"), KEY)[1]
    for seal_it, open_it in ((seal_image, unseal_image), (lambda *a, **k: seal_blocks(*a, ratio=.5, **k), unseal_blocks), (lambda *a, **k: seal_blocks(*a, ratio=.5, mask="secret", **k), unseal_blocks)):
        pixels = picture((9, 9), "uint8"); envelope = seal_it(pixels, KEY, image_id="ab", facts=good)
        assert b"modality" not in envelope and b"CT" not in envelope[:200] and type(parse(envelope).header["facts"]) is int   # encrypted
        back, header = open_it(envelope, KEY); same(back, pixels); assert header["facts"] == check_facts(good)
    for junk in (b"[1]", b"x" * 5, b'{"patient":1}', b"", b"\xff"):
        with pytest.raises(EnvelopeError): unseal_image(seal(junk, KEY, {"kind": "image", "shape": [4, 4], "dtype": "uint8", "codec": "raw", "facts": len(junk)}), KEY)
    for bad in ({"modality": "DOE^JOHN"}, {"modality": 7}, {"spacing_mm": "0.5"}, {"spacing_mm": [1, 1, 1, 1]}, {"spacing_mm": []}, {"spacing_mm": float("nan")},
                {"window_center": 19701231}, {"patient_id": 1}, {"spacing_mm": [[1]]}, {1: 2}, {"view": ["AP"]}):
        with pytest.raises(EnvelopeError, match="facts"): check_facts(bad)


def test_header_overhead():
    pixels = picture((64, 64), "uint16")
    envelope = seal_image(pixels, KEY, image_id="0" * 32, bits=16, facts={"modality": "CT", "spacing_mm": [.564453125, .564453125], "window_center": -500, "window_width": 1500})
    assert parse(envelope).overhead_bytes <= 256
    assert parse(seal_image(pixels.view("int16"), KEY, image_id="0" * 32, facts={"spacing_mm": [.564453125] * 3, "window_center": -500.123456})).overhead_bytes <= 256


@pytest.mark.parametrize("make", (lambda p, k, **o: seal_image(p, k, **o), lambda p, k, **o: seal_image(p, k, codec="htj2k", **o), lambda p, k, **o: seal_blocks(p, k, ratio=0.123456, **o), lambda p, k, **o: seal_blocks(p, k, ratio=.5, mask="secret", **o),
                                  lambda p, k, **o: seal_resolution(p, k, resolutions=2, shown="details", **o), lambda p, k, **o: seal_image(np.zeros((3, 99, 99, 3), "uint8"), k, rate=10.5, **{**o, "bits": 8})),
                         ids=("image", "htj2k", "blocks", "secret", "details", "lossy colour frames"))
def test_overhead_of_one_chunk_in_every_mode(make):
    "256 bytes for a holder of a master key, with an id as the command makes it; each recipient costs 81 more."
    pixels, facts = np.zeros((640, 512), "int16"), {"modality": "CT", "spacing_mm": [.564453125] * 2, "window_center": -500, "window_width": 1500, "rescale_slope": 1, "rescale_intercept": -1024}
    friend = new_private_key().public()
    one, two = (parse(make(pixels, keys, image_id="a" * 24, facts=facts, bits=12)).overhead_bytes for keys in ([KEY], [KEY, friend]))
    assert one <= 256 and two == one + 81


def test_padding_hides_the_codec_size():
    flat, busy = np.zeros((64, 64), "uint8"), picture((64, 64), "uint8")
    assert len(seal_image(flat, KEY, image_id="ab")) < len(seal_image(busy, KEY, image_id="ab"))
    assert len(seal_image(flat, KEY, image_id="ab", pad_to=9000)) == len(seal_image(busy, KEY, image_id="ab", pad_to=9000))
    ciphertexts = {len(parse(seal_blocks(x, KEY, image_id="ab", ratio=0.5, pad_to=9000)).ciphertext) for x in (flat, busy)}
    assert len(ciphertexts) == 1
    same(unseal_blocks(seal_blocks(busy, KEY, image_id="ab", ratio=0.5, pad_to=9000), KEY)[0], busy)


def test_genuine_but_not_a_picture():
    for header in ({}, {"kind": "image"}, {"kind": "image", "shape": [4, 4], "dtype": "uint8", "codec": "raw"}, {"kind": "image", "shape": [4, 4], "dtype": "uint8", "codec": "jpeg2000"},
                   {"kind": "image", "shape": [2, 4, 4], "dtype": "uint8", "codec": "jpeg2000"}, {"kind": "image", "shape": [0, 0], "dtype": "what", "codec": "jpeg2000"},
                   {"kind": "image", "shape": [0, 0], "dtype": "uint8", "codec": "jpeg2000"}):
        with pytest.raises(EnvelopeError): unseal_image(seal(b"junk", KEY, header), KEY)
    with pytest.raises(EnvelopeError, match="blocks"): unseal_image(seal_blocks(picture((9, 9), "uint8"), KEY, ratio=0, image_id="ab"), KEY)


# blocks

@pytest.mark.parametrize("ratio", (0, 0.25, 0.5, 0.999, 1))
@pytest.mark.parametrize("dtype", ("uint8", "int8", "uint16", "int16"))
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_are_exact(shape, dtype, ratio):
    pixels = picture(shape, dtype)
    for block in (1, 7, 8):
        envelope = seal_blocks(pixels, KEY, ratio=ratio, block=block, image_id="ab")
        back, header = unseal_blocks(envelope, KEY); same(back, pixels)
        seen, mask = public_layer(envelope)
        assert seen.dtype == pixels.dtype and mask.dtype == bool and mask.shape == shape and np.array_equal(seen[mask], pixels[mask])
        n = -(-shape[0] // block) * -(-shape[1] // block)
        assert mask[::block, ::block].size - mask[::block, ::block].sum() == round(ratio * n)
        assert (header["kind"], header["ratio"], header["block"]) == ("blocks", ratio, block)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(("uint8", "int16")), st.integers(1, 20), st.integers(0, 10**6))
def test_any_region_is_exact(rows, columns, dtype, block, seed):
    pixels, visible = picture((rows, columns), dtype, seed), rng(seed, "mask").random((rows, columns)) < rng(seed, "share").random()
    envelope = seal_blocks(pixels, KEY, visible=visible, block=block, image_id="ab")
    same(unseal_blocks(envelope, KEY)[0], pixels)
    seen, mask = public_layer(envelope)
    assert np.array_equal(mask, visible) and np.array_equal(seen[mask], pixels[mask])
    assert parse(envelope).header["ratio"] == pytest.approx(1 - visible.mean(), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 64), st.integers(1, 64), st.floats(0, 1), st.integers(1, 20), st.binary(min_size=1, max_size=40))
def test_mask_hides_exactly_the_rounded_number(rows, columns, ratio, block, seed):
    mask = block_mask((rows, columns), ratio, block, seed)
    tiles = mask[::block, ::block]
    assert (~tiles).sum() == round(ratio * tiles.size) and np.array_equal(p.tiles_to_pixels(tiles, (rows, columns), block), mask)


def test_mask_is_keyed_uniform_and_nested():
    masks = [block_mask((64, 64), 0.5, 8, i)[::8, ::8] for i in range(4000)]
    hidden = 1 - np.mean(masks, 0)
    assert len({m.tobytes() for m in masks}) == 4000
    assert np.abs(hidden - 0.5).max() < 4.5 * 0.5 / 4000**0.5   # 64 tiles at 4.5 standard errors
    chains = [[block_mask((64, 64), r / 10, 8, b"seed") for r in range(11)]]
    for chain in chains: assert all((b <= a).all() for a, b in zip(chain, chain[1:]))
    assert not np.array_equal(block_mask((64, 64), 0.5, 8, 1), block_mask((64, 64), 0.5, 8, b"2"))
    envelopes = [seal_blocks(np.zeros((64, 64), "uint8"), KEY, ratio=0.5, image_id="ab") for _ in range(20)]
    assert len({public_layer(e)[1].tobytes() for e in envelopes}) == 20
    own = data_key(envelopes[0], KEY)   # the object's own key chooses
    assert np.array_equal(public_layer(envelopes[0])[1], block_mask((64, 64), .5, 8, p.derive(own, b"", "medcrypt blocks 2")))


@pytest.mark.parametrize("dtype", ("uint8", "int16"))
@pytest.mark.parametrize("options", ({"ratio": 0.5}, {"ratio": 1}, {"ratio": 0.1, "block": 5}, {"visible": "region"}))
def test_what_is_hidden_leaves_no_trace_in_clear(dtype, options):
    pixels, low, high = picture((50, 61), dtype), np.iinfo(dtype).min, np.iinfo(dtype).max
    if "visible" in options:
        region = np.ones(pixels.shape, bool); region[7:33, 10:45] = False
        options = {"visible": region}
    def clear(x):
        parts = parse(seal_blocks(x, KEY, image_id="ab", random=seeded_bytes(3, "trace"), pad_to=30000, **options))
        return parts.header, parts.public, len(parts.ciphertext)
    mask = public_layer(seal_blocks(pixels, KEY, image_id="ab", random=seeded_bytes(3, "trace"), **options))[1]
    first = clear(pixels)
    assert not mask.all()
    for value in (low, 0, high, picture(pixels.shape, dtype, 9)): assert clear(np.where(mask, pixels, value).astype(dtype)) == first
    if mask.any(): assert clear(np.where(mask, pixels ^ 1, pixels)) != first
    options = {**options, "mask": "secret"}; first = clear(pixels)
    for value in (low, high): assert clear(np.where(mask, pixels, value).astype(dtype)) == first
    assert not {"ratio", "block", "region"} & set(first[0]) and first[1] == jpeg2000.encode(fill_holes(p.to_unsigned(pixels, first[0]), mask), bits=8 * pixels.dtype.itemsize)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(("uint8", "int16")), st.integers(1, 20), st.floats(0, 1), st.booleans(), st.integers(0, 10**6))
def test_a_secret_mask_is_exact_and_stays_secret(rows, columns, dtype, block, ratio, region, seed):
    pixels = picture((rows, columns), dtype, seed)
    how = {"visible": rng(seed, "mask").random((rows, columns)) < ratio} if region else {"ratio": ratio}
    try: envelope = seal_blocks(pixels, KEY, block=block, mask="secret", image_id="ab", **how)
    except EnvelopeError as error: assert "too large" in str(error); return
    seen, mask = public_layer(envelope)
    assert mask is None and seen.shape == pixels.shape and parse(envelope).header["kind"] == "secret-blocks"
    same(unseal_blocks(envelope, KEY)[0], pixels)


def test_fill_lies_between_the_visible_values():
    for seed in range(20):
        pixels, visible = picture((33, 47), "uint16", seed), rng(seed, "v").random((33, 47)) < 0.3
        filled = fill_holes(pixels, visible)
        assert np.array_equal(filled[visible], pixels[visible]) and pixels[visible].min() <= filled.min() and filled.max() <= pixels[visible].max()
    assert (fill_holes(np.full((9, 5), 65535, "uint16"), np.eye(9, 5) > 0) == 65535).all() and not fill_holes(np.full((9, 5), 7, "uint8"), np.zeros((9, 5), bool)).any()


def test_seal_blocks_refuses():
    pixels = picture((16, 16), "uint8")
    for options in ({}, {"ratio": 0.5, "visible": pixels > 3}, {"ratio": -0.1}, {"ratio": float("nan")}, {"ratio": 0.5, "block": 0}, {"ratio": 0.5, "block": 10**6},
                    {"visible": pixels}, {"visible": pixels[:4] > 3}, {"visible": pixels > 3, "block": 0}, {"ratio": .5, "mask": "hidden"}):
        with pytest.raises(EnvelopeError): seal_blocks(pixels, KEY, image_id="ab", **options)
    for other in (picture((16, 16), "uint32"), picture((2, 16, 16), "uint8"), picture((16, 16, 3), "uint8")):
        with pytest.raises(EnvelopeError, match="blocks need"): seal_blocks(other, KEY, ratio=0.5, image_id="ab")


HEADER = parse(seal_blocks(np.zeros((20, 30), "int16"), KEY, ratio=0.5, block=8, image_id="ab", bits=12)).header
PUBLIC = parse(seal_blocks(picture((20, 30), "int16") // 64, KEY, ratio=0.5, block=8, image_id="ab", bits=12)).public


def test_hostile_base_is_readable(): assert public_layer(seal(b"", KEY, HEADER, public=PUBLIC))[0].shape == (20, 30)


@pytest.mark.parametrize("change", (
    {"kind": "image"}, {"shape": [20]}, {"shape": [20, 31]}, {"shape": [30, 20]}, {"shape": [0, 30]}, {"shape": [-20, -30]}, {"shape": "ab"}, {"shape": [20, 30, 1]}, {"shape": [20, 30.0]},
    {"shape": [2**31, 2**31]}, {"shape": [60000, 60000]}, {"block": 0}, {"block": -8}, {"block": 4}, {"block": 10**9}, {"block": True}, {"block": None}, {"bits": 11}, {"bits": 17}, {"bits": 0},
    {"bits": "12"}, {"bits": 2**70}, {"dtype": "float64"}, {"dtype": "object"}, {"dtype": ["u1"]}, {"offset": 0}, {"offset": -2047}, {"offset": "x"}, {"kind": "secret-blocks"}))
def test_headers_that_lie(change):
    with pytest.raises(EnvelopeError): public_layer(seal(b"", KEY, {**HEADER, **change}, public=PUBLIC))
    with pytest.raises(EnvelopeError): unseal_blocks(seal(b"", KEY, {**HEADER, **change}, public=PUBLIC), KEY)


def test_public_sections_that_lie():
    _, _, m = p._MASK.unpack_from(PUBLIC); mask, codestream = PUBLIC[9:9 + m], PUBLIC[9 + m:]
    def read(mask, codestream, size=None, region=0, block=8): return public_layer(seal(b"", KEY, HEADER, public=p._MASK.pack(region, block, len(mask) if size is None else size) + mask + codestream))
    read(mask, codestream)
    tiled = bytearray(codestream); tiled[24:28] = struct.pack(">I", 1)                # a tile per pixel column
    wide = bytearray(codestream); wide[8:12] = wide[24:28] = struct.pack(">I", 60000)   # a decompression bomb
    for arguments in ((mask, codestream[:-1]), (mask, codestream[:60]), (mask, b""), (mask, bytes(tiled)), (mask, bytes(wide)), (mask[:-1], codestream), (mask + b"\0", codestream),
                      (mask, codestream, 2**32 - 1), (mask, codestream, 0), (mask, jpeg2000.encode(np.zeros((20, 30), "uint16"))), (mask, jpeg2000.encode(np.zeros((30, 20), "uint16"), bits=12)),
                      (mask, codestream, None, 2), (mask, codestream, None, 255), *((mask, codestream, None, 0, block) for block in (0, 1, 4, 9, 30, 10**6, 2**32 - 1))):
        with pytest.raises(EnvelopeError): read(*arguments)
    pixels = zlib.compress(bytes(75)); read(pixels, codestream, region=1)
    for bomb in (zlib.compress(bytes(10**8)), pixels[:-1], pixels + b"x", zlib.compress(bytes(74)), b"", b"junk"):
        with pytest.raises(EnvelopeError): read(bomb, codestream, region=1)
    for public in (b"", b"\0\0\0", PUBLIC[:8]):
        with pytest.raises(EnvelopeError): public_layer(seal(b"", KEY, HEADER, public=public))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(PUBLIC) - 1), st.integers(0, 255)), min_size=1, max_size=5))
def test_mutated_public_sections(edits):
    public = bytearray(PUBLIC)
    for at, value in edits: public[at] = value
    try: pixels, mask = public_layer(seal(b"", KEY, HEADER, public=bytes(public)))
    except EnvelopeError: return
    assert pixels.shape == mask.shape == (20, 30) and pixels.dtype == np.int16


def test_genuine_envelopes_with_wrong_hidden_tiles():
    for plaintext in (b"", b"junk", jpeg2000.encode(np.zeros((8, 8), "uint8"))):
        with pytest.raises(EnvelopeError, match="whole"): unseal_blocks(seal(plaintext, KEY, HEADER, public=PUBLIC), KEY)
    secret = seal_blocks(picture((20, 30), "int16") // 64, KEY, ratio=0.5, block=8, image_id="ab", bits=12, mask="secret")
    plaintext, header = unseal(secret, KEY)
    for other in (b"", plaintext[:8], plaintext[:20], plaintext[:-1], b"\2" + plaintext[1:], plaintext[:3] + b"\7\7" + plaintext[5:]):
        with pytest.raises(EnvelopeError): unseal_blocks(seal(other, KEY, header, public=parse(secret).public), KEY)


def test_real_pictures_are_exact():
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "cxr" / "nih64"
    files = sorted(folder.glob("*.png"))[:5] if folder.is_dir() else []
    if not files: pytest.skip(f"no radiographs at {folder}")
    from PIL import Image
    for file in files:
        pixels = np.array(Image.open(file).convert("L"))
        same(unseal_image(seal_image(pixels, KEY, image_id="ab"), KEY)[0], pixels)
        same(unseal_blocks(seal_blocks(pixels, KEY, ratio=0.5, image_id="ab"), KEY)[0], pixels)
