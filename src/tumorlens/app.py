"""The Streamlit page: drop a picture or a DICOM slice, get an answer with its reason."""

import io
from html import escape
from pathlib import Path
from typing import Any, get_args

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from tumorlens import DISCLAIMER
from tumorlens.data.readers import SUFFIXES, Entry, read_slices
from tumorlens.errors import TumorlensError
from tumorlens.examples import EXAMPLES, Example
from tumorlens.explain.overlay import outlined, to_grey
from tumorlens.pipeline import REFERENCE, Explained, Way
from tumorlens.records import Prediction, Slice, class_title
from tumorlens.runtime.predictor import Predictor

WAYS: dict[Way, str] = {"gradcam": "Grad-CAM", "sharp": "sharpened", "region": "tumour region"}
_STYLE = """
<style>
.block-container { padding-top: 2.6rem; max-width: 1180px; }
.tl-banner { border-left: 4px solid #c77700; background: rgba(199,119,0,.10); padding: .45rem .8rem; }
.tl-banner { font-size: .92rem; }
.tl-answer { font-size: 1.9rem; font-weight: 650; line-height: 1.2; margin: .1rem 0; }
.tl-soft { opacity: .72; font-size: .92rem; }
.tl-row { display: grid; grid-template-columns: 9.5rem 1fr 3.6rem; align-items: center; gap: .7rem; margin: .34rem 0; }
.tl-track { height: .7rem; border-radius: .35rem; background: rgba(128,128,128,.20); overflow: hidden; }
.tl-fill { height: 100%; border-radius: .35rem; background: #8aa0ab; }
.tl-row.first .tl-fill { background: #0b7a75; } .tl-row.first { font-weight: 600; }
.tl-number { text-align: right; font-variant-numeric: tabular-nums; }
</style>
"""


def main() -> None:
    """Draw the page."""
    st.set_page_config(page_title="tumorlens", page_icon="🔎", layout="wide")
    st.html(_STYLE)
    st.title("tumorlens", anchor=False)
    st.caption(
        "Glioma, meningioma, pituitary tumour or none, in one MRI slice of the head, and where the answer comes from."
    )
    first, rest = DISCLAIMER.split(". ", 1)
    st.html(f'<div class="tl-banner" role="note"><b>{escape(first)}.</b> {escape(rest)}</div>')
    try:
        predictor = load_predictor(str(REFERENCE))
    except TumorlensError as error:
        st.error(f"The model cannot be loaded: {error}")
        return
    slices, name, note = _choose()
    if not slices:
        return
    frame = st.slider("Frame", 1, len(slices), len(slices) // 2 + 1) - 1 if len(slices) > 1 else 0
    answer = predictor.predict([slices[frame]])[0]
    if answer.evidence is None:
        _unanswered(answer.prediction)
        return
    _show(Explained(answer, slices[frame]), name, note, predictor)


@st.cache_resource(show_spinner="Loading the model …")
def load_predictor(folder: str) -> Predictor:
    """The model, loaded once a server."""
    return Predictor(Path(folder))


def read_upload(data: bytes, name: str) -> list[Slice]:
    """The slices of an uploaded file; it never lies on disk, and its name is never a path.

    Raises:
        TumorlensError: the file cannot be used.
    """
    return read_slices(Entry(name, data))


def _choose() -> tuple[list[Slice], str, str]:
    """The slices to answer, their name and what is to be said of them: an upload goes before an example."""
    left, right = st.columns([5, 7], gap="large")
    with left:
        upload = st.file_uploader(
            "Your picture, DICOM file or NIfTI volume",
            type=[suffix.rpartition(".")[2] for suffix in SUFFIXES],
            key="upload",
        )
        st.html('<div class="tl-soft">Nothing leaves this computer and nothing is written to disk.</div>')
    with right:
        _gallery()
    if upload is not None:
        try:
            return read_upload(upload.getvalue(), upload.name), upload.name, ""
        except TumorlensError as error:
            st.error(str(error))
            return [], "", ""
    chosen = st.session_state.get("example", EXAMPLES[0].key)
    example = next(item for item in EXAMPLES if item.key == chosen)
    return read_slices(example.path), example.title, example.note


def _gallery() -> None:
    st.html("<div>Or an example <span class='tl-soft'>(synthetic: drawn into an averaged healthy head)</span></div>")
    for column, example in zip(st.columns(len(EXAMPLES)), EXAMPLES, strict=True):
        with column:
            st.image(str(example.path), width="stretch")
            st.button(example.title, key=f"example_{example.key}", on_click=_take, args=(example,), width="stretch")


def _take(example: Example) -> None:
    st.session_state["example"] = example.key


def _show(item: Explained, name: str, note: str, predictor: Predictor) -> None:
    prediction = item.answer.prediction
    st.divider()
    pictures, words = st.columns([7, 5], gap="large")
    with words:
        st.html(
            f'<div class="tl-soft">{escape(name)}</div>'
            f'<div class="tl-answer" data-testid="answer">{class_title(prediction.predicted)}</div>'
            f'<div class="tl-soft">probability {prediction.confidence:.1%}</div>' + _verdict(prediction) + _bars(item)
        )
        if note:
            st.info(note)
        target = st.selectbox(
            "Heatmap for", predictor.classes, index=predictor.classes.index(prediction.predicted),
            format_func=class_title, key=f"target_{name}_{prediction.frame}",
        )  # fmt: skip
        way = _way(predictor)
        opacity = st.slider("Opacity of the heatmap", 0, 100, 55, step=5, format="%d %%") / 100
    with pictures:
        picture, map_side = st.columns(2)
        assert item.picture is not None  # an answer has its picture
        overlay = item.overlay(target, opacity, way)
        plain, said = _with_region(item, predictor)
        picture.image(plain, caption=said, width="stretch")
        speaks = f"Where it speaks for {class_title(target).lower()}"
        map_side.image(
            overlay, caption=speaks if way != "region" else "Where it sees tumour, whatever the class", width="stretch"
        )
        buffer = io.BytesIO()
        overlay.save(buffer, format="PNG")
        st.download_button("Download the overlay (PNG)", buffer.getvalue(), "overlay.png", "image/png")
        if not item.heatmap(target, way=way).any():
            st.caption("The map is empty: nothing in this picture speaks for this class more than for the others.")
    with st.expander("How far to trust this"):
        _trust(predictor)


def _way(predictor: Predictor) -> Way:
    """Which map to show, where the model can draw more than one."""
    if predictor.card.region is None:
        return "gradcam"
    return st.segmented_control(
        "Map", get_args(Way), default="gradcam", format_func=WAYS.__getitem__, key="way",
        help="Grad-CAM shows what the answer rests on, on a coarse grid. Sharpened, it is kept where the model sees "
        "tumour on finer cells. The region is where it sees tumour, whatever it answers.",
    ) or "gradcam"  # fmt: skip


def _with_region(item: Explained, predictor: Predictor) -> tuple[NDArray[np.uint8], str]:
    """The slice, with the outline of its evidence region where there is one, and what to write below."""
    assert item.picture is not None
    grey = to_grey(item.picture.pixels)
    region = predictor.card.region
    found = item.finding(region.threshold) if region else None
    if found is None:
        return grey, "The slice" if region is None else "The slice; the model sees no tumour in it"
    size = f"{found.area_mm2:.0f} mm²" if found.area_mm2 else f"{found.area / found.mask.size:.1%} of the picture"
    drawn = outlined(np.repeat(grey[..., None], 3, axis=2), found.mask)
    return drawn, f"The slice, and where the model sees tumour ({found.place}, {size}). No segmentation"


def _unanswered(prediction: Prediction) -> None:
    """Why there is no answer."""
    if prediction.status == "error":
        st.error(prediction.message)
        return
    st.html('<div class="tl-answer" data-testid="answer">No answer</div>')
    st.warning(
        "This does not look like an MRI slice of the head, as far as this model can tell. It answers only what "
        "resembles the scans it learned from."
    )


def _verdict(prediction: Prediction) -> str:
    """What cannot be ruled out, and whether the answer counts as too uncertain."""
    lines = []
    if prediction.status == "refused":
        lines.append("<b>Too uncertain to count as an answer.</b>")
    others = [class_title(name).lower() for name in prediction.label_set if name != prediction.predicted]
    if others:
        lines.append(f"Not ruled out: {', '.join(others)}.")
    elif prediction.label_set:
        lines.append("The other classes are ruled out, as far as 9 in 10 such slices go.")
    return "".join(f'<div class="tl-soft">{line}</div>' for line in lines)


def _bars(item: Explained) -> str:
    prediction = item.answer.prediction
    ranked = sorted(zip(prediction.probabilities, prediction.classes, strict=True), reverse=True)
    rows = [
        f'<div class="tl-row{" first" if number == 0 else ""}"><div>{class_title(key)}</div>'
        f'<div class="tl-track"><div class="tl-fill" style="width:{share:.1%}"></div></div>'
        f'<div class="tl-number">{share:.1%}</div></div>'
        for number, (share, key) in enumerate(ranked)
    ]
    return "<div style='margin:.9rem 0'>" + "".join(rows) + "</div>"


def _trust(predictor: Predictor) -> None:
    card = predictor.card
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
        st.markdown("Measured on patients that the model never saw, with 95 % intervals by patient:")
        st.table(rows)
    st.markdown(
        f"- {_refusals(predictor)}\n"
        "- Tumours and healthy heads of the training data come largely from different sources; part of what tells "
        "them apart may be the source.\n"
        "- A heatmap shows where the network found its evidence, on a coarse grid; often that is not in the "
        "tumour. It is no outline."
    )
    st.caption(f"Model {card.name}, made {card.created[:10]} · classes {', '.join(card.classes)} · {card.licence}")


def _refusals(predictor: Predictor) -> str:
    if predictor.card.refusal is None:
        return "The model answers **every** picture, also one that is no brain MRI: do not read an answer for such."
    return "Pictures that are no brain MRI are refused, but not every one of them: do not read an answer for such."


def _interval(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "–"
    return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"


if __name__ == "__main__":
    main()
