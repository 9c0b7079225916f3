"The store on a folder, in memory and on a real S3 server: nothing overwritten, nothing half, nothing secret told, damage and leftovers named, garbage removed only when it is garbage."
import hashlib, importlib.util, os, pickle, random, re, signal, socket, subprocess, sys, textwrap, threading, time, traceback
from pathlib import Path

import fsspec
import pytest

import s3_server
from medcrypt.vault import backend
from medcrypt.vault.backend import BLOCK, PART, Objects
from medcrypt.vault.store import Garbage, ObjectDamaged, ObjectMissing, Store, StoreError, object_name, object_path

ROOT = Path(__file__).resolve().parents[1]
DAY = 86400
SMALL, LARGE = b"an envelope", random.Random(0).randbytes(2 * PART + 12345)
WITHOUT = next((f"{name} is not installed: pip install 's3fs' 'moto[server]'" for name in ("moto", "s3fs", "flask") if importlib.util.find_spec(name) is None), None)
needs_s3 = pytest.mark.skipif(WITHOUT is not None, reason=WITHOUT or "")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server.serve(tmp_path_factory.mktemp("s3")) as address: yield address


@pytest.fixture
def s3(server, monkeypatch):
    "URL of an empty bucket; the environment names the server and the credentials."
    for name in [n for n in os.environ if n.startswith("AWS_")]: monkeypatch.delenv(name)
    for name, value in s3_server.environment(server).items(): monkeypatch.setenv(name, value)
    bucket = f"bucket-{random.randrange(10**12)}"
    raw().mkdir(bucket)
    return f"s3://{bucket}"


def raw(): return fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)


KINDS = ["folder", "memory", pytest.param("s3", marks=needs_s3)]


@pytest.fixture(params=KINDS)
def url(request, tmp_path):
    if request.param == "s3": return request.getfixturevalue("s3") + "/some/prefix"
    return str(tmp_path / "store") if request.param == "folder" else f"memory://{tmp_path.name}-{random.random()}"


def place(store, path):
    fs, root = fsspec.core.url_to_fs(store.url, **({"skip_instance_cache": True, "use_listings_cache": False} if store.url.startswith("s3") else {}))
    return fs, f"{root}/{path}"


def plant(store, path, data):
    "Write bytes behind the store's back."
    fs, target = place(store, path)
    if "s3" not in fs.protocol: fs.makedirs(fs._parent(target), exist_ok=True)
    fs.pipe_file(target, data)


def seen(store, path):
    fs, target = place(store, path)
    return fs.cat_file(target)


def child(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(processes):
    done = [process.communicate(timeout=240) for process in processes]
    assert [p.returncode for p in processes] == [0] * len(processes), done
    return [out for out, _ in done]


# the same on every backend

def test_objects_go_in_and_come_out(url, tmp_path):
    store = Store(url)
    assert store.names() == [] and len(store) == 0 and store.size_bytes() == 0 and store.verify() and not store.garbage([], 0)
    objects = [b"", b"a", SMALL, LARGE]
    names = [store.put(x) for x in objects]
    assert names == [hashlib.sha256(x).hexdigest() for x in objects] and [store.get(n) for n in names] == objects and [store.put(x) for x in objects] == names
    assert store.names() == sorted(names) and len(store) == 4 and store.size_bytes() == sum(map(len, objects)) and all(n in store for n in names) and "0" * 64 not in store
    assert {n: e.size_bytes for n, e in store.entries().items()} == dict(zip(names, map(len, objects))) and all(abs(e.modified_s - time.time()) < 60 for e in store.entries().values())
    ticks = []
    report = store.verify(names, workers=3, tick=lambda: ticks.append(1))
    assert report and len(ticks) == 4 and (report.objects, report.size_bytes) == (4, sum(map(len, objects)))
    assert not (report.damaged or report.missing or report.foreign or report.misplaced or report.leftovers)
    with pytest.raises(ObjectMissing, match="no object 0000"): store.get("0" * 64)
    assert repr(store) == f"Store({url!r})" and pickle.loads(pickle.dumps(store)).names() == sorted(names)
    sibling = Store(url + "2"); sibling.put(b"sibling")
    assert store.names() == sorted(names) and len(sibling) == 1 and not store.verify().foreign


def test_files_go_in_and_come_out(url, tmp_path):
    store, source, target = Store(url), tmp_path / "in", tmp_path / "new" / "out"
    for data in (b"", SMALL, LARGE):
        source.write_bytes(data)
        name = store.put_file(source)
        assert name == object_name(data) == store.put_file(source) == store.put(data) and store.get(name) == data
        assert store.copy(name, target, replace=True) == target and target.read_bytes() == data
    with pytest.raises(StoreError, match=f"{target}: is there already"): store.copy(object_name(b""), target)
    assert target.read_bytes() == LARGE and [p.name for p in target.parent.iterdir()] == ["out"]
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(StoreError, match="no such file"): store.put_file(missing)
    with pytest.raises(ObjectMissing): store.copy("0" * 64, tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("data", (SMALL, LARGE), ids=("small", "large"))
@pytest.mark.parametrize("change", ("same size", "longer", "shorter"))
def test_a_file_that_changes_meanwhile_is_not_kept(url, tmp_path, monkeypatch, data, change):
    store, source = Store(url), tmp_path / "in"; source.write_bytes(data)
    put = Store._put
    def changed(self, *arguments):
        source.write_bytes({"same size": data[:-1] + b"\xfe", "longer": data + bytes(BLOCK), "shorter": data[:-5]}[change])
        return put(self, *arguments)
    monkeypatch.setattr(Store, "_put", changed)
    with pytest.raises(StoreError, match=f"{source}: has changed"): store.put_file(source)
    report = store.verify()
    assert report.objects == 0 and not report.foreign and not report.leftovers


@pytest.mark.parametrize("data", (SMALL, LARGE), ids=("small", "large"))
@pytest.mark.parametrize("late", (False, True), ids=("there before", "appears between look and write"))
def test_what_is_there_is_never_overwritten(url, tmp_path, monkeypatch, data, late):
    store, name = Store(url), object_name(data); path = object_path(name)
    (tmp_path / "in").write_bytes(data)
    plant(store, path, b"damaged")
    looks = []
    if late: # the first look still finds nothing
        there = Store.__contains__
        monkeypatch.setattr(Store, "__contains__", lambda self, name: (looks.append(name), len(looks) % 2 == 0 and there(self, name))[1])
    for attempt in (lambda: store.put(data), lambda: store.put_file(tmp_path / "in")):
        with pytest.raises(ObjectDamaged, match=f"object {name} is damaged"): attempt()
    assert seen(store, path) == b"damaged" and store.verify().damaged == (name,) and not store.verify().leftovers
    assert len(looks) == (4 if late else 0)
    with pytest.raises(FileExistsError): store._backend.create(path, lambda: [data], len(data))
    assert seen(store, path) == b"damaged"


def test_a_whole_object_that_appears_meanwhile_is_taken_as_it_is(url, monkeypatch):
    store = Store(url); name = store.put(SMALL); before = store.entries()[name]
    looks, there = [], Store.__contains__
    monkeypatch.setattr(Store, "__contains__", lambda self, name: (looks.append(name), len(looks) > 1 and there(self, name))[1])
    assert store.put(SMALL) == name and len(looks) == 2 and store.entries()[name] == before


def test_what_verify_finds(url):
    store = Store(url); names = [store.put(bytes([i]) * 50) for i in range(4)]
    misplaced, wrong = object_name(b"misplaced"), object_name(b"wrong")
    store.delete([names[0], names[1]]); plant(store, object_path(names[1]), b"other bytes")
    plant(store, f"zz/{misplaced}", b"misplaced"); plant(store, f"zz/{wrong}", b"not this"); plant(store, "readme.txt", b"x"); plant(store, f"{names[2][:2]}/{names[2][:63]}", b"x")
    report = store.verify(names)
    assert not report and report.missing == (names[0],) and report.damaged == (names[1],) and report.objects == 3 and report.misplaced == (f"zz/{misplaced}",)
    assert report.foreign == tuple(sorted([f"zz/{wrong}", "readme.txt", f"{names[2][:2]}/{names[2][:63]}"])) and not report.leftovers
    assert misplaced not in store and store.verify([misplaced]).missing == (misplaced,)
    assert store.verify(names[2:]).damaged and not store.verify(names[2:])
    with pytest.raises(ObjectDamaged): store.get(names[1])


def test_an_object_that_is_removed_while_verify_runs_is_not_damaged(url, monkeypatch):
    store = Store(url); name, gone = store.put(b"stays"), store.put(b"goes")
    files = store._backend.files()
    store.delete([gone]); monkeypatch.setattr(store._backend, "files", lambda: files)
    report = store.verify(); assert report and report.objects == 1 and report.size_bytes == 5 and not report.foreign
    assert store.verify([name, gone]).missing == (gone,)


@pytest.mark.parametrize("data", (SMALL, LARGE), ids=("small", "large"))
def test_a_damaged_object_leaves_no_copy(url, tmp_path, data):
    store = Store(url); name = store.put(data); store.delete([name]); plant(store, object_path(name), data[:-1] + b"\xfe")
    with pytest.raises(ObjectDamaged, match=name): store.copy(name, tmp_path / "out" / "x")
    assert not list((tmp_path / "out").iterdir()) and store.verify().damaged == (name,)


def test_delete(url):
    store = Store(url); names = [store.put(bytes([i])) for i in range(5)]
    for wrong in ([names[0], "../x"], [names[0], names[0][:63]], names[0]):
        with pytest.raises(StoreError, match="not an object's name"): store.delete(wrong)
    assert len(store) == 5
    store.delete(names[:2] + ["0" * 64]); store.delete(iter(names[:1]))
    assert store.names() == sorted(names[2:]) and names[0] not in store and store.put(bytes([0])) == names[0]


# garbage

def test_garbage_keeps_what_is_listed_and_what_is_fresh(url):
    store = Store(url); names = [store.put(bytes([i]) * (i + 1)) for i in range(4)]
    now = time.time()
    assert not store.garbage([]) and not store.garbage([], now=now + DAY - 60) and not store.garbage(names, now=now + 9 * DAY)
    found = store.garbage(iter(names[:2]), now=now + 2 * DAY)
    assert found and set(found.names) == set(names[2:]) and found.size_bytes == 7 and found.leftovers == () and found.older_than_s == DAY and 1.9 * DAY < found.newest_s <= found.oldest_s < 2.1 * DAY
    assert len(store) == 4, "garbage removes nothing"
    assert not store.collect(found) and len(store) == 4, "by now's clock nothing is old enough"
    other = store.put(b"garbage too, not in the report")
    removed = store.collect(found, keep=[names[2]], now=now + 2 * DAY)
    assert removed.names == (names[3],) and removed.size_bytes == 4 and store.names() == sorted([*names[:3], other])
    assert not store.collect(found, keep=[names[2]], now=now + 2 * DAY), "what is gone is no error"
    for wrong in (["x"], names[0]):
        with pytest.raises(StoreError, match="not an object's name"): store.garbage(wrong)
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(StoreError, match="older_than_s"): store.garbage([], wrong)
    with pytest.raises(StoreError, match="not an object's name"): store.collect(Garbage(("../x",), 0, (), 0))


def test_an_object_that_was_put_again_after_the_report_is_fresh(tmp_path):
    store = Store(tmp_path); old = [store.put(bytes([i])) for i in range(3)]
    long_ago = time.time() - 2 * DAY
    for name in old: os.utime(tmp_path / object_path(name), (long_ago, long_ago))
    fresh = store.put(b"fresh"); ticks = []
    found = store.garbage([]); assert set(found.names) == set(old) and fresh not in found.names
    store.delete([old[0]]); store.put(bytes([0]))
    removed = store.collect(found, tick=lambda: ticks.append(1))
    assert set(removed.names) == set(old[1:]) and store.names() == sorted([old[0], fresh]) and len(ticks) == 3


def test_garbage_needs_to_know_ages(monkeypatch):
    store = Store(f"memory://ages-{random.random()}"); store.put(b"x")
    monkeypatch.setattr(store._backend, "_entry", lambda found: backend.Entry(found["size"], None))
    with pytest.raises(StoreError, match="how old"): store.garbage([])


# many writers

WRITER = """
    import sys; from medcrypt.vault.store import Store
    store, me = Store(sys.argv[1]), sys.argv[2]
    for i in range(int(sys.argv[3])): store.put(b"same %d" % i); store.put(b"mine %d " % i + me.encode())
    large = int(sys.argv[4])
    if large: store.put(bytes(large))
"""


@pytest.mark.parametrize("kind,count,large", [("folder", 150, 3 * PART), pytest.param("s3", 15, PART + 5, marks=needs_s3)])
def test_several_processes_write_at_once(request, tmp_path, kind, count, large):
    url = tmp_path / "store" if kind == "folder" else request.getfixturevalue("s3") + "/p"
    store, wrong = Store(url), []
    writers = [child(WRITER, url, n, count, large) for n in range(3)]
    while any(w.poll() is None for w in writers): # a reader sees whole objects only
        report = store.verify(workers=1)
        wrong += report.damaged + report.foreign
    finish(writers)
    names = {object_name(b"same %d" % i) for i in range(count)} | {object_name(b"mine %d %d" % (i, n)) for i in range(count) for n in range(3)} | {object_name(bytes(large))}
    report = store.verify(names)
    assert report and report.objects == 4 * count + 1 and not report.foreign and not report.leftovers and not wrong


def test_threads_share_one_store(url):
    store = Store(url); threads = [threading.Thread(target=lambda: [store.put(b"%d" % i) for i in range(15)]) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert store.verify(object_name(b"%d" % i) for i in range(15)) and len(store) == 15 and not store.verify().leftovers


FORKED = """
    import os, pickle, sys; from medcrypt.vault.store import Store
    store = Store(sys.argv[1]); name = store.put(b"parent")
    process = os.fork()
    if not process:
        store.put(b"child"); os._exit(store.get(name) != b"parent" or len(pickle.loads(pickle.dumps(store))) != 2)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), len(store))
"""


@pytest.mark.parametrize("kind", ["folder", pytest.param("s3", marks=needs_s3)])
def test_a_store_goes_along_into_a_forked_process(request, tmp_path, kind):
    assert finish([child(FORKED, tmp_path / "store" if kind == "folder" else request.getfixturevalue("s3") + "/p")]) == ["0 2\n"]


KILLED = """
    import os, signal, sys; from medcrypt.vault.store import Store, object_name
    data = bytes(range(256)) * (1 << 17) # 32 MiB
    def blocks():
        for start in range(0, len(data) // 2, 1 << 20): yield data[start:start + (1 << 20)]
        os.kill(os.getpid(), signal.SIGKILL)
    Store(sys.argv[1])._put(object_name(data), blocks, len(data))
"""


@pytest.mark.parametrize("kind", ["folder", pytest.param("s3", marks=needs_s3)])
def test_a_killed_writer_leaves_no_half_object_but_a_leftover_that_goes_with_the_garbage(request, tmp_path, kind):
    url = str(tmp_path / "store") if kind == "folder" else request.getfixturevalue("s3") + "/some/prefix"
    store = Store(url); kept = store.put(SMALL)
    writer = child(KILLED, url); writer.communicate(timeout=120)
    assert writer.returncode == -signal.SIGKILL
    name = object_name(bytes(range(256)) * (1 << 17))
    report = store.verify()
    assert report and name not in store and store.names() == [kept] and not report.foreign and len(report.leftovers) == 1 and name in report.leftovers[0]
    assert not store.garbage([kept]) and not store.garbage([kept], now=time.time() + DAY - 60), "it may still be at work"
    later = time.time() + 2 * DAY
    found = store.garbage([kept], now=later)
    assert found and found.names == () and found.leftovers == report.leftovers and 8 << 20 <= found.size_bytes <= 16 << 20
    assert not store.collect(found), "not old enough by now's clock"
    assert len(store.verify().leftovers) == 1
    removed = store.collect(found, now=later)
    assert removed.leftovers == found.leftovers and not store.verify().leftovers and store.names() == [kept] and store.get(kept) == SMALL
    assert not store.collect(found, now=later)
    if kind == "folder": assert [p.name for p in (tmp_path / "store").rglob("*") if p.is_file()] == [kept]


def test_only_files_named_like_temporary_ones_are_leftovers(tmp_path):
    store = Store(tmp_path); name = object_name(b"x"); long_ago = time.time() - 9 * DAY
    theirs = [f"{name[:2]}/.{name}", f"{name[:2]}/{name}-abcdefgh", f"{name[:2]}/.{name}-abc", f".{name}-abcdefgh", "notes.txt", f"{name[:2]}/.nfs0001"]
    ours = f"{name[:2]}/.{name}-ab_defg1"
    for path in (*theirs, ours): plant(store, path, b"x"); os.utime(tmp_path / path, (long_ago, long_ago))
    found = store.garbage([]); newcomer = ours[:-1] + "2"
    plant(store, newcomer, b"x"); os.utime(tmp_path / newcomer, (long_ago, long_ago)) # old, but nobody has been asked about it
    store.collect(found)
    assert found.leftovers == (ours,) and found.names == () and store.verify().foreign == tuple(sorted(theirs)) and not (tmp_path / ours).exists() and store.verify().leftovers == (newcomer,)


# a folder

def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)
    def full(*_, **__): raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "link", full); monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match="No space"): store.put(b"x")
    monkeypatch.undo()
    assert store.names() == [] and not [p for p in tmp_path.rglob("*") if p.is_file()]
    assert store.put(b"x") in store


def test_a_folder_without_links_still_takes_objects(tmp_path, monkeypatch):
    def none(*_, **__): raise OSError(95, "Operation not supported")
    monkeypatch.setattr(os, "link", none)
    store = Store(tmp_path); name = store.put(b"x")
    assert store.get(name) == b"x" == store.get(store.put(b"x")) and store.verify() and not store.verify().foreign


def test_durable_objects_are_on_the_disk_before_their_name_appears(tmp_path, monkeypatch):
    events = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append(os.readlink(f"/proc/self/fd/{handle}") if Path("/proc/self/fd").is_dir() else "?"), fsync(handle))[1])
    monkeypatch.setattr(os, "link", lambda a, b: (events.append("named"), link(a, b))[1])
    Store(tmp_path).put(b"a"); assert events == ["named"]
    events.clear(); name = Store(tmp_path, durable=True).put(b"b")
    assert events.index("named") == 1 and f".{name}-" in events[0] and events[2:] == [str(tmp_path / name[:2]), str(tmp_path)]


def test_a_store_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x"); store = Store(tmp_path / "file")
    for attempt in (lambda: store.put(b"x"), store.names, store.verify, lambda: store.garbage([]), lambda: "0" * 64 in store):
        with pytest.raises(StoreError, match="Not a directory"): attempt()
    (tmp_path / object_name(b"x")[:2]).write_text("a file where a folder must be")
    with pytest.raises(StoreError, match=f"{tmp_path}.*Not a directory"): Store(tmp_path).put(b"x")


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    store = Store(tmp_path); name = store.put(b"x"); scandir = os.scandir
    def denied(path):
        if str(path).endswith(name[:2]): raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)
    monkeypatch.setattr(os, "scandir", denied)
    for attempt in (store.names, store.verify, lambda: store.garbage([])):
        with pytest.raises(StoreError, match=f"{tmp_path}: cannot be listed \\(Permission denied\\)"): attempt()


def test_an_object_that_cannot_be_read_is_damaged_and_the_others_are_checked(tmp_path):
    store = Store(tmp_path); names = [store.put(bytes([i])) for i in range(3)]
    (tmp_path / object_path(names[0])).unlink(); (tmp_path / object_path(names[0])).mkdir(); plant(store, object_path(names[1]), b"damaged")
    report = store.verify(names)
    assert report.damaged == (names[1],) and report.missing == (names[0],) and report.objects == 2
    with pytest.raises(StoreError, match="Is a directory"): store.get(names[0])


def test_a_full_disk_under_a_copy(tmp_path, monkeypatch):
    store = Store(tmp_path / "s"); name = store.put(b"x")
    def full(*_): raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match=f"{tmp_path / 'out'}: cannot be written \\(No space"): store.copy(name, tmp_path / "out", replace=True)
    assert not (tmp_path / "out").exists()


# large objects

STREAM = """
    import resource, sys
    from pathlib import Path
    from medcrypt.vault.store import Store
    store, source, target = Store(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    store.copy(store.put(b"x" * 1000), target); store.verify(workers=1)
    before = peak()
    name = store.put_file(source); store.copy(name, target, replace=True); assert store.verify([name], workers=1); assert store.put_file(source) == name
    print(peak() - before, name)
"""


@pytest.mark.parametrize("kind", ["folder", pytest.param("s3", marks=needs_s3)])
def test_64_mib_pass_through_a_few_blocks_of_memory(request, tmp_path, kind):
    url = tmp_path / "store" if kind == "folder" else request.getfixturevalue("s3") + "/p"
    data = random.Random(1).randbytes(64 << 20); (tmp_path / "in").write_bytes(data)
    # Linux counts the memory of the process that starts another as the other's peak: a small process stands between this one and the measured one
    [out] = finish([child("import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]]).returncode)", textwrap.dedent(STREAM), url, tmp_path / "in", tmp_path / "out")])
    grown, name = out.split()
    print(f"{kind}: {int(grown) / 2**20:.1f} MiB")
    assert name == object_name(data) and (tmp_path / "out").read_bytes() == data
    assert int(grown) < {"folder": 30 << 20, "s3": 56 << 20}[kind], f"{int(grown) / 2**20:.0f} MiB for an object of 64 MiB" # S3: copies of a part on their way through the client


# S3: what servers and networks do

@pytest.fixture
def proxied(s3, server, monkeypatch):
    with s3_server.proxy(server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        yield proxy, Store(s3 + "/p")


@needs_s3
def test_every_write_is_conditional(proxied):
    proxy, store = proxied
    store.put(SMALL); store.put(LARGE)
    made = [conditional for method, path, conditional in proxy.seen if (method == "PUT" and "partNumber" not in path) or (method == "POST" and "uploadId" in path)]
    assert made == [True, True] and store._backend.conditional


@needs_s3
@pytest.mark.parametrize("conditions", ("refuse", "drop"))
def test_a_server_without_conditional_writes(proxied, tmp_path, conditions):
    proxy, store = proxied; proxy.conditions = conditions
    (tmp_path / "in").write_bytes(LARGE)
    for data in (SMALL, b"", LARGE): assert store.get(store.put(data)) == data
    assert store._backend.conditional == (conditions == "drop") and store.put_file(tmp_path / "in") == object_name(LARGE) and store.verify() and not store.verify().leftovers
    plant(store, object_path(object_name(b"new")), b"damaged")
    with pytest.raises(ObjectDamaged): store.put(b"new")
    assert seen(store, object_path(object_name(b"new"))) == b"damaged"


@needs_s3
@pytest.mark.parametrize("data", (SMALL, LARGE), ids=("small", "large"))
def test_two_conditional_writes_that_meet(proxied, data):
    proxy, store = proxied; proxy.conditions = "conflict"
    assert store.get(store.put(data)) == data and proxy.conditions == "pass" and store.verify() and not store.verify().leftovers


@needs_s3
def test_a_refusal_that_does_not_say_which_condition(proxied, monkeypatch):
    proxy, store = proxied; proxy.conditions = "bare"; name = store.put(SMALL)
    looks, there = [], Store.__contains__
    monkeypatch.setattr(Store, "__contains__", lambda self, name: (looks.append(name), len(looks) > 1 and there(self, name))[1])
    assert store.put(SMALL) == name and len(looks) == 2 and store._backend.conditional


@needs_s3
def test_large_files_on_a_server_that_refuses_conditions_are_read_again(proxied, tmp_path):
    proxy, store = proxied; proxy.conditions = "refuse"; (tmp_path / "in").write_bytes(LARGE)
    assert store.get(store.put_file(tmp_path / "in")) == LARGE and not store.verify().leftovers


@needs_s3
def test_an_upload_that_fails_in_the_middle_leaves_nothing(proxied, tmp_path):
    proxy, store = proxied; (tmp_path / "in").write_bytes(LARGE)
    proxy.fail = ["PUT", "partNumber=2", 99]
    with pytest.raises(StoreError, match=f"^{store.url}: {object_name(LARGE)} cannot be written \\(the server answered InternalError\\)$"): store.put_file(tmp_path / "in")
    assert sum("partNumber=2" in path for _, path, _ in proxy.seen) == 3, "tried three times"
    proxy.fail = None
    assert len(store) == 0 and not store.verify().leftovers and store.get(store.put_file(tmp_path / "in")) == LARGE


@needs_s3
def test_a_hiccup_is_tried_again(proxied):
    proxy, store = proxied; name = store.put(SMALL)
    proxy.fail = ["GET", name, 2]; assert store.get(name) == SMALL and proxy.fail[2] == 0
    proxy.fail = ["PUT", ".", 2]; assert store.put(b"new") in store and proxy.fail[2] == 0


@needs_s3
def test_a_server_that_dies_during_verify_is_no_damage(proxied):
    proxy, store = proxied; names = [store.put(bytes([i])) for i in range(3)]
    proxy.fail = ["GET", names[1], 99]
    with pytest.raises(StoreError, match="the server answered"): store.verify(workers=1)


def plain(error, store_url, *secrets):
    "One sentence that names the store, no backend's traceback, no secret."
    text = "".join(traceback.format_exception(error))
    assert store_url in str(error) and "\n" not in str(error) and len(str(error)) < 400, str(error)
    assert error.__cause__ is None and error.__suppress_context__ and not re.search("botocore|s3fs|aiohttp|moto", text), text
    assert not any(secret in text for secret in secrets), text
    return str(error)


def attempts(store, folder):
    (folder / "in").write_bytes(LARGE)
    return {"put": lambda: store.put(SMALL), "put large": lambda: store.put(LARGE), "put_file": lambda: store.put_file(folder / "in"), "get": lambda: store.get("0" * 64), "copy": lambda: store.copy("0" * 64, folder / "out"),
            "in": lambda: "0" * 64 in store, "names": store.names, "len": lambda: len(store), "size": store.size_bytes, "verify": store.verify, "garbage": lambda: store.garbage([]),
            "collect": lambda: store.collect(Garbage(("0" * 64,), 0, (), 0)), "delete": lambda: store.delete(["0" * 64])}


def every_attempt(store, folder, *secrets):
    errors = {}
    for what, attempt in attempts(store, folder).items():
        with pytest.raises(StoreError) as caught: attempt()
        errors[what] = plain(caught.value, store.url, *secrets)
    return errors


@needs_s3
def test_no_such_bucket(s3, tmp_path):
    store = Store(s3 + "-other/p")
    errors = every_attempt(store, tmp_path, s3_server.SECRET)
    assert all("no such bucket" in error for error in errors.values()), errors
    assert not raw().exists(s3 + "-other"), "a misspelt bucket is not made"


@needs_s3
def test_wrong_credentials(s3, server, tmp_path):
    store = Store(s3 + "/p"); store.put(b"x")
    s3_server.only_known_keys(server, True)
    try: errors = every_attempt(store, tmp_path, s3_server.SECRET, s3_server.ACCESS)
    finally: s3_server.only_known_keys(server, False)
    assert all("access is denied: check AWS_ACCESS_KEY_ID" in error for error in errors.values()), errors
    assert len(store) == 1


@needs_s3
def test_no_credentials(s3, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID"); monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    errors = every_attempt(Store(s3), tmp_path)
    assert all("no credentials: set AWS_ACCESS_KEY_ID" in error for error in errors.values()), errors


@needs_s3
def test_a_server_that_is_gone_is_told_at_once(s3, monkeypatch, tmp_path):
    with socket.socket() as free: free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    store, started = Store(s3), time.monotonic()
    with pytest.raises(StoreError) as caught: store.put(SMALL)
    assert "cannot be reached" in plain(caught.value, s3, s3_server.SECRET) and time.monotonic() - started < 10
    fast = Store(s3, config_kwargs={"retries": {"total_max_attempts": 1}}) # an option overrides the default
    errors = every_attempt(fast, tmp_path, s3_server.SECRET)
    assert all("cannot be reached" in error for error in errors.values()), errors


@needs_s3
def test_a_server_that_never_answers_is_told_in_seconds(s3, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0)); silent.listen(64)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(StoreError) as caught: Store(s3).names()
        default_s = time.monotonic() - started; started = time.monotonic()
        with pytest.raises(StoreError): Store(s3, config_kwargs={"read_timeout": 1, "retries": {"total_max_attempts": 1}}).names()
        assert "does not answer in time" in plain(caught.value, s3) and default_s < 17 and time.monotonic() - started < 4


@needs_s3
def test_the_endpoint_can_be_an_option(s3, server, monkeypatch):
    Store(s3).put(SMALL); monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert Store(s3, endpoint_url=server).names() == [object_name(SMALL)] and Store(s3, client_kwargs={"endpoint_url": server}).names() == [object_name(SMALL)]


@needs_s3
@pytest.mark.parametrize("variables,options,word", [
    ({"AWS_PROFILE": "nobody"}, {}, "profile"), ({}, {"endpoint_url": "storage.local:9000"}, "endpoint_url"), ({"AWS_ENDPOINT_URL": "nonsense"}, {}, "AWS_ENDPOINT_URL"),
    ({"AWS_ENDPOINT_URL": "http://me:se/cr3t@host"}, {}, "AWS_ENDPOINT_URL"), ({}, {"client_kwargs": {"endpoint_url": "http://me:se/cr3t@host"}}, "client_kwargs"), ({}, {"no_such_option": 1}, "no_such_option")])
def test_a_configuration_that_cannot_be_used(s3, monkeypatch, variables, options, word):
    for name, value in variables.items(): monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=word) as caught: Store(s3, **options)
    assert "se/cr3t" not in "".join(traceback.format_exception(caught.value)) and "\n" not in str(caught.value)


@needs_s3
@pytest.mark.parametrize("wrong", ("s3://", "s3:///", "s3://No_Bucket at all/p"))
def test_urls_without_a_bucket(s3, wrong):
    with pytest.raises(StoreError, match=re.escape(wrong)) as caught: Store(wrong).names()
    assert "\n" not in str(caught.value)


@needs_s3
def test_listings_are_never_old(s3):
    one, other = Store(s3 + "/p"), Store(s3 + "/p")
    assert one.names() == other.names() == []
    name = one.put(SMALL); assert other.names() == [name] and name in other
    other.delete([name]); assert one.names() == [] and name not in one


@needs_s3
def test_a_bucket_itself_can_be_a_store(s3):
    store = Store(s3); name = store.put(SMALL); store.put(LARGE)
    assert store.names() == sorted([name, object_name(LARGE)]) and store.verify() and not store.verify().foreign


@needs_s3
def test_only_uploads_of_objects_below_the_prefix_are_leftovers(s3):
    fs, bucket, name = raw(), s3.removeprefix("s3://"), object_name(b"x")
    keys = [f"p/{object_path(name)}", f"p/{name}", "p/notes", f"p2/{object_path(name)}", object_path(name)]
    for key in keys: fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    store = Store(s3 + "/p"); found = store.verify().leftovers
    assert len(found) == 1 and found[0].startswith(object_path(name) + " upload ")
    assert store.collect(store.garbage([])).leftovers == found and not store.verify().leftovers # one without parts, begun long ago
    assert sorted(upload["Key"] for upload in fs.list_multipart_uploads(bucket)) == sorted(keys[1:])


# S3 pages that no test server sends

class Paged:
    "Answers like a server that shows one upload and one part at a time."
    protocol, calls = ("s3",), []
    def __init__(self, ages): self.ages = ages
    def call_s3(self, method, **given):
        from datetime import datetime, timezone
        self.calls.append((method, given)); at = lambda time_s: datetime.fromtimestamp(time_s, timezone.utc)
        if method == "list_multipart_uploads":
            number = int(given.get("KeyMarker", -1)) + 1
            return {"IsTruncated": number < 2, "NextKeyMarker": str(number), "NextUploadIdMarker": "u", "Uploads": [{"Key": f"pre/{object_path(object_name(bytes([number])))}", "UploadId": f"u{number}", "Initiated": at(1000)}]}
        if method == "list_parts":
            number = int(given.get("PartNumberMarker", 0)) + 1
            return {"IsTruncated": number < 3, "NextPartNumberMarker": number, "Parts": [{"Size": 10, "LastModified": at(self.ages[number - 1])}]}
        assert method == "abort_multipart_upload"; return {}


def test_all_pages_of_uploads_and_parts_are_read():
    fs = Paged([2000, 9000, 3000]); place = Objects(fs, "bucket/pre")
    found = place.leftovers()
    assert len(found) == 3 and all((entry.size_bytes, entry.modified_s) == (30, 9000) for entry in found.values()), "as old as the youngest part"
    label = next(label for label in found if label.endswith("u1")); place.remove_leftover(label)
    assert [given["UploadId"] for method, given in fs.calls if method == "abort_multipart_upload"] == ["u1"] and all(given["Bucket"] == "bucket" for _, given in fs.calls)


# secrets

@pytest.mark.parametrize("wrong", ("s3://AKIA:s3cr3t@bucket/prefix", "s3://AKIA:s3/cr3t@bucket", "s3://s3cr3t@bucket", "s3a://AKIA:s3cr3t@bucket", "https://user:s3cr3t@host/x", "sftp://user:s3/cr3t@host/x", "simplecache::s3://AKIA:s3cr3t@bucket",
                                   "https://host/x?X-Amz-Signature=s3cr3t", "s3://bucket/x#s3cr3t"))
def test_urls_with_secrets_are_refused_without_repeating_them(wrong):
    with pytest.raises(StoreError) as caught: Store(wrong)
    assert not re.search("s3/?cr3t|AKIA", str(caught.value)) and re.search("user or password|query", str(caught.value)) and wrong.partition("://")[0] in str(caught.value)


@pytest.mark.parametrize("options", ({"key": "AKIA", "secret": "s3cr3t"}, {"token": "s3cr3t"}, {"username": "AKIA", "password": "s3cr3t"}, {"client_kwargs": {"aws_secret_access_key": "s3cr3t"}}, {"endpoint_url": "https://me:s3cr3t@host"}))
def test_credentials_are_no_options(options):
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID") as caught: Store("s3://bucket", **options)
    assert not re.search("s3cr3t|AKIA", str(caught.value))


def test_folders_and_memory_may_have_any_name(tmp_path):
    for url in (str(tmp_path / "a:b@c?d#e"), f"file://{tmp_path}/me@home", f"memory://x{random.random()}?y"):
        store = Store(url); assert store.get(store.put(SMALL)) == SMALL and len(Store(url)) == 1


def test_nothing_of_what_a_server_says_is_repeated(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    said = OSError(5, "the key s3cr3t is wrong"); said.__cause__ = type("Answer", (Exception,), {"response": {"Error": {"Code": "Odd<Code>"}}})()
    assert backend.reason(said) == "the server answered OddCode"
    assert "s3cr3t" not in backend.reason(ValueError("bad http://u:s3cr3t@host and s3cr3t")) and backend.reason(ValueError("a\n b")) == "a b"


def test_s3_without_its_package():
    [out] = finish([child("""
        import sys; sys.modules["s3fs"] = None
        from medcrypt.vault.store import Store, StoreError
        try: Store("s3://bucket/prefix")
        except StoreError as error: print(error)
        print(sorted({"botocore", "aiohttp", "tensorflow"} & set(sys.modules)))
    """)])
    assert "s3://bucket/prefix: cannot be opened as a store: install s3fs" in out and "medcrypt[s3]" in out and out.endswith("[]\n")


@pytest.mark.parametrize("url", ("s3:/bucket/vault", "s3:bucket", "memory:/x", "file:/tmp/x"))
def test_a_url_with_too_few_slashes_is_no_folder(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="two slashes"): Store(url)
    assert not list(tmp_path.iterdir()) and Store(f"./{url}").put(b"x")
