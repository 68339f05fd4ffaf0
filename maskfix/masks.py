"""Masks as small values: a boolean window cropped to its box, and the geometry on it.

An image of 40 megapixels with 500 instances fits in memory because no function here makes an array
of the whole image (but `Mask.to_array`, which is asked to).

Legend of shapes: H, W the image; h, w a box inside it. Arrays are (row, column).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.types import Box

BoolArray = NDArray[np.bool_]

NO_BOX = Box(0, 0, 0, 0)
BOUNDARY_RATIO = 0.02
"""Width of the Boundary IoU band in image diagonals (Cheng et al. 2021, section 4)."""


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """The pixels of one instance.

    Attributes:
        height: rows H of the image.
        width: columns W of the image.
        box: the smallest box around the object, inside the image; `NO_BOX` if it is empty.
        bits: (h, w) bool, the object within ``box``; every border row and column has a pixel set.
    """

    height: int
    width: int
    box: Box
    bits: BoolArray

    @classmethod
    def empty(cls, height: int, width: int) -> Mask:
        """A mask without a pixel."""
        return cls(height, width, NO_BOX, np.zeros((0, 0), bool))

    @classmethod
    def from_array(cls, image_HW: BoolArray) -> Mask:
        """Crop an (H, W) bool array to its object."""
        height, width = image_HW.shape
        return cls.from_window(height, width, Box(0, 0, height, width), image_HW)

    @classmethod
    def from_window(cls, height: int, width: int, box: Box, bits: BoolArray) -> Mask:
        """A mask from any window of the image.

        Args:
            height: rows H of the image.
            width: columns W of the image.
            box: where the window lies; it may leave the image, what is outside is dropped.
            bits: (box.height, box.width) bool.
        """
        inside = intersect(box, Box(0, 0, height, width))
        bits = bits[_slices_within(inside, box)]
        rows = np.flatnonzero(bits.any(axis=1))
        if rows.size == 0:
            return cls.empty(height, width)
        columns = np.flatnonzero(bits[rows[0] : rows[-1] + 1].any(axis=0))
        tight = Box(
            inside.top + int(rows[0]),
            inside.left + int(columns[0]),
            inside.top + int(rows[-1]) + 1,
            inside.left + int(columns[-1]) + 1,
        )
        return cls(height, width, tight, bits[_slices_within(tight, inside)].copy())

    @property
    def area(self) -> int:
        """Pixels set."""
        return int(np.count_nonzero(self.bits))

    def to_array(self) -> BoolArray:
        """The mask as an (H, W) bool array of the whole image."""
        return self.window(Box(0, 0, self.height, self.width))

    def window(self, box: Box) -> BoolArray:
        """The mask within any box, (box.height, box.width) bool, zero outside the object.

        The box may leave the image.
        """
        bits = np.zeros((box.height, box.width), bool)
        shared = intersect(self.box, box)
        bits[_slices_within(shared, box)] = self.bits[_slices_within(shared, self.box)]
        return bits

    def contains(self, row: int, column: int) -> bool:
        """Whether a pixel of the image is set."""
        box = self.box
        if not (box.top <= row < box.bottom and box.left <= column < box.right):
            return False
        return bool(self.bits[row - box.top, column - box.left])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        same_frame = (self.height, self.width, self.box) == (other.height, other.width, other.box)
        return same_frame and bool(np.array_equal(self.bits, other.bits))

    __hash__ = None  # type: ignore[assignment]


def intersect(a: Box, b: Box) -> Box:
    """The box shared by two boxes, `NO_BOX` if they do not meet."""
    box = Box(
        max(a.top, b.top), max(a.left, b.left), min(a.bottom, b.bottom), min(a.right, b.right)
    )
    return box if box.height > 0 and box.width > 0 else NO_BOX


def enclose(a: Box, b: Box) -> Box:
    """The smallest box around two boxes; an empty one counts for nothing."""
    if a.height <= 0 or a.width <= 0:
        return b
    if b.height <= 0 or b.width <= 0:
        return a
    return Box(
        min(a.top, b.top), min(a.left, b.left), max(a.bottom, b.bottom), max(a.right, b.right)
    )


def grow(box: Box, rows: float, columns: float, height: int, width: int) -> Box:
    """A box with so many rows above and below and columns at both sides, cut to an image's size."""
    tall, broad = math.ceil(rows), math.ceil(columns)
    grown = Box(box.top - tall, box.left - broad, box.bottom + tall, box.right + broad)
    return intersect(grown, Box(0, 0, height, width))


def intersection(a: Mask, b: Mask) -> int:
    """Pixels set in both masks of one image."""
    _assert_same_image(a, b)
    shared = intersect(a.box, b.box)
    both = a.bits[_slices_within(shared, a.box)] & b.bits[_slices_within(shared, b.box)]
    return int(np.count_nonzero(both))


def union(a: Mask, b: Mask) -> Mask:
    """Pixels set in either of two masks of one image."""
    _assert_same_image(a, b)
    box = enclose(a.box, b.box)
    return Mask(a.height, a.width, box, a.window(box) | b.window(box))


def subtract(a: Mask, b: Mask) -> Mask:
    """Pixels set in ``a`` and not in ``b``, masks of one image."""
    _assert_same_image(a, b)
    return Mask.from_window(a.height, a.width, a.box, a.bits & ~b.window(a.box))


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union, 0..1; two empty masks are equal: 1."""
    common = intersection(a, b)
    total = a.area + b.area - common
    return common / total if total else 1.0


def boundary(mask: Mask, distance: int) -> BoolArray:
    """The band of a mask along its contour, (h, w) bool over its box.

    A pixel belongs to it if a pixel that is not set, or the outside of the image, is within
    ``distance`` rows and columns: the mask minus its erosion by a square of 2 distance + 1.
    """
    padded = np.pad(mask.bits.view(np.uint8), 1)
    to_background = cv2.distanceTransform(padded, cv2.DIST_C, 3)
    return mask.bits & (to_background[1:-1, 1:-1] <= distance)


def boundary_iou(a: Mask, b: Mask, ratio: float = BOUNDARY_RATIO) -> float:
    """IoU of the inner bands along the contours of two masks of one image, 0..1.

    Boundary IoU of Cheng et al. 2021: bands of ``ratio`` image diagonals, at least one pixel wide;
    the border of the image counts as contour. Two empty masks are equal: 1.
    """
    _assert_same_image(a, b)
    if not a.bits.size or not b.bits.size:
        return iou(a, b)
    distance = max(1, round(ratio * math.hypot(a.height, a.width)))
    band_a, band_b = boundary(a, distance), boundary(b, distance)
    shared = intersect(a.box, b.box)
    both = band_a[_slices_within(shared, a.box)] & band_b[_slices_within(shared, b.box)]
    common = int(np.count_nonzero(both))
    return common / (int(np.count_nonzero(band_a)) + int(np.count_nonzero(band_b)) - common)


def components(mask: Mask) -> list[Mask]:
    """The parts of a mask that do not touch, not even at a corner; the largest first."""
    if not mask.bits.size:
        return []
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.bits.view(np.uint8), connectivity=8)
    parts = []
    for label in 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable"):
        left, top, width, height = (int(value) for value in stats[label][:4])
        bits = labels[top : top + height, left : left + width] == label
        top, left = top + mask.box.top, left + mask.box.left
        box = Box(top, left, top + height, left + width)
        parts.append(Mask(mask.height, mask.width, box, bits))
    return parts


def _slices_within(box: Box, frame: Box) -> tuple[slice, slice]:
    """Index ``box`` in an array that covers ``frame``; nothing for an empty box."""
    if box.height <= 0 or box.width <= 0:
        return slice(0, 0), slice(0, 0)
    rows = slice(box.top - frame.top, box.bottom - frame.top)
    return rows, slice(box.left - frame.left, box.right - frame.left)


def _assert_same_image(a: Mask, b: Mask) -> None:
    assert (a.height, a.width) == (b.height, b.width), "masks of images of different sizes"
