"""Where initial weights come from: the hub at a pinned revision and hash, a local file (safetensors or Keras), a former
run, or nowhere."""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tumorlens.data.manifest import file_hash
from tumorlens.data.predictions import read_predictions
from tumorlens.errors import TumorlensError
from tumorlens.model.bundle import CARD, ONNX, WEIGHTS, load_card
from tumorlens.model.graph_weights import GraphWeights
from tumorlens.model.keras_file import is_keras
from tumorlens.model.keras_weights import keras_layout, read_keras
from tumorlens.model.network import PARTS, Layout, TumorNet, move_strides

RADIMAGENET = (
    "RadImageNet's ResNet-50 is not downloaded: its authors publish no checksum, and what the hubs have of it are "
    "pickles, which are not read. Its project page, https://github.com/BMEII-AI/RadImageNet, links to the weights as "
    "Keras .h5 (no-top ResNet50). Download them there and give the file: `--weights RadImageNet-ResNet50_notop.h5`. "
    "The project's code is under the MIT licence; none is stated for the weights, and the images behind them are given "
    "out on request: ask its authors before you use them for more than research"
)


@dataclass(frozen=True)
class HubWeights:
    """A checkpoint on the Hugging Face hub: `revision` is a full commit id, `sha256` that of the file."""

    repo: str
    revision: str
    sha256: str
    filename: str = "model.safetensors"


def load_backbone(network: TumorNet, path: Path) -> None:
    """Load weights to start from: ImageNet's in torchvision's key names, without their classifier `fc.*`; those of a
    bundle (`weights.safetensors`, or its graph), with its head, to train on where another run ended; or a Keras
    ResNet50.

    The network's strides are put where a Keras file or a bundle's card has them (`stride_layout`).

    Raises:
        TumorlensError: no such file, neither safetensors nor Keras, or keys or shapes that are not ResNet-50's.
    """
    if not path.is_file():
        raise TumorlensError(
            f"{path}: no such weights file. Give a ResNet-50 in safetensors or Keras' .h5 or .keras with "
            "`--weights FILE`, a former run with `--weights RUN`, or `--weights hub` to download one"
        )
    layout: Layout | None
    if is_keras(path):
        found = read_keras(path, [len(list(network.part(name).children())) for name in PARTS[1:]])
        tensors, layout = found.tensors, found.layout
    elif is_graph(path):
        tensors, layout = GraphWeights(path).fill(network.state_dict(), "network."), _card_layout(path)
    else:
        tensors, layout = _read_safetensors(path), _card_layout(path)
    if "head.weight" in tensors:
        _load_trained(network, tensors, path)
    else:
        _load_body(network, tensors, path)
    if layout:
        move_strides(network.body, layout)


def is_graph(path: Path) -> bool:
    """Whether weights are those of an exported graph, whose batch norms know no statistics."""
    return path.suffix == ".onnx"


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return {key: value.float() for key, value in load_file(path).items() if not key.startswith("fc.")}
    except SafetensorError as error:
        raise TumorlensError(
            f"{path}: neither a safetensors nor a Keras file ({error}). Pickled weights (.pt, .pth) are not read"
        ) from error


def _load_body(network: TumorNet, tensors: dict[str, torch.Tensor], path: Path) -> None:
    own = network.body.state_dict()
    optional = {key for key in own if key.endswith("num_batches_tracked")}
    wrong = sorted((set(own) ^ set(tensors)) - optional)
    wrong += [key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape]
    if wrong:
        raise TumorlensError(
            f"{path}: does not fit ResNet-50 in torchvision's key names; {len(wrong)} keys or shapes differ, "
            f"first: {', '.join(wrong[:3])}"
        )
    network.body.load_state_dict(tensors, strict=False)


def _load_trained(network: TumorNet, tensors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise TumorlensError(
            f"{path}: a bundle of another network or class list than {network.head.out_features} classes ({error})"
        ) from error


def download(weights: HubWeights, cache: Path | None = None, endpoint: str | None = None) -> Path:
    """Fetch a checkpoint from the hub (resumed and cached by the library), and check its hash.

    Args:
        weights: what to fetch.
        cache: where to keep it; the library's own cache by default.
        endpoint: address of a mirror; the hub (or what HF_ENDPOINT names) by default.

    Raises:
        TumorlensError: the hub cannot be reached, or the file is not the pinned one.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = Path(
            hf_hub_download(
                weights.repo, weights.filename, revision=weights.revision, cache_dir=cache, endpoint=endpoint
            )
        )
    except Exception as error:  # when a connection breaks, whatever the library's transport raises
        raise TumorlensError(
            f"{weights.repo}@{weights.revision[:12]} cannot be downloaded ({type(error).__name__}: {error}). "
            "Check the network, or give a local file with `--weights FILE`"
        ) from error
    found = file_hash(path)
    if found != weights.sha256:
        raise TumorlensError(
            f"{path}: SHA-256 is {found}, pinned is {weights.sha256}. Delete the cached file and try again; "
            "if it stays so, the file was changed: do not use it"
        )
    return path


#: What `--weights hub` loads: torchvision's first ImageNet ResNet-50, as timm's port on the hub (BSD-3-Clause).
IMAGENET = HubWeights(
    repo="timm/resnet50.tv_in1k",
    revision="78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
    sha256="5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
)


def resolve(source: str) -> Path | None:
    """The local file that `--weights` names, or None for random weights.

    Args:
        source: `hub` for the pinned download, `none` for random weights, `radimagenet` to be told where it is to be
            had, a weights file, or the folder of a former run or of a bundle. (A file of such a name: `./hub`.)

    Raises:
        TumorlensError: a download that failed, a folder without a trained model, or a damaged bundle.
    """
    if source == "none":
        return None
    if source == "hub":
        return download(IMAGENET)
    if source == "radimagenet":
        raise TumorlensError(RADIMAGENET)
    path = Path(source)
    return trained(path) if path.is_dir() else path


def trained(folder: Path) -> Path:
    """The weights in a run or bundle folder, checked against the bundle's card.

    Raises:
        TumorlensError: no trained model there, or a damaged bundle.
    """
    bundle = folder / "bundle" if (folder / "bundle").is_dir() else folder
    if not (bundle / CARD).is_file():
        raise TumorlensError(
            f"{folder}: no trained model in it ({CARD} is missing). Give the folder of a complete run (finish one that "
            "was interrupted with --resume; of a cross-validation, one fold's folder), a bundle, or a weights file"
        )
    known = load_card(bundle).files
    if WEIGHTS not in known and ONNX in known:
        return bundle / ONNX
    load_card(bundle, needs=WEIGHTS)
    return bundle / WEIGHTS


def stride_layout(weights: Path | None) -> Layout:
    """The layout of strides that a network needs for given initial weights: a Keras file's or a bundle card's own, else
    `v1.5`, which torchvision's weights have.

    Args:
        weights: what `resolve` returned.

    Raises:
        TumorlensError: a damaged Keras file, or a damaged card beside the weights.
    """
    if weights is None:
        return "v1.5"
    return keras_layout(weights) if is_keras(weights) else _card_layout(weights) or "v1.5"


def _card_layout(weights: Path) -> Layout | None:
    """What the card beside a bundle's weights says; None for a file without one."""
    if weights.name not in (WEIGHTS, ONNX) or not (weights.parent / CARD).is_file():
        return None
    return load_card(weights.parent).network.strides


def trained_patients(run: Path, sides: Container[str] = ("train", "val")) -> set[str]:
    """The patient groups that a former run learned from (`train`) or chose its epoch by (`val`), by its
    `predictions.csv`.

    A model that starts from this run must not be tested on them. What the run itself had started from is not followed.

    Args:
        run: a run folder, its bundle folder, or the weights file in that, as `resolve` returns it.
        sides: of that run, whose patients are wanted.

    Returns:
        The groups as the run's manifest named them; empty where no `predictions.csv` is there, as for a bare file.

    Raises:
        RunError: the run's `predictions.csv` is damaged.
    """
    folder = run.parent if run.is_file() else run
    if (folder / CARD).is_file():
        folder = folder.resolve().parent
    elif folder != run:
        return set()  # a bare file: what lies beside it is not its own
    path = folder / "predictions.csv"
    if not path.is_file():
        return set()
    return {row.patient_group for row in read_predictions(path) if row.split in sides and row.patient_group}
