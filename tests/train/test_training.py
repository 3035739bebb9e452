from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from tests.conftest import TINY  # noqa: E402
from tests.train.conftest import STILL  # noqa: E402
from tumorlens.config import (  # noqa: E402
    AugmentSettings,
    NetworkSettings,
    PreprocessSettings,
    StageSettings,
    TrainSettings,
    load_settings,
    preset_names,
)
from tumorlens.data.manifest import read_manifest, write_manifest  # noqa: E402
from tumorlens.data.predictions import read_predictions  # noqa: E402
from tumorlens.errors import CheckpointError, ManifestError, RunError, SplitError, TumorlensError  # noqa: E402
from tumorlens.model.network import TumorNet  # noqa: E402
from tumorlens.model.temperature import fit_temperature  # noqa: E402
from tumorlens.train import augment  # noqa: E402
from tumorlens.train.checkpoint import Progress, load_checkpoint, save_checkpoint  # noqa: E402
from tumorlens.train.device import choose_device, choose_precision  # noqa: E402
from tumorlens.train.loop import LoopSettings, learning_rate  # noqa: E402
from tumorlens.train.order import Order, notes  # noqa: E402
from tumorlens.train.recipe import Reporter, owner, train  # noqa: E402
from tumorlens.train.run import RunPaths, open_run  # noqa: E402
from tumorlens.train.sampling import class_weights  # noqa: E402
from tumorlens.train.tasks import restore_shares  # noqa: E402


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_augmentation_changes_nothing() -> None:
    images = torch.rand(4, 1, 40, 40, generator=generator())
    assert torch.allclose(augment.apply(images, augment.draw(4, STILL, generator()), 40), images, atol=1e-5)


def test_a_certain_mirror_is_a_mirror_and_a_quarter_turn_a_turn() -> None:
    images = torch.rand(2, 1, 32, 32, generator=generator())
    mirrored = augment.apply(images, augment.draw(2, STILL.model_copy(update={"mirror": 1.0}), generator()), 32)
    assert torch.allclose(mirrored, images.flip(3), atol=1e-4)
    turned = augment.apply(images, augment.draw(2, STILL.model_copy(update={"quarter_turn": 1.0}), generator()), 32)
    assert torch.allclose(turned, torch.rot90(images, 1, (2, 3)), atol=1e-4)


def test_a_plan_is_repeatable_and_black_stays_black() -> None:
    images = torch.zeros(3, 1, 32, 32)
    images[:, :, 8:24, 8:24] = 0.6
    settings = AugmentSettings(noise=0.0)
    one = augment.apply(images, augment.draw(3, settings, generator(5)), 24)
    assert torch.equal(one, augment.apply(images, augment.draw(3, settings, generator(5)), 24))
    assert not torch.equal(one, augment.apply(images, augment.draw(3, settings, generator(6)), 24))
    assert one.shape == (3, 1, 24, 24)
    assert float(one.min()) == 0.0


def test_class_weights_balance() -> None:
    labels = torch.tensor([0] * 60 + [1] * 20 + [3] * 10)
    weights = class_weights(labels, 4)
    assert weights.tolist() == pytest.approx([0.5, 1.5, 0.0, 3.0])
    assert float(weights[labels].sum()) == pytest.approx(90)


def test_class_shares_are_given_back() -> None:
    """q proportional to w p must become p."""
    shares = torch.tensor([0.6, 0.2, 0.0, 0.2])
    weights = torch.tensor([0.5, 2.0, 0.0, 1.2])
    network = TumorNet(4, layers=TINY)
    with torch.no_grad():
        network.head.bias.copy_(torch.log(weights * shares + 1e-30))
    restore_shares(network, weights)
    found = torch.softmax(network.head.bias, dim=0)
    assert found.tolist() == pytest.approx(shares.tolist(), abs=1e-6)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    plan = LoopSettings(0.1, warmup=0.2)
    rates = [learning_rate(done / 100, plan) for done in range(101)]
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) == 20
    assert rates[100] == pytest.approx(0, abs=1e-6)
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_temperature_is_recovered() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 4)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(4, p=row / row.sum()) for row in shares.astype(np.float64)])
    assert fit_temperature(logits * 2.5, labels) == pytest.approx(2.5, rel=0.08)


def test_devices_and_precision() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_precision("fp32", torch.device("cpu")) is torch.float32
    with pytest.raises(TumorlensError, match="unknown"):
        choose_device("abacus")
    with pytest.raises(TumorlensError, match="is not there"):
        choose_device("cuda:99")


def test_presets_load_and_misspelt_keys_do_not(tmp_path: Path) -> None:
    assert {"best", "seed-recipe"} <= set(preset_names())
    assert load_settings("seed-recipe").finetune.first_layer == "layer2"
    (tmp_path / "mine.toml").write_text("[finetune]\nlerning_rate = 0.1\n")
    with pytest.raises(TumorlensError, match="lerning_rate"):
        load_settings(str(tmp_path / "mine.toml"))
    with pytest.raises(TumorlensError, match="no preset 'nowhere'"):
        load_settings("nowhere")
    (tmp_path / "latin.toml").write_bytes("# Größe\nseed = 0\n".encode("latin-1"))
    with pytest.raises(TumorlensError, match="no text in UTF-8"):
        load_settings(str(tmp_path / "latin.toml"))
    for text, where in (("seed = -1", "seed"), ("[finetune]\nstages = []", "finetune.stages")):
        (tmp_path / "mine.toml").write_text(text)
        with pytest.raises(TumorlensError, match=rf"{where} = .* is not allowed"):
            load_settings(str(tmp_path / "mine.toml"))
    with pytest.raises(TumorlensError, match=r"device 'mps' is not supported"):
        choose_device("mps")


def test_a_preset_begins_with_another_and_changes_only_what_it_says(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'base = "best"\nseed = 3\n[finetune]\nlearning_rate = 0.002\nstages = [{ epochs = 1, size = 96 }]\n'
    )
    best = load_settings("best")
    changes = {"learning_rate": 0.002, "stages": (StageSettings(epochs=1, size=96),)}  # a list is replaced as a whole
    assert load_settings(str(mine)) == best.model_copy(
        update={"seed": 3, "finetune": best.finetune.model_copy(update=changes)}
    )
    robust, further = load_settings("robust"), load_settings("further")  # a base of a base
    assert (robust.augment.bias_field, robust.finetune.cell_weight) == (best.augment.bias_field, 2.0)
    assert robust.finetune.warmup == further.finetune.warmup == 0.1
    for text, why in (
        ('base = "worst"', r"base = 'worst' is not allowed: take one of best, "),
        (f"base = '{mine}'", "is not allowed"),  # presets that come with the package alone
        ('base = "best"\nfinetune = 3', "finetune = 3 is not allowed"),
    ):
        mine.write_text(text)
        with pytest.raises(TumorlensError, match=why):
            load_settings(str(mine))


class StopAfter:
    """Asks to stop once, after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    order = Order(drawn_manifest, tmp_path / "straight", tiny_settings, None, layers=TINY)
    train(order)
    stopped = replace(order, out=tmp_path / "stopped")
    head_steps = tiny_settings.head.epochs * 5
    with pytest.raises(KeyboardInterrupt):
        train(stopped, Reporter(should_stop=StopAfter(head_steps - 2)))  # in the head phase, which begins anew
    assert not RunPaths(stopped.out).last.exists()
    with pytest.raises(KeyboardInterrupt):
        train(replace(stopped, resume=True), Reporter(should_stop=StopAfter(head_steps + 9)))
    assert RunPaths(stopped.out).last.exists()
    assert not RunPaths(stopped.out).predictions.exists()
    train(replace(stopped, resume=True))
    for name in ("predictions.csv", "bundle/weights.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()
    one = (tmp_path / "straight" / "history.csv").read_text().splitlines()
    other = (tmp_path / "stopped" / "history.csv").read_text().splitlines()
    assert [row.rsplit(",", 1)[0] for row in one] == [row.rsplit(",", 1)[0] for row in other]  # but for seconds


def test_the_run_learned_and_left_everything(tiny_run: Path) -> None:
    rows = [item for item in read_predictions(tiny_run / "predictions.csv") if item.split == "train"]
    assert np.mean([item.predicted == item.label for item in rows]) > 0.6  # chance is 0.25
    names = {path.name for path in tiny_run.iterdir()}
    assert names == {
        "config.json", "history.csv", "checkpoint_last.safetensors", "checkpoint_best.safetensors", "bundle",
        "predictions.csv", "metrics.json", "report.html", "checklists.md", "simple_features.csv", "mistakes",
    }  # fmt: skip


def test_what_a_full_disk_left_of_a_config_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.json.part").write_text("{")
    assert open_run(tmp_path, {"settings": {}}, resume=False).config.is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_what_does_not_go_together_is_said(
    tiny_run: Path, drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    plan = tiny_settings.finetune.model_copy(update={"stages": (StageSettings(epochs=1, size=32),)})
    changed = tiny_settings.model_copy(
        update={"finetune": plan, "network": NetworkSettings(dilated=True), "preprocess": PreprocessSettings(size=48)}
    )
    told: list[str] = []
    order = Order(drawn_manifest, tmp_path / "run", changed, tiny_run / "bundle" / "weights.safetensors", layers=TINY)
    train(order, Reporter(message=told.append))
    notes = [text for text in told if text.startswith("note: ")]
    assert len(notes) == 3
    assert "ends with pictures of 32 pixels, but the model will be used at 48" in notes[0]
    assert "is not dilated, in these settings it is dilated" in notes[1]
    assert "was trained for pictures of 64 pixels, these settings say 48" in notes[2]


def test_presets_that_go_on_say_so_of_other_weights(drawn_manifest: Path, tiny_run: Path, tmp_path: Path) -> None:
    """ImageNet's weights learn little in three epochs."""
    weights = tmp_path / "imagenet.safetensors"
    weights.write_bytes(b"")
    few = [list(notes(Order(drawn_manifest, tmp_path, load_settings(name), weights))) for name in preset_names()]
    assert {name for name, found in zip(preset_names(), few, strict=True) if found} == {"further", "larger", "robust"}
    assert all("epochs are few" in found[0] for found in few if found)
    taught = Order(drawn_manifest, tmp_path, load_settings("further"), tiny_run / "bundle" / "weights.safetensors")
    assert not any("epochs are few" in note for note in notes(taught))


def test_a_class_without_slices_is_told(drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path: Path) -> None:
    """Of figshare alone a model never learns what no tumour is, and its users should not find out by themselves."""
    rows = [item for item in read_manifest(drawn_manifest) if item.label != "no_tumor"]
    write_manifest(rows, drawn_manifest.with_name("tumours.csv"))
    told: list[str] = []
    order = Order(drawn_manifest.with_name("tumours.csv"), tmp_path / "run", tiny_settings, None, layers=TINY)
    with pytest.raises(KeyboardInterrupt):
        train(order, Reporter(message=told.append, should_stop=lambda: bool(told)))
    assert "no slice to learn from: No tumour. The model will not know it; add slices of it" in told


def test_a_used_folder_is_not_overwritten(tiny_run: Path, drawn_manifest: Path, tiny_settings: TrainSettings) -> None:
    with pytest.raises(RunError, match="already in use"):
        train(Order(drawn_manifest, tiny_run, tiny_settings, None, layers=TINY))


def test_nothing_to_resume(tmp_path: Path, drawn_manifest: Path, tiny_settings: TrainSettings) -> None:
    with pytest.raises(RunError, match="nothing to resume"):
        train(Order(drawn_manifest, tmp_path / "new", tiny_settings, None, resume=True, layers=TINY))


def test_resuming_on_another_split_is_refused(
    tiny_run: Path, drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    import shutil

    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    other = drawn_manifest.parent / "other.csv"
    other.write_text(drawn_manifest.read_text().replace(",val,", ",train,", 1))
    with pytest.raises(RunError, match="began with manifest ="):
        train(Order(other, run, tiny_settings, None, resume=True, layers=TINY))


def test_a_manifest_without_sides_or_files(tmp_path: Path, drawn_folder: Path, tiny_settings: TrainSettings) -> None:
    from tumorlens.data.index import index_folder

    plain = index_folder(drawn_folder, tmp_path).samples
    write_manifest(plain, tmp_path / "plain.csv")
    with pytest.raises(SplitError, match="0 training and 0 validation images"):
        train(Order(tmp_path / "plain.csv", tmp_path / "a", tiny_settings, None, layers=TINY))
    write_manifest([replace(plain[0], path="gone.png")], tmp_path / "gone.csv")
    with pytest.raises(ManifestError, match=r"gone\.png"):
        train(Order(tmp_path / "gone.csv", tmp_path / "b", tiny_settings, None, layers=TINY))
    assert not (tmp_path / "b").exists()


def test_checkpoints_know_whose_they_are(tmp_path: Path, tiny_settings: TrainSettings) -> None:
    network = TumorNet(4, layers=TINY)
    save_checkpoint(tmp_path / "c.safetensors", network, None, Progress(epoch=2), owner(tiny_settings))
    assert load_checkpoint(tmp_path / "c.safetensors", network, None, owner(tiny_settings)).epoch == 2
    before = owner(tiny_settings).replace(',"peel":0.0', "")  # written before that setting was added
    assert before != owner(tiny_settings)
    save_checkpoint(tmp_path / "older.safetensors", network, None, Progress(epoch=2), before)
    assert load_checkpoint(tmp_path / "older.safetensors", network, None, owner(tiny_settings)).epoch == 2
    with pytest.raises(CheckpointError, match="other classes or settings"):
        load_checkpoint(tmp_path / "older.safetensors", network, None, owner(TrainSettings(seed=9)))
    with pytest.raises(CheckpointError, match="other classes or settings"):
        load_checkpoint(tmp_path / "c.safetensors", network, None, "classes cat,dog; {}")
    (tmp_path / "c.safetensors").write_bytes(b"not one")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "c.safetensors", network, None, owner(tiny_settings))
