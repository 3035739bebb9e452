"""Find pictures that show the same slice: copies that were re-encoded, rescaled, turned or mirrored, and neighbours.

A picture is reduced to two thumbnails: its head, which stands wherever the frame is cut, and its whole frame, which
stands however the head's edge is found. Candidates come from an index of coarse thumbnails, searched
in all eight orientations: a graph of near neighbours (Malkov & Yashunin, Efficient and robust approximate nearest
neighbor search using hierarchical navigable small world graphs, 2018), so cost grows nearly linearly. A candidate is
then scored by the correlation of what remains when the blurred picture is taken off: heads of two people look alike
when blurred, their folds and borders do not. `benchmarks/near_copies.py` measures the thresholds.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tumorlens.config import PreprocessSettings
from tumorlens.data.orientation import NAMES, turn
from tumorlens.data.preprocess import prepare
from tumorlens.data.readers import read_slice
from tumorlens.records import Float32, Sample, Slice

THUMBNAIL = 64
#: The two views of a picture: cropped to the head, and whole (nothing is above a foreground of 1).
VIEWS: tuple[PreprocessSettings, ...] = (
    PreprocessSettings(size=THUMBNAIL), PreprocessSettings(size=THUMBNAIL, foreground=1.0),
)  # fmt: skip
#: Score from which two pictures are copies of one slice. On figshare and TCGA together none of 3.3 million pairs of
#: different patients reaches it.
COPY = 0.9
#: Score from which they are a copy or a neighbouring slice of one patient; 1 in 96,000 pairs of different
#: patients of figshare reaches it, 1 in 6,500 of TCGA, and about half of neighbouring slices.
NEAR = 0.8

_COARSE = 16
_NEIGHBOURS = 12  # candidates of a picture, over all orientations
_PLAUSIBLE = 0.25  # score without alignment below which a candidate is not aligned
_SHIFT = 2  # pixels of the thumbnail by which crops of one slice may differ
_BLUR = 2.5
_BLOCK = 512

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Pair:
    """Two pictures that look alike: turning the first by `orientation` gives the second. `score` is at most 1.

    `view` is the number of the view (see `VIEWS`) in which they look most alike.
    """

    first: int
    second: int
    score: float
    orientation: int
    view: int


def thumbnail(picture: Slice) -> NDArray[np.uint8]:
    """The views of a slice, (2, 64, 64) uint8: head and whole.

    Raises:
        InputError: the picture is of one single intensity.
    """
    return np.stack([np.rint(prepare(picture, view)[0] * 255).astype(np.uint8) for view in VIEWS])


def pairs_within(thumbnails: NDArray[np.uint8], near: float = NEAR) -> list[Pair]:
    """Every pair of one set that scores at least `near`, best first; `first` < `second`.

    Args:
        thumbnails: (n, 2, 64, 64) uint8.
        near: the least score.
    """
    found = []
    for pair in _search(thumbnails, thumbnails, near, within=True):
        if pair.first < pair.second:
            found.append(pair)
        else:  # seen from the other end
            found.append(Pair(pair.second, pair.first, pair.score, _inverse(pair.orientation), pair.view))
    return _best(found)


def pairs_between(thumbnails: NDArray[np.uint8], others: NDArray[np.uint8], near: float = NEAR) -> list[Pair]:
    """Every pair of a picture and one of `others` that scores at least `near`, best first.

    Args:
        thumbnails: (n, 2, 64, 64) uint8; `first` counts in these.
        others: (m, 2, 64, 64) uint8; `second` counts in these.
        near: the least score.
    """
    return _best(_search(thumbnails, others, near, within=False))


def _best(pairs: Iterable[Pair]) -> list[Pair]:
    best: dict[tuple[int, int], Pair] = {}
    for pair in pairs:
        key = (pair.first, pair.second)
        if key not in best or best[key].score < pair.score:
            best[key] = pair
    return sorted(best.values(), key=lambda pair: (-pair.score, pair.first, pair.second))


def clusters(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """A cluster number for each of `count` pictures, by single linkage."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array(list(links), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), dtype=bool), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return [int(number) for number in connected_components(graph, directed=False)[1]]


def similarity_groups(
    samples: Sequence[Sample],
    root: Path,
    near: float = NEAR,
    on_progress: Progress = lambda done, total: None,
) -> list[int]:
    """Cluster the images of a manifest that are copies or neighbours of each other.

    It finds copies reliably; two distant slices of one patient it cannot know, so a split by these groups stays
    somewhat optimistic.

    Args:
        samples: the images.
        root: the folder that their paths are relative to.
        near: the least score that links two images.
        on_progress: called with (images read, images in all).

    Returns:
        A group number for each image.

    Raises:
        InputError: an image cannot be read.
    """
    small = np.zeros((len(samples), len(VIEWS), THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    for number, sample in enumerate(samples):
        small[number] = thumbnail(read_slice(root, sample))
        on_progress(number + 1, len(samples))
    return clusters(len(samples), ((pair.first, pair.second) for pair in pairs_within(small, near)))


def _search(queries: NDArray[np.uint8], targets: NDArray[np.uint8], near: float, within: bool) -> list[Pair]:
    if not len(queries) or not len(targets):
        return []
    return [
        pair
        for view in range(len(VIEWS))
        for pair in _search_view(queries[:, view], targets[:, view], near, within, view)
    ]


def _search_view(
    queries: NDArray[np.uint8], targets: NDArray[np.uint8], near: float, within: bool, view: int
) -> list[Pair]:
    first, second, orientation = _candidates(queries, targets, within)
    fine_queries, fine_targets = _fine(queries), _fine(targets)
    pairs: list[Pair] = []
    for start in range(0, len(first), _BLOCK):
        part = slice(start, start + _BLOCK)
        turned = np.stack([turn(fine_queries[i], o) for i, o in zip(first[part], orientation[part], strict=True)])
        scores = _aligned(turned, fine_targets[second[part]])
        pairs += [
            Pair(int(first[start + k]), int(second[start + k]), float(scores[k]), int(orientation[start + k]), view)
            for k in np.flatnonzero(scores >= near)
        ]
    return pairs


def _candidates(
    queries: NDArray[np.uint8], targets: NDArray[np.uint8], within: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """For each query its nearest targets over all orientations: three arrays, of queries, targets, orientations."""
    import faiss

    described = _coarse(targets)
    index = faiss.IndexHNSWFlat(described.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 80
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # built in one order, so that two runs find the same
    index.add(described)
    faiss.omp_set_num_threads(threads)
    index.hnsw.efSearch = 96
    wanted = _NEIGHBOURS + int(within)
    scores, found = [], []
    for orientation in range(len(NAMES)):
        score, number = index.search(_coarse(turn(queries, orientation)), wanted)
        scores.append(score)
        found.append(number)
    best, number = np.stack(scores, axis=1).reshape(len(queries), -1), np.stack(found, axis=1).reshape(len(queries), -1)
    if within:
        best[number == np.arange(len(queries))[:, None]] = -np.inf
    best[number < 0] = -np.inf
    top = np.argsort(-best, axis=1, kind="stable")[:, :_NEIGHBOURS]
    rows = np.repeat(np.arange(len(queries)), top.shape[1])
    flat = top.ravel()
    usable = np.isfinite(best[rows, flat])
    rows, flat = rows[usable], flat[usable]
    return rows, number[rows, flat], flat // wanted


def _coarse(thumbnails: NDArray[np.uint8]) -> Float32:
    count, step = len(thumbnails), THUMBNAIL // _COARSE
    blocks = thumbnails.reshape(count, _COARSE, step, _COARSE, step).mean(axis=(2, 4), dtype=np.float32)
    return _unit(blocks.reshape(count, -1))


def _fine(thumbnails: NDArray[np.uint8]) -> Float32:
    from scipy.ndimage import gaussian_filter

    fine = np.empty(thumbnails.shape, dtype=np.float32)
    for start in range(0, len(thumbnails), _BLOCK):
        part = thumbnails[start : start + _BLOCK].astype(np.float32)
        fine[start : start + _BLOCK] = part - gaussian_filter(part, (0, _BLUR, _BLUR))
    return fine


def _aligned(pictures: Float32, others: Float32) -> Float32:
    """Correlation (n,) of two stacks (n, 64, 64), the best over small shifts."""
    scores = np.einsum("ij,ij->i", _unit(pictures.reshape(len(pictures), -1)), _unit(others.reshape(len(others), -1)))
    likely = np.flatnonzero(scores > _PLAUSIBLE)
    if not likely.size:
        return np.asarray(scores, dtype=np.float32)
    inner = slice(_SHIFT, THUMBNAIL - _SHIFT)
    fixed = _unit(others[likely, inner, inner].reshape(likely.size, -1))
    for down in range(2 * _SHIFT + 1):
        for right in range(2 * _SHIFT + 1):
            window = pictures[likely, down : THUMBNAIL - 2 * _SHIFT + down, right : THUMBNAIL - 2 * _SHIFT + right]
            moved = np.einsum("ij,ij->i", _unit(window.reshape(likely.size, -1)), fixed)
            scores[likely] = np.maximum(scores[likely], moved)
    return np.asarray(scores, dtype=np.float32)


def _unit(rows: NDArray[np.float32]) -> Float32:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred / (np.linalg.norm(centred, axis=1, keepdims=True) + 1e-6), dtype=np.float32)


def _inverse(orientation: int) -> int:
    # A mirrored turn is its own inverse; a plain turn goes back the other way.
    return orientation if orientation % 2 else (8 - orientation) % 8
