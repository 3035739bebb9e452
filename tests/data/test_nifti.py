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


def test_writing_to_a_slice_leaves_the_volume_alone(tmp_path: Path) -> None:
    """Stored from left and back to front, an axial slice is a plain view of the volume that is kept."""
    path = save(tmp_path / "v.nii", BODY, np.diag([-1.0, -1.0, 1.0, 1.0]))
    (first,) = read_slices(path, ReadOptions(plane="axial", frame=3))
    kept = first.pixels.copy()
    first.pixels[:] = -9
    (again,) = read_slices(path, ReadOptions(plane="axial", frame=3))
    assert np.array_equal(again.pixels, kept)


def test_a_volume_is_unpacked_once_and_anew_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    decode = nifti._decode
    monkeypatch.setattr(nifti, "_decode", lambda entry, check: made.append(entry.name) or decode(entry, check))
    one, other = save(tmp_path / "one.nii", BODY), save(tmp_path / "other.nii.gz", BODY)
    for frame in range(4):
        for path in (one, other):
            read_slices(path, ReadOptions(frame=frame))
    assert made == ["one.nii", "other.nii.gz"]
    save(one, BODY[:, :, :-1] + 1)
    assert len(read_slices(one, ReadOptions(plane="axial", whole=True))) == 17
    for number in range(4):
        read_slices(save(tmp_path / f"{number}.nii", BODY))
    assert len(nifti._RECENT._volumes) <= 2


def test_a_dim_volume_of_a_series_keeps_its_slices(tmp_path: Path) -> None:
    head = np.zeros((40, 40, 20, 2), dtype=np.float32)
    head[5:35, 5:35, 4:16, 0] = 1000
    head[5:35, 5:35, 4:16, 1] = 20
    frames = [item.frame for item in read_slices(save(tmp_path / "v.nii", head), ReadOptions(plane="axial"))]
    assert frames == [*range(4, 16), *range(24, 36)]


def test_scaled_values_trailing_axes_and_metres(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(BODY[..., None, None].astype(np.float32), np.diag([0.002, 0.001, 0.001, 1.0]))
    image.header.set_xyzt_units("meter")
    image.header.set_data_dtype(np.int32)
    image.header.set_slope_inter(0.5, -7)
    nibabel.save(image, tmp_path / "v.nii")
    (only,) = read_slices(tmp_path / "v.nii", ReadOptions(plane="axial", frame=3))
    assert only.spacing == pytest.approx((1.0, 2.0))
    # Stored as they are, scaled by whoever reads them.
    assert np.allclose(only.pixels, BODY[::-1, ::-1, 3].T * 0.5 - 7)


def test_without_sform_and_qform_the_old_convention_holds(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(BODY[::-1], None), tmp_path / "v.nii")
    (only,) = read_slices(tmp_path / "v.nii", ReadOptions(plane="axial", frame=3))
    assert np.array_equal(only.pixels, BODY[::-1, ::-1, 3].T)


def flip_a_value(path: Path) -> None:
    save(path, BODY)
    data = bytearray(gzip.compress(path.read_bytes(), 0))
    data[6000] ^= 1
    path.write_bytes(data)


def bad_offset(path: Path) -> None:
    """A gzip bomb whose header makes the values begin behind it."""
    save(path, BODY)
    data = bytearray(path.read_bytes())
    data[108:112] = np.array([5e8], dtype="<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(data) + bytes(1_000_000)))


def bad_frames(path: Path) -> None:
    save(path, BODY, kind=nibabel.Nifti2Image)
    data = bytearray(path.read_bytes())
    data[16:80] = np.array([4, 20, 24, 18, 2**56, 1, 1, 1], dtype="<i8").tobytes()
    path.write_bytes(data)


def bad_thin(path: Path) -> None:
    save(path, BODY[:, :, :5], np.diag([1.0, 3.0, 1.0, 1.0]))


def bad_pair(path: Path) -> None:
    save(path, BODY)
    data = bytearray(path.read_bytes())
    data[344:348] = b"ni1\0"
    path.write_bytes(data)


def bad_colours(path: Path) -> None:
    save(path, np.zeros((20, 20, 20), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (flip_a_value, "CRC"),
        (bad_offset, "values at byte 500,000,000"),
        (bad_frames, "too many for one file"),
        (bad_thin, "20 x 5 pixels are too few"),
        (bad_pair, "pair"),
        (bad_colours, "coloured"),
        (lambda path: path.with_name("other").touch(), "cannot be opened"),
    ],
)
def test_masks_and_volumes_that_lie_get_a_sentence(tmp_path: Path, make, says: str) -> None:
    make(tmp_path / "bad.nii")
    entry = Entry(str(tmp_path / "bad.nii"))
    with pytest.raises(InputError, match=says):
        nifti.read(entry, check_size, ReadOptions())
    if make is not bad_thin:
        with pytest.raises(InputError, match=says):
            nifti.read_mask(entry, ReadOptions())


def test_a_plane_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no plane 'oblique'; allowed are"):
        read_slices(save(tmp_path / "v.nii", BODY), ReadOptions(plane="oblique"))  # type: ignore[arg-type]


def test_the_real_tumour_is_on_the_patients_left() -> None:
    """It is in the left frontal lobe: right of the middle and in front, in whatever plane it is cut."""
    entry = Entry(str(real_path("nifti_glioblastoma") / "patient_01" / "mask.nii.gz"))
    planes = {plane: np.stack(nifti.read_mask(entry, ReadOptions(plane=plane))) for plane in ("axial", "sagittal")}
    frame, row, column = (float(places.mean()) for places in np.nonzero(planes["axial"]))
    assert frame > 12 and row < 128 < column
    frame, row, column = (float(places.mean()) for places in np.nonzero(planes["sagittal"]))
    assert frame > 128 > column and row < 12


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "ILA"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_maps_are_written_where_the_volume_lies(tmp_path: Path, codes: str, plane: str) -> None:
    """Slices that are written back as their own maps give the volume again, whatever its axes."""
    import nibabel as nib
    from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

    from tumorlens.data.readers import ReadOptions, read_slices, write_maps
    from tumorlens.data.readers.entry import Entry

    values = np.random.default_rng(1).random((18, 20, 22)).astype(np.float32)
    turned = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    stored = nib.orientations.apply_orientation(values, turned)
    affine = np.diag([2.0, 1.5, 3.0, 1.0]) @ inv_ornt_aff(turned, values.shape)
    nib.save(nib.Nifti1Image(stored, affine), tmp_path / "in.nii.gz")
    entry = Entry(str(tmp_path / "in.nii.gz"))
    slices = read_slices(entry, ReadOptions(plane=plane, whole=True))
    maps = {item.frame: item.pixels for item in slices if item.frame != 3}
    assert write_maps(entry, maps, plane, tmp_path / "maps.nii.gz")
    written = nib.load(tmp_path / "maps.nii.gz")
    assert np.allclose(written.affine, affine)
    again = read_slices(Entry(str(tmp_path / "maps.nii.gz")), ReadOptions(plane=plane, whole=True))
    for before, after in zip(slices, again, strict=True):
        expected = np.zeros_like(before.pixels) if before.frame == 3 else before.pixels
        assert np.allclose(after.pixels, expected)
    assert written.get_fdata().shape == stored.shape


@pytest.mark.parametrize(
    ("shape", "plane"), [((1, 64, 64), "sagittal"), ((64, 5, 64), "coronal"), ((64, 80, 64), "axial")]
)
def test_slices_are_no_strips(tmp_path: Path, shape: tuple[int, int, int], plane: str) -> None:
    values = np.random.default_rng(0).random(shape, dtype=np.float32) + 1
    assert {item.plane for item in read_slices(save(tmp_path / "v.nii", values))} == {plane}


@pytest.mark.parametrize("unit", [5, 255, 1, 3])
def test_units_that_cannot_be_are_millimetres(tmp_path: Path, unit: int) -> None:
    """Codes that nobody defined; and metres or micrometres, of which no voxel could be so large or small."""
    save(tmp_path / "v.nii", BODY)
    data = bytearray((tmp_path / "v.nii").read_bytes())
    data[123] = unit  # xyzt_units
    (tmp_path / "v.nii").write_bytes(data)
    told, plain = (read_slices(path)[0].spacing for path in (tmp_path / "v.nii", save(tmp_path / "w.nii", BODY)))
    assert told == plain


def test_the_mask_of_another_place_is_refused(tmp_path: Path) -> None:
    """The same voxels with another affine would be turned another way; stored another way they lie where they were."""
    import nibabel as nib
    from nibabel.orientations import axcodes2ornt, ornt_transform

    values = np.zeros((30, 32, 24), dtype=np.int16)
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "v.nii")
    volume = Entry(str(tmp_path / "v.nii"))
    shifted, beside, fine, near = (affine.copy() for _ in range(4))
    shifted[2, 3], beside[0, 3], near[2, 3] = 60, 2.5, 1.5  # of voxels 3 mm thick and 1 mm wide
    fine[2, 2] = 2
    same_places = ((np.eye(4), False), (shifted, False), (beside, False), (fine, False), (near, True), (affine, True))
    for other, same in same_places:
        nib.save(nib.Nifti1Image(values, other), tmp_path / "m.nii")
        assert nifti.same_grid(volume, Entry(str(tmp_path / "m.nii"))) is same
    turned = nib.Nifti1Image(values, affine).as_reoriented(ornt_transform(axcodes2ornt("LPS"), axcodes2ornt("SAR")))
    nib.save(turned, tmp_path / "m.nii")
    assert nifti.same_grid(volume, Entry(str(tmp_path / "m.nii")))
    nib.save(nib.Nifti1Image(values[:-1], affine), tmp_path / "m.nii")
    assert not nifti.same_grid(volume, Entry(str(tmp_path / "m.nii")))
