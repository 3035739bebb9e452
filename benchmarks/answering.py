"""Labelled slices through a model, a batch at a time: the loop that several benchmarks share."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tumorlens.data.readers import read_slice
from tumorlens.records import Sample, Slice
from tumorlens.runtime.predictor import Answer, Predictor

BATCH = 8


def answers(
    predictor: Predictor, samples: list[Sample], root: Path, pictures: list[Slice] | None = None
) -> Iterator[Answer]:
    """The answer for every sample, whose label, patient group and source its prediction takes over.

    Args:
        predictor: made with `answer_all` where nothing may be refused.
        samples: of a manifest.
        root: the folder that their paths begin at.
        pictures: in their place, where they were read already or changed.
    """
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        slices = pictures[start : start + BATCH] if pictures else [read_slice(root, item) for item in batch]
        for item, answer in zip(batch, predictor.predict(slices), strict=True):
            prediction = replace(
                answer.prediction,
                source=item.path,
                frame=item.frame,
                label=item.label,
                patient_group=item.patient_group,
                origin=item.source,
            )
            yield replace(answer, prediction=prediction)
