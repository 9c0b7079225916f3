"""The ledger: each verdict follows from the tables, and changes when they do."""
import pandas as pd
import pytest

from medcrypt.evaluation import claims, report
from medcrypt.evaluation.claims import CLAIMS, VERDICTS, ClaimError, ledger


def interval(name, value, half=.01): return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}


def tables(cbc=("chance", .5), ratio=1.0001, exact=10, source="phantom", auc=.9, granted=False, ssim=.002, phash=32., half=.005, agree=.9, p=.5, group=""):
    data = pd.DataFrame([{"dataset": d, "title": d.upper(), "modality": m, "label": "x", "rows": 32, "synthetic": source == "phantom", "source": source if m == "CXR" else "phantom"} for d, m in (("a", "CXR"), ("b", "CT"))])
    score = lambda d, model, view, auc, verdict: {"dataset": d, "model": model, "view": view, "images": 100, "patients": 50, "prevalence": .4, "verdict": verdict, "p_value": p,
                                                  **{k: v for s in ("auc", "f1", "accuracy", "precision", "recall") for k, v in interval(s, auc).items()}}
    rows = [score(d, *r) for d in "ab" for r in (("masked-cnn", "plain", auc, "not chance"), ("plain-cnn", "plain", auc, "not chance"), ("masked-cnn", "blocks-0.5", auc - .02, "not chance"), ("masked-cnn on cbc", "cbc", cbc[1], cbc[0]))]
    drop = [{"dataset": d, "reference": ref, "model": m, "view": v, **interval("auc_drop", x, half)} for d in "ab" for ref in ("masked-cnn on plain", "plain-cnn on plain") for m, v, x in (("masked-cnn", "blocks-0.5", .02), ("masked-cnn on cbc", "cbc", auc - cbc[1]))]
    sizes = {"dicom": 8., "raw": 8., "jpeg2000": 2., "encrypted": 2 * ratio, "base85": 2.5 * ratio}
    storage = [{"group": group + g, "modality": m, "format": f, "n": 5, "size_mb": s, "overhead_bytes_min": 100, "overhead_bytes_max": 150, "overhead_percent": 25. if f == "base85" else .01}
               for g, m in (("x", "CXR"), ("y", "CT")) for f, s in sizes.items()]
    leakage = [{"dataset": d, "view": "cbc", "metric": m, "ideal": i, **interval("measured", x, .003)} for d in "ab" for m, x, i in (("SSIM(plain, cipher)", ssim, .003), ("pHash distance (bits)", phash, 32.))]
    fidelity = [{"dataset": d, "objects": 10, "bit_exact": exact, "flips": 8, "flips_detected": 8, "agreement_decrypted": 1.0, "agreement_encrypted_view": agree, "kappa_encrypted_view": .8, **interval("auc_difference", .02)} for d in "ab"]
    latency = [{"dataset": "a", "batch": 1, "stage": s, "ratio": 1.3} for s in ("decrypting path", "keyless path")]
    access = pd.DataFrame([{"granted": True, "expected": True, "ledger_intact": True}, {"granted": granted, "expected": False, "ledger_intact": True}])
    return {"table0_data": data, "table1_performance": pd.DataFrame(rows), "table1_drop": pd.DataFrame(drop), "table2_storage": pd.DataFrame(storage), "table3_leakage": pd.DataFrame(leakage),
            "table4_fidelity": pd.DataFrame(fidelity), "table5_latency": pd.DataFrame(latency), "table_access": access}


def verdict(claim, **changes): return ledger(tables(**changes)).set_index("id").verdict[claim]


def test_every_claim_of_the_paper_is_there_once():
    ids = [c.id for c in CLAIMS]
    assert len(ids) == len(set(ids)) == 21
    found = ledger(tables())
    assert set(found.verdict) <= set(VERDICTS) and list(found.id) == ids and found.reason.str.len().min() > 20


NIH = {"source": "NIH ChestX-ray14"}


@pytest.mark.parametrize("claim, changes, wanted", [
    ("T1-nih-enc", {}, "impossible"), ("T1-nih-enc", {"cbc": ("undecided", .52)}, "not reproduced"), ("T1-lidc-enc", {"cbc": ("not chance", .8)}, "not reproduced"),
    ("T1-nih-plain", {}, "unspecified"), ("T1-nih-plain", {**NIH, "auc": .895}, "not reproduced"), ("T1-nih-plain", {**NIH, "auc": .85}, "not reproduced"), ("T1-nih-plain", {**NIH, "auc": .93}, "not reproduced"),
    ("T1-lidc-plain", {**NIH, "auc": .93}, "unspecified"),
    ("drop", {}, "not reproduced"), ("drop", {"cbc": ("not chance", .872)}, "reproduced"), ("drop", {"cbc": ("not chance", .872), "half": .3}, "unspecified"),
    ("T2-nih", {}, "not reproduced"), ("T2-nih", {"ratio": 1.25}, "reproduced"), ("T2-lidc", {"ratio": 1.235}, "reproduced"),
    ("overhead", {}, "contradictory"), ("direct", {}, "contradictory"),
    ("ssim", {}, "reproduced"), ("ssim", {"ssim": .008}, "unspecified"), ("ssim", {"ssim": .02}, "not reproduced"), ("ssim", {"ssim": -.02}, "not reproduced"),
    ("phash", {}, "not reproduced"), ("phash", {"phash": 63.5}, "reproduced"),
    ("lossless", {}, "reproduced"), ("lossless", {"exact": 9}, "not reproduced"), ("verify", {}, "not reproduced"), ("verify", {"agree": .97}, "reproduced"),
    ("access", {}, "reproduced"), ("access", {"granted": True}, "not reproduced"),
    ("siam", {"group": "real "}, "reproduced"), ("siam", {"ratio": 2., "group": "real "}, "not reproduced"), ("siam", {"group": "phantom "}, "unspecified"), ("latency", {}, "unspecified"), ("prec-rec", {}, "unspecified"),
])
def test_verdicts_follow_the_tables(claim, changes, wanted): assert verdict(claim, **changes) == wanted


def test_one_modality_alone_still_makes_a_ledger():
    only = {name: t[t.dataset == "b"] if "dataset" in t and name != "table5_latency" else t for name, t in tables().items()}
    only["table2_storage"] = only["table2_storage"].query("modality == 'CT'")
    found = ledger(only).set_index("id")
    assert found.verdict["T1-nih-enc"] == "unspecified" and found.verdict["T2-nih"] == "unspecified" and found.verdict["T1-lidc-enc"] == "impossible"


@pytest.mark.parametrize("name", ["table0_data", "table1_performance", "table1_drop", "table2_storage", "table3_leakage", "table4_fidelity", "table5_latency", "table_access"])
def test_a_missing_table_is_named(name):
    with pytest.raises(ClaimError, match=name): ledger({k: v for k, v in tables().items() if k != name})


def test_the_text_fits_a_terminal_and_names_every_claim():
    found = ledger(tables())
    text = report.as_text(found, "A caption. " * 30, width=100)
    assert max(map(len, text.splitlines())) <= 100 and all(i in text for i in found.id) and "21 claims" in text


def test_all_three_scores_must_be_near_for_reproduced():
    t = tables(**NIH); row = (t["table1_performance"].dataset == "a") & (t["table1_performance"]["view"] == "plain")
    for name, value in (("auc", .921), ("f1", .873), ("accuracy", .889)): t["table1_performance"].loc[row, name] = value
    assert ledger(t).set_index("id").verdict["T1-nih-plain"] == "reproduced"
    t["table1_performance"].loc[row, "f1"] = .8
    assert ledger(t).set_index("id").verdict["T1-nih-plain"] == "not reproduced"


@pytest.mark.parametrize("drops, wanted", [({.25: .01, .5: .02, .75: .1}, .5), ({.25: .1, .5: .01}, None), ({.25: .02}, .25), ({.25: .0319}, None)])
def test_reach_counts_the_upper_end_and_stops_at_the_first_failure(drops, wanted):
    rows = pd.DataFrame([{"dataset": "a", "reference": "plain-cnn on plain", "model": "masked-cnn", "view": f"blocks-{p:g}", **interval("auc_drop", x, .005)} for p, x in drops.items()])
    assert claims.reach(rows, "a") == wanted


def test_base85_is_counted_against_what_it_encodes():
    found = ledger(tables()).set_index("id")
    assert "Base85 text is 25% larger" in found.reason["overhead"]
