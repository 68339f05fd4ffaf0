"""COCO polygons <-> `Mask`.

A polygon is a flat list x0, y0, x1, y1, ... in corner coordinates: pixel (column x, row y) covers
the square from (x, y) to (x + 1, y + 1), its centre is (x + 0.5, y + 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from maskfix.errors import InstanceError
from maskfix.masks import Mask
from maskfix.rle import check_counts, counts_from_text, mask_from_counts

Polygon = list[float]

MOST_PERIMETER = 4_000_000
"""Pixels; pycocotools walks along every edge in steps of a fifth of a pixel."""


def mask_from_polygons(polygons: Sequence[object], height: int, width: int) -> Mask:
    """The union of polygons, rasterised exactly as pycocotools does; what is outside is clipped.

    A polygon without area adds few or no pixels, as in pycocotools; it is no error.

    Raises:
        InstanceError: a polygon that is no list of at least three pairs of finite numbers, or one
            absurdly larger than any image.
    """
    checked = [_check(polygon, part) for part, polygon in enumerate(polygons)]
    if not checked or not height or not width:
        return Mask.empty(height, width)
    runs = coco_mask.merge(coco_mask.frPyObjects(checked, height, width))
    counts = check_counts(counts_from_text(runs["counts"]), height, width)
    return mask_from_counts(counts, height, width)


def polygons_from_mask(mask: Mask) -> tuple[list[Polygon], bool]:
    """Outlines of a mask, one polygon a part, and whether it has holes, which they cannot hold.

    The outline runs half way between pixels set and pixels not set, so that it rasterises back to
    the very same mask (holes aside). Fewer vertices would cost pixels: at a tolerance of half a
    pixel half of them go, and 0.7 % of IoU with them.
    """
    contours, hierarchy = cv2.findContours(
        _lattice(mask.bits), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    polygons, has_holes = [], False
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0] if contours else (), strict=True):
        if parent >= 0:
            has_holes = True
            continue
        points = contour.reshape(-1, 2) / 2 + (mask.box.left - 0.5, mask.box.top - 0.5)
        polygons.append(points.ravel().tolist())
    return polygons, has_holes


def _lattice(bits: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pixels, the edges and the corners between them as one grid, (2h + 3, 2w + 3) uint8.

    Pixel (r, c) is the site (2r + 2, 2c + 2). An edge is set if either of its pixels is, a corner
    if two of its four are: the outline of the set sites is then the line half way between pixels.
    """
    height, width = bits.shape
    pixels = np.pad(bits, 1).astype(np.uint8)
    sites = np.zeros((2 * height + 3, 2 * width + 3), np.uint8)
    sites[::2, ::2] = pixels
    sites[::2, 1::2] = pixels[:, 1:] | pixels[:, :-1]
    sites[1::2, ::2] = pixels[1:] | pixels[:-1]
    four = pixels[1:, 1:] + pixels[:-1, 1:] + pixels[1:, :-1] + pixels[:-1, :-1]
    sites[1::2, 1::2] = four >= 2
    return sites


def _check(polygon: object, part: int) -> Polygon:
    """One polygon as plain floats that pycocotools can take."""
    if not isinstance(polygon, list | tuple):
        raise InstanceError(
            f"polygon {part} must be a list of numbers x0, y0, x1, y1, ..., found {polygon!r:.40}"
        )
    if len(polygon) < 6 or len(polygon) % 2:
        raise InstanceError(
            f"polygon {part} has {len(polygon)} numbers; needed: three or more pairs x, y"
        )
    for value in polygon:
        if not isinstance(value, int | float) or not abs(value) <= MOST_PERIMETER:
            raise InstanceError(f"polygon {part} has {value!r:.40} for a coordinate")
    points = np.array(polygon, np.float64).reshape(-1, 2)
    perimeter = float(np.abs(points - np.roll(points, 1, axis=0)).sum())
    if perimeter > MOST_PERIMETER:
        raise InstanceError(f"polygon {part} is {perimeter:.0f} pixels round, more than any image")
    return [float(value) for value in polygon]
