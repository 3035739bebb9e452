"""Batch norms of a network whose statistics were folded away, made fit for training again."""

from collections.abc import Iterable

import torch
from torch import nn


@torch.no_grad()
def give_statistics(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Put the mean and variance of what each batch norm sees into it, and take them out of its scale and shift.

    In eval mode the network computes the same afterwards. In training, norms that knew nothing of their inputs would
    change the function at the first step, as they then go by the batch's own statistics.

    Args:
        network: changed in place, left in eval mode.
        batches: pictures (n, 1, h, w) in [0, 1]; a few hundred in all.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms}

    def look(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        values = inputs[0].detach().double()
        count = torch.full((values.shape[1],), values.numel() / values.shape[1], dtype=torch.float64)
        sums[norm] += torch.stack([count, values.sum(dim=(0, 2, 3)).cpu(), values.square().sum(dim=(0, 2, 3)).cpu()])  # type: ignore[index]

    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    for batch in batches:
        network(batch)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        count, total, squares = sums[norm].to(norm.weight.device)
        mean = total / count
        variance = (squares / count - mean**2).clamp(min=0)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = norm.bias.double() - scale * norm.running_mean.double()
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.bias.copy_(shift + scale * mean)
