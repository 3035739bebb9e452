"""The images of a manifest as one tensor: prepared once, kept as bytes, with their masks where these are wanted."""

from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tumorlens.config import PreprocessSettings
from tumorlens.data.preprocess import prepare, to_square
from tumorlens.data.readers import read_mask, read_slice
from tumorlens.records import CLASSES, Sample


@dataclass(frozen=True)
class SliceDataset:
    """Prepared slices: `images` (n, size, size) uint8, `labels` (n,) int64 in the order of `CLASSES`.

    `masks` are the tumours' outlines on the same squares, uint8 (255 inside; all 0 where no mask is known), or None
    where they were not read.
    """

    images: torch.Tensor
    labels: torch.Tensor
    samples: tuple[Sample, ...]
    masks: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def side(self, split: str) -> "SliceDataset":
        """The part of one split."""
        chosen = [number for number, sample in enumerate(self.samples) if sample.split == split]
        index = torch.tensor(chosen, dtype=torch.long)
        masks = None if self.masks is None else self.masks[index]
        return SliceDataset(self.images[index], self.labels[index], tuple(self.samples[i] for i in chosen), masks)

    def batches(self, size: int, seed: int | None = None, drop_last: bool = False) -> Iterator[torch.Tensor]:
        """Index tensors of batches: in order, or shuffled by `seed` alone (so an epoch can be repeated)."""
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        stop = len(self) - len(self) % size if drop_last and len(self) >= size else len(self)
        for start in range(0, stop, size):
            yield order[start : min(start + size, stop)]


def load_dataset(
    samples: Sequence[Sample],
    root: Path,
    settings: PreprocessSettings,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    masks: Container[str] = (),
) -> SliceDataset:
    """Read and prepare every image of a manifest (about 50 kB of memory each at 224 x 224, twice that with masks).

    Args:
        samples: rows of the manifest.
        root: the folder that their paths are relative to.
        settings: the preprocessing, which the bundle will carry.
        on_progress: called with (images read, images in all).
        masks: the sides of the split whose tumour masks are read too.

    Raises:
        InputError: an image or a mask cannot be read, or they do not fit.
    """
    images = np.empty((len(samples), settings.size, settings.size), dtype=np.uint8)

    outlines = np.zeros_like(images) if any(sample.split in masks for sample in samples) else None

    def load(number: int) -> None:
        square, geometry = prepare(read_slice(root, samples[number]), settings)
        images[number] = np.round(square * 255)
        if outlines is not None and samples[number].split in masks:
            mask = read_mask(root, samples[number])
            if mask is not None:
                outlines[number] = np.round(to_square(mask.astype(np.float32), geometry, settings.size) * 255)

    with ThreadPoolExecutor(max_workers=4) as pool:
        for done, _ in enumerate(pool.map(load, range(len(samples))), start=1):
            on_progress(done, len(samples))
    labels = torch.tensor([CLASSES.index(sample.label) for sample in samples], dtype=torch.long)
    return SliceDataset(
        torch.from_numpy(images), labels, tuple(samples), None if outlines is None else torch.from_numpy(outlines)
    )
