"Files that want to hurt: each is refused with its name and a reason, in under a second of processor time and with little memory, in a process that counts both."
import json, os, re, struct, subprocess, sys, zlib

import imagecodecs
import numpy as np
import pytest
from dicom_files import UNDEFINED, body, element, file_bytes, fragments, item, make, meta, sequence, table
from pydicom import uid
from test_dicom_encodings import boxed, rle_frame, smooth
from test_dicom_kinds import palette

from medcrypt.imaging.jpeg2000 import encode

EXPLICIT = meta(uid.ExplicitVRLittleEndian)
SMALL = smooth((16, 16), 12)
HUGE = dict(Rows=60000, Columns=60000)
FOUR = element(0x00280010, b"US", b"\x10\0"), element(0x00280010, b"US", b"\x60\xea")   # Rows 16 -> 60000


def pack(data, level=9):
    compressor = zlib.compressobj(level, wbits=-15)
    return compressor.compress(data) + compressor.flush()

def codestreams():
    "A tiny codestream of every codec, and the same one with 60000 x 60000 in its own header."
    def at(frame, place, size): return frame[:place] + (60000).to_bytes(size, "big") * 2 + frame[place + 2 * size:]
    j2k, jls, jpeg, lossless = encode(SMALL, bits=12), imagecodecs.jpegls_encode(SMALL), imagecodecs.jpeg8_encode((SMALL >> 4).astype(np.uint8), 90), imagecodecs.jpeg8_encode(SMALL, lossless=True, bitspersample=12)
    def sof(frame, marker): return at(frame, frame.index(marker) + 5, 2)
    yield "jpeg 2000", uid.JPEG2000Lossless, 12, j2k, at(j2k, 8, 4)
    yield "jp2", uid.JPEG2000Lossless, 12, boxed(j2k, rows=16, columns=16), boxed(at(j2k, 8, 4), rows=60000, columns=60000)
    ht = imagecodecs.htj2k_encode(SMALL)
    yield "htj2k", uid.HTJ2KLossless, 16, ht, at(ht, 8, 4)
    yield "jpeg-ls", uid.JPEGLSLossless, 12, jls, sof(jls, b"\xff\xf7")
    yield "jpeg", uid.JPEGBaseline8Bit, 8, jpeg, sof(jpeg, b"\xff\xc0")
    yield "jpeg lossless", uid.JPEGLosslessSV1, 12, lossless, sof(lossless, b"\xff\xc3")
    xl = imagecodecs.jpegxl_encode(np.zeros((16, 16), np.uint8), lossless=True)
    yield "jpeg xl", "1.2.840.10008.1.2.4.110", 8, xl, b"\xff\x0a" + ((59999 << 3 | 2 << 1) | (1 << 21)).to_bytes(4, "little") + xl[4:]
    yield "rle", uid.RLELossless, 16, rle_frame(SMALL, 2), rle_frame(SMALL, 2)
    yield "deflated frame", "1.2.840.10008.1.2.8.1", 16, pack(SMALL.tobytes()), pack(bytes(1 << 26))

def hostile():
    "{name: (bytes, word of the reason)}"
    files = {}
    def add(name, data, word): files[name] = data, word
    add("header bomb", file_bytes(make(SMALL, **HUGE)), "limit")
    for frames in ("2147483647", "99999999999999999999", "1e300", "-5", "0"): add(f"frames {frames}", EXPLICIT + body(SMALL, frames=frames.encode()), "limit|NumberOfFrames|bytes")
    for name, syntax, bits, frame, big in codestreams():
        allocated = 8 if bits == 8 else 16
        add(f"{name}, huge header", file_bytes(make(SMALL, bits, allocated, syntax=syntax, frames=[frame], **HUGE)), "limit")
        add(f"{name}, header of 8000", file_bytes(make(SMALL, bits, allocated, syntax=syntax, frames=[frame], Rows=8000, Columns=8000)), "for each byte")
        add(f"{name}, header of 4000", file_bytes(make(SMALL, bits, allocated, syntax=syntax, frames=[frame], Rows=4000, Columns=4000)), "header says|cut short|bytes")
        if name not in ("rle", "deflated frame"): add(f"{name}, huge codestream", file_bytes(make(SMALL, bits, allocated, syntax=syntax, frames=[big])), "header says|JPEG 2000|codestream")
        if name not in ("rle", "deflated frame"): add(f"{name}, both 4000", file_bytes(make(SMALL, bits, allocated, syntax=syntax, frames=[big.replace(b"\xea\x60\xea\x60", b"\x0f\xa0\x0f\xa0").replace(b"\0\0\xea\x60\0\0\xea\x60", b"\0\0\x0f\xa0\0\0\x0f\xa0")], Rows=4000, Columns=4000)), "damaged|OpenJPEG|JPEG|codestream|header")
        add(f"{name}, cut", file_bytes(make(SMALL, bits, allocated, syntax=syntax, frames=[frame[:len(frame) * 3 // 5]])), "cut short|damaged|codestream|bytes")
    add("deflate bomb before the pixels", meta(uid.DeflatedExplicitVRLittleEndian) + pack(element(0x00080005, b"CS", b"") + element(0x00091001, b"OB", bytes(1 << 26))), "cut short|Rows")
    add("deflate bomb after the pixels", meta(uid.DeflatedExplicitVRLittleEndian) + pack(body(SMALL) + element(0xFFFCFFFC, b"OB", bytes(1 << 26))), "grows")
    add("deflated elements", meta(uid.DeflatedExplicitVRLittleEndian) + pack(element(0x00091001, b"LO", b"") * (1 << 21)), "more than|cut|Rows")
    add("deflated pixels", meta(uid.DeflatedExplicitVRLittleEndian) + pack(body(SMALL).replace(*FOUR)), "bytes")
    add("deflated frame bomb", file_bytes(make(SMALL, 16, syntax="1.2.840.10008.1.2.8.1", frames=[pack(bytes(1 << 26))])), "room for more|bytes")
    deep = struct.pack("<HH2sHI", 0x0099, 0x1001, b"SQ", 0, UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    add("deep sequences", EXPLICIT + deep * 200_000, "cut short")
    groups = struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    add("deep functional groups", EXPLICIT + groups * 200_000, "cut short")
    add("a million items", EXPLICIT + body(SMALL, middle=sequence(0x52009230, [item(b"")] * 1_200_000)), "more than")
    add("a million private elements", EXPLICIT + element(0x00091001, b"LO", b"") * 1_200_000, "more than")
    add("200,000 functional groups for one frame", EXPLICIT + body(SMALL, middle=sequence(0x52009230, [item(b"")] * 200_000)), "functional groups")
    add("four gigabytes", EXPLICIT + body(SMALL, pixel=element(0x7FE00010, b"OW", SMALL.tobytes(), length=0xFFFFFFFE)), "cut short")
    add("four gigabytes before", EXPLICIT + body(SMALL, before=element(0x00091001, b"OB", b"x", length=0xFFFFFFF0)), "cut short")
    add("sequence longer than the file", EXPLICIT + body(SMALL, middle=element(0x00283010, b"SQ", item(b""), length=0x7FFFFFF0)), "cut short")
    add("item longer than the file", EXPLICIT + body(SMALL, middle=element(0x00283010, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0x7FFFFFF0), length=UNDEFINED)), "damaged|cut")
    add("a long window", EXPLICIT + body(SMALL, middle=element(0x00281050, b"UT", b"1\\" * 4_000_000) + element(0x00281051, b"UT", b"x" * 4_000_000)), "Window.* bytes of text")
    for name, offsets in (("behind the end", [2, 64, 1 << 30]), ("descending", [2, 90, 64]), ("inside the header", [2, 4, 70]), ("the same", [2, 64, 64]), ("too many", [15, *range(64, 79)]), ("none", [0])):
        add(f"rle offsets {name}", file_bytes(make(SMALL, 16, syntax=uid.RLELossless, frames=[struct.pack("<16I", *offsets, *[0] * (16 - len(offsets))) + bytes(40)])), "RLE")
    add("rle run without an end", file_bytes(make(SMALL, 16, syntax=uid.RLELossless, frames=[struct.pack("<16I", 2, 64, 68, *[0] * 13) + b"\x7fabc\x7fa"])), "cut short")
    add("100,000 fragments", file_bytes(make(SMALL, syntax=uid.JPEG2000Lossless, frames=[b"x"])).split(b"\xfe\xff\x00\xe0")[0] + fragments([b""] + [b"\0"] * 100_000), "fragments")
    add("a long offset table", file_bytes(make(SMALL, syntax=uid.JPEG2000Lossless, frames=[b"x"])).split(b"\xfe\xff\x00\xe0")[0] + fragments([b"ab", b"cd"], bytes(20_000_000)), "JPEG 2000")
    add("palette too short", file_bytes(palette(make(SMALL >> 4, 8, 8, photometric="PALETTE COLOR"), 0, [1], [1], [1], 16, count=0)), "65536 entries")
    bomb = [0, 1, 5] + [1, 65535, 9] * 20 + [2, 65535, 0, 0] * 2000
    add("segmented palette that repeats itself", file_bytes(palette(make(SMALL >> 4, 8, 8, photometric="PALETTE COLOR"), 0, bomb, bomb, [7], 16, segmented=True, count=0)), "segmented|entries")
    add("table too short", file_bytes(make(SMALL, ModalityLUTSequence=table(0, [1, 2, 3], 16, count=0))), "65536 entries")
    add("jpeg of markers", file_bytes(make(SMALL >> 4, 8, 8, syntax=uid.JPEGBaseline8Bit, frames=[b"\xff\xd8" + b"\xff\xfe\0\x02" * 1_000_000 + b"\xff\xd9"])), "JPEG")
    add("jpeg of ff", file_bytes(make(SMALL >> 4, 8, 8, syntax=uid.JPEGBaseline8Bit, frames=[b"\xff\xd8" + b"\xff" * 4_000_000 + b"\xd9"])), "JPEG")
    add("jp2 boxes without length", file_bytes(make(SMALL, syntax=uid.JPEG2000Lossless, frames=[b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x01abcd" + bytes(8) + b"\0\0\0\x08abcd" * 9])), "JPEG 2000|JP2")
    for name, path in (("path as uid", "../../../etc/passwd"), ("windows path as uid", "C:\\Windows\\x"), ("empty uid", " ")):
        add(name, meta(path) + body(SMALL), "transfer syntax") if path.strip() else None
    add("a million fragments", EXPLICIT + body(SMALL, pixel=element(0x7FE00010, b"OB", fragments([b"\0"] * 1_000_000), length=UNDEFINED)), "more than")
    add("zeros", bytes(1 << 20), "not a DICOM"); add("text", b"Hello, world\n" * 50, "not a DICOM"); add("one byte", b"\x08", "not a DICOM"); add("meta only", EXPLICIT, "no Rows"); add("png", b"\x89PNG\r\n\x1a\n" + bytes(500), "not a DICOM")
    return files


MEASURE = """
import json, os, resource, sys, time
import numpy as np
from medcrypt.imaging.dicom import DicomError, read_dicom
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for path in sys.argv[1:]:
    child = os.fork()   # a process for each, so that every peak is its own
    if not child:
        started, before = time.process_time(), peak()
        try: image = read_dicom(path); image.display; message = None
        except DicomError as error: message = str(error)
        print(json.dumps([path, message, time.process_time() - started, peak() - before]), flush=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status: print(json.dumps([path, f"ended with status {status}", 0, 0]), flush=True)
"""

def test_hostile_files_are_refused_fast_and_in_little_memory(tmp_path):
    if not hasattr(os, "fork"): pytest.skip("memory is measured in forked processes, which Windows lacks")
    files = hostile(); paths = {}
    for k, (name, (data, _)) in enumerate(files.items()): paths[name] = tmp_path / f"{k}.dcm"; paths[name].write_bytes(data)
    done = subprocess.run([sys.executable, "-W", "error", "-c", MEASURE, *map(str, paths.values())], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", (done.stderr[-2000:], done.stdout[-300:])
    wrong = []
    for (name, (_, word)), line in zip(files.items(), done.stdout.splitlines(), strict=True):
        path, message, time_s, growth_mib = json.loads(line)
        if not (message and message.startswith(f"{path}: ") and re.search(word, message) and "\n" not in message and len(message) < 400 and time_s < 1 and growth_mib < 400): wrong.append((name, message, round(time_s, 2), round(growth_mib)))
    assert not wrong, "\n".join(map(str, wrong))


def test_path_like_identifiers_are_only_text(tmp_path, monkeypatch):
    from medcrypt.imaging.dicom import read_dicom
    monkeypatch.chdir(tmp_path)
    ds = make(SMALL, PatientID="../../evil", ); data = file_bytes(ds).replace(b"1.2.3.4\0", b"1/../../").replace(b"1.2.3.4.55555\0", b"../../evil.dcm")
    image = read_dicom(data)
    assert np.array_equal(image.stored, SMALL) and "evil" not in repr(image.header) and list(tmp_path.iterdir()) == []


def test_a_large_file_that_is_no_dicom_is_not_read_whole(tmp_path):
    import tracemalloc
    from medcrypt.imaging.dicom import DicomError, read_dicom
    with open(tmp_path / "film.mp4", "wb") as file: file.write(b"\0\0\0 ftypisom"); file.truncate(1 << 30)   # sparse
    tracemalloc.start()
    try:
        with pytest.raises(DicomError, match="film.mp4: not a DICOM file"): read_dicom(tmp_path / "film.mp4")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally: tracemalloc.stop()
