"""The images of a manifest with the sides that a model knew them on."""

from pathlib import Path

from tumorlens.data.manifest import read_manifest
from tumorlens.data.splits import VAL_SHARE, fold_names, sides_of_fold
from tumorlens.errors import RunError
from tumorlens.evaluate.patients import is_patient
from tumorlens.evaluate.run_folder import PREDICTIONS, read_run
from tumorlens.records import Sample


def samples_of(manifest: Path, fold: str | None, bundle: Path) -> list[Sample]:
    """The rows of a manifest; with a fold, divided as the run of the bundle divided them.

    Raises:
        RunError: the bundle lies in a run that has learned from patients who would be tested.
        TumorlensError: no such manifest or fold, or the run is damaged.
    """
    bundle = bundle.resolve()  # `.` has no parent by name
    samples = read_manifest(manifest)
    run = read_run(bundle.parent) if (bundle.parent / PREDICTIONS).is_file() else None
    if fold is not None:
        # The validation side depends on the seed of the run that the bundle lies in.
        samples = sides_of_fold(samples, fold, VAL_SHARE, int(run.settings.get("seed", 0)) if run else 0)
    if run is None:
        return samples
    tested = {item.patient_group for item in samples if item.split == "test" and is_patient(item.patient_group)}
    known = {item.patient_group for item in run.predictions if item.split in ("train", "val")}
    if tested & known:
        own = run.fold in fold_names(samples)
        advice = f"Give --fold {run.fold}" if own else "Give the manifest of its training"
        raise RunError(
            f"{bundle.parent} has learned from {len(tested & known)} of the {len(tested)} patients of the test side, "
            f"for instance {min(tested & known)}. {advice}"
        )
    return samples
