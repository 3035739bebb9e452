"""One page about one slice, as PDF or as a self-contained HTML file. It names no patient, and a file only if asked."""

import base64
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tumorlens import DISCLAIMER, __version__
from tumorlens.explain.finding import EvidenceRegion
from tumorlens.explain.overlay import as_seen, outlined, overlay, to_grey
from tumorlens.model.bundle import ONNX, Card
from tumorlens.pipeline import Explained, Way
from tumorlens.records import Prediction, class_title

_MAPS = {"gradcam": "Grad-CAM at the last residual block", "sharp": "Grad-CAM, sharpened by the tumour region",
         "region": "where the model sees tumour"}  # fmt: skip
PAGE = Path(__file__).parent / "case_report.html"


@dataclass(frozen=True)
class Case:
    """An answered slice and what its report is to say.

    `target` is the class explained, `against` one that it is set apart from; `name` that of the file, if it is wanted;
    `measured` a sentence on answers of this kind.
    """

    item: Explained
    card: Card
    target: str
    way: Way = "gradcam"
    name: str = ""
    measured: str = ""
    against: str = ""


def case_html(case: Case) -> bytes:
    """The report as one HTML file without links to anything, UTF-8."""
    left, right = (_data_uri(picture) for picture in _pictures(case))
    return str(_template().render(**_facts(case), left=left, right=right)).encode()


def case_pdf(case: Case) -> bytes:
    """The report as a PDF of one A4 page."""
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    facts = _facts(case)
    figure = Figure(figsize=(8.27, 11.69))
    FigureCanvasPdf(figure)

    def write(y: float, text: str, size: float, **more: Any) -> None:
        figure.text(0.09, y, text, fontsize=size, va="top", parse_math=False, **more)

    write(0.955, "tumorlens", 11, color="#0b7a75", weight="bold")
    figure.text(0.91, 0.955, facts["date"], fontsize=9, va="top", ha="right", color="#5a6670")
    write(0.93, DISCLAIMER, 9, color="#8a4b00", weight="bold")
    write(0.895, facts["answer"], 20, weight="bold")
    write(0.862, facts["verdict"], 10)
    for place, picture in zip((0.09, 0.51), _pictures(case), strict=True):
        axis = figure.add_axes((place, 0.52, 0.40, 0.30))
        axis.imshow(picture)
        axis.set_axis_off()
    for place, caption in ((0.09, facts["left_caption"]), (0.51, facts["right_caption"])):
        _paragraph(figure, place, 0.512, caption, 46, color="#5a6670")
    axis = figure.add_axes((0.27, 0.33, 0.56, 0.13))
    shares = facts["shares"][::-1]
    drawn = axis.barh([title for title, _, _ in shares], [share for _, share, _ in shares], color="#0b7a75", height=0.6)
    axis.bar_label(drawn, [text for _, _, text in shares], padding=4, fontsize=9)
    axis.set(xlim=(0, 1.1), xticks=[])
    axis.tick_params(length=0, labelsize=9.5)
    axis.spines[:].set_visible(False)
    rows = [("Label set", facts["label_set"]), *facts["rows"]]
    for number, (key, value) in enumerate(rows):
        y = 0.30 - 0.0175 * number
        figure.text(0.09, y, key, fontsize=9, va="top", color="#5a6670")
        figure.text(0.27, y, value if len(value) < 90 else f"{value[:88]}…", fontsize=9, va="top", parse_math=False)
    if case.measured:
        _paragraph(figure, 0.09, 0.30 - 0.0175 * len(rows) - 0.012, case.measured)
    _paragraph(figure, 0.09, 0.075, facts["limits"], color="#5a6670")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"Title": "tumorlens report", "CreationDate": None})
    return buffer.getvalue()


def _paragraph(figure: Any, x: float, y: float, text: str, width: int = 100, color: str = "black") -> None:
    import textwrap

    figure.text(
        x,
        y,
        "\n".join(textwrap.wrap(text, width)),
        fontsize=9,
        va="top",
        linespacing=1.35,
        color=color,
        parse_math=False,
    )


def _facts(case: Case) -> dict[str, Any]:
    item = case.item.answer.prediction
    assert case.item.picture is not None  # an answer has its picture
    height, width = case.item.picture.pixels.shape
    region = case.item.finding(case.card.region.threshold) if case.card.region else None
    ranked = sorted(zip(item.probabilities, item.classes, strict=True), reverse=True)
    spacing = case.item.picture.spacing
    rows = [
        ("Slice", f"{width} × {height} pixels" + (f", of {spacing[1]:.3g} × {spacing[0]:.3g} mm" if spacing else "")),
        ("Model", f"{case.card.name}, made {case.card.created[:10]}, temperature {case.card.temperature:.3f}"),
        ("SHA-256 of the model", case.card.files.get(ONNX, "")[:32] + "…"),
        ("Software", f"tumorlens {__version__}"),
    ]
    if case.card.region:
        rows.insert(0, ("Evidence region", _region(region)))
    if case.name:
        rows.insert(0, ("File", case.name))
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "disclaimer": DISCLAIMER,
        "answer": f"{class_title(item.predicted)}, {item.confidence:.1%}",
        "verdict": _verdict(item),
        "left_caption": "The slice" + ("; outlined: where the model sees tumour" if region else ""),
        "right_caption": _map_title(case),
        "shares": [(class_title(name), share, f"{share:.1%}") for share, name in ranked],
        "label_set": ", ".join(class_title(name) for name in item.label_set) or "none at this coverage",
        "rows": rows,
        "measured": case.measured,
        "limits": "A heatmap shows where the network found its evidence; an evidence region is no segmentation. "
        "Of pictures that are unlike those of its training the model is less sure than it says.",
    }  # fmt: skip


def _verdict(item: Prediction) -> str:
    if item.doubt:
        return f"Too uncertain to count as an answer: {item.doubt}."
    if item.message:  # somebody asked for all answers
        return f"Would not be answered if it were not asked for: {item.message.partition(';')[0]}."
    return f"The most probable of {len(item.classes)} classes, by the model; no diagnosis."


def _region(found: EvidenceRegion | None) -> str:
    return "none" if found is None else f"{found.place} of the head, {found.size}; no segmentation"


def _map_title(case: Case) -> str:
    if case.way == "region":
        return _MAPS[case.way].capitalize()
    rather = f" rather than {class_title(case.against).lower()}" if case.against else ""
    return f"{_MAPS[case.way]}, for {class_title(case.target).lower()}{rather}"


def _pictures(case: Case) -> tuple[Any, Any]:
    """The slice with its outline, and its map, RGB arrays (h, w, 3)."""
    assert case.item.picture is not None
    grey = np.repeat(to_grey(case.item.picture.pixels)[..., None], 3, axis=2)
    region = case.item.finding(case.card.region.threshold) if case.card.region else None
    left = outlined(grey, region.mask) if region else grey
    chosen = ("", "") if case.way == "region" else (case.target, case.against)
    values = case.item.heatmap(chosen[0], way=case.way, against=chosen[1])
    spacing = case.item.picture.spacing
    right = as_seen(overlay(case.item.picture.pixels, values), spacing)
    return np.asarray(as_seen(Image.fromarray(left), spacing)), np.asarray(right)


def _data_uri(picture: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@cache
def _template() -> Any:
    from jinja2 import Environment

    return Environment(autoescape=True).from_string(PAGE.read_text(encoding="utf-8"))
