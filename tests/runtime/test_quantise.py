"""An 8-bit graph beside a bundle's own."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from tumorlens.cli import main
from tumorlens.errors import BundleError
from tumorlens.model.bundle import INT8, load_card
from tumorlens.pipeline import REFERENCE
from tumorlens.runtime.predictor import Predictor


@pytest.fixture(scope="module")
def quantised(tiny_run: Path, drawn_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("nncf", reason="quantising needs nncf")
    run = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("quantised") / "run"))
    assert main(["quantise", str(run), str(drawn_manifest)]) == 0
    return run


def test_the_card_says_how_far_it_agrees(quantised: Path) -> None:
    found = load_card(quantised / "bundle").int8
    assert found is not None and found.calibrated_on > 20 and found.checked_on >= 10
    assert found.same > 0.8 and 0 < found.largest < 0.5 and found.correlation > 0.5
    sizes = [(quantised / "bundle" / name).stat().st_size for name in ("model.onnx", INT8[1])]
    assert sizes[1] < sizes[0]  # 8 bits beside 16


def test_the_page_follows_the_card(quantised: Path, tmp_path: Path) -> None:
    from tumorlens.evaluate.results import retell
    from tumorlens.runtime.export import export_bundle

    page = quantised / "bundle" / "MODEL_CARD.md"
    assert "8-bit graph" in page.read_text(encoding="utf-8")
    run = Path(shutil.copytree(quantised, tmp_path / "run"))
    export_bundle(run / "bundle")
    assert retell(run / "bundle") == run / "bundle" / "MODEL_CARD.md"
    assert "8-bit graph" not in (run / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_somebody_elses_table_beside_a_bundle_is_no_run(quantised: Path, tmp_path: Path) -> None:
    from tumorlens.evaluate.results import retell

    shutil.copytree(quantised / "bundle", tmp_path / "bundle")
    shutil.copy(quantised / "predictions.csv", tmp_path / "predictions.csv")
    before = (tmp_path / "bundle" / "MODEL_CARD.md").read_bytes()
    assert retell(tmp_path / "bundle") is None
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "predictions.csv"}
    assert (tmp_path / "bundle" / "MODEL_CARD.md").read_bytes() == before


def test_it_answers_nearly_alike(quantised: Path, drawn_folder: Path, tmp_path: Path) -> None:
    tables = []
    for precision in ("fp32", "int8"):
        out = tmp_path / f"{precision}.csv"
        call = ["predict", str(drawn_folder / "images"), "--model", str(quantised / "bundle"), "--out", str(out)]
        assert main([*call, "--precision", precision]) == 0
        with out.open(newline="") as file:
            tables.append([float(row["p_glioma"] or 0) for row in csv.DictReader(file)])
    assert tables[0] != tables[1]
    assert np.abs(np.subtract(*tables)).mean() < 0.1


def test_a_changed_graph_is_noticed_and_a_new_export_drops_it(quantised: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(quantised / "bundle", tmp_path / "bundle"))
    with (bundle / INT8[1]).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff\xff")
    with pytest.raises(BundleError, match="changed since"):
        Predictor(bundle, precision="int8")
    shutil.copy(quantised / "bundle" / INT8[1], bundle / INT8[1])
    assert main(["export", str(bundle)]) == 0
    assert load_card(bundle).int8 is None and not (bundle / INT8[0]).exists()


def test_too_few_slices_are_refused(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "path,label,patient_id,patient_group,source,mask,sha256,width,height,split\n"
        "a.png,glioma,1,made:1,made,,abc,64,64,train\n"
    )
    assert main(["quantise", str(tiny_run), str(manifest)]) == 1
    assert "1 training and 0 validation slices" in capsys.readouterr().err


def test_the_shipped_graph_agrees_as_its_card_says() -> None:
    from tumorlens.data.readers import read_slices
    from tumorlens.examples import EXAMPLES

    found = load_card(REFERENCE).int8
    assert found is not None and found.same > 0.95
    slices = [item for example in EXAMPLES for item in read_slices(example.path)][:24]
    exact, rounded = (
        Predictor(REFERENCE, answer_all=True, precision=name).predict(slices) for name in ("fp32", "int8")
    )
    same = [a.prediction.predicted == b.prediction.predicted for a, b in zip(exact, rounded, strict=True)]
    assert np.mean(same) > 0.85
