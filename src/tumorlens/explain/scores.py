"""How well a map finds a tumour whose mask is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from scipy.stats import spearmanr

from tumorlens.errors import InputError
from tumorlens.records import Float32

#: A peak this near to the tumour still counts as found with tolerance, as a share of the side.
TOLERANCE = 0.05
#: Shares of a map's maximum at which its outline is tried.
LEVELS = tuple(round(0.05 * n, 2) for n in range(1, 20))

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Localisation:
    """One map against one mask. All but `distance` from 0 to 1.

    `peak`: whether the maximum lies in the tumour; `near`: or within TOLERANCE of the side. `energy`: share of the
    map in the tumour. `outside`: share of it outside the head. `precision`: average precision by pixel. `distance`:
    of the maximum from the tumour, as a share of the head's width (0 inside). `dice` and `iou` (len(LEVELS),): of the
    outlines at LEVELS of the map's maximum.
    """

    peak: float
    near: float
    energy: float
    precision: float
    distance: float
    outside: float
    dice: NDArray[np.float64]
    iou: NDArray[np.float64]


def localise(values: Float32, mask: Mask, head: Mask) -> Localisation:
    """Score a map.

    Args:
        values: (h, w), at least 0.
        mask: (h, w), the tumour.
        head: (h, w), where the picture shows the head.

    Returns:
        A map that is 0 everywhere finds nothing: its figures are 0, its distance is that of the picture's
        centre, its average precision and its share outside the head are those of chance.

    Raises:
        InputError: the mask is empty, or the shapes differ.
    """
    if values.shape != mask.shape or not mask.any():
        raise InputError(f"map {values.shape}, mask {mask.shape} with {mask.sum()} pixels; give a mask of its size")
    away = distance_transform_edt(~mask)
    columns = np.flatnonzero(head.any(axis=0))
    width = float(columns[-1] - columns[0] + 1) if columns.size else float(mask.shape[1])
    beyond = ~binary_fill_holes(head)
    total = float(values.sum())
    if total <= 0:
        centre = away[mask.shape[0] // 2, mask.shape[1] // 2]
        nothing = np.zeros(len(LEVELS))
        return Localisation(0.0, 0.0, 0.0, float(mask.mean()), float(centre) / width, beyond.mean(), nothing, nothing)
    place = np.unravel_index(int(values.argmax()), values.shape)
    outlines = [values >= level * values.max() for level in LEVELS]
    both = np.array([(outline & mask).sum() for outline in outlines], dtype=np.float64)
    either = np.array([(outline | mask).sum() for outline in outlines], dtype=np.float64)
    return Localisation(
        peak=float(mask[place]),
        near=float(away[place] <= TOLERANCE * max(mask.shape)),
        energy=float(values[mask].sum()) / total,
        precision=_average_precision(values, mask),
        distance=float(away[place]) / width,
        outside=float(values[beyond].sum()) / total,
        dice=2 * both / (both + either),
        iou=both / either,
    )


def _average_precision(values: Float32, mask: Mask) -> float:
    """By pixel, ties resolved as one step."""
    order = np.argsort(-values, axis=None, kind="stable")
    hits = np.cumsum(mask.ravel()[order])
    last = np.flatnonzero(np.append(np.diff(values.ravel()[order]) != 0, True))  # the end of each run of ties
    found = hits[last]
    return float((np.diff(found, prepend=0) * found / (last + 1)).sum() / found[-1])


def rank_likeness(first: Float32, second: Float32) -> float:
    """Spearman's correlation of two maps; 0 where one is the same all over."""
    if not (np.ptp(first) > 0 and np.ptp(second) > 0):
        return 0.0
    return float(spearmanr(first.ravel(), second.ravel()).statistic)
