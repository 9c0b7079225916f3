"Scores against scikit-learn and pair counting, the case files, and the check of published scores."
import csv, json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as reference

from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score

from medcrypt.evaluation.calibration import calibration
from medcrypt.evaluation.curves import plot_calibration
from medcrypt.evaluation.metrics import MACRO, MetricError, auc, best_threshold, feasible_prevalence, macro, multilabel, plausible, roc, scores
from medcrypt.evaluation.performance import PerformanceError, beside_paper, calibration_curves, drop_table, ensemble_table, hidden_at_drop, performance_table, roc_curves
from medcrypt.evaluation.plausibility import PREVALENCES, greatest_lead, published_table
from medcrypt.evaluation.plots import PlotError, is_blank
from medcrypt.evaluation.titles import unique_titles

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no folder {CASES.name} beside the checkout")

def expected(case): return json.loads((CASES / case / "expected.json").read_text())

rows = st.integers(2, 120).flatmap(lambda n: st.tuples(
    st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)),
    st.lists(st.one_of(st.integers(0, 8).map(lambda k: k / 8), st.floats(0, 1)), min_size=n, max_size=n), st.floats(0, 1)))

@settings(max_examples=120, deadline=None)
@given(rows)
def test_agrees_with_scikit_learn(row):
    y, s, threshold = np.array(row[0]), np.array(row[1]), row[2]
    found, predicted = scores(y, s, threshold=threshold), np.array(row[1]) >= threshold
    assert auc(y, s) == found.auc == pytest.approx(reference.roc_auc_score(y, s), abs=1e-12)
    assert found.accuracy == pytest.approx(reference.accuracy_score(y, predicted), abs=1e-12)
    assert found.f1 == pytest.approx(reference.f1_score(y, predicted, zero_division=0), abs=1e-12)
    assert found.recall == pytest.approx(reference.recall_score(y, predicted), abs=1e-12)
    assert found.specificity == pytest.approx(reference.recall_score(1 - y, ~predicted), abs=1e-12)
    assert found.brier == pytest.approx(reference.brier_score_loss(y, s), abs=1e-12)
    if predicted.any(): assert found.precision == pytest.approx(reference.precision_score(y, predicted), abs=1e-12)
    else: assert found.precision is None
    assert found.tp + found.fp + found.fn + found.tn == found.n == len(y)

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10 ** 6), st.integers(12, 60), st.integers(2, 5))
def test_several_labels_agree_with_scikit_learn(seed, n, labels):
    draw = np.random.default_rng(seed)
    y, p = draw.integers(0, 2, (n, labels)), draw.integers(0, 9, (n, labels)) / 8
    y[0], y[1], p[2] = 0, 1, 1 # both classes, and a positive decision, for every label
    found, predicted = multilabel(y, p, thresholds=.5), p >= .5
    want = {"auc": reference.roc_auc_score(y, p, average="macro"), "f1": reference.f1_score(y, predicted, average="macro", zero_division=0), "precision": reference.precision_score(y, predicted, average="macro"), "recall": reference.recall_score(y, predicted, average="macro"),
            "specificity": reference.recall_score(1 - y, ~predicted, average="macro"), "accuracy": (y == predicted).mean(), "brier": np.mean((p - y) ** 2), "prevalence": y.mean()}
    assert set(want) == set(MACRO) and {s: m.mean for s, m in found.macro.items()} == pytest.approx(want, abs=1e-12) and all((m.used, m.skipped) == (labels, 0) for m in found.macro.values())

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10 ** 6), st.integers(8, 80), st.integers(1, 4))
def test_several_labels_mask_and_count(seed, n, labels):
    "Each label is scored as if the rows that do not know it were not there."
    draw = np.random.default_rng(seed)
    y, p = draw.choice([0, 1, -1, np.nan], (n, labels), p=[.5, .2, .1, .2]), draw.random((n, labels))
    gone = np.isnan(y) | (y == -1)
    found, names = multilabel(y, np.where(gone, np.nan, p), thresholds=np.full(labels, .4), names=[f"label {k}" for k in range(labels)]), [f"label {k}" for k in range(labels)]
    for place, name in enumerate(names):
        alone = scores(y[~gone[:, place], place], p[~gone[:, place], place], threshold=.4)
        assert found.labels[name].masked == gone[:, place].sum() and {k: v for k, v in vars(found.labels[name]).items() if k != "masked"} == {k: v for k, v in vars(alone).items() if k != "masked"}
    defined = [one.auc for one in found.labels.values() if one.auc is not None]
    assert (found.n, found.masked) == ((~gone).sum(), gone.sum()) and found.macro["auc"] == ((pytest.approx(np.mean(defined)) if defined else None), len(defined), labels - len(defined))
    table = found.table()
    assert table.label.tolist() == [*names, "macro"] and table.masked.iloc[-1] == gone.sum() and table.used.iloc[-1] == len(defined) == table.used.iloc[:-1].sum()

def test_several_labels_refuse_what_does_not_fit():
    y, p = np.array([[0, 1], [1, 0]]), np.array([[.1, .2], [.3, .4]])
    for wrong, words in ((lambda: multilabel(y, p[:1], thresholds=.5), "shape"), (lambda: multilabel(y[0], p[0], thresholds=.5), "rows, labels"), (lambda: multilabel(y, p, thresholds=[.5]), "thresholds: 1"), (lambda: multilabel(y, p, thresholds=.5, names=("a", "a")), "names"),
                         (lambda: multilabel(y + 1, p, thresholds=.5, names=("Mass", "Edema")), "Edema: labels|Mass: labels"), (lambda: multilabel(y, p + 1, thresholds=.5, names=("Mass", "Edema")), "Mass: scores")):
        with pytest.raises(MetricError, match=words): wrong()
    one = multilabel(np.ones((5, 2)), np.full((5, 2), .3), thresholds=.5)
    assert one.macro["auc"] == (None, 0, 2) and one.macro["accuracy"].mean == 0

# calibration

@settings(max_examples=100, deadline=None)
@given(rows, st.integers(1, 12))
def test_calibration_curve_agrees_with_scikit_learn(row, bins):
    y, p = np.array(row[0]), np.array(row[1])
    found = calibration(y, p, np.arange(len(y)), bins=bins, seed=0, resamples=2)
    observed, mean = calibration_curve(y, p, n_bins=bins, strategy="quantile")
    np.testing.assert_allclose(found.curve.observed, observed, atol=1e-12); np.testing.assert_allclose(found.curve.probability, mean, atol=1e-12)
    assert found.curve.n.sum() == found.n == len(y) and found.error.estimate == pytest.approx(np.sum(found.curve.n * np.abs(observed - mean)) / len(y), abs=1e-12)

def test_calibration_of_odd_input():
    empty = calibration([-1, np.nan], [.1, .2], [0, 1], seed=0)
    assert empty.curve.empty and empty.error.estimate is None and empty.p_value is None and (empty.n, empty.masked) == (0, 2)
    same = calibration([0, 1, 1, 0], [.5] * 4, [0, 1, 2, 3], seed=0, resamples=20)
    assert len(same.curve) == 1 and same.error.estimate == 0 and same.p_value == 1
    assert calibration([1, 1], [.9, .8], [0, 1], seed=0, resamples=20).curve.observed.tolist() == [1, 1] # one class: the shares are all 1, the gaps are real
    for wrong in (lambda: calibration([0, 1], [.5, 1.5], [0, 1], seed=0), lambda: calibration([0, 1], [.5, .5], [0, 1], bins=0, seed=0), lambda: calibration([0, 1], [np.nan, .5], [0, 1], seed=0)):
        with pytest.raises(MetricError): wrong()

def test_calibration_counts_patients_and_runs():
    draw = np.random.default_rng(0); who = np.repeat(np.arange(150), 4)
    p = np.repeat(draw.random(150), 4); y = np.repeat(draw.random(150), 4) < p
    wide, narrow = (calibration(y, p, patients, seed=0, resamples=200).curve for patients in (who, np.arange(600)))
    assert (wide.observed_high - wide.observed_low).mean() > 1.5 * (narrow.observed_high - narrow.observed_low).mean()
    twice = calibration(np.tile(y, 2), np.tile(p, 2), np.tile(who, 2), seeds=np.repeat([0, 1], 600), runs=np.tile(who % 3, 2), seed=0, resamples=50)
    assert twice.curve.observed.tolist() == calibration(y, p, who, seed=0, resamples=50).curve.observed.tolist() and twice.error.runs == 6

def test_calibration_error_by_simulation():
    "The interval holds the true error at least 95 times in 100, and of calibrated models one in twenty is doubted."
    def study(seed, gain, patients=150):
        draw = np.random.default_rng(seed)
        truth = np.repeat(draw.beta(1.5, 2, patients), 2)
        return np.repeat(draw.random(patients), 2) < truth, truth ** gain / (truth ** gain + (1 - truth) ** gain), np.repeat(np.arange(patients), 2), truth
    for gain in (1, 1.5):
        _, p, _, truth = study(0, gain, 100_000)
        place = np.searchsorted(np.quantile(p, np.arange(.1, 1, .1)), p)
        true = sum(abs((truth - p)[place == k].sum()) for k in range(10)) / len(p)
        found = [calibration(*study(seed, gain)[:3], seed=seed, resamples=100) for seed in range(1, 201)]
        assert np.mean([f.error.low - 1e-12 <= true <= f.error.high for f in found]) >= .93
        doubted = np.mean([f.p_value < .05 for f in found])
        assert doubted <= .1 if gain == 1 else doubted > .2

# several fits of the same pictures, and their calibration, as tables

def repeated(fits=3, patients=120, seed=0, noise=1.):
    draw = np.random.default_rng(seed); n = 2 * patients; who = np.arange(n) // 2
    y = (draw.random(patients) < .4)[who].astype(int); signal = y + draw.normal(size=n)
    frames = [pd.DataFrame({"dataset": "d", "model": model, "view": "plain", "seed": s, "fold": (who + s) % 2, "image": np.arange(n), "patient": who.astype(str), "label": y, "probability": 1 / (1 + np.exp(-signal - noise * draw.normal(size=n))), "threshold": .5})
              for s in range(fits) for model in ("masked-cnn", "plain-cnn")]
    return pd.concat(frames, ignore_index=True)

def test_ensemble_is_the_mean_over_repetitions_within_the_same_runs():
    predictions = repeated()
    row = ensemble_table(predictions, seed=0, resamples=100).set_index("model").loc["masked-cnn, mean of 3 fits"]
    own = predictions[predictions.model == "masked-cnn"]
    mean = own.groupby("image").probability.mean()
    runs = [part for _, part in own.groupby(["seed", "fold"])]
    together, single = np.mean([auc(p.label, mean[p.image]) for p in runs]), np.mean([auc(p.label, p.probability) for p in runs])
    assert (row.auc, row.auc_single, row.auc_gain) == pytest.approx((together, single, together - single)) and row.auc_gain_low > 0 and (row.fits, row.images, row.patients) == (3, 240, 120)
    shuffled = ensemble_table(predictions.sample(frac=1, random_state=1), seed=0, resamples=100).set_index("model").loc[row.name]
    assert shuffled.drop("dataset").drop("view").astype(float).to_numpy() == pytest.approx(row.drop("dataset").drop("view").astype(float).to_numpy())

def test_ensemble_of_one_fit_is_that_fit():
    table = ensemble_table(repeated(1), models=("plain-cnn",), seed=0, resamples=50)
    assert table.model.tolist() == ["plain-cnn, mean of 1 fit"] and (table.auc_gain == 0).all() and table.auc[0] == table.auc_single[0] and table.auc_low[0] == table.auc_single_low[0]

def test_ensemble_needs_every_picture_in_every_repetition():
    predictions = repeated()
    for wrong in (predictions[1:], pd.concat([predictions, predictions[:1]])):
        with pytest.raises(PerformanceError, match="not one probability of each of its 3 repetitions"): ensemble_table(wrong, seed=0, resamples=10)
    with pytest.raises(PerformanceError, match="none of x"): ensemble_table(predictions, models=("x",), seed=0, resamples=10)

def unequal(): # three repetitions of the Masked-CNN, one of what stands beside it
    all_of = repeated(); return all_of[(all_of.model == "masked-cnn") | (all_of.seed == 0)]

def test_drops_are_those_of_common_repetitions():
    few = unequal(); first = few[few.seed == 0]
    for reference, other, sign in (("masked-cnn", "plain-cnn", 1), ("plain-cnn", "masked-cnn", -1)): # the reference has more of them, or fewer
        found, alone = (drop_table(part, reference=(reference, "plain"), seed=0, resamples=50).iloc[0] for part in (few, first))
        assert (found.model, found.repetitions, found.n, found.patients) == (other, 1, 240, 120) and found.equals(alone)
        each = {m: np.mean([auc(run.label, run.probability) for _, run in first[first.model == m].groupby("fold")]) for m in ("masked-cnn", "plain-cnn")}
        assert found.auc_drop == pytest.approx(sign * (each["masked-cnn"] - each["plain-cnn"]))
        f1 = {m: f1_score(p.label, p.probability >= p.threshold) for m, p in first.groupby("model")}
        assert found.f1_drop == pytest.approx(sign * (f1["masked-cnn"] - f1["plain-cnn"])) and found.f1_drop_low < found.f1_drop < found.f1_drop_high
    assert drop_table(repeated(), seed=0, resamples=20).repetitions.tolist() == [3]
    for wrong in (few[~((few.model == "plain-cnn") & (few.image == 7))], few[(few.model == "plain-cnn") | (few.seed > 0)]): # a picture less; none in common
        with pytest.raises(PerformanceError, match="not tested on the same images"): drop_table(wrong, seed=0, resamples=10)

def test_models_of_fewer_repetitions_in_every_table():
    few = unequal(); half = few[few.model == "masked-cnn"]; half = half.assign(view="blocks-0.5", probability=.5 + .3 * (half.probability - .5) + .2 * np.random.default_rng(1).normal(size=len(half)))
    all_of = pd.concat([few, half.assign(probability=half.probability.clip(0, 1))], ignore_index=True)
    table = performance_table(all_of, seed=0, resamples=40).set_index(["model", "view"])
    assert table.seeds.to_dict() == {("masked-cnn", "plain"): 3, ("plain-cnn", "plain"): 1, ("masked-cnn", "blocks-0.5"): 3}
    assert ensemble_table(all_of, seed=0, resamples=40).fits.tolist() == [3, 1, 3]
    assert calibration_curves(all_of, (("masked-cnn", "plain"), ("plain-cnn", "plain")), bins=4, seed=0, resamples=40).groupby("series").n.sum().to_dict() == {"masked-cnn on plain": 720, "plain-cnn on plain": 240}
    assert roc_curves(all_of, seed=0, resamples=20).groupby(["model", "view"]).ngroups == 3
    assert 0 < hidden_at_drop(all_of, {"d": .05}, seed=0, resamples=40).hidden[0] < .5

def test_tests_on_ciphertext_are_counted_together():
    plain = repeated(1); draw = np.random.default_rng(5)
    guesses = [plain[plain.model == "masked-cnn"].assign(view=view, dataset=name, probability=lambda f: draw.random(len(f))) for name in ("d", "e") for view in ("cbc", "codestream")]
    table = performance_table(pd.concat([plain, plain.assign(dataset="e"), *guesses], ignore_index=True), seed=0, resamples=100)
    cipher = table[table["view"].isin(["cbc", "codestream"])]
    assert cipher.p_holm.notna().all() and table.drop(cipher.index).p_holm.isna().all() and (cipher.p_holm >= cipher.p_value).all()
    p = np.sort(cipher.p_value) # by definition: the k-th smallest times what is left, and never below a smaller one's
    assert np.sort(cipher.p_holm) == pytest.approx([min(1, max(p[i] * (4 - i) for i in range(k + 1))) for k in range(4)])

def test_the_papers_values_stand_beside_its_collections_only():
    table = pd.DataFrame({"dataset": ["mine", "nih"], "model": "masked-cnn", "view": "plain"})
    found = beside_paper(table, {"nih": {"auc": (.9, .8), "f1": (.7, .6), "accuracy": (.5, .4)}})
    assert np.isnan(found.paper_auc[0]) and found.paper_auc[1] == .9 and beside_paper(table, {}).paper_f1.isna().all()

@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.tuples(st.sampled_from(["T", "T (x)", "T (a)", "U"]), st.sampled_from(["x", "y", "a"])), max_size=6))
def test_titles_tell_data_sets_apart(about):
    found = unique_titles({name: {"title": title, "label": label} for name, (title, label) in about.items()})
    assert list(found) == list(about) and len(set(found.values())) == len(about) and all(title.startswith(about[name][0]) for name, title in found.items())

def test_calibration_of_chosen_models():
    predictions = repeated()
    table = calibration_curves(predictions, (("plain-cnn", "plain"), ("masked-cnn", "plain")), bins=4, seed=0, resamples=50)
    assert table.series.unique().tolist() == ["plain-cnn on plain", "masked-cnn on plain"] and (table.groupby("series").n.sum() == 720).all() and (table.images == 240).all() and (table.patients == 120).all()
    figure = plot_calibration(table); assert not is_blank(figure) and len(figure.axes) == 1
    with pytest.raises(PerformanceError, match="no predictions of masked-cnn on cbc"): calibration_curves(predictions, (("masked-cnn", "cbc"),), seed=0, resamples=10)
    with pytest.raises(PlotError): plot_calibration(table.drop(columns="observed"))

@settings(max_examples=40, deadline=None)
@given(rows)
def test_best_threshold_is_best(row):
    y, s = np.array(row[0]), np.array(row[1])
    for criterion, value in (("youden", lambda f: f.recall + f.specificity), ("f1", lambda f: f.f1)):
        best = value(scores(y, s, threshold=best_threshold(y, s, criterion=criterion)))
        assert best >= max(value(scores(y, s, threshold=t)) for t in [*np.unique(s), 2.]) - 1e-12

def test_threshold_between_adjacent_floats():
    low = .3; high = np.nextafter(low, 1)
    assert scores([0, 1], [low, high], threshold=best_threshold([0, 1], [low, high])).accuracy == 1

@needs_cases
def test_case_78_ties():
    want, data = expected("78-auc-ties"), json.loads((CASES / "78-auc-ties" / "labels.json").read_text())
    found = scores(data["y_true"], data["y_score"], threshold=.5)
    assert found.auc == want["auc"] and found.f1 == pytest.approx(want["f1_at_0_5"], abs=1e-12)

@needs_cases
def test_case_79_one_class():
    for data in json.loads((CASES / "79-auc-one-class" / "labels.json").read_text()):
        found = scores(data["y_true"], data["y_score"], threshold=.5)
        assert [found.auc, found.f1, found.precision, found.recall, found.specificity] == [None] * 5 and found.majority == 1
    assert macro([None, .5]) == (.5, 1, 1) and macro([None]) == (None, 0, 1)

@needs_cases
def test_case_80_nan_and_uncertain():
    folder, want = CASES / "80-nan-and-uncertain-labels", expected("80-nan-and-uncertain-labels")
    labels, given_scores = (list(csv.DictReader((folder / name).open())) for name in ("labels.csv", "scores.csv"))
    for name, value in want["auc"].items():
        y = [float(row[name] or "nan") for row in labels]
        s = [float(row[name] or "nan") for row in given_scores]
        found = scores(y, s, threshold=.5)
        assert found.n == want["n_used"][name] and found.n + found.masked == len(y)
        assert found.auc is None if value is None else found.auc == pytest.approx(value, abs=1e-9)

def test_empty_and_wrong_input():
    assert scores([], [], threshold=.5).accuracy is None
    for call in (lambda: auc([0, 1], [.1]), lambda: auc([0, 3], [.1, .2]), lambda: auc([0, 1], [.1, float("nan")]), lambda: scores([0, 1], [0, 1.1], threshold=.5),
                 lambda: scores([0, 1], [0, 1], threshold=float("nan")), lambda: best_threshold([1, 1], [.1, .2]), lambda: best_threshold([0, 1], [.1, .2], criterion="best")):
        with pytest.raises(MetricError): call()

def test_scores_keep_every_unmasked_row():
    assert auc([0, 1, -1, np.nan], [.1, .9, np.nan, np.nan]) == 1

def test_roc_area_is_the_auc():
    generator = np.random.default_rng(5)
    y = generator.random(400) < .4; s = generator.normal(size=400) + y
    curve = roc(y, s, np.arange(400), seed=1, resamples=50, points=2001)
    assert np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"]) == pytest.approx(auc(y, s), abs=2e-3)
    assert curve["true_positive_rate"].iloc[-1] == 1 and roc([1, 1], [.1, .2], [0, 1], seed=1).empty

# published scores: the arithmetic of the paper's Table 1

@pytest.mark.parametrize("accuracy, f1, low, high", [(.889, .873, .38, .49), (.904, .880, .35, .45)])
def test_prevalence_that_the_paper_needs(accuracy, f1, low, high):
    tp = f1 * (1 - accuracy) / (2 * (1 - f1))
    assert (tp, tp + 1 - accuracy) == (pytest.approx(low, abs=.01), pytest.approx(high, abs=.01))
    found = feasible_prevalence(accuracy=accuracy, f1=f1)
    assert found[0] <= tp and tp + 1 - accuracy <= found[1] and found == (pytest.approx(tp, abs=.005), pytest.approx(tp + 1 - accuracy, abs=.006))
    assert plausible(accuracy=accuracy, f1=f1, prevalence=(low + high) / 2).verdict == "feasible"

def test_fourteen_labels_are_infeasible():
    assert plausible(accuracy=.889, f1=.873, prevalence=.0517).verdict == "infeasible"
    assert plausible(accuracy=.889, f1=.873, prevalence=.4616, auc=.921).verdict == "feasible"
    assert plausible(accuracy=.889, f1=.873, prevalence=.4616, auc=.6).verdict == "infeasible"
    assert plausible(accuracy=.948, f1=.1, prevalence=.0517).verdict == "no better than the majority class"

@pytest.mark.parametrize("prevalence", [.0517, .02, .2, .4616, .5, .7, .9483])
@pytest.mark.parametrize("n", [1000, 112120])
def test_a_classifier_that_has_one_answer_is_no_better_than_the_majority(prevalence, n):
    positives = round(prevalence * n); majority = max(positives, n - positives) / n
    f1 = 2 * positives / (n + positives) if positives > n / 2 else 0 # all positive, or all negative
    found = plausible(accuracy=round(majority, 3), f1=round(f1, 3), prevalence=round(positives / n, 4), n=n, decimals={"accuracy": 3, "f1": 3, "prevalence": 4})
    assert found.verdict == "no better than the majority class" and "larger class" in found.reason

def test_all_negative_on_fourteen_labels():
    assert plausible(accuracy=.948, f1=0, prevalence=.0517).verdict == "no better than the majority class"
    assert plausible(accuracy=.949, f1=0, prevalence=.0517, decimals={"prevalence": 4}).verdict == "infeasible" # no positive is found, so no more than 94.83 % can be right
    assert plausible(accuracy=.96, f1=.5, prevalence=.0517).verdict == "feasible"
    assert plausible(accuracy=.94, f1=.3, prevalence=.0517).verdict == "no better than the majority class"

@pytest.mark.parametrize("name, place", [(name, place) for name in PREVALENCES for place in (0, 1)])
def test_boundaries_of_the_feasible_prevalences(name, place):
    "Just inside is feasible, just outside is not; the rounding of the prevalence itself is given as nothing."
    from medcrypt.evaluation.claims import PAPER
    paper = next(p for p in PAPER.values() if p["name"] == name)
    accuracy, f1 = paper["accuracy"][place], paper["f1"][place]
    span, digits = feasible_prevalence(accuracy=accuracy, f1=f1), {"prevalence": 12}
    assert span == feasible_prevalence(accuracy=accuracy, f1=f1, better=False) # any accuracy this high beats the larger class there
    for edge, inward in ((span.low, 1e-4), (span.high, -1e-4)):
        assert plausible(accuracy=accuracy, f1=f1, prevalence=edge + inward, decimals=digits).verdict == "feasible"
        assert plausible(accuracy=accuracy, f1=f1, prevalence=edge - inward, decimals=digits).verdict == "infeasible"
    e_low, e_high = 1 - accuracy - .0005, 1 - accuracy + .0005 # the closed form at the corners of the rounding
    tp = [(f1 + d) * e / (2 * (1 - f1 - d)) for d, e in ((-.0005, e_low), (.0005, e_high))]
    assert span == pytest.approx((tp[0], tp[1] + e_high), abs=1e-6)

def test_digits_are_known_by_name():
    loose, tight = (plausible(accuracy=.9, f1=.9, prevalence=.45, decimals={"accuracy": 1, "f1": 1, "prevalence": digits}) for digits in (1, 6))
    assert loose.verdict == tight.verdict == "feasible" and loose.cells["tp"].low < tight.cells["tp"].low
    assert feasible_prevalence(accuracy=.9, f1=.9, decimals=1).low < feasible_prevalence(accuracy=.9, f1=.9, decimals=3).low
    for wrong in (dict(decimals=-1), dict(decimals={"f1": 99}), dict(n=0)):
        with pytest.raises(MetricError): plausible(accuracy=.9, f1=.9, prevalence=.45, **wrong)

@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10 ** 6))
def test_the_auc_of_the_same_images_lies_within_its_bounds(seed):
    draw = np.random.default_rng(seed); n = int(draw.integers(10, 80))
    y = draw.random(n) < draw.uniform(.1, .9); y[:2] = 0, 1
    s = np.round(draw.normal(size=n) + draw.normal() * y, int(draw.integers(0, 3))) # with ties
    cut = draw.choice(s); predicted = s >= cut
    told = {"accuracy": (predicted == y).mean(), "f1": reference.f1_score(y, predicted, zero_division=0), "prevalence": y.mean()}
    if not (predicted & y).any(): return # F1 of 0 leaves everything open
    found = plausible(**told, auc=auc(y, s), n=n, decimals=9)
    assert found.verdict != "infeasible" and found.auc.low - 1e-6 <= auc(y, s) <= found.auc.high + 1e-6

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10 ** 6), st.integers(1, 3))
def test_recall_and_specificity_hold_every_matrix(seed, decimals):
    "No confusion matrix of a fine grid that has these scores goes beyond them."
    draw = np.random.default_rng(seed); truth = draw.dirichlet(np.ones(4)); half = .5 * 10. ** -decimals + 1e-9
    def told(c): return np.stack([c[0] + c[3], 2 * c[0] / (2 * c[0] + c[1] + c[2]), c[0] + c[2]])
    rounded = np.round(told(truth), decimals); found = plausible(**dict(zip(("accuracy", "f1", "prevalence"), rounded)), decimals=decimals)
    share, hit, right = np.meshgrid(np.linspace(max(0, rounded[2] - half), min(1, rounded[2] + half), 21), np.linspace(0, 1, 101), np.linspace(0, 1, 101), indexing="ij") # prevalence, recall, specificity
    cells = np.stack([share * hit, (1 - share) * (1 - right), share * (1 - hit), (1 - share) * right])
    with np.errstate(invalid="ignore"): fits = (np.abs(told(cells) - rounded[:, None, None, None]) <= half).all(0)
    for seen, span in ((hit[fits], found.recall), (right[fits], found.specificity)):
        assert not seen.size or span.low - 1e-6 <= seen.min() and seen.max() <= span.high + 1e-6
    assert found.recall.low - 1e-6 <= truth[0] / (truth[0] + truth[2]) <= found.recall.high + 1e-6

def test_a_rounded_prevalence_does_not_widen_what_accuracy_says():
    found = plausible(accuracy=1, f1=1, prevalence=.5, decimals={"prevalence": 1}, auc=1)
    assert found.verdict == "feasible" and min(found.recall.low, found.specificity.low, found.auc.low) > .997
    assert plausible(accuracy=1, f1=1, prevalence=.5, decimals={"prevalence": 1}, auc=.7).verdict == "infeasible"

@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10 ** 6), st.integers(1, 3))
def test_the_greatest_lead_is_at_least_the_true_one(seed, decimals):
    tp, fp, fn, tn = np.random.default_rng(seed).dirichlet(np.ones(4))
    lead = greatest_lead(accuracy=round(tp + tn, decimals), f1=round(2 * tp / (2 * tp + fp + fn), decimals), decimals=decimals)
    assert lead >= min(tp - fp, tn - fn) - 1e-7

def test_a_lead_that_is_rounding_is_none():
    assert greatest_lead(accuracy=.948, f1=0) <= .0005 and greatest_lead(accuracy=.5, f1=.667) <= .0005 and greatest_lead(accuracy=.1, f1=.95) is None
    assert greatest_lead(accuracy=1, f1=1) == pytest.approx(.5, abs=1e-3) and greatest_lead(accuracy=.889, f1=.873) > .35

def test_every_row_of_the_papers_table_is_judged():
    from medcrypt.evaluation.claims import PAPER
    table = published_table(PAPER.values()).set_index(["collection", "input", "label"])
    assert len(table) == 12 and set(table.index.get_level_values(1)) == {"unencrypted", "encrypted"} and table.reason.str.len().min() > 20
    nih = table.loc["NIH ChestX-ray14"]
    assert (nih.xs("mean of 14 findings", level=1).verdict == "infeasible").all() and (nih.xs("any finding", level=1).verdict == "feasible").all()
    assert ((table.verdict == "infeasible") == ((table.prevalence < table.feasible_from - 1e-4) | (table.prevalence > table.feasible_to + 1e-4))).all()
    with pytest.raises(MetricError, match="prevalences: none for X"): published_table([{"name": "X"}])

counts = st.tuples(*[st.integers(0, 60)] * 4).filter(lambda c: c[0] and sum(c) > 10)

@settings(max_examples=150, deadline=None)
@given(counts, st.integers(2, 4))
def test_true_scores_are_never_called_infeasible(cells, decimals):
    tp, fp, fn, tn = cells
    n = sum(cells)
    told = {"accuracy": (tp + tn) / n, "f1": 2 * tp / (2 * tp + fp + fn), "prevalence": (tp + fn) / n, "precision": tp / (tp + fp), "recall": tp / (tp + fn)}
    found = plausible(**{name: round(value, decimals) for name, value in told.items()}, n=n, decimals=decimals)
    assert found.verdict != "infeasible", found
    if tn + fp: assert found.auc[0] - 1e-9 <= .5 * (tp / (tp + fn) + tn / (tn + fp)) <= found.auc[1] + 1e-9
    trivial = told["accuracy"] <= max(told["prevalence"], 1 - told["prevalence"])
    assert found.verdict == "no better than the majority class" or not trivial

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(4, 30))
def test_whole_numbers(correct, positive_hits, n):
    "For small n the verdict must agree with trying every confusion matrix."
    accuracy, f1, prevalence = round(min(correct, n) / n, 3), round(min(positive_hits, n) / n, 3), .5
    half = .0005 + 1e-9
    possible = any(tp + fp + fn and abs((tp + tn) / n - accuracy) <= half and abs(2 * tp / (2 * tp + fp + fn) - f1) <= half and abs((tp + fn) / n - prevalence) <= half
                   for tp in range(n + 1) for fp in range(n + 1 - tp) for fn in range(n + 1 - tp - fp) for tn in [n - tp - fp - fn])
    assert (plausible(accuracy=accuracy, f1=f1, prevalence=prevalence, n=n).verdict != "infeasible") == possible

def test_percentages_are_refused():
    for wrong in (dict(accuracy=88.9, f1=.8, prevalence=.4), dict(accuracy=.9, f1=.8, prevalence=.4, auc=92.), dict(accuracy=.9, f1=-.1, prevalence=.4)):
        with pytest.raises(MetricError): plausible(**wrong)

# the command

@pytest.mark.parametrize("options, code, words", [
    ("--accuracy .889 --f1 .873", 0, "feasible: these scores go together at a prevalence of 37.8 to 49.6 %"), ("--accuracy 88.9% --f1 87.3% --prevalence 5.17%", 1, "infeasible: accuracy 0.889, F1 0.873 needs a prevalence"),
    ("--accuracy .948 --f1 0 --prevalence .0517", 1, "no better than the majority class: always"), ("--accuracy .948 --f1 0", 1, "but never with an accuracy above that of the larger class"), ("--accuracy 1 --f1 1 --prevalence .5 --auc .7", 1, "infeasible: AUC 0.7 does not go with"), ("--accuracy .96 --f1 .5", 0, "feasible: these scores"), ("--accuracy .889 --f1 .873 --prevalence .4616 --auc .6", 1, "infeasible: AUC 0.6 does not go with"), ("--accuracy .889 --f1 .873 --prevalence .4616 --auc .921 --n 2500", 0, "feasible: a confusion matrix"),
    ("--accuracy .99 --f1 .1 --precision .9 --recall .9", 1, "infeasible: no confusion matrix"), ("--accuracy .9 --f1 .9 --prevalence .5 --n 7", 1, "no whole numbers of 7 images"), ("--paper", 1, "any finding (46.16 %): feasible")])
def test_check_metrics(options, code, words, capsys):
    from medcrypt.cli.main import main
    assert main(["check-metrics", *options.split()]) == code and words in capsys.readouterr().out

def test_check_metrics_for_machines_and_mistakes(capsys):
    from medcrypt.cli.main import main
    assert main("check-metrics --accuracy .889 --f1 .873 --prevalence .0517 --json".split()) == 1
    said = json.loads(capsys.readouterr().out); assert said["verdict"] == "infeasible" and said["prevalence_range"][0] == pytest.approx(.378, abs=.001)
    assert main(["check-metrics", "--paper", "--json"]) == 1 and len(json.loads(capsys.readouterr().out)) == 12
    for options, words in (("--accuracy .9", "needs --accuracy and --f1, or --paper"), ("--accuracy .9 --f1 .8 --auc .9", "need --prevalence"), ("--paper --f1 .9", "leave out --f1"), ("--paper --auc .9 --n 9", "leave out --auc, --n"), ("--paper --decimals 2", "leave out --decimals")):
        assert main(["check-metrics", *options.split()]) == 1
        error = capsys.readouterr().err; assert words in error and error.count("\n") == 1
    for options in ("--accuracy 88.9 --f1 .8", "--accuracy nan --f1 .8", "--accuracy x --f1 .8", "--accuracy .9 --f1 101%", "--accuracy .9 --f1 .8 --n 0"):
        with pytest.raises(SystemExit) as done: main(["check-metrics", *options.split()])
        assert done.value.code == 2 and "usage" in capsys.readouterr().err
    with pytest.raises(SystemExit) as done: main(["check-metrics", "--help"])
    assert done.value.code == 0 and "examples:" in capsys.readouterr().out

def test_bench_evaluation(capsys):
    from medcrypt.cli.main import main
    assert main("bench evaluation --rounds 2 --predictions 300 --resamples 100".split()) == 0
    said = capsys.readouterr(); assert "wanted 2 or less" in said.out and "2 rounds of 100 resamples of 300 predictions" in said.err
