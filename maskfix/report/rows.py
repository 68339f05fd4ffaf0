"""What a run reports: one row an instance, a summary, and a table for the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import msgspec

from maskfix.files import atomic_stream, atomic_write

Status = Literal["ok", "unchanged", "rejected", "failed"]
WORST = 10
SHOWN_TROUBLES = 3


@dataclass(frozen=True)
class Row:
    """One instance.

    Attributes:
        image: file name as the annotations give it.
        id: annotation id; None for an instance that is new, or could not be found.
        category: name.
        clicks: how many were given or simulated.
        iou_before, iou_after: with the reference, None without one.
        iou_change: IoU of the old and the new mask.
        biou_before, biou_after: Boundary IoU with the reference.
        pixels_added, pixels_removed: between the old and the new mask.
        status: ok (changed), unchanged, rejected (the old mask stays) or failed.
        reason: why, where there is something to say.
        ms: time for this instance, its share of the batches it was in.
    """

    image: str
    id: int | str | None
    category: str = ""
    clicks: int = 0
    iou_before: float | None = None
    iou_after: float | None = None
    iou_change: float | None = None
    biou_before: float | None = None
    biou_after: float | None = None
    pixels_added: int = 0
    pixels_removed: int = 0
    status: Status = "unchanged"
    reason: str = ""
    ms: float = 0.0


COLUMNS = tuple(f.name for f in fields(Row))


@dataclass
class Summary:
    """Adds up rows as they pass by.

    Attributes:
        counts: instances by status.
        clicks: in all.
        worst: the rows with the lowest IoU, or the largest change without a reference.
    """

    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("ok", "unchanged", "rejected", "failed"), 0)
    )
    clicks: int = 0
    worst: list[dict[str, Any]] = field(default_factory=list)
    scored: int = 0
    worse: int = 0
    _before: float = 0.0
    _after: float = 0.0
    _biou_before: float = 0.0
    _biou_after: float = 0.0
    _shared: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    def add(self, row: dict[str, Any], overlap: list[int] | None) -> None:
        """Take in a row.

        Args:
            row: as written to the report.
            overlap: pixels of intersection and union with the reference, before and after.
        """
        self.counts[row["status"]] += 1
        self.clicks += row["clicks"]
        if row["iou_after"] is not None:
            self.scored += 1
            self._before += row["iou_before"]
            self._after += row["iou_after"]
            self._biou_before += row["biou_before"]
            self._biou_after += row["biou_after"]
            self.worse += row["iou_after"] < row["iou_before"]
        if overlap is not None:
            self._shared = [a + b for a, b in zip(self._shared, overlap, strict=True)]
        self.worst.append(row)
        if len(self.worst) > 10 * WORST:
            self._trim()

    def finish(self) -> dict[str, Any]:
        """The summary as written to summary.json."""
        self._trim()

        def mean(total: float) -> float | None:
            return round(total / self.scored, 6) if self.scored else None

        meet_before, join_before, meet_after, join_after = self._shared
        return {
            "instances": sum(self.counts.values()),
            "status": self.counts,
            "clicks": self.clicks,
            "scored": self.scored,
            "iou_before_mean": mean(self._before),
            "iou_after_mean": mean(self._after),
            "biou_before_mean": mean(self._biou_before),
            "biou_after_mean": mean(self._biou_after),
            "iou_before_micro": round(meet_before / join_before, 6) if join_before else None,
            "iou_after_micro": round(meet_after / join_after, 6) if join_after else None,
            "made_worse": self.worse,
            "made_worse_share": mean(self.worse),
            "worst": self.worst,
        }

    def _trim(self) -> None:
        self.worst = sorted(self.worst, key=severity)[:WORST]


def severity(row: dict[str, Any]) -> tuple[bool, float]:
    """Sorts rows by how much they want to be looked at: the rejected and failed ones, then those
    with the lowest IoU, or with the largest change where there is no reference."""
    score = row["iou_after"]
    if score is None:
        score = row["iou_change"] if row["iou_change"] is not None else 2.0
    return row["status"] not in {"failed", "rejected"}, score


def make_row(row: Row) -> dict[str, Any]:
    """A row as it is written: numbers rounded, text that UTF-8 can hold."""
    return {name: _plain(value) for name, value in asdict(row).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, str):  # names from hostile files may hold half a surrogate pair
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def write_rows(rows: Iterable[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """Write report.jsonl and report.csv in ``folder``, atomically, passing the rows through."""
    with (
        atomic_stream(folder / "report.jsonl") as lines,
        atomic_stream(folder / "report.csv") as table,
    ):
        text = io.TextIOWrapper(table, encoding="utf-8", newline="", write_through=True)
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        for row in rows:
            lines.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            writer.writerow(row)
            yield row
        text.detach()


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of report.jsonl in ``folder``, one by one."""
    with (folder / "report.jsonl").open("rb") as file:
        yield from map(msgspec.json.decode, file)  # unlike json, it makes every key once


def write_summary(summary: dict[str, Any], folder: Path) -> None:
    """Write summary.json in ``folder``."""
    atomic_write(folder / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def summary_table(summary: dict[str, Any]) -> str:
    """The summary as a plain table of a few lines."""
    status = summary["status"]
    lines = [
        ("instances", summary["instances"]),
        *((f"  {name}", count) for name, count in status.items() if count),
        ("clicks", summary["clicks"]),
    ]
    if summary["scored"]:
        lines += [
            ("mean IoU", _change(summary, "iou_before_mean", "iou_after_mean")),
            ("mean Boundary IoU", _change(summary, "biou_before_mean", "biou_after_mean")),
            ("made worse", f"{summary['made_worse']} of {summary['scored']}"),
        ]
    width = max(len(name) for name, _ in lines)
    table = [f"{name:<{width}}  {value}" for name, value in lines]
    troubles = [row for row in summary["worst"] if row["status"] in {"failed", "rejected"}]
    for row in troubles[:SHOWN_TROUBLES]:
        name = row["image"] if row["id"] is None else f"{row['image']}, {row['id']}"
        table.append(f"{row['status']}: {name}: {row['reason']}")
    more = status["failed"] + status["rejected"] - len(troubles[:SHOWN_TROUBLES])
    if troubles and more:
        table.append(f"and {more} more in report.csv")
    return "\n".join(table)


def _change(summary: dict[str, Any], before: str, after: str) -> str:
    return f"{summary[before]:.4f} -> {summary[after]:.4f}"
