"""What the terminal shows: messages, a progress bar with the remaining time, and how Ctrl-C is taken."""

import os
import signal
import sys
from collections.abc import Iterator
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

#: Columns where nothing tells how wide the paper is: a table in a file or a pipe is not to be cut at 80.
_WIDE = 200

console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE)
errors = Console(stderr=True)


def fail(message: str) -> int:
    """Print an error and return exit code 1."""
    errors.print(f"[bold red]error:[/] {plain(message)}", highlight=False, soft_wrap=True)
    return 1


def say(message: str) -> None:
    """Print a line."""
    console.print(plain(message), highlight=False, soft_wrap=True)


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


def plain(text: str) -> str:
    """Text whose brackets are no markup."""
    from rich.markup import escape

    return escape(text)
