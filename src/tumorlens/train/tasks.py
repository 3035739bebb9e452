"""The two phases as tasks for the loop: the head on frozen features, then fine-tuning on augmented pictures."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from tumorlens.config import TrainSettings
from tumorlens.data.dataset import SliceDataset
from tumorlens.model.network import TumorNet, freeze_before, train_mode
from tumorlens.records import CLASSES
from tumorlens.train import augment
from tumorlens.train.device import autocast

EVAL_BATCH = 32


def class_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights n / (classes x n_c) that balance the classes in the loss; 0 for a class without examples."""
    counts = torch.bincount(labels, minlength=classes).float()
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(labels) / (present * counts.clamp(min=1)), torch.zeros(classes))


@torch.no_grad()
def restore_shares(network: TumorNet, weights: torch.Tensor) -> None:
    """Give a network that learned with class weights the class shares of its training data back.

    A loss weighed by w makes the network answer w_c p_c / sum_j w_j p_j instead of p_c: it thinks all classes equally
    common. Taking log w_c off the bias undoes that exactly (Saerens et al., Neural Computation 2002). Grad-CAM of a
    logit does not depend on the bias.

    Args:
        network: its head's bias is changed in place.
        weights: the class weights of the loss, (classes,); classes of weight 0 are left alone.
    """
    known = weights > 0
    network.head.bias[known] -= torch.log(weights[known]).to(network.head.bias.device)


class Computer:
    """A network on its device: evaluation without gradients, in batches."""

    def __init__(self, network: TumorNet, device: torch.device, precision: torch.dtype) -> None:
        self.network = network
        self.device = device
        self.precision = precision

    def pictures(self, dataset: SliceDataset, index: torch.Tensor) -> torch.Tensor:
        """A batch (n, 1, size, size), float32 in [0, 1], on the device."""
        return dataset.images[index].unsqueeze(1).to(self.device).float() / 255

    @torch.inference_mode()
    def features(self, dataset: SliceDataset) -> torch.Tensor:
        """Pooled features (n, 2048) of every picture, on the CPU; leaves the network in eval mode."""
        self.network.eval()
        parts = []
        for index in dataset.batches(EVAL_BATCH):
            with autocast(self.device, self.precision):
                parts.append(self.network.pool(self.network.feature_map(self.pictures(dataset, index))).cpu())
        return torch.cat(parts) if parts else torch.zeros(0, self.network.head.in_features)

    @torch.inference_mode()
    def logits(self, dataset: SliceDataset) -> torch.Tensor:
        """Logits (n, classes) of every picture, float32, on the CPU."""
        features = self.features(dataset)
        return self.network.classify(features.to(self.device)).float().cpu()


def figures(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Validation loss, accuracy and balanced accuracy; the last is the `score` that decides."""
    hits = logits.argmax(dim=1) == labels
    recalls = [hits[labels == c].float().mean().item() for c in range(logits.shape[1]) if (labels == c).any()]
    balanced = float(np.mean(recalls))
    return {
        "val_loss": float(F.cross_entropy(logits, labels)),
        "val_accuracy": float(hits.float().mean()),
        "val_balanced_accuracy": balanced,
        "score": balanced,
    }


class HeadTask:
    """The linear layer alone, on features of the frozen backbone that are computed once."""

    def __init__(self, computer: Computer, train: SliceDataset, val: SliceDataset, settings: TrainSettings) -> None:
        self.epochs = settings.head.epochs
        self._computer = computer
        self._train, self._settings = train, settings
        self._features = computer.features(train)
        self._val_features, self._val_labels = computer.features(val), val.labels
        self._criterion = _criterion(computer, train, settings)

    def steps(self, epoch: int) -> int:
        """Batches in an epoch."""
        return -(-len(self._train) // self._settings.batch_size)

    def loss(self, epoch: int, step: int) -> torch.Tensor:
        """Loss of one batch of cached features."""
        seed = mix_seed(self._settings.seed, 1, epoch)
        index = list(self._train.batches(self._settings.batch_size, seed))[step]
        features = self._features[index].to(self._computer.device)
        labels = self._train.labels[index].to(self._computer.device)
        loss: torch.Tensor = self._criterion(self._computer.network.head(features), labels)
        return loss

    def validate(self) -> dict[str, float]:
        """Figures on the validation split."""
        with torch.inference_mode():
            logits = self._computer.network.head(self._val_features.to(self._computer.device)).cpu()
        return figures(logits, self._val_labels)


class FineTuneTask:
    """The later stages and the head, on augmented pictures, at an input size that may grow."""

    def __init__(self, computer: Computer, train: SliceDataset, val: SliceDataset, settings: TrainSettings) -> None:
        self._sizes: Sequence[int] = [stage.size for stage in settings.finetune.stages for _ in range(stage.epochs)]
        self.epochs = len(self._sizes)
        self._computer, self._settings = computer, settings
        self._train, self._val = train, val
        self._frozen = freeze_before(computer.network, settings.finetune.first_layer)
        self._criterion = _criterion(computer, train, settings)
        self._order: tuple[int, list[torch.Tensor]] = (-1, [])

    def steps(self, epoch: int) -> int:
        """Batches in an epoch; a last incomplete one is left out, for batch norm's sake."""
        return max(len(self._train) // self._settings.batch_size, 1)

    def loss(self, epoch: int, step: int) -> torch.Tensor:
        """Loss of one batch, augmented from (seed, epoch, step) alone."""
        settings, computer = self._settings, self._computer
        if self._order[0] != epoch:
            shuffled = self._train.batches(settings.batch_size, mix_seed(settings.seed, 2, epoch), drop_last=True)
            self._order = (epoch, list(shuffled))
        index = self._order[1][step]
        seed = mix_seed(settings.seed, 3, epoch, step)
        plan = augment.draw(len(index), settings.augment, torch.Generator().manual_seed(seed))
        images = augment.apply(computer.pictures(self._train, index), plan, self._sizes[epoch])
        train_mode(computer.network, self._frozen)
        devices = [computer.device] if computer.device.type == "cuda" else []
        # Dropout draws from the global generator: fork it, so that a step is repeatable and the caller's state stays.
        with torch.random.fork_rng(devices=devices), autocast(computer.device, computer.precision):
            torch.manual_seed(seed)
            logits = computer.network(images)
        loss: torch.Tensor = self._criterion(logits.float(), self._train.labels[index].to(computer.device))
        return loss

    def validate(self) -> dict[str, float]:
        """Figures on the validation split, at the bundle's input size."""
        return figures(self._computer.logits(self._val), self._val.labels)


def _criterion(computer: Computer, train: SliceDataset, settings: TrainSettings) -> torch.nn.CrossEntropyLoss:
    weights = class_weights(train.labels, len(CLASSES)).to(computer.device) if settings.class_weights else None
    return torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=settings.label_smoothing)


def mix_seed(*parts: int) -> int:
    """One seed from several numbers, well mixed."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
