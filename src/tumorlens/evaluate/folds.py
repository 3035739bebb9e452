"""One row a fold, and their mean and spread: how published figures of cross-validations are given.

The mean over folds says less than the pooled figures with their intervals: a fold has few patients, and the spread
mixes their luck with that of the training. It is here to be compared with.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tumorlens.evaluate.answers import Answers, collect
from tumorlens.evaluate.metrics import Measures, accuracy, macro_auc, tumour_measures
from tumorlens.evaluate.patients import patient_measures
from tumorlens.evaluate.run_folder import Run
from tumorlens.evaluate.sources import none_measures
from tumorlens.values import plain

#: Joins the source and the figure in a column's name.
OF = ":"


@dataclass(frozen=True)
class FoldTable:
    """Figures of folds: `rows` (folds) of values by column, NaN where undefined, and `names` (folds).

    A column is a figure, `tumour_slice_auc`, or that of a source, `figshare:tumour_slice_auc`. `slices`, `groups` and
    `epochs` are counts, `seconds` the time of the training.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, float], ...]

    def values(self, column: str) -> list[float]:
        """One column (folds,), NaN where a fold lacks it."""
        return [row.get(column, float("nan")) for row in self.rows]

    def mean(self, column: str) -> float:
        """The mean over the folds that have the figure."""
        return mean_and_sd(self.values(column))[0]

    def sd(self, column: str) -> float:
        """The sample standard deviation over the folds that have the figure; NaN where fewer than two do."""
        return mean_and_sd(self.values(column))[1]

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined ones are null."""

        rows = zip(self.names, self.rows, strict=True)
        values: dict[str, Any] = plain(
            {
                "rows": [
                    {"fold": fold} | {name: row.get(name, float("nan")) for name in self.columns} for fold, row in rows
                ],
                "mean": {name: self.mean(name) for name in self.columns},
                "sd": {name: self.sd(name) for name in self.columns},
            }
        )
        return values


def fold_table(runs: Sequence[Run]) -> FoldTable:
    """The table of fold runs, from their predictions and histories.

    Raises:
        RunError: a fold has no labelled, answered predictions.
    """
    rows = [fold_row(run) for run in runs]
    columns = sorted(dict.fromkeys(name for row in rows for name in row), key=_place)
    return FoldTable(tuple(run.fold or run.folder.name for run in runs), tuple(columns), tuple(rows))


def fold_row(run: Run) -> dict[str, float]:
    """The figures of one run's tested slices, without intervals, and what the training took."""
    answers = collect(run.tested)
    row = {"slices": float(len(answers)), "groups": float(len(set(answers.groups)))}
    if run.history:
        row["epochs"] = float(len(run.history))
        row["seconds"] = run.history[-1].get("seconds", float("nan"))
    for measures in headline(answers).values():
        row |= measures.points()
    return row


def headline(answers: Answers) -> dict[str, Measures]:
    """The figures that runs are compared by: of all, then of each source, with full column names as their names."""
    found = {
        "": Measures({"accuracy": accuracy(answers), "auc": macro_auc(answers)}, answers.groups, len(answers)),
        "tumour_slice": tumour_measures(answers),
        "tumour_patient": patient_measures(answers),
    }
    for origin in sorted(set(answers.origins) - {""}):
        part = answers.of(origin)
        found[f"{origin}{OF}tumour_slice"] = tumour_measures(part)
        found[f"{origin}{OF}tumour_patient"] = patient_measures(part)
        found[f"{origin}{OF}tumour_or_none_slice"] = none_measures(part)
    return {scope: _chosen(scope, measures) for scope, measures in found.items()}


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of the defined values; NaN where there are none, or fewer than two."""
    finite = np.asarray(values, dtype=np.float64)[np.isfinite(values)]
    mean = float(finite.mean()) if finite.size else float("nan")
    return mean, float(finite.std(ddof=1)) if finite.size > 1 else float("nan")


def save_folds(table: FoldTable, path: Path) -> None:
    """Write folds.csv, whole: a row a fold, then `mean` and `sd`; undefined figures are empty."""
    lines: list[tuple[str, Iterable[float]]] = [
        *((name, [row.get(key, float("nan")) for key in table.columns])
          for name, row in zip(table.names, table.rows, strict=True)),
        ("mean", map(table.mean, table.columns)),
        ("sd", map(table.sd, table.columns)),
    ]  # fmt: skip
    temporary = path.with_suffix(".part")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fold", *table.columns])
        for name, values in lines:
            writer.writerow([name, *("" if np.isnan(value) else f"{value:.9g}" for value in values)])
    temporary.replace(path)


def _chosen(scope: str, measures: Measures) -> Measures:
    """Accuracies and AUCs of tumours, the AUC of tumour against none, under full names."""
    keys = ("auc",) if "tumour_or_none" in scope else ("accuracy", "auc")
    named = {f"{scope}_{key}".lstrip("_"): measures.metrics[key] for key in keys if key in measures.metrics}
    return Measures(named, measures.groups, measures.n_slices)


def _place(column: str) -> tuple[bool, str]:
    """All sources first; within a source the order of `headline`, which sorting keeps."""
    source = column.rpartition(OF)[0]
    return bool(source), source
