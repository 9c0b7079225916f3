"""The command: help, exit codes, one line on stderr, nothing overwritten."""
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medcrypt.cli.files import encrypt_file
from medcrypt.cli.main import main
from medcrypt.crypto.envelope import parse, unseal
from medcrypt.crypto.keys import load_key, new_key
from medcrypt.imaging.dicom import read_dicom
from medcrypt.imaging.jpeg2000 import siz
from medcrypt.imaging.secondary import write_dicom

SHARED = Path(__file__).resolve().parents[2] / "shared"
COMMANDS = ("reproduce", "encrypt", "decrypt", "rekey", "inspect", "keygen", "predict", "vault", "contract", "data", "bench", "doctor", "check-metrics", "publish")


@pytest.fixture
def scan(tmp_path):
    pixels = (np.add.outer(np.arange(40), np.arange(56)) * 30 - 1024).astype(np.int16)
    return write_dicom(tmp_path / "scan.dcm", pixels, {"modality": "CT", "bits_stored": 16, "rescale_slope": 1, "rescale_intercept": 0, "window_center": 40, "window_width": 400, "spacing_mm": [0.7, 0.7]})


@pytest.fixture
def key(tmp_path):
    assert main(["keygen", str(tmp_path / "k.key")]) == 0
    return tmp_path / "k.key"


def run(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "medcrypt.cli.main", *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize("command", COMMANDS)
def test_help_everywhere(command, capsys):
    with pytest.raises(SystemExit) as done: main([command, "--help"])
    assert done.value.code == 0 and "usage: medcrypt" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["encrypt"], ["reproduce", "--cores", "many"], ["reproduce", "--cores", "0"], ["reproduce", "--profile", "tiny"]])
def test_wrong_options_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as done: main(arguments)
    assert done.value.code == 2 and "usage" in capsys.readouterr().err


def test_round_trip_of_a_file(scan, key, tmp_path, capsys):
    assert main(["encrypt", str(scan), "--key", str(key)]) == 0
    assert main(["decrypt", str(tmp_path / "scan.mce"), "--key", str(key), "-o", str(tmp_path / "back.dcm")]) == 0
    before, after = read_dicom(scan), read_dicom(tmp_path / "back.dcm")
    assert np.array_equal(before.stored, after.stored) and np.array_equal(before.display, after.display) and before.header["pixel_spacing"] == after.header["pixel_spacing"]
    assert "verified" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [".npy", ".png", ".dcm"])
def test_formats(tmp_path, key, ending):
    pixels = np.random.default_rng(0).integers(0, 4096, (33, 47), dtype=np.uint16)
    scan = write_dicom(tmp_path / "u.dcm", pixels, {"bits_stored": 12})
    main(["encrypt", str(scan), "--key", str(key)])
    out = tmp_path / f"back{ending}"
    assert main(["decrypt", str(tmp_path / "u.mce"), "--key", str(key), "-o", str(out)]) == 0
    from PIL import Image
    back = np.load(out) if ending == ".npy" else np.asarray(Image.open(out)) if ending == ".png" else read_dicom(out).stored
    assert np.array_equal(back, pixels)


def test_partly_hidden_file_shows_the_rest_and_opens_exactly(scan, key, tmp_path, capsys):
    assert main(["encrypt", str(scan), "--key", str(key), "--hide", "0.5", "-o", str(tmp_path / "half.mce")]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "half.mce")]) == 0
    assert abs(json.loads(capsys.readouterr().out)["visible_fraction"] - .5) < .03
    assert main(["decrypt", str(tmp_path / "half.mce"), "--key", str(key), "-o", str(tmp_path / "b.npy")]) == 0
    assert np.array_equal(np.load(tmp_path / "b.npy"), read_dicom(scan).stored)


def test_nothing_is_overwritten_without_force(scan, key, tmp_path, capsys):
    for arguments in (["encrypt", str(scan), "--key", str(key), "-o", str(tmp_path / "x.mce")], ["keygen", str(tmp_path / "x.mce")]):
        (tmp_path / "x.mce").write_bytes(b"precious")
        assert main(arguments) == 1
        assert (tmp_path / "x.mce").read_bytes() == b"precious"
        error = capsys.readouterr().err
        assert "x.mce" in error and error.count("\n") == 1
    assert main(["encrypt", str(scan), "--key", str(key), "-o", str(tmp_path / "x.mce"), "--force"]) == 0


def test_force_never_replaces_the_source_or_the_key(scan, key, tmp_path, capsys):
    main(["encrypt", str(scan), "--key", str(key)])
    for arguments, name in ((["encrypt", str(scan), "-o", str(scan)], scan), (["encrypt", str(scan), "-o", str(key)], key), (["decrypt", str(tmp_path / "scan.mce"), "-o", str(tmp_path / "link.npy")], tmp_path / "scan.mce")):
        (tmp_path / "link.npy").unlink(missing_ok=True); os.link(tmp_path / "scan.mce", tmp_path / "link.npy")
        before = name.read_bytes()
        assert main([*arguments, "--key", str(key), "--force"]) == 1 and name.read_bytes() == before
        assert "is the source or the key" in capsys.readouterr().err
    os.mkfifo(tmp_path / "pipe")
    for arguments in (["encrypt", str(tmp_path / "pipe"), "--key", str(key)], ["inspect", str(tmp_path / "pipe")], ["encrypt", str(scan), "--key", str(key), "-o", str(tmp_path / "pipe"), "--force"]):
        assert main(arguments) == 1 and "not an ordinary file" in capsys.readouterr().err


def test_files_named_by_uid_do_not_collide(scan, key, tmp_path, capsys):
    import shutil
    for name in ("1.2.840.11", "1.2.840.12", "p1/IM.dcm", "p2/IM.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True); shutil.copy(scan, tmp_path / name)
    assert main(["encrypt", str(tmp_path / "1.2.840.11"), str(tmp_path / "1.2.840.12"), "--key", str(key)]) == 0
    assert (tmp_path / "1.2.840.11.mce").is_file() and (tmp_path / "1.2.840.12.mce").is_file()
    (tmp_path / "out").mkdir()
    assert main(["encrypt", str(tmp_path / "p1" / "IM.dcm"), str(tmp_path / "p2" / "IM.dcm"), "--key", str(key), "-o", str(tmp_path / "out")]) == 1
    assert not list((tmp_path / "out").iterdir()) and "same name" in capsys.readouterr().err


def test_errors_of_the_operating_system_are_one_line_too(scan, key, tmp_path):
    (tmp_path / "file").write_text("x")
    for arguments in (["encrypt", scan, "--key", key, "-o", "/proc/x.mce"], ["reproduce", "--profile", "smoke", "--out", tmp_path / "file" / "x"], ["reproduce", "--profile", "smoke", "--out", "/proc/foo"], ["encrypt", "", "--key", key], ["reproduce", "--dataset-config", tmp_path]):
        done = run(*arguments)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr


def test_every_mistake_is_one_line_on_stderr(scan, key, tmp_path):
    (tmp_path / "text.dcm").write_text("not an image")
    (tmp_path / "short.key").write_text("abcd"); os.chmod(tmp_path / "short.key", 0o600)
    main(["encrypt", str(scan), "--key", str(key)])
    (tmp_path / "cut.mce").write_bytes((tmp_path / "scan.mce").read_bytes()[:-1])
    (tmp_path / "other.key").write_text(bytes(new_key()).hex()); os.chmod(tmp_path / "other.key", 0o600)
    mce = tmp_path / "scan.mce"
    for arguments, name in ((["encrypt", tmp_path / "none.dcm", "--key", key], "none.dcm"), (["encrypt", tmp_path / "text.dcm", "--key", key], "text.dcm"), (["encrypt", scan, "--key", tmp_path / "no.key"], "no.key"),
                            (["encrypt", scan, "--key", tmp_path / "short.key", "-o", tmp_path / "y.mce"], "short.key"), (["decrypt", tmp_path / "cut.mce", "--key", key], "cut.mce"), (["decrypt", mce, "--key", tmp_path / "other.key", "-o", tmp_path / "z.npy"], "scan.mce"),
                            (["decrypt", mce, "--key", key, "-o", tmp_path / "z.jpg"], "z.jpg"), (["inspect", scan], "scan.dcm"), (["inspect", tmp_path], str(tmp_path)), (["encrypt", scan, "--key", key, "--hide", "1.5", "-o", tmp_path / "q.mce"], ""),
                            (["encrypt", scan, scan, "--key", key, "-o", tmp_path / "q.mce"], "q.mce"), (["encrypt", scan, "--key", key, "-o", tmp_path / "no" / "q.mce"], "no")):
        done = run(*arguments, MEDCRYPT_KEY="", MEDCRYPT_KEY_FILE="")
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stderr.startswith("medcrypt: ") and name in done.stderr and "Traceback" not in done.stderr, (arguments, done.stderr)
    assert not {p.name for p in tmp_path.iterdir()} & {"z.npy", "z.jpg", "y.mce", "q.mce"}


def test_key_is_private_and_never_shown(scan, key, tmp_path):
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = key.read_text().strip()
    shown = "".join(d.stdout + d.stderr for d in (run("encrypt", scan, "--key", key), run("inspect", tmp_path / "scan.mce"), run("decrypt", tmp_path / "scan.mce", "--key", key, "-o", tmp_path / "o.npy"), run("keygen", key)))
    assert secret not in shown and secret not in repr(load_key(key))
    os.chmod(key, 0o644)
    done = run("encrypt", scan, "--key", key, "--force")
    assert done.returncode == 1 and "chmod 600" in done.stderr


def test_key_from_the_environment(scan, key, tmp_path):
    assert run("encrypt", scan, MEDCRYPT_KEY_FILE=str(key)).returncode == 0
    done = run("encrypt", scan, "--force", MEDCRYPT_KEY_FILE="", MEDCRYPT_KEY="")
    assert done.returncode == 1 and "keygen" in done.stderr


def test_several_files_go_on_after_a_bad_one(scan, key, tmp_path):
    (tmp_path / "bad.dcm").write_bytes(b"")
    (tmp_path / "out").mkdir()
    done = run("encrypt", tmp_path / "bad.dcm", scan, "--key", key, "-o", tmp_path / "out")
    assert done.returncode == 1 and "1 of 2 files" in done.stderr and (tmp_path / "out" / "scan.mce").is_file() and "bad.dcm" in done.stderr


def test_the_envelope_names_nobody(tmp_path, key):
    import pydicom
    dcm = write_dicom(tmp_path / "a.dcm", np.zeros((16, 16), np.uint8), {})
    ds = pydicom.dcmread(dcm)
    ds.PatientName, ds.PatientID, ds.InstitutionName, ds.StudyDescription = "Doe^Jane", "MRN-12345678", "St. Elsewhere", "secret study"
    ds.preamble = b"MZ" + b"X" * 126
    ds.save_as(dcm)
    made = encrypt_file(dcm, new_key())
    data = made.path.read_bytes()
    for word in ("Doe", "Jane", "12345678", "Elsewhere", "secret", "a.dcm", str(ds.SOPInstanceUID), "XXXX"): assert word.encode() not in data
    main(["decrypt", str(main(["encrypt", str(dcm), "--key", str(key), "-o", str(tmp_path / "b.mce")]) or tmp_path / "b.mce"), "--key", str(key), "-o", str(tmp_path / "back.dcm")])
    back = (tmp_path / "back.dcm").read_bytes()
    assert back[:128] == bytes(128)
    for word in ("Doe", "Jane", "12345678", "Elsewhere", "secret", str(ds.SOPInstanceUID)): assert word.encode() not in back


def test_doctor_says_what_it_found(capsys):
    code = main(["doctor"])
    out = capsys.readouterr().out
    assert "packages as pinned" in out and "is missing" not in out
    assert code in (0, 1) and all(word in out for word in ("Python", "OpenJPEG", "cores", "GPU", "Jupyter kernel", "Packages"))
    assert (code == 0) == ("MEND" not in out)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data" / "dicom").is_dir(), reason="../shared/data/dicom is not here")
def test_real_dicom_files(tmp_path, key):
    import csv
    rows = list(csv.DictReader(open(SHARED / "data" / "dicom" / "labels.csv")))
    done = run("encrypt", *(SHARED / "data" / "dicom" / r["file"] for r in rows if int(r["bytes"]) < 300000), "--key", key, "-o", tmp_path)
    bad = [line for line in done.stderr.splitlines() if not line.startswith("medcrypt: ")]
    refused = {r["file"] for r in rows if r["file"] in done.stderr}
    assert not bad and all(r["decodes_pydicom3_pylibjpeg"].startswith("no") for r in rows if r["file"] in refused), done.stderr


def test_a_folder_is_encrypted_with_its_tree_and_goes_on_after_an_interruption(scan, key, tmp_path, capsys):
    tree, out = tmp_path / "scans", tmp_path / "out"
    for name in ("a/1.dcm", "b/c/1.dcm", ".hidden/1.dcm", "b/notes.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True); (tree / name).write_bytes(scan.read_bytes() if name.endswith("dcm") else b"no picture")
    assert main(["encrypt", str(tree), "--key", str(key)]) == 1 and not list(tree.rglob("*.mce"))       # where to?
    out.mkdir()
    assert main(["encrypt", str(tree), "--key", str(key), "-o", str(out)]) == 0 and "1 files that are not DICOM" in capsys.readouterr().out
    (tree / "a" / "2.dcm").write_bytes(scan.read_bytes()[:-9])
    assert main(["encrypt", str(tree / "a"), "--key", str(key), "-o", str(out), "--force"]) == 1 and "2.dcm" in capsys.readouterr().err   # a damaged scan is not passed over
    (tree / "a" / "2.dcm").unlink(); (out / "1.mce").unlink()
    made = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.mce")}
    assert set(made) == {"a/1.mce", "b/c/1.mce"}
    (out / "a" / "1.mce").unlink(); capsys.readouterr()
    assert main(["encrypt", str(tree), "--key", str(key), "-o", str(out), "--skip-existing"]) == 0
    assert "1 of 3 files have an envelope already" in capsys.readouterr().out and (out / "b" / "c" / "1.mce").read_bytes() == made["b/c/1.mce"] and (out / "a" / "1.mce").exists()


def test_an_empty_file_name_is_not_the_current_folder(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["encrypt", "", "--key", str(key), "-o", str(tmp_path)]) == 1 and not list(tmp_path.rglob("*.mce"))


@pytest.mark.parametrize("codec", ["jpeg2000", "htj2k"])
def test_both_codecs_come_back_exactly(scan, key, tmp_path, codec):
    assert main(["encrypt", str(scan), "--key", str(key), "--codec", codec, "-o", str(tmp_path / "x.mce")]) == 0
    assert main(["decrypt", str(tmp_path / "x.mce"), "--key", str(key), "-o", str(tmp_path / "x.npy")]) == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), read_dicom(scan).stored) and parse((tmp_path / "x.mce").read_bytes()).header["codec"] == codec
    assert main(["encrypt", str(scan), "--key", str(key), "--codec", "htj2k", "--hide", "0.5", "-o", str(tmp_path / "y.mce")]) == 1


def test_the_codestream_has_the_precision_of_the_file(key, tmp_path):
    scan = write_dicom(tmp_path / "u.dcm", np.arange(48, dtype=np.uint16).reshape(6, 8) * 20, {"bits_stored": 10})
    main(["encrypt", str(scan), "--key", str(key)])
    envelope = (tmp_path / "u.mce").read_bytes()
    assert parse(envelope).header["bits"] == 10 and siz(unseal(envelope, load_key(key))[0][parse(envelope).header["facts"]:]).bits == 10


def test_a_place_that_cannot_be_written_does_not_end_the_work_on_the_rest(scan, key, tmp_path, capsys):
    tree, out = tmp_path / "in", tmp_path / "out"; out.mkdir(); (out / "a").write_text("x")
    for name in "abc": (tree / name).mkdir(parents=True); (tree / name / "1.dcm").write_bytes(scan.read_bytes())
    (tree / f"{'n' * 251}.dcm").write_bytes(scan.read_bytes())
    assert main(["encrypt", str(tree), "--key", str(key), "-o", str(out)]) == 1
    said = capsys.readouterr().err
    assert "a/1.dcm: cannot be encrypted" in said and "n.dcm: cannot be encrypted" in said and "2 of 4 files were not encrypted" in said
    assert (out / "b" / "1.mce").is_file() and (out / "c" / "1.mce").is_file()


def test_two_files_with_one_name_are_named(scan, key, tmp_path, capsys):
    (tmp_path / "in").mkdir(); (tmp_path / "out").mkdir()
    for name in ("a", "a.dcm"): (tmp_path / "in" / name).write_bytes(scan.read_bytes())
    assert main(["encrypt", str(tmp_path / "in"), "--key", str(key), "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "in/a " in said and "in/a.dcm" in said


@pytest.mark.parametrize("text", ["0", "²", "two", "-1"])
def test_numbers_of_threads_that_are_none(scan, key, text):
    done = run("encrypt", scan, "--key", key, "--force", MEDCRYPT_THREADS=text)
    assert done.returncode == 1 and "MEDCRYPT_THREADS" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_name_taken_meanwhile_is_not_replaced(scan, key, tmp_path, monkeypatch):
    from medcrypt.cli import files, opening
    real = files.target
    def taken(path, *rest): found = real(path, *rest); found.write_bytes(b"the other one's"); return found   # another run is faster
    monkeypatch.setattr(files, "target", taken)
    assert main(["encrypt", str(scan), "--key", str(key), "-o", str(tmp_path / "x.mce")]) == 1 and (tmp_path / "x.mce").read_bytes() == b"the other one's"
    monkeypatch.setattr(files, "target", real)
    main(["encrypt", str(scan), "--key", str(key), "-o", str(tmp_path / "y.mce")])
    monkeypatch.setattr(opening, "target", taken)
    for ending in (".npy", ".dcm"): assert main(["decrypt", str(tmp_path / "y.mce"), "--key", str(key), "-o", str(tmp_path / f"y{ending}")]) == 1 and (tmp_path / f"y{ending}").read_bytes() == b"the other one's"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_link_to_nothing_is_not_replaced(scan, key, tmp_path):
    (tmp_path / "x.mce").symlink_to(tmp_path / "elsewhere.mce")
    assert main(["encrypt", str(scan), "--key", str(key), "-o", str(tmp_path / "x.mce")]) == 1
    assert (tmp_path / "x.mce").is_symlink() and not (tmp_path / "elsewhere.mce").exists()


def test_a_part_of_what_has_no_parts_is_refused(tmp_path, capsys):
    assert main(["data", "fetch", "medmnist", "--only", "3", "--to", str(tmp_path), "--mirror", "http://127.0.0.1:9"]) == 1 and "--only 3" in capsys.readouterr().err


def test_show_looks_for_the_files_of_a_small_table_too(tmp_path, capsys):
    (tmp_path / "labels.csv").write_text("file,label\nmissing.dcm,1\nother.dcm,0\n")
    assert main(["data", "show", str(tmp_path)]) == 1 and "2 of 2 files of labels.csv are missing" in capsys.readouterr().err
