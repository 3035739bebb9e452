"""Give images their patient, slice and mask back from the data set that they were copied from."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tumorlens.data.audit.findings import Match
from tumorlens.data.manifest import write_manifest
from tumorlens.data.orientation import turn, turn_back
from tumorlens.data.preprocess import prepare, to_picture, to_square
from tumorlens.data.readers import read_mask, read_slice
from tumorlens.data.similarity import VIEWS
from tumorlens.errors import ManifestError
from tumorlens.records import Sample

_SQUARE = 512  # side on which a mask travels from one picture to the other


def write_recovered(
    samples: Sequence[Sample], root: Path, against_root: Path, recovered: dict[int, Match], folder: Path
) -> Path:
    """Write `folder/manifest.csv` with patients from the other set, and the masks laid over the pictures at hand.

    Images without a match keep their row. A near copy gets the patient, but no mask: it is another slice.

    Returns:
        The manifest's path.

    Raises:
        ManifestError: the folder is there and not empty.
        InputError: a picture or mask has become unreadable since.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ManifestError(f"{folder}: not empty. Give another --recover folder")
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, sample in enumerate(samples):
        row = dataclasses.replace(
            sample,
            path=_moved(root, sample.path, folder),
            mask=_moved(root, sample.mask, folder) if sample.mask else "",
        )
        match = recovered.get(number)
        if match and match.second.patient_id and match.tells_patient:
            mask = f"masks/{number:06d}.png" if match.second.mask and match.kind == "copy" else ""
            if mask:
                values = transferred_mask(match, root, against_root)
                # On the stored pixels, as every mask is.
                stored = turn_back(values, read_slice(root, sample).orientation)
                Image.fromarray(np.ascontiguousarray(stored)).convert("1").save(folder / mask)
            row = dataclasses.replace(
                row,
                patient_id=match.second.patient_id,
                patient_group=match.second.patient_group,
                mask=mask or row.mask,
            )
        rows.append(row)
    path = folder / "manifest.csv"
    write_manifest(rows, path)
    return path


def transferred_mask(match: Match, root: Path, against_root: Path) -> NDArray[np.bool_]:
    """The tumour mask of a match's second image laid over its first, (height, width) of the first.

    In the view in which they match both fill the square alike, so the mask travels through that square; crops of one
    slice may differ by up to a thirtieth of it.

    Raises:
        InputError: a picture or the mask cannot be read.
    """
    settings = VIEWS[match.view].model_copy(update={"size": _SQUARE})
    _, here = prepare(read_slice(root, match.first), settings)
    _, there = prepare(read_slice(against_root, match.second), settings)
    mask = read_mask(against_root, match.second)
    if mask is None:
        return np.zeros((here.height, here.width), dtype=bool)
    square = to_square(mask.astype(np.float32), there, _SQUARE)
    # The orientation takes the first picture to the second; its mirror image goes back.
    back = match.orientation if match.orientation % 2 else (8 - match.orientation) % 8
    turned = np.ascontiguousarray(turn(square, back))
    return np.asarray(to_picture(turned, here) > 0.5)


def _moved(root: Path, path: str, folder: Path) -> str:
    """A path relative to `root`, relative to `folder`."""
    return os.path.relpath((root / path).resolve(), folder.resolve())
