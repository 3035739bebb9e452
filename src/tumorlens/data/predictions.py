"""predictions.csv: what passes from running and training to evaluation."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO, TypeVar, get_args

from tumorlens.errors import RunError
from tumorlens.records import Prediction, Split, Status

_BEFORE = ("input", "frame", "status", "predicted", "confidence")
_AFTER = ("label_set", "message", "label", "patient_group", "split", "source", "plane", "tumour_share", "map")
_Word = TypeVar("_Word", bound=str)
_SUM_TOLERANCE = 1e-3  # rounded by other programs


def columns(classes: Sequence[str]) -> tuple[str, ...]:
    """The columns of a table of predictions."""
    return (*_BEFORE, *(f"p_{name}" for name in classes), *_AFTER)


class PredictionWriter:
    """Write predictions row by row, flushed, so that an interruption loses nothing that was answered."""

    def __init__(self, file: TextIO, classes: Sequence[str], header: bool = True) -> None:
        self._file = file
        self._writer = csv.writer(file)
        if header:
            self._writer.writerow(columns(classes))
        self._width = len(classes)

    def write(self, predictions: Iterable[Prediction]) -> None:
        """Append rows."""
        for item in predictions:
            answered = item.probabilities or [None] * self._width
            self._writer.writerow([
                item.source, item.frame, item.status, item.predicted,
                "" if math.isnan(item.confidence) else f"{item.confidence:.9g}",
                *("" if p is None else f"{p:.9g}" for p in answered),
                " ".join(item.label_set), item.message, item.label, item.patient_group, item.split, item.origin,
                item.plane, "" if math.isnan(item.tumour_share) else f"{item.tumour_share:.6g}", item.map,
            ])  # fmt: skip
        self._file.flush()


def write_predictions(predictions: Sequence[Prediction], path: Path, classes: Sequence[str]) -> None:
    """Write a whole predictions.csv, replacing what was there only when it is complete."""
    temporary = path.with_suffix(".part")
    with temporary.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        PredictionWriter(file, classes).write(predictions)
    temporary.replace(path)


def read_predictions(path: Path) -> list[Prediction]:
    """Read a predictions.csv.

    Raises:
        RunError: no such file, or not a table of predictions.
    """
    if not path.is_file():
        raise RunError(f"{path}: no predictions there. Give a run folder made by `tumorlens train`")
    try:
        found = list(_rows(path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path}: no table in UTF-8 ({error}). Save it as CSV with that encoding") from error
    if not found:
        raise RunError(f"{path}: no rows in it. Predict or train first")
    return found


def _rows(path: Path) -> Iterator[Prediction]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="")
        classes = tuple(name[2:] for name in reader.fieldnames or [] if name.startswith("p_"))
        if not classes or "input" not in (reader.fieldnames or []):
            raise RunError(f"{path}: not a table of predictions; columns are {reader.fieldnames}")
        for row in reader:
            try:
                yield _prediction(row, classes)
            except KeyError as error:
                raise RunError(f"{path}: has no column {error}. Predict again, or add it") from error
            except ValueError as error:
                raise RunError(f"{path}, line {reader.line_num}: {error}. Mend or remove the row") from error


def _prediction(row: dict[str, str], classes: tuple[str, ...]) -> Prediction:
    status = _one_of("status", row["status"], get_args(Status))
    given = [row[f"p_{name}"] for name in classes]
    probabilities = tuple(map(float, given)) if any(given) else ()
    if status == "ok":
        _check(probabilities)
    share = row.get("tumour_share")
    return Prediction(
        source=row["input"],
        frame=int(row["frame"]),
        status=status,
        classes=classes,
        probabilities=probabilities,
        label_set=tuple(row["label_set"].split()),
        message=row["message"],
        label=row.get("label") or "",
        patient_group=row.get("patient_group") or "",
        split=_one_of("split", row.get("split") or "", ("", *get_args(Split))),
        origin=row.get("source") or "",  # files of earlier versions lack this column and the next
        plane=row.get("plane") or "",
        tumour_share=float(share) if share else math.nan,
        map=row.get("map") or "",
    )


def _one_of(column: str, value: str, allowed: Sequence[_Word]) -> _Word:
    for known in allowed:
        if value == known:
            return known
    raise ValueError(f"{column} is {value!r}, allowed are {', '.join(repr(known) for known in allowed)}")


def _check(probabilities: Sequence[float]) -> None:
    """Probabilities of an answered row are numbers from 0 to 1 that add up to 1."""
    shown = ", ".join(f"{p:g}" for p in probabilities)
    if not probabilities or not all(0 <= p <= 1 for p in probabilities):
        raise ValueError(f"probabilities are ({shown}), allowed are numbers from 0 to 1 for every class")
    if abs(sum(probabilities) - 1) > _SUM_TOLERANCE:
        raise ValueError(f"probabilities ({shown}) add up to {sum(probabilities):g} instead of 1")
