"""The eight ways in which a picture can be turned by quarters and mirrored, as numbers 0 to 7; 0 is as it stands."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: In words: number // 2 quarter turns anticlockwise, then, where the number is odd, a left-right mirror.
NAMES: tuple[str, ...] = (
    "upright", "mirrored", "turned 90°", "turned 90°, mirrored",
    "turned 180°", "turned 180°, mirrored", "turned 270°", "turned 270°, mirrored",
)  # fmt: skip


def turn(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn the last two axes (rows, columns); a view."""
    turned = np.rot90(values, orientation // 2, (-2, -1))
    return turned[..., ::-1] if orientation % 2 else turned


def turn_back(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo `turn`; a view."""
    unmirrored = values[..., ::-1] if orientation % 2 else values
    return np.rot90(unmirrored, -(orientation // 2), (-2, -1))
