"""What is in a data set: counts, sizes, broken entries, and a sheet to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.crops import Size, resample
from maskfix.errors import InstanceError
from maskfix.train.data import InstanceData, Objects

PERCENTILES = (5, 25, 50, 75, 95)
_TILE, _COLUMNS = 192, 6
_GOLDEN = 0.618034


@dataclass
class Statistics:
    """Numbers of a data set.

    Attributes:
        images: that were read.
        things, stuff: masks.
        empty: images without an instance.
        areas: of instances, pixels.
        heights, widths: of images.
        broken: a line for every image that cannot be used.
    """

    images: int = 0
    things: int = 0
    stuff: int = 0
    empty: int = 0
    areas: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The numbers, distributions as percentiles."""
        return {
            "images": self.images,
            "instances": self.things,
            "stuff": self.stuff,
            "images_without_instance": self.empty,
            "instances_per_image": round(self.things / max(1, self.images), 2),
            "area": _percentiles(self.areas),
            "height": _percentiles(self.heights),
            "width": _percentiles(self.widths),
            "broken": self.broken,
        }


def read_all(
    data: InstanceData, limit: int | None = None
) -> Iterator[tuple[int, NDArray[np.uint8] | None, Objects | str]]:
    """(index, image, objects or what is wrong) of evenly spaced records, all of them by default."""
    count = len(data.records)
    for index in np.linspace(0, count - 1, min(limit or count, count)).round().astype(int):
        try:
            yield int(index), data.image(int(index)), data.objects(int(index))
        except InstanceError as error:
            yield int(index), None, str(error)


def measure(data: InstanceData, limit: int | None = None) -> Statistics:
    """Decode every image and mask, or `limit` evenly spaced images, and count."""
    result = Statistics()
    for _, image, objects in read_all(data, limit):
        if isinstance(objects, str):
            result.broken.append(objects)
            continue
        assert image is not None
        result.images += 1
        result.things += len(objects.things)
        result.stuff += len(objects.stuff)
        result.empty += not objects.things
        result.areas += [mask.area for mask in objects.things]
        result.heights.append(image.shape[0])
        result.widths.append(image.shape[1])
    return result


def contact_sheet(data: InstanceData, count: int = 24) -> NDArray[np.uint8]:
    """Evenly spaced images with their instances in colour, (h, w, 3) uint8 RGB."""
    tiles = [
        _tile(image, objects)
        for _, image, objects in read_all(data, count)
        if image is not None and not isinstance(objects, str)
    ]
    rows = -(-max(1, len(tiles)) // _COLUMNS)
    sheet = np.full((rows * _TILE, _COLUMNS * _TILE, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        row, col = _TILE * (i // _COLUMNS), _TILE * (i % _COLUMNS)
        sheet[row : row + tile.shape[0], col : col + tile.shape[1]] = tile
    return sheet


def _tile(image: NDArray[np.uint8], objects: Objects) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    factor = (_TILE - 4) / max(height, width)
    size = Size(max(1, round(height * factor)), max(1, round(width * factor)))
    tile: NDArray[np.uint8] = np.array(resample(image, size), np.uint8)
    for number, mask in enumerate(objects.things):
        hsv = np.array([[[int(180 * (number * _GOLDEN % 1)), 220, 255]]], np.uint8)
        color = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))[0, 0]
        inside = resample(mask.to_array().astype(np.float32), size) > 0.5
        tile[inside] = (tile[inside].astype(np.uint16) + color) // 2
    return tile


def _percentiles(values: list[int]) -> dict[str, int]:
    if not values:
        return {}
    found = np.percentile(values, PERCENTILES)
    named = {f"p{p}": round(value) for p, value in zip(PERCENTILES, found, strict=True)}
    return {"min": min(values), **named, "max": max(values)}
