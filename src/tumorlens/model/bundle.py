"""The bundle: a trained model with everything that is needed to use it rightly, checked when it is loaded.

A folder of `model.json` (the card), `model.onnx`, an 8-bit graph where it was quantised, and, for further training,
`weights.safetensors`, what tells brain MRI from other pictures, `refusal.safetensors`, and what tells tumour from
healthy cells, `region.safetensors`. The card holds the hash of every other file, so a changed byte is noticed. No
pickle, no torch.
"""

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tumorlens import DISCLAIMER
from tumorlens.config import Architecture, PreprocessSettings
from tumorlens.data.manifest import file_hash
from tumorlens.errors import BundleError
from tumorlens.model.blocks import LAST_BLOCK
from tumorlens.model.label_sets import LabelSets
from tumorlens.textfile import write_whole

CARD = "model.json"
ONNX = "model.onnx"
INT8 = ("model_int8.xml", "model_int8.bin")
WEIGHTS = "weights.safetensors"
GATE = "refusal.safetensors"
REGION = "region.safetensors"
REGION_MAP = "region"  # the graph's output that says where a tumour may lie
STRANGENESS = "strangeness"  # the graph's output that tells brain MRI from other pictures
LEAST_CONFIDENCE = 0.5  # of a model that refuses, without tuning: no class is more probable than all others together
SCHEMA_VERSION = 6
# 1 knew no architecture but the plain one, 2 no label sets and refusals, 3 no regions, 4 no 8-bit graph, 5 no
# temperature_factor.
_READABLE = (1, 2, 3, 4, 5, 6)


class Refusal(BaseModel):
    """What is no brain MRI: the graph's `strangeness` above `threshold`. `fitted_on` says what told them apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float
    fitted_on: str = ""


class Region(BaseModel):
    """Where a tumour may lie: the graph's output `region`, and its say in `no_tumor` (`weight`, `bias`; 0: none).

    `threshold` is the probability from which a cell belongs to the evidence region; `contradicts` the one from which a
    single cell contradicts the answer `no_tumor`, which is then too uncertain (None: never).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(ge=0.0)
    bias: float
    threshold: float = Field(gt=0.0, lt=1.0)
    contradicts: float | None = Field(default=None, gt=0.0, le=1.0)
    fitted_on: str = ""


class Agreement(BaseModel):
    """How far the 8-bit graph agrees with the 32-bit one, on slices that it was not calibrated on.

    `same` is the share of slices with the same most probable class, `largest` the 99th percentile of the largest
    difference of a probability, `correlation` the first percentile of that of the predicted class's maps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibrated_on: int
    checked_on: int
    same: float = Field(ge=0.0, le=1.0)
    largest: float = Field(ge=0.0, le=1.0)
    correlation: float = Field(ge=-1.0, le=1.0)


class Card(BaseModel):
    """`model.json`: what the model is, how to feed it, what it was trained on and how well it did.

    `least_confidence` is the confidence below which an answer counts as too uncertain; `temperature_factor` is what a
    cross-validation corrected the run's own temperature by, and is in `temperature` already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str
    created: str
    tumorlens_version: str
    classes: tuple[str, ...] = Field(min_length=2)
    preprocess: PreprocessSettings
    network: Architecture = Architecture()
    explained_block: str = LAST_BLOCK[0]
    temperature: float = Field(default=1.0, gt=0.0)
    temperature_factor: float = Field(default=1.0, gt=0.0)
    label_sets: LabelSets | None = None
    refusal: Refusal | None = None
    region: Region | None = None
    int8: Agreement | None = None
    least_confidence: float = Field(default=0.0, ge=0.0, lt=1.0)
    training_data: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    initial_weights: str = ""
    licence: str = ""
    intended_use: str = DISCLAIMER
    files: dict[str, str] = {}

    @property
    def own_temperature(self) -> float:
        """The temperature that the run's own validation patients gave."""
        return self.temperature / self.temperature_factor


def write_card(folder: Path, card: Card, without: Container[str] = ()) -> Card:
    """Write `model.json` last, with the hashes of the other files of the folder as they are now.

    Args:
        folder: the bundle.
        card: what to write.
        without: files that are about to change, which the card does not list meanwhile: who is killed before they have
            changed leaves a bundle that lacks them, not one that is refused as damaged.

    Returns:
        The card as written.
    """
    known = (ONNX, *INT8, WEIGHTS, GATE, REGION)
    names = sorted(path.name for path in folder.iterdir() if path.name in known and path.name not in without)
    files = {name: file_hash(folder / name) for name in names}
    complete = card.model_copy(update={"schema_version": SCHEMA_VERSION, "files": files})
    write_whole(folder / CARD, complete.model_dump_json(indent=2) + "\n")
    return complete


def put_file(folder: Path, card: Card, name: str, made: Path) -> Card:
    """Move a file into a bundle under a name that may be taken, and write the card that goes with it.

    Returns:
        The card as written.
    """
    write_card(folder, load_card(folder), without=(name,))  # the former card, until the file is the new one
    made.replace(folder / name)
    return write_card(folder, card)


def load_card(folder: Path, needs: str = "") -> Card:
    """Read a bundle's card and check every file against it.

    Args:
        folder: the bundle.
        needs: a file that must be there, `ONNX` or `WEIGHTS`.

    Raises:
        BundleError: no bundle there, a card of another version, a missing file, or a file that was changed.
    """
    path = folder / CARD
    if not path.is_file():
        raise BundleError(f"{folder}: no model bundle there ({CARD} is missing). Give a bundle folder with --model")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("schema_version") not in _READABLE:
            raise BundleError(
                f"{path}: schema_version is {data.get('schema_version')!r}, this version reads {_READABLE}. "
                "Export the model again, or install the matching version of tumorlens"
            )
        card = Card.model_validate(data)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, ValidationError) as error:
        raise BundleError(f"{path}: damaged or not a model card ({error}). Copy or export the bundle again") from error
    for name, expected in card.files.items():
        _check_file(folder / name, expected)
    if needs and needs not in card.files:
        raise BundleError(f"{folder}: the bundle has no {needs}, only {', '.join(card.files) or 'its card'}")
    return card


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: listed in {CARD} but missing. Copy the whole bundle folder")
    found = file_hash(path)
    if found != expected:
        raise BundleError(
            f"{path}: changed since the bundle was made (SHA-256 {found[:12]}…, the card says {expected[:12]}…). "
            "Copy the bundle again; do not use it as it is"
        )
