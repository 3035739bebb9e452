from itertools import pairwise

import numpy as np
import pytest

from tumorlens.evaluate.answers import Answers
from tumorlens.evaluate.by_confidence import EDGES, LEAST, by_confidence


def test_bands_count_their_own_slices_and_patients() -> None:
    sure = np.array([0.97, 0.01, 0.02])
    rows = [sure] * 20 + [np.roll(sure, 1)] * 5
    labels = np.array([0] * 15 + [1] * 5 + [1] * 5)
    groups = tuple(f"made:{n // 4}" for n in range(25))
    found = by_confidence(Answers(("a", "b", "c"), labels, np.stack(rows), groups), rounds=200)
    assert [(band["low"], band["high"]) for band in found["a"]] == list(pairwise(EDGES))
    band = found["a"][2]  # 0.95 to 0.99
    assert band["right"]["value"] == pytest.approx(0.75)
    assert (band["right"]["n_slices"], band["right"]["n"]) == (20, 5)
    assert band["right"]["low"] <= 0.75 <= band["right"]["high"]
    assert all(other["right"] is None for other in found["a"][:2])
    assert found["b"][2]["right"] is None  # five slices: below LEAST
    assert LEAST > 5


def test_a_band_that_is_all_right_is_no_certainty() -> None:
    """Every draw of eight patients is all right; how sure that makes one, Wilson's interval says."""
    rows, groups = np.stack([np.array([0.97, 0.03])] * 24), tuple(f"made:{n // 3}" for n in range(24))
    found = by_confidence(Answers(("a", "b"), np.zeros(24, dtype=int), rows, groups), rounds=50)
    right = found["a"][2]["right"]
    assert (right["value"], right["n"], right["high"]) == (1.0, 8, 1.0)
    assert right["low"] == pytest.approx(0.676, abs=0.001)
