"Store: content addressing, damage, path traversal, concurrent writers."
import os, random, subprocess, sys, threading
from pathlib import Path

import pytest

from medcrypt.vault.store import Store, StoreError, object_name

ROOT = Path(__file__).resolve().parents[1]


# store

@pytest.fixture(params=("folder", "memory"))
def store(request, tmp_path):
    return Store(tmp_path / "store" if request.param == "folder" else f"memory://{tmp_path.name}-{random.random()}")


def test_put_get(store):
    assert store.names() == [] and len(store) == 0 and store.size_bytes() == 0 and store.verify()
    objects = [b"", b"a", bytes(100000)]
    names = [store.put(x) for x in objects]
    assert names == [object_name(x) for x in objects] and [store.get(n) for n in names] == objects
    assert store.put(b"a") == names[1] and store.names() == sorted(names) and len(store) == 3 and store.size_bytes() == 100001 and all(n in store for n in names)
    report = store.verify(expected=names)
    assert report and (report.objects, report.size_bytes, report.damaged, report.missing, report.foreign) == (3, 100001, (), (), ())


@pytest.mark.parametrize("name", ("", "../../etc/passwd", "/etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "a" * 65, "../" + "a" * 61, None, 7, b"a" * 64))
def test_only_digests_become_paths(store, name):
    for attempt in (lambda: store.get(name), lambda: name in store, lambda: store.verify([name])):
        with pytest.raises(StoreError): attempt()


def test_missing_and_damaged(tmp_path):
    store = Store(tmp_path); names = [store.put(bytes([i]) * 50) for i in range(4)]
    path = lambda n: tmp_path / n[:2] / n
    path(names[0]).write_bytes(b"other"); path(names[1]).unlink(); path(names[2]).write_bytes(bytes([2]) * 49)
    (tmp_path / "readme.txt").write_text("x"); (tmp_path / "zz").mkdir(); (tmp_path / "zz" / names[3]).write_text("misplaced")
    for name, word in ((names[0], "damaged"), (names[1], "no object"), (names[2], "damaged")):
        with pytest.raises(StoreError, match=word): store.get(name)
    report = store.verify(expected=names)
    assert not report and set(report.damaged) == {names[0], names[2]} and report.missing == (names[1],)
    assert set(report.foreign) >= {"readme.txt"} and names[3] in store and report.objects == 3
    with pytest.raises(StoreError, match="damaged"): store.put(bytes(50))
    assert path(names[0]).read_bytes() == b"other"   # never overwritten: someone must look at it first


def test_put_never_touches_what_is_there(tmp_path):
    store = Store(tmp_path); name = store.put(b"x"); path = tmp_path / name[:2] / name
    before = path.stat(); store.put(b"x"); after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_store_that_cannot_be_opened_or_written(tmp_path):
    with pytest.raises(StoreError, match="nowhere"): Store("nowhere://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError): Store(tmp_path / "file").put(b"x")


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    def full(*_): raise OSError(28, "No space left on device")
    for way in ("replace", "link"): monkeypatch.setattr(os, way, full)
    with pytest.raises(StoreError, match="No space"): store.put(b"x")
    monkeypatch.undo()
    assert store.names() == [] and not [p for p in tmp_path.rglob("*") if p.is_file()]


def run(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_many_writers_one_store(tmp_path):
    code = "import sys; from medcrypt.vault.store import Store; s = Store(sys.argv[1])\nfor i in range(200): s.put(str(i).encode())"
    processes = [run(code, tmp_path) for _ in range(3)]
    assert [p.wait() for p in processes] == [0, 0, 0]
    threads = [threading.Thread(target=lambda: [Store(tmp_path).put(str(i).encode()) for i in range(150, 300)]) for _ in range(3)]
    for t in threads: t.start()
    for t in threads: t.join()
    report = Store(tmp_path).verify(object_name(str(i).encode()) for i in range(300))
    assert report and report.objects == 300 and not report.foreign
