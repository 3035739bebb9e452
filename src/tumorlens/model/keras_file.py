"""The layers in a Keras file, read without Keras: legacy HDF5, Keras 3's HDF5, and the ZIP archive `.keras`.

Only JSON and plain numbers are read; nothing in the file is ever executed, and links out of it are not followed.

Legacy HDF5 keeps a dataset a weight under a group that is named after the layer (`conv1_conv/conv1_conv/kernel:0`, or
`resnet50/conv1_conv/kernel:0` where the network is part of another), at the root (weights alone) or below
`model_weights` (whole models, whose `model_config` attribute describes the layers). Keras 3 numbers the layers of a
class and their weights (`layers/conv2d_4/vars/0`), and keeps the layer's name as an attribute of `vars`. Its first
versions do not; the name then follows from the order of the layers in the archive's `config.json`.
"""

import io
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tumorlens.errors import TumorlensError

SUFFIXES = (".h5", ".hdf5", ".keras")
LARGEST = 4 << 30  # bytes of an archive's member: more than a ResNet-50 with its optimiser, less than a ZIP bomb
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_NUMBERED = {"conv": ("kernel", "bias"), "bn": ("gamma", "beta", "moving_mean", "moving_variance")}
#: What h5py, zipfile and json raise on damaged files, and what follows from JSON of another shape.
_DAMAGE = (
    OSError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class KerasFile:
    """An open Keras file: `root` is the group with the weights; `configs` has each layer's configuration by its name.

    `configs` is empty where the file has weights alone. `folders` names the layers of a Keras 3 file by their folder.
    """

    path: Path
    root: Any
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)

    def layers(self, is_wanted: Callable[[str], bool]) -> dict[str, dict[str, Any]]:
        """The datasets of the wanted layers: layer name to weight name (`kernel`, `gamma`, …) to dataset, unread.

        Raises:
            TumorlensError: two layers have the same name.
        """
        names: list[str] = []
        self.root.visit(names.append)  # hard links only: soft and external ones are left out by HDF5 itself
        found: dict[str, dict[str, Any]] = {}
        origin: dict[tuple[str, str], str] = {}
        for name in names:
            *groups, leaf = name.split("/")
            layer = self._layer(groups, is_wanted)
            if not layer or not isinstance(self.root[name], h5py.Dataset):
                continue
            weight = _numbered(layer, leaf) if groups[-1] == "vars" else leaf.removesuffix(":0")
            if (layer, weight) in origin:
                raise TumorlensError(
                    f"{self.path}: two layers are called {layer} ({origin[layer, weight]} and {name}). Save a model "
                    "with one ResNet-50 in it"
                )
            origin[layer, weight] = name
            found.setdefault(layer, {})[weight] = self.root[name]
        return found

    def _layer(self, groups: list[str], is_wanted: Callable[[str], bool]) -> str:
        """The wanted layer that a group belongs to, or an empty string."""
        if groups and groups[-1] == "vars":
            name = self.root["/".join(groups)].attrs.get("name")
            folder = "/".join("layers" if part == "_layer_checkpoint_dependencies" else part for part in groups[:-1])
            groups = [_text(name) if name is not None else self.folders.get(folder, "")]
        return next((group for group in reversed(groups) if is_wanted(group)), "")

    def read(self, layer: str, weight: str, dataset: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """One weight, checked before it is read, so that a lying header costs no memory.

        Raises:
            TumorlensError: another shape, no floating point numbers, not finite, or stored outside of the file.
        """
        if dataset.shape != shape:
            raise TumorlensError(
                f"{self.path}: {layer} has a {weight} of shape {dataset.shape}, wanted is {shape}. Give a Keras "
                "ResNet50 (not V2, 101, 152 or ResNeXt) with three input channels"
            )
        if dataset.is_virtual or dataset.external:
            raise TumorlensError(f"{self.path}: {layer} keeps its {weight} in another file, which is not read")
        if dataset.dtype.kind != "f":
            raise TumorlensError(f"{self.path}: {layer} has a {weight} of type {dataset.dtype}, wanted is float32")
        values: NDArray[np.float64] = np.asarray(dataset[()], dtype=np.float64)
        if not np.isfinite(values).all():
            raise TumorlensError(
                f"{self.path}: {layer} has a {weight} with values that are no finite numbers. That training diverged; "
                "give other weights"
            )
        return values


def is_keras(path: Path) -> bool:
    """Whether a file is to be read as Keras', by its name or its first bytes."""
    return path.suffix.lower() in SUFFIXES or bool(path.is_file() and h5py.is_hdf5(path))


@contextmanager
def open_keras(path: Path) -> Iterator[KerasFile]:
    """Open a Keras file of any layout.

    Raises:
        TumorlensError: no such file, truncated, damaged, or not written by Keras; so too for damage that shows while
            the file is read.
    """
    if not path.is_file():
        raise TumorlensError(f"{path}: no such weights file. Give a Keras ResNet50 (.h5 or .keras)")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = json.loads(_member(path, archive, _CONFIG))
                weights = io.BytesIO(_member(path, archive, _WEIGHTS))
            with h5py.File(weights, "r") as file:
                yield KerasFile(path, file, _layer_configs(config), dict(_folders(config)))
        else:
            with h5py.File(path, "r") as file:
                described = file.attrs.get("model_config")
                config = json.loads(_text(described)) if described is not None else {}
                yield KerasFile(path, _weights_group(path, file), _layer_configs(config))
    except TumorlensError:
        raise
    except _DAMAGE as error:
        raise TumorlensError(
            f"{path}: cut short, damaged, or not a Keras file ({type(error).__name__}: {error}). Copy or save it "
            "again; what is read is .h5 and .keras as Keras writes them"
        ) from error


def _weights_group(path: Path, file: Any) -> Any:
    """Where legacy HDF5 has its layers: `model_weights` of a whole model, else the root."""
    if "model_weights" not in file:
        return file
    if not isinstance(file.get("model_weights", getlink=True), h5py.HardLink):
        raise TumorlensError(f"{path}: its model_weights lie in another file, which is not read. Save the model again")
    return file["model_weights"]


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    if name not in archive.namelist():
        raise TumorlensError(
            f"{path}: a ZIP archive without {name}, so not a .keras file (PyTorch's .pt and .pth are pickles, which "
            "are not read). Give .keras, .h5 or safetensors"
        )
    size = archive.getinfo(name).file_size
    if size > LARGEST:
        raise TumorlensError(f"{path}: {name} unpacks to {size} bytes, allowed are {LARGEST}. That is no ResNet-50")
    return archive.read(name)


def _layer_configs(config: object) -> dict[str, dict[str, Any]]:
    """Every layer's configuration by its name, however deep models are nested in models."""
    found: dict[str, dict[str, Any]] = {}
    rest = [config]
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            inner = item.get("config")
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                found[inner["name"]] = inner
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
    return found


def _folders(model: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(folder, layer name) of a model's layers as Keras 3 numbers them: by class, in the order of the layers."""
    used: Counter[str] = Counter()
    for layer in model["config"].get("layers", ()):
        kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", layer["class_name"]))
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", kind).lower()
        folder = f"{prefix}layers/{kind}_{used[kind]}" if used[kind] else f"{prefix}layers/{kind}"
        used[kind] += 1
        yield folder, layer["config"].get("name", "")
        yield from _folders(layer, f"{folder}/")


def _numbered(layer: str, leaf: str) -> str:
    """The weight that Keras 3 stores under a number; the number itself where there is none."""
    names = _NUMBERED.get(layer.rpartition("_")[2], ())
    return names[int(leaf)] if leaf.isdecimal() and int(leaf) < len(names) else leaf


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
