"Every kind of grey-level, bit, padding and colour header that archives hold, with numbers of our own; answers computed from the formulas of the standard."
import itertools, warnings

import numpy as np
import pytest
from dicom_files import body, element, file_bytes, make, meta, table
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medcrypt.imaging.dicom import DicomError, read_dicom, read_series

RNG = np.random.default_rng(11)
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")


# --- bits -------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("allocated, bits, high", [(16, 10, 9), (16, 10, 15), (16, 12, 13), (16, 9, 8), (16, 9, 12), (16, 15, 14), (16, 1, 0), (16, 16, 15), (8, 7, 6), (8, 5, 6), (8, 1, 7), (8, 8, 7),
                                                   (32, 20, 25), (32, 31, 30), (32, 32, 31), (32, 10, 9)])
def test_bits_outside_the_pixel_are_rubbish_and_the_sign_is_inside(allocated, bits, high, signed, syntax):
    shape, shift = (2, 7, 5), high + 1 - bits
    pixels = RNG.integers(-(1 << bits - 1) if signed else 0, (1 << bits - 1 if signed else 1 << bits), shape)
    code = [int(value) & (1 << bits) - 1 for value in pixels.ravel()]                       # two's complement in `bits` bits
    rubbish = RNG.integers(0, 1 << allocated, shape).ravel()
    words = np.array([c << shift | int(r) & ~(((1 << bits) - 1) << shift) for c, r in zip(code, rubbish)]).reshape(shape)
    image = read_dicom(file_bytes(make(pixels, bits, allocated, high, signed, syntax, words=words)))
    assert np.array_equal(image.stored, pixels) and image.stored.dtype.kind == "ui"[signed]
    assert np.array_equal(image.modality, pixels)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 41), (53, 1), (3, 700), (2, 1, 1)])
def test_any_shape_and_constant_pictures(shape, value):
    image = read_dicom(file_bytes(make(np.full(shape, 4095 * value), SmallestImagePixelValue=7, LargestImagePixelValue=9)))
    assert image.stored.shape == image.display.shape == shape and (image.display == value).all()


@pytest.mark.parametrize("extra", [b"", b"\0", b"\0" * 30, b"\x55" * 33])
def test_odd_and_overlong_pixel_data(extra):
    pixels = RNG.integers(0, 256, (7, 9))
    ds = make(pixels, 8, 8); ds.PixelData = ds.PixelData[:63] + extra
    assert np.array_equal(read_dicom(ds).stored, pixels)


# --- the grey pipeline against the formulas, written down once more -----------------------------------------------------------------------

def by_the_standard(pixels, low, high, slope=1, intercept=0, modality_lut=None, voi_lut=None, window=None, function="LINEAR", inverted=False, padding=None):
    "(modality, display), value by value, in Python floats."
    modality, display = [], []
    if modality_lut: ends = 0, (1 << modality_lut[2]) - 1
    else: ends = sorted([low * slope + intercept, high * slope + intercept])
    def look(value, first, entries): return entries[min(max(round(value) - first, 0), len(entries) - 1)]
    for stored in pixels.ravel().tolist():
        x = look(stored, *modality_lut[:2]) if modality_lut else stored * slope + intercept
        if voi_lut: y = look(x, *voi_lut[:2]) / ((1 << voi_lut[2]) - 1)
        elif window:
            c, w = window
            if function == "SIGMOID": y = 1 / (1 + np.exp(min(-4 * (x - c) / w, 700)))
            elif function == "LINEAR": y = 0 if x <= c - .5 - (w - 1) / 2 else 1 if x > c - .5 + (w - 1) / 2 else (x - (c - .5)) / (w - 1) + .5
            else: y = 0 if x <= c - w / 2 else 1 if x > c + w / 2 else (x - c) / w + .5
        else: y = (x - ends[0]) / (ends[1] - ends[0])
        y = 1 - y if inverted else y
        if padding and min(padding) <= stored <= max(padding): y = 0
        modality.append(x); display.append(y)
    return np.array(modality, float).reshape(pixels.shape), np.array(display, float).reshape(pixels.shape)


VOI = ["none", "LINEAR", "LINEAR_EXACT", "SIGMOID", "table", "table and window", "several windows"]

@pytest.mark.parametrize("large", [False, True], ids=["fewer pixels than values", "more pixels than values"])
@pytest.mark.parametrize("bits, signed", [(8, False), (10, True), (12, False), (12, True)])
@pytest.mark.parametrize("modality", ["none", "1/-1024", "-3/700", "0.37/-10.25", "-0.013/2.5E1", "table"])
@pytest.mark.parametrize("voi", VOI)
def test_grey_pipeline(voi, modality, bits, signed, large):
    rng = np.random.default_rng([VOI.index(voi), bits, signed, large, len(modality)])
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    pixels = rng.integers(low, high + 1, (83, 101) if large else (5, 7))
    elements, known = {}, {}
    if modality == "table":
        first, entries = int(rng.integers(low, high - 20)), rng.integers(0, 1 << 16, 19)
        elements["ModalityLUTSequence"] = table(first & 0xFFFF, entries, 16); known["modality_lut"] = first, entries.tolist(), 16
    elif modality != "none":
        elements["RescaleSlope"], elements["RescaleIntercept"] = modality.split("/"); known["slope"], known["intercept"] = map(float, modality.split("/"))
    span = np.sort([low * known.get("slope", 1) + known.get("intercept", 0), high * known.get("slope", 1) + known.get("intercept", 0)]) if modality != "table" else (0, 65535)
    if voi.startswith("table"):
        first, entries = int(span[0] + (span[1] - span[0]) / 4), rng.integers(0, 1 << 10, 30)
        elements["VOILUTSequence"] = table(first & 0xFFFF, entries, 10); known["voi_lut"] = first, entries.tolist(), 10
    if voi not in ("none", "table"):
        window = round(float(rng.uniform(*span)), 1), round(float(max((span[1] - span[0]) / 2, 2)), 1)
        elements["WindowCenter"], elements["WindowWidth"] = str(window[0]), str(window[1]); known["window"] = window
        if voi in ("LINEAR_EXACT", "SIGMOID"): elements["VOILUTFunction"] = known["function"] = voi
        if voi == "several windows": elements["WindowCenter"], elements["WindowWidth"] = [str(window[0]), "9", "1e3"], [str(window[1]), "1", "2000"]
    for photometric, padded in itertools.product(("MONOCHROME1", "MONOCHROME2"), (False, True)):
        more = {"PixelPaddingValue": int(pixels[0, 0]) & 0xFFFF, "PixelPaddingRangeLimit": int(pixels[1, 1]) & 0xFFFF} if padded else {}
        ends = (int(pixels[0, 0]), int(pixels[1, 1])) if padded else None
        image = read_dicom(make(pixels, bits, signed=signed, photometric=photometric, **elements, **more))
        expected, display = by_the_standard(pixels, low, high, inverted=photometric == "MONOCHROME1", padding=ends, **known)
        assert np.abs(image.modality - expected).max() <= 1e-9 * max(1, np.abs(expected).max())
        assert np.abs(image.display - display).max() < 3e-6 and image.display.dtype == np.float32
        assert image.padding.any() == padded and np.array_equal(image.padding, (pixels >= min(ends)) & (pixels <= max(ends)) if padded else np.zeros(pixels.shape, bool))


@pytest.mark.parametrize("center", [-37.5, 0, 41, 1000.25])
def test_width_one_is_a_step(center):
    pixels = np.arange(-1024, 2000).reshape(12, 252)
    image = read_dicom(make(pixels, 12, signed=True, WindowCenter=str(center), WindowWidth="1"))
    assert np.array_equal(image.display, (pixels > center - .5).astype(np.float32))


@pytest.mark.parametrize("text, number", [(" 4.10e+01", 41), ("4E2 ", 400), ("+.5", .5), ("-0012", -12), ("7.", 7), (" 1e-2 ", .01), ("123456789.12345 ", 123456789.12345)])
def test_decimal_text(text, number):
    middle = element(0x00281050, b"DS", text.encode() + b" " * (len(text) % 2)) + element(0x00281051, b"DS", b" 17 \\ 3") + element(0x00281052, b"DS", text.encode() + b"\0" * (len(text) % 2)) + element(0x00281053, b"DS", b"  ")
    image = read_dicom(meta(uid.ExplicitVRLittleEndian) + body(np.array([[3, 5]]), middle=middle))
    assert image.header["window"]["center"] == pytest.approx(number, rel=1e-12) and image.header["window"]["width"] == 17
    assert image.modality == pytest.approx(np.array([[3 + number, 5 + number]]), rel=1e-12)


@pytest.mark.parametrize("text", ["1_0", "nan", "inf", "0x10", "1,5", "1 2", "--3", "Doe"])
def test_text_that_is_no_number_is_refused_and_not_repeated(text):
    with pytest.raises(DicomError, match="RescaleIntercept is not a number") as caught:
        read_dicom(meta(uid.ExplicitVRLittleEndian) + body(np.array([[3]]), middle=element(0x00281052, b"DS", text.encode())))
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("slope, intercept, expected", [("", "", 8), ("", "-5", 3), ("2.5", "", 20), (None, None, 8), ("-1", "0", -8)])
def test_empty_rescale(slope, intercept, expected):
    image = read_dicom(file_bytes(make(np.array([[8]]), RescaleSlope=slope, RescaleIntercept=intercept, WindowCenter=None, WindowWidth="")))
    assert image.modality[0, 0] == expected and image.header["window"] is None


def test_numbers_too_large_for_float32_stay_finite():
    for center, width, slope in (("1e300", "1e300", "1"), ("1e-200", "1e-300", "1"), ("5", "1e99", "1e250"), ("-1e38", "1e38", "1")):
        shown = read_dicom(make(np.arange(4096).reshape(64, 64), WindowCenter=center, WindowWidth=width, RescaleSlope=slope, RescaleIntercept="0", VOILUTFunction="LINEAR_EXACT")).display
        assert np.isfinite(shown).all()
    with pytest.raises(DicomError, match="too large"): read_dicom(make(np.array([[1]]), RescaleSlope="1e300", RescaleIntercept="0"))


# --- tables -----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("count", [255, 256])
@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
def test_modality_table_of_8_bit_entries(packed, count, syntax):
    entries = RNG.integers(0, 256, count)
    pixels = np.arange(-20, 300).reshape(16, 20)
    image = read_dicom(file_bytes(make(pixels, 16, signed=True, syntax=syntax, ModalityLUTSequence=table(3, entries, 8, packed=packed), RescaleSlope="5", RescaleIntercept="5")))
    assert np.array_equal(image.modality, entries[np.clip(pixels - 3, 0, count - 1)]) and image.header["rescale"] is None


def test_tables_of_65536_entries():
    entries = RNG.integers(0, 65536, 65536)
    pixels = RNG.integers(-32768, 32768, (9, 300))
    ds = make(pixels, 16, signed=True, ModalityLUTSequence=table(0x8000, entries, 16, data_vr="OW"), VOILUTSequence=table(0, entries[::-1], 16, data_vr="OW"))
    for source in (ds, file_bytes(ds)):
        image = read_dicom(source)
        expected = entries[pixels + 32768]
        assert np.array_equal(image.modality, expected)
        np.testing.assert_allclose(image.display, entries[::-1][expected] / 65535, atol=1e-6)


@pytest.mark.parametrize("first, vr, signed, bits, meant", [
    (-100, "SS", True, 12, -100), (0xFF9C, "US", True, 12, -100), (40000, "US", False, 16, 40000), (-25536, "SS", False, 16, 40000), (-100, "SS", False, 12, -100), (7, "US", False, 12, 7), (2000, "SS", True, 12, 2000)])
def test_first_value_of_a_modality_table_has_the_sign_of_the_pixels(first, vr, signed, bits, meant):
    entries = np.arange(500, 900)
    pixels = np.clip(np.arange(meant - 10, meant + 450), -2048 if signed else 0, 2047 if signed else (1 << bits) - 1).reshape(20, 23)
    image = read_dicom(file_bytes(make(pixels, bits, signed=signed, ModalityLUTSequence=table(first, entries, 16, vr))))
    assert np.array_equal(image.modality, entries[np.clip(pixels - meant, 0, 399)])


def test_first_value_of_a_voi_table_has_the_sign_of_what_the_rescale_gives():
    pixels = np.arange(0, 4095, 13).reshape(5, 63)
    for intercept, first, meant in (("-1024", 0x10000 - 700, -700), ("-1024", 50, 50), ("40000", 41000, 41000), ("30000", 32800, 32800)):
        image = read_dicom(make(pixels, RescaleSlope="1", RescaleIntercept=intercept, VOILUTSequence=table(first, np.arange(256), 8)))
        np.testing.assert_allclose(image.display, np.clip(pixels + float(intercept) - meant, 0, 255) / 255, atol=1e-6)


def test_table_in_a_sequence_of_vr_un_or_without_numbers():
    ds = make(np.array([[0, 1, 2]]), ModalityLUTSequence=Sequence([Dataset()]))
    with pytest.raises(DicomError, match="descriptor"): read_dicom(file_bytes(ds))
    short = make(np.array([[0, 1, 2]]), VOILUTSequence=table(0, [1, 2, 3], 8, count=40))
    with pytest.raises(DicomError, match="40 entries of 8 bits, has 3"): read_dicom(file_bytes(short))
    assert read_dicom(file_bytes(make(np.array([[0, 1]]), VOILUTSequence=Sequence([]), ModalityLUTSequence=Sequence([])))).modality.tolist() == [[0, 1]]


# --- padding ----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("value, limit, signed, bits, marked", [
    (-1500, None, True, 16, [-1500]), (64036, None, True, 16, [-1500]), (-1500, -1498, True, 16, [-1500, -1499, -1498]), (-1498, 64036, True, 16, [-1500, -1499, -1498]),
    (2596, None, True, 12, [-1500]), (65535, None, True, 10, [-1]), (-1, None, False, 16, [65535]), (65535, 65533, False, 16, [65533, 65534, 65535]), (0, 2, False, 12, [0, 1, 2]), (3, 3, False, 12, [3]),
    (255, None, True, 8, [-1]), (63536, None, False, 12, [])])
def test_padding(value, limit, signed, bits, marked):
    low = -(1 << bits - 1) if signed else 0
    pixels = np.array(sorted({*marked, low, low + 5, low + 77, -low + 100 if bits > 8 else 5, 1500 if bits > 10 else 50, 9}))[None]
    pixels = pixels[(pixels >= low) & (pixels < low + (1 << bits))][None]
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        ds = make(pixels, bits, 8 if bits == 8 else 16, signed=signed, photometric=photometric)
        ds.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
        if limit is not None: ds.add_new("PixelPaddingRangeLimit", "SS" if limit < 0 else "US", limit)
        for source in (file_bytes(ds), ds):
            image = read_dicom(source)
            assert np.array_equal(image.padding, np.isin(pixels, marked)) and (image.display[image.padding] == 0).all()
            assert np.array_equal(image.modality, pixels)     # padding is marked, its values stay


def test_padding_is_a_stored_value_also_with_a_table_and_a_rescale():
    pixels = np.array([[5, 6, 7, 1000]])
    tabled = read_dicom(make(pixels, PixelPaddingValue=6, ModalityLUTSequence=table(5, [6, 100, 200], 16)))
    assert tabled.padding.tolist() == [[False, True, False, False]] and tabled.modality.tolist() == [[6, 100, 200, 200]]
    scaled = read_dicom(make(pixels, PixelPaddingValue=6, RescaleSlope="6", RescaleIntercept="-29", WindowCenter="1", WindowWidth="9", photometric="MONOCHROME1"))
    assert scaled.padding.tolist() == [[False, True, False, False]] and scaled.display[0, 1] == 0
    only_limit = read_dicom(make(pixels, PixelPaddingRangeLimit=6))
    assert not only_limit.padding.any()


# --- frames and functional groups --------------------------------------------------------------------------------------------------------

def group(**macros):
    outer = Dataset()
    for name, values in macros.items():
        inner = Dataset()
        for keyword, value in values.items(): setattr(inner, keyword, value)
        setattr(outer, name, Sequence([inner]))
    return outer


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_enhanced_object_with_a_rescale_and_window_of_its_own_for_every_frame(syntax):
    pixels = RNG.integers(-2048, 2048, (4, 9, 11))
    slopes, intercepts, centers, widths = [1, 2.5, -1, .125], [-1024, 0, 7, -.5], [40, 300.5, 0, 1], [400, 55, 1, 30]
    functions = ["LINEAR", "LINEAR_EXACT", "LINEAR", "SIGMOID"]
    frames = [group(PixelValueTransformationSequence=dict(RescaleSlope=str(s), RescaleIntercept=str(i), RescaleType="HU"), FrameVOILUTSequence=dict(WindowCenter=str(c), WindowWidth=str(w), VOILUTFunction=f))
              for s, i, c, w, f in zip(slopes, intercepts, centers, widths, functions)]
    shared = [group(PixelMeasuresSequence=dict(PixelSpacing=["0.4", "0.6"], SliceThickness="2.5"))]
    ds = make(pixels, 12, signed=True, syntax=syntax, PerFrameFunctionalGroupsSequence=Sequence(frames), SharedFunctionalGroupsSequence=Sequence(shared), RescaleSlope="99", WindowCenter="99", WindowWidth="99")
    image = read_dicom(file_bytes(ds))
    for k in range(4):
        expected, display = by_the_standard(pixels[k], -2048, 2047, slopes[k], intercepts[k], window=(centers[k], widths[k]), function=functions[k])
        np.testing.assert_allclose(image.modality[k], expected, atol=1e-9); np.testing.assert_allclose(image.display[k], display, atol=3e-6)
    assert image.header["pixel_spacing"] == [.4, .6] and image.header["slice_thickness"] == 2.5


@pytest.mark.parametrize("text", [b"3 ", b" 3", b"+3", b"03\0", b"3.0 "])
def test_number_of_frames_is_text(text):
    pixels = RNG.integers(0, 4096, (3, 4, 5))
    image = read_dicom(meta(uid.ExplicitVRLittleEndian) + body(pixels, frames=text + b" " * (len(text) % 2)))
    assert image.frames == 3 and np.array_equal(image.stored, pixels)


@pytest.mark.parametrize("said", [1, 2, 4, 70000])
def test_wrong_number_of_frames_is_refused(said):
    with pytest.raises(DicomError, match="frame|bytes"): read_dicom(make(RNG.integers(0, 4096, (3, 4, 5)), NumberOfFrames=said))


def test_pet_series_with_a_slope_for_every_slice():
    slopes, pixels = [.5, .0123, 4.75], RNG.integers(-3000, 30000, (3, 6, 5))
    slices = [make(pixels[k], 16, signed=True, Modality="PT", RescaleSlope=str(slope), RescaleIntercept="0", ImagePositionPatient=[0, 0, -k], ImageOrientationPatient=[1, 0, 0, 0, 1, 0]) for k, slope in enumerate(slopes)]
    image = read_series(slices)
    np.testing.assert_allclose(image.modality, np.stack([p * s for p, s in zip(pixels, slopes)])[::-1], atol=1e-9)
    assert image.header["slice_positions"] == [-2, -1, 0]


@pytest.mark.parametrize("bits, allocated", [(16, 16), (32, 32)])
def test_rt_dose_is_gray_by_dose_grid_scaling(bits, allocated):
    pixels = RNG.integers(0, 1 << bits, (3, 4, 5))
    image = read_dicom(file_bytes(make(pixels, bits, allocated, Modality="RTDOSE", DoseGridScaling="3.7e-4", DoseUnits="GY")))
    np.testing.assert_allclose(image.modality, pixels * 3.7e-4, rtol=1e-12)
    assert image.header["rescale"] == {"slope": 3.7e-4, "intercept": 0} and image.header["modality"] == "RTDOSE"
    both = read_dicom(make(pixels, bits, allocated, RescaleSlope="2", RescaleIntercept="1", DoseGridScaling="5"))
    assert np.array_equal(both.modality, pixels * 2. + 1)


# --- colour -----------------------------------------------------------------------------------------------------------------------------

def rgb_of(ybr, top=255, partial=False):
    y, b, r = (ybr[..., k].astype(float) for k in range(3)); half = (top + 1) / 2
    if partial: scale = (top + 1) / 256; y, b, r = (y - 16 * scale) * 255 / 219, (b - half) * 255 / 224, (r - half) * 255 / 224
    else: b, r = b - half, r - half
    return np.clip(np.rint(np.stack([y + 1.402 * r, y - .114 * 1.772 / .587 * b - .299 * 1.402 / .587 * r, y + 1.772 * b], -1)), 0, top)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("bits, allocated", [(8, 8), (16, 16), (12, 16)])
@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_colour_by_plane_and_by_pixel(photometric, bits, allocated, planar, frames, syntax):
    top = (1 << bits) - 1
    pixels = RNG.integers(0, top + 1, (frames, 6, 5, 3)) if frames > 1 else RNG.integers(0, top + 1, (6, 5, 3))
    image = read_dicom(file_bytes(make(pixels, bits, allocated, syntax=syntax, photometric=photometric, words=np.moveaxis(pixels, -1, -3) if planar else pixels, PlanarConfiguration=planar)))
    rgb = pixels if photometric == "RGB" else rgb_of(pixels, top)
    assert np.array_equal(image.stored, pixels) and np.abs(image.rgb - rgb).max() <= 1
    luma = pixels @ [.299, .587, .114] if photometric == "RGB" else pixels[..., 0]
    np.testing.assert_allclose(image.modality, luma, rtol=1e-5); np.testing.assert_allclose(image.display, luma / top, atol=1e-5)


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_PARTIAL_422"])
@pytest.mark.parametrize("frames", [1, 2])
def test_neighbours_that_share_their_chrominance(photometric, frames):
    y, chroma = RNG.integers(16, 236, (frames, 5, 8)), RNG.integers(16, 241, (frames, 5, 4, 2))
    data = bytes(v for f in range(frames) for r in range(5) for c in range(4) for v in (y[f, r, 2 * c], y[f, r, 2 * c + 1], *chroma[f, r, c]))
    full = np.stack([y, np.repeat(chroma[..., 0], 2, 2), np.repeat(chroma[..., 1], 2, 2)], -1)
    image = read_dicom(make(full if frames > 1 else full[0], 8, 8, photometric=photometric, PixelData=data))
    assert np.array_equal(image.stored, full if frames > 1 else full[0])
    assert np.abs(image.rgb - rgb_of(image.stored, partial="PARTIAL" in photometric)).max() <= 1
    with pytest.raises(DicomError, match="even number"): read_dicom(make(full[0, :, :7], 8, 8, photometric=photometric))


def palette(ds, first, red, green, blue, bits, packed=False, segmented=False, vr="US", count=None):
    for name, entries in (("Red", red), ("Green", green), ("Blue", blue)):
        ds.add_new(f"{name}PaletteColorLookupTableDescriptor", vr, [(len(entries) if count is None else count) & 0xFFFF, first, bits])
        raw = np.asarray(entries).astype("u1" if packed else "<u2").tobytes()
        ds.add_new(f"{'Segmented' if segmented else ''}{name}PaletteColorLookupTableData", "OW", raw + b"\0" * (len(raw) % 2))
    return ds


@pytest.mark.parametrize("bits, packed", [(16, False), (8, False), (8, True), (16, True)])
@pytest.mark.parametrize("first, signed", [(0, False), (17, False), (-9, True), (5, True)])
def test_palette(bits, packed, first, signed):
    entries = [RNG.integers(0, 256 if bits == 8 or packed else 65536, 21) for _ in range(3)]
    low = -128 if signed else 0
    pixels = RNG.integers(low, low + 256, (11, 13))
    ds = palette(make(pixels, 8, 8, signed=signed, photometric="PALETTE COLOR"), first & 0xFFFF, *entries, bits, packed)
    expected = np.stack([e[np.clip(pixels - first, 0, 20)] for e in entries], -1)
    for source in (ds, file_bytes(ds)):
        image = read_dicom(source)
        assert np.array_equal(image.rgb, expected) and image.rgb.dtype == (np.uint8 if bits == 8 or packed else np.uint16) and np.array_equal(image.stored, pixels)
        np.testing.assert_allclose(image.display, expected @ [.299, .587, .114] / np.iinfo(image.rgb.dtype).max, atol=1e-5)


def test_palette_of_65536_entries_and_16_bit_indexes():
    entries = [RNG.integers(0, 65536, 65536) for _ in range(3)]
    pixels = RNG.integers(0, 65536, (5, 40))
    image = read_dicom(file_bytes(palette(make(pixels, 16, photometric="PALETTE COLOR"), 0, *entries, 16)))
    assert np.array_equal(image.rgb, np.stack([e[pixels] for e in entries], -1))


def test_palette_bytes_in_the_upper_half_of_words():
    entries = [RNG.integers(1, 256, 8) for _ in range(3)]
    image = read_dicom(palette(make(np.arange(8).reshape(2, 4), 8, 8, photometric="PALETTE COLOR"), 0, *[e << 8 for e in entries], 8))
    assert np.array_equal(image.rgb.reshape(8, 3), np.stack(entries, -1))


@pytest.mark.parametrize("packed", [False, True])
def test_segmented_palette(packed):
    # three entries; a line of 5 to 110; the line and the first run once more, found by their byte offsets
    unit = 1 if packed else 2
    def reference(segments, offset): return [2, segments, *([offset, 0, 0, 0] if packed else [offset, 0])]
    data = [0, 3, 9, 200, 10, 1, 5, 110, *reference(1, 5 * unit), *reference(2, 0)]
    run, line, back = [9, 200, 10], [30, 50, 70, 90, 110], [110] * 5
    expected = np.array(run + line + back + run + line)
    pixels = np.arange(-2, 26).reshape(4, 7) & 255
    image = read_dicom(palette(make(pixels, 8, 8, photometric="PALETTE COLOR"), 0, data, data, data, 8 if packed else 16, packed, segmented=True, count=len(expected)))
    assert np.array_equal(image.rgb[..., 1], expected[np.clip(pixels, 0, len(expected) - 1)])


@pytest.mark.parametrize("data, word", [([1, 4, 9], "line"), ([2, 1, 0, 0], "repeats|damaged"), ([7, 4, 9], "damaged"), ([0, 90, 1], "damaged"), ([0, 1, 5], "20 entries, has 1"), ([0, 1, 5, 2, 9, 6, 0], "repeat"), ([], "20 entries")])
def test_broken_segmented_palette(data, word):
    with pytest.raises(DicomError, match=word): read_dicom(palette(make(np.zeros((2, 2)), 8, 8, photometric="PALETTE COLOR"), 0, data, data, data, 16, segmented=True, count=20))


def test_palette_that_is_missing_or_too_short():
    ds = make(np.zeros((2, 2)), 8, 8, photometric="PALETTE COLOR")
    with pytest.raises(DicomError, match="red palette"): read_dicom(ds)
    with pytest.raises(DicomError, match="says 256 entries"): read_dicom(palette(ds, 0, [1] * 9, [1] * 9, [1] * 9, 16, count=256))


def test_pydicom_warnings_do_not_come_from_reading():
    data = file_bytes(make(np.zeros((2, 2)), WindowCenter="40", WindowWidth="400")).replace(b"Doe^Jane", b"D\xff\xfe\\Jane")
    with warnings.catch_warnings(): warnings.simplefilter("error"); read_dicom(data)


def test_an_empty_value_of_a_window_does_not_shift_its_partner():
    import numpy as np
    from medcrypt.imaging.dicom import _grey
    from medcrypt.imaging.elements import Elements
    from medcrypt.imaging.frames import layout
    elements = Elements(Rows=[2], Columns=[2], BitsAllocated=[16], BitsStored=[12], HighBit=[11], PixelRepresentation=[0], SamplesPerPixel=[1], PhotometricInterpretation="MONOCHROME2", WindowCenter=["", "40"], WindowWidth=["100", "400"])
    assert _grey(elements, elements, elements, layout(elements)).window == (40, 400)
