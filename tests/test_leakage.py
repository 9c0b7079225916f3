"Leakage measures: case files, published critical values, ideal ciphers, and schemes that must fail."
import json
from pathlib import Path

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings, strategies as st
from scipy.stats import binom

from medcrypt.evaluation.leakage import (LeakageError, chi_square, entropy, ideal_entropy, ideal_npcr, ideal_uaci, leakage_table, neighbour_correlation, npcr, phash, phash_distance, psnr,
                                         repeated_blocks, ssim, uaci, unrelated)

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no folder {CASES.name} beside the checkout")

def case(name, *arrays): return json.loads((CASES / name / "expected.json").read_text()), *(np.load(CASES / name / f"expected_{a}.npy") for a in arrays)

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
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2 ** 32 - 1))
def test_any_size_is_answered(rows, columns, seed):
    a, b = np.random.default_rng(seed).integers(0, 256, (2, rows, columns))
    value = ssim(a, b, data_range=255)
    assert value is None if min(rows, columns) < 3 else -1 <= value <= 1
    assert 0 <= phash_distance(a, b, data_range=255) <= 64
    for direction in ("horizontal", "vertical", "diagonal"):
        r = neighbour_correlation(a, direction)
        assert r is None or -1 - 1e-9 <= r <= 1 + 1e-9

def test_constant_pictures():
    flat = np.full((16, 16), 7)
    assert ssim(flat, flat, data_range=255) == pytest.approx(1) and ssim(flat, flat + 200, data_range=255) < .1
    assert psnr(flat, flat, data_range=255) == float("inf") and psnr(flat, flat + 255, data_range=255) == pytest.approx(0)
    assert neighbour_correlation(flat, "horizontal") is None and phash(flat, data_range=255).shape == (64,)

def test_wrong_pictures():
    a = np.zeros((8, 8))
    for wrong in (lambda: ssim(a, a[:4], data_range=1), lambda: ssim(a, a, data_range=0), lambda: psnr(a[0], a[0], data_range=1), lambda: phash(a + 300, data_range=255), lambda: unrelated(a[:1], a[:1], ssim, seed=1),
                  lambda: leakage_table(a, a, seed=1), lambda: leakage_table(a[None].astype("uint8"), a[None].astype("uint16"), seed=1)):
        with pytest.raises(LeakageError): wrong()

@pytest.mark.parametrize("side, lowest, low, high", [(64, 99.4491, 32.739, 34.188), (256, 99.5693, 33.282, 33.645), (512, 99.5893, 33.373, 33.554), (1024, 99.5994, 33.418, 33.509)])
def test_published_critical_values(side, lowest, low, high):
    assert 100 * ideal_npcr(side ** 2, alpha=.05).low == pytest.approx(lowest, abs=6e-5)
    found = ideal_uaci(side ** 2, alpha=.05)
    assert (100 * found.low, 100 * found.high) == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))

def test_critical_values_hold_for_random_bytes():
    generator, rejected = np.random.default_rng(0), np.zeros(4, int)
    for _ in range(600):
        a, b = generator.integers(0, 256, (2, 48, 48), dtype=np.uint8)
        bounds, h = ideal_uaci(a.size, alpha=.05), ideal_entropy(a.size, alpha=.05)
        rejected += [npcr(a, b) < ideal_npcr(a.size, alpha=.05).low, not bounds.low <= uaci(a, b) <= bounds.high, not h.low <= entropy(a) <= h.high, chi_square(a) > 293.2478]
    assert (binom.cdf(rejected, 600, .05) > 1e-3).all() and (binom.sf(rejected - 1, 600, .05) > 1e-3).all(), rejected

@pytest.mark.parametrize("size", [256, 1024, 4096, 65536])
def test_ideal_entropy(size):
    generator = np.random.default_rng(size)
    drawn = np.array([entropy(generator.integers(0, 256, size)) for _ in range(400)])
    ideal = ideal_entropy(size)
    assert drawn.mean() == pytest.approx(ideal.mean, abs=4 * drawn.std() / 20)
    assert (ideal.high - ideal.low) / 2 / 2.5758 == pytest.approx(drawn.std(), rel=.15)
    if size >= 4096: assert ideal.mean == pytest.approx(8 - 255 / (2 * size * np.log(2)), abs=3 / size) # Miller-Madow is its first term

def test_unrelated_hashes_differ_in_half_the_bits():
    "The bit of the mean grey is always set, and 31 of the other 63 are: 2 * 31 * 32 / 63 = 31.5 bits, 4 bits of standard deviation."
    pictures = np.random.default_rng(1).integers(0, 256, (200, 32, 32), dtype=np.uint8)
    distances = unrelated(pictures, pictures, lambda a, b: phash_distance(a, b, data_range=255), seed=1, pairs=600)
    assert distances.mean() == pytest.approx(31.5, abs=.6) and distances.std() == pytest.approx(4, abs=.4) and distances.max() < 50

def pictures(n=32, side=48):
    generator = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side]
    return np.stack([np.uint8((120 + 60 * np.sin(x / 6 + k) + 40 * np.cos(y / 7) + generator.normal(0, 5, x.shape)).clip(0, 255) * (y > 12)) for k in range(n)])

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
    assert found["passes"].all(), found
    assert (found["measured_low"] <= found["measured"]).all() and (found["measured"] <= found["measured_high"]).all()

def test_ecb_and_a_fixed_iv_fail():
    ecb, fixed = table("ecb"), table("cbc", fixed_iv=True)
    assert not ecb.loc[["NPCR", "UACI", "entropy (bits/byte)", "χ² of bytes (255 df)", "repeated 16-byte blocks"], "passes"].any()
    assert not fixed.loc[["NPCR", "UACI", "repeated 16-byte blocks"], "passes"].any()
    assert fixed.loc["NPCR", "measured"] == pytest.approx(18 / 48, abs=.02) # the rows from the changed pixel on

def test_the_plaintext_itself_fails_everything():
    plain = pictures()
    assert not leakage_table(plain, plain, seed=1, resamples=50)["passes"].any()

def test_false_alarms_are_rare():
    "One row in a hundred at alpha = .01: over 40 ideal ciphers of 10 rows, 400 rows, 12 or more alarms would be rejected at p < .001."
    generator, plain, alarms = np.random.default_rng(9), pictures(8, 32), 0
    for seed in range(40):
        cipher, first, second = generator.integers(0, 256, (3, *plain.shape), dtype=np.uint8)
        alarms += (~leakage_table(plain, cipher, changed=(first, second), seed=seed, resamples=2)["passes"]).sum()
    assert alarms < 12

def test_repeated_blocks_between_pictures():
    a = np.random.default_rng(1).integers(0, 256, (2, 64), dtype=np.uint8); a[1, :16] = a[0, :16]
    assert repeated_blocks(a).tolist() == [.25, .25] and repeated_blocks(a[:, 1:]).tolist() == [0, 0]
