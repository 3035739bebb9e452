"""Do mirrored pictures pay at test time? Mean logits of a slice and its mirror image beside the slice's own.

    python benchmarks/flips.py MANIFEST BUNDLE [--fold 0]

On the validation side, as this is a choice; temperatures are fitted on it for each way, so that log losses compare.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from tumorlens.bootstrap import PatientBootstrap, mean
from tumorlens.cli.sides import samples_of
from tumorlens.data.preprocess import prepare
from tumorlens.data.readers import read_slice
from tumorlens.model.temperature import fit_temperature
from tumorlens.runtime.predictor import Predictor

BATCH = 8


def main() -> None:
    """Answer twice, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--fold", default="0")
    given = parser.parse_args()
    predictor = Predictor(given.bundle, answer_all=True)
    sides = samples_of(given.manifest, given.fold, given.bundle)
    samples = [item for item in sides if item.split == "val"]
    both = []
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        squares = np.stack([
            prepare(read_slice(given.manifest.parent, item), predictor.card.preprocess)[0] for item in batch
        ])[:, None]  # fmt: skip
        both.append(np.stack([predictor.run(squares).logits, predictor.run(squares[..., ::-1].copy()).logits]))
    plain, mirrored = np.concatenate(both, axis=1).astype(np.float64)
    labels = np.array([predictor.classes.index(item.label) for item in samples])
    bootstrap = PatientBootstrap([item.patient_group for item in samples])
    found = {}
    for name, logits in (("plain", plain), ("with mirror", (plain + mirrored) / 2)):
        shares = log_softmax(logits / fit_temperature(logits, labels), axis=1)
        found[name] = (shares.argmax(axis=1) == labels).astype(float), -shares[np.arange(len(labels)), labels]
        right, loss = (bootstrap.estimate(mean(column)) for column in found[name])
        sys.stdout.write(f"{name}: accuracy {right}, log loss {loss}\n")
    gain, more = (bootstrap.estimate(mean(b - a)) for a, b in zip(found["plain"], found["with mirror"], strict=True))
    sys.stdout.write(f"paired: accuracy {gain}, log loss {more}; {len(samples)} validation slices\n")


if __name__ == "__main__":
    main()
