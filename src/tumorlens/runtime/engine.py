"""What computes a bundle's graph: OpenVINO, or ONNX Runtime where there is none."""

import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from tumorlens.errors import BundleError, TumorlensError
from tumorlens.model.bundle import INT8, ONNX, Card
from tumorlens.no_telemetry import load_openvino
from tumorlens.records import Float32

Precision = Literal["fp32", "bf16", "int8", "auto"]
EngineName = Literal["auto", "openvino", "onnxruntime"]

#: Names the folder of compiled graphs.
CACHE_VARIABLE = "TUMORLENS_CACHE"
_KEPT = 8  # compiled graphs, 8 to 95 MB each: three precisions, for one picture and for many
#: What the agreement of an 8-bit graph must reach for `auto` to take it.
SAME, CORRELATION = 0.99, 0.99


class Engine(Protocol):
    """A loaded graph. `streams` is how many calls of `run` it computes side by side; it may be called by threads."""

    precision: str
    streams: int

    def run(self, images: Float32) -> dict[str, Float32]:
        """The graph's outputs by name for squares (n, 1, size, size), float32 in [0, 1]."""


def cache_folder() -> Path | None:
    """Where compiled graphs are kept: $TUMORLENS_CACHE, else below the user's cache folder, if there is one."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given) / "graphs"
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # nobody's home, as in some containers
        return None
    return base / "tumorlens" / "graphs"


def load_engine(
    folder: Path,
    card: Card,
    precision: Precision = "fp32",
    many: bool = False,
    name: EngineName = "auto",
    cache: Path | None = None,
) -> Engine:
    """Load a bundle's graph.

    Args:
        folder: the bundle.
        card: its card.
        precision: what is computed in. `fp32` gives the same answers on every processor. `bf16` needs a processor
            that has it; `int8` a bundle that was quantised; `auto` is int8 where the card says that it gives the same
            class on 99 % of slices and maps correlated by 0.99, else bf16 where the processor computes in it, which
            agrees better than that (`docs/performance.md`), else fp32.
        many: set up for many pictures at once rather than for the quickest single answer.
        name: OpenVINO where it is installed, else ONNX Runtime; or one of them.
        cache: a folder for the compiled graph, which makes the next start quicker; None for none.

    Raises:
        BundleError: the graph cannot be loaded, or was not quantised.
        TumorlensError: this processor or engine does not have the precision, or no engine is installed.
    """
    chosen = name if name != "auto" else next((n for n in ("openvino", "onnxruntime") if find_spec(n)), "openvino")
    if not find_spec(chosen):
        raise TumorlensError(f"engine {chosen} is not installed. `pip install {chosen}`, or leave out --engine")
    if precision == "auto":
        precision = _quickest(card) if chosen == "openvino" else "fp32"
    if precision == "int8" and card.int8 is None:
        raise BundleError(
            f"{folder}: has no 8-bit graph. Take --precision fp32, or make one: `tumorlens quantise {folder} MANIFEST`"
        )
    if chosen == "onnxruntime":
        return _OnnxRuntime(folder / ONNX, precision)
    return _OpenVino(folder / (INT8[0] if precision == "int8" else ONNX), precision, many, cache)


def _quickest(card: Card) -> Precision:
    """Of the precisions whose answers and maps agree with those of float32, the quickest that this processor has."""
    if card.int8 and card.int8.same >= SAME and card.int8.correlation >= CORRELATION:
        return "int8"
    return "bf16" if "BF16" in capabilities() else "fp32"


def capabilities() -> list[str]:
    """What the processor computes in, by OpenVINO's names: `FP32`, `INT8`, and perhaps `BF16`."""
    found: list[str] = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found


@lru_cache(maxsize=1)
def _core() -> Any:
    return load_openvino().Core()


class _OpenVino:
    def __init__(self, graph: Path, precision: str, many: bool, cache: Path | None) -> None:
        _check_precision(precision, capabilities())
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "THROUGHPUT" if many else "LATENCY",
        }
        if cache is not None and _usable(cache):
            settings["CACHE_DIR"] = str(cache)
        try:
            self._compiled = _core().compile_model(graph, "CPU", settings)
        except RuntimeError as error:
            raise BundleError(f"{graph}: cannot be loaded ({error})") from error
        self.precision = precision
        self.streams = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) if many else 1
        if cache is not None:
            _prune(cache)

    def run(self, images: Float32) -> dict[str, Float32]:
        # A request of its own for each call: threads and sessions of the app share one engine.
        result = self._compiled.create_infer_request().infer(images)
        return {name: np.array(values) for port, values in result.items() for name in port.names}


class _OnnxRuntime:
    streams = 1

    def __init__(self, graph: Path, precision: str) -> None:
        import onnxruntime

        _check_precision(precision, [])
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(graph, providers=providers)
        except Exception as error:  # its errors have no common class of their own
            raise BundleError(f"{graph}: cannot be loaded ({error})") from error
        self._names = [output.name for output in self._session.get_outputs()]
        self.precision = precision

    def run(self, images: Float32) -> dict[str, Float32]:
        return dict(zip(self._names, self._session.run(self._names, {"images": images}), strict=True))


def _check_precision(precision: str, known: list[str]) -> None:
    if precision == "bf16" and "BF16" not in known:
        raise TumorlensError(
            "precision bf16: this processor or engine does not have it. Take fp32, or int8 where the model has it"
        )
    if precision == "int8" and not known:
        raise TumorlensError("precision int8 needs OpenVINO. Take fp32, or install openvino")


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written to costs the quick start, not the answer
        return False
    return os.access(folder, os.W_OK)


def _prune(folder: Path) -> None:
    """Keep the graphs that were read or written last: each version of a model leaves one behind."""
    try:
        used = {path: max(path.stat().st_atime, path.stat().st_mtime) for path in folder.glob("*.blob")}
        for path in sorted(used, key=used.__getitem__, reverse=True)[_KEPT:]:
            path.unlink()
    except OSError:  # another process was quicker
        pass
