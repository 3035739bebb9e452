"""Weights that are read back from an exported graph: the same function, and a network that can learn again."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch

from tests.conftest import TINY
from tumorlens.config import TrainSettings
from tumorlens.errors import BundleError
from tumorlens.model.bundle import ONNX, WEIGHTS, load_card, write_card
from tumorlens.model.graph_weights import GraphWeights
from tumorlens.model.network import TumorNet
from tumorlens.model.weights import resolve
from tumorlens.runtime.export import export_bundle, load_network
from tumorlens.runtime.predictor import Predictor
from tumorlens.train.norms import give_statistics
from tumorlens.train.order import Order
from tumorlens.train.recipe import Reporter, train


@pytest.fixture
def bare(tiny_run: Path, tmp_path: Path) -> Path:
    """The small run's bundle, without `weights.safetensors`."""
    bundle = Path(shutil.copytree(tiny_run / "bundle", tmp_path / "bare"))
    (bundle / WEIGHTS).unlink()
    write_card(bundle, load_card(tiny_run / "bundle"))
    return bundle


def pictures(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_graph_gives_the_network_back(bare: Path, tiny_run: Path) -> None:
    card = load_card(bare)
    with torch.inference_mode():
        found = load_network(bare, card)(pictures())
        expected = load_network(tiny_run / "bundle", card)(pictures())
    assert torch.allclose(found, expected, atol=0.01 * float(expected.abs().max()))  # stored in 16 bit
    before = Predictor(bare).run(pictures().numpy())
    export_bundle(bare)
    after = Predictor(bare).run(pictures().numpy())
    assert np.allclose(before.logits, after.logits, atol=1e-5)


def test_a_graph_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / ONNX).write_bytes(b"no graph")
    with pytest.raises(BundleError, match="not an ONNX graph"):
        GraphWeights(tmp_path / ONNX)
    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / ONNX)
    with pytest.raises(BundleError, match=r"so its weights cannot be read back\. Graphs that `tumorlens export` wrote"):
        GraphWeights(tmp_path / ONNX).fill(TumorNet(4, layers=TINY).state_dict(), "network.")
    with pytest.raises(BundleError, match="no output 'strangeness'"):
        GraphWeights(tmp_path / ONNX).gate()


def test_norms_get_statistics_and_the_function_stays(bare: Path) -> None:
    network = load_network(bare, load_card(bare))
    norm = network.body.bn1
    assert float(norm.running_mean.abs().max()) == 0
    images = pictures(16)
    with torch.no_grad():
        before = network(images)
        give_statistics(network, torch.split(images, 4))
        after = network(images)
        network.train()
        network.dropout.eval()
        learning = network(images)
    assert torch.allclose(before, after, atol=1e-4)
    assert float(norm.running_mean.abs().max()) > 0
    # On the pictures that gave the statistics a batch's own are these: training starts from the same function.
    assert torch.allclose(before, learning, atol=0.05 * float(before.abs().max()))


def test_training_goes_on_from_a_graph(
    bare: Path, drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    said: list[str] = []
    bare = shutil.copytree(bare, tmp_path / "licensed")
    write_card(bare, load_card(bare).model_copy(update={"licence": "not for sale"}))
    weights = resolve(str(bare))
    assert weights == bare / ONNX
    one = tiny_settings.finetune.model_copy(update={"stages": tiny_settings.finetune.stages[:1]})
    settings = tiny_settings.model_copy(update={"finetune": one})
    run = train(Order(drawn_manifest, tmp_path / "on", settings, weights, layers=TINY), Reporter(message=said.append))
    assert any("the weights come from a graph" in text for text in said)
    card = load_card(run.bundle, needs=WEIGHTS)
    assert card.initial_weights == f"{load_card(bare).name} ({ONNX})"
    assert card.licence == "not for sale"  # what is trained from it stays under it
