"""Fitting the region head: masks say which cells show tumour, healthy slices that none does; the network stays."""

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from tumorlens.config import TrainSettings
from tumorlens.data.dataset import SliceDataset
from tumorlens.model.region import RegionHead, middle_maps, mixed, strength
from tumorlens.train import augment
from tumorlens.train.attention import cover_of, mean_over
from tumorlens.train.checkpoint import SAVE_SECONDS
from tumorlens.train.device import autocast
from tumorlens.train.region_checkpoint import RegionCheckpoint
from tumorlens.train.sampling import epoch_batches
from tumorlens.train.seeds import mix_seed
from tumorlens.train.tasks import EVAL_BATCH, NONE, Computer

EPOCHS = 5
_RATE = 2e-3
_DECAY = 1e-3
_BCE = 10.0  # a cell's cross-entropy is small beside the Dice loss of the few that are tumour

Progress = Callable[[int, int], None]


def fit_region(
    computer: Computer,
    train: SliceDataset,
    settings: TrainSettings,
    progress: Progress = lambda done, total: None,
    epochs: int = EPOCHS,
    kept: RegionCheckpoint | None = None,
) -> RegionHead:
    """Fit a region head on augmented training slices, those with a mask and those without a tumour.

    Args:
        computer: of the trained network, which stays as it is, in eval mode; the head learns in float32.
        train: slices with `masks`.
        settings: of the run: augmentation, batch size, draws and seed.
        progress: called with (steps done, steps in all).
        epochs: passes over the slices.
        kept: where an earlier call's steps are, to go on from; every few minutes and at the end it gets those of this.

    Raises:
        KeyboardInterrupt: `kept.should_stop` said so; what was learned is kept.
    """
    assert train.masks is not None
    computer.network.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seed(settings.seed, 7))
        head = RegionHead().to(computer.device)
    steps = max(len(train) // settings.batch_size, 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=epochs * steps)
    begun = kept.load(head, optimizer) if kept else 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the optimizer's steps were made by an earlier call
        for _ in range(begun):
            schedule.step()
    order: list[torch.Tensor] = []
    saved = time.monotonic()
    for done in range(begun, epochs * steps):
        epoch, step = divmod(done, steps)
        if not order or step == 0:
            order = epoch_batches(train, settings, mix_seed(settings.seed, 8, epoch))
        loss = _batch_loss(computer, head, train, order[step], settings, mix_seed(settings.seed, 9, epoch, step))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress(done + 1, epochs * steps)
        stop = kept is not None and kept.should_stop()
        if kept and (stop or done + 1 == epochs * steps or time.monotonic() - saved > SAVE_SECONDS):
            kept.save(head, optimizer, done + 1)
            saved = time.monotonic()
        if stop:
            raise KeyboardInterrupt
    return head.eval()


def _batch_loss(
    computer: Computer,
    head: RegionHead,
    train: SliceDataset,
    index: torch.Tensor,
    settings: TrainSettings,
    seed: int,
) -> torch.Tensor:
    """Loss of one batch, augmented from `seed` alone."""
    assert train.masks is not None
    plan = augment.draw(len(index), settings.augment, torch.Generator().manual_seed(seed))
    size = train.images.shape[-1]
    images = augment.apply(computer.pictures(train.images, index), plan, size)
    masks = augment.move(computer.pictures(train.masks, index), plan, size)
    with torch.no_grad(), autocast(computer.device, computer.precision):
        fine, coarse = middle_maps(computer.network, images)
    return region_loss(head(fine.float(), coarse.float()), masks, train.labels[index].to(computer.device))


def region_loss(logits: torch.Tensor, masks: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of cells and, where there is a mask, one minus its Dice.

    Args:
        logits: (n, h, w).
        masks: (n, 1, H, W) in [0, 1]; all 0 where no mask is known.
        labels: (n,) class numbers; a tumour without a mask says nothing.

    Returns:
        A scalar; 0 where nothing is known.
    """
    cover = cover_of(masks, logits)
    ill = (cover.flatten(1).amax(dim=1) > 0).float()
    known = torch.maximum(ill, (labels == NONE).float())
    entropy = F.binary_cross_entropy_with_logits(logits, cover, reduction="none").flatten(1).mean(dim=1)
    shares = torch.sigmoid(logits)
    overlap, both = (shares * cover).flatten(1).sum(dim=1), (shares + cover).flatten(1).sum(dim=1)
    dice = 1 - (2 * overlap + 1) / (both + 1)
    return _BCE * mean_over(entropy, known) + mean_over(dice, ill)


@torch.inference_mode()
def answers(
    computer: Computer,
    head: RegionHead,
    data: SliceDataset,
    progress: Progress = lambda done, total: None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Logits of the network alone (n, C), and the region's strengths (n,) and peaks (n,) of every slice."""
    network = computer.network.eval()
    logits, strengths, peaks = [], [], []
    for index in data.batches(EVAL_BATCH):
        with autocast(computer.device, computer.precision):
            fine, coarse = middle_maps(network, computer.pictures(data.images, index))
            features = network.pool(network.part("layer4")(coarse))
        logits.append(network.classify(features).float().cpu())
        cells = head(fine.float(), coarse.float())
        strengths.append(strength(cells).cpu())
        peaks.append(torch.sigmoid(cells.flatten(1).amax(dim=1)).cpu())
        progress(int(index[-1]) + 1, len(data))
    return torch.cat(logits).double().numpy(), torch.cat(strengths).double().numpy(), torch.cat(peaks).double().numpy()


def fit_mix(
    logits: NDArray[np.float64], strengths: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[float, float]:
    """How much say the region has in `no_tumor`, by the likelihood of slices that neither learned from.

    Args:
        logits: (n, C) of the network alone.
        strengths: (n,) of the region.
        labels: (n,) class numbers.

    Returns:
        Weight (at least 0; 0 where slices with or without tumour are missing) and bias of `mixed`; the temperature
        is fitted beside them and not kept.
    """
    if (labels == NONE).all() or not (labels == NONE).any():
        return 0.0, 0.0  # nothing says how the two kinds differ
    own = np.arange(len(labels)), labels

    def loss(values: NDArray[np.float64]) -> float:
        weight, bias, log_temperature = values
        shifted = mix(logits, strengths, float(weight), float(bias))
        return float(-log_softmax(shifted / np.exp(log_temperature), axis=1)[own].mean())

    # Only a region that tells more than the network does may speak; so the weight has a floor of 0.
    found = minimize(loss, np.array([0.1, 0.0, 0.0]), bounds=[(0.0, None), (None, None), (-3.0, 3.0)])
    return float(found.x[0]), float(found.x[1])


def contradiction(shares: NDArray[np.float64], peaks: NDArray[np.float64], labels: NDArray[np.int64]) -> float | None:
    """The peak of a region map that contradicts `no_tumor`: 99 of 100 slices that are rightly answered so stay below.

    Args:
        shares: (n, C) of slices that neither the network nor the region learned from.
        peaks: (n,) of the region, as probabilities.
        labels: (n,) class numbers.

    Returns:
        At least a half; None if no slice is rightly answered `no_tumor`.
    """
    right = (labels == NONE) & (shares.argmax(axis=1) == NONE)
    return max(0.5, float(np.quantile(peaks[right], 0.99))) if right.any() else None


def mix(logits: NDArray[np.float64], strengths: NDArray[np.float64], weight: float, bias: float) -> NDArray[np.float64]:
    """`mixed` of plain arrays."""
    return mixed(torch.from_numpy(logits), torch.from_numpy(strengths), NONE, weight, bias).numpy()
