"""The two phases as tasks for the loop: the head on frozen features, then fine-tuning on augmented pictures."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tumorlens.config import TrainSettings
from tumorlens.data.dataset import SliceDataset
from tumorlens.model.network import TumorNet, freeze_before, train_mode
from tumorlens.records import CLASSES
from tumorlens.train import augment
from tumorlens.train.attention import CellHeads, cell_loss, evidence_loss
from tumorlens.train.average import WeightAverage
from tumorlens.train.device import autocast
from tumorlens.train.prefix import CachedFront
from tumorlens.train.sampling import class_weights, epoch_batches, slice_odds
from tumorlens.train.seeds import mix_seed
from tumorlens.train.teachers import Teachers

EVAL_BATCH = 32
NONE = CLASSES.index("no_tumor")


@torch.no_grad()
def restore_shares(network: TumorNet, weights: torch.Tensor) -> None:
    """Give a network that learned with class weights or uneven draws the class shares of its training data back.

    A loss weighed by w makes the network answer w_c p_c / sum_j w_j p_j instead of p_c: it thinks all classes equally
    common. Taking log w_c off the bias undoes that exactly (Saerens et al., Neural Computation 2002). Grad-CAM of a
    logit does not depend on the bias.

    Args:
        network: its head's bias is changed in place.
        weights: how much more common each class was to the training than in its data (`sampling.learned_shares`),
            (classes,); classes of weight 0 are left alone.
    """
    known = weights > 0
    network.head.bias[known] -= torch.log(weights[known]).to(network.head.bias.device)


class Computer:
    """A network on its device: evaluation without gradients, in batches."""

    def __init__(
        self, network: TumorNet, device: torch.device, precision: torch.dtype, front: CachedFront | None = None
    ) -> None:
        self.network = network
        self.device = device
        self.precision = precision
        self.front = front
        """What the frozen stages make of every picture, where it is kept; else it is computed each time."""

    def pictures(self, planes: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """A batch of planes (n, size, size), uint8, as (m, 1, size, size), float32 in [0, 1], on the device."""
        return planes[index].unsqueeze(1).to(self.device).float() / 255

    @torch.inference_mode()
    def features(
        self, dataset: SliceDataset, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> torch.Tensor:
        """Pooled features (n, 2048) of every picture, on the CPU; leaves the network in eval mode."""
        self.network.eval()
        parts = []
        for index in dataset.batches(EVAL_BATCH):
            with autocast(self.device, self.precision):
                parts.append(self.network.pool(self._last_map(dataset, index)).cpu())
            on_progress(int(index[-1]) + 1, len(dataset))
        return torch.cat(parts) if parts else torch.zeros(0, self.network.head.in_features)

    def _last_map(self, dataset: SliceDataset, index: torch.Tensor) -> torch.Tensor:
        if self.front is None:
            return self.network.feature_map(self.pictures(dataset.images, index))
        values = self.front.still(dataset, index).to(self.device, self.precision)
        return self.network.last_maps_after(values, self.front.first)[1]

    @torch.inference_mode()
    def logits(
        self, dataset: SliceDataset, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> torch.Tensor:
        """Logits (n, classes) of every picture, float32, on the CPU."""
        features = self.features(dataset, on_progress)
        return self.network.classify(features.to(self.device)).float().cpu()


def figures(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Validation loss, accuracy and balanced accuracy. The loss decides, as the `score` less than 0: a few hundred
    slices of a few dozen patients are too few for an accuracy to tell epochs apart."""
    hits = logits.argmax(dim=1) == labels
    recalls = [hits[labels == c].float().mean().item() for c in range(logits.shape[1]) if (labels == c).any()]
    loss = float(F.cross_entropy(logits, labels))
    return {
        "val_loss": loss,
        "val_accuracy": float(hits.float().mean()),
        "val_balanced_accuracy": float(np.mean(recalls)),
        "score": -loss,
    }


class HeadTask:
    """The linear layer alone, on features of the frozen backbone that are computed once."""

    def __init__(self, computer: Computer, train: SliceDataset, val: SliceDataset, settings: TrainSettings) -> None:
        self.epochs = settings.head.epochs
        self._computer = computer
        self._train, self._settings = train, settings
        self._features = computer.features(train)
        self._val_features, self._val_labels = computer.features(val), val.labels
        self._order: tuple[int, list[torch.Tensor]] = (-1, [])
        self._criterion = _criterion(computer, train, settings)

    def steps(self, epoch: int) -> int:
        """Batches in an epoch."""
        return max(len(self._train) // self._settings.batch_size, 1)

    def loss(self, epoch: int, step: int) -> torch.Tensor:
        """Loss of one batch of cached features."""
        if self._order[0] != epoch:
            self._order = (epoch, epoch_batches(self._train, self._settings, mix_seed(self._settings.seed, 1, epoch)))
        index = self._order[1][step]
        features = self._features[index].to(self._computer.device)
        labels = self._train.labels[index].to(self._computer.device)
        loss: torch.Tensor = self._criterion(self._computer.network.head(features), labels)
        return loss

    def updated(self, epoch: int, step: int) -> None:
        """Nothing follows the head."""

    def validate(self) -> dict[str, float]:
        """Figures on the validation split."""
        with torch.inference_mode():
            logits = self._computer.network.head(self._val_features.to(self._computer.device)).cpu()
        return figures(logits, self._val_labels)


class FineTuneTask:
    """The later stages and the head, on augmented pictures, at an input size that may grow.

    `average` follows the weights where the settings ask for it; it is then what is validated. `cells` are the heads of
    the cell loss, which learn with the network but do not belong to it.
    """

    def __init__(
        self,
        computer: Computer,
        train: SliceDataset,
        val: SliceDataset,
        settings: TrainSettings,
        teachers: Teachers | None = None,
    ) -> None:
        plan = settings.finetune
        self._teachers = teachers
        self._sizes: Sequence[int] = [stage.size for stage in plan.stages for _ in range(stage.epochs)]
        self.epochs = len(self._sizes)
        self._computer, self._settings = computer, settings
        self._train, self._val = train, val
        self._frozen = freeze_before(computer.network, plan.first_layer)
        self._criterion = _criterion(computer, train, settings)
        self._order: tuple[int, list[torch.Tensor]] = (-1, [])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix_seed(settings.seed, 4))
            self.cells = CellHeads(len(CLASSES)).to(computer.device) if plan.cell_weight else None
        self.average = WeightAverage(computer.network, plan.averaging) if plan.averaging else None

    @property
    def beside(self) -> dict[str, nn.Module]:
        """What a checkpoint keeps beside the network. The average does not ask for gradients, so it does not learn."""
        modules = {"cells": self.cells, "average": self.average.network if self.average else None}
        return {name: module for name, module in modules.items() if module is not None}

    @property
    def kept(self) -> TumorNet:
        """The network to validate and keep: the average, or the one that learns."""
        return self.average.network if self.average else self._computer.network

    def steps(self, epoch: int) -> int:
        """Batches in an epoch; a last incomplete one is left out, for batch norm's sake."""
        return max(len(self._train) // self._settings.batch_size, 1)

    def loss(self, epoch: int, step: int) -> torch.Tensor:
        """Loss of one batch, drawn and augmented from (seed, epoch, step) alone."""
        settings, computer = self._settings, self._computer
        if self._order[0] != epoch:
            self._order = (epoch, epoch_batches(self._train, settings, mix_seed(settings.seed, 2, epoch)))
        index = self._order[1][step]
        seed = mix_seed(settings.seed, 3, epoch, step)
        train_mode(computer.network, self._frozen)  # first: the frozen stages must not follow the batch
        labels = self._train.labels[index].to(computer.device)
        values, views, plan = self._inputs(index, epoch, seed)
        devices = [computer.device] if computer.device.type == "cuda" else []
        # Dropout draws from the global generator: fork it, so that a step is repeatable and the caller's state stays.
        with torch.random.fork_rng(devices=devices), autocast(computer.device, computer.precision):
            torch.manual_seed(seed)
            maps = computer.network.last_maps_after(values, computer.front.first if computer.front else "layer1")
            logits = computer.network.classify(computer.network.pool(maps[1]))
        loss: torch.Tensor = self._criterion(logits.float(), labels)
        if self._teachers is not None and views is not None:
            share = settings.finetune.teacher_weight
            said = self._teachers.answers(views, computer.precision)
            loss = (1 - share) * loss + share * F.cross_entropy(logits.float(), said)
        if self._train.masks is not None and settings.finetune.uses_masks:
            masks = augment.move(computer.pictures(self._train.masks, index), plan, self._sizes[epoch])
            loss = loss + self._mask_losses(maps, masks, labels)
        return loss

    def updated(self, epoch: int, step: int) -> None:
        """Let the average follow."""
        if self.average:
            self.average.update(self._computer.network, epoch * self.steps(epoch) + step)

    def validate(self) -> dict[str, float]:
        """Figures on the validation split, at the bundle's input size."""
        computer = Computer(self.kept, self._computer.device, self._computer.precision, self._computer.front)
        return figures(computer.logits(self._val), self._val.labels)

    def _inputs(
        self, index: torch.Tensor, epoch: int, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor | None, augment.AugmentPlan]:
        """What the learning part of the network gets, the pictures behind it (None where they were computed once), and
        how they were augmented."""
        computer = self._computer
        if computer.front is not None:
            values, plan = computer.front.view(self._train, index, epoch)
            return values.to(computer.device, computer.precision), None, plan
        plan = augment.draw(len(index), self._settings.augment, torch.Generator().manual_seed(seed))
        views = augment.apply(computer.pictures(self._train.images, index), plan, self._sizes[epoch])
        with autocast(computer.device, computer.precision):
            return computer.network.stem(views), views, plan

    def _mask_losses(
        self, maps: tuple[torch.Tensor, torch.Tensor], masks: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        plan = self._settings.finetune
        loss = labels.new_zeros((), dtype=torch.float32)
        if plan.evidence_weight:
            loss = loss + plan.evidence_weight * evidence_loss(self._computer.network.evidence(maps[1]), masks)
        if self.cells is not None:
            for logits in self.cells(maps):
                loss = loss + plan.cell_weight / len(maps) * cell_loss(logits, masks, labels, NONE)
        return loss


def _criterion(computer: Computer, train: SliceDataset, settings: TrainSettings) -> torch.nn.CrossEntropyLoss:
    odds = slice_odds(train, settings)
    weights = class_weights(train.labels, len(CLASSES), odds).to(computer.device) if settings.class_weights else None
    return torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=settings.label_smoothing)
