"Leakage measures: case files, published values, other implementations, ideal ciphers, and schemes that must fail."
import json
import math
from pathlib import Path

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings, strategies as st
from scipy.stats import binom
from skimage.metrics import structural_similarity

from medcrypt.core import seeded_bytes
from medcrypt.crypto import images, perceptual
from medcrypt.crypto.aead import EnvelopeError
from medcrypt.crypto.keys import Key
from medcrypt.evaluation.leakage import LeakageError, MS_WEIGHTS, dhash, dhash_distance, ms_scales, ms_ssim, phash, phash_distance, psnr, ssim, unrelated
from medcrypt.evaluation.leakage_tables import leakage_table, reference, simulated, verdicts
from medcrypt.evaluation.randomness import (EXACT_BELOW, STEPS, Ideal, chi_square, entropy, ideal_chi_square, ideal_correlation, ideal_entropy, ideal_npcr, ideal_uaci, neighbour_correlation, neighbours, npcr,
                                            repeated_blocks, repeats, uaci)
from medcrypt.evaluation.sensitivity import CHANGES, ciphertexts, key_pairs, pixel_pairs, refused, renewed, sensitivity_table, used_rows

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no folder {CASES.name} beside the checkout")
KEY = Key(seeded_bytes(0, "k")(32))

def case(name, *arrays): return json.loads((CASES / name / "expected.json").read_text()), *(np.load(CASES / name / f"expected_{a}.npy") for a in arrays)

def pictures(n=32, side=48):
    generator = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side]
    return np.stack([np.uint8((120 + 60 * np.sin(x / 6 + k) + 40 * np.cos(y / 7) + generator.normal(0, 5, x.shape)).clip(0, 255) * (y > 12)) for k in range(n)])

# how alike

@needs_cases
def test_case_75_data_range():
    want, a, b = case("75-ssim-data-range", "a", "b")
    assert ssim(a, b, data_range=4095) == pytest.approx(want["ssim_4095"], abs=want["tolerance"])
    assert ssim(a / 4095, b / 4095, data_range=1) == pytest.approx(want["ssim_float01_range1"], abs=want["tolerance"])
    assert ssim(a, b, data_range=65535) == pytest.approx(want["ssim_65535_wrong"], abs=want["tolerance"]) # the range decides, not the dtype

@needs_cases
def test_case_76_small_pictures():
    _, thin, small = case("76-ssim-small-image", "a1", "a5")
    for picture in (thin, small):
        found = ssim(picture, picture, data_range=4095)
        assert found == pytest.approx(1) if min(picture.shape) >= 3 else found is None

@needs_cases
def test_case_77_phash_16bit():
    _, a, b = case("77-phash-16bit", "a", "b")
    assert min(a.min(), b.min()) > 255 and phash_distance(a, b, data_range=65535) >= 10

@settings(max_examples=80, deadline=None)
@given(st.integers(1, 26), st.integers(1, 26), st.integers(0, 2 ** 32 - 1))
def test_any_size_is_answered(rows, columns, seed):
    a, b = np.random.default_rng(seed).integers(0, 256, (2, rows, columns), dtype=np.uint8)
    for measure, least in ((ssim, 3), (ms_ssim, 11)):
        value = measure(a, b, data_range=255)
        assert (value is None) == (min(rows, columns) < least)
        if value is not None: assert -1 <= value <= 1 and value == pytest.approx(measure(b, a, data_range=255), abs=1e-12) and measure(a, a, data_range=255) == pytest.approx(1)
    assert psnr(a, b, data_range=255) == psnr(b, a, data_range=255) >= 0 and psnr(a, a, data_range=255) == math.inf
    for distance, bits in ((phash_distance, phash), (dhash_distance, dhash)):
        assert 0 <= distance(a, b, data_range=255) == distance(b, a, data_range=255) <= 64 and distance(a, a, data_range=255) == 0 and bits(a, data_range=255).shape == (64,)
    assert npcr(a, a) == uaci(a, a) == 0 and 0 <= uaci(a, b) <= npcr(a, b) <= 1 and uaci(a, b) == uaci(b, a)
    assert 0 <= entropy(a) <= min(8, math.log2(a.size)) + 1e-9 and chi_square(a) >= 0
    for direction in STEPS:
        r = neighbour_correlation(a, direction)
        assert r is None or -1 - 1e-9 <= r <= 1 + 1e-9
    found = leakage_table(a[None], b[None], changed=(a[None], b[None]), seed=1, resamples=2, beside=reference(a[None], seed=1))
    assert {"NPCR", "entropy (bits/byte)", "repeated 16-byte blocks"} <= set(found["metric"]) and ("MS-SSIM(plain, cipher)" in set(found["metric"])) == (min(rows, columns) >= 11)
    assert found["n"].isin((0, 1)).all() and found["strangers"].isna().all()

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2 ** 32 - 1), st.floats(.1, 1e4), st.floats(-1e3, 1e3))
def test_only_ratios_to_the_range_count(seed, factor, shift):
    "All similarities are the same in other units; SSIM's constants keep it from being the same with another offset, PSNR has none."
    a, b = np.random.default_rng(seed).random((2, 24, 24))
    for measure in (ssim, ms_ssim, psnr): assert measure(a * factor, b * factor, data_range=factor) == pytest.approx(measure(a, b, data_range=1), rel=1e-6, abs=1e-9)
    assert psnr(a + shift, b + shift, data_range=1) == pytest.approx(psnr(a, b, data_range=1), rel=1e-6)

def test_constant_pictures():
    flat = np.full((16, 16), 7, np.uint8)
    for measure in (ssim, ms_ssim): assert measure(flat, flat, data_range=255) == pytest.approx(1) and measure(flat, flat + 200, data_range=255) < .1
    assert psnr(flat, flat, data_range=255) == float("inf") and psnr(flat * 0, flat * 0 + 255, data_range=255) == pytest.approx(0)
    assert neighbour_correlation(flat, "horizontal") is None and phash(flat, data_range=255).shape == dhash(flat, data_range=255).shape == (64,)
    assert entropy(flat) == 0 and chi_square(flat) == 255 * flat.size and repeated_blocks(flat[None]).tolist() == [1.]
    found = leakage_table(flat[None].repeat(3, 0), flat[None].repeat(3, 0), seed=1, resamples=20).set_index("metric")
    assert found.loc["horizontal correlation", "n"] == 0 and not found.loc["horizontal correlation", "passes"] # not defined is no pass

def test_wrong_pictures():
    a, b = np.zeros((8, 8)), np.zeros((2, 8, 8), np.uint8)
    hole = a.copy(); hole[1, 1] = np.nan
    for wrong in (lambda: ssim(a, a[:4], data_range=1), lambda: ssim(a, a, data_range=0), lambda: ssim(a, a, data_range=np.nan), lambda: ssim(a, a, data_range=np.inf), lambda: ssim(a, np.eye(8) * 300, data_range=255), lambda: ms_ssim(hole, a, data_range=1),
                  lambda: ms_ssim(a[0], a[0], data_range=1), lambda: psnr(a[0], a[0], data_range=1), lambda: psnr(a[:0], a[:0], data_range=1), lambda: phash(a + 300, data_range=255), lambda: dhash(a - 1, data_range=255),
                  lambda: unrelated(a[:1], a[:1], ssim, seed=1), lambda: unrelated(a, a[:3], ssim, seed=1), lambda: unrelated(a, a, ssim, seed=1, patients=["x"] * 8), lambda: unrelated(a, a, ssim, seed=1, patients=["x", "y"]),
                  lambda: npcr(b[0], a), lambda: npcr(b[0], b[0, :3]), lambda: uaci(b[:0], b[:0]), lambda: entropy(a), lambda: entropy(np.array([256])), lambda: chi_square(np.array([], np.uint8)), lambda: neighbours(b, "vertical"), lambda: ideal_correlation((4, 4), "up"),
                  lambda: leakage_table(a, a, seed=1), lambda: leakage_table(b, b.astype("uint16"), seed=1), lambda: leakage_table(b, b[:1], seed=1), lambda: leakage_table(b, b, changed=(b, b[:1]), seed=1), lambda: leakage_table(b, b, beside=reference(b[:1], seed=1), seed=1),
                  lambda: reference(b[:0], seed=1), lambda: used_rows(b, np.zeros(b.shape, bool)), lambda: pixel_pairs("ecb", b, KEY, ("other pixel",), random=seeded_bytes(0)), lambda: ciphertexts("ecb", a[None], KEY, random=seeded_bytes(0))):
        with pytest.raises(LeakageError): wrong()

@pytest.mark.parametrize("side, scales", [(10, 0), (11, 1), (21, 1), (22, 2), (48, 3), (64, 3), (87, 3), (88, 4), (176, 5), (1024, 5)])
def test_as_many_scales_as_fit(side, scales): assert ms_scales((side, 2000)) == scales == ms_scales((2000, side))

@pytest.mark.parametrize("side", [11, 16, 21])
def test_one_scale_is_scikit_images_gaussian_ssim(side):
    a, b = np.random.default_rng(side).random((2, side, side)); b = .7 * a + .3 * b
    assert ms_ssim(a, b, data_range=1) == pytest.approx(structural_similarity(a, b, data_range=1, gaussian_weights=True, use_sample_covariance=False), abs=1e-12)

@pytest.mark.parametrize("side, noise", [(24, 20), (48, 20), (64, 60), (176, 5), (256, 40)])
def test_ms_ssim_agrees_with_tensorflow(side, noise):
    tf = pytest.importorskip("tensorflow")
    generator = np.random.default_rng(side)
    a = pictures(1, side)[0].astype("float32"); b = (a + generator.normal(0, noise, a.shape)).clip(0, 255).astype("float32")
    weights = np.array(MS_WEIGHTS[:ms_scales(a.shape)]); weights /= weights.sum()
    theirs = tf.image.ssim_multiscale(a[..., None], b[..., None], 255, power_factors=weights.tolist()).numpy()
    assert ms_ssim(a, b, data_range=255) == pytest.approx(float(theirs), abs=2e-4)

def test_ms_ssim_forgives_fine_noise_and_falls_with_more_of_it():
    a, generator = pictures(1, 128)[0].astype(float), np.random.default_rng(0)
    noisy = [(a + generator.normal(0, s, a.shape)).clip(0, 255) for s in (5, 20, 80)]
    values = [ms_ssim(a, b, data_range=255) for b in noisy]
    assert 1 > values[0] > values[1] > values[2] > 0 and all(v > ssim(a, b, data_range=255) for v, b in zip(values, noisy))
    assert ms_ssim(a, 255 - a, data_range=255) == 0 # a negative structure has no power

def test_unrelated_hashes_differ_in_half_the_bits():
    "pHash: the bit of the mean grey is always set, and 31 of the other 63 are: 2 * 31 * 32 / 63 = 31.5 bits, 4 bits of standard deviation. dHash: 32, and neighbours in a row share a grey value."
    noise = np.random.default_rng(1).integers(0, 256, (200, 32, 32), dtype=np.uint8)
    found = unrelated(noise, noise, lambda a, b: phash_distance(a, b, data_range=255), seed=1, pairs=600)
    assert found.mean() == pytest.approx(31.5, abs=.6) and found.std() == pytest.approx(4, abs=.4) and found.max() < 50
    found = unrelated(noise, noise, lambda a, b: dhash_distance(a, b, data_range=255), seed=1, pairs=600)
    assert found.mean() == pytest.approx(32, abs=.6) and found.max() < 50

@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=12).filter(lambda who: len(set(who)) > 1), st.integers(0, 1000))
def test_unrelated_pairs_are_of_different_patients(who, seed):
    rows = np.arange(len(who))
    pairs = []
    unrelated(rows, rows, lambda i, j: pairs.append((int(i), int(j))) or 0, seed=seed, pairs=300, patients=who)
    assert all(who[i] != who[j] for i, j in pairs) and len(pairs) == 300
    assert {j for _, j in pairs} == set(range(len(who))) or len(who) > 6

# what random bytes give

@pytest.mark.parametrize("side, lowest, low, high", [(64, 99.4491, 32.739, 34.188), (256, 99.5693, 33.282, 33.645), (512, 99.5893, 33.373, 33.554), (1024, 99.5994, 33.418, 33.509)])
def test_published_critical_values(side, lowest, low, high):
    assert 100 * ideal_npcr(side ** 2, alpha=.05).low == pytest.approx(lowest, abs=6e-5)
    found = ideal_uaci(side ** 2, alpha=.05)
    assert (100 * found.low, 100 * found.high) == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))

@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2 ** 20), st.integers(1, 50))
def test_bounds_are_narrower_for_more_bytes_and_larger_alpha(size, n):
    for ideal in (ideal_npcr, ideal_uaci, *([ideal_entropy] if size < 2 ** 16 else [])):
        wide, middle, narrow = (ideal(size, alpha=alpha, images=n) for alpha in (.001, .01, .05))
        assert wide.low <= middle.low <= narrow.low <= narrow.mean + 1e-12 and (narrow.high is None or narrow.mean - 1e-12 <= narrow.high <= middle.high <= wide.high)
    if size * n >= 2 * 64 ** 2: assert ideal_npcr(4 * size, images=n).low > ideal_npcr(size, images=n).low
    assert ideal_npcr(size, images=n).low < 255 / 256 and ideal_uaci(4 * size, images=n).low > ideal_uaci(size, images=n).low

@pytest.mark.parametrize("alpha", [.05, .01])
@pytest.mark.parametrize("side, n", [(1, 1), (4, 1), (8, 1), (8, 16), (16, 4), (32, 1), (48, 16)])
def test_false_alarms_are_as_rare_as_alpha_says(side, n, alpha):
    "Random bytes are rejected in a share alpha of all trials: not much more at any size, and not much less where the counts are large (whole pixels below EXACT_BELOW cannot meet alpha exactly)."
    repeats_, generator, alarms = 1200 if n == 1 else 400, np.random.default_rng(side + n), {}
    ideal = {"npcr": ideal_npcr(side ** 2, alpha=alpha, images=n), "uaci": ideal_uaci(side ** 2, alpha=alpha, images=n), "entropy": ideal_entropy(side ** 2, alpha=alpha, images=n), "χ²": ideal_chi_square(alpha=alpha, images=n),
             **{d: found for d in STEPS if (found := ideal_correlation((side, side), d, alpha=alpha, images=n))}}
    for _ in range(repeats_):
        a, b = generator.integers(0, 256, (2, n, side, side), dtype=np.uint8)
        found = {"npcr": npcr(a, b), "uaci": uaci(a, b), "entropy": np.mean([*map(entropy, a)]), "χ²": np.mean([*map(chi_square, a)])} | {d: np.mean([neighbour_correlation(x, d) for x in a]) for d in STEPS if d in ideal}
        for name, value in found.items(): alarms[name] = alarms.get(name, 0) + (not ideal[name].holds(value))
    for name, count in alarms.items():
        assert binom.sf(count - 1, repeats_, 2.2 * alpha if side < 16 else 1.2 * alpha) > 1e-3, (name, count, repeats_)
        if side >= 32 and alpha == .05 and (name != "npcr" or side * side * n >= EXACT_BELOW): assert binom.cdf(count, repeats_, .7 * alpha) > 1e-3, (name, count, repeats_)

@pytest.mark.parametrize("size", [256, 1024, 4096, 65536])
def test_ideal_entropy(size):
    generator = np.random.default_rng(size)
    drawn = np.array([entropy(generator.integers(0, 256, size)) for _ in range(400)])
    ideal = ideal_entropy(size)
    assert drawn.mean() == pytest.approx(ideal.mean, abs=4 * drawn.std() / 20)
    assert (ideal.high - ideal.low) / 2 / 2.5758 == pytest.approx(drawn.std(), rel=.15)
    if size >= 4096: assert ideal.mean == pytest.approx(8 - 255 / (2 * size * np.log(2)), abs=3 / size) # Miller-Madow is its first term

def test_what_is_not_defined_is_no_pass():
    assert not Ideal(0, None, None).holds(None) and not Ideal(0, None, None).holds(float("nan")) and Ideal(0, None, None).holds(1e9) and not Ideal(0, -1, 1).holds(float("inf"))

def test_repeated_blocks_between_pictures():
    a = np.random.default_rng(1).integers(0, 256, (2, 64), dtype=np.uint8); a[1, :16] = a[0, :16]
    assert repeated_blocks(a).tolist() == [.25, .25] and repeated_blocks(a[:, 1:]).tolist() == [0, 0] and repeated_blocks(a[:, :8]).tolist() == [0, 0]
    assert repeats(a).tolist() == [[True, False, False, False]] * 2

# the tables

def encrypt(plain, mode, fixed_iv=False, seed=5):
    iv = np.random.default_rng(seed)
    for picture in plain:
        cipher = AES.new(bytes(32), AES.MODE_ECB) if mode == "ecb" else AES.new(bytes(32), AES.MODE_CBC, bytes(16) if fixed_iv else iv.bytes(16))
        yield np.frombuffer(cipher.encrypt(picture.tobytes()), np.uint8).reshape(picture.shape)

def table(mode, **how):
    plain = pictures()
    other = plain.copy(); other[:, 30, 30] ^= 1
    first, second = np.stack(list(encrypt(plain, mode, seed=5, **how))), np.stack(list(encrypt(other, mode, seed=6, **how)))
    return leakage_table(plain, first, changed=(first, second), seed=1, resamples=200).set_index("metric")

def test_cbc_with_a_fresh_iv_passes():
    found = table("cbc")
    assert found["passes"].all() and found["passes_all"].all(), found
    assert (found["measured_low"] <= found["measured"]).all() and (found["measured"] <= found["measured_high"]).all()
    for metric in ("SSIM(plain, cipher)", "pHash distance (bits)"): assert {"n", "measured", "measured_low", "measured_high", "ideal", "ideal_low", "ideal_high", "passes"} <= set(found.loc[metric].index) # what the ledger reads
    close = found.loc[["pHash distance (bits)", "dHash distance (bits)"]]
    assert (close["strangers_low"] <= close["strangers"]).all() and (close["strangers"] <= close["strangers_high"]).all() and found.loc["NPCR":, "strangers"].isna().all()

def test_ecb_and_a_fixed_iv_fail():
    ecb, fixed = table("ecb"), table("cbc", fixed_iv=True)
    assert not ecb.loc[["NPCR", "UACI", "entropy (bits/byte)", "χ² of bytes (255 df)", "repeated 16-byte blocks"], "passes"].any()
    assert not fixed.loc[["NPCR", "UACI", "repeated 16-byte blocks"], "passes_all"].any()
    assert fixed.loc["NPCR", "measured"] == pytest.approx(18 / 48, abs=.02) # the rows from the changed pixel on

def test_the_plaintext_itself_fails_everything():
    plain = pictures()
    found = leakage_table(plain, plain, seed=1, resamples=50)
    assert not found["passes"].any() and found.set_index("metric").loc["PSNR(plain, cipher) (dB)", "measured"] == math.inf

def test_false_alarms_of_the_table_are_rare():
    "One row in a hundred at alpha = .01, and one table in a hundred with any at alpha / tests: 60 ideal ciphers of 13 rows, counts that would be exceeded with p < .001."
    generator, plain = np.random.default_rng(9), pictures(8, 32)
    beside, alarms, tables = reference(plain, seed=0, pairs=10), 0, 0
    for seed in range(60):
        cipher, first, second = generator.integers(0, 256, (3, *plain.shape), dtype=np.uint8)
        found = leakage_table(plain, cipher, changed=(first, second), seed=seed, resamples=2, beside=reference(plain, seed=seed, pairs=2))
        alarms += (~found["passes"]).sum(); tables += not found["passes_all"].all()
    assert len(found) == 13 and alarms <= binom.isf(1e-3, 780, .012) and tables <= binom.isf(1e-3, 60, .012), (alarms, tables)
    assert beside.random["pHash distance (bits)"].shape == (4, 8)

def test_simulated_bounds_cover_a_new_mean():
    "99 of 100 means of n new values lie within the bounds made of 4 repeats of n others."
    generator = np.random.default_rng(0)
    outside = sum(not simulated(generator.normal(offset := generator.normal(0, 5, 8), 1, (4, 8)), .01).holds(generator.normal(offset, 1).mean()) for _ in range(3000))
    assert binom.cdf(outside, 3000, .01) > 1e-3 and binom.sf(outside - 1, 3000, .01) > 1e-3

def test_a_verdict_needs_every_test():
    import pandas as pd
    rows = pd.DataFrame({"dataset": "x", "view": ["a"] * 3 + ["b"] * 3, "passes": [True, True, False, False, True, True], "passes_all": [True, True, True, False, True, True]})
    found = verdicts(rows).set_index("view")
    assert found["verdict"].tolist() == ["like an ideal cipher", "not an ideal cipher"] and found["outside"].tolist() == [1, 1] and found["outside_all"].tolist() == [0, 1] and found["expected"].tolist() == [.03, .03]

# sensitivity

@pytest.mark.parametrize("view", ["cbc", "codestream", "ecb", "cbc-fixed-iv", "le", "plain"])
def test_what_follows_a_changed_pixel(view):
    plain = pictures(8)
    found = pixel_pairs(view, plain, KEY, random=seeded_bytes(1, view))
    assert set(found) == set(CHANGES)
    for change, (first, second) in found.items():
        share, size = npcr(first, second), plain[0].size
        if view in ("cbc", "codestream"): assert share > .99 # whatever changed, even if nothing did
        elif change == "nothing": assert share == 0
        elif view in ("plain", "le"): assert share == pytest.approx(1 / size)
        else: assert share == pytest.approx(renewed(view, size, {"first pixel": 0, "middle pixel": size // 2, "last pixel": size - 1}[change]) * 255 / 256, abs=.01)
    if view == "cbc-fixed-iv":
        place = 20 * 48 + 17; block = place // 16
        other = plain.copy(); other.reshape(8, -1)[:, place] ^= 1
        same = (ciphertexts(view, plain, KEY, random=seeded_bytes(1)) == ciphertexts(view, other, KEY, random=seeded_bytes(2))).reshape(8, -1, 16).all(axis=2)
        assert same[:, :block].all() and not same[:, block:].any() # a change is carried forward only

@pytest.mark.parametrize("view", ["cbc", "codestream", "ecb", "cbc-fixed-iv", "le", "pixel-each"])
def test_one_bit_of_the_key(view):
    plain = pictures(8)
    first, second = key_pairs(view, plain, seed=2)
    if view in ("le", "pixel-each"): assert npcr(first, second) > .2 and not refused(view, plain, seed=2).any()
    else:
        assert ideal_npcr(first[0].size, alpha=1e-4, images=8).holds(npcr(first, second)) and ideal_uaci(first[0].size, alpha=1e-4, images=8).holds(uaci(first, second))
        assert refused(view, plain, seed=2).all() == (view in ("cbc", "codestream"))
    assert npcr(first, key_pairs(view, plain, seed=2)[0]) == 0 # all else is equal

def test_aes_itself_turns_one_key_bit_into_another_ciphertext():
    "Without any key derivation in between, for each of 16 bits."
    data, key = pictures(1, 64).tobytes(), bytearray(range(32))
    first = np.frombuffer(perceptual.cbc_stealing(data, bytes(key), bytes(16)), np.uint8)
    for bit in range(0, 256, 16):
        other = bytearray(key); other[bit // 8] ^= 1 << bit % 8
        second = np.frombuffer(perceptual.cbc_stealing(data, bytes(other), bytes(16)), np.uint8)
        assert ideal_npcr(4096, alpha=1e-4).holds(npcr(first, second)) and ideal_uaci(4096, alpha=1e-4).holds(uaci(first, second))

def test_a_master_key_that_is_one_bit_off_opens_nothing():
    picture = pictures(1)[0]
    for codec in ("raw", "jpeg2000"):
        sealed = images.seal_image(picture, KEY, codec=codec, image_id="00")
        assert np.array_equal(images.unseal_image(sealed, KEY)[0], picture)
        for bit in range(0, 256, 31):
            other = bytearray(KEY); other[bit // 8] ^= 1 << bit % 8
            with pytest.raises(EnvelopeError): images.unseal_image(sealed, Key(other))

def test_sensitivity_table():
    plain = pictures(16)
    def made(view): return sensitivity_table(view, plain, pixel_pairs(view, plain, KEY, random=seeded_bytes(4, view)), seed=1, resamples=50)
    cbc, fixed, none = made("cbc"), made("cbc-fixed-iv").set_index(["change", "metric"]), made("plain")
    assert cbc["passes_all"].all() and len(cbc) == 11 and not none["passes"].any() and len(none) == 8 # no key, no rows about it
    assert fixed.xs("NPCR", level="metric")["passes"].to_dict() == {"nothing": False, "first pixel": True, "middle pixel": False, "last pixel": False, "key bit": True}
    assert (fixed["measured"] - fixed["theory"]).abs().max() < .01 and not fixed.loc[("key bit", "wrong key refused"), "passes"]

def test_odd_sizes_and_one_picture():
    plain = pictures(1, 17)
    found = sensitivity_table("ecb", plain, pixel_pairs("ecb", plain, KEY, random=seeded_bytes(0)), seed=1, resamples=5)
    assert found[found["change"] == "middle pixel"]["theory"].isna().all() and found["measured_low"].isna().all() # ciphertext stealing; one picture has no interval
    assert renewed("cbc-fixed-iv", 256, 255) == 16 / 256 and renewed("cbc-fixed-iv", 256, 15) == 1 and renewed("ecb", 256, None) == 0 and renewed("le", 256, 0) is None

def test_only_full_rows_are_looked_at():
    mask = np.zeros((2, 5, 4), bool); mask[0, :3] = True; mask[1, :4] = True
    assert used_rows(np.ones((2, 5, 4), np.uint8), mask).shape == (2, 3, 4)
