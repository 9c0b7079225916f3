"""What was sealed before is not sealed again, unless anything that it depends on has changed."""
import hashlib, json, os

import numpy as np
import pandas as pd
import pytest

from medcrypt.core import RunPaths
from medcrypt.crypto import keys
from medcrypt.crypto.keys import Key
from medcrypt.vault import archive, contract, journal
from medcrypt.vault.journal import Journal, JournalError

VIEWS = ("plain", "blocks-0.5", "roi", "cbc", "codestream")
PICTURES = np.random.default_rng(0).integers(0, 256, (5, 16, 16), dtype=np.uint8)
KEY = contract.dataset_key(Key(bytes(32)), "d")


def filled(out, pictures=PICTURES, key=KEY, **other):
    place = archive.open_archive(RunPaths(out), "d")
    given = {"views": VIEWS, "block": 4, "bits": 8, "random": os.urandom, "repetitions": 2, "journal": out / "sealed.jsonl"} | other
    return place, pd.DataFrame(archive.fill(place, pictures, key, **given))


def names(index): return {tuple(row[:2]): row[2] for row in index[["view", "image", "name"]].itertuples(index=False)}


def test_sealed_again_nothing_changes(tmp_path):
    _, first = filled(tmp_path); lines = (tmp_path / "sealed.jsonl").read_bytes()
    _, second = filled(tmp_path)
    pd.testing.assert_frame_equal(first, second)
    assert (tmp_path / "sealed.jsonl").read_bytes() == lines
    _, without = filled(tmp_path, journal=None)
    assert not set(names(without).values()) & set(names(first).values()) # new randomness


def test_after_a_kill_what_was_stored_is_kept(tmp_path, monkeypatch):
    done = []
    def seal_all(pixels, key, *, seal=archive.seal_all, **options):
        if len(done) == 3: raise KeyboardInterrupt
        done.append(1); return seal(pixels, key, **options)
    source = archive.inspect.getsource(archive.seal_all)
    with monkeypatch.context() as patch:
        patch.setattr(archive, "seal_all", seal_all); patch.setattr(archive.inspect, "getsource", lambda f: source if f is seal_all else "x")
        with pytest.raises(KeyboardInterrupt): filled(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(archive.inspect, "getsource", lambda f: source if f is archive.seal_all else "x")
        kept = [line["rows"] for line in map(json.loads, (tmp_path / "sealed.jsonl").read_text().splitlines())]
        place, index = filled(tmp_path)
    before = {(row["view"], row["image"]): row["name"] for rows in kept for row in rows}
    assert len(kept) == 3 and before.items() <= names(index).items() and len(index) == 5 * 5 + 5 * 3
    assert set(place.vault.names()) | set(place.readable.names()) == set(index["name"]) # nothing twice


@pytest.mark.parametrize("what", ["pixels", "block", "views", "key", "code"])
def test_whatever_an_object_depends_on_makes_it_another(what, tmp_path, monkeypatch):
    _, first = filled(tmp_path)
    changed = PICTURES.copy(); changed[2, 0, 0] ^= 1
    if what == "code": monkeypatch.setattr(journal, "sealing_code", lambda: "other")
    place, second = filled(tmp_path, **{"pixels": {"pictures": changed}, "block": {"block": 8}, "views": {"views": VIEWS[1:]}, "key": {"key": contract.dataset_key(Key(b"1" * 32), "d")}, "code": {}}[what])
    same = {at for at, name in names(second).items() if names(first).get(at) == name}
    again = {(v, k) for v in ("cbc-again-1", "codestream-again-1", "codestream") for k in range(5)} # what is sealed apart from the others: by no blocks and of no other view
    expected = {"pixels": {at for at in names(first) if at[1] != 2}, "block": again, "views": again, "key": set(), "code": set()}[what]
    assert same == expected or what == "pixels" and same == {at for at in expected if not at[0].startswith("codestream")} # where the longest file is another one now
    place.keep_only(second["name"])
    assert set(place.vault.names()) | set(place.readable.names()) == set(second["name"])


def test_a_lost_object_is_sealed_again(tmp_path):
    place, first = filled(tmp_path)
    lost = first[(first["view"] == "cbc-again-1") & (first["image"] == 1)]["name"].iloc[0]
    place.vault.delete([lost])
    place, second = filled(tmp_path)
    assert {at for at, name in names(second).items() if names(first)[at] != name} == {("cbc-again-1", 1)} and lost not in place.vault
    pd.testing.assert_frame_equal(filled(tmp_path)[1], second) # the last line counts


def test_torn_and_foreign_lines_are_passed_over(tmp_path):
    path, other = tmp_path / "j", KEY
    book = Journal(path, other); book.add("a", [{"x": 1}])
    with open(path, "ab") as file: file.write(b'[]\nnull\n\xff\n{"of": 1}\n{"of": "b", "ro')
    book = Journal(path, other); book.add("c", [{"y": 2}])
    again = Journal(path, other)
    assert again.find("a") == [{"x": 1}] and again.find("c") == [{"y": 2}] and again.find("b") is None
    with pytest.raises(JournalError, match="cannot be read"): Journal(tmp_path, other)
    with pytest.raises(JournalError, match="cannot be written"): Journal(tmp_path / "absent" / "j", other).add("a", [])


def test_the_journal_tells_nothing_about_a_picture_without_the_key(tmp_path):
    filled(tmp_path); text = (tmp_path / "sealed.jsonl").read_text()
    assert hashlib.sha256(PICTURES[0].tobytes()).hexdigest() not in text and KEY.hex() not in text
    book, other = Journal(None, KEY), Journal(None, Key(b"1" * 32))
    assert book.name(PICTURES[0]) != other.name(PICTURES[0]) and str(bytes(KEY)) not in repr(vars(book)) and "not shown" in repr(vars(book))
    book.add("a", []); assert book.find("a") == [] # without a file it is kept for as long as it lives
    assert keys.derive(KEY, b"", "medcrypt journal 1") != KEY
