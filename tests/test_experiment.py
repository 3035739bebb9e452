from pathlib import Path

import pytest

from tests.conftest import TINY

pytest.importorskip("torch", reason="training needs the extra `train`")

from tumorlens.config import StageSettings, TrainSettings
from tumorlens.data.index import index_folder
from tumorlens.data.manifest import write_manifest
from tumorlens.data.predictions import read_predictions
from tumorlens.data.splits import split_folds
from tumorlens.errors import SplitError
from tumorlens.experiment import cross_validate
from tumorlens.train.recipe import Order, Reporter


def test_cross_validation_tests_every_patient_once_and_continues(
    drawn_folder: Path, drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    manifest = tmp_path / "folds.csv"
    write_manifest(split_folds(index_folder(drawn_folder, tmp_path).samples, 2, seed=0), manifest)
    short = tiny_settings.finetune.model_copy(update={"stages": (StageSettings(epochs=1, size=32),)})
    settings = tiny_settings.model_copy(update={"finetune": short})
    order = Order(manifest, tmp_path / "cv", settings, weights=None, layers=TINY)
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
        cross_validate(Order(drawn_manifest, tmp_path / "no", settings, None, layers=TINY), Reporter())
