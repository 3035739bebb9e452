"""Runs that repeat each other: mean, spread, ensemble."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from tests.evaluate.made_runs import make_predictions, write_folds, write_run
from tumorlens.cli import main
from tumorlens.cli.tables import show_comparison
from tumorlens.cli.terminal import console
from tumorlens.errors import RunError
from tumorlens.evaluate.evaluation import evaluate_run
from tumorlens.evaluate.repeats import Comparison, compare_runs, ensemble


def compare(*folders: Path) -> Comparison:
    return compare_runs(folders, [evaluate_run(folder, 10) for folder in folders], 50)


def test_mean_spread_and_ensemble_of_seeds(tmp_path: Path) -> None:
    folders = [write_folds(tmp_path / f"seed{seed}", seed=seed) for seed in range(3)]
    comparison = compare(*folders)
    values = comparison.rows["figshare:tumour_slice_auc"]
    alone = [evaluate_run(folder, 10).sources["figshare"].tumours.slices["auc"].value for folder in folders]
    assert values == pytest.approx(alone) and len(set(values)) == 3
    assert comparison.mean_and_sd("figshare:tumour_slice_auc") == pytest.approx((np.mean(alone), np.std(alone, ddof=1)))
    assert set(comparison.ensemble) == set(comparison.rows) and comparison.notes == ()
    # Whose errors are their own answer better together.
    joint = comparison.ensemble["accuracy"]
    assert joint.value > max(comparison.rows["accuracy"]) and joint.low < joint.value < joint.high
    assert joint.n_slices == len(make_predictions())


def test_the_ensemble_is_the_mean_log_probability() -> None:
    runs = [{(item.source, 0): item for item in make_predictions(seed)} for seed in range(2)]
    for item in ensemble(runs):
        logs = [np.log(run[item.source, 0].probabilities) for run in runs]
        assert np.allclose(item.probabilities, softmax(np.mean(logs, axis=0)))
    (first, *_) = runs[1].values()
    runs[1][first.source, 0] = replace(first, label="pituitary")
    with pytest.raises(RunError, match="differ from run to run"):
        ensemble(runs)


def test_other_pictures_have_no_ensemble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_run(tmp_path / "one", make_predictions())
    other = write_run(tmp_path / "other", make_predictions(1)[:-1])
    comparison = compare(one, other)
    assert comparison.ensemble == {} and "different pictures" in comparison.notes[0]
    show_comparison(comparison)
    assert "different pictures" in capsys.readouterr().out


def test_the_command_takes_several_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="the command's module also trains")
    split = {"assignment_sha256": "ef" * 32, "leaky_by_slice": True}
    folders = [write_folds(tmp_path / f"seed{seed}", 2, seed, split=split) for seed in range(2)]
    monkeypatch.setattr(console, "width", 250)
    assert main(["evaluate", *map(str, folders)]) == 0
    shown = capsys.readouterr().out
    assert "Runs compared" in shown and "figshare: tumour patient AUC" in shown
    assert "mean ± SD" in shown and "ensemble" in shown and "split efefefefefef, SPLIT BY SLICE" in shown
    for folder in folders:
        assert {"folds.csv", "metrics.json", "report.html"} <= {path.name for path in folder.iterdir()}
    assert main(["evaluate"]) == 1
    assert "no run given" in capsys.readouterr().err


@pytest.mark.parametrize("lacking", [slice(None), slice(1, None, 2)])
@pytest.mark.parametrize("which", [0, 1])
def test_sources_that_one_run_lacks_are_the_other_ones(tmp_path: Path, lacking: slice, which: int) -> None:
    runs = [make_predictions(seed=seed) for seed in (1, 2)]
    whole = compare(*(write_run(tmp_path / f"whole{n}", run) for n, run in enumerate(runs))).pair
    runs[which][lacking] = [replace(item, origin="") for item in runs[which][lacking]]
    pair = compare(*(write_run(tmp_path / f"less{n}", run) for n, run in enumerate(runs))).pair
    assert pair == whole and pair is not None and "figshare:tumour_slice_auc" in pair.differences


def test_runs_that_tested_nobody_are_compared_by_their_validation(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"seed{seed}", make_predictions(seed, "val")) for seed in (1, 2)]
    comparison = compare(*folders)
    assert comparison.notes == () and comparison.pair is not None
    assert comparison.ensemble["accuracy"].n_slices == len(make_predictions())


def test_a_history_without_a_validation_loss_is_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions())
    (run / "history.csv").write_text("loss\n0.5\n0.4\n")
    assert main(["evaluate", str(run)]) == 0
    assert "Validation" in (run / "report.html").read_text(encoding="utf-8")
