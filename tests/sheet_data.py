"""Small sets of images and masks for the tests of pages, and what is in a page."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from maskfix.cli.main import main

HEIGHT, WIDTH = 96, 128
ROW, COL, RADIUS = 48, 60, 22

HOSTILE = (
    "</script><script>document.title = 'owned'</script>",
    '"><img src=x onerror="document.title = \'owned\'">',
    "a'b\"c`${1}\\ \u2028 \u2029 \u00e9 \U0001f63a <!-- &lt;",
    "{{x}} : - # & * ! | > % @",
)
"""Names that want to run, or to break out of a string."""


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["maskfix", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        main()
    return int(exit_info.value.code or 0)


def disk(row: int = ROW, col: int = COL, radius: int = RADIUS) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - row) ** 2 + (x - col) ** 2 < radius**2


def encoded(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def write_disk(path: Path, mask: np.ndarray) -> None:
    """A picture of a blue disk on noise."""
    pixels = np.random.default_rng(0).integers(20, 60, (*mask.shape, 3)).astype(np.uint8)
    pixels[mask] = [60, 90, 210]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_set(
    folder: Path,
    annotations: list[dict[str, Any]],
    names: list[str],
    files: list[str] | None = None,
) -> Path:
    """preds.json with disks whose top is missing, and its images.

    Args:
        folder: made, if needed.
        annotations: whatever is given overrules the default.
        names: of the categories 1, 2, ...
        files: of the images 1, 2, ...; by default a.png alone.
    """
    files = files or ["a.png"]
    for file in files:
        write_disk(folder / "images" / file, disk())
    cut = disk()
    cut[: ROW - 8] = False
    entries = [
        {"id": 10 + i, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 1,
         "bbox": [0, 0, 1, 1], "segmentation": encoded(cut), **entry}
        for i, entry in enumerate(annotations)
    ]  # fmt: skip
    content = {
        "images": [
            {"id": i, "file_name": file, "height": HEIGHT, "width": WIDTH}
            for i, file in enumerate(files, start=1)
        ],
        "annotations": entries,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
    }
    path = folder / "preds.json"
    path.write_text(json.dumps(content))
    return path


class Page(HTMLParser):
    """The scripts of a page, as a browser would find them.

    Attributes:
        blocks: id of a data block -> its content.
        programs: text of the scripts that run.
        policy: the content security policy.
        tags: how often each element occurs.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.blocks: dict[str, Any] = {}
        self.programs: list[str] = []
        self.policy = ""
        self.tags: dict[str, int] = {}
        self._script: dict[str, str | None] | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        found = dict(attrs)
        if tag == "script":
            self._script = found
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, text: str) -> None:
        if self._script is None:
            return
        if self._script.get("type") == "application/json":
            self.blocks[self._script["id"] or ""] = json.loads(text)
        else:
            self.programs.append(text)

    @property
    def items(self) -> list[dict[str, Any]]:
        return list(self.blocks["content"]["items"])

    @property
    def about(self) -> dict[str, Any]:
        return dict(self.blocks["content"]["about"])

    def picture(self, number: int) -> dict[str, Any]:
        return dict(self.blocks[f"picture-{number}"])
