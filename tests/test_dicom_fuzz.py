"Damaged files of every transfer syntax: a picture or DicomError, never another exception, never a message with what is written in the file."
import io, struct, subprocess, sys, warnings, zlib
from functools import lru_cache
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_files import file_bytes, make, table
from hypothesis import HealthCheck, given, settings, strategies as st
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from test_dicom_encodings import boxed, rle_frame, smooth
from test_dicom_kinds import group, palette

from medcrypt.imaging.dicom import DicomError, read_dicom, read_series
from medcrypt.imaging.jpeg2000 import encode

MARK = "Doe^Jane"   # PatientName of every file here


@lru_cache(maxsize=1)
def sources():
    "One small valid file of every kind."
    rng = np.random.default_rng(3)
    grey = smooth((24, 20), 12); two = np.stack([grey, grey[::-1]]); signed = grey.astype(np.int16) - 2048
    eight = smooth((24, 20), 8); rgb = np.stack([eight, eight[::-1], 255 - eight], -1)
    voi = dict(VOILUTSequence=table(0, range(256), 8), WindowCenter=["1", "2"], WindowWidth=["3", "4"], PixelPaddingValue=4, PixelPaddingRangeLimit=9, ImagePositionPatient=[0, 0, 1.5], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    per_frame = dict(PerFrameFunctionalGroupsSequence=Sequence([group(PixelValueTransformationSequence=dict(RescaleSlope="1.5", RescaleIntercept="-3"), FrameVOILUTSequence=dict(WindowCenter="40", WindowWidth="80"))] * 2),
                     SharedFunctionalGroupsSequence=Sequence([group(PixelMeasuresSequence=dict(PixelSpacing=["1", "2"]))]))
    icon = Dataset(); icon.Rows = icon.Columns = 2; icon.PixelData = bytes(4); icon["PixelData"].VR = "OB"
    def deflate(data):
        compressor = zlib.compressobj(wbits=-15); return compressor.compress(data) + compressor.flush()
    def even(frame): return frame + b"\0" * (len(frame) % 2)
    made = {
        "implicit": make(two, syntax=uid.ImplicitVRLittleEndian, **voi, **per_frame), "explicit": make(signed, signed=True, ModalityLUTSequence=table(-2048, range(99), 16, "SS"), IconImageSequence=Sequence([icon]), **voi),
        "big": make(two, syntax=uid.ExplicitVRBigEndian, **voi, **per_frame), "deflated": make(two, syntax=uid.DeflatedExplicitVRLittleEndian, **voi), "one bit": make(eight & 1, 1, 8, BitsAllocated=1, PixelData=bytes(60)),
        "planes": make(np.moveaxis(rgb, -1, 0), 8, 8, photometric="RGB", words=np.moveaxis(rgb, -1, 0), PlanarConfiguration=1, Rows=24, Columns=20, NumberOfFrames=1),
        "422": make(rgb, 8, 8, photometric="YBR_FULL_422", PixelData=bytes(960)), "palette": palette(make(eight, 8, 8, photometric="PALETTE COLOR"), 0, *[range(256)] * 3, 16),
        "segments": palette(make(eight, 8, 8, photometric="PALETTE COLOR"), 0, *[[0, 2, 1, 2, 1, 9, 200, 2, 1, 8, 0]] * 3, 16, segmented=True, count=20),
        "dose": make(rng.integers(0, 1 << 31, (2, 6, 7)), 32, 32, DoseGridScaling="1e-5"),
        "rle": make(two, syntax=uid.RLELossless, frames=[rle_frame(f, 2) for f in two]), "rle colour": make(rgb, 8, 8, syntax=uid.RLELossless, photometric="RGB", frames=[rle_frame(rgb, 1)]),
        "jpeg": make(eight, 8, 8, syntax=uid.JPEGBaseline8Bit, frames=[imagecodecs.jpeg8_encode(eight, 90)]), "jpeg colour": make(rgb, 8, 8, syntax=uid.JPEGBaseline8Bit, photometric="YBR_FULL_422", frames=[imagecodecs.jpeg8_encode(rgb, 90, subsampling="422")]),
        "jpeg 12": make(grey, syntax=uid.JPEGExtended12Bit, frames=[imagecodecs.jpeg8_encode(grey, 90, bitspersample=12)]),
        "jpeg lossless": make(two, syntax=uid.JPEGLosslessSV1, frames=[even(imagecodecs.jpeg8_encode(f, lossless=True, bitspersample=12)) for f in two]), "jpeg predictor 6": make(grey, syntax=uid.JPEGLossless, frames=[imagecodecs.jpeg8_encode(grey, lossless=True, predictor=6, bitspersample=12)]),
        "jpeg-ls": make(two, syntax=uid.JPEGLSLossless, frames=[even(imagecodecs.jpegls_encode(f)) for f in two]), "jpeg-ls near": make(rgb, 8, 8, syntax=uid.JPEGLSNearLossless, photometric="RGB", frames=[imagecodecs.jpegls_encode(rgb, 2)]),
        "jpeg2000": make(two, syntax=uid.JPEG2000Lossless, frames=[even(encode(f, bits=12)) for f in two]), "jpeg2000 lossy": make(rgb, 8, 8, syntax=uid.JPEG2000, photometric="YBR_ICT", frames=[imagecodecs.jpeg2k_encode(rgb, 30, codecformat="j2k", mct=True)]),
        "jp2": make(signed, signed=True, syntax=uid.JPEG2000Lossless, frames=[boxed(encode(signed, bits=12), rows=24, columns=20)]), "htj2k": make(grey, 16, syntax=uid.HTJ2KLossless, frames=[even(imagecodecs.htj2k_encode(grey))]),
        "jpeg xl": make(grey, syntax="1.2.840.10008.1.2.4.110", frames=[imagecodecs.jpegxl_encode(grey, lossless=True, bitspersample=12)]), "jpeg xl lossy": make(rgb, 8, 8, syntax="1.2.840.10008.1.2.4.112", photometric="XYB", frames=[imagecodecs.jpegxl_encode(rgb, 90, usecontainer=True)]),
        "deflated frames": make(two, syntax="1.2.840.10008.1.2.8.1", frames=[even(deflate(f.astype("<u2").tobytes())) for f in two]), "raw frames": make(two, syntax="1.2.840.10008.1.2.1.98", frames=[f.astype("<u2").tobytes() for f in two])}
    return {name: file_bytes(ds) for name, ds in made.items()}


def test_the_files_are_valid():
    for name, data in sources().items(): assert read_dicom(data).display.size in (480, 960, 84), name


NUMBERS = [0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF]
SPLICES = [b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\xdd\xe0\0\0\0\0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\x28\x00\x10\x00US\x02\x00\xff\xff", b"\x28\x00\x08\x00IS\x06\x00999999", b"\xe0\x7f\x10\x00OW\0\0\xff\xff\xff\xff", b"\xff\xd8\xff\xd9", b"\xff\x4f\xff\x51",
           b"UN", b"SQ", b"\\", b"1e309", b"nan", b"\xff" * 9, bytes(40)]

def mutate(data, changes):
    "`data` with every change: (what, where in 0..1, number)."
    data = bytearray(data)
    for what, where, number in changes:
        at = int(where * max(len(data) - 1, 1))
        if what in ("head", "head flip"): at = 132 + int(where * min(len(data) - 133, 700)) if len(data) > 140 else 0
        if what in ("byte", "head"): data[at:at + 1] = bytes([number & 255])
        elif what in ("flip", "head flip"): data[at:at + 1] = bytes(byte ^ 1 << number % 8 for byte in data[at:at + 1])
        elif what == "cut": del data[max(at, 1):]
        elif what == "drop": del data[at:at + 1 + number % 300]
        elif what == "insert": data[at:at] = SPLICES[number % len(SPLICES)]
        elif what == "copy": data[at:at] = data[at // 2:at // 2 + number % 200]
        elif what == "number": size = 2 if number & 1 else 4; data[at & ~1:(at & ~1) + size] = (NUMBERS[number // 2 % len(NUMBERS)] & (1 << 8 * size) - 1).to_bytes(size, "little" if number & 64 else "big")
        else: # an element: its length, its VR, or all of it
            place = data.find(struct.pack("<H", [0x0028, 0x7FE0, 0x0020, 0x0008, 0x5200, 0xFFFE][number % 6]), at)
            if place < 0: continue
            if what == "length": data[place + 6:place + 8] = (NUMBERS[number // 6 % len(NUMBERS)] & 0xFFFF).to_bytes(2, "little")
            elif what == "vr": data[place + 4:place + 6] = [b"UN", b"SQ", b"OB", b"OW", b"DS", b"ZZ", b"\0\0", b"FD"][number // 6 % 8]
            else: del data[place:place + 8 + number // 6 % 16]
    return bytes(data)

WHAT = ["byte", "head", "flip", "head flip", "cut", "drop", "insert", "copy", "number", "length", "vr", "element"]
CHANGES = st.lists(st.tuples(st.sampled_from(WHAT), st.floats(0, 1), st.integers(0, 1 << 12)), min_size=1, max_size=4)


def attempt(source, reader=read_dicom):
    "Picture or None; anything but DicomError fails, and so does one whose text repeats the patient's name or has several lines."
    try:
        image = reader(source)
        assert image.modality.dtype.kind == "f" and image.padding.dtype == bool and np.isfinite(image.modality).all() and MARK not in repr(image.header) + repr(image)
        if image.colour != "grey": assert image.rgb.shape == (*image.modality.shape, 3)
        shown = image.display
        assert shown.dtype == np.float32 and shown.shape == image.modality.shape == image.padding.shape and 0 <= shown.min() and shown.max() <= 1
        return image
    except DicomError as error:
        assert "\n" not in str(error) and MARK not in str(error) and len(str(error)) < 400
        return None


@settings(derandomize=True, max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(sources())), CHANGES)
def test_damaged_files_give_a_picture_or_dicom_error(name, changes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")     # nor a warning, whose text could hold anything
        attempt(mutate(sources()[name], changes))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.sampled_from(sorted(sources())), st.floats(0, 1, exclude_max=True))
def test_cut_files_are_refused_or_whole(name, where):
    data = sources()[name]; whole = read_dicom(data)
    image = attempt(data[:int(where * len(data))])
    assert image is None or np.array_equal(image.stored, whole.stored)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(CHANGES, CHANGES)
def test_damaged_series(first, second):
    data = sources()["explicit"]
    attempt([mutate(data, first), mutate(data.replace(b"1.5\0", b"2.5\0"), second)], read_series)


@pytest.mark.filterwarnings("ignore")
@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sampled_from(sorted(sources())), CHANGES)
def test_damaged_data_sets_of_pydicom(name, changes):
    try: ds = pydicom.dcmread(io.BytesIO(mutate(sources()[name], changes)), force=True)
    except Exception: return     # pydicom's own parser gave up, with any exception: nothing to read
    attempt(ds)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"", bytes(128) + b"DICM", b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x08\x00\x05\x00CS"]))
def test_noise(data, start): attempt(start + data)


CAMPAIGN = """
import sys, random
sys.path.insert(0, {tests!r})
import test_dicom_fuzz as fuzz
for seed in range({first}, {last}):
    draw = random.Random(seed); name = draw.choice(sorted(fuzz.sources()))
    print(seed, name, flush=True)
    fuzz.attempt(fuzz.mutate(fuzz.sources()[name], [(draw.choice(fuzz.WHAT), draw.random(), draw.randrange(1 << 12)) for _ in range(draw.randint(1, 4))]))
print("done")
"""

def test_decoders_survive_in_a_process_of_their_own():
    "A decoder in C can end the process; this one may, the test run would not."
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CAMPAIGN.format(tests=str(Path(__file__).parent), first=0, last=1000)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("done\n"), (done.returncode, done.stdout[-60:], done.stderr[-800:])
