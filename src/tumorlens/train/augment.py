"""Moving, turning and re-lighting training pictures: drawn in one place, applied in another.

`draw` is the only randomness and `apply` is deterministic, so tests become equalities and an interrupted epoch
can be repeated. Works on whole batches of tensors, on the device where they lie.
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from tumorlens.config import AugmentSettings

_TONES = 5  # pieces of the grey-value curve
_LINES = 8  # lines after which the pattern of motion repeats
_HEAD = 0.1  # grey value above which a pixel belongs to the head
_PEEL = (0.03, 0.08)  # scalp and skull, as a share of the side: 6 to 15 mm of a head of 190


@dataclass(frozen=True)
class AugmentPlan:
    """What will be done to each picture of a batch.

    `affine` (n, 2, 3) maps output to input coordinates in [-1, 1]; `gamma`, `gain`, `bias` and `noise` are (n,);
    `blur` (n,) is True where resolution is halved; `field` (n, 1, 3, 3) are log gains of a receive-coil field, from
    corner to corner; `ghost` (n,) is the strength of the ghosts and `ghost_shift` their distance as a share of the
    side, negative for ghosts along rows; `tone` (n, steps) are log slopes of the grey-value curve; `motion` (n,) is how
    far the head moves, as a share of the side and negative along rows, during the lines of k-space that are True in
    `lines` (n, k), a pattern that repeats; `peel` (n,) is the thickness of what is peeled off the head, as a share of
    the side; `noise_seed` makes the noise repeatable.
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
    tone: torch.Tensor
    motion: torch.Tensor
    lines: torch.Tensor
    peel: torch.Tensor
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
    across, down = uniform(2 * settings.shift), uniform(2 * settings.shift)
    # Each of these draws only where it is asked for, so that presets without them draw what they always drew.
    still = torch.zeros(count)
    wide = torch.exp(uniform(math.log1p(settings.stretch) / 2)) if settings.stretch else still + 1
    rows = torch.stack(
        [
            torch.stack([cosine * mirror * wide, -sine * flip * wide, across], dim=1),
            torch.stack([sine * mirror / wide, cosine * flip / wide, down], dim=1),
        ],
        dim=1,
    )
    tone = torch.zeros(count, _TONES)
    if settings.tone:
        tone = (torch.rand(count, _TONES, generator=generator) * 2 - 1) * settings.tone
    motion, lines = still, torch.zeros(count, _LINES, dtype=torch.bool)
    if settings.motion:
        motion = uniform(settings.motion) * chance(0.5)
        lines = torch.rand(count, _LINES, generator=generator) < 0.5
    peel = still
    if settings.peel:
        thin, thick = _PEEL
        peel = (thin + torch.rand(count, generator=generator) * (thick - thin)) * chance(settings.peel)
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
        tone=tone,
        motion=motion,
        lines=lines,
        peel=peel,
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
    moved = _moving(_peeled(_ghosts(moved, plan), plan), plan)
    moved = _toned(moved, plan)
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


def _peeled(images: torch.Tensor, plan: AugmentPlan) -> torch.Tensor:
    """The head without its outermost layer, and as bright again as it was."""
    if not bool(plan.peel.any()):
        return images
    out = images.clone()
    for number in torch.nonzero(plan.peel).flatten().tolist():
        image = images[number]
        head = (image > _HEAD).float()
        # Bone and fluid are dark: what has head on all four sides belongs to it.
        sides = [head.cummax(dim).values for dim in (-1, -2)]
        sides += [head.flip(dim).cummax(dim).values.flip(dim) for dim in (-1, -2)]
        inside = torch.stack(sides).amin(dim=0)
        reach = max(round(float(plan.peel[number]) * image.shape[-1]), 1)
        kept = 1 - F.max_pool2d(F.pad(1 - inside, [reach] * 4, value=1.0), 2 * reach + 1, stride=1)
        brain = image * kept
        out[number] = brain / torch.quantile(brain, 0.995).clamp(min=0.2)
    return out.clamp(0, 1)


def _moving(images: torch.Tensor, plan: AugmentPlan) -> torch.Tensor:
    """A head that moved along the phase direction while the lines in `plan.lines` were measured (as in Shaw et al.,
    MRI k-space motion artefact augmentation, MIDL 2019, with one axis and two positions)."""
    if not bool(plan.motion.any()):
        return images
    out = images.clone()
    for number in torch.nonzero(plan.motion).flatten().tolist():
        distance = float(plan.motion[number])
        image = images[number].mT if distance < 0 else images[number]
        height = image.shape[-2]
        lines = plan.lines[number].to(image.device).repeat(height // _LINES + 1)[:height].view(height, 1)
        turn = 2 * math.pi * torch.fft.fftfreq(height, device=image.device).view(height, 1) * abs(distance) * height
        phase = torch.polar(torch.ones_like(turn), -turn * lines)
        seen = torch.fft.ifft2(torch.fft.fft2(image) * phase).abs()
        out[number] = seen.mT if distance < 0 else seen
    return out.clamp(0, 1)


def _toned(images: torch.Tensor, plan: AugmentPlan) -> torch.Tensor:
    """Grey values through a rising curve from 0 to 1, of straight pieces."""
    if not bool(plan.tone.any()):
        return images
    slopes = torch.exp(plan.tone).to(images.device)
    slopes = slopes / slopes.sum(dim=1, keepdim=True)
    starts = F.pad(slopes.cumsum(dim=1), [1, 0])[:, :-1]
    place = images.flatten(1) * _TONES
    piece = place.floor().clamp(max=_TONES - 1).long()
    values = starts.gather(1, piece) + slopes.gather(1, piece) * (place - piece)
    return values.view_as(images).clamp(0, 1)
