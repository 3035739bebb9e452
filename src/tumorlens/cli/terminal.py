"""What the terminal shows: messages, tables, a progress bar with the remaining time, and how Ctrl-C is taken."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

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

console = Console()
errors = Console(stderr=True)


def fail(message: str) -> int:
    """Print an error and return exit code 1."""
    errors.print(f"[bold red]error:[/] {_plain(message)}", highlight=False, soft_wrap=True)
    return 1


def say(message: str) -> None:
    """Print a line."""
    console.print(_plain(message), highlight=False, soft_wrap=True)


class Bar:
    """One progress bar that moves from stage to stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = ""
        self._task: TaskID | None = None

    def update(self, stage: str, done: int, total: int) -> None:
        """Show `done` of `total` of a stage."""
        if stage != self._stage or self._task is None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._stage, self._task = stage, self._progress.add_task(stage, total=total)
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """A bar with count, elapsed and remaining time."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)


@contextmanager
def gentle_interrupt() -> Iterator[list[bool]]:
    """Turn the first Ctrl-C into a wish that is granted between two steps; the second interrupts at once.

    Yields:
        A list that becomes non-empty with the first Ctrl-C.
    """
    wish: list[bool] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if wish:
            raise KeyboardInterrupt
        wish.append(True)
        errors.print("stopping after this step; Ctrl-C again stops at once")

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGINT, before)


def show_evaluation(evaluation: Evaluation) -> None:
    """Print the main tables of an evaluation; the report has them all."""
    for warning in evaluation.warnings:
        console.print(f"[yellow]note:[/] {_plain(warning)}", highlight=False)
    note = f" ({evaluation.split_note})" if evaluation.split_note else ""
    console.print(f"{_plain(evaluation.name)}: figures with 95 % intervals by patient{note}", highlight=False)
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
        console.print(f"[yellow]note:[/] {_plain(text)}", highlight=False)
    _show_grid(comparison_grid(comparison), f" ({comparison.split_note})" if comparison.split_note else "")


def _show_grid(grid: Grid, note: str) -> None:
    table = _table(f"{grid.title}{note}")
    for head in grid.heads:
        table.add_column(_plain(head))
    for row in grid.rows:
        table.add_row(*map(_text, row))
    console.print(table)
    if grid.note:
        say(grid.note)


def _text(cell: Cell) -> str:
    return _plain(str(cell)) if defined(cell) else UNDEFINED


def _table(title: str) -> Table:
    return Table(title=_plain(title), title_justify="left")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
