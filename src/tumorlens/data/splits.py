"""Splits that keep a patient on one side and have every class on every side."""

import dataclasses
import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tumorlens.data.similarity import clusters
from tumorlens.errors import SplitError
from tumorlens.records import FILE, SIMILAR, Sample

FINEST = 20  # parts at the most that a share is made up of
VAL_SHARE = 0.125  # of the patients that are not tested, where a manifest has folds
ALL = "all"  # for `sides_of_fold`: no fold is tested
ATTEMPTS = 10  # draws at the most until every class is on every side
FORMED = FILE, SIMILAR  # how groups begin that are formed here for want of a patient


def names_patient(sample: Sample) -> bool:
    """Whether somebody said whose image it is: by a patient id, or by a group that was not formed here."""
    return bool(sample.patient_id or (sample.patient_group and not sample.patient_group.startswith(FORMED)))


def fill_groups(samples: Sequence[Sample], similar: Sequence[int] | None = None) -> list[Sample]:
    """Give images of unknown patients a group: a patient's where the file is one of theirs or looks like one, else that
    of its similarity cluster if known, else of the identical file. All slices of one file are one patient's.

    Args:
        samples: rows of a manifest; those with a given group are returned as they are, those with a patient id and none
            get one of it. Groups that were formed before for want of one are formed anew.
        similar: a cluster number for each sample, from `similarity_groups`.
    """
    samples = [
        item if item.patient_group or not item.patient_id
        else dataclasses.replace(item, patient_group=f"{item.source}:{item.patient_id}") for item in samples
    ]  # fmt: skip
    named = [names_patient(sample) for sample in samples]
    alike_as = similar or [-1] * len(samples)
    owner = {s.sha256: s.patient_group for s, known in zip(samples, named, strict=True) if known and s.sha256}
    alike: dict[int, str] = {}
    for item, cluster, known in zip(samples, alike_as, named, strict=True):
        if known and similar:
            alike.setdefault(cluster, item.patient_group)
    joined = _joined(samples, alike_as, named)
    whose = {s.path: s.patient_group for s, known in zip(samples, named, strict=True) if known}
    owners: dict[int, str] = {}
    looks: dict[int, str] = {}
    formed: dict[int, str] = {}
    for item, cluster, known, whole in zip(samples, alike_as, named, joined, strict=True):
        if known:
            continue
        if item.sha256 in owner or item.path in whose:
            owners.setdefault(whole, owner.get(item.sha256) or whose[item.path])
        if cluster in alike:
            looks.setdefault(whole, alike[cluster])
        formed.setdefault(whole, f"{SIMILAR}{cluster}" if similar else f"{FILE}{item.sha256[:16]}")
    groups = formed | looks | owners
    return [
        item if known else dataclasses.replace(item, patient_group=owner.get(item.sha256, groups[whole]))
        for item, known, whole in zip(samples, named, joined, strict=True)
    ]


def _joined(samples: Sequence[Sample], similar: Sequence[int], named: Sequence[bool]) -> list[int]:
    """A number for each sample, the same where images of unknown patients are of one file, equal or near copies."""
    first: dict[tuple[str, str | int], int] = {}
    links = []
    for number, (item, cluster, known) in enumerate(zip(samples, similar, named, strict=True)):
        keys: list[tuple[str, str | int]] = [("path", item.path), ("sha256", item.sha256), ("cluster", cluster)]
        links += [(first.setdefault(key, number), number) for key in keys if not known and key[1] not in ("", -1)]
    return clusters(len(samples), links)


def thin_clusters(samples: Sequence[Sample], similar: Sequence[int], most: int) -> list[bool]:
    """Mark which samples to keep so that no cluster of near copies holds more than `most`.

    Copies carry nothing new and would weigh in figures and training as if they did. Images of known
    patients are always kept.
    """
    seen: dict[int, int] = defaultdict(int)
    keep = []
    for sample, cluster in zip(samples, similar, strict=True):
        known = names_patient(sample)
        seen[cluster] += not known
        keep.append(known or seen[cluster] <= most)
    return keep


def split_folds(samples: Sequence[Sample], folds: int, seed: int) -> list[Sample]:
    """Write a fold number, "0" to "folds - 1", into every sample: stratified by class and source, by patient.

    Raises:
        SplitError: fewer than two folds, or a class with too few patient groups.
    """
    if folds < 2:
        raise SplitError(f"folds = {folds}: at least 2 are needed")
    # Outside of each fold a class needs two groups, to train and to validate; three folds or more see to that.
    least = 2 if folds == 2 else 1
    groups = _groups(samples)
    _check_groups(samples, groups, folds, least)
    names = [str(number) for number in range(folds)]

    def draw(seed: int) -> list[str]:
        return [str(number) for number in _assign(samples, groups, folds, seed)]

    drawn = _complete(samples, groups, draw, names, seed, least)
    return [dataclasses.replace(s, fold=name, split="") for s, name in zip(samples, drawn, strict=True)]


def split_shares(
    samples: Sequence[Sample], val: float, test: float, seed: int, leaky_by_slice: bool = False
) -> list[Sample]:
    """Write `train`, `val` or `test` into every sample: stratified by class and source, grouped by patient.

    The shares are met as nearly as whole patients allow.

    Args:
        samples: rows of a manifest.
        val: share for validation.
        test: share for testing.
        seed: another one gives another split.
        leaky_by_slice: take every slice for a patient of its own.

    Raises:
        SplitError: shares outside (0, 1), or a class with fewer patient groups than sides.
    """
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise SplitError(f"val = {val} and test = {test} must lie between 0 and 1 and leave a share to train on")
    groups = _groups(samples, leaky_by_slice)
    _check_groups(samples, groups, 3)

    def draw(seed: int) -> list[str]:
        in_test = _side(samples, groups, test, seed)
        rest = [number for number, chosen in enumerate(in_test) if not chosen]
        in_val = _side([samples[n] for n in rest], [groups[n] for n in rest], val / (1 - test), seed + 1)
        validated = {number for number, chosen in zip(rest, in_val, strict=True) if chosen}
        return ["test" if out else "val" if n in validated else "train" for n, out in enumerate(in_test)]

    drawn = _complete(samples, groups, draw, ("train", "val", "test"), seed)
    return [dataclasses.replace(s, split=name, fold="") for s, name in zip(samples, drawn, strict=True)]


def leave_one_source_out(samples: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """Make a fold of every source that can be left out, named after it.

    Sources that share a patient group are left out together, as `A+B`: apart, a patient would be on two sides. A
    source stays in training, its fold empty, where a class would keep fewer than two patient groups without it.

    Returns:
        The samples with their folds, and a sentence for each source that was joined to another or stays in training.

    Raises:
        SplitError: an image without source or group, or no source can be left out.
    """
    nameless = [sample.path for sample in samples if not sample.source]
    if nameless:
        raise SplitError(f"{len(nameless)} images have no source, first: {nameless[0]}. Fill the column `source`")
    _check_groups(samples, _groups(samples), 1)
    name_of = _joined_sources(samples)
    notes = [
        f"sources {name.replace('+', ' and ')} share patient groups and are left out together"
        for name in sorted({name for source, name in name_of.items() if name != source})
    ]
    kept, reasons = set(), []
    for name in sorted(set(name_of.values())):
        rest = [sample for sample in samples if name_of[sample.source] != name]
        short = [(label, n) for label, n in _groups_by_class(samples, rest).items() if n < 2]
        if short:
            kept.add(name)
            reasons.append(f"source {name} is not left out: without it " + _and(_left(*pair) for pair in short))
    if len(kept) == len(set(name_of.values())):
        raise SplitError(f"no source can be left out. {'; '.join(reasons)}. Add patients of these from another source")
    folds = {source: "" if name in kept else name for source, name in name_of.items()}
    return [dataclasses.replace(s, fold=folds[s.source], split="") for s in samples], notes + reasons


def fold_names(samples: Iterable[Sample]) -> list[str]:
    """The folds of a manifest, numbers first and in their order."""
    return sorted({s.fold for s in samples if s.fold}, key=lambda n: (_number(n) is None, _number(n) or 0, n))


def sides_of_fold(samples: Sequence[Sample], fold: str, val: float, seed: int) -> list[Sample]:
    """Turn folds into sides: fold `fold` is tested, a patient-grouped share `val` of the rest validates.

    `fold` may be `all`, for a last model after a cross-validation: it has the sides of the first fold, but the patients
    tested there train too, and nobody is tested.

    Raises:
        SplitError: the manifest has no such fold, or a class has fewer than two patient groups outside of it.
    """
    known = fold_names(samples)
    if fold == ALL and known:
        sides = sides_of_fold(samples, known[0], val, seed)
        return [dataclasses.replace(s, split="train") if s.split == "test" else s for s in sides]
    if fold not in known:
        raise SplitError(
            f"fold {fold} is not in the manifest (folds there: {', '.join(known) or 'none'}). "
            "Run `tumorlens data split MANIFEST --folds K` first"
        )
    rest = [sample for sample in samples if sample.fold != fold]
    for label, count in _groups_by_class(samples, rest).items():
        if count < 2:
            raise SplitError(
                f"class {label} has {count} patient group(s) outside fold {fold}, but training and validation need at "
                "least one each. Add patients of this class, leave it out, or test another fold"
            )
    groups = _groups(rest)
    _check_groups(rest, groups, 2)

    def draw(seed: int) -> list[str]:
        return ["val" if chosen else "train" for chosen in _side(rest, groups, val, seed)]

    drawn = iter(_complete(rest, groups, draw, ("train", "val"), seed + _offset(fold)))
    names = ["test" if sample.fold == fold else next(drawn) for sample in samples]
    return [dataclasses.replace(s, split=name) for s, name in zip(samples, names, strict=True)]


def patients_on_two_sides(samples: Sequence[Sample]) -> list[str]:
    """Patient groups that appear in more than one split or fold: what makes figures too good."""
    sides: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        sides[sample.patient_group].add(sample.split or sample.fold)
    return sorted(group for group, names in sides.items() if group and len(names) > 1)


def _side(samples: Sequence[Sample], groups: Sequence[str], share: float, seed: int) -> list[bool]:
    """Mark about `share` of the samples: some of the fewest equal folds that make the share up."""
    exact = (k for k in range(2, FINEST) if round(share * k) >= 1 and abs(share * k - round(share * k)) < 1e-6)
    largest = max(Counter(sample.label for sample in samples).values(), default=0)
    folds = min(next(exact, FINEST), len(set(groups)), largest)
    if folds < 2:
        return [False] * len(samples)
    wanted = max(round(share * folds), 1)
    return [number < wanted for number in _assign(samples, groups, folds, seed)]


def _assign(samples: Sequence[Sample], groups: Sequence[str], folds: int, seed: int) -> list[int]:
    from sklearn.model_selection import StratifiedGroupKFold

    strata = [f"{sample.label}|{sample.source}" for sample in samples]
    if max(Counter(strata).values()) < folds:  # scikit-learn refuses: then by class alone
        strata = [sample.label for sample in samples]
    numbers = np.zeros(len(samples), dtype=int)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # small strata are allowed; classes are checked before
            divided = splitter.split(np.zeros(len(samples)), np.array(strata), np.array(groups))
            for number, (_, held_out) in enumerate(divided):
                numbers[held_out] = number
    except ValueError as error:
        raise SplitError(
            f"{len(set(groups))} patient groups cannot be divided into {folds} parts with seed {seed} ({error}). "
            "Make fewer parts, or give another seed of 0 or more"
        ) from error
    return [int(number) for number in numbers]


def _complete(
    samples: Sequence[Sample],
    groups: Sequence[str],
    draw: Callable[[int], list[str]],
    sides: Sequence[str],
    seed: int,
    least: int = 1,
) -> list[str]:
    """Draw a side for every sample, and see to it that every class has `least` groups on every side.

    Stratifying does not promise that. A draw that has it is taken as it is; from another, whole groups are moved. Only
    where groups with several classes stand in each other's way, further seeds are tried.
    """
    first: tuple[str, str] | None = None
    for attempt in range(ATTEMPTS):
        mixed = seed if not attempt else int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0] // 2)
        drawn, missing = _mend(samples, groups, draw(mixed), sides, least)
        if missing is None:
            return drawn
        first = first or missing
    label, side = first or ("", "")
    count = len({group for sample, group in zip(samples, groups, strict=True) if sample.label == label})
    raise SplitError(
        f"class {label} has too few patient groups for side {side}: it has {count}, and moving one there would take "
        "another class from its side, for some patients have several. Add patients of this class, or make fewer sides"
    )


def _mend(
    samples: Sequence[Sample], groups: Sequence[str], drawn: Sequence[str], sides: Sequence[str], least: int
) -> tuple[list[str], tuple[str, str] | None]:
    """Move whole groups until every class has `least` groups on every side: each time the smallest of those on the
    side with most groups of the class, so that the shares change least.

    Returns:
        The sides, and the class and side where it could not be had.
    """
    side_of = dict(zip(groups, drawn, strict=True))
    labels: dict[str, set[str]] = defaultdict(set)
    for sample, group in zip(samples, groups, strict=True):
        labels[group].add(sample.label)
    slices = Counter(groups)
    counts = Counter((label, side_of[group]) for group, own in labels.items() for label in own)
    totals = Counter(label for own in labels.values() for label in own)
    wanted = [(label, side) for label in sorted(totals, key=lambda name: (totals[name], name)) for side in sides]
    for label, side in wanted:
        while counts[label, side] < least:
            spare = [
                group
                for group, own in labels.items()
                if label in own and side_of[group] != side and all(counts[n, side_of[group]] > least for n in own)
            ]
            if not spare:
                return list(drawn), (label, side)
            moved = min(spare, key=lambda g: (-counts[label, side_of[g]], slices[g], g))
            counts.subtract((name, side_of[moved]) for name in labels[moved])
            counts.update((name, side) for name in labels[moved])
            side_of[moved] = side
    return [side_of[group] for group in groups], None


def _groups(samples: Sequence[Sample], leaky_by_slice: bool = False) -> list[str]:
    if not leaky_by_slice:
        return [sample.patient_group for sample in samples]
    return [f"{sample.path}#{sample.frame}" if sample.frame else sample.path for sample in samples]


def _check_groups(samples: Sequence[Sample], groups: Sequence[str], sides: int, least: int = 1) -> None:
    members: dict[str, set[str]] = defaultdict(set)
    for sample, group in zip(samples, groups, strict=True):
        if not group:
            raise SplitError(f"{sample.path} has no patient group. Fill groups first (`tumorlens data split` does)")
        members[sample.label].add(group)
    for label, own in sorted(members.items()):
        if len(own) < sides * least:
            need = "at least one each" if least == 1 else f"at least {least} each, as the rest trains and validates"
            raise SplitError(
                f"class {label} has {len(own)} patient group(s), but {sides} sides need {need}. "
                "Add patients of this class, leave it out, or make fewer folds"
            )


def _groups_by_class(samples: Sequence[Sample], rest: Sequence[Sample]) -> dict[str, int]:
    """How many patient groups of `rest` each class of `samples` has."""
    members: dict[str, set[str]] = {label: set() for label in sorted({sample.label for sample in samples})}
    for sample in rest:
        members[sample.label].add(sample.patient_group)
    return {label: len(groups) for label, groups in members.items()}


def _joined_sources(samples: Sequence[Sample]) -> dict[str, str]:
    """A fold name for each source; sources that share a patient group, directly or by way of others, have one name."""
    together = {sample.source: {sample.source} for sample in samples}
    owners: dict[str, str] = {}
    for sample in samples:
        one, other = together[sample.source], together[owners.setdefault(sample.patient_group, sample.source)]
        if one is not other:
            one |= other
            together.update(dict.fromkeys(one, one))
    return {source: "+".join(sorted(names)) for source, names in together.items()}


def _left(label: str, count: int) -> str:
    return f"class {label} would keep {'one patient group' if count else 'no patients'} to train and validate on"


def _and(parts: Iterable[str]) -> str:
    return " and ".join(parts)


def _number(fold: str) -> int | None:
    return int(fold) if fold.isascii() and fold.isdecimal() and len(fold) < 7 else None


def _offset(fold: str) -> int:
    """What a fold adds to the seed: its number, or one made of its name."""
    number = _number(fold)
    return number if number is not None else int(hashlib.sha256(fold.encode()).hexdigest()[:6], 16)
