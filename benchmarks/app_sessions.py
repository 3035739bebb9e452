"""How long from an upload to its answer on the page, alone and with ten sessions at once.

    python benchmarks/app_sessions.py [--sessions 10]

The real app in real Chromium, both on this machine; pictures differ, so that nothing comes from a cache.
"""

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def picture(folder: Path, number: int) -> Path:
    path = folder / f"upload{number}.png"
    image = Image.open(ROOT / "src/tumorlens/examples/sellar_mass.png").convert("L")
    image.resize((200 + number, 200 + number)).save(path)
    return path


def uploaded(page: Any, path: Path) -> None:
    page.locator("input[type=file]").set_input_files(path)


def answered(page: Any, path: Path) -> None:
    page.locator(".tl-soft", has_text=path.name).first.wait_for(timeout=120_000)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=10)
    given = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    call = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true", f"--server.port={port}",
            "--server.address=127.0.0.1"]  # fmt: skip
    server = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url)
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            pages = [browser.new_context().new_page() for _ in range(given.sessions)]
            for page in pages:
                page.goto(url)
                page.get_by_test_id("answer").wait_for(timeout=120_000)
            alone = []
            for number, page in enumerate(pages):
                path = picture(Path(folder), number)
                began = time.perf_counter()
                uploaded(page, path)
                answered(page, path)
                alone.append(time.perf_counter() - began)
            together, paths = [], [picture(Path(folder), 100 + number) for number in range(len(pages))]
            began = time.perf_counter()
            for page, path in zip(pages, paths, strict=True):
                uploaded(page, path)
            for page, path in zip(pages, paths, strict=True):
                answered(page, path)
                together.append(time.perf_counter() - began)
            print(f"one session at a time: median {statistics.median(alone):.2f} s, slowest {max(alone):.2f} s")
            print(f"{len(pages)} at once: first {together[0]:.2f} s, all {max(together):.2f} s")
            browser.close()
    finally:
        server.terminate()


def _wait(url: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{url}/_stcore/health", timeout=2)
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the app did not start")


if __name__ == "__main__":
    main()
