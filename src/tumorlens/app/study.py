"""One study: a picture, a series or a volume, with its answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from tumorlens.app import parts, view, words
from tumorlens.data.readers import Entry, Plane, ReadOptions, has_window, in_uploads, is_volume, read_slices
from tumorlens.examples import EXAMPLES, Example
from tumorlens.explain.profile import profile
from tumorlens.pipeline import BATCH, Explained
from tumorlens.records import Slice
from tumorlens.runtime.predictor import Answer, Predictor

PLANES: dict[Plane, str] = {"": "as acquired", "axial": "axial", "coronal": "coronal", "sagittal": "sagittal"}
PROFILED = 48  # slices of a volume that are answered at once, evenly spaced


@dataclass(frozen=True)
class Study:
    """What is looked at: its slices, and what is known of it. `key` tells it from others, `facts` are those of each
    file's header."""

    key: str
    name: str
    slices: list[Slice]
    note: str = ""
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def title(self, place: int) -> str:
        """What a slice is called: its file and number, and its frame, by which `predict` and `explain` call it."""
        item, count = self.slices[place], len(self.slices)
        if count == 1:
            return self.name
        several = any(other.source != item.source for other in self.slices)
        frame = f" (frame {item.frame} of its file)" if item.frame not in (0, place) else ""
        return f"{Entry(item.source).name if several else self.name}, slice {place + 1} of {count}{frame}"


@dataclass(frozen=True)
class Profile:
    """Answers along a volume: for the slices at `places`; `strongest` is where the model sees most tumour."""

    places: tuple[int, ...]
    answers: tuple[Answer, ...]
    strongest: int


def page() -> None:
    """Draw the page."""
    parts.heading(words.TITLE, words.ABOUT)
    predictor = parts.choose_predictor()
    if predictor is None:
        return
    study = _choose()
    if study is None:
        return
    st.divider()
    place = _place(study, predictor) if len(study.slices) > 1 else 0
    picture = study.slices[place]
    answer = predictor.predict([picture])[0]
    key = f"{study.key}_{place}_{parts.model_key(predictor)}"
    view.show(Explained(answer, picture), study.title(place), study.note, predictor, key)
    with st.expander("About the scan (without the patient)", key=f"facts_{study.key}"):
        st.html(parts.facts_table(_facts(study, picture)))


def _choose() -> Study | None:
    """An upload goes before an example."""
    left, right = st.columns([5, 7], gap="large")
    with left:
        # Any name: DICOM files often have no ending, and are known by their content.
        number = st.session_state.setdefault("uploader", 0)
        uploads = st.file_uploader(words.UPLOAD, accept_multiple_files=True, key=f"upload_{number}")
        st.html(parts.soft(words.PRIVATE))
    with right:
        _gallery()
    uploads = _dropped_last(uploads or [])
    if not uploads:
        return _example()
    options = _cut(*_kinds(uploads))
    key = "_".join([*(item.file_id for item in uploads), options.plane, "window" if options.window else ""])
    kept: Study | None = st.session_state.get("study")
    if kept is not None and kept.key == key:  # reading a volume takes a moment; it is read once
        parts.problems_told(kept.problems)
        return kept if kept.slices else None
    files = [(item.name, item.getvalue()) for item in uploads]
    slices, problems, facts = parts.read_uploads(files, options)
    parts.problems_told(problems)
    name = files[0][0] if len(files) == 1 else f"{files[0][0]} and {len(files) - 1} more files"
    study = Study(key, name, slices, facts=facts, problems=tuple(problems))
    st.session_state["study"] = study
    return study if slices else None


def _dropped_last(uploads: list[Any]) -> list[Any]:
    """The files that were dropped together last: a new drop is a new study, however many lie in the widget."""
    before: set[str] = st.session_state.get("seen", set())
    fresh = {item.file_id for item in uploads} - before
    if fresh:
        st.session_state["dropped"] = fresh
    st.session_state["seen"] = {item.file_id for item in uploads}
    dropped = st.session_state.get("dropped", set())
    return [item for item in uploads if item.file_id in dropped] or uploads


def _example() -> Study:
    keys = [item.key for item in EXAMPLES]
    chosen = st.session_state.get("example") or st.query_params.get("example", keys[0])
    example = next((item for item in EXAMPLES if item.key == chosen), EXAMPLES[0])
    options = _cut(is_volume(Entry(str(example.path))), False)
    return Study(f"{example.key}{options.plane}", example.title, read_slices(example.path, options), example.note)


def _kinds(uploads: Sequence[Any]) -> tuple[bool, bool]:
    """Whether there are volumes and DICOM files among uploads, by their content; kept while they are looked at."""
    key = tuple(item.file_id for item in uploads)
    kept: tuple[object, tuple[bool, bool]] | None = st.session_state.get("kinds")
    if kept is None or kept[0] != key:
        with parts.let_go():
            files = parts.entries_of([(item.name, item.getvalue()) for item in uploads])
            entries = [item for item in in_uploads(files) if isinstance(item, Entry)]
            kept = (key, (any(map(is_volume, entries)), any(map(has_window, entries))))
        st.session_state["kinds"] = kept
    return kept[1]


def _cut(volumes: bool, windows: bool) -> ReadOptions:
    """How files are to be read: the plane of volumes, the grey values of DICOM; asked where there are such."""
    plane: Plane | None = ""
    window = False
    if volumes:
        plane = st.segmented_control(
            "Plane", list(PLANES), default="", format_func=PLANES.__getitem__, key="plane", required=True,
            bind="query-params", help=words.PLANE_HELP,
        )  # fmt: skip
    if windows:
        window = st.toggle(words.WINDOW, key="window", bind="query-params", help=words.WINDOW_HELP)
    return ReadOptions(plane=plane or "", window=window)


def _gallery() -> None:
    st.html(f"<div>{words.OR_EXAMPLE} <span class='tl-soft'>{words.SYNTHETIC}</span></div>")
    with st.container(key="gallery"):
        for column, example in zip(st.columns(len(EXAMPLES), gap="small"), EXAMPLES, strict=True):
            with column:
                st.image(str(example.thumbnail), width="stretch", alt=f"Example: {example.title}")
                st.button(
                    example.title, key=f"example_{example.key}", on_click=_take, args=(example,), width="stretch",
                    type="tertiary", help=example.note,
                )  # fmt: skip


def _take(example: Example) -> None:
    st.session_state["example"] = example.key
    st.session_state["uploader"] += 1  # what was uploaded would go before it
    st.query_params["example"] = example.key


def _place(study: Study, predictor: Predictor) -> int:
    """Which slice of a volume to show: the reader's choice, at first the strongest."""
    found = _profile(study, predictor)
    count = len(study.slices)
    place = st.slider("Slice", 1, count, found.strongest + 1, key=f"slice_{study.key}") - 1
    with st.container(border=True):
        st.markdown(f"**{words.PROFILE}.** {words.STRONGEST}")
        drawn = profile([item.prediction for item in found.answers], found.places, place, count)
        st.image(drawn, width="stretch", alt=f"Probability of each class along {count} slices")
    return place


def _profile(study: Study, predictor: Predictor) -> Profile:
    """Answers along a volume, at most `PROFILED`; kept while it is looked at."""
    key = (study.key, parts.model_key(predictor))
    kept: tuple[tuple[str, str], Profile] | None = st.session_state.get("profile")
    if kept is not None and kept[0] == key:
        return kept[1]
    count = len(study.slices)
    step = max(1, -(-count // PROFILED))
    places = tuple(range(step // 2, count, step))
    answers: list[Answer] = []
    with st.spinner("Reading the volume …"):
        bar = st.progress(0.0)
        for start in range(0, len(places), BATCH):
            answers += predictor.predict([study.slices[place] for place in places[start : start + BATCH]])
            bar.progress(len(answers) / len(places), text=f"{len(answers)} of {len(places)} slices")
        bar.empty()
    strongest = places[max(range(len(places)), key=lambda number: _strength(answers[number]))]
    found = Profile(places, tuple(answers), strongest)
    st.session_state["profile"] = (key, found)
    return found


def _strength(answer: Answer) -> tuple[float, float]:
    """How much tumour the model sees: answered slices before others, then the evidence region, then the probability."""
    item = answer.prediction
    if not item.probabilities:
        return -1.0, 0.0
    area = float((answer.region > 0.5).sum()) if answer.region is not None else 0.0
    return (area if item.tumour_probability > 0.5 else 0.0), item.tumour_probability


def _facts(study: Study, picture: Slice) -> dict[str, str]:
    height, width = picture.pixels.shape
    spacing = f"{picture.spacing[0]:.3g} × {picture.spacing[1]:.3g} mm" if picture.spacing else "unknown"
    shown = {
        "Slices": str(len(study.slices)),
        "Size": f"{width} × {height} pixels",
        "Pixel spacing": spacing,
        "Plane": picture.plane or "unknown",
    }
    header = study.facts.get(picture.source, {})
    return shown | {key: value for key, value in header.items() if key != "Pixel spacing (mm)"}
