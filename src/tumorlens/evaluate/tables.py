"""Tables as values: what the terminal and the report both show."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tumorlens.evaluate.bias import BiasRow
from tumorlens.evaluate.evaluation import Evaluation
from tumorlens.evaluate.folds import OF, FoldTable
from tumorlens.evaluate.kinds import KINDS
from tumorlens.evaluate.metrics import Table
from tumorlens.evaluate.mistakes import Mistake
from tumorlens.evaluate.recalibrate import Recalibration
from tumorlens.evaluate.repeats import Comparison
from tumorlens.evaluate.selective import LabelSetFigures
from tumorlens.evaluate.sources import Levels
from tumorlens.evaluate.trust import Trust
from tumorlens.records import Estimate, Prediction, class_title

Cell = Estimate | str
UNDEFINED = "–"

#: Of slices, and of patients whose slices were pooled.
OVERALL = (
    "accuracy", "balanced_accuracy", "auc", "average_precision", "f1", "mcc", "kappa", "log_loss", "brier", "ece",
    "ece_adaptive", "calibration_slope",
)  # fmt: skip
BY_CLASS = (
    "sensitivity", "specificity", "ppv", "npv", "f1", "auc", "average_precision", "calibration_slope",
    "calibration_intercept",
)  # fmt: skip
BY_PATIENT = {"accuracy": "Tumour type of patients: accuracy", "auc": "Tumour type of patients: AUC"}

TUMOURS = {
    "accuracy": "Accuracy",
    "type_accuracy": "Accuracy, type alone",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC (macro)",
}
AGAINST_NONE = {"auc": "AUC", "sensitivity": "Sensitivity", "specificity": "Specificity"}
TUMOUR_NOTE = (
    "A tumour slice called “no tumour” is wrong; with the type alone the most probable tumour class counts. A "
    "patient’s slices are pooled (mean log-probability) and asked for the type alone. Images without a patient id are "
    "no patients."
)
NONE_NOTE = (
    "Within one source, where telling sources apart does not help. A source with only one of the two has its "
    "sensitivity or specificity alone. A patient’s tumour slices are pooled, and so are the slices without."
)
PATIENT_NOTE = (
    "A patient’s slices of one label are pooled (mean log-probability) into one answer over all classes. Images "
    "without a patient id are no patients."
)
FOLD_NOTE = (
    "SD: sample standard deviation over folds. Few patients a fold: the pooled figures with intervals say more. A "
    "patient is asked for the tumour type alone."
)

BIAS_NOTE = (
    "A forest on ten features that know nothing of anatomy (size, background, contrast, sharpness, file), trained and "
    "tested on the same patients as the model. Where it gets far, telling sources apart is enough, and a good figure "
    "of the model proves little; the rows within one source are the telling ones. Even there it knows a little: slices "
    "at the ends of a head are smaller and darker, and seldom show the tumour. Intervals of the difference are paired."
)

#: Where a patient's figures stand: theirs is always an accuracy of the type alone.
_PATIENT_COLUMNS = {"accuracy": "type_accuracy"}


@dataclass(frozen=True)
class Grid:
    """One table: a title, a head for each column, rows of cells of which the first names the row, and a note."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def figure_grids(evaluation: Evaluation) -> list[Grid]:
    """Every figure by side and by class: of slices, and of patients where there are some."""
    main, patients = evaluation.main, evaluation.patient_tables
    made = [overall_grid(evaluation), class_grid(evaluation.tables[main], f"By class, slices ({main})")]
    if main in patients:
        made.append(_patient_grid(patients, evaluation.leaky))
        made.append(class_grid(patients[main], f"By class, patients ({main})"))
    return made


def overall_grid(evaluation: Evaluation) -> Grid:
    """A row a figure, a column a side; the tumour types of patients at the end."""
    tables = evaluation.tables
    rows = _overall_rows(tables)
    for key, title in BY_PATIENT.items():
        cells = [evaluation.patients.get(name, {}).get(key, UNDEFINED) for name in tables]
        if any(map(defined, cells)):
            rows.append((title, *cells))
    return Grid(
        "Slices",
        ("", *(f"{side_title(name, evaluation.leaky)}: {_counted(tables[name], 'slices')}" for name in tables)),
        tuple(rows),
    )


def class_grid(table: Table, title: str) -> Grid:
    """A row a figure, a column a class, each against the rest."""
    heads = ("", *(class_title(name) for name in table.by_class))
    rows: list[tuple[Cell, ...]] = [
        (KINDS[key].title, *(own[key] for own in table.by_class.values())) for key in BY_CLASS
    ]
    return Grid(title, heads, tuple(rows))


def side_title(name: str, leaky: bool) -> str:
    """What a side is called: a test side says whether its patients are unseen."""
    tested = "Test (patients seen in training)" if leaky else "Test (unseen patients)"
    return {"train": "Training", "val": "Validation", "test": tested}[name]


def _patient_grid(tables: Mapping[str, Table], leaky: bool) -> Grid:
    heads = ("", *(f"{side_title(name, leaky)}: {_counted(table, 'answers')}" for name, table in tables.items()))
    return Grid("Patients", heads, tuple(_overall_rows(tables)), PATIENT_NOTE)


def _overall_rows(tables: Mapping[str, Table]) -> list[tuple[Cell, ...]]:
    return [(_directed(key), *(table.overall[key] for table in tables.values())) for key in OVERALL]


def _directed(key: str) -> str:
    """A figure's title, with its direction where that is not upwards."""
    note = {"lower": " (lower is better)", "one": " (1 is right)", "zero": " (0 is right)", "higher": ""}
    return KINDS[key].title + note[KINDS[key].better]


def _counted(table: Table, what: str) -> str:
    accuracy = table.overall["accuracy"]
    return f"{accuracy.n_slices} {what}, {accuracy.n} groups"


def grids(evaluation: Evaluation) -> list[Grid]:
    """The tables of an evaluation beyond those by split and class, where there is something to show."""
    main = evaluation.main
    tumours = {"all": evaluation.levels, **{name: item.tumours for name, item in evaluation.sources.items()}}
    none = {name: item.against_none for name, item in evaluation.sources.items()}
    made = [
        _levels_grid(f"Tumours told apart ({main})", TUMOURS, tumours, TUMOUR_NOTE),
        _levels_grid(f"Tumour against none, by source ({main})", AGAINST_NONE, none, NONE_NOTE),
        *(fold_grids(evaluation.folds) if evaluation.folds else []),
    ]
    return [grid for grid in made if grid.rows]


def confusion_grid(evaluation: Evaluation) -> Grid:
    """Counts, rows true, columns predicted."""
    table = evaluation.tables[evaluation.main]
    names = [class_title(name) for name in table.classes]
    rows = tuple((name, *map(str, row)) for name, row in zip(names, table.confusion, strict=True))
    return Grid(f"Confusion matrix, rows true, columns predicted ({evaluation.main})", ("", *names), rows)


def reliability_grid(trust: Trust) -> Grid:
    """The numbers behind the reliability diagram."""
    return Grid(
        "Reliability",
        ("Confidence", "said on average", "right"),
        tuple((f"{b.low:.3f} to {b.high:.3f}", f"{b.said:.3f}", b.right) for b in trust.reliability),
    )


def selective_grid(trust: Trust) -> Grid:
    """The numbers behind the selective curve."""
    return Grid(
        "Answering only when sure",
        ("Confidence at least", "share answered", "accuracy of these"),
        tuple((f"{p.threshold:.3f}", p.answered, p.accuracy) for p in trust.selective),
    )


def subgroup_grid(trust: Trust) -> Grid:
    """The numbers behind the forest plot."""
    return Grid(
        "Subgroups",
        ("Part", "slices, groups", "accuracy", "AUC (macro)"),
        tuple(
            (f"{g.divided_by}: {g.part}", f"{g.figures['accuracy'].n_slices}, {g.figures['accuracy'].n}",
             g.figures["accuracy"], g.figures.get("auc", UNDEFINED))
            for g in trust.subgroups
        ),
    )  # fmt: skip


def bias_grid(rows: Sequence[BiasRow]) -> Grid:
    """How far one gets without looking at the anatomy."""
    return Grid(
        "Source bias",
        ("Question", "figure", "guessing", "simple features", "the model", "difference"),
        tuple((row.question, row.figure, f"{row.chance:.3f}", row.features, row.model, row.difference) for row in rows),
        BIAS_NOTE,
    )


def mistake_grid(mistakes: Sequence[Mistake]) -> Grid:
    """The confident mistakes as rows, for where their pictures are not at hand."""
    found = [item.prediction for item in mistakes]
    return Grid(
        "The most confident mistakes",
        ("Patient", "slice", "true", "said", "confidence"),
        tuple(
            (item.patient_group, slice_name(item), class_title(item.label), class_title(item.predicted),
             f"{item.confidence:.1%}")
            for item in found
        ),
    )  # fmt: skip


def slice_name(item: Prediction) -> str:
    """A slice's file, and its frame where the file has several."""
    name = item.source.rpartition("/")[2]
    return f"{name}, frame {item.frame}" if item.frame else name


def label_set_grid(trust: Trust) -> Grid:
    """How often the truth is in the label set, and how large the sets are; empty without sets."""
    return _set_grid("Label sets", trust.label_sets)


def _set_grid(title: str, found: LabelSetFigures | None) -> Grid:
    rows: tuple[tuple[Cell, ...], ...] = ()
    if found is not None:
        rows = (
            ("All", found.coverage, found.size, found.single),
            *((class_title(name), cell, UNDEFINED, UNDEFINED) for name, cell in found.by_class.items()),
        )
    return Grid(title, ("True class", "truth in the set", "classes in the set", "share of sets with one class"), rows)


def fold_grids(table: FoldTable) -> list[Grid]:
    """A row a fold and their mean and standard deviation; a table of all sources, and one of each."""
    scopes: dict[str, list[str]] = {}
    for column in table.columns:
        scopes.setdefault(column.rpartition(OF)[0], []).append(column)
    return [
        Grid(
            title=f"Fold by fold{f', {scope}' if scope else ''}",
            heads=("Fold", *(_capital(figure_title(column.removeprefix(scope + OF))) for column in columns)),
            rows=(
                *((name, *(_number(column, row.get(column, float("nan"))) for column in columns))
                  for name, row in zip(table.names, table.rows, strict=True)),
                ("mean ± SD", *(_spread(column, table.mean(column), table.sd(column)) for column in columns)),
            ),
            note=FOLD_NOTE,
        )
        for scope, columns in scopes.items()
    ]  # fmt: skip


def recalibration_grids(found: Recalibration) -> list[Grid]:
    """What scaling does to calibration, and how label sets do, across folds."""
    names = list(next(iter(found.figures.values())))
    scaling = Grid(
        f"Calibration across folds, {found.n_slices} slices of {len(found.groups)} groups",
        ("", *map(_directed, names)),
        tuple((way, *(rows[name] for name in names)) for way, rows in found.figures.items()),
        "Each fold is answered with what was fitted on the others.",
    )
    sets = _set_grid(f"Label sets across folds, at {found.coverage:.0%}", found.sets)
    return [scaling, *([sets] if sets.rows else [])]


def comparison_grid(comparison: Comparison) -> Grid:
    """A row a figure: each run, their mean and standard deviation, the ensemble, and what parts two runs."""
    pair = comparison.pair
    note = "SD: sample standard deviation between runs. Ensemble: mean log-probability of the runs for each slice."
    if pair is not None:
        note += " Difference: second run minus first, on the same draws of patients."
        if pair.patients is not None:
            test = pair.patients
            note += (
                f" Tumour types of {test.n} patients: {test.first_only} right by the first run alone, "
                f"{test.second_only} by the second alone; McNemar’s exact test p = {test.p:.3f}."
            )
    return Grid(
        title="Runs compared, with 95 % intervals by patient",
        heads=("", *comparison.names, "mean ± SD", "ensemble", *(["difference"] if pair else [])),
        rows=tuple(
            (
                figure_title(name),
                *(_number(name, value) for value in values),
                _spread(name, *comparison.mean_and_sd(name)),
                comparison.ensemble.get(name, UNDEFINED),
                *([pair.differences.get(name, UNDEFINED)] if pair else []),
            )
            for name, values in comparison.rows.items()
        ),
        note=note,
    )


def figure_title(column: str) -> str:
    """A figure's name as people write it: `figshare:tumour_slice_auc` is `figshare: tumour slice AUC`."""
    source, joined, figure = column.rpartition(OF)
    words = figure.replace("_", " ").replace(" or ", " against ")
    words = f"{words.removesuffix('auc')}AUC" if words.endswith("auc") else words
    return f"{source}: {words}" if joined else words


def defined(cell: Cell) -> bool:
    """Whether there is something to show."""
    return cell != UNDEFINED and not (isinstance(cell, Estimate) and math.isnan(cell.value))


def _levels_grid(title: str, figures: Mapping[str, str], sources: Mapping[str, Levels], note: str) -> Grid:
    rows = tuple(row for name, levels in sources.items() for row in _level_rows(name, levels, list(figures)))
    return Grid(title, ("Source", "Of", *figures.values()), rows, note)


def _level_rows(source: str, levels: Levels, names: Sequence[str]) -> Iterator[tuple[Cell, ...]]:
    for level, figures in (("slices", levels.slices), ("patients", levels.patients)):
        if figures:
            slices = max(item.n_slices for item in figures.values())
            groups = max(item.n for item in figures.values())
            of = f"{slices} slices, {groups} groups" if level == "slices" else f"{groups} patients, {slices} slices"
            placed = figures if level == "slices" else {_PATIENT_COLUMNS.get(k, k): v for k, v in figures.items()}
            yield source, of, *(placed.get(name, UNDEFINED) for name in names)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(column: str, value: float) -> str:
    if math.isnan(value):
        return UNDEFINED
    return f"{value:.0f}" if column in ("slices", "groups", "epochs", "seconds") else f"{value:.3f}"


def _spread(column: str, mean: float, sd: float) -> str:
    if math.isnan(mean):
        return UNDEFINED
    return _number(column, mean) if math.isnan(sd) else f"{_number(column, mean)} ± {_number(column, sd)}"
