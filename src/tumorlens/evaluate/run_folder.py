"""What evaluation reads of a run folder: predictions, history, and which split and fold it was."""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tumorlens.data.manifest import check_files, file_hash, read_manifest
from tumorlens.data.predictions import read_predictions
from tumorlens.errors import RunError
from tumorlens.evaluate.leaks import between_folds
from tumorlens.records import Prediction, Sample

PREDICTIONS = "predictions.csv"
CONFIG = "config.json"


@dataclass(frozen=True)
class Run:
    """One run folder as read.

    `history` has a row an epoch, empty where there is none. `assignment` is the hash of the split, empty where unknown;
    `leaky` says that it was made by slice. `fold` names the fold that was tested, empty where there are none.
    `provenance` is what its config says of its making, as name and value, `settings` how it was trained.
    `temperature` is what its bundle softens logits by, None where there is none, and `temperature_factor` the part of
    it that a cross-validation added.
    """

    folder: Path
    predictions: tuple[Prediction, ...]
    history: tuple[dict[str, float], ...] = ()
    assignment: str = ""
    leaky: bool = False
    fold: str = ""
    provenance: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    temperature: float | None = None
    temperature_factor: float = 1.0

    @property
    def tested(self) -> list[Prediction]:
        """The predictions of the test side; those without a split count as tested."""
        return [item for item in self.predictions if (item.split or "test") == "test"]


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Predictions that do not say which source they are of, as those of earlier versions, take it from the manifest of
    the run, where that is still there and unchanged.

    Raises:
        RunError: no predictions there, or its config or history is damaged.
    """
    config = _read_config(folder)
    card = _read_card(folder / "bundle" / "model.json")
    split = config.get("split") or {}
    manifest = config.get("manifest") or {}
    fold = manifest.get("fold")
    return Run(
        folder=folder,
        predictions=tuple(_with_origins(read_predictions(folder / PREDICTIONS), folder)),
        history=_read_history(folder / "history.csv"),
        assignment=str(split.get("assignment_sha256") or ""),
        leaky=bool(split.get("leaky_by_slice")),
        fold="" if fold is None else str(fold),
        provenance=tuple(_provenance(config, card)),
        settings=config.get("settings") or {},
        temperature=card.get("temperature"),
        temperature_factor=card.get("temperature_factor", 1.0),
    )


def run_around(bundle: Path) -> Path | None:
    """The run folder that a bundle is the model of; None for a bundle that lies elsewhere."""
    folder = bundle.resolve()
    run = folder.parent
    return run if folder.name == "bundle" and (run / CONFIG).is_file() and (run / PREDICTIONS).is_file() else None


def read_folds(folder: Path) -> list[Run]:
    """Read the fold runs of a cross-validation: the folders `fold...` below it that have tested predictions.

    Where its config lists the folds that are pooled, it is those alone, so that the table is of what was pooled.

    Returns:
        By name, fold2 before fold10; none where `folder` is no cross-validation.

    Raises:
        RunError: a fold's files are damaged.
    """
    listed = _read_config(folder).get("folds")
    pooled = None if listed is None else {str(name) for name in listed}
    found = []
    for path in sorted(folder.glob("fold*"), key=_by_number):
        if (path / PREDICTIONS).is_file():
            run = read_run(path)
            named = replace(run, fold=run.fold or path.name.removeprefix("fold"))
            if named.tested and (pooled is None or named.fold in pooled):
                found.append(named)
    return found


def read_pooled(folder: Path) -> tuple[Run, list[Run]]:
    """Read a run folder and, where it is a cross-validation's, its fold runs.

    A cross-validation is what its folds tested, now: they may have been taught more since their answers were pooled.

    Raises:
        RunError: no predictions there, or something is damaged.
    """
    folds = read_folds(folder)
    return (_pool(folder, folds) if folds else read_run(folder)), folds


def _pool(folder: Path, folds: Sequence[Run]) -> Run:
    """The tested predictions of all folds as one run; leaky where one of them is, or the folds share patients."""
    splits = {run.assignment for run in folds}
    return Run(
        folder=folder,
        predictions=tuple(replace(item, split="test") for run in folds for item in run.tested),
        assignment=splits.pop() if len(splits) == 1 else "",
        provenance=folds[0].provenance,
        settings=folds[0].settings,
        leaky=any(run.leaky for run in folds) or between_folds([run.predictions for run in folds]) > 0,
    )


def _read_config(folder: Path) -> dict[str, Any]:
    """The run's config; earlier runs have none."""
    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(config, dict):
        raise _damaged(path, f"a {type(config).__name__} where an object should be")
    kinds = {
        "split": dict,
        "settings": dict,
        "manifest": dict,
        "initial_weights": dict,
        "versions": dict,
        "folds": list,
    }
    for key, kind in kinds.items():
        if not isinstance(config.get(key), kind | None):
            raise _damaged(path, f"{key} is {config[key]!r}")
    return config


def _provenance(config: dict[str, Any], card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known of how a run was made."""
    manifest, weights = config.get("manifest") or {}, config.get("initial_weights") or {}
    settings, versions = config.get("settings") or {}, config.get("versions") or {}
    known = {
        "Made": config.get("created"),
        "Commit": config.get("git_commit"),
        "Versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "Manifest": _file(manifest),
        "Initial weights": _file(weights),
        "Teachers": ", ".join((card.get("training_data") or {}).get("teachers") or ()),
        "Region head": (card.get("region") or {}).get("fitted_on"),
        "Seed": settings.get("seed"),
        "Temperature factor": _factor(card),
        "Split": (config.get("split") or {}).get("assignment_sha256"),
    }
    yield from ((name, str(value)) for name, value in known.items() if value not in (None, ""))


def _factor(card: dict[str, Any]) -> str:
    """What a cross-validation multiplied the bundle's temperature by; empty where nothing did."""
    factor = card.get("temperature_factor", 1.0)
    return "" if factor == 1 else f"{factor:.3f}"


def _file(entry: dict[str, Any]) -> str:
    name = Path(str(entry.get("path") or entry.get("name") or "")).name
    return f"{name}, SHA-256 {entry['sha256']}" if entry.get("sha256") else name


def _read_card(path: Path) -> dict[str, Any]:
    """The bundle's card as it stands; empty where there is no bundle."""
    if not path.is_file():
        return {}
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {
            **card,
            "temperature": float(card["temperature"]),
            "temperature_factor": float(card.get("temperature_factor", 1.0)),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: damaged, or no model card ({error}). Restore it, or move it away") from error


def _damaged(path: Path, why: str) -> RunError:
    return RunError(f"{path}: damaged ({why}). Restore it: it says which split the figures are of")


def _read_history(path: Path) -> tuple[dict[str, float], ...]:
    if not path.is_file():
        return ()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple({key: float(value) for key, value in row.items()} for row in csv.DictReader(file))
    except (ValueError, TypeError) as error:
        raise RunError(f"{path}: malformed row ({error}). Restore it, or move it away to do without") from error


def find_manifest(folder: Path) -> Path | None:
    """The manifest that a run was made from, where it is still there and unchanged.

    Raises:
        RunError: the run's config is damaged.
    """
    manifest = _read_config(folder).get("manifest") or {}
    if not manifest.get("path"):
        return None
    given = Path(str(manifest["path"]))
    # Run folders are moved about; the hash tells whether a file of that name is the run's manifest.
    places = (given, folder.parent / given.name, folder.parent.parent / given.name)
    return next((path for path in places if path.is_file() and file_hash(path) == manifest.get("sha256")), None)


def read_samples(folder: Path) -> tuple[list[Sample], Path]:
    """The images of a run with the sides that they were on, and the folder that their paths are relative to.

    Raises:
        RunError: no predictions there, its manifest is gone or was changed, or lacks an image that was predicted.
        ManifestError: images or masks are missing.
    """
    predictions = read_predictions(folder / PREDICTIONS)
    manifest = find_manifest(folder)
    if manifest is None:
        raise RunError(
            f"{folder}: the manifest that it was made from is gone or was changed. Put it back beside the run"
        )
    sides = {(item.source, item.frame): item.split for item in predictions}
    samples = [item for item in read_manifest(manifest) if (item.path, item.frame) in sides]
    if len(samples) != len(sides):
        raise RunError(
            f"{folder}: {len(sides)} images were predicted, {manifest} has {len(samples)} of them. Restore it"
        )
    check_files(samples, manifest.parent)
    return [replace(item, split=sides[item.path, item.frame]) for item in samples], manifest.parent


def _with_origins(predictions: list[Prediction], folder: Path) -> list[Prediction]:
    if any(item.origin for item in predictions):
        return predictions
    path = find_manifest(folder)
    if path is None:
        return predictions
    sources = {(sample.path, sample.frame): sample.source for sample in read_manifest(path)}
    return [replace(item, origin=sources.get((item.source, item.frame), "")) for item in predictions]


def _by_number(path: Path) -> tuple[tuple[int, str], ...]:
    """Names in the order of the numbers in them."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name))
