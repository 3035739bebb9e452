"""Train, export and evaluate as one piece, once or fold by fold: what `tumorlens train` and `crossval` do."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from tumorlens.config import TrainSettings
from tumorlens.data.manifest import read_manifest
from tumorlens.data.predictions import read_predictions, write_predictions
from tumorlens.data.split_record import verified_split
from tumorlens.data.splits import VAL_SHARE, fold_names, sides_of_fold
from tumorlens.errors import MaskError, RunError, SplitError
from tumorlens.evaluate.evaluation import Evaluation
from tumorlens.evaluate.model_card import PAGE
from tumorlens.evaluate.results import evaluate_folder, tell
from tumorlens.evaluate.run_folder import PREDICTIONS
from tumorlens.records import CLASSES
from tumorlens.region import is_taught, teach_region
from tumorlens.review import review
from tumorlens.runtime.export import export_bundle
from tumorlens.train.accidents import said_clearly
from tumorlens.train.order import Order, check_unseen
from tumorlens.train.recipe import Reporter, train
from tumorlens.train.run import CONFIG, RunPaths, check_same, describe, write_config


def run_experiment(order: Order, reporter: Reporter) -> Evaluation:
    """Train one model, export it to ONNX, evaluate it, and write the figures into its card and a report.

    Where settings ask for the region head and tumours have masks, it is fitted before the export.

    Raises:
        TumorlensError: what was wrong with what was given.
        KeyboardInterrupt: stopped; resume with the same order and `resume=True`.
    """
    if order.resume and (is_complete(order.out) or is_taught(order.out)):
        # Its bundle may have been taught more since: training it to its end again would lose that.
        split = verified_split(order.manifest, read_manifest(order.manifest))
        check_same(
            order.out, describe(order.manifest, order.settings, order.fold, order.weights, split, order.teachers)
        )
        if not is_complete(order.out):
            return _look(RunPaths(order.out), reporter)
        reporter.message(f"{order.out}: finished already, evaluating it again")
        return evaluate_folder(order.out)
    paths = train(order, reporter)
    with said_clearly("teaching the region head and exporting"):
        if not (order.settings.region and _with_region(paths.folder, order.settings, reporter)):
            reporter.message("exporting to ONNX")
            export_bundle(paths.bundle)
    return _look(paths, reporter)


def _with_region(run: Path, settings: TrainSettings, reporter: Reporter) -> bool:
    """Teach a run's model the region head and export it; too few masks do not cost the trained model."""
    try:
        teach_region(run, reporter, settings.device, settings.precision)
    except MaskError as error:
        reporter.message(f"no region head: {error}; `tumorlens region {run}` adds it then")
        return False
    return True


def is_complete(run: Path) -> bool:
    """Whether a run has come to its end: the page beside its card is what is written last."""
    return (run / "bundle" / PAGE).is_file()


def add_region(run: Path, reporter: Reporter) -> Evaluation:
    """Teach a finished run's model where tumours lie, and export, review and evaluate it again.

    Raises:
        TumorlensError: no such run, its images or masks are gone, none of its training slices has a mask, or memory or
            disk came to an end; the same call goes on.
    """
    again = "give the same command again: what was learned is kept"
    with said_clearly("teaching the region head and exporting", after_memory=again, after_files=again):
        teach_region(run, reporter)
    return _look(RunPaths(run), reporter)


def _look(paths: RunPaths, reporter: Reporter) -> Evaluation:
    """Review and evaluate a run, and let its card and page say the figures."""
    reporter.message("looking at the tested images again")
    review(paths.folder, lambda stage, done, total: reporter.watched(stage)(done, total))
    reporter.message("evaluating")
    return tell(paths.folder)


def cross_validate(order: Order, reporter: Reporter, folds: Sequence[str] = ()) -> Evaluation:
    """Train and test every fold of a manifest, then evaluate all tested patients together.

    The report and folds.csv also have each fold on its own, with mean and standard deviation over folds.

    Folds that are complete are kept, one that was interrupted is resumed; so the same call continues a stopped run.

    Args:
        order: its `out` gets a run folder a fold; its `fold` and `resume` are set here.
        reporter: what a person sees.
        folds: which to run; all by default. Pooled are all that are complete by then.

    Raises:
        SplitError: the manifest has no folds, or they are not those that its record was written for.
            Or the initial weights have learned from patients that a fold tests or validates.
        RunError: a fold that is there was trained on other data, settings or weights, or `out` is another run's.
    """
    if (order.out / CONFIG).is_file() and not any(
        order.out.glob("fold*")
    ):  # a cross-validation's comes after its folds
        raise RunError(f"{order.out}: already in use by a run of its own. Give another --out")
    samples = read_manifest(order.manifest)
    split = verified_split(order.manifest, samples)
    known = fold_names(samples)
    chosen = _chosen(folds, known, order.manifest)
    if order.weights is not None:
        for fold in chosen:  # before hours are spent on the first
            check_unseen(order.weights, sides_of_fold(samples, fold, VAL_SHARE, order.settings.seed))

    def check(fold: str) -> None:
        check_same(order.out / fold_folder(fold), describe(order.manifest, order.settings, fold, order.weights, split))

    for fold in known:  # before hours are spent: what goes on, and what is to be pooled
        run = order.out / fold_folder(fold)
        if is_complete(run) or (fold in chosen and (run / CONFIG).is_file()):
            check(fold)
    for fold in chosen:
        run = order.out / fold_folder(fold)
        began = (run / CONFIG).is_file()
        if not is_complete(run):
            reporter.message(f"fold {fold}")
            run_experiment(dataclasses.replace(order, out=run, fold=fold, resume=began), reporter)
    complete = [fold for fold in known if is_complete(order.out / fold_folder(fold))]
    for fold in complete:  # another process may have trained it meanwhile
        check(fold)
    _pool(order.out, complete, reporter)
    # The pooled rows are tested ones alone, in which a leak does not show: the config carries the label to their table.
    config = describe(order.manifest, order.settings, None, order.weights, split)
    write_config(order.out, {**config, "folds": complete})
    return evaluate_folder(order.out)


def _chosen(folds: Sequence[str], known: list[str], manifest: Path) -> list[str]:
    """The folds that are asked for, all by default, in the manifest's order."""
    if not known or not set(folds) <= set(known):
        raise SplitError(
            f"{manifest}: folds there are {', '.join(known) or 'none'}, wanted {', '.join(folds) or 'all'}. "
            "Run `tumorlens data split MANIFEST --folds 5` first"
        )
    return sorted(set(folds), key=known.index) or known


def _pool(out: Path, folds: Sequence[str], reporter: Reporter) -> None:
    """Write the tested answers of complete folds into one table."""
    taught = [fold for fold in folds if is_taught(out / fold_folder(fold))]
    if taught and taught != list(folds):
        reporter.message(
            f"note: pooled figures are of two kinds of model: folds {', '.join(taught)} have a region head, the others "
            "do not. `tumorlens region` adds one; then `tumorlens evaluate`"
        )
    answers = (item for fold in folds for item in read_predictions(out / fold_folder(fold) / PREDICTIONS))
    write_predictions([item for item in answers if item.split == "test"], out / PREDICTIONS, CLASSES)


def fold_folder(fold: str) -> str:
    """The name of a fold's run folder: `fold` and the fold's name, made safe for every file system."""
    safe = re.sub(r"[^A-Za-z0-9_+.-]", "_", fold)[:60]
    return f"fold{safe}" if safe == fold else f"fold{safe}-{hashlib.sha256(fold.encode()).hexdigest()[:6]}"
