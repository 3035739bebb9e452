"""Do maps follow the weights? Cascading randomisation, from the last stage to the first: `tumorlens explain sanity`.

Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018. A map that stays like itself while the network forgets
what it learned shows the picture, not the network.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from tumorlens.bootstrap import PatientBootstrap, mean
from tumorlens.explain.gradcam import gradcam
from tumorlens.explain.scores import rank_likeness
from tumorlens.map_scores import Case
from tumorlens.model.bundle import load_card
from tumorlens.model.network import PARTS, TumorNet
from tumorlens.records import Estimate, Float32
from tumorlens.runtime.export import load_network

STEPS = ("head", *reversed(PARTS))


def cascade(
    bundle: Path, cases: Sequence[Case], progress: Callable[[str, int, int], None], seed: int = 0
) -> dict[str, Estimate]:
    """Rank correlation of Grad-CAM (of the trained network's class) before and after weights are drawn anew.

    Args:
        bundle: a bundle with weights or a graph.
        cases: slices, answered (`map_scores.cases_of`).
        progress: called with (stage, done, total).
        seed: of the weights that are drawn.

    Returns:
        By the last part that was drawn (`head`, `layer4`, … `stem`; those before it too), with 95 % intervals by
        patient; an empty map counts as 0.

    Raises:
        BundleError: no bundle there, or one without weights.
    """
    card = load_card(bundle)
    network = load_network(bundle, card)
    squares = np.stack([case.square for case in cases])
    chosen = [case.shown.chosen for case in cases]
    bootstrap = PatientBootstrap([case.group for case in cases])
    before = _maps(network, squares, chosen, card.temperature, card.classes)
    found = {}
    for number, part in enumerate(STEPS):
        progress("drawing weights anew", number, len(STEPS))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + number)
            _draw_anew(network, part)
        after = _maps(network, squares, chosen, card.temperature, card.classes)
        likeness = [rank_likeness(one, other) for one, other in zip(before, after, strict=True)]
        found[part] = bootstrap.estimate(mean(np.array(likeness)), "lower")
    return found


@torch.inference_mode()
def _maps(
    network: TumorNet, squares: Float32, chosen: Sequence[int], temperature: float, classes: tuple[str, ...]
) -> list[Float32]:
    found = []
    for square, number in zip(squares, chosen, strict=True):
        features = network.feature_map(torch.from_numpy(square)[None, None])
        logits = network.classify(network.pool(features)).double().numpy()
        shares = tuple(float(p) for p in softmax(logits / temperature, axis=1)[0])
        evidence = network.evidence(features)[0].numpy()
        found.append(gradcam(evidence, shares, classes, classes[number], "logit", temperature).values)
    return found


def _draw_anew(network: TumorNet, part: str) -> None:
    """Weights as before training: MONAI's ResNet and torch have them so."""
    for module in (network.head,) if part == "head" else network.modules_of(part):
        for item in module.modules():
            if isinstance(item, nn.Conv2d):
                nn.init.kaiming_normal_(item.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(item, nn.BatchNorm2d | nn.Linear):
                item.reset_parameters()
