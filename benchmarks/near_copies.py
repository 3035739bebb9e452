"""How well near copies are found: recall by kind of copy, false matches, neighbouring slices, and cost.

    python benchmarks/near_copies.py DATA

DATA holds figshare/, tcga_lgg/, brisc_no_tumor/ and kaggle/. Prints the tables of docs/audit.md.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tumorlens.data.audit.scan import Scan, scan
from tumorlens.data.index import index_folder
from tumorlens.data.readers import read_slice
from tumorlens.data.similarity import COPY, NEAR, Pair, pairs_between, pairs_within, thumbnail
from tumorlens.records import Sample, Slice

Change = Callable[[Image.Image], Image.Image]


def jpeg(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(io.BytesIO(buffer.getvalue()))

    return change


def scaled(side: int) -> Change:
    return lambda image: image.resize(
        (round(image.width * side / max(image.size)), round(image.height * side / max(image.size)))
    )


def turned(angle: float) -> Change:
    return lambda image: image.rotate(angle, Image.Resampling.BILINEAR)


def cropped(share: float) -> Change:
    return lambda image: image.crop((
        round(image.width * share), round(image.height * share),
        round(image.width * (1 - share)), round(image.height * (1 - share)),
    ))  # fmt: skip


def gamma(exponent: float) -> Change:
    return lambda image: image.point([round(255 * (level / 255) ** exponent) for level in range(256)])


def mirror(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


CHANGES: dict[str, Change] = {
    "none": lambda image: image,
    "mirrored": mirror,
    "turned by 90°": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "upside down": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "JPEG quality 30": jpeg(30),
    "reduced to 224": scaled(224),
    "reduced to 128": scaled(128),
    "mirrored, 224, JPEG 60": lambda image: jpeg(60)(scaled(224)(mirror(image))),
    "gamma 0.6": gamma(0.6),
    "gamma 1.6": gamma(1.6),
    "border of 5 % cut off": cropped(0.05),
    "border of 10 % cut off": cropped(0.1),
    "turned by 3°": turned(3),
    "turned by 6°": turned(6),
    "turned by 10°": turned(10),
}


def best_of(pairs: list[Pair]) -> dict[int, Pair]:
    best: dict[int, Pair] = {}
    for pair in pairs:
        best.setdefault(pair.first, pair)
    return best


def recall(samples: list[Sample], root: Path, seen: Scan, rows: np.ndarray) -> None:
    print("\n| copy | found at near | found at copy | right patient | the very slice |\n|---|---|---|---|---|")
    for name, change in CHANGES.items():
        pictures = [Image.fromarray(read_slice(root, samples[row]).pixels.astype(np.uint8)) for row in rows]
        small = np.stack([thumbnail(Slice(np.asarray(change(p), dtype=np.float32), "")) for p in pictures])
        best = best_of(pairs_between(small, seen.thumbnails))
        copies = sum(pair.score >= COPY for pair in best.values())
        same = sum(pair.second == rows[number] for number, pair in best.items())
        patient = sum(
            samples[pair.second].patient_group == samples[rows[number]].patient_group for number, pair in best.items()
        )
        share = [f"{value / len(rows):.3f}" for value in (len(best), copies, patient, same)]
        print(f"| {name} | {' | '.join(share)} |", flush=True)


def false_matches(name: str, control: Scan, other: Scan) -> None:
    best = best_of(pairs_between(control.thumbnails, other.thumbnails, near=0.0)).values()
    scores = np.array([pair.score for pair in best])
    counts = f"{(scores >= NEAR).sum()} | {(scores >= COPY).sum()}"
    print(f"| {name} | {len(control.thumbnails)} | {counts} | {scores.max():.3f} |")


def within(name: str, samples: list[Sample], seen: Scan) -> None:
    """Neighbouring rows of one patient id are neighbouring slices, as both sets are listed in order."""
    pairs = pairs_within(seen.thumbnails)
    groups = [sample.patient_group for sample in samples]
    other = [pair for pair in pairs if groups[pair.first] != groups[pair.second]]
    counts = np.unique(groups, return_counts=True)[1]
    possible = (len(groups) ** 2 - int((counts**2).sum())) // 2
    linked = {(pair.first, pair.second) for pair in pairs}
    beside = [(i, i + 1) for i in range(len(samples) - 1) if samples[i].patient_id == samples[i + 1].patient_id]
    share = sum(pair in linked for pair in beside) / len(beside)
    copies = sum(pair.score >= COPY for pair in other)
    print(f"| {name} | {possible:,} | {len(other)} | {copies} | {share:.2f} of {len(beside):,} |")


def cost(samples: list[Sample], root: Path) -> None:
    print("\n| images | reading | search and scoring | pairs |\n|---|---|---|---|")
    order = np.random.default_rng(0).permutation(len(samples))
    for part in (4, 2, 1):
        rows = order[: len(samples) // part]
        start = time.perf_counter()
        small = scan([samples[row] for row in rows], root, lambda done, total: None).thumbnails
        read = time.perf_counter() - start
        start = time.perf_counter()
        found = len(pairs_within(small))
        print(f"| {len(rows):,} | {read:.1f} s | {time.perf_counter() - start:.1f} s | {found:,} |", flush=True)


def main(data: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sets = {
            name: index_folder(data / name, root, "no_tumor" if name == "brisc_no_tumor" else "").samples
            for name in ("figshare", "tcga_lgg", "brisc_no_tumor", "kaggle")
        }
        seen = {name: scan(samples, root, lambda done, total: None) for name, samples in sets.items()}
        recall(sets["figshare"], root, seen["figshare"], np.arange(0, len(sets["figshare"]), 5))
        print("\n| against figshare | images | at near | at copy | highest score |\n|---|---|---|---|---|")
        for name in ("brisc_no_tumor", "tcga_lgg", "kaggle"):
            false_matches(name, seen[name], seen["figshare"])
        print(
            "\n| within | pairs of different patients | at near | at copy | neighbours linked |\n|---|---|---|---|---|"
        )
        for name in ("figshare", "tcga_lgg"):
            within(name, sets[name], seen[name])
        everything = [sample for samples in sets.values() for sample in samples]
        cost(everything, root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
