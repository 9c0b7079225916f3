"""What the paper notebooks measure on the vault and on files."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture

from medcrypt.core import seeded_bytes
from medcrypt.crypto.keys import Key
from medcrypt.evaluation import performance
from medcrypt.evaluation.measure import MeasureError, sizes_of_dataset, sizes_of_folder
from medcrypt.imaging.loading import load_folder
from medcrypt.imaging.preprocessing import Preprocessing
from medcrypt.imaging.sources import detect
from medcrypt.imaging.secondary import write_dicom
from medcrypt.core import RunPaths
from medcrypt.vault import archive, contract

SHARED = Path(__file__).resolve().parents[2] / "shared"
KEY = Key(seeded_bytes(0, "k")(32))


def a_folder(tmp_path, ending):
    draw, lines = np.random.default_rng(0), ["file,label_x"]
    for i in range(12):
        picture = draw.integers(0, 200, (40, 48), dtype=np.uint8)
        if ending == ".dcm": write_dicom(tmp_path / f"{i}.dcm", picture.astype(np.uint16) * 16, {"bits_stored": 12, "modality": "DX"})
        else: Picture.fromarray(picture).save(tmp_path / f"{i}{ending}")
        lines.append(f"{i}{ending},{i % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return load_folder(detect(tmp_path), Preprocessing(16))


@pytest.mark.parametrize("ending, raw", [(".dcm", 40 * 48 * 2), (".png", 40 * 48)])
def test_files_are_measured_as_large_as_they_came(tmp_path, ending, raw):
    ticks = []
    frame = sizes_of_dataset("x", a_folder(tmp_path, ending), folder=tmp_path, limit=5, seed=0, tick=lambda: ticks.append(1))
    assert len(frame) == len(ticks) == 5 and (frame.raw_bytes == raw).all() and frame.modality.unique().tolist() == ["CXR"]
    assert frame.dicom_bytes.notna().all() == (ending == ".dcm")
    assert frame.overhead_bytes.between(90, 290).all() and (frame.base85_bytes / frame.encrypted_bytes).between(1.249, 1.26).all()


def test_unreadable_files_of_a_storage_folder_are_listed_not_hidden(tmp_path):
    (tmp_path / "in").mkdir()
    write_dicom(tmp_path / "in" / "good.dcm", np.zeros((32, 32), np.uint8), {"modality": "CT"})
    (tmp_path / "in" / "bad.dcm").write_bytes(b"no")
    (tmp_path / "in" / "notes.txt").write_text("not a candidate")
    left = []
    [frame] = sizes_of_folder(tmp_path / "in", left_out=left)
    assert len(frame) == 1 and len(left) == 1 and "bad.dcm" in left[0] and str(tmp_path) not in left[0]
    (tmp_path / "none").mkdir()
    with pytest.raises(MeasureError, match="none"): sizes_of_folder(tmp_path / "none", left_out=left)


def test_the_archive_gives_models_no_key_and_nobody_more_than_asked(tmp_path):
    objects = archive.open_archive(RunPaths(tmp_path / "a"), "toy")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16), dtype=np.uint8)
    index = archive.fill(objects, pictures, KEY, views=("plain", "blocks-0.25", "blocks-0.5", "cbc", "codestream"), block=4, bits=8, random=seeded_bytes(0, "iv"))
    assert {r["view"] for r in index} == {"plain", "blocks-0.25", "blocks-0.5", "cbc", "jpeg2000", "codestream"} and len(index) == 12
    granted = objects.ask("view", [index[0]["name"]], role="model", purpose="research")
    with pytest.raises(contract.ContractError): objects.contract.data_keys(granted, objects.readable, KEY)
    with pytest.raises(contract.ContractError): list(objects.contract.fetch(objects.readable, granted, [index[1]["name"]]))
    for action, role, purpose in (("decrypt", "model", "research"), ("view", "model", "marketing"), ("view", "visitor", "research"), ("store", "model", "research")):
        with pytest.raises(contract.ContractError): objects.ask(action, [], role=role, purpose=purpose)
    again = archive.fill(archive.open_archive(RunPaths(tmp_path / "b"), "toy"), pictures, KEY, views=("plain", "blocks-0.25", "blocks-0.5", "cbc", "codestream"), block=4, bits=8, random=seeded_bytes(0, "iv"))
    assert [r["name"] for r in again] == [r["name"] for r in index], "seeded phantoms must repeat to the byte"


def test_nothing_in_the_vault_can_be_read_without_a_key(tmp_path):
    from medcrypt.crypto.envelope import parse
    objects = archive.open_archive(RunPaths(tmp_path), "toy")
    pictures = np.full((2, 32, 32), 77, np.uint8); pictures[:, 8:24, 8:24] = 200
    index = pd.DataFrame(archive.fill(objects, pictures, KEY, views=("plain", "blocks-0.5", "cbc", "codestream"), block=4, bits=8, random=seeded_bytes(0, "iv")))
    assert set(objects.vault.names()) == set(index[index["readable"] == 0]["name"]) and len(objects.vault.names()) == 6
    assert set(objects.readable.names()) == set(index[index["readable"] > 0]["name"])
    for name in objects.vault.names():
        parts = parse(objects.vault.get(name))
        assert not parts.public and bytes([77]) * 16 not in objects.vault.get(name)


def test_tables_keep_the_data_sets_in_the_order_given_and_views_by_what_they_hide(tmp_path):
    draw = np.random.default_rng(0); paths = []
    for name in ("zebra", "ant"):
        rows = [pd.DataFrame({"model": m, "view": v, "seed": 0, "fold": 0, "image": np.arange(40), "label": np.arange(40) % 2, "probability": draw.random(40), "threshold": .5, "dataset": name, "patient": np.arange(40).astype(str)})
                for m, v in (("masked-cnn on cbc", "cbc"), ("masked-cnn", "blocks-0.5"), ("masked-cnn", "plain"), ("logistic regression", "length"))]
        paths.append(tmp_path / f"{name}.csv"); pd.concat(rows).to_csv(paths[-1], index=False)
    found = performance.read_predictions(paths)
    table = performance.performance_table(found, seed=0, resamples=50)
    assert table.dataset.unique().tolist() == ["zebra", "ant"] and table["view"].tolist()[:4] == ["plain", "blocks-0.5", "length", "cbc"]
    assert performance.drop_table(found, seed=0, resamples=50).dataset.unique().tolist() == ["zebra", "ant"]
    pd.read_csv(paths[0]).drop(columns="fold").to_csv(paths[0], index=False)
    with pytest.raises(performance.PerformanceError, match="fold"): performance.read_predictions(paths)
