"Keys: RFC and Wycheproof vectors, file permissions, and that no text ever shows a key."
import io, json, logging, os, pickle, re, stat, traceback
from pathlib import Path

import pytest

from medcrypt.crypto import envelope, images, partial, rewrap
from medcrypt.crypto.keys import DataKey, Key, KeyFileError, derive, from_passphrase, load_key, new_key, write_key

SHARED = Path(__file__).resolve().parents[2] / "shared"
KEY = Key(bytes(range(32)))


def vectors(name):
    path = SHARED / "vectors" / name
    if not path.is_file(): pytest.skip(f"no vectors at {path}")
    return path


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("MEDCRYPT_KEY", "MEDCRYPT_KEY_FILE"): monkeypatch.delenv(name, raising=False)


def test_text_never_shows_the_key():
    log = io.StringIO(); logger = logging.getLogger("keys"); logger.addHandler(logging.StreamHandler(log)); logger.warning("%s %r", KEY, KEY)
    texts = [repr(KEY), str(KEY), f"{KEY}", f"{KEY!r:>40}", "%s" % KEY, repr([KEY]), repr({"key": KEY}), repr(KEY[:16]), repr(KEY[::-1]), log.getvalue()]
    for text in texts: assert "\\x" not in text and KEY.hex()[:8] not in text and "Key of" in text
    assert KEY[3] == 3 and bytes(KEY) == bytes(range(32)) and pickle.loads(pickle.dumps(KEY)) == KEY
    assert type(pickle.loads(pickle.dumps(KEY))) is Key


def test_new_keys_differ(): assert len({new_key() for _ in range(100)}) == 100


@pytest.mark.parametrize("umask", (0o000, 0o022, 0o077))
def test_file_mode_whatever_the_umask(tmp_path, umask):
    old = os.umask(umask)
    try: key = write_key(tmp_path / "deep" / "folder" / "k")
    finally: os.umask(old)
    path = tmp_path / "deep" / "folder" / "k"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_text() == key.hex() + "\n" and load_key(path) == key
    assert type(load_key(path)) is Key


def test_never_overwrites(tmp_path):
    write_key(tmp_path / "k", KEY)
    with pytest.raises(KeyFileError, match="never overwritten"): write_key(tmp_path / "k")
    assert load_key(tmp_path / "k") == KEY
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(KeyFileError): write_key(tmp_path / "link")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mode", (0o640, 0o604, 0o660, 0o644, 0o601, 0o777))
def test_open_permissions_are_refused(tmp_path, mode):
    path = tmp_path / "k"; write_key(path, KEY); path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"chmod 600 {re.escape(str(path))}"): load_key(path)


@pytest.mark.parametrize("content", (b"", b"\n", KEY.hex()[:-1].encode(), KEY.hex().encode() + b"00", b"0x" + KEY.hex()[2:].encode(), KEY, b"\xff" * 64,
                                     (KEY.hex()[:32] + " " + KEY.hex()[32:]).encode(), b"0" * 5000))
def test_bad_content_is_refused_and_not_echoed(tmp_path, content):
    path = tmp_path / "k"; path.write_bytes(content); path.chmod(0o600)
    with pytest.raises(KeyFileError) as caught: load_key(path)
    text = "".join(traceback.format_exception(caught.value))
    assert str(path) in text and KEY.hex()[:6] not in text and KEY.hex()[-6:] not in text


def test_places_that_are_no_key_file(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path, tmp_path / "missing", tmp_path / "fifo"):
        with pytest.raises(KeyFileError, match=re.escape(str(path))): load_key(path)
    with pytest.raises(KeyFileError): write_key(tmp_path / "fifo" / "k")
    with pytest.raises(KeyFileError): write_key(tmp_path / "k", b"short")
    assert not (tmp_path / "k").exists()


def test_environment(tmp_path, monkeypatch):
    with pytest.raises(KeyFileError, match="MEDCRYPT_KEY_FILE"): load_key()
    monkeypatch.setenv("MEDCRYPT_KEY", KEY.hex()); assert load_key() == KEY
    other = write_key(tmp_path / "k"); monkeypatch.setenv("MEDCRYPT_KEY_FILE", str(tmp_path / "k")); assert load_key() == other
    third = write_key(tmp_path / "third"); assert load_key(tmp_path / "third") == third
    monkeypatch.delenv("MEDCRYPT_KEY_FILE"); monkeypatch.setenv("MEDCRYPT_KEY", "äöü")
    with pytest.raises(KeyFileError, match="MEDCRYPT_KEY"): load_key()


# RFC 5869 appendix A.1
def test_hkdf_rfc_5869_a1():
    okm = derive(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_hkdf_wycheproof():
    tests = [t for g in json.loads(vectors("wycheproof/hkdf_sha256_test.json").read_text())["testGroups"] for t in g["tests"]]
    for test in tests:
        arguments = bytes.fromhex(test["ikm"]), bytes.fromhex(test["salt"]), bytes.fromhex(test["info"]), test["size"]
        if test["result"] == "valid": assert derive(*arguments).hex() == test["okm"], test["tcId"]
        else:
            with pytest.raises(KeyFileError): derive(*arguments)
    assert len(tests) == 86


def test_hkdf_rfc_5869_file():
    text = vectors("rfc/rfc-5869-HKDF-SHA256.txt").read_text()
    blocks = [dict(re.findall(r"(?m)^(IKM|salt|info|L|OKM) *=[ \t]*(\w*)", part)) for part in text.split("COUNT = ")[1:]]
    for block in blocks:
        assert derive(*(bytes.fromhex(block[name]) for name in ("IKM", "salt", "info")), int(block["L"])).hex() == block["OKM"]
    assert len(blocks) == 3


def test_derive_refuses():
    for arguments in ((b"", b"salt", "purpose"), (KEY, b"salt", "purpose", 0), (KEY, b"salt", "purpose", 8161)):
        with pytest.raises(KeyFileError): derive(*arguments)


# RFC 7914 section 12, third vector; its first 32 bytes, because PBKDF2's first block does not depend on the length asked for
def test_scrypt_rfc_7914():
    key = from_passphrase("pleaseletmein", b"SodiumChloride", n=16384, r=8, p=1)
    assert key.hex() == "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2" and type(key) is Key


def test_passphrase_default_cost_and_refusals():
    salt = b"0123456789abcdef"
    assert from_passphrase("e\u0301", salt) == from_passphrase("\u00e9", salt)
    for arguments, options in ((("", salt), {}), (("x", b"short"), {}), (("x", salt), {"n": 1000}), (("x", salt), {"r": 0})):
        with pytest.raises(KeyFileError): from_passphrase(*arguments, **options)


# the keyring, with a backend that lives in this process

@pytest.fixture
def ring():
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend
    class Memory(KeyringBackend):
        priority = 1
        def __init__(self): super().__init__(); self.kept = {}
        def get_password(self, service, name): return self.kept.get((service, name))
        def set_password(self, service, name, password): self.kept[service, name] = password
        def delete_password(self, service, name): del self.kept[service, name]
    before = keyring.get_keyring(); keyring.set_keyring(memory := Memory())
    yield memory
    keyring.set_keyring(before)


def test_keyring(ring, monkeypatch, tmp_path):
    key = write_key("keyring:hospital")
    assert load_key("keyring:hospital") == key and type(key) is Key and list(ring.kept) == [("medcrypt", "hospital")]
    monkeypatch.setenv("MEDCRYPT_KEY_FILE", "keyring:hospital"); monkeypatch.chdir(tmp_path)
    assert load_key() == key and not list(tmp_path.iterdir())
    with pytest.raises(KeyFileError, match="never overwritten"): write_key("keyring:hospital")
    with pytest.raises(KeyFileError, match="keygen keyring:clinic"): load_key("keyring:clinic")
    for name in ("keyring:",):
        with pytest.raises(KeyFileError, match="name"): load_key(name)
    ring.kept["medcrypt", "odd"] = "not hex"
    with pytest.raises(KeyFileError) as caught: load_key("keyring:odd")
    assert "not hex" not in str(caught.value)


def test_keyring_that_cannot_be_used(monkeypatch):
    keyring = pytest.importorskip("keyring")
    from keyring.backends.fail import Keyring
    before = keyring.get_keyring(); keyring.set_keyring(Keyring())
    try:
        for call in (load_key, write_key):
            with pytest.raises(KeyFileError, match="keyring cannot be used"): call("keyring:x")
    finally: keyring.set_keyring(before)
    monkeypatch.setitem(__import__("sys").modules, "keyring", None)
    with pytest.raises(KeyFileError, match="pip install keyring"): load_key("keyring:x")


# what a traceback with the values of all locals (pytest -l, Sentry, cgitb) would tell

def shown(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def failure(call) -> str:
    with pytest.raises(Exception) as caught: call()
    return shown(caught.value)


def forms(key: bytes) -> list:
    import base64
    return [bytes(key).hex(), bytes(key).hex()[:16], repr(bytes(key))[2:-1], base64.b64encode(bytes(key)).decode()[:20], str(list(key))[1:-1]]


def test_tracebacks_with_locals_show_no_key(tmp_path):
    import numpy as np
    from medcrypt.crypto.slots import new_private_key
    master, private = new_key(), new_private_key()
    picture = np.zeros((20, 20), "uint8")
    sealed = images.seal_image(picture, [master, private.public()], image_id="00")
    own = envelope.data_key(sealed, master)
    broken = sealed[:-1] + bytes([sealed[-1] ^ 1])
    calls = (lambda: envelope.unseal(broken, master), lambda: envelope.unseal(broken, private), lambda: envelope.unseal(broken, own), lambda: images.unseal_image(broken, master),
             lambda: partial.unseal_blocks(broken, private), lambda: rewrap.rewrap(broken, private, [master]), lambda: rewrap.rewrap(sealed, master, [private]), lambda: envelope.seal(b"x", own),
             lambda: envelope.seal(b"x", private), lambda: images.seal_image(picture.astype(float), master, image_id="00"), lambda: envelope.seal(b"x", master, {"a": object()}),
             lambda: envelope.data_key(broken[:100], master), lambda: derive(master, b"", "x", 9000), lambda: write_key(tmp_path / "short", master[:31]), lambda: partial.seal_blocks(picture, master, ratio=2, image_id="00"))
    for text in map(failure, calls):
        for key in (master, private, own, derive(own, b"", envelope.PURPOSE, 64)):
            assert not any(form in text for form in forms(key)), text


def test_kinds_of_keys_show_nothing():
    from medcrypt.crypto.slots import PrivateKey
    for kind in (Key, DataKey, PrivateKey):
        key = kind(bytes(range(40, 72)))
        for text in (repr(key), str(key), f"{key}", "%s" % key, repr([key]), repr(key[:9])):
            for form in forms(key): assert form not in text
        assert type(pickle.loads(pickle.dumps(key))) is kind


def test_tracebacks_of_key_files_show_no_key(tmp_path, monkeypatch):
    from Crypto.PublicKey import ECC
    from medcrypt.crypto import slots
    for name in ("MEDCRYPT_KEY", "MEDCRYPT_KEY_FILE"): monkeypatch.delenv(name, raising=False)
    key, private = new_key(), slots.new_private_key(); pem = slots.import_x25519_private_key(bytes(private)).export_key(format="PEM"); passphrase = "correct horse battery staple"; hidden = Key(passphrase.encode())
    def file(name, content): path = tmp_path / name; path.write_bytes(content if isinstance(content, bytes) else content.encode()); path.chmod(0o600); return path
    p256 = ECC.generate(curve="P-256"); secrets = [key.hex()[:24], passphrase, pem.splitlines()[1][8:40], hex(int(p256.d))[2:30], str(int(p256.d))[:30], repr(bytes(private))[2:40]]
    files = [file("long", key.hex() + "0"), file("typo", key.hex()[:-1] + "g"), file("wrong", p256.export_key(format="PEM")), file("broken", pem[:60] + "!" + pem[61:]), file("good.pem", pem)]
    file("taken", "x")
    calls = [lambda: load_key(files[0]), lambda: load_key(files[1]), lambda: load_key(files[4]), lambda: slots.load_private(files[2]), lambda: slots.load_private(files[3]), lambda: slots.load_any(files[3]), lambda: slots.load_public(files[4]),
             lambda: write_key(tmp_path / "taken", key), lambda: slots.write_pair(tmp_path / "taken", private), lambda: from_passphrase(bytes(hidden).decode(), b""), lambda: from_passphrase(bytes(hidden).decode(), bytes(16), n=3)]
    for text in map(failure, calls): assert not any(secret in text for secret in secrets), text
    for value in (key.hex() + "0", key.hex()[:-1] + "g"):
        monkeypatch.setenv("MEDCRYPT_KEY", value); text = failure(load_key); assert not any(secret in text for secret in secrets), text


def test_keys_in_formats_of_every_kind():
    key = Key(bytes(range(40, 72)))
    for text in (f"{key:>60}", f"{key!s:<50}", "{:^50}".format(key), format(key)): assert "Key of 32 bytes" in text and key.hex()[:8] not in text
