"""The evaluation as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2a6fdb; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { margin-top: 2.4rem; font-size: 1.2rem }
.about, .legend { color: #888; font-size: .86rem; max-width: 75ch }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem }
th, td { padding: .32rem .7rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left; font-weight: 600 }
thead th { border-bottom: 2px solid var(--line); font-weight: 600 }
tbody tr { border-bottom: 1px solid var(--line) } tbody tr:hover { background: var(--soft) }
td.best { color: var(--accent); font-weight: 700 }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } .plots img { width: 46%; min-width: 320px }
.plots img, .strips img { background: #fff; border-radius: 6px }
.strips img { max-width: 100%; margin: .3rem 0; display: block }
"""


def make_page(
    content: Mapping[str, Any],
    tables: Sequence[tuple[str, list[list[str]]]],
    legend: str,
    plots: Sequence[tuple[str, Path]],
    strips: Sequence[tuple[tuple[str, str, str], Path]],
) -> str:
    """The page; pictures are within it."""
    models = ", ".join(
        f"{m['name']} ({m['network']}, {m['protocol']} protocol, {m['sha256'][:12]})"
        for m in content["models"]
    )
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'><title>maskfix eval</title>",
        f"<style>{STYLE}</style><h1>How many clicks it takes</h1>",
        f"<p class=about>{escape(models)}; maskfix {escape(content['maskfix'])}</p>",
    ]
    for title, table in tables:
        parts += [f"<h2>{escape(title)}</h2>", _table(table)]
    parts += [f"<p class=legend>{escape(text)}</p>" for text in legend.split("\n\n")]
    if plots:
        images = (_image(path, title) for title, path in plots)
        parts += ["<h2>Curves</h2><div class=plots>", *images, "</div>"]
    for key, group in groupby(strips, key=lambda pair: pair[0]):
        name = " / ".join(part for part in key if part not in ("-", "ritm"))
        images = (_image(path, f"{name} {path.stem}") for _, path in group)
        parts += [f"<h2>{escape(name)}: the hardest</h2><div class=strips>", *images, "</div>"]
    return "\n".join([*parts, "</html>\n"])


def _table(table: list[list[str]]) -> str:
    best = _best(table)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table[0])
    body = []
    for row in table[1:]:
        cells = (
            f"<td{' class=best' if best.get(column) == cell else ''}>{escape(cell)}</td>"
            for column, cell in enumerate(row)
        )
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f"<div class=wide><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _best(table: list[list[str]]) -> dict[int, str]:
    """The lowest NoC of each column, where there are several rows to choose from."""
    if len(table) < 3:
        return {}
    return {
        column: min((row[column] for row in table[1:]), key=float)
        for column, title in enumerate(table[0])
        if "NoC" in title
    }


def _image(path: Path, title: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<img alt='{escape(title, quote=True)}' src='data:image/png;base64,{data}'>"
