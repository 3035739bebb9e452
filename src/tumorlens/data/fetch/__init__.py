"""Download public data sets: listed by their repository, resumed after a broken connection, checked by MD5.

A file grows as `NAME.part`, beside it `NAME.part.json` says what it is a part of; it gets its name when it is complete
and checked. `sets` is the table of data sets, `listing` finds their files, `transfer` gets them, `web` asks servers.
"""

from tumorlens.data.fetch.listing import LICENCE, SOURCE, list_files
from tumorlens.data.fetch.sets import BRISC, DATA_SETS, FIGSHARE, KAGGLE, DataSet, RemoteFile
from tumorlens.data.fetch.transfer import download, write_source
from tumorlens.data.fetch.web import WAITS

__all__ = [
    "BRISC", "DATA_SETS", "FIGSHARE", "KAGGLE", "LICENCE", "SOURCE", "WAITS", "DataSet", "RemoteFile", "download",
    "list_files", "write_source",
]  # fmt: skip
