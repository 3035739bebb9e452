"""Where to compute and in which precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from tumorlens.errors import TumorlensError


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` to a device that exists.

    Raises:
        TumorlensError: an unknown name, or a GPU that this machine or this PyTorch does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TumorlensError(f"device {name!r} is unknown; take auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise TumorlensError(f"device {name!r} is not supported; take auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TumorlensError(
            f"device {name!r} is not there: PyTorch sees {torch.cuda.device_count()} GPU(s). Take cpu or auto"
        )
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto`, `fp32` or `bf16` to the type of the matrix products; weights stay float32."""
    if name == "fp32":
        return torch.float32
    if name == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = torch.cpu.get_capabilities()
    return torch.bfloat16 if native.get("avx512_bf16") or native.get("amx_bf16") else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision where it is wanted, nothing where it is not."""
    if precision == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=precision)
