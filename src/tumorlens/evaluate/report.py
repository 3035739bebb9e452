"""report.html: one self-contained page with the tables and curves of a run."""

from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from tumorlens import DISCLAIMER, __version__
from tumorlens.evaluate.evaluation import Evaluation
from tumorlens.evaluate.figures import confusion_plot, roc_curves, training_curves
from tumorlens.evaluate.tables import UNDEFINED, Cell, Grid, defined, grids
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
BY_PATIENT = {"accuracy": "Tumour type of patients: accuracy", "auc": "Tumour type of patients: AUC (macro)"}
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
        overall=[[title, *map(_cell, cells)] for title, cells in overall_rows(evaluation)],
        sides=[_side(evaluation, name) for name in evaluation.tables],
        class_heads=list(BY_CLASS.values()),
        by_class=[
            [class_title(name), *(_cell(figures[key]) for key in BY_CLASS)]
            for name, figures in evaluation.tables[main].by_class.items()
        ],
        grids=[_grid(grid) for grid in grids(evaluation)],
        main=main,
        plots=_plots(evaluation),
    )
    temporary = path.with_suffix(".part")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)


def _side(evaluation: Evaluation, name: str) -> dict[str, Any]:
    estimate = evaluation.tables[name].overall["accuracy"]
    return {"title": SIDES[name], "slices": estimate.n_slices, "patients": estimate.n}


def overall_rows(evaluation: Evaluation) -> list[tuple[str, list[Cell]]]:
    """The rows of the first table: titles, and a cell for each split; those of slices, then those of patients."""
    rows: list[tuple[str, list[Cell]]] = [
        (title, [table.overall[key] for table in evaluation.tables.values()]) for key, title in OVERALL.items()
    ]
    for key, title in BY_PATIENT.items():
        cells = [evaluation.patients.get(name, {}).get(key, UNDEFINED) for name in evaluation.tables]
        if any(map(defined, cells)):
            rows.append((title, cells))
    return rows


def _grid(grid: Grid) -> dict[str, Any]:
    return {
        "title": grid.title,
        "heads": grid.heads,
        "note": grid.note,
        "rows": [[row[0], *map(_cell, row[1:])] for row in grid.rows],
    }


def _cell(cell: Cell) -> dict[str, str]:
    if not defined(cell):
        return {"value": UNDEFINED, "interval": "not defined here"}
    if isinstance(cell, Estimate):
        return {"value": f"{cell.value:.3f}", "interval": f"{cell.low:.3f} to {cell.high:.3f}"}
    return {"value": cell, "interval": ""}


def _plots(evaluation: Evaluation) -> list[str]:
    main = evaluation.main
    table = evaluation.tables[main]
    plots = [confusion_plot(table.confusion, table.classes), roc_curves(evaluation.answers[main])]
    return [training_curves(evaluation), *plots] if evaluation.history else plots
