"JPEG 2000: round trips of every size and depth, damaged input, memory only, threads."
import os, struct, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from medcrypt.imaging import jpeg2000
from medcrypt.imaging.jpeg2000 import MAX_SAMPLES, CodecError, decode, encode, openjpeg, prefix, resolution_ends, siz


def picture(rows, columns, bits, seed=0, signed=False):
    "Smooth picture with noise that uses the whole range."
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    values = (np.sin(x / 5 + seed) + np.cos(y / 7) + 2) / 4 * (2**bits - 1) + generator.normal(0, 2**bits / 50, (rows, columns))
    values = np.clip(np.rint(values), 0, 2**bits - 1).astype(np.int64)
    if signed: return (values - 2**(bits - 1)).astype(np.int8 if bits <= 8 else np.int16)
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 16), st.booleans(), st.integers(0, 99))
def test_lossless_round_trip(rows, columns, bits, signed, seed):
    pixels = picture(rows, columns, bits, seed, signed)
    codestream = encode(pixels, bits=bits)
    assert siz(codestream)[:5] == (rows, columns, 1, bits, signed)
    assert siz(codestream).levels + 1 == min(6, 1 + int(np.log2(min(rows, columns))))
    decoded = decode(codestream)
    assert decoded.dtype == pixels.dtype and np.array_equal(decoded, pixels)


@pytest.mark.parametrize("bits", range(8, 17))
@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (37, 1), (2, 2), (16, 31), (31, 32), (33, 64), (128, 96)])
def test_small_and_odd_sizes(shape, bits):
    for pixels in (picture(*shape, bits), np.zeros(shape, np.uint16), np.full(shape, 2**bits - 1, np.uint16)):
        assert np.array_equal(decode(encode(pixels, bits=bits)), pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "int16", ">u2", ">i2"])
def test_extremes_of_each_dtype_and_byte_order(dtype):
    info = np.iinfo(dtype)
    pixels = np.random.default_rng(1).choice([info.min, info.max, 0], (40, 24)).astype(dtype)
    decoded = decode(encode(pixels[::-1, ::2]))
    assert decoded.dtype == np.dtype(dtype).newbyteorder("=") and np.array_equal(decoded, pixels[::-1, ::2])


@pytest.mark.parametrize("arguments, word", [
    (dict(pixels=np.zeros((4, 4), np.float32)), "float32"), (dict(pixels=np.zeros((4, 4), np.int32)), "int32"),
    (dict(pixels=np.zeros((4, 4), bool)), "bool"), (dict(pixels=np.zeros((2, 4, 4), np.uint8)), "shape"), (dict(pixels=np.zeros((0, 4), np.uint8)), "shape"),
    (dict(pixels=np.full((4, 4), 4096, np.uint16), bits=12), "bits=12"), (dict(pixels=np.full((4, 4), -2049, np.int16), bits=12), "bits=12"),
    (dict(pixels=np.zeros((4, 4), np.uint8), bits=17), "bits=17"), (dict(pixels=np.zeros((4, 4), np.uint8), rate=4), "rate"),
    (dict(pixels=np.zeros((4, 4), np.uint8), lossless=False), "rate"), (dict(pixels=np.zeros((4, 4), np.uint8), lossless=False, rate=0.5), "rate"),
    (dict(pixels=np.zeros((4, 4), np.uint8), lossless=False, rate=float("nan")), "rate"), (dict(pixels=np.zeros((4, 4), np.uint8), codec="jpegls"), "jpegls")])
def test_encode_refuses(arguments, word):
    with pytest.raises(CodecError, match=word): encode(**arguments)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_cut_is_refused(data):
    codestream = encode(picture(33, 40, 12), bits=12)
    cut = data.draw(st.integers(0, len(codestream) - 1))
    with pytest.raises(CodecError): decode(codestream[:cut])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_damage_gives_a_picture_or_codec_error(position, value, early):
    codestream = bytearray(encode(picture(48, 40, 12), bits=12))
    codestream[position % (120 if early else len(codestream))] = value
    try: assert decode(bytes(codestream)).size <= MAX_SAMPLES
    except CodecError: pass


@given(st.binary(max_size=200))
def test_garbage_is_refused(data):
    for codestream in (data, b"\xff\x4f\xff\x51" + data, b"\0\0\0\x0cjP  \r\n\x87\n" + data):
        with pytest.raises(CodecError): decode(codestream)


def test_size_is_checked_before_memory_is_taken():
    codestream = encode(picture(48, 40, 8))
    bomb = codestream[:8] + struct.pack(">II", 60000, 60000) + codestream[16:24] + struct.pack(">II", 60000, 60000) + codestream[32:]
    start = time.process_time()
    with pytest.raises(CodecError, match="60000 x 60000"): decode(bomb)
    assert time.process_time() - start < 0.1


def header_with(codestream, *, side=None, tile=None, components=1, precinct=None, block=None, layers=1, subsampling=None):
    "The codestream, its header changed to claim something else."
    data = bytearray(codestream)
    if side: data[8:16] = struct.pack(">II", side, side); data[24:32] = struct.pack(">II", tile or side, tile or side)
    at = data.index(b"\xff\x52")
    levels, data[at + 6:at + 8] = data[at + 9], struct.pack(">H", layers)
    if block: data[at + 10] = data[at + 11] = block - 2
    if precinct is not None:
        data[at + 4] |= 1; data[at + 2:at + 4] = struct.pack(">H", 13 + levels); data[at + 14:at + 14] = bytes([17 * precinct] * (levels + 1))
    data[40:42] = struct.pack(">H", components); data[4:6] = struct.pack(">H", 38 + 3 * components)
    data[45:45] = (data[42:43] + bytes([subsampling or 1] * 2) if subsampling else data[42:45]) * (components - 1)
    if subsampling: data[43:45] = bytes([255, 255])   # the first component is tiny, the others are not
    return bytes(data)


@pytest.mark.parametrize("claim, word", [
    (dict(side=2400, precinct=1), "precincts"), (dict(side=11000, precinct=4), "precincts"), (dict(side=4200, block=2), "code-blocks"),
    (dict(side=2000, precinct=4, layers=60000), "packets"), (dict(side=250, tile=1, components=2000), "lacks tiles"), (dict(side=5000, components=6), "samples"),
    (dict(side=65000, components=2, subsampling=1), "samples"), (dict(side=65000, tile=1), "samples"), (dict(side=10000, tile=1), "lacks tiles")])
def test_cost_is_checked_before_memory_is_taken(claim, word):
    bomb, start = header_with(encode(picture(64, 64, 8)), **claim), time.process_time()
    with pytest.raises(CodecError, match=word): decode(bomb)
    assert time.process_time() - start < 0.2


def test_many_tiles_are_counted_without_decoding_them():
    codestream = header_with(encode(picture(64, 64, 8)), side=180, tile=1, components=5)
    start = codestream.index(b"\xff\x90")
    parts = b"".join(struct.pack(">HHHIBBH", 0xFF90, 10, tile, 15, 0, 1, 0xFF93) + b"\0" for tile in range(180 * 180))
    with pytest.raises(CodecError, match="162000 tiles"): decode(codestream[:start] + parts + b"\xff\xd9")


def test_honest_headers_pass_the_cost_check():
    pixels = picture(64, 64, 8)
    for claim in (dict(side=64), dict(side=64, block=2), dict(side=64, layers=9)):
        try: assert decode(header_with(encode(pixels), **claim)).shape == (64, 64)
        except CodecError as error: assert "OpenJPEG" in str(error)


def test_bytes_after_the_end_do_not_matter_and_boxes_are_opened():
    pixels = picture(48, 40, 12)
    codestream = encode(pixels, bits=12)
    assert np.array_equal(decode(codestream + b"\0" * 6), pixels)
    header = struct.pack(">I4sIIHBBBB", 22, b"ihdr", 48, 40, 1, 11, 7, 0, 0) + struct.pack(">I4sBBBI", 15, b"colr", 1, 0, 0, 17)
    boxes = (struct.pack(">I4sI", 12, b"jP  ", 0x0D0A870A) + struct.pack(">I4s", 20, b"ftyp") + b"jp2 \0\0\0\0jp2 "
             + struct.pack(">I4s", 8 + len(header), b"jp2h") + header)
    for length in (0, 8 + len(codestream)):
        file = boxes + struct.pack(">I4s", length, b"jp2c") + codestream
        assert siz(file).bits == 12 and np.array_equal(decode(file), pixels) and np.array_equal(decode(file + b"\0" * 5), pixels)
        with pytest.raises(CodecError): decode(file[:-1])


def test_tile_parts_are_counted():
    codestream = bytearray(encode(picture(48, 40, 12), bits=12))
    start = codestream.index(b"\xff\x90")
    assert codestream[start + 11] == 1
    codestream[start + 11] = 2
    with pytest.raises(CodecError, match="lacks tile-parts"): decode(bytes(codestream))
    codestream[start + 11] = 0
    assert decode(bytes(codestream)).shape == (48, 40)
    codestream[start + 6:start + 10] = bytes(4)   # Psot 0: the tile-part runs to the end marker
    assert np.array_equal(decode(bytes(codestream)), picture(48, 40, 12))
    with pytest.raises(CodecError): decode(bytes(codestream[:-2]))


@pytest.mark.parametrize("rate", [2, 8, 40])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossy_meets_the_ratio_and_never_wraps(bits, rate):
    pixels = picture(256, 200, bits)
    codestream = encode(pixels, bits=bits, lossless=False, rate=rate)
    assert len(codestream) <= pixels.size * bits / 8 / rate + 60
    error = decode(codestream).astype(float) - pixels
    assert np.abs(error).max() < 2**bits / 2 and np.sqrt(np.mean(error**2)) < 2**bits / 20


def test_lossy_clips_at_full_range():
    pixels = np.where(np.random.default_rng(0).random((64, 56)) < .8, 65535, 0).astype(np.uint16)
    for rate in (1.5, 4): assert decode(encode(pixels, lossless=False, rate=rate)).dtype == np.uint16
    edges = np.zeros((64, 64), np.uint16); edges[:, 32:] = 65535
    error = np.abs(decode(encode(edges, lossless=False, rate=8)).astype(int) - edges)
    assert error.max() < 8192


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (64, 64), (200, 130)])
def test_prefixes_are_valid_codestreams(shape):
    pixels = picture(*shape, 12)
    codestream = encode(pixels, bits=12)
    ends, levels = resolution_ends(codestream), siz(codestream).levels
    assert len(ends) == levels + 1 and ends == sorted(ends)
    for count in range(1, levels + 2):
        part = prefix(codestream, count)
        assert part[50:60] in codestream and decode(part).shape == shape
        assert np.array_equal(decode(part, reduce=levels + 1 - count), decode(codestream, reduce=levels + 1 - count))
    assert prefix(codestream, levels + 1) == codestream
    for bad in (0, levels + 2):
        with pytest.raises(CodecError, match="resolutions"): prefix(codestream, bad)
    with pytest.raises(CodecError, match="reduce"): decode(codestream, reduce=levels + 1)


def test_same_picture_same_bytes_and_no_encoder_name():
    codestream = encode(picture(64, 64, 12), bits=12)
    assert codestream == encode(picture(64, 64, 12), bits=12) and b"OpenJPEG" not in codestream


def test_nothing_is_written_to_any_folder(tmp_path, monkeypatch):
    scratch = tmp_path / "tmp"; scratch.mkdir(); work = tmp_path / "work"; work.mkdir()
    monkeypatch.chdir(work); monkeypatch.setenv("TMPDIR", str(scratch))
    opened = []
    sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and watching else None)
    watching = True
    decode(encode(picture(64, 64, 12), bits=12)); decode(encode(picture(64, 64, 8), lossless=False, rate=4))
    watching = False
    assert opened == [] and list(work.iterdir()) == [] and list(scratch.iterdir()) == []


def test_threads_do_not_meet():
    pictures = [picture(40 + k % 17, 30 + k % 23, 12, k) for k in range(200)]
    def trip(k):
        codestream = encode(pictures[k], bits=12)
        with pytest.raises(CodecError): decode(codestream[:-9])
        return np.array_equal(decode(codestream), pictures[k])
    with ThreadPoolExecutor(8) as pool: assert all(pool.map(trip, range(200)))


def run(code, **environment):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment})


def test_openjpeg_is_found_though_glymur_came_first_and_found_none():
    done = run("import ctypes.util; ctypes.util.find_library = lambda name: None\nimport glymur, numpy as np\n"
               "from medcrypt.imaging.jpeg2000 import encode, decode, openjpeg\n"
               "assert decode(encode(np.full((9, 9), 7, np.uint8))).max() == 7\nprint(openjpeg().path)")
    assert done.returncode == 0 and "openjp2" in done.stdout, done.stderr


def test_missing_openjpeg_is_one_sentence():
    done = run("import medcrypt.imaging.openjpeg as library; library._candidates = lambda: []\n"
               "from medcrypt.imaging.jpeg2000 import encode, CodecError\nimport numpy as np\n"
               "try: encode(np.zeros((9, 9), np.uint8))\nexcept CodecError as error: print(error)")
    assert done.returncode == 0 and "conda-forge openjpeg" in done.stdout and "\n" not in done.stdout.strip(), done.stderr


def test_openjpeg_names_library_and_version():
    found = openjpeg()
    assert Path(found.path).name and tuple(map(int, found.version.split(".")[:2])) >= (2, 5)
    assert jpeg2000.openjpeg() is found


def test_import_is_light():
    assert run("import sys, medcrypt.imaging.jpeg2000; assert not {'glymur', 'tensorflow', 'skimage', 'matplotlib'} & set(sys.modules)").returncode == 0
