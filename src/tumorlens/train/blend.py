"""How much of the weights that a training began from stays in its end.

Between what was learned before and what was learned since, a model is often better on pictures of another kind, and no
worse on its own (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from scipy.special import log_softmax
from torch import nn

from tumorlens.config import TrainSettings
from tumorlens.data.dataset import SliceDataset
from tumorlens.model.network import TumorNet, freeze_before, train_mode
from tumorlens.model.temperature import fit_temperature
from tumorlens.train import augment
from tumorlens.train.device import autocast
from tumorlens.train.sampling import epoch_batches
from tumorlens.train.seeds import mix_seed
from tumorlens.train.tasks import EVAL_BATCH, Computer

State = Mapping[str, torch.Tensor]
STATISTICS_OF = 1024  # augmented slices that the batch norms of a blend see


def choose_blend(
    computer: Computer, initial: State, train: SliceDataset, val: SliceDataset, settings: TrainSettings
) -> dict[float, float]:
    """Blend a trained network with the weights it began from, in each share of `settings.finetune.blends` and in none.

    The share is kept that has the lowest log loss, after temperature, on validation slices as they are and once
    augmented: those as they are know nothing of other scanners.

    Args:
        computer: of the trained network, which is changed in place and left in eval mode.
        initial: what it began from, with the class shares of the data.
        train: the slices that the batch norms of a blend see, augmented.
        val: the slices that choose.
        settings: of the run.

    Returns:
        The loss of each share, the one that was kept first.
    """
    network, plan = computer.network, settings.finetune
    trained = copied(network)
    frozen = freeze_before(network, plan.first_layer)
    losses, best = {0.0: _loss(computer, val, settings)}, trained
    for share in plan.blends:
        network.load_state_dict(between(initial, trained, share))
        measure_norms(network, frozen, _augmented(computer, train, settings))
        losses[share] = _loss(computer, val, settings)
        if losses[share] <= min(losses.values()):
            best = copied(network)
    network.load_state_dict(best)
    network.eval()
    return dict(sorted(losses.items(), key=lambda item: item[1]))


def copied(network: nn.Module) -> dict[str, torch.Tensor]:
    """A network's weights as they are now."""
    return {name: values.detach().clone() for name, values in network.state_dict().items()}


def between(initial: State, trained: State, share: float) -> dict[str, torch.Tensor]:
    """`share` of the initial weights and the rest of the trained ones; what is no weight is the trained one's."""
    return {
        name: torch.lerp(new, initial[name].to(new.device), share) if new.is_floating_point() else new
        for name, new in trained.items()
    }


@torch.no_grad()
def measure_norms(network: TumorNet, frozen: list[str], batches: Iterable[torch.Tensor]) -> None:
    """Give the batch norms that learned the mean statistics of some batches: a mean of two weights has others.

    Args:
        network: changed in place, left in eval mode.
        frozen: parts that stay as they are.
        batches: pictures (n, 1, h, w) in [0, 1].
    """
    train_mode(network, frozen)
    norms = [item for item in network.modules() if isinstance(item, nn.BatchNorm2d) and item.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    for batch in batches:
        network.feature_map(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def _augmented(computer: Computer, train: SliceDataset, settings: TrainSettings) -> Iterable[torch.Tensor]:
    seed = mix_seed(settings.seed, 10)
    for number, index in enumerate(epoch_batches(train, settings, seed)[: STATISTICS_OF // settings.batch_size]):
        yield _changed(computer, train, index, settings, mix_seed(seed, number))


def _changed(
    computer: Computer, data: SliceDataset, index: torch.Tensor, settings: TrainSettings, seed: int
) -> torch.Tensor:
    plan = augment.draw(len(index), settings.augment, torch.Generator().manual_seed(seed))
    return augment.apply(computer.pictures(data.images, index), plan, data.images.shape[-1])


@torch.inference_mode()
def _loss(computer: Computer, val: SliceDataset, settings: TrainSettings) -> float:
    """Log loss of the side as it is and once augmented, after one temperature for both."""
    network, seed = computer.network.eval(), mix_seed(settings.seed, 11)
    parts, labels = [], []
    for number, index in enumerate(val.batches(EVAL_BATCH)):
        plain = computer.pictures(val.images, index)
        for images in (plain, _changed(computer, val, index, settings, mix_seed(seed, number))):
            with autocast(computer.device, computer.precision):
                pooled = network.pool(network.feature_map(images))
            parts.append(network.classify(pooled).double().cpu().numpy())
            labels.append(val.labels[index].numpy())
    logits, truth = np.concatenate(parts), np.concatenate(labels)
    shares = log_softmax(logits / fit_temperature(logits, truth), axis=1)
    return -float(shares[np.arange(len(truth)), truth].mean())
