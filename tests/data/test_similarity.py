import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from tests.conftest import real_path
from tumorlens.data.orientation import NAMES, turn, turn_back
from tumorlens.data.similarity import COPY, NEAR, clusters, pairs_between, pairs_within, thumbnail
from tumorlens.errors import InputError
from tumorlens.records import Slice


def textures(count: int, seed: int = 0) -> np.ndarray:
    """Ovals filled with different blurred noise, (count, 2, 64, 64) uint8, both views alike."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:64, :64] / 64 - 0.5
    oval = np.hypot(row, column * 1.3) < 0.45
    noise = gaussian_filter(rng.normal(size=(count, 64, 64)), (0, 1.5, 1.5))
    pictures = np.clip((noise * 200 + 120) * oval, 0, 255).astype(np.uint8)
    return np.stack([pictures, pictures], axis=1)


@pytest.mark.parametrize("orientation", range(8))
def test_turning_back_undoes_turning(orientation: int) -> None:
    values = np.arange(12).reshape(3, 4)
    assert np.array_equal(turn_back(turn(values, orientation), orientation), values)


def test_orientations_are_eight_different_ones() -> None:
    values = np.arange(16).reshape(4, 4)
    assert len({turn(values, number).tobytes() for number in range(len(NAMES))}) == 8


@pytest.mark.parametrize("orientation", range(8))
def test_a_turned_copy_is_found_with_its_turn(orientation: int) -> None:
    targets = textures(30)
    copy = np.ascontiguousarray(turn_back(targets[7], orientation))[None]
    (pair,) = pairs_between(copy, targets)
    assert (pair.second, pair.orientation) == (7, orientation)
    assert pair.score > 0.999


@pytest.mark.parametrize("orientation", range(8))
def test_within_a_set_the_turn_leads_from_first_to_second(orientation: int) -> None:
    pictures = textures(20)
    pictures[13] = turn(pictures[4], orientation)
    (pair,) = pairs_within(pictures)
    assert (pair.first, pair.second, pair.orientation) == (4, 13, orientation)
    pictures[13], pictures[4] = pictures[4].copy(), pictures[13].copy()
    (pair,) = pairs_within(pictures)
    assert np.array_equal(turn(pictures[4], pair.orientation), pictures[13])


def test_small_shifts_and_noise_do_not_hide_a_copy() -> None:
    targets = textures(25)
    rng = np.random.default_rng(3)
    moved = shift(targets[3].astype(float), (0, 1, -1), order=1) + rng.normal(0, 4, (2, 64, 64))
    (pair,) = pairs_between(np.clip(moved, 0, 255).astype(np.uint8)[None], targets)
    assert pair.second == 3
    assert pair.score > COPY


def test_different_pictures_are_no_pair() -> None:
    assert pairs_within(textures(60)) == []
    assert pairs_between(textures(5, seed=1), textures(60)) == []


def test_two_runs_find_the_same() -> None:
    pictures = np.concatenate([textures(40), textures(40)])
    assert pairs_within(pictures) == pairs_within(pictures)
    assert len(pairs_within(pictures)) == 40


def test_few_or_no_pictures() -> None:
    assert pairs_within(textures(1)) == []
    assert pairs_within(textures(3)[:0]) == []


def test_clusters_follow_chains() -> None:
    numbers = clusters(6, [(0, 2), (2, 5), (1, 3)])
    assert numbers[0] == numbers[2] == numbers[5]
    assert numbers[1] == numbers[3]
    assert len(set(numbers)) == 3


def test_a_blank_picture_has_no_thumbnail() -> None:
    with pytest.raises(InputError, match="nothing to see"):
        thumbnail(Slice(np.full((50, 50), 7, dtype=np.float32), "blank"))


def test_slices_of_different_patients_are_no_copies() -> None:
    """The first slice of each real patient against those of all others."""
    from tumorlens.data.index import index_folder
    from tumorlens.data.readers import read_slice

    folder = real_path("figshare")
    samples = list({s.patient_group: s for s in index_folder(folder, folder).samples[:900]}.values())
    assert len(samples) > 30
    small = np.stack([thumbnail(read_slice(folder, sample)) for sample in samples])
    assert all(pair.score < COPY for pair in pairs_within(small, NEAR))
