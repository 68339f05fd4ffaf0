"""YOLO-seg: a text file an image, a line an instance: class, then x y of one polygon.

A line holds one polygon without holes. So the outlines of a mask, of parts and of holes, are joined
into one: largest first, each by a cut of no width from its point nearest to what is there already,
there and back. Vertices are the centres of the border pixels, as fractions of the image: drawn as
Ultralytics draws them (whole pixels, border included, even-odd), parts and holes come back as they
were; what cuts through the background and details of one pixel cost is measured.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import cKDTree

from maskfix.exporting.writer import Facts, FileNames, Settings, SizedItem, Thing, Writer, cost
from maskfix.masks import BoolArray
from maskfix.polygons import Points, simplified

MOST_OUTLINES = 100
"""Of one mask; smaller parts and holes are left out, which the loss says."""


class YoloWriter(Writer):
    """``labels/IMAGE.txt``, ``data.yaml`` and, where it can be made, a link ``images``.

    Crowds and empty masks are left out; an image without a mask has an empty file.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self._names = FileNames(folder / "labels")
        self._losses: list[float] = []
        self._points = 0

    def add(self, item: SizedItem, things: list[Thing]) -> int:
        """See `Writer`."""
        lines = []
        for annotation, mask in things:
            if annotation.is_crowd or not mask.area:
                continue
            outline = joined_outline(mask.bits, self.settings.simplify)
            self._points += len(outline)
            self._losses.append(1 - _iou(drawn(outline, mask.bits.shape), mask.bits))
            corner = (mask.box.left + 0.5, mask.box.top + 0.5)
            fractions = (outline + corner) / (item.width, item.height)
            numbers = " ".join(f"{value:.6f}" for value in fractions.ravel())
            lines.append(f"{self.classes.place(annotation)} {numbers}\n")
        self._names.path(item, ".txt").write_text("".join(lines), encoding="ascii")
        return len(lines)

    def close(self) -> Facts:
        """See `Writer`."""
        names = "".join(
            f"  {place}: {json.dumps(name, ensure_ascii=False)}\n"
            for place, name in enumerate(self.classes.names)
        )
        text = f"train: images\nval: images\nnames:\n{names}"
        (self.folder / "data.yaml").write_text(text, encoding="utf-8")
        notes = []
        try:
            os.symlink(self.settings.images.resolve(), self.folder / "images")
        except OSError:
            notes.append("copy the images into a folder images beside labels")
        numbers, note = cost("one polygon an instance costs", self._losses)
        return Facts({"points": self._points, **numbers}, (*notes, note))


def joined_outline(bits: BoolArray, simplify: float = 0.0) -> Points:
    """One closed outline of a mask, (N, 2) of x, y in pixels of the box, N at least 3.

    Args:
        bits: (h, w), not empty.
        simplify: see `maskfix.polygons.simplified`; in pixels.
    """
    found, _ = cv2.findContours(bits.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outlines = [contour.reshape(-1, 2).astype(np.int64) for contour in found]
    outlines.sort(key=len, reverse=True)
    outlines = [simplified(outline, simplify) for outline in outlines[:MOST_OUTLINES]]
    path = outlines[0]
    for outline in outlines[1:]:
        distances, nearest = cKDTree(path).query(outline)
        there = int(np.argmin(distances))
        here = int(nearest[there])
        around = np.roll(outline, -there, axis=0)
        path = np.concatenate([path[: here + 1], around, around[:1], path[here:]])
    path = _without_straight(path)
    return np.resize(path, (max(3, len(path)), 2))


def drawn(outline: Points, shape: tuple[int, ...]) -> BoolArray:
    """The pixels of an outline as Ultralytics draws it, (h, w) bool."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [outline.astype(np.int32)], 1)
    return canvas.view(bool)


def _without_straight(path: Points) -> Points:
    """Drop the points in the middle of straight lines."""
    before, after = path - np.roll(path, 1, axis=0), np.roll(path, -1, axis=0) - path
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    ahead = (before * after).sum(axis=1)
    kept: Points = path[(turn != 0) | (ahead <= 0)]
    return kept


def _iou(a: BoolArray, b: BoolArray) -> float:
    return int(np.count_nonzero(a & b)) / max(1, int(np.count_nonzero(a | b)))
