"""What was sealed before is not sealed again, unless anything that it depends on has changed."""
import json, os

import numpy as np
import pandas as pd
import pytest

from medcrypt.core import RunPaths, seeded_bytes
from medcrypt.crypto.keys import Key, load_key
from medcrypt.vault import archive, contract, journal
from medcrypt.vault.journal import Journal, JournalError

VIEWS = ("plain", "blocks-0.5", "roi", "cbc", "codestream")
PICTURES = np.random.default_rng(0).integers(0, 128, (5, 16, 16), dtype=np.uint8); PICTURES[4] = PICTURES[3] # one of them twice
KEY = contract.dataset_key(Key(bytes(32)), "d")


def filled(out, pictures=PICTURES, key=KEY, **other):
    place = archive.open_archive(RunPaths(out), "d")
    given = {"views": VIEWS, "block": 4, "bits": 8, "random": os.urandom, "repetitions": 2, "journal": out / "sealed.jsonl"} | other
    return place, pd.DataFrame(archive.fill(place, pictures, key, **given))


def names(index): return {tuple(row[:2]): row[2] for row in index[["view", "image", "name"]].itertuples(index=False)}

def stored(place): return set(place.vault.names()) | set(place.readable.names())


def test_sealed_again_nothing_changes(tmp_path):
    place, first = filled(tmp_path); lines = (tmp_path / "sealed.jsonl").read_bytes()
    _, second = filled(tmp_path)
    pd.testing.assert_frame_equal(first, second)
    assert (tmp_path / "sealed.jsonl").read_bytes() == lines and first["name"].is_unique and stored(place) == set(first["name"])
    _, without = filled(tmp_path, journal=None)
    assert not set(without["name"]) & set(first["name"]) and set(first["name"]) < stored(place) # new randomness; and what it does not know is left alone


def test_after_a_kill_what_was_stored_is_kept(tmp_path, monkeypatch):
    done, seal = [], archive.seal_all
    def interrupted(*given, **options):
        if len(done) == 3: raise KeyboardInterrupt
        done.append(1); return seal(*given, **options)
    monkeypatch.setattr(archive.inspect, "getsource", lambda f: "the same")
    with monkeypatch.context() as patch:
        patch.setattr(archive, "seal_all", interrupted)
        with pytest.raises(KeyboardInterrupt): filled(tmp_path)
    before = {(row["view"], row["image"]): row["name"] for row in (json.loads(line)["row"] for line in (tmp_path / "sealed.jsonl").read_text().splitlines())}
    place, index = filled(tmp_path)
    assert len(before) == 3 * 5 and len(set(before)) == len(before) and before.items() <= names(index).items() and len(index) == 5 * 5 + 5 * 3
    assert stored(place) == set(index["name"]) # nothing twice


def of_views(*views): return {(v, k) for v in views for k in range(5)}

SEALED = of_views("cbc", "jpeg2000", "codestream", "cbc-again-1", "codestream-again-1")
CHANGED = PICTURES.copy(); CHANGED[2, 0, 0] ^= 1
OTHER = {"pixels": ({"pictures": CHANGED}, None), "block": ({"block": 8}, SEALED), "views": ({"views": VIEWS[1:]}, SEALED | of_views("blocks-0.5", "roi")), "more views": ({"views": (*VIEWS, "le", "resolution-2")}, SEALED | of_views("plain", "blocks-0.5", "roi")),
         "region": ({"region": lambda pixels: pixels < 0}, SEALED | of_views("plain", "blocks-0.5")), "bits": ({"bits": 7}, set()), "experiment": ({"experiment": 1}, set()),
         "key": ({"key": contract.dataset_key(Key(b"1" * 32), "d")}, set()), "code": ({}, set()), "source": ({}, set()), "order": ({"pictures": PICTURES[::-1]}, None)}

@pytest.mark.parametrize("what", OTHER)
def test_whatever_an_object_depends_on_makes_it_another(what, tmp_path, monkeypatch):
    _, first = filled(tmp_path)
    if what == "code": monkeypatch.setattr(journal, "sealing_code", lambda: "other")
    if what == "source": monkeypatch.setattr(archive.inspect, "getsource", lambda f: "other")
    given, expected = OTHER[what]
    place, second = filled(tmp_path, **given)
    same = {at for at, name in names(second).items() if names(first).get(at) == name}
    if what == "pixels": assert {at for at in same if not at[0].startswith("codestream")} == {at for at in names(first) if at[1] != 2 and not at[0].startswith("codestream")} # the longest file may be another one now
    elif what == "order": assert {at[1] for at in same} == {2} # the picture in the middle; its equal neighbours have changed places with others
    else: assert same == expected
    if what != "key": assert stored(place) == set(second["name"]) # what is not wanted any more is gone; what another key vouches for stays
    else: assert set(first["name"]) < stored(place)
    pd.testing.assert_frame_equal(filled(tmp_path, **given)[1], second)


def test_equal_pictures_have_objects_of_their_own(tmp_path):
    _, index = filled(tmp_path)
    twice = index[index["image"] >= 3].groupby("view")["name"]
    assert (twice.nunique() == 2).all() and set(index["image"]) == set(range(5))


@pytest.mark.parametrize("how", ["lost", "damaged", "empty"])
def test_an_object_that_is_not_sound_is_sealed_again(how, tmp_path):
    from medcrypt.vault.store import object_path
    place, first = filled(tmp_path)
    name = first[(first["view"] == "cbc-again-1") & (first["image"] == 1)]["name"].iloc[0]; file = RunPaths(tmp_path).vault("d") / object_path(name)
    if how == "lost": file.unlink()
    else: file.write_bytes(b"" if how == "empty" else b"x" * file.stat().st_size)
    place, second = filled(tmp_path)
    assert {at for at, other in names(second).items() if names(first)[at] != other} == {("cbc-again-1", 1)} and not file.exists()
    assert place.vault.verify() and stored(place) == set(second["name"])
    pd.testing.assert_frame_equal(filled(tmp_path)[1], second)


def test_objects_of_other_people_in_the_same_store_stay(tmp_path):
    (tmp_path / "shared").mkdir(); run = RunPaths(tmp_path / "run"); run.vault("d").parent.mkdir(parents=True); run.vault("d").symlink_to(tmp_path / "shared")
    from medcrypt.vault.store import Store
    theirs = Store(str(tmp_path / "shared")).put(b"theirs")
    for block in (4, 8): place, _ = filled(tmp_path / "run", block=block)
    assert theirs in place.vault


def test_torn_foreign_and_forged_lines_are_passed_over(tmp_path):
    path = tmp_path / "j"
    book = Journal(path, KEY); book.add("a", {"x": 1}); book.add("f", {"name": "ab"})
    path.write_bytes(path.read_bytes().replace(b'"ab"', b'"cd"') + b'[]\nnull\n\xff\n{"of": 1}\n{"of": [], "row": 1, "tag": "x"}\n{"of": "d", "row": [1], "tag": "\\u00e9"}\n{"of": "b", "ro')
    book = Journal(path, KEY); book.add("c", {"y": 2})
    again = Journal(path, KEY)
    assert again.find("a") == {"x": 1} and again.find("c") == {"y": 2} and not any(again.find(of) for of in "bdf") and again.others() == []
    again = Journal(path, KEY); again.find("c")
    assert again.others() == [{"x": 1}]
    again.forget_others()
    assert len(path.read_bytes().splitlines()) == 1 and Journal(path, KEY).find("c") == {"y": 2} and Journal(path, Key(b"1" * 32)).find("c") is None
    with pytest.raises(JournalError, match="cannot be read"): Journal(tmp_path, KEY)
    with pytest.raises(JournalError, match="cannot be written"): Journal(tmp_path / "absent" / "j", KEY).add("a", {})


def test_the_journal_shows_no_key(tmp_path):
    filled(tmp_path); text = (tmp_path / "sealed.jsonl").read_text()
    book, other = Journal(None, KEY), Journal(None, Key(b"1" * 32))
    assert KEY.hex() not in text and book.name(PICTURES[0]) != other.name(PICTURES[0]) and "not shown" in repr(vars(book))
    book.add("a", {}); book.forget_others(); assert book.find("a") == {} # without a file it is kept for as long as it lives


def test_a_public_key_is_never_taken_for_a_secret_one(tmp_path):
    run = RunPaths(tmp_path); public = [Key(seeded_bytes(seed, "key", "d")(32)) for seed in (0, 1)]
    assert archive.master_key(run, "d", public[0]) == load_key(run.master_key("d")) == public[0]
    secret = archive.master_key(run, "d")
    assert secret not in public and archive.master_key(run, "d") == secret == load_key(run.master_key("d")) # and stays
    assert archive.master_key(run, "d", public[0]) == public[0] and archive.master_key(run, "d", public[1]) == public[1] # phantoms have the key of their seed
    run.master_key("d").unlink() # killed between the two files
    assert archive.master_key(run, "d") not in (*public, secret)
