"""ZIP archives: read in place, nested, damaged and hostile ones."""

import io
import os
import stat
import struct
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_head
from tests.data.test_matlab import mat_bytes
from tumorlens.data.index import index_folder
from tumorlens.data.readers import archive, find_inputs, images_below, open_entry, read_slices
from tumorlens.data.readers.archive import Refused, members, natural, open_member
from tumorlens.data.readers.entry import Entry
from tumorlens.errors import InputError

GREY = (np.arange(64 * 48).reshape(64, 48) % 251).astype(np.uint8)


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    archive.close_archives()


def png(pixels: np.ndarray = GREY) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return buffer.getvalue()


def put(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(zipped(files))
    return path


def listed(path: Path) -> list[str]:
    """Addresses below the path, and the sentences of what was refused."""
    base = str(path)
    return [item.message if isinstance(item, Refused) else item.address.removeprefix(base)
            for item in find_inputs([path])]  # fmt: skip


def test_members_come_in_natural_order_and_litter_is_passed_over(tmp_path: Path) -> None:
    names = ["10.png", "2.png", "sub/1.PNG", "readme.txt", "__MACOSX/._2.png", "sub/._1.png", "1.png"]
    path = put(tmp_path / "a.zip", {name: png() for name in names})
    assert listed(path) == ["!1.png", "!2.png", "!10.png", "!sub/1.PNG"]
    assert sorted(["10", "9a", "9", "x", "1" * 5000], key=natural) == ["9", "9a", "10", "1" * 5000, "x"]


def test_members_of_archives_in_archives(tmp_path: Path) -> None:
    inner = zipped({"deep.zip": zipped({"c.png": png(GREY // 2)}), "b.png": png()})
    path = put(tmp_path / "a.zip", {"in/inner.zip": inner})
    assert listed(path) == ["!in/inner.zip!b.png", "!in/inner.zip!deep.zip!c.png"]
    (item,) = read_slices(Path(f"{path}!in/inner.zip!deep.zip!c.png"))
    assert np.array_equal(item.pixels, GREY // 2)
    assert item.source == f"{path}!in/inner.zip!deep.zip!c.png"
    assert open_member(f"{path}!in/inner.zip!b.png").data == png()
    assert [item.address for item in find_inputs([Path(f"{path}!in/inner.zip")])] == [
        f"{path}!in/inner.zip!b.png", f"{path}!in/inner.zip!deep.zip!c.png",
    ]  # fmt: skip


def test_an_archive_in_memory() -> None:
    found = list(members(Entry("upload.zip", zipped({"a.png": png()}))))
    assert [item.address for item in found] == ["upload.zip!a.png"]
    assert np.array_equal(read_slices(found[0])[0].pixels, GREY)  # type: ignore[arg-type]


def test_content_decides_what_is_an_archive(tmp_path: Path) -> None:
    (tmp_path / "zip.png").write_bytes(zipped({"inside.png": png()}))
    (tmp_path / "png.zip").write_bytes(png())
    assert listed(tmp_path) == ["/png.zip", "/zip.png!inside.png"]
    assert np.array_equal(read_slices(tmp_path / "png.zip")[0].pixels, GREY)
    with pytest.raises(InputError, match=r"zip\.png: an archive, not a slice"):
        read_slices(tmp_path / "zip.png")


def test_separators_in_names_on_disk_and_inside(tmp_path: Path) -> None:
    (tmp_path / "what!.png").write_bytes(png())
    path = put(tmp_path / "a!b.zip", {"x!y.png": png(GREY // 3)})
    assert np.array_equal(read_slices(tmp_path / "what!.png")[0].pixels, GREY)
    assert listed(tmp_path) == ["/a!b.zip!x!y.png", "/what!.png"]
    assert np.array_equal(read_slices(Path(f"{path}!x!y.png"))[0].pixels, GREY // 3)


@pytest.mark.parametrize("missing", ["a.zip!b.png", "a.zip!in.zip!b.png", "b.zip!a.png", "a.zip!a.png!b.png"])
def test_addresses_of_nothing(tmp_path: Path, missing: str) -> None:
    put(tmp_path / "a.zip", {"a.png": png(), "in.zip": zipped({"a.png": png()})})
    with pytest.raises(InputError, match=r"no such file|no '.*' in"):
        open_entry(tmp_path, missing).open()
        read_slices(open_entry(tmp_path, missing))


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "0 bytes"), (zipped({"a.png": png()})[:-30], "may be cut short"), (zipped({})[:10], "may be cut short"),
     (zipped({}), "NIfTI volumes or MATLAB files in this archive"), (b"no zip", "not a picture"),
     (zipped({"notes.txt": b"x"}), "in this archive")],
)  # fmt: skip
def test_archives_that_are_none(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    (item,) = find_inputs([tmp_path / "a.zip"])
    if isinstance(item, Entry):
        with pytest.raises(InputError, match=says):
            read_slices(item)
    else:
        assert says in item.message and "a.zip" in item.message


def one_bad(files: dict[str, bytes], spoil) -> bytes:
    """An archive whose member `b.png` is altered by `spoil(ZipInfo)`, in the directory at its end only."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
        spoil(made.getinfo("b.png"))
    return buffer.getvalue()


def encrypted(info: zipfile.ZipInfo) -> None:
    info.flag_bits |= 1


def bzipped(info: zipfile.ZipInfo) -> None:
    info.compress_type = zipfile.ZIP_BZIP2


def unknown_method(info: zipfile.ZipInfo) -> None:
    info.compress_type = 77


def linked(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def wrong_checksum(info: zipfile.ZipInfo) -> None:
    info.CRC ^= 1


def claims_little(info: zipfile.ZipInfo) -> None:
    info.file_size = 40


def claims_much(info: zipfile.ZipInfo) -> None:
    info.file_size += 40


def claims_huge(info: zipfile.ZipInfo) -> None:
    info.file_size = 1_500_000_000


def bomb(info: zipfile.ZipInfo) -> None:
    info.file_size = 900_000_000


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(encrypted, "encrypted"), (bzipped, "compressed by bzip2; allowed are Deflate and none"),
     (unknown_method, "compressed by number 77"), (linked, "a link, which is never followed"),
     (wrong_checksum, "damaged inside its archive"), (claims_little, "damaged inside its archive"),
     (claims_much, "bytes are missing inside its archive"), (claims_huge, "1,500,000,000 bytes unpacked are too many"),
     (bomb, "times its size .* like a ZIP bomb")],
)  # fmt: skip
def test_a_bad_member_costs_only_itself(tmp_path: Path, spoil, says: str) -> None:
    import re

    (tmp_path / "a.zip").write_bytes(one_bad({name: png() for name in ("a.png", "b.png", "c.png")}, spoil))
    read, refused = [], []
    for item in find_inputs([tmp_path / "a.zip"]):
        try:
            if isinstance(item, Refused):
                raise InputError(item.message)
            read.append(read_slices(item)[0].source.rpartition("!")[2])
        except InputError as error:
            refused.append(str(error))
    assert read == ["a.png", "c.png"]
    assert len(refused) == 1 and "b.png" in refused[0] and re.search(says, refused[0])
    with pytest.raises(InputError):  # the address alone opens no way around
        open_member(f"{tmp_path / 'a.zip'}!b.png")


@pytest.mark.parametrize("name", ["../b.png", "/etc/b.png", "C:\\b.png", "x/../../b.png", "..\\b.png", "\\b.png"])
def test_names_that_lead_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = put(tmp_path / "in" / "a.zip", {name: png(), "a.png": png()})
    found = listed(path)
    assert "!a.png" in found
    (message,) = set(found) - {"!a.png"}
    assert "leads out of the archive" in message
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "in", path]


def test_a_link_inside_is_not_followed_to_a_file_of_ours(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    info = zipfile.ZipInfo("link.png")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(info, str(tmp_path / "secret.png"))
    (message,) = listed(tmp_path / "a.zip")
    assert "a link" in message
    with pytest.raises(InputError):
        read_slices(Path(f"{tmp_path / 'a.zip'}!link.png"))


def test_two_members_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made, pytest.warns(UserWarning, match="Duplicate"):
        made.writestr("a.png", png())
        made.writestr("a.png", png(GREY // 2))
    assert listed(tmp_path / "a.zip")[0] == "!a.png"
    assert "second file of the same name" in listed(tmp_path / "a.zip")[1]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made, made.open("big.png", "w") as file:
        for _ in range(101):
            file.write(bytes(1_000_000))
    assert path.stat().st_size < 200_000
    (message,) = listed(path)
    assert "like a ZIP bomb" in message


def test_nesting_and_archives_that_hold_themselves(tmp_path: Path) -> None:
    data = zipped({"a.png": png()})
    for _ in range(3):
        data = zipped({"in.zip": data, "b.png": png()})
    (tmp_path / "a.zip").write_bytes(data)
    found = listed(tmp_path / "a.zip")
    assert found[:3] == ["!b.png", "!in.zip!b.png", "!in.zip!in.zip!b.png"]
    assert len(found) == 4 and "an archive 4 deep in others (at most 3)" in found[3]


def test_limits_hold_over_all_archives_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = zipped({f"{number}.png": png() for number in range(4)})
    path = put(tmp_path / "a.zip", {"1.zip": inner, "2.zip": inner, "3.png": png()})
    monkeypatch.setattr(archive, "MAX_MEMBERS", 8)
    found = listed(path)
    assert found[:4] == [f"!1.zip!{number}.png" for number in range(4)]
    assert "11 files in one archive are too many (at most 8)" in found[4] and found[5] == "!3.png"
    monkeypatch.setattr(archive, "MAX_MEMBERS", 100)
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 2 * len(inner) + 5 * len(png()))
    assert "bytes unpacked are too many for one archive" in listed(path)[4]


def test_a_damaged_inner_archive_costs_only_itself(tmp_path: Path) -> None:
    inner = zipped({"x.png": png()})
    path = put(tmp_path / "a.zip", {"1.zip": inner[:-25], "2.zip": inner, "3.zip": b"PK\x03\x04 no archive"})
    found = listed(path)
    assert found[1] == "!2.zip!x.png"
    assert "1.zip: cannot be read as a ZIP archive" in found[0] and "3.zip: cannot be read" in found[2]


def test_any_byte_may_be_wrong(tmp_path: Path) -> None:
    data = zipped({"a.png": png(), "in.zip": zipped({"1.mat": mat_bytes()})})
    rng = np.random.default_rng(1)
    good = 0
    for _ in range(300):
        altered = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            altered[place] = rng.integers(256)
        (tmp_path / "a.zip").write_bytes(bytes(altered))
        archive.close_archives()
        for item in find_inputs([tmp_path / "a.zip"]):
            try:
                if isinstance(item, Entry):
                    good += len(read_slices(item))
            except InputError:
                pass
    assert good > 50


def test_reading_all_members_takes_time_in_proportion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three thousand members of four inner archives: an inner one is unpacked a few times, not once a member."""
    part = {f"{number}.png": png(draw_head("glioma", 0, 0, 16)) for number in range(750)}
    path = put(tmp_path / "a.zip", {f"part{number}.zip": zipped(part) for number in range(4)})
    opened = []
    original = archive._Archives._opened
    monkeypatch.setattr(archive._Archives, "_opened", lambda self, entry: opened.append(1) or original(self, entry))
    start = time.perf_counter()
    found = find_inputs([path])
    total = sum(len(read_slices(item)) for item in found if isinstance(item, Entry))
    assert total == 3000
    assert len(opened) <= 10
    assert time.perf_counter() - start < 30


def test_many_threads_and_more_archives_than_are_kept_open(tmp_path: Path) -> None:
    for number in range(archive._KEPT_OPEN + 3):
        inner = zipped({f"{n}.png": png(GREY // (n + 1)) for n in range(3)})
        put(tmp_path / f"{number}.zip", {"in.zip": inner})
    found = [item for item in find_inputs([tmp_path]) if isinstance(item, Entry)]
    order = np.random.default_rng(0).permutation(len(found))
    with ThreadPoolExecutor(8) as pool:
        slices = list(pool.map(lambda number: read_slices(found[number])[0], order))
    for number, item in zip(order, slices, strict=True):
        assert item.source == found[number].address
        assert np.array_equal(item.pixels, GREY // (number % 3 + 1))
    assert len(archive._ARCHIVES._open) <= archive._KEPT_OPEN


def test_an_archive_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = put(tmp_path / "a.zip", {"a.png": png()})
    assert read_slices(Path(f"{path}!a.png"))[0].pixels.max() == GREY.max()
    put(path, {"a.png": png(GREY // 9)})
    os.utime(path, (1, 1))
    assert read_slices(Path(f"{path}!a.png"))[0].pixels.max() == GREY.max() // 9


def test_links_on_disk_that_lead_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "set" / "glioma").mkdir(parents=True)
    (tmp_path / "set" / "glioma" / "a.png").write_bytes(png())
    (tmp_path / "set" / "glioma" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "self.png").symlink_to(tmp_path / "set" / "self.png")
    (tmp_path / "set" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "set" / "glioma" / "pipe.png")
    assert images_below(tmp_path / "set") == [tmp_path / "set" / "glioma" / "a.png"]
    assert len(index_folder(tmp_path / "set", tmp_path).samples) == 1


def test_a_member_may_have_a_longer_name_than_a_file(tmp_path: Path) -> None:
    name = "glioma_" + "s" * 250 + ".png"
    path = put(tmp_path / "a.zip", {name: png()})
    assert read_slices(open_member(f"{path}!{name}"))[0].pixels.max() == GREY.max()


@pytest.mark.parametrize(
    ("address", "name"), [("/in/scan!", "scan"), ("in/a.zip!b/", "b"), ("in/a.zip!b!", "b"), ("a!b.png", "b.png")]
)
def test_the_name_of_an_address_is_never_a_path(address: str, name: str) -> None:
    assert Entry(address).name == name


def test_struct_sizes_of_zip_headers_are_not_trusted(tmp_path: Path) -> None:
    """A directory that says it has other members than it has."""
    data = bytearray(zipped({"a.png": png(), "b.png": png()}))
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<HH", data, end + 8, 60000, 60000)
    (tmp_path / "a.zip").write_bytes(bytes(data))
    assert listed(tmp_path / "a.zip") == ["!a.png", "!b.png"]
