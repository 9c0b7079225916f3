"ChestX-ray14 and MedMNIST in the layouts in which they are published, from the folder to the data set."
import pickle, subprocess, sys

import numpy as np
import pytest
from PIL import Image

from medcrypt.cli.collections import describe
from medcrypt.imaging import medmnist, nih
from medcrypt.imaging.loading import load_folder, select
from medcrypt.imaging.medmnist import CHEST, open_medmnist
from medcrypt.imaging.nih import open_nih
from medcrypt.imaging.preprocessing import Preprocessing
from medcrypt.imaging.sources import detect, open_source
from medcrypt.imaging.tables import NIH_FINDINGS, DataError

OLD = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
NEW = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"


def write_nih(folder, patients=12, table="Data_Entry_2017_v2020.csv", header=NEW, parts=True, mode="L"):
    draw, lines, train, test = np.random.default_rng(0), [header], [], []
    for who in range(1, patients + 1):
        for visit in range(2):
            name = f"{who:08d}_{visit:03d}.png"
            place = folder / (f"images_{1 + who % 2:03d}/images" if parts else "images"); place.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(draw.integers(0, 256, (64, 64), dtype=np.uint8)); picture.convert(mode).save(place / name)
            findings = ["No Finding", "Effusion|Pleural_Thickening", "Hernia"][who % 3]
            lines.append(f"{name},{findings},{visit},{who},{'0' if 'Gender' in header else ''}{40 + who}{'Y' if 'Gender' in header else ''},{'MF'[who % 2]},{('PA', 'AP')[visit]},2500,2048,0.168,0.168" + ("," if header.endswith(",") else ""))
            (test if who > 8 else train).append(name)
    (folder / table).write_text("\n".join(lines) + "\n")
    (folder / "train_val_list.txt").write_text("\n".join(train)); (folder / "test_list.txt").write_text("\n".join(test) + "\n")
    return folder


@pytest.mark.parametrize("header,table", [(OLD, "Data_Entry_2017.csv"), (NEW, "Data_Entry_2017_v2020.csv")])
@pytest.mark.parametrize("parts", [True, False])
def test_both_tables_and_both_layouts(tmp_path, header, table, parts):
    source = open_source(write_nih(tmp_path, table=table, header=header, parts=parts))
    row = next(r for r in source.rows if r["patient_id"] == "4")
    assert len(source.rows) == 24 and not source.notes and row["Effusion"] == row["Pleural_Thickening"] == "1" and row["No_Finding"] == row["Hernia"] == "0" and row["age"] == "44" and row["sex"] == "M"
    assert set(NIH_FINDINGS) <= set(row) and row["split"] == "train"


def test_from_folder_to_data_set_by_patient_and_by_the_official_split(tmp_path):
    write_nih(tmp_path)
    data = load_folder(detect(tmp_path), Preprocessing(16))
    assert len(data) == 24 and len(set(data.patients)) == 12 and data.facts["source"] == "NIH ChestX-ray14" and data.labels.mean() == pytest.approx(2 / 3) and data.official is None
    own = load_folder(detect(tmp_path, split="official", label="Effusion"), Preprocessing(16))
    assert set(own.official) == {"train", "test"} and not set(own.patients[own.official == "train"]) & set(own.patients[own.official == "test"]) and own.labels.sum() == 8
    (tmp_path / "test_list.txt").unlink(); (tmp_path / "train_val_list.txt").unlink()
    with pytest.raises(Exception, match="no official split"): detect(tmp_path, split="official")


def test_rgba_pictures_are_read_as_grey(tmp_path):
    grey = load_folder(detect(write_nih(tmp_path / "a")), Preprocessing(16)); other = load_folder(detect(write_nih(tmp_path / "b", mode="RGBA")), Preprocessing(16))
    assert np.array_equal(grey.images, other.images)


def test_a_part_of_the_pictures_is_enough_and_is_said(tmp_path):
    write_nih(tmp_path)
    import shutil
    shutil.rmtree(tmp_path / "images_002")
    data = load_folder(detect(tmp_path), Preprocessing(16))
    assert len(data) == 12 and data.facts["notes"] == ["ChestX-ray14: 12 of the 24 images of Data_Entry_2017_v2020.csv are here."]
    shutil.rmtree(tmp_path / "images_001")
    with pytest.raises(DataError, match="none of the 24 images"): open_nih(tmp_path)


@pytest.mark.parametrize("text,said", [("Image Index,Finding Labels\n00000001_000.png,Mumps\n", "Mumps"), ("Image Index,Finding Labels\n00000001_000.png,Hernia\n", "line 2"), ("a,b\n1,2\n", "Image Index"), ("", "Image Index")])
def test_tables_that_are_not_the_nihs(tmp_path, text, said):
    write_nih(tmp_path, table="Data_Entry_2017.csv", header=OLD); (tmp_path / "Data_Entry_2017.csv").write_text(text)
    with pytest.raises(DataError, match=said): open_nih(tmp_path)


def test_a_table_of_the_size_of_the_whole_opens(tmp_path):
    (tmp_path / "images").mkdir()
    lines = [NEW] + [f"{i:08d}_000.png,Effusion|Mass,0,{i},55,M,PA,2500,2048,0.168,0.168" for i in range(112_120)]
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines))
    names = {f"{i:08d}_000.png": f"images/{i:08d}_000.png" for i in range(112_120)}
    original, nih._pictures = nih._pictures, lambda folder: names
    try: source = open_nih(tmp_path)
    finally: nih._pictures = original
    assert len(source.rows) == 112_120 and source.rows[-1]["Mass"] == "1"


# MedMNIST

def write_medmnist(path, shape, columns, save=np.savez, counts=(30, 10, 20)):
    draw, arrays = np.random.default_rng(1), {}
    for part, n in zip(medmnist.PARTS, counts):
        arrays |= {f"{part}_images": draw.integers(0, 256, (n, *shape), dtype=np.uint8), f"{part}_labels": (draw.random((n, columns)) < (.05 if columns == 14 else .3)).astype(np.uint8)}
    save(path, **arrays)
    return arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("size", [28, 64])
def test_chestmnist(tmp_path, save, size):
    arrays = write_medmnist(tmp_path / "chestmnist_64.npz", (size, size), 14, save)
    data = load_folder(detect(tmp_path / "chestmnist_64.npz", split="official"), Preprocessing(size))
    assert np.array_equal(data.images, np.concatenate([arrays[f"{p}_images"] for p in medmnist.PARTS])) and list(data.official) == ["train"] * 30 + ["val"] * 10 + ["test"] * 20
    assert list(data.labels) == [int(row.any()) for p in medmnist.PARTS for row in arrays[f"{p}_labels"]] and data.facts["without_patient"] == 60
    assert "does not say which patient" in data.facts["notes"][0]
    hernia = load_folder(detect(tmp_path / "chestmnist_64.npz", label="Hernia"), Preprocessing(size))
    assert list(hernia.labels[:30]) == arrays["train_labels"][:, CHEST.index("Hernia")].tolist()


def test_nodulemnist_central_and_in_three_planes(tmp_path):
    arrays = write_medmnist(tmp_path / "nodulemnist3d.npz", (28, 28, 28), 1)
    central = load_folder(detect(tmp_path / "nodulemnist3d.npz"), Preprocessing(28))
    assert np.array_equal(central.images[:30], arrays["train_images"][:, 14]) and list(central.labels[:30]) == arrays["train_labels"][:, 0].tolist()
    config = detect(tmp_path / "nodulemnist3d.npz", slices="2.5d")
    planes = load_folder(config, Preprocessing(28, planes=3))
    cube = arrays["test_images"][7]
    assert config.slices == "2.5d" and np.array_equal(planes.images[47], np.hstack([cube[14], cube[:, 14], cube[:, :, 14]]))


def test_a_folder_with_one_file_of_medmnist_is_that_file(tmp_path):
    write_medmnist(tmp_path / "chestmnist.npz", (28, 28), 14)
    assert len(open_source(tmp_path).rows) == 60
    write_medmnist(tmp_path / "nodulemnist3d.npz", (28, 28, 28), 1)
    with pytest.raises(DataError, match="chestmnist.npz, nodulemnist3d.npz"): open_source(tmp_path)


def test_damaged_files_of_medmnist(tmp_path):
    write_medmnist(tmp_path / "a.npz", (28, 28), 14); whole = (tmp_path / "a.npz").read_bytes()
    for data in (whole[:200], whole[:-100], b"", b"PK\3\4" + bytes(100)):
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(DataError, match="a.npz"): open_medmnist(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **{name.removesuffix(".npy"): np.zeros((2, 5)) for name in medmnist.NAMES})
    with pytest.raises(DataError, match="14 columns"): open_medmnist(tmp_path / "b.npz")


def test_readers_can_be_pickled(tmp_path):
    write_medmnist(tmp_path / "a.npz", (28, 28), 14); write_nih(tmp_path / "n")
    for source in (open_medmnist(tmp_path / "a.npz"), open_nih(tmp_path / "n")):
        file = source.rows[0]["file"]
        assert np.array_equal(pickle.loads(pickle.dumps(source.read))(file), source.read(file))


def test_opening_reads_no_pictures(tmp_path):
    write_medmnist(tmp_path / "big.npz", (224, 224), 14, counts=(3000, 10, 10))
    code = ("import resource, sys\nfrom medcrypt.imaging.medmnist import open_medmnist\nsource = open_medmnist(sys.argv[1])\nfor row in source.rows[::100]: source.read(row['file'])\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)")
    small = tmp_path / "small.npz"; write_medmnist(small, (224, 224), 14)
    peak = [int(subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True).stdout) for path in (small, tmp_path / "big.npz")]
    assert peak[1] - peak[0] < 40, peak   # MiB; the pictures are 144


def test_describe_says_what_a_run_would_use(tmp_path):
    text = describe(write_nih(tmp_path))
    assert "24 pictures, 16 positive (prevalence 0.667), 12 patients" in text and "official split: 16 train, 8 test (not used" in text and "112,120 pictures" in text


@pytest.mark.parametrize("written,years", [("058Y", "58"), ("58", "58"), ("011M", "0"), ("018M", "1"), ("003D", "0"), ("", ""), ("412Y", "412")])
def test_ages_of_the_older_table(written, years): assert nih._years(written) == years


@pytest.mark.parametrize("file", ["train/00000099", "nope", "train/-0000001", "other/00000000", "train/"])
def test_pictures_that_medmnist_does_not_have(tmp_path, file):
    write_medmnist(tmp_path / "a.npz", (28, 28), 14)
    with pytest.raises(DataError, match="no picture"): open_medmnist(tmp_path / "a.npz").read(file)


def test_unpacked_members_of_another_version_are_removed(tmp_path, monkeypatch):
    write_medmnist(tmp_path / "a.npz", (28, 28), 14, np.savez_compressed); open_medmnist(tmp_path / "a.npz")
    write_medmnist(tmp_path / "a.npz", (28, 28), 14, np.savez_compressed, counts=(31, 10, 20)); source = open_medmnist(tmp_path / "a.npz")
    assert len(list(tmp_path.glob(".a.train_images.*.npy"))) == 1 and source.read("train/00000030").shape == (28, 28)
    write_medmnist(tmp_path / "b.npz", (28, 28), 14, np.savez_compressed)
    monkeypatch.setattr(medmnist.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(DataError, match="GB are free"): open_medmnist(tmp_path / "b.npz")


def test_a_collection_in_part_and_without_some_patients_says_both(tmp_path):
    write_nih(tmp_path)
    text = (tmp_path / "Data_Entry_2017_v2020.csv").read_text().replace("00000005_000.png,Hernia,0,5,", "00000005_000.png,Hernia,0,,")
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(text); (tmp_path / "images_001" / "images" / "00000002_000.png").unlink()
    notes = select(detect(tmp_path)).notes
    assert len(notes) == 2 and "23 of the 24 images" in notes[0] and "patient of 1 of 23 images is not known" in notes[1]


@pytest.mark.parametrize("name,shape,columns,slices", [("chestmnist.npz", (28, 28), 14, None), ("nodulemnist3d.npz", (28, 28, 28), 1, None), ("nodulemnist3d.npz", (28, 28, 28), 1, "2.5d")])
def test_the_storage_table_reads_pictures_that_are_no_files(tmp_path, name, shape, columns, slices):
    from medcrypt.evaluation.measure import sizes_of_dataset
    write_medmnist(tmp_path / name, shape, columns)
    config = detect(tmp_path / name, slices=slices)
    data = load_folder(config, Preprocessing(28, planes=3 if slices else 1))
    frame = sizes_of_dataset("x", data, folder=tmp_path, limit=5, seed=0)
    assert set(frame.group) == {f"{config.title}, pictures of the collection"} and set(frame.raw_bytes) == {28 * 28 * (3 if slices else 1)}


def test_planes_are_for_volumes(tmp_path):
    with pytest.raises(Exception, match="--slices 2.5d.*not volumes"): detect(write_nih(tmp_path / "n"), slices="2.5d")
    write_medmnist(tmp_path / "chestmnist.npz", (28, 28), 14)
    with pytest.raises(Exception, match="--slices 2.5d.*not volumes"): detect(tmp_path / "chestmnist.npz", slices="2.5d")
