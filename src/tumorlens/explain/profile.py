"""The probability of each class along a volume, as SVG: sharp in print, readable without colour, nothing to load."""

from collections.abc import Callable, Sequence
from html import escape

from tumorlens.records import Prediction, class_title

#: A colour and a dash for each class, told apart by either alone.
LINES: dict[str, tuple[str, str]] = {
    "glioma": ("#d55e00", ""), "meningioma": ("#0072b2", "7 3"), "no_tumor": ("#7f7f7f", "2 3"),
    "pituitary": ("#009e73", "9 3 2 3"),
}  # fmt: skip
_INK = "#7c8791"  # read on white and on black
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 200, 44, 160, 12, 34


def profile(predictions: Sequence[Prediction], frames: Sequence[int], shown: int, count: int) -> str:
    """The probability of each class along a volume, as SVG; a line marks the slice that is shown.

    Args:
        predictions: of some slices; those without an answer leave a gap.
        frames: the places (0 to count - 1) of these slices.
        shown: the place of the slice that is shown.
        count: how many slices there are.
    """
    classes = predictions[0].classes

    def x(frame: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * frame / max(count - 1, 1)

    def y(share: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)

    parts = [
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="{_INK}" '
        f'stroke-opacity=".15"/><text x="{_LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.0%}</text>'
        for v in (0, 0.5, 1)
    ]
    parts += [_curve(predictions, frames, number, x, y) for number in range(len(classes))]
    parts.append(
        f'<line x1="{x(shown):.1f}" x2="{x(shown):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{_INK}" '
        f'stroke-width="1.5"/><text x="{x(shown):.1f}" y="{_HEIGHT - 14}" text-anchor="middle">slice {shown + 1}</text>'
    )
    for number, name in enumerate(classes):
        colour, dash = LINES.get(name, ("#7f7f7f", ""))
        height = _TOP + 14 + 22 * number
        parts.append(
            f'<line x1="{_WIDTH - _RIGHT + 12}" x2="{_WIDTH - _RIGHT + 36}" y1="{height}" y2="{height}" '
            f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"/>'
            f'<text x="{_WIDTH - _RIGHT + 42}" y="{height + 4}">{escape(class_title(name))}</text>'
        )
    about = f"Probability of {', '.join(class_title(name) for name in classes)} along {count} slices"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{_INK}"><title>{escape(about)}</title>{"".join(parts)}</svg>'
    )


def _curve(
    predictions: Sequence[Prediction],
    frames: Sequence[int],
    number: int,
    x: Callable[[int], float],
    y: Callable[[float], float],
) -> str:
    colour, dash = LINES.get(predictions[0].classes[number], ("#7f7f7f", ""))
    pieces: list[list[str]] = [[]]
    for item, frame in zip(predictions, frames, strict=True):
        if item.probabilities:
            pieces[-1].append(f"{x(frame):.1f},{y(item.probabilities[number]):.1f}")
        elif pieces[-1]:
            pieces.append([])
    return "".join(
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2.2" '
        f'stroke-dasharray="{dash}"/>'
        if len(points) > 1
        else f'<circle cx="{points[0].split(",")[0]}" cy="{points[0].split(",")[1]}" r="2.5" fill="{colour}"/>'
        for points in pieces
        if points
    )
