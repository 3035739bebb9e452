import gzip
from itertools import permutations
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.conftest import real_path
from tumorlens.data.readers import check_size, nifti, read_slices
from tumorlens.data.readers.entry import Entry, ReadOptions
from tumorlens.errors import InputError

#: A value for each place in the body: (right, front, up), growing towards each.
BODY = (
    np.arange(20)[:, None, None] * 10000 + np.arange(24)[None, :, None] * 100 + np.arange(18)[None, None, :]
).astype(np.float32)


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = None, kind: type = nibabel.Nifti1Image) -> Path:
    nibabel.save(kind(values, np.eye(4) if affine is None else affine), path)
    return path


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (-1, -1, -1), (1, -1, 1)])
def test_any_affine_gives_the_same_radiological_slices(
    tmp_path: Path, axes: tuple[int, int, int], flips: tuple[int, int, int]
) -> None:
    stored = BODY.transpose(axes)[tuple(slice(None, None, flip) for flip in flips)]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        affine[axis, column] = flip
    path = save(tmp_path / "v.nii", np.ascontiguousarray(stored), affine)
    axial = read_slices(path, ReadOptions(plane="axial", whole=True))
    assert [item.frame for item in axial] == list(range(18))
    # Rows from front to back, columns from the patient's right to the left, frames from feet to head.
    assert np.array_equal(axial[3].pixels, BODY[::-1, ::-1, 3].T)
    (coronal,) = read_slices(path, ReadOptions(plane="coronal", frame=5))
    assert np.array_equal(coronal.pixels, BODY[::-1, 5, ::-1].T)
    (sagittal,) = read_slices(path, ReadOptions(plane="sagittal", frame=4))
    assert np.array_equal(sagittal.pixels, BODY[19 - 4, ::-1, ::-1].T)


def test_the_acquired_plane_and_spacing(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", BODY, np.diag([0.5, 6.0, 0.7, 1.0]))
    slices = read_slices(path, ReadOptions(whole=True))
    assert len(slices) == 24
    assert {item.plane for item in slices} == {"coronal"}
    assert slices[0].spacing == pytest.approx((0.7, 0.5))


def test_an_oblique_volume_is_cut_along_its_own_axes(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    slices = read_slices(save(tmp_path / "v.nii", BODY, affine), ReadOptions(plane="axial", whole=True))
    assert np.array_equal(slices[3].pixels, BODY[::-1, ::-1, 3].T)


def test_four_dimensions_count_on(tmp_path: Path) -> None:
    series = np.stack([BODY, BODY + 0.5], axis=3)
    slices = read_slices(save(tmp_path / "v.nii", series), ReadOptions(plane="axial", whole=True))
    assert len(slices) == 36
    assert np.array_equal(slices[18 + 3].pixels, slices[3].pixels + 0.5)


def test_slices_that_matter_and_every(tmp_path: Path) -> None:
    head = np.zeros((40, 40, 30), dtype=np.int16)
    for level in range(5, 25):
        head[5:35, 5:35, level] = 100
    head[18:20, 18:20, 27] = 100
    path = save(tmp_path / "v.nii", head)
    assert [item.frame for item in read_slices(path)] == list(range(5, 25))
    assert [item.frame for item in read_slices(path, ReadOptions(every=7))] == [5, 12, 19]
    assert len(read_slices(path, ReadOptions(whole=True))) == 30
    assert read_slices(path, ReadOptions(frame=0))[0].frame == 0


def test_nan_negative_scaled_and_nifti_2(tmp_path: Path) -> None:
    values = BODY - 1000
    values[0, 0, 0] = np.nan
    values[1, 0, 0] = np.inf
    pixels = read_slices(
        save(tmp_path / "v.nii", values, kind=nibabel.Nifti2Image), ReadOptions(plane="axial", frame=0)
    )
    assert np.isfinite(pixels[0].pixels).all()
    assert pixels[0].pixels.min() < -800


def test_in_memory_equals_on_disk(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", BODY)
    entry = Entry("a.zip!v.nii.gz", path.read_bytes())
    assert nifti.is_nifti(entry)
    for one, other in zip(nifti.read(entry, check_size, ReadOptions()), read_slices(path), strict=True):
        assert np.array_equal(one.pixels, other.pixels)


def bad_five(path: Path) -> None:
    save(path, np.zeros((20, 20, 5, 2, 3), dtype=np.float32))


def bad_complex(path: Path) -> None:
    save(path, np.zeros((20, 20, 5), dtype=np.complex64))


def bad_flat(path: Path) -> None:
    save(path, np.zeros((20, 20), dtype=np.float32))


def bad_cut(path: Path) -> None:
    save(path, BODY)
    path.write_bytes(path.read_bytes()[:5000])


def bad_huge(path: Path) -> None:
    save(path, BODY)
    data = bytearray(path.read_bytes())
    data[42:48] = np.array([30000, 30000, 30000], dtype="<i2").tobytes()
    path.write_bytes(data)


def bad_affine(path: Path) -> None:
    save(path, BODY)
    data = bytearray(path.read_bytes())
    data[280:328] = bytes(48)  # sform of zeros
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (bad_five, "three dimensions"),
        (bad_complex, "complex64"),
        (bad_flat, "three dimensions"),
        (bad_cut, "cut short"),
        (bad_huge, "too many"),
        (bad_affine, "right and left are unknown"),
    ],
)
def test_bad_volumes_get_a_sentence(tmp_path: Path, make, says: str) -> None:
    make(tmp_path / "bad.nii")
    with pytest.raises(InputError, match=says):
        read_slices(tmp_path / "bad.nii")


def test_a_gzip_bomb_is_not_unpacked_beyond_the_claim(tmp_path: Path) -> None:
    small = save(tmp_path / "v.nii", BODY).read_bytes()
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(small + bytes(300_000_000), 1))
    assert len(read_slices(tmp_path / "bomb.nii.gz", ReadOptions(plane="axial", whole=True))) == 18


def test_the_real_volume_and_its_mask() -> None:
    folder = real_path("nifti_glioblastoma") / "patient_01"
    slices = read_slices(folder / "scan_t1.nii.gz")
    assert {item.plane for item in slices} == {"axial"}
    masks = nifti.read_mask(Entry(str(folder / "mask.nii.gz")), ReadOptions(plane="axial"))
    assert len(masks) == 24
    assert 0 < sum(mask.any() for mask in masks) < 24
    # Contrast medium: the tumour is brighter than the head as a whole.
    tumour = np.concatenate([item.pixels[masks[item.frame]] for item in slices])
    assert tumour.mean() > np.mean([item.pixels.mean() for item in slices])
