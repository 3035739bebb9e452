"""Finer than the last feature map: heatmaps weighed by the region head's cells, and maps that set two classes apart."""

import numpy as np
from PIL import Image

from tumorlens.errors import TumorlensError
from tumorlens.records import Float32, Heatmap


def sharpen(heat: Heatmap, region: Float32) -> Heatmap:
    """A heatmap where the region head sees tumour: what the answer rests on, cut to the finer cells that look ill.

    Args:
        heat: of the last block, (h, w).
        region: (h', w'), the probability of each finer cell to show tumour.

    Returns:
        (h', w'): the map, stretched bilinearly, times the probability. Zero where the map is zero.
    """
    image = Image.fromarray(np.ascontiguousarray(heat.values, dtype=np.float32))
    large = image.resize((region.shape[1], region.shape[0]), Image.Resampling.BILINEAR)
    return Heatmap(np.asarray(large, dtype=np.float32) * region, heat.target_class, heat.target)


def contrast(evidence: Float32, classes: tuple[str, ...], first: str, second: str) -> Heatmap:
    """Why one class rather than another: where the evidence for `first` exceeds that for `second`.

    It is Grad-CAM of the difference of their logits, in closed form.

    Args:
        evidence: (C, h, w) evidence maps.
        classes: the C class names.
        first: the class to explain.
        second: the class to set it apart from.

    Raises:
        TumorlensError: one of the two is no class, or both are the same.
    """
    unknown = [name for name in (first, second) if name not in classes]
    if unknown or first == second:
        raise TumorlensError(
            f"cannot set {first!r} apart from {second!r}: give two different classes of {', '.join(classes)}"
        )
    maps = evidence.astype(np.float64)
    values = (maps[classes.index(first)] - maps[classes.index(second)]) / (maps.shape[1] * maps.shape[2])
    return Heatmap(np.maximum(values, 0).astype(np.float32), first, "logit")
