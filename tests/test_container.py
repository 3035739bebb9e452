"""The Dockerfile, as far as it can be checked without a container engine."""

import fnmatch
import shlex

from tests.conftest import ROOT

LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def test_what_it_copies_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    for line in LINES:
        if line.startswith("COPY") and "--from" not in line:
            for name in shlex.split(line)[1:-1]:
                assert (ROOT / name).exists(), name
                assert any(fnmatch.fnmatch(name, pattern) for pattern in allowed), name


def test_it_runs_without_rights_and_says_whether_it_is_well() -> None:
    words = [line.split()[0] for line in LINES if line and not line.startswith(("#", " "))]
    assert words.index("USER") < words.index("CMD")
    assert "root" not in next(line for line in LINES if line.startswith("USER"))
    assert "_stcore/health" in next(line for line in LINES if line.startswith("HEALTHCHECK"))
