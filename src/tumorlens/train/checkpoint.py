"""Checkpoints: one safetensors file, its state as JSON in the header. No pickle; replaced whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from tumorlens.config import TrainSettings
from tumorlens.errors import CheckpointError
from tumorlens.model.tensor_file import write_tensors

SCHEMA_VERSION = 1
SAVE_SECONDS = 300.0  # at most this much is lost when a run is killed
#: What SGD and AdamW keep of each parameter, and its name in the file.
_KEPT = {"momentum_buffer": "momentum", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "step": "step"}


@dataclass
class Progress:
    """Where training stands: `epoch` and `step` to do next, what was best, and a row of history per epoch."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best: float = float("-inf")
    best_epoch: int = -1
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None,
    progress: Progress,
    owner: str,
    beside: Mapping[str, torch.nn.Module] = MappingProxyType({}),
) -> None:
    """Write weights, what the optimizer keeps of each, and progress, whole or not at all.

    Args:
        path: the file to write or replace.
        network: its state dict is written.
        optimizer: SGD or AdamW, whose momentum is written, or None for weights alone.
        progress: where training stands.
        owner: what the checkpoint belongs to (classes and settings); checked when it is read back.
        beside: other modules to keep, by name.

    Raises:
        CheckpointError: the disk is full or cannot be written; what stood at `path` is still there.
    """
    tensors = {f"net.{key}": value.detach().contiguous().clone() for key, value in network.state_dict().items()}
    if optimizer is not None:
        for number, parameter in enumerate(_parameters(optimizer)):
            for name, values in optimizer.state.get(parameter, {}).items():
                if values is not None:
                    tensors[f"{_KEPT[name]}.{number}"] = values.detach().contiguous().clone()
    for name, module in beside.items():
        tensors |= {f"{name}.{key}": value.contiguous().clone() for key, value in module.state_dict().items()}
    state = {"schema_version": SCHEMA_VERSION, "owner": owner, "progress": asdict(progress)}
    temporary = path.with_suffix(".part")
    try:
        write_tensors(temporary, tensors, {"tumorlens": json.dumps(state)})
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        kept = "the last one is still there" if path.is_file() else "there was none before"
        raise CheckpointError(
            f"{path}: the checkpoint cannot be written ({error}); {kept}. Free space or mend the folder's permissions, "
            "then continue (`train`: with --resume)"
        ) from error


def load_checkpoint(
    path: Path,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None,
    owner: str,
    beside: Mapping[str, torch.nn.Module] = MappingProxyType({}),
) -> Progress:
    """Read a checkpoint back into a network, an optimizer and what was kept beside them.

    Raises:
        CheckpointError: missing, damaged, or made with other classes or settings.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no checkpoint there. Start without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {}).get("tumorlens", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}). Delete it and train again") from error
    if not state or state.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(f"{path}: not a checkpoint of this version of tumorlens (wanted schema {SCHEMA_VERSION})")
    if _plain(state["owner"]) != _plain(owner):
        raise CheckpointError(
            f"{path}: made with other classes or settings.\n  there: {state['owner']}\n  here:  {owner}\n"
            "Resume with the settings in the run's config.json, or start a new run folder"
        )
    network.load_state_dict(_part(tensors, "net."))
    for name, module in beside.items():
        module.load_state_dict(_part(tensors, f"{name}."))
    if optimizer is not None:
        _fill(optimizer, tensors)
    return Progress(**state["progress"])


def _plain(owner: str) -> str:
    """An owner with all settings spelled out: those that a later version has added were what they are by default."""
    what, _, text = owner.partition("; ")
    try:
        return f"{what}; {TrainSettings.model_validate_json(text).model_dump_json()}"
    except ValidationError:
        return owner


def _fill(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    for number, parameter in enumerate(_parameters(optimizer)):
        for name, kept_as in _KEPT.items():
            values = tensors.get(f"{kept_as}.{number}")
            if values is None:
                continue
            if values.shape == parameter.shape:
                # Laid out like its weights: the fused step goes through both as they lie in memory.
                values = torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(values)
            optimizer.state[parameter][name] = values


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
