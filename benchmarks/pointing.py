"""How often the peak of a bundle's Grad-CAM lies in the tumour, and how much of the map does, beside chance.

python benchmarks/pointing.py BUNDLE MANIFEST [--fold 0] [--side test]

Grad-CAM of the predicted class's probability, laid over the prepared square; slices with a mask, whatever the answer.
Chance is the tumour's share of the square's area. Intervals are 95 %, by patient.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax

from tumorlens.bootstrap import PatientBootstrap, mean
from tumorlens.data.manifest import read_manifest
from tumorlens.data.preprocess import prepare, resize, to_square
from tumorlens.data.readers import read_mask, read_slice
from tumorlens.data.splits import VAL_SHARE, sides_of_fold
from tumorlens.explain.gradcam import gradcam
from tumorlens.records import Estimate, Sample
from tumorlens.runtime.predictor import Predictor


def score(bundle: Path, samples: Sequence[Sample], root: Path) -> dict[str, Estimate]:
    """`peak`, `energy` and `chance` over the slices that have a mask."""
    predictor = Predictor(bundle)
    settings = predictor.card.preprocess
    found: dict[str, list[float]] = {"peak": [], "energy": [], "chance": []}
    masked = [item for item in samples if item.mask]
    for item in masked:
        picture = read_slice(root, item)
        square, geometry = prepare(picture, settings)
        mask = read_mask(root, item)
        assert mask is not None
        inside = to_square(mask.astype(np.float32), geometry, settings.size) > 0.5
        found = predictor.run(square[None, None])
        logits, evidence = found.logits, found.evidence
        shares = tuple(float(p) for p in softmax(logits[0].astype(np.float64) / predictor.card.temperature))
        chosen = predictor.classes[int(np.argmax(shares))]
        heat = gradcam(evidence[0], shares, predictor.classes, chosen, "probability", predictor.card.temperature)
        values = resize(heat.values, settings.size, settings.size)
        total = float(values.sum())
        found["peak"].append(float(inside.flat[int(values.argmax())]) if total else 0.0)
        found["energy"].append(float(values[inside].sum()) / total if total else 0.0)
        found["chance"].append(float(inside.mean()))
    bootstrap = PatientBootstrap([item.patient_group for item in masked])

    return {name: bootstrap.estimate(mean(np.array(values))) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--side", default="test")
    given = parser.parse_args()
    samples = sides_of_fold(read_manifest(given.manifest), given.fold, VAL_SHARE, seed=0)
    side = [item for item in samples if item.split == given.side]
    print("| source | slices, patients | peak in the tumour | share of the map in it | chance |\n|---|---|---|---|---|")
    for source in sorted({item.source for item in side if item.mask}):
        figures = score(given.bundle, [item for item in side if item.source == source], given.manifest.parent)
        peak = figures["peak"]
        print(
            f"| {source} | {peak.n_slices}, {peak.n} | {peak} | {figures['energy']} | {figures['chance'].value:.3f} |"
        )


if __name__ == "__main__":
    main()
