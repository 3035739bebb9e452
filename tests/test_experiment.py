import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import TINY

pytest.importorskip("torch", reason="training needs the extra `train`")

from tumorlens.config import StageSettings, TrainSettings
from tumorlens.data.index import index_folder
from tumorlens.data.manifest import read_manifest, write_manifest
from tumorlens.data.predictions import read_predictions
from tumorlens.data.split_record import SplitPlan, write_split
from tumorlens.data.splits import leave_one_source_out, split_folds, split_shares
from tumorlens.errors import RunError, SplitError
from tumorlens.experiment import cross_validate, fold_folder, run_experiment
from tumorlens.model.bundle import load_card
from tumorlens.train.order import Order
from tumorlens.train.recipe import Reporter


def short(settings: TrainSettings) -> TrainSettings:
    plan = settings.finetune.model_copy(update={"stages": (StageSettings(epochs=1, size=32),)})
    return settings.model_copy(update={"finetune": plan})


def test_cross_validation_tests_every_patient_once_and_continues(
    drawn_folder: Path, drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    manifest = tmp_path / "folds.csv"
    write_manifest(split_folds(index_folder(drawn_folder, tmp_path).samples, 2, seed=0), manifest)
    order = Order(manifest, tmp_path / "cv", short(tiny_settings), weights=None, layers=TINY)
    evaluation = cross_validate(order, Reporter())
    pooled = read_predictions(tmp_path / "cv" / "predictions.csv")
    assert len(pooled) == 72
    assert len({item.source for item in pooled}) == 72
    assert {item.split for item in pooled} == {"test"}
    assert evaluation.tables["test"].overall["accuracy"].n == 24
    assert evaluation.warnings == ()
    said: list[str] = []
    again = cross_validate(order, Reporter(message=said.append))
    assert said == []  # complete folds are kept, not trained again
    assert str(again.tables["test"].overall["auc"]) == str(evaluation.tables["test"].overall["auc"])
    with pytest.raises(SplitError, match="folds there are none"):
        cross_validate(Order(drawn_manifest, tmp_path / "no", order.settings, None, layers=TINY), Reporter())


def test_sources_are_tested_one_by_one(drawn_folder: Path, tiny_settings: TrainSettings, tmp_path: Path) -> None:
    """South has no glioma: its fold is tested on the classes that are there. The split may not change meanwhile."""
    samples = [
        replace(s, source="north" if s.label == "glioma" or s.patient_id[-1] in "012" else "south/2", fold="")
        for s in index_folder(drawn_folder, tmp_path).samples
    ]
    divided, notes = leave_one_source_out(samples)
    assert "source north is not left out" in notes[0]
    manifest = tmp_path / "sources.csv"
    record = write_split(divided, manifest, SplitPlan(kind="leave-one-source-out", notes=tuple(notes)))
    order = Order(manifest, tmp_path / "cv", short(tiny_settings), weights=None, layers=TINY)
    evaluation = cross_validate(order, Reporter())
    assert evaluation.assignment == record.assignment_sha256 and not evaluation.leaky
    assert set(evaluation.tables["test"].by_class) == {"meningioma", "no_tumor", "pituitary"}
    (run,) = [path for path in (tmp_path / "cv").iterdir() if path.is_dir()]
    assert run.name == fold_folder("south/2")
    assert json.loads((run / "config.json").read_text())["manifest"]["fold"] == "south/2"
    with pytest.raises(SplitError, match="wanted east"):
        cross_validate(order, Reporter(), ("east",))
    write_manifest([replace(s, fold="") if s.label == "pituitary" else s for s in read_manifest(manifest)], manifest)
    with pytest.raises(SplitError, match="changed after it was made"):
        cross_validate(order, Reporter())


def test_a_leaky_run_says_so_to_the_end(drawn_folder: Path, tiny_settings: TrainSettings, tmp_path: Path) -> None:
    manifest = tmp_path / "leaky.csv"
    divided = split_shares(index_folder(drawn_folder, tmp_path).samples, 0.2, 0.2, 0, leaky_by_slice=True)
    plan = SplitPlan(kind="holdout", val=0.2, test=0.2, seed=0, leaky_by_slice=True)
    record = write_split(divided, manifest, plan)
    said: list[str] = []
    out = tmp_path / "run"
    run_experiment(Order(manifest, out, short(tiny_settings), None, layers=TINY), Reporter(message=said.append))
    assert f"split {record.assignment_sha256[:12]}, SPLIT BY SLICE: figures will be too good" in said
    kept = {"assignment_sha256": record.assignment_sha256, "kind": "holdout", "leaky_by_slice": True}
    assert json.loads((out / "config.json").read_text())["split"] == kept
    card = load_card(out / "bundle")
    assert card.training_data["split"] == kept
    assert card.metrics["leaky_by_slice"] is True and card.metrics["warnings"][0].startswith("SPLIT BY SLICE")
    assert "SPLIT BY SLICE" in (out / "report.html").read_text()


def test_folds_left_by_hand_on_two_sides_label_the_pooled_table(
    drawn_folder: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    """The pooled rows are all tested ones: only the config knows."""
    made = index_folder(drawn_folder, tmp_path).samples
    manifest = tmp_path / "hand.csv"
    write_manifest([replace(s, fold=str(n % 3 % 2)) for n, s in enumerate(made)], manifest)
    order = Order(manifest, tmp_path / "cv", short(tiny_settings), weights=None, layers=TINY)
    evaluation = cross_validate(order, Reporter(), ("1",))
    assert {item.split for item in read_predictions(tmp_path / "cv" / "predictions.csv")} == {"test"}
    assert evaluation.leaky and evaluation.warnings[0].startswith("SPLIT BY SLICE: patients were not kept apart")


def test_runs_of_before_folds_had_names_go_on(tmp_path: Path) -> None:
    from tumorlens.train.run import check_same

    config = {"manifest": {"sha256": "a", "fold": 0}, "initial_weights": None, "settings": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_same(tmp_path, {**config, "manifest": {"sha256": "a", "fold": "0"}})
    with pytest.raises(RunError, match="fold = 0, now it is 1"):
        check_same(tmp_path, {**config, "manifest": {"sha256": "a", "fold": "1"}})


def test_runs_of_before_a_setting_was_added_go_on(tmp_path: Path) -> None:
    from tumorlens.train.run import check_same

    now = TrainSettings().model_dump(mode="json")
    config = {"manifest": {"sha256": "a", "fold": "0"}, "initial_weights": None, "settings": now}
    before = json.loads(json.dumps(config))
    del before["settings"]["augment"]["peel"]
    (tmp_path / "config.json").write_text(json.dumps(before))
    check_same(tmp_path, config)
    with pytest.raises(RunError, match="began with augment"):
        check_same(tmp_path, {**config, "settings": {**now, "augment": {**now["augment"], "peel": 0.5}}})


@pytest.mark.parametrize("fold", ["../x", "a b", "é", "x" * 300, "con:1"])
def test_fold_folders_are_safe(fold: str) -> None:
    assert fold_folder("0") == "fold0" and fold_folder("brisc_no_tumor") == "foldbrisc_no_tumor"
    assert fold_folder(fold) != fold_folder(fold.replace("é", "e") + "_")
    assert Path(fold_folder(fold)).name == fold_folder(fold) and len(fold_folder(fold)) < 80


def test_a_bundle_has_a_card_for_people_with_the_figures_of_the_report(tiny_run: Path) -> None:
    card = (tiny_run / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")
    overall = load_card(tiny_run / "bundle").metrics["overall"]
    shown = "| Accuracy |" + card.partition("| Accuracy |")[2].partition("\n")[0]
    assert f"{overall['accuracy']['value']:.3f} ({overall['accuracy']['low']:.3f} to " in shown
    (counts,) = load_card(tiny_run / "bundle").training_data["slices"].values()
    assert f"glioma {counts['glioma']}, meningioma {counts['meningioma']}" in card
    assert "A ResNet-50 that tells glioma, meningioma, no tumour, pituitary tumour apart" in card


def test_folds_run_one_by_one_are_pooled_together(
    drawn_folder: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    manifest = tmp_path / "folds.csv"
    write_manifest(split_folds(index_folder(drawn_folder, tmp_path).samples, 2, seed=0), manifest)
    order = Order(manifest, tmp_path / "cv", short(tiny_settings), weights=None, layers=TINY)
    first = cross_validate(order, Reporter(), ("1",))
    assert first.tables["test"].overall["accuracy"].n_slices < 72
    both = cross_validate(order, Reporter(), ("0",))
    assert both.tables["test"].overall["accuracy"].n_slices == 72
    run = tmp_path / "cv" / "fold1"
    said: list[str] = []
    resumed = replace(order, out=run, fold="1", resume=True)
    before = (run / "bundle" / "model.json").read_bytes()
    run_experiment(resumed, Reporter(message=said.append))
    assert (run / "bundle" / "model.json").read_bytes() == before  # a finished run is not trained to its end again
    assert "finished already" in said[0]
    other = replace(order, settings=order.settings.model_copy(update={"batch_size": 5}))
    shutil.rmtree(tmp_path / "cv" / "fold0")
    with pytest.raises(RunError, match=r"fold1: the run began with batch_size"):
        cross_validate(other, Reporter(message=lambda text: pytest.fail("began all the same")), ("0",))
    with pytest.raises(RunError, match=r"the run began with fold"):
        run_experiment(replace(resumed, fold="0"), Reporter())
    with pytest.raises(RunError, match=r"in use by a run of its own"):
        cross_validate(replace(order, out=run), Reporter())
