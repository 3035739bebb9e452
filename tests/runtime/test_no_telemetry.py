"""Nothing is told to anybody: neither by us nor by the libraries that compute."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

WATCHED = """
import socket, sys, threading

def connect(self, address, *rest):
    if self.family != socket.AF_UNIX:
        print("reached for", address, flush=True)
    raise OSError("no network here")

def look_up(host, *rest, **more):
    print("reached for", host, flush=True)
    raise OSError("no network here")

socket.socket.connect = socket.socket.connect_ex = connect
socket.getaddrinfo = look_up

if len(sys.argv) == 1:
    import contextlib, urllib.request
    with contextlib.suppress(OSError):
        urllib.request.urlopen("http://example.org")
    code = 0
else:
    from tumorlens.cli import main
    code = main(["predict", sys.argv[1], "--out", sys.argv[2]])
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join(3)
sys.exit(code)
"""


def watched(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that says which machines it reaches for; not as in CI, where OpenVINO keeps quiet by itself."""
    outside = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD", "JENKINS_URL")}
    call = [sys.executable, "-c", WATCHED, *arguments]
    return subprocess.run(call, env={**outside, "HOME": str(home)}, capture_output=True, text=True, check=False)


def test_the_watch_sees_who_reaches_out(tmp_path: Path) -> None:
    assert "reached for example.org" in watched(tmp_path).stdout


def test_an_answer_reaches_for_no_other_machine(tmp_path: Path) -> None:
    picture = ROOT / "src/tumorlens/examples/sellar_mass.png"
    found = watched(tmp_path, str(picture), str(tmp_path / "answers.csv"))
    assert found.returncode == 0, found.stderr
    assert "reached for" not in found.stdout
    assert "elemetry" not in found.stderr
    assert not (tmp_path / "intel").exists()  # where it would keep a number for this user
