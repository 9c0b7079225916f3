"Every way a DICOM file and its pixels can be written: elements, sequences, labels that lie, fragments, codecs."
import io, os, struct, zlib

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_files import UNDEFINED, body, element, file_bytes, fragments, item, make, meta, sequence
from pydicom import uid

from medcrypt.imaging.dicom import DicomError, read_dicom
from medcrypt.imaging.jpeg2000 import encode

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 4096, (6, 7))
IMPLICIT, EXPLICIT, BIG, DEFLATED = uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian


def same(data, pixels=PIXELS):
    image = read_dicom(data)
    assert np.array_equal(image.stored, pixels)
    return image


# --- labels -----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("explicit, little", [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("label", [IMPLICIT, EXPLICIT, BIG, "", None])
def test_the_data_set_shows_how_it_is_written_whatever_the_label(explicit, little, label):
    data = body(PIXELS, explicit, little)
    same((b"" if label is None else meta(label)) + data)


@pytest.mark.parametrize("group_length", [0, 3, 10 ** 6, 0xFFFFFFFF])
def test_length_of_the_meta_group_is_not_believed(group_length): same(meta(EXPLICIT, group_length) + body(PIXELS))


def test_preamble_of_other_lengths_and_none():
    whole = meta(EXPLICIT) + body(PIXELS)
    same(whole[132:]); same(whole[128:]); same(b"MZ\x90" + bytes(range(125)) + whole[128:])
    same(body(PIXELS)); same(body(PIXELS, explicit=False)); same(body(PIXELS, before=element(0x00100010, b"PN", b"Doe^Jane"))[10:])


def test_meta_in_implicit_vr():
    syntax = element(0x00020010, b"", EXPLICIT.encode() + b"\0", explicit=False)
    same(bytes(128) + b"DICM" + element(0x00020000, b"", struct.pack("<I", len(syntax)), explicit=False) + syntax + body(PIXELS))


def test_deflated():
    for level, extra in ((0, b""), (9, b""), (6, b"\0"), (6, b"trailing")):
        compressor = zlib.compressobj(level, wbits=-15)
        same(meta(DEFLATED) + compressor.compress(body(PIXELS)) + compressor.flush() + extra)


def test_pixel_data_of_ge_in_big_endian_words():
    same(meta("1.2.840.113619.5.2") + body(PIXELS, explicit=False, pixel=element(0x7FE00010, b"", PIXELS.astype(">u2").tobytes(), explicit=False)))


@pytest.mark.parametrize("vr", [b"OW", b"OB", b"UN"])
def test_vr_of_pixel_data(vr): same(meta(EXPLICIT) + body(PIXELS, pixel_vr=vr)); same(meta(BIG) + body(PIXELS, little=False, pixel_vr=vr))


@pytest.mark.parametrize("shape", [(6, 7), (5, 7)])
def test_big_endian_bytes(shape):
    pixels = RNG.integers(0, 256, shape)
    raw = pixels.astype("u1").tobytes(); raw += b"\0" * (len(raw) % 2)
    swapped = b"".join(raw[k + 1:k + 2] + raw[k:k + 1] for k in range(0, len(raw), 2))
    for vr, data in (("OB", raw), ("OW", swapped)):
        ds = make(pixels, 8, 8, syntax=BIG); ds.add_new("PixelData", vr, data)
        same(file_bytes(ds), pixels)
    bits = RNG.integers(0, 2, (3, 5)); packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    ds = make(bits, 1, 8, syntax=BIG, BitsAllocated=1); ds.add_new("PixelData", "OW", packed[::-1])
    same(file_bytes(ds), bits)


# --- elements and sequences ---------------------------------------------------------------------------------------------------------------

def test_vr_is_not_that_of_the_dictionary():
    def with_rows(vr, value): return body(PIXELS, middle=b"").replace(element(0x00280010, b"US", b"\6\0"), element(0x00280010, vr, value))
    for vr, value in ((b"UL", b"\6\0\0\0"), (b"SS", b"\6\0"), (b"IS", b"6 "), (b"UN", b"\6\0"), (b"OB", b"\6\0"), (b"DS", b"6.0 ")): same(meta(EXPLICIT) + with_rows(vr, value))
    for vr, value in ((b"IS", b"6.5 "), (b"LO", b"Doe "), (b"US", b"\6\0\7\0")):
        with pytest.raises(DicomError, match="Rows"): read_dicom(meta(EXPLICIT) + with_rows(vr, value))
    window = element(0x00281050, b"FD", struct.pack("<d", 40.5)) + element(0x00281051, b"FL", struct.pack("<f", 8))
    assert read_dicom(meta(EXPLICIT) + body(PIXELS, middle=window)).header["window"] == {"center": 40.5, "width": 8, "function": "LINEAR"}


def odd_elements(explicit, little):
    def one(tag, vr, value, **more): return element(tag, vr, value, explicit, little, **more)
    private = sequence(0x00091002, [item(one(0x00091003, b"LO", b"abc "), True, little), item(b"", True, little), item(one(0x00091004, b"UN", b"x" * 6), False, little)], explicit=explicit, little=little)
    nested = sequence(0x00081140, [item(sequence(0x00081115, [item(one(0x00081150, b"UI", b"1.2\0") + one(0x00280010, b"US", b"\x09\x09"), True, little)], explicit=explicit, little=little), True, little)], explicit=explicit, little=little)
    defined = sequence(0x00082112, [item(one(0x00081155, b"UI", b"1.3\0"), False, little)], explicit=explicit, little=little, undefined=False)
    icon = sequence(0x00880200, [item(body(np.full((2, 2), 9), explicit, little), True, little)], explicit=explicit, little=little)
    return {"private sequence": (private, b""), "nested sequences": (nested, b""), "sequence of defined length": (defined, b""), "icon": (b"", icon),
            "empty elements": (one(0x00080070, b"LO", b"") + one(0x00080090, b"PN", b""), one(0x00281050, b"DS", b"") + one(0x00281052, b"DS", b"")),
            "group length": (one(0x00100000, b"UL", bytes(4)), b""), "long text": (one(0x0040A160, b"UT", b"t" * 70000), b"")}

@pytest.mark.parametrize("explicit, little", [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("name", list(odd_elements(True, True)))
def test_elements_that_are_stepped_over(name, explicit, little):
    before, middle = odd_elements(explicit, little)[name]
    same(meta(EXPLICIT if explicit and little else IMPLICIT if little else BIG) + body(PIXELS, explicit, little, before=before, middle=middle))


def test_icon_with_compressed_pixels_of_its_own():
    inner = element(0x00280010, b"US", b"\1\0") + element(0x00280011, b"US", b"\1\0") + element(0x7FE00010, b"OB", fragments([b"\xff\xd8\xff\xd9"]), length=UNDEFINED)
    for undefined in (True, False):
        icon = sequence(0x00880200, [item(inner, undefined)], undefined=undefined)
        same(meta(EXPLICIT) + body(PIXELS, middle=icon))
        codestream = encode(PIXELS.astype(np.uint16), bits=12)
        same(meta(uid.JPEG2000Lossless) + body(PIXELS, middle=icon, pixel=element(0x7FE00010, b"OB", fragments([codestream]), length=UNDEFINED)))


@pytest.mark.parametrize("content", [False, True], ids=["implicit", "explicit, though it must not be"])
@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("little", [True, False])
def test_sequence_of_vr_un_holds_implicit_little_endian(content, undefined, little):
    unknown = sequence(0x00091002, [item(element(0x00091010, b"LO", b"some text ", content), undefined)], b"UN", little=True, undefined=undefined)
    lut = element(0x00283002, b"US", struct.pack("<3H", 4096, 0, 16), content) + element(0x00283006, b"OW", np.arange(4096)[::-1].astype("<u2").tobytes(), content)
    known = sequence(0x00283000, [item(lut, undefined)], b"UN", undefined=undefined)
    if not little: # the header of the element itself is big endian
        def swap(data): return data[1::-1] + data[3:1:-1] + data[4:8] + data[11:7:-1] + data[12:]
        unknown, known = swap(unknown), swap(known)
    image = same(meta(EXPLICIT if little else BIG) + body(PIXELS, little=little, before=unknown, middle=known))
    assert np.array_equal(image.modality, 4095 - PIXELS) or not little    # the words of the table are little endian, those of the file are not


def test_implicit_items_inside_an_explicit_sequence():
    lut = element(0x00283002, b"", struct.pack("<3H", 4096, 0, 16), False) + element(0x00283006, b"", np.arange(4096)[::-1].astype("<u2").tobytes(), False)
    image = same(meta(EXPLICIT) + body(PIXELS, middle=sequence(0x00283000, [item(lut, True)])))
    assert np.array_equal(image.modality, 4095 - PIXELS)


@pytest.mark.parametrize("vr, long", [(b"ZZ", True), (b"ZZ", False), (b"QQ", True), (b"??", False), (b"  ", False), (b"\0\0", False)])
def test_letters_that_are_no_vr(vr, long):
    value = b"some value" * 3
    odd = struct.pack("<HH", 0x0009, 0x1001) + vr + (struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))) + value
    same(meta(EXPLICIT) + body(PIXELS, before=odd))


def test_delimiters_inside_a_fragment_and_what_follows_the_pixels():
    noise = b"\xfe\xff\xdd\xe0\0\0\0\0\xfe\xff\x0d\xe0" * 4
    comment = encode(PIXELS.astype(np.uint16), bits=12)
    comment = comment[:45] + b"\xff\x64" + struct.pack(">HH", len(noise) + 4, 0) + noise + comment[45:]     # after SIZ
    after = element(0xFFFCFFFC, b"OB", bytes(100))
    for end in (after, b"\0" * 7, b"garbage that is no element", element(0x00280010, b"US", b"\1\0")):
        same(meta(uid.JPEG2000Lossless) + body(PIXELS, pixel=element(0x7FE00010, b"OB", fragments([comment]), length=UNDEFINED), after=end))
        same(meta(EXPLICIT) + body(PIXELS, after=end))


def test_the_later_of_two_equal_elements_counts():
    assert read_dicom(meta(EXPLICIT) + body(PIXELS, middle=element(0x00281052, b"DS", b"5 ") + element(0x00281052, b"DS", b"70"))).header["rescale"]["intercept"] == 70


# --- fragments --------------------------------------------------------------------------------------------------------------------------

FRAMES = RNG.integers(0, 4096, (3, 16, 18)).astype(np.uint16)
STREAMS = [encode(frame, bits=12) for frame in FRAMES]
STREAMS = [stream + b"\0" * (len(stream) % 2) for stream in STREAMS]

def offsets(groups):
    places, at = [], 0
    for group in groups: places.append(at); at += sum(8 + len(part) for part in group)
    return places

GROUPS = [[s[:10], s[10:12], s[12:]] for s in STREAMS]
BASIC = struct.pack("<3I", *offsets(GROUPS))
JOINED = [part for group in GROUPS for part in group]

def enclosed(parts, table=b"", end=True, extra=b"", frames=b"3 "):
    return meta(uid.JPEG2000Lossless) + body(FRAMES, frames=frames, middle=extra, pixel=element(0x7FE00010, b"OB", fragments(parts, table, end), length=UNDEFINED))

@pytest.mark.parametrize("name, parts, table, extra", [
    ("one each", STREAMS, b"", b""), ("basic table", JOINED, BASIC, b""), ("no table", JOINED, b"", b""), ("table of zeros", JOINED, bytes(12), b""), ("table beyond the end", JOINED, struct.pack("<3I", 0, 9, 1 << 31), b""),
    ("short table", JOINED, BASIC[:4], b""), ("odd table", JOINED, BASIC[:-1] + b"", b""), ("empty fragments", [b"", *STREAMS[:2], b"", STREAMS[2], b""], b"", b""),
    ("extended table", JOINED, b"", element(0x7FE00001, b"OV", struct.pack("<3Q", *offsets(GROUPS))) + element(0x7FE00002, b"OV", struct.pack("<3Q", *map(len, STREAMS)))),
    ("wrong extended table", JOINED, BASIC, element(0x7FE00001, b"OV", struct.pack("<3Q", 1 << 63, 5, 5)))])
def test_fragments_of_frames(name, parts, table, extra):
    for end in (True, False):
        data = enclosed(parts, table, end, extra)
        if end: same(data, FRAMES)
        else:
            with pytest.raises(DicomError): read_dicom(data)
    assert np.array_equal(read_dicom(pydicom.dcmread(io.BytesIO(enclosed(parts, table, True, extra)))).stored, FRAMES)


def test_fragments_that_do_not_fit():
    for parts, frames, word in ((STREAMS, b"2 ", "3 fragment"), (STREAMS[:2], b"3 ", "2 fragment"), ([], b"3 ", "0 fragment"), ([STREAMS[0][:100], *STREAMS[1:]], b"3 ", "cut short"), (JOINED[1:], b"3 ", "fragment")):
        with pytest.raises(DicomError, match=word): read_dicom(enclosed(parts, frames=frames))
    for wrong in (fragments(STREAMS)[:-20], b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + bytes(50), STREAMS[0], b""):
        for undefined in (UNDEFINED, None):
            with pytest.raises(DicomError): read_dicom(meta(uid.JPEG2000Lossless) + body(FRAMES, frames=b"3 ", pixel=element(0x7FE00010, b"OB", wrong, length=undefined)))
    same(meta(uid.JPEG2000Lossless) + body(FRAMES, frames=b"3 ", pixel=element(0x7FE00010, b"OB", fragments(STREAMS))), FRAMES)    # of defined length, which is not allowed


# --- codecs -----------------------------------------------------------------------------------------------------------------------------

def packbits(data):
    "RLE of PS3.5 G.3, by the book: runs of 3 or more, else literals of up to 128."
    out, k, literal = bytearray(), 0, bytearray()
    def flush():
        for n in range(0, len(literal), 128): out.append(len(literal[n:n + 128]) - 1); out.extend(literal[n:n + 128])
        literal.clear()
    while k < len(data):
        run = 1
        while run < 128 and data[k + run:k + run + 1] == data[k:k + 1]: run += 1
        if run > 2: flush(); out.extend([257 - run, data[k]])
        else: literal.extend(data[k:k + run])
        k += run
    flush()
    return bytes(out)

def rle_frame(pixels, width, odd=b"", noop=False):
    samples = pixels.reshape(pixels.shape[0], pixels.shape[1], -1)
    segments = [packbits(samples[..., s].astype(f">u{width}").tobytes()[b::width]) for s in range(samples.shape[2]) for b in range(width)]
    segments = [(b"\x80" if noop else b"") + s + b"\0" * (len(s) % 2) + odd for s in segments]
    places = 64 + np.cumsum([0, *map(len, segments)])[:-1]
    return struct.pack("<16I", len(segments), *places, *[0] * (15 - len(segments))) + b"".join(segments)

@pytest.mark.parametrize("width, bits, signed", [(1, 8, False), (1, 5, True), (2, 16, False), (2, 11, True), (4, 32, False), (4, 19, True)])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("odd, noop", [(b"", False), (b"\0", True), (b"\xfe\x07", False)])
def test_rle(width, bits, signed, colour, odd, noop):
    if colour and signed: signed = False
    low = -(1 << bits - 1) if signed else 0
    pixels = np.repeat(RNG.integers(low, low + (1 << bits), (2, 7, 5, 3) if colour else (2, 7, 5)), RNG.integers(1, 60, 7), axis=1)
    frames = [rle_frame(frame & (1 << 8 * width) - 1, width, odd, noop) for frame in pixels]
    same(file_bytes(make(pixels, bits, 8 * width, signed=signed, syntax=uid.RLELossless, photometric="RGB" if colour else "MONOCHROME2", frames=frames, **({"PlanarConfiguration": 1} if colour else {}))), pixels)


def smooth(shape, bits):
    "A picture that lossy codecs can hold."
    y, x = np.mgrid[:shape[0], :shape[1]]
    return np.rint((np.sin(x / 9) + np.cos(y / 7) + 2) / 4 * ((1 << bits) - 1)).astype(np.uint16 if bits > 8 else np.uint8)

def compressed(pixels, frame, syntax, bits, allocated=None, **more):
    return file_bytes(make(pixels, bits, allocated or (8 if bits <= 8 else 16), syntax=syntax, frames=[frame], **more))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_lossless_with_every_predictor(bits, signed):
    low = -(1 << bits - 1) if signed else 0
    pixels = smooth((23, 37), bits).astype(int) + low
    code = (pixels & (1 << bits) - 1).astype(np.uint16 if bits > 8 else np.uint8)
    for predictor in range(1, 8):
        frame = imagecodecs.jpeg8_encode(code, lossless=True, predictor=predictor, bitspersample=bits)
        same(compressed(pixels, frame, uid.JPEGLosslessSV1 if predictor == 1 else uid.JPEGLossless, bits, signed=signed), pixels)
        same(compressed(pixels, frame, uid.JPEGLossless, 16, 16, signed=signed), pixels)    # BitsStored says 16, the codestream knows better


@pytest.mark.parametrize("bits, syntax, limit", [(8, uid.JPEGBaseline8Bit, 3), (8, uid.JPEGExtended12Bit, 3), (12, uid.JPEGExtended12Bit, 40)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_jpeg_lossy_grey(bits, syntax, limit, photometric):
    pixels = smooth((41, 29), bits)
    image = read_dicom(compressed(pixels, imagecodecs.jpeg8_encode(pixels, 98, bitspersample=bits), syntax, bits, photometric=photometric))
    assert np.abs(image.stored.astype(int) - pixels).max() <= limit
    shown = image.stored / np.float32((1 << bits) - 1)
    np.testing.assert_allclose(image.display, 1 - shown if photometric == "MONOCHROME1" else shown, atol=1e-6)


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_jpeg_colour_says_what_it_is(subsampling, photometric):
    rgb = np.stack([smooth((33, 40), 8), smooth((33, 40), 8)[::-1], 255 - smooth((33, 40), 8)], -1)
    jfif = imagecodecs.jpeg8_encode(rgb, 97, subsampling=subsampling)                                      # JFIF: YCbCr
    adobe = imagecodecs.jpeg8_encode(rgb, 97, colorspace="rgb", outcolorspace="rgb")                       # Adobe, transform 0: RGB
    bare = jfif[:2] + jfif[20:]                                                                            # no segment: as the header says
    for frame, colour in ((jfif, "ybr"), (adobe, "rgb"), (bare, "rgb" if photometric == "RGB" else "ybr")):
        image = read_dicom(compressed(rgb, frame, uid.JPEGBaseline8Bit, 8, photometric=photometric))
        assert image.colour == colour
        if not (frame is bare and photometric == "RGB"): assert np.abs(image.rgb.astype(int) - rgb).mean() < 4
    for lossless in (imagecodecs.jpeg8_encode(rgb, lossless=True), imagecodecs.jpegls_encode(rgb)):        # no transform there: as the header says
        syntax = uid.JPEGLosslessSV1 if b"Adobe" in lossless[:40] else uid.JPEGLSLossless
        image = read_dicom(compressed(rgb, lossless, syntax, 8, photometric=photometric.replace("_422", "")))
        assert np.array_equal(image.stored, rgb) and image.colour == ("rgb" if photometric == "RGB" else "ybr")


@pytest.mark.parametrize("bits, signed", [(8, False), (12, True), (16, False), (16, True)])
def test_jpeg_ls(bits, signed):
    low = -(1 << bits - 1) if signed else 0
    pixels = RNG.integers(low, low + (1 << bits), (19, 31))
    code = (pixels & (1 << bits) - 1).astype(np.uint16 if bits > 8 else np.uint8)
    same(compressed(pixels, imagecodecs.jpegls_encode(code), uid.JPEGLSLossless, bits, signed=signed), pixels)
    if not signed:
        image = read_dicom(compressed(pixels, imagecodecs.jpegls_encode(code, 3), uid.JPEGLSNearLossless, bits))
        assert 0 < np.abs(image.stored.astype(int) - pixels).max() <= 3


@pytest.mark.parametrize("share", [.97, .6, .3])
@pytest.mark.parametrize("name, options, syntax, bits", [("jpeg8", dict(level=90), uid.JPEGBaseline8Bit, 8), ("jpeg8", dict(level=90, bitspersample=12), uid.JPEGExtended12Bit, 12), ("jpeg8", dict(lossless=True, bitspersample=12), uid.JPEGLosslessSV1, 12),
                                                         ("jpeg8", dict(lossless=True, predictor=5), uid.JPEGLossless, 8), ("jpegls", dict(), uid.JPEGLSLossless, 12), ("jpegls", dict(level=2), uid.JPEGLSNearLossless, 8)])
def test_cut_frame_that_was_given_an_end_marker(name, options, syntax, bits, share):
    pixels = RNG.integers(0, 1 << bits, (40, 50)).astype(np.uint16 if bits > 8 else np.uint8)
    frame = getattr(imagecodecs, f"{name}_encode")(pixels, **options)
    for filling in (b"", b"\xff\xff"):
        whole = frame[:-2] + filling + b"\xff\xd9" + b"\0" * 3
        assert np.abs(read_dicom(compressed(pixels, whole, syntax, bits)).stored.astype(int) - pixels).max() <= (300 if "level" in options else 0)
        with pytest.raises(DicomError, match="cut short|damaged"): read_dicom(compressed(pixels, frame[:int(share * len(frame))] + filling + b"\xff\xd9", syntax, bits))


def boxed(codestream, *, rows, columns, components=1, bits=16):
    "A JP2 file around a codestream (T.800 Annex I), with an unknown box in front of the codestream."
    def box(kind, value): return struct.pack(">I", 8 + len(value)) + kind + value
    header = box(b"ihdr", struct.pack(">IIHBBBB", rows, columns, components, bits - 1, 7, 0, 0)) + box(b"colr", struct.pack(">BBBI", 1, 0, 0, 17 if components == 1 else 16))
    return box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", header) + box(b"uuid", bytes(33)) + box(b"jp2c", codestream)

@pytest.mark.parametrize("rows, columns", [(1, 1), (5, 64), (40, 33)])
@pytest.mark.parametrize("bits, signed", [(8, False), (9, True), (12, False), (15, True), (16, False)])
def test_jpeg2000_bare_and_in_boxes(rows, columns, bits, signed):
    low = -(1 << bits - 1) if signed else 0
    pixels = RNG.integers(low, low + (1 << bits), (rows, columns))
    codestream = encode(pixels.astype(np.int16 if signed else np.uint16 if bits > 8 else np.uint8), bits=bits)
    for frame in (codestream, codestream + bytes(6), boxed(codestream, rows=rows, columns=columns, bits=bits)):
        same(compressed(pixels, frame, uid.JPEG2000Lossless, bits, 16, signed=signed), pixels)


def test_jpeg2000_colour_transform_is_undone_by_its_decoder():
    rgb = RNG.integers(0, 256, (20, 24, 3)).astype(np.uint8)
    for options, name in ((dict(reversible=True), "YBR_RCT"), (dict(reversible=True, mct=False), "RGB")):
        frame = imagecodecs.jpeg2k_encode(rgb, 0, codecformat="j2k", **options)
        image = read_dicom(compressed(rgb, frame, uid.JPEG2000Lossless, 8, photometric=name))
        assert image.colour == "rgb" and np.array_equal(image.rgb, rgb)
    soft = np.stack([smooth((40, 40), 8)] * 2 + [255 - smooth((40, 40), 8)], -1)
    image = read_dicom(compressed(soft, imagecodecs.jpeg2k_encode(soft, 45, codecformat="j2k", mct=True), uid.JPEG2000, 8, photometric="YBR_ICT"))
    assert np.abs(image.rgb.astype(int) - soft).mean() < 2
    ybr = read_dicom(compressed(rgb, imagecodecs.jpeg2k_encode(rgb, 0, codecformat="j2k", reversible=True, mct=False), uid.JPEG2000Lossless, 8, photometric="YBR_FULL"))
    assert ybr.colour == "ybr" and np.array_equal(ybr.stored, rgb)


@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K])
@pytest.mark.parametrize("bits, signed", [(8, False), (12, True), (16, False)])
def test_htj2k(syntax, bits, signed):
    low = -(1 << bits - 1) if signed else 0
    pixels = RNG.integers(low, low + (1 << bits), (33, 50))
    code = (pixels & (1 << bits) - 1).astype(np.uint16 if bits > 8 else np.uint8)
    frame = imagecodecs.htj2k_encode(code)
    same(compressed(pixels, frame + b"\0" * (len(frame) % 2), syntax, bits, signed=signed), pixels)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize("rows, columns", [(31, 9), (64, 64), (600, 2)])
def test_jpeg_xl(bits, container, rows, columns):
    pixels = RNG.integers(0, 1 << bits, (rows, columns)).astype(np.uint16 if bits > 8 else np.uint8)
    frame = imagecodecs.jpegxl_encode(pixels, lossless=True, bitspersample=bits, usecontainer=container)
    same(compressed(pixels, frame, "1.2.840.10008.1.2.4.110", bits), pixels)
    if bits == 8:
        rgb = np.stack([smooth((rows, columns), 8)] * 3, -1)
        image = read_dicom(compressed(rgb, imagecodecs.jpegxl_encode(rgb, 95), "1.2.840.10008.1.2.4.112", 8, photometric="XYB"))
        assert image.colour == "rgb" and np.abs(image.rgb.astype(int) - rgb).mean() < 4
    with pytest.raises(DicomError, match="header says"): read_dicom(compressed(pixels[1:], frame, "1.2.840.10008.1.2.4.110", bits))
    with pytest.raises(DicomError): read_dicom(compressed(pixels, frame[:len(frame) // 2], "1.2.840.10008.1.2.4.110", bits))


@pytest.mark.parametrize("bits, allocated", [(1, 1), (8, 8), (12, 16), (32, 32)])
def test_frames_in_items_deflated_or_as_they_are(bits, allocated):
    pixels = RNG.integers(0, 1 << bits, (3, 5, 7))
    raw = [np.packbits(f.ravel(), bitorder="little").tobytes() if allocated == 1 else f.astype(f"<u{allocated // 8}").tobytes() for f in pixels]
    def deflate(data):
        compressor = zlib.compressobj(wbits=-15); return compressor.compress(data) + compressor.flush()
    for syntax, frames in (("1.2.840.10008.1.2.1.98", raw), ("1.2.840.10008.1.2.8.1", [deflate(r) for r in raw]), ("1.2.840.10008.1.2.8.1", [deflate(r + b"\0") + b"\0" for r in raw])):
        same(file_bytes(make(pixels, bits, max(allocated, 8), syntax=syntax, frames=[f + b"\0" * (len(f) % 2) for f in frames], BitsAllocated=allocated)), pixels)
    with pytest.raises(DicomError, match="damaged|bytes"): read_dicom(make(pixels[0], bits, max(allocated, 8), syntax="1.2.840.10008.1.2.8.1", frames=[b"\x07nonsense"], BitsAllocated=allocated))


def test_compressed_label_on_pixels_that_are_not_and_the_reverse():
    for syntax in (uid.RLELossless, uid.JPEGBaseline8Bit, uid.JPEG2000):
        with pytest.raises(DicomError, match="fragment|damaged"): read_dicom(meta(syntax) + body(PIXELS))
    for wrong, frame in ((uid.JPEGBaseline8Bit, STREAMS[0]), (uid.JPEG2000, imagecodecs.jpeg8_encode(smooth((16, 18), 8))), ("1.2.840.10008.1.2.4.110", STREAMS[0])):
        with pytest.raises(DicomError, match="codestream"): read_dicom(compressed(FRAMES[0], frame, wrong, 12))
    with pytest.raises(DicomError, match="compressed"): read_dicom(meta(EXPLICIT) + body(FRAMES[0], pixel=element(0x7FE00010, b"OB", fragments(STREAMS[:1]), length=UNDEFINED)))


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_fractions_are_refused(keyword):
    ds = make(np.zeros((2, 2)), 8, 8); del ds.PixelData; setattr(ds, keyword, bytes(32))
    with pytest.raises(DicomError, match="fractions"): read_dicom(file_bytes(ds))


def test_sources_that_are_no_files(tmp_path):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.dcm")
        handle = os.open(tmp_path / "pipe.dcm", os.O_RDWR)
        with pytest.raises(DicomError, match="pipe.dcm: is not an ordinary file"): read_dicom(tmp_path / "pipe.dcm")
        os.close(handle)
    with pytest.raises(DicomError, match="text"): read_dicom(io.StringIO("some text"))
    (tmp_path / "bytes").write_bytes(meta(EXPLICIT) + body(PIXELS)); same(tmp_path / "bytes")
