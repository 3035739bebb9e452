"""The run folder: where it may be made, what its config says, and the state it can be resumed from."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import tumorlens
from tumorlens.config import TrainSettings
from tumorlens.data.manifest import file_hash
from tumorlens.errors import RunError
from tumorlens.textfile import write_whole

CONFIG = "config.json"
_PART = f"{CONFIG}.part"  # what a killed process leaves behind
SCHEMA_VERSION = 1
PLACE = ("device", "precision")  # settings that say where to compute, not what to learn


@dataclass(frozen=True)
class RunPaths:
    """Where the parts of a run folder lie."""

    folder: Path

    @property
    def config(self) -> Path:
        """The resolved settings and provenance."""
        return self.folder / CONFIG

    @property
    def history(self) -> Path:
        """One row an epoch."""
        return self.folder / "history.csv"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.folder / "checkpoint_last.safetensors"

    @property
    def best(self) -> Path:
        """The weights of the best epoch by validation."""
        return self.folder / "checkpoint_best.safetensors"

    @property
    def bundle(self) -> Path:
        """The model to use."""
        return self.folder / "bundle"

    @property
    def predictions(self) -> Path:
        """The answers for every image of the manifest."""
        return self.folder / "predictions.csv"


def open_run(folder: Path, config: dict[str, Any], resume: bool) -> RunPaths:
    """Make a run folder and write its config, or open one to resume.

    Raises:
        RunError: the folder is in use and `resume` is off, there is nothing to resume, or the data, settings or
            weights are others than the run began with.
    """
    paths = RunPaths(folder)
    if resume:
        if not paths.config.is_file():
            raise RunError(f"{folder}: nothing to resume ({CONFIG} is missing). Start without --resume")
        check_same(folder, config)
        return paths
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {_PART}):
        raise RunError(f"{folder}: already in use. Continue it with --resume, or give another --out")
    write_config(folder, config)
    return paths


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write `config.json`, whole; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def settings_of(folder: Path) -> TrainSettings:
    """The settings that a run was trained with; those that came with a later version are what they are by default.

    Raises:
        RunError: it has no config, or one that is damaged or of another version.
    """
    path = folder / CONFIG
    try:
        return TrainSettings.model_validate(json.loads(path.read_text(encoding="utf-8"))["settings"])
    except FileNotFoundError as error:
        raise RunError(f"{path}: not there. Give the folder of a run that `tumorlens train` made") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValidationError) as error:
        raise RunError(f"{path}: damaged or of another version ({error}). Start a new run folder") from error


def check_same(folder: Path, config: dict[str, Any]) -> None:
    """Make sure that a run was begun with the data, settings and weights that are given now.

    A run resumed on another split would have learned from patients that it then tests.

    Raises:
        RunError: they differ; what differs is named.
    """
    path = folder / CONFIG
    try:
        began = json.loads(path.read_text(encoding="utf-8"))
        settings = settings_of(folder).model_dump(mode="json")
        pairs = [
            ("manifest", began["manifest"]["sha256"], config["manifest"]["sha256"]),
            ("fold", _fold(began), _fold(config)),
            ("initial weights", began["initial_weights"], config["initial_weights"]),
            ("teachers", began.get("teachers", []), config.get("teachers", [])),
            *((key, settings[key], config["settings"][key]) for key in config["settings"] if key not in PLACE),
        ]
    except (json.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
        raise RunError(f"{path}: damaged or of another version ({error}). Start a new run folder") from error
    for name, before, now in pairs:
        if before != now:
            raise RunError(
                f"{folder}: the run began with {name} = {before}, now it is {now}. "
                "Continue with the same, or start a new run folder"
            )


def describe(
    manifest: Path,
    settings: TrainSettings,
    fold: str | None,
    weights: Path | None,
    split: dict[str, Any],
    teachers: Sequence[Path] = (),
) -> dict[str, Any]:
    """The provenance that `config.json` keeps: settings, versions, commit and hashes.

    Args:
        manifest: what is trained on.
        settings: all settings.
        fold: the fold that is tested, where there are folds.
        weights: the initial weights; None for random ones.
        split: what `verified_split` says of the manifest.
        teachers: the weights of the models whose answers are learned.
    """
    import monai
    import torch

    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings.model_dump(mode="json"),
        "manifest": {"path": str(manifest), "sha256": file_hash(manifest), "fold": fold},
        "split": split,
        "initial_weights": _of_file(weights) if weights else None,
        "teachers": [_of_file(path) for path in teachers],
        "versions": {
            "tumorlens": tumorlens.__version__,
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "monai": monai.__version__,
        },
        "git_commit": _git_commit(),
    }


def _of_file(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": file_hash(path)}


def _fold(config: dict[str, Any]) -> str | None:
    """The tested fold; earlier runs kept it as a number."""
    fold = config["manifest"]["fold"]
    return None if fold is None else str(fold)


def _git_commit() -> str:
    """The commit of the source tree, where it is one; an installed package has none."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(tumorlens.__file__).parent), "rev-parse", "HEAD"],
            capture_output=True, text=True, check=False, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()
