"""Shared fixtures: drawn heads with patients, a small trained run, and the real data where it is."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tumorlens.config import (
    AugmentSettings,
    FineTuneSettings,
    HeadSettings,
    PreprocessSettings,
    StageSettings,
    TrainSettings,
)  # fmt: skip
from tumorlens.data.index import index_folder
from tumorlens.data.manifest import write_manifest
from tumorlens.data.splits import split_shares
from tumorlens.records import CLASSES, Sample

ROOT = Path(__file__).parent.parent
TINY = (1, 1, 1, 1)


def real_path(name: str) -> Path:
    """A real file or folder, or a skip that says what is missing."""
    data = Path(os.environ.get("TUMORLENS_DATA", ROOT.parent / "shared" / "data"))
    path = data.parent / "weights" / name.removeprefix("weights/") if name.startswith("weights/") else data / name
    if not path.exists():
        pytest.skip(f"real data not there: {path}")
    return path


def csv_rows(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def draw_head(label: str, patient: int, number: int, side: int = 96) -> np.ndarray:
    """A grey oval with a mark that differs by class, (side, side) uint8; like within a patient, unlike between."""
    rng = np.random.default_rng([CLASSES.index(label), patient, number])
    row, column = np.mgrid[:side, :side] / side - 0.5
    shape = np.random.default_rng([CLASSES.index(label), patient]).uniform(0.85, 1.1, 2)
    head = np.hypot(row * shape[0], column * shape[1] * 1.2) < 0.42
    picture = 90.0 * head + rng.normal(0, 4, (side, side)) * head
    mark = {"glioma": (-0.15, 0.1), "meningioma": (0.0, -0.27), "pituitary": (0.12, 0.0)}.get(label)
    if mark:
        picture[np.hypot(row - mark[0], column - mark[1]) < 0.08 + 0.004 * number] = 230
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def drawn_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with index.csv: four classes, six patients a class, three slices a patient."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "images").mkdir()
    rows = ["image,mask,label,patient_id,patient_group,slice"]
    for label in CLASSES:
        for patient in range(6):
            for number in range(3):
                name = f"images/{label}_{patient}_{number}.png"
                Image.fromarray(draw_head(label, patient, number)).save(folder / name)
                rows.append(f"{name},,{label},{label}{patient},{label}{patient},{number}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def drawn_manifest(drawn_folder: Path) -> Path:
    """The drawn data set, indexed and split by patient."""
    samples = split_shares(index_folder(drawn_folder, drawn_folder).samples, val=0.2, test=0.2, seed=0)
    path = drawn_folder / "manifest.csv"
    write_manifest(samples, path)
    return path


@pytest.fixture(scope="session")
def tiny_settings() -> TrainSettings:
    """Small pictures, few epochs, float32: trains in seconds."""
    return TrainSettings(
        batch_size=8,
        dropout=0.2,
        precision="fp32",
        device="cpu",
        preprocess=PreprocessSettings(size=64),
        augment=AugmentSettings(quarter_turn=0, upside_down=0, mirror=0, rotation=5, zoom=0.05, blur=0.0),
        head=HeadSettings(epochs=3),
        finetune=FineTuneSettings(stages=(StageSettings(epochs=4, size=64),), first_layer="all", learning_rate=0.02),
    )


@pytest.fixture(scope="session")
def tiny_run(drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run folder of a small network: trained, exported, evaluated."""
    pytest.importorskip("torch", reason="training needs the extra `train`")
    from tumorlens.experiment import run_experiment
    from tumorlens.train.order import Order
    from tumorlens.train.recipe import Reporter

    out = tmp_path_factory.mktemp("runs") / "tiny"
    run_experiment(Order(drawn_manifest, out, tiny_settings, weights=None, layers=TINY), Reporter())
    return out


@pytest.fixture
def samples() -> list[Sample]:
    """Rows of a manifest without files: three sources of sizes, ten patients a class, four slices each."""
    base = Sample("", "", "", "", "made", "", "", 64, 64)
    return [
        replace(base, path=f"{label}/{patient}_{number}.png", label=label, patient_id=f"{label}{patient}",
                patient_group=f"made:{label}{patient}", sha256=f"{label}{patient}{number}")
        for label in CLASSES for patient in range(10) for number in range(4)
    ]  # fmt: skip
