"""Files as the figshare set has them, built from its real pictures."""

import io
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.conftest import real_path
from tumorlens.data.index import index_folder
from tumorlens.data.readers import check_size, matlab, read_mask, read_slice, read_slices
from tumorlens.data.readers.entry import Entry
from tumorlens.errors import InputError, ManifestError
from tumorlens.records import Sample

RNG = np.random.default_rng(0)
TALL = RNG.integers(-5, 3000, (40, 24)).astype(np.int16)  # rows, columns: taller than wide
MASK = np.zeros((40, 24), dtype=np.uint8)
MASK[30:35, 2:9] = 1


def mat_bytes(
    pixels: np.ndarray = TALL, mask: np.ndarray = MASK, number: int = 2, patient: str = "MR040240B", **fields: object
) -> bytes:
    """A MATLAB 7.3 file: 512 bytes of MATLAB's own, then HDF5 with every array transposed, as MATLAB writes it."""
    border = np.array([[2.0], [30.0], [8.0], [30.0], [8.0], [34.0]])
    made = {
        "label": np.array([[float(number)]]),
        "PID": np.array([[ord(letter)] for letter in patient], dtype=np.uint16),
        "image": pixels.T,
        "tumorMask": mask.T,
        "tumorBorder": border.T,
    }
    made.update(fields)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        for name, values in made.items():
            if callable(values):
                values(group, name)
            elif values is not None:
                # MATLAB packs in chunks; scalars it leaves.
                group.create_dataset(name, data=values, compression="gzip" if np.size(values) > 100 else None)
    data = buffer.getvalue()
    return b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(124) + struct.pack("<H", 0x0200) + b"IM" + data[128:]


def put(path: Path, **what: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mat_bytes(**what))  # type: ignore[arg-type]
    return path


def case(data: bytes) -> matlab.Case:
    return matlab.read_case(Entry("1.mat", data), check_size)


def test_the_picture_is_turned_as_it_was_drawn(tmp_path: Path) -> None:
    (item,) = read_slices(put(tmp_path / "1.mat"))
    assert item.pixels.dtype == np.float32 and item.pixels.flags["C_CONTIGUOUS"]
    assert np.array_equal(item.pixels, TALL)
    assert (item.source, item.spacing, item.plane) == (str(tmp_path / "1.mat"), None, "")


def test_all_fields_of_a_case() -> None:
    found = case(mat_bytes())
    assert (found.label, found.patient_id, found.patient_group) == ("glioma", "MR040240B", "MR040240")
    assert np.array_equal(found.mask, MASK > 0) and found.mask.dtype == bool
    assert found.border.tolist() == [[2, 30], [8, 30], [8, 34]]


@pytest.mark.parametrize(("number", "label"), [(1, "meningioma"), (2, "glioma"), (3, "pituitary")])
def test_labels(number: int, label: str) -> None:
    assert case(mat_bytes(number=number)).label == label


@pytest.mark.parametrize(
    ("patient", "group"),
    [("100360", "100360"), ("MR040240", "MR040240"), ("MR017260F", "MR017260"), ("MR", "MR"), ("12-3ab", "12-3")],
)
def test_patient_groups_and_both_ways_of_writing_codes(patient: str, group: str) -> None:
    codes = np.array([[ord(letter) for letter in patient]], dtype=np.uint16)
    for written in (codes, codes.T):
        found = case(mat_bytes(PID=written))
        assert (found.patient_id, found.patient_group) == (patient, group)


def test_patients_as_the_real_index_names_them() -> None:
    import csv

    with (real_path("figshare") / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["patient_id"] != row["patient_group"] for row in rows)
    empty = np.zeros((0, 2), dtype=np.float32)
    for patient, group in {(row["patient_id"], row["patient_group"]) for row in rows}:
        assert matlab.Case("glioma", patient, TALL.astype(np.float32), MASK > 0, empty).patient_group == group


@pytest.mark.parametrize("written", [np.array([[1.0, 2, 3, 4]]), np.array([[1.0], [2], [3], [4]]),
                                     np.array([[1.0, 3], [2, 4]])])  # fmt: skip
def test_borders_are_points(written: np.ndarray) -> None:
    assert case(mat_bytes(tumorBorder=written)).border.tolist() == [[1, 2], [3, 4]]


def real_case() -> tuple[np.ndarray, np.ndarray]:
    folder = real_path("figshare")
    path = sorted((folder / "images").glob("*.jpg"))[5]
    pixels = np.asarray(Image.open(path).convert("L")).astype(np.int16) * 7
    return pixels, np.asarray(Image.open(folder / "masks" / f"{path.stem}.png").convert("L"))


def test_a_real_picture_goes_through_mat_and_manifest(tmp_path: Path) -> None:
    pixels, mask = real_case()
    assert not np.array_equal(pixels, pixels.T) and mask.any()
    put(tmp_path / "set" / "10.mat", pixels=pixels, mask=mask)
    put(tmp_path / "set" / "9.mat", pixels=pixels[::-1], mask=mask[::-1], number=3, patient="112649")
    found = index_folder(tmp_path / "set", tmp_path)
    assert found.skipped == []
    second, first = found.samples  # 9 comes before 10
    assert (first.path, first.mask, first.label) == ("set/10.mat", "set/10.mat", "glioma")
    assert (first.patient_id, first.patient_group) == ("MR040240B", "set:MR040240")
    assert (second.path, second.label, second.patient_group) == ("set/9.mat", "pituitary", "set:112649")
    item = read_slice(tmp_path, first)
    assert np.array_equal(item.pixels, pixels)
    assert item.spacing == ((0.49, 0.49) if pixels.shape == (512, 512) else None)
    shown = read_mask(tmp_path, first)
    assert shown is not None and np.array_equal(shown, mask > 0)


def test_documented_spacing_of_full_pictures(tmp_path: Path) -> None:
    full = RNG.integers(0, 999, (512, 512)).astype(np.int16)
    (item,) = read_slices(put(tmp_path / "1.mat", pixels=full, mask=full > 900))
    assert item.spacing == (0.49, 0.49)


def test_to_predict_a_picture_is_enough(tmp_path: Path) -> None:
    path = put(tmp_path / "1.mat", label=None, PID=None, tumorMask=None, tumorBorder=None)  # type: ignore[arg-type]
    assert np.array_equal(read_slices(path)[0].pixels, TALL)


def an_object(group: h5py.Group, name: str) -> None:
    group.create_dataset(name, data=np.array([[group.ref]], dtype=h5py.ref_dtype))


def a_soft_link(group: h5py.Group, name: str) -> None:
    group[name] = h5py.SoftLink("/cjdata/label")


def another_file(group: h5py.Group, name: str) -> None:
    group[name] = h5py.ExternalLink("/etc/other.h5", "/x")


def raw_file(group: h5py.Group, name: str) -> None:
    group.create_dataset(name, (40, 24), dtype="i2", external=[("/etc/passwd", 0, 40 * 24 * 2)])


def a_lie(group: h5py.Group, name: str) -> None:
    group.create_dataset(name, (100_000, 100_000), dtype="i2", chunks=(100, 100))


def a_group(group: h5py.Group, name: str) -> None:
    group.create_group(name)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tumorMask": None, "PID": None}, "fields missing: cjdata/PID, cjdata/tumorMask"),
        ({"image": an_object}, "numbers are needed"),
        ({"image": a_soft_link}, "fields missing: cjdata/image"),
        ({"image": another_file}, "fields missing: cjdata/image"),
        ({"image": a_group}, "fields missing: cjdata/image"),
        ({"image": raw_file}, "in another file"),
        ({"image": a_lie}, "100000 x 100000 pixels are too many"),
        ({"image": np.zeros((3, 40, 24))}, r"shape \(3, 40, 24\)"),
        ({"image": np.array(["text"], dtype="S4")}, "numbers are needed"),
        ({"image": np.zeros((40, 24), dtype=complex)}, "numbers are needed"),
        ({"image": np.zeros((4, 4))}, "4 x 4 pixels are too few"),
        ({"tumorMask": MASK}, "tumorMask is 40 x 24 pixels, the image 24 x 40"),
        ({"label": np.array([[4.0]])}, r"label \[4.0\] is not one of 1"),
        ({"label": np.array([[np.nan]])}, r"label \[nan\] is not one of 1"),
        ({"label": np.array([[1.0, 2.0]])}, "2 values"),
        ({"PID": np.full((1, 100_000), 65, dtype=np.uint16)}, "100000 values"),
        ({"PID": np.array([[65.5]])}, "no text"),
        ({"PID": np.array([[7, 10]], dtype=np.uint16)}, "printed"),
        ({"tumorBorder": np.array([[1.0, 2, 3]])}, "3 values"),
        ({"tumorBorder": np.array([[1.0, np.inf]])}, "finite"),
    ],
)
def test_fields_that_are_wrong(fields: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        case(mat_bytes(**fields))  # type: ignore[arg-type]
    assert str(caught.value).startswith("1.mat: ")


def test_what_is_empty_in_matlab() -> None:
    def empty(group: h5py.Group, name: str) -> None:
        group.create_dataset(name, data=np.zeros(2, dtype=np.uint64)).attrs["MATLAB_empty"] = np.uint8(1)

    found = case(mat_bytes(PID=empty, tumorBorder=empty))
    assert (found.patient_id, found.border.shape) == ("", (0, 2))
    with pytest.raises(InputError, match="label"):
        case(mat_bytes(label=empty))  # type: ignore[arg-type]


def test_older_matlab_files_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file, Platform: GLNX86".ljust(200))
    with pytest.raises(InputError, match=r"old\.mat: a MATLAB file of version 5 to 7.*-v7\.3"):
        read_slices(tmp_path / "old.mat")


def test_hdf5_of_another_kind(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["w"] = np.zeros(4)
    with pytest.raises(InputError, match="no group cjdata"):
        read_slices(tmp_path / "weights.h5")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
def test_truncated_files(tmp_path: Path, share: float) -> None:
    data = mat_bytes()
    (tmp_path / "cut.mat").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"cut\.mat: cannot be read as MATLAB 7\.3"):
        read_slices(tmp_path / "cut.mat")


def test_altered_bytes_never_end_in_another_error() -> None:
    data = mat_bytes()
    refused = 0
    for _ in range(300):
        altered = bytearray(data)
        for place in RNG.integers(512, len(data), 4):
            altered[place] = RNG.integers(256)
        try:
            assert case(bytes(altered)).pixels.shape[0] >= 16
        except InputError:
            refused += 1
    assert 0 < refused < 300


def test_a_folder_that_contradicts_the_file(tmp_path: Path) -> None:
    put(tmp_path / "set" / "pituitary" / "1.mat", number=2)
    put(tmp_path / "set" / "glioma" / "2.mat", number=2)
    put(tmp_path / "set" / "loose" / "3.mat", number=1)
    found = index_folder(tmp_path / "set", tmp_path)
    assert [(s.path, s.label) for s in found.samples] == [
        ("set/glioma/2.mat", "glioma"), ("set/loose/3.mat", "meningioma"),
    ]  # fmt: skip
    assert found.skipped == ["1.mat: its folder says pituitary, the file itself glioma. Move it to its class"]


def test_a_picture_named_mat_has_no_class_of_its_own(tmp_path: Path) -> None:
    Image.fromarray(TALL.astype(np.uint8)).save(tmp_path / "1.mat", "PNG")
    with pytest.raises(ManifestError, match="nothing tells its class"):
        index_folder(tmp_path, tmp_path)


def test_masks_must_fit(tmp_path: Path) -> None:
    Image.fromarray(TALL.astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(MASK * 255).save(tmp_path / "a_mask.png")
    Image.fromarray(MASK.T * 255).save(tmp_path / "turned.png")
    row = Sample("a.png", "glioma", "", "", "made", "a_mask.png", "", 24, 40)
    mask = read_mask(tmp_path, row)
    assert mask is not None and mask.dtype == bool and np.array_equal(mask, MASK > 0)
    assert read_mask(tmp_path, Sample("a.png", "glioma", "", "", "made", "", "", 24, 40)) is None
    with pytest.raises(InputError, match="the mask is 40 x 24 pixels, its picture 24 x 40"):
        read_mask(tmp_path, Sample("a.png", "glioma", "", "", "made", "turned.png", "", 24, 40))
