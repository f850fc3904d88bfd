"""Conversion of manifests from format 1 to format 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def upgraded(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the content of a format 1 manifest to format 2; malformed values are left unchanged.

    Format 2 renames `decision.point`, `decision.triage`, `windows.most` and the recipe's `soup`.
    """
    renamed = {
        "decision": {"point": "operating_point", "triage": "abstention"},
        "windows": {"most": "max_windows"},
        "recipe": {"soup": "model_soup"},
    }
    sections = {name: _renamed(manifest[name], names) for name, names in renamed.items() if name in manifest}
    return {**manifest, **sections, "format_version": 2}


def _renamed(section: Any, names: Mapping[str, str]) -> Any:
    if not isinstance(section, dict):
        return section
    return {names.get(name, name): value for name, value in section.items()}
