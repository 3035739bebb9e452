"""However a run ends, what was learned is kept: killed, disk full, memory gone, a loss that is no number."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from tests.conftest import ROOT, TINY  # noqa: E402
from tumorlens.config import TrainSettings  # noqa: E402
from tumorlens.errors import CheckpointError, SplitError, TrainingError  # noqa: E402
from tumorlens.model.network import TumorNet  # noqa: E402
from tumorlens.train.checkpoint import Progress, load_checkpoint, save_checkpoint  # noqa: E402
from tumorlens.train.loop import Hooks, LoopSettings, run_loop  # noqa: E402
from tumorlens.train.order import Order  # noqa: E402
from tumorlens.train.recipe import Reporter, train  # noqa: E402
from tumorlens.train.run import RunPaths  # noqa: E402

CHILD = """
import sys
from pathlib import Path
from tests.conftest import TINY
from tumorlens.config import TrainSettings
from tumorlens.train import recipe
recipe.SAVE_SECONDS = 0.0  # a checkpoint after each step, as a long run has every few minutes
settings = TrainSettings.model_validate_json(sys.argv[3])
out = Path(sys.argv[2])
say = lambda text: print(text, flush=True)
reporter = recipe.Reporter(message=say, progress=lambda stage, done, total: say(f"{stage} {done}"))
recipe.train(recipe.Order(Path(sys.argv[1]), out, settings, None, resume=out.exists(), layers=TINY), reporter)
"""


def run_until(line: str, manifest: Path, out: Path, settings: TrainSettings) -> int:
    """Train in a process of its own and kill it as soon as it prints a line; its exit status."""
    arguments = [sys.executable, "-c", CHILD, str(manifest), str(out), settings.model_dump_json()]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ}
    ) as child:
        assert child.stdout is not None
        for text in child.stdout:
            if line and text.startswith(line):
                child.send_signal(signal.SIGKILL)
                break
        child.stdout.read()
        return child.wait()


AVERAGED = ({"first_layer": "all"}, 3, ("head phase 7", "fine-tuning 8", "best epoch"))
FROZEN = ({"first_layer": "layer2", "averaging": 0.0}, 0, ("epoch 1/", "fine-tuning 13"))


@pytest.mark.parametrize(("plan", "head", "lines"), [AVERAGED, FROZEN], ids=["averaged", "frozen-stem"])
def test_a_killed_run_ends_like_one_that_was_not(
    masked_manifest: Path,
    masked_settings: TrainSettings,
    tmp_path: Path,
    plan: dict[str, object],
    head: int,
    lines: tuple[str, ...],
) -> None:
    settings = masked_settings.model_copy(
        update={
            "finetune": masked_settings.finetune.model_copy(update=plan),
            "head": masked_settings.head.model_copy(update={"epochs": head}),
        }
    )
    straight = train(Order(masked_manifest, tmp_path / "straight", settings, None, layers=TINY))
    killed = RunPaths(tmp_path / "killed")
    for line in lines:
        assert run_until(line, masked_manifest, killed.folder, settings) == -signal.SIGKILL
        assert not killed.predictions.exists()
    assert run_until("", masked_manifest, killed.folder, settings) == 0
    for name in ("predictions.csv", "bundle/weights.safetensors"):
        assert (straight.folder / name).read_bytes() == (killed.folder / name).read_bytes()
    rows = [[row.rsplit(",", 1)[0] for row in run.history.read_text().splitlines()] for run in (straight, killed)]
    assert rows[0] == rows[1]  # but for the seconds


class Quadratic:
    """A task with one weight; what its loss does in step 5 is the test's."""

    epochs = 3

    def __init__(self, accident: Exception | float) -> None:
        self.weight = torch.nn.Parameter(torch.tensor(1.0))
        self.accident = accident

    def steps(self, epoch: int) -> int:
        return 3

    def loss(self, epoch: int, step: int) -> torch.Tensor:
        if (epoch, step) == (1, 2):
            if isinstance(self.accident, Exception):
                raise self.accident
            return self.weight * self.accident
        return self.weight**2

    def updated(self, epoch: int, step: int) -> None:
        pass

    def validate(self) -> dict[str, float]:
        return {"score": -float(self.weight.detach())}


@pytest.mark.parametrize(
    ("accident", "said"),
    [
        (float("nan"), r"loss is nan in epoch 2, step 3.*learning-rate"),
        (float("inf"), "loss is inf"),
        (MemoryError("no room"), r"memory ran out in epoch 2, step 3 \(no room\).*batch-size"),
        (MemoryError(), r"memory ran out in epoch 2, step 3 \(MemoryError\)"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
            "memory ran out",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "memory ran out"),
    ],
)
def test_an_accident_ends_in_a_sentence_and_keeps_the_last_good_weights(accident: Exception | float, said: str) -> None:
    task = Quadratic(accident)
    optimizer = torch.optim.SGD([task.weight], lr=0.1)
    epochs: list[int] = []
    progress = Progress()
    with pytest.raises(TrainingError, match=said):
        run_loop(task, optimizer, LoopSettings(0.1), progress, Hooks(on_epoch=lambda now: epochs.append(now.epoch)))
    assert (progress.epoch, progress.step) == (1, 2)  # where a resumed run tries again
    assert epochs == [1]
    assert torch.isfinite(task.weight)


def test_files_have_the_rights_that_other_files_have(tmp_path: Path) -> None:
    """The library's own writer makes them readable for their owner alone, and then a bundle works for nobody else."""
    (tmp_path / "other").write_bytes(b"")
    save_checkpoint(tmp_path / "c.safetensors", TumorNet(4, layers=TINY), None, Progress(), "me")
    assert (tmp_path / "c.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_device_that_is_full_is_said_before_training(
    masked_manifest: Path, masked_settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*rest: object, **more: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(TumorNet, "to", full)
    with pytest.raises(TrainingError, match=r"memory ran out while preparing \(CUDA out of memory"):
        train(Order(masked_manifest, tmp_path / "run", masked_settings, None, layers=TINY))


def test_predicting_stops_where_it_is_wished_and_goes_on(
    masked_manifest: Path, masked_settings: TrainSettings, tmp_path: Path
) -> None:
    stages: list[str] = []
    reporter = Reporter(
        progress=lambda stage, done, total: stages.append(stage),
        should_stop=lambda: stages[-1:] == ["predicting every image"],
    )
    order = Order(masked_manifest, tmp_path / "run", masked_settings, None, layers=TINY)
    with pytest.raises(KeyboardInterrupt):
        train(order, reporter)
    assert not (tmp_path / "run" / "predictions.csv").exists()
    assert train(replace(order, resume=True)).predictions.is_file()


def test_another_error_is_not_called_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run_loop(
            task := Quadratic(RuntimeError("CUDA error: an illegal memory access")),
            torch.optim.SGD([task.weight], lr=0.1), LoopSettings(0.1), Progress(), Hooks(),
        )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint_last.safetensors"
    network = TumorNet(4, layers=TINY)
    save_checkpoint(path, network, None, Progress(epoch=3), "me")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left.*the last one is still there.*--resume"):
        save_checkpoint(path, network, None, Progress(epoch=4), "me")
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    assert load_checkpoint(path, network, None, "me").epoch == 3


def test_a_full_disk_at_the_very_end_is_a_sentence(
    masked_manifest: Path, masked_settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorlens.train import recipe

    def full(*rest: object) -> None:
        raise OSError(28, "No space left on device", "predictions.part")

    order = Order(masked_manifest, tmp_path / "run", masked_settings, None, layers=TINY)
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "write_predictions", full)
        with pytest.raises(TrainingError, match=r"predictions\.part: .*predicting every image.*--resume"):
            train(order)
    assert train(replace(order, resume=True)).predictions.is_file()


def test_a_former_run_that_knows_the_tested_patients_is_refused(
    masked_manifest: Path, masked_settings: TrainSettings, tmp_path: Path
) -> None:
    settings = masked_settings.model_copy(update={"head": masked_settings.head.model_copy(update={"epochs": 0})})
    first = train(Order(masked_manifest, tmp_path / "first", settings, None, layers=TINY))
    weights = first.bundle / "weights.safetensors"
    train(Order(masked_manifest, tmp_path / "same", settings, weights, layers=TINY))  # the same split is fine
    other = masked_manifest.parent / "swapped.csv"
    text = masked_manifest.read_text().replace(",test,", ",x,").replace(",train,", ",test,").replace(",x,", ",train,")
    other.write_text(text)
    with pytest.raises(SplitError, match="that run learned from"):
        train(Order(other, tmp_path / "other", settings, weights, layers=TINY))
    text = masked_manifest.read_text().replace(",val,", ",x,").replace(",train,", ",val,").replace(",x,", ",train,")
    other.write_text(text)
    with pytest.raises(SplitError, match="validated or tested now"):
        train(Order(other, tmp_path / "other", settings, weights, layers=TINY))
