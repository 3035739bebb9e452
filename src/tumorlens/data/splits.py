"""Splits that keep a patient on one side."""

import dataclasses
import warnings
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tumorlens.errors import SplitError
from tumorlens.records import Sample

FINEST = 20  # parts at the most that a share is made up of


def fill_groups(samples: Sequence[Sample], similar: Sequence[int] | None = None) -> list[Sample]:
    """Give images without a patient id a group: a patient's where the file is one of theirs, else its similarity
    cluster if known, else the identical file.

    Args:
        samples: rows of a manifest; those with a patient id are returned as they are. Groups that were formed
            before for want of an id are formed anew.
        similar: a cluster number for each sample, from `similarity_groups`.
    """
    owner = {sample.sha256: sample.patient_group for sample in samples if sample.patient_id}
    filled = []
    for number, sample in enumerate(samples):
        if sample.patient_id:
            filled.append(sample)
            continue
        formed = f"similar:{similar[number]}" if similar else f"file:{sample.sha256[:16]}"
        filled.append(dataclasses.replace(sample, patient_group=owner.get(sample.sha256, formed)))
    return filled


def thin_clusters(samples: Sequence[Sample], similar: Sequence[int], most: int) -> list[bool]:
    """Mark which samples to keep so that no cluster of near copies holds more than `most`.

    Copies carry nothing new and would weigh in figures and training as if they did. Images with a patient id
    are always kept.
    """
    seen: dict[int, int] = defaultdict(int)
    keep = []
    for sample, cluster in zip(samples, similar, strict=True):
        if not sample.patient_id:
            seen[cluster] += 1
        keep.append(bool(sample.patient_id) or seen[cluster] <= most)
    return keep


def split_folds(samples: Sequence[Sample], folds: int, seed: int) -> list[Sample]:
    """Write a fold number, "0" to "folds - 1", into every sample: stratified by class and source, by patient.

    Raises:
        SplitError: fewer than two folds, or a class with fewer patient groups than folds.
    """
    if folds < 2:
        raise SplitError(f"folds = {folds}: at least 2 are needed")
    _check_groups(samples, folds, by_slice=False)
    numbers = _assign(samples, folds, seed, by_slice=False)
    return [dataclasses.replace(s, fold=str(n), split="") for s, n in zip(samples, numbers, strict=True)]


def split_shares(samples: Sequence[Sample], val: float, test: float, seed: int, by_slice: bool = False) -> list[Sample]:
    """Write `train`, `val` or `test` into every sample: stratified by class and source, grouped by patient.

    The shares are met as nearly as whole patients allow.

    Raises:
        SplitError: shares outside (0, 1), or a class with fewer patient groups than sides.
    """
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise SplitError(f"val = {val} and test = {test} must lie between 0 and 1 and leave a share to train on")
    _check_groups(samples, 3, by_slice)
    in_test = _side(samples, test, seed, by_slice)
    rest = [sample for sample, chosen in zip(samples, in_test, strict=True) if not chosen]
    in_val = iter(_side(rest, val / (1 - test), seed + 1, by_slice))
    names = ["test" if chosen else "val" if next(in_val) else "train" for chosen in in_test]
    return [dataclasses.replace(s, split=name, fold="") for s, name in zip(samples, names, strict=True)]


def sides_of_fold(samples: Sequence[Sample], fold: int, val: float, seed: int) -> list[Sample]:
    """Turn folds into sides: fold `fold` is tested, a patient-grouped share `val` of the rest validates.

    Raises:
        SplitError: the manifest has no such fold.
    """
    known = sorted({sample.fold for sample in samples if sample.fold})
    if str(fold) not in known:
        raise SplitError(
            f"fold {fold} is not in the manifest (folds there: {', '.join(known) or 'none'}). "
            "Run `tumorlens data split MANIFEST --folds K` first"
        )
    rest = [sample for sample in samples if sample.fold != str(fold)]
    in_val = iter(_side(rest, val, seed + fold, by_slice=False))
    names = ["test" if s.fold == str(fold) else "val" if next(in_val) else "train" for s in samples]
    return [dataclasses.replace(s, split=name) for s, name in zip(samples, names, strict=True)]


def patients_on_two_sides(samples: Sequence[Sample]) -> list[str]:
    """Patient groups that appear in more than one split or fold: what makes figures too good."""
    sides: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        sides[sample.patient_group].add(sample.split or sample.fold)
    return sorted(group for group, names in sides.items() if group and len(names) > 1)


def _side(samples: Sequence[Sample], share: float, seed: int, by_slice: bool) -> list[bool]:
    """Mark about `share` of the samples: some of the fewest equal folds that make the share up."""
    groups = len(set(_groups(samples, by_slice)))
    exact = (k for k in range(2, FINEST) if round(share * k) >= 1 and abs(share * k - round(share * k)) < 1e-6)
    folds = min(next(exact, FINEST), groups)
    wanted = max(round(share * folds), 1)
    return [number < wanted for number in _assign(samples, folds, seed, by_slice)]


def _assign(samples: Sequence[Sample], folds: int, seed: int, by_slice: bool) -> list[int]:
    from sklearn.model_selection import StratifiedGroupKFold

    strata = np.array([f"{sample.label}|{sample.source}" for sample in samples])
    groups = np.array(_groups(samples, by_slice))
    numbers = np.zeros(len(samples), dtype=int)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # small strata are allowed; classes are checked before
            for number, (_, held_out) in enumerate(splitter.split(np.zeros(len(samples)), strata, groups)):
                numbers[held_out] = number
    except ValueError as error:
        raise SplitError(f"{len(set(groups))} patient groups cannot be divided into {folds} parts ({error})") from error
    return [int(number) for number in numbers]


def _groups(samples: Sequence[Sample], by_slice: bool) -> list[str]:
    return [sample.path if by_slice else sample.patient_group for sample in samples]


def _check_groups(samples: Sequence[Sample], sides: int, by_slice: bool) -> None:
    members: dict[str, set[str]] = defaultdict(set)
    for sample, group in zip(samples, _groups(samples, by_slice), strict=True):
        if not group:
            raise SplitError(f"{sample.path} has no patient group. Fill groups first (`tumorlens data split` does)")
        members[sample.label].add(group)
    for label, groups in sorted(members.items()):
        if len(groups) < sides:
            raise SplitError(
                f"class {label} has {len(groups)} patient group(s), but {sides} sides need at least one each. "
                "Add patients of this class, leave it out, or make fewer folds"
            )
