"""How long from an upload to its answer on the page, alone and with ten sessions at once, and what a folder of 500
slices costs the server's memory.

    python benchmarks/app_sessions.py [--sessions 10] [--files 500]

The real app in real Chromium, both on this machine; pictures differ, so that nothing comes from a cache.
"""

import argparse
import re
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

from tumorlens.app.folder import MOST

ROOT = Path(__file__).parent.parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def picture(folder: Path, number: int) -> Path:
    path = folder / f"upload{number}.png"
    image = Image.open(ROOT / "src/tumorlens/examples/sellar_mass.png").convert("L")
    image.resize((200 + number % 200, 200 + number // 200)).save(path)
    return path


def uploaded(page: Any, path: Path) -> None:
    page.locator("input[type=file]").set_input_files(path)


def answered(page: Any, path: Path) -> None:
    page.locator(".tl-soft", has_text=path.name).first.wait_for(timeout=120_000)


def sessions(browser: Any, url: str, folder: Path, count: int) -> None:
    """Seconds from upload to answer."""
    pages = [browser.new_context().new_page() for _ in range(count)]
    for page in pages:
        page.goto(url)
        page.get_by_test_id("answer").wait_for(timeout=120_000)
    alone = []
    for number, page in enumerate(pages):
        path = picture(folder, number)
        began = time.perf_counter()
        uploaded(page, path)
        answered(page, path)
        alone.append(time.perf_counter() - began)
    together, paths = [], [picture(folder, 100 + number) for number in range(len(pages))]
    began = time.perf_counter()
    for page, path in zip(pages, paths, strict=True):
        uploaded(page, path)
    for page, path in zip(pages, paths, strict=True):
        answered(page, path)
        together.append(time.perf_counter() - began)
    print(f"one session at a time: median {statistics.median(alone):.2f} s, slowest {max(alone):.2f} s")
    print(f"{len(pages)} at once: first {together[0]:.2f} s, all {max(together):.2f} s")
    for page in pages:
        page.context.close()


def memory(browser: Any, url: str, folder: Path, server: int, count: int) -> None:
    """MB of the server while folders of that many slices are answered, one after the other, and cleared again."""
    page = browser.new_context().new_page()
    page.goto(f"{url}/folder")
    print(f"the folder page, empty: {resident(server):.0f} MB")
    for turn in range(3):
        paths = [picture(folder, 1000 * (turn + 1) + number) for number in range(count)]
        began = time.perf_counter()
        page.locator("input[type=file]").first.set_input_files(paths)
        most, deadline = 0.0, began + 600
        while time.perf_counter() < deadline and not page.get_by_text(re.compile(rf"^{count} slices:")).count():
            most = max(most, resident(server))
            time.sleep(0.25)
        spent = time.perf_counter() - began
        if spent > 600:
            raise SystemExit(f"{count} slices: not answered within ten minutes")
        kept = resident(server)
        page.get_by_role("button", name="Clear").click()
        page.get_by_role("button", name="Try it with the examples").wait_for(timeout=60_000)
        print(
            f"{count} slices, turn {turn + 1}: {spent:.0f} s, at most {most:.0f} MB, with the table {kept:.0f} MB, "
            f"cleared {resident(server):.0f} MB"
        )


def resident(process: int) -> float:
    """MB that a process has in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--files", type=int, default=500)
    given = parser.parse_args()
    if given.files > MOST:
        raise SystemExit(f"--files {given.files}: the page takes {MOST} at most")
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
            if given.sessions:
                sessions(browser, url, Path(folder), given.sessions)
            if given.files:
                memory(browser, url, Path(folder), server.pid, given.files)
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
