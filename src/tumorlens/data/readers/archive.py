"""ZIP archives, read in place: `set.zip!part.zip!1.mat` is the address of a member of an archive in an archive.

Nothing is extracted to a path that an archive names: members are read into memory, inner archives into temporary files
without a name. What an archive claims of itself is checked before it is read, and again while it is.
"""

import errno
import io
import re
import stat
import struct
import tempfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from tumorlens.data.readers.entry import SEPARATOR, Entry
from tumorlens.errors import InputError

SUFFIXES = (".zip",)

MAX_DEPTH = 3
MAX_MEMBERS = 100_000
MAX_MEMBER_BYTES = 1_000_000_000
MAX_TOTAL_BYTES = 20_000_000_000
#: Deflate reaches 1032; pictures and volumes stay far below 200, save for small or nearly empty ones.
MAX_RATIO = 200
RATIO_FROM_BYTES = 100_000_000

_MARKS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_METHOD_NAMES = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 99: "AES"}
_CHUNK = 1 << 20
_SPOOL = 8 << 20  # inner archives up to here stay in memory
_KEPT_OPEN = 6  # the figshare set is one archive of four; every open inner one may hold a temporary file

# What zipfile and zlib raise on damaged archives.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError,
    ArithmeticError,
)  # fmt: skip


@dataclass(frozen=True)
class Refused:
    """A file, member or archive that cannot be used: where it is, and a sentence that says why."""

    address: str
    message: str


@dataclass(frozen=True)
class Member(Entry):
    """A file inside an archive that is read when it is needed: `load` gives it with its bytes."""

    parent: Entry | None = None
    member: str = ""

    @property
    def size(self) -> int:
        """Bytes that it is said to have unpacked."""
        with _ARCHIVES.using(self._parent) as opened:
            return _info(opened, self).file_size

    def load(self) -> Entry:
        """The same with its bytes in memory.

        Raises:
            InputError: it is damaged, encrypted, or larger than allowed.
        """
        target = io.BytesIO()
        _copy(self, target)
        return Entry(self.address, target.getvalue())

    def open(self) -> BinaryIO:
        """A binary stream of the whole member, from memory."""
        return self.load().open()

    def head(self, size: int) -> bytes:
        """The first bytes; only these are unpacked."""
        target = io.BytesIO()
        _copy(self, target, size)
        return target.getvalue()

    @property
    def _parent(self) -> Entry:
        assert self.parent is not None  # only the default is None, for the dataclass's sake
        return self.parent


def natural(text: str) -> tuple[Any, ...]:
    """A key that sorts `2.mat` before `10.mat`."""
    parts = re.split(r"([0-9]+)", text.replace("\\", "/"))
    # Numbers by length, then digits: int() refuses the longest.
    key = ((len(part.lstrip("0")), part.lstrip("0")) if number % 2 else part for number, part in enumerate(parts))
    return tuple(key), text


def is_archive(entry: Entry) -> bool:
    """Whether the content, whatever the name, begins like a ZIP archive."""
    try:
        return entry.head(4) in _MARKS
    except (OSError, InputError):
        return False


def members(entry: Entry, wanted: Callable[[Entry], bool] = lambda entry: True) -> Iterator[Entry | Refused]:
    """The files inside an archive and the archives in it, in natural order, unread.

    Args:
        entry: the archive.
        wanted: says of a member whether it is of use; others are passed over in silence.

    Yields:
        Entries, whose bytes are read when they are opened, and a `Refused` for each member or inner archive that
        cannot be used; it costs only itself.
    """
    yield from _walk(entry, wanted, 1, _Budget())


def find(address: str) -> Entry:
    """The entry that an address means, unread: a file on disk, or a member of an archive.

    Raises:
        InputError: no such file, no such member, or an archive on the way cannot be read.
    """
    path, rest = split_address(address)
    entry = Entry(str(path))
    while rest:
        entry, rest = _step(entry, rest)
    return entry


def open_member(address: str) -> Entry:
    """The entry that an address means; a member has its bytes in memory.

    Raises:
        InputError: as `find`, or the member is damaged, encrypted or too large.
    """
    entry = find(address)
    return entry.load() if isinstance(entry, Member) else entry


def split_address(address: str) -> tuple[Path, str]:
    """The file on disk, and the rest of the address inside it; empty for a plain file.

    Raises:
        InputError: no part of the address is a file.
    """
    # The longest part that is a file: names on disk may have the separator in them.
    end = len(address)
    while end > 0:
        try:
            if Path(address[:end]).is_file():
                return Path(address[:end]), address[end + 1 :]
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # members of archives may have longer names than files
                raise InputError(f"{address}: cannot be opened ({error.strerror}). Check its permissions") from error
        end = address.rfind(SEPARATOR, 0, end)
    raise InputError(f"{address}: no such file. Check the path")


def close_archives() -> None:
    """Close every archive that is kept open; they open again when needed."""
    _ARCHIVES.close()


class _Archives:
    """A few archives kept open, so that reading their members one by one does not open them each time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.RLock()
        self._open: OrderedDict[object, tuple[zipfile.ZipFile, BinaryIO, Entry]] = OrderedDict()

    @contextmanager
    def using(self, entry: Entry) -> Iterator[zipfile.ZipFile]:
        """The archive, for one thread at a time.

        Raises:
            InputError: it is no archive that can be read.
        """
        with self._lock:
            key = self._key(entry)
            if key not in self._open:
                # Kept with its entry: the identity of bytes in memory is part of the key.
                opened = (*self._opened(entry), entry)
                self._open[key] = opened
                while len(self._open) > self._most:
                    self._shut(next(iter(self._open)))
            self._open.move_to_end(key)
            yield self._open[key][0]

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for key in list(self._open):
                self._shut(key)

    def _shut(self, key: object) -> None:
        opened, file, _ = self._open.pop(key)
        with suppress(OSError):
            opened.close()
            file.close()

    def _key(self, entry: Entry) -> object:
        if isinstance(entry, Member):
            return self._key(entry._parent), entry.member
        if entry.data is not None:
            return entry.address, id(entry.data)
        try:
            state = Path(entry.address).stat()
        except OSError as error:
            raise InputError(f"{entry.address}: cannot be opened ({error.strerror}). Check the path") from error
        return entry.address, state.st_mtime_ns, state.st_size

    def _opened(self, entry: Entry) -> tuple[zipfile.ZipFile, BinaryIO]:
        file: BinaryIO
        if isinstance(entry, Member):
            file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_SPOOL))  # noqa: SIM115  closed by _shut
        else:
            file = entry.open()
        try:
            if isinstance(entry, Member):
                _copy(entry, file)
            file.seek(0)
            return zipfile.ZipFile(file), file
        except InputError:
            file.close()
            raise
        except _DAMAGE as error:
            file.close()
            raise InputError(
                f"{entry.name}: cannot be read as a ZIP archive ({error}); it may be cut short. Download or pack it "
                "again"
            ) from error


_ARCHIVES = _Archives(_KEPT_OPEN)


def _info(opened: zipfile.ZipFile, item: Member) -> zipfile.ZipInfo:
    try:
        return opened.getinfo(item.member)
    except KeyError as error:
        raise InputError(
            f"{item.address}: no longer in its archive, which was replaced meanwhile. Give the archive again"
        ) from error


def _copy(item: Member, target: BinaryIO, size: int | None = None) -> None:
    """Unpack a member, or its first `size` bytes, into `target`.

    Raises:
        InputError: it is encrypted, damaged, packed in an unknown way, or gives more than it claims or is allowed.
    """
    with _ARCHIVES.using(item._parent) as opened:
        info = _info(opened, item)
        problem = _problem(info)
        if problem:
            raise InputError(f"{item.address}: {problem}")
        left = info.file_size if size is None else min(size, info.file_size)
        try:
            with opened.open(info) as source:
                # In small parts and never beyond the claim: a header that lies costs no memory.
                while left > 0 and (chunk := source.read(min(_CHUNK, left))):
                    target.write(chunk)
                    left -= len(chunk)
                if size is None:
                    source.read(1)  # past the end: now its checksum has been compared
        except _DAMAGE as error:
            raise InputError(
                f"{item.address}: damaged inside its archive ({error}). Download or pack the archive again"
            ) from error
        if left > 0:
            raise InputError(
                f"{item.address}: {left:,} of {info.file_size:,} bytes are missing inside its archive. Download or "
                "pack the archive again"
            )


@dataclass
class _Budget:
    """What one archive and all archives in it may hold together."""

    files: int = 0
    bytes: int = 0

    def take(self, entry: Entry, infos: list[zipfile.ZipInfo]) -> None:
        files, total = self.files + len(infos), self.bytes + sum(info.file_size for info in infos)
        if files > MAX_MEMBERS:
            raise InputError(
                f"{entry.address}: {files:,} files in one archive are too many (at most {MAX_MEMBERS:,}). Pack it in "
                "parts"
            )
        if total > MAX_TOTAL_BYTES:
            raise InputError(
                f"{entry.address}: {total:,} bytes unpacked are too many for one archive (at most "
                f"{MAX_TOTAL_BYTES:,}). Pack it in parts"
            )
        self.files, self.bytes = files, total


def _walk(entry: Entry, wanted: Callable[[Entry], bool], depth: int, budget: _Budget) -> Iterator[Entry | Refused]:
    try:
        with _ARCHIVES.using(entry) as opened:
            infos = sorted(opened.infolist(), key=lambda info: natural(info.filename))
        budget.take(entry, infos)
    except InputError as error:
        yield Refused(entry.address, str(error))
        return
    seen: set[str] = set()
    for info in infos:
        if info.is_dir() or _is_litter(info.filename):
            continue
        item = Member(f"{entry.address}{SEPARATOR}{info.filename}", None, entry, info.filename)
        problem = _problem(info)
        if info.filename in seen:
            problem = "a second file of the same name; only one can be read. Pack it with different names"
        seen.add(info.filename)
        if problem:
            # Nobody can look into it: its name says whether it would be missed. What is no honest name always counts.
            if _leads_out(info.filename) or item.suffix in SUFFIXES or wanted(Entry(item.address, b"")):
                yield Refused(item.address, f"{item.address}: {problem}")
        elif not (wanted(item) or item.suffix in SUFFIXES):
            continue
        elif not is_archive(item):
            yield item
        elif depth == MAX_DEPTH:
            yield Refused(
                item.address,
                f"{item.address}: an archive {depth + 1} deep in others (at most {MAX_DEPTH}). Unpack the outer ones",
            )
        else:
            yield from _walk(item, wanted, depth + 1, budget)


def _step(entry: Entry, rest: str) -> tuple[Entry, str]:
    """One archive further down an address: the member that the longest part of `rest` names, and what remains."""
    if not is_archive(entry):
        raise InputError(f"{entry.address}: not a ZIP archive, so there is no {rest!r} in it. Check the address")
    with _ARCHIVES.using(entry) as opened:
        names = opened.NameToInfo
        end = len(rest)
        while end > 0 and rest[:end] not in names:
            end = rest.rfind(SEPARATOR, 0, end)
    if end <= 0:
        raise InputError(f"{entry.address}: no {rest!r} in this archive. Check the address, or index it again")
    if entry.address.count(SEPARATOR) > 2 * MAX_DEPTH:
        raise InputError(f"{entry.address}: archives too deep in others (at most {MAX_DEPTH}). Unpack the outer ones")
    name = rest[:end]
    return Member(f"{entry.address}{SEPARATOR}{name}", None, entry, name), rest[end + 1 :]


def _is_litter(name: str) -> bool:
    """What macOS adds to archives: its notes on each file, under the file's own suffix."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith("._")


def _leads_out(name: str) -> bool:
    name = name.replace("\\", "/")
    return name.startswith("/") or bool(re.match(r"[A-Za-z]:", name)) or ".." in name.split("/")


def _problem(info: zipfile.ZipInfo) -> str:
    """Why a member is not read, as far as its header says, or an empty string."""
    if _leads_out(info.filename):
        return f"the name {info.filename!r} leads out of the archive; it is not read. Pack it with plain names"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link, which is never followed. Pack the file itself"
    return _packing(info)


def _packing(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "encrypted. Unpack it with its password and pack it without"
    if info.compress_type not in _METHODS:
        name = _METHOD_NAMES.get(info.compress_type, f"number {info.compress_type}")
        return f"compressed by {name}; allowed are Deflate and none. Pack it again as an ordinary ZIP"
    if info.file_size > MAX_MEMBER_BYTES:
        return f"{info.file_size:,} bytes unpacked are too many (at most {MAX_MEMBER_BYTES:,}). Give it in parts"
    if info.file_size > RATIO_FROM_BYTES and info.file_size > MAX_RATIO * max(1, info.compress_size):
        ratio = info.file_size // max(1, info.compress_size)
        return f"unpacks to {ratio} times its size (at most {MAX_RATIO}), like a ZIP bomb. Give the file unpacked"
    return ""
