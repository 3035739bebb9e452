"""What follows when a network is trained: calibration on the validation side, and answers as predictions."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from tumorlens.data.dataset import SliceDataset
from tumorlens.model.label_sets import DEFAULT_COVERAGE, LabelSets, fit_label_sets, label_set
from tumorlens.model.temperature import fit_temperature
from tumorlens.records import CLASSES, Prediction, Sample


def calibrated(logits: NDArray[np.float64], dataset: SliceDataset) -> tuple[float, LabelSets, NDArray[np.float64]]:
    """Temperature and label sets from the validation side, and the probabilities (n, C) of all logits (n, C)."""
    val = np.array([sample.split == "val" for sample in dataset.samples])
    labels = dataset.labels.numpy()
    temperature = fit_temperature(logits[val], labels[val])
    shares = softmax(logits / temperature, axis=1)
    groups = [sample.patient_group for sample in dataset.samples if sample.split == "val"]
    return temperature, fit_label_sets(shares[val], labels[val], groups, CLASSES, "validation patients"), shares


def labelled(samples: Sequence[Sample], shares: NDArray[np.float64], sets: LabelSets) -> list[Prediction]:
    """Probabilities (n, C) of a run's samples as predictions, with their label sets."""
    thresholds = sets.at(DEFAULT_COVERAGE)
    return [
        Prediction(
            source=sample.path,
            frame=sample.frame,
            status="ok",
            classes=CLASSES,
            probabilities=tuple(float(p) for p in row),
            label_set=label_set(row, CLASSES, thresholds),
            label=sample.label,
            patient_group=sample.patient_group,
            split=sample.split,
            origin=sample.source,
            plane=sample.plane,
        )
        for sample, row in zip(samples, shares, strict=True)
    ]


def data_summary(samples: Sequence[Sample]) -> dict[str, dict[str, dict[str, int]]]:
    """Slices of the training split by source and class."""
    table: dict[str, Counter[str]] = {}
    for sample in samples:
        if sample.split == "train":
            table.setdefault(sample.source, Counter())[sample.label] += 1
    return {"slices": {source: dict(sorted(counts.items())) for source, counts in sorted(table.items())}}
