import errno
import os
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.conftest import draw_head, real_path
from tumorlens.data.index import index_folder
from tumorlens.data.orientation import turn_back
from tumorlens.data.readers import (
    ReadOptions,
    Refused,
    entries_in,
    find_inputs,
    images_below,
    read_slice,
    read_slices,
)  # fmt: skip
from tumorlens.errors import InputError
from tumorlens.records import Sample

GREY = (np.arange(64 * 48).reshape(64, 48) % 251).astype(np.uint8)


def read_one(path: Path) -> np.ndarray:
    (only,) = read_slices(path)
    assert only.pixels.dtype == np.float32
    assert np.isfinite(only.pixels).all()
    return only.pixels


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_pictures_keep_every_value(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"slice{suffix}"
    Image.fromarray(GREY).save(path, lossless=True)
    assert np.array_equal(read_one(path), GREY)


def test_sixteen_bit_keeps_its_depth(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 257 + 3
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(read_one(tmp_path / "deep.png"), deep)


def test_palette_rgba_and_cmyk_become_grey(tmp_path: Path) -> None:
    image = Image.fromarray(GREY)
    image.convert("P").save(tmp_path / "palette.png")
    image.convert("RGBA").save(tmp_path / "rgba.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98)
    assert np.array_equal(read_one(tmp_path / "palette.png"), GREY)
    assert np.array_equal(read_one(tmp_path / "rgba.png"), GREY)
    assert np.abs(read_one(tmp_path / "cmyk.jpg") - GREY).mean() < 3


def test_transparent_parts_are_black(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((32, 32, 4), 255, dtype=np.uint8))
    image.putpixel((3, 5), (255, 255, 255, 0))
    image.save(tmp_path / "hole.png")
    pixels = read_one(tmp_path / "hole.png")
    assert pixels[5, 3] == 0
    assert pixels[0, 0] == 255


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("way", range(1, 9))
def test_exif_orientation_is_applied_and_can_be_undone(tmp_path: Path, way: int, kind: str) -> None:
    image = Image.fromarray(GREY)
    exif = image.getexif()
    exif[0x0112] = way
    image.save(tmp_path / "as_it_lies.png", exif=exif)
    with Image.open(tmp_path / "as_it_lies.png") as shown:
        expected = np.asarray(ImageOps.exif_transpose(shown))
    image.save(tmp_path / f"turned.{kind}", exif=exif)
    (found,) = read_slices(tmp_path / f"turned.{kind}")
    assert np.array_equal(found.pixels, expected)
    assert np.array_equal(turn_back(found.pixels, found.orientation), GREY)


def bad_text(path: Path) -> None:
    path.write_text("this is no picture")


def bad_empty(path: Path) -> None:
    path.write_bytes(b"")


def bad_truncated(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bad_tiny(path: Path) -> None:
    Image.fromarray(np.zeros((1, 1), dtype=np.uint8)).save(path, "PNG")


def bad_huge(path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def bad_thin(path: Path) -> None:
    """Few pixels, but a square around it would not fit into memory."""
    Image.new("1", (60000, 16)).save(path, "PNG")


def bad_medium(path: Path) -> None:
    """Above this project's limit, below the one that Pillow refuses by itself."""
    Image.new("1", (9000, 9000)).save(path, "PNG")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (bad_text, "not a picture"),
        (bad_empty, "empty"),
        (bad_truncated, "damaged or incomplete"),
        (bad_tiny, "1 x 1 pixels are too few"),
        (bad_huge, "too many"),
        (bad_medium, "9000 x 9000 pixels are too many"),
        (bad_thin, "60000 x 16 pixels are too many"),
    ],
)
def test_bad_pictures_get_a_sentence(tmp_path: Path, make, says: str) -> None:
    path = tmp_path / "bad.png"
    make(path)
    with pytest.raises(InputError, match=says):
        read_slices(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_slices(tmp_path / "nowhere.png")


def dicom_file(name: str) -> Path:
    from pydicom.data import get_testdata_file

    found = get_testdata_file(name, download=False)
    assert found is not None
    return Path(found)


def test_dicom_is_rescaled_and_recognised_by_content(tmp_path: Path) -> None:
    import pydicom

    original = dicom_file("MR_small.dcm")
    copy = tmp_path / "no_suffix"
    copy.write_bytes(original.read_bytes())
    expected = pydicom.dcmread(original).pixel_array.astype(np.float32)
    assert np.array_equal(read_one(copy), expected)


def test_dicom_rescale_and_monochrome1(tmp_path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(dicom_file("MR_small.dcm"))
    stored = dataset.pixel_array.astype(np.float32)
    dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-7"
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.save_as(tmp_path / "inverted.dcm")
    values = stored * 2 - 7
    assert np.allclose(read_one(tmp_path / "inverted.dcm"), values.max() - values)


def test_every_page_of_a_tiff(tmp_path: Path) -> None:
    pages = [GREY, GREY[::-1], GREY // 2]
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(tmp_path / "pages.tif", save_all=True, append_images=rest)
    slices = read_slices(tmp_path / "pages.tif")
    assert [item.frame for item in slices] == [0, 1, 2]
    assert all(np.array_equal(item.pixels, page) for item, page in zip(slices, pages, strict=True))


def make_pages(path: Path, count: int) -> list[np.ndarray]:
    pages = [np.roll(GREY, number, axis=0) for number in range(count)]
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=rest)
    return pages


def test_some_pages_of_a_tiff_keep_their_numbers(tmp_path: Path) -> None:
    pages = make_pages(tmp_path / "pages.tif", 7)
    thinned = read_slices(tmp_path / "pages.tif", ReadOptions(every=3))
    assert [item.frame for item in thinned] == [0, 3, 6]
    (fifth,) = read_slices(tmp_path / "pages.tif", ReadOptions(frame=5, every=3))
    assert fifth.frame == 5
    for item in (*thinned, fifth):
        assert np.array_equal(item.pixels, pages[item.frame])
    row = Sample("pages.tif", "glioma", "", "", "made", "", "", 48, 64, frame=4)
    assert np.array_equal(read_slice(tmp_path, row).pixels, pages[4])


@pytest.mark.parametrize("options", [ReadOptions(frame=7), ReadOptions(frame=-1), ReadOptions(every=0)])
def test_pages_that_are_not_there(tmp_path: Path, options: ReadOptions) -> None:
    make_pages(tmp_path / "pages.tif", 7)
    with pytest.raises(InputError, match=r"pages\.tif: no page -?[17] in it; it has 0 to 6|every 0 slices"):
        read_slices(tmp_path / "pages.tif", options)


def test_a_page_of_another_size_is_checked_too(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "pages.tif", save_all=True, append_images=[Image.new("1", (60000, 16))])
    with pytest.raises(InputError, match="60000 x 16 pixels are too many"):
        read_slices(tmp_path / "pages.tif")


def test_a_picture_named_dicom(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "really.dcm", "PNG")
    assert np.array_equal(read_one(tmp_path / "really.dcm"), GREY)


def test_a_raw_data_set_without_dicom_mark(tmp_path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(dicom_file("MR_small.dcm"))
    expected = dataset.pixel_array.astype(np.float32)
    raw = pydicom.Dataset(dict(dataset.items()))
    pydicom.dcmwrite(tmp_path / "old.ima", raw, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert (tmp_path / "old.ima").read_bytes()[128:132] != b"DICM"
    assert np.array_equal(read_one(tmp_path / "old.ima"), expected)


def test_multiframe_dicom_gives_every_frame(tmp_path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(dicom_file("MR_small.dcm"))
    stored = dataset.pixel_array
    frames = [stored, stored[::-1], stored // 2]
    dataset.NumberOfFrames = "3"
    dataset.PixelData = b"".join(frame.tobytes() for frame in frames)
    dataset.save_as(tmp_path / "multi.dcm")
    slices = read_slices(tmp_path / "multi.dcm")
    assert [item.frame for item in slices] == [0, 1, 2]
    for item, frame in zip(slices, frames, strict=True):
        assert np.array_equal(item.pixels, frame)


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm"])
def test_compressed_dicom_equals_uncompressed(name: str) -> None:
    assert np.array_equal(read_one(dicom_file(name)), read_one(dicom_file("MR_small.dcm")))


def test_dicom_without_picture(tmp_path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(dicom_file("MR_small.dcm"))
    del dataset.PixelData
    dataset.save_as(tmp_path / "report.dcm")
    with pytest.raises(InputError, match="no picture in it"):
        read_slices(tmp_path / "report.dcm")


def test_truncated_dicom(tmp_path: Path) -> None:
    data = dicom_file("MR_small.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cannot be decoded"):
        read_slices(tmp_path / "cut.dcm")


def test_text_named_dcm(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("no dicom at all, only words")
    with pytest.raises(InputError, match=r"text\.dcm"):
        read_slices(tmp_path / "text.dcm")


def test_folders_are_searched_in_order_and_an_empty_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "full" / "deeper").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name in ("full/b.png", "full/deeper/a.jpg", "full/notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "full" / "._b.png").write_bytes(b"what macOS notes of b.png")
    *files, empty, missing = find_inputs([tmp_path / "full", tmp_path / "empty", tmp_path / "none.png"])
    assert [entry.address for entry in files] == [str(tmp_path / "full/b.png"), str(tmp_path / "full/deeper/a.jpg")]
    assert isinstance(empty, Refused) and empty.address == str(tmp_path / "empty")
    assert "no pictures or DICOM files, NIfTI volumes or MATLAB files in this folder" in empty.message
    assert isinstance(missing, Refused) and "none.png: no such file" in missing.message


def test_real_dicom_slices() -> None:
    paths = sorted(real_path("dicom_brain").glob("*.dcm"))
    assert len(paths) == 14
    for path in paths:
        pixels = read_one(path)
        assert pixels.shape in ((384, 274), (274, 384))
        assert pixels.max() > pixels.min()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("most", [4095, 65535])
def test_sixteen_bit_colours_are_refused_where_few_levels_would_be_left(tmp_path: Path, most: int) -> None:
    """Of 12 bits in 16, the upper byte has 16 levels."""
    values = (np.arange(64 * 48).reshape(64, 48) * most // (64 * 48 - 1)).astype(">u2")
    lines = b"".join(b"\0" + np.repeat(row, 3).tobytes() for row in values)
    head = struct.pack(">2I5B", 48, 64, 16, 2, 0, 0, 0)
    made = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + made)
    if most == 4095:
        with pytest.raises(InputError, match="16 grey levels here"):
            read_slices(tmp_path / "deep.png")
    else:
        assert np.abs(read_one(tmp_path / "deep.png") - values / 257).max() <= 1


def test_tiff_may_say_that_small_is_white(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "white.tif", tiffinfo={262: 0})
    assert np.array_equal(read_one(tmp_path / "white.tif"), deep.max() - deep.astype(np.float32))


def test_previews_are_no_slices(tmp_path: Path) -> None:
    small = Image.fromarray(GREY).resize((12, 9))
    small.encoderinfo = {"tiffinfo": {254: 1}}  # type: ignore[attr-defined]
    Image.fromarray(GREY).save(tmp_path / "a.tif", save_all=True, append_images=[small, Image.fromarray(GREY)])
    assert [item.frame for item in read_slices(tmp_path / "a.tif")] == [0, 2]
    Image.fromarray(GREY).save(tmp_path / "b.jpg", "MPO", save_all=True, append_images=[small.resize((48, 32))])
    assert [item.pixels.shape for item in read_slices(tmp_path / "b.jpg")] == [GREY.shape]


def test_a_file_that_cannot_be_opened_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("good", "shut"):
        Image.fromarray(draw_head("glioma", 0, 0)).save(tmp_path / f"{name}.png")
    opened = Path.open

    def refuse(path: Path, *how: str, **more: str) -> IO[Any]:
        if path.name == "shut.png":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"shut.png: cannot be opened \(Permission denied\)"):
        read_slices(tmp_path / "shut.png")
    found = index_folder(tmp_path, tmp_path, "glioma")
    assert [item.path for item in found.samples] == ["good.png"] and "shut.png: cannot" in found.skipped[0]


def test_links_to_folders_are_followed_once_and_closed_folders_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("in/own", "archive/p1", "archive/p2"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(GREY).save(tmp_path / name / "a.png")
    for name, target in (("far", "archive"), ("again", "archive/p1"), ("self", "in/own"), ("up", ".")):
        (tmp_path / "in" / name).symlink_to(tmp_path / target)
    listed = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("p2"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    names = {item.address.removeprefix(f"{tmp_path}/in/"): item for item in find_inputs([tmp_path / "in"])}
    assert len(names) == 3 and "own/a.png" in names
    (shut,) = [item for item in names.values() if isinstance(item, Refused)]
    assert "p2: this folder cannot be opened (Permission denied)" in shut.message


def test_a_folder_that_cannot_be_entered_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed but not entered (mode 644), which the system lets root do all the same."""
    for name in ("shut/a.png", "shut/b.png", "shut/deeper/c.png", "open/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY).save(tmp_path / name)
    real = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if path.parent.name == "shut":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", stat)  # is_file, is_dir and is_symlink ask it
    found = images_below(tmp_path)
    assert [item for item in found if isinstance(item, Path)] == [tmp_path / "open" / "d.png"]
    (refused,) = (item for item in found if isinstance(item, Refused))
    assert refused.address == str(tmp_path / "shut") and "cannot be opened (Permission denied)" in refused.message
    (alone,) = entries_in(tmp_path / "shut" / "a.png")
    assert isinstance(alone, Refused) and "Check its permissions" in alone.message
