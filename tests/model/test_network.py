import re

import pytest

from tests.conftest import TINY, real_path

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from tumorlens.errors import TumorlensError  # noqa: E402
from tumorlens.model.blocks import BLOCKS, find_block  # noqa: E402
from tumorlens.model.network import TumorNet, freeze_before, train_mode  # noqa: E402
from tumorlens.model.weights import load_backbone  # noqa: E402


def test_every_block_has_two_names() -> None:
    assert len(BLOCKS) == 16
    assert BLOCKS[0] == ("conv2_block1_out", "layer1[0]")
    assert BLOCKS[-1] == ("conv5_block3_out", "layer4[2]")
    for keras, name in BLOCKS:
        assert find_block(keras) == find_block(name) == find_block(re.sub(r"\[(\d)\]", r".\1", name))
    with pytest.raises(TumorlensError, match=r"conv9_block1_out.*conv2_block1_out"):
        find_block("conv9_block1_out")


def test_both_names_lead_to_one_module() -> None:
    network = TumorNet(4)
    assert network.block("conv5_block3_out") is network.body.layer4[2]
    assert network.block("layer3[5]") is network.block("conv4_block6_out") is network.body.layer3[5]


def test_logits_are_the_mean_of_the_evidence_plus_bias() -> None:
    network = TumorNet(4, layers=TINY).eval()
    torch.nn.init.normal_(network.head.bias)
    images = torch.rand(3, 1, 96, 64)
    with torch.no_grad():
        maps = network.evidence(network.feature_map(images))
        assert maps.shape == (3, 4, 3, 2)
        assert torch.allclose(network(images), maps.mean(dim=(2, 3)) + network.head.bias, atol=1e-5)


def test_freezing() -> None:
    network = TumorNet(4, layers=TINY)
    assert freeze_before(network, "layer3") == ["stem", "layer1", "layer2"]
    learning = {
        name.split(".")[1] for name, p in network.named_parameters() if p.requires_grad and name.startswith("body")
    }
    assert learning == {"layer3", "layer4"}
    assert network.head.weight.requires_grad
    train_mode(network, ["stem", "layer1", "layer2"])
    assert not network.body.bn1.training
    assert not network.body.layer2[0].bn1.training
    assert network.body.layer3[0].bn1.training
    assert freeze_before(network, "all") == []
    assert network.body.conv1.weight.requires_grad


def test_real_imagenet_weights_give_known_features() -> None:
    """The whole ImageNet checkpoint runs through this network as through plain torch functions."""
    from safetensors.torch import load_file

    path = real_path("weights/resnet50_imagenet.safetensors")
    network = TumorNet(4).eval()
    load_backbone(network, path)
    state = {key: value.float() for key, value in load_file(path).items()}
    images = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network.feature_map(images), plain_resnet(images, state), atol=1e-3, rtol=1e-3)


def plain_resnet(images, state):
    """ResNet-50 v1.5 written out from the paper, on torchvision's keys."""
    f = torch.nn.functional

    def norm(x, name):
        return f.batch_norm(x, state[f"{name}.running_mean"], state[f"{name}.running_var"], state[f"{name}.weight"],
                            state[f"{name}.bias"])  # fmt: skip

    x = (images - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        1, 3, 1, 1
    )
    x = f.max_pool2d(f.relu(norm(f.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1")), 3, 2, 1)
    for layer, count in enumerate((3, 4, 6, 3), start=1):
        for number in range(count):
            name, stride = f"layer{layer}.{number}", 2 if layer > 1 and number == 0 else 1
            y = f.relu(norm(f.conv2d(x, state[f"{name}.conv1.weight"]), f"{name}.bn1"))
            y = f.relu(norm(f.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1), f"{name}.bn2"))
            y = norm(f.conv2d(y, state[f"{name}.conv3.weight"]), f"{name}.bn3")
            if number == 0:
                x = norm(f.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = f.relu(x + y)
    return x
