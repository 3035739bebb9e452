"""When "no tumour" is contradicted by the region map: how many missed tumours that catches, and what it costs.

    python benchmarks/contradiction.py MANIFEST BUNDLE --fold 0

BUNDLE is of the run of that fold, and has a region head. The limit is chosen on validation slices, as `tumorlens
region` does; counted are tested ones.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from answering import answers

from tumorlens.bootstrap import PatientBootstrap, mean
from tumorlens.cli.sides import samples_of
from tumorlens.records import Sample
from tumorlens.runtime.predictor import Predictor
from tumorlens.train.region import contradiction
from tumorlens.train.tasks import NONE


def main() -> None:
    """Answer both sides, choose, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--fold", default="0")
    given = parser.parse_args()
    predictor = Predictor(given.bundle, answer_all=True)
    sides = samples_of(given.manifest, given.fold, given.bundle)
    val, test = ([item for item in sides if item.split == side] for side in ("val", "test"))
    limit = contradiction(*told(predictor, val, given.manifest.parent))
    if limit is None:
        raise SystemExit("no validation slice is rightly answered no_tumor")
    shares, peaks, labels = told(predictor, test, given.manifest.parent)
    said_none = shares.argmax(axis=1) == NONE
    sys.stdout.write(f"limit {limit:.3f}, of {len(val)} validation slices; {len(test)} tested slices\n")
    groups = np.array([item.patient_group for item in test])
    for name, part in (("tumours answered no_tumor", said_none & (labels != NONE)),
                       ("tumour-free slices answered no_tumor", said_none & (labels == NONE))):  # fmt: skip
        found = PatientBootstrap(list(groups[part])).estimate(mean((peaks[part] > limit).astype(float)))
        sys.stdout.write(f"{name}: {part.sum()}, contradicted {(peaks[part] > limit).sum()}, {found}\n")


def told(predictor: Predictor, samples: list[Sample], root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (n, C), peaks of the region map (n,) and class numbers (n,)."""
    shares, peaks = [], []
    for answer in answers(predictor, samples, root):
        assert answer.region is not None
        shares.append(answer.prediction.probabilities)
        peaks.append(float(answer.region.max()))
    return np.array(shares), np.array(peaks), np.array([predictor.classes.index(item.label) for item in samples])


if __name__ == "__main__":
    main()
