"""An 8-bit graph beside a bundle's own: two to four times as fast on a plain processor, nearly the same answers."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tumorlens.data.preprocess import prepare
from tumorlens.data.readers import read_slice
from tumorlens.errors import ManifestError
from tumorlens.model.bundle import INT8, ONNX, Agreement, Card, load_card, write_card
from tumorlens.no_telemetry import load_openvino
from tumorlens.records import Float32, Sample
from tumorlens.runtime.engine import Engine, load_engine
from tumorlens.runtime.predictor import softmax

Progress = Callable[[str, int, int], None]
CALIBRATED_ON = 300
CHECKED_ON = 400
_LEAST = 10  # slices of either kind
_BATCH = 16
# Parts that keep 32 bits: the first convolution, whose rounding moves what tells brain MRI from other pictures, and
# the products after the pooling, which cost nothing.
_KEPT_EXACT = ("MatMul",)


def quantise(bundle: Path, samples: Sequence[Sample], root: Path, progress: Progress) -> Agreement:
    """Quantise a bundle's graph with NNCF, and say in its card how far the answers agree.

    Ranges are the extremes over training slices: cutting them off, as is usual, loses the few strong cells that the
    evidence rests on. The agreement is measured on validation slices; tested ones are never looked at.

    Args:
        bundle: a bundle folder with `model.onnx`.
        samples: with their sides.
        root: the folder that their paths are relative to.
        progress: called with (stage, done, total).

    Raises:
        BundleError: no bundle there, or it was changed.
        ManifestError: fewer than 10 training or validation slices.
    """
    card = load_card(bundle, needs=ONNX)
    train, val = (_drawn(samples, side, most) for side, most in (("train", CALIBRATED_ON), ("val", CHECKED_ON)))
    if min(len(train), len(val)) < _LEAST:
        raise ManifestError(
            f"{len(train)} training and {len(val)} validation slices, needed are {_LEAST} of both. Give a manifest "
            "with splits, or with folds and --fold"
        )
    squares = [_square(item, root, card) for item in _told(train, "reading", progress)]
    # An interruption from here on leaves the bundle as it was without 8 bits.
    write_card(bundle, card.model_copy(update={"int8": None}), without=INT8)
    for name in INT8:
        (bundle / name).unlink(missing_ok=True)
    _write_graph(bundle, squares, progress)
    exact, rounded = load_engine(bundle, card), load_engine(bundle, card.model_copy(update={"int8": _UNKNOWN}), "int8")
    checked = [_square(item, root, card) for item in _told(val, "checking", progress)]
    found = agreement(exact, rounded, checked, card.temperature, len(train))
    write_card(bundle, card.model_copy(update={"int8": found}))
    return found


def agreement(
    exact: Engine, rounded: Engine, squares: Sequence[Float32], temperature: float, calibrated_on: int
) -> Agreement:
    """How far two engines agree on prepared squares (size, size)."""
    same, differences, correlations = [], [], []
    for start in range(0, len(squares), _BATCH):
        images = np.stack(squares[start : start + _BATCH])[:, None]
        one, other = exact.run(images), rounded.run(images)
        shares = [softmax(found["logits"] / np.float64(temperature)) for found in (one, other)]
        chosen = shares[0].argmax(axis=1)
        same += list(chosen == shares[1].argmax(axis=1))
        differences += list(np.abs(shares[0] - shares[1]).max(axis=1))
        rows = np.arange(len(images))
        maps = [found["evidence"][rows, chosen].reshape(len(images), -1) for found in (one, other)]
        correlations += [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(*maps, strict=True)]
    return Agreement(
        calibrated_on=calibrated_on,
        checked_on=len(squares),
        same=float(np.mean(same)),
        largest=float(np.quantile(differences, 0.99)),
        correlation=float(np.quantile(correlations, 0.01)),
    )


_UNKNOWN = Agreement(calibrated_on=0, checked_on=0, same=0, largest=1, correlation=0)  # until it is measured


def _write_graph(bundle: Path, squares: Sequence[Float32], progress: Progress) -> None:
    import logging

    ov = load_openvino()
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)
    graph = ov.Core().read_model(bundle / ONNX)
    operations = graph.get_ordered_ops()
    first = next(op for op in operations if op.get_type_name() == "Convolution")
    exact = [first, *(op for op in operations if op.get_type_name() in _KEPT_EXACT)]

    def fed(square: Float32) -> Any:
        return square[None, None]

    progress("quantising", 0, 1)
    rounded = nncf.quantize(
        graph,
        nncf.Dataset(squares, fed),
        subset_size=len(squares),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=[op.get_friendly_name() for op in exact]),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
        ),
    )
    ov.save_model(rounded, bundle / INT8[0])


def _drawn(samples: Sequence[Sample], side: str, most: int) -> list[Sample]:
    """At most so many slices of a side, drawn evenly over the manifest."""
    own = [item for item in samples if item.split == side]
    return [own[round(place)] for place in np.linspace(0, len(own) - 1, min(most, len(own)))] if own else []


def _told(samples: Sequence[Sample], stage: str, progress: Progress) -> Iterator[Sample]:
    for number, item in enumerate(samples):
        progress(stage, number, len(samples))
        yield item


def _square(sample: Sample, root: Path, card: Card) -> Float32:
    return prepare(read_slice(root, sample), card.preprocess)[0]
