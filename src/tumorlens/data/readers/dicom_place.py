"""How a DICOM slice lies in the body, from the numbers of its header."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: For each plane the directions in which rows and columns of an upright slice go, in DICOM's axes (to the patient's
#: left, back and head): radiological convention, nose or crown up, sagittal slices looking to the left.
_UPRIGHT = {
    "sagittal": ((0, 0, -1), (0, 1, 0)),
    "coronal": ((0, 0, -1), (1, 0, 0)),
    "axial": ((0, 1, 0), (1, 0, 0)),
}


def plane_of(cosines: Any) -> tuple[str, int]:
    """The nearest plane, and the turn that makes the picture upright; ("", 0) where the header does not say."""
    directions = axes_of(cosines)
    if directions is None:
        return "", 0
    rows, columns = directions
    plane = ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(np.cross(columns, rows))))]
    wanted = np.asarray(_UPRIGHT[plane], dtype=float)
    fits = []
    for orientation in range(8):
        down, right = rows, columns
        for _ in range(orientation // 2):
            down, right = -right, down  # a quarter turn anticlockwise
        fits.append(down @ wanted[0] + (-right if orientation % 2 else right) @ wanted[1])
    return plane, int(np.argmax(fits))


def axes_of(cosines: Any) -> NDArray[np.float64] | None:
    """The directions in which rows and columns go, (2, 3), or None where the header does not say."""
    try:
        along = np.asarray([float(value) for value in cosines or ()])
    except (TypeError, ValueError):
        return None
    if along.shape != (6,) or not np.isfinite(along).all():
        return None
    columns, rows = along[:3], along[3:]
    unit = np.allclose([columns @ columns, rows @ rows], 1, atol=0.02) and abs(columns @ rows) < 0.02
    return np.stack([rows, columns]) if unit else None


def spacing_of(values: Any) -> tuple[float, float] | None:
    """Row and column spacing in mm, or None where the header does not say or cannot mean it."""
    try:
        row, column = (float(value) for value in values or ())
    except (TypeError, ValueError):
        return None
    return (row, column) if 0 < row < 1e3 and 0 < column < 1e3 else None
