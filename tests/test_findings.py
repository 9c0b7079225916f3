"Several labels at once: how they are read and kept, that an unknown answer has no say in a fit, their table, and a whole study with them."
import json, zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from medcrypt.cli.chain import ChainError, configure, prepare
from medcrypt.cli.collections import describe
from medcrypt.cli.main import main, parser
from medcrypt.core import PROFILES, ConfigError, MedcryptError, RunPaths, seeded_bytes, write_bytes
from medcrypt.evaluation import findings as table
from medcrypt.evaluation.intervals import MetricError, bootstrap
from medcrypt.evaluation.metrics import best_threshold
from medcrypt.evaluation.performance import PerformanceError
from medcrypt.imaging.datasets import Dataset
from medcrypt.imaging.loading import load_folder, select
from medcrypt.imaging.phantom import write_phantoms
from medcrypt.imaging.phantom_findings import FINDINGS as PHANTOM_FINDINGS
from medcrypt.imaging.preprocessing import Preprocessing
from medcrypt.imaging.sources import detect
from medcrypt.imaging.tables import NIH_FINDINGS, DataError, load_config, read_findings

NAN = float("nan")


# --- reading

@pytest.mark.parametrize("cell, value", [("1", 1), ("0", 0), ("1.0", 1), ("0.0", 0), ("True", 1), ("FALSE", 0), ("", NAN), ("nan", NAN), ("NaN", NAN), ("NA", NAN), ("null", NAN), ("-1", NAN), ("-1.0", NAN)])
def test_cells(cell, value):
    found = read_findings(("Mass",), [{"file": "a", "Mass": cell}, {"file": "b", "Mass": "0"}, {"file": "c", "Mass": "1"}])["Mass"]
    assert found.dtype == np.float64 and np.array_equal(found, [value, 0, 1], equal_nan=True)


@pytest.mark.parametrize("cell", ["2", "-2", "0.5", "yes", "AP", "inf", "1 0"])
def test_other_values_name_the_column_and_the_value(cell):
    with pytest.raises(DataError, match=f"t.csv: column 'Mass' for --findings holds '{cell}'"): read_findings(("Edema", "Mass"), [{"Edema": "1", "Mass": "0"}, {"Edema": "0", "Mass": cell}], "t.csv")


@pytest.fixture
def folder(tmp_path):
    "Sixty pictures of thirty patients; Hernia is nobody's, Fibrosis is not known of anybody, an unused row comes first."
    where = tmp_path / "pics"; (where / "im").mkdir(parents=True)
    draw, lines = np.random.default_rng(0), ["file,patient_id,sick,Mass,Edema,Hernia,Fibrosis,view", "im/x.png,P99,-1,7,1,1,1,AP"]
    for i in range(60):
        Image.fromarray(draw.integers(0, 256, (24, 24), dtype=np.uint8)).save(where / "im" / f"{i}.png")
        lines.append(f"im/{i}.png,P{i // 2},{i // 2 % 2},{('1', '0', '-1')[i % 3]},{i // 2 % 2},0,,AP")
    (where / "labels.csv").write_text("\n".join(lines) + "\n")
    return where


def test_findings_follow_the_rows(folder, tmp_path):
    "Rows that are left out, a limit, an unreadable image and the file on the disk keep each answer with its picture."
    def right(data): return all(np.array_equal(data.finding_table[i], [(1, 0, NAN)[n % 3], n // 2 % 2, 0], equal_nan=True) for i, n in enumerate(int(f[3:-4]) for f in data.files))
    config = detect(folder, label="sick", findings=" Mass, Edema ,Hernia")
    whole = load_folder(config, Preprocessing(16))
    assert len(whole) == 60 and list(whole.findings) == ["Mass", "Edema", "Hernia"] and right(whole) and np.isnan(whole.findings["Mass"]).sum() == 20
    few = load_folder(config, Preprocessing(16), limit=20, seed=1)
    assert 10 < len(few) < 30 and right(few)
    (folder / "im" / "8.png").write_bytes(b"no picture")
    skipped = load_folder(config, Preprocessing(16), on_error="skip", into=tmp_path / "o.npz")
    assert len(skipped) == 59 and right(skipped) and right(Dataset.load(tmp_path / "o.npz"))
    assert load_folder(detect(folder, label="sick", include="im/9.png,im/1*.png"), Preprocessing(16)).findings == {}


@pytest.mark.parametrize("columns, words", [("Mas", "no column 'Mas' for --findings"), ("Edema,Fibrosis", "nothing is known of --findings Fibrosis in the 60 rows"), ("view", "'view' for --findings holds 'AP'"), ("Hernia", "Hernia is the same in all rows"),
                                            ("Edema,,Mass", "findings 'Edema,,Mass' are not different column names"), ("Mass,Mass", "not different column names")])
def test_columns_that_are_no_findings(folder, columns, words):
    for call in (lambda: select(detect(folder, label="sick", findings=columns)), lambda: configure([str(folder)], "smoke", label="sick", findings=columns)):
        with pytest.raises(MedcryptError, match=words): call()


def test_the_option_the_file_and_another_value_is_another_data_set(folder, tmp_path):
    assert parser().parse_args(["reproduce", "--findings", "Mass,Edema"]).findings == "Mass,Edema"
    assert detect(folder, label="sick").findings == "" # of a table nobody asked for
    config = configure([str(folder)], "smoke", label="sick", findings="Mass, Edema")
    assert config["datasets"]["pics"]["findings"] == "Mass,Edema"
    (tmp_path / "sets.toml").write_text('[[dataset]]\nfolder = "pics"\nlabel = "sick"\ngroup = "patient_id"\nfindings = "Mass,Edema"\n')
    assert load_config(tmp_path / "sets.toml")[0].finding_names == ("Mass", "Edema") and configure([], "smoke", dataset_config=tmp_path / "sets.toml")["datasets"]["pics"]["findings"] == "Mass,Edema"
    with pytest.raises(ConfigError, match="--findings: describes one folder"): configure(["phantom"], "smoke", findings="Mass")
    prepare(tmp_path / "run", config); prepare(tmp_path / "run", config)
    with pytest.raises(ChainError, match="with findings Mass,Edema, not Edema"): prepare(tmp_path / "run", configure([str(folder)], "smoke", label="sick", findings="Edema"))
    del config["datasets"]["pics"]["findings"]; (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    prepare(tmp_path / "run", configure([str(folder)], "smoke", label="sick", findings="Edema")) # a run from before there were any


def test_a_folder_says_how_many_there_are(folder, capsys):
    assert main(["data", "show", str(folder), "--label", "sick", "--findings", "Mass,Hernia"]) == 0
    assert "findings: Mass (20 of 40, 20 unknown), Hernia (0 of 60)\n" in capsys.readouterr().out
    assert "findings" not in describe(folder, label="sick")


def test_phantoms_have_theirs(tmp_path):
    folder = write_phantoms(tmp_path / "cxr", "cxr", 24, seed=0, size=64)
    data = load_folder(detect(folder), Preprocessing(32))
    assert tuple(data.findings) == PHANTOM_FINDINGS and np.array_equal(data.finding_table.max(1), data.labels)
    assert load_folder(detect(folder, findings=""), Preprocessing(32)).findings == {} and detect(folder, findings="Nodule").findings == "Nodule"
    assert detect(folder, label="Effusion").findings.split(",") == list(PHANTOM_FINDINGS) # the label may be one of them
    assert detect(write_phantoms(tmp_path / "ct", "ct", 6, seed=0, size=64)).findings == ""
    both = configure(["phantom"], "smoke")["datasets"]
    assert both["phantom_cxr"]["findings"] == ",".join(PHANTOM_FINDINGS) and both["phantom_ct"]["findings"] == ""


def test_chestxray14_as_it_is_published_has_its_fourteen(tmp_path):
    (tmp_path / "images").mkdir()
    said = ["No Finding", "Mass|Pleural_Thickening", "No Finding", "Hernia"]
    for i in range(4): Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
    def write(said): (tmp_path / "Data_Entry_2017.csv").write_text("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n" + "".join(f"{i}.png,{what},0,{i},058Y,M,PA\n" for i, what in enumerate(said)))
    write(said)
    data = load_folder(detect(tmp_path), Preprocessing(8))
    assert set(data.findings) == NIH_FINDINGS - {"No_Finding"} and len(data.findings) == 14
    assert [{name for name, values in data.findings.items() if values[i]} for i in range(4)] == [set(), {"Mass", "Pleural_Thickening"}, set(), {"Hernia"}]
    write(["No Finding"] * 4)
    assert detect(tmp_path, label="No_Finding").findings == "" # there is nothing to be learned, and nobody has asked


def test_chestxray14_on_this_disk(shared):
    cxr = shared / "data" / "cxr"
    if not (cxr / "labels.csv").is_file(): pytest.skip(f"the pictures of ChestX-ray14 are not in {cxr.parent.name}/cxr")
    names = sorted(NIH_FINDINGS - {"No_Finding"})
    data = load_folder(detect(cxr, include="nih256/*", findings=",".join(names)), Preprocessing(24))
    assert len(data) == 1125 and data.facts["dropped"]["duplicate"] == 1 and list(data.findings) == names # one picture is there twice
    assert data.findings["Effusion"].sum() == 107 and data.findings["Hernia"].sum() == 11 and not np.isnan(data.finding_table).any()
    assert np.array_equal(data.finding_table.max(1), data.labels) and (data.labels == 0).sum() == 537


# --- in a file

KNOWN = {"Mass": [1, NAN, 0], "Hernia": [0, 0, 0]}


def three(**more): return Dataset("x", np.arange(48, dtype=np.uint8).reshape(3, 4, 4), [0, 1, 0], list("abc"), list("abc"), {"label": "l"}, **more)


def test_findings_come_back_from_the_file(tmp_path):
    data = three(findings=KNOWN, covariates={"age": [1, 2, 3]}); again = Dataset.load(data.save(tmp_path / "a.npz"))
    assert list(again.findings) == list(KNOWN) and all(np.array_equal(again.findings[name], values, equal_nan=True) and again.findings[name].dtype == np.float64 for name, values in KNOWN.items())
    assert list(again.covariates) == ["age"] and (tmp_path / "a.npz").read_bytes() == again.save(tmp_path / "b.npz").read_bytes()
    assert replace(again, name="y").findings.keys() == KNOWN.keys() and three(findings={"Mass": [True, False, True]}).findings["Mass"].tolist() == [1, 0, 1]


def test_files_that_were_saved_without_findings_still_load(tmp_path):
    path = three().save(tmp_path / "a.npz")
    with zipfile.ZipFile(path) as archive: assert "findings.npy" not in archive.namelist()
    assert Dataset.load(path).findings == {} and Dataset.load(path).finding_table.shape == (3, 0)


@pytest.mark.parametrize("values", [[0, 1], [0, 1, 2], [0, 1, -1], [0, 1, .5], [0, 1, np.inf], ["0", "1", ""], [[0], [1], [0]]])
def test_findings_that_are_none(values):
    with pytest.raises(DataError, match="finding 'Mass'"): three(findings={"Mass": np.array(values)})


@pytest.mark.parametrize("names", [["Mass"], ["Mass", "Hernia", "Edema"], 5, None])
def test_a_file_whose_names_do_not_fit_is_refused(tmp_path, names):
    path = three(findings=KNOWN).save(tmp_path / "a.npz")
    with zipfile.ZipFile(path) as archive: parts = {name: archive.read(name) for name in archive.namelist()}
    with np.load(path) as held: about = json.loads(str(held["about"])) | {"findings": names}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            with archive.open(name, "w") as member: member.write(data) if name != "about.npy" else np.lib.format.write_array(member, np.array(json.dumps(about)))
    with pytest.raises(DataError, match="a.npz"): Dataset.load(path)


# --- the fit

def test_what_is_not_known_has_no_say_in_a_fit():
    "Pictures of which nothing is known change no weight; neither does what stands in for an unknown answer; a known one does."
    from medcrypt.learning.training import Recipe, Trainer
    draw = np.random.default_rng(0); n = 32
    x, mask = draw.random((n, 16, 16), dtype=np.float32), np.ones((n, 16, 16), np.float32)
    y = draw.integers(0, 2, (n, 2)).astype("float32"); y[::4] = np.nan; y[1::4, 1] = np.nan
    trainer = Trainer((16, 16), Recipe(epochs=2, batch=8, width=4, precision="float32"), 8, outputs=2)
    def fit(x, y): trainer.fit(x, mask, y, seed=3, hide=True); return np.concatenate([w.ravel() for w in trainer.exact.get_weights()])
    first = fit(x, y)
    other = x.copy(); other[::4] = draw.random((n // 4, 16, 16))
    assert np.isfinite(first).all() and np.array_equal(fit(other, y), first)
    other = x.copy(); other[1::4] = draw.random((n // 4, 16, 16))  # one of its answers is known
    assert not np.allclose(fit(other, y), first, atol=1e-6)
    guessed = y.copy(); guessed[1::4, 1] = 0
    assert not np.allclose(fit(x, guessed), first, atol=1e-6)


def test_the_loss_is_the_mean_over_known_answers():
    from keras import ops
    from medcrypt.learning.training import masked_crossentropy
    y, p = np.array([[1, np.nan, 0], [np.nan, np.nan, np.nan], [0, 1, np.nan]], "float32"), np.random.default_rng(0).uniform(.05, .95, (3, 3)).astype("float32")
    want = -np.mean(np.log([p[0, 0], 1 - p[0, 2], 1 - p[2, 0], p[2, 1]]))
    assert abs(float(masked_crossentropy(ops.convert_to_tensor(y), ops.convert_to_tensor(p))) - want) < 1e-6
    assert float(masked_crossentropy(ops.convert_to_tensor(y[1:2]), ops.convert_to_tensor(p[1:2]))) == 0


# --- the table

N, NAMES = 240, ("Effusion", "Nodule", "Hernia", "Edema")


def world(folds=1, seeds=1, unknown=True, dataset="d"):
    "Predictions of four findings: one common, one half known, one that nobody has, one rare; two pictures a patient."
    draw, frames, image = np.random.default_rng(7), [], np.arange(N)
    labels = {"Effusion": image // 2 % 3 == 0, "Nodule": image // 2 % 4 == 0, "Hernia": image < 0, "Edema": image // 2 % 40 == 0}
    for seed in range(seeds):
        for name in NAMES:
            y = labels[name].astype(float); p = 1 / (1 + np.exp(-draw.normal(1.2 * y, 1)))
            if unknown and name == "Nodule": y[image // 2 % 2 == 1] = np.nan
            frames.append(pd.DataFrame({"dataset": dataset, "model": "masked-cnn, 4 findings", "view": "plain", "seed": seed, "fold": image // 2 // 7 % folds, "image": image, "patient": [f"P{i // 2}" for i in image], "finding": name, "label": y, "probability": p, "threshold": .5}))
    return pd.concat(frames, ignore_index=True)


def of(predictions, **options): return table.findings_table(predictions, seed=1, resamples=options.pop("resamples", 300), **options)


def test_each_auc_is_scikit_learns_and_the_mean_is_theirs():
    predictions = world(); found = of(predictions).set_index("finding")
    assert list(found.index) == [*NAMES, "mean"]
    for name in ("Effusion", "Nodule", "Edema"):
        part = predictions[(predictions.finding == name) & predictions.label.notna()]
        assert abs(found.auc[name] - roc_auc_score(part.label, part.probability)) < 1e-12 and found.n[name] == len(part) and found.positives[name] == part.label.sum() and abs(found.prevalence[name] - part.label.mean()) < 1e-12
        assert found.auc_low[name] < found.auc[name] < found.auc_high[name] and found.patients[name] == part.patient.nunique()
    assert abs(found.auc["mean"] - found.auc[["Effusion", "Nodule", "Edema"]].mean()) < 1e-12
    assert found.n["Nodule"] == found.masked["Nodule"] == N / 2 == found.masked["mean"] and found.masked["Edema"] == 0 and found.n["mean"] == found.n[list(NAMES)].sum() and found.patients["mean"] == N / 2


def test_one_class_is_not_defined_and_counted(tmp_path):
    from medcrypt.evaluation.plots import save_table
    found = of(world()).set_index("finding")
    assert found.loc["Hernia", ["auc", "auc_low", "auc_high"]].isna().all() and found.n["Hernia"] == N and found.positives["Hernia"] == 0
    assert found.used.to_dict() == {"Effusion": 1, "Nodule": 1, "Hernia": 0, "Edema": 1, "mean": 3} and found.skipped["mean"] == 1
    save_table(of(world()), "table1_findings", RunPaths(tmp_path), "Findings.")
    row, = (line for line in (tmp_path / "figures" / "table1_findings.md").read_text().splitlines() if "Hernia" in line)
    assert row.count("not defined") == 1 and "nan" not in row


def test_folds_and_repetitions_are_averaged_as_everywhere_else():
    "Where everything is known, each interval is bootstrap's, to rounding; a fold without a positive does not count."
    predictions = world(folds=3, seeds=2, unknown=False); found = of(predictions).set_index("finding")
    for name in ("Effusion", "Nodule", "Edema"):
        part = predictions[predictions.finding == name]
        want = bootstrap(part.label, part.probability, part.patient, runs=part.fold, seeds=part.seed, seed=1, resamples=300)
        assert np.allclose(found.loc[name, ["auc", "auc_low", "auc_high"]].astype(float), [want.estimate, want.low, want.high], atol=1e-12)
    assert want.runs < 6 and found.n["Edema"] == N # counted once, though predicted twice


def test_the_means_interval_comes_from_the_same_patients_for_all():
    "Two findings that are copies of each other: their mean is as uncertain as each; two that cancel have a mean that is certain."
    one = world(); one = one[one.finding == "Effusion"]
    copies = of(pd.concat([one, one.assign(finding="Copy")], ignore_index=True)).set_index("finding")
    assert np.allclose(copies.loc["mean", ["auc", "auc_low", "auc_high"]].astype(float), copies.loc["Effusion", ["auc", "auc_low", "auc_high"]].astype(float), atol=1e-12)
    opposite = of(pd.concat([one, one.assign(finding="Opposite", probability=1 - one.probability)], ignore_index=True)).set_index("finding")
    assert np.allclose(opposite.loc["mean", ["auc", "auc_low", "auc_high"]].astype(float), .5, atol=1e-12) and opposite.auc_high["Effusion"] - opposite.auc_low["Effusion"] > .05


def test_a_finding_of_one_patient_has_no_sharp_interval():
    "It is missing in a third of the resamples; the mean's interval then goes on with the others."
    predictions = world(unknown=False)
    predictions.loc[(predictions.finding == "Edema"), "label"] = (predictions.image // 2 == 5).astype(float)
    found = of(predictions).set_index("finding")
    assert found.auc_low.notna()["Edema"] and found.used["mean"] == 3 and found.auc_low["mean"] < found.auc["mean"] < found.auc_high["mean"]
    nobody = predictions.assign(label=np.where(predictions.finding == "Effusion", 1., predictions.label)); nobody = nobody[nobody.finding.isin(["Effusion", "Hernia"])]
    assert of(nobody)[["auc", "auc_low", "auc_high"]].isna().all(axis=None) and of(nobody).used.iloc[-1] == 0


def test_data_sets_views_and_those_without():
    predictions = pd.concat([world(dataset="b"), world(dataset="b").assign(view="blocks-0.5"), world(dataset="a")], ignore_index=True)
    found = of(predictions, resamples=20, datasets=("b", "a", "bare"))
    assert list(dict.fromkeys(zip(found.dataset, found["view"]))) == [("b", "plain"), ("b", "blocks-0.5"), ("a", "plain"), ("bare", "none")] and len(found) == 16
    assert (found.n.iloc[-1], found.used.iloc[-1], found.finding.iloc[-1]) == (0, 0, "none") and pd.isna(found.auc.iloc[-1])
    only = of(predictions[:0], datasets=("bare",))
    assert list(only.columns) == list(found.columns) and len(only) == 1 and of(predictions[:0]).empty
    with pytest.raises(MetricError, match="labels: 2"): of(predictions.assign(label=2.))


def test_files_of_predictions(tmp_path):
    rows = world().assign(patient=lambda f: f.patient.replace("P0", "NA"), finding=lambda f: f.finding.replace("Hernia", "None"))
    rows.loc[3, "threshold"] = np.nan
    rows.to_csv(tmp_path / "a.csv", index=False); rows[:0].to_csv(tmp_path / "empty.csv", index=False); rows.drop(columns="finding").to_csv(tmp_path / "old.csv", index=False)
    read = table.read_predictions([tmp_path / "empty.csv", tmp_path / "a.csv"])
    assert len(read) == len(rows) and read.label.isna().sum() == N / 2 and "NA" in set(read.patient) and "None" in set(read.finding)
    pd.testing.assert_frame_equal(of(read, resamples=20), of(rows, resamples=20))
    none = table.read_predictions([tmp_path / "empty.csv"])
    assert list(none.columns) == list(table.COLUMNS) and none.empty
    with pytest.raises(PerformanceError, match="old.csv: no column finding"): table.read_predictions([tmp_path / "old.csv"])


# --- a study

VIEWS = ("plain", "blocks-0.5")
PROFILE = replace(PROFILES["smoke"], views=VIEWS, folds=2, seeds=2, epochs=2)


def study_of(out, known):
    "A run of forty-eight small pictures, half of them with a bright square; sealed, so that the views have something to look at."
    from medcrypt.crypto.keys import Key
    from medcrypt.learning.study import Study
    from medcrypt.vault import archive, contract
    draw, run = np.random.default_rng(0), RunPaths(out); y = np.arange(48) // 2 % 2
    images = draw.integers(0, 128, (48, 16, 16)).astype(np.uint8); images[y == 1, 4:12, 4:12] += 100
    facts = {"label": "sick", "modality": "CXR", "title": "squares", "synthetic": True, "block": 4, "preprocessing": {"size": [16, 16]}}
    Dataset("d", images, y, [f"P{i // 2}" for i in range(48)], np.arange(48).astype(str), facts, findings=known(y)).save(run.dataset("d"))
    index = archive.fill(archive.open_archive(run, "d"), images, contract.dataset_key(Key(bytes(32)), "d"), views=VIEWS, block=4, bits=8, random=seeded_bytes(0, "vault"))
    write_bytes(run.index("d"), pd.DataFrame(index).to_csv(index=False).encode())
    return Study(run, "d", PROFILE, 0)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    def known(y):
        square = y.astype(float); square[:6] = np.nan
        return {"Square": square, "Dark": 1 - square, "Hernia": np.zeros(48)}
    found = study_of(tmp_path_factory.mktemp("study"), known)
    return found, found.fit_findings(choose_threshold=best_threshold)


def test_a_study_answers_every_finding_of_every_test_picture(study):
    study, rows = study
    job = study.findings_job()
    assert job.model == "masked-cnn, 3 findings" and job.evaluated_on == VIEWS and job.random_masks and job.trained_on == "plain" and job not in study.jobs
    assert len(rows) == 48 * 3 * 2 and set(rows.seed) == {0} and (rows.groupby(["view", "finding"]).image.nunique() == 48).all() and rows.probability.between(0, 1).all()
    want = study.data.finding_table[rows.image, [list(study.data.findings).index(name) for name in rows.finding]]
    assert np.array_equal(rows.label, want, equal_nan=True) and rows.label.isna().sum() == 6 * 2 * 2
    for (seed, fold), split in study.splits.items(): # the label's own splits
        if seed == 0: assert set(rows[rows.fold == fold].image) == set(split.test)
    hernia = rows[rows.finding == "Hernia"]
    assert hernia.threshold.isna().all() and rows[rows.finding == "Square"].threshold.between(0, 1).any()
    assert study.fit_findings(choose_threshold=best_threshold).equals(rows) # from the finished fits
    spread = replace(study, profile=replace(PROFILE, spread=True))
    assert study.findings_repetitions == (0,) and spread.findings_repetitions is None
    made = of(rows.assign(dataset="d", patient=study.data.patients[rows.image]), resamples=50).set_index(["view", "finding"])
    assert made.used["plain", "mean"] == 2 and made.n["plain", "Square"] == 42 and pd.isna(made.auc["plain", "Hernia"])


def test_cards_promise_what_was_learned(study):
    from medcrypt.learning import rungs
    cards = {job.model: study[0].card(job).views for job in rungs.jobs(("plain", "blocks-0.5", "resolution-4", "le", "le-each", "cbc"))}
    assert cards == {"masked-cnn": rungs.PIXELS, "plain-cnn": ("plain",), **{f"masked-cnn on {v}": (v,) for v in ("resolution-4", "le", "le-each", "cbc")}}


def test_its_model_has_a_card_and_predicts_every_finding(study, capsys, tmp_path):
    from medcrypt.learning.model_card import read_card
    study, rows = study
    path = study.run.model("d", "masked-cnn-3-findings"); card = read_card(path)
    assert card.labels == ("Square", "Dark", "Hernia") and card.views == ("plain", "blocks-p", "roi") and card.thresholds[2] is None and all(0 <= t <= 1 for t in card.thresholds[:2])
    assert main(["predict", str(path), str(study.run.readable("d")), "--json", "--csv", str(tmp_path / "p.csv")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["model"]["thresholds"] == dict(zip(card.labels, card.thresholds)) and len(said["files"]) == 96 # two objects of each picture
    named = {Path(f["file"]).name: f for f in said["files"]}; plain = study.index[study.index["view"] == "plain"].set_index("image")["name"]
    first = rows[(rows["view"] == "plain") & (rows.seed == 0) & (rows.fold == list(study.splits)[0][1])]
    answers = {image: named[f"{name}.mce" if f"{name}.mce" in named else name] for image, name in plain.items()}
    assert len(first) == 3 * 24 and all(abs(answers[r.image]["probabilities"][r.finding] - r.probability) < 1e-5 for r in first.itertuples()) # the first split's model gives its test pictures what stands in the table
    assert all(f["decision"]["Hernia"] is None and f["decision"]["Square"] == (f["probabilities"]["Square"] >= card.thresholds[0]) for f in named.values())
    written = pd.read_csv(tmp_path / "p.csv")
    assert list(written.columns) == ["file", "view", "visible", *card.labels, *(f"{name} decision" for name in card.labels)] and written["Hernia decision"].isna().all() and set(written["Dark decision"]) <= {0, 1}
    assert main(["predict", str(path), str(study.run.readable("d"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "view", "visible", "Square", "Dark", "Hernia", "decision"] and not any(line.endswith("Hernia") for line in lines)


def test_a_card_without_any_threshold_says_so():
    from medcrypt.learning.model_card import ModelCard, ModelError
    def card(thresholds): return ModelCard("m", ("plain",), (16, 16), ("a", "b"), thresholds=thresholds, preprocessing={}, modality="CXR", trained_on="x", synthetic=True)
    assert card((None, None)).thresholds is None and card([None, 1]).thresholds == (None, 1.0)
    for wrong in ((None,), (None, 2), (None, NAN), (None, "x"), (None, True), ()):
        with pytest.raises(ModelError, match="thresholds"): card(wrong)


def test_a_study_without_findings_has_no_rows_but_the_columns(tmp_path):
    study = study_of(tmp_path, lambda y: {})
    rows = study.fit_findings(choose_threshold=best_threshold)
    made = rows.assign(dataset="d", patient=lambda f: study.data.patients[f.image])
    assert study.findings_job() is None and rows.empty and set(table.COLUMNS) == set(made.columns) and not study.run.fits("d").exists()
    write_bytes(study.run.findings("d"), made.to_csv(index=False).encode())
    found = of(table.read_predictions([study.run.findings("d")]), datasets=("d",))
    assert found.to_dict("records")[0]["finding"] == "none" and study.run.findings("d").name == "d.findings.csv"
    assert made.groupby(["view", "finding"], sort=False)["label"].agg(["count", "sum"]).empty # as the notebook shows it
