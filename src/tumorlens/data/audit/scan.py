"""One pass over the images of a manifest: all that the audit needs of each."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tumorlens.data.readers import open_entry, read_slice
from tumorlens.data.readers.entry import Entry
from tumorlens.data.similarity import THUMBNAIL, VIEWS, thumbnail
from tumorlens.errors import InputError
from tumorlens.records import Float32, Sample, Slice

#: Simple features of a picture that say nothing of anatomy; what they predict of the label, the source gives away.
FEATURES: tuple[str, ...] = (
    "width", "height", "bytes per pixel", "JPEG quality", "border intensity",
    "background share", "mean", "contrast", "entropy", "sharpness",
)  # fmt: skip

Problem = Literal["unreadable", "blank", "tiny", "odd aspect", "not grey"]

SMALL_SIDE = 64
ODD_ASPECT = 2.0
_COLOUR = 6.0  # mean difference of channels, of 255, above which a picture is coloured: JPEG alone stays below 3
_ANNEX_K_MEAN = 57.625  # mean of the JPEG standard's luminance table (ITU-T T.81, annex K), which is quality 50
_WORKERS = 2


@dataclass(frozen=True)
class Scan:
    """What one pass saw. Rows of the arrays belong to the samples; unreadable ones are zero and not `usable`.

    `thumbnails` (n, 2, 64, 64) uint8; `features` (n, 10) float32 in the order of `FEATURES`; `pixel_hashes` are equal
    where the decoded pixels are; `problems` are (kind, sentence) by row.
    """

    usable: NDArray[np.bool_]
    thumbnails: NDArray[np.uint8]
    features: Float32
    pixel_hashes: tuple[str, ...]
    problems: tuple[tuple[tuple[Problem, str], ...], ...]


def scan(samples: Sequence[Sample], root: Path, on_progress: Callable[[int, int], None]) -> Scan:
    """Read every image of a manifest once. Bad images become problems, never an exception.

    Args:
        samples: the images.
        root: the folder that their paths are relative to.
        on_progress: called with (images read, images in all).
    """
    count = len(samples)
    thumbnails = np.zeros((count, len(VIEWS), THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    features = np.zeros((count, len(FEATURES)), dtype=np.float32)
    hashes = [""] * count
    problems: list[tuple[tuple[Problem, str], ...]] = [()] * count
    usable = np.zeros(count, dtype=bool)
    with ThreadPoolExecutor(_WORKERS) as workers:
        looks = workers.map(lambda sample: _look(sample, root), samples)
        for number, look in enumerate(looks):
            problems[number] = look.problems
            if look.thumbnail is not None:
                thumbnails[number], features[number] = look.thumbnail, look.features
                hashes[number], usable[number] = look.pixel_hash, True
            on_progress(number + 1, count)
    return Scan(usable, thumbnails, features, tuple(hashes), tuple(problems))


@dataclass(frozen=True)
class _Look:
    thumbnail: NDArray[np.uint8] | None
    features: tuple[float, ...] = ()
    pixel_hash: str = ""
    problems: tuple[tuple[Problem, str], ...] = ()


def _look(sample: Sample, root: Path) -> _Look:
    try:
        entry = open_entry(root, sample.path)
        picture = read_slice(root, sample)
    except (InputError, OSError) as error:
        return _Look(None, problems=(("unreadable", str(error)),))
    try:
        small = thumbnail(picture)
    except InputError as error:
        return _Look(None, problems=(("blank", str(error)),))
    bits, coloured = _container(entry)
    digest = hashlib.sha256(str(picture.pixels.shape).encode() + np.ascontiguousarray(picture.pixels).tobytes())
    return _Look(
        small, _features(picture, entry, bits), digest.hexdigest(), tuple(_oddities(sample, picture, coloured))
    )


def _oddities(sample: Sample, picture: Slice, coloured: bool) -> list[tuple[Problem, str]]:
    height, width = picture.pixels.shape
    found: list[tuple[Problem, str]] = []
    if min(height, width) < SMALL_SIDE:
        found.append(("tiny", f"{sample.path}: {width} x {height} pixels"))
    if max(height, width) > ODD_ASPECT * min(height, width):
        found.append(("odd aspect", f"{sample.path}: {width} x {height} pixels"))
    if coloured:
        found.append(("not grey", f"{sample.path}: its colour channels differ"))
    return found


def _container(entry: Entry) -> tuple[float, bool]:
    """JPEG quality (0 where it is no JPEG), and whether the picture is coloured."""
    try:
        with entry.open() as file, Image.open(file, formats=("PNG", "JPEG", "BMP", "TIFF", "WEBP")) as image:
            tables = getattr(image, "quantization", None)
            quality = _jpeg_quality(float(np.mean(next(iter(tables.values()))))) if tables else 0.0
            return quality, image.mode not in ("L", "I", "F", "1", "I;16", "LA") and _is_coloured(image)
    except (OSError, ValueError, SyntaxError):  # DICOM, NIfTI, .mat: no such container
        return 0.0, False


def _is_coloured(image: Image.Image) -> bool:
    channels = np.asarray(image.convert("RGB").resize((64, 64)), dtype=np.float32)
    return bool(np.abs(channels - channels.mean(axis=2, keepdims=True)).mean() > _COLOUR)


def _jpeg_quality(table_mean: float) -> float:
    """Invert the Independent JPEG Group's scaling of the standard table."""
    scale = 100 * table_mean / _ANNEX_K_MEAN
    return max(0.0, (200 - scale) / 2 if scale <= 100 else 5000 / scale)


def _features(picture: Slice, entry: Entry, quality: float) -> tuple[float, ...]:
    pixels = picture.pixels
    height, width = pixels.shape
    top = float(np.percentile(pixels, 99.5)) or 1.0
    scaled = np.clip(pixels / top, 0, 1)
    border = np.concatenate([scaled[0], scaled[-1], scaled[:, 0], scaled[:, -1]])
    shares = np.histogram(scaled, bins=64, range=(0, 1))[0] / scaled.size
    entropy = float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    curvature = np.abs(
        4 * scaled[1:-1, 1:-1] - scaled[:-2, 1:-1] - scaled[2:, 1:-1] - scaled[1:-1, :-2] - scaled[1:-1, 2:]
    )
    spread = float(scaled.std())
    return (
        float(width), float(height), entry.size / pixels.size, quality, float(border.mean()),
        float((scaled < 0.02).mean()), float(scaled.mean()), spread, entropy, float(curvature.mean()) / (spread + 1e-6),
    )  # fmt: skip
