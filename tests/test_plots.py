"Figures and tables: same bytes on every run, nothing blank, nothing private, readable for people."
import json, os, platform, subprocess, sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

import medcrypt.evaluation.charts as charts
import medcrypt.evaluation.frontier_charts as frontier_charts
import medcrypt.evaluation.leakage_charts as leakage_charts
from medcrypt.core import RunPaths
from medcrypt.evaluation.intervals import Interval
from medcrypt.evaluation.plots import (PlotError, code_hash, format_interval, format_number, is_blank, load_table, new_figure, readable, save_figure, save_table, style, view_style, write_manifest)

FRAME = pd.DataFrame({"dataset": ["x"] * 3, "view": ["plain", "blocks-0.5", "cbc"], "auc": [.9, .85, .5], "auc_low": [.88, .83, .47], "auc_high": [.92, .87, .53], "n": [2000] * 3, "leakage": [1, .9, .01],
                      "ratio": [0, .5, 1]})
STORAGE = pd.DataFrame({"group": "x", "format": ["dicom", "jpeg2000", "encrypted"], "n": 9, "size_mb": [7.8, 1.2, 1.2], "size_mb_low": [7, 1, 1], "size_mb_high": [8, 1.3, 1.3], "ratio": [1, .154, .154]})
LEAKAGE = pd.DataFrame({"metric": ["NPCR", "UACI"], "n": 9, "measured": [.996, .3], "measured_low": [.995, .29], "measured_high": [.997, .31], "ideal": [.9961, .3346], "ideal_low": [.9957, .333], "ideal_high": [np.nan, .336], "passes": [True, False]})
SENSITIVITY = pd.DataFrame({"dataset": "x", "view": ["cbc", "le"], "change": ["key bit", "nothing"], "metric": "NPCR", "n": 9, "measured": [.996, 0], "measured_low": [.995, 0], "measured_high": [.997, 0], "theory": [.9961, np.nan]})
LATENCY = pd.DataFrame({"stage": ["a", "b"], "n": 9, "median_ms": [1, 10.], "p95_ms": [2, 12.], "first_ms": [30, 40.]})
CURVES = pd.DataFrame({"dataset": "x", "view": "plain", "false_positive_rate": np.linspace(0, 1, 9), "true_positive_rate": np.linspace(0, 1, 9) ** .3})
PICTURE = np.linspace(0, 1, 64).reshape(8, 8)
BYTES = np.random.default_rng(0).integers(0, 256, (4, 16, 16), dtype=np.uint8)

FRONTIER = FRAME.assign(ssim_attack=[.9, .5, .3], ssim_mean_picture=.3, auc_needed=.87)

TWO = pd.concat([FRAME.assign(second=False), FRAME[:2].assign(second=True, auc=[.8, np.nan]), FRAME[:1].assign(second=True, view="le", auc=.7, auc_low=.6, auc_high=.75)])

EVERY = {
    "roc": lambda: charts.plot_roc(CURVES), "ladder": lambda: charts.plot_ladder(FRAME), "two_learners": lambda: charts.plot_ladder(TWO), "ratio": lambda: charts.plot_ratio(FRAME), "storage": lambda: charts.plot_storage(STORAGE),
    "leakage": lambda: leakage_charts.plot_leakage(LEAKAGE), "histograms": lambda: leakage_charts.plot_histograms({"plain": BYTES // 2, "cipher": BYTES}),
    "silhouette": lambda: leakage_charts.plot_silhouette({"noise": {"plain": BYTES[:2] // 128, "cipher": BYTES[2:]}, "large noise": {"plain": np.tile(BYTES[:2], (1, 3, 3)), "cipher": np.tile(BYTES[2:], (1, 3, 3))}}), "sensitivity": lambda: leakage_charts.plot_sensitivity(SENSITIVITY), "latency": lambda: charts.plot_latency(LATENCY),
    "fidelity": lambda: charts.plot_fidelity(pd.DataFrame({"dataset": "x", "a": [.1, .9], "b": [.1, .8], "threshold": .5})), "frontier": lambda: frontier_charts.plot_frontier(FRONTIER),
    "examples": lambda: charts.plot_examples([PICTURE] * 3, ["a", "b", "c"]), "pipeline": lambda: charts.plot_pipeline([("one", PICTURE, "note"), ("two", None, "text only")]),
    "architecture": lambda: charts.plot_architecture([("a", "A", "text", 0, 0), ("b", "B", "text", 1, 0)], [("a", "b", "goes")])}

@pytest.mark.parametrize("name", EVERY)
def test_every_chart_is_saved_alike_twice(name, tmp_path):
    runs = [RunPaths(tmp_path / str(k)) for k in range(2)]
    paths = [save_figure(EVERY[name](), name, run, FRAME) for run in runs]
    for end in (".png", ".svg", ".csv"): assert paths[0].with_suffix(end).read_bytes() == paths[1].with_suffix(end).read_bytes(), end
    assert not is_blank(paths[0]) and sorted(os.listdir(runs[0].figures)) == sorted(f"{name}{end}" for end in (".png", ".svg", ".csv"))

FIVE = ["radiographs (synthetic, 64 x 64)", "ChestX-ray14 sample, effusion, pixels of the files", "nih", "LIDC-IDRI sample, malignancy, DICOM files", "folder"]
wide = lambda frame, column="dataset": pd.concat([frame.assign(**{column: name}) for name in FIVE])
MANY = {"many roc": lambda: charts.plot_roc(wide(CURVES)), "many ladder": lambda: charts.plot_ladder(wide(FRAME)), "many with two learners": lambda: charts.plot_ladder(wide(TWO)), "many ratio": lambda: charts.plot_ratio(wide(FRAME)), "many storage": lambda: charts.plot_storage(wide(STORAGE, "group")),
        "many latency": lambda: charts.plot_latency(wide(LATENCY, "group")), "many frontier": lambda: frontier_charts.plot_frontier(wide(FRONTIER))}

@pytest.mark.parametrize("name", [*EVERY, *MANY])
def test_text_is_inside_and_large_enough(name):
    from matplotlib.text import Text
    figure = {**EVERY, **MANY}[name]()
    with style():
        figure.draw_without_rendering()
        width, height = figure.bbox.width, figure.bbox.height
        ticks = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.majorTicks + axis.minorTicks for label in (tick.label1, tick.label2)}
        titles = [text for axes in figure.axes for text in (axes.title, axes._left_title, axes.xaxis.label) if text.get_text() and axes.axison]
        for text in figure.findobj(Text):
            if text in ticks: continue # labels of ticks beyond the limits exist but are not drawn
            if not text.get_visible() or not text.get_text().strip() or text.axes is not None and not text.axes.get_visible(): continue
            box = text.get_window_extent()
            assert text.get_fontsize() >= 7, text
            assert not any(box.overlaps(other.get_window_extent()) for other in titles if other is not text and text in titles), text
            assert box.x0 >= -2 and box.y0 >= -2 and box.x1 <= width + 2 and box.y1 <= height + 2, (text, box)

def test_same_bytes_in_another_process(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_plots as t; t.save_figure(t.EVERY['ladder'](), 'ladder', t.RunPaths(sys.argv[1]), t.FRAME)"
    seen = []
    for seed in ("1", "2"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], check=True, cwd=Path(__file__).parents[1], env={**os.environ, "PYTHONHASHSEED": seed, "MPLCONFIGDIR": str(tmp_path)})
        seen.append({path.name: path.read_bytes() for path in (tmp_path / seed / "figures").iterdir()})
    assert seen[0] == seen[1] and len(seen[0]) == 3

def test_no_date_and_no_software_in_the_files(tmp_path):
    path = save_figure(EVERY["ladder"](), "a", RunPaths(tmp_path), FRAME)
    assert b"Software" not in path.read_bytes() and b"tEXt" not in path.read_bytes() and b"dc:date" not in path.with_suffix(".svg").read_bytes()

def test_the_readers_own_settings_do_not_matter(tmp_path):
    import matplotlib
    plain = save_figure(EVERY["ladder"](), "a", RunPaths(tmp_path / "1"), FRAME).read_bytes()
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "savefig.dpi": 50, "svg.hashsalt": "other"}):
        assert save_figure(EVERY["ladder"](), "a", RunPaths(tmp_path / "2"), FRAME).read_bytes() == plain

def blank_figures():
    with style():
        yield "no panel", new_figure(2)
        figure = new_figure(2); figure.subplots(); yield "empty axes", figure
        figure = new_figure(2); figure.subplots().axhspan(.4, .6); yield "guides only", figure
        figure = new_figure(2); figure.subplots().plot([np.nan, np.nan], [1, 2]); yield "NaN only", figure
        figure = new_figure(2); a, b = figure.subplots(1, 2); a.plot([1, 2]); yield "one panel empty", figure
        figure = new_figure(2); figure.subplots().scatter([], []); yield "no points", figure
        figure = new_figure(2); figure.subplots().bar([], []); yield "no bars", figure

@pytest.mark.parametrize("what, figure", list(blank_figures()))
def test_blank_figures_are_refused(what, figure, tmp_path):
    assert is_blank(figure)
    with pytest.raises(PlotError, match="blank"): save_figure(figure, "a", RunPaths(tmp_path), FRAME)
    assert not list(tmp_path.rglob("*.*"))

def test_blank_png(tmp_path):
    from PIL import Image
    Image.new("RGB", (20, 20), "white").save(tmp_path / "white.png"); (tmp_path / "text.png").write_text("no picture")
    assert is_blank(tmp_path / "white.png")
    for wrong in ("text.png", "absent.png"):
        with pytest.raises(PlotError): is_blank(tmp_path / wrong)

def test_numbers():
    assert [format_number(v) for v in (None, np.nan, True, 3, 15000, .5, .00012, 0., -0., 12.345, 123.456, 12345.6, np.inf, "x")] == [
        "not defined", "not defined", "yes", "3", "15,000", "0.500", "0.00012", "0.000", "0.000", "12.3", "123.5", "12,346", "∞", "x"]
    assert format_interval(.871, .842, .899) == "0.871 [0.842, 0.899]" and format_interval(.5) == "0.500" and format_interval(None, 1, 2) == "not defined"
    assert format_interval(.9961, .9957, np.nan) == "0.996 [0.996, ∞]" and format_interval(Interval(.5, .4, .6, 1, 1, 1), decimals=2) == "0.50 [0.40, 0.60]"

def test_tables(tmp_path):
    run = RunPaths(tmp_path)
    path = save_table(FRAME.assign(note="a|b"), "t", run, "A caption.")
    text = path.with_suffix(".md").read_text().splitlines()
    assert text[0] == "A caption." and "0.900 [0.880, 0.920]" in text[4] and r"a\|b" in text[4] and "auc_low" not in text[2] and all(line.count("|") >= 7 for line in text[2:])
    pd.testing.assert_frame_equal(load_table("t", run), FRAME.assign(note="a|b"), check_dtype=False)
    odd = pd.DataFrame({"auc": [None, .5], "auc_low": [None, .4], "auc_high": [None, .6], "n": [0, 5], "passes": [True, False]})
    assert readable(odd).to_numpy().tolist() == [["not defined", "0", "yes"], ["0.500 [0.400, 0.600]", "5", "no"]]
    for wrong in (lambda: save_table(FRAME, "T 1", run, "x"), lambda: save_table(FRAME, "t", run, " "), lambda: load_table("absent", run), lambda: save_figure(EVERY["ladder"](), "a", run, FRAME[:0])):
        with pytest.raises(PlotError): wrong()

def test_views_have_fixed_looks():
    names = ["plain", "blocks-0.5", "roi", "resolution-2", "etc", "le", "ele", "neuracrypt", "ecb", "cbc-fixed-iv", "cbc", "codestream", "length"]
    assert len({tuple(view_style(name).values()) for name in names}) == len(names)
    assert view_style("cbc-fixed-iv") != view_style("cbc") and view_style("le-x") == view_style("le") and view_style("unheard-of")["color"] == "#767676"

def test_missing_columns_are_named():
    for call in (charts.plot_ladder, charts.plot_roc, charts.plot_ratio, charts.plot_storage, leakage_charts.plot_leakage, leakage_charts.plot_sensitivity, charts.plot_latency, charts.plot_fidelity, frontier_charts.plot_frontier):
        with pytest.raises(PlotError, match="no column"): call(pd.DataFrame({"zzz": [1]}))

def test_undefined_auc_is_shown():
    figure = charts.plot_ladder(FRAME.assign(auc=[.9, np.nan, .5]))
    assert "not defined" in [text.get_text() for text in figure.axes[0].texts]

def test_a_second_learner_is_open_lower_in_the_row_and_second_in_the_number():
    figure = charts.plot_ladder(TWO)
    axes, = figure.axes
    texts = {text.xy[1]: text.get_text() for text in axes.texts}
    assert texts == {0: "0.90 / 0.80", 1: "0.85 / not defined", 2: "0.50", 3: "– / 0.70"}
    lines = [bar.lines[0] for bar in axes.containers]
    filled, opened = ([line for line in lines if (line.get_markerfacecolor() == "white") == white] for white in (False, True))
    assert [len(filled), len(opened)] == [3, 2] and filled[0].get_ydata()[0] < opened[0].get_ydata()[0] and filled[0].get_color() == opened[0].get_color() # rows go down
    assert filled[2].get_ydata()[0] == 2 and opened[1].get_ydata()[0] == 3 # alone in its row, in its middle
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["filled: network", "open: support vector machine on all pixels"]
    for table in (FRAME, FRAME.assign(second=False)): assert not charts.plot_ladder(table).legends

def test_members_of_a_family_have_curves_of_their_own():
    names = ["blocks-0.25", "blocks-0.5", "blocks-0.75", "blocks-0.9"]
    lines = charts.plot_roc(pd.concat(CURVES.assign(view=view) for view in ["plain", *names])).axes[0].get_legend().get_lines()
    assert len({(line.get_color(), line.get_linestyle(), line._unscaled_dash_pattern[1]) for line in lines}) == 5 and len({line.get_color() for line in lines}) == 5
    assert lines[-1].get_color() == pytest.approx(to_rgb(view_style("blocks-0.9")["color"]))

def test_fidelity_counts_predictions_and_pictures():
    pairs = pd.DataFrame({"dataset": "x", "a": [.1, .9, .2], "b": [.1, .8, .3]})
    title = lambda frame: charts.plot_fidelity(frame).axes[0].get_title(loc="left").replace("\u00a0", " ").replace("\n", " ")
    assert title(pairs) == title(pairs.assign(image=[0, 1, 2])) == "x (n = 3)" and title(pairs.assign(image=[0, 1, 0])) == "x (3 predictions of 2 pictures)"
    axes = charts.plot_fidelity(pairs).axes[0]
    assert axes.lines[0].get_zorder() > axes.collections[0].get_zorder()

def test_a_silhouette_needs_the_same_schemes_in_each_row_and_shows_where_blocks_repeat():
    pair = BYTES[:2].copy(); pair[:, :4] = 0
    figure = leakage_charts.plot_silhouette({"noise": {"plain": pair}, "large": {"plain": np.tile(pair, (1, 30, 30))}})
    small, large = figure.axes
    assert [small.get_ylabel(), large.get_ylabel()] == ["noise\n16 × 16 pixels", "large\n480 × 480 pixels"] and small.get_title(loc="left") == "plain\n25.0 % of blocks repeat" and large.get_title(loc="left") == "100.0 % of blocks repeat"
    shown = small.images[0].get_array(); assert (shown[:4, :, 0] != shown[:4, :, 2]).all() and (shown[4:, :, 0] == shown[4:, :, 2]).all() and max(large.images[0].get_array().shape) <= 192
    for bad in ({}, {"a": {}}, {"a": {"plain": pair}, "b": {"cipher": pair}}, {"a": {"plain": pair, "cipher": np.tile(pair, (1, 1, 2))}}, {"a": {"plain": pair[:, :, :8]}}, {"a": {"plain": pair.astype(float)}}):
        with pytest.raises(PlotError, match="silhouette"): leakage_charts.plot_silhouette(bad)

def test_manifest(tmp_path):
    run = RunPaths(tmp_path / "out")
    outside = tmp_path / "elsewhere" / "labels.csv"; outside.parent.mkdir(); outside.write_text("a\n")
    table = save_table(FRAME, "t", run, "x")
    write = lambda: write_manifest("40_x", run, {"out": str(run.out), "url": f"file://{outside}", "deep": {"paths": [str(outside)]}, "seed": np.int64(3), "ratio": .5}, [outside, run.figures], [table])
    first = write().read_bytes()
    found = json.loads(first)
    assert first == write().read_bytes() and str(tmp_path).encode() not in first and platform.node().encode() not in first
    assert found["parameters"] == {"out": ".", "url": "labels.csv", "deep": {"paths": ["labels.csv"]}, "seed": 3, "ratio": .5}
    assert [entry["path"] for entry in found["inputs"]] == ["figures/t.csv", "figures/t.md", "labels.csv"] and found["code"] == code_hash() and len(found["outputs"][0]["sha256"]) == 64
    with pytest.raises(PlotError, match="absent"): write_manifest("40_x", run, {}, [tmp_path / "absent"], [])
