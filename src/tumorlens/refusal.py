"""Teach a trained model what is no brain MRI: what `tumorlens refusal` does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tumorlens.config import PreprocessSettings
from tumorlens.data.dataset import load_dataset
from tumorlens.data.preprocess import prepare
from tumorlens.data.readers import Refused, find_inputs, read_slices
from tumorlens.errors import InputError, RunError
from tumorlens.evaluate.run_folder import read_samples
from tumorlens.model.bundle import GATE, LEAST_CONFIDENCE, Refusal, load_card, put_file
from tumorlens.model.network import TumorNet
from tumorlens.model.tensor_file import write_tensors
from tumorlens.records import Slice
from tumorlens.runtime.export import export_bundle, load_network
from tumorlens.train.device import choose_precision
from tumorlens.train.refusal import PEEL, fit_gate, peel, pooled_features

Progress = Callable[[str, int, int], None]
THRESHOLD = 0.0  # log odds


@dataclass(frozen=True)
class RefusalFigures:
    """How the gate does: the share refused and n, of brain slices that were not trained on (by source), of each kind of
    others, and of each kind of foreign brains.

    Each kind of others is scored by a gate that was fitted without it, brains by one that was fitted on the training
    side. `side` is the one that the brain slices are of: `test`, or `val` where nobody was tested.
    """

    brains: dict[str, tuple[float, int]]
    kinds: dict[str, tuple[float, int]]
    foreign: dict[str, tuple[float, int]]
    side: str


def teach_refusal(run: Path, others: Path, progress: Progress, brains: Path | None = None) -> RefusalFigures:
    """Fit the gate on a run's training slices against other pictures, and put it into the run's bundle, which from then
    on refuses answers below `LEAST_CONFIDENCE` too.

    A third of the slices count as they are, a third moved and re-lit (`train.refusal.VIEWS`), and a third peeled, for
    brains that come without a skull.

    Args:
        run: a run folder whose manifest is still there.
        others: a folder with pictures that are no brain MRI, a folder for each kind.
        progress: called with (stage, done, total).
        brains: a folder with brain MRI of kinds that the training data lacks, a folder for each kind. It takes no part
            in the fit; how much of it is refused is measured.

    Raises:
        RunError: no such run or folder, the run's manifest is gone, or fewer than two kinds of others.
        BundleError: its bundle has neither weights nor a graph.
    """
    card = load_card(run / "bundle")
    network = load_network(run / "bundle", card)
    samples, root = read_samples(run)
    data = load_dataset(samples, root, card.preprocess, lambda done, n: progress("reading brains", done, n))
    train = data.side("train")
    pictures = _pictures(others, card.preprocess, progress)
    if len(pictures) < 2:
        raise RunError(
            f"{others}: {len(pictures)} kinds of pictures there, needed are two. Put pictures that are no brain MRI "
            "into it, a folder for each kind (photographs, X-rays, CT, text…)"
        )
    own = np.concatenate(
        [
            _features(network, train.images[::3], progress, "brains"),
            _features(network, train.images[1::3], progress, "views", 1),
            _features(network, _peeled(train.images[2::3], card.preprocess), progress, "peeled"),
        ]
    )
    kinds = {name: _features(network, images, progress, name) for name, images in pictures.items()}
    gate = fit_gate(own, np.concatenate(list(kinds.values())))
    found = {}
    for number, (name, values) in enumerate(kinds.items()):
        progress("leaving out one kind", number, len(kinds))
        rest = np.concatenate([item for other, item in kinds.items() if other != name])
        found[name] = (float((fit_gate(own, rest).scores(values) > THRESHOLD).mean()), len(values))
    side = "test" if len(data.side("test")) else "val"
    tested = data.side(side)
    scores = gate.scores(_features(network, tested.images, progress, "tested brains"))
    by_source = {}
    for source in sorted({sample.source for sample in tested.samples}):
        chosen = np.array([sample.source == source for sample in tested.samples])
        by_source[source] = (float((scores[chosen] > THRESHOLD).mean()), int(chosen.sum()))
    foreign = {
        name: (float((gate.scores(_features(network, images, progress, name)) > THRESHOLD).mean()), len(images))
        for name, images in (_pictures(brains, card.preprocess, progress) if brains else {}).items()
    }
    made = run / "bundle" / f"{GATE}.part"
    write_tensors(made, {"weight": torch.from_numpy(gate.weight).float(), "bias": torch.tensor([gate.bias]).float()})
    n_others = sum(map(len, kinds.values()))
    refusal = Refusal(
        threshold=THRESHOLD, fitted_on=f"{len(train)} brain slices, {n_others} others of {len(kinds)} kinds"
    )
    put_file(run / "bundle", card, GATE, made)  # the card speaks of it when the graph has it
    told = {"refusal": refusal, "least_confidence": LEAST_CONFIDENCE}
    export_bundle(run / "bundle", card=card.model_copy(update=told))
    return RefusalFigures(by_source, found, foreign, side)


def _peeled(images: torch.Tensor, settings: PreprocessSettings) -> torch.Tensor:
    """Slices (n, size, size), uint8, without their outer layer, of drawn depth, and cropped again."""
    rng = np.random.default_rng(0)
    bare = [peel(image, rng.uniform(*PEEL)) for image in images.numpy()]
    squares = [prepare(Slice(image.astype(np.float32), "a training slice"), settings)[0] for image in bare]
    return torch.from_numpy(np.round(np.stack(squares) * 255).astype(np.uint8))


def _pictures(folder: Path, settings: PreprocessSettings, progress: Progress) -> dict[str, torch.Tensor]:
    """Prepared squares (n, size, size), uint8, by kind; what cannot be read is left out."""
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder. Give one with pictures in a folder for each kind")
    found = {}
    kinds = sorted(path for path in folder.iterdir() if path.is_dir())
    for number, path in enumerate(kinds):
        progress("reading pictures", number, len(kinds))
        squares: list[NDArray[np.float32]] = []
        for entry in find_inputs([path]):
            if isinstance(entry, Refused):
                continue
            try:
                squares += [prepare(item, settings)[0] for item in read_slices(entry)]
            except InputError:
                continue
        if squares:
            found[path.name] = torch.from_numpy(np.round(np.stack(squares) * 255).astype(np.uint8))
    return found


def _features(
    network: TumorNet, images: torch.Tensor, progress: Progress, what: str, views: int | None = None
) -> NDArray[np.float64]:
    precision = choose_precision("auto", torch.device("cpu"))
    parts = []
    for start in range(0, len(images), 256):
        progress(f"features: {what}", start, len(images))
        seed = None if views is None else views + start
        parts.append(pooled_features(network, images[start : start + 256], seed, precision))
    return np.concatenate(parts)
