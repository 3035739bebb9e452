"""Teach a trained model where tumours lie: what `tumorlens region` does."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tumorlens.data.dataset import SliceDataset, load_dataset
from tumorlens.data.predictions import write_predictions
from tumorlens.errors import BundleError, MaskError
from tumorlens.evaluate.run_folder import PREDICTIONS, read_samples
from tumorlens.model.bundle import ONNX, REGION, WEIGHTS, Region, load_card, put_file
from tumorlens.model.region import RegionHead, middle_maps
from tumorlens.model.tensor_file import write_tensors
from tumorlens.records import CLASSES
from tumorlens.runtime.export import export_bundle, load_network
from tumorlens.train.device import autocast, choose_device, choose_precision
from tumorlens.train.finish import calibrated, labelled
from tumorlens.train.recipe import Reporter
from tumorlens.train.region import answers, contradiction, fit_mix, fit_region, mix
from tumorlens.train.region_checkpoint import RegionCheckpoint
from tumorlens.train.run import settings_of
from tumorlens.train.tasks import EVAL_BATCH, Computer

PART = "region_part.safetensors"
THRESHOLDS = tuple(round(0.1 + 0.05 * n, 2) for n in range(17))


def teach_region(run: Path, reporter: Reporter, device: str = "auto", precision: str = "auto") -> Region:
    """Fit the region head on a run's training slices, its threshold and its say on the validation side.

    Predictions, temperature and label sets are those of the new model afterwards, and its graph is exported. The same
    call goes on with one that was stopped.

    Args:
        run: a run folder whose images and masks are still there.
        reporter: what a person sees.
        device: where to compute now, wherever the network was trained.
        precision: of the products, likewise.

    Raises:
        RunError: no such run, or its config is of another version.
        MaskError: none of its training or validation slices has a mask.
        BundleError: its bundle has neither weights nor a graph.
        KeyboardInterrupt: `reporter.should_stop` said so; what was learned is kept.
    """
    bundle = run / "bundle"
    card = load_card(bundle)
    settings = settings_of(run)
    samples, root = read_samples(run)
    masked = {side: sum(item.split == side and bool(item.mask) for item in samples) for side in ("train", "val")}
    if not all(masked.values()):
        raise MaskError(
            f"{run}: {masked['train']} training and {masked['val']} validation slices have a mask; some of both are "
            "needed. Index images with masks"
        )
    data = load_dataset(samples, root, card.preprocess, reporter.watched("reading"), ("train", "val"))
    blank = [side for side in masked if not _marked(data.side(side))]
    if blank:
        raise MaskError(f"{run}: the masks of its {' and '.join(blank)} side are all black. Mend the masks")
    place = choose_device(device)
    computer = Computer(load_network(bundle, card).to(place), place, choose_precision(precision, place))
    # The same weights after a run was resumed are the same model, whatever the time on its card.
    weights = card.files.get(WEIGHTS) or card.files.get(ONNX)
    owner = f"{weights}; {settings.model_dump_json(exclude={'device', 'precision'})}"
    kept = RegionCheckpoint(run / PART, owner, reporter.should_stop)
    head = fit_region(
        computer, data.side("train"), settings, lambda done, n: reporter.progress("region", done, n), kept=kept
    )
    logits, strengths, peaks = answers(computer, head, data, reporter.watched("predicting every image"))
    val, labels = np.array([item.split == "val" for item in samples]), data.labels.numpy()
    weight, bias = fit_mix(logits[val], strengths[val], labels[val])
    said = mix(logits, strengths, weight, bias)
    region = Region(
        weight=weight,
        bias=bias,
        threshold=best_threshold(computer, head, data.side("val")),
        contradicts=contradiction(said[val], peaks[val], labels[val]),
        fitted_on=f"{masked['train']} masks and the tumour-free slices among {len(data.side('train'))} training slices",
    )
    temperature, sets, shares = calibrated(said, data)
    made = bundle / f"{REGION}.part"
    write_tensors(made, {key: value.cpu() for key, value in head.state_dict().items()})
    fitted = {"region": region, "temperature": temperature, "temperature_factor": 1.0, "label_sets": sets}
    put_file(bundle, card, REGION, made)  # the card speaks of it when the graph has it
    reporter.message("exporting to ONNX")
    export_bundle(bundle, card=card.model_copy(update=fitted))
    write_predictions(labelled(samples, shares, sets), run / PREDICTIONS, CLASSES)
    kept.clear()
    reporter.message(f"region: weight {weight:.3f}, bias {bias:.3f}, threshold {region.threshold:.2f}")
    return region


def is_taught(run: Path) -> bool:
    """Whether a run's model, its graph and its answers have the region head: nothing is left to fit or to export."""
    try:
        card = load_card(run / "bundle", needs=ONNX)
    except BundleError:
        return False
    return card.region is not None and not (run / PART).exists()


def _marked(data: SliceDataset) -> bool:
    """Whether a mask marks anything."""
    return data.masks is not None and bool(data.masks.any())


@torch.inference_mode()
def best_threshold(computer: Computer, head: RegionHead, data: SliceDataset) -> float:
    """The probability of a cell whose outline has the highest mean Dice with the masks of some slices."""
    assert data.masks is not None
    index = torch.nonzero(data.masks.flatten(1).amax(dim=1) > 0)[:, 0]
    scores = []
    for part in torch.split(index, EVAL_BATCH):
        with autocast(computer.device, computer.precision):
            fine, coarse = middle_maps(computer.network, computer.pictures(data.images, part))
        shares = torch.sigmoid(head(fine.float(), coarse.float())).unsqueeze(1)
        large = F.interpolate(shares, size=data.masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        truth = data.masks[part].to(computer.device) > 127
        scores.append(torch.stack([_dice(large > level, truth) for level in THRESHOLDS], dim=1))
    return THRESHOLDS[int(torch.cat(scores).mean(dim=0).argmax())]


def _dice(said: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Of masks (n, h, w), (n,)."""
    both = (said & truth).flatten(1).sum(dim=1)
    return 2 * both / (said.flatten(1).sum(dim=1) + truth.flatten(1).sum(dim=1)).clamp(min=1)
