"""How far answers can be trusted: calibration, answering only when sure, label sets, and who is served less well."""

from dataclasses import asdict, dataclass
from typing import Any

from tumorlens.bootstrap import ROUNDS, PatientBootstrap
from tumorlens.evaluate.answers import Answers
from tumorlens.evaluate.calibration import ReliabilityBin, reliability
from tumorlens.evaluate.selective import LabelSetFigures, SelectivePoint, label_set_figures, selective_curve
from tumorlens.evaluate.subgroups import Subgroup, subgroups
from tumorlens.values import plain


@dataclass(frozen=True)
class Trust:
    """The bins of the reliability diagram, the selective curve, label sets (None without), and subgroups."""

    reliability: tuple[ReliabilityBin, ...]
    selective: tuple[SelectivePoint, ...]
    label_sets: LabelSetFigures | None
    subgroups: tuple[Subgroup, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined figures are null."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def trust_of(answers: Answers, rounds: int = ROUNDS, seed: int = 0) -> Trust:
    """Compute all of it for one side, with 95 % intervals by patient."""
    draws = PatientBootstrap(answers.groups, rounds, seed)
    return Trust(
        reliability=tuple(reliability(answers, draws)),
        selective=tuple(selective_curve(answers, draws)),
        label_sets=label_set_figures(answers, draws),
        subgroups=tuple(subgroups(answers, rounds, seed)),
    )
