"""Draw the example pictures of src/tumorlens/examples from nilearn's MNI template.

    pip install nilearn && python tools/make_examples.py

The template is a brain without its head; a scalp and skull are drawn around it from the distance to the brain, so that
a picture resembles what a scanner gives. Lesions are drawn, and the pictures are labelled as synthetic everywhere.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_template
from PIL import Image, ImageDraw
from scipy.ndimage import binary_closing, binary_fill_holes, distance_transform_edt, gaussian_filter

OUT = Path(__file__).parent.parent / "src" / "tumorlens" / "examples"
SIDE = 384
RNG = np.random.default_rng(7)


def head() -> tuple[np.ndarray, np.ndarray]:
    """The template (x, y, z) at 1 mm in [0, 1] with a drawn skull and scalp, and the mask of its brain."""
    brain = np.pad(np.asarray(load_mni152_template(resolution=1).get_fdata()), 20)
    brain = np.clip(brain / np.percentile(brain[brain > 0], 99), 0, 1)
    mask = binary_fill_holes(binary_closing(brain > 0.15, iterations=12))
    away = distance_transform_edt(~mask) + 1.2 * unit_noise(mask.shape, 8)
    skull = 0.07 * ((away > 1) & (away < 7))
    scalp = ((away >= 7) & (away < 13)) * (0.8 + 0.08 * unit_noise(mask.shape, 3))
    around = gaussian_filter(np.clip(skull + scalp, 0, 1), 0.7)
    # After contrast agent the scalp outshines the brain.
    return np.where(mask, 0.52 * brain**1.15, around), mask


def unit_noise(shape: tuple[int, ...], grain: float) -> np.ndarray:
    """Smooth noise of standard deviation 1."""
    noise = gaussian_filter(RNG.normal(0, 1, shape), grain)
    return noise / noise.std()


def upright(plane: np.ndarray) -> np.ndarray:
    """(left to right, back to front or down to up) to rows downwards."""
    return plane.T[::-1]


def blob(shape: tuple[int, int], centre: tuple[float, float], radius: tuple[float, float], rough: float) -> np.ndarray:
    """Distance from a rough ellipse in radii: below 1 inside."""
    row, column = np.mgrid[: shape[0], : shape[1]].astype(float)
    return np.hypot((row - centre[0]) / radius[0], (column - centre[1]) / radius[1]) + rough * unit_noise(shape, 5)


def lay(picture: np.ndarray, where: np.ndarray, value: float, soft: float = 1.2) -> np.ndarray:
    """Paint `value` where a mask is, with soft edges and a little texture."""
    alpha = gaussian_filter(where.astype(float), soft)
    texture = value * (1 + 0.07 * unit_noise(picture.shape, 2))
    return picture * (1 - alpha) + texture * alpha


def save(picture: np.ndarray, name: str, side: int = SIDE) -> None:
    """Pad to a square, enlarge, add the noise of a scanner, and write."""
    longest = max(picture.shape)
    square = np.zeros((longest, longest))
    top, left = (longest - picture.shape[0]) // 2, (longest - picture.shape[1]) // 2
    square[top : top + picture.shape[0], left : left + picture.shape[1]] = gaussian_filter(picture, 0.5)
    image = Image.fromarray((np.clip(square, 0, 1) * 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(image, dtype=float) + RNG.normal(0, 2.0, (side, side))
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(OUT / f"{name}.png", optimize=True)


def volume(head: np.ndarray, brain: np.ndarray) -> None:
    """Twenty-four thick axial slices (x, y, z) with a ring lesion in six, as scanners export them."""
    thick, place = 6, (150, 118, 118)  # mm
    axes = np.ogrid[tuple(slice(0, n) for n in head.shape)]
    away = np.sqrt(sum(((a - c) / r) ** 2 for a, c, r in zip(axes, place, (20, 23, 17), strict=True)))
    away = np.where(brain, away + 0.10 * unit_noise(head.shape, 5), 9)
    for limit, value, soft in ((1.6, 0.22, 2.5), (1.0, 0.85, 1.2), (0.72, 0.10, 1.6)):
        head = lay(head, away < limit, value, soft)
    low = 30
    slabs = [head[::2, ::2, low + thick * n : low + thick * (n + 1)].mean(axis=2) for n in range(24)]
    stack = np.stack(slabs, axis=2) + RNG.normal(0, 0.008, (*slabs[0].shape, 24))
    image = nib.Nifti1Image((np.clip(stack, 0, 1) * 255).astype(np.uint8), np.diag([2.0, 2.0, thick, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, OUT / "lesion_volume.nii.gz")
    save(upright(stack[:, :, 14]), "lesion_volume", side=160)


def cartoon() -> None:
    """A brain as a child draws it: what is to be refused."""
    image = Image.new("L", (SIDE, SIDE), 235)
    pen = ImageDraw.Draw(image)
    pen.ellipse((60, 80, 320, 290), fill=190, outline=20, width=6)
    for row in range(4):
        for column in range(4):
            x, y = 90 + 55 * column + 12 * (row % 2), 105 + 42 * row
            pen.arc((x, y, x + 52, y + 38), 190 - 60 * (column % 2), 380, fill=20, width=5)
    pen.line((190, 285, 205, 350), fill=20, width=14)
    pen.ellipse((140, 170, 160, 195), fill=20)
    pen.ellipse((220, 170, 240, 195), fill=20)
    pen.arc((150, 190, 230, 240), 20, 160, fill=20, width=5)
    image.save(OUT / "cartoon.png", optimize=True)


def main() -> None:
    """Draw and write the pictures and the volume."""
    volume_, brain = head()
    axial, inside = upright(volume_[:, :, 112]), upright(brain[:, :, 112])
    save(axial, "healthy_axial")

    ring = np.where(inside, blob(axial.shape, (88, 150), (24, 21), 0.10), 9)
    picture = lay(axial, ring < 1.75, 0.22, soft=3)
    picture = lay(picture, ring < 1.0, 0.85)
    save(lay(picture, ring < 0.74, 0.10, soft=2), "ring_lesion")

    high, inside = upright(volume_[:, :, 132]), upright(brain[:, :, 132])
    mass = np.where(inside, blob(high.shape, (98, 68), (24, 20), 0.04), 9)
    save(lay(lay(high, mass < 1.35, 0.24, soft=3), mass < 1.0, 0.8), "convexity_mass")

    coronal = upright(volume_[:, 148, :])
    sella = blob(coronal.shape, (160, volume_.shape[0] // 2), (17, 15), 0.04)
    save(lay(coronal, sella < 1.0, 0.8), "sellar_mass")

    # Later than the others, so that those stay as they are.
    save(upright(volume_[:, 120, :]), "healthy_coronal")
    volume(volume_, brain)
    cartoon()


if __name__ == "__main__":
    main()
