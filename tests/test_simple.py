"Baselines without a network: what they find, what they must not find, and the covariates that some of them need."
import json, os, subprocess, sys, zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from medcrypt.cli.chain import ChainError, configure, prepare
from medcrypt.cli.main import parser
from medcrypt.core import PROFILES, ConfigError, MedcryptError, RunPaths, seeded_bytes, write_bytes
from medcrypt.crypto.keys import Key
from medcrypt.evaluation.metrics import auc, best_threshold
from medcrypt.imaging.datasets import Dataset, write_archive
from medcrypt.imaging.loading import load_folder, select
from medcrypt.imaging.phantom import write_phantoms
from medcrypt.imaging.preprocessing import Preprocessing
from medcrypt.imaging.sources import detect
from medcrypt.imaging.splits import plan
from medcrypt.imaging.tables import DataError, load_config
from medcrypt.learning import simple
from medcrypt.learning.study import Study
from medcrypt.vault import archive
from medcrypt.vault.contract import dataset_key
from medcrypt.learning.simple import BaselineError, baselines, by_all_pixels, by_covariate, by_hog, by_length, by_pixels, by_svm

N = 400
WHO = np.array([f"P{i // 2}" for i in range(N)])


def area(rows): return float(np.mean([auc(part.label.to_numpy(), part.probability.to_numpy()) for _, part in rows.groupby("fold")]))


@pytest.fixture(scope="module")
def world():
    "Labels, splits by patient, and for each baseline an input that gives the label away."
    draw = np.random.default_rng(3)
    y = np.repeat(draw.integers(0, 2, N // 2), 2)
    pictures = draw.integers(60, 100, (N, 40, 40)).astype(np.uint8); pictures[:, 10:30, 10:30] += (30 * y[:, None, None]).astype(np.uint8)
    diameter = np.exp(2 + y + draw.normal(0, .4, N)); diameter[::11] = np.nan
    words = np.where(y == (draw.random(N) < .04), "PA", "AP"); words[::17] = ""
    return y, plan(y, WHO, folds=4, seeds=1, seed=0), {"pixels": pictures, "hog": pictures, "number": diameter, "word": words, "length": 2000 + 300 * y + draw.normal(0, 60, N)}


FIT = {"pixels": by_pixels, "hog": by_hog, "number": by_covariate, "word": by_covariate, "length": by_length}


# --- what they find

@pytest.mark.parametrize("name", FIT)
def test_a_planted_signal_is_found_and_shuffled_labels_are_not(world, name):
    y, splits, given = world
    rows = FIT[name](given[name], y, splits, choose_threshold=best_threshold)
    assert area(rows) > .9 and auc(rows.label.to_numpy(), rows.probability.to_numpy()) > .9
    assert sorted(rows.image) == list(range(N)) and (rows.label == y[rows.image]).all() and rows.probability.between(0, 1).all() and ((rows.probability >= rows.threshold) == rows.label).mean() > .85
    assert abs(rows.probability.mean() - y.mean()) < .1
    shuffled = np.repeat(np.random.default_rng(5).permutation(y[::2]), 2)
    assert abs(area(FIT[name](given[name], shuffled, plan(shuffled, WHO, folds=4, seeds=1, seed=0), choose_threshold=best_threshold)) - .5) < .1


@pytest.mark.parametrize("name", FIT)
def test_test_images_have_no_say(world, name):
    "Neither the labels of test images nor their pictures change what is said about another one."
    y, splits, given = world
    train, validation, test = splits[0, 1]
    one = {(0, 1): (train, validation, test)}
    before = FIT[name](given[name], y, one, choose_threshold=best_threshold)
    other = y.copy(); other[test] = 1 - other[test]
    after = FIT[name](given[name], other, one, choose_threshold=best_threshold)
    assert (before.probability == after.probability).all() and (before.threshold == after.threshold).all() and (before.label == 1 - after.label).all()
    changed = given[name].copy(); changed[test[1:]] = changed[test[0]]
    again = FIT[name](changed, y, one, choose_threshold=best_threshold)
    assert again.probability[0] == pytest.approx(before.probability[0], abs=1e-12) and again.threshold[0] == before.threshold[0]
    moved = y.copy(); moved[train] = np.roll(moved[train], 1)     # but training labels do
    assert (FIT[name](given[name], moved, one, choose_threshold=best_threshold).probability != before.probability).any()


@pytest.mark.parametrize("name", FIT)
def test_the_same_twice(world, name):
    y, splits, given = world
    first, second = (FIT[name](given[name], y, splits, choose_threshold=best_threshold) for _ in range(2))
    assert first.equals(second)


@pytest.mark.parametrize("name", FIT)
def test_folds_of_one_class(world, name):
    "Nothing to learn or to choose is an error in one sentence; test images of one class are predicted like others."
    y, splits, given = world
    train, validation, test = splits[0, 0]
    for broken, word in (((train[y[train] == 1], validation, test), "training"), ((train, validation[y[validation] == 0], test), "validation")):
        with pytest.raises(BaselineError, match=f"seed 0, fold 7: {word} images of one class"): FIT[name](given[name], y, {(0, 7): broken}, choose_threshold=best_threshold)
    ill = test[y[test] == 1]
    part = FIT[name](given[name], y, {(0, 0): (train, validation, ill)}, choose_threshold=best_threshold)
    whole = FIT[name](given[name], y, {(0, 0): (train, validation, test)}, choose_threshold=best_threshold).set_index("image")
    assert np.allclose(part.probability, whole.probability.loc[part.image], atol=1e-12) and set(part.label) == {1}


# --- covariates

def test_a_number_may_work_through_its_size_or_its_logarithm(world):
    y, splits, _ = world
    draw = np.random.default_rng(1)
    for values in (10. ** (y + draw.normal(0, .3, N)) - 5, -(10. ** (3 * y + draw.normal(0, .3, N))), y + draw.normal(0, .2, N)):
        assert area(by_covariate(values, y, splits, choose_threshold=best_threshold)) > .9


def test_unknown_numbers_are_the_median_and_being_unknown_may_tell(world):
    y, splits, _ = world
    draw = np.random.default_rng(2)
    nothing = draw.normal(0, 1, N)
    assert area(by_covariate(np.where(y == 1, np.nan, nothing), y, splits, choose_threshold=best_threshold)) > .9
    with np.errstate(all="raise"): rows = by_covariate(np.full(N, np.nan), y, splits, choose_threshold=best_threshold)
    assert rows.groupby("fold").probability.nunique().max() == 1
    only_in_test = y + draw.normal(0, .2, N); only_in_test[splits[0, 0].test] = np.nan
    rows = by_covariate(only_in_test, y, {(0, 0): splits[0, 0]}, choose_threshold=best_threshold)
    assert rows.probability.nunique() == 1 and .2 < rows.probability[0] < .8     # at the median, and no more certain than that


def test_words_that_training_does_not_know(world):
    y, splits, given = world
    words = given["word"].astype("U9"); test = splits[0, 0].test
    words[test[:3]] = "Bucky"
    rows = by_covariate(words, y, {(0, 0): splits[0, 0]}, choose_threshold=best_threshold)
    assert rows.probability[:3].nunique() == 1 and rows.probability.nunique() <= 4
    assert (by_covariate((words == "AP").astype(int), y, splits, choose_threshold=best_threshold).probability > 0).all()


# --- length within strata

def test_length_within_strata_leaves_out_what_the_stratum_tells(world):
    "Length tells the view, the view the label: within views nothing is left. And what length tells in one view only, is found there."
    y, splits, _ = world
    draw = np.random.default_rng(4)
    view = np.where(draw.random(N) < .15 + .7 * y, "AP", "PA")
    told = 2000 + 300 * (view == "AP") + draw.normal(0, 60, N)
    assert area(by_length(told, y, splits, choose_threshold=best_threshold)) > .75
    assert abs(area(by_length(told, y, splits, strata=view, choose_threshold=best_threshold)) - .5) < .1
    told = 2000 + 300 * np.where(view == "AP", y, draw.integers(0, 2, N)) + draw.normal(0, 60, N)
    rows = by_length(told, y, splits, strata=view, choose_threshold=best_threshold)
    within = {name: auc(part.label.to_numpy(), part.probability.to_numpy()) for name, part in rows.groupby(view[rows.image])}
    assert within["AP"] > .95 and abs(within["PA"] - .5) < .15
    opposite = 2000 + 300 * np.where(view == "AP", y, 1 - y) + draw.normal(0, 60, N)      # each stratum has its own slope
    assert area(by_length(opposite, y, splits, strata=view, choose_threshold=best_threshold)) > .95


def test_a_stratum_of_few_images_tells_nothing(world):
    y, splits, given = world
    train, validation, test = splits[0, 0]
    view = np.full(N, "PA"); view[test[:2]] = "LL"; view[train[:simple.FEWEST - 1]] = "LL"
    rows = by_length(given["length"], y, {(0, 0): splits[0, 0]}, strata=view, choose_threshold=best_threshold)
    assert np.allclose(rows.probability[:2], y[train].mean()) and rows.probability[2:].nunique() > 50


# --- the support vector machine

def test_more_training_images_than_it_can_take(world, monkeypatch):
    y, splits, given = world
    whole = by_pixels(given["pixels"], y, splits, choose_threshold=best_threshold)
    monkeypatch.setattr(simple, "MOST", 80)
    first, second = (by_pixels(given["pixels"], y, splits, choose_threshold=best_threshold) for _ in range(2))
    assert first.equals(second) and not first.probability.equals(whole.probability) and area(first) > .9


def test_the_number_of_threads_does_not_change_a_digit():
    code = ("import numpy as np; from medcrypt.learning.simple import by_svm\n"
            "d = np.random.default_rng(0); x = d.normal(size=(900, 1500)); y = d.integers(0, 2, 900); x[:, :40] += .3 * y[:, None]; i = np.arange(900)\n"
            "print(by_svm(x, y, {(0, 0): (i[:500], i[500:700], i[700:])}, choose_threshold=lambda y, p: .5, model='m').probability.map(float.hex).tolist())")
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": n, "OPENBLAS_NUM_THREADS": n}).stdout for n in "12"]
    assert said[0] == said[1] and len(said[0]) > 4000


def test_features_on_other_scales_and_a_constant_one(world):
    y, splits, _ = world
    draw = np.random.default_rng(6)
    x = np.column_stack([y + draw.normal(0, .3, N), 1e6 * draw.normal(0, 1, N), np.full(N, 7.)])
    assert area(by_svm(x, y, splits, choose_threshold=best_threshold, model="m")) > .9
    ring = draw.normal(0, 1, (N, 2)); ring *= ((1 + 2 * y) / np.linalg.norm(ring, axis=1))[:, None]          # no line divides this
    assert area(by_svm(ring, y, splits, choose_threshold=best_threshold, model="m")) > .95


def test_pictures_are_shrunk_by_area_and_never_enlarged():
    grid = np.kron(np.arange(32 * 32).reshape(32, 32) % 251, np.ones((4, 4))).astype(np.uint8)
    assert np.allclose(simple.pixels([grid])[0].reshape(32, 32), np.arange(32 * 32).reshape(32, 32) % 251)
    assert simple.pixels(np.zeros((2, 64, 192), np.uint8)).shape == (2, 32 * 96) and simple.pixels(np.zeros((1, 28, 28), np.uint8)).shape == (1, 28 * 28)
    assert simple.gradients(np.zeros((1, 128, 128), np.uint8)).shape == simple.gradients(np.zeros((1, 512, 512), np.uint8)).shape == simple.gradients(np.zeros((1, 48, 48), np.uint8)).shape == (1, 7 * 7 * 4 * 9)
    with pytest.raises(BaselineError, match="7 x 7"): simple.gradients(np.zeros((1, 7, 7), np.uint8))


def test_all_baselines_in_one_table(world):
    y, splits, given = world
    data = Dataset("x", given["pixels"], y, WHO, np.arange(N), covariates={"diameter_mm": given["number"], "view": given["word"]})
    ticks = []
    rows = baselines(data, given["length"], splits, choose_threshold=best_threshold, tick=lambda: ticks.append(1))
    names = list(map(tuple, rows[["model", "view"]].drop_duplicates().to_numpy()))
    assert names == [("svm on pixels", "plain"), ("svm on hog", "plain"), ("diameter_mm alone", "covariate"), ("view alone", "covariate"), ("logistic regression", "length"), ("logistic regression within view", "length")]
    assert len(names) == simple.count_of(data, given["length"]) and len(ticks) == 4 * len(names) and (rows.groupby("model").image.nunique() == N).all() and (rows.groupby("model").size() == N).all()
    few = baselines(Dataset("x", given["pixels"], y, WHO, np.arange(N)), None, splits, choose_threshold=best_threshold)
    assert few.model.unique().tolist() == ["svm on pixels", "svm on hog"] and simple.count_of(Dataset("x", given["pixels"], y, WHO, np.arange(N)), None) == 2
    assert few.equals(rows[rows["view"] == "plain"].reset_index(drop=True))     # covariates do not touch them


@pytest.mark.parametrize("move", ["places", "negatives", "both"])
def test_one_key_for_all_hides_nothing_from_distances(world, move):
    y, splits, _ = world; draw = np.random.default_rng(5); x = draw.integers(0, 128, (N, 12, 12)).astype(np.uint8)
    x[y == 1, 2:8, 1:5] += 60; x[y == 0, 2:8, 7:11] += 60; flat = x.reshape(N, -1) # the label is where the square lies: no sum tells it
    if move != "places": flat = np.where(draw.random(flat.shape[1]) < .5, 255 - flat, flat)
    if move != "negatives": flat = flat[:, draw.permutation(flat.shape[1])]
    before, after = (by_all_pixels(v, y, splits, choose_threshold=best_threshold) for v in (x, flat.reshape(x.shape)))
    assert set(before.model) == {simple.ALL_PIXELS} and np.allclose(before.probability, after.probability, atol=1e-3)
    other = np.stack([row[np.random.default_rng(i).permutation(row.size)] for i, row in enumerate(flat)]).reshape(x.shape)  # a key for each
    assert area(before) > .95 and .38 < area(by_all_pixels(other, y, splits, choose_threshold=best_threshold)) < .62


def test_the_second_learner_looks_through_every_scheme_and_at_each_sealing(tmp_path):
    views = ("plain", "blocks-0.5", "le", "etc", "etc-each", "cbc"); run = RunPaths(tmp_path); draw = np.random.default_rng(0); y = np.arange(60) // 2 % 2
    images = draw.integers(0, 128, (60, 16, 16)).astype(np.uint8); images[y == 1, 4:12, 4:12] += 60
    Dataset("d", images, y, [f"P{i // 2}" for i in range(60)], np.arange(60).astype(str), {"label": "sick", "modality": "CXR", "title": "squares", "synthetic": True, "block": 4, "preprocessing": {"size": [16, 16]}}).save(run.dataset("d"))
    index = archive.fill(archive.open_archive(run, "d"), images, dataset_key(Key(bytes(32)), "d"), views=views, block=4, bits=8, random=seeded_bytes(0, "vault"), repetitions=2)
    write_bytes(run.index("d"), pd.DataFrame(index).to_csv(index=False).encode())
    study = Study(run, "d", replace(PROFILES["smoke"], views=views, folds=2, seeds=2), 0); ticks = []
    rows = study.fit_all_pixels(choose_threshold=best_threshold, tick=lambda: ticks.append(1))
    assert study.all_pixels == {"plain": (0,), "le": (0,), "etc": (0,), "cbc": (0, 1)} and len(ticks) == 2 * 5 and set(rows.model) == {simple.ALL_PIXELS}
    assert rows.groupby("view").size().to_dict() == {"plain": 60, "le": 60, "etc": 60, "cbc": 120}
    by = {view: part.set_index(["seed", "image"]).probability for view, part in rows.groupby("view")}
    assert np.allclose(by["plain"], by["etc"][by["plain"].index], atol=1e-3)                    # the same distances
    assert roc_auc_score(y, by["etc"].sort_index()) > .9 and not np.allclose(by["cbc"].loc[0].sort_index(), by["cbc"].loc[1].sort_index())
    none = Study(run, "d", replace(study.profile, views=("plain", "blocks-0.5")), 0); assert none.all_pixels == {} and none.fit_all_pixels(choose_threshold=best_threshold).empty
    own = Study(run, "d", replace(study.profile, each_key=True), 0); assert own.all_pixels["etc-each"] == (0,)


def test_the_folds_of_a_repetition_mirror_each_other_where_nothing_can_be_learned():
    "Random bytes: chance on average, and the two halves agree in how far off they are, which a permutation of probabilities that stand does not know."
    found = []
    for k in range(40):
        draw = np.random.default_rng(k); y = np.arange(120) % 2; x = draw.integers(0, 256, (120, 12, 12)).astype(np.uint8); order = draw.permutation(120); a, b = order[:60], order[60:]
        rows = by_all_pixels(x, y, {(0, 0): (a[:48], a[48:], b), (0, 1): (b[:48], b[48:], a)}, choose_threshold=best_threshold)
        found.append([auc(part.label.to_numpy(), part.probability.to_numpy()) for _, part in rows.groupby("fold")])
    found = np.array(found); means = found.mean(1)
    assert abs(means.mean() - .5) < 4 * means.std(ddof=1) / 40 ** .5 and np.corrcoef(found.T)[0, 1] > .3


# --- covariates of a data set

COVARIATES = {"diameter_mm": np.array([3.5, np.nan, 12.]), "view/ü": np.array(["AP", "", "PA"])}


def three(**more): return Dataset("x", np.arange(48, dtype=np.uint8).reshape(3, 4, 4), [0, 1, 0], list("abc"), list("abc"), {"label": "l"}, **more)


def test_covariates_come_back_from_the_file(tmp_path):
    data = three(covariates=COVARIATES); again = Dataset.load(data.save(tmp_path / "a.npz"))
    assert list(again.covariates) == list(COVARIATES) and np.array_equal(again.covariates["diameter_mm"], COVARIATES["diameter_mm"], equal_nan=True) and again.covariates["view/ü"].tolist() == ["AP", "", "PA"]
    assert again.covariates["diameter_mm"].dtype == np.float64 and (tmp_path / "a.npz").read_bytes() == again.save(tmp_path / "b.npz").read_bytes()
    assert three(covariates={"age": [60, 70, 80], "sick": [True, False, True]}).covariates["age"].dtype == np.float64


def test_files_that_were_saved_without_covariates_still_load(tmp_path):
    plain = three()
    write_archive(tmp_path / "old.npz", plain.images, labels=plain.labels, patients=plain.patients, files=plain.files, about=np.array(json.dumps({"name": "x", "facts": {"label": "l"}}, sort_keys=True)))
    assert Dataset.load(tmp_path / "old.npz").covariates == {} and plain.save(tmp_path / "new.npz").read_bytes() == (tmp_path / "old.npz").read_bytes()


def test_a_file_that_lacks_a_covariate_it_names_is_damaged(tmp_path):
    path = three(covariates=COVARIATES).save(tmp_path / "a.npz")
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "cut.npz", "w") as cut:
        for name in whole.namelist(): name != "covariate_1.npy" and cut.writestr(zipfile.ZipInfo(name), whole.read(name))
    with pytest.raises(DataError, match="cut.npz: not a data set"): Dataset.load(tmp_path / "cut.npz")


@pytest.mark.parametrize("values", [[1., 2.], [[1.], [2.], [3.]], [1., np.inf, 2.], [None, "a", "b"], [1j, 2, 3], 5.])
def test_covariates_that_are_none(values):
    with pytest.raises(DataError, match="covariate 'age'"): three(covariates={"age": np.array(values)})


@pytest.fixture
def folder(tmp_path):
    "Sixty pictures of thirty patients with columns of every kind; the first row of the table is of an image that is not used."
    where = tmp_path / "pics"; (where / "im").mkdir(parents=True)
    draw, lines = np.random.default_rng(0), ["file,patient_id,sick,age,view,note,large,odd", "im/x.png,P99,-1,200,XX,seen,1,1"]
    for i in range(60):
        Image.fromarray(draw.integers(0, 256, (24, 24), dtype=np.uint8)).save(where / "im" / f"{i}.png")
        lines.append(f"im/{i}.png,P{i // 2},{i // 2 % 2},{'NaN' if i == 3 else 20 + i},{('AP', 'PA', '')[i % 3]},n/a,{'inf' if i == 5 else i},{'about 5' if i == 7 else i}")
    (where / "labels.csv").write_text("\n".join(lines) + "\n")
    return where


def test_covariates_follow_the_rows(folder, tmp_path):
    "Rows that are left out, a limit, an unreadable image and the file on the disk all keep each value with its picture."
    def right(data): return all(data.covariates["view"][i] == ("AP", "PA", "")[n % 3] and (np.isnan(data.covariates["age"][i]) if n == 3 else data.covariates["age"][i] == 20 + n) for i, n in enumerate(int(f[3:-4]) for f in data.files))
    config = detect(folder, label="sick", covariates=" view , age ")
    whole = load_folder(config, Preprocessing(16))
    assert len(whole) == 60 and list(whole.covariates) == ["view", "age"] and right(whole) and np.isnan(whole.covariates["age"]).sum() == 1
    few = load_folder(config, Preprocessing(16), limit=20, seed=1)
    assert 10 < len(few) < 30 and right(few)
    (folder / "im" / "8.png").write_bytes(b"no picture")
    skipped = load_folder(config, Preprocessing(16), on_error="skip", into=tmp_path / "o.npz")
    assert len(skipped) == 59 and right(skipped) and right(Dataset.load(tmp_path / "o.npz"))
    assert load_folder(detect(folder, label="sick", include="im/9.png,im/1*.png"), Preprocessing(16)).covariates == {}
    assert detect(folder, label="sick", covariates="odd").covariates == "odd" and select(detect(folder, label="sick", covariates="odd")).covariates["odd"]["im/7.png"] == "about 5"


@pytest.mark.parametrize("columns, words", [("aeg", "no column 'aeg' for --covariates"), ("age,note", "column 'note' for --covariates is empty in all 60 rows"), ("large", "'large'.* infinite"), ("sick", "'sick' cannot be a covariate: it is the label"),
                                            ("patient_id", "the patient's id"), ("file", "the picture's name"), ("age,,view", "separated by commas"), ("age,age", "separated by commas"), (",", "separated by commas")])
def test_columns_that_are_no_covariates(folder, columns, words):
    for call in (lambda: select(detect(folder, label="sick", covariates=columns)), lambda: configure([str(folder)], "smoke", label="sick", covariates=columns)):
        with pytest.raises(MedcryptError, match=words): call()


@pytest.mark.parametrize("label", ["view=AP", "not age>30", "!age<=30"])
def test_the_label_is_no_covariate_of_itself_however_it_is_asked_for(folder, label):
    with pytest.raises(DataError, match="it is the label"): select(detect(folder, label=label, covariates="view,age"))


def test_the_option_the_file_and_another_value_is_another_data_set(folder, tmp_path):
    assert parser().parse_args(["reproduce", "--covariates", "view,age"]).covariates == "view,age"
    config = configure([str(folder)], "smoke", label="sick", covariates="view, age")
    assert config["datasets"]["pics"]["covariates"] == "view,age"
    (tmp_path / "sets.toml").write_text('[[dataset]]\nfolder = "pics"\nlabel = "sick"\ngroup = "patient_id"\ncovariates = "view,age"\n')
    assert load_config(tmp_path / "sets.toml")[0].covariate_names == ("view", "age")
    assert configure([], "smoke", dataset_config=tmp_path / "sets.toml")["datasets"]["pics"]["covariates"] == "view,age"
    with pytest.raises(ConfigError, match="--covariates: describes one folder"): configure(["phantom"], "smoke", covariates="view")
    prepare(tmp_path / "run", config); prepare(tmp_path / "run", config)
    with pytest.raises(ChainError, match="with covariates view,age, not age"): prepare(tmp_path / "run", configure([str(folder)], "smoke", label="sick", covariates="age"))
    del config["datasets"]["pics"]["covariates"]; (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    prepare(tmp_path / "run", configure([str(folder)], "smoke", label="sick"))                  # a run from before there were any


@pytest.mark.parametrize("kind, column, there", [("ct", "diameter_mm", np.float64), ("cxr", "view", np.str_)])
def test_phantoms_have_theirs(tmp_path, kind, column, there):
    folder = write_phantoms(tmp_path / kind, kind, 12, seed=0, size=64)
    data = load_folder(detect(folder, crop=32 if kind == "ct" else None), Preprocessing(32))
    assert list(data.covariates) == [column] and np.issubdtype(data.covariates[column].dtype, there)
    rows = dict(line.split(",")[:1] + [line] for line in (folder / "labels.csv").read_text().splitlines())
    assert all((f"{value:g}" if there is np.float64 else f",{value},") in rows[file] for file, value in zip(data.files, data.covariates[column]))
    assert load_folder(detect(folder, crop=None, covariates=""), Preprocessing(32)).covariates == {}


def test_what_a_layout_implies_is_taken_where_it_is_there(tmp_path):
    "A collection's column that is missing or empty in the chosen rows, or is the label, is not asked for; the user's is."
    from medcrypt.imaging.tables import NIH_FINDINGS
    findings = sorted(NIH_FINDINGS); lines = [f"file,patient_id,view,age,{','.join(findings)}"]
    for i in range(8):
        (tmp_path / "a").mkdir(exist_ok=True); Image.fromarray(np.full((130, 130), i, np.uint8)).save(tmp_path / "a" / f"{i}.png")
        lines.append(f"a/{i}.png,{i},{'AP' if i < 4 else ''},{40 + i},{','.join(str(i % 2) for _ in findings)}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    assert detect(tmp_path).covariates == "view,age" and detect(tmp_path, include="a/[4-7].png").covariates == "age" and detect(tmp_path, label="view=AP").covariates == "age" and detect(tmp_path, covariates="age").covariates == "age"
    with pytest.raises(DataError, match="'view' for --covariates is empty in all 4 rows"): select(detect(tmp_path, include="a/[4-7].png", covariates="view"))


# --- real pictures

@pytest.mark.parametrize("name, given, size, expected", [
    ("ct", {"label": "label_malignant"}, 48, {"svm on pixels": (.82, .92), "svm on hog": (.82, .92), "diameter_mm alone": (.86, .93)}),
    ("cxr", {"label": "No_Finding=0", "include": "nih256/*", "group": "patient_id"}, 128, {"svm on pixels": (.80, .89), "svm on hog": (.82, .91), "view alone": (.55, .66)}),
    ("cxr", {"label": "Effusion", "include": "nih_unnamed256/*", "group": "patient_id"}, 128, {"svm on pixels": (.74, .84), "svm on hog": (.75, .85)})])
def test_real_pictures(shared, name, given, size, expected):
    config = detect(shared / "data" / name, **given)
    data = load_folder(config, Preprocessing(size, crop=config.crop))
    found = baselines(data, None, plan(data.labels, data.patients, folds=5, seeds=1, seed=0), choose_threshold=best_threshold)
    measured = {model: area(rows) for model, rows in found.groupby("model")}
    assert all(low < measured[model] < high for model, (low, high) in expected.items()), measured
