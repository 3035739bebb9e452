"""Keep what figures in the docs follow from: of each fold its config, history and the answers for its tested slices.

    python tools/keep_results.py CROSSVAL OUT

`tumorlens evaluate OUT` then gives the figures again, without the images and without training.
"""

import csv
import json
import shutil
import sys
from pathlib import Path


def main(source: Path, out: Path) -> None:
    """Copy the finished folds of a cross-validation."""
    for run in sorted(path.parent for path in source.glob("fold*/metrics.json")):
        folder = out / run.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(run / "history.csv", folder)
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        config["manifest"]["path"] = Path(config["manifest"]["path"]).name
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
        with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                # Where the images lay is nobody's business; below the name of their set it is.
                _, found, after = row["input"].rpartition(f"/{row['source']}/")
                writer.writerow({**row, "input": f"{row['source']}/{after}" if found else Path(row["input"]).name})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
