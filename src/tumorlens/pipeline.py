"""From paths to answers with heatmaps: what the command line and the app share."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tumorlens.data.orientation import turn_back
from tumorlens.data.preprocess import to_picture
from tumorlens.data.readers import ALL_SLICES, Entry, ReadOptions, Refused, find_inputs, read_slices, stem_of
from tumorlens.errors import InputError, RunError, TumorlensError
from tumorlens.explain.finding import EvidenceRegion, evidence_region
from tumorlens.explain.gradcam import gradcam
from tumorlens.explain.overlay import contoured, overlay
from tumorlens.explain.png import write_png
from tumorlens.explain.sharpen import contrast, sharpen
from tumorlens.model.bundle import Card
from tumorlens.ordered import in_order
from tumorlens.records import Float32, Prediction, Slice
from tumorlens.runtime.predictor import Answer, Predictor, failed

BATCH = 4  # larger ones were no faster on two cores, and hold more memory
_READ_AHEAD = 2  # files: a volume may have hundreds of slices
Way = Literal["gradcam", "sharp", "region"]
_LONGEST_NAME = 200  # bytes of a heatmap's name: file systems take 255, and numbers and endings follow
#: The model that comes with the package.
REFERENCE = Path(__file__).parent / "reference"


@dataclass(frozen=True)
class Explained:
    """A slice and its answer; `picture` is None where the input could not be read."""

    answer: Answer
    picture: Slice | None

    def heatmap(
        self,
        target_class: str = "",
        target: Literal["probability", "logit"] = "probability",
        way: Way = "gradcam",
        against: str = "",
    ) -> Float32:
        """A map at the picture's own size (height, width), float32, at least 0, from the exported graph alone.

        Args:
            target_class: the class to explain; the predicted one by default.
            target: what Grad-CAM differentiates.
            way: `gradcam` at the last residual block; `sharp`, the same weighed by the region head; `region`, the
                probability of each cell to show tumour, whatever the class.
            against: a class to set `target_class` apart from (see `explain.sharpen.contrast`).

        Raises:
            TumorlensError: there is no answer to explain, no such class, or the bundle has no region head.
        """
        answer = self.answer
        if answer.evidence is None or answer.geometry is None:
            raise TumorlensError(f"{answer.prediction.source}: no answer, so nothing to explain")
        if way != "gradcam" and answer.region is None:
            raise TumorlensError(f"way {way!r} needs a bundle with a region head. Teach it with `tumorlens region RUN`")
        if way == "region":
            assert answer.region is not None
            return to_picture(answer.region, answer.geometry)
        item = answer.prediction
        chosen = target_class or item.predicted
        small = (
            contrast(answer.evidence, item.classes, chosen, against)
            if against
            else gradcam(answer.evidence, item.probabilities, item.classes, chosen, target, answer.temperature)
        )
        if way == "sharp" and answer.region is not None:
            small = sharpen(small, answer.region)
        return to_picture(small.values, answer.geometry)

    def overlay(self, target_class: str = "", opacity: float = 0.5, way: Way = "gradcam") -> Image.Image:
        """The heatmap over the picture, RGB, at the picture's own size.

        Raises:
            TumorlensError: there is no answer to explain, or no such class.
        """
        values = self.heatmap(target_class, way=way)
        assert self.picture is not None  # an answer has its picture
        return overlay(self.picture.pixels, values, opacity)

    def finding(self, threshold: float) -> EvidenceRegion | None:
        """The evidence region: where the region head sees tumour; None where it sees none, or the bundle has no head.

        Args:
            threshold: the card's `region.threshold`.
        """
        if self.answer.region is None or self.picture is None or self.answer.geometry is None:
            return None
        values = self.heatmap(way="region")
        return evidence_region(values, threshold, self.picture.spacing, self.answer.geometry.box)


@dataclass(frozen=True)
class _Batch:
    """What is answered at once: slices, and in their place rows for what could not be read; `done` files end in it."""

    items: tuple[Slice | Prediction, ...]
    done: int


def explain_paths(
    paths: Sequence[Path],
    predictor: Predictor,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    options: ReadOptions = ALL_SLICES,
    is_done: Callable[[str], bool] = lambda address: False,
    maps: Path | None = None,
) -> Iterator[list[Explained]]:
    """Answer every slice of files, folders and archives, a batch at a time, in the order of the inputs.

    Reading, preparing and computing overlap in threads; memory stays bounded.

    Args:
        paths: files, folders and ZIP archives. Bad ones, and bad members, become a row with status `error`.
        predictor: the loaded model.
        on_progress: called with (files done, files in all).
        options: which slices of volumes and of files with several.
        is_done: says of a file's address that it needs no answer any more.
        maps: the folder that heatmaps are written to; where it lies in an input folder, its files are no inputs.
    """
    own = _below(paths, maps) if maps else set()
    files = [entry for entry in find_inputs(paths) if Path(entry.address).parent not in own]
    wanted = [entry for entry in files if not is_done(entry.address)]
    before = len(files) - len(wanted)

    def read(entry: Entry | Refused) -> tuple[Slice | Prediction, ...]:
        try:
            if isinstance(entry, Refused):
                raise InputError(entry.message)
            return tuple(read_slices(entry, options))
        except InputError as error:
            return (failed(entry.address, 0, str(error), predictor.classes),)

    def answer(batch: _Batch) -> tuple[list[Explained], int]:
        return _answered(batch.items, predictor), batch.done

    # One reader keeps the slices of archives and volumes in order; two more batches than streams are prepared or wait
    # for their turn to be written, so that no stream does.
    batches = _batches(in_order(read, wanted, 1, _READ_AHEAD))
    streams = predictor.engine.streams
    for found, done in in_order(answer, batches, streams + 2, streams + 4):
        yield found
        on_progress(before + done, len(files))


def check_way(way: Way, card: Card) -> None:
    """Refuse a kind of map that no slice could be given.

    Raises:
        RunError: it needs a region head, and the bundle has none.
    """
    if way != "gradcam" and card.region is None:
        raise RunError(
            f"--way {way} needs a bundle with a region head, and {card.name} has no region head. Take gradcam, or "
            "teach it with `tumorlens region RUN`"
        )


def check_apart(paths: Sequence[Path], maps: Path, written: tuple[str, ...] = ()) -> None:
    """Refuse a folder for maps that inputs lie in: an overlay is called like its picture, and would replace it.

    Args:
        paths: files, folders and archives that are to be answered.
        maps: the folder for maps. Below an input folder it may hold what an earlier call wrote, and no other pictures.
        written: how names end that an earlier call writes, beside overlays with their raw map.

    Raises:
        RunError: an input is the folder, or a file in it.
    """
    target = maps.resolve()
    lying = ""
    for path in paths:
        homes = {path.resolve()} if path.is_dir() else {path.parent.resolve(), path.resolve().parent}
        if target in homes:
            lying = str(path)
    if not lying and target.is_dir() and _below(paths, maps):
        names = (entry.address for entry in find_inputs([maps]) if Path(entry.address).parent == maps)
        lying = next((name for name in names if not _is_map(Path(name), written)), "")
    if lying:
        raise RunError(
            f"{maps}: {lying} lies in it, and overlays could replace pictures there. Give a folder of their own"
        )


def _is_map(path: Path, written: tuple[str, ...]) -> bool:
    return path.name.endswith(written) or (path.suffix == ".png" and path.with_suffix(".npy").is_file())


def _below(paths: Sequence[Path], folder: Path) -> set[Path]:
    """What a folder is called in the addresses of files that are found by searching `paths`."""
    target = folder.resolve()
    homes = [(path, path.resolve()) for path in paths if path.is_dir()]
    return {path / target.relative_to(home) for path, home in homes if target != home and target.is_relative_to(home)}


def _batches(files: Iterator[tuple[Slice | Prediction, ...]]) -> Iterator[_Batch]:
    """Slices of files gathered into batches of `BATCH`; the last is shorter."""
    waiting: list[Slice | Prediction] = []
    done = 0
    for done, items in enumerate(files, start=1):
        waiting += items
        while len(waiting) >= BATCH:
            part, waiting = waiting[:BATCH], waiting[BATCH:]
            yield _Batch(tuple(part), done if not waiting else done - 1)
    if waiting:
        yield _Batch(tuple(waiting), done)


def _answered(items: Sequence[Slice | Prediction], predictor: Predictor) -> list[Explained]:
    slices = [item for item in items if isinstance(item, Slice)]
    answers = iter(zip(predictor.predict(slices), slices, strict=True))
    return [
        Explained(Answer(item), None) if isinstance(item, Prediction) else Explained(*next(answers)) for item in items
    ]


class MapFolder:
    """Writes an overlay PNG and the raw map for each answered slice, under names that never collide.

    Args:
        folder: made where it is missing.
        drawn: how the overlay is drawn.
        beside: endings of what the caller writes under the name of a slice.
    """

    def __init__(
        self, folder: Path, drawn: Literal["colour", "contour"] = "colour", beside: tuple[str, ...] = ()
    ) -> None:
        self._folder = folder
        self._draw = contoured if drawn == "contour" else overlay
        self._endings = (".png", ".npy", *beside)
        self._used: set[str] = set()
        self._taken: dict[str, int] = {}  # how often a name was asked for: scanners call thousands of files IM1
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, item: Explained, values: Float32 | None = None) -> str:
        """Write `NAME.png` (overlay) and `NAME.npy` (float32, on the file's own pixel grid).

        Args:
            item: an answered slice.
            values: its map (height, width); Grad-CAM of the predicted class by default.

        Returns:
            NAME; empty where there is no answer, and nothing is written.
        """
        if item.answer.evidence is None or item.picture is None:
            return ""
        shown = item.heatmap() if values is None else values
        name = self.name(item.answer.prediction.source, item.answer.prediction.frame)
        # Who opens the map opens the file beside it, whose slices may not be stored upright.
        np.save(self._folder / f"{name}.npy", turn_back(shown, item.picture.orientation))
        write_png(self._folder / f"{name}.png", np.asarray(self._draw(item.picture.pixels, shown)))
        return name

    def name(self, address: str, frame: int) -> str:
        """Take the next free name for a slice; an earlier call's slices take theirs before it is resumed."""
        stem = _stem(address) + (f"_frame{frame:04d}" if frame else "")
        return self._free(stem, self._endings)

    def whole(self, address: str, endings: tuple[str, ...]) -> str:
        """Take the next free name for files with these endings, which show a file as a whole."""
        return self._free(_stem(address), endings)

    def _free(self, stem: str, endings: tuple[str, ...]) -> str:
        # Some file systems take IM1 and im1 for one.
        number = self._taken.get(stem.casefold(), 1)
        name = stem if number == 1 else f"{stem}-{number}"
        while not self._used.isdisjoint(files := {f"{name}{ending}".casefold() for ending in endings}):
            number += 1
            name = f"{stem}-{number}"
        self._taken[stem.casefold()] = number
        self._used |= files
        return name


def _stem(address: str) -> str:
    stem = stem_of(Entry(address).name)
    # Members of archives may have names that no file system takes.
    stem = re.sub(r'[\x00-\x1f<>:"|?*]', "_", stem)
    raw = os.fsencode(stem)
    return stem if len(raw) <= _LONGEST_NAME else raw[:_LONGEST_NAME].decode(errors="ignore")
