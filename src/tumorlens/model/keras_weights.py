"""Keras' ResNet50 (version 1) as initial weights: in torchvision's key names and in our network's arithmetic.

Four things differ between `keras.applications.ResNet50` and the ResNet-50 here, and each is accounted for:

*Names and axes.* `conv3_block1_2_conv` is `layer2.0.conv2`; kernels lie as (height, width, in, out), ours as (out, in,
height, width). Keras' convolutions have a bias, which the batch norm behind takes up: running mean - bias.

*Epsilon.* Keras' batch norms add 1.001e-5 (or what the file's configuration says) to the variance, ours 1e-5: the
difference goes into the running variance.

*Strides.* Keras halves the resolution in the first 1x1 convolution of a stage (v1), torchvision in the 3x3 (v1.5). The
weights have the same shapes, so nothing but the network's layout tells them apart: `keras_layout` says which one a file
is for, `network.move_strides` gives it to a network. A file with a configuration (`.keras`, or a whole model in `.h5`)
says so itself; a file of weights alone is taken for v1, the only layout that keras.applications has under these names.
A v1.5 network whose 3x3 convolutions are padded by Keras' `same` has its grid one pixel off ours, since that pads even
sides at the end alone: good to start from, but not the same function.

*Pictures.* Keras' preprocessing ("caffe") is BGR from 0 to 255 less (103.939, 116.779, 123.68); our network has RGB
from 0 to 1 less ImageNet's mean, over its standard deviation. The channels of the first kernel are turned round and
scaled, and the difference of the two means (at most half a grey level of 255) goes into the first batch norm's running
mean. That is exact but for the zeros around the picture, which stand for Keras' mean there and for ImageNet's here.

RadImageNet's ResNet50 was trained on the same preprocessing divided by 255: its authors' scripts give Keras'
ImageDataGenerator both `preprocess_input`, which is applied first, and `rescale=1/255` (acl/acl_train.py in
github.com/BMEII-AI/RadImageNet), and MONAI feeds these weights alike (`RadImageNetPerceptualSimilarity`). No file says
how its pictures were scaled, but its first batch norm knows: see `_picture_spread`. Weights that were trained on other
pictures of the size of one (RGB/255, or -1 to 1) are taken for RadImageNet's, whose pictures differ from theirs by a
shift and a small factor at most.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tumorlens.errors import TumorlensError
from tumorlens.model.blocks import BLOCKS_PER_LAYER
from tumorlens.model.keras_file import KerasFile, open_keras
from tumorlens.model.network import Layout

Array = NDArray[np.float64]

EPSILON = 1e-5  # of our batch norms
_KERAS_EPSILON = 1.001e-5  # of keras.applications'
_MEAN = np.array([0.485, 0.456, 0.406])  # ours, of RGB in 0 to 1
_STD = np.array([0.229, 0.224, 0.225])
_CAFFE_MEAN = np.array([123.68, 116.779, 103.939])  # of RGB in 0 to 255
_CORRELATION_LENGTH, _CHANNEL_CORRELATION = 20.0, 0.9  # of pictures, in pixels; see `_picture_spread`
_LARGEST_UNIT_SPREAD = 2.0


@dataclass(frozen=True)
class KerasBackbone:
    """A Keras backbone in torchvision's key names (`tensors`, float32), the `layout` it needs, and the scale of the
    pictures it was trained on: `picture_scale` is 1 for 0 to 255 and 1/255 for 0 to 1, both less Keras' mean."""

    tensors: dict[str, torch.Tensor]
    layout: Layout
    picture_scale: float


@dataclass(frozen=True)
class _Pair:
    """A convolution with its batch norm: Keras' name less `_conv` and `_bn`, torchvision's two, the kernel's shape."""

    keras: str
    conv: str
    norm: str
    shape: tuple[int, int, int, int]


def read_keras(path: Path, blocks: Sequence[int] = BLOCKS_PER_LAYER) -> KerasBackbone:
    """Read a Keras ResNet50 (`.h5` or `.keras`), alone or as part of another model, whose other layers are left out.

    Args:
        path: the file.
        blocks: residual blocks of each of the four layers.

    Returns:
        Convolutions (out, in, height, width) and batch norms (channels,), to be loaded into a body whose strides are
        those of `layout`.

    Raises:
        TumorlensError: not a Keras file, damaged, a layer missing or of another shape, or another ResNet.
    """
    pairs = list(_pairs(blocks))
    tensors: dict[str, Array] = {}
    with open_keras(path) as file:
        layers = file.layers(_is_resnet_layer)
        _check_complete(path, layers, pairs)
        layout = _layout(file)
        scale = 1.0
        for pair in pairs:
            kernel, norm = _read_pair(file, layers, pair)
            if pair.conv == "conv1":
                scale = 1.0 if _picture_spread(kernel, norm["running_var"]) > _LARGEST_UNIT_SPREAD else 1.0 / 255.0
                kernel, shift = _own_pictures(kernel, scale)
                norm["running_mean"] -= shift
            tensors[f"{pair.conv}.weight"] = kernel.transpose(3, 2, 0, 1)
            tensors |= {f"{pair.norm}.{key}": value for key, value in norm.items()}
    ready = {key: torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32)) for key, value in tensors.items()}
    return KerasBackbone(ready, layout, scale)


def keras_layout(path: Path) -> Layout:
    """Where a Keras file's network has its strides: `v1` in the first 1x1 convolution of a stage, `v1.5` in the 3x3.

    A file of weights alone does not say; it is taken for `v1`, which is what keras.applications builds.

    Raises:
        TumorlensError: not a Keras file, damaged, or strides of neither layout.
    """
    with open_keras(path) as file:
        return _layout(file)


def _pairs(blocks: Sequence[int]) -> Iterator[_Pair]:
    yield _Pair("conv1", "conv1", "bn1", (7, 7, 3, 64))
    for layer, count in enumerate(blocks, start=1):
        width = 32 << layer
        for block in range(count):
            keras, torch_name = f"conv{layer + 1}_block{block + 1}", f"layer{layer}.{block}"
            before = 4 * width if block else 64 if layer == 1 else 2 * width
            if block == 0:
                yield _Pair(
                    f"{keras}_0", f"{torch_name}.downsample.0", f"{torch_name}.downsample.1", (1, 1, before, 4 * width)
                )
            for number, shape in enumerate(
                ((1, 1, before, width), (3, 3, width, width), (1, 1, width, 4 * width)), start=1
            ):
                yield _Pair(f"{keras}_{number}", f"{torch_name}.conv{number}", f"{torch_name}.bn{number}", shape)


def _is_resnet_layer(name: str) -> bool:
    """Whether a layer is named as those of keras.applications' ResNets are, of any depth."""
    return bool(re.fullmatch(r"conv(1|\d+_block\d+_\d+)_(conv|bn)", name))


def _check_complete(path: Path, layers: dict[str, dict[str, Any]], pairs: Sequence[_Pair]) -> None:
    wanted = [f"{pair.keras}_{kind}" for pair in pairs for kind in ("conv", "bn")]
    missing = [name for name in wanted if name not in layers]
    if missing:
        raise TumorlensError(
            f"{path}: {len(missing)} of {len(wanted)} layers are missing, first: {', '.join(missing[:3])}. Give a "
            "Keras ResNet50 with the layer names of keras.applications (conv1_conv … conv5_block3_3_bn). Where it is "
            "a .weights.h5 of an early Keras 3, which keeps no layer names, save the whole model as .keras"
        )
    extra = sorted(set(layers) - set(wanted))
    if extra:
        raise TumorlensError(
            f"{path}: has {len(extra)} layers that ResNet-50 has not, first: {', '.join(extra[:3])}. Give ResNet50, "
            "not ResNet101 or another"
        )


def _read_pair(file: KerasFile, layers: dict[str, dict[str, Any]], pair: _Pair) -> tuple[Array, dict[str, Array]]:
    """The kernel (h, w, in, out) and the batch norm's values in our names, with the convolution's bias taken up."""
    conv_name, norm_name = f"{pair.keras}_conv", f"{pair.keras}_bn"
    conv, norm = layers[conv_name], layers[norm_name]
    needed = [(conv_name, conv, ("kernel",)), (norm_name, norm, ("gamma", "beta", "moving_mean", "moving_variance"))]
    for name, layer, weights in needed:
        absent = [weight for weight in weights if weight not in layer]
        if absent:
            raise TumorlensError(
                f"{file.path}: {name} has no {', '.join(absent)}, only {', '.join(sorted(layer))}. Give a Keras "
                "ResNet50"
            )
    channels = pair.shape[-1:]
    kernel = file.read(conv_name, "kernel", conv["kernel"], pair.shape)
    values = {key: file.read(norm_name, key, norm[key], channels) for key in needed[1][2]}
    bias = file.read(conv_name, "bias", conv["bias"], channels) if "bias" in conv else 0.0
    epsilon = float(file.configs.get(norm_name, {}).get("epsilon", _KERAS_EPSILON))
    return kernel, {
        "weight": values["gamma"],
        "bias": values["beta"],
        "running_mean": values["moving_mean"] - bias,
        "running_var": values["moving_variance"] + (epsilon - EPSILON),
    }


def _own_pictures(kernel: Array, scale: float) -> tuple[Array, Array]:
    """The first kernel (7, 7, BGR, out) for our normalised RGB, and what its outputs (out,) then lack."""
    flipped = kernel[:, :, ::-1] * scale
    shift = np.einsum("hwio,i->o", flipped, 255.0 * _MEAN - _CAFFE_MEAN)
    return flipped * (255.0 * _STD)[:, None], shift


def _picture_spread(kernel: Array, variance: Array) -> float:
    """About the standard deviation of the pictures that a first kernel (7, 7, 3, out) and its running variance (out,)
    were trained on: 60 for grey levels from 0 to 255, at most 2 for any preprocessing of the size of one.

    The variance behind a filter w is w'Cw. Taking pictures for a field of correlation exp(-d/20 pixels), 0.9 between
    channels, this gives 1.2 for torchvision's weights, where 1 is right; the two cases are a factor of 255 apart.
    """
    place = np.indices(kernel.shape[:2]).reshape(2, -1).T.astype(np.float64)
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1)
    channels = np.full((3, 3), _CHANNEL_CORRELATION) + (1.0 - _CHANNEL_CORRELATION) * np.eye(3)
    covariance = np.kron(np.exp(-distance / _CORRELATION_LENGTH), channels)
    filters = kernel.reshape(-1, kernel.shape[-1])
    behind = float(np.einsum("ik,ij,jk->", filters, covariance, filters))
    return float(np.sqrt(variance.sum() / max(behind, 1e-30)))


def _layout(file: KerasFile) -> Layout:
    found: set[tuple[int, int]] = set()
    for stage in (3, 4, 5):
        names = [f"conv{stage}_block1_{number}_conv" for number in (1, 2)]
        if all(name in file.configs for name in names):
            first, second = (_stride(file.configs[name]) for name in names)
            found.add((first, second))
    if found <= {(2, 1)}:
        return "v1"
    if found == {(1, 2)}:
        return "v1.5"
    raise TumorlensError(
        f"{file.path}: the stages' first blocks have strides {sorted(found)} in their 1x1 and 3x3 convolutions. Give a "
        "network with (2, 1) throughout (v1, as in keras.applications) or (1, 2) throughout (v1.5, as in torchvision)"
    )


def _stride(config: dict[str, Any]) -> int:
    """The stride of a convolution from its configuration; 0 for one that differs between rows and columns."""
    strides = config.get("strides", 1)
    values = {strides} if isinstance(strides, int) else set(strides)
    return values.pop() if len(values) == 1 else 0
