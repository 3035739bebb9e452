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
from tumorlens.evaluate.run_folder import run_around
from tumorlens.model.bundle import load_card, write_card
from tumorlens.values import estimates_json


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


def tell(run: Path, keep: tuple[str, ...] = ()) -> Evaluation:
    """Evaluate a run and let its bundle's card and page say the figures; the page is written last.

    Args:
        run: a run folder with its bundle.
        keep: metrics of the card that stay as they are.

    Raises:
        BundleError, RunError: the bundle or the run's answers are damaged.
    """
    evaluation = evaluate_folder(run)
    bundle = run / "bundle"
    card = load_card(bundle)
    metrics = card_metrics(evaluation) | {key: card.metrics[key] for key in keep if key in card.metrics}
    write_model_card(evaluation, write_card(bundle, card.model_copy(update={"metrics": metrics})), bundle / PAGE)
    return evaluation


def retell(bundle: Path) -> Path | None:
    """The same for a bundle whose card was changed; what a cross-validation told it of its confidence stays.

    Returns:
        The page; None where there is none yet, or no run around the bundle.

    Raises:
        BundleError, RunError: the bundle or the run's answers are damaged.
    """
    run = run_around(bundle)
    if run is None or not (bundle / PAGE).is_file():
        return None
    kept = ("by_confidence", "by_confidence_of") if "by_confidence_of" in load_card(bundle).metrics else ()
    tell(run, kept)
    return bundle / PAGE


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
