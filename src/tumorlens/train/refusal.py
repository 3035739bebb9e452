"""Telling brain MRI from what is none, by what the network has computed anyway.

A logistic regression on the pooled output of the last stage but one (conv4, 1024 values), fitted on brain slices
against pictures of other kinds: outlier exposure (Hendrycks, Mazeika & Dietterich, ICLR 2019) with one linear layer.
Distances from the training slices alone (Mahalanobis, nearest neighbours) were tried first: they refuse other scanners'
brains long before they refuse a chest X-ray (`docs/trust.md`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from tumorlens.config import AugmentSettings
from tumorlens.model.network import TumorNet
from tumorlens.train import augment
from tumorlens.train.device import autocast

FEATURES = 1024
#: Moved further than in training: a turned, dark or coarse slice is a brain all the same.
VIEWS = AugmentSettings(
    rotation=20.0, zoom=0.25, shift=0.08, mirror=0.5, upside_down=0.25, quarter_turn=0.25, gamma=0.6, contrast=0.25,
    noise=0.06, blur=0.4, bias_field=0.4, ghosting=0.15,
)  # fmt: skip
#: How much of a head is peeled off to look like a skull-stripped one, as a share of its smaller extent: from, to.
PEEL = (0.05, 0.13)
_HEAD = 0.1  # grey value above which a pixel belongs to the head
_STRENGTH = 1e-3  # of the fit, the inverse of its penalty: weak, as 1024 values describe a few hundred kinds of things
_BATCH = 32


@dataclass(frozen=True)
class Gate:
    """A picture's score is features @ weight + bias, in log odds: above 0 it is no brain MRI; `weight` is (1024,)."""

    weight: NDArray[np.float64]
    bias: float

    def scores(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Features (n, 1024) to scores (n,)."""
        return np.asarray(features @ self.weight + self.bias)


def fit_gate(brains: NDArray[np.float64], others: NDArray[np.float64]) -> Gate:
    """Fit on features (n, 1024) of brain slices and (m, 1024) of other pictures; both sides weigh the same."""
    from sklearn.linear_model import LogisticRegression

    values = np.concatenate([brains, others])
    mean, spread = values.mean(axis=0), values.std(axis=0) + 1e-6
    truth = np.arange(len(values)) >= len(brains)
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=500).fit((values - mean) / spread, truth)
    weight = model.coef_[0] / spread
    return Gate(weight, float(model.intercept_[0] - weight @ mean))


def peel(square: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """A slice without its outer layer (scalp, skull, a little brain), as in sets that come skull-stripped.

    A layer of even depth is no brain extraction, but looks like one's result: brain on black, with a sharp rim.

    Args:
        square: a prepared slice (size, size).
        share: depth of the layer, as a share of the head's smaller extent.

    Returns:
        The slice, black where the layer was; as it is where nothing would be left.
    """
    head = ndimage.binary_fill_holes(square > _HEAD * 255)
    parts, count = ndimage.label(head)
    if not count:
        return square
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    rows, columns = (np.flatnonzero(largest.any(axis=axis)) for axis in (1, 0))
    depth = share * min(np.ptp(rows), np.ptp(columns))
    inside = ndimage.distance_transform_edt(largest) > depth
    return np.where(inside, square, 0).astype(np.uint8) if inside.any() else square


@torch.inference_mode()
def pooled_features(
    network: TumorNet, images: torch.Tensor, views: int | None = None, precision: torch.dtype = torch.float32
) -> NDArray[np.float64]:
    """The pooled output of conv4 for pictures (n, size, size), uint8: (n, 1024).

    Args:
        network: in eval mode, on the CPU.
        images: prepared squares.
        views: a seed to move and re-light the pictures by VIEWS first; None to take them as they are.
        precision: what to compute in.
    """
    found = []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH].unsqueeze(1).float() / 255
        if views is not None:
            generator = torch.Generator().manual_seed(views + start)
            batch = augment.apply(batch, augment.draw(len(batch), VIEWS, generator), batch.shape[-1])
        with autocast(torch.device("cpu"), precision):
            maps = network.front(batch, "layer4")
        found.append(maps.float().mean(dim=(2, 3)).numpy())
    return np.concatenate(found).astype(np.float64)
