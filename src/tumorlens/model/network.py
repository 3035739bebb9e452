"""ResNet-50, global average pooling, dropout and one linear layer.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (v1.5: the stride stands in the 3x3
convolution). The body is MONAI's; this module adds what transfer learning and explanation need.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from monai.networks.nets import ResNet
from torch import nn

from tumorlens.config import Architecture
from tumorlens.model.blocks import BLOCKS_PER_LAYER, find_block

FEATURES = 2048
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_PLAIN = Architecture()
Layout = Literal["v1", "v1.5"]
PARTS = ("stem", "layer1", "layer2", "layer3", "layer4")


class TumorNet(nn.Module):
    """Grey slices (n, 1, h, w) in [0, 1] to logits (n, classes).

    Grey becomes three equal channels with ImageNet's normalisation inside the network, so nobody outside has
    to know it. `layers` is (3, 4, 6, 3) for ResNet-50; tests pass a smaller one.
    """

    def __init__(
        self,
        classes: int,
        dropout: float = 0.0,
        layers: tuple[int, ...] = BLOCKS_PER_LAYER,
        settings: Architecture = _PLAIN,
    ) -> None:
        super().__init__()
        self.body = ResNet(
            block="bottleneck",
            layers=list(layers),
            block_inplanes=[64, 128, 256, 512],
            spatial_dims=2,
            n_input_channels=3,
            conv1_t_size=7,
            conv1_t_stride=2,
            bias_downsample=False,
            feed_forward=False,
        )
        move_strides(self.body, settings.strides)
        if settings.dilated:
            _dilate(self.part("layer4"))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(FEATURES, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 1, h, w) in [0, 1] to logits (n, classes)."""
        return self.classify(self.pool(self.feature_map(images)))

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """Output of the last residual block, (n, 2048, h/32, w/32), or (n, 2048, h/16, w/16) where it is dilated."""
        return self.last_maps(images)[1]

    def last_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs of the last two stages: (n, 1024, h/16, w/16) and that of `feature_map`."""
        return self.last_maps_after(self.front(images, "layer4"), "layer4")

    def front(self, images: torch.Tensor, first: str) -> torch.Tensor:
        """What the parts before `first` (`layer1` … `layer4`) make of pictures (n, 1, h, w)."""
        values = self.stem(images)
        for name in PARTS[1 : PARTS.index(first)]:
            values = self.part(name)(values)
        return values

    def last_maps_after(self, values: torch.Tensor, first: str) -> tuple[torch.Tensor, torch.Tensor]:
        """`last_maps` of pictures of which `front(images, first)` is known."""
        for name in PARTS[PARTS.index(first) : -1]:
            values = self.part(name)(values)
        return values, self.part(PARTS[-1])(values)

    def stem(self, images: torch.Tensor) -> torch.Tensor:
        """Normalisation, first convolution and pooling: (n, 1, h, w) to (n, 64, h/4, w/4)."""
        values: torch.Tensor = (images - self.mean) / self.std
        values = values.contiguous(memory_format=torch.channels_last)
        values = self.body.act(self.body.bn1(self.body.conv1(values)))
        pooled: torch.Tensor = self.body.maxpool(values)
        return pooled

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Global average pooling, in float32: (n, 2048, h, w) to (n, 2048)."""
        return feature_map.float().mean(dim=(2, 3))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Pooled features (n, 2048) to logits (n, classes)."""
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits

    def evidence(self, feature_map: torch.Tensor) -> torch.Tensor:
        """The class evidence maps M[c] = sum_k W[c, k] A[k], (n, classes, h, w); their mean plus bias is the logit."""
        return torch.einsum("ck,nkhw->nchw", self.head.weight, feature_map.float())

    def part(self, name: str) -> nn.Module:
        """One of `layer1` to `layer4`."""
        module = getattr(self.body, name)
        assert isinstance(module, nn.Module)
        return module

    def block(self, name: str) -> nn.Module:
        """A residual block by either name, for instance `conv5_block3_out` or `layer4[2]`."""
        layer, index = find_block(name)
        blocks = self.part(f"layer{layer}")
        assert isinstance(blocks, nn.Sequential)
        return blocks[index]

    def modules_of(self, part: str) -> Iterator[nn.Module]:
        """The top modules that make up a part of `PARTS`."""
        yield from (self.body.conv1, self.body.bn1) if part == "stem" else (self.part(part),)


def move_strides(body: nn.Module, layout: Layout = "v1") -> None:
    """Put the stride of each stage's first block where a layout has it; a stage without one (dilated) stays as it is.

    Args:
        body: MONAI's ResNet of bottleneck blocks, changed in place; its weights and their shapes stay.
        layout: `v1` for the first 1x1 convolution, `v1.5` for the 3x3.
    """
    for number in range(1, 5):
        block: Any = next(body.get_submodule(f"layer{number}").children())
        stride = max(block.conv1.stride, block.conv2.stride)
        block.conv1.stride, block.conv2.stride = (stride, (1, 1)) if layout == "v1" else ((1, 1), stride)


def _dilate(stage: nn.Module) -> None:
    """Take a stage's stride away and let its later blocks look twice as far instead: the weights keep their meaning."""
    for number, block in enumerate(stage.children()):
        for name, convolution in block.named_modules():
            if not isinstance(convolution, nn.Conv2d):
                continue
            convolution.stride = (1, 1)
            if number and name == "conv2":
                convolution.dilation = convolution.padding = (2, 2)


def freeze_before(network: TumorNet, first: str) -> list[str]:
    """Let everything from part `first` on learn, and freeze what lies before.

    Args:
        network: changed in place (`requires_grad` only).
        first: `all`, `layer1` … `layer4`, or `head` to freeze the whole backbone.

    Returns:
        The frozen parts, whose batch norms the caller must keep in eval mode.
    """
    order = (*PARTS, "head")
    start = 0 if first == "all" else order.index(first)
    for number, part in enumerate(PARTS):
        for module in network.modules_of(part):
            module.requires_grad_(number >= start)
    return list(PARTS[:start])


def train_mode(network: TumorNet, frozen: list[str]) -> None:
    """Switch to training, but leave the frozen parts' batch norms at their running statistics."""
    network.train()
    for part in frozen:
        for module in network.modules_of(part):
            module.eval()
