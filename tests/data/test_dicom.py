from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.conftest import real_path
from tumorlens.data.orientation import turn, turn_back
from tumorlens.data.readers import check_size, dicom, read_slices
from tumorlens.data.readers.entry import Entry, ReadOptions
from tumorlens.errors import InputError


def small() -> pydicom.FileDataset:
    return pydicom.dcmread(str(get_testdata_file("MR_small.dcm", download=False)))


@pytest.mark.parametrize("name", sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*")))
def test_every_file_that_pydicom_ships_is_read_or_refused(name: Path) -> None:
    if name.is_dir():
        return
    try:
        slices = read_slices(name)
    except InputError as error:
        assert len(str(error)) > 20
        return
    assert slices
    assert all(item.pixels.ndim == 2 and np.isfinite(item.pixels).all() for item in slices)


UPRIGHT = {"axial": [1, 0, 0, 0, 1, 0], "coronal": [1, 0, 0, 0, 0, -1], "sagittal": [0, 1, 0, 0, 0, -1]}


@pytest.mark.parametrize("plane", list(UPRIGHT))
@pytest.mark.parametrize("orientation", range(8))
def test_slices_are_turned_upright(tmp_path: Path, plane: str, orientation: int) -> None:
    """A picture stored turned, with cosines that say so, comes out as the upright one."""
    upright = np.arange(40 * 32, dtype=np.uint16).reshape(40, 32)
    stored = np.ascontiguousarray(turn_back(upright, orientation))
    # Where rows and columns of the stored picture go, followed on a picture of places.
    columns, rows = np.array(UPRIGHT[plane][:3]), np.array(UPRIGHT[plane][3:])
    places = np.indices((40, 32))
    place = np.stack([turn_back(axis, orientation) for axis in places], axis=-1)
    down, right = place[1, 0] - place[0, 0], place[0, 1] - place[0, 0]
    dataset = small()
    dataset.Rows, dataset.Columns = stored.shape
    dataset.PixelData = stored.tobytes()
    dataset.PixelRepresentation = 0
    dataset.ImageOrientationPatient = [float(v) for v in (*(right @ [rows, columns]), *(down @ [rows, columns]))]
    dataset.PixelSpacing = ["2", "3"] if stored.shape == (40, 32) else ["3", "2"]
    dataset.save_as(tmp_path / "a.dcm")
    (only,) = read_slices(tmp_path / "a.dcm")
    assert only.plane == plane
    assert only.orientation == orientation
    assert np.array_equal(only.pixels, upright)
    assert only.spacing == (2, 3)
    assert np.array_equal(turn(stored, only.orientation), upright)


@pytest.mark.parametrize("cosines", [None, [0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [float("nan")] * 6])
def test_useless_cosines_turn_nothing(cosines: list[float] | None) -> None:
    assert dicom._plane(cosines) == ("", 0)


def test_enhanced_frames_have_their_own_rescale(tmp_path: Path) -> None:
    dataset = small()
    stored = dataset.pixel_array
    dataset.NumberOfFrames = "2"
    dataset.PixelData = stored.tobytes() * 2
    frames = []
    for slope in ("2", "3"):
        transformation = Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = slope, "5", "US"
        item = Dataset()
        item.PixelValueTransformationSequence = Sequence([transformation])
        frames.append(item)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.save_as(tmp_path / "enhanced.dcm")
    first, second = read_slices(tmp_path / "enhanced.dcm")
    assert np.allclose(first.pixels, stored * 2.0 + 5)
    assert np.allclose(second.pixels, stored * 3.0 + 5)


def test_the_window_only_where_asked(tmp_path: Path) -> None:
    dataset = small()
    dataset.WindowCenter, dataset.WindowWidth = "600", "200"
    dataset.save_as(tmp_path / "w.dcm")
    (full,) = read_slices(tmp_path / "w.dcm")
    (shown,) = read_slices(tmp_path / "w.dcm", ReadOptions(window=True))
    assert np.array_equal(full.pixels, dataset.pixel_array)
    below, above = full.pixels < 499, full.pixels > 701
    assert below.any()
    assert above.any()
    assert np.ptp(shown.pixels[below]) == np.ptp(shown.pixels[above]) == 0
    assert shown.pixels[above].min() > shown.pixels[below].max()


def test_patients_are_pseudonyms_and_a_salt_changes_them(tmp_path: Path) -> None:
    dataset = small()
    dataset.PatientID = "Jane Doe 1970"
    dataset.save_as(tmp_path / "a.dcm")
    entry = Entry(str(tmp_path / "a.dcm"))
    plain, salted = dicom.patient_of(entry), dicom.patient_of(entry, b"pepper")
    assert "Jane" not in plain + salted
    assert len({plain, salted, dicom.patient_of(entry, b"other")}) == 3
    dataset.PatientID = ""
    dataset.save_as(tmp_path / "b.dcm")
    assert dicom.patient_of(Entry(str(tmp_path / "b.dcm"))).startswith("study-")


def test_a_series_is_ordered_by_place(tmp_path: Path) -> None:
    dataset = small()
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    entries = []
    for name, height in (("a", 30), ("b", -10), ("c", 5)):
        dataset.ImagePositionPatient = [0, 0, height]
        dataset.save_as(tmp_path / f"{name}.dcm")
        entries.append(Entry(str(tmp_path / f"{name}.dcm")))
    (tmp_path / "notes.txt").write_text("no picture")
    entries.insert(1, Entry(str(tmp_path / "notes.txt")))
    assert [entry.name for entry in dicom.in_order(entries)] == ["b.dcm", "notes.txt", "c.dcm", "a.dcm"]


@pytest.mark.parametrize(("rows", "columns"), [(65, 64), (6000, 6000), (0, 64), (8, 8)])
def test_lying_sizes_are_refused(tmp_path: Path, rows: int, columns: int) -> None:
    dataset = small()
    dataset.Rows, dataset.Columns = rows, columns
    dataset.save_as(tmp_path / "lying.dcm")
    with pytest.raises(InputError):
        read_slices(tmp_path / "lying.dcm")


def test_a_missing_decoder_is_named() -> None:
    path = get_testdata_file("JPEG-LL.dcm", download=False)
    if path is None:
        path = get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False)
    with pytest.raises(InputError, match=r"transfer syntax JPEG"):
        dicom.read(Entry(str(path)), check_size, ReadOptions())


def test_the_real_series_is_axial_and_upright() -> None:
    for path in sorted(real_path("dicom_brain").glob("*.dcm")):
        (only,) = read_slices(path)
        assert (only.plane, only.orientation) == ("axial", 0)
        assert only.spacing == pytest.approx((0.667, 0.7), abs=0.001)
