from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from tumorlens.config import TrainSettings  # noqa: E402
from tumorlens.data.dataset import SliceDataset  # noqa: E402
from tumorlens.records import CLASSES, Sample  # noqa: E402
from tumorlens.train.sampling import class_weights, epoch_batches, learned_shares, slice_odds  # noqa: E402

EVEN = TrainSettings(sampling="square_root", class_weights=False, batch_size=8)


@pytest.fixture
def dataset() -> SliceDataset:
    """Glioma: 64 slices of one patient and 36 of another in source a, 25 in b; meningioma: 25."""
    base = Sample("", "", "", "", "", "", "", 8, 8, split="train")
    rows = []
    for label, source, group, count in (
        ("glioma", "a", "one", 64),
        ("glioma", "a", "two", 36),
        ("glioma", "b", "three", 25),
        ("meningioma", "a", "four", 25),
    ):
        row = replace(base, label=label, source=source, patient_group=group)
        rows += [replace(row, path=f"{group}{n}") for n in range(count)]
    labels = torch.tensor([CLASSES.index(row.label) for row in rows])
    return SliceDataset(torch.zeros(len(rows), 8, 8, dtype=torch.uint8), labels, tuple(rows))


def share(odds: torch.Tensor, dataset: SliceDataset, **wanted: str) -> float:
    chosen = [all(getattr(item, key) == value for key, value in wanted.items()) for item in dataset.samples]
    return float(odds[torch.tensor(chosen)].sum())


def test_odds_go_by_square_roots(dataset: SliceDataset) -> None:
    odds = slice_odds(dataset, EVEN)
    assert float(odds.sum()) == pytest.approx(1)
    glioma = 125**0.5 / (125**0.5 + 25**0.5)
    assert share(odds, dataset, label="glioma") == pytest.approx(glioma)
    assert share(odds, dataset, label="glioma", source="a") == pytest.approx(glioma * 10 / 15)
    assert share(odds, dataset, patient_group="one") == pytest.approx(glioma * 10 / 15 * 8 / 14)
    assert slice_odds(dataset, TrainSettings()).unique().tolist() == pytest.approx([1 / 150])


def test_an_epoch_is_full_batches_and_repeatable(dataset: SliceDataset) -> None:
    for settings in (EVEN, TrainSettings(batch_size=8)):
        one, again, other = (epoch_batches(dataset, settings, seed) for seed in (1, 1, 2))
        assert [len(batch) for batch in one] == [8] * 18
        assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    plain = torch.cat(epoch_batches(dataset, TrainSettings(batch_size=8), 3))
    assert len(plain.unique()) == len(plain)  # every slice at most once


def test_weights_balance_what_is_drawn(dataset: SliceDataset) -> None:
    odds = slice_odds(dataset, EVEN)
    weights = class_weights(dataset.labels, 4, odds)
    assert float(weights[0]) * share(odds, dataset, label="glioma") == pytest.approx(0.5, rel=1e-5)
    assert weights[2:].tolist() == [0, 0]


@pytest.mark.parametrize("weighed", [True, False])
def test_learned_shares_undo_draws_and_weights(dataset: SliceDataset, weighed: bool) -> None:
    """Data shares times what training made of them are the shares that the network believes in."""
    settings = EVEN.model_copy(update={"class_weights": weighed})
    factors = learned_shares(dataset, settings, 4)
    believed = factors[:2].double() * torch.tensor([125 / 150, 25 / 150])
    odds = slice_odds(dataset, settings)
    expected = [0.5, 0.5] if weighed else [share(odds, dataset, label=name) for name in ("glioma", "meningioma")]
    assert believed.tolist() == pytest.approx(expected, rel=1e-5)
    assert factors[2:].tolist() == [0, 0]
