"""Every figure with an interval that README, the model card or the docs print follows from an artefact in the repo."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tumorlens.evaluate.by_confidence import by_confidence
from tumorlens.evaluate.evaluation import evaluate_run
from tumorlens.evaluate.recalibrate import recalibrate
from tumorlens.evaluate.run_folder import read_folds
from tumorlens.model.label_sets import DEFAULT_COVERAGE

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
FIGURE = re.compile(r"-?\d\.\d{3} \(-?\d\.\d{3} to -?\d\.\d{3}\)")
PAGES = (
    "README.md",
    "docs/training.md",
    "docs/trust.md",
    "docs/explanations.md",
    "docs/performance.md",
    "src/tumorlens/reference/MODEL_CARD.md",
)


def estimates(value: Any) -> Iterator[str]:
    """Every estimate within nested values, as it is printed."""
    if isinstance(value, dict):
        if {"value", "low", "high"} <= value.keys() and value["value"] is not None and value["low"] is not None:
            yield f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
        for item in value.values():
            yield from estimates(item)
    elif isinstance(value, list):
        for item in value:
            yield from estimates(item)


@pytest.fixture(scope="module")
def kept() -> set[str]:
    """Figures of kept results, and what benchmarks printed."""
    found = set(estimates(evaluate_run(RESULTS / "best").to_json()))
    for path in RESULTS.rglob("*.json"):
        found |= set(estimates(json.loads(path.read_text())))
    for path in RESULTS.rglob("*.txt"):
        found |= set(FIGURE.findall(path.read_text()))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_figures_follow_from_artefacts(page: str, kept: set[str]) -> None:
    if not (ROOT / page).is_file():
        pytest.skip(f"{page} is not there")
    printed = FIGURE.findall((ROOT / page).read_text())
    assert not [figure for figure in printed if figure not in kept]


def test_kept_figures_are_those_of_the_kept_answers() -> None:
    """The tested side of each fold, computed again from its answers."""
    for folder in sorted(path.parent for path in RESULTS.glob("*/fold*/config.json")):
        figures = json.loads((folder / "metrics.json").read_text())
        again = evaluate_run(folder).to_json()
        assert alike(figures["splits"]["test"], again["splits"]["test"])


def alike(first: Any, second: Any) -> bool:
    """Equal but for the last digits, in which processors differ."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(alike(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(alike, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)
    return bool(first == second)


def test_the_card_has_the_figures_of_its_run(kept: set[str]) -> None:
    card = json.loads((ROOT / "src/tumorlens/reference/model.json").read_text())
    corrected = recalibrate(read_folds(RESULTS / "best"), DEFAULT_COVERAGE, rounds=10)
    by_answer = set(estimates(by_confidence(corrected.across)))
    assert not [figure for figure in estimates(card["metrics"]) if figure not in kept | by_answer]
