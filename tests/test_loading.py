"Reading collections in a stream: order, memory, resumption, splits, notes."
import os, signal, subprocess, sys, time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from medcrypt.core import MedcryptError, ordered
from medcrypt.imaging import loading
from medcrypt.imaging.datasets import Dataset, map_member, write_archive
from medcrypt.imaging.loading import load_folder, reading_cost
from medcrypt.imaging.preprocessing import Preprocessing, preprocess
from medcrypt.imaging.sources import detect
from medcrypt.imaging.splits import plan
from medcrypt.imaging.tables import DataError


def folder_of(path, count=24, size=40, split=False, patients=True):
    path.mkdir()
    draw = np.random.default_rng(0)
    rows = [f"file,{'patient_id,' if patients else ''}label{',split' if split else ''}"]
    for i in range(count):
        Image.fromarray(draw.integers(0, 256, (size, size), dtype=np.uint8)).save(path / f"{i:03d}.png")
        part = f",{('train', 'train', 'val', 'test')[i // 2 % 4]}" if split else ""
        rows.append(f"{i:03d}.png,{f'P{i // 2},' if patients else ''}{i % 2}{part}")
    (path / "labels.csv").write_text("\n".join(rows) + "\n")
    return path


def test_ordered_keeps_order_and_a_bounded_window():
    taken, given = [], []
    def items():
        for i in range(50): taken.append(i); yield i
    for item, result in ordered(lambda i: (time.sleep(.001 * (i % 3)), i)[1], items(), 3):
        assert item == result; given.append(item)
        assert len(taken) - len(given) <= 12
    assert given == list(range(50))


def test_ordered_hands_on_errors_of_files_and_raises_bugs():
    def work(i):
        if i == 2: raise DataError("two")
        if i == 4: raise ZeroDivisionError
        return i
    stream = ordered(work, range(5), 2)
    assert [next(stream)[1] for _ in range(2)] == [0, 1] and isinstance(next(stream)[1], MedcryptError) and next(stream)[1] == 3
    with pytest.raises(ZeroDivisionError): next(stream)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.sampled_from(["uint8", "uint16"]), st.integers(0, 99))
def test_archives_map_exactly_and_are_equal_however_written(tmp_path_factory, shape, dtype, seed):
    folder = tmp_path_factory.mktemp("npz")
    images = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    write_archive(folder / "a.npz", images, labels=np.arange(3))
    (folder / "raw").write_bytes(images.tobytes())
    with open(folder / "raw", "rb") as raw: write_archive(folder / "b.npz", (raw, images.shape, images.dtype), labels=np.arange(3))
    assert np.array_equal(map_member(folder / "a.npz", "images"), images) and np.array_equal(np.load(folder / "a.npz")["images"], images)
    assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()


def test_damaged_archives_are_one_error(tmp_path):
    data = Dataset("x", np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1], list("abcd"), list("abcd"))
    whole = data.save(tmp_path / "x.npz").read_bytes()
    for cut in (b"", whole[:100], whole[:-30], b"PK" + whole[2:40]):
        (tmp_path / "x.npz").write_bytes(cut)
        with pytest.raises(DataError, match="x.npz"): Dataset.load(tmp_path / "x.npz")
    np.savez_compressed(tmp_path / "x.npz", images=data.images, labels=data.labels, patients=data.patients, files=data.files, about=np.array('{"name": "x", "facts": {}}'))
    with pytest.raises(DataError, match="not a data set"): Dataset.load(tmp_path / "x.npz")


def test_stream_equals_memory_with_any_number_of_threads(tmp_path):
    config, wanted = detect(folder_of(tmp_path / "d")), Preprocessing(16, bits=12)
    kept = load_folder(config, wanted)
    archives = []
    for workers in (1, 4):
        mapped = load_folder(config, wanted, into=tmp_path / f"{workers}.npz", workers=workers)
        assert isinstance(mapped.images, np.memmap) and np.array_equal(mapped.images, kept.images) and list(mapped.files) == list(kept.files) and mapped.facts == kept.facts
        archives.append((tmp_path / f"{workers}.npz").read_bytes())
    assert archives[0] == archives[1]


def test_an_interrupted_read_goes_on(tmp_path, monkeypatch):
    config, wanted, read = detect(folder_of(tmp_path / "d")), Preprocessing(16), []
    prepared = loading._prepared
    def dies(source, preprocessing, where, file):
        if file == "009.png" and len(read) < 10: raise KeyboardInterrupt
        read.append(file); return prepared(source, preprocessing, where, file)
    monkeypatch.setattr(loading, "_prepared", dies)
    with pytest.raises(KeyboardInterrupt): load_folder(config, wanted, into=tmp_path / "x.npz", workers=1)
    assert not (tmp_path / "x.npz").exists()
    partial, = tmp_path.glob(".x.*.partial")
    with open(partial, "ab") as file: file.write(b"half a frame")       # as a kill in mid-write leaves it
    read[:] = ["?"] * 10; ticks = []
    data = load_folder(config, wanted, into=tmp_path / "x.npz", workers=1, progress=lambda: ticks.append(1))
    assert "000.png" not in read and "009.png" in read and len(ticks) == 24 and not list(tmp_path.glob(".x.*"))
    monkeypatch.undo()
    assert np.array_equal(data.images, load_folder(config, wanted).images)


def test_a_changed_file_or_preprocessing_is_read_anew(tmp_path):
    config = detect(folder_of(tmp_path / "d"))
    for change in (lambda: Image.fromarray(np.full((40, 40), 200, np.uint8)).save(tmp_path / "d" / "000.png"), lambda: None):
        frames = loading._Frames(Preprocessing(16), tmp_path / "x.npz", ["old"]); frames.add(np.zeros((16, 16), np.uint8)); frames.close()
        change()
        data = load_folder(config, Preprocessing(16), into=tmp_path / "x.npz")
        assert np.array_equal(data.images, load_folder(config, Preprocessing(16)).images) and not list(tmp_path.glob(".x.*"))


def test_killed_in_the_middle_and_started_again(tmp_path):
    folder = folder_of(tmp_path / "d", count=60)
    code = ("import sys, time\nfrom medcrypt.imaging import loading\nfrom medcrypt.imaging.sources import detect\nfrom medcrypt.imaging.preprocessing import Preprocessing\n"
            "prepared = loading._prepared\n"
            "def slow(*a): time.sleep(.05); return prepared(*a)\n"
            "loading._prepared = slow\nloading.load_folder(detect(sys.argv[1]), Preprocessing(16), into=sys.argv[2], workers=1)\n")
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(tmp_path / "x.npz")])
    until = time.time() + 60
    while time.time() < until and not any(p.stat().st_size for p in tmp_path.glob(".x.*.partial")): time.sleep(.02)
    process.send_signal(signal.SIGKILL); process.wait()
    assert not (tmp_path / "x.npz").exists() and list(tmp_path.glob(".x.*.partial"))
    again = load_folder(detect(folder), Preprocessing(16), into=tmp_path / "x.npz")
    assert np.array_equal(again.images, load_folder(detect(folder), Preprocessing(16)).images)


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    code = ("import resource, sys\nimport numpy as np\nfrom medcrypt.imaging import loading\nfrom medcrypt.imaging.tables import DatasetConfig, Source\nfrom medcrypt.imaging.preprocessing import Preprocessing\n"
            "n = int(sys.argv[1])\n"
            "source = Source([{'file': str(i), 'label': str(i % 2)} for i in range(n)], lambda f: np.full((256, 256), int(f) % 7 / 7, np.float32), {})\n"
            "loading.open_source = lambda *a, **k: source\n"
            "data = loading.load_folder(DatasetConfig('x', sys.argv[2], 'label'), Preprocessing(256), into=sys.argv[2] + '/x.npz')\n"
            "assert len(data) == n\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)")
    peak = {n: int(subprocess.run([sys.executable, "-c", code, str(n), str(tmp_path)], check=True, capture_output=True, text=True).stdout) for n in (50, 3000)}
    assert (tmp_path / "x.npz").stat().st_size > 187 << 20 and peak[3000] - peak[50] < 60, peak   # MiB; the pictures are 187.5


def test_official_split(tmp_path):
    config = detect(folder_of(tmp_path / "d", count=40, split=True), split="official")
    data = load_folder(config, Preprocessing(16), into=tmp_path / "x.npz")
    fits = plan(data.labels, data.patients, folds=3, seeds=2, seed=0, official=data.official)
    assert list(fits) == [(0, 0), (1, 0)] and set(data.official[fits[0, 0].test]) == {"test"} and set(data.official[fits[0, 0].train]) == {"train"} and set(data.official[fits[0, 0].validation]) == {"val"}
    assert data.facts["split"] == "official" and load_folder(detect(tmp_path / "d"), Preprocessing(16)).official is None


def test_official_split_without_validation_takes_patients_of_training(tmp_path):
    labels, patients = np.arange(60) % 2, np.repeat(np.arange(30), 2).astype(str)
    fits = plan(labels, patients, folds=5, seeds=1, seed=0, official=np.where(np.arange(60) < 40, "train", "test"))
    only, = fits.values()
    assert only.test.tolist() == list(range(40, 60)) and not set(patients[only.train]) & set(patients[only.validation]) and len(only.validation)


def test_wrong_official_splits_are_refused():
    for official in (["train"] * 4, ["train", "test", "train", ""], ["train", "train", "test", "other"]):
        with pytest.raises(DataError, match="official split"): plan([0, 1, 0, 1], list("abcd"), folds=2, seeds=1, seed=0, official=np.array(official))
    with pytest.raises(DataError, match="one class"): plan([0, 1, 0, 0], list("abcd"), folds=2, seeds=1, seed=0, official=np.array(["train", "train", "test", "test"]))


def test_rows_outside_the_official_split_are_counted(tmp_path):
    folder = folder_of(tmp_path / "d", split=True)
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text().replace(",val", ","))
    data = load_folder(detect(folder, split="official"), Preprocessing(16))
    assert data.facts["dropped"] == {"not in the official split": 6} and set(data.official) == {"train", "test"}


def test_unknown_patients_are_said(tmp_path):
    data = load_folder(detect(folder_of(tmp_path / "d", patients=False)), Preprocessing(16))
    assert "patient of 24 of 24 images is not known" in data.facts["notes"][0] and not load_folder(detect(folder_of(tmp_path / "e")), Preprocessing(16)).facts["notes"]


def test_every_table_about_such_a_data_set_says_so(tmp_path):
    import pandas as pd
    from medcrypt.core import RunPaths
    from medcrypt.evaluation import plots
    run = RunPaths(tmp_path / "run")
    for name, patients in (("known", True), ("unknown", False)):
        load_folder(detect(folder_of(tmp_path / name, patients=patients), name=name), Preprocessing(16), into=run.dataset(name))
    for names, said in ((["known"], 0), (["known", "unknown", "unknown"], 1)):
        plots.save_table(pd.DataFrame({"dataset": names, "auc": .5}), "t", run, "A table.")
        assert (run.figures / "t.md").read_text().count("is not known") == said


def test_planes_are_prepared_one_by_one():
    planes = [np.random.default_rng(i).random((40, 40), dtype=np.float32) for i in range(3)]
    wanted = Preprocessing(16, crop=32, planes=3)
    assert wanted.shape == (16, 48)
    assert np.array_equal(preprocess(np.hstack(planes), wanted), np.hstack([preprocess(p, Preprocessing(16, crop=32)) for p in planes]))
    with pytest.raises(DataError, match="3 planes"): preprocess(np.zeros((4, 5), np.float32), wanted)


def test_reading_cost_is_a_slope(tmp_path, monkeypatch):
    config = detect(folder_of(tmp_path / "d"))
    prepared = loading._prepared
    monkeypatch.setattr(loading, "_prepared", lambda *a: (time.sleep(.02), prepared(*a))[1])
    cost = reading_cost(config, Preprocessing(16), workers=1)
    assert .015 < cost.per_image_s < 1 and cost.low_s <= cost.per_image_s <= cost.high_s and "112,120 pictures" in cost.of(112_120)


def test_no_damage_of_a_saved_data_set_causes_another_exception(tmp_path):
    draw = np.random.default_rng(0)
    whole = Dataset("x", draw.integers(0, 256, (4, 8, 8), dtype=np.uint8), [0, 1, 0, 1], list("abcd"), list("abcd"), {"a": 1}).save(tmp_path / "x.npz").read_bytes()
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(draw.integers(1, 4)):
            at = int(draw.integers(len(data)))
            if draw.random() < .7: data[at] = draw.integers(256)
            else: del data[at:at + int(draw.integers(1, 50))]
        (tmp_path / "y.npz").write_bytes(data)
        try: Dataset.load(tmp_path / "y.npz")
        except DataError: pass


def test_an_official_split_that_shares_patients_is_refused():
    labels, official = np.arange(12) % 2, np.array(["train", "val", "test"] * 4)
    with pytest.raises(DataError, match="patients are both in train and in val"): plan(labels, np.repeat(list("abcdef"), 2), folds=2, seeds=1, seed=0, official=np.sort(official)[::-1][np.argsort(np.arange(12) % 3)])


def test_an_archive_replaced_in_the_middle_is_read_anew(tmp_path, monkeypatch):
    def write(value): np.savez(tmp_path / "chestmnist.npz", **{f"{p}_images": np.full((20, 28, 28), value, np.uint8) for p in ("train", "val", "test")}, **{f"{p}_labels": np.eye(20, 14, dtype=np.uint8) for p in ("train", "val", "test")})
    write(10); prepared, seen = loading._prepared, []
    def dies(*a):
        seen.append(1)
        if len(seen) == 30: raise KeyboardInterrupt
        return prepared(*a)
    monkeypatch.setattr(loading, "_prepared", dies)
    with pytest.raises(KeyboardInterrupt): load_folder(detect(tmp_path / "chestmnist.npz"), Preprocessing(28), into=tmp_path / "x.npz", workers=1)
    monkeypatch.undo(); write(200); os.utime(tmp_path / "chestmnist.npz", ns=(1, 1))
    assert set(np.unique(load_folder(detect(tmp_path / "chestmnist.npz"), Preprocessing(28), into=tmp_path / "x.npz").images)) == {200}


def test_two_reads_into_one_file_do_not_mix(tmp_path):
    config = detect(folder_of(tmp_path / "d"))
    frames = loading._Frames(Preprocessing(16), tmp_path / "x.npz", ["another read, still running"]); frames.add(np.zeros((16, 16), np.uint8))
    load_folder(config, Preprocessing(16), into=tmp_path / "x.npz")
    assert frames.path.is_file()                        # what is in use is not removed
    with pytest.raises(DataError, match="another process"): loading._Frames(Preprocessing(16), tmp_path / "x.npz", ["another read, still running"])
    frames.close()


@pytest.mark.parametrize("ending", ["tif", "png", "jpg", "bmp"])
def test_no_damaged_picture_causes_another_exception(tmp_path, ending):
    from medcrypt.imaging.reading import read_display
    draw = np.random.default_rng(0); path = tmp_path / f"x.{ending}"
    Image.fromarray(draw.integers(0, 256, (24, 24), dtype=np.uint8)).save(path); whole = path.read_bytes()
    for _ in range(700):
        data = bytearray(whole)
        for at in draw.integers(len(data), size=draw.integers(1, 4)): data[at] ^= 1 << draw.integers(8)
        path.write_bytes(data)
        try: read_display(path)
        except DataError: pass
