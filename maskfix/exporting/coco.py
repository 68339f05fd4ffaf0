"""COCO ground truth, with what maskfix knows and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from maskfix.exporting.writer import Facts, Settings, SizedItem, Thing, Writer, cost
from maskfix.formats.base import Id
from maskfix.formats.segmentation import Kind, as_written, encode
from maskfix.masks import Mask, iou

WITH_IDS = frozenset({"coco", "lvis"})
"""Formats whose annotation ids are kept; those of others are positions, or unique per image."""


class CocoWriter(Writer):
    """``annotations.json``.

    Run lengths for all masks; or polygons, and run lengths for masks with holes. Crowds are run
    lengths always. Area and box are those of what is written. Ids of images, categories and
    annotations stay where they are numbers.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self._file = self.create("annotations.json")
        self._file.write('{"annotations": [')
        self._images = self.spill()
        self._count = self._image_count = self._with_holes = self._points = 0
        self._losses: list[float] = []

    def add(self, item: SizedItem, things: list[Thing]) -> int:
        """See `Writer`."""
        self._image_count += 1
        image_id = item.image_id if isinstance(item.image_id, int) else self._image_count
        entry = {
            "id": image_id,
            "file_name": item.file,
            "height": item.height,
            "width": item.width,
        }
        self._images.write(("" if self._image_count == 1 else ",\n") + json.dumps(entry))
        for thing in things:
            self._count += 1
            text = json.dumps(self._annotation(image_id, thing))
            self._file.write(("\n" if self._count == 1 else ",\n") + text)
        return len(things)

    def close(self) -> Facts:
        """See `Writer`."""
        self._file.write('],\n"images": [')
        self._images.seek(0)
        shutil.copyfileobj(self._images, self._file)
        categories = [
            {"id": _number(key, place), "name": name}
            for place, (key, name) in enumerate(self.classes.items())
        ]
        self._file.write(f'],\n"categories": {json.dumps(categories)}}}\n')
        numbers: dict[str, float] = {}
        notes = []
        if self.settings.segmentation == "polygon":
            numbers["points"] = self._points
        if self._losses:
            losses, note = cost("polygons with fewer points cost", self._losses)
            numbers |= losses
            notes.append(note)
        if self._with_holes:
            numbers["written_as_rle"] = self._with_holes
            what = "masks have holes, which polygons cannot hold: run lengths"
            notes.append(f"{self._with_holes} {what}")
        return Facts(numbers, tuple(notes))

    def _annotation(self, image_id: int, thing: Thing) -> dict[str, Any]:
        annotation, mask = thing
        polygon = self.settings.segmentation == "polygon" and not annotation.is_crowd
        segmentation, written = self._encoded(mask, "polygon" if polygon else "rle")
        keeps_id = self.settings.source.format in WITH_IDS and isinstance(annotation.id, int)
        box = written.box
        entry = {
            "id": annotation.id if keeps_id else self._count,
            "image_id": image_id,
            "category_id": _number(annotation.category_id, self.classes.place(annotation)),
            "segmentation": segmentation,
            "area": written.area,
            "bbox": [box.left, box.top, box.width, box.height],
            "iscrowd": int(annotation.is_crowd),
        }
        return entry if annotation.score is None else {**entry, "score": annotation.score}

    def _encoded(self, mask: Mask, kind: Kind) -> tuple[Any, Mask]:
        """A mask's segmentation and what that says of it, counted."""
        simplify = self.settings.simplify
        segmentation, note = encode(mask, kind, simplify=simplify)
        self._with_holes += note is not None and mask.area > 0
        written = as_written(mask, segmentation, simplify)
        if isinstance(segmentation, list):
            self._points += sum(len(polygon) // 2 for polygon in segmentation)
            if simplify:
                self._losses.append(1 - iou(mask, written))
        return segmentation, written


def _number(key: Id | None, place: int) -> int:
    """A category's id: its own if that is a number, else its place counted from 1."""
    return key if isinstance(key, int) else place + 1
