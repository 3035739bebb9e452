"""The images of a manifest with the sides that a model knew them on."""

from pathlib import Path

from tumorlens.data.manifest import read_manifest
from tumorlens.data.splits import VAL_SHARE, sides_of_fold
from tumorlens.evaluate.run_folder import PREDICTIONS, read_run
from tumorlens.records import Sample


def samples_of(manifest: Path, fold: str | None, bundle: Path) -> list[Sample]:
    """The rows of a manifest; with a fold, divided as the run of the bundle divided them.

    Raises:
        TumorlensError: no such manifest or fold, or the run is damaged.
    """
    samples = read_manifest(manifest)
    if fold is None:
        return samples
    # The validation side depends on the seed of the run that the bundle lies in.
    settings = read_run(bundle.parent).settings if (bundle.parent / PREDICTIONS).is_file() else {}
    return sides_of_fold(samples, fold, VAL_SHARE, int(settings.get("seed", 0)))
