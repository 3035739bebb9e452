"""Tensors in safetensors files."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file and see it to the disk.

    The library's own `save_file` makes files that only their owner may read, and when killed leaves others beside them.

    Raises:
        OSError: it cannot be written.
    """
    data = save(dict(tensors), metadata=dict(metadata) if metadata else None)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # a new name for it must not come to disk before the bytes do
