"""What a run leaves to look at: ``loss.csv``, ``validation.csv``, ``curves.svg``, TensorBoard."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskfix.files import atomic_write

Row = Mapping[str, float]
_WIDTH, _HEIGHT, _MARGIN = 720, 240, 48
_COLORS = ("#0b61a4", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#be123c", "#0e7490", "#4b5563")


class RunLog:
    """The logs of one run.

    Args:
        out: folder of the run.
        samples: what the run has seen; later lines, of a run that was cut off, are dropped.
    """

    def __init__(self, out: Path, samples: int) -> None:
        self.losses = _Table(out / "loss.csv", samples)
        self.scores = _Table(out / "validation.csv", samples)
        self.curves = out / "curves.svg"
        self._board = _tensorboard(out)

    def add_loss(self, row: Row) -> None:
        """A line of the loss log."""
        self.losses.append(row)
        self._show(row)

    def add_scores(self, row: Row) -> None:
        """A line of the validation log; draws the curves anew."""
        self.scores.append(row)
        self._show(row)
        charts = [_chart("training loss", self.losses.read(), ["loss"])]
        rows = self.scores.read()
        charts.append(_chart("validation: clicks needed", rows, [k for k in row if "noc" in k]))
        atomic_write(self.curves, _svg([chart for chart in charts if chart]))

    def _show(self, row: Row) -> None:
        for name, value in row.items():
            if self._board is not None and name != "samples":
                self._board.add_scalar(name, value, int(row["samples"]))


class _Table:
    """A CSV file that grows by lines."""

    def __init__(self, path: Path, samples: int) -> None:
        self.path = path
        if path.exists():
            rows = self.read()
            kept = [row for row in rows if row.get("samples", 0) <= samples]
            if len(kept) < len(rows):
                path.unlink()
                for row in kept:
                    self.append(row)

    def append(self, row: Row) -> None:
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(row)
            writer.writerow(row.values())

    def read(self) -> list[dict[str, float]]:
        """All whole lines as numbers."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
        return [
            {key: float(value) for key, value in zip(lines[0], line, strict=True)}
            for line in lines[1:]
            if len(line) == len(lines[0])
        ]


def _tensorboard(out: Path) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: Any = SummaryWriter(str(out))
    return writer


def _chart(title: str, rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """One chart as SVG elements, lines over samples; nothing without two points."""
    values = [row[n] for row in rows for n in names if math.isfinite(row.get(n, math.nan))]
    if len(rows) < 2 or not values:
        return []
    left, right = rows[0]["samples"], rows[-1]["samples"]
    low, high = min(values), max(values)
    across = (_WIDTH - 2 * _MARGIN) / max(right - left, 1)
    up = (_HEIGHT - 2 * _MARGIN) / max(high - low, 1e-9)
    parts = [f'<text x="{_MARGIN}" y="20" font-weight="bold">{title}</text>']
    for value, y in ((high, _MARGIN), (low, _HEIGHT - _MARGIN)):
        parts.append(f'<text x="4" y="{y + 4}">{value:.3g}</text>')
        parts.append(f'<path stroke="#ddd" d="M{_MARGIN} {y}H{_WIDTH - _MARGIN}"/>')
    parts.append(
        f'<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT - 20}" text-anchor="end">'
        f"{right:.0f} samples</text>"
    )
    for i, name in enumerate(names):
        color = _COLORS[i % len(_COLORS)]
        points = " ".join(
            f"{_MARGIN + (row['samples'] - left) * across:.1f},"
            f"{_HEIGHT - _MARGIN - (row[name] - low) * up:.1f}"
            for row in rows
            if math.isfinite(row.get(name, math.nan))
        )
        parts.append(f'<polyline fill="none" stroke="{color}" points="{points}"/>')
        x = _MARGIN + 160 + 140 * (i % 4)
        parts.append(f'<text x="{x}" y="{20 + 14 * (i // 4)}" fill="{color}">{name}</text>')
    return parts


def _svg(charts: Sequence[Sequence[str]]) -> str:
    height = _HEIGHT * max(1, len(charts))
    groups = [
        f'<g transform="translate(0 {_HEIGHT * i})">{"".join(chart)}</g>'
        for i, chart in enumerate(charts)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(groups)}</svg>\n'
    )
