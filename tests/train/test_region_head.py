"""How the region head is fitted: from masks, at the end of training or later, and wherever that was stopped."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch

from tests.conftest import TINY
from tumorlens.cli import main
from tumorlens.config import TrainSettings
from tumorlens.data.dataset import load_dataset
from tumorlens.data.manifest import read_manifest
from tumorlens.experiment import run_experiment
from tumorlens.model.bundle import load_card
from tumorlens.model.region import RegionHead
from tumorlens.runtime.export import load_network
from tumorlens.train.order import Order
from tumorlens.train.recipe import Reporter
from tumorlens.train.region import contradiction, fit_mix, fit_region, region_loss
from tumorlens.train.region_checkpoint import RegionCheckpoint
from tumorlens.train.tasks import Computer


@pytest.fixture(scope="module")
def taught(masked_manifest: Path, tiny_settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained, and then taught by `tumorlens region`."""
    run = tmp_path_factory.mktemp("runs") / "masked"
    run_experiment(Order(masked_manifest, run, tiny_settings, weights=None, layers=TINY), Reporter())
    assert main(["region", str(run)]) == 0
    return run


def test_the_limit_of_a_contradiction() -> None:
    shares = np.eye(4)[[2] * 200 + [0] * 50]
    labels = np.array([2] * 150 + [0] * 50 + [2] * 50)
    peaks = np.concatenate([np.linspace(0, 0.9, 150), np.full(100, 0.99)])  # only right answers count
    assert contradiction(shares, peaks, labels) == pytest.approx(0.891, abs=0.001)
    assert contradiction(shares, peaks * 0.1, labels) == 0.5
    assert contradiction(shares[200:], peaks[200:], labels[200:]) is None


def test_what_a_tumour_without_a_mask_says() -> None:
    logits = torch.zeros(2, 4, 4)
    none, glioma = torch.tensor([2, 2]), torch.tensor([0, 0])
    empty = torch.zeros(2, 1, 8, 8)
    assert region_loss(logits, empty, glioma) == 0
    assert region_loss(logits, empty, none) > 1
    full = torch.ones(2, 1, 8, 8)
    assert region_loss(logits + 9, full, glioma) < 0.01 < region_loss(logits - 9, full, glioma)


def test_only_a_region_that_tells_more_gets_a_say() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    logits = rng.normal(0, 1, (400, 4)) + 2 * np.eye(4)[labels]
    telling = np.where(labels == 2, -2.0, 2.0) + rng.normal(0, 0.5, 400)
    assert fit_mix(logits, telling, labels)[0] > 0.5
    assert fit_mix(logits, -telling, labels)[0] == pytest.approx(0, abs=1e-6)
    ill = labels != 2  # without healthy slices nothing says how much
    assert fit_mix(logits[ill], telling[ill], labels[ill]) == (0.0, 0.0)


def test_a_run_without_masks_says_so(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    assert main(["region", str(run)]) == 1
    assert "0 training and 0 validation slices have a mask" in capsys.readouterr().err


def test_black_masks_teach_nothing(
    masked_manifest: Path, taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(masked_manifest.parent, tmp_path / "data")
    run = shutil.copytree(taught, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["manifest"]["path"] = str(tmp_path / "data" / "manifest.csv")
    (run / "config.json").write_text(json.dumps(config))
    for path in (tmp_path / "data").glob("mask_*.png"):
        Image.fromarray(np.zeros(np.asarray(Image.open(path)).shape, dtype=np.uint8)).save(path)
    assert main(["region", str(run)]) == 1
    assert "the masks of its train and val side are all black" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("stop", [3, 5, 10])
def test_a_stopped_training_of_the_head_ends_like_one_that_was_not(
    stop: int, masked_manifest: Path, taught: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    rows, root = read_manifest(masked_manifest), masked_manifest.parent
    train = load_dataset(rows, root, tiny_settings.preprocess, masks=("train",)).side("train")
    computer = Computer(
        load_network(taught / "bundle", load_card(taught / "bundle")), torch.device("cpu"), torch.float32
    )

    def fit(steps: list[int], kept: RegionCheckpoint | None = None) -> RegionHead:
        return fit_region(computer, train, tiny_settings, lambda done, total: steps.append(done), 2, kept)

    whole: list[int] = []
    first: list[int] = []
    rest: list[int] = []
    other: list[int] = []
    expected = fit(whole)
    assert len(whole) == 10
    path = tmp_path / "part.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(first, RegionCheckpoint(path, "me", lambda: len(first) == stop))
    head = fit(rest, RegionCheckpoint(path, "me"))
    assert first + rest == whole
    assert all(torch.equal(values, head.state_dict()[name]) for name, values in expected.state_dict().items())
    fit(other, RegionCheckpoint(path, "another"))
    assert other == whole
    assert not (taught / "region_part.safetensors").exists()


def test_training_ends_with_the_region_head_where_settings_ask_for_it(
    masked_manifest: Path, taught: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    """Stopped while the head learns, while it answers and after its export, it is what `train` and `region` make."""
    run = tmp_path / "run"
    settings = tiny_settings.model_copy(update={"region": True})
    steps: list[int] = []

    def go_on(resume: bool, until: str) -> None:
        wish: list[str] = []

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage == "region":
                steps.append(done)
            if stage == until and done >= 3:
                wish.append(stage)
                if until == "simple features":
                    raise KeyboardInterrupt  # what follows the head asks nobody

        order = Order(masked_manifest, run, settings, weights=None, resume=resume, layers=TINY)
        run_experiment(order, Reporter(progress=on_progress, should_stop=lambda: bool(wish)))

    for stage in ("region", "predicting every image", "simple features"):
        with pytest.raises(KeyboardInterrupt):
            go_on(run.exists(), stage)
    graph = (run / "bundle" / "model.onnx").read_bytes()
    go_on(True, "")
    assert steps == list(range(1, len(steps) + 1))  # no step twice
    assert (run / "bundle" / "model.onnx").read_bytes() == graph  # what was exported stays
    assert (run / "predictions.csv").read_bytes() == (taught / "predictions.csv").read_bytes()
    made, expected = load_card(run / "bundle"), load_card(taught / "bundle")
    assert (made.region, made.temperature, made.label_sets) == (
        expected.region, expected.temperature, expected.label_sets,
    )  # fmt: skip


def test_data_without_masks_do_not_cost_a_model_that_should_have_a_region_head(
    drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    said: list[str] = []
    settings = tiny_settings.model_copy(update={"region": True})
    order = Order(drawn_manifest, tmp_path / "run", settings, weights=None, layers=TINY)
    run_experiment(order, Reporter(message=said.append))
    assert any("no region head" in text and "0 training and 0 validation slices have a mask" in text for text in said)
    card = load_card(tmp_path / "run" / "bundle", needs="model.onnx")
    assert card.region is None and "accuracy" in json.dumps(card.metrics)


def test_memory_that_ends_in_the_region_head_is_said_in_a_sentence(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise MemoryError("no room")

    run = shutil.copytree(taught, tmp_path / "run")
    monkeypatch.setattr("tumorlens.region.fit_region", fail)
    assert main(["region", str(run)]) == 1
    said = capsys.readouterr().err
    assert "memory ran out while teaching the region head" in said and "give the same command again" in said
