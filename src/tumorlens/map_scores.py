"""How well maps find tumours that the model never saw, beside what knows nothing: `tumorlens explain score`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from tumorlens.bootstrap import LEAST_GROUPS, PatientBootstrap, mean
from tumorlens.data.preprocess import prepare, resize, to_square
from tumorlens.data.readers import read_mask, read_slice
from tumorlens.errors import RunError, TumorlensError
from tumorlens.evaluate.kinds import estimate
from tumorlens.explain import baselines
from tumorlens.explain.faithfulness import faithfulness
from tumorlens.explain.gradcam import gradcam
from tumorlens.explain.road import road
from tumorlens.explain.scores import LEVELS, Localisation, localise
from tumorlens.explain.sharpen import sharpen
from tumorlens.records import Better, Estimate, Float32, Sample, class_title
from tumorlens.runtime.predictor import Outputs, Predictor

Progress = Callable[[str, int, int], None]
BATCH = 16
Column = np.ndarray[Any, np.dtype[np.float64]]
#: A map (size, size) of one prepared square: from the square, the graph's outputs for it, and its class number.
Draw = Callable[[Float32, "Shown"], Float32]
FIGURES: dict[str, tuple[str, Better]] = {
    "peak": ("peak in the tumour", "higher"),
    "near": ("or within 5 % of the side", "higher"),
    "energy": ("share of the map in it", "higher"),
    "precision": ("average precision", "higher"),
    "distance": ("peak's distance (head widths)", "lower"),
    "outside": ("share outside the head", "lower"),
    "dice": ("Dice", "higher"),
    "iou": ("IoU", "higher"),
    "deletion": ("deletion", "lower"),
    "insertion": ("insertion", "higher"),
    "road": ("ROAD", "higher"),
    "noise": ("like itself under noise", "higher"),
    "mirror": ("like itself mirrored", "higher"),
}


@dataclass(frozen=True)
class Shown:
    """One slice as the graph sees it: its answer and what the maps are made of."""

    probabilities: tuple[float, ...]
    chosen: int
    evidence: Float32
    region: Float32 | None
    temperature: float
    classes: tuple[str, ...]


@dataclass(frozen=True)
class MapScores:
    """The figures of one method; `level` is the share of the maximum at which it is outlined, chosen on validation.

    `parts` has `peak`, `energy` and `dice` of parts of the slices: by class, source, plane, size, right and wrong.
    """

    method: str
    level: float
    figures: Mapping[str, Estimate]
    parts: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A prepared square (size, size), the tumour's mask on it, what the graph says of it, and the row it is of."""

    square: Float32
    mask: np.ndarray[Any, np.dtype[np.bool_]]
    shown: Shown
    sample: Sample

    @property
    def group(self) -> str:
        """Whose it is."""
        return self.sample.patient_group


def graph_methods(predictor: Predictor) -> dict[str, Draw]:
    """What the exported graph can draw, and what knows nothing of the answer."""
    size = predictor.card.preprocess.size

    def closed(target: Any, sharp: bool) -> Draw:
        def draw(square: Float32, shown: Shown) -> Float32:
            heat = gradcam(
                shown.evidence, shown.probabilities, shown.classes, shown.classes[shown.chosen], target,
                shown.temperature,
            )  # fmt: skip
            if sharp and shown.region is not None:
                heat = sharpen(heat, shown.region)
            return resize(heat.values, size, size)

        return draw

    def region(square: Float32, shown: Shown) -> Float32:
        assert shown.region is not None
        return resize(shown.region, size, size)

    found: dict[str, Draw] = {"gradcam": closed("probability", False), "gradcam, logit": closed("logit", False)}
    if predictor.card.region:
        found |= {
            "sharp": closed("probability", True),
            "sharp, logit": closed("logit", True),
            "region": region,
        }
    return found | {
        "centre": lambda square, shown: baselines.centre(square),
        "edges": lambda square, shown: baselines.edges(square),
        "brightness": lambda square, shown: baselines.brightness(square),
    }


def score_maps(
    predictor: Predictor,
    samples: Sequence[Sample],
    root: Path,
    methods: Mapping[str, Draw],
    progress: Progress,
    every: int = 8,
    most: int = 0,
) -> list[MapScores]:
    """Score maps of the predicted class on the tested slices that have a mask.

    Args:
        predictor: the model.
        samples: with their sides; tested ones are scored, validation ones choose the level of each outline.
        root: the folder that their paths are relative to.
        methods: by name.
        progress: called with (stage, done, total).
        every: faithfulness and likeness are measured on each n-th tested slice; 0: not at all.
        most: slices a side, drawn at random; 0: all of them.

    Returns:
        A row a method, with 95 % intervals by patient, and one called `chance`: the tumour's share of the picture.

    Raises:
        RunError: no tested, or no validated slice with a mask, or a negative number.
    """
    if every < 0:
        raise RunError(f"--every {every} is not allowed. Give 1 or more, or 0 to leave faithfulness out")
    cases = {side: list(cases_of(predictor, samples, root, side, progress, most)) for side in ("val", "test")}
    if not all(cases.values()):
        counts = ", ".join(f"{len(part)} of {side}" for side, part in cases.items())
        raise RunError(f"slices with a mask: {counts}; some of both are needed. Give a manifest with splits and masks")
    rows = []
    for number, (name, draw) in enumerate(methods.items()):
        progress("scoring methods", number, len(methods))
        level = _best_level([score_case(case, draw) for case in cases["val"]])
        figures, parts = _figures(cases["test"], draw, level, predictor, every)
        rows.append(MapScores(name, LEVELS[level], figures, parts))
    chance = np.array([case.mask.mean() for case in cases["test"]])
    bootstrap = PatientBootstrap([case.group for case in cases["test"]])
    return [*rows, MapScores("chance", 1.0, {"peak": bootstrap.estimate(mean(chance))})]


def cases_of(
    predictor: Predictor,
    samples: Sequence[Sample],
    root: Path,
    side: str,
    progress: Progress = lambda stage, done, total: None,
    most: int = 0,
) -> Iterator[Case]:
    """The slices of one side that have a mask, answered; see `score_maps`.

    Raises:
        RunError: `most` is negative.
    """
    if most < 0:
        raise RunError(f"--most {most} is not allowed. Give 1 or more, or 0 for all slices")
    chosen = [item for item in samples if item.split == side and item.mask]
    if most and len(chosen) > most:
        drawn = np.random.default_rng(0).choice(len(chosen), most, replace=False)
        chosen = [chosen[number] for number in sorted(drawn)]
    settings = predictor.card.preprocess
    for start in range(0, len(chosen), BATCH):
        progress(f"answering, {side}", start, len(chosen))
        batch = chosen[start : start + BATCH]
        prepared = [prepare(read_slice(root, item), settings) for item in batch]
        shown = explained(predictor, np.stack([square for square, _ in prepared]))
        for item, (square, geometry), answer in zip(batch, prepared, shown, strict=True):
            mask = read_mask(root, item)
            assert mask is not None
            inside = to_square(mask.astype(np.float32), geometry, settings.size) > 0.5
            if inside.any():
                yield Case(square, inside, answer, item)


def explained(predictor: Predictor, squares: Float32, chosen: int | None = None) -> list[Shown]:
    """What the graph says of squares (n, size, size), with the predicted class, or another, to be explained."""
    found: Outputs = predictor.run(squares[:, None])
    temperature = predictor.card.temperature
    rows = softmax(found.logits.astype(np.float64) / temperature, axis=1)
    return [
        Shown(
            tuple(float(p) for p in row),
            int(row.argmax()) if chosen is None else chosen,
            found.evidence[n],
            None if found.region is None else expit(found.region[n]),
            temperature,
            predictor.classes,
        )
        for n, row in enumerate(rows)
    ]


def score_case(case: Case, draw: Draw) -> Localisation:
    """How well a method finds the tumour of one slice."""
    return localise(draw(case.square, case.shown), case.mask, case.square > 0.1)


def _best_level(found: Sequence[Localisation]) -> int:
    return int(np.mean([item.dice for item in found], axis=0).argmax())


def _figures(
    cases: Sequence[Case], draw: Draw, level: int, predictor: Predictor, every: int
) -> tuple[dict[str, Estimate], dict[str, dict[str, Estimate]]]:
    found = [score_case(case, draw) for case in cases]
    values = {
        **{
            name: [getattr(item, name) for item in found]
            for name in ("peak", "near", "energy", "precision", "distance", "outside")
        },
        "dice": [item.dice[level] for item in found],
        "iou": [item.iou[level] for item in found],
    }
    figures = _estimates(cases, values)
    if every:
        some = cases[::every]
        figures |= _estimates(some, _behaviour(some, draw, predictor))
    parts = {}
    for name, marked in _parts(cases):
        own = [case for case, chosen in zip(cases, marked, strict=True) if chosen]
        if len({case.group for case in own}) >= LEAST_GROUPS:
            parts[name] = _estimates(own, {key: np.array(values[key])[marked] for key in ("peak", "energy", "dice")})
    return figures, parts


def _parts(cases: Sequence[Case]) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.bool_]]]]:
    """Parts of the slices by name, with which slices are in them, (n,)."""
    rows = [case.sample for case in cases]
    for kind in ("label", "source", "plane"):
        names = np.array([getattr(row, kind) for row in rows], dtype=str)
        known = sorted(set(names) - {""})
        for name in known if len(known) > 1 else ():
            yield class_title(name) if kind == "label" else f"{kind} {name}", names == name
    shares = np.array([case.mask.mean() for case in cases])
    low, high = np.quantile(shares, [1 / 3, 2 / 3])
    yield f"small: up to {low:.1%} of the square", shares <= low
    yield f"medium: to {high:.1%}", (shares > low) & (shares <= high)
    yield f"large: above {high:.1%}", shares > high
    right = np.array([case.shown.classes[case.shown.chosen] == case.sample.label for case in cases])
    yield "answered right", right
    yield "answered wrong", ~right


def _behaviour(cases: Sequence[Case], draw: Draw, predictor: Predictor) -> dict[str, list[float]]:
    """Faithfulness by three measures, and likeness under small noise and after mirroring (the map mirrored back)."""
    names = ("deletion", "insertion", "road", "noise", "mirror")
    values: dict[str, list[float]] = {name: [] for name in names}
    rng = np.random.default_rng(0)
    for case in cases:
        own = draw(case.square, case.shown)
        chosen = case.shown.chosen

        def ask(squares: Float32, chosen: int = chosen) -> np.ndarray[Any, np.dtype[np.float64]]:
            logits = predictor.run(squares).logits.astype(np.float64)
            return np.asarray(softmax(logits / predictor.card.temperature, axis=1)[:, chosen])

        curves = faithfulness(case.square, own, ask)
        noisy = np.clip(case.square + rng.normal(0, 0.02, case.square.shape), 0, 1).astype(np.float32)
        flipped = np.ascontiguousarray(case.square[:, ::-1])
        noise, mirror = explained(predictor, np.stack([noisy, flipped]), chosen)
        values["deletion"].append(curves.deletion)
        values["insertion"].append(curves.insertion)
        values["road"].append(road(case.square, own, ask))
        values["noise"].append(_likeness(own, draw(noisy, noise)))
        values["mirror"].append(_likeness(own, draw(flipped, mirror)[:, ::-1]))
    return values


def _likeness(first: Float32, second: Float32) -> float:
    """Pearson's correlation of two maps; 0 where one is the same all over."""
    if not (first.std() > 0 and second.std() > 0):
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _estimates(cases: Sequence[Case], values: Mapping[str, Sequence[float] | Column]) -> dict[str, Estimate]:
    bootstrap = PatientBootstrap([case.group for case in cases])
    found = {}
    for name, column in values.items():
        metric = mean(np.array(column))
        if name in ("peak", "near"):  # shares of slices
            found[name] = estimate(bootstrap, "accuracy", metric)
        else:
            found[name] = bootstrap.estimate(metric, FIGURES[name][1])
    return found


def torch_methods(bundle: Path, names: Sequence[str]) -> dict[str, Draw]:
    """Methods that need PyTorch and the bundle's weights, of the predicted class's probability by the network alone,
    without a region head's say; `untrained` is Grad-CAM of the same network with random weights.

    Raises:
        TumorlensError: no such method.
        BundleError: the bundle has neither weights nor a graph.
    """
    import torch

    from tumorlens.explain.methods import METHODS, Scores, find_method
    from tumorlens.model.bundle import load_card
    from tumorlens.model.network import TumorNet
    from tumorlens.runtime.export import load_network

    unknown = [name for name in names if name not in (*METHODS, "untrained")]
    if unknown:
        raise TumorlensError(f"no method {unknown[0]!r}; there are {', '.join((*METHODS, 'untrained'))}")
    card = load_card(bundle)
    trained = load_network(bundle, card)

    def of(network: TumorNet, name: str) -> Draw:
        method = find_method(name)(Scores(network, "probability", card.temperature))

        def draw(square: Float32, shown: Shown) -> Float32:
            image = torch.from_numpy(np.ascontiguousarray(square))[None, None]
            return resize(method.explain(image, torch.tensor([shown.chosen]))[0], *square.shape)

        return draw

    found = {name: of(trained, name) for name in names if name != "untrained"}
    if "untrained" in names:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            random = TumorNet(len(card.classes), settings=card.network)
        found["untrained"] = of(random.eval(), "gradcam")
    return found
