"""`tumorlens predict` and `tumorlens app`."""

import sys
from collections import Counter
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from tumorlens import DISCLAIMER
from tumorlens.cli.terminal import progress_bar, say
from tumorlens.data.predictions import PredictionWriter
from tumorlens.data.readers import ReadOptions
from tumorlens.errors import RunError
from tumorlens.model.label_sets import DEFAULT_COVERAGE
from tumorlens.pipeline import REFERENCE, MapFolder, Way, explain_paths
from tumorlens.records import Prediction
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
    overwrite: bool = False,
) -> int:
    """Classify pictures, DICOM files and NIfTI volumes, and show where the answers come from.

    Args:
        inputs: Files (PNG, JPEG, BMP, TIFF, WebP, DICOM, NIfTI, MATLAB 7.3 of the figshare set), folders of them and
            ZIP archives.
        out: Table to write, a row a slice. Bad inputs get a row with the reason.
        model: A bundle folder; the model that comes with tumorlens by default.
        heatmaps: Folder for an overlay PNG and the raw map (.npy, float32, at the picture's size) of each slice.
        way: What the maps are: gradcam (at the last residual block), sharp (the same, weighed by where the model sees
            tumour, on finer cells), or region (where it sees tumour, whatever the class).
        plane: The plane in which NIfTI volumes are cut. Slices that show little of the head are left out.
        every: Take each n-th slice of files with several.
        window: Take DICOM values as the header asks to show them (VOI LUT or window) instead of all.
        coverage: How often the truth is to be in the label set, in steps of 0.01.
        answer_all: Answer also what would be refused; its message still says why it would be.
        overwrite: Replace a table and maps that are there.
    """
    if not inputs:
        raise RunError("no input given; give files or folders")
    if out.exists() and not overwrite:
        raise RunError(f"{out}: already there. Give another --out, or --overwrite to replace it")
    if heatmaps and heatmaps.is_dir() and any(heatmaps.iterdir()) and not overwrite:
        raise RunError(f"{heatmaps}: not empty. Give another --heatmaps, or --overwrite to write into it")
    predictor = Predictor(model, coverage, answer_all)
    if way != "gradcam" and predictor.card.region is None:
        raise RunError(
            f"--way {way}: {model} has no region head. Take gradcam, or teach it with `tumorlens region RUN`"
        )
    folder = MapFolder(heatmaps) if heatmaps else None
    options = ReadOptions(plane="" if plane == "acquired" else plane, every=every, window=window)
    counts: Counter[str] = Counter()
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file, progress_bar() as bar:
        writer = PredictionWriter(file, predictor.classes)
        for batch in explain_paths(inputs, predictor, lambda done, n: bar.update("predicting", done, n), options):
            writer.write(item.answer.prediction for item in batch)
            for item in batch:
                counts[item.answer.prediction.status] += 1
                _tell(item.answer.prediction, len(inputs) == 1 and inputs[0].is_file())
                if folder and item.answer.evidence is not None:
                    folder.save(item, item.heatmap(way=way))
    told = f"{counts['ok']} answered, {counts['refused']} refused, {counts['error']} could not be read"
    say(f"{told}; wrote {out}" + (f" and {heatmaps}" if heatmaps else ""))
    say(DISCLAIMER)
    return 1 if counts["error"] else 0


def _tell(found: Prediction, alone: bool) -> None:
    """A line for what was not answered, and for the only picture that was given."""
    if found.status == "error":
        say(f"left out: {found.message}")
    elif found.status == "refused":
        say(f"refused: {found.source}: {found.message}")
    elif alone:
        others = [name for name in found.label_set if name != found.predicted]
        also = f"; not ruled out: {', '.join(others)}" if others else ""
        say(f"{found.predicted} ({found.confidence:.1%}){also}")


def app() -> int:
    """Open the app in the browser."""
    from streamlit.web import cli as streamlit_cli

    import tumorlens.app

    # Started anywhere, it keeps what .streamlit/config.toml promises: to itself, and without telemetry.
    quiet = ["--browser.gatherUsageStats=false", "--server.address=localhost", "--server.maxUploadSize=100"]
    sys.argv = ["streamlit", "run", str(tumorlens.app.__file__), *quiet]
    return int(streamlit_cli.main() or 0)
