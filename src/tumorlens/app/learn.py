"""How an answer and its map come about, with the model's own numbers; and why splits by slice mislead."""

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from tumorlens.app import parts, words
from tumorlens.data.preprocess import prepare
from tumorlens.data.readers import read_slices
from tumorlens.examples import EXAMPLES
from tumorlens.explain.gradcam import gradcam
from tumorlens.explain.overlay import overlay, to_grey
from tumorlens.pipeline import Explained
from tumorlens.records import Float32, class_title

PATIENTS, SLICES, FEATURES = 60, 12, 24
_CELL = 22  # pixels of a cell of an evidence map


def page() -> None:
    """Draw the page."""
    parts.heading(words.LEARN, words.LEARN_ABOUT)
    predictor = parts.choose_predictor()
    if predictor is None:
        return
    single = [item for item in EXAMPLES if item.path.suffix == ".png"]
    titles = {item.key: item.title for item in single}
    key = st.segmented_control(
        "Picture", list(titles), default="sellar_mass", format_func=titles.__getitem__, key="learn", required=True,
        bind="query-params",
    )  # fmt: skip
    (picture,) = read_slices(next(item.path for item in single if item.key == key))
    (answer,) = predictor.predict([picture])
    if answer.evidence is None:
        st.warning(f"{words.NOT_A_BRAIN} Choose another picture to follow it through the network.")
        return
    item = answer.prediction
    square, _ = prepare(picture, predictor.card.preprocess)
    left, right = st.columns(2)
    left.markdown(words.STEP_SEEN.format(size=predictor.card.preprocess.size))
    slice_side, square_side = right.columns(2)
    slice_side.image(to_grey(picture.pixels), caption="The slice", width="stretch", alt="The slice")
    given = "What the network is given"
    square_side.image(square, caption=given, width="stretch", clamp=True, alt=given)
    st.markdown(words.STEP_EVIDENCE.format(h=answer.evidence.shape[1], w=answer.evidence.shape[2]))
    scale = float(np.quantile(np.abs(answer.evidence), 0.995))
    for column, name, values in zip(st.columns(4), item.classes, answer.evidence, strict=True):
        said = f"{class_title(name)}: mean {values.mean():+.2f}"
        column.image(_signed(values, scale), caption=said, width="stretch", alt=f"Evidence map of {said}")
    region = predictor.card.region
    more = words.STEP_REGION.format(weight=region.weight) if region and region.weight else ""
    st.markdown(words.STEP_POOLED.format(temperature=answer.temperature) + more)
    st.table([
        {
            "Class": class_title(name),
            "Mean evidence": f"{values.mean():+.2f}",
            "Probability": f"{share:.1%}",
        }
        for name, values, share in zip(item.classes, answer.evidence, item.probabilities, strict=True)
    ])  # fmt: skip
    told, coarse, fine = st.columns([2, 1, 1])
    told.markdown(words.STEP_GRADCAM)
    told.latex(r"\text{map}_c = \max\!\Big(0,\; p_c\,\big(M_c - \textstyle\sum_j p_j M_j\big)\Big)\,/\,(T\,h\,w)")
    heat = gradcam(answer.evidence, item.probabilities, item.classes, item.predicted, temperature=answer.temperature)
    said = f"The map of {class_title(item.predicted).lower()}, cell by cell"
    coarse.image(_signed(heat.values, float(heat.values.max()) or 1.0), caption=said, width="stretch", alt=said)
    shown = Explained(answer, picture)
    fine.image(overlay(picture.pixels, shown.heatmap()), caption="Laid over the slice", width="stretch",
               alt="The heatmap over the slice")  # fmt: skip
    st.divider()
    _splits()


def _signed(values: Float32, scale: float) -> Image.Image:
    """A small map with its cells: blue below zero, orange above."""
    share = np.clip(values / max(scale, 1e-9), -1, 1)[..., None]
    orange, blue, none = (np.array(c, dtype=float) for c in ((213, 94, 0), (0, 114, 178), (247, 247, 247)))
    colours = none + np.abs(share) * (np.where(share > 0, orange, blue) - none)
    image = Image.fromarray(colours.astype(np.uint8))
    return image.resize((image.width * _CELL, image.height * _CELL), Image.Resampling.NEAREST)


def _splits() -> None:
    st.subheader(words.SPLIT_TITLE, anchor=False)
    st.markdown(words.SPLIT_ABOUT)
    alike = st.slider(words.SPLIT_ALIKE, 0.0, 1.0, 0.8, step=0.1, key="alike", bind="query-params")
    by_slice, by_patient = simulate(alike)
    left, right = st.columns(2)
    left.metric("Accuracy, split by slice", f"{by_slice:.0%}")
    right.metric("Accuracy, split by patient", f"{by_patient:.0%}")
    st.caption(words.SPLIT_REAL)


def simulate(alike: float, seed: int = 0) -> tuple[float, float]:
    """Accuracy of a nearest-neighbour classifier on simulated slices, split by slice and by patient.

    A slice is the mark of its class, which is weak, plus the look of its patient, plus noise.

    Args:
        alike: the share of what is not the class that all slices of a patient have in common, 0 to 1.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(PATIENTS) % 3, SLICES)
    patients = np.repeat(np.arange(PATIENTS), SLICES)
    classes = rng.normal(0, 0.55, (3, FEATURES))[labels]
    look = rng.normal(0, 1, (PATIENTS, FEATURES))[patients]
    noise = rng.normal(0, 1, (len(labels), FEATURES))
    values = classes + np.sqrt(alike) * look + np.sqrt(1 - alike) * noise
    slices, people = rng.permutation(len(labels)), rng.permutation(PATIENTS)
    by_slice = np.isin(np.arange(len(labels)), slices[: len(labels) // 5])
    by_patient = np.isin(patients, people[: PATIENTS // 5])
    return _nearest(values, labels, by_slice), _nearest(values, labels, by_patient)


def _nearest(values: NDArray[np.float64], labels: NDArray[np.int64], tested: NDArray[np.bool_]) -> float:
    known, asked = values[~tested], values[tested]
    distance = ((asked[:, None] - known[None]) ** 2).sum(axis=2)
    return float((labels[~tested][distance.argmin(axis=1)] == labels[tested]).mean())
