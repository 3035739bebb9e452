"""The shipped model on labelled pictures from elsewhere, less those that resemble a picture of its training data.

    python benchmarks/elsewhere.py MANIFEST FOLDER… [--beside BUNDLE]

MANIFEST is that of the training; FOLDERs are data sets as `tumorlens data index` reads them. Left out are pictures that
a copy or a near copy (turned, mirrored) of is in the manifest, on any side. Patients are unknown, so intervals are by
clusters of near copies, which makes them too narrow; labels are as the data sets have them, right or wrong. `--beside`
answers with another model too, and tells by how much its accuracy differs, paired.
"""

import argparse
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from answering import answers
from numpy.typing import NDArray

from tumorlens.bootstrap import PatientBootstrap, mean
from tumorlens.data.index import index_folder
from tumorlens.data.manifest import read_manifest
from tumorlens.data.readers import read_slice
from tumorlens.data.similarity import clusters, pairs_between, pairs_within, thumbnail
from tumorlens.evaluate.answers import collect
from tumorlens.evaluate.metrics import tabulate
from tumorlens.pipeline import REFERENCE
from tumorlens.records import Prediction, Sample, class_title
from tumorlens.runtime.predictor import Predictor

FIGURES = ("accuracy", "balanced_accuracy", "auc", "log_loss", "ece", "calibration_slope")


def main() -> None:
    """Leave out, answer, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--beside", type=Path)
    given = parser.parse_args()
    root = given.manifest.parent
    known = thumbnails(read_manifest(given.manifest), root)
    samples = [item for folder in given.folders for item in index_folder(folder, root).samples]
    looks = thumbnails(samples, root)
    copied = {pair.first for pair in pairs_between(looks, known)}
    rest = [number for number in range(len(samples)) if number not in copied]
    kept = [samples[number] for number in rest]
    sys.stdout.write(f"{len(samples)} pictures, {len(copied)} resemble one of the manifest, {len(kept)} are left\n")
    if not kept:
        raise SystemExit("none is left to be answered")
    groups = clusters(len(kept), ((pair.first, pair.second) for pair in pairs_within(looks[rest])))
    kept = [replace(item, patient_group=f"cluster{group}") for item, group in zip(kept, groups, strict=True)]
    bootstrap = PatientBootstrap([item.patient_group for item in kept])
    right = tell(REFERENCE, kept, root, bootstrap)
    if given.beside:
        sys.stdout.write(f"\n{given.beside}\n")
        more = tell(given.beside, kept, root, bootstrap) - right
        sys.stdout.write(f"\naccuracy, its less the shipped model's: {bootstrap.estimate(mean(more))}\n")


def tell(model: Path, kept: list[Sample], root: Path, bootstrap: PatientBootstrap) -> NDArray[np.float64]:
    """Figures of a model; gives which answers are right, where it may refuse nothing."""
    found, forced = (
        [item.prediction for item in answers(Predictor(model, answer_all=way), kept, root)] for way in (False, True)
    )
    refused = np.array([item.status == "refused" for item in found])
    strange = np.array([not item.probabilities for item in found])
    for name, part in (("refused as no brain MRI", strange), ("refused as too uncertain", refused & ~strange)):
        sys.stdout.write(f"{name}: {part.sum()}, {bootstrap.estimate(mean(part.astype(float)))}\n")
    show("all of them, answered whether or not", forced)
    show("answered ones", [item for item in found if item.status == "ok"])
    return np.array([item.predicted == item.label for item in forced], dtype=np.float64)


def thumbnails(samples: list[Sample], root: Path) -> NDArray[np.uint8]:
    """The views of pictures (n, 2, 64, 64)."""
    return np.stack([thumbnail(read_slice(root, item)) for item in samples])


def show(name: str, predictions: list[Prediction]) -> None:
    """Figures of some answers."""
    table = tabulate(collect(predictions))
    counts = Counter(item.label for item in predictions)
    told = ", ".join(f"{class_title(label)} {count}" for label, count in sorted(counts.items()))
    sys.stdout.write(f"\n{name}: {len(predictions)} ({told})\n")
    for key in FIGURES:
        if key in table.overall:
            sys.stdout.write(f"  {key} {table.overall[key]}\n")
    for label, figures in table.by_class.items():
        sys.stdout.write(f"  {class_title(label)}: sensitivity {figures['sensitivity']}, auc {figures['auc']}\n")
        said = Counter(item.predicted for item in predictions if item.label == label)
        sys.stdout.write(f"    answered {', '.join(f'{class_title(name)} {n}' for name, n in said.most_common())}\n")


if __name__ == "__main__":
    main()
