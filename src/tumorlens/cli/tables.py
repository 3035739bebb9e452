"""Tables in the terminal: evaluations, comparisons, and whatever comes as a grid."""

from collections.abc import Iterable

from rich.table import Table

from tumorlens.cli.terminal import console, plain, say
from tumorlens.evaluate.evaluation import Evaluation
from tumorlens.evaluate.repeats import Comparison
from tumorlens.evaluate.tables import (
    UNDEFINED,
    Cell,
    Grid,
    class_grid,
    comparison_grid,
    confusion_grid,
    defined,
    grids,
    label_set_grid,
    overall_grid,
)


def show_evaluation(evaluation: Evaluation) -> None:
    """Print the main tables of an evaluation; the report has them all."""
    for warning in evaluation.warnings:
        console.print(f"[yellow]note:[/] {plain(warning)}", highlight=False)
    note = f" ({evaluation.split_note})" if evaluation.split_note else ""
    console.print(f"{plain(evaluation.name)}: figures with 95 % intervals by patient{note}", highlight=False)
    table, main = evaluation.tables[evaluation.main], evaluation.main
    shown = [overall_grid(evaluation), class_grid(table, f"By class ({main})"), confusion_grid(evaluation)]
    for grid in (*shown, label_set_grid(evaluation.trust), *grids(evaluation)):
        if grid.rows:
            _show_grid(grid, note)


def show_grids(tables: Iterable[Grid]) -> None:
    """Print tables."""
    for grid in tables:
        _show_grid(grid, "")


def show_comparison(comparison: Comparison) -> None:
    """Print several runs side by side, with their mean, their spread and their ensemble."""
    for text in comparison.notes:
        console.print(f"[yellow]note:[/] {plain(text)}", highlight=False)
    _show_grid(comparison_grid(comparison), f" ({comparison.split_note})" if comparison.split_note else "")


def _show_grid(grid: Grid, note: str) -> None:
    table = _table(f"{grid.title}{note}")
    for head in grid.heads:
        table.add_column(plain(head))
    for row in grid.rows:
        table.add_row(*map(_text, row))
    console.print(table)
    if grid.note:
        say(grid.note)


def _text(cell: Cell) -> str:
    return plain(str(cell)) if defined(cell) else UNDEFINED


def _table(title: str) -> Table:
    return Table(title=plain(title), title_justify="left")
