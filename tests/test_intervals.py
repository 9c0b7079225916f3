"Bootstrap, DeLong and permutation test: against brute force, by coverage, and on what real tables contain."
import time

import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import f1_score, roc_auc_score

from medcrypt.evaluation.intervals import Interval, bootstrap, bootstrap_mean, bootstrap_statistic, chance, delong, equivalence_test, paired, permutation_test, weighted_auc
from medcrypt.evaluation.resampling import MetricError, _rows, _weights

def cohort(seed, patients=120, per=2, effect=1., prevalence=.4):
    "Labels by patient, scores that share a patient effect."
    generator = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), per)
    y = (generator.random(patients) < prevalence)[who]
    return y.astype(int), effect * y + .7 * generator.normal(size=patients)[who] + .7 * generator.normal(size=patients * per), who

def test_weighted_auc_is_sample_weight_auc():
    y, s, _ = cohort(1, 40)
    weights = np.random.default_rng(2).integers(0, 4, (80, 25)).astype(float)
    for ties in (s, np.round(s)):
        want = [roc_auc_score(y, ties, sample_weight=w) for w in weights.T]
        np.testing.assert_allclose(weighted_auc(y, ties, weights), want, atol=1e-12)

def test_bootstrap_is_the_plain_loop():
    y, s, who = cohort(3, 30, 3)
    found = bootstrap(y, s, who, seed=7, resamples=150)
    weights = np.hstack([w for w, _ in _weights(_rows(y, [s], who, None, None), 7, 150)])
    loop = []
    for column in weights.T.astype(int):
        index = np.concatenate([np.tile(np.flatnonzero(who == patient), count) for patient, count in enumerate(column)]).astype(int)
        loop.append(roc_auc_score(y[index], s[index]))
    np.testing.assert_allclose((found.low, found.high), np.quantile(loop, [.025, .975]), atol=1e-12)
    assert found.estimate == pytest.approx(roc_auc_score(y, s)) and (found.n, found.patients, found.resamples) == (90, 30, 150)

def test_runs_are_never_pooled():
    y, s, who = cohort(4)
    fold = (who % 3)
    shifted = s + 100 * fold # a scale of its own for each model
    assert bootstrap(y, shifted, who, runs=fold, seed=1, resamples=50).estimate == pytest.approx(np.mean([roc_auc_score(y[fold == f], s[fold == f]) for f in range(3)]))
    assert bootstrap(y, shifted, who, runs=fold, seed=1) == bootstrap(y, s, who, runs=fold, seed=1)

def test_same_seed_same_interval_in_any_row_order():
    y, s, who = cohort(5)
    order = np.random.default_rng(0).permutation(len(y))
    assert bootstrap(y, s, who, seed=2) == bootstrap(y[order], s[order], who[order], seed=2) != bootstrap(y, s, who, seed=3)

def test_patients_widen_the_interval():
    y, s, who = cohort(6, 100, 6)
    wide, narrow = bootstrap(y, s, who, seed=1), bootstrap(y, s, np.arange(len(y)), seed=1)
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)

def test_seeds_widen_the_interval():
    y, s, who = cohort(7, 200, 1)
    effects, reps = (.2, 1., 2.5), 3 # three trainings of very different luck
    rows = dict(patients=np.tile(who, reps), runs=np.tile(np.zeros(200, int), reps))
    labels, values, seeds = np.tile(y, reps), np.concatenate([s + e * y for e in effects]), np.repeat(np.arange(reps), 200)
    with_seeds = bootstrap(labels, values, seeds=seeds, seed=1, **rows)
    as_runs = bootstrap(labels, values, rows["patients"], runs=seeds, seed=1)
    assert with_seeds.estimate == pytest.approx(as_runs.estimate) and with_seeds.high - with_seeds.low > 1.5 * (as_runs.high - as_runs.low)

def test_paired_is_narrower_and_antisymmetric():
    y, s, who = cohort(8)
    other = s + .3 * np.random.default_rng(1).normal(size=len(s))
    ab, ba, alone = paired(y, s, other, who, seed=1), paired(y, other, s, who, seed=1), bootstrap(y, s, who, seed=1)
    assert ab.estimate == pytest.approx(-ba.estimate) and ab.low == pytest.approx(-ba.high) and ab.high - ab.low < alone.high - alone.low
    same = paired(y, s, s, who, seed=1)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)

def test_statistics_of_decisions():
    y, s, who = cohort(9)
    predicted, fold = (s > .5).astype(int), who % 3
    found = bootstrap_statistic(y, predicted, who, statistic="f1", runs=fold, seed=1)
    assert found.estimate == pytest.approx(np.mean([f1_score(y[fold == f], predicted[fold == f]) for f in range(3)])) and found.low < found.estimate < found.high
    own = bootstrap_statistic(y, predicted, who, statistic=lambda tp, fp, fn, tn: (tp + tn) / (tp + fp + fn + tn), seed=1)
    assert own == bootstrap_statistic(y, predicted, who, statistic="accuracy", seed=1)
    probability = np.clip((s + 2) / 5, 0, 1)
    assert bootstrap_statistic(y, probability, who, statistic="brier", seed=1).estimate == pytest.approx(np.mean((probability - y) ** 2))
    for wrong in (lambda: bootstrap_statistic(y, s, who, statistic="f1", seed=1), lambda: bootstrap_statistic(y, predicted, who, statistic="kappa", seed=1)):
        with pytest.raises(MetricError): wrong()

def test_runs_that_lose_a_class():
    y, s = np.array([0, 1, 0, 1, 1, 1, 0, 0]), np.arange(8.)
    lonely = bootstrap(y, s, np.arange(8), runs=[0, 0, 0, 0, 1, 1, 2, 2], seed=1) # runs 1 and 2 have one class from the start
    assert lonely.runs == 1 and 0 < lonely.lost < .5 and lonely.resamples < 2000
    assert bootstrap([1, 1], [.1, .2], [0, 1], seed=1).estimate is None
    rare = bootstrap([1] + [0] * 50, np.arange(51.), np.arange(51), seed=1) # the only positive is absent from a third of the resamples
    assert .3 < rare.lost < .45 and rare.low is not None

def test_masked_and_wrong_rows():
    y, s, who = cohort(10, 50, 1)
    dirty = np.where(np.arange(50) % 10 == 0, np.where(np.arange(50) % 20 == 0, -1, np.nan), y)
    keep = np.arange(50) % 10 != 0
    assert bootstrap(dirty, np.where(keep, s, np.nan), who, seed=1) == bootstrap(y[keep], s[keep], who[keep], seed=1)
    for wrong in (lambda: bootstrap(y, s, who[:-1], seed=1), lambda: bootstrap(y, s, np.full(50, None), seed=1), lambda: bootstrap(y, s, who, seed=1, level=95),
                  lambda: bootstrap(y, s, who, seed=1, resamples=0), lambda: bootstrap(y + 1, s, who, seed=1), lambda: bootstrap(y, np.full(50, np.nan), who, seed=1)):
        with pytest.raises(MetricError): wrong()

def test_mean():
    found = bootstrap_mean([1., 2., 3., np.nan], seed=1)
    assert found.estimate == 2 and found.n == 3 and found.low < 2 < found.high
    assert bootstrap_mean([5.], seed=1).low is None and bootstrap_mean([np.nan], seed=1).estimate is None
    assert bootstrap_mean([1., 1., 4.], ["a", "a", "b"], seed=1).estimate == 2

def test_delong_by_definition():
    y, a, _ = cohort(11, 60, 1)
    b = np.round(a + np.random.default_rng(3).normal(size=60), 1)
    psi = lambda s: (s[y == 1][:, None] > s[y == 0]) + .5 * (s[y == 1][:, None] == s[y == 0])
    pa, pb = psi(a), psi(b)
    difference = pa - pb
    variance = difference.mean(1).var(ddof=1) / len(pa) + difference.mean(0).var(ddof=1) / pa.shape[1]
    found = delong(y, a, b)
    assert (found.auc, found.auc_b) == (pytest.approx(roc_auc_score(y, a)), pytest.approx(roc_auc_score(y, b))) and found.variance == pytest.approx(variance)
    single = delong(y, a)
    assert single.variance == pytest.approx(pa.mean(1).var(ddof=1) / len(pa) + pa.mean(0).var(ddof=1) / pa.shape[1]) and single.p_value < .05
    assert delong([0, 1], [1, 2]).auc is None and delong(y, a, a).p_value == 1

# Of 49 patients with ovarian cancer of whom it was asked whether surgery would help, the 43 of whom all three of albumin, total protein and the K-G score are known (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988;
# as reprinted in the example of SAS/STAT's LOGISTIC procedure, whose tables are the expected values): albumin, protein, score (high is bad), benefit.
OVARIAN = """30 58 10 0 32 63 5 1 39 68 3 1 28 48 6 0 32 58 3 1 9 40 5 0 25 57 8 0 16 56 5 1 38 57 5 1 37 67 6 1 32 54 4 1 38 66 6 1 41 66 5 1 36 57 5 1 43 70 4 1 36 67 4 0 23 44 6 1 42 76 4 0 40 66 6 0 35 58 6 1 38 68 7 1 30 47 8 0 45 74 5 1 37 74 5 1
31 66 6 1 41 82 6 1 43 70 5 1 43 65 4 1 32 51 5 1 26 47 6 1 33 68 6 0 17 40 7 0 37 61 5 1 33 63 7 1 42 77 6 1 35 62 5 1 29 57 9 0 21 48 7 1 28 62 8 0 40 70 7 1 33 57 6 1 37 69 5 1 36 66 5 1"""

def test_delong_of_a_published_example():
    albumin, protein, score, benefit = np.array(OVARIAN.split(), int).reshape(-1, 4).T
    single = {"albumin": (albumin, .7366, .0927, .5549, .9182), "score": (-score, .7258, .1028, .5243, .9273), "protein": (protein, .6478, .1000, .4518, .8439)}
    for marker, *want in single.values():
        found = delong(benefit, marker)
        assert [found.auc, found.variance ** .5, found.low, found.high] == pytest.approx(want, abs=5e-5) and found.n == 43
    for marker, *want in ((albumin, .0108, .0953, -.1761, .1976, .9102), (protein, -.0780, .1046, -.2830, .1271, .4561)):
        found = delong(benefit, marker, -score)
        assert [found.difference, found.variance ** .5, found.low, found.high, found.p_value] == pytest.approx(want, abs=5.1e-5)

def test_delong_of_published_ratings():
    "109 CT images in five grades (Hanley and McNeil, Radiology 143, 1982, table 1), nearly all of them tied; area and standard error as Stata's manual prints them for roctab."
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    grade, ill = np.concatenate([np.repeat(np.arange(5), normal), np.repeat(np.arange(5), abnormal)]), np.repeat([0, 1], [58, 51])
    found = delong(ill, grade)
    assert (found.n, found.auc, found.variance ** .5) == (109, pytest.approx(.8932, abs=5e-5), pytest.approx(.0307, abs=5e-5)) and (found.low, found.high) == pytest.approx((.83295, .95339), abs=1e-4)

def test_equivalence():
    y, s, who = cohort(20, 1500, 2, effect=0)
    found = equivalence_test(y, s, who, seed=1)
    assert found.equivalent and found.p_value < .025 and found.interval == bootstrap(y, s, who, seed=1) and found.center == .5
    assert equivalence_test(y, s, who, seed=1, alpha=.05).interval.level == pytest.approx(.9) and not equivalence_test(y, s, who, seed=1, margin=.01).equivalent
    effect = equivalence_test(*cohort(21, 1500, 2, effect=.4), seed=1)
    assert effect.equivalent is False and effect.p_value > .5
    y, s, who = cohort(22, 600, 2)
    near, far = s + .1 * np.random.default_rng(1).normal(size=len(s)), s + 3 * np.random.default_rng(1).normal(size=len(s))
    alike = equivalence_test(y, s, who, other=near, margin=.03, seed=1)
    assert alike.equivalent and alike.center == 0 and alike.interval == paired(y, s, near, who, seed=1) and not equivalence_test(y, s, who, other=far, margin=.03, seed=1).equivalent
    none = equivalence_test([1, 1], [.1, .2], [0, 1], seed=1)
    assert none.equivalent is None and none.p_value is None and none.interval.estimate is None
    for wrong in (dict(alpha=.5), dict(alpha=0), dict(margin=0), dict(margin=.6), dict(resamples=0)):
        with pytest.raises(MetricError): equivalence_test(y, s, who, seed=1, **wrong)

def test_equivalence_keeps_its_level():
    "On the margin itself, .55, at most 2.5 % of studies may be called equivalent."
    effect = np.sqrt(2 * 2 * .7 ** 2) * norm.ppf(.55)
    called = sum(equivalence_test(*cohort(seed, 150, 4, effect=effect), seed=seed, resamples=200).equivalent for seed in range(300))
    assert binom.sf(called - 1, 300, .025) > .005

def test_permutation_keeps_its_level():
    rejected = sum(permutation_test(*cohort(seed, 60, 3, effect=0), seed=seed, resamples=199) <= .05 for seed in range(200))
    assert binom.cdf(rejected, 200, .05) > .01 and binom.sf(rejected - 1, 200, .05) > .01

def test_permutation_with_seeds_on_the_same_patients():
    "Five trainings that see the same patients are one experiment: the level must hold (permuting each run by itself would reject about half the time)."
    def trial(seed):
        y, s, who = cohort(seed, 60, 1, effect=0)
        noise = np.random.default_rng(seed).normal(size=(5, 60)) * .2
        return permutation_test(np.tile(y, 5), (s + noise).ravel(), np.tile(who, 5), seeds=np.repeat(np.arange(5), 60), runs=np.tile(who % 2, 5), seed=seed, resamples=199)
    rejected = sum(trial(seed) <= .05 for seed in range(150))
    assert rejected <= 15

def test_permutation_finds_an_effect_and_refuses_mixed_rows():
    y, s, who = cohort(12)
    assert permutation_test(y, s, who, seed=1) < .001 and permutation_test(y, s, who, seed=1) == permutation_test(y, s, who, seed=1)
    assert permutation_test([1, 1], [.1, .2], [0, 1], seed=1) is None
    with pytest.raises(MetricError, match="sort"): permutation_test([0, 1, 1, 0], [.1, .2, .3, .4], [0, 0, 0, 0], runs=[0, 0, 1, 1], seed=1)

def test_chance():
    ends = lambda low, high: Interval(.5, low, high, 2000, 900, 2000)
    assert chance(ends(.46, .54), .5) == "chance" and chance(ends(.51, .54), .01) == "not chance"
    for undecided in ((ends(.44, .54), .5), (ends(.46, .54), .04), (ends(.51, .56), .06), (ends(.4, .6), .01), (Interval(None, None, None, 0, 0, 0), .5), (ends(.46, .54), None)):
        assert chance(*undecided) == "undecided"

# coverage, by simulation: studies of 100 patients with 1 to 5 pictures each, scores rounded so that many are tied

STUDIES, STEP = 1000, .5

def tied_auc(effect, spread, step=STEP):
    "AUC of rounded normal scores: the chance of a greater one and half of that of a tie."
    edges = (np.arange(-60, 61) - .5) * step
    positive, negative = (np.diff(norm.cdf(edges, loc=mean, scale=spread)) for mean in (effect, 0))
    below = np.concatenate([[0], negative.cumsum()[:-1]])
    return positive @ (below + negative / 2)

def clustered(seed, effect, patients=100, noise=0.):
    draw = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), draw.integers(1, 6, patients))
    y = (draw.random(patients) < .4)[who]
    own = effect * y + .7 * draw.normal(size=patients)[who] + .7 * draw.normal(size=len(who))
    return y.astype(int), np.round(own / STEP) * STEP, who, np.round((own + noise * draw.normal(size=len(who))) / STEP) * STEP

def within(hits, studies, tolerance=.02): assert .95 - tolerance <= hits / studies <= .95 + tolerance, hits / studies

@pytest.mark.parametrize("effect", [0, 1.2])
def test_coverage_of_the_bootstrap(effect):
    "95 % intervals hold the true AUC in 95 ± 2 % of studies; those that take every picture for a patient do not."
    spread = np.sqrt(2 * .7 ** 2); truth, hits, naive = tied_auc(effect, spread), 0, 0
    for seed in range(STUDIES):
        y, s, who, _ = clustered(seed, effect)
        found = bootstrap(y, s, who, seed=seed, resamples=400)
        hits += found.low <= truth <= found.high
        if seed < 200: rows = delong(y, s); naive += rows.low <= truth <= rows.high
    within(hits, STUDIES); assert naive / 200 < .9

def test_coverage_of_paired_differences_and_decisions():
    effect, noise = 1.2, .8
    spread = np.sqrt(2 * .7 ** 2); truth = tied_auc(effect, spread) - tied_auc(effect, np.hypot(spread, noise))
    tp, fp = (share * norm.sf(.75, loc=mean, scale=spread) for share, mean in ((.4, effect), (.6, 0))) # score >= 1 once rounded
    f1, hits, decided, studies = 2 * tp / (tp + fp + .4), 0, 0, 600
    for seed in range(studies):
        y, s, who, other = clustered(seed, effect, noise=noise)
        found, counted = paired(y, s, other, who, seed=seed, resamples=400), bootstrap_statistic(y, (s >= 1).astype(int), who, statistic="f1", seed=seed, resamples=400)
        hits += found.low <= truth <= found.high; decided += counted.low <= f1 <= counted.high
    within(hits, studies); within(decided, studies)

def test_coverage_of_delong():
    "One picture a patient, as it asks for."
    effect, noise = 1.2, .8
    spread = np.sqrt(2 * .7 ** 2); truth, other_truth, hits, pairs = tied_auc(effect, spread), tied_auc(effect, np.hypot(spread, noise)), 0, 0
    for seed in range(STUDIES):
        y, s, who, other = clustered(seed, effect, patients=150, noise=noise)
        _, first = np.unique(who, return_index=True)
        one, two = delong(y[first], s[first]), delong(y[first], s[first], other[first])
        hits += one.low <= truth <= one.high; pairs += two.low <= truth - other_truth <= two.high
    within(hits, STUDIES); within(pairs, STUDIES)

def test_fast_enough():
    generator = np.random.default_rng(0)
    y, s, who = generator.random(10_000) < .3, generator.normal(size=10_000), generator.integers(4000, size=10_000)
    start = time.process_time(); bootstrap(y, s, who, seed=1, resamples=2000)
    assert time.process_time() - start < 2 # about 0.5 s; `medcrypt bench evaluation` measures it against a loop over scikit-learn
