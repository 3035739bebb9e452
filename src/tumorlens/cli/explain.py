"""`tumorlens explain`, `explain score` and `explain sanity`."""

import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from tumorlens import DISCLAIMER
from tumorlens.cli.terminal import progress_bar, say
from tumorlens.errors import InputError, RunError, TumorlensError
from tumorlens.pipeline import REFERENCE, Way

PANEL, LINES = "_panel.png", ".svg"

if TYPE_CHECKING:
    from tumorlens.model.bundle import Region
    from tumorlens.pipeline import Explained, MapFolder
    from tumorlens.records import Float32
    from tumorlens.runtime.predictor import Predictor
    from tumorlens.volumes import VolumePictures


def explain(
    inputs: Positional[tuple[Path, ...]],
    /,
    out: Path,
    model: Path = REFERENCE,
    way: Way = "gradcam",
    target: Literal["probability", "logit"] = "probability",
    of: str = "",
    against: str = "",
    drawn: Literal["colour", "contour"] = "colour",
    overwrite: bool = False,
) -> int:
    """Show where in a picture an answer comes from: overlay, map, and a panel with picture, map and evidence region.

    `tumorlens explain score MANIFEST` measures how well maps find tumours.

    Args:
        inputs: Files, folders and ZIP archives, as for predict.
        out: Folder for NAME.png (overlay), NAME.npy (the map, float32, at the picture's size) and NAME_panel.png of
            each slice, NAME.svg (its contours as lines), and findings.json; of a volume or a file with several slices
            also NAME_montage.png, NAME_profile.svg (the probability of each class along it) and, for NIfTI,
            NAME_maps.nii.gz in its place.
        model: A bundle folder; the model that comes with tumorlens by default.
        way: gradcam (at the last residual block), sharp (the same, weighed by where the model sees tumour), or region
            (where it sees tumour, whatever the class). The last two need a bundle with a region head.
        target: What Grad-CAM differentiates; with --against it is the difference of the two logits.
        of: The class to explain; the predicted one by default.
        against: A class to set it apart from: why `of` rather than this one.
        drawn: The overlay in colour, or as contours at a quarter, a half and three quarters of the map's peak.
        overwrite: Write into a folder that has files.
    """
    from tumorlens.pipeline import MapFolder, check_apart, check_way, explain_paths
    from tumorlens.runtime.predictor import Predictor
    from tumorlens.volumes import ENDINGS

    if not inputs:
        raise RunError("no input given; give files or folders")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise RunError(f"{out}: not empty. Give another --out, or --overwrite to write into it")
    if way == "region" and (of or against):
        raise RunError("--way region is where the model sees tumour, whatever the class: leave out --of and --against")
    predictor = Predictor(model, answer_all=True)
    check_way(way, predictor.card)
    _check_classes(predictor, of, against)
    check_apart(inputs, out, (PANEL, *ENDINGS))
    sheet = _Sheet(out, MapFolder(out, drawn, (PANEL, LINES)), predictor.card.region)
    try:
        with progress_bar() as bar:
            answers = explain_paths(inputs, predictor, lambda done, n: bar.update("explaining", done, n), maps=out)
            for item in chain.from_iterable(answers):
                try:
                    values = _map_of(item, of, target, way, against)
                except TumorlensError as error:
                    say(f"left out: {error}")
                    sheet.failed += 1
                    continue
                sheet.add(item, values)
    finally:  # what was found before an interruption stays
        sheet.close()
    unanswered = sum(bool(item["message"]) for item in sheet.findings)
    doubted = f" ({unanswered} of them would be refused: see findings.json)" if unanswered else ""
    say(f"{len(sheet.findings)} explained{doubted}, {sheet.failed} left out; wrote {out}")
    say("An evidence region is where the model sees tumour; it is no segmentation. " + DISCLAIMER)
    return 1 if sheet.failed else 0


def _check_classes(predictor: "Predictor", of: str, against: str) -> None:
    """Refuse classes that no slice can be explained by, before anything is written."""
    for option, name in (("--of", of), ("--against", against)):
        if name and name not in predictor.classes:
            raise RunError(f"{option} {name}: the model knows {', '.join(predictor.classes)}. Name one of these")
    if against and against == of:
        raise RunError(f"--of {of} --against {against}: nothing sets a class apart from itself. Give two classes")


def _map_of(item: "Explained", of: str, target: Literal["probability", "logit"], way: Way, against: str) -> "Float32":
    found = item.answer.prediction
    if item.answer.evidence is None:
        raise InputError(found.message)
    if not of and against == found.predicted:
        raise InputError(f"{found.source}: {against} is its answer, and nothing sets it apart from itself. Name --of")
    return item.heatmap(of, target, way, against)


class _Sheet:
    """The folder that `explain` writes: pictures slice by slice, a volume's as a whole, and what was found."""

    def __init__(self, out: Path, folder: "MapFolder", region: "Region | None") -> None:
        self.findings: list[dict[str, object]] = []
        self.failed = 0
        self._out, self._folder, self._region = out, folder, region
        self._volume: VolumePictures | None = None
        self._name = ""

    def add(self, item: "Explained", values: "Float32") -> None:
        """An answered slice and its map."""
        from tumorlens.explain.overlay import panel
        from tumorlens.explain.vector import contours_svg
        from tumorlens.records import class_title
        from tumorlens.volumes import ENDINGS, VolumePictures

        assert item.picture is not None
        found = item.answer.prediction
        seen = item.finding(self._region.threshold) if self._region else None
        name = self._folder.save(item, values)
        region = seen.mask if seen else None
        panel(item.picture.pixels, values, region, item.picture.spacing).save(self._out / f"{name}{PANEL}")
        said = f"{class_title(found.predicted)}, {found.confidence:.0%}"
        said = f"Would be refused; most probable: {said}" if found.message else said
        title = f"{said}; not for diagnosis. {name}"
        lines = contours_svg(item.picture.pixels, values, title, region, item.picture.spacing)
        # Names on disk need not be UTF-8.
        (self._out / f"{name}{LINES}").write_text(lines, encoding="utf-8", errors="backslashreplace")
        if self._volume is None or self._volume.source != found.source:
            self._end_volume()
            self._volume, self._name = VolumePictures(found.source), self._folder.whole(found.source, ENDINGS)
        self._volume.add(item, values)
        self.findings.append({
            "input": found.source, "frame": found.frame, "predicted": found.predicted,
            "confidence": found.confidence, "message": found.message, "map": f"{name}.npy",
            "evidence_region": seen.to_json(item.picture.orientation) if seen else None,
        })  # fmt: skip

    def close(self) -> None:
        """Write what is left."""
        if not self.findings:  # a list from an earlier call stays
            return
        (self._out / "findings.json").write_text(json.dumps(self.findings, indent=2) + "\n", encoding="utf-8")
        self._end_volume()

    def _end_volume(self) -> None:
        volume, self._volume = self._volume, None
        if volume is None:
            return
        try:
            volume.save(self._out, self._name)
        except InputError as error:  # its slices are there all the same
            say(f"left out: maps as a volume: {error}")


def score(
    manifest: Positional[Path],
    /,
    model: Path,
    fold: str | None = None,
    methods: tuple[str, ...] = (),
    every: int = 8,
    most: int = 0,
    source: str = "",
    out: Path | None = None,
) -> int:
    """Measure how well maps find tumours, on tested patients with masks, beside chance and what knows nothing.

    Args:
        manifest: A manifest with splits, or with folds and --fold: that of the model's training, so that tested
            patients are those that it never saw.
        model: A bundle folder.
        fold: The fold that the model was tested on.
        methods: More methods, which need PyTorch (extras train and explain): gradcam++, hirescam, layercam, eigencam,
            fusion, occlusion, integrated-gradients, smoothgrad, scorecam (slow), and untrained (Grad-CAM of random
            weights).
        every: Faithfulness, noise and mirror are measured on each n-th slice; 0 for not at all.
        most: At most so many slices a side, drawn at random; 0 for all. For slow methods.
        source: Only slices of this source.
        out: A JSON file for the figures.
    """
    from tumorlens.cli.sides import samples_of
    from tumorlens.cli.tables import show_grids
    from tumorlens.evaluate.tables import Grid
    from tumorlens.map_scores import FIGURES, graph_methods, score_maps, torch_methods
    from tumorlens.runtime.predictor import Predictor
    from tumorlens.values import estimates_json

    _check_place(out)
    samples = samples_of(manifest, fold, model)
    samples = [item for item in samples if not source or item.source == source]
    predictor = Predictor(model, answer_all=True)
    drawn = graph_methods(predictor) | (torch_methods(model, methods) if methods else {})
    with progress_bar() as bar:
        rows = score_maps(predictor, samples, manifest.parent, drawn, bar.update, every, most)
    names = [name for name in FIGURES if any(name in row.figures for row in rows)]
    for part in filter(None, (names[:4], names[4:8], names[8:])):  # a terminal is 80 columns wide
        cells = tuple((row.method, *(row.figures.get(name, "–") for name in part)) for row in rows)
        show_grids([Grid("Maps of tested slices", ("Method", *(FIGURES[name][0] for name in part)), cells)])
    parts = list(dict.fromkeys(part for row in rows for part in row.parts))
    for figure in ("peak", "dice") if parts else ():
        with_parts = [row for row in rows if row.parts]
        for start in range(0, len(with_parts), 4):
            shown = with_parts[start : start + 4]
            cells = tuple((part, *(row.parts[part][figure] for row in shown)) for part in parts)
            title = f"By part of the slices: {FIGURES[figure][0]}"
            show_grids([Grid(title, ("", *(row.method for row in shown)), cells)])
    if out is not None:
        found = [
            {"method": row.method, "level": row.level, "figures": estimates_json(row.figures),
             "parts": {part: estimates_json(figures) for part, figures in row.parts.items()}}
            for row in rows
        ]  # fmt: skip
        out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        say(f"wrote {out}")
    return 0


def sanity(
    manifest: Positional[Path],
    /,
    model: Path,
    fold: str | None = None,
    beside: Path | None = None,
    most: int = 60,
    source: str = "",
    out: Path | None = None,
) -> int:
    """Measure whether Grad-CAM follows the weights: they are drawn anew, from the last stage to the first, and the map
    must become unlike itself (needs PyTorch). And whether two models that were trained apart look at the same place.

    Args:
        manifest: A manifest with splits and masks, or with folds and --fold: that of the model's training.
        model: A bundle folder.
        fold: The fold that the model was tested on.
        beside: Another bundle, trained apart, whose maps of the same slices are compared. Their patients must be unseen
            by it too: leave others out of the manifest.
        most: At most so many tested slices, drawn at random; 0 for all.
        source: Only slices of this source.
        out: A JSON file for the figures.
    """
    from tumorlens.cli.sides import samples_of
    from tumorlens.cli.tables import show_grids
    from tumorlens.evaluate.tables import Grid
    from tumorlens.map_agreement import agreement
    from tumorlens.map_sanity import cascade
    from tumorlens.map_scores import cases_of
    from tumorlens.runtime.predictor import Predictor
    from tumorlens.values import estimates_json

    _check_place(out)
    samples = [item for item in samples_of(manifest, fold, model) if not source or item.source == source]
    predictor = Predictor(model, answer_all=True)
    other = Predictor(beside, answer_all=True) if beside else None
    with progress_bar() as bar:
        cases = list(cases_of(predictor, samples, manifest.parent, "test", bar.update, most))
        if not cases:
            raise RunError(f"{manifest}: no tested slice with a mask. Give a manifest with splits, or folds and --fold")
        agreed = agreement(cases, other, samples, manifest.parent, bar.update) if other else {}
        found = cascade(model, cases, bar.update)
    cells = tuple((f"{part} and what follows" if part != "head" else part, value) for part, value in found.items())
    show_grids([Grid(f"Likeness of Grad-CAM on {len(cases)} slices", ("Drawn anew", "Rank correlation"), cells)])
    if agreed:
        cells = tuple(agreed.items())
        show_grids([Grid(f"Beside the maps of {beside}", ("Compared with", "Rank correlation"), cells)])
    if out is not None:
        figures = {"drawn anew": estimates_json(found)} | ({"beside": estimates_json(agreed)} if agreed else {})
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        say(f"wrote {out}")
    return 0


def _check_place(out: Path | None) -> None:
    """Refuse a file that could not be written when all is measured."""
    if out and (out.is_dir() or not out.parent.is_dir()):
        raise RunError(f"--out {out}: a folder, or in a folder that is missing. Give a file in a folder that is there")
