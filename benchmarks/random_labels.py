"""Do maps follow what was learned? Labels dealt out at random (Adebayo et al., NeurIPS 2018, the data test).

    python benchmarks/random_labels.py MANIFEST WEIGHTS [--slices 1000] [--epochs 40] [--fold 0]

Three networks learn the same slices from the same initial weights, without augmentation or masks, until they know them
by heart, each by its own seed: with their labels, once more with them, and with labels dealt out anew. Grad-CAM of
the logit of the class that the first answers is then compared on tested slices with a tumour. A map of the network that
learned chance should look like the first one's no more than any map does; that of the other seed, which was built and
taught alike, is what one may hope for (repeatability of Arun et al., Radiology: AI 2021; frozen stages are shared).
"""

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

from tumorlens.bootstrap import PatientBootstrap, mean
from tumorlens.config import Architecture, AugmentSettings, StageSettings, TrainSettings, load_settings
from tumorlens.data.dataset import SliceDataset, load_dataset
from tumorlens.data.manifest import read_manifest
from tumorlens.data.preprocess import resize
from tumorlens.data.splits import VAL_SHARE, sides_of_fold
from tumorlens.evaluate.answers import NONE
from tumorlens.explain.gradcam import gradcam
from tumorlens.explain.scores import rank_likeness
from tumorlens.model.network import TumorNet
from tumorlens.model.weights import load_backbone
from tumorlens.records import CLASSES, Estimate, Float32, Sample
from tumorlens.train.prefix import FOLDER, cached_front
from tumorlens.train.recipe import Reporter, fit
from tumorlens.train.run import RunPaths
from tumorlens.train.tasks import Computer, figures

BATCH = 16


def main() -> None:
    """Train three networks and compare their maps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--fold", default="0")
    given = parser.parse_args()
    settings = by_heart(given.epochs)
    samples = drawn(given.manifest, given.fold, given.slices)
    dataset = load_dataset(samples, given.manifest.parent, settings.preprocess, masks=("test",))
    tested = dataset.side("test")
    print(f"{given.slices} slices, {given.epochs} epochs, {settings.preprocess.size} pixels; tested on {len(tested)}")
    learned = {
        "true": (dataset, 0),
        "another seed": (dataset, 1),
        "at random": (dataclasses.replace(dataset, labels=dealt_anew(dataset)), 2),  # not its head of the beginning
    }
    print("\n| labels | training slices answered as taught | tested tumours answered right | peak in the tumour |")
    print("|---|---|---|---|")
    maps: dict[str, list[Float32]] = {}
    asked: list[int] = []
    groups = PatientBootstrap([item.patient_group for item in tested.samples])
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER] = folder  # the frozen stages are computed for each seed
        for name, (taught, seed) in learned.items():
            computer = taught_by(taught, settings.model_copy(update={"seed": seed}), given.weights)
            train = taught.side("train")
            known = figures(computer.logits(train), train.labels)["val_accuracy"]
            answers = computer.logits(tested).argmax(dim=1)
            asked = asked or answers.tolist()
            maps[name] = maps_of(computer.network, tested, asked)
            right = groups.estimate(mean((answers == tested.labels).double().numpy()))
            inside = groups.estimate(
                mean(np.array([_peak_inside(*pair) for pair in zip(maps[name], _masks(tested), strict=True)]))
            )
            print(f"| {name} | {known:.3f} | {right} | {inside} |", flush=True)
    print("\n| compared with the first network's map | same slice | another slice |\n|---|---|---|")
    half = len(tested) // 2  # the next slice is often the same patient's
    for name in ("another seed", "at random"):
        other = maps[name]
        moved = [*other[half:], *other[:half]]
        likeness = [_alike(groups, maps["true"], others) for others in (other, moved)]
        print(f"| labels {name} | {likeness[0]} | {likeness[1]} |")


def by_heart(epochs: int) -> TrainSettings:
    """`fast-cpu` without what keeps a network from learning slices by heart, at the size and cells of what ships."""
    base = load_settings("fast-cpu")
    plain = AugmentSettings(**dict.fromkeys(AugmentSettings.model_fields, 0.0))
    changes = {
        "cached_views": 1, "evidence_weight": 0.0, "cell_weight": 0.0, "patience": epochs,
        "stages": (StageSettings(epochs=epochs, size=192),),
    }  # fmt: skip
    return base.model_copy(
        update={
            "preprocess": base.preprocess.model_copy(update={"size": 192}),
            "network": base.network.model_copy(update={"dilated": True}),
            "finetune": base.finetune.model_copy(update=changes),
            "head": base.head.model_copy(update={"epochs": 0}),
            "augment": plain, "dropout": 0.0, "label_smoothing": 0.0, "weight_decay": 0.0, "sampling": "every",
        }
    )  # fmt: skip


def drawn(manifest: Path, fold: str, count: int) -> list[Sample]:
    """`count` training slices at random, the validation side, and the tested slices with a mask."""
    sides = sides_of_fold(read_manifest(manifest), fold, VAL_SHARE, seed=0)
    train = [number for number, item in enumerate(sides) if item.split == "train"]
    kept = set(np.random.default_rng(0).permutation(train)[:count].tolist())
    return [
        item
        for number, item in enumerate(sides)
        if number in kept or item.split == "val" or (item.split == "test" and item.mask and item.label != NONE)
    ]


def dealt_anew(dataset: SliceDataset) -> torch.Tensor:
    """Labels, those of training slices in another order: each class keeps its share."""
    labels = dataset.labels.clone()
    train = torch.tensor([number for number, item in enumerate(dataset.samples) if item.split == "train"])
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    labels[train] = dataset.labels[train[order]]
    return labels


def taught_by(dataset: SliceDataset, settings: TrainSettings, weights: Path) -> Computer:
    """The network after the last epoch, whatever validation says of it."""
    torch.manual_seed(settings.seed)
    network = TumorNet(len(CLASSES), settings.dropout, settings=Architecture(dilated=settings.network.dilated))
    load_backbone(network, weights)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    computer = Computer(network, torch.device("cpu"), torch.bfloat16, cached_front(network, dataset, settings))
    with tempfile.TemporaryDirectory() as folder:
        fit(computer, dataset, settings, RunPaths(Path(folder)), resume=False, reporter=Reporter())
    return computer


@torch.inference_mode()
def maps_of(network: TumorNet, tested: SliceDataset, asked: Sequence[int]) -> list[Float32]:
    """Grad-CAM of the logit of the asked classes, at the slices' size."""
    network.eval()
    size = tested.images.shape[-1]
    found = []
    for index in tested.batches(BATCH):
        features = network.feature_map(tested.images[index].unsqueeze(1).float() / 255)
        shares = softmax(network.classify(network.pool(features)).double().numpy(), axis=1)
        for number, evidence, share in zip(index.tolist(), network.evidence(features).numpy(), shares, strict=True):
            heat = gradcam(evidence, tuple(map(float, share)), CLASSES, CLASSES[asked[number]], "logit")
            found.append(resize(heat.values, size, size))
    return found


def _masks(tested: SliceDataset) -> list[torch.Tensor]:
    assert tested.masks is not None
    return list(tested.masks > 127)


def _peak_inside(values: Float32, mask: torch.Tensor) -> float:
    return float(mask.flatten()[int(values.argmax())] and values.max() > 0)


def _alike(groups: PatientBootstrap, first: Sequence[Float32], second: Sequence[Float32]) -> Estimate:
    return groups.estimate(mean(np.array([rank_likeness(*pair) for pair in zip(first, second, strict=True)])))


if __name__ == "__main__":
    main()
