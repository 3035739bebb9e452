"""Pictures that come with the package, so that everything can be tried offline. All are synthetic.

They are slices of the MNI ICBM 152 average brain (see NOTICE beside them) with a drawn skull and, in some of them, a
drawn lesion; one is a volume of such slices, and one a mere drawing. They
show how the software behaves, not how well it diagnoses.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Example:
    """One example picture: its file, its title, and what is to be known of it."""

    key: str
    title: str
    note: str

    @property
    def path(self) -> Path:
        """The file: a NIfTI volume where there is one, else the picture."""
        volume = Path(__file__).parent / f"{self.key}.nii.gz"
        return volume if volume.is_file() else self.thumbnail

    @property
    def thumbnail(self) -> Path:
        """A PNG picture of it."""
        return Path(__file__).parent / f"{self.key}.png"


_DRAWN = "Synthetic: {} was drawn into an averaged healthy head."
_UNSURE = (
    _DRAWN + " The shipped model learned from scans and is unsure of it, though its outline finds the lesion. Choose "
    "another class below to see what speaks for it."
)

EXAMPLES: tuple[Example, ...] = (
    Example("sellar_mass", "Sellar", _DRAWN.format("a mass in the midline, as pituitary tumours show it,")),
    Example("ring_lesion", "Ring", _UNSURE.format("a ring-enhancing lesion, as gliomas show it,")),
    Example("convexity_mass", "Convexity", _UNSURE.format("a mass at the skull, as meningiomas show it,")),
    Example("healthy_axial", "Healthy", "Synthetic: an averaged healthy head, axial, with a drawn skull."),
    Example("healthy_coronal", "Coronal", "Synthetic: an averaged healthy head, coronal, with a drawn skull."),
    Example("lesion_volume", "Volume", _DRAWN.format("a ring-enhancing lesion") + " Twenty-four thick axial slices."),
    Example("cartoon", "No scan", "A drawing. The model is to refuse it."),
)
