"The command with keys, recipients and parts of pictures: every way to encrypt comes back exactly; rotation; nothing lost, nothing shown."
import json, os, stat
from pathlib import Path

import numpy as np
import pytest

from medcrypt.cli.main import main
from medcrypt.crypto import partial, resolution
from medcrypt.crypto.envelope import parse
from medcrypt.crypto.keys import load_key
from medcrypt.imaging.dicom import read_dicom
from medcrypt.imaging.secondary import write_dicom


@pytest.fixture
def scan(tmp_path):
    y, x = np.mgrid[:96, :128]
    body = np.hypot((y - 48) / 36, (x - 64) / 50) < 1
    pixels = (np.random.default_rng(0).normal(0, 8, body.shape) - 1000 + 1040 * body).astype(np.int16)
    return write_dicom(tmp_path / "scan.dcm", pixels, {"modality": "CT", "bits_stored": 16, "rescale_slope": 1, "rescale_intercept": 0, "window_center": 40, "window_width": 400, "spacing_mm": [0.7, 0.7]})


@pytest.fixture
def key(tmp_path):
    assert main(["keygen", str(tmp_path / "k.key")]) == 0
    return tmp_path / "k.key"


@pytest.fixture
def pair(tmp_path):
    assert main(["keygen", "--pair", str(tmp_path / "r.pem")]) == 0
    return tmp_path / "r.pem"


def ok(*arguments): assert main(list(map(str, arguments))) == 0
def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 1
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1 and text.startswith("medcrypt: ")
    return text


WAYS = {"all": [], "htj2k": ["--codec", "htj2k"], "blocks": ["--hide", ".5"], "large": ["--hide", ".25", "--block", "17"], "secret": ["--hide", ".5", "--secret-mask"], "box": ["--hide-box", "10,20,50,90", "--hide-box", "0,0,3,3", "--block", "1"],
        "region": ["--hide-region"], "secret-region": ["--hide-region", "--secret-mask"], "low": ["--show-resolutions", "2"], "details": ["--hide-resolutions", "3"], "fast-low": ["--show-resolutions", "1", "--codec", "htj2k"], "whole": ["--whole"]}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_comes_back(way, scan, key, pair, tmp_path, capsys):
    ok("encrypt", scan, "--key", key, "--to", f"{pair}.pub", "-o", tmp_path / "a.mce", *WAYS[way])
    said = capsys.readouterr().out
    assert "verified" in said and ("% of the pixels" in said) == (way in ("blocks", "large", "secret", "box", "region", "secret-region"))
    ending = "copy" if way == "whole" else "npy"
    for n, opener in enumerate((key, pair)):
        ok("decrypt", tmp_path / "a.mce", "--key", opener, "-o", tmp_path / f"{n}.{ending}")
        if way == "whole": assert (tmp_path / f"{n}.copy").read_bytes() == scan.read_bytes()
        else: assert np.array_equal(np.load(tmp_path / f"{n}.npy"), read_dicom(scan).stored)
    ok("inspect", tmp_path / "a.mce")
    data = (tmp_path / "a.mce").read_bytes()
    assert b"modality" not in data and b"window" not in data


def test_what_the_public_parts_show(scan, key, tmp_path):
    stored = read_dicom(scan).stored
    for name, options in WAYS.items(): ok("encrypt", scan, "--key", key, "-o", tmp_path / f"{name}.mce", *options)
    read = lambda name: (tmp_path / f"{name}.mce").read_bytes()
    _, mask = partial.public_layer(read("box"))
    hidden = np.zeros(stored.shape, bool); hidden[10:50, 20:90] = hidden[:3, :3] = True
    assert np.array_equal(~mask, hidden)
    pixels, mask = partial.public_layer(read("region"))
    assert mask[:4].all() and not mask[40:56, 50:80].any() and np.array_equal(pixels[mask], stored[mask])
    assert mask[::8, ::8].size == 12 * 16 and np.array_equal(mask, np.repeat(np.repeat(mask[::8, ::8], 8, 0), 8, 1))   # whole tiles
    assert partial.public_layer(read("secret"))[1] is None and partial.public_layer(read("secret-region"))[1] is None
    low, details = (resolution.public_picture(read(name)) for name in ("low", "details"))
    assert np.corrcoef(low.ravel(), stored.ravel())[0, 1] > .8 > .5 > abs(np.corrcoef(details.ravel(), stored.ravel())[0, 1])
    for name in ("all", "htj2k", "whole"): assert not parse(read(name)).public


@pytest.mark.parametrize("options,word", ((["--hide", ".5", "--hide-region"], "--hide and --hide-region"), (["--whole", "--hide", ".5"], "choose one"), (["--secret-mask"], "--secret-mask"), (["--block", "4"], "--block"), (["--hide", "2"], "--hide 2"),
                                          (["--hide", ".5", "--codec", "htj2k"], "htj2k"), (["--show-resolutions", "99"], "resolution"), (["--hide-box", "0,0,900,9"], "box"), (["--hide", ".5", "--block", "99999"], "block"), (["--block", "8", "--show-resolutions", "2"], "--block")))
def test_options_that_do_not_fit(options, word, scan, key, tmp_path, capsys):
    assert word in refused(capsys, "encrypt", scan, "--key", key, "-o", tmp_path / "a.mce", *options) and not (tmp_path / "a.mce").exists()


@pytest.mark.parametrize("options", (["--hide", ".5"], ["--hide-region"], ["--hide-box", "0,0,4,4"], ["--show-resolutions", "2"], ["--show-resolutions", "99"]))
def test_a_picture_that_cannot_be_hidden_in_part_is_named(options, scan, key, tmp_path, capsys):
    frames = write_dicom(tmp_path / "two frames.dcm", np.zeros((2, 40, 40), np.uint16), {"modality": "CT"}); (tmp_path / "out").mkdir()
    assert "two frames.dcm: " in refused(capsys, "encrypt", frames, "--key", key, "-o", tmp_path / "x.mce", *options)
    if "99" not in options:
        assert main(["encrypt", str(frames), str(scan), "--key", str(key), "-o", str(tmp_path / "out"), *options]) == 1
        text = capsys.readouterr(); assert "two frames.dcm: " in text.err and "1 of 2 files" in text.err and (tmp_path / "out" / "scan.mce").exists()


@pytest.mark.parametrize("box", ("1,2,3", "a,b,c,d", "1,2,3,-4", "", "1.5,2,3,4"))
def test_boxes_that_are_none(box, scan, key):
    with pytest.raises(SystemExit) as done: main(["encrypt", str(scan), "--key", str(key), "--hide-box", box])
    assert done.value.code == 2


def test_recipients_alone(scan, key, pair, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MEDCRYPT_KEY_FILE", str(key))   # is not asked when only recipients are named
    ok("encrypt", scan, "--to", f"{pair}.pub", "-o", tmp_path / "a.mce")
    assert "cannot be opened" in refused(capsys, "decrypt", tmp_path / "a.mce", "-o", tmp_path / "x.npy") and not (tmp_path / "x.npy").exists()
    ok("decrypt", tmp_path / "a.mce", "--key", pair, "-o", tmp_path / "x.npy"); assert "unchanged since it was sealed" in capsys.readouterr().out   # and not by whom
    assert "a private key" in refused(capsys, "encrypt", scan, "--to", pair, "-o", tmp_path / "b.mce")
    assert "cannot be read" in refused(capsys, "encrypt", scan, "--to", tmp_path / "none.pub", "-o", tmp_path / "b.mce")
    assert "private key, where a master key" in refused(capsys, "encrypt", scan, "--key", pair, "-o", tmp_path / "b.mce")


def test_keygen_pair(pair, tmp_path, capsys):
    assert stat.S_IMODE(pair.stat().st_mode) == 0o600
    before = pair.read_bytes(), Path(f"{pair}.pub").read_bytes()
    assert "never overwritten" in refused(capsys, "keygen", "--pair", pair) and (pair.read_bytes(), Path(f"{pair}.pub").read_bytes()) == before
    assert "--pair" in refused(capsys, "keygen", "--pair", "keyring:x")


def test_keyring(scan, tmp_path, capsys):
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend
    class Memory(KeyringBackend):
        priority, kept = 1, {}
        def get_password(self, service, name): return self.kept.get((service, name))
        def set_password(self, service, name, password): self.kept[service, name] = password
        def delete_password(self, service, name): del self.kept[service, name]
    before = keyring.get_keyring(); keyring.set_keyring(Memory())
    try:
        ok("keygen", "keyring:hospital"); ok("encrypt", scan, "--key", "keyring:hospital", "-o", tmp_path / "a.mce"); ok("decrypt", tmp_path / "a.mce", "--key", "keyring:hospital", "-o", tmp_path / "a.npy")
        assert Memory.kept["medcrypt", "hospital"] not in "".join(capsys.readouterr())
        assert "never overwritten" in refused(capsys, "keygen", "keyring:hospital") and "no such key" in refused(capsys, "decrypt", tmp_path / "a.mce", "--key", "keyring:other", "-o", tmp_path / "b.npy")
    finally: keyring.set_keyring(before)


def test_rekey(scan, key, pair, tmp_path, capsys):
    ok("encrypt", scan, "--key", key, "-o", tmp_path / "a.mce"); ok("encrypt", scan, "--key", key, "--hide", ".5", "-o", tmp_path / "b.mce"); ok("keygen", tmp_path / "new.key")
    old = (tmp_path / "a.mce").read_bytes()
    ok("rekey", tmp_path / "a.mce", "--key", key, "--new-key", tmp_path / "new.key", "--to", f"{pair}.pub", "-o", tmp_path / "c.mce")
    assert (tmp_path / "a.mce").read_bytes() == old and parse((tmp_path / "c.mce").read_bytes()).ciphertext == parse(old).ciphertext
    ok("rekey", tmp_path / "a.mce", tmp_path / "b.mce", "--key", key, "--new-key", tmp_path / "new.key", "--in-place")
    for name in "abc":
        ok("decrypt", tmp_path / f"{name}.mce", "--key", tmp_path / "new.key", "-o", tmp_path / f"{name}.npy")
        assert "cannot be opened" in refused(capsys, "decrypt", tmp_path / f"{name}.mce", "--key", key, "-o", tmp_path / "x.npy")
    ok("decrypt", tmp_path / "c.mce", "--key", pair, "-o", tmp_path / "pair.npy")
    (tmp_path / "out").mkdir(); ok("rekey", tmp_path / "a.mce", tmp_path / "b.mce", "--key", tmp_path / "new.key", "--new-key", key, "-o", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.mce", "b.mce"]


def test_rekey_loses_nothing(scan, key, tmp_path, capsys):
    ok("encrypt", scan, "--key", key, "-o", tmp_path / "a.mce"); ok("keygen", tmp_path / "new.key"); good = (tmp_path / "a.mce").read_bytes()
    ok("keygen", tmp_path / "third.key")
    for change in (["--key", tmp_path / "new.key", "--new-key", tmp_path / "third.key", "--in-place"], ["--key", key, "--in-place"], ["--key", key, "--new-key", tmp_path / "new.key"], ["--key", key, "--new-key", tmp_path / "new.key", "--in-place", "-o", tmp_path / "b"],
                   ["--key", key, "--new-key", tmp_path / "new.key", "-o", scan], ["--key", key, "--new-key", tmp_path / "new.key", "-o", tmp_path / "new.key", "--force"], ["--key", key, "--new-key", tmp_path / "none.key", "--in-place"]):
        refused(capsys, "rekey", tmp_path / "a.mce", *change)
        assert (tmp_path / "a.mce").read_bytes() == good and load_key(tmp_path / "new.key") and read_dicom(scan)
    broken = bytearray(good); broken[-1] ^= 1; (tmp_path / "broken.mce").write_bytes(broken)
    capsys.readouterr()
    assert main(["rekey", str(tmp_path / "broken.mce"), str(tmp_path / "a.mce"), "--key", str(key), "--new-key", str(tmp_path / "new.key"), "--in-place"]) == 1
    text = capsys.readouterr().err
    assert "broken.mce" in text and "1 of 2 envelopes" in text and (tmp_path / "broken.mce").read_bytes() == bytes(broken) and (tmp_path / "a.mce").read_bytes() != good
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_whole_files(key, tmp_path, capsys):
    (tmp_path / "letter.txt").write_bytes(b"Doe, Jane" * 300000); (tmp_path / "empty").write_bytes(b""); (tmp_path / "in").mkdir(); (tmp_path / "in" / "a.dcm").write_bytes(b"not DICOM")
    (tmp_path / "out").mkdir()
    ok("encrypt", tmp_path / "letter.txt", tmp_path / "empty", tmp_path / "in", "--whole", "--key", key, "-o", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.dcm.mce", "empty.mce", "letter.txt.mce"] and b"Jane" not in (tmp_path / "out" / "letter.txt.mce").read_bytes()
    for name, where in (("letter.txt", tmp_path), ("empty", tmp_path), ("a.dcm", tmp_path / "in")):
        ok("decrypt", tmp_path / "out" / f"{name}.mce", "--key", key)
        assert (tmp_path / "out" / name).read_bytes() == (where / name).read_bytes()
    data = bytearray((tmp_path / "out" / "letter.txt.mce").read_bytes()); data[-1] ^= 1; (tmp_path / "out" / "letter.txt.mce").write_bytes(data); (tmp_path / "out" / "letter.txt").unlink()
    assert "cannot be opened" in refused(capsys, "decrypt", tmp_path / "out" / "letter.txt.mce", "--key", key)
    assert not (tmp_path / "out" / "letter.txt").exists() and not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]   # not even the genuine first chunks
    os.rename(tmp_path / "out" / "empty.mce", tmp_path / "out" / "nothing"); assert "--output" in refused(capsys, "decrypt", tmp_path / "out" / "nothing", "--key", key)
    assert "no such file" in refused(capsys, "encrypt", tmp_path / "missing", "--whole", "--key", key, "-o", tmp_path / "m.mce")


def test_many_frames(key, tmp_path):
    frames = np.random.default_rng(0).integers(0, 4096, (20, 64, 64)).astype(np.uint16)
    source = write_dicom(tmp_path / "v.dcm", frames, {"modality": "CT", "bits_stored": 12})
    for name, options in (("a", []), ("b", ["--codec", "htj2k"])):
        ok("encrypt", source, "--key", key, "-o", tmp_path / f"{name}.mce", *options); ok("decrypt", tmp_path / f"{name}.mce", "--key", key, "-o", tmp_path / f"{name}.npy")
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), frames)


def test_inspect_says_who_can_open(scan, key, pair, tmp_path, capsys):
    ok("encrypt", scan, "--key", key, "--to", f"{pair}.pub", "--to", f"{pair}.pub", "-o", tmp_path / "a.mce"); capsys.readouterr()
    ok("inspect", tmp_path / "a.mce")
    about = json.loads(capsys.readouterr().out)
    assert about["holders"] == {"master keys": 1, "recipients": 2} and about["chunks"] == 1 and about["size_bytes"] == about["overhead_bytes"] + about["ciphertext_bytes"]
    assert set(about["header"]) == {"bits", "codec", "dtype", "facts", "image_id", "kind", "shape"} and type(about["header"]["facts"]) is int


def test_overhead_on_real_files(shared, key, tmp_path):
    (tmp_path / "out").mkdir()
    ok("encrypt", shared / "data" / "dicom", "--key", key, "--codec", "htj2k", "-o", tmp_path / "out")
    found = [parse(p.read_bytes()) for p in (tmp_path / "out").rglob("*.mce")]
    assert len(found) == 78 and max(parts.overhead_bytes - 48 * (len(parts.ivs) - 1) for parts in found) <= 256


@pytest.mark.parametrize("how", ("option", "environment"))
def test_a_key_in_use_is_never_replaced(how, scan, key, pair, tmp_path, capsys, monkeypatch):
    ok("encrypt", scan, "--key", key, "--to", f"{pair}.pub", "-o", tmp_path / "a.mce"); ok("keygen", tmp_path / "new.key")
    given = ["--key", key] if how == "option" else []
    if how == "environment": monkeypatch.setenv("MEDCRYPT_KEY_FILE", str(key))
    before = {p: p.read_bytes() for p in (key, pair, Path(f"{pair}.pub"), tmp_path / "new.key")}
    for arguments in (["encrypt", scan, *given, "-o", key, "--force"], ["encrypt", scan, *given, "--to", f"{pair}.pub", "-o", f"{pair}.pub", "--force"], ["rekey", tmp_path / "a.mce", *given, "--new-key", tmp_path / "new.key", "-o", key, "--force"],
                      ["rekey", tmp_path / "a.mce", *given, "--new-key", tmp_path / "new.key", "-o", tmp_path / "new.key", "--force"]):
        assert "the key itself" in refused(capsys, *arguments)
    ok("encrypt", scan, "--whole", *given, "-o", tmp_path / "w.mce"); assert "the key itself" in refused(capsys, "decrypt", tmp_path / "w.mce", *given, "-o", key, "--force")
    assert {p: p.read_bytes() for p in before} == before


def test_sigterm_leaves_no_plaintext(key, tmp_path):
    import signal, subprocess, sys, time
    with open(tmp_path / "big", "wb") as file: file.truncate(1 << 30)
    ok("encrypt", tmp_path / "big", "--whole", "--key", key)
    run = subprocess.Popen([sys.executable, "-m", "medcrypt.cli.main", "decrypt", str(tmp_path / "big.mce"), "--key", str(key), "-o", str(tmp_path / "back")], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not any(p.name.startswith(".back-") and p.stat().st_size for p in tmp_path.iterdir()): assert run.poll() is None and time.monotonic() < end; time.sleep(.01)
    run.send_signal(signal.SIGTERM)
    assert run.wait(30) == 143 and not [p for p in tmp_path.iterdir() if "back" in p.name]


def test_rekey_goes_on_after_a_file_that_cannot_be_read(scan, key, tmp_path, capsys, monkeypatch):
    from medcrypt.cli import opening
    for name in "ab": ok("encrypt", scan, "--key", key, "-o", tmp_path / f"{name}.mce")
    ok("keygen", tmp_path / "new.key"); real = opening.rewrap_stream
    def full(source, *rest):
        if source.name.endswith("a.mce"): raise OSError(28, "No space left on device")
        return real(source, *rest)
    monkeypatch.setattr(opening, "rewrap_stream", full); capsys.readouterr()
    assert main(["rekey", str(tmp_path / "a.mce"), str(tmp_path / "b.mce"), "--key", str(key), "--new-key", str(tmp_path / "new.key"), "--in-place"]) == 1
    assert "a.mce: cannot be written (No space left on device)" in (text := capsys.readouterr()).err and "1 of 2 envelopes" in text.err and "b.mce: 1 holder" in text.out
    ok("decrypt", tmp_path / "a.mce", "--key", key, "-o", tmp_path / "a.npy")


def test_a_folder_that_cannot_be_read_is_named(scan, key, tmp_path, capsys, monkeypatch):
    (tmp_path / "in" / "secret").mkdir(parents=True); (tmp_path / "out").mkdir(); (tmp_path / "in" / "a.dcm").write_bytes(scan.read_bytes()); real = os.scandir
    def scandir(path):
        if str(path).endswith("secret"): raise PermissionError(13, "Permission denied", str(path))
        return real(path)
    monkeypatch.setattr(os, "scandir", scandir)
    assert "secret: cannot be read (Permission denied)" in refused(capsys, "encrypt", tmp_path / "in", "--key", key, "-o", tmp_path / "out")


# what a review found

@pytest.mark.parametrize("ending", (".NPY", ".Npy", ".DCM", ".PNG"))
def test_endings_in_capitals(ending, key, tmp_path):
    picture = np.arange(600, dtype=np.uint16).reshape(20, 30); source = write_dicom(tmp_path / "a.dcm", picture, {"modality": "DX", "bits_stored": 12})
    ok("encrypt", source, "--key", key, "-o", tmp_path / "a.mce"); output = tmp_path / f"back{ending}"
    for _ in range(2): ok("decrypt", tmp_path / "a.mce", "--key", key, "-o", output, "--force")
    from PIL import Image
    back = np.load(output) if ending.lower() == ".npy" else read_dicom(output).stored if ending == ".DCM" else np.array(Image.open(output))
    assert np.array_equal(back, picture) and not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_rekey_in_place_through_links(scan, key, tmp_path, capsys):
    (tmp_path / "real").mkdir(); real, link, other = tmp_path / "real" / "a.mce", tmp_path / "link.mce", tmp_path / "other.mce"
    ok("encrypt", scan, "--key", key, "-o", real); ok("keygen", tmp_path / "new.key"); real.chmod(0o600); link.symlink_to(real)
    ok("rekey", link, "--key", key, "--new-key", tmp_path / "new.key", "--in-place")
    assert link.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o600
    for path in (link, real): ok("decrypt", path, "--key", tmp_path / "new.key", "-o", tmp_path / "x.npy", "--force")
    os.link(real, other); before = real.read_bytes()
    assert "2 names" in refused(capsys, "rekey", real, "--key", tmp_path / "new.key", "--new-key", key, "--in-place") and real.read_bytes() == before == other.read_bytes()


def test_an_interrupted_rekey_goes_on(scan, key, pair, tmp_path, capsys):
    for name in "ab": ok("encrypt", scan, "--key", key, "-o", tmp_path / f"{name}.mce")
    ok("keygen", tmp_path / "new.key"); change = ["--key", key, "--new-key", tmp_path / "new.key", "--to", f"{pair}.pub", "--in-place"]
    ok("rekey", tmp_path / "a.mce", *change); done = (tmp_path / "a.mce").read_bytes(); capsys.readouterr()
    for _ in range(2): ok("rekey", tmp_path / "a.mce", tmp_path / "b.mce", *change)
    assert capsys.readouterr().out.count("has these holders already") == 3 and (tmp_path / "a.mce").read_bytes() == done
    assert "cannot be opened" in refused(capsys, "rekey", tmp_path / "a.mce", "--key", key, "--new-key", tmp_path / "new.key", "--in-place")   # other holders than it has


def test_skip_existing_compares_and_does_not_trust_names(scan, key, tmp_path, capsys):
    for name in "AB": (tmp_path / name).mkdir()
    (tmp_path / "vault").mkdir(); vault = tmp_path / "vault" / "IM0001.mce"
    (tmp_path / "A" / "IM0001").write_bytes(b"one"); (tmp_path / "B" / "IM0001").write_bytes(b"two"); resume = ["--whole", "--key", key, "-o", tmp_path / "vault", "--skip-existing"]
    ok("encrypt", tmp_path / "A", *resume); before = vault.read_bytes()
    ok("encrypt", tmp_path / "A", *resume); assert "1 of 1 files have an envelope already" in capsys.readouterr().out and vault.read_bytes() == before
    assert "not this file's envelope" in refused(capsys, "encrypt", tmp_path / "B", *resume) and vault.read_bytes() == before
    for content in (b"", before[:-1], b"text"):
        vault.write_bytes(content); assert "not this file's envelope" in refused(capsys, "encrypt", tmp_path / "A", *resume) and vault.read_bytes() == content
    ok("encrypt", tmp_path / "A", *resume, "--force"); ok("decrypt", vault, "--key", key, "-o", tmp_path / "one"); assert (tmp_path / "one").read_bytes() == b"one"


@pytest.mark.parametrize("way", [way for way in WAYS if "secret" not in way])
def test_skip_existing_knows_every_way(way, scan, key, pair, tmp_path, capsys):
    output = tmp_path / "a.mce"; same = ["encrypt", scan, "--key", key, "-o", output, *WAYS[way], "--skip-existing"]
    for _ in range(2): ok(*same)
    assert "holds the same" in capsys.readouterr().out; before = output.read_bytes()
    other = WAYS["blocks" if way != "blocks" else "low"]
    for change in ([*same[:6], *other, "--skip-existing"], [*same, "--to", f"{pair}.pub"]):   # made another way, or for other holders
        assert "not this file's envelope" in refused(capsys, *change) and output.read_bytes() == before
    if way == "box": assert "not this file's envelope" in refused(capsys, *same[:6], "--hide-box", "20,20,60,90", "--hide-box", "0,0,3,3", "--block", "1", "--skip-existing")


def test_skip_existing_needs_a_key_that_opens(scan, key, pair, tmp_path, capsys):
    assert "give --key" in refused(capsys, "encrypt", scan, "--to", f"{pair}.pub", "-o", tmp_path / "a.mce", "--skip-existing")
    assert "secret mask" in refused(capsys, "encrypt", scan, "--key", key, "--hide", ".5", "--secret-mask", "-o", tmp_path / "a.mce", "--skip-existing")


def test_no_source_of_a_run_is_replaced(key, tmp_path, capsys):
    (tmp_path / "a").write_bytes(b"AAA"); (tmp_path / "a.mce").write_bytes(b"PRECIOUS")
    assert "is to be encrypted itself" in refused(capsys, "encrypt", tmp_path / "a", tmp_path / "a.mce", "--whole", "--force", "--key", key) and (tmp_path / "a.mce").read_bytes() == b"PRECIOUS"


def test_what_is_passed_over_is_said(scan, key, tmp_path, capsys):
    folder = tmp_path / "in"; folder.mkdir(); (tmp_path / "out").mkdir()
    for name in (".hidden", "x.mce", "notes.txt"): (folder / name).write_bytes(b"x")
    (folder / "broken").symlink_to(tmp_path / "nowhere"); (folder / "a.dcm").write_bytes(scan.read_bytes()); capsys.readouterr()
    ok("encrypt", folder, "--key", key, "-o", tmp_path / "out")
    text = capsys.readouterr().out; assert "3 hidden files, envelopes and links" in text and "1 files that are not DICOM" in text
    (folder / "a.dcm").unlink(); assert main(["encrypt", str(folder), "--key", str(key), "-o", str(tmp_path / "out")]) == 1 and "--whole" in capsys.readouterr().err


def test_pipes_and_devices_are_refused(scan, key, pair, tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "fifo", "/dev/zero", tmp_path):
        for arguments in (["encrypt", scan, "--to", place, "-o", tmp_path / "x.mce"], ["contract", "check", place], ["contract", "verify", place, "--public-key", "00" * 32], ["contract", "verify", scan, "--public-key", place], ["decrypt", place, "--key", key, "-o", tmp_path / "x.npy"], ["inspect", place]): refused(capsys, *arguments)
