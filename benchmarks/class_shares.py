"""What taking the class weights back out of the answer is worth, on a run's validation patients.

python benchmarks/class_shares.py RUN
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from tumorlens.data.predictions import read_predictions
from tumorlens.model.bundle import load_card
from tumorlens.model.temperature import fit_temperature
from tumorlens.train.run import settings_of


def main(run: Path) -> None:
    predictions = read_predictions(run / "predictions.csv")
    classes = predictions[0].classes
    settings = settings_of(run)
    if not settings.class_weights or settings.sampling != "every":
        raise SystemExit(f"{run}: trained with even draws; this is about class weights. Train with --class-weights")
    counts = Counter(item.label for item in predictions if item.split == "train")
    weights = np.array([sum(counts.values()) / (len(classes) * max(counts[name], 1)) for name in classes])
    val = [item for item in predictions if item.split == "val"]
    labels = np.array([classes.index(item.label) for item in val])
    answered = np.log(np.clip([item.probabilities for item in val], 1e-12, 1)) * load_card(run / "bundle").temperature
    print("share taken out, log loss, accuracy, balanced accuracy (each with its own temperature)")
    for share in (0.0, 0.5, 1.0):
        logits = answered + (1 - share) * np.log(weights)
        scaled = log_softmax(logits / fit_temperature(logits.astype(np.float32), labels), axis=1)
        hits = scaled.argmax(axis=1) == labels
        balanced = np.mean([hits[labels == c].mean() for c in range(len(classes))])
        loss = -scaled[np.arange(len(labels)), labels].mean()
        print(f"{share:.1f}  {loss:.3f}  {hits.mean():.3f}  {balanced:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
