"""The region head: exact in the graph, shown and measured."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch

from tests.conftest import TINY, draw_head
from tumorlens.cli import main
from tumorlens.config import TrainSettings
from tumorlens.data.index import index_folder
from tumorlens.data.manifest import write_manifest
from tumorlens.data.predictions import read_predictions
from tumorlens.data.readers import read_slices
from tumorlens.data.splits import split_shares
from tumorlens.experiment import run_experiment
from tumorlens.explain.scores import rank_likeness
from tumorlens.model.bundle import load_card, write_card
from tumorlens.model.region import middle_maps, mixed, strength
from tumorlens.pipeline import Explained
from tumorlens.records import CLASSES, Slice
from tumorlens.runtime.export import export_bundle, load_network, load_region
from tumorlens.runtime.predictor import Predictor
from tumorlens.train.order import Order
from tumorlens.train.recipe import Reporter


@pytest.fixture(scope="module")
def masked_manifest(drawn_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn heads with masks of their marks."""
    root = tmp_path_factory.mktemp("masked")
    shutil.copytree(drawn_folder / "images", root / "images")
    (root / "masks").mkdir()
    samples = []
    for item in split_shares(index_folder(drawn_folder, drawn_folder).samples, val=0.2, test=0.2, seed=0):
        if item.label != "no_tumor":
            bright = np.asarray(Image.open(root / item.path)) > 200
            name = f"masks/{Path(item.path).name}"
            Image.fromarray(bright.astype(np.uint8) * 255).save(root / name)
            samples.append(replace(item, mask=name))
        else:
            samples.append(item)
    write_manifest(samples, root / "manifest.csv")
    return root / "manifest.csv"


@pytest.fixture(scope="module")
def taught(masked_manifest: Path, tiny_settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "masked"
    run_experiment(Order(masked_manifest, run, tiny_settings, weights=None, layers=TINY), Reporter())
    assert main(["region", str(run)]) == 0
    return run


def test_the_head_is_read_back_from_the_graph(taught: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(taught / "bundle", tmp_path / "bundle"))
    (bundle / "weights.safetensors").unlink()
    (bundle / "region.safetensors").unlink()
    write_card(bundle, load_card(taught / "bundle"))
    export_bundle(bundle)
    images = np.random.default_rng(0).random((3, 1, 64, 64)).astype(np.float32)
    first, second = (Predictor(folder).run(images) for folder in (taught / "bundle", bundle))
    assert np.allclose(first.region, second.region, atol=1e-4)
    assert np.allclose(first.logits, second.logits, atol=1e-4)


def head(number: int) -> Slice:
    return Slice(draw_head("meningioma", number, 1).astype(np.float32), f"{number}.png")


def test_the_graph_says_what_the_networks_say(taught: Path) -> None:
    card = load_card(taught / "bundle")
    assert card.region is not None
    predictor = Predictor(taught / "bundle", answer_all=True)
    images = np.random.default_rng(0).random((3, 1, 64, 64)).astype(np.float32)
    found = predictor.run(images)
    network, region = load_network(taught / "bundle", card), load_region(taught / "bundle")
    with torch.inference_mode():
        fine, coarse = middle_maps(network, torch.from_numpy(images))
        expected = region(fine, coarse)
        logits = mixed(
            network(torch.from_numpy(images)), strength(expected), CLASSES.index("no_tumor"), card.region.weight,
            card.region.bias,
        )  # fmt: skip
    assert found.region is not None and found.region.shape == (3, 8, 8)
    assert np.allclose(found.region, expected.numpy(), atol=2e-2 * np.abs(expected.numpy()).max())
    assert np.allclose(found.logits, logits.numpy(), atol=2e-2)


def test_report_and_cards_say_so(taught: Path) -> None:
    assert "a region head on conv3 and conv4" in (taught / "checklists.md").read_text(encoding="utf-8")
    assert "masks and the tumour-free slices among" in (taught / "report.html").read_text(encoding="utf-8")
    assert "Its evidence region is no segmentation" in (taught / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_predictions_are_those_of_the_new_model(taught: Path, masked_manifest: Path) -> None:
    row = next(item for item in read_predictions(taught / "predictions.csv") if item.split == "test")
    pixels = np.asarray(Image.open(masked_manifest.parent / row.source)).astype(np.float32)
    (answer,) = Predictor(taught / "bundle", answer_all=True).predict([Slice(pixels, row.source)])
    assert np.allclose(answer.prediction.probabilities, row.probabilities, atol=0.02)


def test_cells_of_the_tumour_stand_out(taught: Path) -> None:
    predictor = Predictor(taught / "bundle", answer_all=True)
    card = predictor.card
    assert card.region is not None
    inside = []
    for number in range(6):
        picture = head(number)
        (answer,) = predictor.predict([picture])
        item = Explained(answer, picture)
        values = item.heatmap(way="region")
        mark = picture.pixels > 200
        inside.append(values[mark].mean() - values[~mark & (picture.pixels > 50)].mean())
        sharp, plain = item.heatmap(way="sharp"), item.heatmap()
        assert not (sharp[plain == 0] > 0).any()
    assert np.mean(inside) > 0.1


def test_explain_writes_maps_panels_and_findings(taught: Path, tmp_path: Path) -> None:
    Image.fromarray(draw_head("meningioma", 1, 1)).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    code = main([
        "explain", str(tmp_path / "a.png"), str(tmp_path / "broken.png"), "--out", str(tmp_path / "out"),
        "--model", str(taught / "bundle"), "--way", "sharp",
    ])  # fmt: skip
    assert code == 1  # one could not be read; the other is there all the same
    (found,) = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert np.load(tmp_path / "out" / found["map"]).shape == (96, 96)
    with Image.open(tmp_path / "out" / "a_panel.png") as panel:
        assert panel.height == 320 and panel.width > 3 * 320
    assert set(found["evidence_region"]) == {"box", "area", "area_mm2", "place"}
    top, left, bottom, right = found["evidence_region"]["box"]
    assert 0 <= top < bottom <= 96 and 0 <= left < right <= 96


def test_a_box_lies_as_the_file_does(taught: Path, tmp_path: Path) -> None:
    """EXIF turns a picture upright: its map and its box are on the file's own grid, its place is as it is shown."""
    head = Image.fromarray(draw_head("meningioma", 1, 1)).crop((0, 0, 96, 80))
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    head.save(tmp_path / "plain.png")
    head.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    call = ["explain", str(tmp_path / "plain.png"), str(tmp_path / "turned.png"), "--out", str(tmp_path / "out")]
    assert main([*call, "--model", str(taught / "bundle")]) == 0
    plain, other = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert np.load(tmp_path / "out" / other["map"]).shape == (96, 80)
    top, left, bottom, right = plain["evidence_region"]["box"]
    assert other["evidence_region"]["box"] == [96 - right, top, 96 - left, bottom]
    assert other["evidence_region"]["place"] == plain["evidence_region"]["place"]


def test_explain_refuses_what_it_cannot_do(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(draw_head("meningioma", 1, 1)).save(tmp_path / "a.png")
    call = ["explain", str(tmp_path / "a.png"), "--model", str(tiny_run / "bundle")]
    assert main([*call, "--out", str(tmp_path / "one"), "--way", "region"]) == 1
    assert "needs a bundle with a region head" in capsys.readouterr().err
    assert main([*call, "--out", str(tmp_path / "two"), "--of", "glioma", "--against", "cat"]) == 1
    assert "--against cat: the model knows glioma" in capsys.readouterr().err
    assert main([*call, "--out", str(tmp_path / "two"), "--of", "glioma", "--against", "glioma"]) == 1
    assert "nothing sets a class apart from itself" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()  # nothing was begun, so the same call mended is free to go
    assert main([*call, "--out", str(tmp_path / "three"), "--way", "region", "--of", "glioma"]) == 1
    assert "leave out --of and --against" in capsys.readouterr().err
    predict = [
        "predict",
        str(tmp_path / "a.png"),
        "--model",
        str(tiny_run / "bundle"),
        "--out",
        str(tmp_path / "p.csv"),
    ]
    assert main([*predict, "--heatmaps", str(tmp_path / "maps"), "--way", "sharp"]) == 1
    assert "has no region head" in capsys.readouterr().err and not (tmp_path / "maps").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").touch()
    full = [*call, "--out", str(tmp_path / "full")]
    assert main([*full, "--overwrite", "--against", "glioma", "--of", "pituitary"]) == 0
    assert main(full) == 1
    assert "not empty" in capsys.readouterr().err


def test_maps_are_scored_beside_what_knows_nothing(taught: Path, masked_manifest: Path, tmp_path: Path) -> None:
    code = main([
        "explain", "score", str(masked_manifest), "--model", str(taught / "bundle"), "--every", "4",
        "--methods", "layercam", "untrained", "--out", str(tmp_path / "maps.json"),
    ])  # fmt: skip
    assert code == 0
    rows = {row["method"]: row["figures"] for row in json.loads((tmp_path / "maps.json").read_text())}
    assert {"gradcam", "sharp", "region", "centre", "edges", "layercam", "untrained", "chance"} <= set(rows)
    assert rows["region"]["energy"]["value"] > rows["centre"]["energy"]["value"]
    assert rows["gradcam"]["peak"]["n"] >= 3
    assert rows["brightness"]["peak"]["value"] == 1  # the marks are the brightest spots of the drawn heads
    assert rows["centre"]["mirror"]["value"] == pytest.approx(1)


def test_maps_change_as_the_weights_do(taught: Path, masked_manifest: Path, tmp_path: Path) -> None:
    bundle = str(taught / "bundle")
    call = ["explain", "sanity", str(masked_manifest), "--model", bundle, "--beside", bundle]
    assert main([*call, "--out", str(tmp_path / "sanity.json")]) == 0
    found = json.loads((tmp_path / "sanity.json").read_text())
    assert list(found["drawn anew"]) == ["head", "layer4", "layer3", "layer2", "layer1", "stem"]
    assert all(-1 <= row["value"] < 0.9 for row in found["drawn anew"].values())
    same, another = (found["beside"][name]["value"] for name in ("same slice", "another slice"))
    assert same == pytest.approx(1)
    assert another < 0.9
    assert rank_likeness(np.arange(9.0), np.arange(9.0) ** 3) == pytest.approx(1)
    assert rank_likeness(np.arange(9.0), np.zeros(9)) == 0


def test_a_place_like_a_tumour_contradicts_an_answer_of_none(taught: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(taught / "bundle", tmp_path / "bundle"))
    card = load_card(bundle)
    assert card.region is not None and card.region.contradicts is not None and card.region.contradicts >= 0.5
    slices = [
        Slice(draw_head(label, patient, 0).astype(np.float32), f"{label}{patient}", 0, None, "")
        for label in CLASSES for patient in range(3)
    ]  # fmt: skip
    assert any(item.prediction.predicted == "no_tumor" for item in Predictor(bundle, answer_all=True).predict(slices))
    for limit in (0.5, 1e-9, 1.0):
        write_card(bundle, card.model_copy(update={"region": card.region.model_copy(update={"contradicts": limit})}))
        for item in Predictor(bundle).predict(slices):
            assert item.region is not None
            expected = item.prediction.predicted == "no_tumor" and float(item.region.max()) > limit
            assert (item.prediction.status == "refused") == expected
            assert ("one place looks like a tumour" in item.prediction.message) == expected
            assert item.prediction.probabilities
            assert limit > 1e-9 or expected == (item.prediction.predicted == "no_tumor")


def test_a_slice_that_cannot_be_set_apart_costs_only_itself(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--against is the answer itself for some slices of a folder, and not for others."""
    for kind in ("meningioma", "no_tumor", "glioma", "pituitary"):
        Image.fromarray(draw_head(kind, 1, 1)).save(tmp_path / f"{kind}.png")
    inputs = [str(path) for path in sorted(tmp_path.glob("*.png"))]
    answered = [item.prediction.predicted for item in Predictor(taught / "bundle", answer_all=True).predict(
        [read_slices(Path(path))[0] for path in inputs])]  # fmt: skip
    assert len(set(answered)) > 1
    against = answered[0]
    call = ["explain", *inputs, "--out", str(tmp_path / "why"), "--model", str(taught / "bundle")]
    assert main([*call, "--against", against]) == 1
    said = capsys.readouterr()
    assert f"{against} is its answer, and nothing sets it apart from itself" in said.out + said.err
    findings = json.loads((tmp_path / "why" / "findings.json").read_text())
    assert [item["predicted"] for item in findings] == [name for name in answered if name != against]


def test_maps_never_replace_pictures(taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An overlay is called like its picture; --overwrite is for what was written before, not for what was given."""
    Image.fromarray(draw_head("meningioma", 1, 1)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    model = ["--model", str(taught / "bundle"), "--overwrite"]
    table = ["--out", str(tmp_path / "elsewhere.csv")]
    for given in (tmp_path, tmp_path / "a.png"):
        assert main(["predict", str(given), "--heatmaps", str(tmp_path), *table, *model]) == 1
        assert "overlays could replace pictures there" in capsys.readouterr().err
        assert main(["explain", str(given), "--out", str(tmp_path), *model]) == 1
        assert "overlays could replace pictures there" in capsys.readouterr().err
    assert (tmp_path / "a.png").read_bytes() == before and not (tmp_path / "elsewhere.csv").exists()


def test_maps_below_an_input_folder_never_replace_pictures(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder below the inputs may hold maps of before, which are no inputs, but no pictures."""
    (tmp_path / "train" / "deeper").mkdir(parents=True)
    pictures = [tmp_path / name for name in ("train/a.png", "train/deeper/b.png", "a.png")]
    for number, path in enumerate(pictures):
        Image.fromarray(draw_head("meningioma", number, 1)).save(path)
    before = pictures[0].read_bytes()
    model = ["--model", str(taught / "bundle"), "--overwrite"]
    table = tmp_path.with_suffix(".csv")
    for maps, command in (("--heatmaps", ["predict", "--out", str(table), "--answer-all"]), ("--out", ["explain"])):
        call = [command[0], str(tmp_path), *command[1:], *model, maps]
        assert main([*call, str(tmp_path / "train")]) == 1
        assert f"{pictures[0]} lies in it" in capsys.readouterr().err
        for _ in range(2):
            assert main([*call, str(tmp_path / f"maps_{command[0]}")]) == 0
        assert (tmp_path / f"maps_{command[0]}" / "a.npy").is_file()
        if command[0] == "predict":
            assert {Path(item.source) for item in read_predictions(table)} == set(pictures)
            shutil.rmtree(tmp_path / "maps_predict")
    assert pictures[0].read_bytes() == before
