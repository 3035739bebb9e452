"""Remove and debias: does the answer follow the pixels that a map calls important?

Rong, Leemann, Borisov, Kasneci & Kasneci, A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML
2022. What is removed is filled in from its surroundings (each missing pixel the weighted mean of its eight neighbours,
with a little noise), so that the shape of the hole says nothing, unlike a grey patch.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, identity
from scipy.sparse.linalg import spsolve

from tumorlens.explain.faithfulness import Ask
from tumorlens.records import Float32

SHARES = (0.2, 0.4, 0.6, 0.8)
_NOISE = 0.02
_NEIGHBOURS = [
    (rows, columns, 1 / 6 if 0 in (rows, columns) else 1 / 12)
    for rows in (-1, 0, 1) for columns in (-1, 0, 1) if (rows, columns) != (0, 0)
]  # fmt: skip


def road(square: Float32, values: Float32, ask: Ask, shares: tuple[float, ...] = SHARES) -> float:
    """How much more the answer keeps when the least important pixels go than when the most important do.

    Args:
        square: the prepared picture (size, size), in [0, 1].
        values: its map (size, size).
        ask: the model.
        shares: of the pixels that go.

    Returns:
        Half the difference of the mean probabilities (least important gone, less most important gone), -0.5 to 0.5;
        0 says nothing, above 0 the map is right.
    """
    order = np.argsort(-values, axis=None, kind="stable")
    rng = np.random.default_rng(0)
    pictures = []
    for part in (order, order[::-1]):
        for share in shares:
            gone = np.zeros(values.size, dtype=bool)
            gone[part[: round(share * values.size)]] = True
            pictures.append(fill_in(square, gone.reshape(values.shape), rng))
    said = ask(np.stack(pictures)[:, None])
    return float(said[len(shares) :].mean() - said[: len(shares)].mean()) / 2


def fill_in(square: Float32, gone: NDArray[np.bool_], rng: np.random.Generator) -> Float32:
    """A picture whose pixels `gone` (h, w) are solved for from the others, float32 in [0, 1]."""
    count = int(gone.sum())
    if not count or count == gone.size:
        return square.copy()
    number = np.full(np.array(gone.shape) + 2, -1)
    number[1:-1, 1:-1][gone] = np.arange(count)
    padded, inside = np.pad(square.astype(np.float64), 1), np.pad(np.ones(gone.shape, dtype=bool), 1)
    rows, columns = np.nonzero(np.pad(gone, 1))
    weight_sum, known = np.zeros(count), np.zeros(count)
    entries: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]] = []
    for down, right, weight in _NEIGHBOURS:
        place = rows + down, columns + right
        there, unknown = inside[place], number[place] >= 0
        weight_sum += weight * there
        known += weight * np.where(there & ~unknown, padded[place], 0)
        (own,) = np.nonzero(unknown)
        entries.append((own, number[place][own], np.full(len(own), weight)))
    i, j, values = (np.concatenate(part) for part in zip(*entries, strict=True))
    coupling = coo_matrix((values / weight_sum[i], (i, j)), shape=(count, count))
    found = spsolve((identity(count) - coupling).tocsc(), known / weight_sum)
    filled = square.copy()
    filled[gone] = np.clip(found + rng.normal(0, _NOISE, count), 0, 1)
    return filled
