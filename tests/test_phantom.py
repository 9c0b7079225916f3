"Synthetic patients: valid DICOM, known labels, same seed same bytes, speed, realism of compressed size."
import csv, hashlib, io, json, time

import numpy as np
import pydicom
import pytest
from PIL import Image

from medcrypt.core import ConfigError
from medcrypt.imaging import phantom
from medcrypt.imaging.dicom import read_dicom
from medcrypt.imaging.phantom_chest import Pose, draw_chest
from medcrypt.imaging.phantom_ct import Nodule, ct_slice, draw_nodule, in_lung, draw_scan, malignancy
from medcrypt.imaging.phantom_cxr import FINDINGS, radiograph


def table(folder): return list(csv.DictReader(open(folder / "labels.csv", newline="")))


def digest(folder): return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("phantoms")
    return {kind: phantom.write_phantoms(base / kind, kind, 60, seed=5) for kind in ("cxr", "ct")}


@pytest.mark.parametrize("kind", ["cxr", "ct"])
def test_files_read_back_as_what_was_drawn(folders, kind):
    drawn = list(phantom.patients(kind, 60, seed=5, size=phantom.SIZES[kind]))
    rows = table(folders[kind])
    assert len(rows) == len(drawn) == 60 and len({row["file"] for row in rows}) == 60
    for row, (patient, number, stored, facts) in zip(rows, drawn):
        image = read_dicom(folders[kind] / row["file"])
        assert row["patient_id"] == patient and np.array_equal(image.stored, stored) and image.stored.dtype == stored.dtype
        assert image.frames == 1 and not image.padding.any() and 0 <= image.display.min() <= image.display.max() <= 1 and image.display.std() > 0.05
        if kind == "ct": assert np.array_equal(image.modality, stored - 1024.0) and image.modality.max() > -200
        else: assert row["view"] == facts["view"] and [int(row[name]) for name in FINDINGS] == [int(name in facts["findings"]) for name in FINDINGS]
    per_patient = np.unique([row["patient_id"] for row in rows], return_counts=True)[1]
    assert set(per_patient) == {1, 2, 3}


@pytest.mark.parametrize("kind, label, low, high", [("cxr", "label_any_finding", .38, .52), ("ct", "label_malignant", .33, .47)])
def test_prevalence_over_many_patients(kind, label, low, high):
    values = [int(any(facts["findings"])) if kind == "cxr" else facts["label_malignant"] for *_, facts in phantom.patients(kind, 1200, seed=1, size=32)]
    assert low < np.mean(values) < high


def test_label_columns_agree(folders):
    for row in table(folders["cxr"]): assert int(row["label_any_finding"]) == int(any(int(row[name]) for name in FINDINGS))
    for row in table(folders["ct"]): assert 4 <= float(row["diameter_mm"]) <= 25 and 1 <= float(row["spiculation"]) <= 5 and 1 <= float(row["texture"]) <= 5


@pytest.mark.parametrize("kind", ["cxr", "ct"])
def test_headers(folders, kind):
    seen = set()
    for path in sorted((folders[kind] / "images").glob("*.dcm")):
        header = pydicom.dcmread(path)
        assert header.PatientID.startswith("PHANTOM-") and str(header.PatientName) == f"Phantom^{header.PatientID[-6:]}" and header.PatientIdentityRemoved == "YES"
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID and header.file_meta.MediaStorageSOPClassUID == header.SOPClassUID
        for uid in (header.SOPInstanceUID, header.StudyInstanceUID, header.SeriesInstanceUID): assert uid.is_valid and uid.startswith("2.25.")
        assert header.SOPInstanceUID not in seen; seen.add(header.SOPInstanceUID)
        assert header.Modality == {"cxr": "DX", "ct": "CT"}[kind] and float(header.WindowWidth) > 1
        if kind == "cxr": assert header.ViewPosition in ("PA", "AP") and header.BitsStored == 12 and header.pixel_array.max() < 4096
        else: assert float(header.RescaleIntercept) == -1024 and (header.BitsStored, header.PixelRepresentation) in ((12, 0), (16, 1))
    one_patient = [pydicom.dcmread(p, stop_before_pixels=True) for p in (folders[kind] / "images").glob("PHANTOM-000001_*.dcm")]
    assert len({h.StudyInstanceUID for h in one_patient}) == 1 and len({h.SeriesInstanceUID for h in one_patient}) == len(one_patient)


def test_both_storages_occur(folders):
    assert {read_dicom(folders["cxr"] / row["file"]).header["photometric"] for row in table(folders["cxr"])} == {"MONOCHROME1", "MONOCHROME2"}
    assert {read_dicom(folders["ct"] / row["file"]).header["signed"] for row in table(folders["ct"])} == {True, False}


@pytest.mark.parametrize("kind", ["cxr", "ct"])
def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path, kind):
    first, second, other = (digest(phantom.write_phantoms(tmp_path / name, kind, 5, seed=seed, size=48)) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert first == second and first["labels.csv"] != other["labels.csv"] and len(first) == 7
    assert not set(first.values()) & {v for k, v in other.items() if k.endswith(".dcm")}


def test_more_pictures_do_not_change_the_first_ones():
    few, many = (list(phantom.patients("ct", n, seed=2, size=32)) for n in (6, 12))
    for (name, _, stored, _), (again, _, same, _) in zip(few, many): assert name == again and np.array_equal(stored, same)


def test_restart_replace_refuse(tmp_path):
    folder = phantom.write_phantoms(tmp_path / "x", "ct", 6, seed=1, size=32)
    before, times = digest(folder), [f.stat().st_mtime_ns for f in sorted(folder.rglob("*.dcm"))]
    phantom.write_phantoms(folder, "ct", 6, seed=1, size=32)
    assert [f.stat().st_mtime_ns for f in sorted(folder.rglob("*.dcm"))] == times
    next(iter(sorted(folder.rglob("*.dcm")))).unlink()
    assert digest(phantom.write_phantoms(folder, "ct", 6, seed=1, size=32)) == before
    (folder / "labels.csv").unlink()
    assert digest(phantom.write_phantoms(folder, "ct", 6, seed=1, size=32)) == before
    phantom.write_phantoms(folder, "ct", 2, seed=1, size=32)
    assert len(list(folder.rglob("*.dcm"))) == len(table(folder)) == 2
    (tmp_path / "own").mkdir(); (tmp_path / "own" / "labels.csv").write_text("file,label\n")
    with pytest.raises(ConfigError, match="not a phantom"): phantom.write_phantoms(tmp_path / "own", "cxr", 1, seed=0)
    assert (tmp_path / "own" / "labels.csv").read_text() == "file,label\n"


def test_an_interrupted_run_leaves_no_table(tmp_path):
    calls = []
    def stop():
        calls.append(1)
        if len(calls) == 3: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): phantom.write_phantoms(tmp_path / "x", "ct", 6, seed=1, size=32, progress=stop)
    assert not (tmp_path / "x" / "labels.csv").exists()
    phantom.write_phantoms(tmp_path / "x", "ct", 6, seed=1, size=32, progress=stop)
    assert len(calls) == 9 and json.loads((tmp_path / "x" / "phantoms.json").read_text())["count"] == 6


@pytest.mark.parametrize("call", [lambda: radiograph(0, "Fracture"), lambda: radiograph(0, size=16), lambda: radiograph(0, view="LATERAL"), lambda: radiograph(0, photometric="RGB"),
                                  lambda: ct_slice(0, 16), lambda: phantom.write_phantoms("x", "mri", 1, seed=0), lambda: phantom.write_phantoms("x", "ct", 0, seed=0)])
def test_what_cannot_be_made_is_one_sentence(call):
    with pytest.raises(ConfigError) as caught: call()
    assert "\n" not in str(caught.value)


def difference(finding, view="PA", **options):
    chest = draw_chest(np.random.default_rng(9))
    ill, healthy = (radiograph(21, name, 128, chest=chest, view=view, severity=0.9)[0].astype(float) for name in (finding, "none"))
    return np.abs(ill - healthy)


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("view", ["PA", "AP"])
def test_every_finding_changes_the_picture(finding, view): assert (difference(finding, view) > 150).mean() > 0.005


def test_pose_round_trip():
    pose = Pose(64, 5, 0.2, 1.1, (4, -7))
    X, Y = pose.frame()
    for row, column in ((0, 0), (63, 5), (30, 40)):
        x, y = pose.place(float(X[row, column]), float(Y[row, column]))
        assert x == pytest.approx((column + 0.5 - 32) * 5, abs=1e-3) and y == pytest.approx((row + 0.5 - 32) * 5, abs=1e-3)


def test_the_nodule_is_in_the_middle_and_has_its_size():
    scan = draw_scan(np.random.default_rng(0))
    for diameter in (8, 16, 24):
        inside, radius = [], diameter / 2 / scan.spacing_mm
        for seed in range(8):
            hu = ct_slice(seed, 96, scan=scan, nodule=Nodule(diameter, 1, 5, False))[0].astype(int) - 1024
            y, x = np.mgrid[:96, :96] - 47.5
            inside.append((hu[np.hypot(x, y) < 0.6 * radius] > -300).mean())
        assert np.mean(inside) > 0.9
    assert in_lung(scan, 0, 75) < 0 < in_lung(scan, 75, 0)


def test_malignancy_grows_with_size_and_spicules_and_calcium_speaks_against_it():
    assert malignancy(Nodule(5, 1, 5, False)) < malignancy(Nodule(10, 1, 5, False)) < malignancy(Nodule(10, 4, 5, False)) < malignancy(Nodule(25, 5, 5, False)) < 1
    assert malignancy(Nodule(10, 2, 5, True)) < malignancy(Nodule(10, 2, 5, False))
    assert all(4 <= draw_nodule(np.random.default_rng(i)).diameter_mm <= 25 for i in range(300))


def test_large_sizes_show_the_same_patient_in_more_pixels():
    small, large = (radiograph(2, "none", size)[0].astype(float) for size in (64, 1024))
    reduced = large.reshape(64, 16, 64, 16).mean((1, 3))
    assert np.corrcoef(small.ravel(), reduced.ravel())[0, 1] > 0.8
    assert ct_slice(1, 512)[0].shape == (512, 512)


def test_speed_in_one_process():
    for make, limit_s in ((lambda i: radiograph(i, None, 256), 0.18), (lambda i: ct_slice(i, 128), 0.09)):
        make(0); times = []
        for i in range(12): start = time.perf_counter(); make(i); times.append(time.perf_counter() - start)
        assert np.median(times) < limit_s


def bits_per_pixel(grey):
    stream = io.BytesIO(); Image.fromarray(grey).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
    return 8 * len(stream.getvalue()) / grey.size


@pytest.mark.parametrize("kind, real", [("cxr", "data/cxr/nih256"), ("ct", "data/ct/lidc_slices128")])
def test_lossless_size_is_near_that_of_real_pictures(folders, shared, kind, real):
    measured = []
    for row in table(folders[kind])[:40]:
        image = read_dicom(folders[kind] / row["file"])
        if kind == "cxr": grey = image.display
        else: grey = (image.modality - image.modality.min()) / np.ptp(image.modality)      # the real slices were stretched this way
        measured.append(bits_per_pixel(np.rint(grey * 255).astype(np.uint8)))
    true = [bits_per_pixel(np.asarray(Image.open(path).convert("L"))) for path in sorted((shared / real).glob("*.png"))[::25]]
    assert np.mean(measured) == pytest.approx(np.mean(true), rel=0.25)
