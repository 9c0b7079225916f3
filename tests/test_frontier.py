"The frontier: the table, the answer for every outcome, the figure; on made-up tables."
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from matplotlib.text import Text

from medcrypt.core import RunPaths
from medcrypt.evaluation import frontier_charts
from medcrypt.evaluation.frontier import COLUMNS, DROP, FEWEST, RAW, SECOND, FrontierError, answer, frontier_table as whole_table, learners, left_out, noise_ssim, standing, verdicts
from medcrypt.evaluation.plots import PlotError, is_blank, load_table, save_figure, save_table, style
from medcrypt.evaluation.unmeasured import save_unmeasured

VIEWS = ("plain", "blocks-0.5", "le", "codestream", "cbc")


def tables(datasets=("a",), drop=(0, .05, .2, .4, .4), raw=(1, .2, .05, .006, .006), ssim=(.99, .8, .6, .35, .35), beats=(True, True, True, False, False), width=.004):
    "(performance, drops, attacks, sizes); drop, raw and ssim by view."
    performance, drops, attacks, sizes = [], [], [], {}
    for d in datasets:
        for view, lost, as_it_is, back, better in zip(VIEWS, drop, raw, ssim, beats):
            model = "masked-cnn" if view in ("plain", "blocks-0.5") else f"masked-cnn on {view}"
            performance.append({"dataset": d, "model": model, "view": view, "auc": .9 - lost, "auc_low": .88 - lost, "auc_high": .92 - lost, "images": 900, "prevalence": .4})
            if view != "plain": drops.append({"dataset": d, "reference": "masked-cnn on plain", "model": model, "view": view, "auc_drop": lost, "auc_drop_low": lost - width, "auc_drop_high": lost + width})
            for attack, k in (("learned", 1), ("classical", .9)):
                attacks.append({"dataset": d, "view": view, "attack": attack, "n": 64, "ssim": k * back, "ssim_low": k * back - .02, "ssim_high": min(1, k * back + .02), "ssim_mean_picture": .36, "ssim_as_it_is": as_it_is, "ssim_as_it_is_low": as_it_is - width / 2, "ssim_as_it_is_high": as_it_is + width / 2,
                                "auc": .6, "auc_low": .45, "auc_high": .9, "beats_mean": better and k == 1})
        sizes[d] = pd.DataFrame({"view": [*VIEWS, "jpeg2000"], "mean_bytes": [1050, 1500, 2000, 1200, 2000, 1000]})
    return pd.DataFrame(performance), pd.DataFrame(drops), pd.DataFrame(attacks), sizes


def identity(datasets=("a", "b", "c"), found=("plain",)):
    "Nobody finds a picture again, but in the named views."
    return pd.DataFrame([{"dataset": d, "view": v, "attacker": a, "target": "same picture", "rank1": (r := .9 if v in found else .01), "rank1_low": r - .01, "rank1_high": r + .04, "chance": .01} for d in datasets for v in VIEWS for a in ("correlation", "learned")])


def frontier_table(performance, drops, attacks, sizes, who=None, noise=None): return whole_table(performance, drops, attacks, sizes, identity() if who is None else who, noise)


def test_utility_is_that_of_a_masked_cnn_or_the_second_learner():
    performance, drops, attacks, sizes = tables(); better = performance[performance["view"].isin(["plain", "blocks-0.5"])].assign(model="plain-cnn", auc=.99, auc_low=.98, auc_high=1.)
    others = pd.DataFrame({"dataset": "a", "model": ["svm on hog", "view alone", "logistic regression", "logistic regression within view"], "view": ["plain", "covariate", "length", "length"], "auc": [.99, .99, .6, .61], "images": 900, "prevalence": .4})
    performance = pd.concat([better, performance, others], ignore_index=True).assign(verdict="chance")
    table = frontier_table(performance, drops, attacks, sizes).set_index("view")
    assert list(table.index) == list(VIEWS) or list(table.index) == ["plain", "blocks-0.5", "le", "codestream", "cbc"]
    assert table.model.tolist() == ["masked-cnn", "masked-cnn", *(f"masked-cnn on {v}" for v in table.index[2:])] and (table.reference == "masked-cnn").all() and np.allclose(table.auc_needed, .9 - DROP) and (table.verdict == "chance").all()
    assert (table.attack == "learned").all() and table.ssim_attack["le"] == .6 and table.bytes_ratio["cbc"] == 2 and table.auc_drop["plain"] == 0 and (table.n_attack == 64).all()
    assert table.loc["cbc", ["hidden_raw", "hidden_attack", "useful", "in_corner"]].tolist() == [True, "yes", False, False]
    assert left_out(performance, attacks) == {"a": ["length"]} and "view alone" not in set(learners(performance).model)


def second(view, auc, half=.004):
    "Rows of the support vector machine on all pixels: of performance and of drops."
    return pd.DataFrame([{"dataset": "a", "model": SECOND, "view": view, "auc": auc, "auc_low": auc - .02, "auc_high": auc + .02, "images": 900, "prevalence": .4}]), pd.DataFrame([{"dataset": "a", "reference": "masked-cnn on plain", "model": SECOND, "view": view, "auc_drop": .9 - auc, "auc_drop_low": .9 - auc - half, "auc_drop_high": .9 - auc + half}])


def test_the_better_learner_counts_but_on_plain():
    performance, drops, attacks, sizes = tables(); more = [second(v, auc) for v, auc in (("plain", .99), ("blocks-0.5", .7), ("le", .88), ("cbc", .5))]
    undefined = second("codestream", np.nan)[0]; both = pd.concat([performance, undefined, *(m[0] for m in more)]), pd.concat([drops, *(m[1] for m in more)])
    table = frontier_table(*both, attacks, sizes).set_index("view")
    assert table.model.to_dict() == {"plain": "masked-cnn", "blocks-0.5": "masked-cnn", "le": SECOND, "codestream": "masked-cnn on codestream", "cbc": "masked-cnn on cbc"} # of equals the network
    assert table.auc["le"] == .88 and table.auc_drop["le"] == pytest.approx(.02) and table.useful["le"] and table.auc["plain"] == .9 and table.auc_needed["le"] == pytest.approx(.87)
    gone = both[0][both[0].model != "masked-cnn on le"]
    assert frontier_table(gone, both[1], attacks, sizes).set_index("view").model["le"] == SECOND and left_out(gone, attacks) == {} and left_out(performance[performance["view"] != "le"], attacks) == {"a": ["le"]}


def test_a_better_plain_cnn_is_named():
    performance, drops, attacks, sizes = tables(drop=(0, .01, .2, .4, .4)); reverse = [{**row, "reference": "plain-cnn on plain", **{k: row[k] + .06 for k in ("auc_drop", "auc_drop_low", "auc_drop_high")}} for row in drops.to_dict("records")]
    reverse.append({**reverse[0], "model": "masked-cnn", "view": "plain", "auc_drop": .06, "auc_drop_low": .05, "auc_drop_high": .07})
    cnn = lambda high: pd.DataFrame([{"dataset": "a", "reference": "masked-cnn on plain", "model": "plain-cnn", "view": "plain", "auc_drop": -.06, "auc_drop_low": -.08, "auc_drop_high": high}])
    of = lambda *more: frontier_table(performance, pd.concat([drops, *more]), attacks, sizes)
    table = of(pd.DataFrame(reverse), cnn(-.04)); clause = "blocks-0.5 keeps the Masked-CNN's AUC at SSIM 0.200 [0.198, 0.202], loses 0.070 of a plain CNN's"
    assert np.allclose(table.auc_drop_plain_cnn, [.06, .07, .26, .46, .46]) and np.allclose(table.auc_drop_plain_cnn_high - table.auc_drop_plain_cnn, [.01, *[.004] * 4]) and (table.plain_cnn_better == "yes").all() and table.useful["blocks-0.5" == table["view"]].all()
    assert clause in answer(table) and answer(table).count("loses 0.070 of a plain CNN's") == 2
    kept = pd.DataFrame(reverse).assign(auc_drop=.01, auc_drop_low=0., auc_drop_high=.02) # of a plain CNN's too
    for other, word in ((of(pd.DataFrame(reverse), cnn(.01)), "undecided"), (of(cnn(-.04)), "yes"), (of(), "undecided"), (of(kept, cnn(-.04)), "yes")): assert "plain CNN" not in answer(other) and set(other.plain_cnn_better) == {word}
    assert of().auc_drop_plain_cnn.isna().all() and tuple(of().drop(columns=[c for c in of() if "noise" in c])) == tuple(c for c in COLUMNS if "noise" not in c)


def test_a_label_read_or_a_picture_found_is_not_hidden():
    made = tables(drop=(0, .05, .2, .4, .01)); told = made[2].assign(auc=lambda f: f.auc.mask(f["view"] == "cbc", .88), auc_low=lambda f: f.auc_low.mask(f["view"] == "cbc", .8))
    hidden = lambda attacks, who=None: frontier_table(made[0], made[1], attacks, made[3], who).set_index("view").loc["cbc"]
    assert hidden(made[2]).in_corner_attack and hidden(told).told == "yes" and hidden(told).hidden_attack == "no" and not hidden(told).in_corner_attack
    row = hidden(made[2], identity(found=("cbc",))); assert (row.identified, row.hidden_attack, row.in_corner_attack) == ("yes", "no", False) and row.rank1_attacker == "correlation"
    patient = identity(found=("cbc",)).assign(target="same patient"); row = hidden(made[2], pd.concat([identity(), patient], ignore_index=True)); assert row.identified == "no" and row.rank1 == .01
    assert hidden(made[2], patient).hidden_attack == "undecided" and whole_table(*made).set_index("view").hidden_attack["cbc"] == "undecided" # nobody tried
    barely = made[2].assign(auc=.6, auc_low=.501); assert hidden(barely).told == "no" # one of two attacks, by luck
    assert "pictures found" in answer(frontier_table(*tables(drop=(0, .01, .2, .4, .4)), identity(found=("blocks-0.5",))))


def test_what_is_not_defined_is_never_hidden():
    made = tables(drop=(0, .05, .2, .4, .01)); attacks = made[2].assign(beats_mean=made[2].beats_mean.astype(object))
    for unknown in (None, np.nan):
        attacks.loc[(attacks["view"] == "cbc") & (attacks.attack == "learned"), "beats_mean"] = unknown; table = frontier_table(made[0], made[1], attacks, made[3])
        assert table.set_index("view").hidden_attack["cbc"] == "undecided" and not table.in_corner_attack.any() and verdicts(table)["best", "a"] == "undecided"


def test_few_pictures_do_not_decide_and_the_ungated_attack_only_tells():
    performance, drops, attacks, sizes = tables(); row = attacks[(attacks["view"] == "le") & (attacks.attack == "learned")]
    lucky = row.assign(attack="jigsaw", n=8, ssim=.7, ssim_mean_picture=.3, ssim_as_it_is=.001, ssim_as_it_is_low=0., ssim_as_it_is_high=.002)
    ungated = lambda beats: row.assign(attack="learned, ungated", ssim=.99, beats_mean=beats, auc=.95, auc_low=.9, n=100)
    found = lambda beats, rest=attacks: frontier_table(performance, drops, pd.concat([lucky, rest, ungated(beats)], ignore_index=True), sizes).set_index("view").loc["le"]
    for beats in (False, None, np.nan):
        table = found(beats); assert table.attack == "jigsaw" and table.n_attack == 8 and table.ssim_raw == .05 and table.n_raw == 64 and not table.hidden_raw and table.auc_attack == .95 and table.n_auc_attack == 100 and table.told == "yes"
    assert found(True).attack == "learned, ungated" and found(True).ssim_attack == .99 and found(True).n_attack == 100


def test_the_ungated_attack_counts_where_it_beats_the_mean_picture():
    "Table 8 says of each try whether it does, and table 10 says the same."
    performance, drops, attacks, sizes = tables(beats=(True, True, False, False, False)); row = attacks[(attacks["view"] == "le") & (attacks.attack == "learned")].assign(attack="learned, ungated")
    of = lambda beats, rest=attacks: frontier_table(performance, drops, pd.concat([rest, row.assign(beats_mean=beats)], ignore_index=True), sizes).set_index("view")
    assert of(False).loc["le", ["beats_mean", "hidden_attack"]].tolist() == ["no", "yes"] and of(True).loc["le", ["beats_mean", "hidden_attack"]].tolist() == ["yes", "no"]
    rest = attacks[attacks["view"] != "le"]; assert "le" not in of(False, rest).index and of(True, rest).attack["le"] == "learned, ungated" # nothing else was tried
    assert left_out(performance, pd.concat([rest, row])) == {"a": ["le"]} and left_out(performance, pd.concat([rest, row.assign(beats_mean=True)])) == {}


def test_what_fewer_than_fifty_pictures_tell_is_undecided():
    made = tables(drop=(0, .05, .2, .4, .01)); row = made[2][(made[2]["view"] == "cbc") & (made[2].attack == "learned")].assign(attack="jigsaw", auc=.9, auc_low=.8)
    of = lambda *more: frontier_table(made[0], made[1], pd.concat([made[2], *more], ignore_index=True), made[3]).set_index("view").loc["cbc"]
    assert (of().told, of(row.assign(n=FEWEST - 1)).told, of(row.assign(n=FEWEST)).told, of(row.assign(n=16), row.assign(n=200)).told) == ("no", "undecided", "yes", "yes") and of(row.assign(n=16, auc_low=.49)).told == "no"
    few = of(row.assign(n=16)); assert (few.hidden_attack, few.n_auc_attack, few.auc_attacker, few.n_attack) == ("undecided", 16, "jigsaw", 64) and not few.in_corner_attack


def test_what_is_read_from_a_few_pictures_does_not_stand_for_what_is_shown():
    performance, drops, attacks, sizes = tables(); row = attacks[(attacks["view"] == "le") & (attacks.attack == "learned")].assign(auc=.92, auc_low=.86, auc_high=.97)
    few = row.assign(attack="jigsaw", n=8, auc=.99, auc_low=.6, auc_high=1.)
    found = frontier_table(performance, drops, pd.concat([few, attacks[attacks["view"] != "le"], row], ignore_index=True), sizes).set_index("view").loc["le"]
    assert (found.auc_attack, found.auc_attack_low, found.auc_attacker) == (.92, .86, "learned")


def test_a_bar_is_that_of_the_repetitions_that_both_have():
    performance, drops, attacks, sizes = tables()
    drops.loc[drops["view"] == "le", ["auc_drop", "auc_drop_low", "auc_drop_high"]] += .01 # one repetition, in which plain pictures went better
    table = frontier_table(performance, drops, attacks, sizes).set_index("view")
    assert table.auc_needed["le"] == pytest.approx(table.auc_needed["plain"] + .01) and table.auc_needed["plain"] == pytest.approx(.9 - DROP)


def test_negative_ssim_is_no_better_and_noise_is_named():
    made = tables(drop=(0, .05, .2, .4, .01), raw=(1, .2, .05, -.3, -.3)); table = frontier_table(*made); assert not table.hidden_raw.any() and verdicts(table)["raw", "a"] == "no"
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32), dtype=np.uint8); noise = noise_ssim(images, np.arange(40), count=30, seed=1, resamples=100)
    assert noise == noise_ssim(images, np.arange(40), count=30, seed=1, resamples=100) and abs(noise["ssim_noise"]) < .03 and noise["ssim_noise_low"] <= noise["ssim_noise"] <= noise["ssim_noise_high"]
    loud = {"a": {"ssim_noise": .012, "ssim_noise_low": .008, "ssim_noise_high": .016}}; assert "even noise fails: 0.012 [0.008, 0.016]" in answer(frontier_table(*made, noise=loud)) and "noise" not in answer(table) + answer(frontier_table(*tables(), noise=loud)) # where a view passes noise is no excuse


def test_without_an_interval_nothing_is_shown_to_be_inside():
    performance, drops, attacks, sizes = tables(drop=(0, .01, .01, .01, .01))
    table = frontier_table(performance, drops[:0], attacks.drop(columns=["ssim_as_it_is_low", "ssim_as_it_is_high"]), sizes)
    assert not table[1:].useful.any() and not table.hidden_raw.any() and set(standing(table).useful) == {"undecided"} and standing(table).as_it_is.tolist() == ["no", "no", "undecided", "undecided"] and table.auc_drop[1] == pytest.approx(.01)


def test_undefined_scores_are_left_out():
    performance, drops, attacks, sizes = tables()
    performance.loc[performance["view"] == "le", "auc"] = np.nan; attacks.loc[attacks["view"] == "cbc", "ssim"] = np.nan
    assert frontier_table(performance, drops, attacks, sizes)["view"].tolist() == ["plain", "blocks-0.5", "codestream"] and left_out(performance, attacks) == {"a": ["le", "cbc"]}


def test_bad_tables_are_named():
    performance, drops, attacks, sizes = tables()
    for call, words in ((lambda: frontier_table(performance.drop(columns="auc"), drops, attacks, sizes), "performance: no column auc"), (lambda: frontier_table(performance, drops.drop(columns="reference"), attacks, sizes), "drops"), (lambda: frontier_table(performance, drops, attacks.drop(columns=["ssim", "n"]), sizes), "n, ssim"),
                        (lambda: frontier_table(performance[performance["view"] != "plain"], drops, attacks, sizes), "on plain"), (lambda: frontier_table(performance, drops, attacks, {}), "sizes"), (lambda: standing(frontier_table(performance, drops, attacks[attacks["view"] == "plain"], sizes)), "hides something")):
        with pytest.raises(FrontierError, match=words): call()


def test_where_nothing_was_attacked_the_answer_says_so(tmp_path):
    performance, drops, attacks, sizes = tables(); run = RunPaths(tmp_path)
    save_unmeasured(attacks, "table8_attacks", run, "Not measured in this run: a: not attacked."); save_unmeasured(identity(), "table9_identity", run, "Not measured in this run.")
    read = load_table("table8_attacks", run), load_table("table9_identity", run)
    for table in (whole_table(performance, drops, read[0], sizes, read[1]), frontier_table(performance, drops, attacks[:0], sizes)):
        assert table.empty and tuple(table) == COLUMNS and answer(table).startswith("Not measured in this run")
    assert answer(frontier_table(performance, drops, attacks[attacks["view"] == "plain"], sizes)) == answer(table) and tuple(frontier_table(*tables(), noise={"a": dict.fromkeys(("ssim_noise", "ssim_noise_low", "ssim_noise_high"), .01)})) == COLUMNS
    assert whole_table(*tables(("a", "b"))[:2], attacks, tables(("a", "b"))[3], read[1])["dataset"].unique().tolist() == ["a"] # one of two


def test_a_table_without_rows_has_its_columns_and_a_reason(tmp_path):
    run = RunPaths(tmp_path); made = save_unmeasured(["dataset", "auc", "auc_low", "auc_high"], "table9_x", run, " Too few. ")
    assert made.empty and list(load_table("table9_x", run)) == ["dataset", "auc", "auc_low", "auc_high"] and run.table("table9_x").with_suffix(".md").read_text() == "Too few.\n\n| dataset | auc |\n| :-- | :-- |\n"
    for columns, reason in (([], "why"), (["a"], " ")):
        with pytest.raises(PlotError): save_unmeasured(columns, "table9_x", run, reason)


NO = dict(drop=(0, .01, .2, .4, .4)) # useful and readable, or hidden and useless
YES = dict(drop=(0, .05, .2, .4, .01)) # cbc read by a network: what the paper says
CROSS = dict(drop=(0, .05, .2, .4, .028)) # its drop's interval crosses .03
RAW_ONLY = dict(drop=(0, .01, .2, .4, .4), raw=(1, .003, .05, .006, .006)) # unlike the picture as it is, and reconstructed
RAW_CROSS = dict(drop=(0, .01, .2, .4, .4), raw=(1, .0095, .05, .006, .006))
ATTACK_ONLY = dict(drop=(0, .01, .2, .4, .4), ssim=(.99, .3, .6, .35, .35), beats=(True, False, True, False, False)) # no attack, though .2 as it is


@pytest.mark.parametrize("made, raw, best", [(NO, "no", "no"), (YES, "yes", "yes"), (CROSS, "undecided", "undecided"), (RAW_ONLY, "yes", "no"), (RAW_CROSS, "undecided", "no"), (ATTACK_ONLY, "no", "yes")])
def test_every_answer(made, raw, best):
    table = frontier_table(*tables(**made)); text = answer(table, {"a": "made-up pictures"}); first, second = text.split(". Against ")
    say = {"yes": "hold together:", "no": "do not hold together", "undecided": "are undecided:"}
    assert verdicts(table) == {("raw", "a"): raw, ("best", "a"): best} and f"claims {say[raw]}" in first and f"they {say[best]}" in second and text.endswith(".") and text.count(". ") == 1 and text.count("on made-up pictures") == 2
    if raw == "no": assert "do not hold together in any of 4 views:" in first and ("the AUC at SSIM" in first or "no view keeps the AUC" in first)
    assert max(len(sentence.split()) for sentence in (first, second)) <= 50
    assert table.in_corner.any() == (raw == "yes") and table.in_corner_attack.any() == (best == "yes")


def test_data_sets_that_disagree():
    parts = [frontier_table(*tables((name,), **made)) for name, made in (("a", YES), ("b", NO), ("c", CROSS))]; text = answer(pd.concat(parts, ignore_index=True))
    assert text.count("depend on the data:") == 2 and text.count(". ") == 1 and "on a cbc has both" in text and "on b none of 4 views has both" in text and "on c cbc cannot be decided" in text
    assert verdicts(pd.concat(parts))["best", "b"] == "no" and "do not hold together in any of 4 views: on a, blocks-0.5 keeps" in answer(frontier_table(*tables(("a", "b"), **NO)))


@pytest.mark.parametrize("made", [NO, YES, CROSS, RAW_ONLY, RAW_CROSS, ATTACK_ONLY])
def test_two_data_sets_make_two_short_sentences(made):
    loud = {d: {"ssim_noise": .012, "ssim_noise_low": .008, "ssim_noise_high": .016} for d in "ab"}
    text = answer(frontier_table(*tables(("a", "b"), **made), identity(found=("plain", "blocks-0.5")), loud), {"a": "radiograph phantom", "b": "CT phantom"})
    assert text.count(". ") == 1 and max(len(sentence.split()) for sentence in text.split(". ")) <= 60


def test_nothing_useful_and_nothing_hidden():
    assert "no view keeps the AUC" in answer(frontier_table(*tables(drop=(0, .2, .2, .4, .4))))
    alone = tables(drop=(0, .2, .2, .4, .4)); alone = (*(t[t["view"].isin(["plain", "cbc"])] for t in alone[:3]), alone[3])
    assert "do not hold together in the only view: on a, no view keeps the AUC" in answer(frontier_table(*alone))


def test_a_few_pictures_show_neither_that_a_label_is_read_nor_that_none_is():
    made = tables(); few = frontier_table(made[0], made[1], made[2].assign(n=16), *made[3:])
    assert set(few.told) == {"undecided"} and not (few.hidden_attack == "yes").any()
    assert "no" in set(frontier_table(*made).told)


def test_a_loss_from_a_plain_cnn_is_told_where_it_is_shown():
    for low, told in ((-.05, False), (.035, True)):
        performance, drops, attacks, sizes = tables(**NO); more = [{"dataset": "a", "reference": f"{r} on plain", "model": m, "view": v, "auc_drop": x, "auc_drop_low": a, "auc_drop_high": b} for r, m, v, x, a, b in (("masked-cnn", "plain-cnn", "plain", -.05, -.06, -.04), ("plain-cnn", "masked-cnn", "blocks-0.5", .04, low, .05))]
        text = answer(frontier_table(performance, pd.concat([drops, pd.DataFrame(more)], ignore_index=True), attacks, sizes))
        assert ("of a plain CNN's" in text) == told


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-.05, .5), st.floats(0, .1), st.floats(0, .9), st.floats(0, .05), st.booleans()), min_size=4, max_size=4))
def test_the_corner_is_never_entered_without_both(rows):
    performance, drops, attacks, sizes = tables(drop=(0, *(r[0] for r in rows)), raw=(1, *(r[2] for r in rows)), beats=(True, *(r[4] for r in rows)))
    for (lost, half, *_), i in zip(rows, drops.index): drops.loc[i, ["auc_drop_low", "auc_drop_high"]] = lost - half, lost + half
    table = frontier_table(performance, drops, attacks, sizes); found = standing(table)
    inside = table[table.in_corner]
    assert (inside.auc_drop_high <= DROP).all() and (inside.ssim_raw_high < RAW).all() and (inside.ssim_raw_low > -RAW).all() and (table.in_corner[1:].to_numpy() == (found.raw == "yes").to_numpy()).all() and (table.in_corner_attack[1:].to_numpy() == (found.best == "yes").to_numpy()).all()
    assert not ((found.useful == "no") & (found.raw != "no")).any() and answer(table).count(". ") == 1


def test_table_answer_and_figure_are_saved_alike_twice(tmp_path):
    table = frontier_table(*tables(("a", "b"))); runs = [RunPaths(tmp_path / str(k)) for k in range(2)]
    for run in runs: save_table(table, "table10_frontier", run, answer(table)); save_figure(frontier_charts.plot_frontier(table), "figure_frontier", run, table)
    files = [{p.name: p.read_bytes() for p in run.figures.iterdir()} for run in runs]
    assert files[0] == files[1] and len(files[0]) == 5 and not is_blank(runs[0].figure("figure_frontier"))


def crowded(datasets=2):
    views = ["plain", *(f"blocks-{r}" for r in (.1, .25, .5, .75, .9)), "roi", *(f"{k}-{r}" for k in ("resolution", "details") for r in (2, 4, 8)), *(f"{k}{e}" for k in ("le", "ele", "etc", "pixel", "neuracrypt", "ecb") for e in ("", "-each")), "cbc-fixed-iv", "cbc", "codestream"]
    draw = np.random.default_rng(0); auc = np.r_[np.full(14, .9), np.full(14, .5)]
    return pd.concat(pd.DataFrame({"dataset": f"radiographs (synthetic, {64 * k} x {64 * k})", "view": views, "n": 4000, "auc": auc, "auc_low": auc - .02, "auc_high": auc + .02, "ssim_attack": draw.random(28), "ssim_raw": draw.random(28), "ssim_mean_picture": .3, "auc_needed": .87, "bytes_ratio": 1.4}) for k in range(1, 1 + datasets))


@pytest.mark.parametrize("frame", [crowded(1), crowded(2), crowded(3), frontier_table(*tables())], ids=["one", "two", "three", "few"])
def test_names_are_all_there_and_none_covers_another(frame):
    figure = frontier_charts.plot_frontier(frame)
    with style():
        figure.draw_without_rendering()
        for axes, (_, part) in zip(figure.axes, frame.groupby("dataset", sort=False)):
            labels = [text for text in axes.findobj(Text) if text.get_text() in set(part["view"])]; boxes = [text.get_window_extent() for text in labels]
            assert sorted(t.get_text() for t in labels) == sorted(part["view"]) and not any(a.y0 + 1 < b.y1 and b.y0 + 1 < a.y1 for a, b in itertools.combinations(boxes, 2))
            assert all(-2 <= b.x0 and b.x1 <= figure.bbox.width + 2 for b in boxes)
    assert not is_blank(figure)


def test_views_that_tell_nothing_are_named_in_one_heap():
    frame = crowded(1); mute = frame["auc"] == .5; frame.loc[mute, "ssim_attack"] = .3 + np.linspace(-.015, .015, mute.sum()); far = frame.index[mute][0]; frame.loc[far, "ssim_attack"] = .5 # at chance, but a picture comes back
    known = frame.index[mute][1]; frame.loc[known, ["auc", "auc_low", "auc_high"]] = .6, .57, .63                                                                              # no picture, but the label
    heap = set(frame["view"][mute]) - {frame["view"][far], frame["view"][known]}
    axes, = frontier_charts.plot_frontier(frame).axes; places = {t.get_text(): t.xy[1] for t in axes.texts if t.get_text() in set(frame["view"])}
    assert max(places[v] for v in heap) < min(y for v, y in places.items() if v not in heap) and len(places) == len(frame)  # theirs stand together, lowest
    ends = {line.get_ydata()[-1] for line in axes.lines if len(line.get_xdata()) == 2 and line.get_xdata()[-1] == 1.04}
    assert ends == {y for v, y in places.items() if v not in heap}                                                            # the others have a line each
    bracket, = (line for line in axes.lines if len(line.get_xdata()) == 4)
    assert set(bracket.get_ydata()) == {min(places[v] for v in heap), max(places[v] for v in heap)}
    two = frame[~frame["view"].isin(sorted(heap)[2:])]; axes, = frontier_charts.plot_frontier(two).axes
    assert not any(len(line.get_xdata()) == 4 for line in axes.lines) and sum(len(line.get_xdata()) == 2 and line.get_xdata()[-1] == 1.04 for line in axes.lines) == len(two) # two are no heap


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(.001, .2))
def test_places_are_spread_in_order_and_inside(places, gap):
    found, room = frontier_charts.spread(np.array(places), gap, 0, 1), min(gap, 1 / max(1, len(places) - 1))
    assert (np.diff(found[np.argsort(places, kind="stable")]) >= room - 1e-9).all() and -1e-9 <= found.min() and found.max() <= 1 + 1e-9


def test_a_frontier_without_its_columns_is_refused():
    with pytest.raises(PlotError, match="no column"): frontier_charts.plot_frontier(pd.DataFrame({"zzz": [1]}))
