"""Grad-CAM at the last residual block in closed form, from evidence maps alone.

Selvaraju et al., Grad-CAM, ICCV 2017. With global average pooling and one linear layer, logit c is the mean of the
evidence map M[c] = sum_k W[c, k] A[k] plus a bias. The gradient of the logit by A[k] is W[c, k] / (h w), everywhere
alike, so Grad-CAM for the logit is ReLU(M[c]) / (h w). For the softmax probability p_c = softmax(z / T)_c the weights
are p_c (W[c] - sum_j p_j W[j]) / (T h w), so the map is ReLU(p_c (M[c] - sum_j p_j M[j])) / (T h w). No backward
pass; the tests hold both against autograd and torchcam.
"""

from typing import Literal

import numpy as np

from tumorlens.errors import TumorlensError
from tumorlens.records import Float32, Heatmap


def gradcam(
    evidence: Float32,
    probabilities: tuple[float, ...],
    classes: tuple[str, ...],
    target_class: str,
    target: Literal["probability", "logit"] = "probability",
    temperature: float = 1.0,
) -> Heatmap:
    """Grad-CAM of one class.

    Args:
        evidence: (C, h, w) evidence maps.
        probabilities: (C,), the softmax of the logits divided by `temperature`.
        classes: the C class names.
        target_class: the class to explain.
        target: what is differentiated. `probability` shows what speaks for this class rather than the others;
            `logit` what speaks for it at all.
        temperature: T of the probabilities.

    Returns:
        The map (h, w), float32, at least 0, not normalised.

    Raises:
        TumorlensError: `target_class` is not one of `classes`.
    """
    if target_class not in classes:
        raise TumorlensError(f"class {target_class!r} is not one of {', '.join(classes)}")
    chosen = classes.index(target_class)
    maps = evidence.astype(np.float64)
    area = maps.shape[1] * maps.shape[2]
    if target == "logit":
        values = maps[chosen] / area
    else:
        shares = np.asarray(probabilities, dtype=np.float64)
        mean = np.tensordot(shares, maps, axes=1)
        values = shares[chosen] * (maps[chosen] - mean) / (temperature * area)
    return Heatmap(np.maximum(values, 0).astype(np.float32), target_class, target)
