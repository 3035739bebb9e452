"""What each part of the `best` preset is worth, on inner validation: tested patients are never looked at.

python benchmarks/ablation.py MANIFEST WEIGHTS OUT [--fold 0] [--epochs 2]

MANIFEST has folds; FOLD is left out whole, of the other patients a quarter is validated and the rest trains, for a few
epochs at 160 pixels. Every variant gets a run folder in OUT; complete ones are kept, so the same call goes on. Prints a
Markdown table with 95 % intervals by patient.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from tumorlens.bootstrap import PatientBootstrap, mean
from tumorlens.config import TrainSettings, load_settings
from tumorlens.data.manifest import read_manifest, write_manifest
from tumorlens.data.predictions import read_predictions
from tumorlens.data.splits import sides_of_fold
from tumorlens.evaluate.answers import TUMOURS, collect
from tumorlens.evaluate.patients import patient_figures
from tumorlens.evaluate.sources import figures_by_source
from tumorlens.map_scores import cases_of, graph_methods, score_case
from tumorlens.runtime.export import export_bundle
from tumorlens.runtime.predictor import Predictor
from tumorlens.train.order import Order
from tumorlens.train.recipe import Reporter, train

SHARE = 0.25  # of the patients that are not tested
OFF = {"evidence_weight": 0.0, "cell_weight": 0.0}
#: What differs from the preset, by section of the settings; "" is the top.
VARIANTS: dict[str, dict[str, dict[str, object]]] = {
    "all of it": {},
    "without masks": {"finetune": OFF},
    "cells, evidence free": {"finetune": {"evidence_weight": 0.0}},
    "evidence, cells off": {"finetune": {"cell_weight": 0.0}},
    "not dilated": {"network": {"dilated": False}},
    "every slice once": {"": {"sampling": "every", "class_weights": True}},
    "weights averaged": {"finetune": {"averaging": 0.98}},
    "last stage alone": {"finetune": {"first_layer": "layer4"}},
}


def settings_of(variant: dict[str, dict[str, object]], epochs: int) -> TrainSettings:
    values = load_settings("best").model_dump()
    values["finetune"]["stages"] = [{"epochs": epochs, "size": 160}]
    values["preprocess"]["size"] = 160
    values["region"] = False
    for section, changes in variant.items():
        (values[section] if section else values).update(changes)
    return TrainSettings.model_validate(values)


def row(run: Path, manifest: Path) -> list[str]:
    export_bundle(run / "bundle")
    validated = [item for item in read_manifest(manifest) if item.split == "val"]
    predictor = Predictor(run / "bundle")
    draw = graph_methods(predictor)["gradcam"]
    cases = list(cases_of(predictor, validated, manifest.parent, "val"))
    found = np.array([score_case(case, draw).peak for case in cases])
    peak = PatientBootstrap([case.group for case in cases]).estimate(mean(found))
    answers = collect([item for item in read_predictions(run / "predictions.csv") if item.split == "val"])
    figshare = answers.of("figshare").only(TUMOURS)
    sources = figures_by_source(answers)
    tumours = sources["figshare"].tumours.slices
    patients = patient_figures(figshare)
    none = sources["tcga_lgg"].against_none.slices
    cells = [tumours["type_accuracy"], tumours["auc"], patients["accuracy"], none["auc"], peak]
    return [str(cell) for cell in cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    given = parser.parse_args()
    sides = sides_of_fold(read_manifest(given.manifest), given.fold, SHARE, seed=0)
    inner = given.manifest.with_name(f"{given.manifest.stem}-inner-of-{given.fold}.csv")
    write_manifest([dataclasses.replace(item, fold="") for item in sides if item.split != "test"], inner)
    heads = (
        "figshare, slices: type right",
        "AUC",
        "patients: type right",
        "TCGA, tumour or none: AUC",
        "peak in tumour",
    )
    print(f"| | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name in given.only:
        run = given.out / f"fold{given.fold}-epochs{given.epochs}" / name.replace(" ", "-").replace(",", "")
        if not (run / "predictions.csv").is_file():
            resume = (run / "config.json").is_file()
            order = Order(inner, run, settings_of(VARIANTS[name], given.epochs), given.weights, resume=resume)
            train(order, Reporter())
        print(f"| {name} | " + " | ".join(row(run, inner)) + " |", flush=True)


if __name__ == "__main__":
    main()
