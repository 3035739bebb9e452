"""Maps that know nothing of the answer: what a heatmap must beat."""

import numpy as np
from scipy.ndimage import gaussian_filter, sobel

from tumorlens.records import Float32


def centre(square: Float32) -> Float32:
    """A bell in the middle of a prepared square (size, size), a quarter of its side wide: most tumours lie there."""
    size = square.shape[0]
    place = (np.arange(size) - (size - 1) / 2) / (size / 4)
    return np.asarray(np.exp(-0.5 * (place[:, None] ** 2 + place[None, :] ** 2)), dtype=np.float32)


def edges(square: Float32) -> Float32:
    """The strength of edges in a prepared square (size, size), smoothed: what many saliency maps amount to.

    Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.
    """
    smooth = gaussian_filter(square.astype(np.float64), square.shape[0] / 96)
    strength = np.hypot(sobel(smooth, axis=0), sobel(smooth, axis=1))
    return np.asarray(gaussian_filter(strength, square.shape[0] / 48), dtype=np.float32)


def brightness(square: Float32) -> Float32:
    """The intensities of a prepared square (size, size), smoothed: contrast agent makes many tumours bright."""
    return np.asarray(gaussian_filter(square, square.shape[0] / 48), dtype=np.float32)
