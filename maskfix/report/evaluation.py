"""What `maskfix eval` writes: numbers for machines, tables for papers, pictures for the eye."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskfix.files import atomic_write
from maskfix.metrics import noc
from maskfix.report.evaluation_page import make_page
from maskfix.report.plots import row_label, write_plots

Key = tuple[str, str, str]
"""(set, model, method)."""


def write_report(
    folder: Path,
    content: dict[str, Any],
    rows: Sequence[Mapping[str, Any]],
    strips: Sequence[tuple[Key, Path]],
) -> list[str]:
    """Write noc.json, instances.csv, table.md, plots/*.png and report.html in a folder.

    noc.json is ``content``: ``format`` (1), ``maskfix`` (version), ``settings``, ``sets`` (with
    what is special about them in ``notes``), ``models`` (with checksums), ``machine``, ``methods``
    (titles by name), and ``results``: one entry a set, model and method, with the keys that
    `maskfix.evaluate.summarise` documents. All but ``spc`` and ``spc_published`` are the same
    however often a run was interrupted, and, on the CPU, for any batch size and worker count; the
    number of threads that torch computes with (``OMP_NUM_THREADS``, in ``machine``) may turn the
    last bit of a probability, and with it a pixel.

    instances.csv has one line an instance and entry: ``set, model, method, name, area, clicks,
    noc@..., biou, from_mask, broken@1, broken@end`` (pixels), then ``iou@0`` (before any click),
    ``iou@1``, ...; empty where no click was made.

    Args:
        folder: exists.
        content: see above.
        rows: instances as the journal has them, in order.
        strips: pictures of instances, by entry.

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


Table = list[list[str]]
"""Rows of cells, the first one the head."""


def make_tables(content: Mapping[str, Any]) -> list[tuple[str, Table]]:
    """The tables: NoC as papers print it, then one with everything a set."""
    results = content["results"]
    names = [entry["name"] for entry in content["sets"]]
    ats = [f"@{100 * t:g}" for t in content["settings"]["thresholds"]]
    head = ["Model", *(f"{name} NoC{at}" for name in names for at in ats)]
    by_key = {(r["set"], r["model"], r["method"]): r for r in results}
    lines = dict.fromkeys((r["model"], r["method"]) for r in results)
    overview = [head]
    for model, method in lines:
        found = [by_key[name, model, method][f"noc{at}"] for name in names for at in ats]
        overview.append([row_label(model, method), *(f"{clicks:.2f}" for clicks in found)])
    tables = [("Number of clicks", overview)]
    limit = content["settings"]["max_clicks"]
    for name in names:
        here = [r for r in results if r["set"] == name]
        tables.append((name, _details(here, ats, limit)))
    return tables


def markdown_tables(content: Mapping[str, Any]) -> str:
    """`make_tables` as Markdown."""
    tables = make_tables(content)
    return "\n".join(f"## {title}\n\n{_markdown(table)}" for title, table in tables)


def _details(results: Sequence[Mapping[str, Any]], ats: Sequence[str], limit: int) -> Table:
    """Everything about one set; a column a number."""
    low, top = min(20, limit), ats[-1]
    columns: dict[str, Any] = {"Model": lambda r: row_label(r["model"], r["method"]), "n": "n"}
    for at in ats:
        columns[f"NoC{at}"] = f"noc{at}"
    for at in ats:
        columns[f">={low}{at}"] = f"at_limit{at}"
    columns[f"failed{top}"] = f"failed{top}"
    if limit > low:
        for what, key in ((f"NoC{limit}", "noc"), (f">={limit}", "at_limit"), ("failed", "failed")):
            columns[f"{what}{top} of {limit}"] = f"{key}{limit}{top}"
    if any(r["worse@1"] is not None for r in results):
        columns["IoU@0"] = "miou@0"
        columns[f"already{top}"] = f"already{top}"
        columns["worse@1"], columns["worse@end"] = "worse@1", "worse@end"
        columns["broken@1"], columns["broken@end"] = "broken@1", "broken@end"
    for k in (1, 2, 3, 5, 10):
        if k <= limit:
            columns[f"IoU@{k}"] = lambda r, k=k: r["miou@k"][k - 1]
    columns |= {"area": "miou_area", "BIoU": "biou", "drops": "drops"}
    columns |= {"s/click": "spc", "SPC": "spc_published"}
    percent = {"worse@1", "worse@end", "broken@1", "broken@end", "drops"}
    table = [list(columns)]
    for result in results:
        cells = []
        for title, key in columns.items():
            value = result[key] if isinstance(key, str) else key(result)
            cells.append(_cell(value, title in percent, title.startswith("NoC")))
        table.append(cells)
    return table


def _cell(value: Any, as_percent: bool, as_clicks: bool) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        if as_percent:
            return f"{100 * value:.1f} %"
        return f"{value:.2f}" if as_clicks else f"{value:.3f}"
    return str(value)


def _markdown(table: Table) -> str:
    rule = ["---", *("---:" for _ in table[0][1:])]
    lines = [table[0], rule, *table[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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
    return "\n\n".join([*parts, *notes]) + "\n"


def _write_instances(
    path: Path, rows: Sequence[Mapping[str, Any]], thresholds: Sequence[float], limit: int
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ats = [f"noc@{100 * t:g}" for t in thresholds]
    ious = [f"iou@{k}" for k in range(limit + 1)]
    low = min(20, limit)
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
    atomic_write(path, text.getvalue())
