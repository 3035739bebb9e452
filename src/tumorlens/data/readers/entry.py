"""What a reader is given: a file on disk, or a member of an archive held in memory."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from tumorlens.errors import InputError

#: Stands between an archive and its member in an address: `set.zip!part.zip!1.mat`.
SEPARATOR = "!"

Plane = Literal["", "axial", "coronal", "sagittal"]


@dataclass(frozen=True, slots=True)  # there may be a million
class Entry:
    """One file to read. `address` is its path, or for a member `ARCHIVE!MEMBER`; `data` is None for a file on disk."""

    address: str
    data: bytes | None = None

    @property
    def name(self) -> str:
        """The last part of the address, for messages."""
        address = self.address.replace("\\", "/")
        name = address.rstrip(f"/{SEPARATOR}").rpartition(SEPARATOR)[2].rpartition("/")[2]
        return name or address

    @property
    def suffix(self) -> str:
        """Of the name, in lower case, with its dot."""
        return Path(self.name).suffix.lower()

    @property
    def size(self) -> int:
        """Bytes in it."""
        if self.data is not None:
            return len(self.data)
        with _told(self.address):
            return Path(self.address).stat().st_size

    def open(self) -> BinaryIO:
        """A binary stream at the beginning; the caller closes it.

        Raises:
            InputError: it cannot be opened.
        """
        if self.data is not None:
            return io.BytesIO(self.data)
        with _told(self.address):
            return Path(self.address).open("rb")

    def head(self, size: int) -> bytes:
        """The first bytes.

        Raises:
            InputError: they cannot be read.
        """
        with self.open() as file, _told(self.address):
            return file.read(size)


@contextmanager
def _told(address: str) -> Iterator[None]:
    """What the system says of a file, as a sentence: one file of a folder must not end all."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{address}: cannot be opened ({error.strerror or error}). Check its permissions, or copy it again"
        ) from error


@dataclass(frozen=True)
class ReadOptions:
    """Which slices of a file are wanted, and how.

    `plane`: the plane in which a volume is cut; empty is the one it was acquired in. `every`: take each n-th slice.
    `frame`: this one only (its number stays the one it has in the whole file). `whole`: also slices of a volume that
    show little of the head. `window`: DICOM values as the header asks to show them (VOI LUT or window) instead of all.
    `most`: a file of which more pixels are wanted is refused before it is decoded; 0 for the limit that all files have.
    """

    plane: Plane = ""
    every: int = 1
    frame: int | None = None
    whole: bool = False
    window: bool = False
    most: int = 0
