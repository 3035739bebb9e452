"""`tumorlens explain` of a volume: pictures of the whole, and maps where its voxels lie."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tumorlens.cli import main
from tumorlens.examples import EXAMPLES
from tumorlens.volumes import COLUMNS, TILE

VOLUME = next(item.path for item in EXAMPLES if item.key == "lesion_volume")


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("explained") / "why"
    other = next(item.path for item in EXAMPLES if item.key == "sellar_mass")
    assert main(["explain", str(VOLUME), str(other), "--out", str(out), "--way", "region", "--drawn", "contour"]) == 0
    return out


def test_maps_lie_where_the_lesion_does(explained: Path) -> None:
    volume, maps = nib.load(VOLUME), nib.load(explained / "lesion_volume_maps.nii.gz")
    assert maps.shape == volume.shape and np.allclose(maps.affine, volume.affine)
    place = np.unravel_index(maps.get_fdata().argmax(), maps.shape)
    drawn = np.array([150, 118, 118 - 30]) / [2, 2, 6]  # where tools/make_examples.py drew it, in voxels
    assert np.abs(np.array(place) - drawn)[:2].max() < 12 and abs(place[2] - drawn[2]) <= 4


def test_a_montage_and_a_profile_show_all_slices(explained: Path) -> None:
    sheet = Image.open(explained / "lesion_volume_montage.png")
    assert sheet.size == (COLUMNS * TILE, 4 * TILE)  # 24 slices
    assert np.asarray(sheet).std() > 20
    text = (explained / "lesion_volume_profile.svg").read_text()
    assert text.count("<polyline") == 4 and "Glioma" in text


def test_a_single_picture_has_none_of_these(explained: Path) -> None:
    names = {path.name for path in explained.iterdir()}
    assert {"sellar_mass_panel.png", "sellar_mass.svg"} <= set(names) and "sellar_mass_montage.png" not in names
    findings = json.loads((explained / "findings.json").read_text())
    assert len(findings) == 25 and {item["frame"] for item in findings[:24]} == set(range(24))


def test_volumes_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    import shutil

    for name in ("p1", "p2"):
        (tmp_path / name).mkdir()
        shutil.copy(VOLUME, tmp_path / name / "T1.nii.gz")
    assert main(["explain", str(tmp_path / "p1"), str(tmp_path / "p2"), "--out", str(tmp_path / "why")]) == 0
    names = {path.name for path in (tmp_path / "why").iterdir()}
    assert {"T1_maps.nii.gz", "T1-2_maps.nii.gz", "T1_montage.png", "T1-2_montage.png"} <= names


def test_a_volume_in_an_archive_gets_its_maps(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "set.zip", "w") as made:
        made.write(VOLUME, "p1/T1.nii.gz")
    assert main(["explain", str(tmp_path / "set.zip"), "--out", str(tmp_path / "why")]) == 0
    assert nib.load(tmp_path / "why" / "T1_maps.nii.gz").shape == nib.load(VOLUME).shape
