"""What is no brain MRI is refused, by models that were taught to, and brain slices are not."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

pytest.importorskip("torch", reason="training needs the extra `train`")

from tests.conftest import draw_head, real_path
from tumorlens.cli import main
from tumorlens.data.readers import read_slices
from tumorlens.errors import BundleError
from tumorlens.model.bundle import load_card
from tumorlens.pipeline import REFERENCE
from tumorlens.records import Slice
from tumorlens.runtime.predictor import Predictor
from tumorlens.train.refusal import fit_gate, peel


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(120, 40, (96, 96)).clip(0, 255).astype(np.uint8)


def stripes(seed: int) -> np.ndarray:
    rows = np.arange(96)[:, None] * np.ones((1, 96))
    return (127 + 120 * np.sin(rows / (2 + seed % 5))).astype(np.uint8)


@pytest.fixture(scope="module")
def taught(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run, taught on two kinds of pictures."""
    root = tmp_path_factory.mktemp("taught")
    run = Path(shutil.copytree(tiny_run, root / "run"))
    for kind, draw in (("noise", noise), ("stripes", stripes)):
        (root / "others" / kind).mkdir(parents=True)
        for seed in range(12):
            Image.fromarray(draw(seed)).save(root / "others" / kind / f"{seed}.png")
    (root / "others" / "noise" / "broken.png").write_bytes(b"no picture")
    assert main(["refusal", str(run), "--others", str(root / "others")]) == 0
    return run


def pictures() -> list[Slice]:
    heads = [draw_head("meningioma", n, n % 3).astype(np.float32) for n in range(4)]
    return [Slice(plane.astype(np.float32), f"{n}.png") for n, plane in enumerate([*heads, noise(99), stripes(98)])]


def test_noise_is_refused_and_heads_are_answered(taught: Path) -> None:
    answers = Predictor(taught / "bundle").predict(pictures())
    assert [item.prediction.status for item in answers] == ["ok"] * 4 + ["refused"] * 2
    refused = answers[-1]
    assert refused.evidence is None and refused.prediction.probabilities == ()
    assert refused.prediction.message.startswith("not a brain MRI, as far as this model can tell: its score is ")
    everything = Predictor(taught / "bundle", answer_all=True).predict(pictures())
    assert all(item.prediction.status == "ok" and item.evidence is not None for item in everything)
    assert everything[-1].prediction.message == refused.prediction.message


def test_the_graph_scores_as_torch_does(taught: Path) -> None:
    import torch

    from tumorlens.runtime.export import load_network
    from tumorlens.train.refusal import Gate, pooled_features

    card = load_card(taught / "bundle")
    assert card.refusal is not None and "24 others of 2 kinds" in card.refusal.fitted_on
    images = np.random.default_rng(0).integers(0, 255, (5, 64, 64), dtype=np.uint8)
    gate = load_file(taught / "bundle" / "refusal.safetensors")
    features = pooled_features(load_network(taught / "bundle", card), torch.from_numpy(images))
    expected = Gate(gate["weight"].astype(np.float64), float(gate["bias"][0])).scores(features)
    found = Predictor(taught / "bundle").run(images[:, None].astype(np.float32) / 255).strangeness
    assert np.allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_the_gate_is_read_back_from_the_graph(taught: Path, tmp_path: Path) -> None:
    from tumorlens.model.bundle import GATE, WEIGHTS, write_card
    from tumorlens.runtime.export import export_bundle

    bundle = Path(shutil.copytree(taught / "bundle", tmp_path / "bundle"))
    (bundle / WEIGHTS).unlink()
    (bundle / GATE).unlink()
    write_card(bundle, load_card(taught / "bundle"))
    export_bundle(bundle)
    images = np.random.default_rng(1).random((3, 1, 64, 64)).astype(np.float32)
    scores = [Predictor(folder).run(images).strangeness for folder in (taught / "bundle", bundle)]
    assert np.allclose(*scores, atol=1e-3 * np.abs(scores[0]).max())


def test_a_peeled_head_is_smaller_and_nothing_else_changes() -> None:
    head = draw_head("glioma", 1, 0)
    bare = peel(head, 0.1)
    left = bare > 0
    assert 0.5 < left.sum() / (head > 26).sum() < 0.85
    assert np.array_equal(bare[left], head[left])
    blank = np.zeros((64, 64), np.uint8)
    assert peel(blank, 0.1) is blank
    assert np.array_equal(peel(head, 2.0), head)  # nothing would be left


def test_foreign_brains_are_measured_and_not_learned(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(taught, tmp_path / "run"))
    for name, draw in (("drawn", lambda n: draw_head("pituitary", 50 + n, 0)), ("noise", noise)):
        (tmp_path / "brains" / name).mkdir(parents=True)
        for seed in range(3):
            Image.fromarray(draw(seed)).save(tmp_path / "brains" / name / f"{seed}.png")
    others = str(taught.parent / "others")
    assert main(["refusal", str(run), "--others", others, "--brains", str(tmp_path / "brains")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "foreign brains: drawn: 0.0% of 3 refused" in shown
    assert "foreign brains: noise: 100.0% of 3 refused" in shown
    one, other = (load_file(folder / "bundle" / "refusal.safetensors") for folder in (run, taught))
    assert np.array_equal(one["weight"], other["weight"])


def test_a_refusal_is_a_row_and_no_failure(taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(noise(77)).save(tmp_path / "noise.png")
    Image.fromarray(draw_head("glioma", 1, 0)).save(tmp_path / "head.png")
    call = ["predict", str(tmp_path / "noise.png"), str(tmp_path / "head.png"), "--model", str(taught / "bundle")]
    assert main([*call, "--out", str(tmp_path / "a.csv"), "--heatmaps", str(tmp_path / "maps")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 answered, 1 refused, 0 could not be read" in shown and shown.count("--answer-all") == 1
    with (tmp_path / "a.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["status"], first["predicted"], first["p_glioma"]) == ("refused", "", "")
    assert second["status"] == "ok" and second["predicted"] in second["label_set"].split()
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["head.npy", "head.png"]


def test_a_taught_model_refuses_what_is_too_uncertain(taught: Path, tiny_run: Path) -> None:
    assert load_card(taught / "bundle").least_confidence == 0.5
    assert load_card(tiny_run / "bundle").least_confidence == 0.0


def test_too_uncertain_is_another_verdict(tiny_run: Path, tmp_path: Path) -> None:
    from tumorlens.model.bundle import write_card

    bundle = Path(shutil.copytree(tiny_run / "bundle", tmp_path / "bundle"))
    write_card(bundle, load_card(bundle).model_copy(update={"least_confidence": 0.5, "temperature": 1000.0}))
    answers = Predictor(bundle).predict(pictures()[:2])
    for item in answers:
        assert item.prediction.status == "refused"
        assert item.prediction.message.startswith("too uncertain: no class reaches a probability of 50%")
        assert item.prediction.doubt.startswith("no class reaches") and "--" not in item.prediction.doubt
        assert len(item.prediction.probabilities) == 4 and item.evidence is not None
    answered = Predictor(bundle, answer_all=True).predict(pictures()[:1])[0].prediction
    assert (answered.status, answered.doubt) == ("ok", "")


def test_coverage_is_picked(tiny_run: Path) -> None:
    few, many = (Predictor(tiny_run / "bundle", coverage).predict(pictures()[:4]) for coverage in (0.5, 0.99))
    for one, other in zip(few, many, strict=True):
        assert set(one.prediction.label_set) <= set(other.prediction.label_set)
    for given in (1.5, float("nan")):
        with pytest.raises(BundleError, match=rf"no label sets of coverage {given:g}"):
            Predictor(tiny_run / "bundle", given)


def test_what_cannot_be_taught(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "others" / "one").mkdir(parents=True)
    Image.fromarray(noise(1)).save(tmp_path / "others" / "one" / "a.png")
    assert main(["refusal", str(tiny_run), "--others", str(tmp_path / "others")]) == 1
    assert "1 kinds of pictures there, needed are two" in " ".join(capsys.readouterr().err.split())
    assert main(["refusal", str(tiny_run), "--others", str(tmp_path / "nothing")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert main(["refusal", str(tmp_path), "--others", str(tmp_path / "others")]) == 1
    assert "no model bundle there" in " ".join(capsys.readouterr().err.split())


def test_both_sides_weigh_the_same() -> None:
    rng = np.random.default_rng(0)
    brains, others = rng.normal(0, 1, (900, 1024)), rng.normal(0.3, 1, (150, 1024))
    gate = fit_gate(brains, others)
    fresh = rng.normal(0, 1, (300, 1024)), rng.normal(0.3, 1, (300, 1024))
    refused = [float((gate.scores(values) > 0).mean()) for values in fresh]
    assert refused[0] < 0.1 and refused[1] > 0.9


def test_the_reference_model_refuses_chest_x_rays_and_answers_brains() -> None:
    """Chest X-rays, CT and text are other than what is asked; the figures are in docs/trust.md."""
    predictor = Predictor(REFERENCE)
    if predictor.card.refusal is None:
        pytest.skip("the reference bundle has not been taught to refuse")
    folder = real_path("not_brain_mri")
    slices = [item for path in sorted(folder.glob("*.*g"))[:16] for item in read_slices(path)]
    answers = predictor.predict(slices)
    assert sum(item.prediction.status == "refused" for item in answers) >= 0.9 * len(answers) > 0
    brains = [item for path in sorted(real_path("dicom_brain").glob("*"))[:6] for item in read_slices(path)]
    found = predictor.predict(brains)
    assert found and all(not item.prediction.message.startswith("not a brain") for item in found)
