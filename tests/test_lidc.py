"LIDC-IDRI: readings, consensus, series, crops, the index; on scans and XML made here, in the layouts of the archives."
import os, pickle, random, shutil, zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from medcrypt.core import MedcryptError
from medcrypt.imaging import lidc, lidc_index
from medcrypt.imaging.lidc import AIR_HU, PLANE, is_lidc, open_lidc, window
from medcrypt.imaging.lidc_xml import RATINGS, Annotation, Contour, Reading, consensus, group, parse_reading
from medcrypt.imaging.loading import load_folder, select
from medcrypt.imaging.preprocessing import Preprocessing
from medcrypt.imaging.sources import detect, open_source
from medcrypt.imaging.tables import DataError, evaluate

SIZE, PIXEL, THICK = 96, 0.7, 2.5
BALL = (40, 52, -30.0, 6.0) # x, y (pixels), z, radius (mm)


# --- making scans and readings --------------------------------------------------------------------------------------------------------

def hu_at(z, balls=(BALL,), size=SIZE, pixel=PIXEL):
    "A slice in HU, whole numbers: a ramp that differs in every pixel and slice, and balls."
    y, x = np.mgrid[:size, :size]
    hu = -1000 + x + 2 * y + round(z)
    for cx, cy, cz, radius in balls: hu = np.where(((x - cx) * pixel) ** 2 + ((y - cy) * pixel) ** 2 + (z - cz) ** 2 <= radius ** 2, hu + 700, hu)
    return hu

def write_slice(path, hu, z, series, number=1, patient="LIDC-IDRI-0001", signed=True, pixel=PIXEL, thick=THICK, turn=(1, 0, 0, 0, 1, 0), modality="CT", sop=None, **elements):
    ds = Dataset(); ds.file_meta = FileMetaDataset(); ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = uid.CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = sop or f"{series}.{round(z * 100) + 100000}"
    ds.Modality, ds.PatientID, ds.PatientName, ds.SeriesInstanceUID, ds.InstanceNumber = modality, patient, "Doe^Jane", series, number
    ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness = [-100, -90, z], list(turn), [pixel, pixel], thick
    ds.Rows, ds.Columns = hu.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, int(signed)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.RescaleSlope, ds.RescaleIntercept = 1, "MONOCHROME2", 1, 0 if signed else -2048
    ds.PixelData = (hu if signed else hu + 2048).astype("<i2" if signed else "<u2").tobytes()
    for name, value in elements.items(): setattr(ds, name, value)
    path.parent.mkdir(parents=True, exist_ok=True); ds.save_as(path, enforce_file_format=True)

ZS = np.arange(-60, 0, THICK)

def write_series(folder, series, zs=ZS, balls=(BALL,), descending=False, seed=0, pixel=PIXEL, **options):
    "Slices under names in no order."
    names = [f"1-{n:03d}.dcm" for n in range(1, len(zs) + 1)]; random.Random(seed).shuffle(names)
    numbers = range(len(zs), 0, -1) if descending else range(1, len(zs) + 1)
    for name, number, z in zip(names, numbers, zs): write_slice(folder / name, hu_at(z, balls, pixel=pixel), z, series, number, pixel=pixel, **options)

def roi(z, points, series, inclusion="TRUE", sop=None):
    edges = "\n".join(f"<edgeMap>\n<xCoord>{x}</xCoord>\n<yCoord>{y}</yCoord>\n</edgeMap>" for x, y in points)
    return f"<roi>\n<imageZposition>{z} </imageZposition>\n<imageSOP_UID>{sop or f'{series}.{round(z * 100) + 100000}'}</imageSOP_UID>\n<inclusion>{inclusion}</inclusion>\n{edges}\n</roi>"

def circle(x, y, radius, count=90):
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return list(dict.fromkeys(zip(np.rint(x + radius * np.cos(angle)).astype(int).tolist(), np.rint(y + radius * np.sin(angle)).astype(int).tolist())))

def rated(malignancy, rois, /, **ratings):
    values = {name: 2 for name in RATINGS} | {"calcification": 6, "malignancy": malignancy} | ratings
    return f"<unblindedReadNodule>\n<noduleID>Nodule 001</noduleID>\n<characteristics>{''.join(f'<{n}>{v}</{n}>' for n, v in values.items())}</characteristics>\n{''.join(rois)}</unblindedReadNodule>"

def outlined(ball, mean, series, zs=ZS, shift=0, pixel=PIXEL, **ratings):
    "A ball as one reader outlines it: the first pixels outside."
    x, y, cz, radius = ball
    return rated(mean, [roi(z, circle(x + shift, y, np.sqrt(radius ** 2 - (z - cz) ** 2) / pixel + .5), series) for z in zs if abs(z - cz) < radius - .2], **ratings)

SMALL = "<unblindedReadNodule><noduleID>IL057</noduleID>" + roi(-30.0, [(70, 70)], "1.2.3") + "</unblindedReadNodule>"
OTHER = "<nonNodule><nonNoduleID>2</nonNoduleID><imageZposition>-30.0</imageZposition><imageSOP_UID>1.2</imageSOP_UID><locus><xCoord>9</xCoord><yCoord>9</yCoord></locus></nonNodule>"

def message(series, *sessions, header=""):
    body = "".join(f"<readingSession><annotationVersion>3.12</annotationVersion><servicingRadiologistID>anonymous</servicingRadiologistID>{session}</readingSession>" for session in sessions)
    return ('<?xml version="1.0" encoding="UTF-8"?>\n<LidcReadMessage uid="1.3.6.1.4.1.14519.5.2.1.6279.6001.1307390687803.0" xmlns="http://www.nih.gov" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
            'xsi:schemaLocation="http://www.nih.gov http://example.invalid/LidcReadMessage.xsd">\n<ResponseHeader><Version>1.8.1</Version><MessageId>148851</MessageId><TaskDescription>Second unblinded read</TaskDescription>'
            f'<CtImageFile>removed</CtImageFile><SeriesInstanceUid>{series}</SeriesInstanceUid>{header}<ResponseDescription>1 - Reading complete</ResponseDescription><StudyInstanceUID>1.9</StudyInstanceUID></ResponseHeader>\n{body}</LidcReadMessage>').encode()

CXR = b'<?xml version="1.0"?><IdriReadMessage xmlns="http://www.nih.gov/idri"><ResponseHeader><CXRSeriesInstanceUid>1.7</CXRSeriesInstanceUid></ResponseHeader><CXRreadingSession/></IdriReadMessage>'
BALL2 = (70, 30, -20.0, 5.0)

@pytest.fixture
def tcia(tmp_path):
    "TCIA's layout: two patients, the second with two series and a scout; a reading beside the slices."
    def series(patient, name, balls, **options):
        folder = tmp_path / "LIDC-IDRI" / patient / "01-01-2000-30178" / name; write_series(folder, name, balls=balls, patient=patient, **options); return folder
    one = series("LIDC-IDRI-0001", "1.2.3", (BALL, BALL2))
    (one / "069.xml").write_bytes(message("1.2.3", outlined(BALL, 5, "1.2.3") + SMALL + OTHER, outlined(BALL, 4, "1.2.3", shift=1), outlined(BALL, 5, "1.2.3") + outlined(BALL2, 2, "1.2.3"), SMALL))
    two = series("LIDC-IDRI-0002", "1.2.4", (BALL,), descending=True, signed=False, seed=1)
    (two / "070.xml").write_bytes(message("1.2.4", outlined(BALL, 2, "1.2.4"), outlined(BALL, 4, "1.2.4"), outlined(BALL, 3, "1.2.4"), ""))
    three = series("LIDC-IDRI-0002", "1.2.5", (BALL2,), seed=2)
    (three / "071.xml").write_bytes(message("1.2.5", outlined(BALL2, 1, "1.2.5"), outlined(BALL2, 2, "1.2.5")))
    write_slice(tmp_path / "LIDC-IDRI" / "LIDC-IDRI-0002" / "scout" / "1-1.dcm", hu_at(0), 0., "1.2.9", patient="LIDC-IDRI-0002", turn=(1, 0, 0, 0, 0, -1))
    (tmp_path / "LIDC-IDRI" / "LIDC-IDRI-0001" / "cxr").mkdir(); (tmp_path / "LIDC-IDRI" / "LIDC-IDRI-0001" / "cxr" / "072.xml").write_bytes(CXR)
    (tmp_path / "LIDC-IDRI" / "LICENSE").write_text("CC BY 3.0"); (tmp_path / "metadata.csv").write_text("a,b\n")
    return tmp_path

def by_file(source): return {row["file"]: row for row in source.rows}


# --- readings ---------------------------------------------------------------------------------------------------------------------------

def test_a_reading_in_the_true_schema():
    hole = roi(-30.0, circle(40, 52, 2), "1.2.3", "FALSE")
    text = outlined(BALL, 4, "1.2.3").replace("</unblindedReadNodule>", hole + "</unblindedReadNodule>")
    found = parse_reading(message("1.2.3", text + SMALL + OTHER + OTHER, outlined(BALL, 5, "1.2.3", internalStructure=5), SMALL, ""), "069.xml")
    assert (found.series_uid, [a.reader for a in found.annotations]) == ("1.2.3", [1, 2])
    assert found.skipped == {"nodules under 3 mm": 2, "other findings": 2}
    assert len(found.annotations[0].contours) == len(found.annotations[1].contours) == 5    # the hole is not an outline
    assert found.annotations[0].ratings["calcification"] == 6 and "internalStructure" not in found.annotations[1].ratings # 5 is no kind

def test_namespaces_do_not_matter():
    plain = message("1.2.3", outlined(BALL, 4, "1.2.3"))
    prefixed = plain.replace(b' xmlns="http://www.nih.gov"', b' xmlns:n="http://www.nih.gov"').replace(b"</", b"</n:").replace(b"<", b"<n:").replace(b"<n:/n:", b"</n:").replace(b"<n:?", b"<?")
    without = plain.replace(b' xmlns="http://www.nih.gov"', b"")
    one, two, three = (parse_reading(data, "a.xml") for data in (plain, prefixed, without))
    assert len(one.annotations) == len(two.annotations) == len(three.annotations) == 1 and one.digest == two.digest == three.digest

@pytest.mark.parametrize("ratings, reason", [({n: 0 for n in RATINGS}, "nodules without ratings"), ({n: "" for n in RATINGS}, "nodules without ratings"), ({"malignancy": ""}, "nodules without a malignancy rating"), ({"malignancy": 6}, "nodules without a malignancy rating")])
def test_annotations_without_ratings_are_counted(ratings, reason):
    found = parse_reading(message("1.2.3", outlined(BALL, 4, "1.2.3", **ratings)), "a.xml")
    assert not found.annotations and found.skipped == {reason: 1}

def test_stray_points_and_empty_outlines():
    found = parse_reading(message("1.2.3", rated(4, [roi(-30.0, [(1, 1)], "1.2.3"), roi(-27.5, [(1, 1), (2, 2)], "1.2.3"), "<roi><imageZposition>1</imageZposition></roi>"])), "a.xml")
    assert found.skipped == {"nodules without an outline": 1}

def test_readings_of_radiographs_are_told_apart():
    assert parse_reading(CXR, "072.xml") == Reading("", (), {}, "")

LAUGHS = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><LidcReadMessage><ResponseHeader><SeriesInstanceUid>&b;</SeriesInstanceUid></ResponseHeader></LidcReadMessage>'

@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"<LidcReadMessage>", message("", ""), LAUGHS, LAUGHS.decode().encode("utf-16"), LAUGHS.replace(b' [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]', b' SYSTEM "file:' b'///etc/passwd"'),
    b"<html/>", message("1.2", outlined(BALL, 3, "1.2")).replace(b"<xCoord>", b"<xCoord>1e999", 1), message("1.2", outlined(BALL, 3, "1.2")).replace(b"imageZposition", b"z"), b'<?xml version="1.0" encoding="nothing"?><a/>', b"<a>" * 1_000_000,
    message("1.2", outlined(BALL, 3, "1.2")).replace(b"<roi>", b"<roi>" + b"<edgeMap><xCoord>1</xCoord><yCoord>2</yCoord></edgeMap>" * 5000, 1), bytes(9 << 20)], ids=range(14))
def test_what_is_no_reading_is_one_sentence(data):
    with pytest.raises(DataError, match=r"^odd/069\.xml: ") as caught: parse_reading(data, "odd/069.xml")
    assert len(str(caught.value)) < 200 and "passwd" not in str(caught.value)

@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_readings_raise_nothing_else(data):
    good = bytearray(message("1.2.3", outlined(BALL, 4, "1.2.3") + SMALL, OTHER))
    for _ in range(data.draw(st.integers(1, 6))): good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try: consensus(parse_reading(bytes(good), "a.xml"), (PIXEL, PIXEL), THICK)
    except DataError as error: assert str(error).startswith("a.xml: ")


# --- consensus --------------------------------------------------------------------------------------------------------------------------

def pylidc_rule(clouds, tolerance):
    "The published grouping, written down anew: connected components of distances up to a tolerance, smaller while a group has more than four."
    d = np.array([[cdist(a, b).min() for b in clouds] for a in clouds])
    while True:
        count, labels = connected_components(d <= tolerance, directed=False)
        if max(np.bincount(labels)) <= 4 or tolerance * .9 < .1: return {frozenset(np.flatnonzero(labels == k).tolist()) for k in range(count)}
        tolerance *= .9

@given(st.integers(1, 14), st.integers(0, 10_000), st.sampled_from((.6, 1.25, 2.5, 5.)))
@settings(max_examples=120, deadline=None)
def test_grouping_is_the_fields(count, seed, tolerance):
    draw = np.random.default_rng(seed)
    annotations = [Annotation(i + 1, {"malignancy": 3}, tuple(Contour(str(z), z, draw.uniform(0, 30, 2) + draw.uniform(-4, 4, (12, 2))) for z in draw.uniform(0, 20) + np.arange(3) * 2.5)) for i in range(count)]
    clouds = [np.vstack([np.c_[c.points * .7, np.full(12, c.z_mm)] for c in a.contours]) for a in annotations]
    ours = group(tuple(annotations), (.7, .7), tolerance)
    assert {frozenset(a.reader - 1 for a in members) for members in ours} == pylidc_rule(clouds, tolerance)

def test_more_than_four_annotations_shrink_the_tolerance():
    def reader(session, x): return Annotation(session, {"malignancy": 3}, (Contour("1", 0., np.array(circle(x, 50, 5), float)),))
    near = tuple(reader(i, 20 + (i % 2) * .1) for i in range(4)) + tuple(reader(i, 32 + (i % 2) * .1) for i in range(4))   # 2 pixels apart
    assert sorted(map(len, group(near, (1., 1.), 5.))) == [4, 4] and len(group(near[:2] + near[4:6], (1., 1.), 5.)) == 1
    same = tuple(reader(i, 20) for i in range(6))
    assert list(map(len, group(same, (1., 1.), 5.))) == [6]      # cannot be told apart

@pytest.mark.parametrize("marks, mean, label", [((5, 4), 4.5, "1"), ((3, 3), 3, ""), ((2, 4, 3), 3, ""), ((3, 3, 4), 10 / 3, "1"), ((1, 3, 4, 3), 2.75, "0"), ((3, 3, 3, 2), 2.75, "0"), ((1,), 1, "0")])
def test_label_of_the_mean(marks, mean, label):
    nodule, = consensus(parse_reading(message("1.2.3", *[outlined(BALL, m, "1.2.3") for m in marks]), "a.xml"), (PIXEL, PIXEL), THICK)
    assert (nodule.readers, nodule.label) == (len(marks), label) and np.mean(nodule.ratings["malignancy"]) == pytest.approx(mean)

@pytest.mark.parametrize("ball", [BALL, BALL2, (48, 48, -31.0, 11.0), (20.4, 60.3, -28.2, 3.4)])
@pytest.mark.parametrize("pixel", [.5, .7, .98])
def test_diameter_centre_and_slice(ball, pixel):
    zs = np.arange(-60, 0, 1.25)
    nodule, = consensus(parse_reading(message("1.2.3", *[outlined(ball, 4, "1.2.3", zs, pixel=pixel) for _ in range(4)]), "a.xml"), (pixel, pixel), 1.25)
    largest = zs[np.abs(zs - ball[2]).argmin()]
    drawn = 2 * np.sqrt(ball[3] ** 2 - (largest - ball[2]) ** 2) / pixel + 1        # in pixels, before each end was rounded to one
    points = np.array(circle(ball[0], ball[1], drawn / 2), float)
    assert nodule.diameter_mm >= cdist(points, points).max() * pixel - 1e-9 and abs(nodule.diameter_mm / pixel - drawn) <= np.sqrt(2)
    assert np.allclose(nodule.centroid[:2], ball[:2], atol=.35) and abs(nodule.centroid[2] - ball[2]) < .5
    assert nodule.slices[0] == (f"1.2.3.{round(largest * 100) + 100000}", largest) or abs(abs(nodule.slices[0][1] - ball[2]) - abs(largest - ball[2])) < .3

def test_unequal_pixels_and_two_marks_of_one_reader():
    oval = [(20, 20), (24, 20), (24, 40), (20, 40)]
    twice = rated(4, [roi(-30.0, oval, "1.2.3")]) + rated(2, [roi(-27.5, oval, "1.2.3")])
    nodule, = consensus(parse_reading(message("1.2.3", twice), "a.xml"), (2., 1.), 2.5)
    assert (nodule.readers, nodule.ratings["malignancy"]) == (1, [4, 2]) and nodule.diameter_mm == pytest.approx(np.hypot(4, 40)) and nodule.centroid == pytest.approx((22, 30, -28.75))


# --- the collection -----------------------------------------------------------------------------------------------------------------------

def test_the_table(tcia):
    rows = by_file(open_lidc(tcia))
    assert list(rows) == ["LIDC-IDRI-0001/1", "LIDC-IDRI-0001/2", "LIDC-IDRI-0002/1-1", "LIDC-IDRI-0002/2-1"]
    first = rows["LIDC-IDRI-0001/1"]
    assert (first["patient_id"], first["label_malignant"], first["malignancy_mean"], first["readers"], first["malignancy_ratings"]) == ("LIDC-IDRI-0001", "1", "4.66667", "3", "5|4|5")
    assert abs(float(first["diameter_mm"]) - 12.7) <= PIXEL and (first["pixel_spacing_mm"], first["slice_thickness_mm"], first["calcification_ratings"], first["texture_mean"]) == ("0.7", "2.5", "6|6|6", "2")
    assert (rows["LIDC-IDRI-0001/2"]["label_malignant"], rows["LIDC-IDRI-0001/2"]["readers"]) == ("0", "1")
    assert rows["LIDC-IDRI-0002/1-1"]["label_malignant"] == "" and rows["LIDC-IDRI-0002/2-1"]["label_malignant"] == "0"
    assert len({tuple(row) for row in rows.values()}) == 1 and all(isinstance(cell, str) for row in rows.values() for cell in row.values())

def test_notes_count_what_is_not_used(tcia):
    (tcia / "more.xml").write_bytes(message("1.99", outlined(BALL, 5, "1.99")))
    source = open_lidc(tcia, min_readers=2)
    text = " ".join(source.notes)
    assert "not pathology" in text and "CT series without a reading: 1." in text and "readings without a CT series here: 1." in text and "readings of radiographs, not used: 1." in text and "nodules outlined by fewer than 2 readers: 1." in text
    assert list(by_file(source)) == ["LIDC-IDRI-0001/1", "LIDC-IDRI-0002/1-1", "LIDC-IDRI-0002/2-1"]

def test_undecided_nodules_dropped_or_kept(tcia):
    source = open_lidc(tcia)
    def kept(label): return [(file, answer) for file, answer, *_ in select(detect(tcia, label=label), source).chosen]
    decided = [("LIDC-IDRI-0001/1", 1), ("LIDC-IDRI-0001/2", 0), ("LIDC-IDRI-0002/2-1", 0)]
    assert kept("label_malignant") == decided and select(detect(tcia), source).dropped == {"label unknown": 1}
    assert sorted(kept("malignancy_mean>3")) == sorted([*decided, ("LIDC-IDRI-0002/1-1", 0)])
    assert sorted(kept("malignancy_mean>=3")) == sorted([*decided, ("LIDC-IDRI-0002/1-1", 1)])
    assert evaluate("malignancy_mean>=3.5", source.rows) == [1, 0, 0, 0]

def other_layout(tcia, folder, archive):
    "The same data as the Imaging Data Commons lays it out, the readings apart: unpacked or in their archive."
    for number, path in enumerate(sorted(tcia.rglob("*.dcm"))):
        patient, series = path.relative_to(tcia / "LIDC-IDRI").parts[0], path.parent.name
        target = folder / "lidc_idri" / patient / "1.9" / f"CT_{series}" / f"{hash((number, 5)) & 0xFFFFFFFF:08x}-{number}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True); shutil.copy(path, target)
    xmls = {f"tcia-lidc-xml/157/{path.name}": path.read_bytes() for path in tcia.rglob("*.xml")}
    if archive:
        with zipfile.ZipFile(folder / "LIDC-XML-only.zip", "w", zipfile.ZIP_DEFLATED) as out: [out.writestr(*item) for item in xmls.items()]
    else: [((folder / name).parent.mkdir(parents=True, exist_ok=True), (folder / name).write_bytes(data)) for name, data in xmls.items()]
    return folder

@pytest.mark.parametrize("archive", [True, False])
def test_every_layout_is_the_same_table(tcia, tmp_path, archive):
    other = other_layout(tcia, tmp_path / "idc", archive)
    assert is_lidc(other) and is_lidc(tcia) and is_lidc(tcia / "LIDC-IDRI" / "LIDC-IDRI-0001")
    one, two = open_lidc(tcia / "LIDC-IDRI"), open_lidc(other)
    assert one.rows == two.rows and one.notes == two.notes
    for row in one.rows: assert np.array_equal(one.read(row["file"]), two.read(row["file"]))

def test_both_copies_at_once_count_once(tcia, tmp_path):
    rows = open_lidc(tcia).rows
    other_layout(tcia, tmp_path, True)                                                   # beside the first
    assert [row["file"] for row in open_lidc(tmp_path).rows] == [row["file"] for row in rows]

def test_other_folders_are_not_taken_for_it(tmp_path):
    write_series(tmp_path / "ct", "1.2"); (tmp_path / "a.xml").write_text("<a/>"); (tmp_path / "xml.zip").write_bytes(b"PK")
    assert not is_lidc(tmp_path)
    for n in range(60): (tmp_path / "many" / str(n)).mkdir(parents=True)
    (tmp_path / "many" / "70.xml").write_bytes(message("1", ""))
    assert is_lidc(tmp_path / "many") and not is_lidc(tmp_path / "many", most=50)


# --- pictures ---------------------------------------------------------------------------------------------------------------------------

def display(hu): return np.clip((hu + 1350) / 1500, 0, 1)

def expected_crop(hu, x, y, size=128):
    padded = np.pad(hu, size, constant_values=AIR_HU)
    return padded[y + size - size // 2:y + size + size // 2, x + size - size // 2:x + size + size // 2]

def test_crops_are_exact_also_over_the_border(tcia):
    source = open_lidc(tcia)
    for file, ball, balls in (("LIDC-IDRI-0001/1", BALL, (BALL, BALL2)), ("LIDC-IDRI-0001/2", BALL2, (BALL, BALL2)), ("LIDC-IDRI-0002/1-1", BALL, (BALL,)), ("LIDC-IDRI-0002/2-1", BALL2, (BALL2,))):
        found = source.read(file)
        assert found.dtype == np.float32 and found.shape == (128, 128)
        assert np.abs(found - display(expected_crop(hu_at(ball[2], balls), *ball[:2]))).max() < 1e-6, file
        assert found[0, 0] == pytest.approx((AIR_HU + 1350) / 1500)

@given(st.integers(1, 30), st.integers(1, 30), st.integers(-40, 70), st.integers(-40, 70), st.integers(1, 40))
def test_window_is_padding_and_cutting(rows, columns, y, x, size):
    pixels = np.arange(rows * columns).reshape(rows, columns)
    padded = np.pad(pixels, 200, constant_values=-1)
    top, left = y - size // 2 + 200, x - size // 2 + 200
    assert np.array_equal(window(pixels, y, x, size, -1), padded[top:top + size, left:left + size])

@pytest.mark.parametrize("pixel, gap, descending", [(.7, 2.5, False), (.6, 1.25, True), (.9, .6, False), (.5, 3., True)])
def test_a_ball_is_round_in_three_planes(tmp_path, pixel, gap, descending):
    ball, zs = (40, 52, -30.3, 8.0), np.arange(-75, 15, gap)
    write_series(tmp_path / "s", "1.2.3", zs, (ball,), descending, pixel=pixel, thick=gap)
    (tmp_path / "1.xml").write_bytes(message("1.2.3", *[outlined(ball, 4, "1.2.3", zs, pixel=pixel)] * 2))
    found = open_lidc(tmp_path, slices="2.5d").read("LIDC-IDRI-0001/1")
    assert found.shape == (PLANE, 3 * PLANE)
    hu = found * 1500 - 1350
    inside = hu > -1000 + 40 + 2 * 52 - 30 + 350                     # half of the ball's height above the ramp
    tolerance = 1.5 + gap / pixel
    for plane in np.hsplit(inside, 3):
        middle = plane[PLANE // 2 - 14:PLANE // 2 + 14] & True
        high, wide = plane[:, PLANE // 2 - 2:PLANE // 2 + 2].any(1), plane[PLANE // 2 - 2:PLANE // 2 + 2].any(0)
        assert middle.any() and abs(wide.sum() - 16 / pixel) <= tolerance and abs(high.sum() - 16 / pixel) <= tolerance
        assert abs(np.flatnonzero(wide).mean() - PLANE // 2) <= 1 and abs(np.flatnonzero(high).mean() - PLANE // 2) <= tolerance / 2

def test_upright_planes_follow_the_ramp_head_up(tmp_path):
    zs = np.arange(-75, 15, 2.5)
    write_series(tmp_path / "s", "1.2.3", zs, ())
    (tmp_path / "1.xml").write_bytes(message("1.2.3", outlined(BALL, 4, "1.2.3")))
    hu = open_lidc(tmp_path, slices="2.5d").read("LIDC-IDRI-0001/1") * 1500 - 1350
    axial, coronal, sagittal = np.hsplit(hu, 3)
    across = np.arange(PLANE) - PLANE // 2
    z = -30 + (PLANE // 2 - np.arange(PLANE)) * PIXEL                # the first row is the highest
    rounded = np.interp(z, zs, [round(v) for v in zs])              # the ramp has whole numbers in each slice
    x, y = 40 + across, 52 + across
    seen = (x >= 0) & (x < SIZE), (y >= 0) & (y < SIZE)
    assert np.allclose(axial[np.ix_(seen[1], seen[0])], (-1000 + x[None] + 2 * y[:, None] - 30)[np.ix_(seen[1], seen[0])], atol=.01)
    assert np.allclose(coronal[:, seen[0]], (-1000 + x[None] + 2 * 52 + rounded[:, None])[:, seen[0]], atol=.01)
    assert np.allclose(sagittal[:, seen[1]], (-1000 + 40 + 2 * y[None] + rounded[:, None])[:, seen[1]], atol=.01)

def test_only_the_slices_that_are_needed_are_read(tmp_path, monkeypatch):
    zs = np.arange(-300, 300, 2.5)
    write_series(tmp_path / "s", "1.2.3", zs)
    (tmp_path / "1.xml").write_bytes(message("1.2.3", outlined(BALL, 4, "1.2.3")))
    read = []; whole = lidc.read_dicom
    monkeypatch.setattr(lidc, "read_dicom", lambda path: (read.append(path), whole(path))[1])
    open_lidc(tmp_path).read("LIDC-IDRI-0001/1")
    assert len(read) == 1
    open_lidc(tmp_path, slices="2.5d").read("LIDC-IDRI-0001/1")
    assert len(read) - 1 <= PLANE * PIXEL / 2.5 + 3
    monkeypatch.setattr(lidc, "MOST_SLICES", 5); read.clear()
    open_lidc(tmp_path, slices="2.5d").read("LIDC-IDRI-0001/1")
    assert len(read) <= 5

def test_above_the_last_slice_is_air(tmp_path):
    zs = np.arange(-40, -24, 2.5)
    write_series(tmp_path / "s", "1.2.3", zs)
    (tmp_path / "1.xml").write_bytes(message("1.2.3", outlined(BALL, 4, "1.2.3", zs)))
    coronal = np.hsplit(open_lidc(tmp_path, slices="2.5d").read("LIDC-IDRI-0001/1"), 3)[1]
    assert np.allclose(coronal[0], (AIR_HU + 1350) / 1500) and np.allclose(coronal[-1], (AIR_HU + 1350) / 1500)


# --- what does not fit together ---------------------------------------------------------------------------------------------------------

def test_slices_are_found_by_position_where_uids_differ(tmp_path):
    write_series(tmp_path / "s", "1.2.3")
    good = message("1.2.3", outlined(BALL, 4, "1.2.3"))
    (tmp_path / "1.xml").write_bytes(good); exact = open_lidc(tmp_path)
    (tmp_path / "1.xml").write_bytes(good.replace(b"<imageSOP_UID>1.2.3.", b"<imageSOP_UID>9.9.9.")); moved = open_lidc(tmp_path)
    assert np.array_equal(exact.read("LIDC-IDRI-0001/1"), moved.read("LIDC-IDRI-0001/1"))
    assert not any("matched by position" in note for note in exact.notes) and any("another slice than their largest: 1." in note for note in moved.notes)
    wrong = good.decode().replace("<imageZposition>-", "<imageZposition>-9")             # UIDs are believed before positions
    (tmp_path / "1.xml").write_text(wrong)
    assert np.array_equal(exact.read("LIDC-IDRI-0001/1"), open_lidc(tmp_path).read("LIDC-IDRI-0001/1"))

def test_a_missing_slice_falls_back_and_is_counted(tmp_path):
    write_series(tmp_path / "s", "1.2.3", [z for z in ZS if z != -30])
    (tmp_path / "1.xml").write_bytes(message("1.2.3", outlined(BALL, 4, "1.2.3")))
    source = open_lidc(tmp_path)
    assert any("shown in another slice" in note for note in source.notes)
    found = source.read("LIDC-IDRI-0001/1")
    assert min(np.abs(found - display(expected_crop(hu_at(z), 40, 52))).max() for z in (-32.5, -27.5)) < 1e-6
    shutil.rmtree(tmp_path / "s"); write_series(tmp_path / "s", "1.2.3", [z for z in ZS if abs(z + 30) > 8])
    with pytest.raises(DataError, match="no nodule of 3 mm or more"): open_lidc(tmp_path)

def test_two_slices_at_one_place_and_slices_that_do_not_belong(tmp_path):
    write_series(tmp_path / "s", "1.2.3")
    write_slice(tmp_path / "s" / "0-late.dcm", hu_at(-30.) + 5, -30., "1.2.3", number=99, sop="1.2.3.77")
    write_slice(tmp_path / "s" / "0-scout.dcm", hu_at(-30.), -30., "1.2.3", number=0, sop="1.2.3.78", turn=(1, 0, 0, 0, 0, -1))
    write_slice(tmp_path / "s" / "0-dose.dcm", hu_at(-30.)[:50], -31., "1.2.3", number=0, sop="1.2.3.79")
    (tmp_path / "1.xml").write_bytes(message("1.2.3", outlined(BALL, 4, "1.2.3")))
    source = open_lidc(tmp_path, slices="2.5d")
    assert np.abs(open_lidc(tmp_path).read("LIDC-IDRI-0001/1") - display(expected_crop(hu_at(-30.), 40, 52))).max() < 1e-6
    assert np.isfinite(source.read("LIDC-IDRI-0001/1")).all()

def test_several_readings_of_one_series(tmp_path):
    write_series(tmp_path / "s", "1.2.3")
    old, new = message("1.2.3", outlined(BALL, 1, "1.2.3")), message("1.2.3", outlined(BALL, 5, "1.2.3"))
    (tmp_path / "161.xml").write_bytes(old); (tmp_path / "162.xml").write_bytes(message("1.2.3", outlined(BALL, 1, "1.2.3"), header="<Modality>CT</Modality>"))
    assert [row["malignancy_mean"] for row in open_lidc(tmp_path).rows] == ["1"]         # a copy with another header
    (tmp_path / "161-resubmitted-correction-3-9-12.xml").write_bytes(new)
    assert [row["malignancy_mean"] for row in open_lidc(tmp_path).rows] == ["5"]         # the corrected one counts
    (tmp_path / "161-resubmitted-correction-3-9-12.xml").rename(tmp_path / "163.xml")
    with pytest.raises(DataError, match="no nodule"): open_lidc(tmp_path)
    write_series(tmp_path / "t", "1.2.4", patient="LIDC-IDRI-0002"); (tmp_path / "164.xml").write_bytes(message("1.2.4", outlined(BALL, 2, "1.2.4")))
    source = open_lidc(tmp_path)
    assert list(by_file(source)) == ["LIDC-IDRI-0002/1"] and any("series whose readings contradict each other: 1." in note for note in source.notes)

def test_broken_files_are_counted_and_no_path_gets_into_a_caption(tcia):
    (tcia / "LIDC-IDRI" / "aa.dcm").write_bytes(b"not DICOM at all"); (tcia / "LIDC-IDRI" / "bb.xml").write_bytes(b"<LidcReadMessage><half")
    cut = next(tcia.rglob("1.2.4/1-001.dcm")); cut.write_bytes(cut.read_bytes()[:200])
    notes = " ".join(open_lidc(tcia).notes)
    assert "DICOM files that cannot be used: 2." in notes and "XML files that cannot be used: 1." in notes and "bb.xml" not in notes and "/" not in notes

def test_pixels_that_cannot_be_read_name_the_file(tcia):
    source = open_lidc(tcia)
    for path in tcia.rglob("1.2.3/*.dcm"): path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"1\.2\.3/1-\d+\.dcm"): source.read("LIDC-IDRI-0001/1")
    with pytest.raises(DataError, match="no nodule 'LIDC-IDRI-0001/9'"): source.read("LIDC-IDRI-0001/9")

def test_nothing_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such folder"): open_lidc(tmp_path / "none")
    write_series(tmp_path / "LIDC-IDRI-0001", "1.2.3")
    assert is_lidc(tmp_path)
    with pytest.raises(DataError, match="LIDC-XML-only.zip"): open_lidc(tmp_path)
    (tmp_path / "1.xml").write_bytes(message("9.9", outlined(BALL, 4, "9.9")))
    with pytest.raises(DataError, match="1 CT series and 1 readings"): open_lidc(tmp_path)
    (tmp_path / "LIDC-XML-only.zip").write_bytes(b"PK\3\4 half")
    with pytest.raises(DataError, match="not a whole archive"): open_lidc(tmp_path)

def test_archives_that_deceive(tmp_path):
    write_series(tmp_path / "s", "1.2.3")
    with zipfile.ZipFile(tmp_path / "LIDC-XML-only.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("../../escape.xml", message("1.2.3", outlined(BALL, 4, "1.2.3"))); out.writestr("bomb.xml", bytes(1 << 28)); out.writestr("notes.txt", "x")
    source = open_lidc(tmp_path)
    assert len(source.rows) == 1 and any("XML files that cannot be used: 1." in note for note in source.notes) and not (tmp_path.parent.parent / "escape.xml").exists()

def test_identifiers_that_are_not_public_stay_inside(tmp_path):
    write_series(tmp_path / "a", "1.2.3", patient="HOSPITAL-4711/../x"); write_series(tmp_path / "b", "1.2.4", patient="")
    (tmp_path / "1.xml").write_bytes(message("1.2.3", outlined(BALL, 4, "1.2.3"))); (tmp_path / "2.xml").write_bytes(message("1.2.4", outlined(BALL, 2, "1.2.4")))
    source = open_lidc(tmp_path)
    assert [(row["file"], row["patient_id"]) for row in source.rows] == [("patient-0001/1", "patient-0001"), ("unknown/1", "")]
    assert "4711" not in repr(source.rows) + repr(source.notes) + repr(source.read("unknown/1").shape) and "Doe" not in repr(source)


# --- the index --------------------------------------------------------------------------------------------------------------------------

@pytest.fixture
def headers(monkeypatch):
    "Paths whose header was read."
    seen, real = [], lidc_index._header
    monkeypatch.setattr(lidc_index, "_header", lambda path: (seen.append(path.name), real(path))[1])
    return seen

def test_the_second_opening_reads_nothing(tcia, headers, monkeypatch):
    first = open_lidc(tcia)
    assert len(headers) == 3 * len(ZS) + 2                                                # the scout, and a file without a suffix
    headers.clear(); monkeypatch.setattr(lidc_index, "parse_reading", None); monkeypatch.setattr(lidc_index, "consensus", None)
    again = open_lidc(tcia)
    assert not headers and again.rows == first.rows and again.notes == first.notes

def test_changed_new_and_removed_files(tcia, headers):
    open_lidc(tcia); headers.clear()
    changed = next(tcia.rglob("1.2.3/1-004.dcm")); os.utime(changed, ns=(1, 1))
    next(tcia.rglob("1.2.3/1-005.dcm")).rename(tcia / "new.dcm")
    shutil.rmtree(next(tcia.rglob("1.2.5")))
    rows = open_lidc(tcia).rows
    assert sorted(headers) == ["1-004.dcm", "new.dcm"] and [row["file"] for row in rows] == ["LIDC-IDRI-0001/1", "LIDC-IDRI-0001/2", "LIDC-IDRI-0002/1"]
    xml = next(tcia.rglob("069.xml")); xml.write_bytes(xml.read_bytes().replace(b"<malignancy>5", b"<malignancy>1"))
    assert open_lidc(tcia).rows[0]["malignancy_ratings"] == "1|4|1"

def test_a_scan_that_was_stopped_goes_on(tcia, headers, monkeypatch):
    spied = lidc_index._header
    def stop(path):
        if len(headers) == 30: raise KeyboardInterrupt
        return spied(path)
    monkeypatch.setattr(lidc_index, "_header", stop)
    with pytest.raises(KeyboardInterrupt): open_lidc(tcia)
    monkeypatch.setattr(lidc_index, "_header", spied)
    assert len(open_lidc(tcia).rows) == 4 and len(headers) == 3 * len(ZS) + 2

def test_a_damaged_index_is_made_again(tcia, headers):
    rows = open_lidc(tcia).rows; headers.clear()
    (tcia / lidc_index.INDEX).write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    assert open_lidc(tcia).rows == rows and headers

def test_a_folder_that_cannot_be_written_to(tcia, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDCRYPT_DATA", str(tmp_path / "home")); real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: False if mode == os.W_OK and Path(path) == tcia else real(path, mode))
    assert len(open_lidc(tcia).rows) == 4 and not (tcia / lidc_index.INDEX).exists() and list((tmp_path / "home" / "index").glob("*.sqlite"))

@given(st.data())
@settings(max_examples=120, deadline=None)
def test_damaged_headers_are_told_not_raised(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    if not hasattr(test_damaged_headers_are_told_not_raised, "good"):
        write_slice(path, hu_at(0.), 0., "1.2.3"); test_damaged_headers_are_told_not_raised.good = path.read_bytes()[:2000]
    damaged = bytearray(test_damaged_headers_are_told_not_raised.good)
    for _ in range(data.draw(st.integers(1, 8))): damaged[data.draw(st.integers(132, 800))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    values = lidc_index._header(path)
    assert len(values) == len(lidc_index.FIELDS) - 3 and isinstance(values[0], str) and "Doe" not in values[0]


# --- all of it together -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("slices", ["central", "2.5d"])
def test_loading(tcia, slices):
    config = detect(tcia, slices=slices, label="malignancy_mean>3")
    assert (config.group, config.crop, config.modality, config.source) == ("patient_id", 48, "CT", "LIDC-IDRI")
    data = load_folder(config, Preprocessing(32, crop=config.crop, planes=3 if slices == "2.5d" else 1))
    assert data.images.shape == (4, 32, 96 if slices == "2.5d" else 32) and sorted(zip(data.patients.tolist(), data.labels.tolist())) == [("LIDC-IDRI-0001", 0), ("LIDC-IDRI-0001", 1), ("LIDC-IDRI-0002", 0), ("LIDC-IDRI-0002", 0)]
    assert any("not pathology" in note for note in data.facts["notes"])

def test_the_reader_can_be_pickled(tcia):
    source = open_source(tcia)
    again = pickle.loads(pickle.dumps(source.read))
    assert np.array_equal(again("LIDC-IDRI-0001/1"), source.read("LIDC-IDRI-0001/1"))
    with pytest.raises(MedcryptError): again("../x")

def test_the_index_is_for_its_owner_alone(tcia):
    open_lidc(tcia)
    assert (tcia / lidc_index.INDEX).stat().st_mode & 0o077 == 0
