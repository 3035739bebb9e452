"""What computes a graph: engines, precisions, and the cache of compiled graphs."""

from pathlib import Path

import numpy as np
import pytest

from tumorlens.errors import BundleError, TumorlensError
from tumorlens.model.bundle import Agreement, Card, load_card
from tumorlens.runtime import engine
from tumorlens.runtime.engine import _KEPT, CACHE_VARIABLE, cache_folder, load_engine


@pytest.fixture(scope="module")
def bundle(tiny_run: Path) -> Path:
    return tiny_run / "bundle"


@pytest.fixture(scope="module")
def card(bundle: Path) -> Card:
    return load_card(bundle)


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((count, 1, 64, 64), dtype=np.float32)


def test_engines_agree_however_they_are_set_up(bundle: Path, card: Card) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    first = load_engine(bundle, card, name="openvino").run(images())
    for other in (load_engine(bundle, card, many=True), load_engine(bundle, card, name="onnxruntime")):
        assert other.streams >= 1
        found = other.run(images())
        assert found.keys() == first.keys()
        for key, values in first.items():
            assert np.allclose(found[key], values, atol=1e-4), key


def test_a_precision_that_is_not_there_is_refused(bundle: Path, card: Card) -> None:
    with pytest.raises(BundleError, match=r"no 8-bit graph.*tumorlens quantise"):
        load_engine(bundle, card, "int8")
    if "BF16" not in engine.capabilities():
        with pytest.raises(TumorlensError, match="bf16: this processor"):
            load_engine(bundle, card, "bf16")
    else:
        found = load_engine(bundle, card, "bf16").run(images())["logits"]
        assert np.allclose(found, load_engine(bundle, card).run(images())["logits"], rtol=0.1, atol=0.1)


def test_auto_takes_8_bits_only_where_they_agree(bundle: Path, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "capabilities", lambda: ["FP32", "INT8"])
    assert load_engine(bundle, card, "auto").precision == "fp32"
    loose = Agreement(calibrated_on=300, checked_on=400, same=0.98, largest=0.2, correlation=0.9)
    assert load_engine(bundle, card.model_copy(update={"int8": loose}), "auto").precision == "fp32"
    close = loose.model_copy(update={"same": 0.995, "correlation": 0.995})
    with pytest.raises(BundleError, match=r"model_int8\.xml"):  # it would be taken, and is not there
        load_engine(bundle, card.model_copy(update={"int8": close}), "auto", name="openvino")
    # Else 16 bits, where the processor has them.
    monkeypatch.setattr(engine, "capabilities", lambda: ["FP32", "INT8", "BF16"])
    assert engine._quickest(card.model_copy(update={"int8": loose})) == engine._quickest(card) == "bf16"
    assert load_engine(bundle, card, "auto", name="onnxruntime").precision == "fp32"


def test_the_second_start_finds_the_compiled_graph(bundle: Path, card: Card, tmp_path: Path) -> None:
    cache = tmp_path / "graphs"
    first = load_engine(bundle, card, cache=cache).run(images())
    blobs = {path: path.stat().st_mtime for path in cache.glob("*.blob")}
    assert len(blobs) == 1
    again = load_engine(bundle, card, cache=cache).run(images())
    assert {path: path.stat().st_mtime for path in cache.glob("*.blob")} == blobs
    assert all(np.array_equal(first[key], again[key]) for key in first)
    for number in range(_KEPT + 3):
        (cache / f"old{number}.blob").write_bytes(b"x")
    load_engine(bundle, card, cache=cache)
    assert len(list(cache.glob("*.blob"))) == _KEPT


def test_a_cache_that_cannot_be_written_costs_only_time(bundle: Path, card: Card, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert load_engine(bundle, card, cache=tmp_path / "file" / "graphs").run(images())["logits"].shape == (3, 4)


def test_the_cache_is_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path / "graphs"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "tumorlens" / "graphs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache_folder() is None
