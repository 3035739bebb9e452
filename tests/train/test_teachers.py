"""Learning from what trained models say."""

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from tests.conftest import TINY  # noqa: E402
from tumorlens.config import TrainSettings  # noqa: E402
from tumorlens.data.predictions import read_predictions  # noqa: E402
from tumorlens.errors import RunError, TumorlensError  # noqa: E402
from tumorlens.model.bundle import WEIGHTS, load_card  # noqa: E402
from tumorlens.train.recipe import Order, train  # noqa: E402
from tumorlens.train.run import describe  # noqa: E402
from tumorlens.train.teachers import Teachers, load_teachers  # noqa: E402


class Says(torch.nn.Module):
    """A network of one answer."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.repeat(len(images), 1)


@pytest.fixture(scope="module")
def settings(tiny_settings: TrainSettings) -> TrainSettings:
    """No head phase, and a rate at which labels alone teach little in so few steps."""
    plan = tiny_settings.finetune.model_copy(update={"teacher_weight": 1.0})
    return tiny_settings.model_copy(update={"finetune": plan})


def test_they_answer_by_their_mean_log_probability_at_the_shares_of_the_training() -> None:
    networks = (Says(2.0, 0.0), Says(0.0, 8.0))
    teachers = Teachers(networks, (1.0, 2.0), torch.tensor([1.0, 1.0]))  # type: ignore[arg-type]
    said = teachers.answers(torch.zeros(3, 1, 8, 8), torch.float32)
    # log odds of 2 and -4, whose mean is -1
    assert said.shape == (3, 2) and float(said[0, 0]) == pytest.approx(0.2689, abs=1e-4)
    often = replace(teachers, shares=torch.tensor([2.0, 1.0])).answers(torch.zeros(1, 1, 8, 8), torch.float32)
    assert float(often[0, 0] / often[0, 1]) == pytest.approx(2 * float(said[0, 0] / said[0, 1]), rel=1e-4)


def test_a_bundle_is_loaded_with_its_temperature_and_does_not_learn(tiny_run: Path) -> None:
    teachers = load_teachers([tiny_run / "bundle" / WEIGHTS], torch.ones(4), torch.device("cpu"), TINY)
    assert teachers.temperatures == (load_card(tiny_run / "bundle").temperature,)
    (network,) = teachers.networks
    assert not network.training and not any(values.requires_grad for values in network.parameters())
    with pytest.raises(TumorlensError, match="no bundle, so no teacher"):
        load_teachers([tiny_run / "checkpoint_best.safetensors"], torch.ones(4), torch.device("cpu"), TINY)


def test_who_learns_from_a_teacher_alone_says_what_it_says(
    tiny_run: Path, drawn_manifest: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    taught = Order(drawn_manifest, tmp_path / "taught", settings, None, layers=TINY)
    taught = replace(taught, teachers=(tiny_run / "bundle" / WEIGHTS,))
    paths = train(taught)
    told = {item.source: item.predicted for item in read_predictions(tiny_run / "predictions.csv")}
    rows = [item for item in read_predictions(paths.predictions) if item.split == "train"]
    assert sum(item.predicted == told[item.source] for item in rows) / len(rows) > 0.6  # chance is 0.25
    kept = describe(drawn_manifest, settings, None, None, {}, taught.teachers)["teachers"]
    assert kept[0]["name"] == WEIGHTS and len(kept[0]["sha256"]) == 64
    with pytest.raises(RunError, match="began with teachers"):
        train(replace(taught, teachers=(), resume=True))


def test_it_does_not_go_with_stages_that_are_computed_once(
    tiny_run: Path, drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    plan = tiny_settings.finetune.model_copy(update={"cached_views": 1, "first_layer": "layer4"})
    order = Order(drawn_manifest, tmp_path / "x", tiny_settings.model_copy(update={"finetune": plan}), None)
    order = replace(order, teachers=(tiny_run / "bundle" / WEIGHTS,), layers=TINY)
    with pytest.raises(TumorlensError, match=r"do not go with finetune\.cached_views"):
        train(order)
