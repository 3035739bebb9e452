"""Libraries that report their use to their makers, loaded so that they do not."""

import os
import sys
from typing import Any


def load_openvino() -> Any:
    """OpenVINO; its import alone would send an event to an analytics service (as of 2026.4, unless `CI` is set).

    Without the package `openvino_telemetry` it uses a stub of its own, so that package is made to be missing, unless
    somebody else in this process has imported it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it fails
    import openvino

    return openvino


def load_mlflow() -> Any:
    """MLflow, which reports its use unless it is told not to; whoever has set the variable is left alone.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    return mlflow
