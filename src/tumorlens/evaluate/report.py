"""report.html: one self-contained page with the tables and curves of a run."""

from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from tumorlens import DISCLAIMER, __version__
from tumorlens.evaluate.evaluation import Evaluation
from tumorlens.evaluate.figures import confusion_plot, roc_curves, training_curves
from tumorlens.records import Estimate, class_title

OVERALL = {
    "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "auc": "AUC (macro)", "f1": "F1 (macro)",
    "log_loss": "Log loss (lower is better)",
}  # fmt: skip
BY_CLASS = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "auc": "AUC",
}
SIDES = {"train": "Training", "val": "Validation", "test": "Test (unseen patients)"}


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write the page; it needs no network and no other file."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(
        (resources.files("tumorlens.evaluate") / "report.html").read_text(encoding="utf-8")
    )
    main = evaluation.main
    page = template.render(
        name=evaluation.name,
        version=__version__,
        disclaimer=DISCLAIMER,
        warnings=evaluation.warnings,
        split_note=evaluation.split_note,
        overall=_overall_rows(evaluation),
        sides=[_side(evaluation, name) for name in evaluation.tables],
        class_heads=list(BY_CLASS.values()),
        by_class=[
            [class_title(name), *(_cell(figures[key]) for key in BY_CLASS)]
            for name, figures in evaluation.tables[main].by_class.items()
        ],
        tumours={key: _cell(value) for key, value in evaluation.tumours.items()},
        main=main,
        plots=_plots(evaluation),
    )
    temporary = path.with_suffix(".part")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)


def _side(evaluation: Evaluation, name: str) -> dict[str, Any]:
    estimate = evaluation.tables[name].overall["accuracy"]
    return {"title": SIDES[name], "slices": estimate.n_slices, "patients": estimate.n}


def _overall_rows(evaluation: Evaluation) -> list[list[Any]]:
    return [
        [title, *(_cell(table.overall[key]) for table in evaluation.tables.values())] for key, title in OVERALL.items()
    ]


def _cell(estimate: Estimate) -> dict[str, str]:
    if estimate.value != estimate.value:
        return {"value": "–", "interval": "not defined here"}
    return {"value": f"{estimate.value:.3f}", "interval": f"{estimate.low:.3f} to {estimate.high:.3f}"}


def _plots(evaluation: Evaluation) -> list[str]:
    main = evaluation.main
    table = evaluation.tables[main]
    plots = [confusion_plot(table.confusion, table.classes), roc_curves(evaluation.answers[main])]
    return [training_curves(evaluation), *plots] if evaluation.history else plots
