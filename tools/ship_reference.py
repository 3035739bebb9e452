"""Turn a finished run into the reference bundle: graph, card, model card with figures, licence, tested patients.

    python tools/ship_reference.py RUN CROSSVAL LICENCE_OF_WEIGHTS

RUN is the last model's run folder, calibrated, and CROSSVAL the cross-validation of its recipe (docs/reproduce.sh);
LICENCE_OF_WEIGHTS is the text that came with the initial weights. Every figure in MODEL_CARD.md is computed here: from
the cross-validation's answers for tested patients, and the run's own for its validation patients.
"""

import shutil
import sys
from pathlib import Path

from tumorlens.data.predictions import read_predictions
from tumorlens.evaluate.by_confidence import FOLDS
from tumorlens.evaluate.evaluation import evaluate_run
from tumorlens.evaluate.model_card import PAGE, write_model_card
from tumorlens.evaluate.results import card_metrics
from tumorlens.evaluate.run_folder import read_folds
from tumorlens.model.bundle import INT8, LEAST_CONFIDENCE, ONNX, Card, load_card, write_card

REFERENCE = Path(__file__).parent.parent / "src" / "tumorlens" / "reference"
NAME = "tumorlens-reference-4.1"
LICENCE = "Non-commercial use only (LICENSE beside the model)"
WEIGHTS = "ResNet-50, ImageNet-1k, permute-quantize-finetune `resnet50_large` (decompressed)"
ORIGINAL = "https://github.com/uber-research/permute-quantize-finetune"


def main(run: Path, crossval: Path, licence: Path) -> None:
    """Write everything below src/tumorlens/reference."""
    evaluation = evaluate_run(crossval)
    unseen = [item for item in read_predictions(run / "predictions.csv") if item.split == "val"]
    trained: Card = load_card(run / "bundle", needs=ONNX)
    REFERENCE.mkdir(exist_ok=True)
    for name in (ONNX, *(INT8 if trained.int8 else ())):
        shutil.copy(run / "bundle" / name, REFERENCE / name)
    card = trained.model_copy(
        update={
            "name": NAME,
            "licence": LICENCE,
            "initial_weights": f"{WEIGHTS}, {ORIGINAL}",
            "files": {},
            # `calibrate` corrected the temperature by the folds, and measured what a confidence is worth after it.
            "metrics": {
                **card_metrics(evaluation),
                "figures_of": FOLDS,
                **{key: trained.metrics[key] for key in ("by_confidence", "by_confidence_of")},
            },
            "least_confidence": LEAST_CONFIDENCE,  # a run of before 0.3 may have been taught without
        }
    )
    write_card(REFERENCE, card)  # refusal.safetensors stays with the weights, which do not ship
    groups = sorted(
        {item.patient_group for item in unseen if item.patient_group.split(":")[0] in ("figshare", "tcga_lgg")}
    )
    (REFERENCE / "UNSEEN_PATIENTS.txt").write_text("\n".join(groups) + "\n", encoding="utf-8")
    notice = (
        f"NOTICE. model.onnx and its 8-bit form are derivatives of {WEIGHTS.replace('`', '')}, {ORIGINAL}.\n"
        "It was changed: decompressed, batch norms split again, and fine-tuned on brain MRI slices by the tumorlens "
        f"authors; date of the change: {card.created[:10]}.\nThe Work is available under the licence below, which "
        "applies to the derivative as well: no commercial use. Data sets and their licences are named in "
        "MODEL_CARD.md.\n"
        "The tumorlens code is not affected; it is under the MIT licence of the repository.\n\n"
    )
    (REFERENCE / "LICENSE").write_text(notice + licence.read_text(encoding="utf-8"), encoding="utf-8")
    template = (Path(__file__).parent / "MODEL_CARD.md.jinja").read_text(encoding="utf-8")
    write_model_card(
        evaluation,
        card,
        REFERENCE / PAGE,
        template,
        own=evaluate_run(run),
        folds=len(read_folds(crossval)),
        weights=WEIGHTS,
        original=ORIGINAL,
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
