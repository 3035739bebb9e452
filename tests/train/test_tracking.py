import builtins
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from tumorlens.errors import TumorlensError  # noqa: E402
from tumorlens.train.tracking import tracker  # noqa: E402

ROWS = [{"epoch": 0.0, "loss": 1.5, "val_accuracy": 0.4}, {"epoch": 1.0, "loss": 1.0, "val_accuracy": 0.6}]


def test_tensorboard_has_each_epoch_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track = tracker("tensorboard")
    for row in (*ROWS, ROWS[1]):  # the last epoch again, as after a resumption
        track(tmp_path, row)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(item.step, item.value) for item in events.Scalars("loss")] == [(0, 1.5), (1, 1.0)]
    assert events.Tags()["scalars"] == ["loss", "val_accuracy"]


def test_mlflow_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    folder = tmp_path / "run"
    folder.mkdir()
    for row in ROWS:
        tracker("mlflow")(folder, row)
    run = json.loads((folder / "mlflow.json").read_text())["run_id"]
    history = MlflowClient().get_metric_history(run, "loss")
    assert [(item.step, item.value) for item in history] == [(0, 1.5), (1, 1.0)]


def test_a_store_that_cannot_be_opened_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "abacus://nowhere")
    with pytest.raises(TumorlensError, match=r"store cannot be opened.*MLFLOW_TRACKING_URI"):
        tracker("mlflow")


def test_a_failing_tracker_does_not_cost_the_training(tmp_path: Path) -> None:
    said: list[str] = []
    track = tracker("tensorboard", said.append)
    (tmp_path / "tensorboard").write_text("in the way")
    for row in ROWS:
        track(tmp_path, row)
    assert len(said) == 1 and "the tracker failed" in said[0]


def test_an_error_that_says_nothing_does_not_cost_the_training_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*given: object) -> None:
        raise TimeoutError

    said: list[str] = []
    monkeypatch.setattr("tumorlens.train.tracking._to_tensorboard", late)
    tracker("tensorboard", said.append)(tmp_path, ROWS[0])
    assert said == ["the tracker failed and is tried again after each epoch: TimeoutError"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("mlflow"):
            raise ModuleNotFoundError("No module named 'mlflow'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TumorlensError, match=r"--track mlflow.*pip install tumorlens\[track\]"):
        tracker("mlflow")


def test_none_writes_nothing(tmp_path: Path) -> None:
    tracker("none")(tmp_path, ROWS[0])
    assert list(tmp_path.iterdir()) == []
