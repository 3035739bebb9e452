"""`tumorlens data fetch`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from tumorlens.cli.terminal import progress_bar, say
from tumorlens.data.fetch import DATA_SETS, LICENCE, SOURCE, WAITS, DataSet, download, list_files, write_source

_MB = 1_000_000


def fetch(which: Positional[Literal["figshare", "kaggle", "brisc"]], /, out: Path | None = None) -> int:
    """Download a public data set; interrupted, the same command goes on where it stopped.

    Its licence, citation and what to know of it are printed first, and kept in LICENCE.txt and SOURCE.json.

    Args:
        which: The data set.
        out: Folder for its files; by default the data set's name.
    """
    return fetch_into(DATA_SETS[which], out or Path(which))


def fetch_into(dataset: DataSet, folder: Path, base_url: str | None = None, waits: Sequence[float] = WAITS) -> int:
    """Download a data set into a folder and say so; `base_url` is a server to ask instead of the repository's.

    Raises:
        FetchError: something could not be downloaded; what came is kept.
    """
    say(dataset.title)
    say(f"licence: {dataset.licence}, {dataset.licence_url}")
    say(f"cite: {dataset.citation}")
    say(f"page: {dataset.homepage}")
    for note in dataset.notes:
        say(f"know: {note}")
    files = list_files(dataset, base_url, waits)
    sizes = [file.size for file in files if file.size is not None]
    amount = f"{sum(sizes) / _MB:,.1f} MB" if len(sizes) == len(files) else "size not told"
    say(f"{len(files)} {'file' if len(files) == 1 else 'files'}, {amount}, into {folder}")
    with progress_bar() as bar:
        for file in files:

            def show(done: int, total: int, stage: str = f"{file.name}, MB") -> None:
                bar.update(stage, done // _MB, -(-total // _MB))

            download(file, folder, show, waits)
            say(f"{file.name}: {file.checked}")
    write_source(dataset, files, folder)
    say(f"wrote {folder / SOURCE} and {LICENCE}")
    say("next:")
    for command in next_commands(dataset, folder):
        say(f"  {command}")
    return 0


def next_commands(dataset: DataSet, folder: Path) -> list[str]:
    """What to type after a download.

    The folder is indexed, not its archives one by one: each would be a source of its own, and a patient whose slices
    lie in two archives would become two patients.
    """
    manifest = f"{dataset.key}.csv"
    group = [] if dataset.patients_known else ["--group-by-similarity"]
    commands = (["index", str(folder), "--out", manifest], ["audit", manifest], ["split", manifest, *group])
    return [shlex.join(["tumorlens", "data", *command]) for command in commands]
