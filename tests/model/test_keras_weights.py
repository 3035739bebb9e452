"""Keras files as initial weights: what our network computes with them is what Keras computes.

`write_keras.py` has Keras write the files and its own answers; the damaged files are made with h5py.
"""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

import h5py  # noqa: E402

from tests.conftest import TINY  # noqa: E402
from tumorlens.config import Architecture  # noqa: E402
from tumorlens.errors import TumorlensError  # noqa: E402
from tumorlens.model import keras_weights  # noqa: E402
from tumorlens.model.blocks import BLOCKS_PER_LAYER  # noqa: E402
from tumorlens.model.keras_file import is_keras  # noqa: E402
from tumorlens.model.keras_weights import keras_layout, read_keras  # noqa: E402
from tumorlens.model.network import TumorNet, move_strides  # noqa: E402
from tumorlens.model.weights import load_backbone, stride_layout  # noqa: E402

Found = dict[str, np.ndarray]
STRIDES = {"v1": ((2, 2), (1, 1)), "v1.5": ((1, 1), (2, 2))}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Found]]:
    """The folder that Keras wrote (some 400 MB, gone afterwards), and its answers."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("needs keras (requirements-dev.txt)")
    folder = tmp_path_factory.mktemp("keras")
    script = Path(__file__).with_name("write_keras.py")
    subprocess.run([sys.executable, script, folder], check=True, env={**os.environ, "KERAS_HOME": str(folder / "home")})
    with np.load(folder / "found.npz") as file:
        yield folder, dict(file)
    shutil.rmtree(folder)


def legacy(source: Path, target: Path, suffix: str = ":0") -> Path:
    """A whole model's weights alone, as Keras 2 wrote them and keras.applications distributes them."""

    def copy(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            new[name + suffix] = item[()]
        else:
            for key, value in item.attrs.items():
                new.require_group(name).attrs[key] = value

    with h5py.File(source, "r") as old, h5py.File(target, "w") as new:
        new.attrs["layer_names"] = old["model_weights"].attrs["layer_names"]
        old["model_weights"].visititems(copy)
    return target


def nameless(source: Path, target: Path, container: str) -> Path:
    """A `.keras` archive as before Keras kept the layers' names beside the weights."""

    def forget(_: str, item: Any) -> None:
        item.attrs.pop("name", None)

    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        weights = io.BytesIO(old.read("model.weights.h5"))
        with h5py.File(weights, "r+") as file:
            file.visititems(forget)
            if container != "layers":
                file.move("layers/functional/layers", f"layers/functional/{container}")
                file.move("layers", container)
        new.writestr("config.json", old.read("config.json"))
        new.writestr("model.weights.h5", weights.getvalue())
    return target


def feature_map(network: TumorNet, found: Found) -> np.ndarray:
    """(2, h, w, 2048), of the pictures that Keras answered for."""
    pictures = torch.from_numpy(found["grey"][:2, None])
    with torch.no_grad():
        return network.feature_map(pictures).permute(0, 2, 3, 1).numpy()


def loaded(path: Path, layers: tuple[int, ...] = BLOCKS_PER_LAYER) -> TumorNet:
    network = TumorNet(4, layers=layers).eval()
    load_backbone(network, path)
    return network


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, in standard deviations of what is right."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / theirs.std())


@pytest.mark.parametrize("name", ["full.keras", "full.h5", "full.weights.h5", "legacy.weights.h5"])
def test_every_format_gives_what_keras_computes(made: tuple[Path, Found], tmp_path: Path, name: str) -> None:
    folder, found = made
    path = legacy(folder / "full.h5", tmp_path / name) if name.startswith("legacy") else folder / name
    network = loaded(path)
    assert keras_layout(path) == stride_layout(path) == "v1"
    ours = feature_map(network, found)
    assert error(ours, found["full"]) < 0.05  # what the zeros around the picture do, and no more:
    move_strides(network.body, "v1.5")
    assert error(feature_map(network, found), found["full"]) > 1.0


def test_but_for_the_border_it_is_exact(made: tuple[Path, Found], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, found = made
    network = loaded(folder / "full.h5")
    pictures = torch.from_numpy(found["grey"][:2, None])
    with torch.no_grad():
        values = network.body.conv1((pictures - network.mean) / network.std)
        stem = network.body.act(network.body.bn1(values)).permute(0, 2, 3, 1).numpy()
    inside = np.s_[:, 2:-2, 2:-2]  # the first convolution reaches three pixels out, and takes every second place
    assert error(stem[inside], found["full_stem"][inside]) < 1e-4
    monkeypatch.setattr(keras_weights, "_CAFFE_MEAN", 255.0 * keras_weights._MEAN)  # no shift, so no border either
    assert error(feature_map(loaded(folder / "full.h5"), found), found["full_own_mean"]) < 1e-4


@pytest.mark.parametrize("layout", ["v1", "v1.5"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_backbone_in_another_model_and_both_layouts(made: tuple[Path, Found], layout: str, suffix: str) -> None:
    folder, found = made
    path = folder / f"{layout}{suffix}"
    network = loaded(path, TINY)
    assert keras_layout(path) == layout
    block = network.block("layer3[0]")
    assert (block.conv1.stride, block.conv2.stride) == STRIDES[layout]
    assert error(feature_map(network, found), found[layout]) < 0.05


@pytest.mark.parametrize("container", ["layers", "_layer_checkpoint_dependencies"])
def test_archives_without_layer_names(made: tuple[Path, Found], tmp_path: Path, container: str) -> None:
    folder, found = made
    path = nameless(folder / "v1.5.keras", tmp_path / "early.keras", container)
    assert error(feature_map(loaded(path, TINY), found), found["v1.5"]) < 0.05


def test_pictures_from_0_to_1_are_told_by_the_first_batch_norm(made: tuple[Path, Found]) -> None:
    folder, found = made
    assert read_keras(folder / "unit.h5", TINY).picture_scale == 1 / 255
    assert read_keras(folder / "full.h5").picture_scale == 1
    assert error(feature_map(loaded(folder / "unit.h5", TINY), found), found["unit"]) < 0.05


def test_the_spread_of_the_pictures_behind_a_batch_norm() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(7, 7, 3, 64))
    place = np.indices((7, 7)).reshape(2, -1).T
    smooth = np.exp(-np.linalg.norm(place[:, None] - place[None], axis=-1) / 20)
    pictures = rng.multivariate_normal(np.zeros(49), 60.0**2 * smooth, 4000)
    outputs = np.einsum("np,pio->no", pictures, kernel.reshape(49, 3, 64))
    assert keras_weights._picture_spread(kernel, outputs.var(axis=0)) == pytest.approx(60, rel=0.1)


def test_moving_strides_there_and_back() -> None:
    network = TumorNet(4, layers=TINY).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for layout in ("v1", "v1", "v1.5", "v1.5"):
        move_strides(network.body, layout)
        for name in ("layer2[0]", "layer3[0]", "layer4[0]"):
            block = network.block(name)
            assert (block.conv1.stride, block.conv2.stride) == STRIDES[layout]
            assert block.downsample[0].stride == (2, 2)
        assert network.block("layer1[0]").conv1.stride == network.block("layer1[0]").conv2.stride == (1, 1)
        assert network.feature_map(torch.zeros(1, 1, 64, 64)).shape == (1, 2048, 2, 2)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_dilated_stage_has_no_stride_to_move() -> None:
    network = TumorNet(4, layers=TINY, settings=Architecture(dilated=True))
    move_strides(network.body)
    assert network.feature_map(torch.zeros(1, 1, 64, 64)).shape == (1, 2048, 4, 4)
    assert network.block("layer3[0]").conv1.stride == (2, 2)


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    """Keras 2's weights-only layout with a block a stage, full of zeros, which HDF5 does not store: a small file."""
    path = tmp_path / "blank.h5"
    with h5py.File(path, "w") as file:
        for pair in keras_weights._pairs(TINY):
            conv, norm = f"{pair.keras}_conv", f"{pair.keras}_bn"
            file.create_dataset(f"{conv}/{conv}/kernel:0", pair.shape, "f4")
            file.create_dataset(f"{conv}/{conv}/bias:0", pair.shape[-1:], "f4")
            for weight in ("gamma", "beta", "moving_mean", "moving_variance"):
                file.create_dataset(f"{norm}/{norm}/{weight}:0", pair.shape[-1:], "f4")
    return path


def test_a_file_of_zeros_loads_and_a_bias_may_be_missing(blank: Path) -> None:
    with h5py.File(blank, "r+") as file:
        del file["conv2_block1_1_conv/conv2_block1_1_conv/bias:0"]
        file["dense/dense/kernel:0"] = np.zeros((2048, 4))
    assert not loaded(blank, TINY).body.conv1.weight.any()


def without(name: str) -> Callable[[Any], None]:
    return lambda file: file.__delitem__(name)


def replaced(name: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        file[name] = value

    return change


def elsewhere(file: Any) -> None:
    del file["conv1_conv/conv1_conv/kernel:0"]
    file.create_dataset("conv1_conv/conv1_conv/kernel:0", (7, 7, 3, 64), "f4", external="/etc/hostname")


def config(text: str) -> Callable[[Any], None]:
    return lambda file: file.attrs.__setitem__("model_config", text)


KERNEL = "conv1_conv/conv1_conv/kernel:0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("conv4_block1_2_bn"), "1 of 34 layers are missing, first: conv4_block1_2_bn"),
        (without("conv3_block1_0_bn/conv3_block1_0_bn/beta:0"), "conv3_block1_0_bn has no beta, only"),
        (replaced(KERNEL, np.zeros((7, 7, 1, 64))), r"conv1_conv has a kernel of shape \(7, 7, 1, 64\), wanted is"),
        (replaced(KERNEL, np.zeros((7, 7, 3, 64), int)), "kernel of type int64, wanted is float32"),
        (replaced(KERNEL, np.full((7, 7, 3, 64), np.nan)), "kernel with values that are no finite numbers"),
        (replaced(KERNEL, h5py.ExternalLink("/other.h5", "/kernel")), "conv1_conv has no kernel, only bias"),
        (replaced("conv1_conv", h5py.ExternalLink("/other.h5", "/conv1_conv")), "missing, first: conv1_conv"),
        (elsewhere, "keeps its kernel in another file"),
        (lambda file: file.__setitem__("model_weights", h5py.ExternalLink("/o.h5", "/")), "lie in another file"),
        (
            lambda file: file.copy("conv1_bn/conv1_bn", "conv4_block7_1_bn"),
            "1 layers that ResNet-50 has not, first: conv4_block7",
        ),
        (lambda file: file.copy("conv1_bn", "second/conv1_bn"), "two layers are called conv1_bn"),
        (config("{"), "damaged, or not a Keras file"),
        (config("[" * 100_000), "damaged, or not a Keras file"),
        (config('{"config": {"name": "conv1_bn", "epsilon": "small"}}'), "damaged, or not a Keras file"),
        (
            config(
                '[{"config": {"name": "conv3_block1_1_conv", "strides": [1, 1]}},'
                '{"config": {"name": "conv3_block1_2_conv", "strides": 1}}]'
            ),
            r"strides \[\(1, 1\)\] in their 1x1 and 3x3",
        ),
    ],
)
def test_wrong_files_are_told_apart(blank: Path, change: Callable[[Any], None], message: str) -> None:
    with h5py.File(blank, "r+") as file:
        change(file)
    with pytest.raises(TumorlensError, match=message):
        read_keras(blank, TINY)


def test_another_depth_is_refused(blank: Path) -> None:
    with pytest.raises(TumorlensError, match="layers are missing, first: conv2_block2_1_conv"):
        read_keras(blank)


def test_files_that_are_cut_short(blank: Path, tmp_path: Path) -> None:
    archive = tmp_path / "whole.keras"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", "{}")
        file.write(blank, "model.weights.h5")
    for path in (blank, archive):
        data = path.read_bytes()
        for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999):
            cut = tmp_path / f"cut{path.suffix}"
            cut.write_bytes(data[: int(share * len(data))])
            assert is_keras(cut)
            for read in (read_keras, keras_layout):
                with pytest.raises(TumorlensError, match="cut short, damaged"):
                    read(cut)


def test_files_that_are_changed_never_end_in_a_traceback(blank: Path, tmp_path: Path) -> None:
    data = blank.read_bytes()
    rng = np.random.default_rng(1)
    changed = tmp_path / "changed.h5"
    refused = 0
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 20_000), 20):
            damaged[place] = rng.integers(256)
        changed.write_bytes(damaged)
        try:
            read_keras(changed, TINY)
        except TumorlensError:
            refused += 1
    assert refused


def test_archives_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "pickled.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"")
    with pytest.raises(TumorlensError, match=r"without config.json, so not a \.keras file"):
        read_keras(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", b"nonsense")
    with pytest.raises(TumorlensError, match="cut short, damaged"):
        read_keras(path)
    with pytest.raises(TumorlensError, match="no such weights file"):
        read_keras(tmp_path / "nowhere.h5")


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tumorlens.model.keras_file.LARGEST", 1_000)
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", bytes(100_000))
    with pytest.raises(TumorlensError, match="unpacks to 100000 bytes, allowed are 1000"):
        read_keras(path)
