"""MODEL_CARD.md: what a model is and how well it does, for people; every figure from the run's predictions.

Mitchell et al., Model Cards for Model Reporting, FAT* 2019.
"""

from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from tumorlens.evaluate.evaluation import Evaluation
from tumorlens.evaluate.kinds import KINDS
from tumorlens.evaluate.limits import limits
from tumorlens.evaluate.tables import BY_CLASS, OVERALL, side_title
from tumorlens.model.bundle import Card
from tumorlens.records import Estimate, class_title
from tumorlens.textfile import write_whole

PAGE = "MODEL_CARD.md"
_TEMPLATE = "model_card.md.jinja"
_FIGURES = {
    "accuracy": "accuracy, a tumour called “no tumour” is wrong",
    "type_accuracy": "accuracy of the tumour type",
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


def write_model_card(evaluation: Evaluation, card: Card, path: Path, template: str = "", **more: object) -> None:
    """Write the page, whole.

    Args:
        evaluation: of the run that the model came from.
        card: the bundle's.
        path: of the page.
        template: Jinja source that extends `model_card.md.jinja` and says more; that one by default.
        more: what such a template needs beyond.
    """
    base = (resources.files("tumorlens.evaluate") / _TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.DictLoader({_TEMPLATE: base}),
    )
    page = environment.from_string(template or base).render(**_values(evaluation, card), **more)
    write_whole(path, page.rstrip() + "\n")


def _values(evaluation: Evaluation, card: Card) -> dict[str, Any]:
    main = evaluation.main
    table = evaluation.tables[main]
    return {
        "name": card.name,
        "date": datetime.now(UTC).date().isoformat(),
        "card": card,
        "evaluation": evaluation,
        "main": main,
        "titles": [class_title(name).lower() for name in card.classes],
        "trained": card.training_data.get("slices", {}),
        "sides": {
            name: {"title": side_title(name, evaluation.leaky), "accuracy": part.overall["accuracy"]}
            for name, part in evaluation.tables.items()
        },
        "overall": [(KINDS[key].title, [part.overall[key] for part in evaluation.tables.values()]) for key in OVERALL],
        "heads": [KINDS[key].title for key in BY_CLASS],
        "by_class": [(class_title(key), [row[head] for head in BY_CLASS]) for key, row in table.by_class.items()],
        "sources": _by_source(evaluation),
        "limits": limits(evaluation),
        "cells": card.preprocess.size // (16 if card.network.dilated else 32),
        "classes": table.classes,
        "confusion": table.confusion.tolist(),
    }


def _by_source(evaluation: Evaluation) -> list[tuple[str, Estimate]]:
    """Each source on its own, slices and patients."""
    rows = []
    for source, figures in evaluation.sources.items():
        for question, levels in (("tumours", figures.tumours), ("tumour against none", figures.against_none)):
            for level, found in (("slices", levels.slices), ("patients", levels.patients)):
                # Of their tumours, patients are asked for the type alone.
                titles = _FIGURES | ({"accuracy": _FIGURES["type_accuracy"]} if level == "patients" else {})
                rows += [
                    (f"{source}, {question}, {level}: {titles[key]}", figure)
                    for key, figure in found.items()
                    if key in titles
                ]
    return rows
