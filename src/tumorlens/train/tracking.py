"""Experiment trackers behind one callback: a row of figures an epoch. The run folder's history.csv stays the truth."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from tumorlens.errors import TumorlensError

Name = Literal["none", "tensorboard", "mlflow"]
#: Called with the run folder and the row of an epoch; `epoch` in it counts from 0.
Tracker = Callable[[Path, Mapping[str, float]], None]
_MLFLOW_RUN = "mlflow.json"


def tracker(name: Name) -> Tracker:
    """The callback that writes to a tracker.

    Raises:
        TumorlensError: the tracker's package is not installed.
    """
    if name == "none":
        return lambda folder, row: None
    try:
        if name == "tensorboard":
            import torch.utils.tensorboard  # noqa: F401 (only whether it is there)

            return _to_tensorboard
        import mlflow  # noqa: F401

        return _to_mlflow
    except ImportError as error:
        raise TumorlensError(
            f"--track {name}: its package is not installed ({error}). Run `pip install tumorlens[track]`, or leave "
            "--track out: history.csv has the same figures"
        ) from error


def _to_tensorboard(folder: Path, row: Mapping[str, float]) -> None:
    """Into `tensorboard/` in the run folder; an epoch that is repeated after a resumption replaces the first."""
    from torch.utils.tensorboard import SummaryWriter

    epoch = int(row["epoch"])
    with SummaryWriter(str(folder / "tensorboard"), purge_step=epoch) as writer:
        for key, value in row.items():
            if key != "epoch":
                writer.add_scalar(key, value, epoch)


def _to_mlflow(folder: Path, row: Mapping[str, float]) -> None:
    """To the server or folder that MLFLOW_TRACKING_URI names; a resumed run folder goes on in the same MLflow run."""
    from mlflow import MlflowClient

    client = MlflowClient()
    note = folder / _MLFLOW_RUN
    if note.is_file():
        run = str(json.loads(note.read_text(encoding="utf-8"))["run_id"])
    else:
        experiment = client.get_experiment_by_name("tumorlens")
        number = experiment.experiment_id if experiment else client.create_experiment("tumorlens")
        run = client.create_run(number, run_name=folder.resolve().name).info.run_id
        note.write_text(json.dumps({"run_id": run}) + "\n", encoding="utf-8")
    for key, value in row.items():
        if key != "epoch":
            client.log_metric(run, key, value, step=int(row["epoch"]))
