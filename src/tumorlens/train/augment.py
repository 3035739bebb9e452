"""Moving, turning and re-lighting training pictures: drawn in one place, applied in another.

`draw` is the only randomness and `apply` is deterministic, so tests become equalities and an interrupted epoch
can be repeated. Works on whole batches of tensors, on the device where they lie.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tumorlens.config import AugmentSettings


@dataclass(frozen=True)
class AugmentPlan:
    """What will be done to each picture of a batch.

    `affine` (n, 2, 3) maps output to input coordinates in [-1, 1]; `gamma`, `gain`, `bias` and `noise` are (n,);
    `blur` (n,) is True where resolution is halved; `noise_seed` makes the noise repeatable.
    """

    affine: torch.Tensor
    gamma: torch.Tensor
    gain: torch.Tensor
    bias: torch.Tensor
    noise: torch.Tensor
    blur: torch.Tensor
    noise_seed: int


def draw(count: int, settings: AugmentSettings, generator: torch.Generator) -> AugmentPlan:
    """Draw the changes for `count` pictures from `generator` (on the CPU)."""

    def uniform(reach: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * reach

    def chance(probability: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) < probability

    quarter = chance(settings.quarter_turn) * math.pi / 2
    angle = uniform(math.radians(settings.rotation)) + quarter
    scale = torch.exp(uniform(math.log1p(settings.zoom)))
    mirror = 1 - 2 * chance(settings.mirror).float()
    flip = 1 - 2 * chance(settings.upside_down).float()
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = torch.stack(
        [
            torch.stack([cosine * mirror, -sine * flip, uniform(2 * settings.shift)], dim=1),
            torch.stack([sine * mirror, cosine * flip, uniform(2 * settings.shift)], dim=1),
        ],
        dim=1,
    )
    return AugmentPlan(
        affine=rows,
        gamma=torch.exp(uniform(settings.gamma)),
        gain=1 + uniform(settings.contrast),
        bias=uniform(settings.contrast / 2),
        noise=torch.rand(count, generator=generator) * settings.noise,
        blur=chance(settings.blur),
        noise_seed=int(torch.randint(2**62, (1,), generator=generator)),
    )


def apply(images: torch.Tensor, plan: AugmentPlan, size: int) -> torch.Tensor:
    """Carry out a plan.

    Args:
        images: (n, 1, h, w), float32 in [0, 1].
        plan: what to do, one entry a picture.
        size: side of the result; shrinking is antialiased.

    Returns:
        (n, 1, size, size), float32 in [0, 1].
    """
    count, device = len(images), images.device
    if images.shape[-1] != size:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    grid = F.affine_grid(plan.affine.to(device), [count, 1, size, size], align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    coarse = F.interpolate(moved, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)
    coarse = F.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)

    def each(values: torch.Tensor) -> torch.Tensor:
        return values.to(device).view(count, 1, 1, 1)

    moved = torch.where(each(plan.blur), coarse, moved).clamp(0, 1)
    # Bias scales with the signal: a lifted black background would give the source away.
    lit = moved ** each(plan.gamma) * (each(plan.gain) + each(plan.bias) * (1 - moved))
    noise = torch.randn(lit.shape, generator=torch.Generator().manual_seed(plan.noise_seed)).to(device)
    return (lit + noise * each(plan.noise)).clamp(0, 1)
