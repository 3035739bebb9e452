"""Does the answer change where a map says it should? Deletion and insertion curves.

Petsiuk, Das & Saenko, RISE, BMVC 2018. Deleting replaces pixels by a blurred picture, the strongest first; inserting
starts from the blurred picture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tumorlens.records import Float32

STEPS = 12
_BLUR = 12  # the side over the standard deviation of what pixels are replaced by

#: Squares (n, 1, size, size) to the probability (n,) of the class that is explained.
Ask = Callable[[Float32], NDArray[np.float64]]


@dataclass(frozen=True)
class Faithfulness:
    """Areas under the curves, 0 to 1: `deletion` (lower is better) and `insertion` (higher is better)."""

    deletion: float
    insertion: float


def faithfulness(square: Float32, values: Float32, ask: Ask, steps: int = STEPS) -> Faithfulness:
    """Both curves of one map.

    Args:
        square: the prepared picture (size, size).
        values: its map (size, size).
        ask: the model.
        steps: in how many parts of equal size the pixels go.
    """
    blurred = gaussian_filter(square, square.shape[0] / _BLUR)
    rank = np.empty(values.size, dtype=np.int64)
    rank[np.argsort(-values, axis=None, kind="stable")] = np.arange(values.size)
    gone = [rank.reshape(values.shape) < values.size * step / steps for step in range(steps + 1)]
    pictures = [np.where(part, blurred, square) for part in gone] + [np.where(part, square, blurred) for part in gone]
    said = ask(np.stack(pictures)[:, None].astype(np.float32))
    deletion, insertion = said[: steps + 1], said[steps + 1 :]
    return Faithfulness(float(np.trapezoid(deletion) / steps), float(np.trapezoid(insertion) / steps))
