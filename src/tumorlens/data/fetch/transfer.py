"""One file from a server to the disk: resumed where it broke off, and checked before it gets its name."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from tumorlens.data.fetch.listing import LICENCE, SOURCE, check_name
from tumorlens.data.fetch.sets import DataSet, RemoteFile
from tumorlens.data.fetch.web import WAITS, AgainError, PastEndError, open_url, persist, read_block
from tumorlens.errors import FetchError
from tumorlens.textfile import write_whole

OnProgress = Callable[[int, int], None]


def download(
    remote: RemoteFile, folder: Path, on_progress: OnProgress = lambda done, total: None, waits: Sequence[float] = WAITS
) -> Path:
    """Download one file, or the rest of it; a file that is there, complete and right, is not downloaded again.

    Args:
        remote: what.
        folder: where to; made where it is missing. An interrupted download leaves `NAME.part` there.
        on_progress: told the bytes there are and the bytes in all (0 where unknown).
        waits: seconds before each new try after a broken connection.

    Returns:
        Where it lies.

    Raises:
        FetchError: the server cannot be reached or refuses, the disk is full, a different file is there already, or
            what came is not what the listing says.
    """
    check_name(remote.name, remote.page)
    target = folder / remote.name
    part = _Part(remote, target)
    with _disk(target):
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            _check_present(remote, target)
            part.remove()
            return target
    persist(lambda: part.fetch(on_progress), remote.url, waits, part.size)
    with _disk(target):
        problem = _difference(remote, part.path)
        if problem:
            part.remove()
            raise FetchError(
                f"{remote.name} from {remote.url}: {problem}. It was removed; run the command again, and if it stays "
                "so, the file was changed on its way or at its source: do not use it"
            )
        part.path.replace(target)
        part.remove()
    return target


def write_source(dataset: DataSet, files: Sequence[RemoteFile], folder: Path) -> None:
    """Write `LICENCE.txt` and `SOURCE.json` beside the files; they say that the download is complete.

    Raises:
        FetchError: they cannot be written.
    """
    terms = f"{dataset.title}\n{dataset.licence}: {dataset.licence_url}\n{dataset.citation}\n{dataset.homepage}\n"
    source = {
        "data_set": dataset.key,
        "title": dataset.title,
        "licence": dataset.licence,
        "licence_url": dataset.licence_url,
        "citation": dataset.citation,
        "homepage": dataset.homepage,
        "listing": dataset.listing,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": [
            {"name": file.name, "url": file.url, "size": file.size, "md5": file.md5, "checked": file.checked}
            for file in files
        ],
    }
    with _disk(folder / SOURCE):
        write_whole(folder / LICENCE, terms)
        write_whole(folder / SOURCE, json.dumps(source, indent=2, ensure_ascii=False) + "\n")


class _Part:
    """A file on its way: `NAME.part`, and `NAME.part.json` with what it is a part of."""

    def __init__(self, remote: RemoteFile, target: Path) -> None:
        self.remote = remote
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    def size(self) -> int:
        """The bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def remove(self) -> None:
        """Forget what is there."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def fetch(self, on_progress: OnProgress) -> None:
        """One try to get what is missing.

        Raises:
            AgainError: the connection broke, or what is there was of another version.
            FetchError: another try will not help.
        """
        with _disk(self.path):
            offset, etag = self._usable()
        if offset and offset == self.remote.size:
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and etag:
            headers["If-Range"] = etag
        try:
            response = open_url(self.remote.url, self.remote.page, headers)
        except PastEndError as error:
            if offset and error.total == offset:
                return
            self.remove()
            raise AgainError("the server has no such part of the file") from error
        with response:
            start = offset if self._goes_on(response, offset, etag) else 0
            self._stream(response, start, on_progress)

    def _usable(self) -> tuple[int, str]:
        """How many bytes can be gone on from, and the ETag they came with; what cannot be used is removed."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            etag, same = str(note["etag"]), (note["size"], note["md5"]) == (self.remote.size, self.remote.md5)
        except (OSError, ValueError, KeyError, TypeError):
            etag, same = "", False
        # Without an ETag or a checksum nothing would tell that two halves are of two versions.
        too_long = self.remote.size is not None and self.size() > self.remote.size
        if not same or too_long or not (etag or self.remote.md5):
            self.remove()
            return 0, ""
        return self.size(), etag

    def _goes_on(self, response: HTTPResponse, offset: int, etag: str) -> bool:
        """Whether the answer begins at `offset`; False where it begins at 0."""
        now = response.headers.get("ETag", "")
        if response.status == 200:
            # A weak ETag is not allowed in If-Range: it promises no identical bytes.
            note = {"url": self.remote.url, "etag": "" if now.startswith("W/") else now}
            with _disk(self.note):
                self.path.unlink(missing_ok=True)
                write_whole(self.note, json.dumps({**note, "size": self.remote.size, "md5": self.remote.md5}))
            return False
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        right = found is not None and int(found[1]) == offset and found[2] in ("*", str(self.remote.size or found[2]))
        if response.status != 206 or not right or (etag and now and now != etag):
            self.remove()
            raise AgainError("the file at the server is another than the one begun")
        return True

    def _stream(self, response: HTTPResponse, start: int, on_progress: OnProgress) -> None:
        total = start + response.length if response.length is not None else self.remote.size
        if self.remote.size is not None and total != self.remote.size:
            raise FetchError(
                f"{self.remote.url}: the server gives {total} bytes, listed are {self.remote.size}; nothing was "
                f"written. Try again later, or see {self.remote.page}"
            )
        host, done = urlsplit(self.remote.url).hostname, start
        with _disk(self.path):
            _check_space(self.path.parent, (total or 0) - start)
            with self.path.open("ab" if start else "wb") as file:
                on_progress(done, total or 0)
                while block := read_block(response, str(host)):
                    file.write(block)
                    done += len(block)
                    if total is not None and done > total:
                        break  # what is too long fails the check of its size
                    on_progress(done, total or 0)
        if total is not None and done < total:
            raise AgainError(f"the connection to {host} broke off at {done} of {total} bytes")


def _check_present(remote: RemoteFile, target: Path) -> None:
    if remote.md5 is None and remote.size is None:
        problem: str | None = "neither its size nor a checksum is published, so it cannot be checked"
    else:
        problem = _difference(remote, target) if target.is_file() else "it is not a file"
    if problem:
        raise FetchError(f"{target}: already there, but {problem}. Move it away, or give another --out")


def _difference(remote: RemoteFile, path: Path) -> str | None:
    """How a file differs from what the listing says, or None."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"it has {size} bytes, expected were {remote.size}"
    if remote.md5 is None:
        return None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return None if found == remote.md5 else f"its MD5 is {found}, expected was {remote.md5}"


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"{folder}: {needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free. Free some space, or give "
            "another --out"
        )


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a sentence."""
    try:
        yield
    except OSError as error:
        raise FetchError(
            f"{error.filename or path}: cannot be written or read ({error.strerror or error}). Make room or check the "
            "permissions, or give another --out; what came so far is kept and gone on from"
        ) from error
