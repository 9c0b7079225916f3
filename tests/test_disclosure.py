"What sizes, views and trained models disclose: padding, length, re-identification and membership, on data whose answer is known."
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score, roc_curve

from medcrypt.core import rng, seeded_bytes
from medcrypt.crypto.envelope import parse
from medcrypt.crypto.images import seal_image, unseal_image
from medcrypt.crypto.keys import Key
from medcrypt.evaluation import disclosure_charts
from medcrypt.evaluation.intervals import Interval
from medcrypt.evaluation.length_attack import ATTACKERS, POLICIES, LengthError, identity_attack, label_attack, length_table, padded, unique_share
from medcrypt.evaluation.membership import DRAWS, MembershipError, dealt, losses, membership_table, references, tpr_at_fpr
from medcrypt.evaluation.observed import seal_in_memory
from medcrypt.evaluation.plots import PlotError, is_blank
from medcrypt.evaluation.reidentification import Attacker, IdentityError, correlation, filled, grade, identified, insane, line_up, stored_objects
from medcrypt.imaging import jpeg2000
from medcrypt.imaging.loading import load_folder
from medcrypt.imaging.preprocessing import Preprocessing
from medcrypt.imaging.sources import detect
from medcrypt.learning.views import views
from medcrypt.vault.archive import object_of

KEY = Key(seeded_bytes(0, "test")(32))

def seen_through(view, pictures, random, block=8): return views(view, seal_in_memory(pictures, (view,), KEY, block=block, random=random)[object_of(view)])

def padme(size):
    "Algorithm 1 of Nikitin et al. 2019, with logarithms as it is written there."
    exponent = math.floor(math.log2(size)); kept = math.floor(math.log2(exponent)) + 1
    rest = (1 << exponent - kept) - 1
    return size + rest & ~rest


# padding

@given(st.lists(st.integers(2, 1 << 40), min_size=1, max_size=50))
def test_padme_is_that_of_the_paper(sizes):
    assert padded(np.array(sizes), "padme").tolist() == [padme(size) for size in sizes]

@given(st.lists(st.integers(0, 1 << 51), min_size=1, max_size=50), st.sampled_from(POLICIES))
def test_padding_grows_keeps_order_and_is_stable(sizes, policy):
    sizes = np.sort(np.array(sizes)); largest = int(sizes.max())
    once = padded(sizes, policy, largest=largest)
    assert (once >= sizes).all() and (np.diff(once) >= 0).all()
    assert np.array_equal(padded(once, policy, largest=largest), once)
    assert [padded(int(s), policy, largest=largest) for s in sizes] == once.tolist()
    limit = {"none": 0, "padme": .12, "power-of-two": 1}.get(policy)
    assert limit is None or (once <= (1 + limit) * sizes).all()

@pytest.mark.parametrize("size,policy,largest", [(-1, "padme", None), (1.5, "padme", None), (5, "bucket", None), (5, "maximum", None), (5, "maximum", 4), (1 << 60, "padme", None), ("9", "none", None)])
def test_padding_refuses(size, policy, largest):
    with pytest.raises(LengthError): padded(size, policy, largest=largest)

def test_no_sizes_are_no_error():
    assert padded(np.zeros(0, int), "padme").shape == (0,) and unique_share(np.zeros(0)) is None

def test_a_policy_seals_pictures_of_one_bucket_at_one_length():
    picture = np.uint8(rng(0, "p").integers(0, 256, (24, 24)))
    pictures = [picture, picture // 2, picture // 3]
    code = [len(jpeg2000.encode(p)) for p in pictures]
    for policy in ("padme", "power-of-two", "maximum"):
        pads = [padded(n, policy, largest=max(code)) for n in code]
        made = [seal_image(p, KEY, image_id="00", pad_to=pad) for p, pad in zip(pictures, pads)]
        assert [len(parse(e).ciphertext) for e in made] == [16 * ((pad + 1) // 16 + 1) for pad in pads]
        assert all(np.array_equal(unseal_image(e, KEY)[0], p) for e, p in zip(made, pictures))


# length

def sized(n=600, effect=0., seed=0):
    draw = rng(seed, "sized"); who = np.arange(n) // 2; labels = draw.integers(0, 2, n // 2)[who]
    return np.int64(np.exp(9 + effect * labels + draw.normal(0, .2, n))), labels, who

@pytest.mark.parametrize("attacker", ATTACKERS)
@pytest.mark.parametrize("sign", [1, -1])
def test_either_direction_is_learned(attacker, sign):
    found = label_attack(*sized(effect=.2 * sign), attacker, seed=0, resamples=200)
    assert .65 < found["auc_low"] < found["auc"] < found["auc_high"] < .85 and found["patients"] == 300 and found["n"] == 600

def test_sizes_that_say_nothing_are_at_chance():
    "Over many draws, intervals hold .5 about as often as they should, and the mean is no better than .5: the direction was not chosen on test pictures."
    found = [label_attack(*sized(200, seed=s), "size", seed=s, resamples=200) for s in range(40)]
    assert np.mean([f["auc"] for f in found]) < .52
    assert np.mean([f["auc_low"] > .5 for f in found]) <= .1

@pytest.mark.parametrize("attacker", ATTACKERS)
def test_length_where_nothing_can_be_measured(attacker):
    size, labels, who = sized(100)
    assert label_attack(size * 0 + 7, labels, who, attacker, seed=0) | {"note": ""} == {"n": 100, "patients": 50, "prevalence": labels.mean(), "auc": .5, "auc_low": .5, "auc_high": .5, "note": ""}
    for few in (labels * 0, labels * 0 + 1, np.where(who < 4, 1, 0)):
        row = label_attack(size, few, who, attacker, seed=0)
        assert row["auc"] is None and "not defined" in row["note"]
    assert label_attack(size[:0], labels[:0], who[:0], attacker, seed=0)["auc"] is None
    for bad in (size * np.nan, size * 0, size[:5]):
        with pytest.raises(LengthError): label_attack(bad, labels, who, attacker, seed=0)

def test_length_table_within_strata_and_by_policy():
    draw = rng(0, "strata"); _, labels, who = sized(800)
    view = np.where(draw.random(800) < .2 + .6 * labels, "AP", "PA")
    size = np.int64(np.exp(9 + .5 * (view == "AP") + draw.normal(0, .1, 800)))
    table = length_table(size, labels, who, strata={"view": view}, seed=0, resamples=100)
    assert len(table) == 3 * len(POLICIES) * len(ATTACKERS)
    by = table[table.attacker == "size"].set_index(["stratum", "policy"])
    assert by.auc["all", "none"] > .65 and abs(by.auc["view AP", "none"] - .5) < .1 and abs(by.auc["view PA", "none"] - .5) < .1
    assert by.overhead_percent["all", "none"] == 0 < by.overhead_percent["all", "padme"] < 12
    assert (by.xs("maximum", level="policy").auc == .5).all() and (by.xs("maximum", level="policy").note == "all sizes are equal").all()

def test_few_patients_have_no_identity():
    assert identity_attack(np.arange(1, 7), np.arange(6) // 2, seed=0)["rank1"] is None
    assert len(length_table(np.arange(1, 7), np.arange(6) % 2, np.arange(6) // 2, seed=0, resamples=5)) == len(POLICIES) * len(ATTACKERS)

def test_identity_from_the_length():
    who = np.arange(400) // 2; own = np.int64(1e6 * (1 + np.arange(200)))[who]
    assert identity_attack(own, who, seed=0)["rank1"] == 1
    constant = identity_attack(own * 0 + 5, who, seed=0)
    assert constant["rank1"] == pytest.approx(constant["chance"]) and constant["unique_share"] == 0
    assert identity_attack(own, np.arange(400), seed=0)["rank1"] is None


# re-identification: the line-up and its scores

@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=4, max_size=40), st.integers(2, 30), st.integers(0, 9))
def test_line_up_keeps_patients_apart(counts, size, seed):
    who = np.repeat(np.arange(len(counts)), counts)
    made = line_up(who, size=size, seed=seed)
    assert len(made.gallery) == min(size, len(counts) // 2) == len(set(who[made.gallery]))
    assert not set(who[made.gallery]) & set(who[made.own])
    several = made.other >= 0
    assert (who[made.other[several]] == who[made.gallery[several]]).all() and (made.other[several] != made.gallery[several]).all()

def test_scores_of_guessing_certainty_and_ties():
    sure = identified(np.eye(40), np.arange(40), seed=0, resamples=100)
    assert sure.rank1.estimate == sure.auc.estimate == 1 and sure.rank1.low < 1 == sure.rank1.high
    tie = identified(np.zeros((40, 40)), np.arange(40), seed=0, resamples=100)
    assert tie.rank1.estimate == pytest.approx(1 / 40) and tie.auc.estimate == .5
    none = identified(np.zeros((0, 40)), [], seed=0, resamples=100)
    assert none.rank1.estimate is None and none.columns()["grade"] == "not defined"
    wrong = identified(1 - np.eye(40), np.arange(40), seed=0, resamples=100)
    assert wrong.rank1.estimate == 0 and wrong.rank1.high > 1 / 40 and wrong.auc.estimate == 0

def test_interval_of_rank1_holds_chance_as_often_as_it_says():
    held = [(lambda r: r.low <= 1 / 50 <= r.high)(identified(rng(s, "guess").normal(size=(50, 50)), np.arange(50), seed=0, resamples=2).rank1) for s in range(200)]
    assert np.mean(held) >= .95

@pytest.mark.parametrize("likeness,right", [([[1., np.nan]], [0]), ([[1.]], [0]), ([[1., 2.]], [2]), ([[1., 2.]], [0, 1]), ([1., 2.], [0])])
def test_scores_refuse(likeness, right):
    with pytest.raises(IdentityError): identified(likeness, right, seed=0)

def test_grades_need_the_whole_interval_and_a_gallery_that_can_tell():
    rate = lambda low, high: Interval(low, low, high, 100, 100, 0)
    assert [grade(rate(low, high), .01) for low, high in ((0, .0499), (.05, .2), (.2001, 1), (0, .05), (.2, .21), (None, None))] == ["good", "moderate", "bad", "undecided", "undecided", "not defined"]
    assert grade(rate(.5, 1), 1 / 6) == grade(rate(.5, 1), None) == "not defined"
    guessed = [identified(rng(s, "guess").normal(size=(6, 6)), np.arange(6), seed=0, resamples=2).columns()["grade"] for s in range(20)]
    assert set(guessed) == {"not defined"}

@settings(max_examples=30, deadline=None)
@given(st.integers(3, 12), st.integers(3, 12), st.integers(0, 99))
def test_correlation_is_that_of_the_visible_pixels(rows, columns, seed):
    draw = np.random.default_rng(seed)
    a, b, m = draw.random((3, rows, columns)), draw.integers(0, 256, (4, rows, columns)), draw.random((3, rows, columns)) < .7
    m[:, :2, :2] = True
    want = [[np.corrcoef(a[i][m[i]], b[j][m[i]])[0, 1] for j in range(4)] for i in range(3)]
    assert np.allclose(correlation(a, m, b), want, atol=1e-8)
    assert (correlation(a * 0, m, b) == 0).all() and (correlation(a, m & False, b) == 0).all()

@pytest.mark.parametrize("shape", [(3, 3), (8, 5), (32, 32)])
def test_holes_are_filled_from_what_is_visible(shape):
    x, m = rng(0, "x").random((4, *shape)).astype("float32"), rng(0, "m").random((4, *shape)) < .3
    m[:, 0, 0] = True
    out = filled(x, m)
    assert (out[m] == x[m]).all() and np.isfinite(out).all() and out.min() >= -1e-6 and out.max() <= 1 + 1e-6
    assert np.isfinite(filled(x, m & False)).all()


# re-identification: attacks

def persons(patients=80, side=32, seed=0):
    draw = rng(seed, "persons"); who = np.repeat(np.arange(patients), 2)
    own, each = (gaussian_filter(draw.normal(size=(n, side, side)), (0, 3, 3)) for n in (patients, 2 * patients))
    x = own[who] + .5 * each
    return np.uint8(np.clip(128 + 40 * x / x.std(), 0, 255)), who

@pytest.fixture(scope="module")
def identity():
    x, who = persons()
    attacker = Attacker(x, who, line_up(who, size=40, seed=0), seed=0, resamples=100)
    look = lambda view, which, *names: seen_through(view, x[which], block=4, random=seeded_bytes(0, view, *names))
    return pd.DataFrame([row for view in ("plain", "blocks-0.5", "resolution-4", "le", "ele", "etc", "neuracrypt", "ecb", "cbc-fixed-iv", "cbc", "codestream", "length")
                         for row in attacker.rows(view, *look(view, attacker.seen), look(view, attacker.lineup.gallery, "again"))])

def of(identity, view, target, attacker=None): return identity[(identity["view"] == view) & (identity.target == target) & (identity.attacker == (attacker or identity.attacker))]

def test_what_shows_pixels_shows_who_it_is(identity):
    assert (of(identity, "plain", "same picture").rank1 == 1).all()
    assert (of(identity, "plain", "same patient").rank1 > .5).all() and (of(identity, "blocks-0.5", "same picture").rank1 > .8).all()

def test_schemes_under_one_key_are_learned(identity):
    for view in ("le", "ele"): assert of(identity, view, "same picture", "learned").rank1.item() > .5
    assert of(identity, "ele", "same picture", "correlation").rank1.item() < .2, "tiles change places: pixels alone do not find them"

def test_schemes_without_fresh_randomness_are_found_by_sealing_again(identity):
    for view in ("plain", "blocks-0.5", "le", "ele", "etc", "neuracrypt", "ecb", "cbc-fixed-iv"): assert of(identity, view, "same picture", "sealed again").rank1.item() == 1, view

def test_ciphertext_leads_nowhere(identity):
    for view in ("cbc", "codestream"):
        for target in ("same picture", "same patient"):
            rows = of(identity, view, target)
            assert len(rows) == 3 - (target == "same patient") and (rows.rank1_low <= rows.chance).all() and (rows.chance <= rows.rank1_high).all() and (rows.auc.sub(.5).abs() < .15).all()

def test_patients_with_several_pictures_do_not_lift_ciphertext():
    "They differ from the others here, and only some of the gallery has a query: an attack that prefers them would seem to read ciphertext."
    x, who = persons(120)
    keep = np.concatenate([np.arange(160), np.arange(160, 240, 2)]); x = x.copy(); x[160:] = x[160:] // 2 + 100
    x, who = x[keep], who[keep]
    attacker = Attacker(x, who, line_up(who, size=60, seed=1), seed=1, resamples=200)
    rows = pd.DataFrame(attacker.rows("cbc", *seen_through("cbc", x[attacker.seen], random=seeded_bytes(1, "cbc"))))
    patient = rows[rows.target == "same patient"]
    assert (patient.gallery == 40).all() and (patient.auc_low < .5).all()

def test_one_picture_a_patient_leaves_only_the_same_picture():
    x, _ = persons(40)
    who = np.arange(len(x)); attacker = Attacker(x, who, line_up(who, size=20, seed=0), seed=0, resamples=50)
    rows = pd.DataFrame(attacker.rows("plain", *seen_through("plain", x[attacker.seen], block=4, random=seeded_bytes(0, "p"))))
    assert rows[rows.target == "same patient"].grade.tolist() == ["not defined"] and (rows[rows.target == "same picture"].rank1 == 1).all()

def test_attacks_repeat_and_take_tiny_pictures():
    x, who = persons(40, side=8)
    def once():
        attacker = Attacker(x, who, line_up(who, size=20, seed=0), seed=0, resamples=50)
        return pd.DataFrame([r for v in ("plain", "cbc", "length") for r in attacker.rows(v, *seen_through(v, x[attacker.seen], block=4, random=seeded_bytes(0, v)))])
    pd.testing.assert_frame_equal(once(), once())

@pytest.mark.parametrize("counts", [(1,) * 4, (1,) * 6, (2, 1, 1, 1), (3,) * 4, (1,) * 30, (40, 1, 1, 1), (12,) * 4])
def test_few_patients_are_attacked_as_far_as_they_go(counts):
    who = np.repeat(np.arange(len(counts)), counts); x = np.uint8(rng(0, "few").integers(0, 256, (len(who), 16, 16)))
    for seed in range(3):
        attacker = Attacker(x, who, line_up(who, seed=seed), seed=seed, resamples=5)
        rows = pd.DataFrame([row for view in ("plain", "cbc", "length") for row in attacker.rows(view, *seen_through(view, x[attacker.seen], block=4, random=seeded_bytes(0, view)))])
        assert (rows[(rows["view"] == "plain") & (rows.target == "same picture")].rank1.dropna() == 1).all() and set(rows.grade) == {"not defined"}
        if len(attacker.own) < 20: assert rows[rows.attacker == "learned"].way.str.startswith("not defined").all()
        elif len(set(attacker.whose)) > 1: assert len(set(attacker.folds)) == 2

@pytest.mark.parametrize("who", [[], [1, 1, 1, 1], [1, 2, 3]])
def test_too_few_patients(who):
    with pytest.raises(IdentityError): line_up(who, seed=0)


def test_what_must_hold_of_an_identity_table(identity):
    assert insane(identity).empty and insane(identity[:0]).empty
    plain, cipher = (identity[(identity["view"] == v) & (identity.target == "same picture")] for v in ("plain", "cbc"))
    assert len(insane(plain.assign(view="cbc"))) == len(plain) and len(insane(cipher.assign(view="plain"))) == len(cipher) and insane(plain.assign(view="cbc", target="same patient")).empty

def test_objects_come_in_the_order_that_is_asked_for():
    index = pd.DataFrame({"view": ["cbc"] * 3 + ["jpeg2000"], "image": [2, 0, 1, 0], "name": ["two", "zero", "one", "file"]})
    assert stored_objects(index, "cbc", np.array([1, 2])) == ["one", "two"] and stored_objects(index, "length", [0]) == ["file"]
    with pytest.raises(IdentityError, match="cbc: the archive has no object cbc of 2 pictures"): stored_objects(index, "cbc", [0, 3, 4])
    with pytest.raises(IdentityError, match="no object le of 1"): stored_objects(index, "le", [0])


# membership

def test_losses_and_their_bounds():
    y, p = rng(0, "y").integers(0, 2, 50), rng(0, "p").random(50)
    assert np.allclose(losses(y, p), -(y * np.log(p) + (1 - y) * np.log(1 - p))) and np.isfinite(losses([0, 1], [1., 0.])).all()
    for bad in (([0, 2], [.1, .2]), ([0, 1], [.1, np.nan]), ([0, 1], [.1, 1.1]), ([0], [.1, .2])):
        with pytest.raises(MembershipError): losses(*bad)

@settings(max_examples=40, deadline=None)
@given(st.integers(1, 150), st.integers(100, 300), st.integers(1, 50), st.integers(0, 99))
def test_tpr_agrees_with_scikit_learn(yes, no, values, seed):
    draw = np.random.default_rng(seed); y = np.arange(yes + no) < yes; s = draw.integers(0, values, yes + no).astype(float) + .5 * y
    fpr, tpr, _ = roc_curve(y, s, drop_intermediate=False)
    assert tpr_at_fpr(y, s, np.arange(len(y)), seed=0, resamples=3).estimate == pytest.approx(tpr[fpr <= .01 + 1e-12].max())

def test_tpr_is_not_defined_below_one_picture():
    y = np.arange(299) < 200
    assert tpr_at_fpr(y, y * 1., np.arange(299), seed=0).estimate is None and tpr_at_fpr(y, y * 1., np.arange(299), fpr=.02, seed=0, resamples=10).estimate == 1
    assert tpr_at_fpr(y & False, y * 1., np.arange(299), seed=0).estimate is None
    with pytest.raises(MembershipError): tpr_at_fpr(y, y * 1., np.arange(299), fpr=0, seed=0)

@pytest.fixture(scope="module")
def overfitted():
    "A forest that knows its training rows by heart, on labels that are half noise, and forests of other repetitions."
    draw = rng(0, "forest"); n = 600; x = draw.normal(size=(n, 10)); y = np.where(draw.random(n) < .7, x[:, 0] > 0, draw.random(n) < .5).astype(int)
    train = np.arange(n) < 300
    fit = lambda rows, depth, seed: RandomForestClassifier(30, max_depth=depth, random_state=seed).fit(x[rows], y[rows])
    told = []
    for seed in (1, 2, 3):
        half = rng(seed, "half").permutation(n) < n // 2
        for fold, rows in enumerate((half, ~half)): told.append(pd.DataFrame({"seed": seed, "fold": fold, "image": np.flatnonzero(~rows), "label": y[~rows], "probability": fit(rows, None, seed).predict_proba(x[~rows])[:, 1]}))
    return train, y, {depth: fit(train, depth, 0).predict_proba(x)[:, 1] for depth in (None, 1)}, pd.concat(told, ignore_index=True)

def test_an_overfitted_model_is_found_out(overfitted):
    train, y, answers, told = overfitted
    table = membership_table(train, losses(y, answers[None]), np.arange(600), reference=references(told, 0), seed=0, resamples=200).set_index("attack")
    assert table.auc_low["loss"] > .7 and table.tpr["loss against difficulty"] > .1 and table.auc["loss against difficulty"] > table.auc["loss"]
    assert table.auc_low["loss, membership dealt anew"] < .5 < table.auc_high["loss, membership dealt anew"]
    assert table.auc["loss"] == pytest.approx(roc_auc_score(train, -losses(y, answers[None])))

def test_a_model_that_cannot_overfit_is_not(overfitted):
    train, y, answers, told = overfitted
    table = membership_table(train, losses(y, answers[1]), np.arange(600), reference=references(told, 0), seed=0, resamples=200).set_index("attack")
    assert table.auc["loss"] < .6 and table.tpr["loss"] < .05

def test_references_leave_the_attacked_repetition_out(overfitted):
    *_, told = overfitted
    assert (references(told, 2)["models"] == 2).all() and not len(references(told[told.seed == 1], 1))
    with pytest.raises(MembershipError): references(pd.concat([told, told]), 0)
    with pytest.raises(MembershipError): references(told.drop(columns="fold"), 0)

def test_membership_without_references_members_or_patients_apart():
    y, loss, who = np.arange(240) < 100, rng(0, "l").random(240), np.arange(240)
    table = membership_table(y, loss, who, seed=0, resamples=20)
    assert table.auc.isna().tolist() == [False, True, True, False] and table.note[1] and table.members.tolist() == [100, 0, 0, 100]
    for one in (y | True, y & False): assert membership_table(one, loss, who, seed=0, resamples=20).auc.isna().all()
    for bad in ((y, loss, who % 7), (y, loss * np.nan, who), (y, loss[:9], who)):
        with pytest.raises(MembershipError): membership_table(*bad, seed=0)

@given(st.lists(st.integers(1, 4), min_size=2, max_size=30), st.integers(0, 9))
def test_membership_is_dealt_by_patient(counts, seed):
    who = np.repeat(np.arange(len(counts)), counts); y = who < len(counts) // 2
    new = dealt(y, who, seed)
    assert len(set(who[new])) == len(counts) // 2 and not set(who[new]) & set(who[~new])


def test_the_control_is_what_chance_gives():
    y, loss, who = np.arange(60) < 20, np.r_[rng(0, "l").random(60)], np.arange(60) // 2
    table = membership_table(y, loss, who, seed=0, resamples=20).set_index("attack"); row = table.loc["loss, membership dealt anew"]
    each = [roc_auc_score(dealt(y, who.astype(str), 0, k), -loss) for k in range(DRAWS)]
    assert row.auc == pytest.approx(np.mean(each)) and (row.auc_low, row.auc_high) == pytest.approx(tuple(np.quantile(each, (.025, .975)))) and row.auc_low < .5 < row.auc_high
    assert abs(row.auc - .5) < 4 * np.std(each) / DRAWS ** .5 # membership that is dealt out tells nothing


# charts

def test_notes():
    rows = pd.DataFrame([{"dataset": "d", "view": v, "target": t, "rank1": r, "rank1_low": low, "chance": .02} for v, t, r, low in (("plain", "same picture", .95, .9), ("plain", "same patient", .02, .01), ("cbc", "same patient", .02, 0), ("cbc", "same picture", .02, 0))])
    assert disclosure_charts.noted(rows).note.tolist() == ["", "plain does not identify either", "plain does not identify either", ""]
    more = pd.concat([rows, pd.DataFrame([{"dataset": "d", "view": "length", "target": "same patient", "rank1": .02, "rank1_low": .01, "chance": .02, "auc": .7, "auc_low": .6, "n": 9}, {"dataset": "e", "view": "plain", "target": "same patient", "rank1": np.nan, "rank1_low": np.nan, "chance": np.nan, "n": 0}])])
    assert disclosure_charts.noted(more).note.tolist()[4:] == ["the attacks on plain do not use what tells here", "no patient has two pictures"] # a number that finds what the attacks on plain do not

def test_one_of_many_numbers_that_passes_chance_tells_nothing():
    many = pd.DataFrame([{"dataset": "d", "view": "plain" if not k else "cbc", "target": "same patient", "rank1": .005, "rank1_low": 0., "chance": .005, "auc": .5, "auc_low": .45, "n": 200} for k in range(50)])
    lucky = many.assign(rank1=np.where(many.index == 30, .02, many.rank1), rank1_low=np.where(many.index == 30, .0055, many.rank1_low)) # 4 of 200, alone of fifty
    told = many.assign(rank1=np.where(many.index == 30, .2, many.rank1), rank1_low=np.where(many.index == 30, .147, many.rank1_low))
    chosen = many.assign(auc=np.where(many.index == 30, .56, many.auc), auc_low=np.where(many.index == 30, .51, many.auc_low))
    assert all(set(disclosure_charts.noted(table).note) == {"plain does not identify either"} for table in (many, lucky, chosen)) and disclosure_charts.noted(lucky).rank1_low[30] == .0055
    assert disclosure_charts.noted(told).note[30] == "the attacks on plain do not use what tells here" and disclosure_charts.noted(lucky[30:31].assign(view="plain").drop(columns=["auc", "auc_low"])).note.tolist() == [""] # alone, it would count

def test_no_line_joins_the_policies():
    rows = pd.DataFrame([{"dataset": "d", "policy": policy, "auc": a, "auc_low": a - .02, "auc_high": a + .02, "overhead_percent": o} for policy, a, o in (("none", .7, 0), ("padme", .68, 2), ("power-of-two", .6, 30), ("maximum", .5, 44))])
    axes = disclosure_charts.plot_length(rows).axes[0]
    assert not [line for line in axes.lines if len(line.get_xdata()) > 1 and line.get_linestyle() == "-"] and len(axes.containers) == 4

def test_charts_take_what_the_attacks_give(identity):
    table = identity.assign(dataset="toy")
    best = disclosure_charts.strongest(table)
    assert len(best) == 2 * 12 and (best.rank1 >= .0).all()
    own = table.merge(best[["view", "target", "attacker"]], how="right"); assert (own.rank1_low >= best.rank1_low).all() and (own.rank1_high <= best.rank1_high).all() and (own.rank1_low - best.rank1_low).max() > 0
    assert not is_blank(disclosure_charts.plot_identity(best))
    size, labels, who = sized(200, .2)
    lengths = length_table(size, labels, who, seed=0, resamples=50).query("attacker == 'size'").assign(dataset="toy")
    assert not is_blank(disclosure_charts.plot_length(lengths))
    for plot, frame in ((disclosure_charts.plot_length, lengths), (disclosure_charts.plot_identity, best)):
        for bad in (frame[:0], frame.drop(columns="dataset")):
            with pytest.raises(PlotError): plot(bad)


# real pictures

@pytest.mark.slow
@pytest.mark.parametrize("name, given, size, expected, found_again", [
    ("ct", {"label": "label_malignant"}, 48, (.57, .67), (0, .06)), # crops of different nodules: hardly a person in them
    ("cxr", {"label": "No_Finding=0", "include": "nih256/*", "group": "patient_id"}, 128, (.75, .83), (.15, .5))])
def test_real_pictures(shared, name, given, size, expected, found_again):
    config = detect(shared / "data" / name, **given)
    data = load_folder(config, Preprocessing(size, crop=config.crop))
    sizes = np.array([len(jpeg2000.encode(p)) for p in data.images])
    assert expected[0] < label_attack(sizes, data.labels, data.patients, "size", seed=0, resamples=100)["auc"] < expected[1]
    attacker = Attacker(data.images, data.patients, line_up(data.patients, size=200, seed=0), seed=0, resamples=100)
    rows = pd.DataFrame([row for view in ("plain", "cbc") for row in attacker.rows(view, *seen_through(view, data.images[attacker.seen], random=seeded_bytes(0, view)))])
    by = rows.set_index(["view", "target", "attacker"]).sort_index()
    assert (by.loc["plain", "same picture"].rank1 > .99).all() and found_again[0] <= by.rank1["plain", "same patient", "learned"] <= found_again[1]
    assert (by.loc["cbc"].rank1_low <= by.loc["cbc"].chance).all()


def test_a_target_that_no_data_set_has_is_no_blank_panel():
    rows = pd.DataFrame([{"dataset": d, "view": v, "target": t, "n": n, "rank1": r, "rank1_low": r, "rank1_high": r, "chance": c} for d in ("film", "slices") for v in ("plain", "cbc")
                         for t, n, r, c in (("same picture", 20, .5, .05), ("same patient", 0, np.nan, np.nan) if d == "film" else ("same patient", 20, .2, .05))])
    figure = disclosure_charts.plot_identity(rows) # where every patient has one picture, nobody has another
    assert [axes.get_title(loc="left").split(" (")[0] or axes.get_title() for axes in figure.axes if axes.get_visible()] and len([axes for axes in figure.axes if axes.get_visible()]) == 3
    with pytest.raises(PlotError, match="no rank-1"): disclosure_charts.plot_identity(rows[rows.n == 0])
