"""Scores of maps against worked examples and scikit-learn; sharpening, contrast, findings."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tumorlens.errors import InputError, TumorlensError
from tumorlens.explain.baselines import brightness, centre, edges
from tumorlens.explain.faithfulness import faithfulness
from tumorlens.explain.finding import evidence_region
from tumorlens.explain.road import fill_in, road
from tumorlens.explain.scores import LEVELS, localise
from tumorlens.explain.sharpen import contrast, sharpen
from tumorlens.records import CLASSES, Heatmap

HEAD = np.zeros((40, 40), dtype=bool)
HEAD[5:35, 5:35] = True
MASK = np.zeros((40, 40), dtype=bool)
MASK[10:20, 10:20] = True


def test_a_map_that_is_the_mask_is_perfect() -> None:
    found = localise(MASK.astype(np.float32), MASK, HEAD)
    assert (found.peak, found.near, found.energy, found.precision, found.distance) == (1, 1, 1, 1, 0)
    assert found.dice.min() == found.iou.min() == 1


def test_a_map_beside_the_tumour() -> None:
    values = np.zeros((40, 40), dtype=np.float32)
    values[10:20, 21:31] = 1.0  # its peak, the first of equals, is two columns from the tumour
    values[12, 12] = 0.5
    found = localise(values, MASK, HEAD)
    assert (found.peak, found.near) == (0, 1)
    assert found.energy == pytest.approx(0.5 / 100.5)
    assert found.distance == pytest.approx(2 / 30)
    assert found.dice[LEVELS.index(0.5)] == pytest.approx(2 / 201)
    assert found.iou[LEVELS.index(0.5)] == pytest.approx(1 / 200)
    assert found.dice[LEVELS.index(0.9)] == 0


def test_average_precision_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    values = np.round(rng.random((40, 40)) + 0.4 * MASK, 1).astype(np.float32)  # with ties
    expected = average_precision_score(MASK.ravel(), values.ravel())
    assert localise(values, MASK, HEAD).precision == pytest.approx(expected)


def test_an_empty_map_finds_nothing_and_an_empty_mask_is_an_error() -> None:
    found = localise(np.zeros((40, 40), dtype=np.float32), MASK, HEAD)
    assert (found.peak, found.energy, found.dice.max()) == (0, 0, 0)
    assert found.precision == pytest.approx(MASK.mean())
    with pytest.raises(InputError, match="0 pixels"):
        localise(MASK.astype(np.float32), ~MASK & MASK, HEAD)


def test_what_is_removed_is_filled_in_from_around_it() -> None:
    rows, columns = np.mgrid[:20, :20] / 40
    ramp = (rows + columns).astype(np.float32)
    gone = np.zeros((20, 20), dtype=bool)
    gone[6:13, 5:14] = True
    filled = fill_in(ramp, gone, np.random.default_rng(0))
    assert np.array_equal(filled[~gone], ramp[~gone])
    assert np.abs(filled[gone] - ramp[gone]).max() < 0.1  # a plane is what its neighbours say, but for the noise
    assert np.array_equal(fill_in(ramp, np.ones((20, 20), dtype=bool), np.random.default_rng(0)), ramp)
    gone[:, 0] = True  # a hole that reaches the border
    assert np.isfinite(fill_in(ramp, gone, np.random.default_rng(0))).all()


def test_road_tells_a_right_map_from_a_wrong_one() -> None:
    square = np.random.default_rng(0).random((32, 32)).astype(np.float32) * 0.3
    square[12:18, 12:18] = 1
    spot = (square > 0.5).astype(np.float32)

    def ask(pictures: np.ndarray) -> np.ndarray:
        return np.asarray((pictures[:, 0, 12:18, 12:18].mean(axis=(1, 2)) > 0.6).astype(float))

    assert road(square, spot, ask) > 0.3
    assert road(square, 1 - spot, ask) < -0.3


def test_deleting_what_matters_first_is_seen_at_once() -> None:
    square = np.random.default_rng(0).random((48, 48)).astype(np.float32)
    spot = np.zeros((48, 48), dtype=np.float32)
    spot[20:28, 20:28] = 1
    square[20:28, 20:28] = 1

    def ask(pictures: np.ndarray) -> np.ndarray:
        return np.clip((pictures[:, 0, 20:28, 20:28].mean(axis=(1, 2)) - 0.8) * 5, 0, 1)

    right, wrong = faithfulness(square, spot, ask), faithfulness(square, 1 - spot, ask)
    assert right.deletion < 0.2 and wrong.deletion > 0.8
    assert right.insertion > 0.8 > wrong.insertion


def test_baselines_know_nothing_but_where_and_how_bright() -> None:
    square = np.zeros((96, 96), dtype=np.float32)
    square[30:60, 30:60] = 1
    assert np.unravel_index(centre(square).argmax(), (96, 96)) in {(47, 47), (47, 48), (48, 47), (48, 48)}
    assert brightness(square)[45, 45] > 0.9 > brightness(square)[5, 5]
    assert edges(square)[45, 30] > 10 * edges(square)[45, 45]


def test_sharpening_keeps_to_both() -> None:
    heat = Heatmap(np.array([[0, 1], [0, 1]], dtype=np.float32), "glioma", "logit")
    region = np.zeros((4, 4), dtype=np.float32)
    region[1, 3] = region[1, 0] = 1
    found = sharpen(heat, region)
    assert found.values.shape == (4, 4) and found.target_class == "glioma"
    assert np.argwhere(found.values).tolist() == [[1, 3]]


def test_contrast_is_the_difference_of_evidence() -> None:
    maps = np.random.default_rng(0).normal(0, 1, (4, 3, 3)).astype(np.float32)
    found = contrast(maps, CLASSES, "glioma", "pituitary").values
    assert np.allclose(found, np.maximum(maps[0] - maps[3], 0) / 9)
    assert not (found * contrast(maps, CLASSES, "pituitary", "glioma").values).any()
    for first, second in (("glioma", "glioma"), ("glioma", "cat")):
        with pytest.raises(TumorlensError, match="give two different classes of glioma, "):
            contrast(maps, CLASSES, first, second)


def test_the_region_that_holds_the_most() -> None:
    values = np.zeros((30, 60), dtype=np.float32)
    values[2:6, 50:56] = 0.9  # the stronger of two
    values[20:24, 5:9] = 0.8
    values[10, 10] = 0.3
    found = evidence_region(values, 0.5, (0.5, 2.0))
    assert found is not None
    assert (found.box, found.area, found.area_mm2, found.place) == ((2, 50, 6, 56), 24, 24.0, "upper right")
    assert found.mask.sum() == 24
    assert found.to_json()["box"] == [2, 50, 6, 56]
    # Where it lies is told by the head, not by the air around it.
    inner = evidence_region(values, 0.5, head=(0, 40, 30, 60))
    assert inner is not None and inner.place == "upper"
    assert evidence_region(values, 0.95) is None
    middle = evidence_region(np.ones((9, 9), dtype=np.float32), 0.5)
    assert middle is not None and (middle.place, middle.area_mm2) == ("middle", None)
