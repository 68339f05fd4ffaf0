"""The evaluation as one HTML page that needs nothing else: no script, no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import cv2

from maskfix.report.plots import Plot, row_color
from maskfix.report.tables import Table

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
QUALITY = 85  # of pictures within the page, JPEG


@dataclass(frozen=True)
class Strip:
    """A picture of the progress of one instance.

    Attributes:
        key: (set, model, method).
        caption: below it.
        path: PNG file.
    """

    key: tuple[str, str, str]
    caption: str
    path: Path


def make_page(
    content: Mapping[str, Any],
    tables: Sequence[Table],
    legend: str,
    plots: Sequence[Plot],
    strips: Sequence[Strip],
) -> str:
    """The page; pictures are within it.

    Args:
        content: of noc.json.
        tables: as of `maskfix.report.tables.make_tables`.
        legend: paragraphs that explain the columns.
        plots: of all sets.
        strips: those of an entry side by side.
    """
    colors = {
        key: row_color(i)
        for i, key in enumerate(
            dict.fromkeys((r["model"], r["method"]) for r in content["results"])
        )
    }
    used = [f"maskfix {content['maskfix']}"] + [
        f"{m['name']} ({m['network']}, {m['protocol']} protocol, {m['sha256'][:12]})"
        for m in content["models"]
    ]
    overview, *details = tables
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>maskfix eval</title><style>{_styles('page', 'evaluation')}</style>",
        "<body class=evaluation><header class=title><h1>How many clicks it takes</h1>",
        f"<p>{escape(', '.join(used))}</p></header>",
        _table(overview, colors),
        "<details class=legend><summary>What the columns mean</summary>",
        *(f"<p>{escape(text)}</p>" for text in legend.strip().split("\n\n")),
        "</details>",
    ]
    for entry, table in zip(content["sets"], details, strict=True):
        parts += [
            f"<section><h2>{escape(table.title)}</h2>{_about(entry)}",
            _table(table, colors),
            "<div class=charts>",
            *(_chart(plot) for plot in plots if plot.set == table.title),
            "</div>",
            *_strips([strip for strip in strips if strip.key[0] == table.title]),
            "</section>",
        ]
    return "\n".join([*parts, "</body></html>\n"])


def _styles(*names: str) -> str:
    assets = resources.files("maskfix.report") / "assets"
    return "\n".join((assets / f"{name}.css").read_text(encoding="utf-8") for name in names)


def _about(entry: Mapping[str, Any]) -> str:
    """How much of a set was evaluated, and from what."""
    count = f"{entry['evaluated']} of {entry['instances']} instances"
    return f"<p class=small>{count}, from {'given masks' if entry['initial'] else 'scratch'}</p>"


def _table(table: Table, colors: Mapping[tuple[str, str], str]) -> str:
    dots = [f"<i class=dot style='background:{colors[key]}'></i>" for key in table.keys]
    body, first_published = [], len(table.rows) - table.published
    for i, row in enumerate(table.rows):
        if i == first_published:
            line = f"<th colspan={len(row)}>Published by others, not measured here</th>"
            body.append(f"<tr class=divider>{line}</tr>")
        name = f"<th>{dots[i] if i < first_published else ''}{escape(row[0])}</th>"
        cells = (
            f"<td class='{table.marks.get((i, j), '')}'>{escape(cell)}</td>"
            for j, cell in enumerate(row[1:], 1)
        )
        body.append(f"<tr>{name}{''.join(cells)}</tr>")
    return (
        f"<div class=wide><table><thead>{_head(table)}</thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _head(table: Table) -> str:
    """Two lines: groups of columns, and what differs within them."""
    upper = (f"<th colspan={count}>{escape(text)}</th>" for text, count in table.groups())
    lower = (
        f"<th title='{escape(c.title, quote=True)}'>{escape(c.short or c.title)}</th>"
        for c in table.columns
    )
    return f"<tr>{''.join(upper)}</tr><tr>{''.join(lower)}</tr>"


def _chart(plot: Plot) -> str:
    title = escape(plot.title)
    return f"<figure class=chart><figcaption>{title}</figcaption>{plot.svg}</figure>"


def _strips(strips: Sequence[Strip]) -> Iterable[str]:
    """A fold an entry, the first one open."""
    for i, key in enumerate(dict.fromkeys(strip.key for strip in strips)):
        name = escape(" / ".join(part for part in key if part not in ("-", "ritm")))
        yield f"<details class=strips{' open' if i == 0 else ''}>"
        yield f"<summary>{name}: the hardest</summary>"
        for strip in (strip for strip in strips if strip.key == key):
            caption = escape(strip.caption, quote=True)
            image = f"<img loading=lazy alt='{caption}' src='{_data(strip.path)}'>"
            yield f"<figure><div class=wide>{image}</div>"
            yield f"<figcaption>{caption}</figcaption></figure>"
        yield "</details>"


def _data(path: Path) -> str:
    """A PNG file as the address of a smaller picture."""
    image = cv2.imread(str(path))
    assert image is not None, path
    done, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return f"data:image/jpeg;base64,{base64.b64encode(packed.tobytes()).decode()}"
