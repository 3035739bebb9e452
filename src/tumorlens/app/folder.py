"""Many files: a table with thumbnails, to sort, filter, open and download."""

import base64
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from tumorlens.app import parts, view, words
from tumorlens.data.answer_file import answers_as
from tumorlens.data.index import class_of_folder
from tumorlens.data.readers import Entry, ReadOptions, Refused, in_uploads, is_known, read_slices
from tumorlens.errors import TumorlensError
from tumorlens.examples import EXAMPLES
from tumorlens.explain.overlay import to_grey
from tumorlens.pipeline import BATCH, Explained
from tumorlens.records import Prediction, Slice, class_title
from tumorlens.runtime.predictor import Answer, Predictor, failed

MOST = 500  # slices of a session, and those of the last file beyond
MOST_BYTES = 200 << 20  # of their pictures
VERDICTS = {"ok": "answered", "refused": "refused", "error": "unreadable"}
_THUMBNAIL = 72
_TABLES = (
    ("Table (CSV)", ".csv", "text/csv"),
    ("Table (Parquet)", ".parquet", "application/vnd.apache.parquet"),
)


@dataclass(frozen=True)
class Row:
    """A slice of the table. Its picture is kept as a small PNG, so that hundreds of them fit."""

    answer: Answer
    thumbnail: str = ""
    png: bytes = b""
    source: Slice | None = None

    def opened(self) -> Explained:
        """The slice as it is shown; grey values in 256 steps."""
        if not self.png or self.source is None:
            return Explained(self.answer, None)
        pixels = np.asarray(Image.open(io.BytesIO(self.png)), dtype=np.float32)
        return Explained(self.answer, replace(self.source, pixels=pixels))


def page() -> None:
    """Draw the page."""
    parts.heading(words.FOLDER, f"{words.FOLDER_ABOUT} {words.FOLDER_LIMIT.format(most=MOST)}")
    predictor = parts.choose_predictor()
    if predictor is None:
        return
    rows = _rows_of(predictor)
    _take_files(rows, predictor)
    if not rows:
        st.info(words.FOLDER_EMPTY)
        if st.button("Try it with the examples", key="try"):
            _answer([(item.path.name, item.path.read_bytes()) for item in EXAMPLES], rows, predictor)
            st.rerun()
        return
    shown = _filtered(list(rows.values()))
    _summary(list(rows.values()), shown)
    _labelled(list(rows.values()), predictor.classes)
    chosen = _table(shown)
    _downloads(shown, predictor.classes)
    if chosen is not None:
        st.divider()
        key = next(key for key, row in rows.items() if row is chosen)
        view.show(
            chosen.opened(),
            _name(chosen.answer.prediction),
            "",
            predictor,
            f"row_{key[:16]}_{parts.model_key(predictor)}",
        )


def _rows_of(predictor: Predictor) -> dict[str, Row]:
    """The rows of this session and model; those of another model go."""
    model = parts.model_key(predictor)
    if st.session_state.get("rows_of") != model:
        st.session_state["rows_of"], st.session_state["rows"] = model, {}
    rows: dict[str, Row] = st.session_state["rows"]
    return rows


def _take_files(rows: dict[str, Row], predictor: Predictor) -> None:
    """Answer what was dropped; afterwards the drop zone is a new one, so that the files are freed."""
    number = st.session_state.setdefault("drop", 0)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = st.segmented_control("Take", ("Files", "A whole folder"), default="Files", key="kind", required=True)
        if rows and st.button("Clear", key="clear", icon=":material/delete:"):
            rows.clear()
            st.rerun()
    uploads = st.file_uploader(
        "Pictures, DICOM files, volumes or ZIP archives", key=f"drop_{kind}_{number}",
        accept_multiple_files=True if kind == "Files" else "directory",
    )  # fmt: skip
    if left := st.session_state.pop("left_out", 0):
        st.warning(words.FOLDER_LEFT_OUT.format(n=left, most=MOST, megabytes=MOST_BYTES >> 20))
    if other := st.session_state.pop("no_pictures", 0):
        st.warning(words.FOLDER_NO_PICTURES.format(n=other))
    if uploads:
        files = [(item.name, item.getvalue()) for item in uploads]
        # A file that somebody chose is worth a row; a folder is searched, as `predict` does it.
        known = [file for file in files if kind == "Files" or is_known(Entry(*file))]
        st.session_state["no_pictures"] = len(files) - len(known)
        _answer(known, rows, predictor)
        st.session_state["drop"] = number + 1
        st.rerun()


def _answer(files: Sequence[tuple[str, bytes]], rows: dict[str, Row], predictor: Predictor) -> None:
    """Answer files a few at a time, with a bar; what is answered stays where the reader stops it."""
    bar = st.progress(0.0, text="Reading …")
    waiting: list[tuple[str, Slice]] = []
    with parts.let_go():
        entries = in_uploads(parts.entries_of(files))
        for done, entry in enumerate(entries, start=1):
            if len(rows) + len(waiting) >= MOST or sum(len(row.png) for row in rows.values()) > MOST_BYTES:
                st.session_state["left_out"] = len(entries) - done + 1
                break
            waiting += _slices(entry, rows, predictor)
            if len(waiting) >= BATCH:
                _answer_waiting(waiting, rows, predictor)
                waiting = []
                bar.progress(done / len(entries), text=f"{done} of {len(entries)} files")
        _answer_waiting(waiting, rows, predictor)
    bar.empty()


def _slices(entry: Entry | Refused, rows: dict[str, Row], predictor: Predictor) -> list[tuple[str, Slice]]:
    """The slices of a file that are not in the table yet, by the hash of what they show; bad ones get their row."""
    try:
        if isinstance(entry, Refused):
            raise TumorlensError(entry.message)
        slices = read_slices(entry, ReadOptions(most=parts.MOST_PIXELS))
    except TumorlensError as error:
        answer = Answer(failed(entry.address, 0, str(error), predictor.classes))
        content = entry.data if isinstance(entry, Entry) else None
        rows.setdefault(f"bad {entry.address} {hashlib.sha256(content or b'').hexdigest()}", Row(answer))
        return []
    found = []
    for item in slices:
        key = hashlib.sha256(f"{item.source}\n{item.frame}\n".encode() + item.pixels.tobytes()).hexdigest()
        if key not in rows:
            found.append((key, item))
    return found


def _answer_waiting(waiting: Sequence[tuple[str, Slice]], rows: dict[str, Row], predictor: Predictor) -> None:
    for start in range(0, len(waiting), BATCH):
        part = waiting[start : start + BATCH]
        for (key, item), answer in zip(part, predictor.predict([item for _, item in part]), strict=True):
            grey = to_grey(item.pixels)
            kept = replace(item, pixels=np.zeros((0, 0), dtype=np.float32))
            rows[key] = Row(answer, _thumbnail(grey), _png(grey), kept)


def _png(grey: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _thumbnail(grey: NDArray[np.uint8]) -> str:
    image = Image.fromarray(grey)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _name(prediction: Prediction) -> str:
    return Entry(prediction.source).name + (f" [{prediction.frame}]" if prediction.frame else "")


def _filtered(rows: list[Row]) -> list[Row]:
    """The rows that the reader wants to see."""
    with st.container(horizontal=True):
        verdicts = st.pills(
            "Verdict", list(VERDICTS), selection_mode="multi", format_func=VERDICTS.__getitem__, key="verdicts"
        )
        named = sorted({row.answer.prediction.predicted for row in rows} - {""})
        classes = st.pills("Answer", named, selection_mode="multi", format_func=class_title, key="classes")
    return [
        row
        for row in rows
        if (not verdicts or row.answer.prediction.status in verdicts)
        and (not classes or row.answer.prediction.predicted in classes)
    ]


def _summary(rows: Sequence[Row], shown: Sequence[Row]) -> None:
    counts = {title: sum(row.answer.prediction.status == key for row in rows) for key, title in VERDICTS.items()}
    told = ", ".join(f"{count} {title}" for title, count in counts.items() if count)
    st.markdown(f"**{len(rows)} slices**: {told}." + (f" {len(shown)} shown." if len(shown) < len(rows) else ""))


def _label(row: Row) -> str:
    """The class that a folder of its path names, as data sets are often laid out; else empty."""
    folders = re.split(r"[/\\!]", row.answer.prediction.source)[:-1]
    return next((name for name in map(class_of_folder, reversed(folders)) if name), "")


def _labelled(rows: Sequence[Row], classes: tuple[str, ...]) -> None:
    """Where folders are classes: how many answers are right, and the confusion matrix."""
    import pandas as pd

    pairs = [(_label(row), row.answer.prediction.predicted) for row in rows if row.answer.prediction.status == "ok"]
    known = [pair for pair in pairs if pair[0] in classes and pair[1]]
    if not known:
        return
    right = sum(label == answer for label, answer in known)
    st.markdown(words.FOLDER_LABELLED.format(right=right, n=len(known)))
    labels = [name for name in classes if any(label == name for label, _ in known)]
    counts = [[sum(pair == (label, answer) for pair in known) for answer in classes] for label in labels]
    table = pd.DataFrame(counts, columns=[class_title(name) for name in classes])
    table.insert(0, "Label \\ answer", [class_title(name) for name in labels])
    st.dataframe(table, hide_index=True, alt="Confusion matrix: rows are labels, columns are answers")


def _table(rows: Sequence[Row]) -> Row | None:
    """The table; the row that is open, if any."""
    import pandas as pd

    data: list[dict[str, Any]] = []
    for row in rows:
        item = row.answer.prediction
        data.append({
            "Picture": row.thumbnail, "File": _name(item), "Verdict": VERDICTS[item.status],
            "Answer": class_title(item.predicted) if item.predicted else "",
            "Probability": item.confidence if item.probabilities else None,
            "Not ruled out": ", ".join(class_title(name) for name in item.label_set), "Why": item.message,
        })  # fmt: skip
    found = st.dataframe(
        # A row is selected by its place, so other rows are another table, of which none is.
        pd.DataFrame(data), hide_index=True, row_height=52, key=f"table_{_marks(rows)}", on_select="rerun",
        selection_mode="single-row", placeholder="", alt="A row for each slice: file, verdict, answer, probability",
        column_config={
            "Picture": st.column_config.ImageColumn(width=64),
            "Probability": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
            "Why": st.column_config.TextColumn(width="large"),
        },
    )  # fmt: skip
    st.caption(words.OPEN_ROW)
    selected = found["selection"]["rows"]
    return rows[selected[0]] if selected and selected[0] < len(rows) else None


def _marks(rows: Sequence[Row]) -> str:
    """What tells these rows from others."""
    names = "\n".join(f"{row.answer.prediction.source} {row.answer.prediction.frame}" for row in rows)
    return hashlib.sha256(os.fsencode(names)).hexdigest()[:16]


def _downloads(rows: Sequence[Row], classes: tuple[str, ...]) -> None:
    predictions = [row.answer.prediction for row in rows]
    with st.container(horizontal=True):
        for title, suffix, mime in _TABLES:
            made = partial(answers_as, predictions, classes, suffix)
            st.download_button(title, made, f"answers{suffix}", mime, key=f"get{suffix}", on_click="ignore")
        st.download_button(
            "Overlays (ZIP)", lambda: _overlays(rows), "overlays.zip", "application/zip", key="zip", on_click="ignore"
        )


def _overlays(rows: Sequence[Row]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, row in enumerate(rows, start=1):
            item = row.opened()
            if item.picture is None or item.answer.evidence is None:
                continue
            picture = io.BytesIO()
            item.overlay().save(picture, format="PNG", compress_level=1)
            # A number first: names from archives may be alike, and none is to lead anywhere.
            stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in Path(_name(item.answer.prediction)).stem)
            archive.writestr(f"{number:04d}_{stem[:80]}.png", picture.getvalue())
    return buffer.getvalue()
