"""`tumorlens predict` and `tumorlens app`."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from tumorlens import DISCLAIMER
from tumorlens.cli.terminal import progress_bar, say
from tumorlens.data.answer_file import AnswerFile, is_unfinished
from tumorlens.data.manifest import file_hash
from tumorlens.data.readers import ARCHIVES, VOLUMES, ReadOptions
from tumorlens.errors import RunError
from tumorlens.model.bundle import CARD
from tumorlens.model.label_sets import DEFAULT_COVERAGE
from tumorlens.ordered import in_order
from tumorlens.pipeline import REFERENCE, Explained, MapFolder, Way, check_apart, check_way, explain_paths
from tumorlens.records import Prediction
from tumorlens.runtime.engine import EngineName, Precision, cache_folder
from tumorlens.runtime.predictor import Predictor


def predict(
    inputs: Positional[tuple[Path, ...]],
    /,
    out: Path = Path("predictions.csv"),
    model: Path = REFERENCE,
    heatmaps: Path | None = None,
    way: Way = "gradcam",
    plane: Literal["acquired", "axial", "coronal", "sagittal"] = "acquired",
    every: int = 1,
    window: bool = False,
    coverage: float = DEFAULT_COVERAGE,
    answer_all: bool = False,
    precision: Precision = "fp32",
    engine: EngineName = "auto",
    resume: bool = False,
    overwrite: bool = False,
) -> int:
    """Classify pictures, DICOM files and NIfTI volumes, and show where the answers come from.

    Args:
        inputs: Files (PNG, JPEG, BMP, TIFF, WebP, DICOM, NIfTI, MATLAB 7.3 of the figshare set), folders of them and
            ZIP archives.
        out: Table to write, a row a slice, as they are answered: NAME.csv, NAME.jsonl (JSON Lines) or NAME.parquet. Bad
            inputs get a row with the reason.
        model: A bundle folder; the model that comes with tumorlens by default.
        heatmaps: Folder for an overlay PNG and the raw map (.npy, float32, at the picture's size) of each slice.
        way: What the maps are: gradcam (at the last residual block), sharp (the same, weighed by where the model sees
            tumour, on finer cells), or region (where it sees tumour, whatever the class).
        plane: The plane in which NIfTI volumes are cut. Slices that show little of the head are left out.
        every: Take each n-th slice of files with several.
        window: Take DICOM values as the header asks to show them (VOI LUT or window) instead of all.
        coverage: How often the truth is to be in the label set, in steps of 0.01.
        answer_all: Answer also what would be refused; its message still says why it would be.
        precision: fp32 gives the same answers on every processor; int8 is two to four times as fast where the model
            has it, and differs a little; bf16 differs hardly, and needs a processor that has it; auto is int8 where its
            maps and answers are nearly those of fp32, else bf16 where the processor has it, else fp32.
        engine: What computes: OpenVINO, or ONNX Runtime (with its CUDA build on a GPU) where there is no OpenVINO.
        resume: Go on with a table that an interrupted call began; with the same inputs and options.
        overwrite: Replace a table and maps that are there.
    """
    if not inputs:
        raise RunError("no input given; give files or folders")
    unfinished = is_unfinished(out)
    if resume and out.exists() and not unfinished:
        say(f"{out} is complete; nothing to resume. For other inputs give another --out")
        return 0
    going_on = resume and unfinished
    _check_free(out, heatmaps, overwrite or going_on, unfinished)
    if heatmaps:
        check_apart(inputs, heatmaps)
    one = len(inputs) == 1 and inputs[0].is_file() and not inputs[0].name.lower().endswith((*ARCHIVES, *VOLUMES))
    predictor = Predictor(model, coverage, answer_all, precision, not one, engine, cache_folder())
    check_way(way, predictor.card)
    plan: dict[str, Any] = {
        "inputs": list(map(str, inputs)), "model": file_hash(model / CARD), "precision": predictor.engine.precision,
        "engine": engine, "coverage": coverage, "answer_all": answer_all, "plane": plane, "every": every,
        "window": window, "heatmaps": str(heatmaps or ""), "way": way,
    }  # fmt: skip
    options = ReadOptions(plane="" if plane == "acquired" else plane, every=every, window=window)
    with AnswerFile(out, predictor.classes, plan, going_on) as table, progress_bar() as bar:
        answers = explain_paths(
            inputs, predictor, lambda done, n: bar.update("predicting", done, n), options, table.is_done, heatmaps
        )
        counts = _write(answers, table, MapFolder(heatmaps) if heatmaps else None, way)
    told = f"{counts['ok']} answered, {counts['refused']} refused, {counts['error']} could not be read"
    say(f"{told}; wrote {out}" + (f" and {heatmaps}" if heatmaps else ""))
    if counts["refused"]:
        say("--answer-all answers the refused ones too")
    say(DISCLAIMER)
    return 1 if counts["error"] else 0


def _write(answers: Iterator[list[Explained]], table: AnswerFile, folder: MapFolder | None, way: Way) -> Counter[str]:
    """Write rows and maps as they come, and count what came of the slices, those of an earlier call included."""
    counts = _kept(table, folder)

    def drawn(batch: list[Explained]) -> list[Prediction]:
        return [replace(item.answer.prediction, map=_save_map(item, folder, way)) for item in batch]

    found: Prediction | None = None
    # Maps are drawn beside the computing of the next batch, and lie there before their row does.
    for batch in in_order(drawn, answers, 1, 2):
        table.write(batch)
        for found in batch:
            counts[found.status] += 1
            _tell_unanswered(found)
    if found and counts.total() == 1:
        _tell_answer(found)
    return counts


def _save_map(item: Explained, folder: MapFolder | None, way: Way) -> str:
    """Write the map of a slice; its name, empty where there is none."""
    if folder is None or item.answer.evidence is None:
        return ""
    return folder.save(item, item.heatmap(way=way))


def _kept(table: AnswerFile, folder: MapFolder | None) -> Counter[str]:
    """What came of the slices of an earlier call, whose maps keep their names."""
    if table.kept:
        say(f"{len(table.kept)} rows are there already")
    for row in table.kept:
        if folder and row.answered:
            folder.name(row.source, row.frame)
    return Counter(row.status for row in table.kept)


def _check_free(out: Path, heatmaps: Path | None, allowed: bool, unfinished: bool) -> None:
    """Refuse to write over what is there, unless that is wanted."""
    if allowed:
        return
    if out.exists() or unfinished:
        more = ", or --resume to go on with it" if unfinished else ""
        raise RunError(f"{out}: already there. Give another --out, or --overwrite to replace it{more}")
    if heatmaps and heatmaps.is_dir() and any(heatmaps.iterdir()):
        raise RunError(f"{heatmaps}: not empty. Give another --heatmaps, or --overwrite to write into it")


def _tell_unanswered(found: Prediction) -> None:
    if found.status == "error":
        say(f"left out: {found.message}")
    elif found.status == "refused":
        say(f"refused: {found.source}: {found.message}")


def _tell_answer(found: Prediction) -> None:
    if found.status == "ok":
        others = [name for name in found.label_set if name != found.predicted]
        also = f"; not ruled out: {', '.join(others)}" if others else ""
        say(f"{found.predicted} ({found.confidence:.1%}){also}")


def app() -> int:
    """Open the app in the browser."""
    from streamlit.web import cli as streamlit_cli

    import tumorlens.app

    # Started anywhere, it keeps what .streamlit/config.toml promises: to itself, and without telemetry.
    quiet = ["--browser.gatherUsageStats=false", "--server.address=localhost", "--server.maxUploadSize=100"]
    sys.argv = ["streamlit", "run", str(Path(tumorlens.app.__file__).with_name("script.py")), *quiet]
    return int(streamlit_cli.main() or 0)
