"""Learning from what trained models say."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.conftest import TINY  # noqa: E402
from tumorlens.config import HeadSettings, TrainSettings  # noqa: E402
from tumorlens.data.predictions import read_predictions  # noqa: E402
from tumorlens.errors import RunError, TumorlensError  # noqa: E402
from tumorlens.evaluate.run_folder import read_run  # noqa: E402
from tumorlens.model.bundle import WEIGHTS, load_card, write_card  # noqa: E402
from tumorlens.records import CLASSES  # noqa: E402
from tumorlens.train.order import Order  # noqa: E402
from tumorlens.train.recipe import train  # noqa: E402
from tumorlens.train.teachers import Teachers, load_teachers  # noqa: E402


class Says(torch.nn.Module):
    """A network of one answer."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.repeat(len(images), 1)


@pytest.fixture(scope="module")
def liar(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says of each class what the other said of the next, under a licence."""
    bundle = Path(shutil.copytree(tiny_run / "bundle", tmp_path_factory.mktemp("liar") / "bundle"))
    state = load_file(bundle / WEIGHTS)
    for name in ("head.weight", "head.bias"):
        state[name] = state[name].roll(1, dims=0).contiguous()
    save_file(state, bundle / WEIGHTS)
    (bundle / "model.json").unlink()
    write_card(bundle, load_card(tiny_run / "bundle").model_copy(update={"name": "liar", "licence": "mine"}))
    return bundle


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


def test_what_is_no_teacher_is_said_before_anything_is_made(
    tiny_run: Path, drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    def refused(words: str, weights: Path = tiny_run / "bundle" / WEIGHTS, **plan: object) -> None:
        changed = tiny_settings.model_copy(update={"finetune": tiny_settings.finetune.model_copy(update=plan)})
        with pytest.raises(TumorlensError, match=words):
            train(Order(drawn_manifest, tmp_path / "run", changed, None, teachers=(weights,), layers=TINY))
        assert not (tmp_path / "run").exists()

    refused("no bundle, so no teacher", tiny_run / "checkpoint_best.safetensors")
    refused(r"do not go with finetune\.cached_views", cached_views=1, first_layer="layer4")
    refused(r"finetune\.teacher_weight is 0", teacher_weight=0.0)


def test_who_is_taught_believes_the_teacher_and_says_so(
    tiny_run: Path, liar: Path, drawn_manifest: Path, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    plan = tiny_settings.finetune.model_copy(update={"teacher_weight": 1.0})
    settings = tiny_settings.model_copy(update={"finetune": plan, "head": HeadSettings(epochs=0)})
    order = Order(drawn_manifest, tmp_path / "taught", settings, tiny_run / "bundle" / WEIGHTS, layers=TINY)
    paths = train(replace(order, teachers=(liar / WEIGHTS,)))
    rows = [item for item in read_predictions(paths.predictions) if item.split == "train"]
    following = dict(zip(CLASSES, (*CLASSES[1:], CLASSES[0]), strict=True))
    believed = sum(item.predicted == following[item.label] for item in rows) / len(rows)
    assert believed > 0.6  # chance is 0.25; the labels alone would leave nearly none
    card = load_card(paths.bundle)
    assert card.training_data["teachers"] == ["liar"] and card.licence == "mine"
    assert dict(read_run(paths.folder).provenance)["Teachers"] == "liar"
    with pytest.raises(RunError, match="began with teachers"):
        train(replace(order, resume=True))
