"""CVAT's own XML ("CVAT for images 1.1"), whose masks hold parts and holes.

A mask is its box and the run lengths of the pixels in it, row by row, the first run of pixels that
are not set.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from maskfix.exporting.writer import Facts, Settings, SizedItem, Thing, Writer
from maskfix.masks import BoolArray

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class CvatWriter(Writer):
    """``annotations.xml``; smaller masks lie above larger ones. Empty masks are left out."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self._images = self.spill()
        self._count = 0

    def add(self, item: SizedItem, things: list[Thing]) -> int:
        """See `Writer`."""
        shown = sorted((t for t in things if t.mask.area), key=lambda thing: -thing.mask.area)
        self._images.write(
            f'<image id="{self._count}" name={_quoted(item.file)} width="{item.width}" '
            f'height="{item.height}">\n'
        )
        for depth, thing in enumerate(shown):
            name = self.classes.names[self.classes.place(thing.annotation)]
            box = thing.mask.box
            self._images.write(
                f'<mask label={_quoted(name)} source="file" occluded="0" '
                f'rle="{", ".join(map(str, row_runs(thing.mask.bits)))}" left="{box.left}" '
                f'top="{box.top}" width="{box.width}" height="{box.height}" z_order="{depth}">'
                "</mask>\n"
            )
        self._images.write("</image>\n")
        self._count += 1
        return len(shown)

    def close(self) -> Facts:
        """See `Writer`."""
        labels = "".join(
            f"<label><name>{escape(_clean(name))}</name><type>mask</type>"
            "<attributes></attributes></label>\n"
            for name in dict.fromkeys(self.classes.names)
        )
        self._images.seek(0)
        file = self.create("annotations.xml")
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
        file.write("<version>1.1</version>\n<meta><task>")
        file.write(f"<size>{self._count}</size><mode>annotation</mode>\n")
        file.write(f"<labels>\n{labels}</labels></task></meta>\n")
        shutil.copyfileobj(self._images, file)
        file.write("</annotations>\n")
        return Facts()


def row_runs(bits: BoolArray) -> list[int]:
    """Lengths of alternating runs along the rows of (h, w) bits, the first of zeros."""
    flat = bits.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    runs: list[int] = np.diff(edges, prepend=0, append=flat.size).tolist()
    return runs


def _quoted(text: str) -> str:
    return quoteattr(_clean(text))


def _clean(text: str) -> str:
    """Characters that XML cannot hold are replaced."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
