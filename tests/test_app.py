"""The page's logic, without a browser."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from tests.conftest import ROOT, real_path
from tumorlens.app import read_upload
from tumorlens.errors import TumorlensError
from tumorlens.examples import EXAMPLES
from tumorlens.records import CLASS_TITLES


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()


def html(page: AppTest) -> str:
    return " ".join(str(part.proto.body) for part in page.get("html"))


def test_the_first_example_is_answered_at_once(page: AppTest) -> None:
    assert not page.exception
    assert "medical device" in html(page)
    assert any(title in html(page) for title in CLASS_TITLES.values())
    assert "Synthetic" in page.info[0].value
    assert page.selectbox[0].options == list(CLASS_TITLES.values())


def test_every_example_can_be_chosen(page: AppTest) -> None:
    for example in EXAMPLES:
        page.button(key=f"example_{example.key}").click().run()
        assert not page.exception
        assert example.title in html(page)


def test_any_class_and_opacity(page: AppTest) -> None:
    page.selectbox[0].select("pituitary").run()
    page.slider[0].set_value(10).run()
    assert not page.exception
    assert not page.error


def test_every_map_can_be_shown(page: AppTest) -> None:
    page.button(key="example_sellar_mass").click().run()
    for way in ("sharp", "region", "gradcam"):
        page.session_state["way"] = way
        page.run()
        assert not page.exception
        assert not page.error


def test_uploads_are_read_by_content_under_their_own_name(tmp_path: Path) -> None:
    Image.fromarray(np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)).save(tmp_path / "x.png")
    (only,) = read_upload((tmp_path / "x.png").read_bytes(), "../../etc/passwd.png")
    assert only.pixels.shape == (40, 50)
    assert only.source == "../../etc/passwd.png"
    with pytest.raises(TumorlensError, match=r"holiday\.png: not a picture"):
        read_upload(b"words, only words", "holiday.png")
    with pytest.raises(TumorlensError, match="empty"):
        read_upload(b"", "nothing.png")


def test_a_dicom_upload() -> None:
    path = sorted(real_path("dicom_brain").glob("*.dcm"))[6]
    (only,) = read_upload(path.read_bytes(), path.name)
    assert only.source == path.name
