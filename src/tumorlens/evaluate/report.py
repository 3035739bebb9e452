"""report.html: one self-contained page, for reading on a screen and for printing, that says how good a model is."""

import base64
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from tumorlens import DISCLAIMER, __version__
from tumorlens.evaluate import figures as plots
from tumorlens.evaluate import tables
from tumorlens.evaluate.evaluation import Evaluation
from tumorlens.evaluate.kinds import INTERVALS
from tumorlens.evaluate.limits import limits
from tumorlens.evaluate.mistakes import Mistake
from tumorlens.records import Estimate, class_title
from tumorlens.textfile import write_whole


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write the page; it needs no network, no script and no other file."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((resources.files("tumorlens.evaluate") / "page.html").read_text("utf-8"))
    page = template.render(
        name=evaluation.name,
        version=__version__,
        disclaimer=DISCLAIMER,
        warnings=evaluation.warnings,
        intervals=INTERVALS,
        split_note=evaluation.split_note,
        leaky=evaluation.leaky,
        lead=_lead(evaluation),
        tiles=_tiles(evaluation),
        whole=_whole(evaluation),
        sides=[_side(evaluation, name) for name in evaluation.tables],
        figures=[_grid(grid) for grid in tables.figure_grids(evaluation)],
        plots=_plots(evaluation),
        trust=_trust(evaluation),
        trust_tables=[_grid(grid) for grid in (tables.label_set_grid(evaluation.trust),) if grid.rows],
        grids=[_grid(grid) for grid in tables.grids(evaluation)],
        bias=_grid(tables.bias_grid(evaluation.bias)) if evaluation.bias else None,
        gallery=[_mistake(item, item.picture) for item in evaluation.mistakes if item.picture],
        mistakes=_grid(tables.mistake_grid(evaluation.mistakes)) if evaluation.mistakes else None,
        limits=limits(evaluation),
        provenance=evaluation.provenance,
    )
    write_whole(path, page)


def _lead(evaluation: Evaluation) -> str:
    accuracy = evaluation.tables[evaluation.main].overall["accuracy"]
    who = "that it never saw" if evaluation.main == "test" and not evaluation.leaky else "of its own data"
    text = (
        f"Of {accuracy.n_slices} slices from {accuracy.n} patient groups {who}, {accuracy.value:.1%} were answered "
        "right"
    )
    text += f" ({accuracy.low:.1%} to {accuracy.high:.1%})." if accuracy.interval else "."
    types = evaluation.levels.patients.get("accuracy")
    if types is not None:
        text += f" Of {types.n} patients with a tumour, its type was right in {types.value:.1%}."
    worst = min(evaluation.tables[evaluation.main].by_class.items(), key=lambda item: item[1]["sensitivity"].value)
    return f"{text} Most often missed: {class_title(worst[0]).lower()}, found in {worst[1]['sensitivity'].value:.1%}."


def _tiles(evaluation: Evaluation) -> list[dict[str, str]]:
    overall = evaluation.tables[evaluation.main].overall
    chosen = [
        ("Slices answered right", overall["accuracy"]),
        ("Patients: tumour type right", evaluation.levels.patients.get("accuracy")),
        ("AUC, mean over classes", overall["auc"]),
        ("Calibration slope (1 is right)", overall["calibration_slope"]),
    ]
    return [
        {"title": title, "value": f"{item.value:.3f}", "interval": item.interval}
        for title, item in chosen
        if item is not None and tables.defined(item)
    ]


def _whole(evaluation: Evaluation) -> dict[str, int]:
    groups = {group for part in evaluation.answers.values() for group in part.groups}
    return {"slices": sum(map(len, evaluation.answers.values())), "groups": len(groups)}


def _side(evaluation: Evaluation, name: str) -> dict[str, Any]:
    answers = evaluation.answers[name]
    counts = Counter(answers.labels.tolist())
    return {
        "title": tables.side_title(name, evaluation.leaky),
        "slices": len(answers),
        "groups": len(set(answers.groups)),
        "classes": [f"{class_title(answers.classes[c])}: {counts[c]}" for c in answers.present],
    }


def _plots(evaluation: Evaluation) -> list[dict[str, Any]]:
    answers, table = evaluation.answers[evaluation.main], evaluation.tables[evaluation.main]
    made = [{"svg": plots.confusion_plot(table, "slices"), "wide": False}]
    if evaluation.main in evaluation.patient_tables:
        patients = evaluation.patient_tables[evaluation.main]
        made.append({"svg": plots.confusion_plot(patients, "patients, pooled"), "wide": False})
    made.append({"svg": plots.roc_curves(answers), "wide": False})
    made.append({"svg": plots.precision_recall_curves(answers), "wide": False})
    if evaluation.history:
        made.append({"svg": plots.training_curves(evaluation), "wide": True})
    return made


def _trust(evaluation: Evaluation) -> list[dict[str, Any]]:
    trust = evaluation.trust
    overall = evaluation.tables[evaluation.main].overall["accuracy"].value
    made = [
        {
            "svg": plots.reliability_plot(trust.reliability),
            "numbers": _grid(tables.reliability_grid(trust)),
            "wide": False,
        },
        {"svg": plots.selective_plot(trust.selective), "numbers": _grid(tables.selective_grid(trust)), "wide": False},
    ]
    if trust.subgroups:
        forest = plots.forest_plot(trust.subgroups, overall)
        made.append({"svg": forest, "numbers": _grid(tables.subgroup_grid(trust)), "wide": True})
    return made


def _mistake(item: Mistake, picture: Path) -> dict[str, str]:
    found = item.prediction
    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    said, true = class_title(found.predicted), class_title(found.label)
    return {
        "picture": f"data:image/jpeg;base64,{data}",
        "alt": f"{true} taken for {said}; beside it the heatmap of {said}",
        "said": f"said: {said}, {found.confidence:.1%}",
        "truth": f"true: {true}",
        "where": f"{found.patient_group} · {tables.slice_name(found)}",
    }


def _grid(grid: tables.Grid) -> dict[str, Any]:
    return {
        "title": grid.title,
        "heads": grid.heads,
        "note": grid.note,
        "rows": [[row[0], *map(_cell, row[1:])] for row in grid.rows],
    }


def _cell(cell: tables.Cell) -> dict[str, str]:
    if not tables.defined(cell):
        return {"value": tables.UNDEFINED, "interval": ""}
    if isinstance(cell, Estimate):
        return {"value": f"{cell.value:.3f}", "interval": cell.interval}
    return {"value": cell, "interval": ""}
