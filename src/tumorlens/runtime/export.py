"""From trained weights to a graph that answers and explains in one pass, without PyTorch.

Outputs, float32: `logits` (n, C); `evidence` (n, C, h, w), the maps M[c] = sum_k W[c, k] A[k] whose mean plus bias is
the logit; `features` (n, 2048), the pooled features; where the bundle refuses, `strangeness` (n,), log odds that a
picture is no brain MRI; where it has a region head, `region` (n, size/8, size/8), log odds that a cell shows tumour,
which then have a say in the logit of `no_tumor`. Input: `images` (n, 1, size, size) in [0, 1].
"""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file
from torch import nn

from tumorlens.errors import BundleError
from tumorlens.model.bundle import (
    GATE,
    INT8,
    ONNX,
    REGION,
    REGION_MAP,
    STRANGENESS,
    WEIGHTS,
    Card,
    load_card,
    put_file,
    write_card,
)
from tumorlens.model.graph_weights import GraphWeights
from tumorlens.model.network import TumorNet
from tumorlens.model.region import RegionHead, middle_maps, mixed, strength

_STAGES = (1, 2, 3, 4)
Module = TypeVar("Module", bound=nn.Module)
OUTPUTS = ("logits", "evidence", "features")


class _Answer(nn.Module):
    """The network with all of its outputs."""

    def __init__(self, folder: Path, card: Card) -> None:
        super().__init__()
        self.network = load_network(folder, card)
        self.gate = _load_gate(folder) if card.refusal else None
        self.head = load_region(folder) if card.region else None
        self.say = card.region
        self.none = card.classes.index("no_tumor") if card.region else 0

    @property
    def outputs(self) -> list[str]:
        """The names of what `forward` gives."""
        more = [STRANGENESS] if self.gate else [], [REGION_MAP] if self.head else []
        return [*OUTPUTS, *more[0], *more[1]]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        fine, coarse = middle_maps(self.network, images)
        values = self.network.part("layer4")(coarse)
        features = self.network.pool(values)
        logits = self.network.classify(features)
        more = []
        if self.gate is not None:
            more.append(self.network.pool(coarse) @ self.gate["weight"] + self.gate["bias"])
        if self.head is not None and self.say is not None:
            more.append(self.head(fine, coarse))
            logits = mixed(logits, strength(more[-1]), self.none, self.say.weight, self.say.bias)
        return logits, self.network.evidence(values), features, *more


def export_bundle(folder: Path, half: bool = True, card: Card | None = None) -> Card:
    """Add `model.onnx` to a bundle, or make it again, and write its hash into the card.

    Args:
        folder: a bundle with `weights.safetensors`, or with an earlier graph.
        half: store weights as float16 (half the file); they are computed with as float32 all the same.
        card: what the bundle's card is to say once the graph does it, by default what it says now.

    Raises:
        BundleError: neither is there, or the weights do not fit the network.
    """
    card = card or load_card(folder)
    made = folder / f"{ONNX}.part"
    _to_onnx(_Answer(folder, card), made, card.preprocess.size, half)
    write_card(folder, load_card(folder).model_copy(update={"int8": None}), without=INT8)
    for name in INT8:  # that of an earlier graph
        (folder / name).unlink(missing_ok=True)
    return put_file(folder, card.model_copy(update={"int8": None}), ONNX, made)


def load_network(folder: Path, card: Card) -> TumorNet:
    """The PyTorch network of a bundle, in eval mode; of one without `weights.safetensors`, from its graph.

    Raises:
        BundleError: it has neither, or they do not fit the network that the card describes.
    """
    graph, state = _graph_of(folder, WEIGHTS), {}
    if graph is None:
        state = load_file(folder / WEIGHTS)
        blocks = tuple(len({key.split(".")[2] for key in state if key.startswith(f"body.layer{n}.")}) for n in _STAGES)
    else:
        blocks = graph.blocks()
    network = TumorNet(len(card.classes), layers=blocks, settings=card.network)
    if graph is not None:
        state = graph.fill(network.state_dict(), "network.")
    return _filled(network, state, folder, f"the network of {len(card.classes)} classes")


def load_region(folder: Path) -> RegionHead:
    """The region head of a bundle, in eval mode.

    Raises:
        BundleError: its weights do not fit.
    """
    graph = _graph_of(folder, REGION)
    if graph is not None:
        head = RegionHead()
        state = graph.fill(head.state_dict(), "head.")
    else:
        state = load_file(folder / REGION)
        head = RegionHead(len(state["mix.1.weight"]))
    return _filled(head, state, folder, "a region head")


def _load_gate(folder: Path) -> dict[str, torch.Tensor]:
    graph = _graph_of(folder, GATE)
    return load_file(folder / GATE) if graph is None else graph.gate()


def _graph_of(folder: Path, name: str) -> GraphWeights | None:
    """The bundle's graph, where it stands in for a weights file that the bundle does not have."""
    if (folder / name).is_file():
        return None
    if not (folder / ONNX).is_file():
        raise BundleError(f"{folder}: the bundle has neither {name} nor {ONNX}. Copy the whole bundle folder")
    return GraphWeights(folder / ONNX)


def _filled(module: Module, state: dict[str, torch.Tensor], folder: Path, what: str) -> Module:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise BundleError(f"{folder}: what it holds of weights does not fit {what}: {error}") from error
    module.eval()
    return module


def _to_onnx(answer: _Answer, path: Path, size: int, half: bool) -> None:
    example = torch.zeros(2, 1, size, size)
    # The exporter prints and warns about its own internals; nothing in it is for the user.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            answer.eval(),
            (example,),
            input_names=["images"],
            output_names=answer.outputs,
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip_traces(model)
    if half:
        _store_half(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _strip_traces(model: onnx.ModelProto) -> None:
    """Leave out where each node came from: stack traces name folders of the machine that exported."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _store_half(model: onnx.ModelProto) -> None:
    """Keep large float32 weights as float16 and cast them back in the graph; engines fold the cast when they load."""
    for tensor in list(model.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) <= 1024:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float16)
        stored = f"{tensor.name}_half"
        cast = helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT)
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(numpy_helper.from_array(values, stored))
        model.graph.node.insert(0, cast)
