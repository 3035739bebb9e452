"""Learning from what trained models say beside the labels, so that one network knows what several do.

Teachers see the very view that the network learns from (Hinton et al., Distilling the Knowledge in a Neural Network,
2015; Beyer et al., Knowledge distillation: A good teacher is patient and consistent, CVPR 2022). They answer by the
network alone: the say of a region head is left to the region head of the model that is taught.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from tumorlens.config import TrainSettings
from tumorlens.errors import TumorlensError
from tumorlens.model.bundle import CARD, Card, load_card
from tumorlens.model.network import TumorNet
from tumorlens.model.weights import load_backbone
from tumorlens.records import CLASSES
from tumorlens.train.device import autocast


@dataclass(frozen=True)
class Teachers:
    """Networks in eval mode, each with the temperature of its bundle.

    `shares` (classes,) is how much more common each class is to the training than in its data, by which a teacher's
    answers are made those of the training (see `tasks.restore_shares`).
    """

    networks: tuple[TumorNet, ...]
    temperatures: tuple[float, ...]
    shares: torch.Tensor

    @torch.no_grad()
    def answers(self, images: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
        """What they say together of pictures (n, 1, h, w): the probabilities (n, classes) of their mean
        log-probability."""
        said = []
        for network, temperature in zip(self.networks, self.temperatures, strict=True):
            with autocast(images.device, precision):
                logits = network(images)
            said.append(F.log_softmax(logits.float() / temperature + torch.log(self.shares.clamp(min=1e-6)), dim=1))
        return torch.softmax(torch.stack(said).mean(dim=0), dim=1)


def check_teachers(weights: Sequence[Path], settings: TrainSettings) -> list[Card]:
    """Make sure that bundles can teach, before anything is computed.

    Args:
        weights: `weights.safetensors` or the graph of each bundle, as `model.weights.resolve` finds it.
        settings: of the training.

    Returns:
        Their cards.

    Raises:
        TumorlensError: weights without a card, other classes, or settings that do not go with teachers.
        BundleError: a damaged bundle.
    """
    plan = settings.finetune
    if weights and plan.cached_views:
        raise TumorlensError(
            "teachers answer each view as it is drawn, so they do not go with finetune.cached_views "
            f"({plan.cached_views}). Take a preset without it"
        )
    if weights and not plan.teacher_weight:
        raise TumorlensError("finetune.teacher_weight is 0, so teachers would teach nothing. Give more, up to 1")
    cards = []
    for path in weights:
        if not (path.parent / CARD).is_file():
            raise TumorlensError(f"{path}: no bundle, so no teacher. Give run folders or bundles that were trained")
        card = load_card(path.parent)
        if card.classes != CLASSES:
            raise TumorlensError(
                f"{path}: answers {', '.join(card.classes)}, a teacher must know {', '.join(CLASSES)} in this order"
            )
        cards.append(card)
    return cards


def load_teachers(
    weights: Sequence[Path], shares: torch.Tensor, device: torch.device, layers: tuple[int, ...]
) -> Teachers:
    """Load the networks of bundles that `check_teachers` has passed.

    Args:
        weights: as there.
        shares: see `Teachers`.
        device: where they compute.
        layers: how many blocks their stages have.

    Raises:
        TumorlensError: weights of another network.
    """
    networks, temperatures = [], []
    for path in weights:
        card = load_card(path.parent)
        network = TumorNet(len(CLASSES), layers=layers, settings=card.network)
        load_backbone(network, path)
        networks.append(network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]
        temperatures.append(card.temperature)
    return Teachers(tuple(networks), tuple(temperatures), shares.to(device))
