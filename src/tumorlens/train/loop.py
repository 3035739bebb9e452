"""The training loop. It knows epochs, steps, checkpoints and patience; it knows nothing of tumours."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch

from tumorlens.errors import TrainingError
from tumorlens.train.accidents import first_line, is_out_of_memory
from tumorlens.train.checkpoint import Progress


class Task(Protocol):
    """What is learned. Randomness must come from (epoch, step) alone, so that a run can be resumed."""

    epochs: int

    def steps(self, epoch: int) -> int:
        """Number of steps in an epoch."""
        ...

    def loss(self, epoch: int, step: int) -> torch.Tensor:
        """The scalar loss of one step's batch."""
        ...

    def updated(self, epoch: int, step: int) -> None:
        """Called when the weights have taken a step."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures after an epoch; `score` (higher is better) decides what is best."""
        ...


@dataclass(frozen=True)
class LoopSettings:
    """How a task is optimised."""

    learning_rate: float
    warmup: float = 0.0
    patience: int = 10**9


@dataclass
class Hooks:
    """Callbacks: progress for people, saving for resumption. All do nothing by default."""

    on_step: Callable[[Progress, int, int], None] = field(default=lambda progress, done, total: None)
    on_epoch: Callable[[Progress], None] = field(default=lambda progress: None)
    on_best: Callable[[Progress], None] = field(default=lambda progress: None)
    on_interrupt: Callable[[Progress], None] = field(default=lambda progress: None)
    should_stop: Callable[[], bool] = field(default=lambda: False)


def run_loop(
    task: Task, optimizer: torch.optim.Optimizer, settings: LoopSettings, progress: Progress, hooks: Hooks
) -> Progress:
    """Train until the epochs are done or patience is at its end.

    Args:
        task: what is learned.
        optimizer: its learning rate is set at each step: linear warm-up, then a cosine to zero, times the `scale` that
            a parameter group may have.
        settings: rate, warm-up and patience.
        progress: where to begin; changed in place.
        hooks: called as training goes on. `should_stop` is asked between two steps, so that a stop never falls
            into the middle of an update; then `on_interrupt` is called.

    Returns:
        The same progress, now at its end.

    Raises:
        KeyboardInterrupt: `should_stop` said so.
        TrainingError: the loss is no number any more, or memory ran out; the weights are those before that step.
    """
    steps = [task.steps(epoch) for epoch in range(task.epochs)]
    total = sum(steps)
    while progress.epoch < task.epochs and progress.epoch - progress.best_epoch <= settings.patience:
        began = sum(steps[: progress.epoch])
        for step in range(progress.step, steps[progress.epoch]):
            if hooks.should_stop():
                hooks.on_interrupt(progress)
                raise KeyboardInterrupt
            started = time.monotonic()
            rate = learning_rate((began + step) / max(total, 1), settings)
            progress.loss_sum += _step(task, optimizer, progress.epoch, step, rate)
            progress.step = step + 1
            progress.seconds += time.monotonic() - started
            hooks.on_step(progress, began + step + 1, total)
        _finish_epoch(task, settings, progress, hooks, steps[progress.epoch])
    return progress


def learning_rate(done: float, settings: LoopSettings) -> float:
    """The rate after a share `done` (0 to 1) of all steps."""
    if done < settings.warmup:
        return settings.learning_rate * (0.1 + 0.9 * done / settings.warmup)
    rest = (done - settings.warmup) / max(1 - settings.warmup, 1e-9)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


def _step(task: Task, optimizer: torch.optim.Optimizer, epoch: int, step: int, rate: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
    try:
        loss = task.loss(epoch, step)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} in epoch {epoch + 1}, step {step + 1}; a loss must be finite. Take a smaller "
                "--finetune.learning-rate or a longer --finetune.warmup, and look for broken pictures with "
                "`tumorlens data audit`"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"memory ran out in epoch {epoch + 1}, step {step + 1} ({first_line(error)}). Take a smaller "
            "--batch-size or smaller pictures, or free memory and continue (`train`: with --resume)"
        ) from error
    task.updated(epoch, step)
    return value


def _finish_epoch(task: Task, settings: LoopSettings, progress: Progress, hooks: Hooks, steps: int) -> None:
    started = time.monotonic()
    figures = task.validate()
    progress.seconds += time.monotonic() - started
    row = {"epoch": float(progress.epoch), "loss": progress.loss_sum / max(steps, 1), **figures}
    progress.history.append({**row, "seconds": progress.seconds})
    better = figures["score"] >= progress.best  # of equals the later, which has seen the lower learning rate
    if better:
        progress.best, progress.best_epoch = figures["score"], progress.epoch
    progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0
    if better:
        hooks.on_best(progress)
    hooks.on_epoch(progress)
