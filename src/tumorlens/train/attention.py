"""Attention as a training signal: where a mask is known, it says which part of the picture the answer is to come from.

Two losses. `evidence_loss` asks the class evidence maps to lie in the tumour; they are part of the forward pass and
linear in the last feature map, so it needs no second backward pass (Ross et al., Right for the Right Reasons, IJCAI
2017; Li et al., Tell Me Where to Look, CVPR 2018). `cell_loss` classifies each cell of the last two stages' maps, by
linear heads that are thrown away afterwards (Lee et al., Deeply-Supervised Nets, AISTATS 2015): a picture then teaches
at a hundred places instead of one, and healthy tissue is an example too.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

#: Share of a cell from which on it counts as tumour: a small one covers no cell whole.
_ENOUGH = 1 / 3
#: Share up to which it counts as free of tumour; what lies between is left out.
_CLEAN = 0.05


class CellHeads(nn.Module):
    """A linear classifier of cells on each of the last two stages, for training only."""

    def __init__(self, classes: int, channels: Sequence[int] = (1024, 2048)) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(count, classes, kernel_size=1) for count in channels)
        for head in self.heads:
            nn.init.normal_(head.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Feature maps (n, k, h, w), a stage each, to logits (n, classes, h, w) each."""
        return [head(values.float()) for head, values in zip(self.heads, maps, strict=True)]


def cell_loss(logits: torch.Tensor, masks: torch.Tensor, labels: torch.Tensor, none: int) -> torch.Tensor:
    """Cross-entropy of cells; those with tumour and those without count half each, few as the first are.

    Args:
        logits: (n, C, h, w).
        masks: (n, 1, H, W) in [0, 1]; all 0 where no mask is known.
        labels: (n,), class numbers of the slices.
        none: the number of the class without a tumour, which is that of cells outside a mask. Slices of this class
            are clean all over; of a tumour without a mask no cell is known.

    Returns:
        A scalar; 0 where nothing is known.
    """
    cover = cover_of(masks, logits)
    known = (cover.flatten(1).amax(dim=1) > 0) | (labels == none)
    ill = cover > _ENOUGH
    clean = (cover < _CLEAN) & known.view(-1, 1, 1)
    targets = torch.where(ill, labels.view(-1, 1, 1), torch.full_like(cover, none, dtype=torch.long))
    losses = F.cross_entropy(logits, targets, reduction="none")
    return 0.5 * (mean_over(losses, ill) + mean_over(losses, clean))


def evidence_loss(evidence: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Minus the log of the share of evidence that lies in the tumour, over the pictures whose mask is known.

    Evidence is what tells the classes apart: the sum over c of |M[c] - mean_j M[j]|, whatever its sign and class, so
    that nothing outside the tumour speaks for or against any class. Being a share, it leaves the logits' size alone.

    Args:
        evidence: (n, C, h, w), the class evidence maps.
        masks: (n, 1, H, W) in [0, 1]; all 0 where no mask is known.

    Returns:
        A scalar of at least 0; 0 where no picture of the batch has a mask.
    """
    cover = cover_of(masks, evidence)
    known = cover.flatten(1).amax(dim=1) > 0
    inside = (cover / _ENOUGH).clamp(max=1)
    strength = (evidence - evidence.mean(dim=1, keepdim=True)).abs().sum(dim=1)
    share = (strength * inside).flatten(1).sum(dim=1) / strength.flatten(1).sum(dim=1).clamp(min=1e-6)
    return mean_over(-torch.log(share.clamp(min=1e-4)), known)


def cover_of(masks: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """The share of each cell of a map that a mask covers, (n, h, w)."""
    return F.adaptive_avg_pool2d(masks, (maps.shape[-2], maps.shape[-1]))[:, 0]


def mean_over(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The mean of the chosen values (marks or weights of their shape); 0 where none is."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
