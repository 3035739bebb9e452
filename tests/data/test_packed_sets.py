"""Data sets that stay in their archives: indexed, checked, read and answered there."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_head, real_path
from tests.data.test_archives import png, put, zipped
from tests.data.test_matlab import mat_bytes
from tumorlens.data.index import index_folder
from tumorlens.data.manifest import check_files, read_manifest, write_manifest
from tumorlens.data.readers import archive, read_mask, read_slice, read_slices
from tumorlens.data.readers.entry import Entry
from tumorlens.errors import ManifestError


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    archive.close_archives()


def head(label: str, number: int = 0) -> bytes:
    return png(draw_head(label, 0, number))


def test_figshare_as_it_is_downloaded(tmp_path: Path) -> None:
    """One archive of archives of .mat files, with a real picture in one."""
    image = sorted((real_path("figshare") / "images").glob("*.jpg"))[0]
    pixels = np.asarray(Image.open(image).convert("L")).astype(np.int16)
    mask = np.asarray(Image.open(real_path("figshare") / "masks" / f"{image.stem}.png").convert("L"))
    first = {"1.mat": mat_bytes(pixels, mask, number=1, patient="100360"), "2.mat": mat_bytes()}
    second = {"767.mat": mat_bytes(patient="MR040240A"), "768.mat": mat_bytes(number=3)[:3000]}
    (tmp_path / "sets").mkdir()
    path = put(
        tmp_path / "sets" / "1512427.zip",
        {"brainTumorDataPublic_1-766.zip": zipped(first), "brainTumorDataPublic_767-1532.zip": zipped(second),
         "README.txt": b"read me", "cvind.mat": b"MATLAB 5.0 MAT-file".ljust(200)},
    )  # fmt: skip
    found = index_folder(path, tmp_path)
    assert [(s.path.rpartition("/")[2], s.label, s.patient_id, s.patient_group) for s in found.samples] == [
        ("1512427.zip!brainTumorDataPublic_1-766.zip!1.mat", "meningioma", "100360", "1512427:100360"),
        ("1512427.zip!brainTumorDataPublic_1-766.zip!2.mat", "glioma", "MR040240B", "1512427:MR040240"),
        ("1512427.zip!brainTumorDataPublic_767-1532.zip!767.mat", "glioma", "MR040240A", "1512427:MR040240"),
    ]
    assert [text.split(":")[0] for text in found.skipped] == ["768.mat", "cvind.mat"]
    write_manifest(found.samples, tmp_path / "m.csv")
    rows = read_manifest(tmp_path / "m.csv")
    check_files(rows, tmp_path)
    assert np.array_equal(read_slice(tmp_path, rows[0]).pixels, pixels)
    shown = read_mask(tmp_path, rows[0])
    assert shown is not None and np.array_equal(shown, mask > 0)
    put(path, {"brainTumorDataPublic_1-766.zip": zipped({"1.mat": first["1.mat"]})})
    os.utime(path, (1, 1))
    with pytest.raises(ManifestError, match=r"2 of 3 files .* missing"):
        check_files(rows, tmp_path)


@pytest.mark.parametrize("wrapper", ["", "brain-tumour-set/", "a/b/"])
def test_kaggle_as_it_is_downloaded(tmp_path: Path, wrapper: str) -> None:
    files = {
        f"{wrapper}Training/glioma_tumor/g (10).png": head("glioma", 1),
        f"{wrapper}Training/glioma_tumor/g (9).png": head("glioma", 2),
        f"{wrapper}Testing/notumor/n.png": head("no_tumor"),
        f"{wrapper}Training/cats/c.png": head("glioma", 3),
        f"{wrapper}Testing/notumor/broken.png": b"no picture",
    }
    found = index_folder(put(tmp_path / "kaggle.zip", files), tmp_path)
    assert [(s.path, s.label, s.source) for s in found.samples] == [
        (f"kaggle.zip!{wrapper}Testing/notumor/n.png", "no_tumor", "kaggle"),
        (f"kaggle.zip!{wrapper}Training/glioma_tumor/g (9).png", "glioma", "kaggle"),
        (f"kaggle.zip!{wrapper}Training/glioma_tumor/g (10).png", "glioma", "kaggle"),
    ]
    assert len(found.skipped) == 1 and "broken.png" in found.skipped[0]
    assert found.samples[0].sha256 == hashlib.sha256(head("no_tumor")).hexdigest()


def test_archives_beside_and_below_folders(tmp_path: Path) -> None:
    data = tmp_path / "set"
    (data / "glioma").mkdir(parents=True)
    put(data / "glioma" / "more.zip", {"1.png": head("glioma"), "x/2.png": head("glioma", 1)})
    put(data / "pituitary.zip", {"1.png": head("pituitary")})
    put(data / "bad.zip", {}).write_bytes(zipped({"glioma/a.png": head("glioma")})[:-9])
    found = index_folder(data, tmp_path)
    assert [(s.path, s.label) for s in found.samples] == [
        ("set/glioma/more.zip!1.png", "glioma"), ("set/glioma/more.zip!x/2.png", "glioma"),
        ("set/pituitary.zip!1.png", "pituitary"),
    ]  # fmt: skip
    assert len(found.skipped) == 1 and "bad.zip" in found.skipped[0]
    (one, two) = index_folder(data / "glioma" / "more.zip", tmp_path, "meningioma").samples
    assert one.label == two.label == "meningioma"


def test_an_archive_without_a_layout(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no labelled images"):
        index_folder(put(tmp_path / "a.zip", {"a.png": head("glioma")}), tmp_path)


def test_index_csv_may_point_into_archives(tmp_path: Path) -> None:
    put(tmp_path / "a.zip", {"a.png": head("glioma"), "a_mask.png": head("glioma", 1)})
    (tmp_path / "index.csv").write_text("image,label,mask\na.zip!a.png,glioma,a.zip!a_mask.png\na.zip!b.png,glioma,\n")
    found = index_folder(tmp_path, tmp_path)
    assert [(s.path, s.mask) for s in found.samples] == [("a.zip!a.png", "a.zip!a_mask.png")]
    assert len(found.skipped) == 1 and "b.png" in found.skipped[0]
    mask = read_mask(tmp_path, found.samples[0])
    assert mask is not None and mask.any() and not mask.all()


def test_predict_an_archive_with_a_bad_member(tiny_run: Path, tmp_path: Path) -> None:
    from tumorlens.pipeline import MapFolder, explain_paths
    from tumorlens.runtime.predictor import Predictor

    files = {"x/1.png": head("glioma"), "1.png": head("glioma", 1), "2.png": b"no picture", "3.mat": mat_bytes()[:900]}
    path = put(tmp_path / "a.zip", {**files, "10.png": head("pituitary"), "../4.png": head("pituitary")})
    steps: list[tuple[int, int]] = []
    predictor = Predictor(tiny_run / "bundle")
    batches = list(explain_paths([path], predictor, lambda done, n: steps.append((done, n))))
    found = [item for batch in batches for item in batch]
    rows = {item.answer.prediction.source.removeprefix(f"{path}!"): item.answer.prediction for item in found}
    assert {name: row.status for name, row in rows.items()} == {
        "../4.png": "error", "1.png": "ok", "2.png": "error", "3.mat": "error", "10.png": "ok", "x/1.png": "ok",
    }  # fmt: skip
    assert "leads out" in rows["../4.png"].message and "not a picture" in rows["2.png"].message
    assert steps[-1] == (6, 6)
    folder = MapFolder(tmp_path / "maps")
    for item in found:
        folder.save(item)
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == [
        "1-2.npy", "1-2.png", "1.npy", "1.png", "10.npy", "10.png",
    ]  # fmt: skip


def test_maps_lie_on_the_grid_of_the_file(tiny_run: Path, tmp_path: Path) -> None:
    """A slice that was turned to be upright: its overlay is upright, its map as the file is."""
    from dataclasses import replace

    from tumorlens.data.orientation import turn
    from tumorlens.pipeline import Explained, MapFolder
    from tumorlens.runtime.predictor import Predictor

    stored = draw_head("glioma", 2, 1)[:, :80].astype(np.float32)
    plain = read_slices(Entry("dir/odd:name?.png", png(stored.astype(np.uint8))))[0]
    folder = MapFolder(tmp_path / "maps")
    for orientation in (3, 4):
        upright = np.ascontiguousarray(turn(stored, orientation))
        shown = replace(plain, pixels=upright, orientation=orientation)
        item = Explained(Predictor(tiny_run / "bundle").predict([shown])[0], shown)
        folder.save(item)
        name = "odd_name_" if orientation == 3 else "odd_name_-2"
        values = np.load(tmp_path / "maps" / f"{name}.npy")
        assert values.shape == stored.shape
        assert np.array_equal(turn(values, orientation), item.heatmap())
        assert Image.open(tmp_path / "maps" / f"{name}.png").size == upright.shape[::-1]


def test_names_of_maps_never_collide(tmp_path: Path) -> None:
    from tumorlens.pipeline import MapFolder

    folder = MapFolder(tmp_path, beside=("_panel.png", ".svg"))
    given = ["a/IM1.png", "b/im1.PNG", "a.png", "a_panel.png", "脳" * 100 + ".png"]
    names = [folder.name(address, 0) for address in given]
    assert names[:4] == ["IM1", "im1-2", "a", "a_panel-2"]
    assert len(f"{names[4]}_frame0001-2_panel.png".encode()) < 255 and names[4].startswith("脳脳")


def test_maps_below_an_input_are_no_inputs(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tumorlens.pipeline import explain_paths
    from tumorlens.runtime.predictor import Predictor

    monkeypatch.chdir(tmp_path)
    for name in ("scans/a.png", "scans/maps/a.png", "scans/maps2/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(head("glioma"))
    predictor = Predictor(tiny_run / "bundle")
    for given in (Path("scans"), tmp_path / "scans", Path()):
        batches = explain_paths([given], predictor, maps=Path("scans/maps"))
        names = {Path(item.answer.prediction.source).name for batch in batches for item in batch}
        assert names == {"a.png", "b.png"}
        found = [item for batch in explain_paths([given], predictor, maps=tmp_path / "scans/maps") for item in batch]
        assert len(found) == 2
