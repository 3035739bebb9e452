"""The command line as a user meets it: in process for its logic, as a process for its promises."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import csv_rows, draw_head, real_path
from tests.evaluate.made_runs import make_predictions
from tumorlens.cli import main
from tumorlens.cli.sides import samples_of
from tumorlens.data.manifest import read_manifest, write_manifest
from tumorlens.data.predictions import write_predictions
from tumorlens.errors import RunError
from tumorlens.records import CLASSES


def test_help_on_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    for call in (
        ["--help"],
        ["data", "--help"],
        ["train", "--help"],
        ["predict", "--help"],
        ["data", "split", "--help"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(call)
        assert stop.value.code == 0
        assert "--help" in capsys.readouterr().out


def test_index_split_and_refusal_to_overwrite(
    drawn_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "manifest.csv"
    assert main(["data", "index", str(drawn_folder), "--out", str(manifest)]) == 0
    assert main(["data", "split", str(manifest), "--folds", "3"]) == 0
    assert {row["fold"] for row in csv_rows(manifest)} == {"0", "1", "2"}
    capsys.readouterr()
    assert main(["data", "index", str(drawn_folder), "--out", str(manifest)]) == 1
    assert "already there" in capsys.readouterr().err


def test_pictures_without_patients_are_said_and_grouped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in ("glioma", "no_tumor"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(8):
            picture = Image.fromarray(draw_head(label, number, number))
            picture.save(tmp_path / "set" / label / f"{number}.png")
            picture.save(tmp_path / "set" / label / f"{number}_copy.png")
    manifest = str(tmp_path / "m.csv")
    assert main(["data", "index", str(tmp_path / "set"), "--out", manifest]) == 0
    assert main(["data", "split", manifest]) == 0
    out = capsys.readouterr().out
    assert "32 of 32 images have no patient id" in out
    sides = {
        (row["label"], Path(row["path"]).stem.removesuffix("_copy"), row["split"]) for row in csv_rows(Path(manifest))
    }
    assert len(sides) == 16  # a picture and its copy are on one side


def test_evaluate_export_and_errors(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "metrics.json").unlink()
    assert main(["evaluate", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "Balanced accuracy" in shown and "Confusion matrix" in shown
    assert (run / "metrics.json").is_file()
    (run / "bundle" / "model.onnx").unlink()
    assert main(["export", str(run)]) == 1  # the card still lists the file
    assert "missing" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "nowhere")]) == 1
    assert "no predictions there" in capsys.readouterr().err


def test_unwritable_paths_and_forbidden_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "a.png").write_text("")
    assert main(["predict", str(tmp_path / "a.png"), "--out", str(tmp_path / "file" / "x.csv")]) == 1
    assert "Check the path" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "m.csv", "--out", "r", "--finetune.first-layer", "layer9"])
    capsys.readouterr()
    assert main(["train", "m.csv", "--out", "r", "--batch-size", "1"]) == 1
    assert "batch-size 1 is not allowed" in capsys.readouterr().err


def test_folds_by_slice_are_refused(drawn_manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "split", str(drawn_manifest), "--folds", "3", "--leaky-by-slice"]) == 1
    assert "--leaky-by-slice makes train, val and test only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--folds", "3", "--val", "0.4"], "--val and --test make sides, not folds"),
        (["--leave-one-source-out", "--test", "0.4"], "--val and --test make sides, not folds"),
        (["--leave-one-source-out", "--seed", "1"], "--seed changes nothing"),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    options: list[str], says: str, drawn_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "split", str(drawn_manifest), *options]) == 1
    assert says in capsys.readouterr().err


def test_train_refuses_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "m.csv"), "--out", str(tmp_path / "r"), "--weights", str(tmp_path / "w")]) == 1
    assert "no such manifest" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "m.csv"), "--out", str(tmp_path / "r"), "--preset", "fancy"]) == 1
    assert "no preset 'fancy'" in capsys.readouterr().err


def test_a_method_whose_library_is_missing_is_told_before_anything_is_scored(
    tiny_run: Path, drawn_manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="training needs the extra `train`")
    monkeypatch.setitem(sys.modules, "torchcam", None)
    monkeypatch.setattr("tumorlens.map_scores.score_maps", lambda *given: pytest.fail("scored all the same"))
    call = ["explain", "score", str(drawn_manifest), "--model", str(tiny_run / "bundle"), "--methods", "layercam"]
    assert main(call) == 1
    assert "needs torchcam, which is not installed. Install the extra `explain`" in capsys.readouterr().err


def test_maps_are_not_scored_on_patients_that_the_model_learned_from(
    tiny_run: Path,
    drawn_manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With its own sides the small model is measured; with the sides of another split it is not."""
    assert {item.split for item in samples_of(drawn_manifest, None, tiny_run / "bundle")} == {"train", "val", "test"}
    swapped = {"train": "test", "val": "train", "test": "val"}
    rows = [replace(item, split=swapped[item.split]) for item in read_manifest(drawn_manifest)]
    write_manifest(rows, tmp_path / "other.csv")
    groups = len({item.patient_group for item in rows if item.split == "test"})
    assert main(["explain", "score", str(tmp_path / "other.csv"), "--model", str(tiny_run / "bundle")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"has learned from {groups} of the {groups} patients of the test side" in said
    assert "Give the manifest of its training" in said
    monkeypatch.chdir(tiny_run / "bundle")
    with pytest.raises(RunError, match="has learned from"):
        samples_of(tmp_path / "other.csv", None, Path())


@pytest.mark.parametrize(("options", "region"), [([], True), (["--no-region"], False), (["--preset=fast-cpu"], False)])
def test_a_switch_of_the_preset_can_be_turned_off(
    options: list[str], region: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="training needs the extra `train`")
    orders: list[Any] = []

    def stop(order: Any, reporter: object) -> None:
        orders.append(order)
        raise KeyboardInterrupt

    monkeypatch.setattr("tumorlens.experiment.run_experiment", stop)
    assert main(["train", str(tmp_path / "m.csv"), "--out", str(tmp_path / "r"), "--weights", "none", *options]) == 130
    assert [order.settings.region for order in orders] == [region]


IMPORTS = """
import sys
import {module}
heavy = [name for name in {names!r} if name in sys.modules]
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("tumorlens", ["torch", "streamlit", "numpy", "openvino"]),
        ("tumorlens.cli.predict", ["torch", "monai", "streamlit", "scipy.ndimage"]),
        ("tumorlens.app", ["torch", "monai"]),
        ("tumorlens.evaluate.report", ["torch", "streamlit"]),
    ],
)
def test_imports_stay_light(module: str, names: list[str]) -> None:
    subprocess.run([sys.executable, "-c", IMPORTS.format(module=module, names=names)], check=True)


WITHOUT_TORCH = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "monai", "safetensors", "onnx", "onnxscript"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from tumorlens.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (["evaluate", "RUN"], 0, "report.html"),
        (["train", "m.csv", "--out", "r"], 1, "Install the extra `train`"),
        (["crossval", "m.csv", "--out", "r"], 1, "Install the extra `train`"),
        (["export", "RUN"], 1, "Install the extra `train`"),
    ],
)
def test_commands_without_torch(command: list[str], code: int, says: str, tmp_path: Path) -> None:
    """What needs no training runs without its libraries; what does says how to get them."""
    write_predictions(make_predictions(), tmp_path / "predictions.csv", CLASSES)
    call = [sys.executable, "-c", WITHOUT_TORCH, *(part.replace("RUN", str(tmp_path)) for part in command)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "300"})
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_training_survives_ctrl_c_and_resumes(drawn_manifest: Path, tmp_path: Path) -> None:
    """The real command on the real ResNet-50: interrupted by a signal, resumed by --resume."""
    pytest.importorskip("torch", reason="training needs the extra `train`")
    weights = real_path("weights/resnet50_imagenet.safetensors")
    settings = tmp_path / "quick.toml"
    settings.write_text(
        "batch_size = 8\nprecision = 'fp32'\n[preprocess]\nsize = 32\n[head]\nepochs = 1\n"
        "[finetune]\nfirst_layer = 'layer4'\nstages = [{ epochs = 3, size = 32 }]\n"
    )
    out = tmp_path / "run"
    call = [sys.executable, "-m", "tumorlens", "train", str(drawn_manifest), "--out", str(out), "--weights",
            str(weights), "--preset", str(settings)]  # fmt: skip
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 1/3" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stdout.read()
    assert process.wait(timeout=120) == 130, rest
    assert "interrupted" in rest and "Traceback" not in rest
    assert not (out / "metrics.json").exists()
    again = subprocess.run([*call, "--resume"], capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "epoch 3/3" in again.stdout and "epoch 1/3" not in again.stdout
    assert (out / "metrics.json").is_file() and (out / "bundle" / "model.onnx").is_file()


def test_help_needs_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys\nfrom tumorlens.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'torch', 'openvino', 'PIL', 'pydantic', 'tyro'} & set(sys.modules)\n"
        "sys.exit(','.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout and "explain score" in done.stdout


def test_predicting_needs_no_scipy_sklearn_or_streamlit(tiny_run: Path, drawn_folder: Path, tmp_path: Path) -> None:
    picture = next((drawn_folder / "images").iterdir())
    call = ["predict", str(picture), "--model", str(tiny_run / "bundle"), "--out", str(tmp_path / "a.csv")]
    code = (
        f"import sys\nfrom tumorlens.cli import main\nassert main({call!r}) == 0\n"
        "heavy = {'scipy', 'sklearn', 'streamlit', 'torch', 'matplotlib', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(','.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("call", ["--help", "data --help", "train --help"])
def test_a_reader_that_leaves_gets_no_traceback(call: str) -> None:
    run = f"{sys.executable} -m tumorlens {call} | head -n 0"
    assert subprocess.run(run, shell=True, capture_output=True, text=True, check=True).stderr == ""
