"Downloads against a server on loopback: cache, resumption, checksums, archives."
import hashlib, io, signal, subprocess, sys, tarfile, time, zipfile
from pathlib import Path

import numpy as np
import pytest

from loopback import serve
from medcrypt.imaging import fetch as module
from medcrypt.imaging.fetch import CATALOGUE, Collection, Item, fetch
from medcrypt.imaging.tables import DataError
from medcrypt.imaging.unpack import unpack


def tar_of(members):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if data is not None: info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if data is not None else None)
    return held.getvalue()


DATA = np.random.default_rng(0).bytes(400_000)
IMAGES = tar_of([(f"images/0000000{i}_000.png", np.random.default_rng(i).bytes(30_000)) for i in range(4)])


@pytest.fixture
def small(monkeypatch):
    "A catalogue of a file with, one without a published checksum, and an archive."
    def collection(data=DATA, images=IMAGES):
        items = (Item("a.npz", "http://127.0.0.1:9/none", hashlib.md5(DATA).hexdigest(), None), Item("list.txt", "http://127.0.0.1:9/none", None, None), Item("images_001.tar.gz", "http://127.0.0.1:9/none", hashlib.md5(images).hexdigest(), len(images), "images_001"))
        monkeypatch.setitem(CATALOGUE, "small", Collection("small", "free", "nobody", "small", {None: items}))
        return {"a.npz": data, "list.txt": b"one\ntwo\n", "images_001.tar.gz": images}
    return collection


def get(folder, server): return fetch("small", folder, mirror=server.address, pause_s=.01)


def test_everything_arrives_and_nobody_is_asked_twice(small, tmp_path):
    with serve(small()) as server:
        folder = get(tmp_path / "d", server)
        assert (folder / "a.npz").read_bytes() == DATA and len(list((folder / "images_001" / "images").iterdir())) == 4 and not (folder / "images_001.tar.gz").exists()
        asked = len(server.requests)
        get(tmp_path / "d", server)
        assert asked == 3 == len(server.requests) and not (folder / ".fetching").exists()


def test_a_cut_connection_goes_on_where_it_stopped(small, tmp_path):
    with serve(small()) as server:
        server.cut_after = [150_000, 100_000]
        get(tmp_path / "d", server)
        starts = [int(r.strip("bytes=-")) for name, r in server.requests if name == "a.npz" and r]
        assert (tmp_path / "d" / "a.npz").read_bytes() == DATA and len(starts) == 2 and 150_000 - (1 << 14) <= starts[0] <= 150_000 and starts[0] + 100_000 - (1 << 14) <= starts[1] <= 250_000
        assert server.served_bytes <= sum(map(len, server.files.values())) + 2 * (1 << 14)


@pytest.mark.parametrize("what", ["ranges", "etags"])
def test_a_server_that_cannot_go_on_begins_anew(small, tmp_path, what):
    with serve(small()) as server:
        setattr(server, what, False); server.cut_after = [150_000]
        get(tmp_path / "d", server)
        assert (tmp_path / "d" / "a.npz").read_bytes() == DATA


def test_a_file_that_changed_meanwhile_is_begun_anew(small, tmp_path):
    with serve(small()) as server:
        server.files["a.npz"] = b"x" * len(DATA); server.cut_after = [150_000]; server.statuses = [200, 404]
        with pytest.raises(DataError, match="404.*14[0-9]{4} bytes are kept"): get(tmp_path / "d", server)
        server.files["a.npz"] = DATA
        get(tmp_path / "d", server)
        assert (tmp_path / "d" / "a.npz").read_bytes() == DATA


def test_a_part_longer_than_the_file_is_begun_anew(small, tmp_path):
    with serve(small()) as server:
        server.cut_after = [150_000]; server.statuses = [200, 404]
        with pytest.raises(DataError): get(tmp_path / "d", server)
        with open(tmp_path / "d" / ".fetching" / "a.npz.part", "ab") as part: part.write(bytes(len(DATA)))
        get(tmp_path / "d", server)
        assert (tmp_path / "d" / "a.npz").read_bytes() == DATA


def test_wrong_content_is_not_kept(small, tmp_path):
    with serve(small(data=DATA[:-1] + b"?")) as server:
        with pytest.raises(DataError, match="a.npz.*not the published file") as error: get(tmp_path / "d", server)
        assert hashlib.md5(DATA).hexdigest() in str(error.value) and hashlib.md5(DATA[:-1] + b"?").hexdigest() in str(error.value)
        assert not [p for p in (tmp_path / "d").rglob("*") if p.is_file() and p.name != ".lock"]
        server.files["a.npz"] = DATA
        get(tmp_path / "d", server)


def test_without_a_published_checksum_a_web_page_is_noticed(small, tmp_path):
    with serve(small()) as server:
        server.files["list.txt"] = b"\n<!DOCTYPE html><title>Box</title>"
        with pytest.raises(DataError, match="list.txt.*web page"): get(tmp_path / "d", server)
        assert not (tmp_path / "d" / "list.txt").exists()


def test_without_a_published_checksum_the_first_one_is_kept(small, tmp_path):
    with serve(small()) as server:
        get(tmp_path / "d", server)
        (tmp_path / "d" / "list.txt").unlink(); server.files["list.txt"] = b"something else\n"
        with pytest.raises(DataError, match="list.txt.*not the file of the first time"): get(tmp_path / "d", server)
        assert not (tmp_path / "d" / "list.txt").exists()


def test_what_was_there_is_never_replaced(small, tmp_path):
    (tmp_path / "d").mkdir(); (tmp_path / "d" / "a.npz").write_bytes(b"mine")
    with serve(small()) as server:
        with pytest.raises(DataError, match="a.npz: is there"): get(tmp_path / "d", server)
        assert (tmp_path / "d" / "a.npz").read_bytes() == b"mine" and not server.requests
        (tmp_path / "d" / "a.npz").write_bytes(DATA); (tmp_path / "d" / "images_001").mkdir()
        with pytest.raises(DataError, match="images_001: is there"): get(tmp_path / "d", server)
        assert "a.npz" not in {name for name, _ in server.requests}


def test_servers_that_answer_badly(small, tmp_path):
    with serve(small()) as server:
        server.statuses = [503, 429, 200]
        get(tmp_path / "d", server)
        assert [name for name, _ in server.requests][:3] == ["a.npz"] * 3
    with serve({}) as server:
        small()
        with pytest.raises(DataError, match=f"a.npz: cannot be downloaded from {server.address}/a.npz: the server answers 404"): get(tmp_path / "e", server)
        assert len(server.requests) == 1
        server.statuses = [500] * 9
        with pytest.raises(DataError, match="500"): get(tmp_path / "e", server)
        assert len(server.requests) == 1 + module.ATTEMPTS
    with pytest.raises(DataError, match="no connection"): get(tmp_path / "e", server)


def test_a_damaged_archive_leaves_nothing_that_looks_whole(small, tmp_path):
    half = IMAGES[:len(IMAGES) // 2]
    with serve(small(images=half)) as server:
        with pytest.raises(DataError, match="damaged or cut short"): get(tmp_path / "d", server)
        assert not (tmp_path / "d" / "images_001").exists() and not list((tmp_path / "d").glob(".images*unpacking*"))


def test_killed_in_the_middle_of_a_download_and_started_again(small, tmp_path):
    code = ("import sys\nfrom medcrypt.imaging import fetch as m\nm.CATALOGUE['small'] = m.Collection('', '', '', 'small', {None: (m.Item('a.npz', '', sys.argv[3], None),)})\n"
            "m.fetch('small', sys.argv[1], mirror=sys.argv[2])\n")
    with serve(small()) as server:
        server.pause_s = .1
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "d"), server.address, hashlib.md5(DATA).hexdigest()])
        until = time.time() + 60
        while time.time() < until and not any(p.stat().st_size for p in (tmp_path / "d" / ".fetching").glob("a.npz.part")): time.sleep(.02)
        process.send_signal(signal.SIGKILL); process.wait(); server.pause_s = 0
        kept = (tmp_path / "d" / ".fetching" / "a.npz.part").stat().st_size
        assert 0 < kept < len(DATA) and not (tmp_path / "d" / "a.npz").exists()
        get(tmp_path / "d", server)
        assert (tmp_path / "d" / "a.npz").read_bytes() == DATA and ("a.npz", f"bytes={kept}-") in server.requests


def test_full_disks_are_said_before(small, tmp_path, monkeypatch):
    import shutil
    small()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 10))
    with pytest.raises(DataError, match="GB are needed"): fetch("small", tmp_path / "d", mirror="http://127.0.0.1:9")


def test_the_mirror_may_come_from_the_environment(small, tmp_path, monkeypatch):
    with serve(small()) as server:
        monkeypatch.setenv("MEDCRYPT_MIRROR", server.address + "/"); monkeypatch.setenv("MEDCRYPT_DATA", str(tmp_path / "home"))
        assert fetch("small", pause_s=.01) == tmp_path / "home" / "small" and len(server.requests) == 3


def test_what_was_changed_after_it_was_fetched_is_never_replaced(small, tmp_path):
    with serve(small()) as server:
        get(tmp_path / "d", server); asked = len(server.requests)
        (tmp_path / "d" / "list.txt").write_bytes(b"one\n")
        with pytest.raises(DataError, match="list.txt: was changed after it was fetched"): get(tmp_path / "d", server)
        assert (tmp_path / "d" / "list.txt").read_bytes() == b"one\n" and len(server.requests) == asked


def test_an_archive_that_somebody_brought_is_unpacked_and_stays(small, tmp_path):
    (tmp_path / "d").mkdir(); (tmp_path / "d" / "images_001.tar.gz").write_bytes(IMAGES)
    with serve(small()) as server:
        get(tmp_path / "d", server)
        assert "images_001.tar.gz" not in {name for name, _ in server.requests} and (tmp_path / "d" / "images_001.tar.gz").read_bytes() == IMAGES and len(list((tmp_path / "d" / "images_001" / "images").iterdir())) == 4
        import shutil
        shutil.rmtree(tmp_path / "d" / "images_001"); get(tmp_path / "d", server)
        assert (tmp_path / "d" / "images_001.tar.gz").exists() and (tmp_path / "d" / "images_001").is_dir()
        (tmp_path / "e").mkdir(); (tmp_path / "e" / "images_001.tar.gz").write_bytes(IMAGES[:-1])
        (tmp_path / "f" / ".fetching").mkdir(parents=True); (tmp_path / "f" / ".fetching" / "images_001.tar.gz.part").write_bytes(b"x"); (tmp_path / "f" / ".fetching" / "images_001.tar.gz.part.json").write_text("{}")
        (tmp_path / "f" / "images_001.tar.gz").write_bytes(IMAGES); get(tmp_path / "f", server)      # brought after a download that was given up
        assert (tmp_path / "f" / "images_001.tar.gz").exists() and not (tmp_path / "f" / ".fetching").exists()
        with pytest.raises(DataError, match=f"images_001.tar.gz: is there.*{hashlib.md5(IMAGES[:-1]).hexdigest()}.*{hashlib.md5(IMAGES).hexdigest()}"): get(tmp_path / "e", server)


def test_a_download_that_advances_is_not_given_up(tmp_path, monkeypatch):
    data = np.random.default_rng(3).bytes(14 << 20)
    monkeypatch.setitem(CATALOGUE, "small", Collection("", "free", "nobody", "small", {None: (Item("a.npz", "", hashlib.md5(data).hexdigest(), None),)}))
    with serve({"a.npz": data}) as server:
        server.cut_after = [1_500_000] * 8
        get(tmp_path / "d", server)
        assert (tmp_path / "d" / "a.npz").read_bytes() == data and len(server.requests) == 9 > module.ATTEMPTS and server.served_bytes < len(data) + 9 * (1 << 14)
        server.cut_after = [20_000] * 99
        with pytest.raises(DataError, match="cut the download short.*are kept"): get(tmp_path / "e", server)
        assert len(server.requests) == 9 + module.ATTEMPTS


def test_a_server_that_asks_for_patience_gets_some_of_it(small, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    with serve(small()) as server:
        server.statuses, server.retry_after = [429, 503], "7"
        get(tmp_path / "d", server)
        server.statuses, server.retry_after = [429], "86400"
        get(tmp_path / "e", server)
    assert waits == [7, 7, module.LONGEST_PAUSE_S]


def test_space_is_looked_at_when_the_server_says_how_much(small, tmp_path, monkeypatch):
    import shutil
    with serve(small()) as server:
        monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 10 if ".fetching" in str(path) else 1 << 40))
        with pytest.raises(DataError, match=f"a.npz needs {len(DATA)} bytes more and 10 are free"): get(tmp_path / "d", server)
        assert len(server.requests) == 1


SMALL = """
import hashlib, os, signal, sys, resource
from pathlib import Path
from medcrypt.imaging import fetch as m
folder, mirror, md5, archive_md5 = sys.argv[1:5]
m.CATALOGUE["small"] = m.Collection("", "", "", "small", {None: (m.Item("a.npz", "", md5, None), m.Item("images_001.tar.gz", "", archive_md5, None, "images_001"))})
def die(*given, **named): os.kill(os.getpid(), signal.SIGKILL)
"""
RUN = "\ntry: m.fetch('small', folder, mirror=mirror, pause_s=.01)\nexcept m.DataError as error: print(error); sys.exit(3)\n"

def in_process(how, folder, server):
    return subprocess.run([sys.executable, "-c", SMALL + how + RUN, str(folder), server.address, hashlib.md5(DATA).hexdigest(), hashlib.md5(IMAGES).hexdigest()], capture_output=True, text=True, timeout=60)


KILLS = {"while the checksum is taken": "import pooch.core; pooch.core.hash_matches = die", "before the file has its name": "os.rename = die", "before the receipt": "kept = m.write_json\nm.write_json = lambda path, value: kept(path, value) if '.part' in str(path) else die()",
         "while unpacking": "from medcrypt.imaging import unpack as u\nu.shutil.copyfileobj = die", "after unpacking, before the receipt": "kept = m.write_json\nm.write_json = lambda path, value: die() if value.get('files') else kept(path, value)",
         "before the archive's receipt": "kept = m.write_json\nm.write_json = lambda path, value: die() if path.name == 'images_001.tar.gz.json' else kept(path, value)", "before the last receipt": "kept = m.write_json\nm.write_json = lambda path, value: die() if value.get('whole') and value.get('files') else kept(path, value)",
         "before the archive goes": "kept = Path.unlink\nPath.unlink = lambda self, *a, **k: die() if self.name == 'images_001.tar.gz' else kept(self, *a, **k)"}

@pytest.mark.parametrize("when", KILLS)
def test_killed_at_any_point_and_started_again(tmp_path, when):
    with serve({"a.npz": DATA, "images_001.tar.gz": IMAGES}) as server:
        assert in_process(KILLS[when], tmp_path / "d", server).returncode == -signal.SIGKILL
        assert not (tmp_path / "d" / "images_001").exists() or len(list((tmp_path / "d" / "images_001" / "images").iterdir())) == 4
        done = in_process("", tmp_path / "d", server)
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.served_bytes == len(DATA) + len(IMAGES)       # nothing came twice
        assert (tmp_path / "d" / "a.npz").read_bytes() == DATA and len(list((tmp_path / "d" / "images_001" / "images").iterdir())) == 4
        asked = len(server.requests)
        assert in_process("", tmp_path / "d", server).returncode == 0 and len(server.requests) == asked
        assert {p.name for p in (tmp_path / "d").iterdir()} == {"a.npz", "images_001", ".receipts"}


def test_a_full_disk_is_said_and_what_came_is_kept(tmp_path):
    with serve({"a.npz": DATA, "images_001.tar.gz": IMAGES}) as server:
        done = in_process("resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))", tmp_path / "d", server)
        assert done.returncode == 3 and "cannot be written (File too large)" in done.stdout and not done.stderr, done.stdout + done.stderr
        assert in_process("", tmp_path / "d", server).returncode == 0 and server.served_bytes < len(DATA) + len(IMAGES) + 300_000


def test_only_one_process_fetches_into_a_folder(small, tmp_path):
    with serve(small()) as server:
        with module._alone(tmp_path / "d"):
            done = in_process("", tmp_path / "d", server)
            assert done.returncode == 3 and "another process is fetching" in done.stdout and not server.requests
        get(tmp_path / "d", server)


def test_folders_that_cannot_be_used(small, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with serve(small()) as server:
        for folder in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(DataError, match="file.*cannot be written"): get(folder, server)


def test_without_the_network(small, tmp_path):
    with serve(small()) as server:
        with pytest.raises(DataError, match="a.npz: is not here"): fetch("small", tmp_path / "d", mirror=server.address, offline=True)
        get(tmp_path / "d", server); asked = len(server.requests)
        fetch("small", tmp_path / "d", offline=True)
        assert len(server.requests) == asked
    for mirror in ("ftp://example.org", "somewhere", "file:" + "///tmp"):
        with pytest.raises(DataError, match="--mirror .*http"): fetch("small", tmp_path / "d", mirror=mirror)


def test_a_size_that_one_of_two_does_not_have_is_not_passed_over(tmp_path):
    with pytest.raises(DataError, match="--size 224: nodulemnist3d is published in 28, 64 pixels"): fetch("medmnist", tmp_path / "d", size=224, mirror="http://127.0.0.1:9")
    assert not (tmp_path / "d").exists()


def test_sizes_and_names_that_are_not_published():
    for call, said in ((("chestmnist", 100), "28, 64, 128, 224"), (("nodulemnist3d", 224), "28, 64"), (("nih", 64), "one size"), (("cifar", None), "medmnist")):
        with pytest.raises(DataError, match=said): fetch(call[0], "/nonexistent", size=call[1])


def test_the_catalogue_is_complete():
    for name, entry in CATALOGUE.items():
        assert entry.licence and entry.citation
        for items in entry.items.values():
            for item in items: assert item.url.startswith("https://") and (item.md5 is None or len(item.md5) == 32)
    archives = [item for item in CATALOGUE["nih"].items[None] if item.unpack]
    assert len(archives) == 12 and len({item.url for item in archives}) == 12 == len({item.md5 for item in archives}) and all(item.size_bytes > 1 << 30 for item in archives)


# archives

def link(kind, target):
    info = tarfile.TarInfo("images/link"); info.type, info.linkname = kind, target
    return info


def special(kind):
    info = tarfile.TarInfo("images/device"); info.type = kind
    return info


EVIL = [("../evil.png", b"x"), ("images/../../evil.png", b"x"), ("/tmp/evil.png", b"x"), ("C:\\evil.png", b"x"), ("..\\evil.png", b"x"), (link(tarfile.SYMTYPE, "/etc"), None), (link(tarfile.SYMTYPE, ".."), None),
        (link(tarfile.LNKTYPE, "/etc/passwd"), None), (special(tarfile.CHRTYPE), None), (special(tarfile.FIFOTYPE), None)]


@pytest.mark.parametrize("member", EVIL, ids=lambda m: m[0] if isinstance(m[0], str) else m[0].name + str(m[0].type))
def test_tar_members_stay_inside(tmp_path, member):
    (tmp_path / "in").mkdir(); archive = tmp_path / "in" / "x.tar.gz"
    archive.write_bytes(tar_of([("images/good.png", b"good"), member]))
    before = {p for p in tmp_path.rglob("*")}
    with pytest.raises(DataError, match="x.tar.gz.*nothing of this archive was kept"): unpack(archive, tmp_path / "in" / "out")
    assert {p for p in tmp_path.rglob("*")} == before and not Path("/tmp/evil.png").exists()


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "..\\evil.png"])
def test_zip_members_stay_inside(tmp_path, name):
    (tmp_path / "in").mkdir(); archive = tmp_path / "in" / "x.zip"
    with zipfile.ZipFile(archive, "w") as held: held.writestr("good.png", b"good"); held.writestr(name, b"x")
    before = {p for p in tmp_path.rglob("*")}
    with pytest.raises(DataError, match="outside the folder"): unpack(archive, tmp_path / "in" / "out")
    assert {p for p in tmp_path.rglob("*")} == before


def test_zip_links_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as held:
        info = zipfile.ZipInfo("link"); info.external_attr = 0o120777 << 16
        held.writestr(info, "/etc")
    with pytest.raises(DataError, match="link or a device"): unpack(tmp_path / "x.zip", tmp_path / "out")


def test_bombs_are_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("medcrypt.imaging.unpack.FREE_BYTES", 1 << 20)
    monkeypatch.setattr("medcrypt.imaging.unpack.MAX_RATIO", 10)
    (tmp_path / "x.tar.gz").write_bytes(tar_of([("zeros", bytes(50 << 20))]))
    with pytest.raises(DataError, match="unpacks to more"): unpack(tmp_path / "x.tar.gz", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as held: held.writestr("zeros", bytes(50 << 20))
    with pytest.raises(DataError, match="unpacks to more"): unpack(tmp_path / "x.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_every_cut_of_an_archive_is_noticed(tmp_path):
    whole_zip = io.BytesIO()
    with zipfile.ZipFile(whole_zip, "w", zipfile.ZIP_DEFLATED) as held: [held.writestr(f"{i}", np.random.default_rng(i).bytes(2000)) for i in range(3)]
    for data in (tar_of([(f"{i}", np.random.default_rng(i).bytes(2000)) for i in range(3)]), whole_zip.getvalue()):
        for cut in range(0, len(data) - 40, 97):
            (tmp_path / "x").write_bytes(data[:cut])
            with pytest.raises(DataError, match="x: "): unpack(tmp_path / "x", tmp_path / "out")
            assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_unpacked_over(tmp_path):
    (tmp_path / "out").mkdir(); (tmp_path / "x.tar.gz").write_bytes(IMAGES)
    with pytest.raises(DataError, match="exists"): unpack(tmp_path / "x.tar.gz", tmp_path / "out")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_damaged_archives_cause_nothing_but_a_data_error(tmp_path, mode):
    held, draw = io.BytesIO(), np.random.default_rng(5)
    if mode == "zip":
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive: [archive.writestr(f"images/{i}", draw.bytes(500)) for i in range(3)]
    else:
        with tarfile.open(fileobj=held, mode=mode) as archive:
            for i in range(3): info = tarfile.TarInfo(f"images/{i}"); info.size = 500; archive.addfile(info, io.BytesIO(draw.bytes(500)))
    refused = 0
    for _ in range(120):
        data = bytearray(held.getvalue())
        for at in draw.integers(0, len(data), 3): data[at] = draw.integers(256)
        (tmp_path / "x").write_bytes(data)
        try: unpack(tmp_path / "x", tmp_path / "out"); (tmp_path / "out").rename(tmp_path / f"out{_}")
        except DataError: refused += 1; assert not (tmp_path / "out").exists()
    assert refused > (0 if mode == "w" else 60) and not list(tmp_path.glob(".out*"))
