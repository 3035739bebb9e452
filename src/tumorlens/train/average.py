"""An exponential moving average of the weights: smoother than the last step, and often better.

Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; with a decay a step as in Tan & Le 2019.
"""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class WeightAverage(Generic[Network]):
    """A second network that follows the one that learns. `network` is what to validate and keep."""

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, steps: int) -> None:
        """Follow the network after its `steps`-th step; early steps are forgotten faster."""
        decay = min(self._decay, (1 + steps) / (10 + steps))
        for kept, new in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)
