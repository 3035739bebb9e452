"""What the pages share: style, models, uploads, and facts of a header."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path

import streamlit as st

from tumorlens.app import words
from tumorlens.data.readers import (
    ALL_SLICES,
    Entry,
    ReadOptions,
    Refused,
    forget,
    header_facts,
    in_uploads,
    read_slices,
    stem_of,
)
from tumorlens.errors import TumorlensError
from tumorlens.model.bundle import CARD
from tumorlens.pipeline import REFERENCE
from tumorlens.records import Slice
from tumorlens.runtime.predictor import Predictor

#: Names further model folders, separated as in PATH.
MODELS_VARIABLE = "TUMORLENS_MODELS"
#: Files with the time of their last change and their size.
Stamp = tuple[tuple[str, int, int], ...]
#: Of the uploads of one study: 400 MB as they are held.
MOST_PIXELS = 100_000_000
STYLE = """
<style>
.block-container { padding-top: 4rem; max-width: 1180px; }
.block-container h1 { font-size: 2rem; padding: .2rem 0 0; }
[data-testid=stCaptionContainer], [data-testid=stImageCaption] { color: inherit !important; opacity: .82; }
[data-testid=stCaptionContainer] p, [data-testid=stImageCaption] p { color: inherit !important; }
.st-key-gallery [data-testid=stHorizontalBlock] { flex-wrap: wrap; gap: .5rem; }
.st-key-gallery [data-testid=stColumn] { min-width: 3.6rem; max-width: 6rem; flex: 1 1 3.6rem; width: auto; }
.st-key-gallery [data-testid=stVerticalBlock] { gap: .1rem; }
.st-key-gallery button { min-height: 2rem; padding: 0; } .st-key-gallery button p { font-size: .86rem; }
.tl-banner { border-left: 4px solid #c77700; background: rgba(199,119,0,.10); padding: .4rem .8rem; font-size: .9rem; }
.tl-answer { font-size: 1.9rem; font-weight: 650; line-height: 1.2; margin: .1rem 0; }
.tl-soft { color: color-mix(in srgb, currentColor 78%, transparent); font-size: .92rem; }
.tl-row { display: grid; grid-template-columns: 9.5rem 1fr 3.6rem; align-items: center; gap: .7rem; margin: .34rem 0; }
.tl-track { height: .7rem; border-radius: .35rem; background: rgba(128,128,128,.20); overflow: hidden; }
.tl-fill { height: 100%; border-radius: .35rem; background: #8aa0ab; }
.tl-row.first .tl-fill { background: #0b7a75; } .tl-row.first { font-weight: 600; }
.tl-number { text-align: right; font-variant-numeric: tabular-nums; }
.tl-facts { font-size: .9rem; border-collapse: collapse; } .tl-facts td { padding: .1rem 1.2rem .1rem 0; }
@media (max-width: 640px) {
  .tl-row { grid-template-columns: 7rem 1fr 3.2rem; } .tl-answer { font-size: 1.5rem; }
}
</style>
"""


def banner(text: str) -> str:
    """The disclaimer, its first sentence in bold."""
    first, rest = text.split(". ", 1)
    return f'<div class="tl-banner" role="note"><b>{escape(first)}.</b> {escape(rest)}</div>'


def heading(title: str, about: str) -> None:
    """The title of a page and a line about it."""
    st.title(title, anchor=False)
    st.caption(about)


def models() -> dict[str, Path]:
    """The models to choose from: the one that ships, and bundle folders named in $TUMORLENS_MODELS."""
    named = [Path(text) for text in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if text]
    found = {"reference": REFERENCE}
    for path in named:
        if not (path / CARD).is_file() or path.resolve() in {other.resolve() for other in found.values()}:
            continue
        # Bundles of runs are all called `bundle`: then the run's name tells them apart, else the whole path.
        names = (path.name, f"{path.resolve().parent.name}/{path.name}", str(path))
        found[next(name for name in names if name not in (*found, "bundle"))] = path
    return found


def choose_predictor() -> Predictor | None:
    """The model that is chosen, loaded; None, with a sentence on the page, where it cannot be."""
    found = models()
    name = "reference"
    if len(found) > 1:
        name = st.selectbox("Model", list(found), key="model", bind="query-params")
    try:
        return _load(str(found[name]), stamp([found[name] / CARD]))
    except TumorlensError as error:
        st.error(literal(f"The model cannot be loaded: {error}"))
        return None


@st.cache_resource(show_spinner="Loading the model …", max_entries=8)
def _load(folder: str, written: Stamp) -> Predictor:
    return Predictor(Path(folder))


def stamp(paths: Iterable[Path]) -> Stamp:
    """What changes when one of these files does, comes or goes."""
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(paths) if path.is_file())


def model_key(predictor: Predictor) -> str:
    """What tells a model from another: answers of one are not to be shown as the other's. Of one and the same graph
    there may be several, calibrated differently."""
    return hashlib.sha256(predictor.card.model_dump_json().encode()).hexdigest()[:16]


def entries_of(files: Sequence[tuple[str, bytes]]) -> list[Entry]:
    """Uploaded files by name and content, what was given twice once. Scanners call the first file of every series IM1:
    of one name the second gets a number, so that each keeps its own facts and rows."""
    taken: set[str] = set()
    entries = []
    for name, data in dict.fromkeys(files):
        free, number = name, 1
        while free in taken:
            number += 1
            stem = stem_of(name)
            free = f"{stem} ({number}){name[len(stem) :]}"  # the ending stays: some readers go by it
        taken.add(free)
        entries.append(Entry(free, data))
    return entries


def read_uploads(
    files: Sequence[tuple[str, bytes]], options: ReadOptions = ALL_SLICES
) -> tuple[list[Slice], list[str], dict[str, dict[str, str]]]:
    """The slices of uploaded files in the order of the body, sentences on what cannot be used, and what the header of
    each file says.

    Files never lie on disk, and their names are never paths. Together they may have `MOST_PIXELS`.
    """
    slices: list[Slice] = []
    problems: list[str] = []
    facts: dict[str, dict[str, str]] = {}
    pixels = 0
    with let_go():
        for entry in in_uploads(entries_of(files)):
            if isinstance(entry, Refused):
                problems.append(entry.message)
                continue
            if pixels >= MOST_PIXELS:
                problems.append(words.TOO_MUCH.format(most=MOST_PIXELS // 1_000_000, name=entry.name))
                break
            try:
                found = read_slices(entry, replace(options, most=MOST_PIXELS - pixels))
            except TumorlensError as error:
                problems.append(str(error))
                continue
            slices += found
            facts[entry.address] = header_facts(entry)
            pixels += sum(item.pixels.size for item in found)
    return slices, problems, facts


@contextmanager
def let_go() -> Iterator[None]:
    """Nothing of an upload is kept after it was read, also where the reader leaves meanwhile."""
    try:
        yield
    finally:
        forget()


def problems_told(problems: Sequence[str]) -> None:
    """Say what could not be used: a few in full, the rest by number."""
    for text in problems[:5]:
        st.error(literal(text))
    if len(problems) > 5:
        st.error(f"and {len(problems) - 5} more files that cannot be used")


def literal(text: str) -> str:
    """Text that Markdown shows as it is: names in archives and tables are not ours, and could fetch a picture."""
    return re.sub(r"([\\`*_\[\](){}!<>#|~$:.+\-/@])", r"\\\1", text)


def soft(text: str) -> str:
    """A quiet line of text, escaped."""
    return f'<div class="tl-soft">{escape(text)}</div>'


def facts_table(facts: dict[str, str]) -> str:
    """Facts of a header as a table."""
    rows = "".join(f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>" for key, value in facts.items())
    return f'<table class="tl-facts">{rows}</table>'
