"Schemes that are not secure: exact inversion of any size, keys, frozen results, what each definition demands and each attack reads, every refusal."
import hashlib, math, subprocess, sys
from collections import Counter
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings, strategies as st
from scipy.stats import chi2

from medcrypt.core import MedcryptError, rng
from medcrypt.crypto import perceptual as p
from medcrypt.crypto.keys import Key, derive
from medcrypt.crypto.perceptual import SCHEMES, PerceptualError, decrypt, encrypt

KEY, OTHER = Key(bytes(range(32))), Key(bytes(range(1, 33)))
BLOCKED, AES_MODES = ("le", "ele", "etc"), ("ecb", "cbc_fixed_iv")


def noise(shape, dtype="uint8", bits=None, seed=0): return rng(seed, "noise", shape).integers(0, 2 ** (bits or 8 * np.dtype(dtype).itemsize), shape, dtype=dtype)


def ramp(shape, dtype="uint8"): return (np.arange(math.prod(shape)).reshape(shape) * 7919 % 2 ** (8 * np.dtype(dtype).itemsize)).astype(dtype)


def subkey(name, image=b"", key=KEY): return derive(key, hashlib.sha256(image).digest() if image else b"", f"medcrypt perceptual 1 {name}")


# every scheme

def test_registry():
    assert list(SCHEMES) == ["le", "ele", "etc", "pixel", "ecb", "cbc_fixed_iv"] and all(name == s.name for name, s in SCHEMES.items())
    assert [s.block for s in SCHEMES.values()] == [4, 4, 8, None, None, None] and [n for n, s in SCHEMES.items() if s.full_range] == list(AES_MODES)
    assert all(s.source and s.broken_by.endswith(".") for s in SCHEMES.values()) and all("NOT SECURE" in s.encrypt.__doc__ for s in SCHEMES.values())
    with pytest.raises(FrozenInstanceError): SCHEMES["le"].block = 8


@pytest.mark.parametrize("name", SCHEMES)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_inversion_is_exact(name, data):
    dtype = data.draw(st.sampled_from(("uint8", "uint16")))
    bits = data.draw(st.none() | st.integers(1, 8 * np.dtype(dtype).itemsize))
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)).filter(lambda s: name not in AES_MODES or math.prod(s) * np.dtype(dtype).itemsize >= 16))
    options = {"bits": bits, "image": data.draw(st.binary(max_size=70)), "block": data.draw(st.none() | st.integers(1, 9)) if name in BLOCKED else None}
    pixels = noise(shape, dtype, bits, data.draw(st.integers(0, 9)))
    before = pixels.copy()
    hidden = encrypt(name, pixels, KEY, **options)
    assert hidden.shape == shape and hidden.dtype == dtype and np.array_equal(pixels, before)
    if bits and not SCHEMES[name].full_range: assert hidden.max() < 2**bits
    back = decrypt(name, hidden, KEY, **options)
    assert back.dtype == dtype and np.array_equal(back, before)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("shape", [(64, 64), (33, 39), (7, 90)])
def test_keys_and_images_matter_and_nothing_else(name, shape):
    pixels = noise(shape)
    hidden = encrypt(name, pixels, KEY, image=b"a")
    assert np.array_equal(encrypt(name, pixels.copy(), Key(KEY), image=b"a"), hidden), "same key, picture and image: same result"
    for key, image in ((OTHER, b"a"), (KEY, b"b"), (KEY, b""), (KEY, b"a\0")):
        assert (encrypt(name, pixels, key, image=image) != hidden).mean() > 0.3
        assert (decrypt(name, hidden, key, image=image) != pixels).mean() > 0.3
    assert not np.array_equal(encrypt(name, pixels, KEY), encrypt(name, pixels, KEY, image=b"\0")), "HMAC pads its key with zeros"


def test_no_two_schemes_share_a_subkey(monkeypatch):
    seen = []
    monkeypatch.setattr(p, "derive", lambda *a: seen.append(a) or derive(*a))
    for name in SCHEMES: encrypt(name, noise((8, 8)), KEY, image=b"id")
    assert [purpose for _, _, purpose in seen] == [f"medcrypt perceptual 1 {name}" for name in SCHEMES] and {salt for _, salt, _ in seen} == {hashlib.sha256(b"id").digest()}
    assert len({derive(*a) for a in seen}) == len(SCHEMES)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("block", [4, 8])
def test_no_pixel_stays_in_clear(name, block):
    # over 80 keys every pixel changes at least once: a strip that is passed through would not
    pixels, changed = noise((19, 22), seed=3), np.zeros((19, 22), int)
    for n in range(80): changed += encrypt(name, pixels, KEY, image=n.to_bytes(2, "big"), block=block if name in BLOCKED else None) != pixels
    assert changed.min() >= 15   # at least 1/4 of the keys in expectation, even in a corner of one tile


@pytest.mark.parametrize("name", SCHEMES)
def test_layouts_in_memory(name):
    pixels = noise((24, 35), "uint16")
    hidden, turned = encrypt(name, pixels, KEY), encrypt(name, np.ascontiguousarray(pixels.T), KEY)
    for other in (np.asfortranarray(pixels), pixels.astype(">u2"), np.repeat(pixels, 2, 1)[:, ::2]):
        result = encrypt(name, other, KEY)
        assert result.dtype == np.dtype("uint16") and np.array_equal(result, hidden) and result.flags.c_contiguous
    assert np.array_equal(encrypt(name, pixels.T, KEY), turned)
    read_only = hidden.copy(); read_only.flags.writeable = False
    back = decrypt(name, read_only, KEY)
    assert np.array_equal(back, pixels); back[0, 0] = 0   # the result may be written to


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", ("uint8", "uint16"))
def test_defaults_are_what_they_say(name, dtype):
    pixels = noise((30, 30), dtype)
    hidden = encrypt(name, pixels, KEY, image=b"", block=SCHEMES[name].block, bits=8 * pixels.dtype.itemsize)
    assert np.array_equal(encrypt(name, pixels, KEY), hidden)
    if name in BLOCKED: assert not np.array_equal(encrypt(name, pixels, KEY, block=5), hidden)


FROZEN = {
    ("le", "uint8"): "97e80239c7df4b80d0df1f4b0fc3d727", ("le", "uint16"): "bab227f8b41bc8ab1dbd2ef68687246c",
    ("ele", "uint8"): "b83116a461a72fd29f90d90de1cbac0d", ("ele", "uint16"): "0a17800d4682b50d26bd7e1bdbdbd952",
    ("etc", "uint8"): "87522149b4733a647f65ce8082be6dee", ("etc", "uint16"): "dc515b14e574f4558ac774337470bd96",
    ("pixel", "uint8"): "f6b480694383b75ff840802ab8a37654", ("pixel", "uint16"): "4a347c8133bdcaabfa3e6b76c6bc6866",
    ("ecb", "uint8"): "3ed3f08564d0bdb48aed035f89904f7f", ("ecb", "uint16"): "c66866fe767fe24e701ab460928742fb",
    ("cbc_fixed_iv", "uint8"): "bc6cd678aa279fc0cb3fd23e6e72d261", ("cbc_fixed_iv", "uint16"): "5a36bc2fe771d4abbd007aa0e1069651",
}


def digest(name, dtype): return hashlib.sha256(encrypt(name, ramp((45, 51), dtype), KEY, image=b"frozen").astype(np.dtype(dtype).newbyteorder("<")).tobytes()).hexdigest()[:32]


@pytest.mark.parametrize("name,dtype", FROZEN)
def test_format_cannot_drift(name, dtype): assert digest(name, dtype) == FROZEN[name, dtype]


@pytest.mark.parametrize("name,expected", [("le", "ee6643f871e04b024c161e248b01b333"), ("ele", "bf0e976c4839462bd28294cb9bc7b12c"), ("etc", "03f3410ab5cd4e482bbf96a78628300f"), ("pixel", "54c66711663d48d091741dc9c3b44876")])
def test_format_of_odd_bits_and_blocks(name, expected):
    hidden = encrypt(name, ramp((20, 23), "uint16") >> 5, KEY, bits=11, block=3 if name in BLOCKED else None)
    assert hashlib.sha256(hidden.astype("<u2").tobytes()).hexdigest()[:32] == expected


# keyed choices

def test_keyed_bytes_are_shake_and_labels_part_them():
    assert p.keyed_bytes(bytes(32), 20, "a", 3) == hashlib.shake_256(bytes(32) + b"a 3").digest(20) == p.keyed_bytes(bytes(32), 40, "a", 3)[:20]
    assert len({p.keyed_bytes(k, 16, *label) for k in (bytes(32), KEY) for label in (("a",), ("b",), ("a", 1), ("a", 11))}) == 8


def test_permutations_are_uniform():
    draws = 24_000
    counts = Counter(map(tuple, p.keyed_order(KEY, (draws, 4), "chi").tolist()))
    assert len(counts) == 24 and sum((n - draws / 24) ** 2 / (draws / 24) for n in counts.values()) < chi2.ppf(0.999, 23)
    places = np.zeros((16, 16))
    for row in p.keyed_order(KEY, (8000, 16), "places"): places[np.arange(16), row] += 1
    assert ((places - 500) ** 2 / 500).sum() < chi2.ppf(0.999, 15 * 15)


def test_permutations_inside_halves_are_uniform():
    orders = p.keyed_order(KEY, (6000, 6), "chi", halves=True)
    assert (np.sort(orders[:, :3]) == [0, 1, 2]).all() and (np.sort(orders[:, 3:]) == [3, 4, 5]).all()
    counts = Counter(map(tuple, orders.tolist()))
    assert len(counts) == 36 and sum((n - 6000 / 36) ** 2 / (6000 / 36) for n in counts.values()) < chi2.ppf(0.999, 35)


def test_order_reads_big_endian():
    numbers = [int.from_bytes(p.keyed_bytes(KEY, 80, "x")[i:i + 8], "big") for i in range(0, 80, 8)]
    assert p.keyed_order(KEY, (1, 10), "x")[0].tolist() == sorted(range(10), key=numbers.__getitem__) and p.keyed_numbers(KEY, (2, 5), "x").ravel().tolist() == numbers


# tiles

@pytest.mark.parametrize("shape,block,expected", [((8, 12), 4, [(6, 4, 4)]), ((9, 14), 4, [(6, 4, 4), (2, 4, 2), (3, 1, 4), (1, 1, 2)]), ((3, 9), 4, [(2, 3, 4), (1, 3, 1)]), ((3, 2), 4, [(1, 3, 2)]), ((5, 5), 1, [(25, 1, 1)])])
def test_regions(shape, block, expected):
    seen, pixels = [], ramp(shape, "uint16")
    out = p.by_tiles(pixels, block, lambda tiles, label: seen.append((tiles.shape, label)) or tiles)
    assert [s for s, _ in seen] == expected and [l for _, l in seen] == [f"{block} {h} {w}" for _, h, w in expected] and np.array_equal(out, pixels)


def test_tiles_are_in_reading_order():
    assert np.array_equal(p.to_tiles(ramp((4, 6), "uint16"), 2, 3), [ramp((4, 6), "uint16")[r:r + 2, c:c + 3] for r in (0, 2) for c in (0, 3)])


# LE and ELE

@pytest.mark.parametrize("bits,low", [(8, 4), (7, 4), (16, 8), (12, 6), (11, 6), (1, 1)])
def test_halves(bits, low):
    tiles = noise((5, 3, 2), "uint16", bits)
    halves = p.split_halves(tiles, bits)
    assert np.array_equal(halves[:, :6], tiles.reshape(5, 6) % 2**low) and np.array_equal(halves[:, 6:], tiles.reshape(5, 6) // 2**low)
    assert np.array_equal(p.join_halves(halves, bits), tiles.reshape(5, 6))


@pytest.mark.parametrize("bits", [8, 7, 3])
def test_exactly_half_of_the_half_values_are_negative(bits):
    black = p.split_halves(p.to_tiles(encrypt("ele", np.zeros((64, 64), np.uint8), KEY, bits=bits), 4, 4), bits)
    low, high = 2 ** -(-bits // 2) - 1, 2 ** (bits // 2) - 1
    assert set(black[:, :16].ravel().tolist()) == {0, low} and set(black[:, 16:].ravel().tolist()) == {0, high}
    assert ((black > 0).sum(axis=1) == 16).all()
    assert ((black > 0).mean(axis=0) > 0.3).all() and ((black > 0).mean(axis=0) < 0.7).all(), "which half is keyed, position by position"


def patterns(name, side=32, block=4):
    "What each tile makes of one plain tile that is repeated over the picture: the set of different answers."
    return {tile.tobytes() for tile in p.to_tiles(encrypt(name, np.tile(ramp((block, block)), (side // block, side // block)), KEY, block=block), block, block)}


def test_le_has_one_pattern_for_all_tiles_and_ele_has_one_for_each():
    assert len(patterns("le")) == 1 and len(patterns("ele")) == 64


def test_le_pattern_does_not_depend_on_the_size_of_the_picture():
    pixels = noise((23, 30))
    assert np.array_equal(encrypt("le", pixels, KEY)[:12, :16], encrypt("le", np.ascontiguousarray(pixels[:12, :16]), KEY))


def test_lower_and_upper_halves_mix_when_they_have_one_range():
    white_low = np.full((4, 4), 0x0F, np.uint8)
    masks = [p.split_halves(p.to_tiles(encrypt("le", pixels, KEY), 4, 4), 8)[0] for pixels in (white_low, np.zeros((4, 4), np.uint8))]
    moved = masks[0] != masks[1]   # where the 16 lower halves went
    assert moved.sum() == 16 and 0 < moved[16:].sum() < 16


def test_le_is_its_definition():
    # tile by tile, in plain Python
    pixels, key = noise((12, 8)), subkey("le")
    order, ranks = p.keyed_order(key, (1, 32), "4 4 4", "order")[0], p.keyed_order(key, (1, 32), "4 4 4", "negative")[0]
    expected = pixels.copy()
    for r in range(0, 12, 4):
        for c in range(0, 8, 4):
            flat = pixels[r:r + 4, c:c + 4].ravel().tolist()
            halves = [v % 16 for v in flat] + [v // 16 for v in flat]
            for i in ranks[:16]: halves[i] = 15 - halves[i]
            halves = [halves[i] for i in order]
            expected[r:r + 4, c:c + 4] = np.reshape([halves[i] + 16 * halves[16 + i] for i in range(16)], (4, 4))
    assert np.array_equal(encrypt("le", pixels, KEY), expected)


@pytest.mark.parametrize("dtype", ("uint8", "uint16"))
def test_chosen_pictures_read_ele_as_broken_by_says(dtype):
    # 2 b^2 + 2 pictures: black; each half-value alone at its maximum; the number of each tile
    bits, n, top = 8 * np.dtype(dtype).itemsize, 12 * 9, 2 ** (4 * np.dtype(dtype).itemsize) - 1
    def picture(halves): return p.join_halves(halves.astype(dtype), bits).reshape(12, 9, 4, 4).swapaxes(1, 2).reshape(48, 36)
    def ask(halves): return p.split_halves(p.to_tiles(encrypt("ele", picture(halves), KEY), 4, 4), bits)
    questions = [np.zeros((n, 32)), *(np.tile(top * np.eye(32)[i], (n, 1)) for i in range(32))]
    black, *lone = map(ask, questions)
    goes_to = np.stack([(answer ^ black).argmax(axis=1) for answer in lone], axis=1)
    def undo(halves): return np.take_along_axis(halves ^ black, goes_to, axis=1)
    numbers = np.zeros((n, 32)); numbers[:, 0], numbers[:, 1] = np.arange(n) % 16, np.arange(n) // 16
    place = undo(ask(numbers)); place = place[:, 0].astype(int) + 16 * place[:, 1]
    secret = noise((48, 36), dtype, seed=5)
    read = np.empty((n, 32), dtype)
    read[place] = undo(p.split_halves(p.to_tiles(encrypt("ele", secret, KEY), 4, 4), bits))
    assert sorted(place) == list(range(n)) and len(questions) + 1 == 2 * 4**2 + 2 and np.array_equal(picture(read), secret)


@pytest.mark.parametrize("bits", [8, 7])
def test_ele_tiles_keep_their_folded_half_values(bits):
    pixels, top = noise((40, 40), bits=bits), np.repeat([2 ** -(-bits // 2) - 1, 2 ** (bits // 2) - 1], 16).astype("uint8")
    def folded(a):
        halves = p.split_halves(p.to_tiles(a, 4, 4), bits)
        return Counter(tuple(sorted(row.tolist())) for row in np.minimum(halves, top - halves))
    assert folded(encrypt("ele", pixels, KEY, bits=bits)) == folded(pixels)


# EtC

def variants(tile, high): return [np.rot90(t, k) ^ high * n for t in (tile, tile[:, ::-1]) for k in range(4) for n in (0, 1)]


@pytest.mark.parametrize("dtype,bits", [("uint8", 8), ("uint8", 5), ("uint16", 12)])
def test_etc_tiles_are_permuted_and_each_is_one_of_16_variants_evenly(dtype, bits):
    side, block = 128, 4
    pixels = noise((side, side), dtype, bits)
    plain = {v.tobytes(): (i, n) for i, tile in enumerate(p.to_tiles(pixels, block, block)) for n, v in enumerate(variants(tile, 2**bits - 1))}
    found = [plain[tile.tobytes()] for tile in p.to_tiles(encrypt("etc", pixels, KEY, block=block, bits=bits), block, block)]
    places, used = zip(*found)
    assert sorted(places) == list(range(1024)) and sum(a == b for a, b in enumerate(places)) < 10
    counts = np.bincount(used, minlength=16)
    assert ((counts - 64) ** 2 / 64).sum() < chi2.ppf(0.999, 15)


def test_etc_tiles_that_are_not_square_keep_their_orientation():
    pixels, key, seen = noise((150, 3)), KEY, Counter()   # 18 whole tiles of 8 x 3 and one of 6 x 3
    plain = {v.tobytes(): (i, n) for i, tile in enumerate(p.to_tiles(pixels[:144], 8, 3)) for n, v in enumerate(variants(tile, 255)) if v.shape == tile.shape}
    for image in range(40):
        found = [plain[t.tobytes()] for t in p.to_tiles(encrypt("etc", pixels, key, image=bytes([image + 1]))[:144], 8, 3)]
        assert sorted(i for i, _ in found) == list(range(18))
        seen.update(n for _, n in found)
    assert len(seen) == 8 and sum((n - 90) ** 2 / 90 for n in seen.values()) < chi2.ppf(0.999, 7)


def test_etc_is_its_definition():
    pixels, key = noise((16, 24)), subkey("etc")
    codes, places = p.keyed_bytes(key, 6, "8 8 8", "turns"), p.keyed_order(key, (1, 6), "8 8 8", "places")[0]
    tiles = []
    for code, tile in zip(codes, p.to_tiles(pixels, 8, 8)):
        for _ in range(code & 3): tile = tile.T[::-1]   # a quarter turn anticlockwise
        if code & 4: tile = np.fliplr(tile)
        tiles.append(255 - tile if code & 8 else tile)
    assert np.array_equal(p.to_tiles(encrypt("etc", pixels, KEY), 8, 8), [tiles[i] for i in places])


# pixel

@pytest.mark.parametrize("dtype,bits", [("uint8", 8), ("uint8", 3), ("uint16", 16), ("uint16", 12)])
def test_pixel_keeps_or_complements_each_pixel_evenly(dtype, bits):
    pixels = noise((101, 99), dtype, bits)
    hidden = encrypt("pixel", pixels, KEY, bits=bits)
    kept = hidden == pixels
    assert np.array_equal(hidden[~kept], (2**bits - 1 - pixels)[~kept]) and abs(kept.mean() - 0.5) < 4 * 0.5 / math.sqrt(kept.size)
    assert np.array_equal(decrypt("pixel", pixels, KEY, bits=bits), hidden), "its own inverse"


def test_one_known_picture_gives_all_other_pictures_of_the_key():
    known, secret = noise((20, 30)), noise((20, 30), seed=1)
    assert np.array_equal(encrypt("pixel", secret, KEY) ^ encrypt("pixel", known, KEY) ^ known, secret)


# AES

def expected_bytes(name, data):
    key = bytes(subkey(name))
    return AES.new(key, AES.MODE_ECB).encrypt(data) if name == "ecb" else AES.new(key, AES.MODE_CBC, iv=p.keyed_bytes(key, 16, "iv")).encrypt(data)


@pytest.mark.parametrize("name", AES_MODES)
@pytest.mark.parametrize("shape,dtype", [((4, 4), "uint8"), ((8, 20), "uint8"), ((2, 4), "uint16"), ((12, 14), "uint16")])
def test_whole_multiples_are_plain_aes(name, shape, dtype):
    pixels = ramp(shape, dtype)
    assert encrypt(name, pixels, KEY).astype(f"<u{pixels.dtype.itemsize}").tobytes() == expected_bytes(name, pixels.astype(f"<u{pixels.dtype.itemsize}").tobytes())


TEXT = bytes.fromhex("4920776f756c64206c696b65207468652047656e6572616c20476175277320436869636b656e2c20706c656173652c20616e6420776f6e746f6e20736f75702e")


@pytest.mark.parametrize("size,expected", [
    (17, "c6353568f2bf8cb4d8a580362da7ff7f97"),
    (31, "fc00783e0efdb2c1d445d4c8eff7ed2297687268d6ecccc0c07b25e25ecfe5"),
    (47, "97687268d6ecccc0c07b25e25ecfe584b3fffd940c16a18c1b5549d2f838029e39312523a78662d5be7fcbcc98ebf5"),
    (64, "97687268d6ecccc0c07b25e25ecfe58439312523a78662d5be7fcbcc98ebf5a84807efe836ee89a526730dbc2f7bc8409dad8bbb96c4cdc03bc103e1a194bbd8")])
def test_cbc_stealing_agrees_with_rfc_3962(size, expected):
    # RFC 3962 appendix B has CS3: its last two blocks are always swapped; CS1 has them in order
    expected, cut = bytes.fromhex(expected), size - 16 - (size % 16 or 16)
    expected = expected[:cut] + expected[cut + 16:] + expected[cut:cut + 16]
    key = b"chicken teriyaki"
    assert p.cbc_stealing(TEXT[:size], key, bytes(16)) == expected
    assert p.cbc_stealing(expected, key, bytes(16), inverse=True) == TEXT[:size]


@pytest.mark.parametrize("size", range(17, 49))
def test_ecb_stealing_is_its_definition(size):
    data, aes, tail = ramp((1, size)).tobytes(), AES.new(bytes(KEY), AES.MODE_ECB), size % 16
    out = p.ecb_stealing(data, KEY)
    if not tail: assert out == aes.encrypt(data)
    else:
        before = aes.encrypt(data[:-tail])
        assert out[:-16] == before[:size - 16] and aes.decrypt(out[-16:]) == data[-tail:] + before[size - 16:]
    assert len(out) == size and p.ecb_stealing(out, KEY, inverse=True) == data


def test_the_iv_is_fixed_for_a_key_and_not_for_an_image():
    pixels, other = noise((32, 32)), noise((32, 32)); other[20:] ^= 1
    first = encrypt("cbc_fixed_iv", pixels, KEY)
    assert np.array_equal(first[:20], encrypt("cbc_fixed_iv", other, KEY)[:20]) and (first[20:] != encrypt("cbc_fixed_iv", other, KEY)[20:]).mean() > 0.95
    assert (encrypt("cbc_fixed_iv", pixels, KEY, image=b"1")[0] != encrypt("cbc_fixed_iv", pixels, KEY, image=b"2")[0]).any()


def test_equal_blocks_stay_equal_under_ecb_alone():
    flat = np.zeros((32, 32), np.uint8)
    blocks = {name: len({r.tobytes() for r in encrypt(name, flat, KEY).reshape(-1, 16)}) for name in AES_MODES}
    assert blocks == {"ecb": 1, "cbc_fixed_iv": 64}


def test_aes_modes_use_all_bits_and_check_the_plain_picture():
    pixels = noise((32, 32), "uint16", 12)
    for name in AES_MODES:
        hidden = encrypt(name, pixels, KEY, bits=12)
        assert hidden.max() > 4095 and np.array_equal(hidden, encrypt(name, pixels, KEY)) and np.array_equal(decrypt(name, hidden, KEY, bits=12), pixels)
        with pytest.raises(PerceptualError, match="12 bits"): encrypt(name, pixels + np.uint16(4096), KEY, bits=12)


# refusals

GREY = noise((16, 16))
REFUSED = [("ECB", GREY, {}, "scheme"), ("", GREY, {}, "scheme"), (None, GREY, {}, "scheme"), (["le"], GREY, {}, "scheme"),
           *(("le", pixels, {}, "pixels") for pixels in (GREY.tolist(), GREY.astype("int8"), GREY.astype("uint32"), GREY.astype("float32"), GREY > 9, GREY[0], GREY[None], np.zeros((0, 5), np.uint8), np.zeros((5, 0), np.uint8))),
           ("le", GREY, {"bits": 0}, "bits"), ("le", GREY, {"bits": 9}, "bits"), ("le", GREY, {"bits": True}, "bits"), ("le", GREY, {"bits": 8.0}, "bits"), ("ecb", GREY.astype("uint16"), {"bits": 17}, "bits"),
           *((name, GREY, {"bits": 7}, "does not fit in the 7 bits") for name in ("le", "ele", "etc", "pixel")),
           *((name, GREY, {"block": block}, "block") for name in BLOCKED for block in (0, -4, 2.0, "4", True)),
           *((name, GREY, {"block": 4}, f"block: {name} has no blocks") for name in ("pixel", *AES_MODES)),
           *(("le", GREY, {"key": key}, "key: must be 32 bytes") for key in (b"", bytes(31), bytes(33), "k" * 32, None)),
           ("le", GREY, {"image": "4711"}, "image"), ("le", GREY, {"image": None}, "image"),
           *((name, pixels, {}, "16 bytes or more") for name in AES_MODES for pixels in (GREY[:3, :5], GREY[:1, :7].astype("uint16")))]


@pytest.mark.parametrize("action", (encrypt, decrypt))
@pytest.mark.parametrize("name,pixels,options,words", REFUSED)
def test_refusals(action, name, pixels, options, words):
    with pytest.raises(PerceptualError) as error: action(name, pixels, **{"key": KEY} | options)
    text = str(error.value)
    assert words in text and "\n" not in text and isinstance(error.value, MedcryptError)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype,bits", [("uint8", 1), ("uint8", 7), ("uint16", 12)])
def test_the_largest_value_that_fits(name, dtype, bits):
    pixels = np.full((9, 9), 2**bits - 1, dtype)
    assert np.array_equal(decrypt(name, encrypt(name, pixels, KEY, bits=bits), KEY, bits=bits), pixels)
    pixels[8, 8] += 1
    with pytest.raises(PerceptualError, match=f"{2**bits} does not fit in the {bits} bits"): encrypt(name, pixels, KEY, bits=bits)


def test_a_refused_key_is_not_shown():
    for key in (b"SECRETSECRET", "SECRETSECRET"):
        with pytest.raises(PerceptualError) as error: encrypt("le", GREY, key)
        assert "SECRET" not in str(error.value)


def test_large_blocks_are_one_tile():
    for name in BLOCKED:
        hidden = encrypt(name, GREY, KEY, block=2**31)
        assert np.array_equal(decrypt(name, hidden, KEY, block=2**31), GREY) and not np.array_equal(hidden, GREY)


def test_import_stays_light():
    code = "import sys, medcrypt.crypto.perceptual; print([m for m in ('tensorflow', 'keras', 'skimage', 'sklearn', 'matplotlib', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
