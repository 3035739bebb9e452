"""Evaluated runs: figures with intervals, plots, a confusion matrix that opens its slices, two runs side by side."""

import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from tumorlens.app import parts, words
from tumorlens.data.manifest import read_manifest
from tumorlens.data.readers import read_slice
from tumorlens.errors import TumorlensError
from tumorlens.evaluate import figures
from tumorlens.evaluate.evaluation import Evaluation, evaluate_run
from tumorlens.evaluate.repeats import compare_runs
from tumorlens.evaluate.run_folder import CONFIG, PREDICTIONS, find_manifest, read_pooled
from tumorlens.evaluate.tables import Grid, comparison_grid, figure_grids, grids
from tumorlens.explain.overlay import to_grey
from tumorlens.records import Estimate, class_title

#: Names folders below which runs are looked for, separated as in PATH.
RUNS_VARIABLE = "TUMORLENS_RUNS"
MOST_PICTURES = 12  # of a cell of the confusion matrix
_IN_A_ROW = 4
_HEADLINE = ("accuracy", "balanced_accuracy", "auc", "ece")


def page() -> None:
    """Draw the page."""
    parts.heading(words.RESULTS, words.RESULTS_ABOUT)
    runs = find_runs()
    left, right = st.columns([7, 5], gap="large")
    with right:
        upload = st.file_uploader("Or a table of labelled predictions", type=["csv"], key="predictions")
    with left:
        if upload is None and not runs:
            st.info(words.RESULTS_NONE)
            return
        name = st.selectbox("Run", list(runs), key="run", bind="query-params", disabled=upload is not None) or ""
        other = st.selectbox(words.COMPARE, ["–", *(item for item in runs if item != name)], key="other",
                             disabled=upload is not None)  # fmt: skip
    try:
        with st.spinner("Drawing 2,000 samples of the patients …"):
            found = _evaluated(str(runs[name]), _stamp(runs[name])) if upload is None else _uploaded(upload.getvalue())
        _show(found, None if upload is not None else runs[name])
        if upload is None and other != "–":
            _compare([runs[name], runs[other]])
    except TumorlensError as error:
        st.error(parts.literal(str(error)))


def find_runs() -> dict[str, Path]:
    """Run folders and cross-validations below the folders of $TUMORLENS_RUNS, else below runs/ and docs/results/."""
    named = os.environ.get(RUNS_VARIABLE)
    roots = [Path(text) for text in named.split(os.pathsep) if text] if named else [Path("runs"), Path("docs/results")]
    found: dict[str, Path] = {}
    for root in roots:
        for folder in sorted(path for path in (root, *root.glob("*"), *root.glob("*/*")) if path.is_dir()):
            if (folder / PREDICTIONS).is_file() or any(folder.glob(f"fold*/{PREDICTIONS}")):
                found[str(folder)] = folder
    return found


def _stamp(folder: Path) -> parts.Stamp:
    """What changes when the answers or the folds of a run do."""
    return parts.stamp(path for name in (PREDICTIONS, CONFIG) for path in folder.glob(f"**/{name}"))


@st.cache_resource(max_entries=8, show_spinner=False)
def _evaluated(folder: str, written: parts.Stamp) -> Evaluation:
    return evaluate_run(Path(folder))


def _uploaded(data: bytes) -> Evaluation:
    """The figures of an uploaded table; kept in the session, as the table is its own."""
    key = hashlib.sha256(data).hexdigest()
    kept: tuple[str, Evaluation] | None = st.session_state.get("uploaded")
    if kept is None or kept[0] != key:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / PREDICTIONS).write_bytes(data)
            try:
                kept = (key, replace(evaluate_run(Path(folder)), name="your table"))
            except TumorlensError as error:  # the folder is none that the reader knows
                raise TumorlensError(str(error).replace(folder, "your table")) from error
        st.session_state["uploaded"] = kept
    return kept[1]


def _show(found: Evaluation, folder: Path | None) -> None:
    table = found.tables[found.main]
    for text in found.warnings:
        st.warning(parts.literal(text))
    # Whose patients those of an uploaded table are, is not known.
    side = "as given" if folder is None else "unseen patients" if found.main == "test" else found.main
    count = table.overall["accuracy"]
    note = f" · {found.split_note}" if found.split_note else ""
    st.markdown(
        f"**{parts.literal(found.name)}** · {count.n_slices:,} slices of {count.n:,} patient groups ({side}){note}"
    )
    titles = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "auc": "AUC (macro)",
              "ece": "Calibration error (ECE)"}  # fmt: skip
    for column, key in zip(st.columns(4), _HEADLINE, strict=True):
        if key in table.overall:
            value = table.overall[key]
            column.metric(titles[key], f"{value.value:.3f}")
            column.html(parts.soft(f"95 %: {value.interval or 'no interval'}"))
    tables, plots, confusion = st.tabs(["Tables", "Plots", "Confusion matrix"])
    with tables:
        for grid in (*figure_grids(found), *grids(found)):
            _grid(grid)
    with plots:
        _plots(found)
    with confusion:
        _confusion(found, folder)


def _grid(grid: Grid) -> None:
    if not grid.rows:
        return
    st.markdown(f"**{parts.literal(grid.title)}**")
    cells = [dict(zip(grid.heads, map(_cell, row), strict=True)) for row in grid.rows]
    st.dataframe(cells, hide_index=True, height="content", alt=grid.title)
    if grid.note:
        st.caption(parts.literal(grid.note))


def _cell(value: Estimate | str) -> str:
    return "–" if isinstance(value, Estimate) and not np.isfinite(value.value) else str(value)


def _plots(found: Evaluation) -> None:
    answers = found.answers[found.main]
    drawn = {
        "ROC curves": figures.roc_curves(answers),
        "Precision and recall": figures.precision_recall_curves(answers),
        "Reliability": figures.reliability_plot(found.trust.reliability),
        "Accuracy of the surest answers": figures.selective_plot(found.trust.selective),
    }
    for start in range(0, len(drawn), 2):
        for column, (title, svg) in zip(st.columns(2), list(drawn.items())[start : start + 2], strict=False):
            with column:
                # Drawn in black: on a dark page they need their paper.
                st.image(svg.replace("<svg ", '<svg style="background:#fff" ', 1), width="stretch", alt=title)


def _confusion(found: Evaluation, folder: Path | None) -> None:
    """Rows are what it is, columns what was answered; a cell lists its slices."""
    import pandas as pd

    table, answers = found.tables[found.main], found.answers[found.main]
    titles = [class_title(name) for name in answers.classes]
    counts = pd.DataFrame(np.asarray(table.confusion), columns=titles)
    counts.insert(0, "Label \\ answer", titles)
    st.caption(words.CONFUSION_HELP)
    event = st.dataframe(counts, hide_index=True, key="confusion", on_select="rerun", selection_mode="single-cell",
                         alt="Confusion matrix: rows are labels, columns are answers")  # fmt: skip
    cells = event["selection"]["cells"]
    if not cells or cells[0][1] not in titles:
        return
    row, column = int(cells[0][0]), titles.index(cells[0][1])
    chosen = (answers.labels == row) & (answers.predicted == column)
    said = [parts.literal(title.lower()) for title in (titles[row], titles[column])]
    st.markdown(f"**{int(chosen.sum())} slices of {said[0]} answered {said[1]}**")
    slices = _slices_of(found, folder, chosen)
    st.dataframe(slices, hide_index=True, alt="The slices of this cell")
    if not _pictures([item["Slice"] for item in slices], folder) and row != column:
        _kept_mistakes(found, answers.classes[row], answers.classes[column])


def _kept_mistakes(found: Evaluation, label: str, predicted: str) -> None:
    """Pictures that the run keeps of its mistakes, where its images are gone."""
    pictures = [item for item in found.mistakes if item.picture is not None
                and (item.prediction.label, item.prediction.predicted) == (label, predicted)]  # fmt: skip
    for start in range(0, min(len(pictures), 6), 2):
        for place, item in zip(st.columns(2), pictures[start : start + 2], strict=False):
            caption = parts.literal(f"{item.prediction.patient_group}: {item.prediction.confidence:.0%}")
            place.image(str(item.picture), caption=caption, width="stretch", alt=caption)


def _pictures(names: list[str], folder: Path | None) -> bool:
    """Show the first slices of a cell, where the images of the run are still there; says if any were."""
    manifest = find_manifest(folder) if folder is not None else None
    if manifest is None:
        return False
    wanted = names[:MOST_PICTURES]
    rows = {_told(item.path, item.frame): item for item in read_manifest(manifest)}
    shown = []
    for name in wanted:
        try:
            shown.append((name, to_grey(read_slice(manifest.parent, rows[name]).pixels)))
        except (KeyError, TumorlensError):  # gone since, or a row that was renamed: the table has its name
            continue
    for start in range(0, len(shown), _IN_A_ROW):
        for place, (name, picture) in zip(st.columns(_IN_A_ROW), shown[start : start + _IN_A_ROW], strict=False):
            caption = parts.literal(Path(name).name)
            place.image(picture, caption=caption, width="stretch", alt=caption)
    return bool(shown)


def _told(source: str, frame: int) -> str:
    """A slice's name: that of its file, with its number where it is not the first of several."""
    return f"{source} [{frame}]" if frame else source


def _slices_of(found: Evaluation, folder: Path | None, chosen: Any) -> list[dict[str, Any]]:
    """Slices of a cell, the most confident first, with their names where they are known."""
    answers = found.answers[found.main]
    names = [""] * len(answers)
    if folder is not None:
        side = [item for item in read_pooled(folder)[0].predictions if (item.split or "test") == found.main]
        told = [item for item in side if item.label and item.status == "ok"]
        if len(told) == len(answers):
            names = [_told(item.source, item.frame) for item in told]
    rows = [
        {"Patient group": answers.groups[n], "Probability": f"{answers.confidences[n]:.1%}", "Slice": names[n]}
        for n in sorted(np.flatnonzero(chosen), key=lambda n: -answers.confidences[n])
    ]
    return rows


def _compare(folders: list[Path]) -> None:
    evaluations = [_evaluated(str(folder), _stamp(folder)) for folder in folders]
    st.divider()
    found = compare_runs(folders, evaluations)
    for text in found.notes:
        st.info(parts.literal(text))
    _grid(comparison_grid(found))
