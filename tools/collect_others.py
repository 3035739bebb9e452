"""Collect pictures that teach a model what is no brain MRI, and foreign brains that it must not refuse.

    python tools/collect_others.py OUT [--x-rays FOLDER]

They come with free software: wallpapers, stamps, clip art and fonts of Debian, a CT of a skull, the test files of
imaging libraries on PyPI; the rest is drawn. Packages are downloaded, not installed (needs apt-get, dpkg-deb and pip).
OUT/others has a folder for each kind, for `tumorlens refusal --others`; OUT/brains kinds of brain MRI that no training
set here has, for `--brains`. Every choice is drawn from a fixed seed. Nothing of it is redistributed.
"""

import argparse
import plistlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

Grey = NDArray[np.uint8]
DEBIAN = (
    "fonts-noto-color-emoji", "gnome-backgrounds", "invesalius-examples", "mate-backgrounds", "mricron-data",
    "openclipart-png", "plasma-workspace-wallpapers", "tuxpaint-stamps-default", "ukui-wallpapers",
)  # fmt: skip
#: Wheels and the Python they are for: scikit-image shipped its pictures up to 0.17.
PYPI = (
    ("scikit-image==0.17.2", "3.8"),
    ("nilearn==0.14.1", "3.11"),
    ("dipy==1.12.1", "3.11"),
    ("pydicom==3.0.1", "3.11"),
)
SIDE = 320
EMOJI = 109  # the one size of the colour font
Maker = Callable[[np.random.Generator], Grey]


def main() -> None:
    """Download, sort, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--x-rays", type=Path, help="a folder of X-rays to take in as a kind of their own")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        download(root)
        kinds = {**others(root, given.x_rays), **{f"made_{name}": made(draw) for name, draw in DRAWN.items()}}
        for name, pictures in kinds.items():
            say(name, save(pictures, given.out / "others" / name))
        for name, slices in brains(root).items():
            say(f"brains: {name}", save(slices, given.out / "brains" / name))


def say(name: str, count: int) -> None:
    """One line a kind."""
    sys.stdout.write(f"{name}: {count}\n")


def download(root: Path) -> None:
    """Fetch the packages and unpack each into a folder of its own name."""
    for name in DEBIAN:
        subprocess.run(["apt-get", "download", name], cwd=root, check=True, capture_output=True)
        (package,) = root.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), str(root / name)], check=True)
        package.unlink()
    for name, python in PYPI:
        fetch = ["download", "-q", "--no-deps", "--only-binary", ":all:", "--python-version", python, "-d", str(root)]
        subprocess.run([sys.executable, "-m", "pip", *fetch, name], check=True, capture_output=True)
        (wheel,) = root.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(root / name.partition("=")[0])
        wheel.unlink()


def save(pictures: Iterator[Grey], folder: Path) -> int:
    """Write pictures as numbered PNG files; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for count, picture in enumerate(pictures, start=1):
        Image.fromarray(picture).save(folder / f"{count:03}.png")
    return count


def others(root: Path, x_rays: Path | None) -> dict[str, Iterator[Grey]]:
    """Kinds of pictures that are no brain MRI."""
    wallpapers = [
        path
        for name in ("gnome-backgrounds", "mate-backgrounds", "plasma-workspace-wallpapers", "ukui-wallpapers")
        for path in files(root / name, "jpg", "png", "webp")
        if path.stat().st_size > 200_000
    ]
    stamps, clips = files(root / "tuxpaint-stamps-default", "png"), files(root / "openclipart-png", "png")
    shots, dicom = root / "scikit-image" / "skimage" / "data", root / "pydicom" / "pydicom" / "data" / "test_files"
    kinds = {
        "photo_wallpaper": crops(few(wallpapers, 60, 1), 3),
        "photo_in_oval": (oval(item) for item in crops(few(wallpapers, 50, 2), 2)),
        "photo_other": crops(
            named(shots, "astronaut", "camera", "chelsea", "coffee", "coins", "rocket", "motorcycle"), 4
        ),
        "object_cut_out": (flat(path, 0) for path in few(stamps, 220, 3)),
        "object_on_white": (flat(path, 255) for path in few(stamps, 80, 4)),
        "drawing": (flat(path, 255) for path in few(clips, 120, 5) if max(Image.open(path).size) > 100),
        "emoji": emoji(root, [*range(0x1F400, 0x1F43F), *range(0x1F600, 0x1F640), 0x1F9E0, 0x1F480]),
        "texture": crops(named(shots, "brick", "grass", "gravel"), 6),
        "microscopy_fundus": crops(named(shots, "ihc", "retina", "cell", "microaneurysms", "hubble", "moon"), 3),
        "text_scan": crops(named(shots, "page", "text"), 3),
        "ct_head": skull(root, ((300, 2000), (40, 400), (600, 3000))),
        "ct_head_brain_window": skull(root, ((40, 80), (40, 120))),
        "ct_body": frames(dicom, "CT_small", "693_J2KI"),
        "ultrasound": frames(dicom, "examples_jpeg2k", "examples_palette", "examples_rgb_color", "examples_ybr_color"),
        "bone_scan": frames(dicom, "JPEG2000"),
        "mri_other_organ": frames(dicom, "examples_overlay", "MR_small"),
        "label_map_of_brain": (
            item
            for name in ("aal", "brodmann", "natbrainlab", "JHU-WhiteMatter-labels-1mm")
            for item in cuts(one(root / "mricron-data", f"{name}.nii.gz"), 5)
        ),
    }
    if x_rays:
        kinds["xray_chest"] = (flat(path, 0) for path in files(x_rays, "jpg", "jpeg", "png"))
    return kinds


def brains(root: Path) -> dict[str, Iterator[Grey]]:
    """Kinds of brain MRI that the training data lacks."""
    templates, dipy = root / "mricron-data", root / "dipy" / "dipy" / "data" / "files"
    (test_data,) = (Path(nibabel.__file__).parent / "tests" / "data",)
    return {
        "skull_stripped": (
            item for name in ("ch2bet", "ch2better") for item in cuts(one(templates, f"{name}.nii.gz"), 12)
        ),
        "single_subject_average": cuts(one(templates, "ch2.nii.gz"), 12),
        "averaged_template": cuts(one(root / "nilearn", "mni_icbm152_t1*.nii.gz"), 12),
        "echo_planar": cuts(test_data / "example4d.nii.gz", 12, axes=(2,)),
        "diffusion": cuts(dipy / "S0_10slices.nii.gz", 8, axes=(2,)),
    }


def files(root: Path, *endings: str) -> list[Path]:
    """Files below a folder by ending, in order."""
    return sorted(path for path in root.rglob("*") if path.suffix[1:].lower() in endings and path.is_file())


def one(root: Path, pattern: str) -> Path:
    """The one file below a folder that fits a pattern."""
    (found,) = root.rglob(pattern)
    return found


def named(root: Path, *starts: str) -> list[Path]:
    """Pictures of a folder by the beginning of their names."""
    return [path for path in files(root, "png", "jpg") if path.stem.startswith(starts)]


def few(paths: list[Path], count: int, seed: int) -> list[Path]:
    """At most so many, drawn."""
    order = np.random.default_rng(seed).permutation(len(paths))[:count]
    return [paths[number] for number in sorted(order)]


def flat(path: Path, ground: int) -> Grey:
    """A picture in grey, what is transparent in it on a ground of that brightness."""
    picture = Image.open(path).convert("RGBA")
    picture.thumbnail((SIDE, SIDE))
    below = Image.new("RGBA", picture.size, (ground, ground, ground, 255))
    return np.asarray(Image.alpha_composite(below, picture).convert("L"))


def crops(paths: list[Path], count: int) -> Iterator[Grey]:
    """Square parts of pictures, of different sizes."""
    rng = np.random.default_rng(len(paths))
    for path in paths:
        with Image.open(path) as opened:
            picture = opened.convert("L")
        for _ in range(count):
            side = int(min(picture.size) * rng.uniform(0.4, 1.0))
            left, top = (int(rng.integers(0, edge - side + 1)) for edge in picture.size)
            yield np.asarray(picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE)))


def oval(picture: Grey) -> Grey:
    """Black outside an ellipse: a photograph in the shape of a head."""
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    return np.where((rows / 0.9) ** 2 + (columns / 0.72) ** 2 < 1, picture, 0).astype(np.uint8)


def emoji(root: Path, codes: list[int]) -> Iterator[Grey]:
    """Emoji on black and, every other one, on white."""
    font = ImageFont.truetype(str(one(root / "fonts-noto-color-emoji", "NotoColorEmoji.ttf")), EMOJI)
    for number, code in enumerate(codes):
        ground = 255 * (number % 2)
        picture = Image.new("RGB", (136, 128), (ground, ground, ground))
        ImageDraw.Draw(picture).text((0, 0), chr(code), font=font, embedded_color=True)
        yield np.asarray(picture.convert("L"))


def skull(root: Path, windows: tuple[tuple[int, int], ...]) -> Iterator[Grey]:
    """Slices of a CT of a skull in three planes, through windows (level, width) in HU."""
    with tarfile.open(one(root / "invesalius-examples", "Cranium.inv3")) as archive:
        parts = {Path(item.name).name: archive.extractfile(item) for item in archive.getmembers() if item.isfile()}
        main, matrix = parts["main.plist"], parts["matrix.dat"]
        assert main is not None
        assert matrix is not None
        shape = plistlib.loads(main.read())["matrix"]["shape"]
        volume = np.frombuffer(matrix.read(), np.int16).reshape(shape).astype(np.float32)
    for level, width in windows:
        shown = np.clip((volume - level) / width + 0.5, 0, 1) * 255
        for axis in (0, 1, 2):
            for share in np.linspace(0.25, 0.8, 8):
                plane = np.take(shown, round(share * (shape[axis] - 1)), axis=axis)
                yield np.asarray(Image.fromarray(plane.astype(np.uint8)).resize((SIDE, SIDE)))


def frames(folder: Path, *names: str) -> Iterator[Grey]:
    """DICOM pictures, at most four frames of each."""
    from pydicom import dcmread

    for name in names:
        values = np.asarray(dcmread(folder / f"{name}.dcm").pixel_array, dtype=np.float32)
        if values.shape[-1] == 3:
            values = values.mean(axis=-1)
        planes = values.reshape(-1, *values.shape[-2:])
        for plane in planes[:: max(1, len(planes) // 4)][:4]:
            yield scaled(plane)


def cuts(path: Path, count: int, axes: tuple[int, ...] = (0, 1, 2)) -> Iterator[Grey]:
    """Slices of a NIfTI volume through its middle, in each plane."""
    volume = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    volume = volume[..., 0] if volume.ndim == 4 else volume
    for axis in axes:
        for share in np.linspace(0.3, 0.7, count):
            plane = np.take(volume, round(share * (volume.shape[axis] - 1)), axis=axis)
            yield scaled(np.rot90(plane))


def scaled(plane: NDArray[np.float32]) -> Grey:
    """To grey, the brightest half per cent cut off."""
    low, high = float(plane.min()), float(np.percentile(plane, 99.5))
    return (np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def made(draw: Maker, count: int = 40) -> Iterator[Grey]:
    """So many pictures by a program."""
    for seed in range(count):
        yield draw(np.random.default_rng(seed))


def white_noise(rng: np.random.Generator) -> Grey:
    """Independent pixels."""
    return rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def coarse_noise(rng: np.random.Generator) -> Grey:
    """Noise of patches."""
    return scaled(gaussian_filter(rng.normal(size=(SIDE, SIDE)).astype(np.float32), rng.uniform(3, 20)))


def one_over_f(rng: np.random.Generator) -> Grey:
    """Noise with the spectrum of natural pictures."""
    rows, columns = np.meshgrid(*[np.fft.fftfreq(SIDE)] * 2, indexing="ij")
    fall = (np.hypot(rows, columns) + 1 / SIDE) ** rng.uniform(0.8, 1.6)
    spectrum = np.fft.fft2(rng.normal(size=(SIDE, SIDE))) / fall
    return scaled(np.real(np.fft.ifft2(spectrum)).astype(np.float32))


def oval_of_noise(rng: np.random.Generator) -> Grey:
    """Noise in the shape of a head."""
    return oval(coarse_noise(rng) if rng.random() < 0.5 else one_over_f(rng))


def gradient(rng: np.random.Generator) -> Grey:
    """A ramp in some direction."""
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    return scaled((np.cos(angle) * rows + np.sin(angle) * columns).astype(np.float32))


def chart(rng: np.random.Generator) -> Grey:
    """Bars or a line on axes."""
    ground, ink = (255, 0) if rng.random() < 0.7 else (0, 255)
    picture = Image.new("L", (SIDE, SIDE), ground)
    pen = ImageDraw.Draw(picture)
    pen.line([(30, 20), (30, 290), (300, 290)], fill=ink, width=2)
    heights = rng.uniform(30, 250, int(rng.integers(4, 12)))
    places = np.linspace(40, 290, len(heights))
    if rng.random() < 0.5:
        for x, height in zip(places, heights, strict=True):
            pen.rectangle([x, 290 - height, x + 12, 290], fill=int(rng.integers(60, 200)))
    else:
        pen.line([(x, 290 - height) for x, height in zip(places, heights, strict=True)], fill=ink, width=3)
    return np.asarray(picture)


def text_page(rng: np.random.Generator) -> Grey:
    """Lines of letters."""
    ground, ink = (255, 0) if rng.random() < 0.6 else (0, 255)
    picture = Image.new("L", (SIDE, SIDE), ground)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(float(rng.uniform(9, 24)))
    step = int(rng.integers(14, 34))
    for top in range(10, SIDE - step, step):
        letters = "".join(chr(code) for code in rng.integers(97, 123, 60))
        pen.text((10, top), " ".join(letters[start : start + 6] for start in range(0, 48, 6)), fill=ink, font=font)
    return np.asarray(picture)


def drawn_brain(rng: np.random.Generator) -> Grey:
    """A cartoon of a brain: an outline, folds as arcs, one grey inside."""
    ground, ink = (255, 0) if rng.random() < 0.5 else (0, 255)
    picture = Image.new("L", (SIDE, SIDE), ground)
    pen = ImageDraw.Draw(picture)
    width, height = rng.uniform(90, 140), rng.uniform(100, 145)
    box = [160 - width, 160 - height, 160 + width, 160 + height]
    pen.ellipse(box, fill=int(rng.integers(90, 210)), outline=ink, width=int(rng.integers(2, 7)))
    pen.line([(160, box[1]), (160, box[3])], fill=ink, width=3)
    for _ in range(int(rng.integers(8, 30))):
        x, y = 160 + rng.uniform(-0.6, 0.6) * width, 160 + rng.uniform(-0.6, 0.6) * height
        radius, start = rng.uniform(8, 34), rng.uniform(0, 360)
        around = [x - radius, y - radius, x + radius, y + radius]
        pen.arc(around, start, start + rng.uniform(90, 260), fill=ink, width=3)
    return np.asarray(picture)


DRAWN: dict[str, Maker] = {
    "white_noise": white_noise, "coarse_noise": coarse_noise, "1_f_noise": one_over_f, "oval_of_noise": oval_of_noise,
    "gradient": gradient, "chart": chart, "text_page": text_page, "drawing_of_a_brain": drawn_brain,
}  # fmt: skip


if __name__ == "__main__":
    main()
