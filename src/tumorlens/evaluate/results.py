"""Evaluate a folder of predictions and write what follows from it. No torch: whoever has the answers can do it."""

from pathlib import Path
from typing import Any

from tumorlens.evaluate.by_confidence import by_confidence
from tumorlens.evaluate.checklists import write_checklists
from tumorlens.evaluate.evaluation import Evaluation, evaluate_run, save_metrics
from tumorlens.evaluate.folds import save_folds
from tumorlens.evaluate.kinds import INTERVALS
from tumorlens.evaluate.model_card import PAGE, write_model_card
from tumorlens.evaluate.report import write_report
from tumorlens.evaluate.run_folder import PREDICTIONS
from tumorlens.evaluate.values import estimates_json
from tumorlens.model.bundle import load_card


def evaluate_folder(folder: Path) -> Evaluation:
    """Evaluate the predictions of a folder; writes report.html, checklists.md and, last, metrics.json beside them.

    A cross-validation's gets folds.csv as well, with a row a fold, their mean and their standard deviation.

    Raises:
        RunError: no labelled predictions there.
    """
    evaluation = evaluate_run(folder)
    if evaluation.folds:
        save_folds(evaluation.folds, folder / "folds.csv")
    write_report(evaluation, folder / "report.html")
    write_checklists(evaluation, folder / "checklists.md")
    save_metrics(evaluation, folder / "metrics.json")
    return evaluation


def retell(bundle: Path) -> Path | None:
    """Evaluate the run that a bundle lies in again, and write its page anew, as its card has changed.

    Returns:
        The page; None where there is none yet, or no run around the bundle.

    Raises:
        BundleError, RunError: the bundle or the run's answers are damaged.
    """
    page = bundle / PAGE
    if not page.is_file() or not (bundle.parent / PREDICTIONS).is_file():
        return None
    write_model_card(evaluate_folder(bundle.parent), load_card(bundle), page)
    return page


def card_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """The test figures that a card carries, with intervals, for slices and patients."""
    table = evaluation.tables[evaluation.main]
    return {
        "split": evaluation.main,
        "interval": INTERVALS,
        "overall": estimates_json(table.overall),
        **evaluation.tumours_json(),
        "by_class": {name: estimates_json(figures) for name, figures in table.by_class.items()},
        "by_confidence": by_confidence(evaluation.answers[evaluation.main]),
        "leaky_by_slice": evaluation.leaky,
        "warnings": list(evaluation.warnings),
    }
