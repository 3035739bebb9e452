"""The frozen stages, computed once: the same numbers, masks that follow, a store that is bounded and can be deleted."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from tests.conftest import TINY  # noqa: E402
from tumorlens.config import Architecture, StageSettings, TrainSettings  # noqa: E402
from tumorlens.data.dataset import SliceDataset, load_dataset  # noqa: E402
from tumorlens.data.manifest import read_manifest  # noqa: E402
from tumorlens.errors import TrainingError  # noqa: E402
from tumorlens.model.network import TumorNet  # noqa: E402
from tumorlens.train import augment  # noqa: E402
from tumorlens.train.order import Order  # noqa: E402
from tumorlens.train.prefix import FOLDER, cached_front  # noqa: E402
from tumorlens.train.recipe import Reporter, train  # noqa: E402


@pytest.fixture
def settings(masked_settings: TrainSettings) -> TrainSettings:
    plan = masked_settings.finetune.model_copy(
        update={"first_layer": "layer4", "cached_views": 2, "stages": (StageSettings(epochs=3, size=64),)}
    )
    # Noise is drawn for a batch as a whole: without it, a view can be computed again in other batches.
    augment = masked_settings.augment.model_copy(update={"noise": 0.0})
    return masked_settings.model_copy(update={"finetune": plan, "augment": augment})


@pytest.fixture
def dataset(masked_manifest: Path, settings: TrainSettings) -> SliceDataset:
    samples = read_manifest(masked_manifest)
    return load_dataset(samples, masked_manifest.parent, settings.preprocess, masks=("train", "val", "test"))


@pytest.fixture
def network(settings: TrainSettings) -> TumorNet:
    torch.manual_seed(0)
    return TumorNet(4, layers=TINY, settings=Architecture(dilated=True)).eval()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_kept_is_what_the_network_computes(
    network: TumorNet, dataset: SliceDataset, settings: TrainSettings
) -> None:
    front = cached_front(network, dataset, settings)
    side = dataset.side("val")
    index = torch.tensor([2, 0])
    with torch.inference_mode():
        images = side.images[index].unsqueeze(1).float() / 255
        still = network.front(images, "layer4")
        kept, plan = front.view(side, index, epoch=3)
        moved = network.front(augment.apply(images, plan, 64), "layer4")
    for found, computed in ((front.still(side, index), still), (kept, moved)):
        assert found.dtype == torch.bfloat16
        scale = float(computed.abs().max())
        assert float((found.float() - computed).abs().max()) < 0.01 * scale  # bfloat16 has 8 bits
    assert not torch.equal(kept, front.view(side, index, epoch=2)[0])  # another view
    assert torch.equal(kept, front.view(side, index, epoch=1)[0])  # two views, taken in turn


def test_a_second_run_only_reads(
    network: TumorNet, dataset: SliceDataset, settings: TrainSettings, folder: Path
) -> None:
    done: list[int] = []
    cached_front(network, dataset, settings, lambda now, total: done.append(now))
    assert done[-1] == 3 * len(dataset)
    cached_front(network, dataset, settings, lambda now, total: pytest.fail("computed again"))
    other = settings.model_copy(update={"augment": settings.augment.model_copy(update={"gamma": 0.1})})
    cached_front(network, dataset, other)
    assert len(list(folder.iterdir())) == 2
    for path in folder.iterdir():
        path.unlink()
    cached_front(network, dataset, settings)
    assert len(list(folder.iterdir())) == 1


def test_the_store_is_bounded(network: TumorNet, dataset: SliceDataset, settings: TrainSettings, folder: Path) -> None:
    one = cached_front(network, dataset, settings)
    del one
    (path,) = folder.iterdir()
    size = path.stat().st_size / 1e9

    def limited(share: float, seed: int) -> TrainSettings:
        plan = settings.finetune.model_copy(update={"cache_gb": size * share})
        return settings.model_copy(update={"finetune": plan, "seed": seed})

    with pytest.raises(TrainingError, match="Take at most 1 views"):
        cached_front(network, dataset, limited(0.7, 0))
    cached_front(network, dataset, limited(1.5, 1))
    assert not path.exists()  # the older made room
    assert len(list(folder.iterdir())) == 1


def test_an_interrupted_store_leaves_nothing(
    network: TumorNet, dataset: SliceDataset, settings: TrainSettings, folder: Path
) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_front(network, dataset, settings, stop)
    assert list(folder.iterdir()) == []


def test_a_run_on_the_store_learns_and_is_resumed(
    masked_manifest: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    straight = train(Order(masked_manifest, tmp_path / "straight", settings, None, layers=TINY))
    rows = straight.history.read_text().splitlines()[1:]
    losses = [float(row.split(",")[1]) for row in rows]
    assert len(losses) == 3 and np.isfinite(losses).all() and losses[-1] < losses[0]
    order = Order(masked_manifest, tmp_path / "stopped", settings, None, layers=TINY)
    stages: list[str] = []

    def watch(stage: str, done: int, total: int) -> None:
        stages.append(f"{stage} {done}")

    with pytest.raises(KeyboardInterrupt):
        train(order, Reporter(progress=watch, should_stop=lambda: stages[-1:] == ["fine-tuning 7"]))
    train(replace(order, resume=True))
    for name in ("predictions.csv", "bundle/weights.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_sizes_and_stages_must_fit() -> None:
    with pytest.raises(ValidationError, match=r"cached_views 2 needs frozen stages and one input size"):
        TrainSettings.model_validate({"finetune": {"cached_views": 2, "first_layer": "layer4"}})


def test_settings_that_do_not_go_together_are_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tumorlens.cli import main

    (tmp_path / "mine.toml").write_text("[finetune]\ncached_views = 2\n")
    for extra in (["--finetune.cached-views", "8"], ["--preset", str(tmp_path / "mine.toml")]):
        assert main(["train", str(tmp_path / "m.csv"), "--out", str(tmp_path / "run"), *extra]) == 1
        said = capsys.readouterr().err
        assert "needs frozen stages and one input size" in said and "seed" not in said


def test_what_a_killed_run_left_is_removed(
    network: TumorNet, dataset: SliceDataset, settings: TrainSettings, folder: Path
) -> None:
    folder.mkdir()
    for name in ("killed", "growing"):
        (folder / f"{name}.1.part").write_bytes(b"half")
    os.utime(folder / "killed.1.part", (1, 1))
    cached_front(network, dataset, settings)
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".part") == ["growing.1.part"]
    assert len(list(folder.glob("*.features"))) == 1
