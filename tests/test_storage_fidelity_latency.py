"Bytes, bit-exactness and milliseconds; with the real codec and envelope where they are."
import base64, importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from medcrypt.evaluation.fidelity import BITS_PER_PIXEL, Agreement, FidelityError, agreement, compare, flip_test, lossy_table
from medcrypt.evaluation.latency import LatencyError, measure, ratios
from medcrypt.evaluation.storage import StorageError, dicom_sizes, picture_sizes, storage_summary

def part(name): return pytest.mark.skipif(importlib.util.find_spec("medcrypt.crypto") is None or importlib.util.find_spec(name) is None, reason=f"{name} is not there")
DICOM = Path(__file__).resolve().parents[2] / "shared" / "data" / "dicom"
KEY = bytes(range(32))

fake = dict(encode=lambda plane: plane.tobytes(), seal=lambda pixels: bytes(100) + pixels.tobytes())

def test_sizes_of_frames_colour_and_sign():
    for pixels in (np.zeros((4, 6), "uint8"), np.zeros((3, 4, 6), "int16"), np.zeros((4, 6, 3), "uint8"), np.zeros((2, 4, 6, 3), "uint16")):
        row = picture_sizes("x", pixels, **fake)
        assert row["jpeg2000_bytes"] == row["raw_bytes"] == pixels.nbytes and row["overhead_bytes"] == 100
    seen = []
    picture_sizes("x", np.array([[-5, 3]], "int16"), encode=lambda plane: seen.append(plane) or b"x", seal=lambda pixels: b"y")
    assert seen[0].dtype == np.uint16 and seen[0].tolist() == [[32763, 32771]]

@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4000))
def test_base85_adds_a_quarter(size):
    row = picture_sizes("x", np.zeros((1, size), "uint8"), encode=lambda plane: bytes(size), seal=lambda pixels: bytes(size))
    assert row["base85_bytes"] == len(base64.b85encode(bytes(size))) and 1.25 * size <= row["base85_bytes"] <= 1.25 * size + 1

def test_summary():
    frame = pd.concat([pd.DataFrame({"group": g, "dicom_bytes": s * np.array([90, 100, 110]), "raw_bytes": s * 80, "jpeg2000_bytes": s * np.array([40, 50, 60]), "encrypted_bytes": s * np.array([40, 50, 60]) + 200,
                                     "base85_bytes": 1.25 * (s * np.array([40, 50, 60]) + 200)}) for g, s in (("a", 10000), ("b", 20000))]) # the index repeats, as after concat
    found = storage_summary(frame, seed=1).set_index(["group", "format"])
    assert found.loc[("a", "dicom"), "size_mb"] == 1 and found.loc[("b", "jpeg2000"), "size_mb"] == 1
    row = found.loc[("a", "encrypted")]
    assert row["overhead_bytes"] == row["overhead_bytes_min"] == row["overhead_bytes_max"] == 200 and row["ratio"] == pytest.approx(.5002) and row["size_mb_low"] < row["size_mb"] < row["size_mb_high"]
    assert found.loc[("a", "base85"), "overhead_percent"] == pytest.approx(25.05, abs=.01)
    lone = storage_summary(frame.iloc[:1], seed=1)
    assert lone["size_mb_low"].isna().all() and (lone["n"] == 1).all()
    with pytest.raises(StorageError): storage_summary(frame.drop(columns="raw_bytes"), seed=1)
    with pytest.raises(StorageError): storage_summary(frame, patients=[1], seed=1)

def test_missing_file(tmp_path):
    with pytest.raises(StorageError, match="absent"): dicom_sizes([tmp_path / "absent.dcm"], read=None, **fake)
    with pytest.raises(StorageError, match="no files"): dicom_sizes([], read=None, **fake)

@part("medcrypt.imaging.jpeg2000")
@part("medcrypt.crypto.images")
def test_envelope_overhead_is_bytes_not_percent():
    from medcrypt.crypto.images import seal_image, unseal_image
    from medcrypt.crypto.envelope import EnvelopeError
    from medcrypt.imaging.jpeg2000 import encode
    generator = np.random.default_rng(1)
    picture = (2000 + 500 * np.sin(np.mgrid[:256, :256].sum(0) / 20) + generator.normal(0, 30, (256, 256))).astype(np.uint16)
    seal = lambda pixels: seal_image(pixels, KEY, image_id="ab" * 8)
    row = picture_sizes("x", picture, encode=encode, seal=seal)
    assert 32 < row["overhead_bytes"] <= 256 + 16 and row["overhead_percent"] < 1 and 25 < row["base85_percent"] < 27
    envelope = seal(picture)
    assert compare(picture, unseal_image(envelope, KEY)[0]).bit_exact
    assert flip_test(envelope, lambda data: unseal_image(data, KEY), EnvelopeError, seed=1, flips=64).share == 1

@pytest.mark.skipif(not DICOM.is_dir(), reason=f"no folder {DICOM.name} beside the checkout")
@part("medcrypt.imaging.dicom")
@part("medcrypt.imaging.jpeg2000")
@part("medcrypt.crypto.images")
def test_real_files():
    from medcrypt.crypto.images import seal_image
    from medcrypt.imaging.dicom import read_dicom
    from medcrypt.imaging.jpeg2000 import encode
    files = sorted((DICOM / "ct_chest_series_CPTAC").glob("*.dcm"))[:3]
    assert files
    frame = dicom_sizes(files, read=lambda path: read_dicom(path).stored, encode=encode, seal=lambda pixels: seal_image(pixels, KEY, image_id="cd" * 8), group="ct")
    assert (frame["overhead_percent"] < 1).all() and (frame["encrypted_bytes"] < frame["raw_bytes"]).all()

# fidelity

def test_compare():
    a = np.arange(100, dtype=np.int16).reshape(10, 10) - 50
    assert compare(a, a.copy()).bit_exact and compare(a, a.copy()).psnr == float("inf")
    assert not compare(a, a.astype(np.int32)).bit_exact and compare(a, a.astype(np.int32)).max_abs_error == 0
    assert compare(a, a[:5]).max_abs_error is None
    b = a.copy(); b[0, 0] += 7
    found = compare(a, b, data_range=4095)
    assert found.max_abs_error == 7 and found.psnr == pytest.approx(10 * np.log10(4095 ** 2 / .49))
    assert compare(np.array([0], "uint8"), np.array([255], "uint8"), data_range=255).max_abs_error == 255 # no wrap-around
    with pytest.raises(FidelityError): compare(np.zeros(0), np.zeros(0))

def test_agreement():
    from sklearn.metrics import cohen_kappa_score
    generator = np.random.default_rng(2)
    a, b, y = generator.random(300), generator.random(300), generator.random(300) < .5
    cut = np.where(np.arange(300) < 150, .3, .6) # each run has its own threshold
    found = agreement(a, b, cut, labels=y, runs=np.arange(300) // 150, seed=1, resamples=100)
    assert found.kappa == pytest.approx(cohen_kappa_score(a >= cut, b >= cut)) and found.agreement == np.mean((a >= cut) == (b >= cut))
    assert found.auc_difference.runs == 2 and agreement([.1, .2], [.1, .3], .5) == Agreement(2, 1., 1., 1., None, pytest.approx(.1), pytest.approx(.05), None, 2, 2)
    for wrong in (lambda: agreement([], [], .5), lambda: agreement([.1, np.nan], [.1, .2], .5)):
        with pytest.raises(FidelityError): wrong()
    for cut in (dict(threshold=np.nan), dict(threshold=[.5, np.nan]), dict(threshold=[.5] * 3), dict(threshold=.5, threshold_b=np.nan)): # a comparison with NaN is false on both sides, and would agree
        with pytest.raises(FidelityError, match="threshold"): agreement([.1, .9], [.1, .9], **cut)

def test_agreement_is_counted_in_patients():
    draw = np.random.default_rng(3); who = np.repeat(np.arange(40), 10); a = draw.random(400)
    b = np.where((draw.random(40) < .3)[who], 1 - a, a) # a patient's decisions turn together
    rows, units = agreement(a, b, .5, seed=1, resamples=400), agreement(a, b, .5, patients=who, images=np.arange(400) // 2, seed=1, resamples=400)
    assert rows.agreement == units.agreement and units.agreement_low < rows.agreement_low < rows.agreement < rows.agreement_high < units.agreement_high
    assert (rows.images, rows.patients, units.images, units.patients, units.n) == (400, 400, 200, 40, 400)
    assert agreement(a, b, .5, images=np.arange(400) // 2, seed=1, resamples=50).patients == 200 and agreement(a, b, .5, patients=np.zeros(400), seed=1, resamples=50).agreement_low is None

def discs(n=40, side=64, dtype="uint8"):
    "Pictures of which half have a bright disc, two of each patient, and a model that looks at its middle."
    draw = np.random.default_rng(4); sick = np.repeat(np.arange(n // 2) % 2, 2)
    smooth = draw.normal(0, 5, (n, side, side)).cumsum(1).cumsum(2) / 8
    disc = np.hypot(*np.mgrid[-side // 2:side // 2, -side // 2:side // 2]) < side / 8
    top = np.iinfo(dtype).max
    pictures = (np.clip(.4 + smooth / 255 + .08 * sick[:, None, None] * disc, 0, 1) * top).astype(dtype)
    def predict(pictures): return 1 / (1 + np.exp(-40 * (pictures[:, disc].mean(1) - pictures[:, ~disc].mean(1)) / top))
    return pictures, sick, np.repeat(np.arange(n // 2), 2), predict

def test_lossy_rates():
    pictures, sick, who, predict = discs()
    calls = []
    table = lossy_table(pictures, sick, who, predict, .5, seed=1, resamples=100, tick=lambda: calls.append(1))
    assert len(calls) == len(table) * len(pictures) and table.asked.tolist() == ["lossless", "2", "1", "0.5", "0.25", "0.1"] and len(table) == len(BITS_PER_PIXEL)
    whole, lossy = table.iloc[0], table.iloc[1:]
    assert np.isinf(whole.psnr) and np.isnan(whole.psnr_low) and (whole.ssim, whole.auc_difference, whole.auc_difference_low, whole.auc_difference_high, whole.agreement) == (1, 0, 0, 0, 1) and "reversible" in whole.codec
    assert table.bits_per_pixel.is_monotonic_decreasing and lossy.psnr.is_monotonic_decreasing and lossy.ssim.is_monotonic_decreasing and np.allclose(table.bits_per_pixel, 8 * table.size_bytes / 64 ** 2)
    assert (lossy.psnr_low <= lossy.psnr).all() and (lossy.psnr <= lossy.psnr_high).all() and (table.n == 40).all() and (table.patients == 20).all() and (table.prevalence == .5).all() and (table.agreement_low <= table.agreement).all() and (table.agreement <= table.agreement_high).all() and (whole.agreement_low, whole.agreement_high) == (1, 1)
    assert abs(table.bits_per_pixel[2] - 1) < .1 and table.bits_per_pixel.iloc[-1] > .25 # what is asked for is had, down to the headers
    assert (table.auc - whole.auc).to_numpy() == pytest.approx(table.auc_difference.to_numpy(), abs=1e-12)

def test_lossy_rates_against_other_code():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    from medcrypt.imaging.jpeg2000 import decode, encode
    pictures, sick, who, predict = discs(12, 48)
    row = lossy_table(pictures, sick, who, predict, .5, rates=(1,), seed=1, resamples=20).iloc[0]
    files = [encode(p, lossless=False, rate=8) for p in pictures]; back = np.stack([decode(f) for f in files])
    assert row.size_bytes == np.mean([len(f) for f in files]) and row.psnr == pytest.approx(peak_signal_noise_ratio(pictures, back, data_range=255)) and row.ssim == pytest.approx(np.mean([structural_similarity(a, b, data_range=255) for a, b in zip(pictures, back)]))

def test_lossy_rates_of_odd_pictures():
    pictures, sick, who, predict = discs(8, 32, "uint16")
    deep = lossy_table(pictures, sick, who, predict, .5, rates=(None, 4), data_range=65535, seed=1, resamples=20)
    assert deep.bits_per_pixel[1] < 4.5 and 20 < deep.psnr[1] < 80
    tiny = lossy_table(pictures[:, :2, :2], np.zeros(8), who, lambda p: p.mean((1, 2)) / 65535, .5, rates=(None, 1), data_range=65535, seed=1, resamples=20)
    assert tiny.ssim.isna().all() and tiny.auc.isna().all() and tiny.prevalence[0] == 0 and (tiny.n == 8).all() # SSIM needs three pixels, AUC both classes
    unknown = lossy_table(pictures, np.where(who < 2, np.nan, sick), who, predict, .5, rates=(None,), data_range=65535, seed=1, resamples=20)
    assert unknown.prevalence[0] == sick[who >= 2].mean()
    for wrong in (lambda: lossy_table(pictures[0], sick, who, predict, .5, seed=1), lambda: lossy_table(pictures[:0], sick, who, predict, .5, seed=1), lambda: lossy_table(pictures, sick, who, lambda p: np.full(len(p), np.nan), .5, data_range=65535, seed=1)):
        with pytest.raises(FidelityError): wrong()

def test_lossy_coding_that_calls_itself_lossless_is_found(monkeypatch):
    from medcrypt.evaluation import fidelity
    pictures, sick, who, predict = discs(4, 16)
    monkeypatch.setattr(fidelity, "decode", lambda data: np.zeros((16, 16), np.uint8))
    with pytest.raises(FidelityError, match="changed 4 of 4"): lossy_table(pictures, sick, who, predict, .5, seed=1, resamples=5)

def test_lossy_curves_are_drawn(tmp_path):
    from medcrypt.evaluation.curves import plot_lossy
    from medcrypt.evaluation.plots import PlotError, is_blank
    pictures, sick, who, predict = discs(16, 32)
    table = lossy_table(pictures, sick, who, predict, .5, rates=(None, 2, 1), seed=1, resamples=20)
    for frame in (table.assign(dataset="a"), pd.concat([table.assign(dataset=name) for name in "abc"], ignore_index=True), table.iloc[1:2].assign(dataset="a")):
        figure = plot_lossy(frame); assert not is_blank(figure) and len(figure.axes) == 3
    with pytest.raises(PlotError): plot_lossy(table)

def test_flips_pass_other_errors_through():
    def broken(data):
        if data != b"good": raise KeyError("bug")
    with pytest.raises(KeyError): flip_test(b"good", broken, ValueError, seed=1)
    assert flip_test(b"good", lambda data: None, ValueError, seed=1, flips=8).detected == 0

# latency

class Clock:
    "Time that moves only when a stage says so, in ns."
    now = 0
    def __call__(self): return self.now
    def stage(self, log, name, costs):
        costs = iter(costs)
        def call(): log.append(name); self.now += next(costs)
        return call

def test_measure_is_interleaved_and_keeps_the_first_call_apart():
    clock, log = Clock(), []
    frame = measure({"a": clock.stage(log, "a", [9e6, 5e6, 5e6, 1e6, 2e6, 3e6]), "b": clock.stage(log, "b", [4e6, 4e6, 4e6, 10e6, 20e6, 30e6])}, repeats=3, clock=clock)
    assert log == list("abbaabbaabba")
    assert frame.loc[0, ["first_ms", "median_ms", "n"]].tolist() == [9, 2, 3] and frame.loc[1, "samples_ms"] == (10, 20, 30)
    table = ratios(frame, "a", paths={"a then b": ["a", "b"]}, seed=1, resamples=200).set_index("stage")
    assert table.loc["b", ["ratio", "ratio_low", "ratio_high"]].tolist() == [10, 10, 10] # every round is ten times as long: the paired interval has no width
    assert table.loc["a then b", "median_ms"] == 22 and table.loc["a", "median_ms_low"] < table.loc["a", "median_ms_high"]

@pytest.mark.parametrize("count", (1, 2, 3, 4, 5, 8))
def test_each_stage_comes_after_each_other_one_equally_often(count):
    log = []; stages = {str(n): (lambda n=n: log.append(n)) for n in range(count)}
    measure(stages, repeats=2 * count - 1, warm=0)
    rounds = np.reshape(log, (2 * count, count)); assert all(sorted(r) == list(range(count)) for r in rounds)
    after = np.zeros((count, count), int); np.add.at(after, (rounds[:, :-1].ravel(), rounds[:, 1:].ravel()), 1)
    assert (after[~np.eye(count, dtype=bool)] == 2).all() and not after.diagonal().any() and all((rounds[:, p] == n).sum() == 2 for p in range(count) for n in range(count))

def test_a_failing_stage_is_not_hidden_and_gc_comes_back():
    import gc
    def fail(): raise OSError("disk")
    with pytest.raises(OSError): measure({"fail": fail}, repeats=2)
    assert gc.isenabled()

def test_wrong_latency_calls():
    frame = measure({"a": lambda: sum(range(1000))}, repeats=1, warm=0)
    assert ratios(frame, "a")["ratio_low"].isna().all()
    for wrong in (lambda: measure({"a": int}, repeats=0), lambda: ratios(frame, "b"), lambda: ratios(frame, "a", paths={"p": ["zzz"]}), lambda: ratios(frame, "a", paths={"a": ["a"]}), lambda: ratios(frame, "a", paths={"p": []})):
        with pytest.raises(LatencyError): wrong()
