"""`tumorlens data split`."""

from pathlib import Path

from tyro.conf import Positional

from tumorlens.cli.data import class_counts
from tumorlens.cli.terminal import progress_bar, say
from tumorlens.data.manifest import read_manifest
from tumorlens.data.similarity import COPY, NEAR, similarity_groups
from tumorlens.data.split_record import SplitPlan, record_path, side_name, write_split
from tumorlens.data.splits import (
    fill_groups,
    leave_one_source_out,
    names_patient,
    patients_on_two_sides,
    split_folds,
    split_shares,
    thin_clusters,
)  # fmt: skip
from tumorlens.errors import ManifestError, SplitError
from tumorlens.records import Sample


def split(
    manifest: Positional[Path],
    /,
    folds: int = 0,
    repeats: int = 1,
    leave_one_source_out: bool = False,
    val: float | None = None,
    test: float | None = None,
    seed: int | None = None,
    group_by_similarity: bool = False,
    keep_similar: int = 0,
    leaky_by_slice: bool = False,
    overwrite: bool = False,
) -> int:
    """Split a manifest by patient, stratified by class and source, and write the sides into it.

    Beside it a record is written, NAME.split.json, with the hash of what is on which side; training checks it.

    Args:
        manifest: The manifest, which is rewritten.
        folds: Make this many folds for cross-validation instead of train, val and test.
        repeats: Make the folds this often, from one seed after the other: NAME.repeat1.csv and so on are written beside
            the manifest, which stays as it is. Each is for crossval.
        leave_one_source_out: Make a fold of each source, for crossval to test one source after the other.
        val: Share for validation, 0.15 by default. With folds an eighth of the patients that are not tested validates.
        test: Share for testing, 0.2 by default.
        seed: Another seed gives another split; 0 by default.
        group_by_similarity: Where no patient id is known, put near copies (turned, mirrored) into one group.
        keep_similar: Keep at most this many images of a group of near copies; 0 keeps all. Needs the option above.
        leaky_by_slice: Ignore patients. Figures of such a split are too good; every table will say so.
        overwrite: Replace repeats that are there.
    """
    if (folds or leave_one_source_out) and (val is not None or test is not None):
        raise SplitError("--val and --test make sides, not folds: there each fold is tested once. Leave them out")
    if leave_one_source_out and seed is not None:
        raise SplitError("--seed changes nothing where each source is a fold. Leave it out")
    shares = 0.15 if val is None else val, 0.2 if test is None else test
    plan = _plan(folds, repeats, leave_one_source_out, leaky_by_slice, shares, seed or 0)
    if keep_similar < 0:
        raise ManifestError(f"--keep-similar {keep_similar} is not allowed. Give 0, which keeps all, or more")
    if keep_similar and not group_by_similarity:
        raise ManifestError("--keep-similar needs --group-by-similarity, which finds the near copies")
    targets = [manifest]
    if repeats > 1:
        targets = [manifest.with_name(f"{manifest.stem}.repeat{n}.csv") for n in range(1, repeats + 1)]
        there = [path for path in targets if path.exists()]
        if there and not overwrite:
            raise ManifestError(f"{there[0]}: already there. Move it away, or replace the repeats with --overwrite")
    samples = _grouped(read_manifest(manifest), manifest.parent, group_by_similarity, keep_similar)
    for number, target in enumerate(targets):
        changes = {"seed": (seed or 0) + number, "repeat": number + 1, "repeats": repeats} if repeats > 1 else {}
        _write(samples, target, plan.model_copy(update=changes))
    return 0


def _plan(folds: int, repeats: int, by_source: bool, leaky: bool, shares: tuple[float, float], seed: int) -> SplitPlan:
    if seed < 0:
        raise SplitError(f"--seed {seed} is not allowed. Give 0 or more")
    if leaky and (folds or by_source):
        raise SplitError("--leaky-by-slice makes train, val and test only: folds are for figures that stand")
    if by_source and folds:
        raise SplitError("--leave-one-source-out and --folds exclude each other: give one of them")
    if repeats < 1 or (repeats > 1 and not folds):
        raise SplitError(f"--repeats {repeats} is not allowed here. Give 1 or more, and more than 1 only with --folds")
    if by_source:
        return SplitPlan(kind="leave-one-source-out")
    if folds:
        return SplitPlan(kind="folds", folds=folds, seed=seed)
    return SplitPlan(kind="holdout", val=shares[0], test=shares[1], seed=seed, leaky_by_slice=leaky)


def _write(samples: list[Sample], target: Path, plan: SplitPlan) -> None:
    divided, notes = _divided(samples, plan)
    record = write_split(divided, target, plan.model_copy(update={"notes": tuple(notes)}))
    for note in notes:
        say(note)
    for side in record.sides:
        part = [sample for sample in divided if side_name(sample) == side]
        say(f"{side}: {len(part)} slices of {len({s.patient_group for s in part})} patient groups "
            f"({class_counts(part)})")  # fmt: skip
    if plan.leaky_by_slice:
        shared = len(patients_on_two_sides(divided))
        say(f"SPLIT BY SLICE: {shared} patient groups are on two sides; figures will be too good and say so")
    say(f"wrote {target} and {record_path(target).name}, split {record.assignment_sha256[:12]}")


def _divided(samples: list[Sample], plan: SplitPlan) -> tuple[list[Sample], list[str]]:
    if plan.kind == "leave-one-source-out":
        return leave_one_source_out(samples)
    seed = plan.seed or 0
    if plan.kind == "folds":
        return split_folds(samples, plan.folds or 0, seed), []
    return split_shares(samples, plan.val or 0.0, plan.test or 0.0, seed, plan.leaky_by_slice), []


def _grouped(samples: list[Sample], root: Path, by_similarity: bool, most: int) -> list[Sample]:
    bare = [number for number, sample in enumerate(samples) if not names_patient(sample)]
    if not bare:
        return samples
    say(f"{len(bare)} of {len(samples)} images have no patient id and no group")
    if not by_similarity:
        say(
            "only slices of one file and identical files are kept together; --group-by-similarity finds near copies too"
        )
        return fill_groups(samples)
    # Slices of one file are together anyhow. Between files of many slices copies alone count: one chance likeness among
    # thousands of slices would join two volumes, and the next two, to one group.
    near = COPY if len({samples[number].path for number in bare}) < len(bare) else NEAR
    with progress_bar() as bar:
        # All of them: an image without an id may be a copy of one that has it.
        similar = similarity_groups(samples, root, near, lambda done, n: bar.update("comparing", done, n))
    kind = "copies" if near == COPY else "near copies"
    say(f"{len({similar[number] for number in bare})} clusters of {kind} among them")
    if most:
        keep = thin_clusters(samples, similar, most)
        say(f"left out {keep.count(False)} near copies beyond {most} a cluster")
        samples = [sample for sample, kept in zip(samples, keep, strict=True) if kept]
        similar = [cluster for cluster, kept in zip(similar, keep, strict=True) if kept]
    return fill_groups(samples, similar)
