"""checklists.md: CLAIM 2024 and TRIPOD+AI, answered as far as a run's own files can; the rest is for a person."""

import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from tumorlens import DISCLAIMER, __version__
from tumorlens.evaluate import tables
from tumorlens.evaluate.evaluation import LEAKY, Evaluation
from tumorlens.evaluate.kinds import INTERVALS
from tumorlens.evaluate.limits import limits
from tumorlens.records import class_title
from tumorlens.textfile import write_whole

TO_WRITE = "**to be written by a person**"


def write_checklists(evaluation: Evaluation, path: Path) -> None:
    """Write the page, whole."""
    facts = facts_of(evaluation)
    lines = [
        f"# Reporting checklists: {evaluation.name}",
        "",
        f"Filled in by tumorlens {__version__} from the run's own files; topics are shortened, the papers have the "
        f"full items. What no file can say is marked: {TO_WRITE}. Check the rest before you sign it.",
    ]
    for part in checklists():
        rows = [(number, topic, facts.get(fact, "")) for number, topic, fact in part["items"]]
        answered = sum(bool(text) for *_, text in rows)
        lines += ["", f"## {part['name']}", "", f"{part['source']}. {answered} of {len(rows)} items answered.", ""]
        lines += ["| | Item | This run |", "|---|---|---|"]
        lines += [f"| {number} | {topic} | {text.replace('|', '/') or TO_WRITE} |" for number, topic, text in rows]
    write_whole(path, "\n".join(lines) + "\n")


def checklists() -> list[dict[str, Any]]:
    """The guidelines: `name`, `source`, and `items` as number, topic and the name of the fact that answers it."""
    text = (resources.files("tumorlens.evaluate") / "checklists.toml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text)["list"]
    return found


def facts_of(evaluation: Evaluation) -> dict[str, str]:
    """What the files of a run say, by name; of a run that tumorlens did not train, only what its answers tell."""
    return dict(_of_answers(evaluation)) | (dict(_of_training(evaluation)) if evaluation.settings else {})


def _of_answers(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    answers = evaluation.answers[evaluation.main]
    origins = sorted(set(answers.origins) - {""})
    overall = evaluation.tables[evaluation.main].overall
    classes = [class_title(name) for name in answers.classes]
    yield "use", DISCLAIMER
    unseen = "patients that it did not see" if _unseen(evaluation) else "slices of patients that it was made with"
    yield "goal", f"Development of a model and evaluation on {unseen}"
    yield "outcome", f"One of {', '.join(classes)} for each slice; how the labels were made, the data sets say"
    if origins:
        counted = (
            f"{name}: {len(answers.of(name))} slices, {len(set(answers.of(name).groups))} groups" for name in origins
        )
        yield "sources", f"{'; '.join(counted)} ({evaluation.main})"
    yield "level", _level(evaluation)
    yield "internal", _level(evaluation)
    yield (
        "measures",
        (
            "For slices and patients: accuracy, balanced accuracy, AUC, average precision, F1, Matthews’ correlation, "
            "kappa, log loss, Brier score, calibration error (two binnings), slope and intercept; by class "
            "sensitivity, specificity, PPV, NPV"
        ),
    )
    yield "uncertainty", f"Intervals: {INTERVALS}; no hypothesis tests"
    yield (
        "counts",
        "; ".join(
            f"{tables.side_title(name, evaluation.leaky)}: {len(part)} slices of {len(set(part.groups))} groups"
            for name, part in evaluation.answers.items()
        ),
    )
    yield "characteristics", "; ".join(_characteristics(evaluation))
    yield (
        "performance",
        "; ".join(
            f"{title} {overall[key]}" for key, title in (("accuracy", "accuracy"), ("auc", "AUC"), ("ece", "ECE"))
        ),
    )
    yield (
        "by_class",
        "; ".join(
            f"{class_title(name)}: sensitivity {own['sensitivity']}, specificity {own['specificity']}"
            for name, own in evaluation.tables[evaluation.main].by_class.items()
        ),
    )
    if evaluation.trust.subgroups:
        parts = dict.fromkeys(item.divided_by.lower() for item in evaluation.trust.subgroups)
        yield "subgroups", f"Accuracy and AUC by {', '.join(parts)} in report.html; age and sex are not in the manifest"
    if evaluation.sources or evaluation.folds:
        yield "clusters", "By source and, where there are folds, fold by fold with standard deviation in report.html"
    yield (
        "failures",
        (
            f"The {len(evaluation.mistakes)} most confident mistakes, one a patient, by rank, in report.html"
            if evaluation.mistakes
            else "No slice was answered wrong"
        ),
    )
    yield "limits", " ".join(limits(evaluation))


def _of_training(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    settings, provenance = evaluation.settings, dict(evaluation.provenance)
    plan, prepared = settings.get("finetune") or {}, settings.get("preprocess") or {}
    stages = ", ".join(f"{stage['epochs']} epochs at {stage['size']} pixels" for stage in plan.get("stages", ()))
    masks = plan.get("evidence_weight", 0) or plan.get("cell_weight", 0)
    weighed = "class weights by inverse frequency" if settings.get("class_weights") else "no class weights"
    drawn = "even draws by square root of counts" if settings.get("sampling") == "square_root" else "every slice once"
    dilated = " with a dilated last stage" if (settings.get("network") or {}).get("dilated") else ""
    yield "technology", "A convolutional neural network (ResNet-50) that classifies single MRI slices"
    yield "predictors", "The pixels of one slice; no clinical variables"
    yield (
        "preprocessing",
        (
            f"Head cropped, intensities clipped at percentiles {prepared.get('low_percentile')} and "
            f"{prepared.get('high_percentile')}, resized to {prepared.get('size')} x {prepared.get('size')}; the "
            "bundle carries the settings"
        ),
    )
    yield "missing", "An image or mask that cannot be read stops training; slices without a mask lack the mask's losses"
    yield (
        "assignment",
        f"{_by_whom(evaluation)}, split {evaluation.assignment[:12]}; the tested side takes no part in choosing",
    )
    head = provenance.get("Region head")
    yield (
        "model",
        f"ResNet-50{dilated}, global average pooling, dropout {settings.get('dropout')}, one linear layer"
        + (f"; a region head on conv3 and conv4 with a say in no_tumor, fitted on {head}" if head else ""),
    )
    yield "software", provenance.get("Versions", "")
    yield "initial", provenance.get("Initial weights", "random")
    yield (
        "training",
        (
            f"SGD (momentum {settings.get('momentum')}, weight decay {settings.get('weight_decay')}), batches of "
            f"{settings.get('batch_size')}, {stages}, from {plan.get('first_layer')} on, peak rate "
            f"{plan.get('learning_rate')}; augmentation; label smoothing {settings.get('label_smoothing')}; {weighed}; "
            f"{drawn}; {'losses on tumour masks' if masks else 'no masks'}; seed {settings.get('seed')}"
        ),
    )
    yield "selection", "The epoch with the lowest validation loss"
    yield "ensemble", "None"
    yield "imbalance", f"{weighed}; {drawn}; class shares put right in the bias where draws or weights changed them"
    yield "explanation", "Grad-CAM at the last residual block, in closed form from the class evidence maps"
    yield "recalibration", _recalibration(provenance)
    yield "output", "Softmax of the logits divided by the temperature; the most probable class; see model.json"
    yield "specification", "The bundle: graph, weights, preprocessing, classes, temperature, with hashes"
    yield "bad_input", "What cannot be read or is no slice is an error row; the rest is answered all the same"
    yield "detail", "config.json, history.csv, predictions.csv and model.json of the run"
    yield "availability", "tumorlens is open source (MIT); of model and data a person must say it"
    yield "code_sharing", f"tumorlens {__version__}, MIT licence; commit {provenance.get('Commit', 'unknown')}"


def _level(evaluation: Evaluation) -> str:
    if evaluation.leaky:
        return f"{LEAKY}: patients are on several sides, the figures say nothing about new patients"
    return f"Patient groups: no group is on two sides. {_sources_of_sides(evaluation)}".strip()


def _unseen(evaluation: Evaluation) -> bool:
    return evaluation.main == "test" and not evaluation.leaky


def _by_whom(evaluation: Evaluation) -> str:
    return f"{LEAKY}: patients are on several sides" if evaluation.leaky else "By patient group"


def _recalibration(provenance: dict[str, str]) -> str:
    factor = provenance.get("Temperature factor")
    return "One temperature, fitted on validation patients" + (
        f", times {factor} from the tested patients of a cross-validation" if factor else ""
    )


def _sources_of_sides(evaluation: Evaluation) -> str:
    """Whether what is tested comes from sources that were learned from; empty where that is not known."""
    of = {name: set(part.origins) - {""} for name, part in evaluation.answers.items()}
    tested, learned = of.pop(evaluation.main), set().union(*of.values())
    if not tested or not learned:
        return ""
    new = sorted(tested - learned)
    return f"Tested alone, so from elsewhere: {', '.join(new)}" if new else "All sides come from the same sources"


def _characteristics(evaluation: Evaluation) -> Iterator[str]:
    for name, part in evaluation.answers.items():
        counts = Counter(part.labels.tolist())
        shown = ", ".join(f"{class_title(part.classes[c])} {counts[c]}" for c in part.present)
        yield f"{tables.side_title(name, evaluation.leaky)}: {shown}"
    yield "age, sex and stage are not in the manifest"
