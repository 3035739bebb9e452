"""The frozen part of the network, computed once for several drawn augmentations and kept on disk.

Where the first stages do not learn, what they make of a picture never changes. So each slice is augmented a few times
(`views`), sent through them by the fastest engine, and the result is stored as bfloat16: an epoch then reads from disk
and computes the last stages alone. The folds of a cross-validation share one store.
"""

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tumorlens.config import TrainSettings
from tumorlens.data.dataset import SliceDataset
from tumorlens.errors import TrainingError
from tumorlens.model.network import TumorNet
from tumorlens.no_telemetry import load_openvino
from tumorlens.train import augment
from tumorlens.train.device import choose_precision
from tumorlens.train.seeds import mix_seed

#: Names the folder of the stores; the user's cache folder by default.
FOLDER = "TUMORLENS_CACHE"
_BATCH = 32
_VERSION = 1  # of what is stored and how pictures are augmented: a change of either must not meet an old store
_SUFFIX = ".features"
_DEAD = 600  # seconds since a half-written store last grew


class CachedFront:
    """Outputs of the frozen stages for every slice of a data set: some augmented views of each, and a still one.

    A file of its own that can be deleted between runs: the next makes it again.
    """

    def __init__(self, path: Path, dataset: SliceDataset, settings: TrainSettings, shape: tuple[int, int, int]) -> None:
        self.first = settings.finetune.first_layer
        self._views = settings.finetune.cached_views
        self._rows = {(item.path, item.frame): number for number, item in enumerate(dataset.samples)}
        self._plans = [_view_plan(len(dataset), settings, view) for view in range(self._views)]
        # Read and written as 16 bit integers: numpy has no bfloat16.
        size = (self._views + 1, len(dataset), *shape)
        self._values: NDArray[np.int16] = np.memmap(path, dtype=np.int16, mode="r", shape=size)

    def view(self, side: SliceDataset, index: torch.Tensor, epoch: int) -> tuple[torch.Tensor, augment.AugmentPlan]:
        """Some slices as an epoch sees them: maps (n, k, h, w), bfloat16, and how their pictures were augmented."""
        view = epoch % self._views
        rows = self._find(side, index)
        return self._read(view, rows), self._plans[view].part(rows)

    def still(self, side: SliceDataset, index: torch.Tensor) -> torch.Tensor:
        """Some slices as they are: maps (n, k, h, w), bfloat16."""
        return self._read(self._views, self._find(side, index))

    def _find(self, side: SliceDataset, index: torch.Tensor) -> torch.Tensor:
        chosen = (side.samples[number] for number in index.tolist())
        return torch.tensor([self._rows[item.path, item.frame] for item in chosen])

    def _read(self, view: int, rows: torch.Tensor) -> torch.Tensor:
        values = torch.from_numpy(np.ascontiguousarray(self._values[view, rows.numpy()]))
        return values.view(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def cached_front(
    network: TumorNet,
    dataset: SliceDataset,
    settings: TrainSettings,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> CachedFront:
    """Open the store of these weights, pictures and augmentations; make it first where there is none.

    Args:
        network: its stages before `finetune.first_layer` are what is computed.
        dataset: all slices of a manifest, whatever their side.
        settings: `finetune.cached_views`, `finetune.cache_gb`, the augmentation and the seed.
        on_progress: called with (slices done, in all); may raise, and nothing is left then.

    Raises:
        TrainingError: it would be larger than `finetune.cache_gb`, or the disk is full.
    """
    plan = settings.finetune
    front = _Front(network, plan.first_layer)
    shape = front.shape(settings.preprocess.size)
    rows, bytes_each = len(dataset), 2 * int(np.prod(shape))
    needed = (plan.cached_views + 1) * rows * bytes_each / 1e9
    if needed > plan.cache_gb:
        fits = int(plan.cache_gb * 1e9 / (rows * bytes_each)) - 1
        raise TrainingError(
            f"{plan.cached_views} views of {rows} slices take {needed:.1f} GB, allowed are --finetune.cache-gb "
            f"{plan.cache_gb:g}. Take at most {max(fits, 0)} views, or allow more"
        )
    folder = Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "tumorlens")
    path = folder / f"{_key(network, dataset, settings)}{_SUFFIX}"
    if path.is_file() and path.stat().st_size == (plan.cached_views + 1) * rows * bytes_each:
        path.touch()  # the longest unused go first
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder, plan.cache_gb - needed)
        _fill(path, front, dataset, settings, on_progress)
    return CachedFront(path, dataset, settings, shape)


def _view_plan(count: int, settings: TrainSettings, view: int) -> augment.AugmentPlan:
    """How the slices of a data set of `count` are augmented in one view: the same each time, so that masks follow."""
    generator = torch.Generator().manual_seed(mix_seed(settings.seed, 5, view))
    return augment.draw(count, settings.augment, generator)


class _Front(nn.Module):
    """The stages before `first`, as a module of their own."""

    def __init__(self, network: TumorNet, first: str) -> None:
        super().__init__()
        self.network = network
        self.first = first

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.front(images, self.first)

    @torch.inference_mode()
    def shape(self, size: int) -> tuple[int, int, int]:
        """Channels, height and width of the output at an input size."""
        self.network.eval()
        device = next(self.network.parameters()).device
        _, channels, height, width = self.forward(torch.zeros(1, 1, size, size, device=device)).shape
        return channels, height, width


def _engine(front: _Front, settings: TrainSettings) -> Callable[[torch.Tensor], torch.Tensor]:
    """The fastest way to run the stages: OpenVINO on a CPU, PyTorch on a GPU."""
    device = next(front.parameters()).device
    if device.type != "cpu":
        return lambda images: front(images.to(device)).cpu()
    ov = load_openvino()
    size = settings.preprocess.size
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        example = torch.zeros(2, 1, size, size)
        model = ov.convert_model(front, example_input=example, input=[ov.PartialShape([-1, 1, size, size])])
    hint = {"INFERENCE_PRECISION_HINT": "f32"} if settings.precision == "fp32" else {}  # else what the processor has
    compiled = ov.Core().compile_model(model, "CPU", hint)
    return lambda images: torch.from_numpy(np.array(compiled(images.numpy())[0]))


@torch.inference_mode()
def _fill(
    path: Path,
    front: _Front,
    dataset: SliceDataset,
    settings: TrainSettings,
    on_progress: Callable[[int, int], None],
) -> None:
    front.eval()
    engine = _engine(front, settings)
    views, size = settings.finetune.cached_views, settings.preprocess.size
    temporary = path.with_suffix(f".{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            for view in range(views + 1):
                plan = _view_plan(len(dataset), settings, view)
                for index in dataset.batches(_BATCH):
                    images = dataset.images[index].unsqueeze(1).float() / 255
                    if view < views:  # the last is the still one
                        images = augment.apply(images, plan.part(index), size)
                    values = engine(images).to(torch.bfloat16).contiguous()
                    file.write(values.view(torch.int16).numpy().tobytes())
                    on_progress(view * len(dataset) + int(index[-1]) + 1, (views + 1) * len(dataset))
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise TrainingError(
            f"{path}: the features cannot be written ({error}). Free space, name another folder in {FOLDER}, or take "
            "fewer --finetune.cached-views (0 computes them anew each time)"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _make_room(folder: Path, allowed_gb: float) -> None:
    """Delete what killed runs left, and the stores that were unused for longest until the others fit."""
    for path in folder.glob("*.part"):
        with contextlib.suppress(FileNotFoundError):  # another run's, complete by now
            if time.time() - path.stat().st_mtime > _DEAD:  # one that is being written grows all the time
                path.unlink()
    stores = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0.0
    for path in stores:
        total += path.stat().st_size / 1e9
        if total > allowed_gb:
            path.unlink(missing_ok=True)


def _engine_version() -> str:
    from importlib.metadata import version

    return version("openvino")


def _key(network: TumorNet, dataset: SliceDataset, settings: TrainSettings) -> str:
    """A hash of everything that the stored numbers follow from."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if name.startswith("body."):
            digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    digest.update(dataset.images.numpy().tobytes())
    plan = settings.finetune
    device = next(network.parameters()).device
    facts: dict[str, Any] = {
        "version": (_VERSION, torch.__version__, _engine_version()),
        "device": device.type,
        "strides": [module.stride for module in network.body.modules() if isinstance(module, nn.Conv2d)],
        "precision": str(choose_precision(settings.precision, device)),
        "augment": settings.augment.model_dump(),
        "seed": settings.seed,
        "first": plan.first_layer,
        "views": plan.cached_views,
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()[:32]
