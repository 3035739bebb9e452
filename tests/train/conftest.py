"""The drawn data set with its marks as tumour masks, and settings that use them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_head
from tumorlens.config import AugmentSettings, NetworkSettings, TrainSettings
from tumorlens.data.index import index_folder
from tumorlens.data.manifest import write_manifest
from tumorlens.data.splits import split_shares
from tumorlens.records import CLASSES

STILL = AugmentSettings(
    rotation=0, zoom=0, shift=0, mirror=0, upside_down=0, quarter_turn=0, gamma=0, contrast=0, noise=0, blur=0
)


@pytest.fixture(scope="session")
def masked_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes, six patients a class, three slices a patient; the tumours have masks."""
    folder = tmp_path_factory.mktemp("masked")
    rows = ["image,mask,label,patient_id,patient_group,slice"]
    for label in CLASSES:
        for patient in range(6):
            for number in range(3):
                picture = draw_head(label, patient, number)
                name, mask = f"{label}_{patient}_{number}.png", ""
                Image.fromarray(picture).save(folder / name)
                if label != "no_tumor":
                    mask = f"mask_{name}"
                    Image.fromarray(np.where(picture == 230, 255, 0).astype(np.uint8)).save(folder / mask)
                rows.append(f"{name},{mask},{label},{label}{patient},{label}{patient},{number}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    samples = split_shares(index_folder(folder, folder).samples, val=0.2, test=0.2, seed=0)
    write_manifest(samples, folder / "manifest.csv")
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def masked_settings(tiny_settings: TrainSettings) -> TrainSettings:
    """Everything that the best preset uses, small."""
    update = {"evidence_weight": 0.5, "cell_weight": 1.0, "averaging": 0.9, "head_factor": 2.0, "layer_decay": 0.9}
    return tiny_settings.model_copy(
        update={
            "finetune": tiny_settings.finetune.model_copy(update=update),
            "network": NetworkSettings(dilated=True),
            "sampling": "square_root",
            "class_weights": False,
        }
    )
