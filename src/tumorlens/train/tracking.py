"""Experiment trackers behind one callback: a row of figures an epoch. The run folder's history.csv stays the truth."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from tumorlens.errors import TumorlensError
from tumorlens.no_telemetry import load_mlflow
from tumorlens.train.accidents import first_line

Name = Literal["none", "tensorboard", "mlflow"]
#: Called with the run folder and the row of an epoch; `epoch` in it counts from 0.
Tracker = Callable[[Path, Mapping[str, float]], None]
_MLFLOW_RUN = "mlflow.json"


def tracker(name: Name, complain: Callable[[str], None] = lambda text: None) -> Tracker:
    """The callback that writes to a tracker. When a row cannot be written, it complains once, and training goes on.

    Raises:
        TumorlensError: the tracker's package is not installed, or MLflow's store cannot be opened.
    """
    if name == "none":
        return lambda folder, row: None
    try:
        if name == "tensorboard":
            import torch.utils.tensorboard  # noqa: F401 (only whether it is there)

            return _forgiving(_to_tensorboard, complain)
        load_mlflow()
    except ImportError as error:
        raise TumorlensError(
            f"--track {name}: its package is not installed ({error}). Run `pip install tumorlens[track]`, or leave "
            "--track out: history.csv has the same figures"
        ) from error
    try:
        _experiment()
    except Exception as error:  # MLflow's stores raise whatever their drivers do
        raise TumorlensError(
            f"--track mlflow: its store cannot be opened ({first_line(error)}). Name a server in "
            "MLFLOW_TRACKING_URI, or leave --track out: history.csv has the same figures"
        ) from error
    return _forgiving(_to_mlflow, complain)


def _forgiving(track: Tracker, complain: Callable[[str], None]) -> Tracker:
    said: list[str] = []

    def tried(folder: Path, row: Mapping[str, float]) -> None:
        try:
            track(folder, row)
        except Exception as error:  # a tracker must not cost the training
            if not said:
                said.append(str(error))
                complain(f"the tracker failed and is tried again after each epoch: {first_line(error)}")

    return tried


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
        run = client.create_run(_experiment(), run_name=folder.resolve().name).info.run_id
        note.write_text(json.dumps({"run_id": run}) + "\n", encoding="utf-8")
    for key, value in row.items():
        if key != "epoch":
            client.log_metric(run, key, value, step=int(row["epoch"]))


def _experiment() -> str:
    """The id of MLflow's experiment `tumorlens`, made where there is none."""
    from mlflow import MlflowClient

    client = MlflowClient()
    found = client.get_experiment_by_name("tumorlens")
    return str(found.experiment_id if found else client.create_experiment("tumorlens"))
