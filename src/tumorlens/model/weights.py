"""Where initial weights come from: a local safetensors file, or the hub at a pinned revision and hash."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tumorlens.data.manifest import file_hash
from tumorlens.errors import TumorlensError
from tumorlens.model.network import TumorNet


@dataclass(frozen=True)
class HubWeights:
    """A checkpoint on the Hugging Face hub: `revision` is a full commit id, `sha256` that of the file."""

    repo: str
    revision: str
    sha256: str
    filename: str = "model.safetensors"


def load_backbone(network: TumorNet, path: Path) -> None:
    """Load weights to start from: ImageNet's in torchvision's key names, without their classifier `fc.*`; or those of
    a bundle (`weights.safetensors`), with its head, to train on where another run ended.

    Raises:
        TumorlensError: no such file, not safetensors, or keys or shapes that are not ResNet-50's.
    """
    if not path.is_file():
        raise TumorlensError(
            f"{path}: no such weights file. Give a ResNet-50 in safetensors with `--weights FILE`, or "
            "`--weights hub` to download one"
        )
    try:
        tensors = {key: value.float() for key, value in load_file(path).items() if not key.startswith("fc.")}
    except SafetensorError as error:
        raise TumorlensError(f"{path}: not a safetensors file ({error}). Pickled weights are not read") from error
    if "head.weight" in tensors:
        _load_trained(network, tensors, path)
        return
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
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(
            hf_hub_download(
                weights.repo, weights.filename, revision=weights.revision, cache_dir=cache, endpoint=endpoint
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
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


def resolve(source: str) -> Path:
    """The local file that `--weights` names: a path, or `hub` for the pinned download."""
    return download(IMAGENET) if source == "hub" else Path(source)
