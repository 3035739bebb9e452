"""What can befall a long run, said in a sentence: memory or disk at an end."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from tumorlens.errors import TrainingError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; PyTorch says so on a CPU by a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "allocate memory" in text)


def first_line(error: BaseException) -> str:
    """What an error says, in a line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def said_clearly(
    doing: str,
    after_memory: str = "continue (`train`: with --resume), or start anew with a smaller --batch-size or pictures",
    after_files: str = "continue (`train`: with --resume): the last checkpoint is kept",
) -> Iterator[None]:
    """Turn a lack of memory, and files that cannot be written, into a sentence.

    Args:
        doing: what is being done, for instance "predicting every image".
        after_memory: what to do when memory is free again.
        after_files: what to do when files can be written again.

    Raises:
        TrainingError: instead of MemoryError, OSError and what PyTorch and safetensors raise for them.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"memory ran out while {doing} ({first_line(error)}). Free memory and {after_memory}"
        ) from error
    except (OSError, SafetensorError) as error:
        where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        raise TrainingError(
            f"{where}a file cannot be written or read while {doing} ({error}). Free space or mend the permissions, and "
            f"{after_files}"
        ) from error
