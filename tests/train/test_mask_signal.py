"""Attention as a training signal: the two losses, the masks that follow their pictures, and what it does to a run."""

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from tests.conftest import TINY  # noqa: E402
from tests.train.conftest import STILL  # noqa: E402
from tumorlens.config import Architecture, AugmentSettings, TrainSettings  # noqa: E402
from tumorlens.data.dataset import load_dataset  # noqa: E402
from tumorlens.data.manifest import read_manifest  # noqa: E402
from tumorlens.errors import InputError  # noqa: E402
from tumorlens.model.network import TumorNet  # noqa: E402
from tumorlens.train import augment  # noqa: E402
from tumorlens.train.attention import CellHeads, cell_loss, evidence_loss  # noqa: E402

NONE = 2
ALL = ("train", "val", "test")


def square(inside: tuple[slice, slice], count: int = 1, size: int = 8) -> torch.Tensor:
    masks = torch.zeros(count, 1, size, size)
    masks[:, :, inside[0], inside[1]] = 1
    return masks


def test_evidence_in_the_tumour_costs_nothing_and_outside_its_share() -> None:
    masks = square((slice(0, 2), slice(0, 2)))
    evidence = torch.zeros(1, 4, 4, 4)
    evidence[0, 1, 0, 0] = 5.0  # masks of 8 x 8 on maps of 4 x 4: this cell is covered whole
    assert float(evidence_loss(evidence, masks)) == pytest.approx(0, abs=1e-6)
    evidence[0, 1, 3, 3] = 5.0
    assert float(evidence_loss(evidence, masks)) == pytest.approx(0.6931, abs=1e-3)  # half of it: log 2
    assert float(evidence_loss(evidence * 100, masks)) == pytest.approx(0.6931, abs=1e-3)  # a share has no size
    against = evidence.clone()
    against[0, 1, 3, 3], against[0, 2, 3, 3] = 0.0, -5.0  # against another class, but as strong
    assert float(evidence_loss(against, masks)) == pytest.approx(0.6931, abs=1e-3)


def test_what_all_classes_share_is_no_evidence() -> None:
    evidence = torch.ones(1, 4, 4, 4) * 9
    evidence[0, 0, 0, 0] += 1
    assert float(evidence_loss(evidence, square((slice(0, 2), slice(0, 2))))) == pytest.approx(0, abs=1e-5)


def test_without_a_mask_there_is_no_loss() -> None:
    evidence = torch.rand(3, 4, 4, 4, requires_grad=True)
    loss = evidence_loss(evidence, torch.zeros(3, 1, 8, 8))
    loss.backward()
    assert float(loss.detach()) == 0
    assert evidence.grad is not None and not evidence.grad.any()
    tumour = cell_loss(torch.rand(2, 4, 4, 4), torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), NONE)
    assert float(tumour) == 0  # a tumour without a mask: no cell is known


def test_cells_are_classified_by_the_mask() -> None:
    masks, labels = square((slice(0, 2), slice(0, 2)), count=2), torch.tensor([3, NONE])
    masks[1] = 0
    right = torch.zeros(2, 4, 4, 4)
    right[:, NONE] = 20.0
    right[0, :, 0, 0] = torch.tensor([0.0, 0.0, 0.0, 20.0])
    assert float(cell_loss(right, masks, labels, NONE)) == pytest.approx(0, abs=1e-4)
    blind = right.clone()
    blind[0, :, 0, 0] = right[1, :, 0, 0]  # one tumour cell of 32 missed: it is half of the loss
    assert float(cell_loss(blind, masks, labels, NONE)) == pytest.approx(10, abs=0.1)


def test_cell_heads_give_a_map_for_each_stage() -> None:
    maps = (torch.rand(2, 1024, 6, 6), torch.rand(2, 2048, 3, 3))
    assert [tuple(part.shape) for part in CellHeads(4)(maps)] == [(2, 4, 6, 6), (2, 4, 3, 3)]


def test_a_mask_goes_where_its_picture_goes() -> None:
    images = torch.zeros(4, 1, 48, 48)
    images[:, :, 10:20, 25:40] = 1.0
    settings = AugmentSettings(rotation=30, mirror=0.5, quarter_turn=0.5, gamma=0, contrast=0, noise=0, blur=0)
    plan = augment.draw(4, settings, torch.Generator().manual_seed(1))
    assert torch.allclose(augment.apply(images, plan, 48), augment.move(images, plan, 48), atol=1e-6)


def test_coil_field_and_ghosts_leave_the_background_black_and_the_mask_alone() -> None:
    images = torch.zeros(3, 1, 40, 40)
    images[:, :, 15:25, 15:25] = 0.5
    field = STILL.model_copy(update={"bias_field": 0.5})
    lit = augment.apply(images, augment.draw(3, field, torch.Generator().manual_seed(2)), 40)
    assert float(lit[images == 0].max()) == 0
    assert float(lit[images > 0].std()) > 0.02
    ghosting = STILL.model_copy(update={"ghosting": 0.5})
    plan = augment.draw(64, ghosting, torch.Generator().manual_seed(3))
    ghosts = augment.apply(images[:1].repeat(64, 1, 1, 1), plan, 40)
    haunted = (ghosts > 0).flatten(1).sum(dim=1) > 100  # the square alone has 100 pixels
    assert 0.3 < float(haunted.float().mean()) < 0.7
    assert torch.allclose(augment.move(images, plan.part(torch.arange(3)), 40), images, atol=1e-6)


def test_grey_values_rise_along_a_drawn_curve() -> None:
    ramp = torch.linspace(0, 1, 32 * 32).view(1, 1, 32, 32).repeat(16, 1, 1, 1)
    plan = augment.draw(16, STILL.model_copy(update={"tone": 1.0}), torch.Generator().manual_seed(4))
    toned = augment.apply(ramp, plan, 32).flatten(1)
    assert bool((toned.diff(dim=1) >= -1e-6).all())
    assert torch.allclose(toned[:, 0], torch.zeros(16)) and torch.allclose(toned[:, -1], torch.ones(16), atol=1e-5)
    assert float((toned - ramp.flatten(1)).abs().amax(dim=1).min()) > 0.02  # every picture has a curve of its own


def test_a_head_that_moved_is_between_its_two_places() -> None:
    images = torch.zeros(1, 1, 64, 64)
    images[:, :, 20:40, 24:44] = 0.5
    plan = augment.draw(1, STILL, torch.Generator().manual_seed(5))
    for pattern, where in ((False, 0), (True, 2)):  # no line measured after the motion, and every line
        lines = torch.full_like(plan.lines, pattern)
        moved = augment.apply(images, replace(plan, motion=torch.tensor([2 / 64]), lines=lines), 64)
        assert torch.allclose(moved, images.roll(where, dims=-2), atol=1e-5)
    along_rows = augment.apply(images, replace(plan, motion=torch.tensor([-2 / 64]), lines=lines), 64)
    assert torch.allclose(along_rows, images.roll(2, dims=-1), atol=1e-5)
    halves = torch.arange(plan.lines.shape[1]).view(1, -1) % 2 == 0
    seen = augment.apply(images, replace(plan, motion=torch.tensor([0.05]), lines=halves), 64)
    assert float(seen[..., :10, 24:44].max()) > 0.02  # a ghost half a picture away


def test_peeling_takes_the_rim_and_leaves_what_lies_deep() -> None:
    rows, columns = torch.meshgrid(torch.arange(96) - 48, torch.arange(96) - 48, indexing="ij")
    radius = (rows**2 + columns**2).sqrt()
    head = torch.where(radius < 44, 0.4, 0.0)
    head[(radius > 38) & (radius < 41)] = 0.0  # bone
    head[radius < 6] = 0.0  # a ventricle: a hole in the middle does not count as rim
    head[(radius > 6) & (radius < 10)] = 0.5
    images = head.view(1, 1, 96, 96).repeat(32, 1, 1, 1)
    plan = augment.draw(32, STILL.model_copy(update={"peel": 0.5}), torch.Generator().manual_seed(6))
    peeled = augment.apply(images, plan, 96)
    bare = plan.peel > 0
    assert 8 < int(bare.sum()) < 24
    assert float(peeled[bare][:, 0, radius > 42].max()) == 0
    assert bool((peeled[bare][:, 0, (radius > 12) & (radius < 32)] >= 0.4).all())
    assert torch.equal(peeled[~bare], augment.apply(images, replace(plan, peel=torch.zeros(32)), 96)[~bare])


def test_stretching_takes_the_mask_along_and_keeps_the_area() -> None:
    images = torch.zeros(16, 1, 64, 64)
    images[:, :, 22:42, 22:42] = 1.0
    plan = augment.draw(16, STILL.model_copy(update={"stretch": 0.4}), torch.Generator().manual_seed(7))
    stretched = augment.move(images, plan, 64)
    assert torch.allclose(stretched, augment.apply(images, plan, 64), atol=1e-6)
    wide, high = ((stretched.amax(dim=axis) > 0.5).float().flatten(1).sum(dim=1) for axis in (-2, -1))
    assert float((wide / high).max()) > 1.15 and float((wide / high).min()) < 0.87
    assert bool(((stretched.flatten(1).sum(dim=1) / 400 - 1).abs() < 0.06).all())


def test_dilation_keeps_the_weights_and_doubles_the_map() -> None:
    layers = (1, 1, 1, 2)  # the second block is where dilation sets in
    plain, fine = TumorNet(4, layers=layers), TumorNet(4, layers=layers, settings=Architecture(dilated=True))
    fine.load_state_dict(plain.state_dict())
    images = torch.rand(1, 1, 64, 64)
    plain.eval()
    fine.eval()
    with torch.inference_mode():
        coarse_map, fine_map = plain.feature_map(images), fine.feature_map(images)
    assert coarse_map.shape[-2:] == (2, 2) and fine_map.shape[-2:] == (4, 4)
    assert torch.allclose(fine_map[:, :, ::2, ::2], coarse_map, atol=1e-4)  # every other cell is the same


def test_masks_are_read_onto_the_prepared_square(masked_manifest: Path, masked_settings: TrainSettings) -> None:
    samples = read_manifest(masked_manifest)
    dataset = load_dataset(samples, masked_manifest.parent, masked_settings.preprocess, masks=ALL)
    assert dataset.masks is not None and dataset.masks.shape == dataset.images.shape
    for image, mask, sample in zip(dataset.images, dataset.masks, samples, strict=True):
        if sample.label == "no_tumor":
            assert not mask.any()
        else:
            assert image[mask > 200].float().mean() > 200  # the mark is bright
    side = dataset.side("val")
    assert side.masks is not None and len(side.masks) == len(side)
    wrong = [replace(samples[0], mask=samples[-1].path, label="glioma")]
    plain = load_dataset(wrong, masked_manifest.parent, masked_settings.preprocess)
    assert plain.masks is None
    missing = [replace(samples[0], mask="gone.png")]
    with pytest.raises(InputError, match=r"gone\.png"):
        load_dataset(missing, masked_manifest.parent, masked_settings.preprocess, masks=ALL)


def test_the_evidence_moves_into_the_mark(masked_manifest: Path, masked_settings: TrainSettings) -> None:
    """Its gradient reaches the weights and leads there."""
    samples = [item for item in read_manifest(masked_manifest) if item.label != "no_tumor"][::3]
    dataset = load_dataset(samples, masked_manifest.parent, masked_settings.preprocess, masks=ALL)
    assert dataset.masks is not None
    images, masks = (planes.unsqueeze(1).float() / 255 for planes in (dataset.images, dataset.masks))
    torch.manual_seed(0)
    network = TumorNet(4, layers=TINY, settings=Architecture(dilated=True))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(25):
        loss = evidence_loss(network.evidence(network.feature_map(images)), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.6931  # twice the share
