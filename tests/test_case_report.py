"""The one-page report of a slice."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tumorlens.case_report import Case, case_html, case_pdf
from tumorlens.data.readers import read_slices
from tumorlens.examples import EXAMPLES
from tumorlens.pipeline import REFERENCE, Explained
from tumorlens.records import Slice
from tumorlens.runtime.predictor import Predictor


@pytest.fixture(scope="module")
def case() -> Case:
    predictor = Predictor(REFERENCE)
    example = next(item for item in EXAMPLES if item.key == "sellar_mass")
    (picture,) = read_slices(example.path)
    item = Explained(predictor.predict([picture])[0], picture)
    return Case(item, predictor.card, item.answer.prediction.predicted, "sharp", measured="right in 0.94 of 35 slices")


def test_the_page_says_all_and_loads_nothing(case: Case) -> None:
    text = case_html(case).decode()
    for part in ("Pituitary tumour, 9", "Not a medical device", case.card.name, "right in 0.94", "no segmentation"):
        assert part in text
    assert text.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=.(?!data:)", text)


def test_a_name_is_in_it_only_where_it_was_asked_for_and_is_escaped(case: Case) -> None:
    assert "sellar_mass" not in case_html(case).decode()
    named = case_html(replace(case, name="<b>Jane</b>.dcm")).decode()
    assert "&lt;b&gt;Jane&lt;/b&gt;.dcm" in named and "<b>Jane" not in named


@pytest.mark.parametrize("name", ["", "a$_{$b.nii", "x" * 300])
def test_the_pdf_is_one_page_whatever_the_name(case: Case, name: str) -> None:
    data = case_pdf(replace(case, name=name))
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", data)) == 1
    assert len(data) < 1_000_000


def test_why_an_answer_does_not_count(case: Case) -> None:
    predictor = Predictor(REFERENCE)
    (picture,) = read_slices(next(item for item in EXAMPLES if item.key == "ring_lesion").path)
    item = Explained(predictor.predict([picture])[0], picture)
    text = case_html(Case(item, predictor.card, item.answer.prediction.predicted, "region")).decode()
    assert "Too uncertain to count as an answer: no tumour as a whole, but one place looks like a tumour" in text
    assert "tumorlens explain" not in text


def test_an_answer_that_would_be_refused_says_so() -> None:
    predictor = Predictor(REFERENCE, answer_all=True)
    noise = np.random.default_rng(0).uniform(0, 255, (300, 300)).astype(np.float32)
    picture = Slice(noise, "noise")
    item = Explained(predictor.predict([picture])[0], picture)
    text = case_html(Case(item, predictor.card, item.answer.prediction.predicted)).decode()
    assert "Would not be answered if it were not asked for: not a brain MRI" in text


def test_no_word_of_a_region_where_nobody_looked_for_one(case: Case) -> None:
    assert "Evidence region" in case_html(case).decode()
    without = replace(case, card=case.card.model_copy(update={"region": None}), way="gradcam")
    assert "Evidence region" not in case_html(without).decode()
