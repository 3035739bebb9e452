import numpy as np
import pytest
from sklearn import metrics as reference

from tumorlens.bootstrap import PatientBootstrap
from tumorlens.evaluate.ranks import auc, average_precision


@pytest.mark.parametrize("decimals", [1, 9], ids=["ties", "no ties"])
def test_every_draw_agrees_with_scikit_learn(decimals: int) -> None:
    """Each row of weights is a data set of its own; scikit-learn computes it with these as sample weights."""
    rng = np.random.default_rng(1)
    positive = rng.random(200) < 0.3
    scores = np.round(rng.random(200) + 0.4 * positive, decimals)
    draws = PatientBootstrap([str(n // 4) for n in range(200)], rounds=25, seed=3)
    rows = draws.by_slice(lambda weights: weights, np.arange(200))
    areas, precisions = auc(positive, scores)(draws), average_precision(positive, scores)(draws)
    for weights, area, precision in zip(rows, areas, precisions, strict=True):
        assert area == pytest.approx(reference.roc_auc_score(positive, scores, sample_weight=weights))
        assert precision == pytest.approx(reference.average_precision_score(positive, scores, sample_weight=weights))


def test_one_kind_alone_has_no_order() -> None:
    alone = PatientBootstrap(list("abcde"), 10)
    assert np.isnan(auc(np.ones(5, dtype=bool), np.arange(5.0))(alone)).all()
    assert np.isnan(average_precision(np.zeros(5, dtype=bool), np.arange(5.0))(alone)).all()


def test_delong_agrees_where_slices_are_patients() -> None:
    """DeLong's interval (Biometrics 1988) holds for independent cases; with one slice a patient both are as wide."""
    rng = np.random.default_rng(2)
    positive = np.arange(300) < 120
    scores = rng.normal(0, 1, 300) + 1.2 * positive
    found = PatientBootstrap([str(n) for n in range(300)], 2000).estimate(auc(positive, scores))
    up, down = scores[positive], scores[~positive]
    wins = (up[:, None] > down).astype(float)
    deviation = np.sqrt(wins.mean(axis=1).var(ddof=1) / len(up) + wins.mean(axis=0).var(ddof=1) / len(down))
    assert found.value == pytest.approx(wins.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
