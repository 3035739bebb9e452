"""The frozen part of the network, computed once for several drawn augmentations and kept on disk.

Where the first stages do not learn, what they make of a picture never changes. So each slice is augmented a few times
(`views`), sent through them by the fastest engine, and the result is stored as bfloat16: an epoch then reads from disk
and computes the last stages alone. The folds of a cross-validation share one store.
"""

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tumorlens.config import TrainSettings
from tumorlens.data.dataset import SliceDataset
from tumorlens.errors import TrainingError
from tumorlens.model.network import PARTS, TumorNet
from tumorlens.train import augment
from tumorlens.train.seeds import mix_seed

#: Names the folder of the stores; the user's cache folder by default.
FOLDER = "TUMORLENS_CACHE"
_BATCH = 32
_SUFFIX = ".features"


class FeatureStore:
    """Outputs of the frozen stages for every slice of a data set, view after view; the last view is not augmented.

    A file of its own that can be deleted at any time: the next run makes it again. `views` counts the augmented ones.
    """

    def __init__(self, path: Path, views: int, rows: int, shape: tuple[int, int, int]) -> None:
        self.views = views
        # Read and written as 16 bit integers: numpy has no bfloat16.
        self._values: NDArray[np.int16] = np.memmap(path, dtype=np.int16, mode="r", shape=(views + 1, rows, *shape))

    def read(self, view: int, rows: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
        """The stored maps of some slices in one view, (n, k, h, w), bfloat16, channels last."""
        values = torch.from_numpy(np.ascontiguousarray(self._values[view, np.asarray(rows)]))
        return values.view(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def view_plan(count: int, settings: TrainSettings, view: int) -> augment.AugmentPlan:
    """How the slices of a data set of `count` are augmented in one view: the same each time, so that masks follow."""
    generator = torch.Generator().manual_seed(mix_seed(settings.seed, 5, view))
    return augment.draw(count, settings.augment, generator)


def open_store(
    network: TumorNet,
    dataset: SliceDataset,
    settings: TrainSettings,
    size: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureStore:
    """Open the store of these weights, pictures, augmentations and size; make it first where there is none.

    Args:
        network: its stages before `finetune.first_layer` are what is computed.
        dataset: all slices of a manifest, whatever their side.
        settings: `finetune.cached_views`, `finetune.cache_gb`, the augmentation and the seed.
        size: side of the network's input in pixels.
        on_progress: called with (slices done, in all); may raise, and nothing is left then.

    Raises:
        TrainingError: it would be larger than `finetune.cache_gb`, or the disk is full.
    """
    plan = settings.finetune
    front = _Front(network, plan.first_layer)
    shape = front.shape(size)
    rows, bytes_each = len(dataset), 2 * int(np.prod(shape))
    needed = (plan.cached_views + 1) * rows * bytes_each / 1e9
    if needed > plan.cache_gb:
        fits = int(plan.cache_gb * 1e9 / (rows * bytes_each)) - 1
        raise TrainingError(
            f"{plan.cached_views} views of {rows} slices take {needed:.1f} GB, allowed are --finetune.cache-gb "
            f"{plan.cache_gb:g}. Take at most {max(fits, 0)} views, or allow more"
        )
    folder = Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "tumorlens")
    path = folder / f"{_key(network, dataset, settings, size)}{_SUFFIX}"
    if path.is_file() and path.stat().st_size == (plan.cached_views + 1) * rows * bytes_each:
        path.touch()  # the longest unused go first
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder, plan.cache_gb - needed)
        _fill(path, front, dataset, settings, size, on_progress)
    return FeatureStore(path, plan.cached_views, rows, shape)


class _Front(nn.Module):
    """The stages before `first`, as a module of their own."""

    def __init__(self, network: TumorNet, first: str) -> None:
        super().__init__()
        self.network = network
        self.parts = PARTS[1 : PARTS.index(first)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.network.stem(images)
        for part in self.parts:
            values = self.network.part(part)(values)
        return values

    @torch.inference_mode()
    def shape(self, size: int) -> tuple[int, int, int]:
        """Channels, height and width of the output at an input size."""
        self.network.eval()
        device = next(self.network.parameters()).device
        _, channels, height, width = self.forward(torch.zeros(1, 1, size, size, device=device)).shape
        return channels, height, width


def _engine(front: _Front, size: int, settings: TrainSettings) -> Callable[[torch.Tensor], torch.Tensor]:
    """The fastest way to run the stages: OpenVINO on a CPU, PyTorch on a GPU."""
    device = next(front.parameters()).device
    if device.type != "cpu":
        return lambda images: front(images.to(device)).cpu()
    import openvino as ov

    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        model = ov.convert_model(front, example_input=torch.zeros(2, 1, size, size), input=[ov.PartialShape([-1, 1, size, size])])  # fmt: skip  # noqa: E501
    hint = {"INFERENCE_PRECISION_HINT": "f32"} if settings.precision == "fp32" else {}  # else what the processor has
    compiled = ov.Core().compile_model(model, "CPU", hint)
    return lambda images: torch.from_numpy(np.array(compiled(images.numpy())[0]))


@torch.inference_mode()
def _fill(
    path: Path,
    front: _Front,
    dataset: SliceDataset,
    settings: TrainSettings,
    size: int,
    on_progress: Callable[[int, int], None],
) -> None:
    front.eval()
    engine = _engine(front, size, settings)
    views = settings.finetune.cached_views
    temporary = path.with_suffix(f".{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            for view in range(views + 1):
                plan = view_plan(len(dataset), settings, view)
                for index in dataset.batches(_BATCH):
                    images = dataset.images[index].unsqueeze(1).float() / 255
                    still = view == views
                    images = augment.resize(images, size) if still else augment.apply(images, plan.part(index), size)
                    values = engine(images).to(torch.bfloat16).contiguous()
                    file.write(values.view(torch.int16).numpy().tobytes())
                    on_progress(view * len(dataset) + int(index[-1]) + 1, (views + 1) * len(dataset))
        temporary.replace(path)
    except OSError as error:
        raise TrainingError(
            f"{path}: the features cannot be written ({error}). Free space, name another folder in {FOLDER}, or take "
            "fewer --finetune.cached-views (0 computes them anew each time)"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _make_room(folder: Path, allowed_gb: float) -> None:
    """Delete the stores that were unused for longest until the others fit."""
    stores = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0.0
    for path in stores:
        total += path.stat().st_size / 1e9
        if total > allowed_gb:
            path.unlink(missing_ok=True)


def _key(network: TumorNet, dataset: SliceDataset, settings: TrainSettings, size: int) -> str:
    """A hash of everything that the stored numbers follow from."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if name.startswith("body."):
            digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    digest.update(dataset.images.numpy().tobytes())
    plan = settings.finetune
    facts: dict[str, Any] = {
        "augment": settings.augment.model_dump(),
        "network": settings.network.model_dump(),
        "seed": settings.seed,
        "first": plan.first_layer,
        "views": plan.cached_views,
        "precision": settings.precision,
        "size": size,
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()[:32]
