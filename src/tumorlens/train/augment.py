"""Moving, turning and re-lighting training pictures: drawn in one place, applied in another.

`draw` is the only randomness and `apply` is deterministic, so tests become equalities and an interrupted epoch
can be repeated. Works on whole batches of tensors, on the device where they lie.
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from tumorlens.config import AugmentSettings


@dataclass(frozen=True)
class AugmentPlan:
    """What will be done to each picture of a batch.

    `affine` (n, 2, 3) maps output to input coordinates in [-1, 1]; `gamma`, `gain`, `bias` and `noise` are (n,);
    `blur` (n,) is True where resolution is halved; `field` (n, 1, 3, 3) are log gains of a receive-coil field, from
    corner to corner; `ghost` (n,) is the strength of the ghosts and `ghost_shift` their distance as a share of the
    side, negative for ghosts along rows; `noise_seed` makes the noise repeatable.
    """

    affine: torch.Tensor
    gamma: torch.Tensor
    gain: torch.Tensor
    bias: torch.Tensor
    noise: torch.Tensor
    blur: torch.Tensor
    field: torch.Tensor
    ghost: torch.Tensor
    ghost_shift: torch.Tensor
    noise_seed: int

    def part(self, index: torch.Tensor) -> "AugmentPlan":
        """The plan of some of the pictures; their noise is their own."""
        values = {item.name: getattr(self, item.name)[index] for item in fields(self) if item.name != "noise_seed"}
        return AugmentPlan(**values, noise_seed=self.noise_seed + int(index[0]))


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
        field=(torch.rand(count, 1, 3, 3, generator=generator) * 2 - 1) * settings.bias_field,
        ghost=torch.rand(count, generator=generator) * settings.ghosting * chance(0.5),
        ghost_shift=torch.sign(uniform(1.0)) / torch.randint(2, 6, (count,), generator=generator),
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
    moved = move(images, plan, size)
    count, device = len(moved), moved.device

    def each(values: torch.Tensor) -> torch.Tensor:
        return values.to(device).view(count, 1, 1, 1)

    coarse = F.interpolate(moved, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)
    coarse = F.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
    moved = torch.where(each(plan.blur), coarse, moved).clamp(0, 1)
    moved = _ghosts(moved, plan)
    # Bias scales with the signal: a lifted black background would give the source away.
    lit = moved ** each(plan.gamma) * (each(plan.gain) + each(plan.bias) * (1 - moved))
    if bool(plan.field.any()):
        field = F.interpolate(plan.field.to(device), (size, size), mode="bicubic", align_corners=True)
        lit = lit * torch.exp(field)
    noise = torch.randn(lit.shape, generator=torch.Generator().manual_seed(plan.noise_seed)).to(device)
    return (lit + noise * each(plan.noise)).clamp(0, 1)


def move(images: torch.Tensor, plan: AugmentPlan, size: int) -> torch.Tensor:
    """The part of a plan that moves pixels and leaves their values alone: what a mask goes through with its picture.

    Args:
        images: (n, 1, h, w), float32 in [0, 1].
        plan: what to do, one entry a picture.
        size: side of the result; shrinking is antialiased.

    Returns:
        (n, 1, size, size), float32 in [0, 1].
    """
    images = resize(images, size)
    grid = F.affine_grid(plan.affine.to(images.device), [len(images), 1, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Pictures (n, 1, h, w) at another side, antialiased where they shrink."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def _ghosts(images: torch.Tensor, plan: AugmentPlan) -> torch.Tensor:
    """Motion in the phase direction: every k-th line of k-space off means shifted, weaker copies of the head."""
    if not bool(plan.ghost.any()):
        return images
    out = images.clone()
    for number in torch.nonzero(plan.ghost).flatten().tolist():
        axis = -1 if float(plan.ghost_shift[number]) < 0 else -2
        shift = round(abs(float(plan.ghost_shift[number])) * images.shape[-1])
        ghost = torch.roll(images[number], shift, dims=axis) + torch.roll(images[number], -shift, dims=axis)
        out[number] = images[number] + float(plan.ghost[number]) / 2 * ghost
    return out.clamp(0, 1)
