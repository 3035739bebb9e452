import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.made_runs import make_predictions, write_run
from tests.evaluate.test_calibration import said_as_it_is
from tumorlens.cli import main
from tumorlens.data.predictions import read_predictions, write_predictions
from tumorlens.errors import RunError
from tumorlens.evaluate.answers import FLOOR
from tumorlens.evaluate.by_confidence import FOLDS
from tumorlens.evaluate.recalibrate import AS_TRAINED, CORRECTED, TEMPERATURE, VECTOR, recalibrate, recalibrated
from tumorlens.evaluate.run_folder import Run
from tumorlens.model.bundle import load_card
from tumorlens.model.label_sets import COVERAGES
from tumorlens.records import CLASSES, Prediction


def folds(factor: float, temperature: float = 2.0, count: int = 3) -> list[Run]:
    """Folds whose answers are `factor` times too bold after a temperature that was taken from somewhere."""
    answers = said_as_it_is(factor, patients=600)
    items = [
        Prediction(f"{n}.png", 0, "ok", CLASSES, tuple(row), label=CLASSES[label], patient_group=group, split="test")
        for n, (row, label, group) in enumerate(
            zip(answers.probabilities.tolist(), answers.labels, answers.groups, strict=True)
        )
    ]
    size = len(items) // count
    return [
        Run(Path(f"fold{n}"), tuple(items[n * size : (n + 1) * size]), fold=str(n), temperature=temperature)
        for n in range(count)
    ]


def test_one_temperature_mends_boldness() -> None:
    found = recalibrate(folds(2.0), 0.9, rounds=100)
    assert found.temperature == pytest.approx(4.0, rel=0.1)  # twice too bold after a temperature of two
    before, after = found.figures[AS_TRAINED], found.figures[TEMPERATURE]
    assert before["calibration_slope"].high < 0.6
    assert after["calibration_slope"].low < 1 < after["calibration_slope"].high
    assert after["ece"].value < 0.5 * before["ece"].value
    assert after["log_loss"].value < before["log_loss"].value
    assert found.figures[VECTOR]["log_loss"].value == pytest.approx(after["log_loss"].value, rel=0.03)


def test_own_temperatures_are_corrected_where_they_differ() -> None:
    """Logits of three scales, each softened by its own temperature that is too low by the same factor."""
    parts = [replace(run, temperature=scale) for run, scale in zip(folds(1.5), (0.5, 1.0, 3.0), strict=True)]
    found = recalibrate(parts, 0.9, rounds=50)
    assert found.temperature is None
    assert found.factor == pytest.approx(1.5, rel=0.1)
    assert found.applied(2.0) == pytest.approx(2.0 * found.factor)
    slope = found.figures[CORRECTED]["calibration_slope"]
    assert slope.low < 1 < slope.high
    assert found.figures[CORRECTED]["log_loss"].value < found.figures[AS_TRAINED]["log_loss"].value


def test_a_fold_that_was_corrected_counts_as_it_was() -> None:
    parts = [replace(run, temperature=scale) for run, scale in zip(folds(1.5), (0.5, 1.0, 3.0), strict=True)]
    plain = recalibrate(parts, 0.9, rounds=10)
    softer = tuple(
        replace(item, probabilities=tuple((row := np.array(item.probabilities) ** (1 / 1.4)) / row.sum()))
        for item in parts[0].predictions
    )
    mixed = [replace(parts[0], predictions=softer, temperature=0.5 * 1.4, temperature_factor=1.4), *parts[1:]]
    again = recalibrate(mixed, 0.9, rounds=10)
    assert again.factor == pytest.approx(plain.factor, rel=1e-3)


def test_a_bundle_is_corrected_once(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who calibrates again, say after another fold, corrects the bundle's own temperature, not the corrected one."""
    for number, (run, scale) in enumerate(zip(folds(1.5), (0.5, 1.0, 3.0), strict=True)):
        folder = write_run(tmp_path / "cv" / f"fold{number}", list(run.tested), fold=str(number))
        (folder / "bundle").mkdir()
        (folder / "bundle" / "model.json").write_text(json.dumps({"temperature": scale}))
    own = Path(shutil.copytree(tiny_run, tmp_path / "own"))
    items = [replace(item, split="val") for item in read_predictions(own / "predictions.csv") if item.split == "val"]
    write_predictions(items, own / "predictions.csv", CLASSES)
    before = load_card(own / "bundle")

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:  # the answers first: a full disk leaves a card that says what they say
        patch.setattr("tumorlens.data.predictions.write_predictions", full)
        assert main(["calibrate", str(tmp_path / "cv"), "--bundle", str(own / "bundle")]) == 1
    assert load_card(own / "bundle") == before
    found = []
    for _ in range(2):
        assert main(["calibrate", str(tmp_path / "cv"), "--bundle", str(own / "bundle")]) == 0
        found.append((load_card(own / "bundle"), read_predictions(own / "predictions.csv")))
    (once, said), (twice, again) = found
    assert once.temperature_factor == pytest.approx(1.5, rel=0.1)
    assert once.temperature == pytest.approx(before.temperature * once.temperature_factor)
    assert twice.temperature == pytest.approx(once.temperature) and twice.own_temperature == before.own_temperature
    first, softer, same = (np.log([np.clip(p.probabilities, FLOOR, 1) for p in part]) for part in (items, said, again))
    assert softer.min(axis=1).mean() > first.min(axis=1).mean()
    np.testing.assert_allclose(same, softer, atol=1e-6)


def test_label_sets_across_folds_keep_their_promise() -> None:
    found = recalibrate(folds(1.0), 0.9, rounds=50)
    assert found.sets is not None
    assert all(0.84 < figure.value < 0.96 for figure in found.sets.by_class.values())
    assert found.label_sets.coverages == COVERAGES
    assert "1200 tested slices of 600 patient groups in 3 folds" in found.label_sets.fitted_on


def test_one_fold_or_no_temperature_is_not_enough() -> None:
    with pytest.raises(RunError, match="1 fold there; calibration needs two"):
        recalibrate(folds(1.0)[:1], 0.9)
    with pytest.raises(RunError, match=r"fold0: the temperature of its bundle is unknown"):
        recalibrate(folds(1.0, temperature=None), 0.9)  # type: ignore[arg-type]


def test_the_command_puts_it_into_a_bundle(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fold, which in (("0", slice(0, 4)), ("1", slice(4, None))):
        run = write_run(tmp_path / "cv" / f"fold{fold}", make_predictions(which=which), fold=fold)
        (run / "bundle").mkdir()
        (run / "bundle" / "model.json").write_text('{"temperature": 1.5}')
    bundle = Path(shutil.copytree(tiny_run / "bundle", tmp_path / "bundle"))
    assert main(["calibrate", str(tmp_path / "cv"), "--bundle", str(bundle)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Label sets across folds, at 90%" in shown and "what was fitted on the others" in shown
    kept = json.loads((tmp_path / "cv" / "calibration.json").read_text())
    card = load_card(bundle)
    assert card.temperature == pytest.approx(kept["temperature"])
    assert card.label_sets is not None and "2 folds" in card.label_sets.fitted_on
    # What a confidence is worth is told of the answers that the new temperature gives, not of those before it.
    assert set(card.metrics["by_confidence"]) == set(card.classes)
    assert card.metrics["by_confidence_of"] == FOLDS
    assert card.metrics.get("overall") == load_card(tiny_run / "bundle").metrics.get("overall")
    (tmp_path / "cv" / "fold0" / "bundle" / "model.json").write_text("{}")
    assert main(["calibrate", str(tmp_path / "cv")]) == 1
    assert "damaged, or no model card" in capsys.readouterr().err


def test_logits_come_back_whatever_the_temperature() -> None:
    one, other = (recalibrate(folds(1.3, temperature), 0.9, rounds=1) for temperature in (1.0, 3.0))
    assert other.temperature == pytest.approx(3 * one.temperature, rel=1e-3)
    assert np.isfinite(one.figures[TEMPERATURE]["log_loss"].value)


def test_a_run_follows_its_bundle_unless_its_patients_were_fitted_on() -> None:
    first, *others = folds(2.0, count=4)
    found = recalibrate(others, 0.9, rounds=10)
    renewed = recalibrated(first, found, 0.9)
    before = np.array([item.probabilities for item in first.predictions])
    logits = np.log(before) * 2.0 / found.temperature
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose([item.probabilities for item in renewed], expected, atol=1e-9)
    held = np.mean([item.label in item.label_set for item in renewed])
    assert 0.85 < held < 0.97
    with pytest.raises(RunError, match="patient groups that it tests were among those"):
        recalibrated(others[0], found, 0.9)
