"""What an audit finds in a manifest, and how bad it is."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tumorlens.data.audit.bias import SourceBias, source_bias
from tumorlens.data.audit.scan import ODD_ASPECT, SMALL_SIDE, Problem, Scan, scan
from tumorlens.data.orientation import NAMES
from tumorlens.data.similarity import COPY, Pair, clusters, pairs_between, pairs_within
from tumorlens.data.splits import patients_on_two_sides
from tumorlens.records import CLASSES, Sample

Kind = Literal["same file", "same pixels", "copy", "near copy"]
Severity = Literal["error", "warning", "fine"]
Progress = Callable[[str, int, int], None]

_TITLES: dict[Problem, tuple[Severity, str]] = {
    "unreadable": ("error", "unreadable files"),
    "blank": ("error", "blank pictures"),
    "tiny": ("warning", f"pictures with a side below {SMALL_SIDE} pixels"),
    "odd aspect": ("warning", f"pictures more than {ODD_ASPECT:g} times as long as wide"),
    "not grey": ("warning", "coloured pictures"),
}


@dataclass(frozen=True)
class Match:
    """Two images that show the same or nearly the same; turning the first as `orientation` says gives the second.

    `view` is the view of `similarity.VIEWS` in which they match; `foreign` tells that the second is of the other set.
    """

    first: Sample
    second: Sample
    kind: Kind
    score: float
    orientation: int
    view: int = 0
    foreign: bool = False

    @property
    def tells_patient(self) -> bool:
        """Whether the first is taken for the second's patient: a near copy may be of another head, so it says whose a
        picture is only where nobody else does.
        """
        return self.kind != "near copy" or not self.first.patient_id

    @property
    def turned(self) -> str:
        """The orientation in words."""
        return NAMES[self.orientation]


@dataclass(frozen=True)
class Finding:
    """One question asked of the data, and its answer. `matches` are its pairs, worst first; `examples` its files."""

    check: str
    severity: Severity
    summary: str
    matches: tuple[Match, ...] = ()
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """All that was found in one manifest. `recovered` maps rows to their best match in the other manifest."""

    samples: tuple[Sample, ...]
    findings: tuple[Finding, ...]
    within: tuple[Match, ...]
    between: tuple[Match, ...]
    bias: SourceBias | None
    recovered: dict[int, Match]

    @property
    def failed(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.severity == "error" for finding in self.findings)


def audit(
    samples: Sequence[Sample],
    root: Path,
    against: Sequence[Sample] = (),
    against_root: Path | None = None,
    on_progress: Progress = lambda stage, done, total: None,
) -> Audit:
    """Audit a manifest, alone or against another one.

    Args:
        samples: the manifest's rows.
        root: the folder its paths are relative to.
        against: rows of another manifest, with which nothing should be shared and from which patients are recovered.
        against_root: the folder of the other manifest.
        on_progress: called with (stage, images done, images in all).
    """
    seen = scan(samples, root, lambda done, n: on_progress("reading", done, n))
    within = _matches_within(samples, seen)
    between: list[Match] = []
    recovered: dict[int, Match] = {}
    if against and against_root is not None:
        other = scan(against, against_root, lambda done, n: on_progress("reading the other set", done, n))
        between, recovered = _matches_between(samples, seen, against, other)
    units = _units(samples, within, recovered)
    bias = _bias(samples, seen, units)
    findings = [
        *_sharing(samples, within, recovered),
        _patients_on_two_sides(samples),
        *_copies(within),
        _labels([*within, *recovered.values()]),
        *([_overlap(samples, recovered)] if against else []),
        _source(bias),
        *_problems(seen),
        _names(samples),
    ]
    return Audit(tuple(samples), tuple(findings), tuple(within), tuple(between), bias, recovered)


def side(sample: Sample) -> str:
    """Where a split has put an image: its split, or its fold, or an empty string before a split."""
    return sample.split or (f"fold {sample.fold}" if sample.fold else "")


def _matches_within(samples: Sequence[Sample], seen: Scan) -> list[Match]:
    rows = np.flatnonzero(seen.usable)
    found: dict[tuple[int, int], Match] = {}
    for pair in pairs_within(seen.thumbnails[rows]):
        first, second = int(rows[pair.first]), int(rows[pair.second])
        found[first, second] = _match(samples[first], samples[second], pair)
    # Identical ones by hash, neighbours in a chain: of a hundred copies every pair would be thousands.
    files = [sample.sha256 if usable else "" for sample, usable in zip(samples, seen.usable, strict=True)]
    exact: tuple[tuple[Kind, Sequence[str]], ...] = (
        ("same pixels", seen.pixel_hashes), ("same file", files),
    )  # fmt: skip
    for kind, hashes in exact:
        for first, second in _chains(hashes):
            found[first, second] = Match(samples[first], samples[second], kind, 1.0, 0)
    return sorted(found.values(), key=lambda match: -match.score)


def _match(first: Sample, second: Sample, pair: Pair, foreign: bool = False) -> Match:
    kind: Kind = "copy" if pair.score >= COPY else "near copy"
    return Match(first, second, kind, pair.score, pair.orientation, pair.view, foreign)


def _chains(hashes: Sequence[str]) -> Iterable[tuple[int, int]]:
    last: dict[str, int] = {}
    for number, value in enumerate(hashes):
        if value and value in last:
            yield last[value], number
        last[value] = number


def _matches_between(
    samples: Sequence[Sample], seen: Scan, against: Sequence[Sample], other: Scan
) -> tuple[list[Match], dict[int, Match]]:
    rows, columns = np.flatnonzero(seen.usable), np.flatnonzero(other.usable)
    matches: list[Match] = []
    best: dict[int, Match] = {}
    for pair in pairs_between(seen.thumbnails[rows], other.thumbnails[columns]):
        first = int(rows[pair.first])
        match = _match(samples[first], against[int(columns[pair.second])], pair, foreign=True)
        matches.append(match)
        best.setdefault(first, match)  # pairs come best first
    return matches, best


def _units(samples: Sequence[Sample], within: Sequence[Match], recovered: dict[int, Match]) -> list[int]:
    """What must stay on one side: images joined by a copy, a near copy, a group, or a recovered patient."""
    row = {_key(sample): number for number, sample in enumerate(samples)}
    links = [(row[_key(m.first)], row[_key(m.second)]) for m in within if not _only_alike(m)]
    first: dict[tuple[str, str], int] = {}
    for number, groups in enumerate(_groups(samples, recovered)):
        links += [(first.setdefault(group, number), number) for group in groups]
    return clusters(len(samples), links)


def _groups(samples: Sequence[Sample], recovered: dict[int, Match]) -> list[list[tuple[str, str]]]:
    """Each image's own patient group and its recovered one; the two sets may use one name for different patients."""
    named = [[("own", sample.patient_group)] for sample in samples]
    for number, match in recovered.items():
        if match.tells_patient:
            named[number].append(("other", match.second.patient_group))
    return [[name for name in names if name[1]] for names in named]


def _only_alike(match: Match) -> bool:
    """Near copies of two known patients: of different heads one pair in 6,500 to 96,000 looks so alike."""
    known = bool(match.first.patient_id and match.second.patient_id)
    return match.kind == "near copy" and known and not _together(match)


def _key(sample: Sample) -> tuple[str, int, str]:
    return sample.path, sample.frame, sample.plane


def _sharing(samples: Sequence[Sample], within: Sequence[Match], recovered: dict[int, Match]) -> list[Finding]:
    """Per side that is measured: how many of its images share a patient, a copy or a near copy with another side."""
    measured = sorted({side(sample) for sample in samples} - {"", "train"})
    if not measured:
        return []
    crossing = tuple(m for m in within if side(m.first) != side(m.second) and not _only_alike(m))
    shared = {_key(sample) for match in crossing for sample in (match.first, match.second)}
    groups = _groups(samples, recovered)
    sides = defaultdict(set)
    for sample, names in zip(samples, groups, strict=True):
        for name in names:
            sides[name].add(side(sample))
    counts = {name: Counter[bool]() for name in measured}
    for sample, names in zip(samples, groups, strict=True):
        if side(sample) in counts:
            counts[side(sample)][_key(sample) in shared or any(len(sides[name]) > 1 for name in names)] += 1
    leaked = sum(count[True] for count in counts.values())
    words = "a patient, a copy or a near copy" + (" (patients recovered)" if recovered else "")
    told = "; ".join(f"{count[True]:,} of {count.total():,} {name} images" for name, count in counts.items())
    text = f"{told} share {words} with another side"
    return [Finding("shared between sides", "error" if leaked else "fine", text, crossing)]


def _patients_on_two_sides(samples: Sequence[Sample]) -> Finding:
    shared = patients_on_two_sides(samples)
    groups = len({sample.patient_group for sample in samples} - {""})
    text = f"{len(shared):,} of {groups:,} patient groups are on two sides"
    return Finding("patients on two sides", "error" if shared else "fine", text, examples=tuple(shared))


def _copies(within: Sequence[Match]) -> list[Finding]:
    """Copies that the groups would part, and copies inside groups."""
    parted = [match for match in within if not _together(match)]
    certain = tuple(match for match in parted if match.kind != "near copy")
    near = [match for match in parted if match.kind == "near copy"]
    known = tuple(match for match in near if _only_alike(match))
    unknown = tuple(match for match in near if not _only_alike(match))
    inside = len(within) - len(parted)
    return [
        Finding("copies between groups", _severity(certain), f"{_kinds(certain)} in different groups", certain),
        Finding(
            "near copies without a patient id", _severity(unknown),
            f"{len(unknown):,} pairs of near copies where a patient id is missing, in different groups", unknown,
        ),
        Finding(
            "near copies between patients", "warning" if known else "fine",
            f"{len(known):,} pairs of near copies of two patient ids: one person twice, or two who look alike", known,
        ),
        Finding("copies inside groups", "fine", f"{inside:,} pairs of copies or near copies inside groups"),
    ]  # fmt: skip


def _together(match: Match) -> bool:
    return bool(match.first.patient_group) and match.first.patient_group == match.second.patient_group


def _severity(matches: Sequence[Match]) -> Severity:
    return "error" if matches else "fine"


def _kinds(matches: Sequence[Match]) -> str:
    counts = Counter(match.kind for match in matches)
    turned = sum(match.orientation != 0 for match in matches)
    told = ", ".join(f"{counts[kind]:,} {kind}" for kind in ("same file", "same pixels", "copy") if counts[kind])
    return f"{len(matches):,} pairs of copies" + (f" ({told}; {turned:,} turned or mirrored)" if matches else "")


def _labels(matches: Sequence[Match]) -> Finding:
    wrong = tuple(m for m in matches if m.first.label != m.second.label and m.kind != "near copy")
    images = len({_key(match.first) for match in wrong})
    return Finding(
        "copies with different labels", _severity(wrong), f"{images:,} images whose copy has another label", wrong
    )


def _overlap(samples: Sequence[Sample], recovered: dict[int, Match]) -> Finding:
    copies = [match for match in recovered.values() if match.kind == "copy"]
    patients = {match.second.patient_group for match in recovered.values() if match.second.patient_group}
    text = (
        f"{len(recovered):,} of {len(samples):,} images are in the other set too ({len(copies):,} as copies, "
        f"{len(recovered) - len(copies):,} as near copies), from {len(patients):,} of its patient groups"
    )
    return Finding("overlap with the other set", "error" if recovered else "fine", text, tuple(recovered.values()))


def _bias(samples: Sequence[Sample], seen: Scan, units: Sequence[int]) -> SourceBias | None:
    rows = [int(row) for row in np.flatnonzero(seen.usable)]
    return source_bias(seen.features[rows], [samples[i].label for i in rows], [str(units[i]) for i in rows])


def _source(bias: SourceBias | None) -> Finding:
    if bias is None:
        return Finding("source bias", "fine", "not measured: fewer than two classes with five independent groups")
    best = ", ".join(name for name, _ in bias.importance[:3])
    text = (
        f"ten simple features of file and intensity predict the label with balanced accuracy "
        f"{bias.balanced_accuracy} on unseen groups, chance {bias.chance:.3f}; most tell-tale: {best}"
    )
    return Finding("source bias", "warning" if bias.tells else "fine", text)


def _problems(seen: Scan) -> list[Finding]:
    told: dict[Problem, list[str]] = {kind: [] for kind in _TITLES}
    for found in seen.problems:
        for kind, text in found:
            told[kind].append(text)
    return [
        Finding(kind, severity if told[kind] else "fine", f"{len(told[kind]):,} {title}", examples=tuple(told[kind]))
        for kind, (severity, title) in _TITLES.items()
    ]


def _names(samples: Sequence[Sample]) -> Finding:
    paths = defaultdict(set)
    for sample in samples:
        paths[Path(sample.path.replace("!", "/")).name].add(sample.path)
    doubled = {name: sorted(where) for name, where in paths.items() if len(where) > 1}
    text = f"{len(doubled):,} file names stand in more than one folder"
    return Finding("duplicate names", "warning" if doubled else "fine", text, examples=tuple(doubled))


def class_table(samples: Sequence[Sample]) -> list[tuple[str, str, int, int]]:
    """Rows of (source, class, slices, known patient groups)."""
    slices: Counter[tuple[str, str]] = Counter()
    patients = defaultdict(set)
    for sample in samples:
        key = (sample.source, sample.label)
        slices[key] += 1
        if sample.patient_id:
            patients[key].add(sample.patient_group)
    order = {name: number for number, name in enumerate(CLASSES)}
    keys = sorted(slices, key=lambda key: (key[0], order.get(key[1], len(order))))
    return [(source, label, slices[source, label], len(patients[source, label])) for source, label in keys]
