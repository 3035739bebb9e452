"""What the training of a region head keeps, so that it goes on where it was stopped or killed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tumorlens.model.region import RegionHead

_MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW


@dataclass(frozen=True)
class RegionCheckpoint:
    """A file with head and momentum. `owner` is whatever decides what is learned; another's file is not used."""

    path: Path
    owner: str
    should_stop: Callable[[], bool] = lambda: False

    def save(self, head: RegionHead, optimizer: torch.optim.AdamW, done: int) -> None:
        """Write head and momentum after `done` steps, whole or not at all."""
        tensors = {f"head.{name}": values for name, values in head.state_dict().items()}
        for number, parameter in enumerate(head.parameters()):
            for name in _MOMENTS:
                if parameter in optimizer.state:
                    tensors[f"{name}.{number}"] = optimizer.state[parameter][name]
        temporary = self.path.with_suffix(".part")
        metadata = {"tumorlens": json.dumps({"done": done, "owner": self.owner})}
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary, metadata)
        temporary.replace(self.path)

    def load(self, head: RegionHead, optimizer: torch.optim.AdamW) -> int:
        """Read them back; gives the steps that are done, 0 where nothing was kept for this owner."""
        if not self.path.is_file():
            return 0
        try:
            with safe_open(self.path, framework="pt") as file:
                state = json.loads((file.metadata() or {}).get("tumorlens", "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, json.JSONDecodeError):
            return 0
        if state.get("owner") != self.owner:
            return 0
        done = int(state["done"])
        head.load_state_dict({k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")})
        for number, parameter in enumerate(head.parameters()):
            if f"{_MOMENTS[0]}.{number}" in tensors:
                moments = {name: tensors[f"{name}.{number}"].to(parameter.device) for name in _MOMENTS}
                optimizer.state[parameter] = {"step": torch.tensor(float(done)), **moments}
        return done

    def clear(self) -> None:
        """Nothing is to go on with."""
        self.path.unlink(missing_ok=True)
