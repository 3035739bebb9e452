"""The real page in a real browser: served as the README says, seen in Chromium."""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    call = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true", "--server.port", str(port),
            "--server.address", "127.0.0.1"]  # fmt: skip
    server = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.fixture(scope="module")
def page(address: str):
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        tab = browser.new_page(viewport={"width": 1280, "height": 1180})
        outside: list[str] = []
        tab.on("request", lambda request: outside.append(request.url) if "127.0.0.1" not in request.url else None)
        tab.goto(address)
        tab.get_by_test_id("answer").wait_for(timeout=90_000)
        tab.outside = outside
        yield tab
        browser.close()


def settle(page) -> None:
    page.wait_for_timeout(400)
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')", timeout=60_000)
    page.wait_for_timeout(600)


def test_an_answer_with_its_map_stands_on_the_page(page) -> None:
    assert page.get_by_test_id("answer").inner_text() in ("Glioma", "Meningioma", "No tumour", "Pituitary tumour")
    assert page.get_by_text("Not a medical device").count() or page.get_by_text("not for diagnosis").count()
    settle(page)
    pictures = page.locator("img")
    assert pictures.count() >= 6
    for number in range(pictures.count()):
        assert pictures.nth(number).evaluate("image => image.naturalWidth") > 0
    if folder := os.environ.get("TUMORLENS_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "app.png")


def test_an_upload_is_answered_and_its_overlay_downloads(page, tmp_path: Path) -> None:
    example = Image.open(ROOT / "src/tumorlens/examples/sellar_mass.png").convert("L")
    example.resize((200, 200)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mine.png")
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.png")
    page.get_by_text("mine.png").last.wait_for(timeout=60_000)
    settle(page)
    with page.expect_download(timeout=60_000) as download:
        page.get_by_role("button", name="Download the overlay").click()
    image = Image.open(io.BytesIO(download.value.path().read_bytes()))
    assert image.size == (200, 200)
    assert np.asarray(image).ndim == 3


def test_what_is_no_brain_gets_no_answer(page, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    page.locator("input[type=file]").set_input_files(tmp_path / "noise.png")
    page.get_by_text("This does not look like an MRI slice of the head").wait_for(timeout=60_000)
    assert page.get_by_test_id("answer").inner_text() == "No answer"
    assert page.get_by_role("button", name="Download the overlay").count() == 0


def test_a_bad_upload_gets_a_sentence(page, tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no picture")
    page.locator("input[type=file]").set_input_files(tmp_path / "words.png")
    page.get_by_text("words.png: not a picture").wait_for(timeout=60_000)
    assert page.get_by_text("Traceback").count() == 0


def test_the_page_talks_to_nobody_else(page) -> None:
    assert [url for url in page.outside if url.startswith("http")] == []
