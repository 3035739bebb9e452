"""Accuracy and confidence of a bundle when slices get worse: eight kinds of damage at five strengths.

    python benchmarks/robustness.py BUNDLE MANIFEST [--fold 0] [--side test] [--figure docs/robustness.svg]

A random part of the side, with the same number of each class as far as there are, the same for every damage. To choose
a model take the validation side: tested slices are for the figures of the one that was chosen. Damage is done to the
picture as it is stored, before preprocessing.
"""

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from answering import answers
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tumorlens.bootstrap import PatientBootstrap, mean
from tumorlens.cli.sides import samples_of
from tumorlens.data.readers import read_slice
from tumorlens.evaluate.answers import collect
from tumorlens.evaluate.kinds import estimate
from tumorlens.records import CLASSES, Prediction, Sample, Slice
from tumorlens.runtime.predictor import Predictor

STRENGTHS = range(1, 6)
Plane = NDArray[np.float32]
Damage = Callable[[Plane, int, np.random.Generator], Plane]


def noise(plane: Plane, strength: int, rng: np.random.Generator) -> Plane:
    return plane + rng.normal(0, 0.02 * strength * np.ptp(plane), plane.shape).astype(np.float32)


def blur(plane: Plane, strength: int, rng: np.random.Generator) -> Plane:
    return _pillow(plane, lambda image: image.filter(ImageFilter.GaussianBlur(0.6 * strength)))


def gamma(plane: Plane, strength: int, rng: np.random.Generator) -> Plane:
    power = np.exp(0.16 * strength * rng.choice([-1, 1]))
    low, span = plane.min(), max(np.ptp(plane), 1e-6)
    return np.asarray(((plane - low) / span) ** power * span + low, dtype=np.float32)


def bias_field(plane: Plane, strength: int, rng: np.random.Generator) -> Plane:
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = (np.linspace(-1, 1, n) for n in plane.shape)
    field = np.cos(angle) * rows[:, None] + np.sin(angle) * columns
    return np.asarray(plane * np.exp(0.16 * strength * field), dtype=np.float32)


def motion(plane: Plane, strength: int, rng: np.random.Generator) -> Plane:
    """Ghosts: every second line of k-space belongs to a head that has moved a little."""
    spectrum = np.fft.fft2(plane)
    shift = 0.006 * strength * plane.shape[0]
    spectrum[1::2] *= np.exp(-2j * np.pi * np.fft.fftfreq(plane.shape[0])[1::2, None] * shift)
    return np.abs(np.fft.ifft2(spectrum)).astype(np.float32)


def jpeg(plane: Plane, strength: int, rng: np.random.Generator) -> Plane:
    def again(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=(50, 30, 20, 12, 6)[strength - 1])
        return Image.open(buffer).convert("L")

    return _pillow(plane, again)


def rotation(plane: Plane, strength: int, rng: np.random.Generator) -> Plane:
    degrees = 8 * strength * rng.choice([-1, 1])
    return _pillow(plane, lambda image: image.rotate(float(degrees), Image.Resampling.BILINEAR))


def crop(plane: Plane, strength: int, rng: np.random.Generator) -> Plane:
    top, bottom, left, right = (int(share) for share in rng.dirichlet(np.ones(4)) * 0.1 * strength * sum(plane.shape))
    height, width = plane.shape
    rows = slice(min(top, height // 2 - 8), max(height - bottom, height // 2 + 8))
    return plane[rows, min(left, width // 2 - 8) : max(width - right, width // 2 + 8)]


DAMAGES: dict[str, Damage] = {
    "noise": noise, "blur": blur, "gamma": gamma, "bias field": bias_field, "motion ghosts": motion, "JPEG": jpeg,
    "rotation": rotation, "crop": crop,
}  # fmt: skip


def _pillow(plane: Plane, change: Callable[[Image.Image], Image.Image]) -> Plane:
    low, span = plane.min(), max(np.ptp(plane), 1e-6)
    image = Image.fromarray(np.round((plane - low) / span * 255).astype(np.uint8))
    return np.asarray(change(image), dtype=np.float32)


def chosen(samples: list[Sample], count: int) -> list[Sample]:
    """About `count` of the samples, as even over the classes as there are."""
    rng = np.random.default_rng(0)
    found: list[Sample] = []
    for name in CLASSES:
        own = [item for item in samples if item.label == name]
        found += [own[number] for number in rng.permutation(len(own))[: count // len(CLASSES)]]
    return found


@dataclass(frozen=True)
class Found:
    """Which slices (n,) of which patients are right, mean confidence, and the share refused as no brain MRI."""

    right: NDArray[np.bool_]
    groups: tuple[str, ...]
    confidence: float
    strange: float

    def row(self, damage: str, strength: str) -> str:
        accuracy = estimate(PatientBootstrap(self.groups), "accuracy", mean(self.right))
        return f"| {damage} | {strength} | {accuracy} | {self.confidence:.3f} | {self.strange:.3f} |"


def figures(predictions: list[Prediction]) -> Found:
    answers = collect(predictions)
    strange = sum(item.message.startswith("not a brain") for item in predictions) / len(predictions)
    return Found(answers.right, answers.groups, float(answers.confidences.mean()), strange)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--side", default="test")
    parser.add_argument("--slices", type=int, default=160)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    samples = samples_of(given.manifest, given.fold, given.bundle)
    part = chosen([item for item in samples if item.split == given.side], given.slices)
    root = given.manifest.parent
    pictures = [read_slice(root, item) for item in part]
    predictor = Predictor(given.bundle, answer_all=True)

    def measured(slices: list[Slice]) -> Found:
        return figures([item.prediction for item in answers(predictor, part, root, slices)])

    before = measured(pictures)
    print(f"{len(part)} slices of {len({item.patient_group for item in part})} groups, side {given.side}")
    print("| damage | strength | accuracy | mean confidence | refused as no brain MRI |\n|---|---|---|---|---|")
    print(before.row("none", ""), flush=True)
    curves = {}
    for name, damage in DAMAGES.items():
        curves[name] = [before]
        for strength in STRENGTHS:
            rng = np.random.default_rng(strength)
            worse = [replace(item, pixels=damage(item.pixels.astype(np.float32), strength, rng)) for item in pictures]
            found = measured(worse)
            curves[name].append(found)
            print(found.row(name, str(strength)), flush=True)
    worse_ones = np.mean([found.right for curve in curves.values() for found in curve[1:]], axis=0)
    print(f"accuracy, mean over all damages: {PatientBootstrap(before.groups).estimate(mean(worse_ones))}")
    if given.figure:
        draw(curves, given.figure)


def draw(curves: dict[str, list[Found]], path: Path) -> None:
    """One small plot a damage: accuracy and mean confidence by strength; where they part, it is overconfident."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True, sharey=True).ravel()
    for axis, (name, found) in zip(axes, curves.items(), strict=True):
        axis.plot([item.right.mean() for item in found], "o-", ms=3, color="#0072B2", label="accuracy")
        axis.plot([item.confidence for item in found], "s--", ms=3, color="#D55E00", label="mean confidence")
        axis.set_title(name, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.supxlabel("strength of the damage (0: none)", fontsize=9)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
