import numpy as np
import pytest

from tumorlens.config import PreprocessSettings
from tumorlens.data.preprocess import prepare, resize, to_picture
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
