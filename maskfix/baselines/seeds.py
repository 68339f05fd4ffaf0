"""What clicks, and a mask to start from, say of the pixels: seeds that classical methods grow.

- A click makes a small disk of seeds; where disks overlap, the nearest click counts.
- A mask to start from makes seeds of what lies deep inside it and deep outside, as a trimap; the
  band between is left open. A click that contradicts the mask takes the seeds around it away, as
  far as the error may reach that it was meant for.
- Without a mask, the frame of the image is weak evidence for the background: the published
  protocol of clicks starts with a single positive one, of which alone no classical method can tell
  where the object ends. Clicks overrule it.

Legend: h, w the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.predictor.session import NetworkPoint

BoolArray = NDArray[np.bool_]

RADIUS = 3.0  # of a click's disk, in pixels of the grid
BAND = 0.1  # what a given mask leaves open on both sides, in square roots of its area
REACH = 2.0  # a contradicting click frees the mask so far, in depths of the click


@dataclass(frozen=True)
class Scene:
    """An image with seeds.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        clicked: (h, w) bool, seeds from clicks, of both kinds.
        inside: (h, w) bool, all seeds of the object.
        outside: (h, w) bool, all seeds of the background, the frame among them.
        given: (h, w) bool, the mask to start from; None for none.
    """

    image: NDArray[np.uint8]
    clicked: BoolArray
    inside: BoolArray
    outside: BoolArray
    given: BoolArray | None


def make_scene(
    image: NDArray[np.uint8], points: Sequence[NetworkPoint], given: BoolArray | None
) -> Scene:
    """Turn clicks, and a mask if there is one, into seeds.

    Args:
        image: (h, w, 3) uint8 RGB.
        points: the clicks in pixels of the grid, in order.
        given: (h, w) bool, the mask to start from.
    """
    height, width = image.shape[:2]
    labels = _disks(points, height, width)
    if given is None or not given.any():
        inside, outside = np.zeros((height, width), bool), _frame(height, width)
    else:
        inside, outside = _trimap(given, points)
    clicked = labels >= 0
    inside = np.where(clicked, labels == 1, inside)
    outside = np.where(clicked, labels == 0, outside)
    return Scene(image, clicked, inside, outside, given)


def _disks(points: Sequence[NetworkPoint], height: int, width: int) -> NDArray[np.int8]:
    """(h, w): 1 and 0 in the disks of positive and negative clicks, else -1; later clicks win."""
    labels = np.full((height, width), -1, np.int8)
    nearest = np.full((height, width), np.inf)
    rows, cols = np.arange(height)[:, None], np.arange(width)[None]
    for point in points:
        row, col = _pixel(point, height, width)
        squared = (rows - row) ** 2 + (cols - col) ** 2
        taken = (squared <= RADIUS**2) & (squared <= nearest)
        labels[taken] = point.positive
        nearest[taken] = squared[taken]
    return labels


def _frame(height: int, width: int) -> BoolArray:
    frame = np.ones((height, width), bool)
    frame[1:-1, 1:-1] = False
    return frame


def _trimap(given: BoolArray, points: Sequence[NetworkPoint]) -> tuple[BoolArray, BoolArray]:
    """What is surely inside and surely outside of a mask that clicks may contradict."""
    height, width = given.shape
    band = BAND * float(np.sqrt(np.count_nonzero(given)))
    depth_inside, depth_outside = _depth(given), _depth(~given)
    inside = depth_inside > min(band, depth_inside.max() / 2)
    outside = depth_outside > min(band, depth_outside.max() / 2)
    rows, cols = np.arange(height)[:, None], np.arange(width)[None]
    for point in points:
        row, col = _pixel(point, height, width)
        if given[row, col] != point.positive:
            reach = REACH * max(depth_inside[row, col], depth_outside[row, col])
            freed = (rows - row) ** 2 + (cols - col) ** 2 <= reach**2
            (outside if point.positive else inside)[freed] = False
    return inside, outside


def _depth(region: BoolArray) -> NDArray[np.float32]:
    """Distance to the nearest pixel outside a region; beyond the image there are none."""
    if region.all():
        return np.full(region.shape, max(region.shape), np.float32)
    depth = cv2.distanceTransform(region.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(depth, np.float32)


def _pixel(point: NetworkPoint, height: int, width: int) -> tuple[int, int]:
    row, col = round(point.row), round(point.col)
    return min(max(row, 0), height - 1), min(max(col, 0), width - 1)
