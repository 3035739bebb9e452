"""The nouns that travel between the rooms. Plain frozen values: no behaviour beyond their own consistency."""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Split = Literal["train", "val", "test"]
Status = Literal["ok", "refused", "error"]
#: Which way a figure is good: up, down, or the nearer to one or to zero.
Better = Literal["higher", "lower", "one", "zero"]

#: Class names in the order of every logit, probability and evidence map.
CLASSES: tuple[str, ...] = ("glioma", "meningioma", "no_tumor", "pituitary")

#: How the classes are written for people.
CLASS_TITLES: dict[str, str] = {
    "glioma": "Glioma",
    "meningioma": "Meningioma",
    "no_tumor": "No tumour",
    "pituitary": "Pituitary tumour",
}

#: How patient groups begin that are formed for want of a patient: of equal files, or of pictures that look alike.
FILE, SIMILAR = "file:", "similar:"


def class_title(name: str) -> str:
    """A class name as people write it; a class of somebody's own stays as it is."""
    return CLASS_TITLES.get(name, name)


@dataclass(frozen=True)
class Sample:
    """One row of a manifest: an image on disk with its label and its patient.

    `path` and `mask` are relative to the manifest's folder, and may name a member of an archive (`set.zip!1.mat`).
    `patient_group` is what a split keeps on one side; where no patient id is known, `patient_id` is empty and the
    group is formed from the pixels. `frame` and `plane` say which slice of a volume or multi-frame file it is.
    """

    path: str
    label: str
    patient_id: str
    patient_group: str
    source: str
    mask: str
    sha256: str
    width: int
    height: int
    split: str = ""
    fold: str = ""
    frame: int = 0
    plane: str = ""


@dataclass(frozen=True)
class Slice:
    """One two-dimensional picture: `pixels` (height, width), float32, rows downwards, finite, any range.

    `frame` counts from 0 within the file that `source` names. `spacing` is the distance of rows and of columns in mm,
    or None where unknown; `plane` is axial, coronal, sagittal, or empty where unknown. `orientation` tells how the
    stored pixels were turned to be upright (see `data.orientation`); 0 where they were not.
    """

    pixels: Float32
    source: str
    frame: int = 0
    spacing: tuple[float, float] | None = None
    plane: str = ""
    orientation: int = 0


@dataclass(frozen=True)
class Prediction:
    """The answer for one slice. `probabilities` (C,) in the order of `classes`, summing to 1 when `ok`.

    `source` is the file that was given; `origin` the data set it is of (the manifest's `source`), empty where unknown.
    `tumour_share` is the share of the picture that the tumour's mask fills, NaN where there is none; `map` is the name,
    without an ending, of the files that show its heatmap, empty where none was written.
    """

    source: str
    frame: int
    status: Status
    classes: tuple[str, ...]
    probabilities: tuple[float, ...] = ()
    label_set: tuple[str, ...] = ()
    message: str = ""
    label: str = ""
    patient_group: str = ""
    split: str = ""
    origin: str = ""
    plane: str = ""
    tumour_share: float = float("nan")
    map: str = ""

    @property
    def predicted(self) -> str:
        """The most probable class, or an empty string where there is no answer."""
        if not self.probabilities:
            return ""
        return self.classes[int(np.argmax(self.probabilities))]

    @property
    def doubt(self) -> str:
        """Why an answer is too uncertain to count, without the message's advice; empty where it counts."""
        before, _, reason = self.message.partition("too uncertain: ")
        return "" if before or self.status != "refused" else reason.partition(";")[0]

    @property
    def tumour_probability(self) -> float:
        """The probability of any tumour; without a class `no_tumor` the confidence. NaN where there is no answer."""
        if not self.probabilities or "no_tumor" not in self.classes:
            return self.confidence
        return 1 - self.probabilities[self.classes.index("no_tumor")]

    @property
    def confidence(self) -> float:
        """The probability of the predicted class; NaN where there is no answer."""
        return max(self.probabilities, default=float("nan"))


@dataclass(frozen=True)
class Heatmap:
    """A Grad-CAM map: `values` (h, w), float32, at least 0, not normalised; the `target` it explains."""

    values: Float32
    target_class: str
    target: Literal["probability", "logit"]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval.

    `n` counts the resampling units (patient groups); `n_slices` the slices behind them. Without an interval (it cannot
    be had, or would say nothing) `low` and `high` are NaN.
    """

    value: float
    low: float
    high: float
    n: int
    n_slices: int
    better: Better = "higher"

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.interval})" if self.interval else f"{self.value:.3f}"

    @property
    def interval(self) -> str:
        """The interval as people write it, empty where there is none."""
        return "" if math.isnan(self.low) else f"{self.low:.3f} to {self.high:.3f}"


@dataclass(frozen=True)
class Geometry:
    """How a prepared square relates to the original picture, so that maps can be laid back over it.

    Crop `box` (top, left, bottom, right) in original pixels; the crop is stretched to `shape` (height, width) where
    pixels are not square, and centred in a square of `side` pixels at offset `pad` (top, left); the square is then
    resized to the network's input size. An empty `shape` is the box's own.
    """

    height: int
    width: int
    box: tuple[int, int, int, int]
    side: int
    pad: tuple[int, int] = field(default=(0, 0))
    shape: tuple[int, int] | None = None
