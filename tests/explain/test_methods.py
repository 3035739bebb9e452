"""One contract for every method, on one small network; and the identities that hold between them."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="these methods need the extra `train`")
pytest.importorskip("torchcam", reason="needs the extra `explain`")
pytest.importorskip("captum", reason="needs the extra `explain`")

import torch

from tests.conftest import TINY
from tumorlens.errors import TumorlensError
from tumorlens.explain.gradcam import gradcam
from tumorlens.explain.methods import METHODS, Method, Scores, find_method
from tumorlens.model.network import TumorNet
from tumorlens.records import CLASSES


@pytest.fixture(scope="module")
def network() -> TumorNet:
    torch.manual_seed(3)
    made = TumorNet(4, layers=TINY).eval()
    torch.nn.init.normal_(made.head.weight, std=0.03)
    return made


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))


def build(network: TumorNet, name: str, target: str = "probability") -> Method:
    return find_method(name)(Scores(network, target, 1.5))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract(name: str, network: TumorNet, images: torch.Tensor) -> None:
    images = images[:1] if name == "scorecam" else images  # it takes thousands of passes
    chosen = network.eval()(images).argmax(dim=1)
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    learning = [value.requires_grad for value in network.parameters()]
    found = build(network, name).explain(images, chosen)
    assert found.ndim == 3 and len(found) == len(images) and found.dtype == np.float32
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() > 0
    assert network.training and [value.requires_grad for value in network.parameters()] == learning
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert all(value.grad is None for value in network.parameters())
    if len(images) > 1:  # alone as in company
        again = build(network, name).explain(images[:1], chosen[:1])
        assert np.allclose(again[0], found[0], rtol=1e-3, atol=1e-4 * found.max())
    network.eval()


@pytest.mark.parametrize("target", ["probability", "logit"])
def test_gradcam_and_hirescam_at_the_last_block_are_the_closed_form(
    target: str, network: TumorNet, images: torch.Tensor
) -> None:
    with torch.no_grad():
        values = network.feature_map(images[:1])
        evidence = network.evidence(values)[0].numpy()
        shares = torch.softmax(network(images[:1]) / 1.5, dim=1)[0].tolist()
    chosen = int(np.argmax(shares))
    expected = gradcam(evidence, tuple(shares), CLASSES, CLASSES[chosen], target, 1.5).values
    assert expected.max() > 0
    for name in ("gradcam", "hirescam"):
        found = build(network, name, target).explain(images[:1], torch.tensor([chosen]))[0]
        assert np.allclose(found, expected * (found.max() / expected.max()), rtol=1e-3, atol=1e-5 * found.max()), name


def test_other_blocks_by_either_name(network: TumorNet, images: torch.Tensor) -> None:
    scores = Scores(network, "logit")
    first, second = (
        find_method("layercam")(scores, block).explain(images, torch.tensor([1, 1]))
        for block in ("conv3_block1_out", "layer2[0]")
    )
    assert first.shape == (2, 8, 8)
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", ["fusion", "occlusion", "smoothgrad"])
def test_a_block_is_not_ignored(name: str, network: TumorNet) -> None:
    with pytest.raises(TumorlensError, match="does not look at one block; leave out 'layer1"):
        find_method(name)(Scores(network, "logit"), "layer1[0]")


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(TumorlensError, match="no method 'cat'; there are gradcam, gradcam"):
        find_method("cat")
