"High-Throughput JPEG 2000: what OpenJPH alone does, and what is put right."
import subprocess, sys

import imagecodecs
import numpy as np
import pytest

from medcrypt.imaging import htj2k
from medcrypt.imaging.codestream import segments, tile_parts
from medcrypt.imaging.jpeg2000 import decode, encode, prefix, siz


def smooth(rows, columns, bits, seed=0):
    y, x = np.mgrid[:rows, :columns]
    noise = np.random.default_rng(seed).normal(0, 2**bits / 100, x.shape)
    return np.clip(np.rint((np.sin(x / 9) + np.cos(y / 11) + 2) / 4 * (2**bits - 1) + noise), 0, 2**bits - 1).astype(np.uint16)


@pytest.mark.parametrize("bits", [9, 10, 12, 15, 16])
def test_both_decoders_read_the_patched_header(bits):
    "imagecodecs itself, not only through this package: precision and level shift are what the header says."
    pixels = smooth(90, 61, bits)
    for given in (pixels, (pixels.astype(np.int32) - 2**(bits - 1)).astype(np.int16)):
        codestream = encode(given, bits=bits, codec="htj2k")
        for again in (imagecodecs.htj2k_decode(codestream), imagecodecs.jpeg2k_decode(codestream), decode(codestream)):
            assert again.dtype == given.dtype and np.array_equal(again, given)


def test_codestream_is_plain_and_names_nobody():
    codestream = encode(smooth(90, 61, 12), bits=12, codec="htj2k")
    assert [hex(marker) for marker, *_ in segments(codestream)] == ["0xff51", "0xff50", "0xff52", "0xff5c", "0xff90"]   # SIZ CAP COD QCD SOT: no COM, no TLM
    parts = tile_parts(codestream)
    assert len(parts) == siz(codestream).levels + 1 and {part.count for part in parts} == {len(parts)} and {part.tile for part in parts} == {0}


@pytest.mark.parametrize("shape, levels", [((1, 1), 1), ((1, 90), 1), ((90, 1), 1), ((3, 3), 1), ((4, 9), 2), ((33, 90), 5), ((400, 300), 5)])
def test_levels(shape, levels):
    pixels = smooth(*shape, 12)
    codestream = encode(pixels, bits=12, codec="htj2k")
    assert siz(codestream).levels == levels
    for reduce in range(levels + 1): assert decode(codestream, reduce=reduce).shape == tuple(-(-n // 2**reduce) for n in shape)


def test_size_is_near_part_1():
    pixels = smooth(512, 512, 12)
    assert 1 < len(encode(pixels, bits=12, codec="htj2k")) / len(encode(pixels, bits=12)) < 1.12


def test_a_finer_rate_than_there_is_to_say_ends_at_half_a_grey_level():
    pixels = np.zeros((64, 64), np.uint16); pixels[20:30] = 4095
    codestream = encode(pixels, bits=12, lossless=False, rate=1, codec="htj2k")
    assert len(codestream) < pixels.size and np.abs(decode(codestream).astype(int) - pixels).max() <= 1


def test_rate_of_a_tiny_picture_is_the_smallest_there_is():
    assert len(encode(smooth(5, 5, 12), bits=12, lossless=False, rate=100, codec="htj2k")) < 250


def test_trusted_is_clipped_where_imagecodecs_wraps_around():
    lossy = encode(smooth(200, 130, 8).astype(np.uint8), lossless=False, rate=4, codec="htj2k")
    coarse = prefix(encode(np.where(np.random.default_rng(0).random((64, 56)) < .8, 65535, 0).astype(np.uint16), codec="htj2k"), 4)
    for codestream in (lossy, coarse):
        pixels = decode(codestream).astype(int)
        assert np.abs(imagecodecs.htj2k_decode(codestream) - pixels).max() > pixels.max() // 2
        assert np.abs(decode(codestream, trusted=True) - pixels).max() <= 1


def test_trusted_falls_back_to_openjpeg():
    "Part 1, colour and boxes are not for the fast way."
    pixels = smooth(40, 40, 8).astype(np.uint8)
    assert np.array_equal(decode(encode(pixels), trusted=True), pixels)
    colour = np.stack([pixels, pixels // 2, 255 - pixels], axis=-1)
    assert np.array_equal(decode(imagecodecs.htj2k_encode(colour, reversible=True), trusted=True), colour)


def test_hostile_codestreams_never_reach_openjph(monkeypatch):
    codestream = encode(smooth(40, 40, 12), bits=12, codec="htj2k")
    monkeypatch.setattr(htj2k, "decode", lambda *_: pytest.fail("OpenJPH was called"))
    assert decode(codestream).shape == (40, 40)


def test_two_thousand_mutations_leave_the_process_alive():
    code = """
import numpy as np
from medcrypt.imaging.jpeg2000 import CodecError, decode_components, encode
generator, count = np.random.default_rng(7), 0
codestreams = [encode(generator.integers(0, 4096, shape).astype(np.uint16), bits=12, codec="htj2k") for shape in ((5, 9), (48, 40), (100, 70))]
for k in range(2000):
    data = bytearray(codestreams[k % 3])
    for _ in range(generator.integers(1, 4)):
        at = int(generator.integers(len(data) if generator.random() < .5 else 130)) % len(data)
        data[at:at + 2] = generator.bytes(2) if generator.random() < .5 else bytes([data[at] ^ 1 << int(generator.integers(8))])
    try: count += len(decode_components(bytes(data)))
    except CodecError: pass
print(count)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and int(done.stdout) > 100, done.stderr[-500:]


def test_import_does_not_load_imagecodecs():
    code = "import sys, medcrypt.imaging.jpeg2000; assert 'imagecodecs' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
