"""Plots of an evaluation (as Figures 4 and 6 of the paper). Needs matplotlib, an extra."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskfix.metrics import noc

SIZE, DPI = (5.2, 3.6), 120  # inches, dots an inch


def write_plots(
    folder: Path, content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> tuple[list[tuple[str, Path]], str]:
    """Draw, for every set, mean IoU after each click and the histogram of NoC.

    Args:
        folder: made if there is anything to write.
        content: of noc.json.
        rows: instances as the journal has them.

    Returns:
        (title, file) of what was written, and why nothing was.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return [], "no plots without matplotlib: pip install 'maskfix[report]'"
    folder.mkdir(exist_ok=True)
    threshold = content["settings"]["thresholds"][-1]
    limit = min(20, content["settings"]["max_clicks"])
    written = []
    for name in (entry["name"] for entry in content["sets"]):
        entries = [r for r in content["results"] if r["set"] == name]
        safe = safe_name(name)
        figure = Figure(SIZE, DPI, layout="constrained")
        axes = figure.add_subplot()
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for entry in entries:
            curve = entry["miou@k"]
            begin = [entry["miou@0"]] if entry["worse@1"] is not None else []
            clicks = range(1 - len(begin), len(curve) + 1)
            axes.plot(
                clicks,
                [*begin, *curve],
                marker=".",
                label=row_label(entry["model"], entry["method"]),
            )
        axes.set(xlabel="clicks", ylabel="mean IoU", title=name)
        written.append((f"{name}: mean IoU", _save(figure, folder / f"{safe}-miou.png")))
        figure = Figure(SIZE, DPI, layout="constrained")
        axes = figure.add_subplot()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        counts = [_counts(rows, entry, threshold, limit) for entry in entries]
        edges = [k + 0.5 for k in range(limit + 1)]
        axes.hist(
            counts,
            bins=edges,
            label=[row_label(entry["model"], entry["method"]) for entry in entries],
        )
        axes.set(xlabel=f"clicks to {100 * threshold:g} % IoU", ylabel="instances", title=name)
        written.append((f"{name}: clicks needed", _save(figure, folder / f"{safe}-noc.png")))
    return written, ""


def safe_name(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)


def _counts(
    rows: Sequence[Mapping[str, Any]], entry: Mapping[str, Any], threshold: float, limit: int
) -> list[int]:
    keys = ("set", "model", "method")
    own = [row for row in rows if all(row[key] == entry[key] for key in keys)]
    lists = [(row["ious"] or [row["initial_iou"]])[:limit] for row in own]
    return [int(count) for count in noc(lists, threshold, limit)]


def row_label(model: str, method: str) -> str:
    """What a row is called: its model and its method, without what goes without saying."""
    return " ".join(name for name in (model, method) if name not in ("-", "ritm"))


def _save(figure: Any, path: Path) -> Path:
    [axes] = figure.axes
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})
    return path
