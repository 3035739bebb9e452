"""Where a tumour may lie, from what the network's middle stages have computed anyway: the region head.

Trained on tumour masks after the network, which stays as it is. It reads conv3 and conv4 alone: the last feature map
keeps its one linear path to the logits, so the closed form of Grad-CAM stays exact although the region has a say in
`no_tumor` (see `mixed`).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from tumorlens.model.network import TumorNet

CHANNELS = (512, 1024)  # of the outputs of conv3 and conv4
HIDDEN = 64


class RegionHead(nn.Module):
    """Maps of conv3 (n, 512, h/8, w/8) and conv4 (n, 1024, h/16, w/16) to log odds (n, h/8, w/8) of each cell."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(CHANNELS[0], hidden, 1, bias=False), nn.BatchNorm2d(hidden))
        self.coarse = nn.Sequential(nn.Conv2d(CHANNELS[1], hidden, 1, bias=False), nn.BatchNorm2d(hidden))
        self.mix = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
        )

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Log odds (n, h/8, w/8) that a cell shows tumour."""
        wide = F.interpolate(self.coarse(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        logits: torch.Tensor = self.mix(self.fine(fine) + wide)[:, 0]
        return logits


def middle_maps(network: TumorNet, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of conv3 and conv4 for pictures (n, 1, h, w) in [0, 1]."""
    fine = network.front(images, "layer3")
    return fine, network.part("layer3")(fine)


def strength(region: torch.Tensor) -> torch.Tensor:
    """How strongly a slice (n, h, w of log odds) speaks for a tumour somewhere, (n,): the log of the mean odds."""
    flat = region.flatten(1)
    return torch.logsumexp(flat, dim=1) - math.log(flat.shape[1])


def mixed(logits: torch.Tensor, strengths: torch.Tensor, none: int, weight: float, bias: float) -> torch.Tensor:
    """Let the region have its say: the logit of class number `none` less `weight * strength + bias`."""
    say = F.one_hot(torch.tensor(none), logits.shape[1]).to(logits)
    return logits - say * (weight * strengths + bias).unsqueeze(1)
