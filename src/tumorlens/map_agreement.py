"""Do two trained models look at the same place? `tumorlens explain sanity --beside OTHER`.

Arun et al., Assessing the Trustworthiness of Saliency Maps for Localizing Abnormalities in Medical Imaging, Radiology:
AI 2021, call it repeatability where the two were built alike and trained apart, reproducibility where they were not.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tumorlens.bootstrap import PatientBootstrap, mean
from tumorlens.data.preprocess import resize
from tumorlens.errors import RunError
from tumorlens.explain.gradcam import gradcam
from tumorlens.explain.scores import rank_likeness
from tumorlens.map_scores import Case, cases_of
from tumorlens.records import Estimate, Float32, Sample
from tumorlens.runtime.predictor import Predictor

LEAST = 4  # slices, for half a list to be another
SIZE = 48  # of the grid that two maps are compared on: finer than the cells of either
#: Names of the figures.
SAME, ANOTHER = "same slice", "another slice"


def agreement(
    cases: Sequence[Case],
    other: Predictor,
    samples: Sequence[Sample],
    root: Path,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> dict[str, Estimate]:
    """Rank correlation of two models' Grad-CAM of the logit of the class that the first predicts.

    Args:
        cases: slices, answered by the first model (`map_scores.cases_of`).
        other: the second model; the slices' patients must be unseen by it too, which nothing here can check.
        samples: rows among which the cases' are.
        root: the folder that their paths are relative to.
        progress: called with (stage, done, total).

    Returns:
        `same slice`, and, for comparison, `another slice`: the first model's map beside the second's of the same class
        for a slice half the list away, which shows how much is due to where tumours usually lie. With 95 % intervals
        by patient.

    Raises:
        RunError: the second model does not know a class of the first, or there are fewer than four slices.
    """
    own = {_key(case.sample): case for case in cases}
    unknown = {name for case in cases for name in case.shown.classes} - set(other.classes)
    if unknown:
        raise RunError(
            f"the other model does not know {', '.join(sorted(unknown))}; it knows {', '.join(other.classes)}. "
            "Give one of the same classes"
        )
    wanted = [item for item in samples if _key(item) in own]
    pairs = [(own[_key(case.sample)], case) for case in cases_of(other, wanted, root, "test", progress)]
    if len(pairs) < LEAST:
        raise RunError(f"{len(pairs)} slices that both models answer; at least {LEAST} are needed. Give more masks")
    half = len(pairs) // 2  # the next slice is often the same patient's
    shifted = [*pairs[half:], *pairs[:half]]
    first = [_map(case, case) for case, _ in pairs]
    second = [_map(case, asked) for asked, case in pairs]
    elsewhere = [_map(case, asked) for (asked, _), (_, case) in zip(pairs, shifted, strict=True)]
    bootstrap = PatientBootstrap([case.group for case, _ in pairs])
    found = {}
    for name, maps in ((SAME, second), (ANOTHER, elsewhere)):
        likeness = [rank_likeness(one, two) for one, two in zip(first, maps, strict=True)]
        found[name] = bootstrap.estimate(mean(np.array(likeness)))
    return found


def _key(item: Sample) -> tuple[str, int, str]:
    """One slice: a file may have many."""
    return item.path, item.frame, item.plane


def _map(case: Case, asked: Case) -> Float32:
    """The case's model's map of the class that `asked` was answered with."""
    shown = case.shown
    name = asked.shown.classes[asked.shown.chosen]
    heat = gradcam(shown.evidence, shown.probabilities, shown.classes, name, "logit", shown.temperature)
    return resize(heat.values, SIZE, SIZE)
