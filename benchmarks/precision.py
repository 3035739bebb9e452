"""What 8 bits change: a bundle's answers for tested slices in both precisions, beside each other and paired.

    python benchmarks/precision.py BUNDLE MANIFEST [--fold 0]

BUNDLE has been quantised (`tumorlens quantise`). Tested slices were seen neither in training nor for the quantisation.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tumorlens.bootstrap import PatientBootstrap
from tumorlens.data.manifest import read_manifest
from tumorlens.data.readers import read_slice
from tumorlens.data.splits import VAL_SHARE, sides_of_fold
from tumorlens.evaluate.answers import collect
from tumorlens.evaluate.calibration import calibration_slope, even_edges, expected_calibration_error
from tumorlens.evaluate.folds import headline
from tumorlens.evaluate.pairs import compare_pair
from tumorlens.pipeline import Explained
from tumorlens.records import Prediction, Sample, Slice
from tumorlens.runtime.engine import Precision
from tumorlens.runtime.predictor import Predictor

BATCH = 4
Found = tuple[list[Prediction], list[np.ndarray], float]


def answer(bundle: Path, precision: Precision, samples: list[Sample], pictures: list[Slice]) -> Found:
    """Labelled predictions, their Grad-CAM maps, and the pictures a second."""
    predictor = Predictor(bundle, answer_all=True, precision=precision)
    found, maps = [], []
    began = time.perf_counter()
    for start in range(0, len(pictures), BATCH):
        part = pictures[start : start + BATCH]
        for reply, picture in zip(predictor.predict(part), part, strict=True):
            found.append(reply.prediction)
            maps.append(Explained(reply, picture).heatmap())
    rate = len(pictures) / (time.perf_counter() - began)
    labelled = [
        replace(p, label=s.label, patient_group=s.patient_group, source=s.path, origin=s.source)
        for p, s in zip(found, samples, strict=True)
    ]
    return labelled, maps, rate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--fold", default="0")
    given = parser.parse_args()
    samples = sides_of_fold(read_manifest(given.manifest), given.fold, VAL_SHARE, seed=0)
    tested = [item for item in samples if item.split == "test"]
    pictures = [read_slice(given.manifest.parent, item) for item in tested]
    found = {precision: answer(given.bundle, precision, tested, pictures) for precision in ("fp32", "int8")}
    answers = {name: collect(rows) for name, (rows, _, _) in found.items()}
    pair = compare_pair(answers["fp32"], answers["int8"])
    print(f"{len(tested)} tested slices of {len({item.patient_group for item in tested})} groups, fold {given.fold}")
    print("| figure | fp32 | int8 | int8 minus fp32, paired |\n|---|---|---|---|")
    tables = [headline(answers[name]) for name in ("fp32", "int8")]
    for scope, measures in tables[0].items():
        for name in measures.metrics:
            draws = PatientBootstrap(measures.groups)
            values = [draws.estimate(table[scope].metrics[name]) for table in tables]
            print(f"| {scope or 'all'}: {name} | {values[0]} | {values[1]} | {pair.differences[name]} |")
    for name, metric in (
        ("calibration slope", calibration_slope),
        ("expected calibration error", lambda a: expected_calibration_error(a, even_edges())),
    ):
        values = [PatientBootstrap(a.groups).estimate(metric(a)) for a in answers.values()]
        print(f"| {name} | {values[0]} | {values[1]} | |")
    one, other = (np.array([p.probabilities for p in found[name][0]]) for name in found)
    gaps = np.abs(one - other).max(axis=1)
    same = (one.argmax(axis=1) == other.argmax(axis=1)).mean()
    near = np.array(
        [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*(found[n][1] for n in found), strict=True)]
    )
    print(f"same class: {same:.3f}; largest difference of a probability: median {np.median(gaps):.4f}, 99 % below "
          f"{np.quantile(gaps, 0.99):.3f}")  # fmt: skip
    print(f"correlation of maps: median {np.nanmedian(near):.3f}, 99 % above {np.nanquantile(near, 0.01):.3f}")
    print(f"pictures a second: fp32 {found['fp32'][2]:.1f}, int8 {found['int8'][2]:.1f}, "
          f"ratio {found['int8'][2] / found['fp32'][2]:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
