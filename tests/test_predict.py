"""`tumorlens predict`: rows and maps of good and bad inputs, killed and resumed, under whatever names."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import csv_rows, draw_head
from tumorlens.cli import main
from tumorlens.pipeline import MapFolder
from tumorlens.records import CLASSES


def test_predict_with_bad_input_keeps_the_good(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = tmp_path / "in"
    (inputs / "deeper").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    Image.fromarray(draw_head("glioma", 1, 1)).save(inputs / "a.png")
    Image.fromarray(draw_head("pituitary", 1, 1, side=150)[:, :130]).save(inputs / "deeper" / "a.png")
    (inputs / "bad.png").write_text("no picture")
    out, maps = tmp_path / "answers.csv", tmp_path / "maps"
    call = [
        "predict",
        str(inputs),
        str(tmp_path / "empty"),
        "--model",
        str(tiny_run / "bundle"),
        "--out",
        str(out),
    ]
    assert main([*call, "--heatmaps", str(maps)]) == 1
    assert [Path(row["input"]).name for row in csv_rows(out)] == ["a.png", "bad.png", "a.png", "empty"]
    table = {Path(row["input"]).name + row["status"]: row for row in csv_rows(out)}
    assert sorted(row["status"] for row in csv_rows(out)) == ["error", "error", "ok", "ok"]
    assert "not a picture" in table["bad.pngerror"]["message"]
    assert "no pictures or DICOM files" in table["emptyerror"]["message"]
    answered = [row for row in csv_rows(out) if row["status"] == "ok"]
    for row in answered:
        shares = [float(value) for key, value in row.items() if key.startswith("p_")]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert float(row["confidence"]) == pytest.approx(max(shares))
    assert {path.name for path in maps.iterdir()} == {"a.png", "a.npy", "a-2.png", "a-2.npy"}
    assert [row["map"] for row in csv_rows(out)] == ["a", "", "a-2", ""]
    raw = np.load(maps / "a-2.npy")
    assert raw.dtype == np.float32
    assert raw.shape == (150, 130)
    assert Image.open(maps / "a-2.png").size == (130, 150)
    capsys.readouterr()
    assert main([*call]) == 1
    assert "already there" in capsys.readouterr().err
    assert main([*call[:-1], str(tmp_path / "other.csv"), "--heatmaps", str(maps)]) == 1
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_killed_prediction_resumes_to_the_same_table_and_maps(tiny_run: Path, tmp_path: Path, suffix: str) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    for number in range(120):
        picture = draw_head(CLASSES[number % 4], number, number % 3, side=128)
        (inputs / f"{number % 40}").mkdir(exist_ok=True)
        Image.fromarray(picture).save(inputs / f"{number % 40}" / f"slice{number // 60}.png")  # names that collide
    (inputs / "3" / "bad.png").write_text("no picture")

    def call(name: str) -> list[str]:
        out, maps = tmp_path / f"{name}.{suffix}", tmp_path / f"{name}_maps"
        places = ["--out", str(out), "--heatmaps", str(maps)]
        return ["predict", str(inputs), "--model", str(tiny_run / "bundle"), *places, "--answer-all"]

    assert main(call("whole")) == 1
    begun = tmp_path / f"killed.{suffix}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tumorlens", *call("killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (begun.is_file() and begun.read_bytes().count(b"\n") > 12):
        pass
    process.kill()
    process.wait()
    assert main([*call("killed"), "--resume"]) == 1
    assert begun.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    maps = [sorted(path.name for path in (tmp_path / f"{name}_maps").iterdir()) for name in ("whole", "killed")]
    assert maps[0] == maps[1] and len(maps[0]) > 100
    for name in maps[0]:
        assert (tmp_path / "whole_maps" / name).read_bytes() == (tmp_path / "killed_maps" / name).read_bytes()
    assert main([*call("killed"), "--resume"]) == 0  # complete: nothing to do


def test_an_unfinished_table_is_not_replaced_unasked(
    tiny_run: Path, drawn_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.csv"
    out.write_text("input\n")
    out.with_name("a.csv.unfinished.json").write_text("{}")
    call = ["predict", str(drawn_folder / "images"), "--model", str(tiny_run / "bundle"), "--out", str(out)]
    assert main(call) == 1
    assert "--resume to go on" in capsys.readouterr().err
    assert main([*call, "--resume"]) == 1
    assert "was begun with" in capsys.readouterr().err
    assert main([*call, "--overwrite"]) == 0


def test_names_that_are_no_text_cost_only_their_row_of_a_manifest(tmp_path: Path) -> None:
    """A name in Latin-1 is told, and is answered; a manifest, which is UTF-8, leaves it out."""
    folder = tmp_path / "a=b"
    folder.mkdir()
    for name in (b"good.png", b"kn\xe4uel.png", b"kn\xe4uel2.png"):
        Image.fromarray(draw_head("glioma", 0, 0)).save(folder / "drawn.png")
        (folder / "drawn.png").rename(os.fsdecode(os.fsencode(folder) + b"/" + name))
    (folder / os.fsdecode(b"kn\xe4uel2.png")).write_bytes(b"no picture")
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    calls = (
        ["data", "index", f"glioma={folder}", "--out", str(tmp_path / "m.csv")],
        ["predict", str(folder), "--out", str(tmp_path / "p.csv")],
        ["explain", str(folder), "--out", str(tmp_path / "why")],
    )
    for call, code, says in zip(calls, (0, 1, 1), ("not UTF-8", "kn\\udce4uel2.png", "2 explained"), strict=True):
        done = subprocess.run(
            [sys.executable, "-m", "tumorlens", *call], env=strict, capture_output=True, text=True, check=False
        )
        assert (done.returncode, says in done.stdout) == (code, True), done.stdout + done.stderr
    assert [row["path"] for row in csv_rows(tmp_path / "m.csv")] == ["a=b/good.png"]
    assert len(csv_rows(tmp_path / "p.csv")) == 3


def test_maps_are_called_by_all_of_a_name_that_has_no_known_ending(tmp_path: Path) -> None:
    """A DICOM file called by its UID differs from the next in what follows the last dot; scanners call files IM1."""
    folder = MapFolder(tmp_path)
    assert [folder.name(f"a/1.3.12.{number}", 0) for number in (7, 8)] == ["1.3.12.7", "1.3.12.8"]
    assert [folder.name(f"{where}/IM1", 0) for where in "abc"] == ["IM1", "IM1-2", "IM1-3"]
    assert folder.name("d/im1.dcm", 2) == "im1_frame0002"
    assert folder.name("d/IM1-2.png", 0) == "IM1-2-2"
    assert folder.name("e/T1.nii.gz", 0) == "T1" and folder.name("e/x.PNG", 0) == "x"
