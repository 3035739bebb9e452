"""Two models on the same slices: which is right more often, paired by patient.

    python benchmarks/models.py MANIFEST FIRST SECOND [--fold all] [--side val]

FIRST and SECOND are bundles. The side must be one that neither was trained on: for the reference model and the model
before it that is the validation side of fold `all`, on which both chose temperature and epoch. Of slices with a mask
Grad-CAM is compared as well, each on the square that its model sees.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from answering import answers

from tumorlens.bootstrap import PatientBootstrap, mean
from tumorlens.cli.sides import samples_of
from tumorlens.data.predictions import write_predictions
from tumorlens.evaluate.evaluation import evaluate_run
from tumorlens.evaluate.repeats import compare_runs
from tumorlens.evaluate.run_folder import PREDICTIONS
from tumorlens.evaluate.tables import comparison_grid
from tumorlens.map_scores import cases_of, graph_methods, score_case
from tumorlens.records import Estimate, Sample
from tumorlens.runtime.predictor import Predictor

FIGURES = ("accuracy", "auc", "log_loss", "ece", "calibration_slope")


def main() -> None:
    """Answer, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("models", type=Path, nargs=2, metavar="BUNDLE")
    parser.add_argument("--fold", default="all")
    parser.add_argument("--side", default="val")
    given = parser.parse_args()
    sides = samples_of(given.manifest, given.fold, given.models[0])
    samples_of(given.manifest, given.fold, given.models[1])  # which refuses a run that knows the patients
    samples = [item for item in sides if item.split == given.side]
    with tempfile.TemporaryDirectory() as root:
        folders = []
        for number, bundle in enumerate(given.models):
            folder = Path(root) / ("first", "second")[number]
            folder.mkdir()
            predictor = Predictor(bundle, answer_all=True)
            found = [item.prediction for item in answers(predictor, samples, given.manifest.parent)]
            write_predictions(found, folder / PREDICTIONS, predictor.classes)
            folders.append(folder)
        evaluations = [evaluate_run(folder) for folder in folders]
        sys.stdout.write(f"{len(samples)} slices, side {given.side} of fold {given.fold}\n")
        for folder, item in zip(folders, evaluations, strict=True):
            show(folder.name, item.tables[item.main].overall, FIGURES)
        grid = comparison_grid(compare_runs(folders, evaluations))
        sys.stdout.write("\n" + " | ".join(head.replace(f"{root}/", "") for head in grid.heads) + "\n")
        for row in grid.rows:
            sys.stdout.write(" | ".join(str(cell) for cell in row) + "\n")
        sys.stdout.write(f"{grid.note}\n")
    show_maps([Predictor(bundle) for bundle in given.models], samples, given.manifest.parent, given.side)


def show(name: str, figures: dict[str, Estimate], wanted: tuple[str, ...]) -> None:
    """Some figures of one model."""
    sys.stdout.write(f"{name}: " + ", ".join(f"{key} {figures[key]}" for key in wanted if key in figures) + "\n")


def show_maps(models: list[Predictor], samples: list[Sample], root: Path, side: str) -> None:
    """Grad-CAM of the predicted class's probability against the masks, where there are any."""
    if not any(item.mask for item in samples):
        return
    scored = []
    for predictor in models:
        draw = graph_methods(predictor)["gradcam"]
        cases = cases_of(predictor, samples, root, side)
        scored.append({(case.sample.path, case.sample.frame): (case.group, score_case(case, draw)) for case in cases})
    # On the square of a smaller model a tumour may have no pixel.
    pairs = [(group, own, scored[1][key][1]) for key, (group, own) in scored[0].items() if key in scored[1]]
    bootstrap = PatientBootstrap([group for group, *_ in pairs])
    for what, name in (("peak in the tumour", "peak"), ("share of the map in it", "energy")):
        first, second = (np.array([getattr(pair[number], name) for pair in pairs]) for number in (1, 2))
        said = [str(bootstrap.estimate(mean(values))) for values in (first, second, second - first)]
        sys.stdout.write(f"Grad-CAM, {what}, {len(pairs)} slices: {' | '.join(said)} (difference)\n")


if __name__ == "__main__":
    main()
