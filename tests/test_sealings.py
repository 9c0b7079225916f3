"""Ciphertext is another one in each repetition of an experiment; everything else stays the same."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medcrypt.core import PROFILES, RunPaths, seeded_bytes, write_bytes
from medcrypt.crypto.envelope import parse
from medcrypt.crypto.keys import Key
from medcrypt.evaluation.metrics import best_threshold
from medcrypt.imaging.datasets import Dataset
from medcrypt.learning.study import Study
from medcrypt.vault import archive, contract

VIEWS = ("plain", "blocks-0.5", "cbc", "codestream")
PROFILE = replace(PROFILES["smoke"], views=VIEWS, folds=2, seeds=3, control_seeds=1, epochs=1)
KEY = contract.dataset_key(Key(bytes(32)), "d")


def filled(out, repetitions):
    pictures = np.random.default_rng(0).integers(0, 256, (24, 16, 16), dtype=np.uint8); ticks = []
    place = archive.open_archive(RunPaths(out), "d")
    rows = archive.fill(place, pictures, KEY, views=VIEWS, block=4, bits=8, random=seeded_bytes(0, "vault"), repetitions=repetitions, tick=lambda: ticks.append(1))
    return pictures, place, pd.DataFrame(rows), len(ticks)


def test_the_first_sealing_does_not_depend_on_how_many_follow(tmp_path):
    _, _, one, few = filled(tmp_path / "one", 1)
    pictures, place, three, many = filled(tmp_path / "three", 3)
    pd.testing.assert_frame_equal(one, three[:len(one)])
    assert (few, many) == (24, 72)
    assert set(three["view"]) - set(one["view"]) == {f"{view}-again-{k}" for view in archive.FRESH for k in (1, 2)} and (three.groupby("view").size() == 24).all()
    assert three["name"].is_unique and (three[three["view"].map(archive.first_sealing).isin(archive.FRESH)]["readable"] == 0).all()


def test_each_sealing_is_another_ciphertext_of_the_same_picture(tmp_path):
    from medcrypt.crypto.images import unseal_image
    pictures, place, index, _ = filled(tmp_path, 3)
    for view in archive.FRESH:
        objects = {k: [place.fetch(view, [name])[0] for name in index[index["view"] == archive.sealing(view, k)].sort_values("image")["name"]] for k in range(3)}
        for image in range(24):
            ciphertexts = [parse(objects[k][image]).ciphertext for k in range(3)]
            assert len({len(c) for c in ciphertexts}) == 1 and len({c[:16] for c in ciphertexts}) == len({c[-16:] for c in ciphertexts}) == 3
            assert all(np.array_equal(unseal_image(objects[k][image], KEY)[0], pictures[image]) for k in range(3))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    pictures, _, index, _ = filled(out, PROFILE.seeds); run = RunPaths(out)
    facts = {"label": "sick", "modality": "CXR", "title": "noise", "synthetic": True, "block": 4, "preprocessing": {"size": [16, 16]}}
    Dataset("d", pictures, np.arange(24) // 2 % 2, [f"P{i // 2}" for i in range(24)], np.arange(24).astype(str), facts).save(run.dataset("d"))
    write_bytes(run.index("d"), index.to_csv(index=False).encode())
    return Study(run, "d", PROFILE, 0)


def test_a_study_looks_at_the_sealing_of_the_repetition(study):
    for view in archive.FRESH:
        first, second = study.look(view), study.look(view, 1)
        assert (first[0] != second[0]).mean() > .9 and np.array_equal(first[1], second[1])
    assert np.array_equal(study.look("blocks-0.5")[0], study.look("blocks-0.5", 2)[0])


def test_networks_on_ciphertext_have_all_repetitions_and_learn_from_another_sealing_in_each(study, monkeypatch):
    looked = []
    monkeypatch.setattr(Study, "look", lambda self, view, repetition=0, look=Study.look: looked.append((view, repetition)) or look(self, view, repetition))
    jobs = {job.trained_on: job for job in study.jobs if not job.random_masks}
    assert study.repetitions(jobs["plain"]) == (0,) and study.repetitions(jobs["cbc"]) == study.repetitions(jobs["codestream"]) == (0, 1, 2)
    between = Study(study.run, "d", replace(PROFILE, views=(*VIEWS, "roi", "details-4", "etc"), control_seeds=2), 0)
    assert [len(between.repetitions(job)) for job in between.jobs] == [3, 2, 3, 3, 1, 1], [job.model for job in between.jobs]
    rows = study.fit(jobs["cbc"], choose_threshold=best_threshold, seen={"cbc": None}) # what was looked at before is of one sealing
    assert set(looked) == {("cbc", 0), ("cbc", 1), ("cbc", 2)} and (rows.groupby("seed").image.nunique() == 24).all() and set(rows.seed) == {0, 1, 2}
    alone = study.fit(jobs["cbc"], choose_threshold=best_threshold, repetitions=(2,)) # as a step of its own fits it: the same, from the finished fit
    pd.testing.assert_frame_equal(alone, rows[rows.seed == 2].reset_index(drop=True))


def test_a_collection_is_looked_at_in_parts(study, monkeypatch):
    from medcrypt.learning import gathering, study as module
    whole = study.look("cbc", 1)
    monkeypatch.setattr(module, "AT_ONCE", 7); monkeypatch.setattr(gathering, "IN_MEMORY", 0)
    for a, b in zip(study.look("cbc", 1), whole): assert np.array_equal(a, b) and a.dtype == b.dtype
