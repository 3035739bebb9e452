"""The plots of a report, as inline SVG."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from tumorlens.evaluate.answers import Answers
from tumorlens.evaluate.calibration import ReliabilityBin
from tumorlens.evaluate.evaluation import Evaluation
from tumorlens.evaluate.metrics import Table
from tumorlens.evaluate.selective import SelectivePoint
from tumorlens.evaluate.subgroups import Subgroup
from tumorlens.records import class_title

# Okabe and Ito's palette: distinct for colour-blind readers; line styles differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLES = ("-", "--", "-.", ":")
INK, SOFT = "#1b2530", "#8794a0"


def training_curves(evaluation: Evaluation) -> str:
    """Training loss, validation loss and validation accuracy by epoch."""
    figure, (left, right) = _canvas(2)
    epochs = [row.get("epoch", number) + 1 for number, row in enumerate(evaluation.history)]
    for axis, keys in ((left, ("loss", "val_loss")), (right, ("val_accuracy", "val_balanced_accuracy"))):
        for number, key in enumerate(keys):
            label = {"loss": "training (all of its terms)", "val_loss": "validation",
                     "val_accuracy": "accuracy", "val_balanced_accuracy": "balanced accuracy"}[key]  # fmt: skip
            values = [row.get(key, np.nan) for row in evaluation.history]
            axis.plot(epochs, values, STYLES[number], color=COLOURS[number], marker="o", ms=3, label=label)
        axis.set_xlabel("epoch")
        axis.legend(frameon=False)
    left.set_title("Loss")
    right.set_title("Validation")
    return _svg(figure)


def roc_curves(answers: Answers) -> str:
    """One ROC curve a class, against the rest."""
    from sklearn.metrics import roc_curve

    figure, (axis,) = _canvas(1)
    for number, name in enumerate(answers.classes):
        truth = answers.labels == number
        if truth.any() and not truth.all():
            wrong, right, _ = roc_curve(truth, answers.probabilities[:, number])
            axis.plot(wrong, right, STYLES[number % 4], color=COLOURS[number % 6], label=_plain(class_title(name)))
    axis.plot([0, 1], [0, 1], color=SOFT, lw=0.8)
    axis.set(xlabel="1 − specificity", ylabel="sensitivity", title="ROC, one class against the rest")
    if len(axis.lines) > 1:  # answers of one class alone have no curve
        axis.legend(frameon=False, loc="lower right")
    return _svg(figure)


def precision_recall_curves(answers: Answers) -> str:
    """One precision-recall curve a class, against the rest."""
    from sklearn.metrics import precision_recall_curve

    figure, (axis,) = _canvas(1)
    for number, name in enumerate(answers.classes):
        truth = answers.labels == number
        if truth.any() and not truth.all():
            precision, recall, _ = precision_recall_curve(truth, answers.probabilities[:, number])
            axis.step(recall, precision, STYLES[number % 4], where="post", color=COLOURS[number % 6],
                      label=_plain(class_title(name)))  # fmt: skip
    axis.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", ylim=(-0.03, 1.03), title="Precision and recall")
    if axis.lines:
        axis.legend(frameon=False, loc="lower left")
    return _svg(figure)


def confusion_plot(table: Table, of: str) -> str:
    """The confusion matrix, shaded by the share of the true class, with counts."""
    figure, (axis,) = _canvas(1)
    confusion, classes = table.confusion, table.classes
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            dark = "white" if shares[row, column] > 0.55 else INK
            axis.text(column, row, f"{confusion[row, column]}\n{shares[row, column]:.0%}", ha="center", va="center",
                      color=dark, fontsize=8)  # fmt: skip
    names = [_plain(class_title(name)) for name in classes]
    axis.set_xticks(range(len(classes)), names, rotation=20, ha="right")
    axis.set_yticks(range(len(classes)), names)
    axis.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix ({of})")
    axis.spines[:].set_visible(False)
    return _svg(figure)


def reliability_plot(bins: Sequence[ReliabilityBin]) -> str:
    """Confidence against the share that was right, with intervals by patient; on the diagonal probabilities hold."""
    figure, (axis,) = _canvas(1)
    said = np.array([item.said for item in bins])
    right = np.array([[item.right.value, item.right.low, item.right.high] for item in bins])
    axis.plot([0, 1], [0, 1], color=SOFT, lw=0.8)
    below, above = np.abs(right[:, 0] - right[:, 1]), np.abs(right[:, 2] - right[:, 0])
    axis.errorbar(said, right[:, 0], [below, above], fmt="o-", ms=4, lw=1.2, capsize=2, color=COLOURS[0])
    low = min(0.5, float(np.nanmin(right)), float(said.min())) - 0.03
    axis.set(xlabel="confidence said", ylabel="share right", xlim=(low, 1.02), ylim=(low, 1.02),
             title="Reliability (equal shares of the slices)")  # fmt: skip
    return _svg(figure)


def selective_plot(points: Sequence[SelectivePoint]) -> str:
    """Accuracy against the share answered, the surest first."""
    figure, (axis,) = _canvas(1)
    answered = [point.answered.value for point in points]
    accuracy = [point.accuracy for point in points]
    axis.fill_between(
        answered, [a.low for a in accuracy], [a.high for a in accuracy], color=COLOURS[0], alpha=0.15, lw=0
    )
    axis.plot(answered, [a.value for a in accuracy], "o-", ms=4, color=COLOURS[0])
    axis.set(xlabel="share of slices answered", ylabel="accuracy of these", title="Answering only when sure")
    axis.invert_xaxis()
    return _svg(figure)


def forest_plot(parts: Sequence[Subgroup], overall: float) -> str:
    """The accuracy of each subgroup with its interval, beside that of all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 0.32 * len(parts) + 0.9), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.axvline(overall, color=SOFT, lw=0.8, ls="--")
    for row, part in enumerate(parts):
        found = part.figures["accuracy"]
        axis.plot([found.low, found.high], [row, row], color=COLOURS[0], lw=1.6)
        axis.plot(found.value, row, "s", color=COLOURS[0], ms=5)
    names = [_plain(f"{part.divided_by}: {part.part}  (n = {part.figures['accuracy'].n})") for part in parts]
    axis.set_yticks(range(len(parts)), names)
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set(xlabel="accuracy; dashed: all", title="Subgroups, with 95 % intervals by patient")
    return _svg(figure)


def _plain(name: str) -> str:
    """A name as it is: between two dollars Matplotlib would read mathematics."""
    return name.replace("$", r"\$")


def _canvas(count: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * count, 3.7), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib

    buffer = io.StringIO()
    # No date and fixed ids: the same figures give the same page.
    with matplotlib.rc_context({"svg.hashsalt": "tumorlens", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
