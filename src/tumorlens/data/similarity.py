"""Group images that show the same slice, where no patient id says so.

Pictures without patient ids come in copies, mirrored copies and neighbouring slices. Two images whose small
head-cropped versions correlate in any of the eight orientations are taken to be of one patient. It finds
copies reliably; two distant slices of one patient it cannot know, so such a split stays optimistic.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tumorlens.config import PreprocessSettings
from tumorlens.data.preprocess import prepare
from tumorlens.data.readers import read_slices
from tumorlens.records import Float32, Sample

THUMBNAIL = 32
THRESHOLD = 0.95


def similarity_groups(
    samples: Sequence[Sample],
    root: Path,
    threshold: float = THRESHOLD,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[int]:
    """Cluster images by the correlation of their thumbnails, best of eight orientations, single linkage.

    Args:
        samples: the images.
        root: the folder that their paths are relative to.
        threshold: Pearson correlation above which two images belong together.
        on_progress: called with (images read, images in all).

    Returns:
        A group number for each image.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    thumbnails = np.zeros((len(samples), THUMBNAIL, THUMBNAIL), dtype=np.float32)
    for number, sample in enumerate(samples):
        thumbnails[number] = _thumbnail(root / sample.path)
        on_progress(number + 1, len(samples))
    flat = thumbnails.reshape(len(samples), -1)
    first: list[np.ndarray] = []
    second: list[np.ndarray] = []
    for turned in _orientations(thumbnails):
        for start in range(0, len(samples), 1024):  # bounded memory: a block of rows against all
            rows, columns = np.nonzero(turned[start : start + 1024] @ flat.T > threshold)
            first.append(rows + start)
            second.append(columns)
    row, column = np.concatenate(first), np.concatenate(second)
    graph = coo_array((np.ones(row.size, dtype=bool), (row, column)), shape=(len(samples), len(samples)))
    return [int(group) for group in connected_components(graph, directed=False)[1]]


def _thumbnail(path: Path) -> Float32:
    small, _ = prepare(read_slices(path)[0], PreprocessSettings(size=THUMBNAIL))
    centred = small - small.mean()
    return np.asarray(centred / (np.linalg.norm(centred) + 1e-6), dtype=np.float32)


def _orientations(thumbnails: Float32) -> list[Float32]:
    turns = [np.rot90(thumbnails, quarter, (1, 2)) for quarter in range(4)]
    return [view.reshape(len(view), -1) for turn in turns for view in (turn, turn[:, :, ::-1])]
