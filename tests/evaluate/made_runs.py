"""Made-up predictions and run folders: three sources as in life, with patients whose slices fail together."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tumorlens.data.predictions import write_predictions
from tumorlens.records import CLASSES, Prediction

#: Source, label and patients: tumours alone, tumours and healthy slices of the same patients, healthy heads alone.
PARTS = (
    ("figshare", "glioma", 8),
    ("figshare", "meningioma", 8),
    ("figshare", "pituitary", 8),
    ("tcga_lgg", "glioma", 9),
    ("tcga_lgg", "no_tumor", 9),
    ("brisc", "no_tumor", 10),
)


def make_predictions(
    seed: int = 0,
    split: str = "test",
    parts: Sequence[tuple[str, str, int]] = PARTS,
    slices: int = 3,
    which: slice = slice(None),
) -> list[Prediction]:
    """Answers that are mostly right; `seed` changes the answers, never the pictures. `which` of the patients only."""
    made = []
    for part, (source, label, patients) in enumerate(parts):
        for patient in list(range(patients))[which]:
            rng = np.random.default_rng([seed, part, patient])  # a patient's answers are theirs in every fold
            shift = rng.normal(0, 1.0, len(CLASSES))
            for number in range(slices):
                logits = 1.5 * np.eye(len(CLASSES))[CLASSES.index(label)] + shift + rng.normal(0, 0.5, len(CLASSES))
                shares = np.exp(logits) / np.exp(logits).sum()
                # BRISC has no patient ids; in TCGA a patient has slices of both kinds.
                group = f"similar:{patient}" if source == "brisc" else f"{source}:{patient}"
                group += f"-{label}" if source == "figshare" else ""
                made.append(
                    Prediction(f"{source}/{label}/{patient}_{number}.png", 0, "ok", CLASSES, tuple(shares.tolist()),
                               label=label, patient_group=group, split=split, origin=source)
                )  # fmt: skip
    return made


def write_run(
    folder: Path,
    predictions: Sequence[Prediction],
    fold: str | None = None,
    seconds: Sequence[float] = (),
    **config: object,
) -> Path:
    """A run folder as far as evaluation reads it; `seconds` gives a history, a row an epoch."""
    folder.mkdir(parents=True)
    write_predictions(predictions, folder / "predictions.csv", CLASSES)
    if fold is not None or config:
        kept = {"manifest": {"path": "m.csv", "sha256": "", "fold": fold}, **config}
        (folder / "config.json").write_text(json.dumps(kept))
    if seconds:
        with (folder / "history.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", "loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "seconds"])
            writer.writerows([n, 1 / (n + 1), 1 / (n + 1), 0.8, 0.8, value] for n, value in enumerate(seconds))
    return folder


def write_folds(folder: Path, count: int = 3, seed: int = 0, **config: object) -> Path:
    """The fold runs of a cross-validation, each of which tests other patients."""
    for fold in range(count):
        tested = make_predictions(seed, which=slice(fold, None, count))
        learned = make_predictions(seed, "train", which=slice((fold + 1) % count, None, count))
        write_run(folder / f"fold{fold}", [*tested, *learned], str(fold), (10.0, 20.0 + fold), **config)
    return folder
