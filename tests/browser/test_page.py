"""The real pages in a real browser: served as the README says, seen in Chromium."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
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
EXAMPLES = ROOT / "src/tumorlens/examples"
GOLDEN = Path(__file__).parent / "golden"
GOLDEN_SIZE = (640, 550)
ANSWERS = ("Glioma", "Meningioma", "No tumour", "Pituitary tumour")


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
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, address: str):
    """Open a page of the app; what it asks other hosts for is written down."""
    contexts = []
    outside: list[str] = []

    def opened(path: str = "/", width: int = 1280, height: int = 1100):
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: outside.append(request.url) if address not in request.url else None)
        tab.goto(f"{address}{path}")
        tab.get_by_role("note").wait_for(timeout=90_000)
        settle(tab)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert [url for url in outside if url.startswith("http")] == []  # the page talks to nobody else


def settle(page) -> None:
    page.wait_for_timeout(400)
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')", timeout=90_000)
    page.wait_for_timeout(600)


def answer_of(page) -> str:
    page.get_by_test_id("answer").wait_for(timeout=90_000)
    return page.get_by_test_id("answer").inner_text()


def picture(name: str = "sellar_mass", size: int = 200) -> Image.Image:
    return Image.open(EXAMPLES / f"{name}.png").convert("L").resize((size, size))


def test_an_answer_with_its_map_stands_on_the_page(visit) -> None:
    page = visit()
    assert answer_of(page) in ANSWERS
    assert page.get_by_text("Not a medical device").count() == 1
    pictures = page.locator("img")
    assert pictures.count() >= 9
    for number in range(pictures.count()):
        assert pictures.nth(number).evaluate("image => image.naturalWidth") > 0
    if folder := os.environ.get("TUMORLENS_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "app.png")


@pytest.mark.parametrize(("name", "path"), [("study", "/?example=sellar_mass"), ("learn", "/learn")])
def test_pages_look_as_they_did(visit, name: str, path: str) -> None:
    """Small and tolerant: fonts differ between machines, a broken layout differs more."""
    page = visit(path)
    page.get_by_role("img").last.wait_for(timeout=60_000)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize(GOLDEN_SIZE, Image.Resampling.BOX)
    if os.environ.get("TUMORLENS_GOLDEN") == "write":
        shot.save(GOLDEN / f"{name}.png")
    golden = np.asarray(Image.open(GOLDEN / f"{name}.png").convert("RGB"), dtype=float)
    assert np.abs(np.asarray(shot, dtype=float) - golden).mean() < 6


def test_an_upload_is_answered_and_its_overlay_and_reports_download(visit, tmp_path: Path) -> None:
    page = visit()
    picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mine.png")
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.png")
    page.locator(".tl-soft", has_text=re.compile("^mine.png$")).first.wait_for(timeout=60_000)
    settle(page)
    with page.expect_download(timeout=60_000) as download:
        page.get_by_role("button", name="Download the overlay").click()
    image = Image.open(io.BytesIO(download.value.path().read_bytes()))
    assert image.size == (200, 200)
    assert np.asarray(image).ndim == 3
    page.get_by_text("Report of this slice").click()
    page.get_by_role("button", name="Report (HTML)").wait_for(timeout=60_000)
    settle(page)  # a click while the page is drawn anew is lost
    for kind, begins in (("PDF", b"%PDF"), ("HTML", b"<!doctype html>")):
        with page.expect_download(timeout=60_000) as download:
            page.get_by_role("button", name=f"Report ({kind})").click()
        data = download.value.path().read_bytes()
        assert data.startswith(begins)
        assert b"mine.png" not in data


def test_a_volume_opens_at_its_lesion_and_its_slices_go_by_key(visit) -> None:
    page = visit()
    page.locator("input[type=file]").set_input_files(EXAMPLES / "lesion_volume.nii.gz")
    page.get_by_text(re.compile(r"lesion_volume\.nii\.gz, slice \d+ of 24")).wait_for(timeout=90_000)
    settle(page)
    assert answer_of(page) == "Glioma"
    handle = page.get_by_role("slider", name="Slice")
    first = int(handle.input_value())
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text(f"slice {first + 1} of 24").wait_for(timeout=60_000)


def test_what_is_no_brain_gets_no_answer(visit, tmp_path: Path) -> None:
    page = visit()
    noise = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    page.locator("input[type=file]").set_input_files(tmp_path / "noise.png")
    page.get_by_text("This does not look like an MRI slice of the head").wait_for(timeout=60_000)
    assert page.get_by_test_id("answer").inner_text() == "No answer"
    assert page.get_by_role("button", name="Download the overlay").count() == 0


def test_bad_uploads_get_a_sentence_and_good_ones_an_answer(visit, tmp_path: Path) -> None:
    page = visit()
    (tmp_path / "words.png").write_text("no picture")
    picture().save(tmp_path / "fine.png")
    page.locator("input[type=file]").set_input_files([tmp_path / "words.png", tmp_path / "fine.png"])
    page.get_by_text("words.png: not a picture").wait_for(timeout=60_000)
    assert answer_of(page) in ANSWERS
    picture("healthy_axial").save(tmp_path / "next.png")
    page.locator("input[type=file]").set_input_files(tmp_path / "next.png")  # a new drop is a new study
    page.locator(".tl-soft", has_text=re.compile("^next.png$")).first.wait_for(timeout=60_000)
    settle(page)
    assert answer_of(page) == "No tumour"
    assert page.get_by_text("words.png: not a picture").count() == 0
    assert page.get_by_text("Traceback").count() == 0


def test_a_folder_of_two_hundred(visit, tmp_path: Path) -> None:
    page = visit("/folder")
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        names = ("sellar_mass", "healthy_axial", "ring_lesion", "cartoon")
        for number in range(200):
            buffer = io.BytesIO()
            picture(names[number % 4], 120 + number).save(buffer, format="PNG")
            archive.writestr(f"{number:03d}.png", buffer.getvalue())
        archive.writestr("bad.png", b"no picture")
    page.locator("input[type=file]").set_input_files(tmp_path / "many.zip")
    page.get_by_text("201 slices").wait_for(timeout=180_000)
    settle(page)
    assert "1 unreadable" in page.get_by_text("201 slices").first.locator("xpath=..").inner_text()
    with page.expect_download(timeout=60_000) as download:
        page.get_by_role("button", name="Table (CSV)").click()
    assert len(download.value.path().read_text().splitlines()) == 202
    page.get_by_role("button", name="unreadable").click()
    page.get_by_text("1 shown").wait_for(timeout=60_000)


def test_on_a_phone_nothing_sticks_out(visit) -> None:
    page = visit("/?example=sellar_mass", 390, 844)
    assert answer_of(page) == "Pituitary tumour"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.get_by_role("note").bounding_box()
    assert box and box["width"] <= 390


def test_the_keyboard_alone_reaches_an_example_and_the_address_keeps_it(visit) -> None:
    page = visit()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText.trim()") == "Healthy":
            break
    page.keyboard.press("Enter")
    page.locator(".tl-soft", has_text="Healthy").first.wait_for(timeout=60_000)
    settle(page)
    assert answer_of(page) == "No tumour"
    assert "example=healthy_axial" in page.url
    again = visit(page.url[page.url.index("/?") :])
    assert answer_of(again) == "No tumour"


@pytest.mark.parametrize("path", ["/", "/folder", "/results", "/learn"])
def test_axe_finds_nothing_serious(visit, path: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = visit(path)
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (item["id"], [node["html"][:160] for node in item["nodes"]][:3])
        for item in found
        if item["impact"] in ("serious", "critical")
    ]
    assert serious == []
