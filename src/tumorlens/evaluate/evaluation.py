"""Evaluate a run folder: predictions in, metrics.json and report.html out."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tumorlens.bootstrap import ROUNDS
from tumorlens.data.predictions import read_predictions
from tumorlens.evaluate.answers import Answers, collect
from tumorlens.evaluate.bias import SIMPLE, BiasRow, bias_rows
from tumorlens.evaluate.folds import FoldTable, fold_table
from tumorlens.evaluate.kinds import INTERVALS
from tumorlens.evaluate.leaks import on_two_sides
from tumorlens.evaluate.metrics import Table, tabulate, tumour_figures
from tumorlens.evaluate.mistakes import Mistake, confident_mistakes, with_pictures
from tumorlens.evaluate.patients import is_patient, patient_figures, patient_table
from tumorlens.evaluate.run_folder import read_pooled
from tumorlens.evaluate.sources import Levels, SourceFigures, figures_by_source
from tumorlens.evaluate.trust import Trust, trust_of
from tumorlens.records import Estimate, Prediction
from tumorlens.textfile import write_whole
from tumorlens.values import estimates_json

SPLITS = ("train", "val", "test")
LEAKY = "SPLIT BY SLICE"
SCHEMA_VERSION = 3


@dataclass(frozen=True)
class Evaluation:
    """The figures of a run: tables and answers by split, tumour-only figures of the main side, and warnings.

    `tumours` are of the main side's slices; `patients` are of the patients of each split (see `patient_measures`);
    `patient_tables` have every figure of patients (see `patient_table`), without a split where there are none;
    `sources` is the main side source by source, empty where sources are not known; `trust` is of the main side. `folds`
    has a row a fold of a cross-validation; `provenance` says what the run was made from, as name and value,
    and `settings` how it was trained, empty where the answers come from elsewhere. `mistakes` are
    the confident ones; `bias` is what simple features reach, empty where nobody asked them.

    `history` has a row an epoch, empty where the predictions come from elsewhere. `assignment` is the hash of the
    split, empty where unknown; `leaky` says that patients are on two of its sides, and every table must say so.
    """

    name: str
    tables: dict[str, Table]
    answers: dict[str, Answers]
    tumours: dict[str, Estimate]
    trust: Trust
    warnings: tuple[str, ...]
    history: tuple[dict[str, float], ...] = ()
    assignment: str = ""
    leaky: bool = False
    patients: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    patient_tables: dict[str, Table] = field(default_factory=dict)
    sources: dict[str, SourceFigures] = field(default_factory=dict)
    folds: FoldTable | None = None
    provenance: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()
    bias: tuple[BiasRow, ...] = ()

    @property
    def levels(self) -> Levels:
        """The tumour figures of the main side for slices and patients of all sources."""
        return Levels(self.tumours, self.patients.get(self.main, {}))

    @property
    def split_note(self) -> str:
        """What stands by every table: which split it is of, and LEAKY where it is split by slice."""
        parts = (f"split {self.assignment[:12]}" if self.assignment else "", LEAKY if self.leaky else "")
        return ", ".join(part for part in parts if part)

    @property
    def main(self) -> str:
        """The split that the figures are about: test, else the last that there is."""
        return "test" if "test" in self.tables else list(self.tables)[-1]

    def to_json(self) -> dict[str, Any]:
        """Plain values for metrics.json; undefined figures are null."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "interval": INTERVALS,
            "split": {"assignment_sha256": self.assignment or None, "leaky_by_slice": self.leaky},
            "splits": {
                name: {
                    **_table_json(table),
                    "patients": _table_json(self.patient_tables[name]) if name in self.patient_tables else None,
                    "tumour_patients": estimates_json(self.patients.get(name, {})),
                }
                for name, table in self.tables.items()
            },
            **self.tumours_json(),
            "trust": self.trust.to_json(),
            "source_bias": [row.to_json() for row in self.bias],
            "folds": self.folds.to_json() if self.folds else None,
            "warnings": list(self.warnings),
        }

    def tumours_json(self) -> dict[str, Any]:
        """The tumour figures of the main side, for slices and patients, of all and by source."""
        return {
            "tumour_classes": estimates_json(self.levels.slices),
            "tumour_patients": estimates_json(self.levels.patients),
            "sources": {
                name: {
                    "tumours": _levels_json(figures.tumours),
                    "tumour_against_none": _levels_json(figures.against_none),
                }
                for name, figures in self.sources.items()
            },
        }


def evaluate_run(folder: Path, rounds: int = ROUNDS) -> Evaluation:
    """Evaluate the predictions of one run folder, or of a cross-validation's.

    A folder with fold runs below it is evaluated by what they tested.

    Raises:
        RunError: no predictions there, or none with labels, or the run's config or history is damaged.
    """
    run, folds = read_pooled(folder)
    evaluation = evaluate_predictions(
        run.predictions, folder.resolve().name, rounds, run.history, run.assignment, run.leaky
    )
    side = [item for item in run.predictions if (item.split or "test") == evaluation.main]
    folders = [folder, *(item.folder for item in folds)]
    simple = _simple_features(folders)
    return replace(
        evaluation,
        folds=fold_table(folds) if folds else None,
        provenance=run.provenance,
        settings=run.settings,
        mistakes=with_pictures(confident_mistakes(side), folders),
        bias=bias_rows(side, simple, rounds) if simple and evaluation.main == "test" else (),
    )


def evaluate_predictions(
    predictions: Sequence[Prediction],
    name: str,
    rounds: int = ROUNDS,
    history: Sequence[dict[str, float]] = (),
    assignment: str = "",
    leaky: bool = False,
) -> Evaluation:
    """Evaluate labelled predictions; those without a split count as `test`.

    Args:
        predictions: of one run, or pooled.
        name: what the figures are of.
        rounds: bootstrap draws.
        history: a row an epoch.
        assignment: the hash of the split, where known.
        leaky: the split is known to be leaky; where the predictions show it themselves, this need not be said.

    Raises:
        RunError: none of them is labelled and answered.
    """
    sides: dict[str, list[Prediction]] = defaultdict(list)
    for item in predictions:
        sides[item.split or "test"].append(item)
    usable = {name for name, rows in sides.items() if any(item.status == "ok" and item.label for item in rows)}
    if not usable:
        collect(predictions)  # says what is wanted
    answers = {name: collect(sides[name]) for name in SPLITS if name in usable}
    tables = {name: tabulate(part, rounds) for name, part in answers.items()}
    main = "test" if "test" in answers else list(answers)[-1]
    pooled = {name: patient_table(part, rounds) for name, part in answers.items()}
    shared, groups = on_two_sides(predictions)
    return Evaluation(
        name=name,
        tables=tables,
        answers=answers,
        tumours=tumour_figures(answers[main], rounds),
        trust=trust_of(answers[main], rounds),
        patients={name: patient_figures(part, rounds) for name, part in answers.items()},
        patient_tables={name: table for name, table in pooled.items() if table is not None},
        sources=figures_by_source(answers[main], rounds),
        warnings=(*_leaky_warning(shared, groups, leaky), *_warnings(predictions, answers)),
        history=tuple(history),
        assignment=assignment,
        leaky=leaky or shared > 0,
    )


def save_metrics(evaluation: Evaluation, path: Path) -> None:
    """Write metrics.json, whole."""
    write_whole(path, json.dumps(evaluation.to_json(), indent=2) + "\n")


def _simple_features(folders: Sequence[Path]) -> list[Prediction]:
    """What simple features say of the tested slices of a run, or of all folds of a cross-validation."""
    runs = folders[1:] or folders
    found = [folder / SIMPLE for folder in runs]
    if not all(path.is_file() for path in found):
        return []
    return [item for path in found for item in read_predictions(path)]


def _levels_json(levels: Levels) -> dict[str, Any]:
    return {"slices": estimates_json(levels.slices), "patients": estimates_json(levels.patients)}


def _table_json(table: Table) -> dict[str, Any]:
    return {
        "overall": estimates_json(table.overall),
        "by_class": {name: estimates_json(figures) for name, figures in table.by_class.items()},
        "confusion": {"classes": list(table.classes), "true_by_predicted": table.confusion.tolist()},
    }


def _leaky_warning(shared: int, groups: int, leaky: bool) -> list[str]:
    if not shared and not leaky:
        return []
    why = f"{shared} of {groups} patient groups are on more than one side" if shared else "patients were not kept apart"
    return [f"{LEAKY}: {why}. These figures are too good and say nothing about new patients."]


def _left_out(predictions: Sequence[Prediction]) -> Iterator[str]:
    """What no figure counts, by side."""
    for side in SPLITS:
        rows = [item for item in predictions if (item.split or "test") == side]
        told = {
            "refused": sum(item.status == "refused" for item in rows),
            "not readable": sum(item.status == "error" for item in rows),
            "without a label": sum(item.status == "ok" and not item.label for item in rows),
        }
        shown = ", ".join(f"{count} {why}" for why, count in told.items() if count)
        if shown:
            yield f"{sum(told.values())} of {len(rows)} slices in {side} are in no figure: {shown}."


def _warnings(predictions: Sequence[Prediction], answers: dict[str, Answers]) -> list[str]:
    found = list(_left_out(predictions))
    if not all(item.patient_group for item in predictions if item.label):
        found.append("Some images have no patient group; each counts as a patient, so intervals are too narrow.")
    # Rows without any group have their own warning above.
    given = {item.patient_group for item in predictions if item.patient_group}
    unknown = {g for part in answers.values() for g in part.groups if g in given and not is_patient(g)}
    if unknown:
        found.append(
            f"{len(unknown)} groups stand for images without a patient id, formed from copies: other slices of one "
            "person may be on two sides, so figures of these images are optimistic."
        )
    for name, part in answers.items():
        if len(set(part.groups)) == 1:
            found.append(f"One patient group alone in {name}: its figures say nothing of other patients.")
        if len(part.present) == 1:
            found.append(
                f"One class alone in {name} ({part.classes[part.present[0]]}): there is nothing to tell apart."
            )
    return found
