"""What is written of a volume as a whole: a montage, the probabilities along it, and its maps where its voxels lie."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tumorlens.data.readers import write_maps
from tumorlens.data.readers.archive import open_member
from tumorlens.explain.overlay import as_seen, overlay
from tumorlens.explain.profile import profile
from tumorlens.pipeline import Explained
from tumorlens.records import Float32

COLUMNS, ROWS, TILE = 6, 5, 180
#: What is written under the name of a file with several slices.
ENDINGS = MONTAGE, PROFILE, VOLUME = "_montage.png", "_profile.svg", "_maps.nii.gz"
_INK = (255, 255, 255)


class VolumePictures:
    """Gathers the explained slices of one file, and writes what shows them together."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._items: list[Explained] = []
        self._maps: dict[int, Float32] = {}

    def add(self, item: Explained, values: Float32) -> None:
        """A slice and its map (height, width), in the order of the file."""
        assert item.picture is not None  # only answered slices have a map
        self._items.append(item)
        self._maps[item.picture.frame] = values

    def save(self, folder: Path, name: str) -> list[str]:
        """Write `NAME_montage.png`, `NAME_profile.svg` and, of a NIfTI volume, `NAME_maps.nii.gz`.

        Returns:
            The names of the files; none for a file of a single slice.
        """
        if len(self._items) < 2:
            return []
        written = [f"{name}{MONTAGE}", f"{name}{PROFILE}"]
        self.montage().save(folder / written[0])
        (folder / written[1]).write_text(self.profile(), encoding="utf-8")
        first = self._items[0].picture
        assert first is not None
        volume = f"{name}{VOLUME}"
        # Slices of NIfTI are cut upright, so their maps need not be turned back.
        if write_maps(open_member(self.source), self._maps, first.plane, folder / volume):
            written.append(volume)
        return written

    def montage(self) -> Image.Image:
        """At most thirty overlays, each with frame, class and probability; (?) where it would be refused."""
        count = min(len(self._items), COLUMNS * ROWS)
        chosen = [self._items[round(place)] for place in np.linspace(0, len(self._items) - 1, count)]
        rows = -(-count // COLUMNS)
        sheet = Image.new("RGB", (min(count, COLUMNS) * TILE, rows * TILE))
        pen = ImageDraw.Draw(sheet)
        for number, item in enumerate(chosen):
            assert item.picture is not None
            tile = as_seen(overlay(item.picture.pixels, self._maps[item.picture.frame]), item.picture.spacing)
            tile.thumbnail((TILE, TILE))
            x, y = number % COLUMNS * TILE, number // COLUMNS * TILE
            sheet.paste(tile, (x + (TILE - tile.width) // 2, y + (TILE - tile.height) // 2))
            found = item.answer.prediction
            pen.text((x + 4, y + 3), f"{item.picture.frame}", fill=_INK)
            doubt = " (?)" if found.message else ""
            pen.text((x + 4, y + TILE - 14), f"{found.predicted} {found.confidence:.0%}{doubt}", fill=_INK)
        return sheet

    def profile(self) -> str:
        """The probability of each class along the volume, as SVG; the line marks the most probable tumour."""
        found = [item.answer.prediction for item in self._items]
        frames = [item.frame for item in found]
        tumour = [item.tumour_probability for item in found]
        return profile(found, frames, frames[int(np.argmax(tumour))], max(frames) + 1)
