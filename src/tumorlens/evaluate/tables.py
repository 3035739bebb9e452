"""Tables as values: what the terminal and the report both show."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tumorlens.evaluate.evaluation import Evaluation
from tumorlens.evaluate.folds import OF, FoldTable
from tumorlens.evaluate.repeats import Comparison
from tumorlens.evaluate.sources import Levels
from tumorlens.records import Estimate

Cell = Estimate | str
UNDEFINED = "–"

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
FOLD_NOTE = (
    "SD: sample standard deviation over folds. Few patients a fold: the pooled figures with intervals say more. A "
    "patient is asked for the tumour type alone."
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


def comparison_grid(comparison: Comparison) -> Grid:
    """A row a figure: each run, their mean and standard deviation, and the ensemble."""
    return Grid(
        title="Runs compared, with 95 % intervals by patient for the ensemble",
        heads=("", *comparison.names, "mean ± SD", "ensemble"),
        rows=tuple(
            (
                figure_title(name),
                *(_number(name, value) for value in values),
                _spread(name, *comparison.mean_and_sd(name)),
                comparison.ensemble.get(name, UNDEFINED),
            )
            for name, values in comparison.rows.items()
        ),
        note="SD: sample standard deviation between runs. Ensemble: mean log-probability of the runs for each slice.",
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
