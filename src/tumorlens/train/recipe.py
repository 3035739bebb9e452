"""The recipe: ImageNet ResNet-50, head phase, fine-tuning, the best epoch, and a bundle with its predictions."""

import csv
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import tumorlens
from tumorlens.config import FineTuneSettings, HeadSettings, TrainSettings
from tumorlens.data.dataset import SliceDataset, load_dataset
from tumorlens.data.predictions import write_predictions
from tumorlens.model.bundle import INT8, ONNX, REGION, WEIGHTS, Card, load_card, write_card
from tumorlens.model.network import PARTS, freeze_before
from tumorlens.model.tensor_file import write_tensors
from tumorlens.model.weights import is_graph
from tumorlens.records import CLASSES, class_title
from tumorlens.train.accidents import said_clearly
from tumorlens.train.blend import choose_blend, copied
from tumorlens.train.checkpoint import SAVE_SECONDS, Progress, load_checkpoint, save_checkpoint
from tumorlens.train.device import choose_device, choose_precision
from tumorlens.train.finish import calibrated, data_summary, labelled
from tumorlens.train.loop import Hooks, LoopSettings, run_loop
from tumorlens.train.norms import give_statistics
from tumorlens.train.order import Order, architecture, check_unseen, initial_network, notes, origin, sides
from tumorlens.train.prefix import cached_front
from tumorlens.train.run import RunPaths, describe, open_run
from tumorlens.train.sampling import class_weights, learned_shares, slice_odds
from tumorlens.train.tasks import EVAL_BATCH, Computer, FineTuneTask, HeadTask, restore_shares
from tumorlens.train.teachers import Teachers, check_teachers, load_teachers
from tumorlens.train.tracking import Tracker

STATISTICS_OF = 256  # slices
HEAD = -1  # depth of the linear layers


@dataclass
class Reporter:
    """What a person sees of a training run; silent by default."""

    message: Callable[[str], None] = field(default=lambda text: None)
    progress: Callable[[str, int, int], None] = field(default=lambda stage, done, total: None)
    should_stop: Callable[[], bool] = field(default=lambda: False)
    track: Tracker = field(default=lambda folder, row: None)

    def watched(self, stage: str) -> Callable[[int, int], None]:
        """A callback for work of which nothing is lost that is not done again soon: it shows how far it is, and stops
        where that is wished.
        """

        def on_progress(done: int, total: int) -> None:
            self.progress(stage, done, total)
            if self.should_stop():
                raise KeyboardInterrupt

        return on_progress


def train(order: Order, reporter: Reporter | None = None) -> RunPaths:
    """Train one model from a manifest.

    Returns:
        The run folder, with config, history, checkpoints, `bundle/` (weights and card, without ONNX) and
        predictions for every image of the manifest.

    Raises:
        ManifestError, SplitError, RunError, CheckpointError, InputError: what was wrong with what was given.
        TrainingError: the loss is no number any more, or memory or disk came to an end; `resume` goes on.
        KeyboardInterrupt: `should_stop` said so; the checkpoint holds fine-tuning up to its last step. What comes
            before it, head phase and frozen stages, begins anew.
    """
    reporter = reporter or Reporter()
    settings = order.settings
    samples, split = sides(order)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    network = initial_network(order, samples)
    taught_by = check_teachers(order.teachers, settings)
    for weights in order.teachers:
        check_unseen(weights, samples, "teachers")
    dataset = load_dataset(
        samples,
        order.manifest.parent,
        settings.preprocess,
        lambda done, n: reporter.progress("reading", done, n),  # a stop leaves a run that can be resumed, below
        # Those of the validation side are for the region head: read now, a damaged one is told before the training.
        masks=("train", "val") if settings.region else ("train",) if settings.finetune.uses_masks else (),
    )
    config = describe(order.manifest, settings, order.fold, order.weights, split, order.teachers)
    paths = open_run(order.out, config, order.resume)
    front = teachers = None
    with said_clearly("preparing"):
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if order.weights is not None and is_graph(order.weights):
            reporter.message("the weights come from a graph: measuring what its batch norms see")
            give_statistics(network, _some_pictures(dataset.side("train"), device))
        initial = copied(network) if settings.finetune.blends else {}
        if settings.finetune.cached_views:
            front = cached_front(network, dataset, settings, reporter.watched("computing the frozen stages"))
        if order.teachers:
            shares = learned_shares(dataset.side("train"), settings, len(CLASSES))
            teachers = load_teachers(order.teachers, shares, device, order.layers)
    computer = Computer(network, device, precision, front)
    _announce(dataset, settings, device, precision, split, reporter)
    if taught_by:
        reporter.message(f"teachers: {', '.join(card.name for card in taught_by)}")
    for note in notes(order):
        reporter.message(f"note: {note}")
    with said_clearly("training"):
        fit(computer, dataset, settings, paths, order.resume, reporter, teachers)
    with said_clearly("predicting every image"):
        load_checkpoint(paths.best, network, None, owner(settings))
        _finish(computer, dataset, settings, paths, order, split, reporter, initial)
    return paths


def fit(
    computer: Computer,
    dataset: SliceDataset,
    settings: TrainSettings,
    paths: RunPaths,
    resume: bool,
    reporter: Reporter,
    teachers: Teachers | None = None,
) -> Progress:
    """Head phase, then fine-tuning, with checkpoints in the run folder."""
    train_side, val_side = dataset.side("train"), dataset.side("val")
    network = computer.network
    resumed = resume and paths.last.is_file()
    if not resumed:
        _fit_head(computer, train_side, val_side, settings, reporter)
    task = FineTuneTask(computer, train_side, val_side, settings, teachers)
    optimizer = _sgd([network, *task.beside.values()], settings, settings.finetune)
    progress = load_checkpoint(paths.last, network, optimizer, owner(settings), task.beside) if resumed else Progress()
    if progress.history:
        _write_history(paths.history, progress)  # a run may have been killed before it came to that
    saved = time.monotonic()

    def save_last(now: Progress) -> None:
        nonlocal saved
        save_checkpoint(paths.last, network, optimizer, now, owner(settings), task.beside)
        saved = time.monotonic()

    def on_step(now: Progress, done: int, total: int) -> None:
        reporter.progress("fine-tuning", done, total)
        if time.monotonic() - saved > SAVE_SECONDS:
            save_last(now)

    def on_epoch(now: Progress) -> None:
        row = now.history[-1]
        reporter.track(paths.folder, row)  # killed after it, the epoch is repeated; killed before, it would be missing
        save_last(now)
        _write_history(paths.history, now)
        reporter.message(
            f"epoch {now.epoch}/{task.epochs}: loss {row['loss']:.3f}, validation accuracy {row['val_accuracy']:.3f}, "
            f"balanced {row['val_balanced_accuracy']:.3f}, loss {row['val_loss']:.3f} ({row['seconds']:.0f} s)"
        )

    hooks = Hooks(
        on_step=on_step,
        on_epoch=on_epoch,
        on_best=lambda now: save_checkpoint(paths.best, task.kept, None, now, owner(settings)),
        on_interrupt=save_last,
        should_stop=reporter.should_stop,
    )
    plan = settings.finetune
    return run_loop(task, optimizer, LoopSettings(plan.learning_rate, plan.warmup, plan.patience), progress, hooks)


def owner(settings: TrainSettings) -> str:
    """What a checkpoint belongs to: the classes and every setting that changes the weights."""
    return f"classes {','.join(CLASSES)}; {settings.model_dump_json(exclude={'device', 'precision'})}"


def _some_pictures(train: SliceDataset, device: torch.device) -> Iterator[torch.Tensor]:
    """Batches of at most STATISTICS_OF training pictures, drawn evenly over the side."""
    chosen = torch.linspace(0, len(train) - 1, min(len(train), STATISTICS_OF)).round().long()
    for part in torch.split(chosen, EVAL_BATCH):
        yield train.images[part].unsqueeze(1).to(device).float() / 255


def _fit_head(
    computer: Computer,
    train_side: SliceDataset,
    val_side: SliceDataset,
    settings: TrainSettings,
    reporter: Reporter,
) -> None:
    freeze_before(computer.network, "head")
    if settings.head.epochs == 0:
        return
    task = HeadTask(computer, train_side, val_side, settings)
    optimizer = _sgd([computer.network], settings, settings.head)
    hooks = Hooks(
        on_step=lambda now, done, total: reporter.progress("head phase", done, total),
        should_stop=reporter.should_stop,
    )
    progress = run_loop(task, optimizer, LoopSettings(settings.head.learning_rate), Progress(), hooks)
    reporter.message(f"head phase: validation accuracy {progress.history[-1]['val_accuracy']:.3f}")


def _sgd(
    modules: Sequence[torch.nn.Module], settings: TrainSettings, phase: HeadSettings | FineTuneSettings
) -> torch.optim.SGD:
    """One group for each stage and kind: norms and biases do not decay, earlier stages may learn more slowly."""
    stages = list(reversed(PARTS))
    factor, decay = (1.0, 1.0) if isinstance(phase, HeadSettings) else (phase.head_factor, phase.layer_decay)
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in (pair for module in modules for pair in module.named_parameters()):
        if parameter.requires_grad:
            depth = next((stages.index(part) for part in name.split(".") if part in stages), HEAD)
            depth = len(stages) - 1 if name.startswith(("body.conv1", "body.bn1")) else depth
            groups.setdefault((depth, parameter.ndim > 1), []).append(parameter)
    return torch.optim.SGD(
        [
            {
                "params": parameters,
                "weight_decay": settings.weight_decay if decays else 0.0,
                "scale": factor if depth == HEAD else decay**depth,
            }
            for (depth, decays), parameters in groups.items()
        ],
        lr=phase.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        fused=True,
    )


def _announce(
    dataset: SliceDataset,
    settings: TrainSettings,
    device: torch.device,
    precision: torch.dtype,
    split: dict[str, Any],
    reporter: Reporter,
) -> None:
    leaky = ", SPLIT BY SLICE: figures will be too good" if split["leaky_by_slice"] else ""
    reporter.message(f"split {split['assignment_sha256'][:12]}{leaky}")
    for name in ("train", "val", "test"):
        side = dataset.side(name)
        counts = Counter(sample.label for sample in side.samples)
        groups = len({sample.patient_group for sample in side.samples})
        reporter.message(
            f"{name}: {len(side)} slices of {groups} patient groups ("
            + ", ".join(f"{label} {counts[label]}" for label in CLASSES) + ")"
        )  # fmt: skip
    shown = {sample.label for sample in dataset.side("train").samples}
    if lacking := [class_title(name) for name in CLASSES if name not in shown]:
        reporter.message(f"no slice to learn from: {', '.join(lacking)}. The model will not know it; add slices of it")
    if settings.class_weights:
        side = dataset.side("train")
        weights = class_weights(side.labels, len(CLASSES), slice_odds(side, settings)).tolist()
        reporter.message(
            "class weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in zip(CLASSES, weights, strict=True))
        )
    else:
        reporter.message("class weights: off")
    reporter.message(f"computing on {device} in {str(precision).removeprefix('torch.')}")


def _write_history(path: Path, progress: Progress) -> None:
    temporary = path.with_suffix(".part")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(progress.history[0]))
        writer.writeheader()
        writer.writerows(progress.history)
    temporary.replace(path)


def _finish(
    computer: Computer,
    dataset: SliceDataset,
    settings: TrainSettings,
    paths: RunPaths,
    order: Order,
    split: dict[str, Any],
    reporter: Reporter,
    initial: dict[str, torch.Tensor],
) -> None:
    """The data's class shares, temperature from validation, predictions for every image, and the bundle."""
    if settings.class_weights or settings.sampling != "every":
        restore_shares(computer.network, learned_shares(dataset.side("train"), settings, len(CLASSES)))
    told: dict[str, Any] = {}
    if initial:
        reporter.message("blending with the weights that it began from")
        losses = choose_blend(computer, initial, dataset.side("train"), dataset.side("val"), settings)
        shown = ", ".join(f"{share:.0%} {loss:.4f}" for share, loss in sorted(losses.items()))
        told = {"share_of_initial_weights": next(iter(losses))}
        reporter.message(f"kept {next(iter(losses)):.0%} of the initial weights; validation loss by share: {shown}")
    reporter.message("best epoch: predicting every image")
    logits = computer.logits(dataset, reporter.watched("predicting every image"))
    temperature, sets, shares = calibrated(logits.double().numpy(), dataset)
    write_predictions(labelled(dataset.samples, shares, sets), paths.predictions, CLASSES)
    paths.bundle.mkdir(exist_ok=True)
    state = {key: value.cpu().contiguous() for key, value in computer.network.state_dict().items()}
    write_tensors(paths.bundle / WEIGHTS, state)
    name, licence = origin(order)
    if order.teachers:
        told["teachers"] = [load_card(path.parent).name for path in order.teachers]
    card = Card(
        name=paths.folder.resolve().name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tumorlens_version=tumorlens.__version__,
        classes=CLASSES,
        preprocess=settings.preprocess,
        network=architecture(order),
        temperature=temperature,
        label_sets=sets,
        training_data={**data_summary(dataset.samples), "split": split, **told},
        initial_weights=name,
        licence=licence,
    )
    for name in (ONNX, *INT8, REGION):  # a stopped export's, of these weights with a region head
        (paths.bundle / name).unlink(missing_ok=True)
    write_card(paths.bundle, card)
