"""How much faster intervals come from sums by patient than from a loop that draws slices and asks scikit-learn.

python benchmarks/bootstrap.py [--slices 3000] [--patients 230] [--rounds 10000] [--loop 50]

Both compute accuracy, balanced accuracy, macro AUC and log loss on the same made answers, side by side in one run. The
loop does fewer rounds, and its time is scaled up; its point estimates must agree.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, roc_auc_score

from tumorlens.bootstrap import PatientBootstrap
from tumorlens.evaluate import calibration, metrics
from tumorlens.evaluate.answers import Answers
from tumorlens.evaluate.metrics import Table, tabulate
from tumorlens.records import CLASSES


def made_answers(slices: int, patients: int, seed: int = 0) -> Answers:
    """Answers of a fair model; a patient's slices share their label and part of their errors."""
    rng = np.random.default_rng(seed)
    patient = np.sort(rng.integers(0, patients, slices))
    labels = rng.integers(0, len(CLASSES), patients)[patient]
    logits = 2.5 * np.eye(len(CLASSES))[labels] + rng.normal(0, 1, (patients, len(CLASSES)))[patient]
    logits += rng.normal(0, 0.7, logits.shape)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Answers(CLASSES, labels, shares, tuple(f"p{n}" for n in patient))


def by_loop(answers: Answers, rounds: int, seed: int = 0) -> list[list[float]]:
    """Row 0 the data as they are; then a row a draw."""
    groups = np.array(answers.groups)
    members = {name: np.flatnonzero(groups == name) for name in np.unique(groups)}
    names, rng = list(members), np.random.default_rng(seed)
    rows = []
    for number in range(rounds + 1):
        drawn = names if number == 0 else rng.choice(names, len(names))
        index = np.concatenate([members[name] for name in drawn])
        labels, shares = answers.labels[index], answers.probabilities[index]
        said = shares.argmax(axis=1)
        rows.append([
            accuracy_score(labels, said),
            balanced_accuracy_score(labels, said),
            roc_auc_score(labels, shares, multi_class="ovr", average="macro"),
            log_loss(labels, shares, labels=range(len(CLASSES))),
        ])  # fmt: skip
    return rows


def by_sums(answers: Answers, rounds: int) -> list[float]:
    draws = PatientBootstrap(answers.groups, rounds)
    chosen = (
        metrics.accuracy(answers), metrics.balanced_accuracy(answers), metrics.macro_auc(answers),
        calibration.log_loss(answers),
    )  # fmt: skip
    return [draws.estimate(metric).value for metric in chosen]


def timed(work: Callable[[], list[Any] | Table]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("slices", 3000), ("patients", 230), ("rounds", 10_000), ("loop", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    answers = made_answers(given.slices, given.patients)
    loop, rows = timed(lambda: by_loop(answers, given.loop))
    sums, values = timed(lambda: by_sums(answers, given.rounds))
    whole, _ = timed(lambda: tabulate(answers, given.rounds))
    assert np.allclose(rows[0], values, atol=1e-6), (rows[0], values)
    scaled = loop / (given.loop + 1) * given.rounds
    print(f"{given.slices} slices of {len(set(answers.groups))} patients, {given.rounds} rounds, four figures:")
    print(f"loop with scikit-learn ({given.loop} rounds, scaled): {scaled:.0f} s; sums by patient: {sums:.2f} s")
    print(f"ratio {scaled / sums:.0f}; every figure of the report's tables (48): {whole:.1f} s")


if __name__ == "__main__":
    main()
