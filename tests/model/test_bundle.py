import json
import shutil
from pathlib import Path

import pytest

from tumorlens.errors import BundleError
from tumorlens.model.bundle import ONNX, Card, load_card, put_file, write_card
from tumorlens.records import CLASSES
from tumorlens.runtime.engine import EngineName
from tumorlens.runtime.predictor import Predictor


@pytest.fixture
def bundle(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run / "bundle", tmp_path / "bundle"))


def test_the_card_says_what_the_model_is(bundle: Path) -> None:
    card = load_card(bundle, needs=ONNX)
    assert card.classes == CLASSES
    assert card.explained_block == "conv5_block3_out"
    assert set(card.files) == {"model.onnx", "weights.safetensors"}
    assert card.metrics["overall"]["accuracy"]["n"] > 0
    assert "Not a medical device" in card.intended_use


def test_a_changed_byte_is_noticed(bundle: Path) -> None:
    data = bytearray((bundle / ONNX).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / ONNX).write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.onnx: changed since the bundle was made"):
        Predictor(bundle)


def test_killed_while_a_file_changes_a_bundle_lacks_it_and_still_loads(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bundle / "new.part"
    made.write_bytes(b"another graph")

    def killed(folder: Path, card: Card, without: tuple[str, ...] = ()) -> Card:
        if not without:
            raise KeyboardInterrupt
        return write_card(folder, card, without)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tumorlens.model.bundle.write_card", killed)
        put_file(bundle, load_card(bundle), ONNX, made)
    assert (bundle / ONNX).read_bytes() == b"another graph"
    with pytest.raises(BundleError, match=r"the bundle has no model\.onnx"):
        Predictor(bundle)


def test_killed_while_exporting_a_bundle_is_what_it_was(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="needs the extra `train`")
    from tumorlens.runtime import export

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    before = load_card(bundle)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export, "_to_onnx", killed)
        export.export_bundle(bundle, card=before.model_copy(update={"name": "another"}))
    assert load_card(bundle) == before
    Predictor(bundle)
    assert export.export_bundle(bundle, card=before.model_copy(update={"name": "another"})).name == "another"


def test_incomplete_and_foreign_folders(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no model bundle there"):
        load_card(tmp_path / "nowhere")
    (bundle / ONNX).unlink()
    with pytest.raises(BundleError, match=r"listed in model\.json but missing"):
        load_card(bundle)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"schema_version": 99}, "schema_version is 99"), ({"classes": ["one"]}, "not a model card"),
     ({"surprise": 1}, "surprise")],
)  # fmt: skip
def test_damaged_cards(bundle: Path, change: dict[str, object], says: str) -> None:
    card = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps({**card, **change}))
    with pytest.raises(BundleError, match=says):
        load_card(bundle)


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff"])
def test_cards_that_are_no_json_objects(bundle: Path, data: bytes) -> None:
    (bundle / "model.json").write_bytes(data)
    with pytest.raises(BundleError, match="damaged"):
        load_card(bundle)


def test_a_card_that_claims_other_classes_than_the_graph(bundle: Path) -> None:
    card = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps({**card, "classes": ["a", "b", "c"]}))
    with pytest.raises(BundleError, match="card claims 3 classes"):
        Predictor(bundle)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    ("change", "says"),
    [({"preprocess": {"size": 96}}, r"does not take \(n, 1, 96, 96\)"),
     ({"refusal": {"threshold": 0.0}}, "lacks an output .'strangeness'")],
)  # fmt: skip
def test_a_card_that_claims_what_the_graph_does_not_do(
    bundle: Path, change: dict[str, object], says: str, engine: EngineName
) -> None:
    card = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps({**card, **change}))
    with pytest.raises(BundleError, match=says):
        Predictor(bundle, engine=engine)


def test_weights_of_another_class_list(bundle: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra `train`")
    from tumorlens.runtime.export import export_bundle

    card = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps({**card, "classes": ["a", "b", "c"]}))
    with pytest.raises(BundleError, match="does not fit the network of 3 classes"):
        export_bundle(bundle)
