"""Which slices an epoch sees, and what a class weighs in the loss."""

from collections import Counter, defaultdict

import torch

from tumorlens.config import TrainSettings
from tumorlens.data.dataset import SliceDataset


def slice_odds(dataset: SliceDataset, settings: TrainSettings) -> torch.Tensor:
    """How often each slice is drawn, (n,), float64, summing to 1.

    `every`: all alike. `square_root`: classes, the sources within a class and the patient groups within a source come
    by the square root of their number of slices: a large one is seen more often, but not in proportion (Mahajan et al.,
    Exploring the Limits of Weakly Supervised Pretraining, ECCV 2018, for classes).
    """
    count = len(dataset)
    if settings.sampling == "every" or not count:
        return torch.full((count,), 1 / max(count, 1), dtype=torch.float64)
    odds = torch.ones(count, dtype=torch.float64)
    keys: list[tuple[str, ...]] = [()] * count
    for level in ("label", "source", "patient_group"):
        keys = [(*key, str(getattr(item, level))) for key, item in zip(keys, dataset.samples, strict=True)]
        sizes = Counter(keys)
        whole: dict[tuple[str, ...], float] = defaultdict(float)
        for key, size in sizes.items():
            whole[key[:-1]] += size**0.5
        odds *= torch.tensor([sizes[key] ** 0.5 / whole[key[:-1]] for key in keys])
    sizes = Counter(keys)
    odds /= torch.tensor([float(sizes[key]) for key in keys])
    return odds / odds.sum()


def epoch_batches(dataset: SliceDataset, settings: TrainSettings, seed: int) -> list[torch.Tensor]:
    """The index tensors of an epoch's batches, all of full size, for batch norm's sake."""
    if settings.sampling == "every":
        return list(dataset.batches(settings.batch_size, seed, drop_last=True))
    steps = max(len(dataset) // settings.batch_size, 1)
    generator = torch.Generator().manual_seed(seed)
    odds = slice_odds(dataset, settings)
    drawn = torch.multinomial(odds, steps * settings.batch_size, replacement=True, generator=generator)
    return list(drawn.view(steps, settings.batch_size))


def class_weights(labels: torch.Tensor, classes: int, odds: torch.Tensor | None = None) -> torch.Tensor:
    """Weights 1 / (classes x share) that balance the classes in the loss; 0 for a class without examples.

    Args:
        labels: (n,), class numbers.
        classes: how many classes there are.
        odds: (n,), how often each slice is drawn; all alike by default.
    """
    shares = torch.bincount(labels, weights=odds, minlength=classes).double()
    shares = shares / shares.sum().clamp(min=1e-12)
    present = int((shares > 0).sum())
    return torch.where(shares > 0, 1 / (present * shares.clamp(min=1e-12)), torch.zeros(classes)).float()


def learned_shares(dataset: SliceDataset, settings: TrainSettings, classes: int) -> torch.Tensor:
    """How much more common each class is to the training than in its data, (classes,); 0 for a class without examples.

    Drawing unevenly and weighing the loss both change the class shares that a network learns.
    """
    odds = slice_odds(dataset, settings)
    drawn = torch.bincount(dataset.labels, weights=odds, minlength=classes)
    natural = torch.bincount(dataset.labels, minlength=classes).double() / max(len(dataset), 1)
    weights = class_weights(dataset.labels, classes, odds).double() if settings.class_weights else torch.ones(classes)
    return torch.where(natural > 0, weights * drawn / natural.clamp(min=1e-12), torch.zeros(classes)).float()
