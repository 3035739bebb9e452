import numpy as np
import pytest

from tumorlens.errors import TumorlensError
from tumorlens.explain.gradcam import gradcam
from tumorlens.explain.overlay import colour, overlay, to_grey
from tumorlens.records import CLASSES

TEMPERATURE = 1.7


@pytest.fixture(scope="module")
def network_and_image():
    """A small network in double precision with weights that matter, and one picture."""
    torch = pytest.importorskip("torch", reason="the reference needs the extra `train`")
    from tests.conftest import TINY
    from tumorlens.model.network import TumorNet

    torch.manual_seed(3)
    network = TumorNet(4, layers=TINY).double().eval()
    torch.nn.init.normal_(network.head.weight, std=0.3)
    torch.nn.init.normal_(network.head.bias)
    network.pool = lambda values: values.mean(dim=(2, 3))  # the product pools in float32; the reference is double
    network.evidence = lambda values: torch.einsum("ck,nkhw->nchw", network.head.weight, values)
    return network, torch.rand(1, 1, 96, 128, dtype=torch.float64)


def autograd_cam(network, image, chosen: int, target: str) -> np.ndarray:
    """Grad-CAM as the paper has it: gradients averaged over the map are the channel weights."""
    import torch

    values = network.feature_map(image).detach().requires_grad_(True)
    logits = network.classify(network.pool(values))
    score = logits[0, chosen] if target == "logit" else torch.softmax(logits / TEMPERATURE, dim=1)[0, chosen]
    (gradient,) = torch.autograd.grad(score, values)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return torch.relu((weights * values).sum(dim=1))[0].detach().numpy()


def closed_form(network, image, chosen: int, target: str) -> np.ndarray:
    import torch

    with torch.no_grad():
        values = network.feature_map(image)
        evidence = network.evidence(values)[0].numpy()
        shares = torch.softmax(network.classify(network.pool(values)) / TEMPERATURE, dim=1)[0]
    return gradcam(evidence, tuple(shares.tolist()), CLASSES, CLASSES[chosen], target, TEMPERATURE).values


@pytest.mark.parametrize("target", ["probability", "logit"])
@pytest.mark.parametrize("chosen", range(4))
def test_closed_form_equals_autograd(network_and_image, chosen: int, target: str) -> None:
    expected = autograd_cam(*network_and_image, chosen, target)
    found = closed_form(*network_and_image, chosen, target)
    assert found.shape == (3, 4)
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-7 * max(expected.max(), 1e-12))


@pytest.mark.parametrize("chosen", range(4))
def test_closed_form_equals_torchcam(network_and_image, chosen: int) -> None:
    import torch

    methods = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")
    network, image = network_and_image
    block = network.block("conv5_block1_out")  # the last block of this small network
    with methods.GradCAM(network, target_layer=block) as extractor:
        with torch.enable_grad():
            logits = network(image.requires_grad_(True))
        (found,) = extractor(chosen, logits, normalized=False)
    expected = closed_form(network, image.detach(), chosen, "logit")
    assert np.allclose(found[0].detach().numpy(), expected, rtol=1e-6, atol=1e-9)


def test_probability_maps_speak_against_each_other() -> None:
    """Before the ReLU the probability maps of all classes sum to zero: what speaks for one speaks against the rest."""
    rng = np.random.default_rng(0)
    maps = rng.normal(0, 1, (4, 5, 5)).astype(np.float32)
    shares = (0.4, 0.3, 0.2, 0.1)
    positive = [gradcam(maps, shares, CLASSES, name).values for name in CLASSES]
    negative = [np.maximum(-(p * (maps[c] - np.tensordot(shares, maps, 1)) / 25), 0) for c, p in enumerate(shares)]
    assert np.allclose(sum(positive), sum(negative), atol=1e-6)
    assert all(values.min() >= 0 for values in positive)


def test_an_unknown_class() -> None:
    with pytest.raises(TumorlensError, match="'cat' is not one of glioma"):
        gradcam(np.zeros((4, 2, 2), dtype=np.float32), (1, 0, 0, 0), CLASSES, "cat")


def test_overlay_leaves_the_picture_where_the_map_is_zero() -> None:
    pixels = np.linspace(0, 3000, 30 * 40, dtype=np.float32).reshape(30, 40)
    values = np.zeros((30, 40), dtype=np.float32)
    values[5:10, 5:10] = 2.0
    image = np.asarray(overlay(pixels, values, 0.6))
    grey = to_grey(pixels)
    assert image.shape == (30, 40, 3)
    assert np.array_equal(image[20:], np.repeat(grey[20:, :, None], 3, axis=2))
    assert image[7, 7, 0] > image[7, 7, 2] + 50  # yellow, not grey
    assert np.array_equal(np.asarray(overlay(pixels, values * 0)), np.repeat(grey[..., None], 3, axis=2))


def test_colours_follow_inferno() -> None:
    import matplotlib

    strengths = np.linspace(0, 1, 50, dtype=np.float32)
    expected = matplotlib.colormaps["inferno"](strengths)[:, :3] * 255
    assert np.abs(colour(strengths) - expected).max() < 8
