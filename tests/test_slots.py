"Key slots and recipients: standards' vectors, other libraries' files, holders, hostile sections, key files."
import os, stat

import pytest
from Crypto.Cipher import AES
from Crypto.PublicKey import ECC
from hypothesis import given, settings, strategies as st

from medcrypt.crypto import slots as s
from medcrypt.crypto.aead import FAILED, EnvelopeError
from medcrypt.crypto.keys import DataKey, Key, KeyFileError, derive, load_key, new_key, write_key
from medcrypt.crypto.slots import PrivateKey, PublicKey, kinds, load_any, load_private, load_public, make_slots, new_private_key, open_slots, slots_size, write_pair

MASTER, OWN = Key(bytes(range(32))), DataKey(bytes(range(100, 132)))


# RFC 7748 section 6.1
def test_x25519_rfc_7748():
    bob = PrivateKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert bob.public().raw.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"


# RFC 3394 section 4.6
def test_key_wrap_rfc_3394():
    assert s.aes_key_wrap(bytes(range(32)), bytes.fromhex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f")).hex() == "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"


def test_a_slot_is_what_the_table_says():
    "Opened by hand, with the key wrap of another library than ours."
    section = make_slots(OWN, [MASTER])
    assert section[:2] == b"\1\1" and len(section) == 42
    wrapping = derive(MASTER, b"", "medcrypt envelope 2 key wrap")
    assert AES.new(wrapping, AES.MODE_KW).unseal(section[2:]) == OWN


def test_hpke_by_another_library():
    hpke = pytest.importorskip("cryptography.hazmat.primitives.hpke")
    x25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.x25519")
    friend = new_private_key()
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    assert suite.decrypt(make_slots(OWN, [friend.public()])[2:], x25519.X25519PrivateKey.from_private_bytes(bytes(friend)), info=s.INFO) == OWN


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_every_holder_opens(who):
    holders = [new_private_key() if private else new_key() for private in who]
    section = make_slots(OWN, [h.public() if isinstance(h, PrivateKey) else h for h in holders])
    assert kinds(section) == [s.RECIPIENT if private else s.MASTER for private in who] and section[0] == len(who)
    for holder in holders: assert open_slots(section, holder) == OWN and type(open_slots(section, holder)) is DataKey
    for stranger in (new_key(), new_private_key(), Key(holders[0]) if who[0] else PrivateKey(holders[0])):
        with pytest.raises(EnvelopeError) as caught: open_slots(section, stranger)
        assert str(caught.value) == FAILED


def test_slots_for_a_recipient_differ_each_time():
    friend = new_private_key().public()
    assert len({make_slots(OWN, [friend]) for _ in range(20)}) == 20 and make_slots(OWN, [MASTER]) == make_slots(OWN, [MASTER])


def test_every_bit_of_a_slot_counts():
    for holder, public in ((MASTER, MASTER), (friend := new_private_key(), friend.public())):
        section = make_slots(OWN, [public])
        for bit in range(8, 8 * len(section)):   # the kind too; the count is the envelope's matter
            changed = bytearray(section); changed[bit // 8] ^= 1 << bit % 8
            if bit < 16 and changed[1] not in s.SIZES: continue
            with pytest.raises(EnvelopeError): open_slots(bytes(changed), holder)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_sizes_of_anything(data):
    read = lambda at, size: data[at:at + size]
    try: size = slots_size(read)
    except EnvelopeError: return
    assert size == 1 + sum(1 + s.SIZES[k] for k in kinds(data[:1] + (data + bytes(255 * 81))[1:size])) or size > len(data)


def test_what_cannot_hold_a_key():
    for keys in ([], [MASTER] * 256): 
        with pytest.raises(EnvelopeError, match="1 to 255"): make_slots(OWN, keys)
    for key in (MASTER[:31], b"", "text", None, new_private_key(), OWN, 7):
        with pytest.raises(EnvelopeError, match="key"): make_slots(OWN, [key])
    for raw in (bytes(32), (1).to_bytes(32, "little"), bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), b"short", b""):   # RFC 7748 §6.1: points of low order
        with pytest.raises(KeyFileError, match="public key"): PublicKey(raw)


# files

def test_pair_files(tmp_path):
    old = os.umask(0)
    try: public = write_pair(tmp_path / "deep" / "r.pem")
    finally: os.umask(old)
    path, other = tmp_path / "deep" / "r.pem", tmp_path / "deep" / "r.pem.pub"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and load_public(other) == public == load_private(path).public()
    assert "BEGIN PRIVATE KEY" in path.read_text() and "BEGIN PUBLIC KEY" in other.read_text()
    assert type(load_private(path)) is PrivateKey and type(load_any(path)) is PrivateKey
    write_key(tmp_path / "k", MASTER); assert load_any(tmp_path / "k") == MASTER and type(load_any(tmp_path / "k")) is Key
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    theirs = serialization.load_pem_private_key(path.read_bytes(), None)
    assert theirs.private_bytes_raw() == load_private(path) and serialization.load_pem_public_key(other.read_bytes()).public_bytes_raw() == public.raw


def test_pairs_never_overwrite(tmp_path):
    first = write_pair(tmp_path / "a")
    with pytest.raises(KeyFileError, match="never overwritten"): write_pair(tmp_path / "a")
    (tmp_path / "b.pub").write_text("mine")
    with pytest.raises(KeyFileError, match="b.pub: exists"): write_pair(tmp_path / "b")
    assert not (tmp_path / "b").exists() and (tmp_path / "b.pub").read_text() == "mine" and load_public(tmp_path / "a.pub") == first


def test_files_that_are_something_else(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDCRYPT_KEY_FILE", raising=False); monkeypatch.delenv("MEDCRYPT_KEY", raising=False)
    write_pair(tmp_path / "a"); write_key(tmp_path / "k", MASTER)
    others = {"ed": ECC.generate(curve="ed25519"), "p256": ECC.generate(curve="P-256")}
    for name, key in others.items():
        (tmp_path / name).write_text(key.export_key(format="PEM")); (tmp_path / name).chmod(0o600); (tmp_path / f"{name}.pub").write_text(key.public_key().export_key(format="PEM"))
        with pytest.raises(KeyFileError, match="X25519"): load_private(tmp_path / name)
        with pytest.raises(KeyFileError, match="X25519"): load_public(tmp_path / f"{name}.pub")
    for name, text in (("junk", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"), ("none", b""), ("bytes", b"\xff" * 100)):
        (tmp_path / name).write_bytes(text); (tmp_path / name).chmod(0o600)
        with pytest.raises(KeyFileError, match=name): load_private(tmp_path / name)
        with pytest.raises(KeyFileError, match=name): load_public(tmp_path / name)
    with pytest.raises(KeyFileError, match="a private key"): load_public(tmp_path / "a")
    with pytest.raises(KeyFileError, match="private key, where a master key"): load_key(tmp_path / "a")
    with pytest.raises(KeyFileError): load_private(tmp_path / "a.pub")
    (tmp_path / "a").chmod(0o644)
    for load in (load_private, load_any):
        with pytest.raises(KeyFileError, match="chmod 600"): load(tmp_path / "a")
    for load in (load_private, load_public, load_any):
        with pytest.raises(KeyFileError, match="missing"): load(tmp_path / "missing")
    with pytest.raises(KeyFileError, match="no key"): load_any()
