"""What the training of a region head keeps, so that it goes on where it was stopped or killed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tumorlens.errors import CheckpointError
from tumorlens.model.region import RegionHead
from tumorlens.train.checkpoint import Progress, load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class RegionCheckpoint:
    """A file with head and momentum. `owner` is whatever decides what is learned; another's file is not used."""

    path: Path
    owner: str
    should_stop: Callable[[], bool] = lambda: False

    def save(self, head: RegionHead, optimizer: torch.optim.AdamW, done: int) -> None:
        """Write head and momentum after `done` steps, whole or not at all.

        Raises:
            CheckpointError: it cannot be written.
        """
        save_checkpoint(self.path, head, optimizer, Progress(step=done), self.owner)

    def load(self, head: RegionHead, optimizer: torch.optim.AdamW) -> int:
        """Read them back; gives the steps that are done, 0 where nothing was kept for this owner."""
        try:
            return load_checkpoint(self.path, head, optimizer, self.owner).step
        except CheckpointError:  # none there, damaged or another's: the head is learned from the beginning
            return 0

    def clear(self) -> None:
        """Nothing is to go on with."""
        self.path.unlink(missing_ok=True)
