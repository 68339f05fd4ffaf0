"""What `maskfix eval` writes: numbers for machines, tables for papers, pictures for the eye."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskfix.files import atomic_stream, atomic_write
from maskfix.metrics import noc
from maskfix.report.evaluation_page import Strip, make_page
from maskfix.report.plots import write_plots
from maskfix.report.tables import make_tables, markdown_tables, sources


def write_report(
    folder: Path,
    content: dict[str, Any],
    rows: Iterable[Mapping[str, Any]],
    strips: Sequence[Strip],
) -> list[str]:
    """Write noc.json, instances.csv, table.md, plots/*.png and report.html in a folder.

    noc.json is ``content``: ``format`` (1), ``maskfix`` (version), ``settings``, ``sets`` (with
    what is special about them in ``notes``), ``models`` (with checksums), ``machine``, ``methods``
    (titles by name), ``results``: one entry a set, model and method, with the keys that
    `maskfix.evaluate.summarise` documents, and, on request, ``published``: what others have
    measured, see `maskfix.report.published.published_results`. All but ``spc`` and
    ``spc_published`` are the same however often a run was interrupted, and, on the CPU, for any
    batch size and worker count; with methods other than ``ritm`` the number of threads that torch
    computes with (``OMP_NUM_THREADS``, in ``machine``) may turn the last bit of a probability, and
    with it a pixel.

    instances.csv has one line an instance and entry: ``set, model, method, name, area, clicks,
    noc@..., biou, from_mask, broken@1, broken@end`` (pixels), then ``iou@0`` (before any click),
    ``iou@1``, ...; empty where no click was made.

    Args:
        folder: exists.
        content: see above.
        rows: instances as the journal has them, in order; gone through several times.
        strips: pictures of instances, those of an entry side by side.

    Returns:
        what could not be written and why, a sentence each.
    """
    atomic_write(folder / "noc.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    thresholds, limit = content["settings"]["thresholds"], content["settings"]["max_clicks"]
    _write_instances(folder / "instances.csv", rows, thresholds, limit)
    tables = make_tables(content)
    atomic_write(folder / "table.md", f"{markdown_tables(content)}\n{_legend(content)}")
    plots, note = write_plots(folder / "plots", content, rows)
    page = make_page(content, tables, _legend(content), plots, strips)
    atomic_write(folder / "report.html", page)
    return [note] if note else []


def _legend(content: Mapping[str, Any]) -> str:
    settings, low = content["settings"], min(20, content["settings"]["max_clicks"])
    notes = [f"{entry['name']}: {note}." for entry in content["sets"] for note in entry["notes"]]
    stop = (
        "never stops early"
        if settings["target_iou"] > 1
        else f"stops at an IoU of {settings['target_iou']:g}, which an instance then keeps in IoU@k"
    )
    parts = [
        f"NoC@t: mean clicks to an IoU of t %, at most {low}. >={low}@t: instances whose NoC is "
        f"the limit; failed: those that never get there. The simulated user {stop}.",
        "IoU@k: mean IoU after k clicks; area: its mean over the clicks; BIoU: Boundary IoU in the "
        "end; drops: clicks after the first that lower the IoU by more than 1 %. s/click: network "
        "and simulated user; SPC: with reading the image, as published.",
    ]
    if any(r["worse@1"] is not None for r in content["results"]):
        parts.append(
            "From masks: already: at the threshold without a click; worse: instances more than 1 % "
            "below the given mask after the first click, in the end; broken: pixels that were "
            "right and are wrong then."
        )
    if content.get("published"):
        parts.append(
            "Published: copied from the source in brackets, not measured here; whole sets, at most "
            "20 clicks, other machines."
        )
        parts += [f"[{i}] {source}." for i, source in enumerate(sources(content), 1)]
    return "\n\n".join([*parts, *notes]) + "\n"


def _write_instances(
    path: Path, rows: Iterable[Mapping[str, Any]], thresholds: Sequence[float], limit: int
) -> None:
    ats = [f"noc@{100 * t:g}" for t in thresholds]
    ious = [f"iou@{k}" for k in range(limit + 1)]
    low = min(20, limit)
    with atomic_stream(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([
            "set", "model", "method", "name", "area", "clicks", *ats, "biou", "from_mask",
            "broken@1", "broken@end", *ious,
        ])  # fmt: skip
        for row in rows:
            values = row["ious"] or [row["initial_iou"]]
            needed = [int(noc([values[:low]], t, low)[0]) for t in thresholds]
            curve = [row["initial_iou"], *row["ious"]]
            writer.writerow([
                row["set"], row["model"], row["method"], row["name"], row["area"],
                len(row["clicks"]), *needed, f"{row['boundary_iou']:.6f}", int(row["from_mask"]),
                *row["broken"], *(f"{iou:.9g}" for iou in curve), *[""] * (len(ious) - len(curve)),
            ])  # fmt: skip
        text.detach()
