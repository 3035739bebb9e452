"""Exchanging a tumour for healthy tissue, so that where a picture comes from says nothing about its class.

Tumours and healthy brains of public collections come from different places: a network that tells the places apart is
right without having seen a tumour. Where a mask is known, the marked tissue of one slice and what lies at the same
place of a tumour-free one change sides, and their labels with them: pictures of either place then show both. Both have
a seam, so that neither does a seam say anything. Cut-and-paste as in CutMix (Yun et al., ICCV 2019) and CarveMix (Zhang
et al., MICCAI 2021), which leave the source its tumour.

`draw` is the only randomness; `exchange` is deterministic.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tumorlens.records import CLASSES

NONE = CLASSES.index("no_tumor")
#: What shows what it is wherever it lies; a tumour of the pituitary gland does not.
_MOVABLE = torch.tensor([CLASSES.index(name) for name in ("glioma", "meningioma")])
_HEAD = 0.1  # grey value above which a pixel belongs to the head
_INSIDE = 0.9  # of the tumour's place that must lie in the other head
_BORDER = 0.03  # around the mask, as a share of the side: masks are drawn tightly, and the seam fades over as much
_LARGEST = 0.2  # of the square: more is nearly another picture
_RATIO = 2.5  # of the two brightnesses up to which tissue is made as bright as what it comes to lie in


@dataclass(frozen=True)
class Pairs:
    """Which slices of a batch exchange: numbers (m,) of slices with a mask, and (m,) of tumour-free ones."""

    ill: torch.Tensor
    healthy: torch.Tensor


def draw(labels: torch.Tensor, masks: torch.Tensor, probability: float, generator: torch.Generator) -> Pairs:
    """Draw pairs from `generator` (on the CPU): each slice exchanges at most once.

    Args:
        labels: (n,), class numbers.
        masks: (n, 1, h, w); all 0 where no mask is known.
        probability: of a tumour-free slice to take part, as long as there are slices with a mask.
        generator: for the draw.
    """
    healthy = torch.nonzero(labels == NONE)[:, 0]
    marked = torch.nonzero(torch.isin(labels, _MOVABLE) & (masks.flatten(1).amax(dim=1) > 0))[:, 0]
    healthy = healthy[torch.rand(len(healthy), generator=generator) < probability]
    marked = marked[torch.randperm(len(marked), generator=generator)]
    count = min(len(healthy), len(marked))
    return Pairs(marked[:count], healthy[:count])


def exchange(
    images: torch.Tensor, masks: torch.Tensor, labels: torch.Tensor, pairs: Pairs
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Carry out what was drawn. Pairs whose heads do not fit, and the largest tumours, stay as they are.

    Args:
        images: (n, 1, h, w), float32 in [0, 1].
        masks: (n, 1, h, w) in [0, 1]; all 0 where no mask is known.
        labels: (n,), class numbers.
        pairs: as drawn for these.

    Returns:
        Images, masks and labels anew.
    """
    ill, healthy = pairs.ill.to(images.device), pairs.healthy.to(images.device)
    place = masks[ill]
    covered = place.flatten(1).sum(dim=1).clamp(min=1e-6)
    head = (images[healthy] > _HEAD).float()
    fits = ((place * head).flatten(1).sum(dim=1) / covered >= _INSIDE) & (place.flatten(1).mean(dim=1) <= _LARGEST)
    ill, healthy, place = ill[fits], healthy[fits], place[fits]
    if not len(ill):
        return images, masks, labels
    first, second = images[ill], images[healthy]
    reach = max(round(_BORDER * images.shape[-1]), 1)
    wide = _grown(place, reach)
    seam = F.avg_pool2d(F.pad(wide, [reach] * 4, mode="replicate"), 2 * reach + 1, stride=1)
    ring = _grown(wide, 2 * reach) - wide
    ratio = (_mean(second, ring) / _mean(first, ring).clamp(min=1e-3)).clamp(1 / _RATIO, _RATIO)
    images, masks, labels = images.clone(), masks.clone(), labels.clone()
    images[healthy] = second * (1 - seam) + (first * ratio).clamp(max=1) * seam
    images[ill] = first * (1 - seam) + (second / ratio).clamp(max=1) * seam
    masks[healthy], masks[ill] = place, 0.0
    labels[healthy], labels[ill] = labels[ill], NONE
    return images, masks, labels


def _grown(masks: torch.Tensor, reach: int) -> torch.Tensor:
    return F.max_pool2d(masks, 2 * reach + 1, stride=1, padding=reach)


def _mean(images: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """The mean grey of the head's pixels in a region, (m, 1, 1, 1)."""
    chosen = where * (images > _HEAD)
    return (images * chosen).sum(dim=(1, 2, 3), keepdim=True) / chosen.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
