"""`tumorlens evaluate`, `review` and `calibrate`: what follows from answers that are there. No PyTorch."""

import shutil
from pathlib import Path

from tyro.conf import Positional

from tumorlens.cli.tables import show_comparison, show_evaluation, show_grids
from tumorlens.cli.terminal import progress_bar, say
from tumorlens.errors import RunError
from tumorlens.model.label_sets import DEFAULT_COVERAGE


def evaluate(runs: Positional[tuple[Path, ...]], /) -> int:
    """Evaluate the predictions of a run: tables here, metrics.json and report.html in its folder.

    A table of answers alone (CSV) gets a folder of its name beside it.

    Several runs, which repeat each other with other seeds, are evaluated one by one and compared: mean, spread between
    runs, and the figures of what they say together.

    Args:
        runs: Run folders made by train or crossval, or tables of answers; of these the label, patient_group and
            source columns are used.
    """
    from tumorlens.evaluate.repeats import compare_runs
    from tumorlens.evaluate.results import evaluate_folder

    if not runs:
        raise RunError("no run given. Give one or more run folders: `tumorlens evaluate RUN`")
    folders = [_folder_of(given) for given in runs]
    evaluations = [evaluate_folder(folder) for folder in folders]
    if len(folders) > 1:
        show_comparison(compare_runs(folders, evaluations))
    else:
        show_evaluation(evaluations[0])
    for folder in folders:
        say(f"wrote {folder / 'metrics.json'} and {folder / 'report.html'}")
    return 0


def _folder_of(given: Path) -> Path:
    """The run folder that is meant; that of a table alone is made."""
    from tumorlens.data.predictions import read_predictions
    from tumorlens.evaluate.run_folder import CONFIG, PREDICTIONS

    if not given.is_file():
        return given
    if given.name == PREDICTIONS:
        return given.parent
    read_predictions(given)
    folder = given.with_suffix("")
    ours = (folder / PREDICTIONS).is_file() and not (folder / CONFIG).is_file() and not (folder / "bundle").exists()
    if folder.exists() and not ours:  # nor may the table take the place of a run's own answers
        raise RunError(f"{folder}: in the way of the report. Rename the table (to NAME.csv), or move that away")
    folder.mkdir(exist_ok=True)
    shutil.copyfile(given, folder / PREDICTIONS)
    return folder


def review(run: Positional[Path], /) -> int:
    """Look at the tested images of a run again, and evaluate it: mistakes with pictures, source bias, tumour sizes.

    Args:
        run: A run folder made by train or crossval, whose images are still there.
    """
    from tumorlens.evaluate.results import evaluate_folder
    from tumorlens.evaluate.tables import bias_grid, mistake_grid
    from tumorlens.review import review as look

    with progress_bar() as bar:
        look(run, bar.update)
    evaluation = evaluate_folder(run)
    show_grids([grid for grid in (bias_grid(evaluation.bias), mistake_grid(evaluation.mistakes)) if grid.rows])
    say(f"wrote {run / 'report.html'}")
    return 0


def calibrate(run: Positional[Path], /, bundle: Path | None = None, coverage: float = DEFAULT_COVERAGE) -> int:
    """Fit temperature and label sets on the tested patients of a cross-validation, and measure them across its folds.

    Args:
        run: A folder made by crossval; gets calibration.json.
        bundle: A bundle of the same recipe, whose card takes over temperature, label sets, and how often answers of
            each confidence are right. The answers of the run that it lies in follow; none of its tested patients may
            be among those fitted on.
        coverage: How often the truth is to be in the label sets that are measured.
    """
    from tumorlens.data.predictions import write_predictions
    from tumorlens.evaluate.by_confidence import FOLDS, by_confidence
    from tumorlens.evaluate.recalibrate import recalibrate, recalibrated, save_recalibration
    from tumorlens.evaluate.results import retell
    from tumorlens.evaluate.run_folder import PREDICTIONS, read_folds, read_run, run_around
    from tumorlens.evaluate.tables import recalibration_grids
    from tumorlens.model.bundle import load_card, write_card

    card = load_card(bundle) if bundle else None
    folds = read_folds(run)
    found = recalibrate(folds, coverage)
    if bundle and card and card.classes != tuple(found.label_sets.thresholds):
        raise RunError(f"{bundle}: its classes are {', '.join(card.classes)}, not those of {run}")
    # A bundle's run must say what the bundle says; so its answers follow.
    own = run_around(bundle) if bundle else None
    renewed = recalibrated(read_run(own), found, DEFAULT_COVERAGE) if own else []
    show_grids(recalibration_grids(found))
    if found.temperature is None:
        say(f"own temperatures do better than one for all; a bundle keeps its own, times {found.factor:.3f}")
    else:
        say(f"temperature {found.temperature:.3f}")
    save_recalibration(found, run / "calibration.json")
    written = [str(run / "calibration.json")]
    made = own / "predictions.renewed" if own else None
    if made:  # before the card, so that a full disk leaves both as they were
        write_predictions(renewed, made, renewed[0].classes)
    if bundle and card:
        temperature = found.applied(card.own_temperature)
        kept = {
            "temperature": temperature,
            "temperature_factor": temperature / card.own_temperature,
            "label_sets": found.label_sets,
            "metrics": card.metrics | {"by_confidence": by_confidence(found.across), "by_confidence_of": FOLDS},
        }
        write_card(bundle, card.model_copy(update=kept))
        written.append(f"the card of {bundle}")
    if bundle and own and made:
        made.replace(own / PREDICTIONS)
        page = retell(bundle)
        written.append(f"{own / PREDICTIONS}" + (f", its report and {page}" if page else "; evaluate it again"))
    say(f"wrote {' and '.join(written)}")
    return 0
