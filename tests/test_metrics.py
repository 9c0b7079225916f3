"Scores against scikit-learn and pair counting, the case files, and the check of published scores."
import csv, json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as reference

from medcrypt.evaluation.metrics import MetricError, auc, best_threshold, feasible_prevalence, macro, plausible, roc, scores

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no folder {CASES.name} beside the checkout")

def expected(case): return json.loads((CASES / case / "expected.json").read_text())

rows = st.integers(2, 120).flatmap(lambda n: st.tuples(
    st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)),
    st.lists(st.one_of(st.integers(0, 8).map(lambda k: k / 8), st.floats(0, 1)), min_size=n, max_size=n), st.floats(0, 1)))

@settings(max_examples=200, deadline=None)
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
