"MedMNIST's files: rows, planes, and arrays that are mapped, compressed or damaged."
import itertools, os, pickle, subprocess, sys

import numpy as np
import pytest

from medcrypt.imaging.medmnist import CHEST, PARTS, is_medmnist, open_medmnist
from medcrypt.imaging.tables import NIH_FINDINGS, DataError


def write(path, shape=(28, 28), columns=14, save=np.savez, counts=(9, 3, 5), order="C"):
    draw, arrays = np.random.default_rng(2), {}
    for part, n in zip(PARTS, counts): arrays |= {f"{part}_images": np.asarray(draw.integers(0, 256, (n, *shape), dtype=np.uint8), order=order), f"{part}_labels": draw.integers(0, 2, (n, columns), dtype=np.uint8)}
    save(path, **arrays)
    return arrays


def test_rows_say_what_the_labels_say(tmp_path):
    arrays = write(tmp_path / "chestmnist.npz"); source = open_medmnist(tmp_path / "chestmnist.npz")
    assert set(CHEST) | {"No_Finding"} == NIH_FINDINGS and len({row["file"] for row in source.rows}) == 17
    for row, labels in zip(source.rows, itertools.chain(*(arrays[f"{p}_labels"] for p in PARTS))):
        assert [row[name] for name in CHEST] == [str(v) for v in labels] and row["No_Finding"] == str(int(not labels.any()))
    assert [row["split"] for row in source.rows] == ["train"] * 9 + ["val"] * 3 + ["test"] * 5 and source.rows[12]["file"] == "test/00000000"
    assert source.defaults["group"] is None and source.defaults["modality"] == "CXR" and "does not say which patient" in source.notes[0]


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pictures_are_the_arrays(tmp_path, save, order):
    arrays = write(tmp_path / "a.npz", save=save, order=order); source = open_medmnist(tmp_path / "a.npz")
    for row in source.rows:
        part, number = row["file"].split("/"); image = source.read(row["file"])
        assert image.dtype == np.float32 and np.array_equal(image, arrays[f"{part}_images"][int(number)].astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("side", [28, 64])
def test_planes_of_a_cube(tmp_path, side):
    cubes, half = write(tmp_path / "nodulemnist3d.npz", (side,) * 3, 1)["test_images"], side // 2
    central, planes = open_medmnist(tmp_path / "nodulemnist3d.npz"), open_medmnist(tmp_path / "nodulemnist3d.npz", slices="2.5d")
    assert np.array_equal(np.rint(central.read("test/00000002") * 255), cubes[2, half])
    shown = np.rint(planes.read("test/00000002") * 255)
    assert shown.shape == (side, 3 * side) and all(np.array_equal(shown[:, i * side:(i + 1) * side], plane) for i, plane in enumerate((cubes[2, half], cubes[2, :, half], cubes[2, :, :, half])))
    assert set(central.rows[0]) == {"file", "malignant", "split"} and central.defaults["modality"] == "CT" and any("axis" in note for note in central.notes)
    with pytest.raises(DataError, match="slices 'axial' is not central or 2.5d"): open_medmnist(tmp_path / "nodulemnist3d.npz", slices="axial")


def test_a_compressed_file_is_unpacked_once(tmp_path):
    write(tmp_path / "a.npz", save=np.savez_compressed)
    source = open_medmnist(tmp_path / "a.npz"); source.read("train/00000000")
    made = {p: p.stat().st_mtime_ns for p in tmp_path.glob(".a.*.npy")}
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read())('train/00000008').sum())"
    said = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(source.read), capture_output=True, check=True, timeout=60).stdout
    assert float(said) == pytest.approx(source.read("train/00000008").sum(), rel=1e-5)
    assert made and {p: p.stat().st_mtime_ns for p in tmp_path.glob(".a.*.npy")} == made and not is_medmnist(next(iter(made)))


def test_what_a_killed_run_left_is_removed_and_what_another_writes_is_not(tmp_path):
    write(tmp_path / "a.npz", save=np.savez_compressed)
    left, busy = tmp_path / "..a.train_images.1-1-abc.npy", tmp_path / "..a.train_images.1-1-xyz.npy"
    left.write_bytes(b"x"); busy.write_bytes(b"x"); os.utime(left, (1, 1))
    open_medmnist(tmp_path / "a.npz")
    assert busy.exists() and not left.exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="drops root's rights to try a folder that cannot be written")
def test_a_folder_that_cannot_be_written_leaves_the_copy_in_the_cache(tmp_path, monkeypatch):
    folder = tmp_path / "readonly"; folder.mkdir(); write(folder / "a.npz", save=np.savez_compressed)
    monkeypatch.setenv("MEDCRYPT_DATA", str(tmp_path / "home")); monkeypatch.setattr("medcrypt.imaging.medmnist.os.access", lambda path, mode: False)
    assert open_medmnist(folder / "a.npz").read("test/00000004").shape == (28, 28)
    assert [p.name for p in folder.iterdir()] == ["a.npz"] and len(list((tmp_path / "home").rglob(".a.*.npy"))) == 3


@pytest.mark.parametrize("shape,columns,dtype", [((28, 28), 1, np.uint8), ((28, 28, 28), 14, np.uint8), ((28, 28), 14, np.float32), ((28,), 14, np.uint8), ((28, 28), 5, np.uint8)])
def test_arrays_of_other_shapes_are_refused(tmp_path, shape, columns, dtype):
    np.savez(tmp_path / "a.npz", **{f"{p}_images": np.zeros((2, *shape), dtype) for p in PARTS}, **{f"{p}_labels": np.zeros((2, columns), np.uint8) for p in PARTS})
    with pytest.raises(DataError, match="a.npz"): open_medmnist(tmp_path / "a.npz")


def test_pickled_objects_are_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self): return os.mkdir, (str(tmp_path / "evil"),)
    for name in ("train_images", "train_labels"):
        arrays = {f"{p}_{what}": np.zeros((2, 28, 28) if what == "images" else (2, 14), np.uint8) for p in PARTS for what in ("images", "labels")}
        held = np.empty(2, object); held[:] = [Evil(), Evil()]
        np.savez(tmp_path / "a.npz", **(arrays | {name: held}))
        with pytest.raises(DataError, match="a.npz"): open_medmnist(tmp_path / "a.npz")
        assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_anywhere_is_a_data_error_or_other_pixels(tmp_path, save):
    write(tmp_path / "a.npz", save=save); whole, draw = (tmp_path / "a.npz").read_bytes(), np.random.default_rng(4)
    ends = whole.rindex(b"PK\1\2", 0, whole.index(b"PK\1\2") + 5)
    for trial in range(150):
        data = bytearray(whole); low = ends if trial % 2 else 0
        for at in draw.integers(low, len(data), 3): data[at] = draw.integers(256)
        path = tmp_path / f"b{trial}.npz"; path.write_bytes(data); is_medmnist(path)
        try: source = open_medmnist(path); images = [source.read(row["file"]) for row in source.rows[::4]]
        except DataError: continue
        assert all(image.shape == (28, 28) and 0 <= image.min() <= image.max() <= 1 for image in images)
