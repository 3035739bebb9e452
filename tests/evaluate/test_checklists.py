"""The reporting checklists: complete, answered from the run alone, and silent where only a person knows."""

import re
from pathlib import Path

from tests.evaluate.made_runs import PARTS, make_predictions, write_run
from tumorlens.config import load_settings
from tumorlens.evaluate.checklists import TO_WRITE, checklists, facts_of, write_checklists
from tumorlens.evaluate.evaluation import Evaluation, evaluate_run
from tumorlens.evaluate.results import evaluate_folder


def trained(folder: Path) -> Evaluation:
    settings = load_settings("best").model_dump(mode="json")
    run = write_run(folder, [*make_predictions(seed=3), *make_predictions(9, "val", which=slice(0))],
                    settings=settings, versions={"torch": "2.13.0"})  # fmt: skip
    return evaluate_run(run, rounds=50)


def test_every_item_of_both_guidelines_is_there_once() -> None:
    claim, tripod = checklists()
    assert [number for number, *_ in claim["items"]] == [str(number) for number in range(1, 45)]
    numbers = [number for number, *_ in tripod["items"]]
    assert len(set(numbers)) == len(numbers) == 52
    assert sorted({int(re.sub("[a-g]", "", number)) for number in numbers}) == list(range(1, 28))


def test_facts_are_known_by_the_name_that_asks_for_them(tmp_path: Path) -> None:
    facts = facts_of(trained(tmp_path / "run"))
    asked = {fact for part in checklists() for *_, fact in part["items"]} - {""}
    assert set(facts) == asked


def test_a_trained_run_says_how(tmp_path: Path) -> None:
    write_checklists(trained(tmp_path / "run"), tmp_path / "checklists.md")
    page = (tmp_path / "checklists.md").read_text(encoding="utf-8")
    page = page[: page.index("## TRIPOD+AI")]
    rows = {row.split(" | ")[0]: row for row in page.splitlines() if row.startswith("| ")}
    assert "7 epochs at 160 pixels, 7 epochs at 192 pixels" in rows["| 25"]
    assert "torch 2.13.0" in rows["| 23"]
    assert rows["| 44"].endswith(f"| {TO_WRITE} |")
    assert "figshare: 72 slices, 24 groups" in rows["| 7"]


def test_of_answers_from_elsewhere_nothing_is_made_up(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions())
    evaluate_folder(run)
    page = (run / "checklists.md").read_text(encoding="utf-8")
    assert "ResNet" not in page and "SGD" not in page
    assert "accuracy 0." in page


def test_leaks_and_new_sources_are_said(tmp_path: Path) -> None:
    settings = load_settings("best").model_dump(mode="json") | {"network": None}
    leaky = write_run(tmp_path / "leaky", make_predictions(), settings=settings,
                      split={"assignment_sha256": "ab" * 32, "leaky_by_slice": True})  # fmt: skip
    facts = facts_of(evaluate_run(leaky, rounds=10))
    assert "did not see" not in facts["goal"] and "unseen" not in facts["counts"]
    assert facts["assignment"].startswith("SPLIT BY SLICE")
    learned = make_predictions(9, "train", parts=PARTS[:3])
    away = write_run(tmp_path / "away", [*make_predictions(parts=PARTS[3:5]), *learned], settings=settings)
    (away / "bundle").mkdir()
    (away / "bundle" / "model.json").write_text('{"temperature": 0.9, "temperature_factor": 1.2}')
    facts = facts_of(evaluate_run(away, rounds=10))
    assert facts["level"].endswith("from elsewhere: tcga_lgg")
    assert "times 1.200" in facts["recalibration"]
