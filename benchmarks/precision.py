"""What fewer bits change: a bundle's answers for tested slices in each precision, beside float32's and paired.

    python benchmarks/precision.py BUNDLE MANIFEST [--fold 0] [--side test]

Eight bits are measured of a bundle that was quantised (`tumorlens quantise`), bfloat16 where the processor computes in
it. Tested slices were seen neither in training nor for the quantisation.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from tumorlens.bootstrap import PatientBootstrap
from tumorlens.cli.sides import samples_of
from tumorlens.data.readers import read_slice
from tumorlens.evaluate.answers import collect
from tumorlens.evaluate.calibration import calibration_slope, even_edges, expected_calibration_error
from tumorlens.evaluate.folds import headline
from tumorlens.evaluate.pairs import compare_pair
from tumorlens.model.bundle import load_card
from tumorlens.pipeline import Explained
from tumorlens.records import Prediction, Sample, Slice
from tumorlens.runtime.engine import Precision, capabilities
from tumorlens.runtime.predictor import Predictor

BATCH = 4
Found = tuple[list[Prediction], list[np.ndarray]]


def answer(bundle: Path, precision: Precision, samples: list[Sample], pictures: list[Slice]) -> Found:
    """Labelled predictions and their Grad-CAM maps."""
    predictor = Predictor(bundle, answer_all=True, precision=precision)
    found, maps = [], []
    for start in range(0, len(pictures), BATCH):
        part = pictures[start : start + BATCH]
        for reply, picture in zip(predictor.predict(part), part, strict=True):
            found.append(reply.prediction)
            maps.append(Explained(reply, picture).heatmap())
    labelled = [
        replace(p, label=s.label, patient_group=s.patient_group, source=s.path, origin=s.source)
        for p, s in zip(found, samples, strict=True)
    ]
    return labelled, maps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--side", choices=("val", "test"), default="test")
    given = parser.parse_args()
    samples = samples_of(given.manifest, given.fold, given.bundle)
    tested = [item for item in samples if item.split == given.side]
    pictures = [read_slice(given.manifest.parent, item) for item in tested]
    names = precisions(given.bundle)
    found = {name: answer(given.bundle, name, tested, pictures) for name in names}
    answers = {name: collect(rows) for name, (rows, _) in found.items()}
    pairs = {name: compare_pair(answers["fp32"], answers[name]) for name in names[1:]}
    groups = {item.patient_group for item in tested}
    print(f"{len(tested)} slices of {len(groups)} groups, side {given.side} of fold {given.fold}")
    print(f"| figure | {' | '.join(names)} | {' | '.join(f'{name} minus fp32, paired' for name in pairs)} |")
    print("|" + "---|" * (1 + len(names) + len(pairs)))
    tables = [headline(answers[name]) for name in names]
    for scope, measures in tables[0].items():
        for metric in measures.metrics:
            draws = PatientBootstrap(measures.groups)
            values = [draws.estimate(table[scope].metrics[metric]) for table in tables]
            differences = [pair.differences[metric] for pair in pairs.values()]
            print(f"| {scope or 'all'}: {metric} | {' | '.join(map(str, values + differences))} |")
    for name, figure in (
        ("calibration slope", calibration_slope),
        ("expected calibration error", lambda a: expected_calibration_error(a, even_edges())),
    ):
        values = [PatientBootstrap(a.groups).estimate(figure(a)) for a in answers.values()]
        print(f"| {name} | {' | '.join(map(str, values))} |{' |' * len(pairs)}")
    for name in pairs:
        agreement(name, found["fp32"], found[name])


def precisions(bundle: Path) -> list[Precision]:
    """Those that the bundle and this processor have, float32 first."""
    found: list[Precision] = ["fp32"]
    if load_card(bundle).int8:
        found.append("int8")
    if "BF16" in capabilities():
        found.append("bf16")
    return found


def agreement(name: str, exact: Found, other: Found) -> None:
    """How far single answers and their maps move."""
    one, two = (np.array([p.probabilities for p in rows]) for rows, _ in (exact, other))
    gaps = np.abs(one - two).max(axis=1)
    same = one.argmax(axis=1) == two.argmax(axis=1)
    near = np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(exact[1], other[1], strict=True)])
    print(f"{name}: same class: {same.mean():.3f}; largest difference of a probability: median {np.median(gaps):.4f}, "
          f"99 % below {np.quantile(gaps, 0.99):.3f}")  # fmt: skip
    for kind, part in (("all maps", near), ("maps of the same class", near[same])):
        print(f"{name}: correlation of {kind}: median {np.nanmedian(part):.3f}, 99 % above "
              f"{np.nanquantile(part, 0.01):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
