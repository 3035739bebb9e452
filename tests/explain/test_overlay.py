"""Pictures of maps: what they show, and the bytes they are written as."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import draw_head
from tumorlens.explain.overlay import as_seen, colour, contoured, overlay, panel, to_grey
from tumorlens.explain.png import write_png
from tumorlens.explain.vector import contours_svg


@pytest.fixture
def head() -> np.ndarray:
    return draw_head("glioma", 1, 1).astype(np.float32)


def blob(side: int = 96) -> np.ndarray:
    row, column = np.mgrid[:side, :side]
    return np.maximum(0, 1 - np.hypot(row - 30, column - 60) / 12).astype(np.float32) * 7


def test_where_the_map_is_empty_the_picture_shows_unchanged(head: np.ndarray) -> None:
    values = blob()
    drawn = np.asarray(overlay(head, values, 0.8))
    grey = np.repeat(to_grey(head)[..., None], 3, axis=2)
    assert np.array_equal(drawn[values == 0], grey[values == 0])
    assert np.array_equal(np.asarray(overlay(head, np.zeros_like(head))), grey)


def test_at_the_peak_colour_and_picture_are_mixed_by_the_opacity(head: np.ndarray) -> None:
    values = blob()
    peak = np.unravel_index(values.argmax(), values.shape)
    for opacity in (0.0, 0.3, 1.0):
        drawn = np.asarray(overlay(head, values, opacity), dtype=float)
        expected = (1 - opacity) * to_grey(head)[peak] + opacity * colour(np.ones(1, dtype=np.float32))[0]
        assert np.allclose(drawn[peak], expected, atol=1)


def test_colours_run_from_dark_to_light() -> None:
    brightness = colour(np.linspace(0, 1, 50, dtype=np.float32)) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(brightness) > 0).all()


def test_contours_leave_the_anatomy_inside_as_it_is(head: np.ndarray) -> None:
    values = blob()
    drawn = np.asarray(contoured(head, values, (0.5,)))
    grey = np.repeat(to_grey(head)[..., None], 3, axis=2)
    changed = (drawn != grey).any(axis=2)
    inside = values >= 0.5 * values.max()
    assert changed.any() and not changed[~inside].any()
    assert not changed[30, 60]  # the peak itself
    assert np.array_equal(np.asarray(contoured(head, np.zeros_like(head))), grey)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_png_is_read_back_as_it_was_by_another_program(height: int, width: int, seed: int) -> None:
    import tempfile

    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.png"
        write_png(path, picture)
        with Image.open(path) as image:
            image.load()
            assert image.mode == "RGB" and np.array_equal(np.asarray(image), picture)


def test_png_bytes_depend_on_the_picture_alone_and_are_few(head: np.ndarray, tmp_path: Path) -> None:
    picture = np.asarray(overlay(head, blob()))
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", picture)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    Image.fromarray(picture).save(tmp_path / "pillow.png", compress_level=1)
    assert (tmp_path / "a.png").stat().st_size < 1.2 * (tmp_path / "pillow.png").stat().st_size


def test_contours_as_svg_enclose_the_peak_and_stay_in_the_picture(head: np.ndarray) -> None:
    region = blob() > 3
    text = contours_svg(head, blob(), "glioma & <more>", region)
    assert text == contours_svg(head, blob(), "glioma & <more>", region)
    root = ElementTree.fromstring(text)
    paths = [path.get("d", "") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    assert len(paths) == 4
    scale = 480 / 96
    widths = []
    for path in paths:
        points = np.array([[float(n) for n in pair.split(",")] for pair in path.strip("M").split("L")])
        assert ((points >= 0) & (points <= 480)).all()
        # The middle of pixel (row 30, column 60).
        np.testing.assert_allclose((points.min(axis=0) + points.max(axis=0)) / 2, [60.5 * scale, 30.5 * scale], atol=3)
        widths.append(np.ptp(points[:, 0]) / scale)
    # A cone of radius 12 is 9, 6 and 3 pixels wide to either side at a quarter, a half and three quarters of its peak.
    np.testing.assert_allclose(widths[:3], [18, 12, 6], atol=0.5)


def test_slices_across_thick_ones_are_shown_with_square_pixels(head: np.ndarray) -> None:
    strip, values, thick = head[::4], blob()[::4], (4.0, 1.0)  # every fourth row, four times as far apart
    assert as_seen(Image.fromarray(to_grey(strip)), thick).size == (96, 96)
    assert as_seen(Image.fromarray(to_grey(strip)), None).size == (96, 24)
    assert panel(strip, values, spacing=thick).size == panel(head, blob()).size
    root = ElementTree.fromstring(contours_svg(strip, values, "strip", spacing=thick))
    whole = ElementTree.fromstring(contours_svg(head, blob(), "whole"))
    assert root.get("viewBox") == whole.get("viewBox")
    path = next(root.iter("{http://www.w3.org/2000/svg}path")).get("d", "").strip("M")
    points = np.array([[float(n) for n in pair.split(",")] for pair in path.split("L")])
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    np.testing.assert_allclose(middle, [60.5 * 5, 30.5 * 5], atol=15)


def test_an_empty_map_and_a_map_at_the_rim_as_svg(head: np.ndarray) -> None:
    assert "<path" not in contours_svg(head, np.zeros_like(blob()), "none")
    rim = np.zeros((96, 96), dtype=np.float32)
    rim[:10, :20] = 1
    paths = re.findall(r'd="([^"]+)"', contours_svg(head, rim, "rim"))
    assert all(path.count("M") == 1 and path[1:].split("L")[0] == path.split("L")[-1] for path in paths)  # closed
