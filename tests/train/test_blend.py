"""Blends of what a training began from and what it learned."""

from pathlib import Path

import pytest
import torch

from tests.conftest import TINY
from tumorlens.config import TrainSettings
from tumorlens.data.dataset import SliceDataset, load_dataset
from tumorlens.data.manifest import read_manifest
from tumorlens.model.bundle import load_card
from tumorlens.model.network import TumorNet
from tumorlens.runtime.export import load_network
from tumorlens.train.blend import between, choose_blend, copied, measure_norms
from tumorlens.train.order import Order
from tumorlens.train.recipe import Reporter, train
from tumorlens.train.tasks import Computer


@pytest.fixture
def settings(tiny_settings: TrainSettings) -> TrainSettings:
    plan = tiny_settings.finetune.model_copy(update={"blends": (0.75,), "first_layer": "layer3"})
    return tiny_settings.model_copy(update={"finetune": plan})


@pytest.fixture
def data(drawn_manifest: Path, settings: TrainSettings) -> SliceDataset:
    return load_dataset(read_manifest(drawn_manifest), drawn_manifest.parent, settings.preprocess)


def spoiled(network: TumorNet) -> dict[str, torch.Tensor]:
    """Its later weights drawn anew."""
    torch.manual_seed(0)
    other = TumorNet(4, layers=TINY)
    for name, values in network.state_dict().items():
        if not name.startswith(("body.layer3", "body.layer4", "head")):
            other.state_dict()[name].copy_(values)
    return copied(other)


def test_between() -> None:
    found = between(
        {"a": torch.tensor([4.0]), "n": torch.tensor(9)}, {"a": torch.tensor([0.0]), "n": torch.tensor(3)}, 0.25
    )
    assert found["a"].item() == 1.0 and found["n"].item() == 3


def test_what_validation_prefers_is_kept(tiny_run: Path, data: SliceDataset, settings: TrainSettings) -> None:
    network = load_network(tiny_run / "bundle", load_card(tiny_run / "bundle"))
    good, bad = copied(network), spoiled(network)
    sides = data.side("train"), data.side("val")
    computer = Computer(network, torch.device("cpu"), torch.float32)
    losses = choose_blend(computer, bad, *sides, settings)
    assert set(losses) == {0.0, 0.75} and next(iter(losses)) == 0.0
    assert all(torch.equal(values, good[name]) for name, values in network.state_dict().items())
    network.load_state_dict(bad)
    losses = choose_blend(computer, good, *sides, settings)
    assert next(iter(losses)) == 0.75 and losses[0.75] < losses[0.0]
    kept = between(good, bad, 0.75)
    now = network.state_dict()
    assert torch.equal(now["head.weight"], kept["head.weight"])
    assert torch.equal(now["body.bn1.running_mean"], good["body.bn1.running_mean"])  # a frozen part
    assert not torch.equal(now["body.layer4.0.bn1.running_mean"], kept["body.layer4.0.bn1.running_mean"])


def test_norms_get_the_mean_of_what_they_see() -> None:
    torch.manual_seed(0)
    network = TumorNet(4, layers=TINY)
    batches = [torch.rand(4, 1, 64, 64) for _ in range(3)]
    momentum = network.body.bn1.momentum
    measure_norms(network, [], batches)
    assert network.body.bn1.momentum == momentum and not network.training
    means = []
    hook = network.body.bn1.register_forward_pre_hook(lambda norm, inputs: means.append(inputs[0].mean(dim=(0, 2, 3))))
    with torch.no_grad():
        for batch in batches:
            network(batch)
    hook.remove()
    assert torch.allclose(network.body.bn1.running_mean, torch.stack(means).mean(dim=0), atol=1e-6)


def test_a_model_trained_further_says_how_much_of_the_former_stayed(
    tiny_run: Path, drawn_manifest: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    brief = settings.finetune.stages[0].model_copy(update={"epochs": 1})
    plan = settings.finetune.model_copy(update={"stages": (brief,), "learning_rate": 0.5})  # much too fast
    again = settings.model_copy(update={"finetune": plan, "head": settings.head.model_copy(update={"epochs": 0})})
    said: list[str] = []
    order = Order(drawn_manifest, tmp_path / "again", again, tiny_run / "bundle" / "weights.safetensors", layers=TINY)
    paths = train(order, Reporter(message=said.append))
    (told,) = [text for text in said if text.startswith("kept ")]
    share = load_card(paths.bundle).training_data["share_of_initial_weights"]
    assert share == 0.75 and told.startswith("kept 75% of the initial weights; validation loss by share: 0% ")
