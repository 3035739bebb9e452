"""`tumorlens data …`"""

from collections import Counter
from pathlib import Path

from tyro.conf import Positional

from tumorlens.cli.terminal import progress_bar, say
from tumorlens.data.index import index_folder
from tumorlens.data.manifest import read_manifest, write_manifest
from tumorlens.data.similarity import similarity_groups
from tumorlens.data.splits import fill_groups, patients_on_two_sides, split_folds, split_shares, thin_clusters
from tumorlens.errors import ManifestError
from tumorlens.records import CLASSES, Sample


def index(folders: Positional[tuple[str, ...]], /, out: Path = Path("manifest.csv"), overwrite: bool = False) -> int:
    """Find the labelled images of one or more data sets and write a manifest.

    Understood are a folder with an index.csv (columns image, label; optional mask, patient_id, patient_group), class
    folders (glioma, meningioma, no_tumor, pituitary and the other names in use), and these below Training/ and
    Testing/.

    Args:
        folders: Data sets. CLASS=FOLDER gives every image below FOLDER that class.
        out: Where to write the manifest. Paths in it are relative to it.
        overwrite: Replace a manifest that is there.
    """
    _refuse_overwrite(out, overwrite)
    if not folders:
        raise ManifestError("no folder given; give at least one data set")
    samples: list[Sample] = []
    for text in folders:
        label, _, name = text.rpartition("=")
        found = index_folder(Path(name), out.parent, label)
        samples += found.samples
        for problem in found.skipped:
            say(f"left out: {problem}")
    repeated = [path for path, count in Counter(sample.path for sample in samples).items() if count > 1]
    if repeated:
        raise ManifestError(f"{len(repeated)} images are in two of the folders, first: {repeated[0]}. Name each once")
    write_manifest(samples, out)
    _summary(samples)
    say(f"wrote {out}")
    return 0


def split(
    manifest: Positional[Path],
    /,
    folds: int = 0,
    val: float = 0.15,
    test: float = 0.2,
    seed: int = 0,
    group_by_similarity: bool = False,
    keep_similar: int = 0,
    by_slice: bool = False,
) -> int:
    """Split a manifest by patient, stratified by class and source, and write the sides into it.

    Args:
        manifest: The manifest, which is rewritten.
        folds: Make this many folds for cross-validation instead of train, val and test.
        val: Share for validation.
        test: Share for testing.
        seed: Another seed gives another split.
        group_by_similarity: Where no patient id is known, put near copies (turned, mirrored) into one group.
        keep_similar: Keep at most this many images of a group of near copies; 0 keeps all. Needs the option above.
        by_slice: Ignore patients. Figures of such a split are too good; every table will say so.
    """
    if keep_similar and not group_by_similarity:
        raise ManifestError("--keep-similar needs --group-by-similarity, which finds the near copies")
    if folds and by_slice:
        raise ManifestError("--by-slice makes train, val and test only: folds are for figures that stand")
    samples = _grouped(read_manifest(manifest), manifest.parent, group_by_similarity, keep_similar)
    divided = split_folds(samples, folds, seed) if folds else split_shares(samples, val, test, seed, by_slice)
    write_manifest(divided, manifest)
    sides = Counter(sample.split or f"fold {sample.fold}" for sample in divided)
    for side, count in sorted(sides.items()):
        part = [sample for sample in divided if (sample.split or f"fold {sample.fold}") == side]
        say(f"{side}: {count} slices of {len({s.patient_group for s in part})} patient groups ({_counts(part)})")
    shared = patients_on_two_sides(divided)
    if shared:
        say(f"SPLIT BY SLICE: {len(shared)} patient groups are on two sides; figures will be too good and say so")
    say(f"wrote {manifest}")
    return 0


def _grouped(samples: list[Sample], root: Path, by_similarity: bool, most: int) -> list[Sample]:
    bare = [number for number, sample in enumerate(samples) if not sample.patient_id]
    if not bare:
        return samples
    say(f"{len(bare)} of {len(samples)} images have no patient id")
    if not by_similarity:
        say("only identical files are kept together among them; --group-by-similarity also finds near copies")
        return fill_groups(samples)
    with progress_bar() as bar:
        clusters = similarity_groups(
            [samples[number] for number in bare],
            root,
            on_progress=lambda done, n: bar.update("comparing", done, n),
        )
    say(f"grouped into {len(set(clusters))} clusters of near copies")
    similar = [-1] * len(samples)
    for number, cluster in zip(bare, clusters, strict=True):
        similar[number] = cluster
    if most:
        keep = thin_clusters(samples, similar, most)
        say(f"left out {keep.count(False)} near copies beyond {most} a cluster")
        samples = [sample for sample, kept in zip(samples, keep, strict=True) if kept]
        similar = [cluster for cluster, kept in zip(similar, keep, strict=True) if kept]
    return fill_groups(samples, similar)


def _summary(samples: list[Sample]) -> None:
    for source in sorted({sample.source for sample in samples}):
        part = [sample for sample in samples if sample.source == source]
        patients = {sample.patient_group for sample in part if sample.patient_group}
        known = f"{len(patients)} patient groups" if patients else "no patient ids"
        say(f"{source}: {len(part)} images, {known} ({_counts(part)})")


def _counts(samples: list[Sample]) -> str:
    counts = Counter(sample.label for sample in samples)
    return ", ".join(f"{name} {counts[name]}" for name in CLASSES if counts[name])


def _refuse_overwrite(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise ManifestError(f"{out}: already there. Give another --out, or --overwrite to replace it")
