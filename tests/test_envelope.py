"Envelope: RFC 7518 and Wycheproof vectors, every bit flip, every truncation, splices, mutations, padding cases, overhead."
import hashlib, json
from pathlib import Path

import pytest
from Crypto.Cipher import AES
from hypothesis import HealthCheck, given, settings, strategies as st

from medcrypt.core import seeded_bytes
from medcrypt.crypto import envelope as e
from medcrypt.crypto.envelope import FAILED, EnvelopeError, a256cbc_hs512, open_a256cbc_hs512, parse, seal, seal_with, unseal
from medcrypt.crypto.keys import Key, derive

SHARED = Path(__file__).resolve().parents[2] / "shared"
KEY = Key(hashlib.sha256(b"test key").digest())
ENVELOPE = seal(b"a small secret", KEY, {"kind": "test"}, public=b"public", random=seeded_bytes(0, "envelope"))
IMAGE_HEADER = {"kind": "image", "image_id": "0" * 32, "shape": [2048, 2048], "dtype": "uint16", "bits": 12, "codec": "jpeg2000",
                "facts": {"modality": "CT"}}


def shared(name):
    path = SHARED / name
    if not path.is_file(): pytest.skip(f"no data at {path}")
    return json.loads(path.read_text())


def fails(envelope, key=KEY):
    with pytest.raises(EnvelopeError) as caught: unseal(envelope, key)
    assert type(caught.value) is EnvelopeError and str(caught.value) == FAILED


# RFC 7518 appendix B.3
def test_rfc_7518_b3():
    plaintext = (b"A cipher system must not be required to be secret, and it must be able to fall into the hands of the enemy without inconvenience")
    iv, associated_data = bytes.fromhex("1af38c2dc2b96ffdd86694092341bc04"), b"The second principle of Auguste Kerckhoffs"
    ciphertext, tag = a256cbc_hs512(bytes(range(64)), iv, plaintext, associated_data)
    assert ciphertext.hex() == ("4affaaadb78c31c5da4b1b590d10ffbd3dd8d5d302423526912da037ecbcc7bd822c301dd67c373bccb584ad3e9279c2"
                                "e6d12a1374b77f077553df829410446b36ebd97066296ae6427ea75c2e0846a11a09ccf5370dc80bfecbad28c73f09b3"
                                "a3b75e662a2594410ae496b2e2e6609e31e6e02cc837f053d21f37ff4f51950bbe2638d09dd7a4930930806d0703b1f6")
    assert tag.hex() == "4dd3b4c088a7f45c216839645b2012bf2e6269a8c56a816dbc1b267761955bc5"
    assert open_a256cbc_hs512(bytes(range(64)), iv, ciphertext, associated_data, tag) == plaintext


def test_wycheproof():
    tests = [t for g in shared("vectors/wycheproof/a256cbc_hs512_test.json")["testGroups"] for t in g["tests"]]
    valid = 0
    for test in tests:
        key, iv, msg, aad, ct, tag = (bytes.fromhex(test[name]) for name in ("key", "iv", "msg", "aad", "ct", "tag"))
        if test["result"] == "valid":
            assert a256cbc_hs512(key, iv, msg, aad) == (ct, tag) and open_a256cbc_hs512(key, iv, ct, aad, tag) == msg, test["tcId"]
            valid += 1
        else:
            with pytest.raises(EnvelopeError, match="cannot be opened"): open_a256cbc_hs512(key, iv, ct, aad, tag)
    assert len(tests) == 94 and 0 < valid < 94


def test_core_refuses_wrong_sizes():
    for key64, iv in ((bytes(32), bytes(16)), (bytes(64), bytes(12))):
        with pytest.raises(EnvelopeError): a256cbc_hs512(key64, iv, b"", b"")
        with pytest.raises(EnvelopeError): open_a256cbc_hs512(key64, iv, bytes(16), b"", bytes(32))


@pytest.mark.parametrize("size", (*range(0, 50), 4096, 65537))
@pytest.mark.parametrize("pad_to", (0, 70000))
def test_round_trip(size, pad_to):
    data = seeded_bytes(1, size)(size)
    envelope = seal(data, KEY, {"n": size}, public=data[:5], pad_to=pad_to)
    assert unseal(envelope, KEY) == (data, {"n": size}) and parse(envelope).public == data[:5]
    assert len(parse(envelope).ciphertext) == 16 * ((pad_to + 1 if pad_to else size) // 16 + 1)
    assert unseal(bytearray(envelope), KEY)[0] == unseal(memoryview(envelope), KEY)[0] == data


@pytest.mark.parametrize("pad_to", (1, 14, 15, 16, 17, 31, 32, 1000))
def test_padding_hides_the_length(pad_to):
    envelopes = [seal(bytes([n % 2]) * n, KEY, pad_to=pad_to) for n in range(pad_to + 1)]
    assert len({len(x) for x in envelopes}) == 1 and len({x[:14] for x in envelopes}) == 1
    assert [unseal(x, KEY)[0] for x in envelopes] == [bytes([n % 2]) * n for n in range(pad_to + 1)]
    assert len(envelopes[0]) - len(seal(bytes(pad_to), KEY)) == (16 if pad_to % 16 == 15 else 0)
    with pytest.raises(EnvelopeError, match="pad_to"): seal(bytes(pad_to + 1), KEY, pad_to=pad_to)


def test_every_bit_flip_fails():
    for bit in range(8 * len(ENVELOPE)):
        changed = bytearray(ENVELOPE); changed[bit // 8] ^= 1 << bit % 8
        fails(bytes(changed))


def test_every_truncation_and_extension_fails():
    for size in range(len(ENVELOPE)): fails(ENVELOPE[:size]); fails(ENVELOPE[size + 1:]); fails(ENVELOPE[:size] + ENVELOPE[size + 1:])
    for tail in (b"\0", bytes(16), ENVELOPE): fails(ENVELOPE + tail)


def test_every_splice_fails():
    other = seal(b"another secret", KEY, {"kind": "test"}, public=b"public", random=seeded_bytes(1, "envelope"))
    assert len(other) == len(ENVELOPE)
    differ = [i for i in range(len(other)) if other[i] != ENVELOPE[i]]
    for cut in range(differ[0] + 1, differ[-1] + 1): fails(ENVELOPE[:cut] + other[cut:]); fails(other[:cut] + ENVELOPE[cut:])


def test_wrong_keys_fail():
    for key in (Key(bytes(32)), bytes([KEY[0] ^ 1]) + KEY[1:], KEY[:31], KEY + b"\0", b""): fails(ENVELOPE, key)
    for junk in ("text", None, 7, [1]): fails(junk)


@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from("set insert delete copy".split()), st.integers(0, 10**6), st.integers(0, 10**6), st.binary(min_size=1, max_size=40)), min_size=1, max_size=6))
def test_mutations_fail(edits):
    data = bytearray(ENVELOPE)
    for kind, i, j, piece in edits:
        i, j = i % (len(data) + 1), j % (len(data) + 1)
        if kind == "set": data[i:i + len(piece)] = piece
        elif kind == "insert": data[i:i] = piece
        elif kind == "delete": del data[min(i, j):max(i, j)]
        else: data[i:i + 16] = data[j:j + 16]
    if bytes(data) != ENVELOPE: fails(bytes(data))


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=60), st.integers(0, 3))
def test_parse_of_anything_gives_parts_or_its_error(body, header, flags):
    fixed = e._FIXED.pack(e.MAGIC, 1, 1, 1, flags, len(header), 0)
    for data in (body, fixed + bytes(48) + header + body + bytes(16 - len(body) % 16) + bytes(32)):
        try: parts = parse(data)
        except EnvelopeError: continue
        assert isinstance(parts.header, dict)
        fails(data)


@pytest.mark.parametrize("text", (b"[" * 60000, b'{"a":' * 12000, b'{"a":1,"a":1}', b'{"a": 1}', b'{"b":1,"a":1}', b'{"a":NaN}', b'{"a":1e999}', b"[]", b"1", b"",
                                  b'{"a":' + b"9" * 5000 + b"}", b'{"\xc3\xa9":1}', b"\xff", b'{"a":1.0e0}'))
def test_headers_that_are_not_canonical_objects(text):
    data = e._FIXED.pack(e.MAGIC, 1, 1, 1, 0, len(text), 0) + bytes(48) + text + bytes(48)
    with pytest.raises(EnvelopeError): parse(data)
    fails(data)


def test_headers_that_cannot_be_sealed():
    for header in ({"a": float("nan")}, {"a": b"bytes"}, {"a": object()}, ["list"], {"a": "x" * 70000}, {(1, 2): 3}):
        with pytest.raises(EnvelopeError, match="header"): seal(b"", KEY, header)
    with pytest.raises(EnvelopeError, match="key"): seal(b"", b"short")
    with pytest.raises(EnvelopeError, match="salt"): seal_with(b"", KEY, salt=b"", iv=bytes(16))
    with pytest.raises(EnvelopeError, match="pad_to"): seal(b"", KEY, pad_to=-1)


def forge(padded, public=b"", flags=0):
    "An envelope with a genuine tag over a freely chosen padded plaintext: only a key holder can make one."
    size, salt, iv = len(padded), bytes(32), bytes(16)
    key64 = derive(KEY, salt, e.PURPOSE, 64)
    associated_data = e._FIXED.pack(e.MAGIC, 1, 1, 1, flags, 2, len(public)) + salt + iv + b"{}" + public
    ciphertext = AES.new(key64[32:], AES.MODE_CBC, iv=iv).encrypt(padded) if size % 16 == 0 and size else padded
    return associated_data + ciphertext + e._tag(key64[:32], associated_data, iv, ciphertext)


def test_forge_is_right(): assert unseal(forge(b"fifteen letters\x01"), KEY)[0] == b"fifteen letters"


def test_case_72_padding_faults_read_like_a_bad_tag():
    for case in shared("cases/72-padding-malformed/vector.json"): fails(forge(bytes.fromhex(case["block"])))
    fails(forge(b"no marker here\x02\x02", flags=1)); fails(forge(bytes(15) + b"\x01", flags=1))


def test_no_decryption_before_the_tag(monkeypatch):
    used = []
    monkeypatch.setattr(e.AES, "new", lambda *a, **k: used.append(1))
    fails(ENVELOPE[:-1] + bytes([ENVELOPE[-1] ^ 1])); fails(ENVELOPE, bytes(32))
    assert not used


def test_case_73_pkcs7_lengths():
    expected = shared("cases/73-pkcs7-lengths/expected.json")
    iv = bytes.fromhex(expected["iv"])
    for case in shared("cases/73-pkcs7-lengths/vector.json"):  # AES-128 vectors: ours is AES-256, so padding is compared through the library
        plaintext, ciphertext = b"\x07" * case["n"], bytes.fromhex(case["ciphertext"])
        padded = AES.new(bytes.fromhex(expected["key"]), AES.MODE_CBC, iv=iv).decrypt(ciphertext)
        ours, tag = a256cbc_hs512(bytes(64), iv, plaintext, b"")
        assert AES.new(bytes(32), AES.MODE_CBC, iv=iv).decrypt(ours) == padded and len(ours) == 16 * (case["n"] // 16 + 1)
        assert open_a256cbc_hs512(bytes(64), iv, ours, b"", tag) == plaintext


def test_case_74_flat_pictures_show_nothing():
    if not (SHARED / "cases/74-flat-picture-leak").is_dir(): pytest.skip(f"no data at {SHARED / 'cases'}")
    expected = shared("cases/74-flat-picture-leak/expected.json")
    flat = bytes(shared("cases/74-flat-picture-leak/vector.json")["plaintext_zero_bytes"])
    parts = [parse(seal(flat, KEY)) for _ in range(1000)]
    blocks = [{p.ciphertext[i:i + 16] for i in range(0, len(flat), 16)} for p in parts[:50]]
    assert len({p.iv for p in parts}) == len({p.salt for p in parts}) == 1000
    assert all(len(b) == expected["distinct_blocks_cbc"] for b in blocks) and len(set.union(*blocks)) == 50 * len(blocks[0])


def test_same_salt_and_key_but_other_purpose_or_header_changes_the_tag():
    a = seal_with(b"x", KEY, salt=bytes(32), iv=bytes(16), header={"a": 1}); b = seal_with(b"x", KEY, salt=bytes(32), iv=bytes(16), header={"a": 2})
    assert parse(a).ciphertext == parse(b).ciphertext and parse(a).tag != parse(b).tag


def test_overhead_of_an_ordinary_image():
    parts = parse(seal(bytes(1200000), KEY, IMAGE_HEADER))
    assert parts.overhead_bytes <= 256
    assert parse(seal(bytes(7), KEY, {name: value for name, value in {**IMAGE_HEADER, "image_id": "0" * 64}.items() if name != "facts"})).overhead_bytes <= 256


def test_format_is_frozen():
    "The bytes of version 1 never change: old envelopes must stay readable."
    assert hashlib.sha256(ENVELOPE).hexdigest() == FROZEN and len(ENVELOPE) == 62 + 15 + 6 + 16 + 32


FROZEN = "361894cc9aee5a60c1e4eefc1cae3ae99273bdfe2d8677e2426df8175eeae1b8"
