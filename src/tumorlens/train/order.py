"""What a training begins from: the order, its samples by side, the initial network, and where that comes from."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tumorlens.config import Architecture, TrainSettings
from tumorlens.data.manifest import check_files, read_manifest
from tumorlens.data.split_record import verified_split
from tumorlens.data.splits import FORMED, VAL_SHARE, sides_of_fold
from tumorlens.errors import SplitError
from tumorlens.model.blocks import BLOCKS_PER_LAYER
from tumorlens.model.bundle import CARD, load_card
from tumorlens.model.network import TumorNet
from tumorlens.model.weights import load_backbone, stride_layout, trained_patients
from tumorlens.records import CLASSES, Sample
from tumorlens.train.seeds import mix_seed

FEW = 10  # epochs below which weights of ImageNet hardly learn what a head looks like


@dataclass(frozen=True)
class Order:
    """What to train: a manifest, where the run goes, the settings, and initial weights (None: random).

    `fold` names the fold to test where the manifest has folds instead of train/val/test. `teachers` are the weights of
    bundles whose answers are learned beside the labels.
    """

    manifest: Path
    out: Path
    settings: TrainSettings
    weights: Path | None
    fold: str | None = None
    resume: bool = False
    teachers: tuple[Path, ...] = ()
    layers: tuple[int, ...] = BLOCKS_PER_LAYER


def sides(order: Order) -> tuple[list[Sample], dict[str, Any]]:
    """The samples with their sides, and what is to be kept of the split."""
    samples = read_manifest(order.manifest)
    split = verified_split(order.manifest, samples)
    check_files(samples, order.manifest.parent)
    if order.fold is not None:
        samples = sides_of_fold(samples, order.fold, VAL_SHARE, order.settings.seed)
    counts = Counter(sample.split for sample in samples)
    if not counts["train"] or not counts["val"]:
        raise SplitError(
            f"{order.manifest}: {counts['train']} training and {counts['val']} validation images. Run "
            "`tumorlens data split MANIFEST`, or with --folds K and train with --fold N"
        )
    return samples, split


def initial_network(order: Order, samples: Sequence[Sample]) -> TumorNet:
    """The network at its beginning: new layers drawn from the seed, the rest from the initial weights.

    Raises:
        SplitError: see `check_unseen`.
        TumorlensError: the weights do not fit.
    """
    settings = order.settings
    with torch.random.fork_rng(devices=[]):  # new layers are drawn from the seed; the caller's state stays
        torch.manual_seed(mix_seed(settings.seed, 0))
        network = TumorNet(len(CLASSES), settings.dropout, order.layers, architecture(order))
    if order.weights is not None:
        check_unseen(order.weights, samples)
        load_backbone(network, order.weights)
    return network


def check_unseen(weights: Path, samples: Sequence[Sample], instead: str = "weights") -> None:
    """Make sure that a former run, whose weights are to be trained on or taught by, did not learn from what is now kept
    apart.

    Known are the patients in that run's predictions.csv alone: a bare weights file says nothing, nor does a run say
    what the run before it had learned from; and pictures without a patient id cannot be followed.

    Args:
        weights: the initial weights.
        samples: with their sides now.
        instead: what to take others of.

    Raises:
        SplitError: a patient who is tested or validated now was trained on or validated there.
    """
    seen: set[str] = set()
    for side, former in (("test", ("train", "val")), ("val", ("train",))):
        seen |= trained_patients(weights, former) & {item.patient_group for item in samples if item.split == side}
    found = sorted(group for group in seen if not group.startswith(FORMED))
    if found:
        raise SplitError(
            f"{weights}: that run learned from {len(found)} of the patients that are to be validated or tested now, "
            f"first: {', '.join(found[:3])}. Keep its manifest, fold and seed, or take other {instead}"
        )


def architecture(order: Order) -> Architecture:
    """What the settings ask of the network, with the strides that the initial weights need."""
    return Architecture(**order.settings.network.model_dump(), strides=stride_layout(order.weights))


def notes(order: Order) -> Iterator[str]:
    """What in the settings does not go with the initial weights, or with the size at which the model is used."""
    settings = order.settings
    size, last = settings.preprocess.size, settings.finetune.stages[-1].size
    if last != size:
        yield (
            f"training ends with pictures of {last} pixels, but the model will be used at {size}, where it is worse. "
            f"Give --finetune.stages.{len(settings.finetune.stages) - 1}.size {size}, or --preprocess.size {last}"
        )
    if order.weights is None:
        return
    if not (order.weights.parent / CARD).is_file():
        epochs = settings.head.epochs + sum(stage.epochs for stage in settings.finetune.stages)
        if epochs < FEW:
            yield (
                f"{epochs} epochs are few for a network that has never seen a head. The presets further, larger and "
                "robust go on from a finished model: --weights RUN_OR_BUNDLE; to begin take `best`"
            )
        return
    before = load_card(order.weights.parent)
    if before.network.dilated != settings.network.dilated:
        kinds = {True: "dilated", False: "not dilated"}
        yield (
            f"the last stage of {before.name} is {kinds[before.network.dilated]}, in these settings it is "
            f"{kinds[settings.network.dilated]}: much must be learned anew. Take the preset that it was trained by"
        )
    if before.preprocess.size != size:
        yield (
            f"{before.name} was trained for pictures of {before.preprocess.size} pixels, these settings say {size}: it "
            f"must get used to them. --preprocess.size {before.preprocess.size} keeps its size"
        )


def origin(order: Order) -> tuple[str, str]:
    """What the initial weights are called, and the licences that their bundle and the teachers put on the new model."""
    weights, cards = order.weights, [load_card(path.parent) for path in order.teachers]
    name = "random" if weights is None else weights.name
    if weights is not None and (weights.parent / CARD).is_file():
        cards.insert(0, load_card(weights.parent))
        name = f"{cards[0].name} ({weights.name})"
    return name, "; ".join(dict.fromkeys(card.licence for card in cards if card.licence))
