"""What files a data set has, as figshare, Zenodo and Kaggle tell it."""

import base64
import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from tumorlens.data.fetch.sets import DataSet, RemoteFile
from tumorlens.data.fetch.web import WAITS, AgainError, by_hand, check_url, open_url, persist, read_block
from tumorlens.errors import FetchError

#: Written beside the files, so no file may be called so.
LICENCE, SOURCE = "LICENCE.txt", "SOURCE.json"

_MAX_LISTING = 10_000_000
_MAX_NAME_BYTES = 200  # file systems take 255, and `.part.json` comes on top
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices on Windows


def list_files(dataset: DataSet, base_url: str | None = None, waits: Sequence[float] = WAITS) -> list[RemoteFile]:
    """The files of a data set as its repository lists them.

    Args:
        dataset: which.
        base_url: scheme and host to ask instead of the repository's.
        waits: seconds before each new try.

    Raises:
        FetchError: the repository cannot be reached or refuses; or the listing is malformed or has unsafe file names.
    """
    url = dataset.listing
    if base_url is not None:
        url = urlsplit(url)._replace(**dict(zip(("scheme", "netloc"), urlsplit(base_url)[:2], strict=True))).geturl()
    read = _kaggle_files if dataset.kind == "kaggle" else _listed_files
    files = persist(lambda: read(dataset, url), url, waits)
    taken = {LICENCE.lower(), SOURCE.lower()}
    for file in files:
        check_name(file.name, dataset.homepage)
        check_url(file.url)
        if file.name.lower() in taken:
            raise FetchError(f"{url}: lists {file.name!r} twice, or takes the name of a file that is written beside it")
        taken.add(file.name.lower())
    if not files:
        raise FetchError(f"{url}: lists no files. See {dataset.homepage}")
    return files


def _listed_files(dataset: DataSet, url: str) -> list[RemoteFile]:
    """Files of a JSON listing, figshare's or Zenodo's."""
    with open_url(url, dataset.homepage, {"Accept": "application/json"}) as response:
        body = bytearray()
        while len(body) <= _MAX_LISTING and (block := read_block(response, url)):
            body += block
        if response.length and len(body) <= _MAX_LISTING:
            raise AgainError(f"the listing broke off after {len(body)} bytes")
    try:
        if len(body) > _MAX_LISTING:
            raise ValueError(f"more than {_MAX_LISTING} bytes")
        entries = json.loads(body)["files"]
        if dataset.kind == "figshare":
            rows = [(one["name"], one["download_url"], one["size"], one.get("computed_md5")) for one in entries]
        else:
            rows = [(one["key"], one["links"]["self"], one["size"], one.get("checksum")) for one in entries]
        return [_remote(*row, dataset.homepage) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FetchError(
            f"{url}: not the listing that was expected ({type(error).__name__}: {error}). The service may have "
            f"changed: download by hand from {dataset.homepage} and go on with `tumorlens data index FOLDER`"
        ) from error


def _remote(name: Any, url: Any, size: Any, checksum: Any, page: str) -> RemoteFile:
    if not (isinstance(name, str) and isinstance(url, str) and type(size) is int and size >= 0):
        raise TypeError(f"name {name!r}, address {url!r}, size {size!r}")
    # Another kind of sum (`sha256:…`) is none that is checked here, and is said to be none.
    found = re.fullmatch(r"(?:md5:)?([0-9a-f]{32})", str(checksum or "").lower())
    return RemoteFile(name, url, size, found[1] if found else None, page)


def _kaggle_files(dataset: DataSet, url: str) -> list[RemoteFile]:
    """Kaggle's one archive: size and MD5 stand in the headers of the storage that it redirects to.

    It is a GET whose body is not read: the signed address it redirects to does not answer HEAD.
    """
    with open_url(url, dataset.homepage) as response:
        headers = response.headers
        length = response.length
    if headers.get_content_type() == "text/html":
        raise FetchError(by_hand(url, "answers with a web page instead of the archive", dataset.homepage))
    sums = ",".join(headers.get_all("x-goog-hash", []))
    found = re.search(r"(?:^|,)\s*md5=([A-Za-z0-9+/]{22}==)", sums)
    md5 = base64.b64decode(found[1]).hex() if found else None
    return [RemoteFile(dataset.file_name, url, length, md5, dataset.homepage)]


def check_name(name: str, page: str) -> None:
    """Refuse a name that is more than a plain file name, on any system.

    Raises:
        FetchError: it names a folder, is hidden, reserved, too long, or not printable.
    """
    plain = (
        name.isprintable()
        and not set(name) & set('/\\:*?"<>|')
        and ".." not in name
        and not name.startswith((".", " ", "-"))
        and not name.endswith((".", " ", ".part", ".part.json"))
        and not _RESERVED.fullmatch(name)
        and 0 < len(name.encode(errors="replace")) <= _MAX_NAME_BYTES
    )
    if not plain:
        raise FetchError(
            f"{name[:_MAX_NAME_BYTES]!r}: the server gives this as a file name; only plain names are written, so "
            f"nothing was. See {page}"
        )
