"DICOM beyond the file cases: every syntax the same picture, functional groups, series, damage, sources, privacy, real files."
import csv, io, re, subprocess, sys, warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings, strategies as st
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from medcrypt.imaging.dicom import DicomError, read_dicom, read_series
from medcrypt.imaging.grey import Grey, Lut, window
from medcrypt.imaging.jpeg2000 import encode

SHARED = Path(__file__).resolve().parents[2] / "shared"
REAL = SHARED / "data" / "dicom"
RNG = np.random.default_rng(7)


def dataset(pixels, bits=12, allocated=16, signed=False, syntax=uid.ExplicitVRLittleEndian, **elements):
    "Data set around `pixels` ([frames,] rows, columns); `elements` are set last."
    ds = Dataset(); ds.file_meta = FileMetaDataset(); ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.55555"
    ds.Modality, ds.SeriesInstanceUID, ds.PatientName, ds.PatientID = "CT", "1.2.3.4", "Doe^Jane", "SECRET-1"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    if pixels.ndim == 3: ds.NumberOfFrames = len(pixels)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = allocated, bits, bits - 1, int(signed)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    ds.add_new("PixelData", "OW" if allocated > 8 else "OB", pixels.astype(f"{order}{'i' if signed else 'u'}{allocated // 8}").tobytes())
    for keyword, value in elements.items(): setattr(ds, keyword, value)
    return ds


def file_bytes(ds):
    buffer = io.BytesIO(); ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def lut(first, entries, bits, keyword_vr="US"):
    item = Dataset(); item.add_new("LUTDescriptor", keyword_vr, [len(entries) & 0xFFFF, first, bits]); item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return Sequence([item])


# --- the same picture in every coding ---------------------------------------------------------------------------------------------------

NATIVE = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian]

@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("bits, allocated, signed", [(8, 8, False), (12, 16, False), (12, 16, True), (16, 16, True), (32, 32, False), (20, 32, True)])
def test_native_syntaxes_agree(syntax, bits, allocated, signed):
    low = -(1 << bits - 1) if signed else 0
    pixels = RNG.integers(low, low + (1 << bits), (5, 7))
    first = {"PixelPaddingValue": int(pixels[0, 0])} if bits <= 16 else {}
    ds = dataset(pixels, bits, allocated, signed, syntax, WindowCenter="10", WindowWidth="500", **first)
    if bits <= 16: ds["PixelPaddingValue"].VR = "SS" if signed else "US"
    image = read_dicom(file_bytes(ds))
    assert np.array_equal(image.stored, pixels) and image.stored.dtype.itemsize == allocated // 8
    assert image.padding.any() == (bits <= 16) and image.header["transfer_syntax"] == syntax.name
    assert np.array_equal(image.modality, pixels)


@pytest.mark.parametrize("syntax", NATIVE)
def test_tables_in_every_syntax(syntax):
    pixels = np.array([[-3, -2, 0, 1, 9]])
    ds = dataset(pixels, 16, 16, True, syntax)
    ds.ModalityLUTSequence, ds.VOILUTSequence = lut(-2 if syntax.is_implicit_VR else 0xFFFE, [100, 200, 300, 400], 16), lut(200, [0, 5, 10], 8)
    if syntax.is_implicit_VR: ds.ModalityLUTSequence[0]["LUTDescriptor"].VR = "SS"
    image = read_dicom(file_bytes(ds))
    assert image.modality.tolist() == [[100, 100, 300, 400, 400]]
    np.testing.assert_allclose(image.display, [[0, 0, 10 / 255, 10 / 255, 10 / 255]], atol=1e-6)
    assert image.header["modality_lut"] and image.header["voi_lut"] and image.header["rescale"] is None


def test_big_endian_bytes_in_words():
    pixels = RNG.integers(0, 256, (4, 6))
    swapped = pixels.astype(np.uint8).tobytes()
    swapped = bytes(b for pair in zip(swapped[1::2], swapped[::2]) for b in pair)
    ds = dataset(pixels, 8, 8, syntax=uid.ExplicitVRBigEndian)
    ds.add_new("PixelData", "OW", swapped)
    assert np.array_equal(read_dicom(file_bytes(ds)).stored, pixels)


def compressed(pixels, frames, syntax, bits=12, allocated=16, signed=False, **elements):
    ds = dataset(pixels, bits, allocated, signed, syntax, **elements)
    ds.add_new("PixelData", "OB", encapsulate(frames)); ds["PixelData"].is_undefined_length = True
    return ds


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 13, 16])
def test_jpeg2000_of_every_depth(bits, signed):
    low = -(1 << bits - 1) if signed else 0
    pixels = RNG.integers(low, low + (1 << bits), (3, 33, 17)).astype(np.int16 if signed else np.uint16)
    honest = [encode(frame, bits=bits) for frame in pixels]
    unsigned = [encode((frame.astype(np.int64) & (1 << bits) - 1).astype(np.uint16), bits=bits) for frame in pixels]   # codestream says unsigned
    for frames in (honest, unsigned):
        assert np.array_equal(read_dicom(file_bytes(compressed(pixels, frames, uid.JPEG2000Lossless, bits, 16, signed))).stored, pixels)
    wide = compressed(pixels, unsigned, uid.JPEG2000Lossless, 16, 16, signed)    # BitsStored says 16, the codestream knows better
    assert np.array_equal(read_dicom(file_bytes(wide)).stored, pixels)


def test_negative_codestream_under_an_unsigned_header_is_refused():
    pixels = np.full((8, 8), -5, np.int16)
    with pytest.raises(DicomError, match="negative"): read_dicom(file_bytes(compressed(pixels, [encode(pixels, bits=12)], uid.JPEG2000Lossless)))


@pytest.mark.parametrize("width", [1, 2])
def test_rle_against_pydicom(width):
    pixels = np.repeat(RNG.integers(0, 1 << 8 * width, (2, 9, 5)), 3, axis=2).astype(f"<u{width}")
    ds = dataset(pixels, 8 * width, 8 * width); ds.compress(uid.RLELossless)
    assert np.array_equal(read_dicom(file_bytes(ds)).stored, pixels)
    colour = np.repeat(RNG.integers(0, 1 << 8 * width, (6, 4, 3)), 2, axis=1).astype(f"<u{width}")
    ds = dataset(colour[..., 0], 8 * width, 8 * width, PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0, PixelData=colour.tobytes())
    ds.compress(uid.RLELossless)
    image = read_dicom(file_bytes(ds))
    assert np.array_equal(image.stored, colour) and image.display.shape == (6, 8)


def test_rle_of_unlimited_length_stays_small():
    pixels = np.zeros((4, 4), np.uint8)
    bomb = np.array([1, 64, *[0] * 14], "<u4").tobytes() + bytes([129, 7]) * 500_000    # 64 MB if decoded to the end
    assert (read_dicom(file_bytes(compressed(pixels, [bomb], uid.RLELossless, 8, 8))).stored == 7).all()


@pytest.mark.parametrize("high", [11, 13, 15])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_around_the_pixel_do_not_matter(high, signed):
    low = -2048 if signed else 0
    pixels = RNG.integers(low, low + 4096, (6, 6))
    shift = high - 11
    words = (pixels & 0xFFF) << shift | RNG.integers(0, 1 << 16, (6, 6)) & ~(0xFFF << shift) & 0xFFFF
    ds = dataset(words, 12, 16, signed, HighBit=high, PixelData=words.astype("<u2").tobytes())
    assert np.array_equal(read_dicom(ds).stored, pixels)


def test_one_bit_frames_are_not_aligned_to_bytes():
    pixels = RNG.integers(0, 2, (3, 5, 7))
    ds = dataset(pixels.astype(np.uint8), 1, 8, BitsAllocated=1, PixelData=np.packbits(pixels.ravel(), bitorder="little").tobytes())
    assert np.array_equal(read_dicom(ds).stored, pixels)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.sampled_from([8, 16, 32]), st.booleans(), st.integers(0, 99))
def test_any_shape(rows, columns, frames, allocated, signed, seed):
    low = -(1 << allocated - 1) if signed else 0
    pixels = np.random.default_rng(seed).integers(low, low + (1 << allocated), (frames, rows, columns))
    image = read_dicom(dataset(pixels, allocated, allocated, signed))
    expected = pixels if frames > 1 else pixels[0]
    assert np.array_equal(image.stored, expected) and image.frames == frames
    assert image.display.shape == expected.shape and 0 <= image.display.min() <= image.display.max() <= 1


# --- grey levels ------------------------------------------------------------------------------------------------------------------------

@given(st.floats(-3000, 3000), st.floats(1, 4000), st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
def test_window_is_the_formula_of_the_standard(center, width, function):
    x = np.linspace(-4000, 4000, 801)
    if function == "SIGMOID": expected = 1 / (1 + np.exp(np.minimum(-4 * (x - center) / width, 700)))
    else:
        c, w = (center - .5, width - 1) if function == "LINEAR" else (center, width)
        expected = np.array([0 if v <= c - w / 2 else 1 if v > c + w / 2 else (v - c) / w + .5 for v in x])
    np.testing.assert_allclose(window(x, center, width, function), expected, atol=1e-9)


@pytest.mark.parametrize("elements, word", [
    ({"WindowCenter": "40", "WindowWidth": "0"}, "WindowWidth"), ({"WindowCenter": "40", "WindowWidth": "-5", "VOILUTFunction": "SIGMOID"}, "WindowWidth"),
    ({"WindowCenter": "40", "WindowWidth": "400", "VOILUTFunction": "CUBIC"}, "VOILUTFunction")])
def test_unusable_window_spoils_the_display_only(elements, word):
    image = read_dicom(dataset(np.arange(12).reshape(3, 4), **elements))
    assert image.modality.max() == 11
    with pytest.raises(DicomError, match=word): image.display


def test_monochrome1_is_inverted_once_after_voi_and_padding_is_black():
    pixels = np.array([[0, 100, 4000, 4095]])
    image = read_dicom(dataset(pixels, PhotometricInterpretation="MONOCHROME1", WindowCenter="2000", WindowWidth="3000", PixelPaddingValue=4000, PixelPaddingRangeLimit=4095,
                               PresentationLUTShape="INVERSE"))
    assert image.display.tolist() == [[1, 1, 0, 0]] and image.padding.tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("value, signed", [(63536, True), (-2000, True), (63536, False)])
def test_padding_value_has_the_sign_of_the_pixels(value, signed):
    pixels = np.array([[-2000 if signed else 63536, 5]])
    ds = dataset(pixels, 16, 16, signed); ds.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    assert read_dicom(file_bytes(ds)).padding.tolist() == [[True, False]]


def test_rescale_keeps_what_float32_cannot():
    wide = read_dicom(dataset(np.array([[2**32 - 1]]), 32, 32)).modality
    assert wide[0, 0] == 2**32 - 1
    assert read_dicom(dataset(np.array([[3]]), RescaleSlope="0.1", RescaleIntercept="0")).modality[0, 0] == pytest.approx(.3, abs=1e-12)
    assert read_dicom(dataset(np.array([[3]]), RescaleSlope="1", RescaleIntercept="-1024")).modality.dtype == np.float32


def test_voi_table_below_zero():
    ds = dataset(np.array([[0, 1030, 3000]]), RescaleSlope="1", RescaleIntercept="-1024", VOILUTSequence=lut(0x10000 - 1024, np.arange(2048) % 256, 8))
    assert (read_dicom(ds).display * 255).round().tolist() == [[0, 1030 % 256, 2047 % 256]]


def test_functional_groups_per_frame_and_shared():
    def group(slope=None, center=None):
        item = Dataset()
        if slope: item.PixelValueTransformationSequence = Sequence([Dataset()]); item.PixelValueTransformationSequence[0].RescaleSlope = slope; item.PixelValueTransformationSequence[0].RescaleIntercept = "-10"
        if center: item.FrameVOILUTSequence = Sequence([Dataset()]); item.FrameVOILUTSequence[0].WindowCenter = center; item.FrameVOILUTSequence[0].WindowWidth = "100"
        return item
    pixels = np.full((2, 3, 3), 100)
    ds = dataset(pixels, SharedFunctionalGroupsSequence=Sequence([group(center="100")]), PerFrameFunctionalGroupsSequence=Sequence([group("1"), group("2", "1000")]))
    image = read_dicom(file_bytes(ds))
    assert image.modality[:, 0, 0].tolist() == [90, 190] and image.display[:, 0, 0] == pytest.approx([.404, 0], abs=1e-3)
    ds.PerFrameFunctionalGroupsSequence = Sequence([group("1")])
    with pytest.raises(DicomError, match="functional groups"): read_dicom(ds)


def test_frames_without_window_share_one_range():
    greys = [Grey(8, False, slope=slope) for slope in (1., 2.)]
    assert [grey.display(np.array([255]), (0, 510)).tolist() for grey in greys] == [[.5], [1]]


def test_table_takes_ends_outside():
    assert Lut(5, np.array([1, 2]), 8)(np.array([-1e9, 5.4, 5.6, 1e9])).tolist() == [1, 1, 2, 2]


def test_colour_round_trip_and_422():
    ybr = np.array([[[76, 85, 255], [150, 44, 21]]], np.uint8)      # red and green
    ds = dataset(ybr[..., 0], 8, 8, PhotometricInterpretation="YBR_FULL", SamplesPerPixel=3, PlanarConfiguration=0, PixelData=ybr.tobytes())
    assert np.abs(read_dicom(ds).rgb.astype(int) - [[[254, 0, 0], [0, 255, 1]]]).max() <= 2
    ds.PhotometricInterpretation, ds.PixelData = "YBR_FULL_422", bytes([10, 20, 100, 200])
    image = read_dicom(ds)
    assert image.stored.tolist() == [[[10, 100, 200], [20, 100, 200]]] and image.modality.tolist() == [[10, 20]] and image.display[0, 1] == np.float32(20 / 255)
    with pytest.raises(DicomError, match="no colours"): read_dicom(dataset(np.zeros((2, 2)))).rgb


# --- refusals ---------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("elements, word", [
    ({"Rows": 0}, "no picture"), ({"Columns": None}, "no Columns"), ({"BitsStored": 17}, "contradict"), ({"HighBit": 10}, "contradict"), ({"BitsAllocated": 12}, "BitsAllocated"),
    ({"PixelRepresentation": 2}, "PixelRepresentation"), ({"PhotometricInterpretation": "CMYK"}, "PhotometricInterpretation"), ({"SamplesPerPixel": 3}, "SamplesPerPixel"),
    ({"RescaleSlope": "0"}, "RescaleSlope"), ({"NumberOfFrames": "0"}, "no picture"), ({"Rows": 65535, "Columns": 65535}, "limit"), ({"PixelData": b""}, "Pixel Data"),
    ({"Rows": [3, 4]}, "Rows"), ({"Rows": 1}, "more than the 1 frame")])
def test_header_that_cannot_be(elements, word):
    with pytest.raises(DicomError, match=word), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_dicom(dataset(np.arange(12).reshape(3, 4), **elements))


def test_unsupported_syntax_and_wrong_label():
    ds = dataset(np.arange(12).reshape(3, 4)); ds.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    with pytest.raises(DicomError, match="MPEG2"): read_dicom(ds)
    wrong = compressed(np.zeros((8, 8)), [encode(np.zeros((8, 8), np.uint16), bits=12)], uid.JPEG2000Lossless)
    wrong.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    with pytest.raises(DicomError, match="compressed"): read_dicom(wrong)
    floats = dataset(np.zeros((2, 2))); del floats.PixelData; floats.FloatPixelData = bytes(16)
    with pytest.raises(DicomError, match="fractions"): read_dicom(floats)


def test_codestream_of_another_size_is_not_decoded():
    pixels = np.zeros((8, 8), np.uint16)
    with pytest.raises(DicomError, match="header says"): read_dicom(compressed(pixels, [encode(np.zeros((9, 8), np.uint16), bits=12)], uid.JPEG2000Lossless))
    with pytest.raises(DicomError, match="frame"): read_dicom(compressed(pixels, [encode(pixels, bits=12)] * 2, uid.JPEG2000Lossless, NumberOfFrames=3))


def test_large_picture_of_almost_no_bytes_is_refused():
    black = np.zeros((4200, 4200), np.uint8)
    with pytest.raises(DicomError, match="for each byte"): read_dicom(compressed(black, [encode(black)], uid.JPEG2000Lossless, 8, 8))


def test_limit_is_an_option():
    with pytest.raises(DicomError, match="limit of 10"): read_dicom(dataset(np.zeros((3, 4))), max_samples=10)


# --- sources ----------------------------------------------------------------------------------------------------------------------------

def test_sources_and_names(tmp_path):
    pixels = np.arange(12).reshape(3, 4)
    data = file_bytes(dataset(pixels)); path = tmp_path / "scan.dcm"; path.write_bytes(data)
    with open(path, "rb") as file: sources = [path, str(path), data, bytearray(data), io.BytesIO(data), file, pydicom.dcmread(path), dataset(pixels)]; images = [read_dicom(s) for s in sources]
    assert all(np.array_equal(image.stored, pixels) for image in images)
    assert [image.header["size_bytes"] for image in images] == [len(data)] * 6 + [None] * 2
    path.write_bytes(data[:-2])
    for source in (path, open(path, "rb"), pydicom.dcmread(path)):
        with pytest.raises(DicomError, match="scan.dcm"): read_dicom(source)
    for source, word in ((tmp_path / "none.dcm", "none.dcm: No such file"), (tmp_path, re.escape(f"{tmp_path}: Is a directory"))):
        with pytest.raises(DicomError, match=word): read_dicom(source)


def test_a_data_set_is_not_changed():
    ds = dataset(np.arange(12).reshape(3, 4), WindowCenter="5", WindowWidth="9"); before = ds.to_json()
    read_dicom(ds).display
    assert ds.to_json() == before


def test_nothing_personal_comes_out():
    ds = dataset(np.zeros((3, 4)), InstitutionName="Clinic", StudyDate="20200101", AccessionNumber="A77", SeriesDescription="Jane")
    for source in (ds, file_bytes(ds)):
        image = read_dicom(source)
        text = repr(image) + repr(image.header)
        assert not any(word in text for word in ("Doe", "Jane", "SECRET", "Clinic", "2020", "A77", "1.2.3.4", "55555"))
    ds.PixelData = b"\0"
    with pytest.raises(DicomError) as error: read_dicom(file_bytes(ds))
    assert not any(word in str(error.value) for word in ("Doe", "SECRET"))


def test_reading_warns_of_nothing_and_imports_no_tensorflow(tmp_path):
    path = tmp_path / "scan.dcm"; path.write_bytes(file_bytes(dataset(np.zeros((3, 4)))))
    code = f"import sys; from medcrypt.imaging.dicom import read_dicom; read_dicom({str(path)!r}).display; assert not {{'tensorflow', 'skimage', 'matplotlib'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- damage -----------------------------------------------------------------------------------------------------------------------------

def test_a_jpeg_without_its_end_is_refused():
    path = SHARED / "cases" / "47-jpeg-lossless-sv1" / "image.dcm"
    if not path.is_file(): pytest.skip(f"{path} is missing")
    ds = pydicom.dcmread(path); frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encapsulate([frame[:len(frame) // 2 & ~1]]); ds["PixelData"].is_undefined_length = True
    with pytest.raises(DicomError, match="cut short"): read_dicom(ds)


# --- series -----------------------------------------------------------------------------------------------------------------------------

def slice_(z, value=None, orientation=(1, 0, 0, 0, 1, 0), **elements):
    x = np.cross(orientation[:3], orientation[3:]) * z
    usual = dict(RescaleSlope="1", RescaleIntercept="-10", ImagePositionPatient=[float(v) for v in x], ImageOrientationPatient=list(orientation))
    return dataset(np.full((3, 4), z if value is None else value), **usual | elements)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (.8, .6, 0, 0, 0, -1)])
def test_series_is_sorted_by_position(orientation):
    image = read_series([slice_(z, orientation=orientation, InstanceNumber=99 - z) for z in (30, 5, 10, 0)])
    assert image.stored[:, 0, 0].tolist() == [0, 5, 10, 30] and image.frames == 4 and image.modality[3, 0, 0] == 20
    assert image.header["slice_positions"] == [0, 5, 10, 30] and image.display.shape == (4, 3, 4)


def test_series_with_a_slope_per_slice_has_one_range():
    image = read_series([slice_(0, 4000, RescaleSlope="1", RescaleIntercept="0"), slice_(1, 4000, RescaleSlope="2")])
    assert image.modality[:, 0, 0].tolist() == [4000, 7990] and image.display[0, 0, 0] < .6 < .9 < image.display[1, 0, 0]


def test_series_of_one_is_a_picture(): assert read_series([slice_(1)]).stored.shape == (3, 4)


@pytest.mark.parametrize("slices, word", [
    ([], "no files"), ([slice_(0), slice_(0)], "same position"), ([slice_(0), slice_(1, SeriesInstanceUID="9.9")], "does not belong"),
    ([slice_(0), slice_(1, Rows=2, PixelData=bytes(16))], "does not belong"), ([slice_(0), slice_(1, orientation=(0, 1, 0, 1, 0, 0))], "does not belong"),
    ([slice_(0), slice_(1, ImagePositionPatient=None)], "no ImagePositionPatient"), ([dataset(np.zeros((2, 3, 4)))], "several frames")])
def test_series_refuses(slices, word):
    with pytest.raises(DicomError, match=word): read_series(slices)


def test_series_limit_counts_all_slices():
    with pytest.raises(DicomError, match="limit"): read_series([slice_(z) for z in range(4)], max_samples=40)


# --- files that come with pydicom --------------------------------------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm")), ids=lambda path: path.stem)
def test_pydicom_file(path):
    from pydicom.pixels import pixel_array
    try: image = read_dicom(path)
    except DicomError as error: assert path.name in str(error); return
    image.display
    try: reference = pixel_array(pydicom.dcmread(path, force=True), raw=True)
    except (AttributeError, NotImplementedError, RuntimeError, ValueError): pytest.skip("pydicom does not decode it")
    assert np.array_equal(image.stored, reference)


# --- real files -------------------------------------------------------------------------------------------------------------------------

LABELS = list(csv.DictReader((REAL / "labels.csv").open())) if (REAL / "labels.csv").is_file() else []
needs_real = pytest.mark.skipif(not LABELS, reason=f"{REAL} is missing: real files are not part of the repository")

@needs_real
@pytest.mark.parametrize("row", LABELS, ids=lambda row: row["file"][-60:])
def test_real_file(row):
    path = REAL / row["file"]
    try: image = read_dicom(path)
    except DicomError as error:
        assert row["decodes_pydicom3_pylibjpeg"].startswith("no") and path.name in str(error)
        return
    assert (image.header["rows"], image.header["columns"], image.frames) == (int(row["rows"]), int(row["cols"]), int(row["frames"]))
    shape = tuple(number for number in (image.frames, image.header["rows"], image.header["columns"]) if number > 1)
    assert image.stored.shape == image.display.shape == shape and np.isfinite(image.display).all()
    if found := re.search(r"\[(-?\d+),(-?\d+)\]", row["decodes_pydicom3_pylibjpeg"]): assert (image.stored.min(), image.stored.max()) == tuple(map(int, found.groups()))
    assert image.header["size_bytes"] == int(row["bytes"]) and image.header["bits_stored"] == int(row["bits_stored"])


@needs_real
def test_one_slice_in_fifteen_syntaxes():
    images = {path.name.split("TransferSyntax")[0].removeprefix("CTImage.dcm_"): read_dicom(path) for path in sorted((REAL / "ct_chest_ts_matrix").glob("*.dcm"))}
    assert len(images) == 15
    reference = images["LittleEndianExplicit"]
    for name, image in images.items():
        lossless = not re.search("JPEG2000$|LSLossy|Process1$|Process2_4|Process6_8|Process10_12", name)
        difference = np.abs(image.display.astype(float) - reference.display).mean()
        assert np.array_equal(image.stored, reference.stored) == lossless and difference < (1e-9 if lossless else .05), (name, difference)
    twelve_bit = [images[name].stored.astype(int) for name in ("JPEGProcess2_4", "JPEGProcess6_8", "JPEGProcess10_12")]
    assert max(np.abs(twelve_bit[0] - other).max() for other in twelve_bit[1:]) <= 1    # sequential, spectral selection, progressive


@needs_real
def test_real_series_is_sorted():
    paths = sorted((REAL / "ct_chest_series_CPTAC").glob("*.dcm"))
    image = read_series(reversed(paths))
    positions = image.header["slice_positions"]
    assert image.stored.shape == (20, 512, 512) and np.diff(positions).min() == 3   # whole slices of 3 mm, with gaps
    assert np.array_equal(image.modality[0], read_dicom(min(paths, key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])).modality)
