"""Fetching data sets: a real HTTP server on this machine plays the repositories, and breaks as they do."""

import base64
import errno
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_head
from tumorlens.cli import main
from tumorlens.cli.fetch import fetch_into
from tumorlens.data.fetch import BRISC, DATA_SETS, FIGSHARE, KAGGLE, RemoteFile, download, list_files, transfer, web
from tumorlens.data.fetch.listing import check_name
from tumorlens.errors import FetchError

NO_WAITS = (0.0, 0.0, 0.0)
DATA = np.random.default_rng(0).bytes(1_500_000)
FIGSHARE_PATH = "/v2/articles/1512427/versions/5"


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@dataclass
class Served:
    """A file of the server, and how it misbehaves."""

    data: bytes
    headers: dict[str, str] = field(default_factory=dict)
    etag: str = '"one"'
    ranges: bool = True
    honours_if_range: bool = True
    drop_at: list[int] = field(default_factory=list)  # each answer breaks off after so many bytes, then none does
    statuses: list[int] = field(default_factory=list)  # answered first
    redirect: str = ""


@dataclass
class Shop:
    """The server: what it has, and what was asked of it."""

    files: dict[str, Served] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    url: str = ""

    def remote(self, name: str = "set.zip", **changes: Any) -> RemoteFile:
        data = self.files[f"/{name}"].data
        return replace(RemoteFile(name, f"{self.url}/{name}", len(data), md5(data), "https://page.test"), **changes)

    def ranges(self) -> list[str | None]:
        return [headers.get("range") for _, headers in self.asked]


class Handler(BaseHTTPRequestHandler):
    shop: Shop

    def do_GET(self) -> None:
        asked = {name.lower(): value for name, value in self.headers.items()}
        self.shop.asked.append((self.path, asked))
        file = self.shop.files.get(self.path)
        status = file.statuses.pop(0) if file and file.statuses else 200
        if file is None or status != 200:
            self.head(404 if file is None else status, {"Content-Length": "0", "Retry-After": "0"})
        elif file.redirect:
            self.head(302, {"Location": file.redirect, "Content-Length": "0"})
        else:
            self.give(file, self.start_of(file, asked))

    def start_of(self, file: Served, asked: dict[str, str]) -> int:
        same = not file.honours_if_range or asked.get("if-range", file.etag) == file.etag
        return int(asked["range"][6:-1]) if file.ranges and "range" in asked and same else 0

    def give(self, file: Served, start: int) -> None:
        size = len(file.data)
        if start >= size and start:
            self.head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        headers = {"Content-Length": str(size - start), "ETag": file.etag, **file.headers}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self.head(206 if start else 200, {name: value for name, value in headers.items() if value})
        body = file.data[start:]
        if file.drop_at:
            body = body[: file.drop_at.pop(0)]
            self.close_connection = True
        self.shop.sent += len(body)
        with suppress(OSError):  # who asks only for headers closes early
            self.wfile.write(body)

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    shop = Shop({"/set.zip": Served(DATA)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ShopHandler", (Handler,), {"shop": shop}))
    shop.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield shop
    server.shutdown()
    server.server_close()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_whole_file_and_not_twice(shop: Shop, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = download(shop.remote(), tmp_path / "new" / "folder", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == DATA
    assert names(path.parent) == {"set.zip"}
    assert seen[0] == (0, len(DATA)) and seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)
    assert shop.asked[0][1]["user-agent"].startswith("tumorlens/")
    assert download(shop.remote(), path.parent) == path
    assert len(shop.asked) == 1


def test_a_broken_connection_is_gone_on_from(shop: Shop, tmp_path: Path) -> None:
    # More breaks than tries: a try that brought something does not count.
    shop.files["/set.zip"].drop_at = [400_000, 1, 300_000, 200_000, 100_000]
    assert download(shop.remote(), tmp_path, waits=NO_WAITS).read_bytes() == DATA
    assert shop.ranges()[0] is None
    assert shop.ranges()[1:3] == ["bytes=400000-", "bytes=400001-"]
    assert shop.asked[1][1]["if-range"] == '"one"'
    assert shop.sent == len(DATA)


def test_tries_end_and_the_next_call_goes_on(shop: Shop, tmp_path: Path) -> None:
    shop.files["/set.zip"].drop_at = [500_000, 0, 0, 0, 0]
    with pytest.raises(FetchError, match=r"broke off at 500000 of 1500000 bytes, after 4 tries.*gone on from"):
        download(shop.remote(), tmp_path, waits=NO_WAITS)
    assert names(tmp_path) == {"set.zip.part", "set.zip.part.json"}
    shop.files["/set.zip"].drop_at = []
    assert download(shop.remote(), tmp_path).read_bytes() == DATA
    assert shop.ranges()[-1] == "bytes=500000-"
    assert shop.sent == len(DATA)
    assert names(tmp_path) == {"set.zip"}


def test_ctrl_c_keeps_the_part(shop: Shop, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > 200_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(shop.remote(), tmp_path, interrupt)
    kept = (tmp_path / "set.zip.part").stat().st_size
    assert 200_000 < kept < len(DATA)
    assert download(shop.remote(), tmp_path).read_bytes() == DATA
    assert shop.ranges() == [None, f"bytes={kept}-"]


def test_a_complete_part_is_only_checked(shop: Shop, tmp_path: Path) -> None:
    shop.files["/set.zip"].drop_at = [500_000]
    with pytest.raises(FetchError):
        download(shop.remote(), tmp_path, waits=())
    (tmp_path / "set.zip.part").write_bytes(DATA)
    assert download(shop.remote(), tmp_path).read_bytes() == DATA
    assert len(shop.asked) == 1


@pytest.mark.parametrize("extra", [b"", b"too much"])
def test_nothing_left_where_the_size_is_not_known(shop: Shop, tmp_path: Path, extra: bytes) -> None:
    """416: the part is complete where the server's size says so, and another file otherwise."""
    remote = shop.remote(size=None)
    shop.files["/set.zip"].drop_at = [500_000]
    with pytest.raises(FetchError):
        download(remote, tmp_path, waits=())
    (tmp_path / "set.zip.part").write_bytes(DATA + extra)
    assert download(remote, tmp_path, waits=NO_WAITS).read_bytes() == DATA
    assert shop.ranges()[1:] == ([f"bytes={len(DATA)}-"] if not extra else [f"bytes={len(DATA) + len(extra)}-", None])


def test_a_server_without_ranges_starts_again(shop: Shop, tmp_path: Path) -> None:
    shop.files["/set.zip"].ranges = False
    shop.files["/set.zip"].drop_at = [700_000, 600_000]
    assert download(shop.remote(), tmp_path, waits=NO_WAITS).read_bytes() == DATA
    assert shop.sent == len(DATA) + 1_300_000
    shop.files["/set.zip"].drop_at = [700_000] * 9  # without ranges this gets nowhere, and ends
    (tmp_path / "set.zip").unlink()
    with pytest.raises(FetchError, match="after 4 tries"):
        download(shop.remote(), tmp_path, waits=NO_WAITS)


@pytest.mark.parametrize("honours", [True, False])
def test_a_file_that_changed_in_between_is_not_mixed(shop: Shop, tmp_path: Path, honours: bool) -> None:
    file = shop.files["/set.zip"]
    file.drop_at = [500_000]
    with pytest.raises(FetchError):
        download(shop.remote(md5=None), tmp_path, waits=())
    file.data, file.etag, file.honours_if_range = DATA[::-1], '"two"', honours
    assert download(shop.remote(md5=None), tmp_path, waits=NO_WAITS).read_bytes() == DATA[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_etag_and_checksum_nothing_is_gone_on_from(shop: Shop, tmp_path: Path, etag: str) -> None:
    shop.files["/set.zip"].etag = etag
    shop.files["/set.zip"].drop_at = [500_000]
    assert download(shop.remote(md5=None), tmp_path, waits=NO_WAITS).read_bytes() == DATA
    assert shop.ranges() == [None, None]


def test_a_part_of_another_listing_is_not_gone_on_from(shop: Shop, tmp_path: Path) -> None:
    shop.files["/set.zip"].drop_at = [500_000]
    with pytest.raises(FetchError):
        download(shop.remote(md5="0" * 32), tmp_path, waits=())
    assert download(shop.remote(), tmp_path).read_bytes() == DATA
    assert shop.ranges() == [None, None]


def test_a_wrong_checksum(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=f"its MD5 is {md5(DATA)}, expected was {'0' * 32}.*do not use it"):
        download(shop.remote(md5="0" * 32), tmp_path)
    assert names(tmp_path) == set()


def test_a_wrong_size(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="gives 1500000 bytes, listed are 7"):
        download(shop.remote(size=7), tmp_path)
    assert shop.sent <= len(DATA) and not (tmp_path / "set.zip").exists()


def test_another_file_of_that_name_stays(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_text("mine")
    with pytest.raises(FetchError, match=r"already there, but it has 4 bytes, expected were 1500000. Move it away"):
        download(shop.remote(), tmp_path)
    with pytest.raises(FetchError, match="cannot be checked"):
        download(shop.remote(size=None, md5=None), tmp_path)
    assert (tmp_path / "set.zip").read_text() == "mine"
    assert shop.asked == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_passing_faults_are_tried_again(shop: Shop, tmp_path: Path, status: int) -> None:
    shop.files["/set.zip"].statuses = [status, status]
    assert download(shop.remote(), tmp_path, waits=NO_WAITS).read_bytes() == DATA
    shop.files["/set.zip"].statuses = [status] * 9
    (tmp_path / "set.zip").unlink()
    with pytest.raises(FetchError, match=f"answers {status} .*after 4 tries"):
        download(shop.remote(), tmp_path, waits=NO_WAITS)


def test_the_wait_that_a_server_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(web.time, "sleep", waited.append)
    asks = iter([web.AgainError("busy", 7.0), web.AgainError("busy", 9999.0), web.AgainError("busy")])

    def step() -> str:
        error = next(asks, None)
        if error:
            raise error
        return "done"

    assert web.persist(step, "https://x.test", (1.0, 2.0, 3.0)) == "done"
    assert waited == [7.0, 60.0, 3.0]


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, r"answers 403 Forbidden. Download it by hand in a browser from https://page.test"),
        (401, "by hand in a browser"),
        (202, "answers 202: it asks for a browser"),
        (404, "answers 404 Not Found. The data set may have moved: see https://page.test"),
    ],
)
def test_refusals_are_final(shop: Shop, tmp_path: Path, status: int, sentence: str) -> None:
    shop.files["/set.zip"].statuses = [status] * 2
    with pytest.raises(FetchError, match=sentence):
        download(shop.remote(), tmp_path, waits=NO_WAITS)
    assert len(shop.asked) == 1


def test_no_network(shop: Shop, tmp_path: Path) -> None:
    remote = shop.remote(url="http://127.0.0.1:9/set.zip")
    with pytest.raises(FetchError, match=r"127.0.0.1 cannot be reached .*refused.*Check the network"):
        download(remote, tmp_path, waits=NO_WAITS)


def test_a_full_disk(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "set.zip.part")

    with monkeypatch.context() as patch:
        patch.setattr(transfer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
        with pytest.raises(FetchError, match="2 MB are needed and 1 MB are free"):
            download(shop.remote(), tmp_path)
        patch.setattr(transfer, "_check_space", full)
        with pytest.raises(FetchError, match=r"cannot be written or read \(No space left on device\). Make room"):
            download(shop.remote(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="file"):
        download(shop.remote(), tmp_path / "file" / "below")


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../x.zip", "a/b.zip", "/etc/passwd", "a\\b.zip", "C:x.zip", "x..zip", ".hidden", "-rf",
        "a\n.zip",
        "a\x1b[2J.zip", "a\u202ezip.exe", "con", "NUL.zip", "x.part", "x.zip.part.json", "x ", "x.", "x" * 201, "a\0b",
    ],
)  # fmt: skip
def test_nasty_names_are_refused(shop: Shop, tmp_path: Path, name: str) -> None:
    with pytest.raises(FetchError, match="as a file name"):
        download(replace(shop.remote(), name=name), tmp_path / "in")
    assert names(tmp_path) == set() and shop.asked == []


def test_plain_names_are_taken() -> None:
    for name in ("brainTumorDataPublic_1-766.zip", "README.txt", "données (1).zip", "console.zip"):
        check_name(name, "")


@pytest.mark.parametrize("url", ["http://example.test/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "https://", "x"])
def test_only_https_is_spoken(shop: Shop, tmp_path: Path, url: str) -> None:
    with pytest.raises(FetchError, match="not an https address"):
        download(shop.remote(url=url), tmp_path, waits=NO_WAITS)


def test_redirects(shop: Shop, tmp_path: Path) -> None:
    """Ranges go along to the storage; nothing goes on to an address without https."""
    shop.files["/set.zip"].drop_at = [500_000]
    shop.files["/moved.zip"] = Served(DATA, redirect=f"{shop.url}/set.zip")
    assert download(shop.remote("moved.zip"), tmp_path, waits=NO_WAITS).read_bytes() == DATA
    assert shop.ranges() == [None, None, "bytes=500000-", "bytes=500000-"]
    shop.files["/plain.zip"] = Served(DATA, redirect="http://example.test/set.zip")
    with pytest.raises(FetchError, match="not an https address"):
        download(shop.remote("plain.zip"), tmp_path)
    request = web.Request("https://example.test/x")
    with pytest.raises(FetchError, match="without https"):
        web._Redirects().redirect_request(request, io.BytesIO(), 302, "", {}, f"{shop.url}/set.zip")


def figshare_body(url: str, *files: tuple[str, bytes]) -> dict[str, Any]:
    """As api.figshare.com gives it, shortened."""
    return {
        "files": [
            {
                "id": 3381290 + number,
                "name": name,
                "size": len(data),
                "is_link_only": False,
                "download_url": f"{url}/files/{3381290 + number}",
                "supplied_md5": md5(data),
                "computed_md5": md5(data),
                "mimetype": "application/zip",
            }
            for number, (name, data) in enumerate(files)
        ],
        "id": 1512427,
        "title": "brain tumor dataset",
        "doi": "10.6084/m9.figshare.1512427.v5",
        "version": 5,
        "license": {"value": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"},
    }


def zenodo_body(url: str, name: str, data: bytes) -> dict[str, Any]:
    """As zenodo.org gives it, shortened."""
    link, checksum = f"{url}/api/records/17524350/files/{name}/content", f"md5:{md5(data)}"
    return {
        "id": 17524350,
        "metadata": {"title": "BRISC 2025", "license": {"id": "cc-by-4.0"}},
        "files": [{"id": "9b2", "key": name, "size": len(data), "checksum": checksum, "links": {"self": link}}],
    }


def served_json(body: Any) -> Served:
    return Served(json.dumps(body).encode(), {"Content-Type": "application/json"})


def test_figshares_listing(shop: Shop) -> None:
    body = figshare_body(shop.url, ("a.zip", b"one"), ("README.txt", b"four"))
    body["files"][1]["computed_md5"] = ""
    shop.files[FIGSHARE_PATH] = served_json(body)
    first, second = list_files(FIGSHARE, shop.url)
    assert first == RemoteFile("a.zip", f"{shop.url}/files/3381290", 3, md5(b"one"), FIGSHARE.homepage)
    assert (second.size, second.md5, second.checked) == (4, None, "no checksum published; size checked only")


def test_zenodos_listing(shop: Shop) -> None:
    body = zenodo_body(shop.url, "brisc2025.zip", b"data")
    shop.files["/api/records/17524350"] = served_json(body)
    link = body["files"][0]["links"]["self"]
    assert list_files(BRISC, shop.url) == [RemoteFile("brisc2025.zip", link, 4, md5(b"data"), BRISC.homepage)]
    body["files"][0]["checksum"] = "sha256:" + "0" * 64
    shop.files["/api/records/17524350"] = served_json(body)
    assert list_files(BRISC, shop.url)[0].md5 is None


def kaggle_path() -> str:
    return "/" + KAGGLE.listing.split("/", 3)[3]


def serve_kaggle(shop: Shop, data: bytes, **headers: str) -> None:
    sums = f"crc32c=AAAAAA==,md5={base64.b64encode(bytes.fromhex(md5(data))).decode()}"
    headers = {"Content-Type": "application/zip", "x-goog-hash": sums, **headers}
    shop.files["/storage/archive.zip?X-Goog-Signature=0"] = Served(data, headers)
    shop.files[kaggle_path()] = Served(b"", redirect=f"{shop.url}/storage/archive.zip?X-Goog-Signature=0")


def test_kaggles_headers(shop: Shop, tmp_path: Path) -> None:
    serve_kaggle(shop, DATA)
    assert kaggle_path().endswith("brain-tumor-mri-dataset?datasetVersionNumber=1")
    (file,) = list_files(KAGGLE, shop.url)
    assert file == RemoteFile(
        "brain-tumor-mri-dataset.zip", shop.url + kaggle_path(), len(DATA), md5(DATA), KAGGLE.homepage
    )
    assert download(file, tmp_path).read_bytes() == DATA
    serve_kaggle(shop, DATA, **{"x-goog-hash": "crc32c=AAAAAA=="})
    assert list_files(KAGGLE, shop.url)[0].md5 is None


def test_kaggle_that_wants_an_account(shop: Shop) -> None:
    serve_kaggle(shop, DATA)
    shop.files[kaggle_path()].statuses = [403]
    with pytest.raises(FetchError, match=r"by hand in a browser from https://www.kaggle.com/.* `tumorlens data index"):
        list_files(KAGGLE, shop.url, NO_WAITS)
    serve_kaggle(shop, b"<html>", **{"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(FetchError, match="answers with a web page"):
        list_files(KAGGLE, shop.url, NO_WAITS)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("files"),
        lambda body: body.update(files=[{"name": "a.zip"}]),
        lambda body: body.update(files="many"),
        lambda body: body["files"][0].update(size="12"),
        lambda body: body["files"][0].update(size=-1),
        lambda body: body["files"][0].update(name=None),
    ],
)
def test_malformed_listings(shop: Shop, change: Callable[[dict[str, Any]], Any]) -> None:
    body = figshare_body(shop.url, ("a.zip", b"one"))
    change(body)
    shop.files[FIGSHARE_PATH] = served_json(body)
    with pytest.raises(FetchError, match="not the listing that was expected"):
        list_files(FIGSHARE, shop.url)


def test_listings_that_are_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for files, sentence in (
        ((("a.zip", b"1"), ("A.ZIP", b"2")), "twice"),
        ((("licence.TXT", b"1"),), "takes the name"),
        ((("../a.zip", b"1"),), "as a file name"),
        ((), "lists no files"),
    ):
        shop.files[FIGSHARE_PATH] = served_json(figshare_body(shop.url, *files))
        with pytest.raises(FetchError, match=sentence):
            list_files(FIGSHARE, shop.url)
    shop.files[FIGSHARE_PATH] = served_json(figshare_body("http://example.test", ("a.zip", b"1")))
    with pytest.raises(FetchError, match="not an https address"):
        list_files(FIGSHARE, shop.url)
    shop.files[FIGSHARE_PATH] = Served(b"<html>")
    with pytest.raises(FetchError, match="not the listing"):
        list_files(FIGSHARE, shop.url)
    monkeypatch.setattr("tumorlens.data.fetch.listing._MAX_LISTING", 3)
    with pytest.raises(FetchError, match="more than 3 bytes"):
        list_files(FIGSHARE, shop.url)


def test_a_listing_that_breaks_off_is_asked_for_again(shop: Shop) -> None:
    shop.files[FIGSHARE_PATH] = served_json(figshare_body(shop.url, ("a.zip", b"one")))
    shop.files[FIGSHARE_PATH].drop_at = [20]
    assert [file.name for file in list_files(FIGSHARE, shop.url, NO_WAITS)] == ["a.zip"]


def test_a_data_set_whole(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = (("a b.zip", DATA), ("README.txt", b"four"))
    body = figshare_body(shop.url, *content)
    body["files"][1]["computed_md5"] = None
    shop.files[FIGSHARE_PATH] = served_json(body)
    for number, (_, data) in enumerate(content):
        shop.files[f"/files/{3381290 + number}"] = Served(data)
    folder = tmp_path / "the set"
    assert fetch_into(FIGSHARE, folder, shop.url, NO_WAITS) == 0
    assert names(folder) == {"a b.zip", "README.txt", "LICENCE.txt", "SOURCE.json"}
    assert "CC BY 4.0" in (folder / "LICENCE.txt").read_text()
    source = json.loads((folder / "SOURCE.json").read_text())
    assert source["licence"] == "CC BY 4.0" and source["citation"] == FIGSHARE.citation
    assert [file["md5"] for file in source["files"]] == [md5(DATA), None]
    assert source["fetched"].endswith("+00:00")
    shown = capsys.readouterr().out
    assert f"a b.zip: MD5 {md5(DATA)} checked" in shown
    assert "README.txt: no checksum published; size checked only" in shown
    assert "2 files, 1.5 MB" in shown
    assert f"tumorlens data index '{folder}' --out figshare.csv" in shown
    assert shown.index("licence: CC BY 4.0") < shown.index("2 files") < shown.index("next:")
    before = len(shop.asked)
    assert fetch_into(FIGSHARE, folder, shop.url, NO_WAITS) == 0
    assert len(shop.asked) == before + 1  # the listing alone


def test_an_unfinished_data_set_has_no_source(shop: Shop, tmp_path: Path) -> None:
    shop.files[FIGSHARE_PATH] = served_json(figshare_body(shop.url, ("a.zip", DATA), ("b.zip", b"x")))
    shop.files["/files/3381290"] = Served(DATA)
    with pytest.raises(FetchError, match="404"):
        fetch_into(FIGSHARE, tmp_path, shop.url, NO_WAITS)
    assert names(tmp_path) == {"a.zip"}


def test_the_command_and_what_it_says_to_type_next(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for side in ("Training", "Testing"):
            for label, known in (("glioma", "glioma"), ("notumor", "no_tumor")):
                for number in range(3):
                    picture = io.BytesIO()
                    Image.fromarray(draw_head(known, number, len(side))).save(picture, "png")
                    archive.writestr(f"{side}/{label}/{number}.png", picture.getvalue())
    serve_kaggle(shop, packed.getvalue())
    monkeypatch.setitem(DATA_SETS, "kaggle", replace(KAGGLE, listing=shop.url + kaggle_path()))
    monkeypatch.chdir(tmp_path)
    assert main(["data", "fetch", "kaggle"]) == 0
    shown = capsys.readouterr().out
    assert "CC0" in shown and "1,301 of its 1,311 test images" in shown and "1 file, " in shown
    assert names(tmp_path / "kaggle") == {"brain-tumor-mri-dataset.zip", "LICENCE.txt", "SOURCE.json"}
    command = next(line.split() for line in shown.splitlines() if "data index" in line and "--out" in line)
    assert main(command[1:]) == 0
    assert "kaggle: 12 images" in capsys.readouterr().out
    shop.files[kaggle_path()].statuses = [401]
    assert main(["data", "fetch", "kaggle", "--out", "other"]) == 1
    assert "by hand in a browser" in capsys.readouterr().err
    assert not Path("other").exists()


def test_every_data_set_says_its_terms() -> None:
    for key, dataset in DATA_SETS.items():
        assert dataset.key == key
        assert dataset.licence_url.startswith("https://creativecommons.org/")
        assert dataset.listing.startswith("https://") and dataset.homepage.startswith("https://")
        assert dataset.citation and dataset.notes
