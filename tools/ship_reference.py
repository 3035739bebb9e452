"""Turn a finished run into the reference bundle: graph, card, model card with figures, licence, tested patients.

    python tools/ship_reference.py RUN LICENCE_OF_WEIGHTS

RUN is a run folder of docs/reproduce.sh; LICENCE_OF_WEIGHTS the text that came with the initial weights. Every figure
in MODEL_CARD.md is computed here from the run's predictions on its tested patients.
"""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from tumorlens.data.predictions import read_predictions
from tumorlens.evaluate.evaluation import Evaluation, evaluate_run
from tumorlens.evaluate.kinds import KINDS
from tumorlens.evaluate.results import card_metrics
from tumorlens.evaluate.tables import BY_CLASS, OVERALL
from tumorlens.model.bundle import ONNX, Card, load_card, write_card
from tumorlens.records import CLASS_TITLES, Estimate

REFERENCE = Path(__file__).parent.parent / "src" / "tumorlens" / "reference"
NAME = "tumorlens-reference-2"
#: Without tuning: no class is more probable than all others together.
LEAST_CONFIDENCE = 0.5
LICENCE = "Non-commercial use only (LICENSE beside the model)"
WEIGHTS = "ResNet-50, ImageNet-1k, permute-quantize-finetune `resnet50_large` (decompressed)"
ORIGINAL = "https://github.com/uber-research/permute-quantize-finetune"


def by_source(evaluation: Evaluation) -> list[tuple[str, Estimate]]:
    """What the pooled figures hide: each source on its own, slices and patients."""
    titles = {
        "accuracy": "accuracy, a tumour called “no tumour” is wrong",
        "type_accuracy": "accuracy of the tumour type",
        "auc": "AUC",
        "sensitivity": "sensitivity",
        "specificity": "specificity",
    }
    rows = []
    for source, figures in evaluation.sources.items():
        for question, levels in (("tumours", figures.tumours), ("tumour against none", figures.against_none)):
            for level, found in (("slices", levels.slices), ("patients", levels.patients)):
                patients = level == "patients" and question == "tumours"
                rows += [
                    (f"{source}, {question}, {level}: {titles[_key(key, patients)]}", figure)
                    for key, figure in found.items()
                    if key in titles
                ]
    return rows


def _key(key: str, patients: bool) -> str:
    """A patient is asked for the tumour type alone."""
    return "type_accuracy" if patients and key == "accuracy" else key


def main(run: Path, licence: Path) -> None:
    """Write everything below src/tumorlens/reference."""
    evaluation = evaluate_run(run)
    tested = [item for item in read_predictions(run / "predictions.csv") if item.split == "test"]
    trained: Card = load_card(run / "bundle", needs=ONNX)
    REFERENCE.mkdir(exist_ok=True)
    shutil.copy(run / "bundle" / ONNX, REFERENCE / ONNX)
    card = trained.model_copy(
        update={
            "name": NAME,
            "licence": LICENCE,
            "initial_weights": f"{WEIGHTS}, {ORIGINAL}",
            "files": {},
            "metrics": card_metrics(evaluation),
            "least_confidence": LEAST_CONFIDENCE,
        }
    )
    write_card(REFERENCE, card)  # refusal.safetensors stays with the weights, which do not ship
    groups = sorted(
        {item.patient_group for item in tested if item.patient_group.split(":")[0] in ("figshare", "tcga_lgg")}
    )
    (REFERENCE / "TESTED_PATIENTS.txt").write_text("\n".join(groups) + "\n", encoding="utf-8")
    today = datetime.now(UTC).date().isoformat()
    notice = (
        f"NOTICE. model.onnx is a derivative of {WEIGHTS.replace('`', '')}, {ORIGINAL}.\n"
        f"It was changed: decompressed, batch norms split again, and fine-tuned on brain MRI slices by the tumorlens "
        f"authors; date of the change: {today}.\nThe Work is available under the licence below, which applies to the "
        "derivative as well: no commercial use. Data sets and their licences are named in MODEL_CARD.md.\n"
        "The tumorlens code is not affected; it is under the MIT licence of the repository.\n\n"
    )
    (REFERENCE / "LICENSE").write_text(notice + licence.read_text(encoding="utf-8"), encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((Path(__file__).parent / "MODEL_CARD.md.jinja").read_text(encoding="utf-8"))
    table = evaluation.tables["test"]
    page = template.render(
        name=NAME,
        date=today,
        weights=WEIGHTS,
        original=ORIGINAL,
        card=card,
        trained=trained.training_data["slices"],
        sides={name: part.overall["accuracy"] for name, part in evaluation.tables.items()},
        overall=[(KINDS[key].title, [part.overall[key] for part in evaluation.tables.values()]) for key in OVERALL],
        tumours=evaluation.tumours,
        heads=[KINDS[key].title for key in BY_CLASS],
        by_class=[(CLASS_TITLES[key], [row[head] for head in BY_CLASS]) for key, row in table.by_class.items()],
        sources=by_source(evaluation),
        levels=evaluation.levels,
        cells=card.preprocess.size // (16 if card.network.dilated else 32),
        classes=table.classes,
        confusion=table.confusion.tolist(),
    )
    (REFERENCE / "MODEL_CARD.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
