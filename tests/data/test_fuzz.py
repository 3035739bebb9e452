"""Real files of every format, damaged at random: a sentence or slices come out, never anything else."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from tests.conftest import real_path
from tumorlens.data.readers import Entry, ReadOptions, Refused, dicom_header, find_inputs, nifti, read_slices
from tumorlens.errors import InputError

ROUNDS = 60


def real_picture() -> Image.Image:
    return Image.open(real_path("figshare") / "images" / "0001.jpg").convert("L").resize((96, 96))


def picture(kind: str) -> Callable[[], bytes]:
    def make() -> bytes:
        buffer = io.BytesIO()
        real_picture().save(buffer, kind)
        return buffer.getvalue()

    return make


def shipped_dicom(name: str) -> Callable[[], bytes]:
    return lambda: Path(str(get_testdata_file(name, download=False))).read_bytes()


def real_dicom() -> bytes:
    return min(real_path("dicom_brain").glob("*.dcm")).read_bytes()


def volume() -> bytes:
    whole = nibabel.load(real_path("nifti_glioblastoma") / "patient_01" / "scan_t1.nii.gz")
    return bytes(nibabel.Nifti1Image(np.asarray(whole.dataobj[::4, ::4], dtype=np.int16), whole.affine).to_bytes())


def packed_volume() -> bytes:
    import gzip

    return gzip.compress(volume())


def matlab_file() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        case = file.create_group("cjdata")
        case["image"] = np.asarray(real_picture(), dtype=np.int16)
        case["label"] = np.array([[1.0]])
        case["PID"] = np.array([[ord(letter)] for letter in "MR040240B"], dtype=np.uint16)
        case["tumorMask"] = np.zeros((96, 96), dtype=np.uint8)
        case["tumorBorder"] = np.zeros((1, 20))
    return buffer.getvalue()


def nested_zip() -> bytes:
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", picture("PNG")())
        archive.writestr("b.dcm", shipped_dicom("MR_small.dcm")())
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("part.zip", inner.getvalue())
        archive.writestr("c.jpg", picture("JPEG")())
    return outer.getvalue()


FORMATS: dict[str, Callable[[], bytes]] = {
    "a.png": picture("PNG"), "a.jpg": picture("JPEG"), "a.tif": picture("TIFF"), "a.bmp": picture("BMP"),
    "a.webp": picture("WEBP"), "real.dcm": real_dicom, "rle.dcm": shipped_dicom("MR_small_RLE.dcm"),
    "jp2.dcm": shipped_dicom("MR_small_jp2klossless.dcm"), "jls.dcm": shipped_dicom("MR_small_jpeg_ls_lossless.dcm"),
    "a.nii": volume, "a.nii.gz": packed_volume, "a.mat": matlab_file, "a.zip": nested_zip,
}  # fmt: skip


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flipped, header flipped, zeroed, doubled, or with rubbish in it."""
    broken = bytearray(data)
    way = rng.integers(6)
    if way == 0:
        return bytes(broken[: rng.integers(len(broken))])
    if way in (1, 2):
        reach = len(broken) if way == 1 else min(len(broken), 600)
        for place in rng.integers(0, reach, rng.integers(1, 20)):
            broken[place] = rng.integers(256)
        return bytes(broken)
    start = int(rng.integers(len(broken)))
    length = int(rng.integers(1, 200))
    if way == 3:
        broken[start : start + length] = bytes(len(broken[start : start + length]))
    elif way == 4:
        broken[start:start] = broken[start : start + length]
    else:
        broken[start:start] = rng.bytes(length)
    return bytes(broken)


def also_read(path: Path) -> None:
    """What else is read of a file: whose it is, and its values as a mask."""
    entry = Entry(str(path))
    if path.suffix == ".dcm":
        assert isinstance(dicom_header.patient_of(entry, b"salt"), str)
        assert dicom_header.in_order([entry, entry]) == [entry, entry]
    if ".nii" in path.name:
        assert all(mask.dtype == bool for mask in nifti.read_mask(entry, ReadOptions()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(FORMATS))
def test_damage_ends_in_a_sentence_or_in_slices(tmp_path: Path, name: str) -> None:
    data = FORMATS[name]()
    rng = np.random.default_rng(sorted(FORMATS).index(name))
    folder = tmp_path / "inputs"
    folder.mkdir()
    path = folder / name
    path.write_bytes(data)
    refused = read = 0
    for number in range(-1, ROUNDS):
        if number >= 0:
            path.write_bytes(damaged(data, rng))
        for item in find_inputs([path]):
            try:
                if isinstance(item, Refused):
                    raise InputError(item.message)
                also_read(path)
                slices = read_slices(item)
            except InputError as error:
                assert len(str(error)) > 15
                refused += 1
                assert number >= 0, error
                continue
            read += 1
            for only in slices:
                assert only.pixels.dtype == np.float32
                assert only.pixels.ndim == 2
                assert np.isfinite(only.pixels).all()
    assert read > 0
    assert refused > 0
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == sorted([name, "inputs"])
