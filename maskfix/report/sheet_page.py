"""A page of instances to look at and to click on: one HTML file that needs nothing else.

The page is made of assets/*: markup without any text of the user's, a style, and scripts that share
one scope. What is shown lies in data blocks (script elements of type application/json), which no
browser runs; the scripts put it into text nodes and attributes only. A content security policy
names the hash of the one script that may run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from maskfix.files import atomic_stream
from maskfix.version import __version__

PER_PAGE = {"sheet": 48, "report": 24}  # cards that are shown at once
DOWNLOADED = "~/Downloads/clicks.yaml"  # where browsers put it; its name gets date and time

_SHARED = ("dom", "marks", "script", "stage", "card", "dialogs", "gallery")
_SCRIPTS = {"sheet": (*_SHARED, "sheet"), "report": (*_SHARED, "charts", "report")}
_TITLES = {"sheet": "maskfix: click sheet", "report": "maskfix: refined masks"}


def write_page(
    path: Path,
    kind: Literal["sheet", "report"],
    pictures: Iterable[tuple[int, dict[str, Any]]],
    items: Sequence[dict[str, Any]],
    about: dict[str, Any],
    summary: dict[str, Any] | None = None,
) -> None:
    """Write a page, picture by picture, so that memory stays flat.

    Args:
        path: the file.
        kind: which page.
        pictures: (position in items, see `maskfix.report.sheet_picture`).
        items: one instance each; read when the pictures are used up, so it may grow with them.
        about: see assets/gallery.js; ``key``, under which the browser keeps what was marked, is
            made here from the content: marks of other masks are never shown on these.
        summary: of a run, for a report.
    """
    digest = hashlib.sha256(kind.encode())
    script = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS[kind])
    with atomic_stream(path) as stream:
        stream.write(_head(kind, script).encode())
        for position, picture in pictures:
            block = _block(f"picture-{position}", picture)
            digest.update(block)
            stream.write(block)
        digest.update(_plain_json(items).encode())
        key = f"maskfix:{kind}:{digest.hexdigest()[:16]}"
        about = {**about, "key": key, "perPage": PER_PAGE[kind]}
        stream.write(_block("content", {"about": about, "items": items, "summary": summary}))
        stream.write(f'<script type="module">{script}</script>\n</html>\n'.encode())


def _head(kind: str, script: str) -> str:
    """Everything before the data."""
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    policy += f"script-src 'sha256-{hashed}'"
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="maskfix {__version__}">
<title>{_TITLES[kind]}</title>
<style>
{_asset("page.css")}</style>
<body class="{kind}" data-outline="outline">
<noscript>This page needs JavaScript.</noscript>
{_asset(f"{kind}.html")}{_asset("gallery.html")}"""


def _block(name: str, content: Any) -> bytes:
    return f'<script type="application/json" id="{name}">{_plain_json(content)}</script>\n'.encode()


def _plain_json(content: Any) -> str:
    """JSON in ASCII without any character that could end its element or begin another."""
    text = json.dumps(content, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (resources.files("maskfix.report") / "assets" / name).read_text(encoding="utf-8")
