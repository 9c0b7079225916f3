"DICOM files for tests: through pydicom, or byte by byte where pydicom would not write such a file."
import io, struct

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

LONG = (b"OB", b"OW", b"OV", b"SQ", b"UN", b"UT")
UNDEFINED = 0xFFFFFFFF


def make(pixels, bits=12, allocated=16, high=None, signed=False, syntax=uid.ExplicitVRLittleEndian, photometric="MONOCHROME2", words=None, frames=None, **elements):
    "Data set around `pixels` ([frames,] rows, columns[, 3]). words: what stands in the file instead; frames: compressed ones; `elements` are set last."
    pixels = np.asarray(pixels)
    colour = photometric not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    shape = pixels.shape[:-1] if colour else pixels.shape
    ds = Dataset(); ds.file_meta = FileMetaDataset(); ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.55555"
    ds.Modality, ds.SeriesInstanceUID, ds.PatientName, ds.PatientID = "CT", "1.2.3.4", "Doe^Jane", "SECRET-1"
    ds.Rows, ds.Columns = shape[-2:]
    if len(shape) == 3: ds.NumberOfFrames = len(pixels)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = allocated, bits, bits - 1 if high is None else high, int(signed)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 3 if colour else 1, photometric
    if colour: ds.PlanarConfiguration = 0
    order, kind = ">" if syntax == uid.ExplicitVRBigEndian else "<", "i" if signed and words is None else "u"
    if frames is None: ds.add_new("PixelData", "OW" if allocated > 8 else "OB", (pixels if words is None else np.asarray(words)).astype(f"{order}{kind}{max(allocated, 8) // 8}").tobytes())
    else: ds.add_new("PixelData", "OB", encapsulate(frames)); ds["PixelData"].is_undefined_length = True
    for keyword, value in elements.items(): setattr(ds, keyword, value)
    return ds


def file_bytes(ds):
    if ds.file_meta.TransferSyntaxUID not in uid.UID_dictionary: # newer than pydicom
        buffer = DicomBytesIO(); buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_dataset(buffer, ds)
        return meta(ds.file_meta.TransferSyntaxUID) + buffer.getvalue()
    buffer = io.BytesIO(); ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def table(first, entries, bits, vr="US", data_vr="US", packed=False, count=None):
    "Sequence of one look-up table; packed: two 8-bit entries to a word."
    item = Dataset(); item.add_new("LUTDescriptor", vr, [(len(entries) if count is None else count) & 0xFFFF, first, bits])
    raw = np.asarray(entries).astype("u1" if packed else "<u2").tobytes()
    if packed: raw += b"\0" * (len(raw) % 2)
    item.add_new("LUTData", "OW" if packed or data_vr == "OW" else "US", raw if packed or data_vr == "OW" else [int(entry) for entry in entries])
    return Sequence([item])


# --- byte by byte -----------------------------------------------------------------------------------------------------------------------

def element(tag, vr, value, explicit=True, little=True, length=None):
    "One data element. vr: bytes; length: what is written instead of the value's."
    o, size = "<" if little else ">", len(value) if length is None else length
    head = struct.pack(o + "HH", tag >> 16, tag & 0xFFFF)
    if not explicit: return head + struct.pack(o + "I", size) + value
    return head + vr + (struct.pack(o + "HI", 0, size) if vr in LONG else struct.pack(o + "H", size)) + value

def item(value, undefined=False, little=True):
    o = "<" if little else ">"
    head = struct.pack(o + "HHI", 0xFFFE, 0xE000, UNDEFINED if undefined else len(value)) + value
    return head + struct.pack(o + "HHI", 0xFFFE, 0xE00D, 0) if undefined else head

def sequence(tag, items, vr=b"SQ", explicit=True, little=True, undefined=True):
    value = b"".join(items) + (struct.pack("<HHI" if little else ">HHI", 0xFFFE, 0xE0DD, 0) if undefined else b"")
    return element(tag, vr, value, explicit, little, UNDEFINED if undefined else None)

def fragments(parts, table=b"", end=True):
    return b"".join([item(table), *map(item, parts)]) + (struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if end else b"")

def meta(syntax, group_length=None, extra=b""):
    text = syntax.encode() + b"\0" * (len(syntax) % 2) if syntax else b""
    body = element(0x00020001, b"OB", b"\0\1") + extra + (element(0x00020010, b"UI", text) if text else b"")
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<I", len(body) if group_length is None else group_length)) + body

def body(pixels, explicit=True, little=True, bits=12, before=b"", middle=b"", pixel=None, pixel_vr=b"OW", frames=None, photometric=b"MONOCHROME2 ", after=b""):
    "The data set of an unsigned 16-bit picture. before: elements in front of (0028,...); middle: between those and Pixel Data; pixel: the whole Pixel Data element."
    o = "<" if little else ">"
    def one(tag, vr, value): return element(tag, vr, value, explicit, little)
    def number(tag, value): return one(tag, b"US", struct.pack(o + "H", value))
    frames = b"" if frames is None else one(0x00280008, b"IS", frames)
    rows, columns = pixels.shape[-2:]
    if pixel is None: pixel = one(0x7FE00010, pixel_vr, pixels.astype(f"{o}u2").tobytes())
    return (one(0x00080060, b"CS", b"CT") + before + number(0x00280002, 1) + one(0x00280004, b"CS", photometric) + frames + number(0x00280010, rows) + number(0x00280011, columns) +
            number(0x00280100, 16) + number(0x00280101, bits) + number(0x00280102, bits - 1) + number(0x00280103, 0) + middle + pixel + after)
