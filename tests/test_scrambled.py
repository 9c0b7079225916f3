"Scrambled pictures in envelopes: exact for every holder, what is in clear, keys shared and single, hostile bytes, the command."
import io, json, random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from medcrypt.core import MedcryptError, rng, seeded_bytes
from medcrypt.crypto import perceptual
from medcrypt.crypto.envelope import EnvelopeError, Reader, data_key, in_memory, parse, seal, unseal
from medcrypt.crypto.keys import Key
from medcrypt.crypto.perceptual import to_tiles
from medcrypt.crypto.rewrap import rewrap
from medcrypt.crypto.scrambled import SCHEMES, layout, open_scrambled, picture_of, scrambled_picture, seal_scrambled, unseal_scrambled
from medcrypt.crypto.slots import new_private_key
from medcrypt.imaging import jpeg2000

KEY, OTHER, SUBKEY = Key(bytes(range(32))), Key(bytes(range(1, 33))), bytes(32)
TILED = [name for name, scheme in SCHEMES.items() if scheme.block]


def grey(shape=(33, 40), dtype="uint8", bits=None, seed=0):
    width = bits or 8 * np.dtype(dtype).itemsize
    smooth = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * (2**width // 120)
    return ((smooth + rng(seed, "grey").integers(0, 2**width // 8 + 1, shape)) % 2**width).astype(dtype)


def make(pixels, scheme="le", **options): return seal_scrambled(pixels, options.pop("key", KEY), scheme=scheme, image_id="ab", **options)


# exact

def test_the_schemes(): assert list(SCHEMES) == [*perceptual.SCHEMES, "neuracrypt"] and "neuracrypt" not in perceptual.SCHEMES


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_exact_for_every_holder(scheme, data):
    dtype = data.draw(st.sampled_from(("uint8", "uint16")))
    bits = data.draw(st.sampled_from((None, 8 if dtype == "uint8" else 12, 5)))
    pixels = grey(data.draw(st.tuples(st.integers(16, 40), st.integers(16, 40))), dtype, bits, data.draw(st.integers(0, 9)))
    friend, before = new_private_key(), pixels.copy()
    envelope = make(pixels, scheme, key=[KEY, friend.public()], bits=bits, facts={"modality": "DX"}, subkey=data.draw(st.none() | st.binary(min_size=32, max_size=32)), block=data.draw(st.none() | st.integers(2, 9)) if scheme in TILED else None)
    for holder in (KEY, friend, data_key(envelope, KEY)):
        back, header = unseal_scrambled(envelope, holder)
        assert back.dtype == dtype and np.array_equal(back, before) and header["facts"] == {"modality": "DX"}
    assert np.array_equal(pixels, before)
    with pytest.raises(EnvelopeError): unseal_scrambled(envelope, OTHER)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_layouts_in_memory_and_tiny_pictures(scheme):
    pixels = grey((24, 35), "uint16", 12)
    for other in (np.asfortranarray(pixels), pixels.astype(">u2"), pixels[::-1][::-1]):
        back, header = unseal_scrambled(make(other, scheme, bits=12), KEY)
        assert back.dtype == np.dtype("uint16") and np.array_equal(back, pixels) and header["dtype"] == "uint16"
    for shape in ((1, 40), (40, 1), (3, 6)):
        assert np.array_equal(unseal_scrambled(make(grey(shape), scheme), KEY)[0], grey(shape))


# in clear

@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_in_clear_is_the_scrambled_picture_and_no_more(scheme):
    pixels = grey((32, 40), "uint16", 12)
    envelope = make(pixels, scheme, bits=12, subkey=SUBKEY, facts={"modality": "CT"})
    whole, seen = parse(envelope), scrambled_picture(envelope)
    assert whole.header == {"kind": "scrambled", "image_id": "ab", "shape": [32, 40], "dtype": "uint16", "bits": 12, "facts": len(b'{"modality":"CT"}'), "scheme": scheme} | ({"block": SCHEMES[scheme].block} if scheme in TILED else {})
    assert whole.public == seen.astype(seen.dtype.newbyteorder("<")).tobytes() and np.array_equal(picture_of(Reader(io.BytesIO(envelope))), seen)
    if scheme != "neuracrypt": assert np.array_equal(seen, perceptual.encrypt(scheme, pixels, SUBKEY, bits=12)) and layout(whole.header) == ((32, 40), np.dtype("uint16"), 16 if SCHEMES[scheme].full_range else 12)
    secret = unseal(envelope, KEY)[0]
    assert secret == b'{"modality":"CT"}' + (SUBKEY if scheme != "neuracrypt" else jpeg2000.encode(pixels, bits=12)), "a holder of NeuraCrypt's picture does not get its encoder"
    assert SUBKEY not in envelope and (seen.shape != pixels.shape or (seen != pixels).mean() > .3)


def test_neuracrypt_is_rounded_up_to_whole_patches():
    seen = scrambled_picture(make(grey((33, 41)), "neuracrypt"))
    assert seen.shape == (40, 48) and seen.dtype == np.uint8 and scrambled_picture(make(grey((33, 41), "uint16"), "neuracrypt", block=5)).shape == (35, 45)


def tiles(picture, block=8): return Counter(t.tobytes() for t in to_tiles(picture, block, block))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_key_for_all_pictures_or_one_for_each(scheme):
    pixels = grey((32, 40))
    shared = [scrambled_picture(make(pixels, scheme, subkey=SUBKEY)) for _ in range(2)]
    single = [scrambled_picture(make(pixels, scheme)) for _ in range(2)]
    other = scrambled_picture(make(pixels, scheme, subkey=bytes(31) + b"\1"))
    if scheme == "neuracrypt": assert tiles(shared[0]) == tiles(shared[1]) and not np.array_equal(*shared) and not set(tiles(shared[0])) & set(tiles(single[0]))
    else: assert np.array_equal(*shared)
    for a, b in (single, (shared[0], single[0]), (shared[0], other)): assert (a != b).mean() > .3
    envelopes = make(pixels, scheme, subkey=SUBKEY), make(pixels, scheme)
    assert parse(envelopes[0]).header == parse(envelopes[1]).header, "no header says whose key it was"


def test_the_shuffle_of_neuracrypt_is_each_picture_s_own_and_secret():
    pixels = grey((64, 64)); seen = [scrambled_picture(make(pixels, "neuracrypt", subkey=SUBKEY)) for _ in range(4)]
    orders = [tuple(t.tobytes() for t in to_tiles(s, 8, 8)) for s in seen]
    assert len(set(orders)) == 4 and len({frozenset(o) for o in orders}) == 1
    again = [scrambled_picture(make(pixels, "neuracrypt", subkey=SUBKEY, random=seeded_bytes(3))) for _ in range(2)]
    assert np.array_equal(*again), "it comes from the data key and nothing else"


def test_seeded_envelopes_repeat():
    for scheme in SCHEMES: assert make(grey(), scheme, random=seeded_bytes(1)) == make(grey(), scheme, random=seeded_bytes(1)) != make(grey(), scheme)


def test_other_holders_later():
    envelope, friend = make(grey(), "etc"), new_private_key()
    again = rewrap(envelope, KEY, [friend.public()])
    assert np.array_equal(unseal_scrambled(again, friend)[0], grey()) and np.array_equal(scrambled_picture(again), scrambled_picture(envelope))


# refusals

REFUSED = [({"scheme": "rot13"}, "scheme"), ({"scheme": None}, "scheme"), ({"scheme": []}, "scheme"), ({"subkey": bytes(31)}, "subkey"), ({"subkey": b""}, "subkey"), ({"block": 0}, "block"), ({"block": "4"}, "block"), ({"block": 2.}, "block"), ({"block": True}, "block"),
           ({"scheme": "pixel", "block": 4}, "no blocks"), ({"scheme": "neuracrypt", "block": 1}, "block"), ({"scheme": "neuracrypt", "block": 64}, "block"), ({"bits": 4}, "bits"), ({"bits": 9}, "bits"), ({"facts": {"name": "x"}}, "facts"), ({"image_id": "Maier"}, "image_id"),
           *(({"pixels": p}, "pixels") for p in (grey().astype("int8"), grey().astype("uint32"), grey()[None], grey() / 255, grey().tolist(), np.zeros((0, 3), "uint8"))), ({"pixels": grey((2, 3)), "scheme": "ecb"}, "16 bytes"),
           ({"pixels": np.zeros((1, 99999), "uint8"), "scheme": "neuracrypt", "block": 32}, "block")]


@pytest.mark.parametrize("options,word", REFUSED)
def test_refusals(options, word):
    with pytest.raises(EnvelopeError, match=word) as error: seal_scrambled(**{"pixels": grey(), "key": KEY, "scheme": "le", "image_id": "ab"} | options)
    assert "\n" not in str(error.value)


def test_a_subkey_is_not_shown():
    with pytest.raises(EnvelopeError) as error: make(grey(), subkey=b"SECRETSECRET")
    assert "SECRET" not in str(error.value)


def test_the_tag_covers_the_public_picture():
    for scheme in SCHEMES:
        envelope = bytearray(make(grey(), scheme)); at = bytes(envelope).index(parse(bytes(envelope)).public) + 7
        envelope[at] ^= 1
        with pytest.raises(EnvelopeError): unseal_scrambled(bytes(envelope), KEY)
        scrambled_picture(bytes(envelope))   # looks, and vouches for nothing


# hostile bytes

@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_random_bytes(data):
    for look in (scrambled_picture, lambda d: unseal_scrambled(d, KEY)):
        with pytest.raises(EnvelopeError): look(data)


ODD = [None, 0, -1, 1, 3, 2**31, 2**70, 1.5, "x", [], {}, True, [2**20, 2**20], [2**40, 2**40], [33, 40, 3], [40, 33], [33], [0, 9], "uint8", "int16", "float32", "le", "neuracrypt", "ecb", "raw", "blocks", "image", [16, 16]]


def mutated(draw, envelope):
    plaintext, parts = bytearray(unseal(envelope, KEY)[0]), parse(envelope)
    header, public = dict(parts.header), bytearray(parts.public)
    for _ in range(draw.choice((1, 1, 2, 3))):
        what = draw.randrange(4)
        if what < 2: header[draw.choice([*header, "facts", "block", "codec", "ratio", "rate", "resolutions", "spare"])] = draw.choice(ODD)
        elif what == 2: public = public[:draw.randrange(len(public) + 1)] if draw.random() < .5 else public + draw.randbytes(draw.randrange(1, 300))
        else: plaintext = plaintext[:draw.randrange(len(plaintext) + 1)] if draw.random() < .5 else plaintext + draw.randbytes(draw.randrange(1, 99))
    return seal(bytes(plaintext), KEY, header, public=bytes(public))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mutated_envelopes_give_one_kind_of_error(scheme):
    draw, made, refused = random.Random(scheme), [make(grey(), scheme, facts={"modality": "CT"}), make(grey((20, 16), "uint16", 12), scheme, bits=12)], 0
    for _ in range(150):
        odd = mutated(draw, draw.choice(made))
        for look in (scrambled_picture, lambda e: unseal_scrambled(e, KEY)):
            try: look(odd)
            except MedcryptError as error: assert type(error) is EnvelopeError; refused += 1
    assert refused > 150
    raw = made[0]
    for _ in range(150):
        at = draw.randrange(len(raw)); odd = raw[:at] if draw.random() < .3 else raw[:at] + bytes([raw[at] ^ 1 << draw.randrange(8)]) + raw[at + 1:]
        with pytest.raises(EnvelopeError): unseal_scrambled(odd, KEY)
        try: scrambled_picture(odd)
        except MedcryptError as error: assert type(error) is EnvelopeError


class Counting(io.BytesIO):
    read_bytes = 0
    def read(self, size=-1): data = super().read(size); self.read_bytes += len(data); return data


def test_sizes_are_checked_before_the_public_section_is_read():
    for change in ({"shape": [33, 41]}, {"dtype": "uint16"}, {"shape": [1 << 20, 1 << 20]}):
        odd = seal(SUBKEY, KEY, parse(make(grey())).header | change, public=bytes(1 << 20)); source = Counting(odd)
        with pytest.raises(EnvelopeError): picture_of(Reader(source))
        assert source.read_bytes < 1000
    source = Counting(make(grey((100, 100)), "neuracrypt", pad_to=1 << 20)); picture_of(Reader(source))
    assert source.read_bytes < 104 * 104 + 1000, "of the secret section nothing is read"


def test_values_that_do_not_fit():
    odd = seal(SUBKEY, KEY, parse(make(grey(bits=5), bits=5)).header, public=b"\xff" * grey().size)
    for look in (scrambled_picture, lambda e: unseal_scrambled(e, KEY)):
        with pytest.raises(EnvelopeError, match="5 bits"): look(odd)


def test_a_stranger_s_codestream_is_not_trusted(monkeypatch):
    asked, real, envelope = [], jpeg2000.decode, make(grey(), "neuracrypt")
    monkeypatch.setattr(jpeg2000, "decode", lambda codestream, **options: asked.append(options.get("trusted", False)) or real(codestream, **options))
    unseal_scrambled(envelope, KEY); open_scrambled(in_memory(envelope), KEY, trusted=True)
    assert asked == [False, True]


# the command

def test_decrypt_and_inspect(tmp_path, capsys):
    from medcrypt.cli.main import main
    from medcrypt.crypto.keys import load_key
    assert main(["keygen", str(tmp_path / "k.key")]) == 0
    key, pixels = load_key(tmp_path / "k.key"), grey((40, 48), "uint16", 12)
    for scheme in SCHEMES:
        path = tmp_path / f"{scheme}.mce"; path.write_bytes(seal_scrambled(pixels, key, scheme=scheme, image_id="ab", bits=12, facts={"modality": "CT", "spacing_mm": [.7, .7]}))
        assert main(["decrypt", str(path), "--key", str(tmp_path / "k.key"), "-o", str(tmp_path / f"{scheme}.npy")]) == 0
        assert np.array_equal(np.load(tmp_path / f"{scheme}.npy"), pixels)
        capsys.readouterr(); assert main(["inspect", str(path)]) == 0
        about = json.loads(capsys.readouterr().out)
        assert about["header"]["scheme"] == scheme and "not secure" in about["not_secure"]["warning"] and about["not_secure"]["broken_by"] == SCHEMES[scheme].broken_by
    path.write_bytes(seal(b"x", key, {"kind": "scrambled", "scheme": "le"})); assert main(["inspect", str(path)]) != 0 and str(path) in capsys.readouterr().err
    assert main(["decrypt", str(tmp_path / "le.mce"), "--key", str(tmp_path / "k.key")]) == 0
    from medcrypt.imaging.dicom import read_dicom
    assert np.array_equal(read_dicom(tmp_path / "le.dcm").stored, pixels)
