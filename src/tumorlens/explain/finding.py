"""From a map to words: the evidence region, its outline, box, size and place. It is no segmentation of the tumour."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorlens.data.orientation import turn_back
from tumorlens.records import Float32


@dataclass(frozen=True)
class EvidenceRegion:
    """Where a map is strong, on the picture's own pixels.

    `mask` (height, width); `box` (top, left, bottom, right), the last two exclusive; `area` in pixels and `area_mm2`,
    None where the spacing is unknown; `place` says where in the head it lies, as it is shown: whose left and right
    that is, a single picture does not tell.
    """

    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    area: int
    area_mm2: float | None
    place: str

    @property
    def size(self) -> str:
        """Its size in words: mm² where the spacing is known, else its share of the picture."""
        return f"{self.area_mm2:.0f} mm²" if self.area_mm2 else f"{self.area / self.mask.size:.1%} of the picture"

    def to_json(self, orientation: int = 0) -> dict[str, Any]:
        """All but the mask, as plain values.

        Args:
            orientation: how the slice was turned to be upright; its box is given as it lies in the file.
        """
        box = _box(turn_back(self.mask, orientation))
        return {"box": list(box), "area": self.area, "area_mm2": self.area_mm2, "place": self.place}


def evidence_region(
    values: Float32,
    threshold: float,
    spacing: tuple[float, float] | None = None,
    head: tuple[int, int, int, int] | None = None,
) -> EvidenceRegion | None:
    """The connected part of a map above a threshold that holds the most of it.

    Args:
        values: (height, width), on the picture's pixels.
        threshold: what counts as strong.
        spacing: distance of rows and of columns in mm.
        head: (top, left, bottom, right) of the head in the picture; all of it by default.

    Returns:
        None where nothing reaches the threshold.
    """
    from scipy.ndimage import label  # heavy, and the command line imports this module at its start

    parts, count = label(values >= threshold)
    if not count:
        return None
    strengths = np.bincount(parts.ravel(), weights=values.ravel(), minlength=count + 1)[1:]
    mask = parts == 1 + int(strengths.argmax())
    area = int(mask.sum())
    return EvidenceRegion(
        mask=mask,
        box=_box(mask),
        area=area,
        area_mm2=area * spacing[0] * spacing[1] if spacing else None,
        place=_place(mask, head or (0, 0, *mask.shape)),
    )


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _place(mask: NDArray[np.bool_], head: tuple[int, int, int, int]) -> str:
    """Where the region's centre lies, in thirds of the head."""
    top, left, bottom, right = head
    rows, columns = np.nonzero(mask)
    row, column = (float(rows.mean()) - top) / (bottom - top), (float(columns.mean()) - left) / (right - left)
    vertical = "upper" if row < 1 / 3 else "lower" if row > 2 / 3 else ""
    horizontal = "left" if column < 1 / 3 else "right" if column > 2 / 3 else ""
    return f"{vertical} {horizontal}".strip() or "middle"
