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
Points = NDArray[np.int64]  # (N, 2): x, y

MOST_PERIMETER = 4_000_000
"""Pixels; pycocotools walks along every edge in steps of a fifth of a pixel."""
SHARES = (1, 0.8, 0.6, 0.4, 0.2)
"""Of the tolerance, tried one after another."""
LEAST_AREA = 0.5
"""An outline that would lose more than this share of its area, as thin ones do, stays exact."""


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


def polygons_from_mask(mask: Mask, simplify: float = 0.0) -> tuple[list[Polygon], bool]:
    """Outlines of a mask, one polygon a part, and whether it has holes, which they cannot hold.

    The outline runs half way between pixels set and pixels not set, so that it rasterises back to
    the very same mask (holes aside). Fewer vertices cost pixels: docs/formats.md says how many.

    Args:
        mask: the object.
        simplify: leave out vertices that move the outline by at most so many pixels, see
            `simplified`; 0 is exact.
    """
    contours, hierarchy = cv2.findContours(
        _lattice(mask.bits), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    polygons, has_holes = [], False
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0] if contours else (), strict=True):
        if parent >= 0:
            has_holes = True
            continue
        whole = contour.reshape(-1, 2).astype(np.int64)
        outline = simplified(whole, 2 * simplify)  # the lattice has half pixels
        points = outline / 2 + (mask.box.left - 0.5, mask.box.top - 0.5)
        polygons.append(points.ravel().tolist())
    return polygons, has_holes


def simplified(outline: Points, tolerance: float) -> Points:
    """A closed outline with fewer vertices, by Douglas and Peucker.

    What is left out lies within ``tolerance`` of the side that takes its place. OpenCV drops some
    vertices more in the end and can go beyond; then a smaller tolerance is taken.

    Args:
        outline: (N, 2) whole numbers.
        tolerance: in their units; 0 for all vertices.

    Returns:
        (M, 2), some of the vertices in their order, at least three; all of them where fewer
        would be left, or less than half of the area inside.
    """
    whole = outline.astype(np.int32)
    for share in SHARES if tolerance else ():
        found = cv2.approxPolyDP(whole, share * tolerance, closed=True)
        if len(found) < 3 or cv2.contourArea(found) < LEAST_AREA * cv2.contourArea(whole):
            break
        kept = found.reshape(-1, 2).astype(np.int64)
        if _moved(outline, kept) <= tolerance:
            return kept
    return outline


def _moved(outline: Points, kept: Points) -> float:
    """How far vertices of an outline (N, 2) lie from the sides between those that were kept."""
    first = np.flatnonzero((outline == kept[0]).all(axis=1))  # several where it touches itself
    return min(_moved_from(np.roll(outline, -start, axis=0), kept) for start in first.tolist())


def _moved_from(outline: Points, kept: Points) -> float:
    """The same, where both begin at the same vertex; infinite if they do not follow each other."""
    points = [tuple(point) for point in outline.tolist()]
    places = [0]
    for corner in kept[1:].tolist():
        try:
            places.append(points.index(tuple(corner), places[-1] + 1))
        except ValueError:
            return np.inf
    side = np.repeat(np.arange(len(kept)), np.diff([*places, len(points)]))
    along, away = (np.roll(kept, -1, axis=0) - kept)[side], outline - kept[side]
    share = (along * away).sum(axis=1) / np.maximum(1, (along**2).sum(axis=1))
    apart = away - share.clip(0, 1)[:, None] * along
    return float(np.hypot(apart[:, 0], apart[:, 1]).max())


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
