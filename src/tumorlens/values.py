"""Figures as plain values for JSON."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tumorlens.records import Estimate


def plain(value: Any) -> Any:
    """Nested dicts, lists and tuples with what is undefined (NaN) as null."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def estimates_json(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Estimates by name."""
    return {name: plain(asdict(value)) for name, value in estimates.items()}
