"""Plots of an evaluation (as Figures 4 and 6 of the paper). Needs matplotlib, an extra."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from maskfix.metrics import noc

SIZE, DPI = (5.2, 3.4), 120  # inches, dots an inch
COLORS = (
    *("#2f74e0", "#e2711d", "#1f9d66", "#c2378f", "#8a63d2"),
    *("#b8860b", "#0e9fb3", "#d1495b", "#7d8590", "#6b8e23"),
)
QUIET = "#8b93a1"  # readable on white and on black
AS_BARS = 3  # more entries than this are drawn as outlines


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        set: that it is about.
        title: what it shows.
        svg: without a legend, on no ground; its text has the color of what is around it.
    """

    set: str
    title: str
    svg: str


def write_plots(
    folder: Path, content: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> tuple[list[Plot], str]:
    """Draw, for every set, mean IoU after each click and the histogram of NoC, as PNG files.

    Args:
        folder: made if there is anything to write.
        content: of noc.json.
        rows: instances as the journal has them; gone through several times.

    Returns:
        the plots, and why there are none.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return [], "no plots without matplotlib: pip install 'maskfix[report]'"
    folder.mkdir(exist_ok=True)
    threshold = content["settings"]["thresholds"][-1]
    limit = min(20, content["settings"]["max_clicks"])
    plots = []
    for name in (entry["name"] for entry in content["sets"]):
        entries = [r for r in content["results"] if r["set"] == name]
        figure = Figure(SIZE, DPI, layout="constrained")
        _draw_curves(figure.add_subplot(), entries)
        title = "Mean IoU after each click"
        plots.append(Plot(name, title, _save(figure, folder / f"{safe_name(name)}-miou.png", name)))
        figure = Figure(SIZE, DPI, layout="constrained")
        counts = [_counts(rows, entry, threshold, limit) for entry in entries]
        _draw_histogram(figure.add_subplot(), entries, counts, limit)
        title = f"Instances by clicks to {100 * threshold:g} % IoU"
        plots.append(Plot(name, title, _save(figure, folder / f"{safe_name(name)}-noc.png", name)))
    return plots, ""


def safe_name(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)


def row_label(model: str, method: str) -> str:
    """What a row is called: its model and its method, without what goes without saying."""
    return " ".join(name for name in (model, method) if name not in ("-", "ritm"))


def row_color(index: int) -> str:
    """The color of a row in plots and tables."""
    return COLORS[index % len(COLORS)]


def _draw_curves(axes: Any, entries: Sequence[Mapping[str, Any]]) -> None:
    for i, entry in enumerate(entries):
        curve = entry["miou@k"]
        begin = [entry["miou@0"]] if entry["worse@1"] is not None else []
        axes.plot(
            range(1 - len(begin), len(curve) + 1),
            [*begin, *curve],
            marker=".",
            color=row_color(i),
            linewidth=max(1.5, 3.5 - i),  # so that a curve below an equal one is seen
            linestyle="-" if i < len(COLORS) else "--",
            label=row_label(entry["model"], entry["method"]),
        )
    axes.set(xlabel="clicks", ylabel="mean IoU")


def _draw_histogram(
    axes: Any, entries: Sequence[Mapping[str, Any]], counts: list[list[int]], limit: int
) -> None:
    axes.hist(
        counts,
        bins=[k + 0.5 for k in range(limit + 1)],
        histtype="bar" if len(entries) <= AS_BARS else "step",
        color=[row_color(i) for i in range(len(entries))],
        label=[row_label(entry["model"], entry["method"]) for entry in entries],
    )
    axes.set(xlabel=f"clicks ({limit}: or never)", ylabel="instances")


def _counts(
    rows: Iterable[Mapping[str, Any]], entry: Mapping[str, Any], threshold: float, limit: int
) -> list[int]:
    keys = ("set", "model", "method")
    own = (row for row in rows if all(row[key] == entry[key] for key in keys))
    lists = [(row["ious"] or [row["initial_iou"]])[:limit] for row in own]
    return [int(count) for count in noc(lists, threshold, limit)]


def _save(figure: Any, path: Path, title: str) -> str:
    """Write the PNG file, with title and legend; returns the SVG without."""
    from matplotlib import rc_context
    from matplotlib.ticker import MaxNLocator

    [axes] = figure.axes
    whole = partial(MaxNLocator, integer=True, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_locator(whole())
    if axes.get_ylabel() == "instances":
        axes.yaxis.set_major_locator(whole())
    axes.grid(alpha=0.3, color=QUIET)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(QUIET)
    axes.tick_params(color=QUIET)
    axes.set_title(title)
    legend = axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})
    legend.remove()
    axes.set_title("")
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
