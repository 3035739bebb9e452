"""The Streamlit app: a page for one study, for a folder, for results, and for who wants to understand.

study.py    one picture, series or volume: answer, map, trust, report
folder.py   many files: table, filters, downloads
results.py  evaluated runs: tables, plots, confusion matrix, two runs beside each other
learn.py    how an answer and its map come about, and why splits by slice mislead
view.py     how one answered slice is shown, wherever it is
drawings.py bars of probabilities
parts.py    what pages share: style, models, uploads
words.py    every longer text, in one place
"""

import streamlit as st

from tumorlens import DISCLAIMER
from tumorlens.app import parts, words


def main() -> None:
    """Draw the page that the address names."""
    st.set_page_config(page_title="tumorlens", page_icon="🔎", layout="wide")
    st.html(parts.STYLE)
    pages = [
        st.Page(_study, title=words.STUDY, icon=":material/search:", url_path="study", default=True),
        st.Page(_folder, title=words.FOLDER, icon=":material/folder_open:", url_path="folder"),
        st.Page(_results, title=words.RESULTS, icon=":material/bar_chart:", url_path="results"),
        st.Page(_learn, title=words.LEARN, icon=":material/school:", url_path="learn"),
    ]
    chosen = st.navigation(pages, position="top")
    st.html(parts.banner(DISCLAIMER))
    chosen.run()


# Each page is imported when it is opened: evaluation alone brings SciPy and Matplotlib.
def _study() -> None:
    from tumorlens.app.study import page

    page()


def _folder() -> None:
    from tumorlens.app.folder import page

    page()


def _results() -> None:
    from tumorlens.app.results import page

    page()


def _learn() -> None:
    from tumorlens.app.learn import page

    page()
