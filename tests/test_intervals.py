"Bootstrap, DeLong and permutation test: against brute force, by coverage, and on what real tables contain."
import time

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import f1_score, roc_auc_score

from medcrypt.evaluation.intervals import (Interval, MetricError, _rows, _weights, bootstrap, bootstrap_mean, bootstrap_statistic, chance, delong, paired, permutation_test, weighted_auc)

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

def test_coverage():
    "95 % intervals cover the true AUC in 95 ± 3 % of 500 simulated studies of 120 patients with 3 pictures each."
    from scipy.stats import norm
    truth, hits, studies = norm.cdf(1 / np.sqrt(2 * (.7 ** 2 + .7 ** 2))), 0, 500
    for seed in range(studies):
        found = bootstrap(*cohort(1000 + seed, 120, 3), seed=seed, resamples=300)
        hits += found.low <= truth <= found.high
    assert .92 <= hits / studies <= .98, hits / studies

def test_fast_enough():
    generator = np.random.default_rng(0)
    y, s, who = generator.random(10_000) < .3, generator.normal(size=10_000), generator.integers(4000, size=10_000)
    start = time.process_time(); bootstrap(y, s, who, seed=1, resamples=2000)
    assert time.process_time() - start < 4 # about 0.5 s here; the bound leaves room for a busy machine
