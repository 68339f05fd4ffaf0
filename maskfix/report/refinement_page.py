"""The report of a run as a page: numbers, charts, and instances before and after, worst first."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from maskfix.report.rows import severity
from maskfix.report.sheet_page import write_page

MOST_ROWS = 5_000
"""Instances that are listed, about 3 MB."""

MOST_PICTURES = 2_000
"""Instances that are listed with pictures, about 40 MB."""

_SHOWN = (
    *("status", "reason", "clicks", "iou_before", "iou_after", "iou_change"),
    *("pixels_added", "pixels_removed"),
)


def worst_rows(rows: Iterable[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """The `MOST_ROWS` rows that want to be looked at most, each with its position in the report."""
    keyed = heapq.nsmallest(
        MOST_ROWS, enumerate(rows), key=lambda pair: (severity(pair[1]), pair[0])
    )
    return list(keyed)


def row_card(row: dict[str, Any]) -> dict[str, Any]:
    """A row as an item of the page that cannot be clicked on; see assets/gallery.js."""
    return {
        "file": row["image"],
        "selector": None,
        "category": row["category"],
        "label": "new" if row["id"] is None else str(row["id"]),
        "note": "",
        "row": {name: row[name] for name in _SHOWN},
    }


def write_refinement_page(
    path: Path,
    items: list[dict[str, Any]],
    pictures: Iterator[tuple[int, dict[str, Any]]],
    summary: dict[str, Any],
    about: dict[str, Any],
) -> None:
    """Write the page.

    Args:
        path: the file.
        items: as of `row_card`, the worst first, perhaps with more; ``pictures`` may change them.
        pictures: (position in items, see `maskfix.report.sheet_picture`).
        summary: as in summary.json.
        about: ``title``, ``command`` of a second round, ``categories``; see assets/gallery.js.
    """
    more = {
        "limits": _limits(summary["instances"], len(items)),
        "ran": " ".join(summary["command"]),
    }
    kept = {name: value for name, value in summary.items() if name not in {"worst", "command"}}
    write_page(path, "report", pictures, items, {**about, **more}, kept)


def _limits(count: int, listed: int) -> str:
    """What is not on the page."""
    parts = []
    if listed < count:
        parts.append(f"The {listed:,} worst of {count:,} instances are listed here.")
    if listed > MOST_PICTURES:
        parts.append(f"The {MOST_PICTURES:,} worst have pictures.")
    return " ".join([*parts, "report.csv has a row for every instance."])
