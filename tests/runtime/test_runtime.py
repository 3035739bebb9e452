from pathlib import Path

import numpy as np
import pytest

from tests.conftest import draw_head
from tumorlens.records import Slice
from tumorlens.runtime.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> Predictor:
    return Predictor(tiny_run / "bundle")


def slices(count: int) -> list[Slice]:
    return [Slice(draw_head("glioma", n, n % 3).astype(np.float32), f"{n}.png") for n in range(count)]


def test_openvino_and_onnxruntime_agree_with_torch(tiny_run: Path, predictor: Predictor) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    from tumorlens.model.bundle import load_card
    from tumorlens.runtime.export import load_network

    network = load_network(tiny_run / "bundle", load_card(tiny_run / "bundle"))
    images = np.random.default_rng(0).random((5, 1, 64, 64), dtype=np.float32)
    with torch.no_grad():
        values = network.feature_map(torch.from_numpy(images))
        logits = network.classify(network.pool(values)).numpy()
        evidence = network.evidence(values).numpy()
    found = predictor.run(images)
    found_logits, found_evidence = found.logits, found.evidence
    import onnxruntime

    session = onnxruntime.InferenceSession(tiny_run / "bundle" / "model.onnx", providers=["CPUExecutionProvider"])
    other_logits, other_evidence = session.run(["logits", "evidence"], {"images": images})
    assert np.allclose(found_logits, other_logits, atol=1e-3)
    assert np.allclose(found_evidence, other_evidence, atol=1e-3)
    # Weights are stored in 16 bit: agreement to their precision.
    assert np.allclose(found_logits, logits, atol=2e-2 * np.abs(logits).max())
    assert np.allclose(found_evidence, evidence, atol=2e-2 * np.abs(evidence).max())
    assert np.allclose(found_evidence.mean(axis=(2, 3)) + network.head.bias.detach().numpy(), found_logits, atol=1e-3)


def test_32_bit_export_is_exact(tiny_run: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    import shutil

    from tumorlens.runtime.export import export_bundle, load_network

    bundle = Path(shutil.copytree(tiny_run / "bundle", tmp_path / "bundle"))
    half_size = (bundle / "model.onnx").stat().st_size
    card = export_bundle(bundle, half=False)
    assert (bundle / "model.onnx").stat().st_size > 1.9 * half_size
    images = np.random.default_rng(0).random((3, 1, 64, 64), dtype=np.float32)
    with torch.no_grad():
        logits = load_network(bundle, card)(torch.from_numpy(images)).numpy()
    found = Predictor(bundle).run(images).logits
    assert np.allclose(found, logits, atol=1e-4)


def test_the_graph_names_no_folder_and_is_the_same_each_time(tiny_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra `train`")
    import shutil

    from tumorlens.runtime.export import export_bundle

    bundle = Path(shutil.copytree(tiny_run / "bundle", tmp_path / "bundle"))
    before = (bundle / "model.onnx").read_bytes()
    assert b"site-packages" not in before and b'File "' not in before
    export_bundle(bundle)
    assert (bundle / "model.onnx").read_bytes() == before


def test_answers_do_not_depend_on_the_batch(predictor: Predictor) -> None:
    together = predictor.predict(slices(5))
    alone = [predictor.predict([item])[0] for item in slices(5)]
    for one, other in zip(together, alone, strict=True):
        assert np.allclose(one.prediction.probabilities, other.prediction.probabilities, atol=1e-5)
        assert sum(one.prediction.probabilities) == pytest.approx(1)


def test_a_blank_slice_costs_only_itself(predictor: Predictor) -> None:
    good = slices(2)
    answers = predictor.predict([good[0], Slice(np.zeros((40, 40), dtype=np.float32), "blank.png"), good[1]])
    assert [a.prediction.status for a in answers] == ["ok", "error", "ok"]
    assert "every pixel has the value 0" in answers[1].prediction.message
    assert answers[1].evidence is None


def test_one_predictor_serves_many_threads(predictor: Predictor) -> None:
    from concurrent.futures import ThreadPoolExecutor

    made = slices(6)
    alone = [predictor.predict([item])[0].prediction.probabilities for item in made]
    with ThreadPoolExecutor(4) as pool:
        crowd = list(pool.map(lambda n: predictor.predict([made[n % 6]])[0].prediction.probabilities, range(60)))
    for number, found in enumerate(crowd):
        assert np.allclose(found, alone[number % 6], atol=1e-5)


def test_nothing_in_nothing_out(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
