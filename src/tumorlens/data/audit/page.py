"""Write an audit down: audit.json, pairs.csv, and audit.html with the worst pairs as pictures."""

import base64
import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tumorlens.data.audit.findings import Audit, Finding, Match, class_table, side
from tumorlens.data.preprocess import resize
from tumorlens.data.readers import read_slice
from tumorlens.records import Sample, class_title
from tumorlens.textfile import write_whole
from tumorlens.values import plain

SCHEMA = 1
SHOWN = 8  # pairs a finding
_SIDE = 180
_COLUMNS = (
    "kind", "score", "orientation", "path", "other", "side", "other_side",
    "label", "other_label", "patient_group", "other_patient_group",
)  # fmt: skip


def write_audit(audit: Audit, name: str, root: Path, against_root: Path | None, folder: Path) -> None:
    """Write the audit's files into a folder; the JSON goes last, so that its presence means that all is there.

    Args:
        audit: what was found.
        name: of the audited set, for the page's title.
        root: the folder that the manifest's paths are relative to.
        against_root: the same of the other manifest, or None.
        folder: where to write.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    folder.mkdir(parents=True, exist_ok=True)
    for name_before in ("audit.json", "overlap.csv"):  # of an audit that is replaced
        (folder / name_before).unlink(missing_ok=True)
    _write_pairs(folder / "pairs.csv", audit.within)
    if against_root is not None:
        _write_pairs(folder / "overlap.csv", audit.between)
    pages = Environment(loader=PackageLoader("tumorlens.data.audit", "."), autoescape=select_autoescape())
    html = pages.get_template("page.html").render(
        name=name,
        failed=audit.failed,
        findings=[_shown(finding, root, against_root) for finding in audit.findings],
        table=[(source, class_title(label), n, patients) for source, label, n, patients in class_table(audit.samples)],
        slices=len(audit.samples),
        bias=audit.bias,
    )
    write_whole(folder / "audit.html", html)
    write_whole(folder / "audit.json", json.dumps(_as_json(audit, name), indent=1) + "\n")


def _as_json(audit: Audit, name: str) -> dict[str, Any]:
    bias = audit.bias
    return {
        "schema_version": SCHEMA,
        "name": name,
        "failed": audit.failed,
        "slices": len(audit.samples),
        "findings": [
            {"check": f.check, "severity": f.severity, "summary": f.summary, "pairs": len(f.matches),
             "examples": list(f.examples[:100])}
            for f in audit.findings
        ],
        "source_bias": bias and {
            "balanced_accuracy": plain(dataclasses.asdict(bias.balanced_accuracy)),
            "chance": bias.chance,
            "importance": dict(bias.importance),
        },
    }  # fmt: skip


def _write_pairs(path: Path, matches: Sequence[Match]) -> None:
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for m in matches:
            writer.writerow((
                m.kind, f"{m.score:.4f}", m.turned, m.first.path, m.second.path, side(m.first), side(m.second),
                m.first.label, m.second.label, m.first.patient_group, m.second.patient_group,
            ))  # fmt: skip


def _shown(finding: Finding, root: Path, against_root: Path | None) -> dict[str, Any]:
    pairs = []
    for match in _worst(finding.matches):
        second_root = against_root if match.foreign else root
        pairs.append({
            "first": _picture(root, match.first), "second": _picture(second_root, match.second),
            "first_name": _caption(match.first), "second_name": _caption(match.second),
            "how": f"{match.kind}, {match.turned}, score {match.score:.2f}",
        })  # fmt: skip
    return {"finding": finding, "pairs": pairs, "more": max(0, len(finding.matches) - len(pairs))}


def _worst(matches: Sequence[Match]) -> list[Match]:
    """The best scores of each way of turning in turn, no picture twice: eight upright twins would say little."""
    ways: dict[tuple[str, int], list[Match]] = {}
    for match in sorted(matches, key=lambda m: -m.score):
        ways.setdefault((match.kind, match.orientation), []).append(match)
    seen: set[str] = set()
    chosen: list[Match] = []
    for match in (m for rank in zip_longest(*ways.values()) for m in rank if m):
        if match.first.path not in seen and match.second.path not in seen and len(chosen) < SHOWN:
            chosen.append(match)
            seen |= {match.first.path, match.second.path}
    return chosen


def _caption(sample: Sample) -> str:
    where = side(sample)
    patient = f", patient {sample.patient_id}" if sample.patient_id else ""
    return f"{Path(sample.path).name} · {class_title(sample.label)}{patient}" + (f" · {where}" if where else "")


def _picture(root: Path | None, sample: Sample) -> str:
    """A picture as a data URI, its longer side 180 pixels."""
    assert root is not None  # a match has been read from there
    pixels = read_slice(root, sample).pixels
    low, high = np.percentile(pixels, [0.5, 99.5])
    grey = np.clip((pixels - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)
    scale = _SIDE / max(grey.shape)
    small = resize(grey, max(1, round(grey.shape[0] * scale)), max(1, round(grey.shape[1] * scale)))
    buffer = io.BytesIO()
    Image.fromarray((np.clip(small, 0, 1) * 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
