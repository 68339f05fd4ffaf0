"""Clicks made by a simulated user, in evaluation and in training.

Both look at the same thing, the regions where a prediction is wrong and how deep inside them a
pixel lies (`error_depths`). The evaluator clicks the deepest pixel (paper, section 5, "Evaluation
metric", as the published code reads it); training draws from the deep part of the region (section
3.2), so that a network does not learn to expect clicks in the middle only.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.masks import Mask, enclose
from maskfix.types import Click

BoolArray = NDArray[np.bool_]
IGNORE = -1
MASK_THRESHOLD = 0.49
"""A pixel belongs to the object where its probability is above this."""

_EXACT_UP_TO = 1400.0  # pixels: below, a float32 distance squares to within 0.5 of the truth


@dataclass(frozen=True, slots=True)
class ErrorDepths:
    """Two (H, W) maps: how far each wrong pixel is from the nearest pixel that is not so wrong.

    Attributes:
        missed: depth inside false negatives, 0 elsewhere.
        spurious: depth inside false positives, 0 elsewhere.
    """

    missed: NDArray[Any]
    spurious: NDArray[Any]


def squared_distances(region: BoolArray) -> NDArray[np.int64]:
    """Exact squared Euclidean distance to the outside of a region.

    Args:
        region: (H, W) bool. What lies beyond the image counts as outside.

    Returns:
        (H, W) int64, 0 outside the region. Whole numbers, so that ties are ties on any machine:
        OpenCV's own distances vary in the last bit with the alignment of memory.
    """
    depths = np.zeros(region.shape, np.int64)
    rows = np.flatnonzero(region.any(axis=1))
    if not rows.size:
        return depths
    cols = np.flatnonzero(region.any(axis=0))
    window = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
    padded = np.pad(region[window].view(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if distance.max() < _EXACT_UP_TO:
        squared = np.rint(distance.astype(np.float64) ** 2).astype(np.int64)
    else:
        from scipy.ndimage import distance_transform_edt

        nearest = distance_transform_edt(padded, return_distances=False, return_indices=True)
        offsets = nearest - np.indices(padded.shape)
        squared = (offsets.astype(np.int64) ** 2).sum(axis=0)
    depths[window] = squared[1:-1, 1:-1]
    return depths


def error_regions(reference: NDArray[Any], prediction: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Where a prediction misses the object, and where it is spurious; never on ignored pixels.

    Args:
        reference: (H, W) bool, or integers with 1 object, 0 background, -1 ignore.
        prediction: (H, W) bool.
    """
    if reference.dtype == np.bool_:
        return reference & ~prediction, ~reference & prediction
    return (reference == 1) & ~prediction, (reference == 0) & prediction


def error_depths(reference: NDArray[Any], prediction: BoolArray) -> ErrorDepths:
    """Exact squared depths of both kinds of error, (H, W) int64; see `error_regions`."""
    missed, spurious = error_regions(reference, prediction)
    return ErrorDepths(squared_distances(missed), squared_distances(spurious))


class SimulatedUser:
    """Clicks the middle of the deepest error, as the NoC metric wants it.

    A click goes to the pixel farthest from the border of its error region; it is positive where
    the object was missed more deeply than background was taken for it (a tie is negative). Of
    equally deep pixels the first in reading order is taken, and no pixel twice.

    Args:
        reference: a mask, or an (H, W) array: bool, or int8 with 1 object, 0 background, -1 ignore.
    """

    def __init__(self, reference: NDArray[Any] | Mask) -> None:
        self.reference = reference
        self._clicked: list[tuple[int, int]] = []  # (row, column)

    def next_click(self, prediction: BoolArray | Mask) -> Click | None:
        """The next click, or None when nothing is left to click.

        Args:
            prediction: a mask if the reference is one (then only their surroundings are looked at,
                however large the image), else (H, W) bool.
        """
        top, left = 0, 0
        if isinstance(self.reference, Mask):
            assert isinstance(prediction, Mask)
            box = enclose(self.reference.box, prediction.box)
            top, left = box.top, box.left
            depths = error_depths(self.reference.window(box), prediction.window(box))
        else:
            assert not isinstance(prediction, Mask)
            depths = error_depths(self.reference, prediction)
        if not depths.missed.size:
            return None
        height, width = depths.missed.shape
        for row, col in self._clicked:
            if 0 <= row - top < height and 0 <= col - left < width:
                depths.missed[row - top, col - left] = depths.spurious[row - top, col - left] = 0
        positive = bool(depths.missed.max() > depths.spurious.max())
        depth = depths.missed if positive else depths.spurious
        row, col = divmod(int(depth.argmax()), width)
        if depth[row, col] == 0:
            return None
        self._clicked.append((row + top, col + left))
        return Click(x=col + left, y=row + top, positive=positive)


def miss(
    click: Click, pixels: float, seed: int, name: str, number: int, height: int, width: int
) -> Click:
    """A click as a hurried person makes it: off by normal noise, within the image.

    Args:
        click: where it was meant to go; its sign stays.
        pixels: deviation of the noise in x and in y.
        seed, name, number: of the run, the instance and the click: all that the noise depends on.
        height, width: of the image.
    """
    if not pixels:
        return click
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    dx, dy = rng.normal(0, pixels, 2)
    x, y = round(click.x + dx), round(click.y + dy)
    return Click(min(max(x, 0), width - 1), min(max(y, 0), height - 1), click.positive)


def training_click(
    reference: BoolArray, probabilities: NDArray[np.float32], rng: np.random.Generator
) -> Click | None:
    """Draw a click from the deep half of the worst error (paper, section 3.2).

    Args:
        reference: (H, W) bool; ignored pixels count as background.
        probabilities: (H, W) float32 in [0, 1]. A pixel exactly at the threshold is no error.
        rng: one draw is taken from it, when there is anything to click.

    Returns:
        A click drawn evenly among the pixels deeper than half of the deepest, or None where the
        prediction is right.
    """
    candidates, positive = training_click_candidates(reference, probabilities)
    if not candidates.size:
        return None
    row, col = divmod(int(candidates[rng.integers(candidates.size)]), reference.shape[1])
    return Click(x=col, y=row, positive=positive)


def training_click_candidates(
    reference: BoolArray, probabilities: NDArray[np.float32]
) -> tuple[NDArray[np.int64], bool]:
    """Flat indices of the pixels that `training_click` draws from, and the sign of the click.

    Depths here are OpenCV's approximate ones, as in the published training code.
    """
    missed = rough_depth(reference & (probabilities < MASK_THRESHOLD))
    spurious = rough_depth(~reference & (probabilities > MASK_THRESHOLD))
    positive = bool(missed.max() > spurious.max())
    depth = missed if positive else spurious
    deepest = depth.max()
    if deepest == 0:
        return np.zeros(0, np.int64), positive
    return np.flatnonzero(depth > deepest / 2), positive


def rough_depth(region: BoolArray) -> NDArray[Any]:
    """Distance to where a region ends, at the border of the array too: OpenCV's approximation."""
    padded = cv2.copyMakeBorder(region.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
