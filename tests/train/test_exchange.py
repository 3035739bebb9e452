"""Exchanging a tumour for healthy tissue: who takes part, what moves, and that a run can be trained with it."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from tumorlens.config import TrainSettings  # noqa: E402
from tumorlens.records import CLASSES  # noqa: E402
from tumorlens.train.exchange import NONE, Pairs, draw, exchange  # noqa: E402

GLIOMA, PITUITARY = CLASSES.index("glioma"), CLASSES.index("pituitary")
SIDE = 64


def batch(labels: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Heads of 0.4, tumours of 0.8 in the middle of those that are not healthy."""
    images, masks = torch.full((len(labels), 1, SIDE, SIDE), 0.4), torch.zeros(len(labels), 1, SIDE, SIDE)
    for number, label in enumerate(labels):
        if label != NONE:
            masks[number, :, 24:36, 24:36] = 1
    return torch.where(masks > 0, torch.tensor(0.8), images), masks, torch.tensor(labels)


def pair(ill: int, healthy: int) -> Pairs:
    return Pairs(torch.tensor([ill]), torch.tensor([healthy]))


def test_the_tumour_moves_with_its_mask_and_label() -> None:
    images, masks, labels = batch([GLIOMA, NONE])
    images[1] = 0.2  # a darker picture: what comes to lie in it is made as dark
    moved, outlines, named = exchange(images, masks, labels, pair(0, 1))
    assert named.tolist() == [NONE, GLIOMA]
    assert float(moved[1, 0, 30, 30]) == pytest.approx(0.4, abs=0.01)
    assert float(moved[0, 0, 30, 30]) == pytest.approx(0.4, abs=0.01), "healthy tissue, as bright as what is around it"
    assert torch.equal(outlines[1], masks[0]) and not outlines[0].any()
    assert torch.equal(moved[:, :, :16], images[:, :, :16]), "what is far from the tumour stays"
    assert labels.tolist() == [GLIOMA, NONE] and float(images[0, 0, 30, 30]) == pytest.approx(0.8), "nothing in place"


def test_tumours_that_do_not_fit_stay() -> None:
    images, masks, labels = batch([GLIOMA, NONE])
    images[1, :, :, 28:] = 0  # where the tumour would lie there is no head
    assert exchange(images, masks, labels, pair(0, 1))[2].tolist() == [GLIOMA, NONE]
    images, masks, labels = batch([GLIOMA, NONE])
    masks[0, :, :40] = 1
    assert exchange(images, masks, labels, pair(0, 1))[2].tolist() == [GLIOMA, NONE]


def test_only_tumours_that_can_lie_anywhere_and_have_a_mask_take_part() -> None:
    _, masks, labels = batch([PITUITARY, GLIOMA, NONE, GLIOMA, NONE])
    masks[1] = 0
    pairs = draw(labels, masks, 1.0, torch.Generator().manual_seed(0))
    assert pairs.ill.tolist() == [3] and pairs.healthy.tolist() == [2]
    assert not len(draw(labels, masks, 0.0, torch.Generator().manual_seed(0)).ill)


def test_it_does_not_go_with_stages_that_are_computed_once() -> None:
    stages = [{"epochs": 1, "size": 224}]
    with pytest.raises(ValueError, match=r"augment\.exchange must be 0"):
        TrainSettings.model_validate(
            {"augment": {"exchange": 0.5}, "finetune": {"cached_views": 2, "first_layer": "layer4", "stages": stages}}
        )
