"What `medcrypt vault` says and does: indexes, checks, lists, and garbage that goes only after a yes, and never for a mistyped index."
import os, random, re, time

import pytest

import s3_server
from medcrypt.cli.vault_tools import collect_garbage, in_days, in_units, list_vault, read_index, verify_vault
from medcrypt.core import ConfigError, MedcryptError
from medcrypt.vault.store import Store, StoreError, object_path
from test_store import needs_s3, plant, s3, server

DAY = 86400
yes, no = (lambda question: True), (lambda question: False)
def never(question): raise AssertionError(f"asked: {question}")


@pytest.fixture
def vault(tmp_path):
    "A store with five objects: 0-2 cbc, 3 plain, all two days old; 4 fresh. The index lists 0, 1 and 3."
    store = Store(tmp_path / "vault"); names = [store.put(b"object %d" % i) for i in range(5)]
    for age, name in zip((2, 2, 3, 4), names): os.utime(tmp_path / "vault" / object_path(name), (time.time() - age * DAY,) * 2)
    index = tmp_path / "index.csv"; index.write_text(f"view,image,name\ncbc,0,{names[0]}\ncbc,1,{names[1]}\nplain,0,{names[3]}\n")
    return store, names, index


# indexes

A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize("text,names", [(A, [A]), (f"{A}\n\n  {B}\r\n", [A, B]), (f"\ufeffname\n{A}\n", [A]), (f"name,view\n{A},x\n{B},y\n{A},x\n", [A, B, A]), (f'view,note,name\nx,"a, b\nc",{A}\n', [A]), (f"note,name\nx\u2028y,{A}\n", [A])])
def test_an_index_is_read(tmp_path, text, names):
    path = tmp_path / "i"; path.write_bytes(text.encode())
    assert read_index(path) == names


@pytest.mark.parametrize("text,words", [("", "lists no object"), ("name\n", "lists no object"), ("view,file\nx,y\n", "no column 'name', only view, file"), (f"{A}\n{A[:63]}\n{B}", f"line 2: '{A[:63]}' is not"), (A.upper(), "line 1"), (f"view,name\nx,{A}\ny\n", "line 3: 'None'"),
                                        (f"view,name\nx,{A}\ny,{B[:20]}", "line 3"), (f"name\n{A}\n# note\n", "line 3"), (b"\xff\xfe\x00", "no text"), (b"name," + b"x" * 200000, "no text|not an object")])
def test_an_index_with_anything_wrong_is_refused_whole(tmp_path, text, words):
    path = tmp_path / "i"; path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=words) as caught: read_index(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_an_index_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"): read_index(tmp_path / "none")
    with pytest.raises(ConfigError, match="Is a directory"): read_index(tmp_path)


def test_rows_can_be_chosen(tmp_path):
    path = tmp_path / "i"; path.write_text(f"view,image,name\nblocks-0.5,0,{A}\ncbc,1,{B}\n")
    assert read_index(path, ["view=blocks-*"]) == [A] and read_index(path, ["view=cbc", "image=0"]) == [A, B] and read_index(path, iter(["image=1"])) == [B]
    for where, words in ((["kind=x"], "no column 'kind'"), (["view"], "COLUMN=VALUE"), (["=x"], "COLUMN=VALUE"), (["view=none"], "that --where asks for")):
        with pytest.raises(ConfigError, match=words): read_index(path, where)


def test_units():
    assert [in_units(n) for n in (0, 999, 1000, 123456, 5e6, 7.25e9, 2e13)] == ["0 bytes", "999 bytes", "1 kB", "123 kB", "5 MB", "7.25 GB", "20 TB"]
    assert [in_days(s) for s in (5, 90, 7200, 129600)] == ["5 seconds", "1.5 minutes", "2 hours", "1.5 days"]


# check and list

def test_verify_says_what_is_wrong(vault):
    store, names, index = vault; ticks = []
    text, ok = verify_vault(store.url, [index], tick=lambda: ticks.append(1))
    assert ok and len(ticks) == 5 and "5 objects, 40 bytes; 3 of the 3 listed ones are there" in text and text.endswith("all objects are whole")
    store.delete([names[0], names[1]]); plant(store, object_path(names[1]), b"changed"); plant(store, "notes.txt", b"x"); plant(store, f"{names[2][:2]}/.{names[2]}-abcd1234", b"x")
    plant(store, f"00/{names[0]}" if names[0][:2] != "00" else f"01/{names[0]}", b"object 0")
    text, ok = verify_vault(store.url, [index])
    assert not ok and text.endswith("NOT all is well") and "2 of the 3 listed" in text
    for pattern in (rf"damaged.*: 1\n  {names[1]}\n", rf"missing: 1\n  {names[0]}\n", rf"wrong folder.*: 1\n  0[01]/{names[0]}\n", r"left over.*: 1\n  ..\/\.[0-9a-f]{64}-abcd1234\n", r"not of this store: 1\n  notes.txt\n"): assert re.search(pattern, text), pattern


def test_verify_with_the_rows_of_one_store(vault, tmp_path):
    store, names, index = vault
    store.delete([names[3]])
    assert not verify_vault(store.url, [index])[1] and verify_vault(store.url, [index], where=["view=cbc"])[1] and verify_vault(store.url)[1]
    with pytest.raises(ConfigError, match="needs an --index"): verify_vault(store.url, where=["view=cbc"])


def test_long_reports_are_cut(tmp_path):
    store = Store(tmp_path / "v")
    for i in range(25): plant(store, f"file{i}", b"x")
    text, ok = verify_vault(store.url)
    assert not ok and "not of this store: 25" in text and "and 15 more" in text and text.count("\n") == 13


def test_list(vault):
    store, names, _ = vault
    lines = list_vault(store.url).splitlines()
    assert [line.split()[0] for line in lines[:-1]] == sorted(names) and all(re.fullmatch(r"[0-9a-f]{64} 8 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", line) for line in lines[:-1]) and lines[-1] == f"{store.url}: 5 objects, 40 bytes"
    assert time.strftime("%Y-%m-%dT", time.gmtime(time.time() - 3 * DAY)) in next(line for line in lines if line.startswith(names[2]))


# garbage

def test_garbage_is_shown_and_goes_only_after_a_yes(vault):
    store, names, index = vault; asked = []
    assert collect_garbage(store.url, [index], DAY, lambda question: (asked.append(question), False)[1]) == f"{store.url}: nothing was removed" and len(store) == 5
    [question] = asked
    assert "1 of 5 objects would be removed for good: 8 bytes (the store's objects: 40 bytes), 3 days to 3 days old" in question and f"\n  {names[2]}\n" in question and question.endswith("Remove them?")
    assert "most of the store" not in question and "EVERYTHING" not in question and not any(names[i] in question for i in (0, 1, 3, 4))
    assert collect_garbage(store.url, [index], DAY) == f"{store.url}: nothing was removed", "without a confirm nothing goes"
    assert "removed 1 objects and 0 leftovers, 8 bytes" in collect_garbage(store.url, [index], DAY, yes)
    assert store.names() == sorted(names[:2] + names[3:])
    assert "nothing to remove" in collect_garbage(store.url, [index], DAY, never)


def test_all_indexes_count(vault, tmp_path):
    store, names, index = vault
    (tmp_path / "two").write_text(names[2])
    assert "nothing to remove" in collect_garbage(store.url, [index, tmp_path / "two"], DAY, never)
    asked = []; collect_garbage(store.url, [tmp_path / "two"], 0, lambda question: asked.append(question))
    assert "4 of 5 objects" in asked[0] and "That is most of the store: is an index missing?" in asked[0]


def test_leftovers_go_too(vault):
    store, names, index = vault; path = f"{names[0][:2]}/.{names[0]}-abcd1234"
    plant(store, path, bytes(100)); full = os.path.join(store.url, path)
    asked = []
    collect_garbage(store.url, [index], DAY, lambda question: asked.append(question)); assert path not in asked[0] and "leftovers of killed" not in asked[0], "fresh"
    os.utime(full, (time.time() - 5 * DAY,) * 2)
    collect_garbage(store.url, [index], DAY, lambda question: asked.append(question))
    assert "1 of 5 objects and 1 leftovers of killed writers" in asked[1] and path in asked[1] and "5 days old" in asked[1]
    assert "removed 1 objects and 1 leftovers, 108 bytes" in collect_garbage(store.url, [index], DAY, yes) and not os.path.exists(full)


def test_another_stores_index_is_refused(vault, tmp_path):
    store, names, index = vault; other = tmp_path / "other"; other.write_text(f"{A}\n{B}\n")
    for indexes in ([other], [index, other]):
        with pytest.raises(ConfigError, match=f"{other}: none of the 2 objects .* is in {store.url}"): collect_garbage(store.url, indexes, 0, never)
    (tmp_path / "mixed").write_text(f"{A}\n{names[0]}\n"); asked = []
    collect_garbage(store.url, [tmp_path / "mixed"], 0, lambda question: asked.append(question)); assert "4 of 5 objects" in asked[0]
    empty = tmp_path / "empty"; empty.write_text("")
    for indexes, words in (([empty], "lists no object"), ([tmp_path / "none"], "No such file"), ([index, empty], "lists no object")):
        with pytest.raises(ConfigError, match=words): collect_garbage(store.url, indexes, 0, never)
    assert len(store) == 5


def test_emptying_a_store_must_be_said(vault):
    store, names, index = vault
    with pytest.raises(ConfigError, match="--index"): collect_garbage(store.url, [], 0, never)
    with pytest.raises(ConfigError, match="--everything"): collect_garbage(store.url, [index], 0, never, everything=True)
    asked = []; collect_garbage(store.url, [], DAY, lambda question: asked.append(question), everything=True)
    assert "EVERYTHING, listed or not: 4 of 5 objects" in asked[0], "the fresh one stays"
    ticks = []; collect_garbage(store.url, [], 0, yes, everything=True, tick=lambda: ticks.append(1))
    assert len(store) == 0 and len(ticks) == 5


def test_an_index_that_grows_while_the_person_thinks(vault):
    store, names, index = vault
    def think(question):
        with index.open("a") as file: file.write(f"cbc,2,{names[2]}\n")
        return True
    assert "removed 0 objects and 0 leftovers, 0 bytes; 1 stayed" in collect_garbage(store.url, [index], DAY, think) and len(store) == 5
    def lose(question): index.unlink(); return True
    index.write_text(f"{names[0]}\n")
    with pytest.raises(ConfigError, match="No such file"): collect_garbage(store.url, [index], DAY, lose)
    assert len(store) == 5


def test_an_object_that_is_renewed_while_the_person_thinks(vault):
    store, names, index = vault
    def think(question): store.delete([names[2]]); store.put(b"object 2"); return True
    assert "1 stayed" in collect_garbage(store.url, [index], DAY, think) and names[2] in store


def test_errors_are_of_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x"); (tmp_path / "i").write_text(A)
    for attempt in (lambda url: verify_vault(url), lambda url: list_vault(url), lambda url: collect_garbage(url, [tmp_path / "i"], 0, never)):
        for url in (str(tmp_path / "file"), "nowhere://x", "s3://me:s3cr3t@bucket"):
            with pytest.raises(StoreError) as caught: attempt(url)
            assert "\n" not in str(caught.value) and "s3cr3t" not in str(caught.value) and isinstance(caught.value, MedcryptError)
    with pytest.raises(StoreError, match="older_than_s"): collect_garbage(f"memory://{random.random()}", [tmp_path / "i"], -1, never)


@needs_s3
def test_on_an_s3_server(s3, server, tmp_path, monkeypatch):
    url = s3 + "/vault"; store = Store(url); names = [store.put(b"object %d" % i) for i in range(3)]
    (tmp_path / "i").write_text("\n".join(names[:2]))
    text, ok = verify_vault(url, [tmp_path / "i"]); assert ok and f"{url}: 3 objects, 24 bytes; 2 of the 2" in text
    assert list_vault(url).endswith(f"{url}: 3 objects, 24 bytes")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert "nothing to remove" in collect_garbage(url, [tmp_path / "i"], DAY, never, endpoint_url=server)
    time.sleep(1.1) # S3 tells times in whole seconds
    assert "removed 1 objects" in collect_garbage(url, [tmp_path / "i"], 0, yes, endpoint_url=server) and Store(url, endpoint_url=server).names() == sorted(names[:2])
    assert s3_server.SECRET not in text
