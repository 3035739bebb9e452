import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.conftest import real_path
from tumorlens.data.orientation import turn, turn_back
from tumorlens.data.readers import check_size, dicom, dicom_header, dicom_place, read_slices
from tumorlens.data.readers.entry import Entry, ReadOptions
from tumorlens.errors import InputError
from tumorlens.records import Slice


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
    assert dicom_place.plane_of(cosines) == ("", 0)


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
    plain, salted = dicom_header.patient_of(entry), dicom_header.patient_of(entry, b"pepper")
    assert "Jane" not in plain + salted
    assert len({plain, salted, dicom_header.patient_of(entry, b"other")}) == 3
    dataset.PatientID = ""
    dataset.save_as(tmp_path / "b.dcm")
    assert dicom_header.patient_of(Entry(str(tmp_path / "b.dcm"))).startswith("study-")


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
    assert [entry.name for entry in dicom_header.in_order(entries)] == ["b.dcm", "notes.txt", "c.dcm", "a.dcm"]


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


def read_back(dataset: pydicom.FileDataset, **options: object) -> list[Slice]:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return read_slices(Entry("set.zip!a.dcm", buffer.getvalue()), ReadOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("high", [11, 13, 15])
def test_twelve_bits_wherever_they_lie(signed: int, high: int) -> None:
    """What old overlays left in the other bits does not count."""
    values = np.random.default_rng(high).integers(-2048 * signed, 2047, (64, 64)).astype(np.int32)
    shift = high - 11
    words = ((values & 0xFFF) << shift) | (0xFFFF & ~(0xFFF << shift))
    dataset = small()
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, high, signed
    dataset.PixelData = words.astype("<u2").tobytes()
    assert np.array_equal(read_back(dataset)[0].pixels, values)


def test_single_bits_of_frames_that_begin_within_a_byte() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (3, 17, 19)).astype(np.uint8)
    dataset = small()
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 17, 19, "3"
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + bytes(len(packed) % 2)
    for options in ({}, {"frame": 1}, {"every": 2}):
        slices = read_back(dataset, **options)
        assert all(np.array_equal(item.pixels, bits[item.frame]) for item in slices)
        assert [item.frame for item in slices] == {"frame": [1], "every": [0, 2]}.get(
            next(iter(options), ""), [0, 1, 2]
        )


@pytest.mark.parametrize("window", [False, True])
def test_floating_point_pixels(window: bool) -> None:
    values = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float32)
    dataset = small()
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        del dataset[name]
    dataset.FloatPixelData, dataset.NumberOfFrames, dataset.BitsAllocated = values.tobytes(), "2", 32
    (second,) = read_back(dataset, window=window, frame=1)
    assert np.array_equal(second.pixels, values[1])


def test_tables_for_the_modality_and_for_the_window() -> None:
    stored = (np.arange(4096) % 256).reshape(64, 64).astype(np.uint16)
    dataset = small()
    dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, 8, 7
    dataset.PixelData = stored.tobytes()
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [256, 0, 16], "US"
    table.add_new(0x00283006, "OW", (np.arange(256) ** 2).astype("<u2").tobytes())
    dataset.VOILUTSequence = Sequence([table])
    assert np.array_equal(read_back(dataset)[0].pixels, stored)
    assert np.array_equal(read_back(dataset, window=True)[0].pixels, stored.astype(np.float32) ** 2)
    del dataset.VOILUTSequence
    dataset.ModalityLUTSequence = Sequence([table])
    assert np.array_equal(read_back(dataset)[0].pixels, stored.astype(np.float32) ** 2)


def test_shared_and_own_places_of_enhanced_frames() -> None:
    dataset = small()
    stored = dataset.pixel_array
    dataset.NumberOfFrames, dataset.PixelData = "2", stored.tobytes() + stored[::-1].tobytes()
    for name in ("ImageOrientationPatient", "PixelSpacing"):
        if name in dataset:
            del dataset[name]
    groups = [Dataset() for _ in range(3)]
    for group, cosines in ((groups[0], [-1, 0, 0, 0, 1, 0]), (groups[2], [0, 1, 0, 0, 0, -1])):
        item = Dataset()
        item.ImageOrientationPatient = cosines
        group.PlaneOrientationSequence = Sequence([item])
    measures = Dataset()
    measures.PixelSpacing = [2, 3]
    groups[0].PixelMeasuresSequence = Sequence([measures])
    dataset.SharedFunctionalGroupsSequence = Sequence(groups[:1])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups[1:])
    first, second = read_back(dataset)
    assert (first.plane, first.orientation, first.spacing) == ("axial", 1, (2, 3))
    assert (second.plane, second.orientation) == ("sagittal", 0)
    assert np.array_equal(first.pixels, stored[:, ::-1])
    assert np.array_equal(second.pixels, stored[::-1])


def test_colours_become_grey_also_with_a_window_and_from_a_palette() -> None:
    colours = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    dataset = small()
    dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PhotometricInterpretation = 3, 0, "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.PixelData = 7, 0, colours.tobytes()
    dataset.WindowCenter, dataset.WindowWidth = "100", "50"
    assert np.allclose(read_back(dataset, window=True)[0].pixels, colours @ [0.299, 0.587, 0.114], atol=1e-3)
    path = Path(str(get_testdata_file("examples_palette.dcm", download=False)))
    palette = pydicom.dcmread(path)
    shown = apply_color_lut(palette.pixel_array, palette)[..., :3].astype(np.float32) @ [0.299, 0.587, 0.114]
    assert np.allclose(read_slices(path)[0].pixels, shown, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("Columns", 60, "8,192 bytes of pixels"),
        ("Rows", 32, "8,192 bytes of pixels"),
        ("NumberOfFrames", "2", "cannot be decoded"),
        ("NumberOfFrames", "-1", "-1 frames"),
        ("NumberOfFrames", "100000", "too many for one file"),
    ],
)
def test_headers_that_do_not_fit_their_pixels(name: str, value: object, says: str) -> None:
    dataset = small()
    setattr(dataset, name, value)
    with pytest.raises(InputError, match=says):
        read_back(dataset)


@pytest.mark.parametrize(
    ("name", "mark", "places", "form"),
    [
        ("MR_small_jp2klossless.dcm", b"\xff\x4f\xff\x51", (8, 24), ">2I"),
        ("MR_small_jpeg_ls_lossless.dcm", b"\xff\xf7", (5,), ">2H"),
    ],
)
def test_a_stream_larger_than_its_header_is_not_unpacked(name: str, mark: bytes, places, form: str) -> None:
    data = bytearray(Path(str(get_testdata_file(name, download=False))).read_bytes())
    for place in places:
        struct.pack_into(form, data, data.index(mark) + place, 30000, 30000)
    with pytest.raises(InputError, match="says 64 x 64 pixels, its pixel data 30000 x 30000"):
        read_slices(Entry("a.dcm", bytes(data)))


def test_a_deflated_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_header, "_MAX_INFLATED", 1 << 20)
    dataset = small()
    stored = dataset.pixel_array
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert np.array_equal(read_back(dataset)[0].pixels, stored)
    dataset.add_new(0x00090010, "LO", "PRIVATE")
    dataset.add_new(0x00091001, "OB", bytes(20 << 20))
    with pytest.raises(InputError, match="unpacks to more than 1 MB"):
        read_back(dataset)
    dataset.save_as(tmp_path / "bomb.dcm")
    entry = Entry(str(tmp_path / "bomb.dcm"))
    assert dicom_header.patient_of(entry) == ""
    assert dicom_header.in_order([entry]) == [entry]


def test_order_by_number_where_places_are_unknown_or_rubbish(tmp_path: Path) -> None:
    dataset = small()
    entries = []
    for series, name, number, place in (
        ("1.2", "a", 9, None), ("1.2", "b", 3, None), ("1.3", "c", 2, ["nan"] * 3), ("1.3", "d", 1, ["nan"] * 3),
    ):  # fmt: skip
        dataset.SeriesInstanceUID, dataset.InstanceNumber, dataset.ImagePositionPatient = series, number, place
        dataset.save_as(tmp_path / f"{name}.dcm")
        entries.append(Entry(str(tmp_path / f"{name}.dcm")))
    assert [entry.name for entry in dicom_header.in_order(entries)] == ["b.dcm", "a.dcm", "d.dcm", "c.dcm"]


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "SC_rgb_jpeg_gdcm.dcm"])
def test_what_has_no_decoder_is_told_so(name: str) -> None:
    with pytest.raises(InputError, match=r"no decoder here for its transfer syntax JPEG (Extended|Lossless)"):
        read_slices(Path(str(get_testdata_file(name, download=False))))


@pytest.mark.parametrize("syntax", [b"1.2.840.10008\\1.2.4.90", b"1.2.840.10008.1.2.4.99", b"no.transfer.syntax.xyz"])
def test_a_transfer_syntax_that_is_none(syntax: bytes) -> None:
    data = Path(str(get_testdata_file("MR_small_jp2klossless.dcm", download=False))).read_bytes()
    assert data.count(b"1.2.840.10008.1.2.4.90") == 1
    with pytest.raises(InputError, match="transfer syntax"):
        read_slices(Entry("a.dcm", data.replace(b"1.2.840.10008.1.2.4.90", syntax)))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_far_from_all_values_is_as_dark_as_air(kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 900, (64, 64)).astype(np.int16)
    values[:20, :20] = -32768
    dataset = small()
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = kind, 1
    dataset.PixelData = values.astype("<i2").tobytes()
    dataset.add_new("PixelPaddingValue", "SS", -32768)
    (found,) = read_back(dataset)
    rest = values[20:, 20:].astype(np.float32)
    inverted = kind == "MONOCHROME1"
    assert np.array_equal(found.pixels[20:, 20:], values.max() - rest if inverted else rest)
    outside = found.pixels[:20, :20]
    assert (outside == np.delete(found.pixels.ravel(), np.flatnonzero(values == -32768)).min()).all()


def test_padding_that_is_like_air_stays() -> None:
    values = np.random.default_rng(0).integers(200, 900, (64, 64)).astype(np.int16)
    values[:20, :20] = 0
    dataset = small()
    dataset.PixelData = values.astype("<i2").tobytes()
    dataset.add_new("PixelPaddingValue", "SS", 0)
    assert np.array_equal(read_back(dataset)[0].pixels, values)


def test_tags_that_were_emptied_and_windows_too_narrow() -> None:
    dataset = small()
    expected = dataset.pixel_array.astype(np.float32)
    dataset.RescaleSlope = dataset.RescaleIntercept = dataset.HighBit = None
    assert np.array_equal(read_back(dataset)[0].pixels, expected)
    dataset = small()
    dataset.WindowCenter, dataset.WindowWidth = 0.001, 0.003
    assert np.array_equal(read_back(dataset, window=True)[0].pixels, expected)
