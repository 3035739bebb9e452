"""How one answered slice is shown: picture, map, answer, trust, and its report."""

import io
from collections.abc import Mapping
from html import escape
from typing import Any, Literal, get_args

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from tumorlens.app import drawings, parts, words
from tumorlens.data.preprocess import resize
from tumorlens.explain.overlay import as_seen, contoured, outlined, overlay, to_grey
from tumorlens.pipeline import Explained, Way
from tumorlens.records import Float32, Prediction, class_title
from tumorlens.runtime.predictor import Predictor

WAYS: dict[Way, str] = {"gradcam": "Grad-CAM", "sharp": "sharpened", "region": "tumour region"}
Drawn = Literal["colour", "contour", "compare"]
DRAWN: dict[Drawn, str] = {"colour": "Colour", "contour": "Contour", "compare": "Before / after"}
_NOTHING = ""
_CLEAR = 480  # pixels of width


def show(item: Explained, name: str, note: str, predictor: Predictor, key: str) -> None:
    """A slice with its answer.

    Args:
        item: the slice and its answer.
        name: what the slice is called on the page.
        note: what is to be known of it, such as that it is synthetic.
        predictor: the model.
        key: tells the widgets of one slice from those of another.
    """
    prediction = item.answer.prediction
    if item.answer.evidence is None or item.picture is None:
        _unanswered(prediction)
        return
    pictures, told = st.columns([7, 5], gap="large")
    with told:
        st.html(
            parts.soft(name)
            + f'<h2 class="tl-answer" data-testid="answer">{escape(class_title(prediction.predicted))}</h2>'
            + parts.soft(f"probability {prediction.confidence:.1%}")
            + _verdict(prediction)
            + drawings.bars(prediction)
            + parts.soft(words.BARS)
        )
        if note:
            st.info(note)
        target, against, way = _what(predictor, prediction, key)
    with pictures:
        _pictures(item, predictor, target, against, way)
    with st.expander(words.TRUST, key=f"trust_{key}"):
        trust(predictor, prediction)
    with st.expander(words.REPORT, key=f"report_{key}"):
        _report(item, name, predictor, (target, against), way, key)


def _what(predictor: Predictor, prediction: Prediction, key: str) -> tuple[str, str, Way]:
    """The class to explain, the one to set it apart from, and the kind of map."""
    classes = predictor.classes
    left, right = st.columns(2)
    target = left.selectbox(
        "Heatmap for", classes, index=classes.index(prediction.predicted), format_func=class_title, key=f"target_{key}"
    )
    others = [_NOTHING, *(name for name in classes if name != target)]
    against = right.selectbox(
        "rather than", others, format_func=lambda name: class_title(name) if name else "–",
        key=f"against_{key}_{target}", help=words.AGAINST_HELP,
    )  # fmt: skip
    if predictor.card.region is None:
        return target, against, "gradcam"
    way = st.segmented_control(
        "Map", get_args(Way), default="gradcam", format_func=WAYS.__getitem__, key="way", help=words.MAP_HELP,
        required=True, bind="query-params",
    )  # fmt: skip
    return target, against, way or "gradcam"


def _pictures(item: Explained, predictor: Predictor, target: str, against: str, way: Way) -> None:
    """The slice and its map, as the reader wants them drawn."""
    assert item.picture is not None
    pixels, spacing = item.picture.pixels, item.picture.spacing
    picture, map_side = st.columns(2)
    drawn = st.segmented_control(
        "Map as", get_args(Drawn), default="colour", format_func=DRAWN.__getitem__, key="drawn", required=True,
        bind="query-params",
    )  # fmt: skip
    left, right = st.columns(2)
    opacity = left.slider(
        "Opacity", 0, 100, 55, step=5, format="%d %%", key="opacity", bind="query-params", disabled=drawn == "contour"
    )
    low, high = right.slider("Grey values", 0, 100, (0, 100), format="%d %%", key="range", help=words.RANGE_HELP)
    shown = _windowed(pixels, low, high)
    values = item.heatmap("" if way == "region" else target, way=way, against="" if way == "region" else against)
    outlines, said = _with_region(item, shown, predictor)
    plain = as_seen(Image.fromarray(outlines), spacing)
    what = _map_caption(target, against, way)
    over = _contour(shown, values) if drawn == "contour" else overlay(shown, values, opacity / 100)
    map_picture = as_seen(over, spacing)
    if drawn == "compare":
        with picture.container():
            share = st.slider("Before / after", 0, 100, 50, format="%d %%", key="wipe", label_visibility="collapsed")
        grey = as_seen(Image.fromarray(to_grey(shown)), spacing)
        picture.image(_wiped(np.asarray(grey), map_picture, share), caption="Left: the slice; right: its map",
                      width="stretch", alt="The slice on the left, its heatmap on the right")  # fmt: skip
        map_side.image(plain, caption=said, width="stretch", alt=said)
    else:
        picture.image(plain, caption=said, width="stretch", alt=said)
        map_side.image(map_picture, caption=what, width="stretch", alt=f"Heatmap: {what}")
    buffer = io.BytesIO()
    map_picture.save(buffer, format="PNG")
    st.download_button("Download the overlay (PNG)", buffer.getvalue(), "overlay.png", "image/png", on_click="ignore")
    if not values.any():
        st.caption(words.EMPTY_MAP)


def _windowed(pixels: Float32, low: int, high: int) -> Float32:
    """The picture with grey values cut to a part of their range, given in percent."""
    if (low, high) == (0, 100):
        return pixels
    grey = to_grey(pixels).astype(np.float32)
    return np.clip(grey, 2.55 * low, max(2.55 * high, 2.55 * low + 1))


def _enlarged(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A small picture at a whole multiple of its size: lines drawn into it are then thin."""
    factor = max(1, round(_CLEAR / grey.shape[1]))
    if factor == 1:
        return grey
    size = (grey.shape[1] * factor, grey.shape[0] * factor)
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC))


def _contour(shown: Float32, values: Float32) -> Image.Image:
    large = _enlarged(to_grey(shown)).astype(np.float32)
    return contoured(large, resize(values, *large.shape))


def _wiped(grey: NDArray[np.uint8], right: Image.Image, share: int) -> Image.Image:
    """The slice up to a share of the width, its map from there on, and a line between."""
    mixed = np.asarray(right).copy()
    edge = round(grey.shape[1] * share / 100)
    mixed[:, :edge] = grey[:, :edge, None]
    mixed[:, max(edge - 1, 0) : edge + 1] = 255
    return Image.fromarray(mixed)


def _map_caption(target: str, against: str, way: Way) -> str:
    if way == "region":
        return "Where it sees tumour, whatever the class"
    rather = f" rather than {class_title(against).lower()}" if against else ""
    return f"Where it speaks for {class_title(target).lower()}{rather}"


def _with_region(item: Explained, shown: Float32, predictor: Predictor) -> tuple[NDArray[np.uint8], str]:
    """The slice, with the outline of its evidence region where there is one, and what to write below."""
    grey = _enlarged(to_grey(shown))
    region = predictor.card.region
    found = item.finding(region.threshold) if region else None
    if found is None:
        healthy = item.answer.prediction.predicted == "no_tumor"
        return grey, "The slice" if region is None else words.SEES_NONE if healthy else words.SEES_NO_PLACE
    drawn = outlined(np.repeat(grey[..., None], 3, axis=2), found.mask)
    return drawn, f"The slice, and where the model sees tumour ({found.place}, {found.size}). No segmentation"


def _unanswered(prediction: Prediction) -> None:
    """Why there is no answer."""
    if prediction.status == "error":
        st.error(parts.literal(prediction.message))
        return
    st.html(f'<h2 class="tl-answer" data-testid="answer">{words.NO_ANSWER}</h2>')
    st.warning(words.NOT_A_BRAIN)


def _verdict(prediction: Prediction) -> str:
    """What cannot be ruled out, and whether the answer counts as too uncertain and why."""
    lines = []
    if prediction.doubt:
        lines.append(f"<b>{words.UNCERTAIN}</b> {escape(prediction.doubt)}.")
    others = [class_title(name).lower() for name in prediction.label_set if name != prediction.predicted]
    if others:
        lines.append(escape(f"Not ruled out: {', '.join(others)}."))
    elif prediction.label_set and not prediction.doubt:
        lines.append(words.RULED_OUT)
    return "".join(f'<div class="tl-soft">{line}</div>' for line in lines)


def trust(predictor: Predictor, prediction: Prediction) -> None:
    """The model's measured figures, first those of this very kind of answer."""
    card = predictor.card
    st.markdown(own_kind(card.metrics, prediction))
    figures = card.metrics.get("by_class", {})
    rows = [
        {
            "Class": class_title(key),
            "Sensitivity": _interval(values["sensitivity"]),
            "Specificity": _interval(values["specificity"]),
            "PPV": _interval(values.get("ppv") or values["precision"]),
            "Patients with it": values["sensitivity"]["n"],
        }
        for key, values in figures.items()
    ]
    if rows:
        st.markdown(words.MEASURED.format(whose=card.metrics.get("figures_of", words.THE_MODEL)))
        st.table(rows)
    st.markdown((words.ANSWERS_ALL if card.refusal is None else words.REFUSES) + "\n" + words.LIMITS)
    st.caption(f"Model {card.name}, made {card.created[:10]} · classes {', '.join(card.classes)} · {card.licence}")


def own_kind(metrics: Mapping[str, Any], prediction: Prediction) -> str:
    """How often answers of this class and confidence were right, as far as it was measured."""
    for band in metrics.get("by_confidence", {}).get(prediction.predicted, []):
        if band["low"] <= prediction.confidence <= band["high"]:
            title = class_title(prediction.predicted).lower()
            said = f"**{title}** with {band['low']:.0%} to {band['high']:.0%}"
            right = band["right"]
            if right is None:
                return f"It seldom says {said}: too few of the tested slices to say how often that is right."
            models = metrics.get("by_confidence_of", words.THE_MODEL)
            return (
                f"Where {models} said {said}, that was right in **{_interval(right)}** of {right['n_slices']} slices "
                f"of {right['n']} patient groups, none of them seen in training."
            )
    return ""


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "–"
    if estimate["low"] is None:  # the same in every draw
        return f"{estimate['value']:.2f}"
    return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"


def _report(item: Explained, name: str, predictor: Predictor, classes: tuple[str, str], way: Way, key: str) -> None:
    from tumorlens.case_report import Case, case_html, case_pdf

    st.markdown(words.REPORT_NOTE)
    named = st.checkbox(words.WITH_NAME, key=f"named_{key}")
    kind = own_kind(predictor.card.metrics, item.answer.prediction).replace("**", "")
    case = Case(item, predictor.card, classes[0], way, name if named else "", kind, classes[1])
    with st.container(horizontal=True):
        # Made when it is asked for: most readers never do.
        st.download_button("Report (PDF)", lambda: case_pdf(case), "report.pdf", "application/pdf", on_click="ignore",
                           key=f"pdf_{key}")  # fmt: skip
        st.download_button("Report (HTML)", lambda: case_html(case), "report.html", "text/html", on_click="ignore",
                           key=f"html_{key}")  # fmt: skip
