"""`medcrypt predict`: keyless, the view chosen by the card, bad files named, nothing heavy loaded before it is needed."""
import csv
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from medcrypt.cli.main import main
from medcrypt.crypto import images
from medcrypt.crypto.envelope import seal
from medcrypt.crypto.keys import new_key
from medcrypt.crypto.partial import seal_blocks
from medcrypt.learning import masked_cnn
from medcrypt.learning.model_card import ModelCard, save_model
from medcrypt.learning.serving import Served, averaged, export
from medcrypt.learning.views import view

SHAPE = (16, 24)


def card(**changes):
    return ModelCard(**{**dict(name="masked-cnn", views=("plain", "blocks-p"), shape=SHAPE, labels=("nodule", "effusion"), thresholds=(0., 1.), preprocessing={}, modality="CXR", trained_on="phantom", synthetic=True), **changes})


def picture(seed=0, shape=SHAPE): return np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict"); model, key = masked_cnn.build(SHAPE, width=4, outputs=2, seed=3), new_key()
    save_model(model, folder / "m.keras", card()); export(model, folder / "m.tflite", card())
    export(model, folder / "cbc.tflite", card(views=("cbc",), thresholds=None)); export(model, folder / "flips.tflite", card(flips=("none", "left-right", "up-down", "both")))
    (folder / "vault" / "deep").mkdir(parents=True)
    for name, ratio in (("plain.mce", 0), ("half.mce", .5), ("third.mce", 1 / 3), ("deep/0a1b", .25)): (folder / "vault" / name).write_bytes(seal_blocks(picture(len(name)), key, ratio=ratio, image_id="00ff"))
    (folder / "vault" / "note.txt").write_text("a letter"); (folder / "vault" / ".hidden.mce").write_text("x")
    (folder / "raw.mce").write_bytes(images.seal_image(picture(), key, image_id="00ff", codec="raw"))
    (folder / "small.mce").write_bytes(seal_blocks(picture(shape=(8, 24)), key, ratio=0, image_id="00ff"))
    (folder / "file.mce").write_bytes(seal(b"x", key, {"kind": "file"})); (folder / "text.mce").write_text("a letter and no envelope")
    (folder / "cut.mce").write_bytes((folder / "vault" / "plain.mce").read_bytes()[:-40])
    return folder


@pytest.mark.parametrize("name", ["m.tflite", "m.keras"])
def test_a_folder_as_a_table(place, capsys, name):
    assert main(["predict", str(place / name), str(place / "vault")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "view", "visible", "nodule", "effusion", "decision"] and len(lines) == 6 and "1 files in these folders that are no envelopes" in lines[-1]
    served = Served(place / "m.tflite")
    for line, (file, seen) in zip(lines[1:], (("deep/0a1b", "blocks-0.25"), ("half.mce", "blocks-0.5"), ("plain.mce", "plain"), ("third.mce", "blocks-0.333333333333"))):
        pixels, mask = view(seen, (place / "vault" / file).read_bytes())
        assert line.split() == [str(place / "vault" / file), seen, f"{mask.mean():.1%}", *(f"{p:.4f}" for p in served.predict(pixels[None], mask[None])[0]), "nodule"]


def test_json_has_full_precision_and_what_failed(place, capsys):
    files = [str(place / "vault" / "half.mce"), str(place / "text.mce")]
    assert main(["predict", str(place / "flips.tflite"), *files, "--json"]) == 1
    shown = capsys.readouterr(); found = json.loads(shown.out)
    pixels, mask = view("blocks-0.5", (place / "vault" / "half.mce").read_bytes())
    served = Served(place / "flips.tflite"); expected = averaged(served.predict, pixels[None], mask[None], ("none", "left-right", "up-down", "both"))[0]
    assert [f["file"] for f in found["files"]] == files[:1] and np.allclose(list(found["files"][0]["probabilities"].values()), expected, atol=1e-9)
    assert not np.allclose(expected, served.predict(pixels[None], mask[None])[0], atol=1e-7)
    assert found["files"][0]["visible"] == .5 and found["files"][0]["decision"] == {"nodule": True, "effusion": False} and found["model"]["thresholds"] == {"nodule": 0., "effusion": 1.} and found["model"]["synthetic"] is True
    assert len(found["failed"]) == 1 and "text.mce" in found["failed"][0] and "1 of 2 files" in shown.err


def test_csv_beside_the_table_and_nothing_overwritten(place, capsys, tmp_path):
    out = tmp_path / "p.csv"; arguments = ["predict", str(place / "m.tflite"), str(place / "vault"), "--csv", str(out)]
    assert main(arguments) == 0 and "nodule" in capsys.readouterr().out
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 4 and (rows[1]["view"], rows[1]["visible"]) == ("blocks-0.5", "0.5") and rows[1]["nodule decision"] == "1" and rows[1]["effusion decision"] == "0" and 0 < float(rows[1]["effusion"]) < 1
    out.write_text("precious")
    assert main(arguments) == 1 and out.read_text() == "precious" and "--force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0 and out.read_text() != "precious"
    sealed = place / "vault" / "half.mce"; before = sealed.read_bytes()
    assert main(["predict", str(place / "m.tflite"), str(sealed), "--csv", str(sealed), "--force"]) == 1 and sealed.read_bytes() == before


@pytest.mark.parametrize("name", ["m.tflite", "m.keras"])
def test_a_picture_of_which_nothing_is_visible_gets_no_decision(place, capsys, tmp_path, name):
    hidden, out = tmp_path / "hidden.mce", tmp_path / "p.csv"
    hidden.write_bytes(seal_blocks(picture(), new_key(), ratio=1, image_id="00ff"))
    assert main(["predict", str(place / name), str(hidden), "--csv", str(out)]) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line[1:3] == ["blocks-1", "0.0%"] and line[5:] == ["nothing", "is", "visible"]
    row = next(csv.DictReader(out.open())); assert row["visible"] == "0.0" and row["nodule decision"] == row["effusion decision"] == ""
    assert main(["predict", str(place / name), str(hidden), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["decision"] == {"nodule": None, "effusion": None}


def test_ciphertext_when_the_card_says_so(place, capsys):
    assert main(["predict", str(place / "cbc.tflite"), str(place / "raw.mce")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].split()[1] == "cbc" and "decision" not in out[0]
    assert main(["predict", str(place / "m.tflite"), str(place / "raw.mce")]) == 1
    assert "raw.mce: is a raw object, and masked-cnn reads plain or blocks-p" in capsys.readouterr().err


@pytest.mark.parametrize("name, words", [("text.mce", "not a medcrypt envelope"), ("small.mce", "8 x 24 pixels, and masked-cnn reads 16 x 24"), ("file.mce", "is a file object, and masked-cnn reads"), ("cut.mce", "cut"), ("none.mce", "no such file"), ("m.keras", "not a medcrypt envelope")])
def test_bad_files_are_named_and_do_not_stop_the_others(place, capsys, name, words):
    assert main(["predict", str(place / "m.tflite"), str(place / name)]) == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and f"{place / name}: " in shown.err and words in shown.err and not shown.out
    assert main(["predict", str(place / "m.tflite"), str(place / name), str(place / "vault" / "half.mce")]) == 1
    shown = capsys.readouterr()
    assert "half.mce" in shown.out and words in shown.err and "1 of 2 files could not be used" in shown.err


def test_the_view_can_be_chosen(place, capsys):
    model, vault = str(place / "m.tflite"), str(place / "vault" / "plain.mce")
    for asked, seen in (("blocks-0", "blocks-0"), ("plain", "plain"), ("blocks-p", "blocks-0")):
        assert main(["predict", model, vault, "--view", asked]) == 0 and capsys.readouterr().out.splitlines()[1].split()[1] == seen
    for asked, words in (("cbc", "reads plain or blocks-p"), ("nonsense", "does not exist"), ("blocks-0.5", "hides a fraction of 0")):
        assert main(["predict", model, vault, "--view", asked]) == 1 and words in capsys.readouterr().err


def test_models_that_cannot_be_used(place, capsys, tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"PK\x03\x04"); (tmp_path / "empty").mkdir()
    for model, file, words in ((tmp_path / "bad.keras", "vault", "no model card"), (tmp_path / "none.tflite", "vault", "no such model file"), (place / "vault" / "half.mce", "vault", "ends in .keras or .tflite"), (place / "m.tflite", tmp_path / "empty", "no envelopes")):
        assert main(["predict", str(model), str(place / file)]) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def run(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "medcrypt.cli.main", *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, **environment})


def test_no_key_no_noise_and_a_few_seconds(place):
    started = time.time(); done = run("predict", place / "m.tflite", *(place / "vault" / n for n in ("plain.mce", "half.mce", "third.mce")), MEDCRYPT_KEY="", MEDCRYPT_KEY_FILE="/nowhere")
    assert done.returncode == 0 and done.stdout.count("\n") == 4 and done.stderr.strip().count("\n") == 0 and "INFO" not in done.stderr and "Traceback" not in done.stderr
    assert time.time() - started < 60 # two to eight seconds on a free machine, the import of TensorFlow for the most part
    done = run("predict", place / "m.tflite", place / "text.mce")
    assert done.returncode == 1 and done.stderr.count("\n") == 1


def test_names_cannot_reach_the_terminal(place, capsys, tmp_path):
    odd = tmp_path / "a\x1b[31m.mce"; odd.write_bytes((place / "vault" / "half.mce").read_bytes()); (tmp_path / "b\x1b[32m.mce").write_text("a letter and no envelope")
    assert main(["predict", str(place / "m.tflite"), str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err and "a?[31m.mce" in shown.out


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["predict", "m.tflite", "text.mce"], ["predict", "m.keras", "text.mce"], ["inspect", "raw.mce"]])
def test_tensorflow_is_loaded_only_for_a_picture(place, arguments):
    arguments = [str(place / a) if (place / a).exists() else a for a in arguments]
    code = f"""import sys
from medcrypt.cli.main import main
try: main({arguments!r})
except SystemExit: pass
print("loaded:", *sorted({{'tensorflow', 'keras', 'ai_edge_litert'}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded:", done.stdout + done.stderr


def test_help_says_what_it_is_not(capsys):
    with pytest.raises(SystemExit): main(["predict", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "no diagnosis" in shown and "example: medcrypt predict" in shown and "--key" not in shown


@pytest.mark.parametrize("share", [.2, .35, .5, .65, .8])
def test_a_flipped_bit_in_a_keras_file_is_one_sentence(place, tmp_path, capsys, share):
    data = bytearray((place / "m.keras").read_bytes()); data[int(share * len(data))] ^= 1
    (tmp_path / "flipped.keras").write_bytes(data)
    assert main(["predict", str(tmp_path / "flipped.keras"), str(place / "vault" / "plain.mce")]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "flipped.keras") in said and said.count("\n") == 1


def test_pictures_of_another_bit_depth_are_refused(place, tmp_path, capsys):
    model, key = masked_cnn.build(SHAPE, width=4, outputs=2, seed=3), new_key()
    export(model, tmp_path / "m.tflite", card(preprocessing={"bits": 8}))
    (tmp_path / "deep.mce").write_bytes(seal_blocks(picture().astype("uint16") * 200, key, ratio=.5, image_id="00ff"))
    assert main(["predict", str(tmp_path / "m.tflite"), str(tmp_path / "deep.mce")]) == 1
    assert "deep.mce: has 16 bits a pixel, and masked-cnn reads 8" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "m.tflite"), str(place / "vault" / "half.mce")]) == 0
