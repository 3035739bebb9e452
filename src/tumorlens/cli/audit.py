"""`tumorlens data audit`"""

from pathlib import Path

from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from tumorlens.cli.terminal import console, progress_bar, say
from tumorlens.data.manifest import read_manifest
from tumorlens.errors import ManifestError

_MARKS = {"error": "[bold red]✕ fails[/]", "warning": "[yellow]! look[/]", "fine": "[green]✓ fine[/]"}


def audit(
    manifest: Positional[Path],
    /,
    against: Path | None = None,
    out: Path | None = None,
    recover: Path | None = None,
    overwrite: bool = False,
) -> int:
    """Find what makes figures on a data set too good; the exit code is 1 where something fails.

    Looked for are copies (also re-encoded, rescaled, turned, mirrored), neighbouring slices and patients on two sides,
    copies with different labels, overlap with another set, tell-tale sources, and unusable files.

    The files name patients as the manifest does, beside pictures of their heads: keep them as private as the images.

    Args:
        manifest: A manifest, split or not.
        against: Another manifest that should share nothing with this one.
        out: Folder for audit.html, audit.json and the pairs as CSV; by default the manifest's name with .audit.
        recover: Folder for a manifest with the patients and masks that the images have in the other set.
        overwrite: Replace an audit that is there.
    """
    from tumorlens.data.audit.findings import audit as run_audit
    from tumorlens.data.audit.page import write_audit
    from tumorlens.data.audit.recover import write_recovered

    if recover and not against:
        raise ManifestError("--recover needs --against, the manifest that knows the patients")
    folder = out or manifest.with_suffix(".audit")
    _check_room(folder, overwrite)
    if recover and recover.is_dir() and any(recover.iterdir()):
        raise ManifestError(f"{recover}: not empty. Give another --recover folder")
    samples = read_manifest(manifest)
    others = read_manifest(against) if against else []
    other_root = against.parent if against else None
    with progress_bar() as bar:
        result = run_audit(samples, manifest.parent, others, other_root, bar.update)
    table = Table(title=f"Audit of {escape(manifest.name)}: {len(samples):,} slices", title_justify="left")
    for heading in ("", "Check", "Found"):
        table.add_column(heading, no_wrap=heading == "")
    for finding in result.findings:
        table.add_row(_MARKS[finding.severity], finding.check, finding.summary)
    console.print(table)
    write_audit(result, manifest.stem, manifest.parent, other_root, folder)
    if recover and other_root is not None:
        made = write_recovered(samples, manifest.parent, other_root, result.recovered, recover)
        say(f"recovered {len(result.recovered):,} of {len(samples):,} images; wrote {made}")
    say(f"wrote {folder / 'audit.html'}, audit.json and the pairs as CSV")
    return 1 if result.failed else 0


def _check_room(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not overwrite:
        raise ManifestError(f"{folder}: already there. Give another --out, or --overwrite to replace it")
    if not (folder / "audit.json").is_file():
        raise ManifestError(f"{folder}: not an audit, so it is not replaced. Give another --out")
