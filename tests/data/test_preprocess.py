import numpy as np
import pytest

from tumorlens.config import PreprocessSettings
from tumorlens.data.preprocess import prepare, resize, to_picture, to_square
from tumorlens.errors import InputError
from tumorlens.records import Slice

SETTINGS = PreprocessSettings(size=64)


def head(height: int = 120, width: int = 200, top: int = 20, left: int = 90) -> np.ndarray:
    pixels = np.zeros((height, width), dtype=np.float32)
    pixels[top : top + 80, left : left + 70] = 700 + 20 * np.arange(70, dtype=np.float32)
    return pixels


def test_crop_follows_the_head_and_the_square_holds_it_centred() -> None:
    square, geometry = prepare(Slice(head(), "x"), SETTINGS)
    assert square.shape == (64, 64)
    assert square.dtype == np.float32
    assert square.min() >= 0 and square.max() <= 1
    top, left, bottom, right = geometry.box
    assert (top, left, bottom, right) == (18, 88, 102, 162)  # 3 % of 79 is 2 pixels of margin
    assert geometry.side == 84
    assert geometry.pad == (0, 5)


def test_position_and_intensity_scale_of_the_head_say_nothing() -> None:
    one, _ = prepare(Slice(head(), "x"), SETTINGS)
    other, _ = prepare(Slice(head(200, 190, 110, 100) * 3.5, "x"), SETTINGS)
    assert np.abs(one - other).max() < 0.02


def test_a_map_returns_to_the_place_it_came_from() -> None:
    pixels = head()
    pixels[60:70, 120:130] = 9000
    square, geometry = prepare(Slice(pixels, "x"), SETTINGS)
    back = to_picture((square > 0.99).astype(np.float32), geometry)
    assert back.shape == pixels.shape
    row, column = np.unravel_index(back.argmax(), back.shape)
    assert 59 <= row <= 70 and 119 <= column <= 130
    assert not back[:, :80].any()


def test_golden() -> None:
    """Pins the numbers: a bundle trained with other ones would answer differently."""
    row, column = np.mgrid[:90, :70]
    pixels = (1000 * np.exp(-((row - 40) ** 2 + (column - 30) ** 2) / 500)).astype(np.float32)
    square, geometry = prepare(Slice(pixels, "x"), PreprocessSettings(size=32))
    assert geometry.box == (5, 0, 76, 66)
    assert square[16, 16] == pytest.approx(GOLDEN[0], abs=1e-4)
    assert float(square.mean()) == pytest.approx(GOLDEN[1], abs=1e-4)
    assert float(square.std()) == pytest.approx(GOLDEN[2], abs=1e-4)


GOLDEN = (0.98003, 0.29710, 0.26822)


def test_one_single_intensity_is_refused() -> None:
    with pytest.raises(InputError, match="every pixel has the value 7"):
        prepare(Slice(np.full((40, 40), 7, dtype=np.float32), "blank.png"), SETTINGS)


def test_a_speck_does_not_become_the_head() -> None:
    pixels = np.zeros((100, 100), dtype=np.float32)
    pixels[40:43, 40:43] = 100
    _, geometry = prepare(Slice(pixels, "x"), SETTINGS)
    assert geometry.box == (0, 0, 100, 100)


def test_resize_is_antialiased() -> None:
    stripes = np.tile(np.array([0.0, 1.0], dtype=np.float32), (64, 32))
    assert np.abs(resize(stripes, 16, 16) - 0.5).max() < 0.1


def analytic_head(height: int, width: int) -> np.ndarray:
    """A 16-bit oval with a gradient and a bright disc, by formula alone."""
    row, column = np.mgrid[:height, :width]
    oval = ((row - 0.52 * height) / (0.36 * height)) ** 2 + ((column - 0.47 * width) / (0.33 * width)) ** 2 < 1
    disc = np.hypot(row - 0.4 * height, column - 0.6 * width) < 0.07 * height
    return np.asarray(oval * (8000 + 60.0 * row + 20.0 * column) + disc * 20000, dtype=np.float32)


def block_means(square: np.ndarray) -> np.ndarray:
    return square.reshape(4, square.shape[0] // 4, 4, square.shape[1] // 4).mean(axis=(1, 3))


HEAD_BOX, HEAD_SIDE, HEAD_PAD = (29, 18, 180, 124), 151, (0, 22)
HEAD_BLOCKS = np.array(
    [
        [0.00643, 0.24732, 0.25502, 0.00483],
        [0.10242, 0.40475, 0.67073, 0.10335],
        [0.11726, 0.46954, 0.49113, 0.11647],
        [0.00899, 0.37375, 0.37687, 0.00651],
    ]
)


def test_golden_head() -> None:
    """What every shipped model was trained on: a change here makes their figures void."""
    square, geometry = prepare(Slice(analytic_head(200, 150), "golden"), PreprocessSettings(size=64))
    assert (geometry.box, geometry.side, geometry.pad) == (HEAD_BOX, HEAD_SIDE, HEAD_PAD)
    assert np.abs(block_means(square) - HEAD_BLOCKS).max() < 1e-4


def test_pixels_that_are_not_square_are_stretched() -> None:
    """A head scanned with rows twice as far apart fills the square like the head itself."""
    whole = analytic_head(200, 150)
    flat = Slice(whole[::2], "flat", spacing=(2.0, 1.0))
    square, geometry = prepare(flat, PreprocessSettings(size=64))
    wanted, _ = prepare(Slice(whole, "whole", spacing=(1.0, 1.0)), PreprocessSettings(size=64))
    assert np.abs(block_means(square) - block_means(wanted)).max() < 0.04
    peak = np.zeros((64, 64), dtype=np.float32)
    peak[20:23, 30:33] = 1
    back = to_picture(peak, geometry)
    assert back.shape == (100, 150)
    row, column = np.unravel_index(np.argmax(back), back.shape)
    again = to_square(back, geometry, 64)
    assert np.hypot(*(np.array(np.unravel_index(np.argmax(again), again.shape)) - (21, 31))) <= 2
    assert 0 < row < 100
    assert 0 < column < 150


@pytest.mark.parametrize("spacing", [(6.0, 0.5), (0.5, 6.0), (2.0, 1.0)])
def test_a_point_keeps_its_place_through_stretched_pixels(spacing: tuple[float, float]) -> None:
    whole = analytic_head(200, 200)
    step = (max(1, round(spacing[0] / spacing[1])), max(1, round(spacing[1] / spacing[0])))
    pixels = whole[:: step[0], :: step[1]].copy()
    place = (90 // step[0], 110 // step[1])
    pixels[place] = 60000
    square, geometry = prepare(Slice(pixels, "x", spacing=spacing), PreprocessSettings(size=256, high_percentile=100))
    back = to_picture(square, geometry)
    assert back.shape == pixels.shape
    assert np.unravel_index(np.argmax(back), back.shape) == place
    inside = to_square((pixels == 60000).astype(np.float32), geometry, 256)
    assert np.hypot(*(np.subtract(*(np.unravel_index(np.argmax(a), a.shape) for a in (square, inside))))) <= 8


def test_nearly_square_pixels_are_left_alone() -> None:
    plain, geometry = prepare(Slice(head(), "x"), SETTINGS)
    near, same = prepare(Slice(head(), "x", spacing=(0.70, 0.71)), SETTINGS)
    assert np.array_equal(plain, near)
    assert geometry == same


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, 0.0), (float("nan"), 1.0), (1.0, float("inf")), (1e-3, 900.0)])
def test_a_spacing_that_cannot_be_true_changes_nothing(spacing: tuple[float, float]) -> None:
    plain, _ = prepare(Slice(head(), "x"), SETTINGS)
    assert np.array_equal(prepare(Slice(head(), "x", spacing=spacing), SETTINGS)[0], plain)


def test_a_stretched_slice_stays_within_the_largest_side() -> None:
    pixels = np.zeros((900, 64), dtype=np.float32)
    pixels[:, 8:56] = np.arange(48)
    square, geometry = prepare(Slice(pixels, "x", spacing=(15.0, 1.0)), SETTINGS)
    assert geometry.side == 8192
    assert to_picture(square, geometry).shape == (900, 64)
