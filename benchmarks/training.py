"""Head and last stage on a CPU: the `fast-cpu` way beside a plain loop that recomputes everything, in one run.

python benchmarks/training.py MANIFEST WEIGHTS [--slices 600] [--epochs 12] [--views 4]

Both learn the same slices with the same augmentation, rate, loss and number of epochs; the mask losses are off. The
plain loop is what one would write: PyTorch, float32, the frozen stages under `no_grad`, every batch augmented anew. The
cache is empty at the start, and the time includes filling it. Prints seconds, pictures a second, the accuracy on
validated patients, and the ratio.
"""

import argparse
import dataclasses
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tumorlens.config import StageSettings, TrainSettings, load_settings
from tumorlens.data.dataset import SliceDataset, load_dataset
from tumorlens.data.manifest import read_manifest
from tumorlens.data.splits import sides_of_fold
from tumorlens.model.network import TumorNet, freeze_before, train_mode
from tumorlens.model.weights import load_backbone
from tumorlens.records import CLASSES
from tumorlens.train import augment
from tumorlens.train.device import choose_precision
from tumorlens.train.loop import LoopSettings, learning_rate
from tumorlens.train.prefix import FOLDER, cached_front
from tumorlens.train.recipe import Reporter, fit
from tumorlens.train.run import RunPaths
from tumorlens.train.tasks import Computer, figures


def new_network(settings: TrainSettings, weights: Path) -> TumorNet:
    torch.manual_seed(settings.seed)
    network = TumorNet(len(CLASSES), settings.dropout)
    load_backbone(network, weights)
    return network


def fast(dataset: SliceDataset, settings: TrainSettings, weights: Path) -> tuple[float, float]:
    """Seconds and accuracy of the product's own way."""
    network = new_network(settings, weights).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER] = folder
        started = time.perf_counter()
        front = cached_front(network, dataset, settings)
        computer = Computer(network, torch.device("cpu"), choose_precision("auto", torch.device("cpu")), front)
        fit(computer, dataset, settings, RunPaths(Path(folder)), resume=False, reporter=Reporter())
        seconds = time.perf_counter() - started
        return seconds, accuracy(computer, dataset)


def plain(dataset: SliceDataset, settings: TrainSettings, weights: Path) -> tuple[float, float]:
    """Seconds and accuracy of a plain loop."""
    network = new_network(settings, weights)
    frozen = freeze_before(network, "layer4")
    train, plan = dataset.side("train"), settings.finetune
    head = [parameter for name, parameter in network.named_parameters() if name.startswith("head")]
    stage = [parameter for name, parameter in network.named_parameters() if "layer4" in name]
    decays, others = ([part for part in stage + head if (part.ndim > 1) == wanted] for wanted in (True, False))
    optimizer = torch.optim.SGD(
        [{"params": decays, "weight_decay": settings.weight_decay}, {"params": others}],
        momentum=settings.momentum, nesterov=True,
    )  # fmt: skip
    steps = len(train) // settings.batch_size
    epochs = plan.stages[0].epochs
    started = time.perf_counter()
    for epoch in range(epochs):
        for step, index in enumerate(train.batches(settings.batch_size, seed=epoch, drop_last=True)):
            for group in optimizer.param_groups:
                done = (epoch * steps + step) / (epochs * steps)
                group["lr"] = learning_rate(done, LoopSettings(plan.learning_rate, plan.warmup))
            generator = torch.Generator().manual_seed(epoch * steps + step)
            drawn = augment.draw(len(index), settings.augment, generator)
            images = augment.apply(train.images[index].unsqueeze(1).float() / 255, drawn, settings.preprocess.size)
            train_mode(network, frozen)
            with torch.no_grad():
                values = network.front(images, "layer4")
            logits = network.classify(network.pool(network.last_maps_after(values, "layer4")[1]))
            loss = F.cross_entropy(logits, train.labels[index], label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy(Computer(network, torch.device("cpu"), torch.float32), dataset)  # both validate after each epoch
    seconds = time.perf_counter() - started
    return seconds, accuracy(Computer(network, torch.device("cpu"), torch.float32), dataset)


def accuracy(computer: Computer, dataset: SliceDataset) -> float:
    side = dataset.side("val")
    return figures(computer.logits(side), side.labels)["val_accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--views", type=int, default=4)
    given = parser.parse_args()
    base = load_settings("fast-cpu")
    changes = {
        "cached_views": given.views, "evidence_weight": 0.0, "cell_weight": 0.0, "head_factor": 1.0,
        "patience": given.epochs,
        "stages": (StageSettings(epochs=given.epochs, size=base.preprocess.size),),
    }  # fmt: skip
    settings = base.model_copy(
        update={
            "finetune": base.finetune.model_copy(update=changes),
            "head": base.head.model_copy(update={"epochs": 0}),
            "sampling": "every",
        }
    )
    samples = [item for item in sides_of_fold(read_manifest(given.manifest), "0", 0.125, 0) if item.split != "test"]
    chosen = np.random.default_rng(0).permutation([i for i, item in enumerate(samples) if item.split == "train"])
    keep = set(chosen[: given.slices].tolist()) | {i for i, item in enumerate(samples) if item.split == "val"}
    samples = [dataclasses.replace(item, mask="") for i, item in enumerate(samples) if i in keep]
    dataset = load_dataset(samples, given.manifest.parent, settings.preprocess)
    count = given.epochs * given.slices
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"{given.slices} slices, {given.epochs} epochs, {given.views} kept views, 224 x 224\n")
    print("| | seconds | pictures a second | validation accuracy |\n|---|---|---|---|")
    taken = {}
    for name, way in (("plain loop", plain), ("fast-cpu", fast)):
        taken[name], found = way(dataset, settings, given.weights)
        print(f"| {name} | {taken[name]:.0f} | {count / taken[name]:.1f} | {found:.3f} |", flush=True)
    print(f"\nratio {taken['plain loop'] / taken['fast-cpu']:.1f}")


if __name__ == "__main__":
    main()
