"""The public data sets that can be fetched: what each is, its terms, and where its files are listed."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataSet:
    """A public data set: what it is, on which terms, and the address (`listing`) that tells its files.

    `kind` is the form of the listing; where that is `kaggle`, `listing` is the one file itself, saved as `file_name`.
    """

    key: str
    title: str
    licence: str
    licence_url: str
    citation: str
    homepage: str
    notes: tuple[str, ...]
    kind: Literal["figshare", "zenodo", "kaggle"]
    listing: str
    file_name: str = ""
    patients_known: bool = False


@dataclass(frozen=True)
class RemoteFile:
    """A file to download: `size` in bytes and `md5` in hexadecimal, None where the listing does not tell.

    `page` is where a person finds the file.
    """

    name: str
    url: str
    size: int | None
    md5: str | None
    page: str = ""

    @property
    def checked(self) -> str:
        """What tells that this file is whole, in words."""
        if self.md5:
            return f"MD5 {self.md5} checked"
        return "no checksum published; size checked only" if self.size is not None else "no checksum or size published"


_CC_BY = ("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/")

FIGSHARE = DataSet(
    "figshare",
    "Brain tumor dataset (Jun Cheng), figshare, version 5",
    *_CC_BY,
    citation="Cheng, Jun (2017): brain tumor dataset. figshare. Dataset. https://doi.org/10.6084/m9.figshare.1512427.v5",
    homepage="https://figshare.com/articles/dataset/brain_tumor_dataset/1512427/5",
    notes=(
        "contrast-enhanced T1 slices of glioma, meningioma and pituitary tumours in three planes, with patient ids and "
        "tumour masks; no healthy heads",
        "ids that differ by a suffix are probably one person; its own five folds (cvind.mat) separate ids, not persons",
        "the archives can stay packed: indexing reads straight out of them",
    ),
    kind="figshare",
    listing="https://api.figshare.com/v2/articles/1512427/versions/5",
    patients_known=True,
)

KAGGLE = DataSet(
    "kaggle",
    "Brain Tumor MRI Dataset (M. Nickparvar), Kaggle, version 1",
    licence="CC0 1.0",
    licence_url="https://creativecommons.org/publicdomain/zero/1.0/",
    citation="Nickparvar, Msoud (2021): Brain Tumor MRI Dataset. Kaggle. https://doi.org/10.34740/KAGGLE/DSV/2645886",
    homepage="https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset/versions/1",
    notes=(
        "heavily leaked: 1,301 of its 1,311 test images share a patient or a near copy with its training images, so "
        "figures on its own Testing folder say nothing; audit it with `tumorlens data audit`",
        "it contains figshare's slices, mirrored: never train on one and test on the other",
        "no patient ids; tumours and healthy heads come from different sources",
    ),
    kind="kaggle",
    listing="https://www.kaggle.com/api/v1/datasets/download/masoudnickparvar/brain-tumor-mri-dataset"
    "?datasetVersionNumber=1",
    file_name="brain-tumor-mri-dataset.zip",
)

BRISC = DataSet(
    "brisc",
    "BRISC 2025, Zenodo record 17524350",
    *_CC_BY,
    citation="Fateh, A., Rezvani, Y., Moayedi, S., Rezvani, S., Fateh, F., Fateh, M., Abolghasemi, V. (2025): BRISC: "
    "Annotated Dataset for Brain Tumor Segmentation and Classification. Zenodo record 17524350; arXiv:2506.14318",
    homepage="https://zenodo.org/records/17524350",
    notes=(
        "T1 slices of glioma, meningioma, pituitary tumours and none, with tumour masks",
        "collated from other public sets, so it may hold slices of the two others here: before it is used beside one, "
        "compare them with `tumorlens data audit brisc.csv --against OTHER.csv`",
        "no patient ids",
    ),
    kind="zenodo",
    listing="https://zenodo.org/api/records/17524350",
)

DATA_SETS = {dataset.key: dataset for dataset in (FIGSHARE, KAGGLE, BRISC)}
