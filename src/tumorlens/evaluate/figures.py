"""The plots of a report, as inline SVG."""

import io
from typing import Any

import numpy as np

from tumorlens.evaluate.evaluation import Evaluation
from tumorlens.evaluate.metrics import Answers
from tumorlens.records import class_title

# Okabe and Ito's palette: distinct for colour-blind readers; line styles differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLES = ("-", "--", "-.", ":")


def training_curves(evaluation: Evaluation) -> str:
    """Training loss, validation loss and validation accuracy by epoch."""
    figure, (left, right) = _canvas(2)
    epochs = [row["epoch"] + 1 for row in evaluation.history]
    for axis, keys in ((left, ("loss", "val_loss")), (right, ("val_accuracy", "val_balanced_accuracy"))):
        for number, key in enumerate(keys):
            label = {"loss": "training (weighted, smoothed)", "val_loss": "validation",
                     "val_accuracy": "accuracy", "val_balanced_accuracy": "balanced accuracy"}[key]  # fmt: skip
            values = [row[key] for row in evaluation.history]
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
            axis.plot(wrong, right, STYLES[number % 4], color=COLOURS[number % 6], label=class_title(name))
    axis.plot([0, 1], [0, 1], color="#999", lw=0.8)
    axis.set(xlabel="1 − specificity", ylabel="sensitivity", title="ROC, one class against the rest")
    if len(axis.lines) > 1:  # answers of one class alone have no curve
        axis.legend(frameon=False, loc="lower right")
    return _svg(figure)


def confusion_plot(confusion: np.ndarray, classes: tuple[str, ...]) -> str:
    """The confusion matrix, shaded by the share of the true class, with counts."""
    figure, (axis,) = _canvas(1)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            dark = "white" if shares[row, column] > 0.55 else "#222"
            axis.text(column, row, f"{confusion[row, column]}\n{shares[row, column]:.0%}", ha="center", va="center",
                      color=dark, fontsize=8)  # fmt: skip
    names = [class_title(name) for name in classes]
    axis.set_xticks(range(len(classes)), names, rotation=20, ha="right")
    axis.set_yticks(range(len(classes)), names)
    axis.set(xlabel="predicted", ylabel="true", title="Confusion matrix (slices)")
    axis.spines[:].set_visible(False)
    return _svg(figure)


def _canvas(count: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * count, 3.7), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
