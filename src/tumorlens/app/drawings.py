"""Bars of probabilities, as HTML."""

from html import escape

from tumorlens.records import Prediction, class_title


def bars(prediction: Prediction) -> str:
    """The probability of each class, the highest first."""
    ranked = sorted(zip(prediction.probabilities, prediction.classes, strict=True), reverse=True)
    rows = [
        f'<div class="tl-row{" first" if number == 0 else ""}"><div>{escape(class_title(key))}</div>'
        f'<div class="tl-track"><div class="tl-fill" style="width:{share:.1%}"></div></div>'
        f'<div class="tl-number">{share:.1%}</div></div>'
        for number, (share, key) in enumerate(ranked)
    ]
    return "<div style='margin:.9rem 0 .3rem'>" + "".join(rows) + "</div>"
