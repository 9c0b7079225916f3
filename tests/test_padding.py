"Padding by policy: the size functions, envelopes of one bucket, and `medcrypt encrypt --pad`."
import json

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from medcrypt.cli.main import main
from medcrypt.core import rng, seeded_bytes
from medcrypt.crypto import partial, resolution
from medcrypt.crypto.envelope import EnvelopeError, ciphertext_size, parse, seal, seal_chunks, unseal
from medcrypt.crypto.images import seal_image, unseal_image
from medcrypt.crypto.keys import Key
from medcrypt.crypto.padding import LARGEST, POLICIES, check_padding, padded_size, padme, power_of_two
from medcrypt.imaging import jpeg2000
from medcrypt.imaging.dicom import read_dicom
from medcrypt.imaging.secondary import write_dicom

KEY = Key(seeded_bytes(0, "test")(32))
SIZES = st.one_of(st.integers(0, 5000), st.integers(0, 1 << 70), st.builds(lambda bits, off: max(0, (1 << bits) + off), st.integers(0, 70), st.integers(-2, 2)))


# sizes

@given(SIZES, SIZES, st.sampled_from(sorted(POLICIES)))
def test_no_size_shrinks_order_stays_and_twice_is_once(one, other, policy):
    small, large = sorted((one, other))
    assert padded_size(small, policy) <= padded_size(large, policy) and padded_size(small, policy) >= small
    assert padded_size(padded_size(one, policy), policy) == padded_size(one, policy)


@given(SIZES)
@example(129)
def test_padme_costs_at_most_12_per_cent_and_less_for_more(size):
    added = padme(size) - size
    assert 100 * added <= 12 * size
    exponent = max(size.bit_length() - 1, 1)
    assert added << exponent.bit_length() < max(size, 1) # below 2^-S, and S never falls
    assert padme(size) <= power_of_two(size) < 2 * max(size, 1)


def test_padmes_worst_falls_from_octave_to_octave_of_the_exponent():
    # within one S the worst case rises towards 2^-S; from one S to the next it halves
    worst = [max((padme(n) - n) / n for n in {(1 << bits) + 1, *range(1 << bits, min(2 << bits, (1 << bits) + 5000))}) for bits in range(3, 40)]
    last = {bits: worst[bits - 3] for bits in (7, 15, 31)}
    assert last[7] < .117 and last[15] < last[7] * .55 and last[31] < last[15] * .55 and max(worst) == last[7]


@pytest.mark.parametrize("size", (0, 1))
def test_sizes_without_a_logarithm(size):
    assert [padded_size(size, policy) for policy in POLICIES] == [size] * 3


def test_number_of_sizes_in_a_range():
    sizes = range(1 << 14, 1 << 15)
    assert len({padme(n) for n in sizes}) == 17 and {power_of_two(n) for n in sizes} == {1 << 14, 1 << 15}  # S = 4 bits after the first: 16 in the octave, and the next octave's first


@pytest.mark.parametrize("pad_to", ("buckets", "", "Padme", "maximum", "12", -1, LARGEST + 1, 10 ** 400, 2.5, None, True))
def test_what_is_no_padding(pad_to):
    for call in (lambda: check_padding(pad_to), lambda: padded_size(5, pad_to), lambda: seal(b"x", KEY, pad_to=pad_to)):
        with pytest.raises(EnvelopeError, match="pad_to") as error: call()
        assert "\n" not in str(error.value)


def test_a_number_of_bytes():
    assert padded_size(9, 9) == 9 and padded_size(9, 0) == 9
    with pytest.raises(EnvelopeError, match="more than 8 bytes"): padded_size(9, 8)


# envelopes

@settings(deadline=None, max_examples=60)
@given(st.integers(0, 20000), st.sampled_from([*POLICIES, 20000, 25000]), st.sampled_from((12, 13, 20)), st.binary(max_size=3))
def test_envelopes_are_as_long_as_their_policy_says(size, policy, chunk_bits, tail):
    data = (bytes(size) + tail)[-size:] if size else b""
    envelope = seal(data, KEY, pad_to=policy, chunk_bits=chunk_bits); parts = parse(envelope)
    assert unseal(envelope, KEY)[0] == data and parts.padded == (policy != "none")
    assert len(parts.ciphertext) == ciphertext_size(size, policy, 1 << chunk_bits)
    alike = seal(b"\xff" * padded_size(size, policy), KEY, pad_to=policy, chunk_bits=chunk_bits) # the longest of the bucket
    assert len(alike) == len(envelope)


def test_no_padding_is_what_it_was():
    sealed = [seal(b"pixels", KEY, random=seeded_bytes(0, "same"), **options) for options in ({}, {"pad_to": 0}, {"pad_to": "none"})]
    assert len(set(sealed)) == 1 and not parse(sealed[0]).padded


def test_a_policy_needs_no_size_in_advance():
    pieces = (bytes([n]) * 4000 for n in range(100))
    envelope = b"".join(seal_chunks(pieces, [KEY], pad_to="power-of-two", chunk_bits=14))
    assert unseal(envelope, KEY)[0] == b"".join(bytes([n]) * 4000 for n in range(100)) and len(parse(envelope).ciphertext) == ciphertext_size(400_000, 1 << 19, 1 << 14)


def pictures(bits=8, dtype="uint8"): return [np.asarray(rng(n, "padding").integers(0, 1 << bits, (48, 40)) >> n, dtype) for n in range(5)]


@pytest.mark.parametrize("policy", ("padme", "power-of-two"))
@pytest.mark.parametrize("bits,dtype", ((8, "uint8"), (12, "uint16")))
def test_pictures_of_one_bucket_are_equally_long_and_open_exactly(policy, bits, dtype):
    by_bucket = {}
    for picture in pictures(bits, dtype):
        size, envelope = len(jpeg2000.encode(picture, bits=bits)), seal_image(picture, KEY, image_id="00", bits=bits, pad_to=policy)
        assert np.array_equal(unseal_image(envelope, KEY)[0], picture)
        assert len(parse(envelope).ciphertext) == ciphertext_size(size, policy)
        by_bucket.setdefault(POLICIES[policy](size), set()).add(len(envelope))
    assert all(len(sizes) == 1 for sizes in by_bucket.values()) and len({parse(seal_image(p, KEY, image_id="00", bits=bits)).overhead_bytes for p in pictures(bits, dtype)}) == 1


def test_partly_hidden_pictures_are_padded_too():
    picture = pictures()[1]
    blocks = partial.seal_blocks(picture, KEY, ratio=.5, image_id="00", pad_to="power-of-two"); low = resolution.seal_resolution(picture, KEY, resolutions=2, image_id="00", pad_to="padme")
    assert parse(blocks).padded and parse(low).padded and np.array_equal(partial.unseal_blocks(blocks, KEY)[0], picture) and np.array_equal(resolution.unseal_resolution(low, KEY)[0], picture)
    assert (len(parse(blocks).ciphertext) - 16).bit_count() == 1


# medcrypt encrypt --pad

@pytest.fixture
def scans(tmp_path):
    assert main(["keygen", str(tmp_path / "k.key")]) == 0
    return [write_dicom(tmp_path / f"{n}.dcm", picture, {"modality": "DX", "bits_stored": 12}) for n, picture in enumerate(pictures(12, "uint16")[:2])]


def command(*words): return main([str(word) for word in words])


@pytest.mark.parametrize("how", ([], ["--codec", "htj2k"], ["--whole"], ["--hide", ".5"], ["--show-resolutions", "2"]), ids=("pixels", "htj2k", "whole", "blocks", "resolutions"))
@pytest.mark.parametrize("policy", ("power-of-two", "padme", "9000"))
def test_files_are_padded_and_come_back(scans, tmp_path, capsys, how, policy):
    key, envelope, back = tmp_path / "k.key", tmp_path / "a.mce", tmp_path / ("b.dcm" if "--whole" in how else "b.npy")
    assert command("encrypt", scans[0], "--key", key, "-o", envelope, "--pad", policy, *how) == 0
    assert "padded" in capsys.readouterr().out
    assert command("inspect", envelope) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["padded"] is True and about["size_bytes"] == about["public_bytes"] + about["ciphertext_bytes"] + about["overhead_bytes"]
    if policy == "9000": assert about["ciphertext_bytes"] == 9008
    if policy == "power-of-two": assert (about["ciphertext_bytes"] - 16).bit_count() == 1
    assert command("decrypt", envelope, "--key", key, "-o", back) == 0
    assert back.read_bytes() == scans[0].read_bytes() if "--whole" in how else np.array_equal(np.load(back), read_dicom(scans[0]).stored)


def test_without_pad_nothing_is(scans, tmp_path, capsys):
    for words in ([], ["--pad", "none"]): assert command("encrypt", scans[0], "--key", tmp_path / "k.key", "-o", tmp_path / "a.mce", "--force", *words) == 0 and "padded" not in capsys.readouterr().out
    assert not parse((tmp_path / "a.mce").read_bytes()).padded


@pytest.mark.parametrize("policy", ("bucket", "maximum", "0", "-5", "1.5", "", "PADME"))
def test_an_unknown_policy_is_one_clear_sentence(scans, tmp_path, capsys, policy):
    capsys.readouterr()
    with pytest.raises(SystemExit) as done: command("encrypt", scans[0], "--key", tmp_path / "k.key", f"--pad={policy}")
    said = capsys.readouterr().err.splitlines()[-1]
    assert done.value.code == 2 and f"argument --pad: {policy!r} is not none, power-of-two, padme or a whole number of bytes" in said and not (tmp_path / "0.mce").exists()


@pytest.mark.parametrize("how", ([], ["--whole"], ["--hide", ".5"]))
def test_too_few_bytes_name_the_file_and_leave_nothing(scans, tmp_path, capsys, how):
    capsys.readouterr()
    assert command("encrypt", scans[0], "--key", tmp_path / "k.key", "-o", tmp_path / "a.mce", "--pad", "100", *how) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "0.dcm" in said and "--pad: the plaintext has more than 100 bytes" in said and "pad_to" not in said and not list(tmp_path.glob("*.mce*"))


@pytest.mark.parametrize("how", ([], ["--whole"]))
def test_going_on_compares_the_padding(scans, tmp_path, capsys, how):
    words = ["encrypt", scans[0], "--key", tmp_path / "k.key", "-o", tmp_path / "a.mce", "--skip-existing", *how]
    ways = (["--pad", "padme"], ["--pad", "power-of-two"], ["--pad", "9000"], ["--pad", "50"], [])
    for made in ways:
        if "50" in made: continue
        (tmp_path / "a.mce").unlink(missing_ok=True); assert command(*words, *made) == 0
        for asked in ways:
            before = (tmp_path / "a.mce").read_bytes(); capsys.readouterr()
            assert command(*words, *asked) == (0 if asked == made else 1) and (tmp_path / "a.mce").read_bytes() == before
            said = capsys.readouterr()
            assert "holds the same" in said.out if asked == made else "not this file's envelope" in said.err


def test_a_number_of_bytes_for_which_there_is_no_room_is_refused_before_anything_is_written(scans, tmp_path, capsys, monkeypatch):
    capsys.readouterr()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 5000}))
    assert command("encrypt", scans[0], "--key", tmp_path / "k.key", "-o", tmp_path / "a.mce", "--pad", "5001") == 1
    said = capsys.readouterr().err; assert "0.dcm" in said and "--pad 5001" in said and "5000 bytes left" in said
    assert command("encrypt", scans[0], "--key", tmp_path / "k.key", "-o", tmp_path / "a.mce", "--pad", str(1 << 31), "--hide", ".5") == 1
    said = capsys.readouterr().err; assert said.count("\n") == 1 and "sealed in memory" in said and not list(tmp_path.glob("*.mce*"))
