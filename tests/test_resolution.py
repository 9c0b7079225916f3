"Pictures by resolutions in envelopes: exact, readable by other decoders, nothing of what is hidden in clear, hostile headers."
import io

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from medcrypt.core import rng
from medcrypt.crypto.envelope import EnvelopeError, data_key, parse, seal, unseal
from medcrypt.crypto.keys import Key
from medcrypt.crypto.resolution import public_codestream, public_picture, seal_resolution, unseal_resolution
from medcrypt.imaging import jpeg2000

KEY = Key(bytes(range(32)))


def picture(shape, dtype, seed=0):
    info = np.iinfo(dtype)
    smooth = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * (info.max // 300)
    return (smooth + rng(seed, shape).integers(0, info.max // 4 + 1, shape) + info.min // 3).clip(info.min, info.max).astype(dtype)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(("uint8", "int8", "uint16", "int16")), st.sampled_from(("low", "details")), st.sampled_from(("jpeg2000", "htj2k")), st.integers(0, 5))
def test_exact(rows, columns, dtype, shown, codec, level):
    pixels = picture((rows, columns), dtype)
    resolutions = 1 + level % (jpeg2000.siz(jpeg2000.encode(np.zeros((rows, columns), "uint8"))).levels + 1)
    envelope = seal_resolution(pixels, KEY, resolutions=resolutions, shown=shown, codec=codec, image_id="ab", facts={"modality": "CT"})
    for key in (KEY, data_key(envelope, KEY)):
        back, header = unseal_resolution(envelope, key)
        assert back.dtype == pixels.dtype and np.array_equal(back, pixels) and header["facts"] == {"modality": "CT"}
    seen = public_picture(envelope)
    assert seen.dtype == pixels.dtype and seen.shape == pixels.shape


def test_the_public_section_is_a_file_for_anybody():
    from PIL import Image
    pixels = picture((90, 120), "uint16") >> 4
    for shown in ("low", "details"):
        codestream, header = public_codestream(seal_resolution(pixels, KEY, resolutions=3, shown=shown, image_id="ab", bits=12))
        assert Image.open(io.BytesIO(codestream)).size == (120, 90) and header["kind"] == shown
    low, _ = public_codestream(seal_resolution(pixels, KEY, resolutions=3, image_id="ab", bits=12))
    assert np.array_equal(jpeg2000.decode(low, reduce=3), jpeg2000.decode(jpeg2000.encode(pixels, bits=12), reduce=3))


@pytest.mark.parametrize("shown", ("low", "details"))
def test_what_is_hidden_is_not_in_clear(shown):
    "Two pictures with the same shown packets have the same public section; the header tells nothing but how they were split."
    pixels = picture((64, 64), "uint8")
    envelope = seal_resolution(pixels, KEY, resolutions=3, shown=shown, image_id="ab", pad_to=20000, facts={"modality": "CT"})
    whole = parse(envelope)
    assert set(whole.header) == {"bits", "dtype", "facts", "image_id", "kind", "resolutions", "shape"} and type(whole.header["facts"]) is int
    secret = unseal(envelope, KEY)[0]
    hidden = secret[-40:]   # packets, as they were in the codestream
    assert hidden in jpeg2000.encode(pixels) and not any(hidden[i:i + 12] in whole.public for i in range(28))
    lengths = {len(parse(seal_resolution(picture((64, 64), "uint8", s), KEY, resolutions=3, shown=shown, image_id="ab", pad_to=20000)).ciphertext) for s in range(5)}
    assert len(lengths) == 1


def test_refusals():
    pixels = picture((32, 32), "uint8")
    for options in ({"resolutions": 0}, {"resolutions": 7}, {"resolutions": 2, "shown": "edges"}, {"resolutions": 2, "codec": "raw"}, {"resolutions": 2, "image_id": "Doe"}, {"resolutions": 2, "bits": 3}, {"resolutions": 2, "facts": {"a": 1}}):
        with pytest.raises(EnvelopeError): seal_resolution(pixels, KEY, **{"image_id": "ab", **options})
    for other in (pixels.astype(float), pixels.astype("uint32"), pixels[None], [[1]], pixels[:0]):
        with pytest.raises(EnvelopeError): seal_resolution(other, KEY, resolutions=1, image_id="ab")


GOOD = seal_resolution(picture((40, 30), "int16") >> 4, KEY, resolutions=2, image_id="ab", bits=12)


@pytest.mark.parametrize("change", ({"kind": "image"}, {"shape": [40]}, {"shape": [30, 40]}, {"shape": [40, 31]}, {"shape": "ab"}, {"shape": [2**40, 2]}, {"shape": [60000, 60000]}, {"bits": 11}, {"bits": 99}, {"bits": "12"}, {"dtype": "float64"},
                                    {"dtype": None}, {"offset": 0}, {"offset": "x"}))
def test_headers_that_lie(change):
    parts = parse(GOOD)
    with pytest.raises(EnvelopeError): public_picture(seal(b"", KEY, {**parts.header, **change}, public=parts.public))


def test_contents_that_lie():
    parts, (secret, header) = parse(GOOD), unseal(GOOD, KEY)
    for public, plaintext in ((parts.public, b""), (parts.public, secret[:-1]), (parts.public, secret + b"x"), (parts.public[:-2], secret), (b"", secret), (parts.public, b"\xff" * 40)):
        with pytest.raises(EnvelopeError): unseal_resolution(seal(plaintext, KEY, header, public=public), KEY)
    draw = rng(0, "mutations")
    for _ in range(300):
        public = bytearray(parts.public); public[int(draw.integers(len(public)))] ^= int(draw.integers(1, 256))
        try: seen = public_picture(seal(b"", KEY, header, public=bytes(public)))
        except EnvelopeError: continue
        assert seen.shape == (40, 30)


def test_real_pictures(shared):
    from PIL import Image
    files = sorted((shared / "data" / "cxr" / "nih256").glob("*.png"))[:4]
    if not files: pytest.skip("no radiographs")
    for file in files:
        pixels = np.array(Image.open(file).convert("L"))
        for shown in ("low", "details"):
            for r in (1, 3, 5): assert np.array_equal(unseal_resolution(seal_resolution(pixels, KEY, resolutions=r, shown=shown, image_id="ab"), KEY)[0], pixels)
