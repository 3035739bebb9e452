"""Keep what figures in the docs follow from: of each fold its config, history, card, figures and tested answers.

    python tools/keep_results.py RUN_OR_CROSSVAL OUT

`tumorlens evaluate OUT` then gives the figures again, without the images and without training.
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from tumorlens.data.predictions import read_predictions, write_predictions
from tumorlens.evaluate.bias import SIMPLE
from tumorlens.evaluate.run_folder import PREDICTIONS
from tumorlens.records import Prediction


def main(source: Path, out: Path) -> None:
    """Copy the finished folds of a cross-validation, or one run; of a run that tested nobody, its validation side."""
    alone = (source / "metrics.json").is_file() and not any(source.glob("fold*/metrics.json"))
    for run in [source] if alone else sorted(path.parent for path in source.glob("fold*/metrics.json")):
        folder = out if alone else out / run.name
        (folder / "bundle").mkdir(parents=True, exist_ok=True)
        for name in ("history.csv", "metrics.json"):
            shutil.copy(run / name, folder)
        shutil.copy(run / "bundle" / "model.json", folder / "bundle")
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        config["manifest"]["path"] = Path(config["manifest"]["path"]).name
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        # Not the pictures of mistakes: they are the data sets'.
        for name in (PREDICTIONS, *([SIMPLE] if (run / SIMPLE).is_file() else [])):
            rows = read_predictions(run / name)
            side = "test" if any(item.split == "test" for item in rows) else "val"
            tested = [replace(item, source=_below(item)) for item in rows if item.split == side]
            write_predictions(tested, folder / name, tested[0].classes)


def _below(item: Prediction) -> str:
    """Where the images lay is nobody's business; below the name of their set it is."""
    _, found, after = item.source.rpartition(f"/{item.origin}/")
    return f"{item.origin}/{after}" if found else Path(item.source).name


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
