"""The table of a long prediction: CSV, JSON Lines or Parquet, written as answers come, and resumed after a stop."""

import csv
import json
import math
import re
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

from tumorlens.data.predictions import PredictionWriter, columns
from tumorlens.errors import RunError
from tumorlens.records import Prediction
from tumorlens.textfile import write_whole

FORMATS = (".csv", ".jsonl", ".parquet")
_NUMBERS = {"frame": "int32", "confidence": "float64", "tumour_share": "float64"}


@dataclass(frozen=True)
class Kept:
    """A row that an earlier call wrote: the input, its frame, its status, and whether it had probabilities."""

    source: str
    frame: int
    status: str
    answered: bool


class AnswerFile:
    """A table that grows while answers come. Leaving the `with` block without an error completes it.

    Until then `NAME.unfinished.json` beside it tells how its rows were made. A process that is killed loses the rows
    that were not yet written; the next one with `resume` keeps the others, but for the last input's, whose slices may
    not all be there.

    Args:
        path: ends in .csv, .jsonl or .parquet. Parquet is made at the end, of rows kept in `NAME.rows.csv`.
        classes: the class names.
        plan: whatever changes the answers, as plain values; a table is resumed with the same plan only.
        resume: go on with a table that is unfinished.

    Raises:
        RunError: another suffix, or a table that was begun with another plan.
    """

    def __init__(self, path: Path, classes: Sequence[str], plan: dict[str, Any], resume: bool = False) -> None:
        if path.suffix.lower() not in FORMATS:
            raise RunError(f"{path}: cannot tell the format; names of tables end in {', '.join(FORMATS)}")
        self._path, self._classes = path, tuple(classes)
        self._state = _state(path)
        parquet = path.suffix.lower() == ".parquet"
        self._rows = path.with_name(f"{path.name}.rows.csv") if parquet else path
        self._json = path.suffix.lower() == ".jsonl"
        self.kept: list[Kept] = []
        self._done: set[str] = set()
        if resume and self._state.is_file():
            self._check_plan(plan)
            self._check_columns()
            self.kept = list(self._restore()) if self._rows.is_file() else []
            self._done = {_stored(row.source) for row in self.kept}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._state, json.dumps(plan, indent=2) + "\n")
        mode: Literal["a", "w"] = "a" if self.kept else "w"
        self._file = self._rows.open(mode, encoding="utf-8", newline="", errors="backslashreplace")
        self._writer = (
            _JsonWriter(self._file, classes) if self._json else PredictionWriter(self._file, classes, not self.kept)
        )

    def is_done(self, source: str) -> bool:
        """Whether the rows of an input are there already."""
        return _stored(source) in self._done

    def write(self, predictions: Iterable[Prediction]) -> None:
        """Append rows, flushed."""
        self._writer.write(predictions)

    def __enter__(self) -> "AnswerFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is not None:
            return
        if self._rows != self._path:
            _to_parquet(self._rows, self._path, self._classes)
            self._rows.unlink()
        self._state.unlink()

    def _check_plan(self, plan: dict[str, Any]) -> None:
        try:
            before = json.loads(self._state.read_text(encoding="utf-8"))
            other = [key for key in plan if before.get(key) != plan[key]]
        except (ValueError, AttributeError) as error:
            raise RunError(
                f"{self._state}: damaged, so {self._path} cannot be resumed. Give --overwrite to begin again"
            ) from error
        if other:
            shown = ", ".join(f"{key} {before.get(key)!r}, now {plan[key]!r}" for key in other)
            raise RunError(f"{self._path}: was begun with {shown}. Resume it with the same, or --overwrite it")

    def _check_columns(self) -> None:
        if self._json or not self._rows.is_file():
            return
        with self._rows.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = csv.reader(file)
            heads, has_rows = next(rows, []), next(rows, None) is not None
        if has_rows and heads != list(columns(self._classes)):
            raise RunError(
                f"{self._path}: was begun by another version of tumorlens, with other columns. Finish it with that "
                "version, or --overwrite it"
            )

    def _restore(self) -> Iterator[Kept]:
        """Write the whole rows of all but the last input again, and say which they are."""
        temporary = self._rows.with_name(f"{self._rows.name}.part")
        last = next((source for source, _, _ in deque(self._read(), maxlen=1)), "")
        with temporary.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
            writer = csv.writer(file)
            if not self._json:
                writer.writerow(columns(self._classes))
            for source, row, kept in self._read():
                if source == last:
                    continue
                if self._json:
                    file.write(f"{row[0]}\n")
                else:
                    writer.writerow(row)
                yield kept
        temporary.replace(self._rows)

    def _read(self) -> Iterator[tuple[str, list[str], Kept]]:
        # A row may be cut off within a character.
        with self._rows.open(encoding="utf-8", errors="replace", newline="") as file:
            yield from self._read_json(file) if self._json else self._read_csv(file)

    def _read_csv(self, file: TextIO) -> Iterator[tuple[str, list[str], Kept]]:
        heads = columns(self._classes)
        confidence = heads.index("confidence")
        for number, row in enumerate(csv.reader(file)):
            if number and len(row) == len(heads):  # a row that was cut off has fewer
                yield row[0], row, Kept(_spoken(row[0]), int(row[1]), row[2], bool(row[confidence]))

    def _read_json(self, file: TextIO) -> Iterator[tuple[str, list[str], Kept]]:
        for line in file:
            with suppress(ValueError, KeyError, TypeError):  # a line that was cut off
                row = json.loads(line)
                answered = row["confidence"] is not None
                yield row["input"], [line.rstrip("\n")], Kept(row["input"], row["frame"], row["status"], answered)


def _stored(source: str) -> str:
    """A name as a CSV table has it: what is no UTF-8 in the file system's bytes is spelled out."""
    return source.encode("utf-8", "backslashreplace").decode("utf-8")


def _spoken(source: str) -> str:
    """A name as the file system has it, from a CSV table."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), source)


def answers_as(predictions: Sequence[Prediction], classes: Sequence[str], suffix: str) -> bytes:
    """A whole table in memory, for those who have no file: of a suffix in `FORMATS`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"answers{suffix}"
        with AnswerFile(path, classes, {}) as table:
            table.write(predictions)
        return path.read_bytes()


def is_unfinished(path: Path) -> bool:
    """Whether a table waits to be resumed."""
    return _state(path).is_file()


def _state(path: Path) -> Path:
    return path.with_name(f"{path.name}.unfinished.json")


class _JsonWriter:
    """A JSON object a line, with those columns of the CSV table as keys that answers have; null for the unknown."""

    def __init__(self, file: TextIO, classes: Sequence[str]) -> None:
        self._file, self._classes = file, classes

    def write(self, predictions: Iterable[Prediction]) -> None:
        for item in predictions:
            known = item.probabilities or [None] * len(self._classes)
            row = {
                "input": item.source, "frame": item.frame, "status": item.status, "predicted": item.predicted or None,
                "confidence": None if math.isnan(item.confidence) else item.confidence,
                **{f"p_{name}": share for name, share in zip(self._classes, known, strict=True)},
                "label_set": list(item.label_set), "message": item.message or None, "plane": item.plane or None,
                "map": item.map or None,
            }  # fmt: skip
            self._file.write(json.dumps(row, ensure_ascii=True) + "\n")
        self._file.flush()


def _to_parquet(rows: Path, path: Path, classes: Sequence[str]) -> None:
    """A CSV table as Parquet, a block at a time, so that memory stays bounded."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    kinds = {name: _NUMBERS.get(name, "float64" if name.startswith("p_") else "string") for name in columns(classes)}
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in kinds.items()])
    options = arrow_csv.ConvertOptions(column_types=schema, strings_can_be_null=True, null_values=[""])
    parsing = arrow_csv.ParseOptions(newlines_in_values=True)
    temporary = path.with_name(f"{path.name}.part")
    with parquet.ParquetWriter(temporary, schema) as writer:
        for batch in arrow_csv.open_csv(rows, convert_options=options, parse_options=parsing):
            writer.write_batch(batch)
    temporary.replace(path)
