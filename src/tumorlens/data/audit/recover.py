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
from tumorlens.data.orientation import turn
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
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ManifestError(f"{folder}: not empty. Give another --recover folder")
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, sample in enumerate(samples):
        address = os.path.relpath(_absolute(root, sample.path), folder.resolve())
        row = dataclasses.replace(sample, path=address, mask="")
        match = recovered.get(number)
        if match:
            mask = f"masks/{number:06d}.png" if match.second.mask and match.kind == "copy" else ""
            if mask:
                values = transferred_mask(match, root, against_root)
                Image.fromarray(values).convert("1").save(folder / mask)
            row = dataclasses.replace(
                row, patient_id=match.second.patient_id, patient_group=match.second.patient_group, mask=mask
            )
        rows.append(row)
    path = folder / "manifest.csv"
    write_manifest(rows, path)
    return path


def transferred_mask(match: Match, root: Path, against_root: Path) -> NDArray[np.bool_]:
    """The tumour mask of a match's second image laid over its first, (height, width) of the first.

    In the view in which they match both fill the square alike, so the mask travels through that square.

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


def _absolute(root: Path, path: str) -> Path:
    return (root / path).resolve()
