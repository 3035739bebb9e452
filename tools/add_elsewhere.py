"""Add to a manifest's last model what other data sets have that it lacks: pictures that resemble none of its own.

    python tools/add_elsewhere.py MANIFEST FOLDER… --out OUT [--tested 0|1|all]

OUT, which must lie beside MANIFEST, has the sides of its fold `all`, and on the training side the new pictures of the
FOLDERs (data sets as `tumorlens data index` reads them). `--tested` puts them on the test side, or the first or second
half of them: halves are by the order of the files, as pictures of one patient often follow each other; nobody knows the
patients.
"""

import argparse
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tumorlens.data.index import index_folder
from tumorlens.data.manifest import read_manifest
from tumorlens.data.similarity import unlike
from tumorlens.data.split_record import SplitPlan, write_split
from tumorlens.data.splits import ALL, VAL_SHARE, sides_of_fold
from tumorlens.records import Sample

HALVES = {"0": (True, False), "1": (False, True), "all": (True, True)}  # which are tested


def main() -> None:
    """Find what is new, divide, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tested", choices=tuple(HALVES))
    given = parser.parse_args()
    root = given.manifest.parent
    if given.out.parent.resolve() != root.resolve():
        parser.error(f"--out {given.out}: must lie beside {given.manifest}, as paths in both are relative to it")
    known = read_manifest(given.manifest)
    found = unlike([item for folder in given.folders for item in index_folder(folder, root).samples], known, root)
    added = divided(found, HALVES.get(given.tested, (False, False)))
    sides = [replace(item, fold="") for item in sides_of_fold(known, ALL, VAL_SHARE, seed=0)]
    note = f"the sides of fold {ALL} of {given.manifest.name}, and {len(added)} pictures of other data sets"
    record = write_split(sides + added, given.out, SplitPlan(kind="holdout", notes=(note,)))
    for side in sorted({item.split for item in added}):
        counts = Counter(item.label for item in added if item.split == side)
        sys.stdout.write(f"{side}: {', '.join(f'{label} {count}' for label, count in sorted(counts.items()))} added\n")
    sys.stdout.write(f"wrote {given.out}, split {record.assignment_sha256[:12]}\n")


def divided(samples: list[Sample], tested: tuple[bool, bool]) -> list[Sample]:
    """The samples with their sides: first and second half of the clusters of near copies, in the order of the files."""
    groups = list(dict.fromkeys(item.patient_group for item in samples))
    second = set(groups[len(groups) // 2 :])
    return [replace(item, split="test" if tested[item.patient_group in second] else "train") for item in samples]


if __name__ == "__main__":
    main()
