"Folders of images as data sets: tables, label expressions, configuration, reading, splits; real folders where they are at hand."
import csv, json, pickle, time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medcrypt.core import ConfigError, MedcryptError
from medcrypt.imaging import datasets, phantom
from medcrypt.imaging.datasets import Dataset
from medcrypt.imaging.loading import load_folder
from medcrypt.imaging.preprocessing import Preprocessing, preprocess
from medcrypt.imaging.reading import read_display
from medcrypt.imaging.sources import detect
from medcrypt.imaging.splits import patient_folds, split
from medcrypt.imaging.tables import DataError, DatasetConfig, config_from, evaluate, load_config, read_table


def save(path, array, **options): path.parent.mkdir(parents=True, exist_ok=True); Image.fromarray(array).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    "Twelve PNG files of six patients, half of them positive."
    random, lines = np.random.default_rng(0), ["file,patient_id,label"]
    for i in range(12):
        save(tmp_path / "a" / f"{i}.png", random.integers(0, 256, (24, 24), dtype=np.uint8))
        lines.append(f"a/{i}.png,P{i // 2},{i // 2 % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def rewrite(folder, change):
    rows = list(csv.reader(open(folder / "labels.csv", newline="")))
    with open(folder / "labels.csv", "w", newline="") as stream: csv.writer(stream, lineterminator="\n").writerows(change(rows))


# --- reading a folder

def test_plain_folder(folder):
    calls = []
    data = load_folder(detect(folder), Preprocessing(12), progress=lambda: calls.append(1))
    assert data.images.shape == (12, 12, 12) and data.images.dtype == np.uint8 and len(calls) == 12 == len(data)
    assert data.facts["prevalence"] == 0.5 and data.facts["patients"] == 6 and data.facts["dropped"] == {} and not data.facts["synthetic"]
    assert list(data.labels) == [0, 0, 1, 1] * 3 and data.files[3] == "a/3.png" and data.facts["preprocessing"] == {"size": [12, 12], "crop": None, "bits": 8, "planes": 1}


def test_windows_paths_bom_and_spaces(folder):
    text = (folder / "labels.csv").read_text().replace("a/", " a\\").replace(",1\n", ", 1\n")
    (folder / "labels.csv").write_text("\ufeff" + text, encoding="utf-8")
    assert len(load_folder(detect(folder), Preprocessing(8))) == 12


def test_missing_patient_ids_are_their_own_patients(folder):
    rewrite(folder, lambda rows: [rows[0]] + [[f, "" if i < 4 else p, l] for i, (f, p, l) in enumerate(rows[1:])])
    data = load_folder(detect(folder), Preprocessing(8))
    assert data.facts["without_patient"] == 4 and len(set(data.patients)) == 8
    ungrouped = load_folder(replace(detect(folder), group=None), Preprocessing(8))
    assert len(set(ungrouped.patients)) == 12 and ungrouped.facts["without_patient"] == 12


def test_include_and_duplicates(folder):
    rewrite(folder, lambda rows: [rows[0] + ["duplicate_of"]] + [r + ["a/0.png" if i == 1 else ""] for i, r in enumerate(rows[1:])])
    data = load_folder(detect(folder, include="a/1*.png, a/2.png, a/0.png"), Preprocessing(8))
    assert sorted(data.files) == ["a/0.png", "a/10.png", "a/11.png", "a/2.png"] and data.facts["dropped"] == {"not in include": 7, "duplicate": 1}


@pytest.mark.parametrize("row, words", [("../x.png,P,1", "not a path inside"), ("/etc/x.png,P,1", "not a path inside"), ("a/../../x.png,P,1", "not a path inside"), ("C:\\x.png,P,1", "not a path inside"),
                                        (",P,1", "not a path inside"), ("..\\x.png,P,1", "not a path inside"), ("a/0.png,P,1", "more than one row"), ("a/gone.png,P,1", "1 of 13 files")])
def test_bad_file_cells(folder, row, words):
    with open(folder / "labels.csv", "a") as stream: stream.write(row + "\n")
    with pytest.raises(DataError, match=words) as caught: load_folder(detect(folder), Preprocessing(8))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_one_class_and_no_rows(folder):
    with pytest.raises(DataError, match="two classes"): load_folder(detect(folder, label="patient_id=P77"), Preprocessing(8))
    with pytest.raises(DataError, match="no rows are left"): load_folder(detect(folder, include="b/*"), Preprocessing(8))
    with pytest.raises(DataError, match="no column 'sex'"): load_folder(replace(detect(folder), group="sex"), Preprocessing(8))
    with pytest.raises(DataError, match="no labels.csv"): detect(folder / "a")
    with pytest.raises(DataError, match="no such folder"): detect(folder / "b")
    with pytest.raises(DataError, match="smaller than the crop"): load_folder(detect(folder, crop=30), Preprocessing(8, crop=30))


@pytest.mark.parametrize("damage", [lambda b: b[:50], lambda b: b"", lambda b: b"not a picture", lambda b: b[:60] + bytes(20) + b[80:]])
def test_unreadable_images(folder, damage):
    path = folder / "a" / "5.png"; path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="5.png") as caught: load_folder(detect(folder), Preprocessing(8))
    assert "\n" not in str(caught.value)
    data = load_folder(detect(folder), Preprocessing(8), on_error="skip")
    assert len(data) == 11 and data.facts["dropped"] == {"unreadable": 1} and "5.png" in data.facts["unreadable"][0]


def test_png_named_dcm_is_named(folder):
    (folder / "a" / "0.png").rename(folder / "a" / "0.dcm")
    rewrite(folder, lambda rows: [[cell.replace("a/0.png", "a/0.dcm") for cell in row] for row in rows])
    with pytest.raises(DataError, match="0.dcm"): load_folder(detect(folder), Preprocessing(8))


def test_limit_takes_whole_patients_and_repeats(folder):
    config = detect(folder)
    data, again, other = (load_folder(config, Preprocessing(8), limit=8, seed=s) for s in (1, 1, 2))
    assert list(data.files) == list(again.files) and len(data) == 8 and set(data.labels) == {0, 1}
    assert all(list(data.patients).count(who) == 2 for who in set(data.patients)) and data.facts["dropped"] == {"beyond limit": 4}
    assert any(list(load_folder(config, Preprocessing(8), limit=8, seed=s).files) != list(data.files) for s in range(2, 8))


# --- images of other kinds

def test_depth_is_never_guessed(tmp_path):
    save(tmp_path / "dark16.png", np.full((4, 4), 4095, np.uint16)); save(tmp_path / "dark16.tif", np.full((4, 4), 4095, np.uint16))
    save(tmp_path / "grey.jpg", np.full((8, 8), 128, np.uint8)); save(tmp_path / "rgb.png", np.full((4, 4, 3), 51, np.uint8))
    Image.new("1", (4, 4), 1).save(tmp_path / "bits.png"); Image.new("P", (4, 4), 0).save(tmp_path / "palette.png")
    save(tmp_path / "alpha.png", np.dstack([np.full((4, 4, 3), 51, np.uint8), np.zeros((4, 4, 1), np.uint8)]))
    values = {name: read_display(tmp_path / name) for name in ("dark16.png", "dark16.tif", "grey.jpg", "rgb.png", "bits.png", "alpha.png")}
    assert all(v.dtype == np.float32 for v in values.values())
    expected = {"dark16.png": 4095 / 65535, "dark16.tif": 4095 / 65535, "grey.jpg": 128 / 255, "rgb.png": 0.2, "bits.png": 1, "alpha.png": 0.2}
    for name, value in expected.items(): np.testing.assert_allclose(values[name], value, atol=0.005)


def test_refused_images(tmp_path):
    save(tmp_path / "float.tif", np.full((4, 4), 0.5, np.float32)); save(tmp_path / "deep.tif", np.full((4, 4), 100000, np.int32))
    frames = [Image.new("L", (4, 4), k) for k in (1, 2)]; frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    for name in ("float.tif", "deep.tif", "two.tif", "none.png", "none.dcm"):
        with pytest.raises(DataError, match=name): read_display(tmp_path / name)


# --- preprocessing

@pytest.mark.parametrize("shape, size, crop, bits", [((256, 256), 64, None, 8), ((100, 130), (20, 40), 90, 12), ((33, 47), 48, None, 16), ((48, 48), 48, None, 1), ((7, 5), 1, 5, 8)])
def test_preprocess(shape, size, crop, bits):
    image, settings = np.random.default_rng(0).random(shape, dtype=np.float32), Preprocessing(size, crop, bits)
    out = preprocess(image, settings)
    assert out.shape == settings.size and out.dtype == (np.uint8 if bits <= 8 else np.uint16) and out.max() < 2 ** bits
    assert np.array_equal(out, preprocess(image.copy(), settings))
    assert preprocess(np.ones(shape), settings).min() == 2 ** bits - 1 and preprocess(np.zeros(shape), settings).max() == 0


def test_area_average_is_exact(): assert np.array_equal(preprocess(np.kron(np.array([[0, 1], [1, 0]]), np.ones((4, 4))), Preprocessing(2)), [[0, 255], [255, 0]])


@pytest.mark.parametrize("bad", [np.full((4, 4), 1.01), np.full((4, 4), np.nan), np.full((4, 4), -0.1), np.zeros((2, 4, 4))])
def test_preprocess_refuses(bad):
    with pytest.raises(DataError): preprocess(bad, Preprocessing(2))


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 4, "crop": 0}, {"size": 4, "bits": 17}, {"size": (3, -1)}])
def test_preprocessing_refuses(options):
    with pytest.raises(DataError): Preprocessing(**options)


# --- Dataset

def test_round_trip_is_exact_and_bytes_repeat(folder, tmp_path):
    data = load_folder(detect(folder), Preprocessing(12, bits=12))
    again = Dataset.load(data.save(tmp_path / "one.npz"))
    assert again.name == data.name and again.facts == data.facts
    for key in ("images", "labels", "patients", "files"): assert np.array_equal(getattr(again, key), getattr(data, key)) and getattr(again, key).dtype == getattr(data, key).dtype
    assert again.save(tmp_path / "two.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()


def test_foreign_archives_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros(3)); (tmp_path / "b.npz").write_bytes(b"PK\3\4 broken"); (tmp_path / "c.npz").write_bytes(b"")
    np.savez(tmp_path / "d.npz", about=np.array([{"x": 1}], dtype=object), images=np.zeros(1))
    (tmp_path / "e.npz").write_bytes(pickle.dumps({"a": 1}))
    for name in "abcdef":
        with pytest.raises(DataError, match=f"{name}.npz"): Dataset.load(tmp_path / f"{name}.npz")


@pytest.mark.parametrize("change", [{"labels": [0, 2]}, {"labels": [0]}, {"images": np.zeros((2, 3, 4))}, {"images": np.zeros((2, 3), np.uint8)}, {"files": ["a", "b", "c"]}])
def test_inconsistent_datasets_are_refused(change):
    parts = {"name": "x", "images": np.zeros((2, 3, 4), np.uint8), "labels": [0, 1], "patients": ["a", "b"], "files": ["a", "b"], **change}
    with pytest.raises(DataError): Dataset(**parts)


# --- tables, expressions, configuration

def test_case_80_uncertain_and_unmentioned(shared):
    case = shared / "cases" / "80-nan-and-uncertain-labels"
    rows, expected = list(csv.DictReader(open(case / "labels.csv", newline=""))), json.loads((case / "expected.json").read_text())["n_used"]
    for name, used in expected.items():
        for expression in (name, f"not {name}", f"{name}>0", f"{name}=1"): assert sum(v is not None for v in evaluate(expression, rows)) == used


@pytest.mark.parametrize("expression, answer", [("a", [1, 0, None, None]), ("! a", [0, 1, None, None]), ("not  a", [0, 1, None, None]), ("a=1", [1, 0, None, None]), ("n>2", [0, 1, None, 1]), ("n<=2", [1, 0, None, 0]),
                                                ("n >= 2.5", [0, 1, None, 1]), ("n<3", [1, 1, None, 0]), ("t=two words", [0, 1, 0, None]), ("not t=x", [0, 1, 0, None]), ("not b", [1, 0, 1, 0]), ("a>b", [1, 1, 0, 0])])
def test_expressions(expression, answer):
    rows = [{"a": "1", "b": "0", "n": "2", "t": "x", "not b": "1", "a>b": "1"}, {"a": "0.0", "b": "1", "n": "2.5", "t": "two words", "not b": "0", "a>b": "1"},
            {"a": "-1", "b": "0", "n": "NaN", "t": "x", "not b": "1", "a>b": "0"}, {"a": "", "b": "1", "n": "1e1", "t": "n/a", "not b": "0", "a>b": "0"}]
    assert evaluate(expression, rows) == answer


def test_tables_that_cannot_be_read(tmp_path):
    for content in (b"", b"file\n", b"a,b\n1,2\n", b"file,l\nx\n", b"file,l\nx,1,2\n", b"file,file\nx,y\n", b"file,l\n\xff\xfe,1\n"):
        (tmp_path / "labels.csv").write_bytes(content)
        with pytest.raises(DataError, match="labels.csv"): read_table(tmp_path)


def test_toml_beside_the_table_wins_and_arguments_win_over_it(folder):
    (folder / "medcrypt.toml").write_text('label = "patient_id=P1"\nmodality = "CT"\nname = "mine"\nblock = 4\n')
    found = detect(folder, block=6)
    assert (found.label, found.modality, found.name, found.block, found.crop) == ("patient_id=P1", "CT", "mine", 6, None)
    (folder / "medcrypt.toml").write_text('[[dataset]]\nlabel = "label"\n[[dataset]]\nlabel = "label"\n')
    with pytest.raises(ConfigError, match="2 data sets"): detect(folder)
    (folder / "medcrypt.toml").write_text('label = "label"\nfolder = "a"\n')
    with pytest.raises(ConfigError, match="another folder"): detect(folder)


@pytest.mark.parametrize("text, words", [("label = 3", "not a text"), ("x = 1\nlabel='a'", "unknown key 'x'"), ("label = 'a'\nsize = true", "whole number"), ("label='a'\nname='a b'", "name"), ("label='a'\nmodality='MR'", "modality"),
                                         ("label='a'\ncrop=-3", "crop"), ("dataset = 3", "two brackets"), ("size=3\n[[dataset]]\nlabel='a'", "outside"), ("[[dataset]]\nfolder='x'", "'label' is missing"), ("label = ", "not valid TOML")])
def test_toml_errors_name_the_file_and_the_key(tmp_path, text, words):
    (tmp_path / "sets.toml").write_text(text)
    with pytest.raises(ConfigError, match=words) as caught: load_config(tmp_path / "sets.toml")
    assert str(tmp_path) in str(caught.value)


def test_config_from_json(folder):
    found = config_from({"kind": "folder", "fingerprint": "x", "name": "n", "folder": str(folder), "label": "label", "group": None, "size": 8})
    assert isinstance(found, DatasetConfig) and found.size == 8
    with pytest.raises(ConfigError, match="label"): config_from({"name": "n", "folder": "x"})


def test_detection_asks_instead_of_guessing(folder):
    rewrite(folder, lambda rows: [rows[0] + ["label_b"]] + [r + ["1"] for r in rows[1:]])
    with pytest.raises(ConfigError, match="--label.*patient_id, label, label_b"): detect(folder)
    assert detect(folder, label="label_b").label == "label_b"
    with pytest.raises(ConfigError, match="unknown key 'lable'"): detect(folder, lable="label")
    with pytest.raises(ConfigError, match="--group"): detect(folder, label="label", group="sex")


@pytest.mark.parametrize("kind, modality, crop", [("cxr", "CXR", None), ("ct", "CT", 48)])
def test_phantoms_are_recognised(tmp_path, kind, modality, crop):
    found = detect(phantom.write_phantoms(tmp_path / kind, kind, 30, seed=0, size=64))
    assert (found.modality, found.crop, found.group, found.source) == (modality, crop, "patient_id", "phantom")
    data = load_folder(found, Preprocessing(32, found.crop))
    assert len(data) == 30 and data.facts["synthetic"] and data.images.std((1, 2)).min() > 5


# --- splits

def test_case_81_patients_never_meet(shared):
    rows = list(csv.DictReader(open(shared / "cases" / "81-patient-leakage" / "manifest.csv", newline="")))
    patients = np.array([row["patient_id"] for row in rows]); assert len(set(patients)) == 8 and len({p.strip() for p in patients}) == 6
    labels = np.array([int(p.strip()[1:]) % 2 for p in patients])
    for seed in range(100):
        folds = patient_folds(labels, patients, 3, seed)
        for fold in range(3):
            parts = [{patients[i].strip() for i in part} for part in split(folds, fold, labels, patients, seed=seed)]
            assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]) and set.union(*parts) == {f"P{k}" for k in range(1, 7)}


def test_folds_are_stratified_repeat_and_cover_everything():
    random = np.random.default_rng(0); patients = np.array([f"P{k}" for k in random.integers(0, 300, 900)]); illness = random.random(300) < 0.3
    labels = np.array([int(illness[int(p[1:])]) for p in patients])
    folds = patient_folds(labels, patients, 5, 7)
    assert np.array_equal(folds, patient_folds(labels, patients, 5, 7)) and not np.array_equal(folds, patient_folds(labels, patients, 5, 8))
    assert sorted(set(folds)) == [0, 1, 2, 3, 4] and max(abs(labels[folds == f].mean() - labels.mean()) for f in range(5)) < 0.05
    for f in range(5):
        train, validation, test = split(folds, f, labels, patients, seed=7)
        assert sorted(np.concatenate([train, validation, test])) == list(range(900)) and 0.1 < len(validation) / 900 < 0.22


@pytest.mark.parametrize("call", [lambda: patient_folds([0, 1], ["a", "b"], 2, 0), lambda: patient_folds([0, 0, 1, 1], list("abcd"), 1, 0), lambda: patient_folds([0, 1, 1], ["a", "b"], 2, 0),
                                  lambda: split(np.zeros(4, int), 3, [0, 1, 0, 1], list("abcd"))])
def test_impossible_splits(call):
    with pytest.raises(DataError): call()


# --- real folders

def test_lidc(shared):
    start, found = time.process_time(), detect(shared / "data" / "ct")
    assert (found.label, found.group, found.crop, found.modality, found.source) == ("label_malignant", "patient_id", 48, "CT", "LIDC-IDRI")
    data = load_folder(found, Preprocessing(48, found.crop))
    assert len(data) == 1989 and data.labels.sum() == 634 and data.facts["dropped"]["label unknown"] == 641 and time.process_time() - start < 20


def test_nih(shared):
    start, found = time.process_time(), detect(shared / "data" / "cxr")
    assert (found.label, found.group, found.include, found.modality) == ("not No_Finding", "patient_id", "nih256/*", "CXR")
    data = load_folder(found, Preprocessing(64))
    assert len(data) == 1125 and data.facts["dropped"] == {"not in include": 1852, "duplicate": 1} and data.facts["without_patient"] == 0 and time.process_time() - start < 20
    unnamed = load_folder(detect(shared / "data" / "cxr", label="Effusion", include="nih_unnamed256/*"), Preprocessing(64))
    assert len(unnamed) == 984 == unnamed.facts["without_patient"] and unnamed.labels.sum() == 491


def test_real_dicom_folder(shared):
    found = detect(shared / "data" / "dicom", label="modality=CT", include="cxr_siim_nih/*,ct_chest_series_CPTAC/*")
    data = load_folder(found, Preprocessing(32))
    assert 0 < data.labels.mean() < 1 and data.facts["without_patient"] == len(data) and data.images.std((1, 2)).min() > 5


def test_every_error_is_a_medcrypt_error(): assert issubclass(DataError, MedcryptError) and datasets.DataError is DataError


@pytest.mark.parametrize("name", ["CXR8", "Über Größe", "a.b", "...", "LIDC-IDRI", "x" * 50])
def test_any_folder_gets_a_name_that_tables_and_figures_can_have(tmp_path, name):
    from medcrypt.core import RunPaths
    from medcrypt.evaluation.plots import save_table
    import pandas as pd
    folder = tmp_path / name; folder.mkdir()
    (folder / "labels.csv").write_text("file,label\na.png,1\nb.png,0\n")
    assert save_table(pd.DataFrame({"a": [1]}), f"data_{detect(folder).name}", RunPaths(tmp_path / "run"), "A table.").is_file()
    with pytest.raises(MedcryptError, match="lower-case"): DatasetConfig("CXR", folder, "label")
