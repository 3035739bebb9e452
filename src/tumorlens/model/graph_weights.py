"""Weights from an exported graph, so that a bundle without `weights.safetensors` can be trained on and explained.

The export folds every batch norm into the convolution before it. Here the convolution keeps the folded kernel, and its
norm adds the folded shift and does nothing else, so the network computes what the graph computes. Its norms hold no
statistics of pictures, though: before training, `train.norms.give_statistics` has to put some in.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from tumorlens.errors import BundleError
from tumorlens.model.bundle import STRANGENESS

EPSILON = 1e-5  # of our batch norms
State = dict[str, torch.Tensor]


class GraphWeights:
    """What `model.onnx` holds, in the key names of the modules that it was exported from.

    Raises:
        BundleError: not ONNX.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._graph = onnx.load(path).graph
        except Exception as error:  # of protobuf, which has no types; a damaged file may raise several
            raise BundleError(f"{path}: not an ONNX graph ({error}). Copy the bundle again") from error
        self._tensors = {
            tensor.name.removesuffix("_half"): torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
            for tensor in self._graph.initializer
        }

    def fill(self, state: Mapping[str, torch.Tensor], prefix: str) -> State:
        """A module's weights.

        Args:
            state: the module's own, for its keys and shapes.
            prefix: the module's name in the graph.

        Raises:
            BundleError: a key that the graph does not have.
        """
        norms = [key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean")]
        found: State = {}
        for norm in norms:
            count = len(state[f"{norm}.weight"])
            found[f"{norm}.weight"] = torch.full((count,), (1 + EPSILON) ** 0.5)
            found[f"{norm}.bias"] = self._tensor(f"{prefix}{_convolution(norm)}.weight_bias")
            found[f"{norm}.running_mean"], found[f"{norm}.running_var"] = torch.zeros(count), torch.ones(count)
            found[f"{norm}.num_batches_tracked"] = torch.tensor(0)
        for key in state.keys() - found.keys():
            found[key] = self._tensor(prefix + key)
        return found

    def blocks(self) -> tuple[int, ...]:
        """Residual blocks in each stage."""
        names = [name.split(".") for name in self._tensors if name.startswith("network.body.layer")]
        return tuple(len({name[3] for name in names if name[2] == f"layer{stage}"}) for stage in (1, 2, 3, 4))

    def gate(self) -> State:
        """`weight` (1024,) and `bias` (1,) of the output `strangeness`.

        Raises:
            BundleError: the graph has no such output.
        """
        maker = {name: node for node in self._graph.node for name in node.output}
        if STRANGENESS not in maker:
            raise BundleError(f"{self._path}: no output {STRANGENESS!r} in it. Fit one with `tumorlens refusal`")
        product, bias = maker[STRANGENESS].input
        return {"weight": self._tensor(maker[product].input[1]), "bias": self._tensor(bias)}

    def _tensor(self, name: str) -> torch.Tensor:
        if name not in self._tensors:
            raise BundleError(
                f"{self._path}: the graph has no {name!r}, so its weights cannot be read back. Graphs that "
                "`tumorlens export` wrote have it; of others give the weights themselves, as safetensors"
            )
        return self._tensors[name].clone()


def _convolution(norm: str) -> str:
    """The name of the convolution before a batch norm: bn2 follows conv2, and in a sequence the one before it."""
    parent, _, name = norm.rpartition(".")
    before = name.replace("bn", "conv") if name.startswith("bn") else str(int(name) - 1)
    return f"{parent}.{before}" if parent else before
