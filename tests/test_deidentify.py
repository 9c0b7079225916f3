"""De-identification as a property: files whose every attribute, preamble, overlay, comment, unused bit and name carries a marker; no marker in anything that leaves the machine.

Raw bytes are searched, not parsed values. What is written into the picture itself stays in the picture, which is why pictures are encrypted."""
import io, json, logging, os, re, struct, warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_files import UNDEFINED, body, element, file_bytes, fragments, item, make, meta, table
from pydicom import datadict, uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medcrypt.cli.files import Hide, encrypt_file, facts
from medcrypt.cli.opening import decrypt_file
from medcrypt.core import MedcryptError, RunPaths
from medcrypt.crypto import images
from medcrypt.crypto.envelope import parse
from medcrypt.crypto.keys import Key, new_key
from medcrypt.imaging.dicom import DicomError, read_dicom, read_series
from medcrypt.imaging.jpeg2000 import encode
from medcrypt.vault.archive import fill, open_archive

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
WORD, NUMBER = "ZQXJ", "77424242"                     # every marker holds one of these
MARK = re.compile(f"{WORD}|{NUMBER}|" + "|".join((re.escape(WORD.encode("utf-16-le").decode("latin-1")), WORD.lower())))
PIXELS = (np.add.outer(np.arange(40), np.arange(36)) * 50).astype(np.uint16) & 0xFFF
KEY = new_key()

def free_of_markers(what, *texts):
    for text in texts:
        found = MARK.search(text.decode("latin-1") if isinstance(text, (bytes, bytearray)) else str(text))
        assert not found, (what, str(text)[max(0, found.start() - 60):found.end() + 20])


# A value with a marker for every VR that holds text, a date, a number or bytes.
VALUES = {"PN": f"{WORD}^Jane", "LO": f"{WORD} lo", "SH": f"{WORD} sh", "ST": f"{WORD} st", "LT": f"{WORD} lt", "UT": f"{WORD} ut", "UC": f"{WORD} uc", "UR": f"http://{WORD}.example", "CS": f"{WORD}_CS", "AE": f"{WORD}_AE",
          "UI": f"1.2.{NUMBER}.5", "DA": "19770424", "TM": f"010203.{NUMBER[:6]}", "DT": f"19770424010203.{NUMBER[:6]}", "AS": "077Y", "IS": NUMBER, "DS": f"7.{NUMBER}", "OB": WORD.encode() * 3, "UN": WORD.encode() * 3}
NEEDED = {"Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "PixelData", "FloatPixelData", "DoubleFloatPixelData",
          "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction", "DoseGridScaling", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "PixelPaddingValue", "PixelPaddingRangeLimit", "ImagePositionPatient",
          "ImageOrientationPatient", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "SpecificCharacterSet"}

def everything(ds, depth=0):
    "`ds` with a marker in every attribute of the dictionary that may hold one: more than the basic profile of PS3.15 Annex E names."
    for tag, (vr, _, _, retired, keyword) in datadict.DicomDictionary.items():
        if not keyword or keyword in NEEDED or tag < 0x00080000 or tag in ds or "Palette" in keyword or (tag >> 16) % 2 or not vr[:2] in VALUES: continue
        ds.add_new(tag, vr[:2], VALUES[vr[:2]])
    for group, creator in ((0x0009, f"{WORD} CREATOR"), (0x0011, WORD)):
        ds.add_new((group, 0x10), "LO", creator); ds.add_new((group, 0x1001), "LT", f"{WORD} private"); ds.add_new((group, 0x1002), "UN", WORD.encode() * 2)
    ds.add_new(0x60000010, "US", 40); ds.add_new(0x60000011, "US", 36); ds.add_new(0x60000040, "CS", f"{WORD}"); ds.add_new(0x60000022, "LO", f"{WORD} overlay"); ds.add_new(0x60004000, "LT", f"{WORD} comment")
    ds.add_new(0x60003000, "OW", (WORD.encode() * 50)[:180]); ds.add_new(0x50003000, "OW", WORD.encode() * 4)
    if depth < 2:
        for keyword in ("RequestAttributesSequence", "ReferencedStudySequence", "OtherPatientIDsSequence", "OriginalAttributesSequence", "IconImageSequence", "ContributingEquipmentSequence"):
            setattr(ds, keyword, Sequence([everything(Dataset(), depth + 1)] if depth or keyword == "OriginalAttributesSequence" else [Dataset()]))
        ds.add_new((0x0009, 0x1003), "SQ", Sequence([Dataset()])); ds[(0x0009, 0x1003)].value[0].PatientName = VALUES["PN"]
    return ds


def marked(kind):
    "(file bytes, stored pixels)"
    common = dict(WindowCenter=["1000", "3"], WindowWidth=["2000", "4"], WindowCenterWidthExplanation=[f"{WORD} brain", WORD], RescaleSlope="1", RescaleIntercept="-24", RescaleType=WORD, PixelSpacing=["0.5", "0.5"], Modality=f"{WORD}")
    hidden = np.frombuffer((WORD.encode() * 1440)[:1440], np.uint8).reshape(40, 36).astype(np.uint16)
    if kind == "table":
        lut = table(0, range(4096), 12); lut[0].LUTExplanation = lut[0].ModalityLUTType = f"{WORD} table"
        ds = make(PIXELS, **common | dict(VOILUTSequence=lut, ModalityLUTSequence=lut))
    elif kind == "compressed":
        frame = encode(PIXELS, bits=12); comment = f"{WORD} was here".encode()
        frame = frame[:45] + b"\xff\x64" + struct.pack(">HH", len(comment) + 4, 1) + comment + frame[45:] + WORD.encode() * 2        # COM, and bytes after EOC
        ds = make(PIXELS, syntax=uid.JPEG2000Lossless, frames=[frame], **common)
    elif kind == "jpeg":
        frame = imagecodecs.jpeg8_encode(PIXELS, lossless=True, bitspersample=12); comment = f"{WORD} jpeg".encode()
        ds = make(PIXELS, syntax=uid.JPEGLosslessSV1, frames=[frame[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + frame[2:]], **common)
    else: # four bits above the pixel hold text, and so do bytes after the last one
        ds = make(PIXELS, words=PIXELS | (hidden << 8 & 0xF000), **common); ds.PixelData += WORD.encode() * 3
    data = file_bytes(everything(ds))
    data = (WORD.encode() * 40)[:128] + data[128:]                                                     # the preamble
    return data + element(0xFFFCFFFC, b"OB", WORD.encode() * 5) + WORD.encode()                        # and what follows the data set

KINDS = ["native", "table", "compressed", "jpeg"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for kind in KINDS: (folder / f"{kind}.dcm").write_bytes(marked(kind))
    return {kind: folder / f"{kind}.dcm" for kind in KINDS}


def test_the_files_are_full_of_markers(files):
    for kind, path in files.items():
        data = path.read_bytes()
        assert len(MARK.findall(data.decode("latin-1"))) > 1500 and len(pydicom.dcmread(path)) > 2000
        assert np.array_equal(read_dicom(path).stored, PIXELS)
    profile = """AccessionNumber AcquisitionComments AdmissionID BurnedInAnnotation ConsultingPhysicianName ContentCreatorName CountryOfResidence DerivationDescription DeviceSerialNumber
        DistributionName FrameComments ImageComments InstitutionAddress InstitutionName InstitutionalDepartmentName IssuerOfPatientID MilitaryRank NameOfPhysiciansReadingStudy OperatorsName OtherPatientIDs
        OtherPatientNames PatientAddress PatientAge PatientBirthDate PatientBirthName PatientComments PatientID PatientMotherBirthName PatientName PatientReligiousPreference PatientSex
        PatientTelephoneNumbers PatientWeight PerformingPhysicianName PhysiciansOfRecord ProtocolName ReferringPhysicianAddress ReferringPhysicianName RegionOfResidence RequestingPhysician ResponsiblePerson
        SOPInstanceUID SeriesDescription SeriesInstanceUID StationName StudyDate StudyDescription StudyID StudyInstanceUID TextComments VerifyingObserverName""".split()
    here = {e.keyword for e in pydicom.dcmread(files["native"])}
    assert set(profile) <= here


def test_header_and_text_of_an_image(files):
    for kind, path in files.items():
        data = path.read_bytes()
        for source in (data, path, pydicom.dcmread(path)):
            image = read_dicom(source)
            text = json.dumps(image.header) + repr(image.header)
            free_of_markers(kind, text, repr(image), repr(image.greys), facts(image))
            free_of_markers(kind, repr({name: value for name, value in vars(image).items() if name not in ("name", "stored")}))
        assert "Modality" not in text and image.header["modality"] == "" and image.header["sop_class"] == "SecondaryCaptureImageStorage"
        assert "19770424" not in text and "077Y" not in text


def test_identifiers_in_the_few_texts_that_are_read(files):
    data = files["native"].read_bytes()
    known = b"1.2.840.10008.5.1.4.1.1.7\0"
    data = data.replace(known, f"1.2.840.{NUMBER}.4.1.1.7".encode().ljust(len(known), b"\0"))
    image = read_dicom(data); free_of_markers("class", image.header, image); assert image.header["sop_class"] == ""
    function = meta(uid.ExplicitVRLittleEndian) + body(PIXELS, middle=element(0x00281050, b"DS", b"40") + element(0x00281051, b"DS", b"80") + element(0x00281056, b"CS", WORD.encode()))
    image = read_dicom(function); free_of_markers("function", image.header)
    with pytest.raises(DicomError) as caught: image.display
    free_of_markers("function", str(caught.value), repr(caught.value))


@pytest.mark.parametrize("ratio", [None, .5])
def test_envelope_and_decrypted_file(files, ratio, tmp_path):
    for kind, path in files.items():
        image = read_dicom(path)
        made = encrypt_file(path, KEY, tmp_path / f"{kind}.mce", hide=Hide(ratio=ratio))
        envelope = made.path.read_bytes(); parts = parse(envelope)
        free_of_markers(kind, envelope, json.dumps(parts.header), parts.public, repr(made).replace(str(tmp_path), ""))
        back, _ = decrypt_file(made.path, KEY, tmp_path / f"{kind}-back.dcm")
        raw = back.read_bytes()
        free_of_markers(kind, raw); assert raw[:128] == bytes(128)
        again = read_dicom(back)
        assert np.array_equal(again.stored, PIXELS) and again.stored.max() < 4096
        if kind != "table": np.testing.assert_allclose(again.modality, image.modality); np.testing.assert_allclose(again.display, image.display, atol=1e-6)
        ds = pydicom.dcmread(back)
        words = np.frombuffer(ds.PixelData, "<u2")
        assert (words >> 12 == 0).all() and ds.PatientIdentityRemoved == "YES" and len(ds.PixelData) == PIXELS.nbytes
        original = pydicom.dcmread(path)
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"): assert ds[keyword].value != original[keyword].value
        assert {e.keyword for e in ds if e.value not in ("", None)} <= {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "ConversionType", "SeriesNumber", "InstanceNumber", "PatientIdentityRemoved",
            "DeidentificationMethod", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelSpacing", "WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept",
            "RescaleType", "PixelData"}


def test_vault_and_ledger(files, tmp_path):
    run = RunPaths(tmp_path / "run"); archive = open_archive(run, "scans")
    pictures = np.stack([(read_dicom(path).display * 255).astype(np.uint8) for path in files.values()])
    index = fill(archive, pictures, Key(KEY), views=("plain", "blocks-0.5", "roi", "le", "cbc", "codestream"), block=4, bits=8, random=os.urandom)
    names = [row["name"] for row in index if row["view"] == "jpeg2000"]
    archive.fetch("jpeg2000", names)
    free_of_markers("index", json.dumps(index, default=str))
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(written) > 20
    for path in written: free_of_markers(path.name, path.read_bytes(), str(path.relative_to(tmp_path)))


def test_facts_of_a_data_set_made_of_such_files(files, tmp_path):
    from medcrypt.imaging.loading import load_folder
    from medcrypt.imaging.preprocessing import Preprocessing
    from medcrypt.imaging.sources import detect
    folder = tmp_path / "folder"; folder.mkdir()
    for k in range(4): (folder / f"{k}.dcm").write_bytes(files[KINDS[k]].read_bytes())
    (folder / "labels.csv").write_text("file,patient_id,label\n" + "".join(f"{k}.dcm,p{k},{k % 2}\n" for k in range(4)))
    data = load_folder(detect(folder, label="label"), Preprocessing(16))
    free_of_markers("facts", json.dumps(data.facts), data, data.files, data.patients)
    free_of_markers("archive", data.save(tmp_path / "data.npz").read_bytes())
    (folder / "1.dcm").write_bytes(files["native"].read_bytes()[:-2800])
    (folder / "labels.csv").write_text("file,patient_id,label\n" + "".join(f"{k}.dcm,p{k},{k % 2}\n" for k in range(4)))
    skipped = load_folder(detect(folder, label="label"), Preprocessing(16), on_error="skip")
    assert skipped.facts["dropped"]["unreadable"] == 1; free_of_markers("unreadable", json.dumps(skipped.facts))


def broken(data):
    "The same file, broken in many ways, with markers where numbers and names of codes should be."
    yield data[:len(data) // 2]
    for keyword, vr in (("Rows", "US"), ("WindowCenter", "DS"), ("RescaleSlope", "DS"), ("NumberOfFrames", "IS"), ("PhotometricInterpretation", "CS"), ("PixelPaddingValue", "US"), ("PixelSpacing", "DS"), ("SliceThickness", "DS"), ("BitsStored", "US")):
        tag = datadict.tag_for_keyword(keyword)
        for letters in (b"LO", b"UN", b"OB", vr.encode()): yield meta(uid.ExplicitVRLittleEndian) + body(PIXELS, before=element(tag, letters, f"{WORD}^Jo ".encode()), middle=element(tag, letters, f"{WORD}^Jo ".encode()))
    yield meta(f"1.2.{NUMBER}.1") + body(PIXELS); yield meta(f"../{WORD}/x") + body(PIXELS); yield WORD.encode() * 100; yield bytes(128) + b"DICM" + WORD.encode() * 30
    for syntax in (uid.JPEGBaseline8Bit, uid.JPEG2000, uid.RLELossless, uid.JPEGLSLossless, uid.HTJ2KLossless, "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.8.1"):
        for frame in (WORD.encode() * 30, b"\xff\xd8\xff\xfe\0\x30" + WORD.encode() * 20 + b"\xff\xd9", encode(PIXELS, bits=12)[:60] + WORD.encode() * 9):
            yield meta(syntax) + body(PIXELS, pixel=element(0x7FE00010, b"OB", fragments([frame]), length=UNDEFINED))
    yield meta(uid.ExplicitVRLittleEndian) + body(PIXELS, middle=element(0x00283010, b"SQ", item(element(0x00283002, b"LO", f"{WORD} lut ".encode()) + element(0x00283006, b"LO", WORD.encode()))))


def test_errors_warnings_and_logs_repeat_nothing(files, caplog, capfd, recwarn):
    caplog.set_level(logging.DEBUG)
    count = 0
    for kind, path in files.items():
        for data in broken(path.read_bytes()):
            for read in (read_dicom, lambda source: read_series([source]), lambda source: read_dicom(pydicom.dcmread(io.BytesIO(source), force=True))):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore" if read is not read_dicom else "always")       # pydicom's own parser, where the caller uses it, warns as it likes
                    try: read(data).display
                    except MedcryptError as error:
                        count += 1
                        trail = error
                        while trail: free_of_markers(kind, str(trail), repr(trail)); trail = trail.__cause__
                    except Exception as error: assert read is not read_dicom and "pydicom" in repr(error.__traceback__.tb_next and error.__traceback__.tb_next.tb_frame.f_code.co_filename), repr(error)
    assert count > 150
    ours = [record for record in caplog.records if not record.name.startswith("pydicom")]
    free_of_markers("logs", *[record.getMessage() for record in ours]); free_of_markers("output", *capfd.readouterr())
    assert not [w for w in recwarn if WORD in str(w.message) and "medcrypt" in w.filename]


def test_read_dicom_itself_logs_and_warns_of_nothing(files, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in files.values(): image = read_dicom(path); image.display; image.modality; image.padding
        for data in broken(files["native"].read_bytes()):
            try: read_dicom(data).display
            except DicomError: pass
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_a_name_in_the_path_is_only_in_messages(files, tmp_path):
    path = tmp_path / f"{WORD}_Jane.dcm"; path.write_bytes(files["native"].read_bytes())
    image = read_dicom(path)
    free_of_markers("path", image.header, repr(image), facts(image))
    made = encrypt_file(path, KEY, tmp_path / "other.mce")
    free_of_markers("path", made.path.read_bytes())
    pixels, header = images.unseal_image(made.path.read_bytes(), KEY)
    free_of_markers("path", json.dumps(header))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DicomError) as caught: read_dicom(path)
    assert str(caught.value).startswith(f"{path}: "); free_of_markers("path", str(caught.value).removeprefix(f"{path}: "))
    assert isinstance(path, Path) and pixels.shape == PIXELS.shape
