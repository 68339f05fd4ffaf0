"""Small islands and small holes of a result: what ``--min-part`` takes away before it is judged.

Islands are parts that do not touch, not even at a corner; a hole is background that the object
closes off, at its sides, from the outside. Islands go first, then holes are filled: in the end all
that is left is large enough, or holds a click, or is the only island.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.masks import Mask
from maskfix.types import Click


def tidy(mask: Mask, rest: Mask, clicks: Sequence[Click], least: int) -> tuple[Mask, Mask]:
    """Remove small islands and fill small holes of a result.

    A click that the result agrees with, it agrees with afterwards; no mask is emptied.

    Args:
        mask: the instance.
        rest: what was split off from it, of the same image; empty if nothing was.
        clicks: of the instance. For the rest, positive ones are negative and the other way round.
        least: pixels; what is smaller goes.

    Returns:
        both, filtered. If they did not overlap, they do not: no hole that the other lies in is
        filled.
    """
    turned = [replace(click, positive=not click.positive) for click in clicks]
    mask, rest = without_islands(mask, clicks, least), without_islands(rest, turned, least)
    return without_holes(mask, clicks, least, rest), without_holes(rest, turned, least, mask)


def without_islands(mask: Mask, clicks: Sequence[Click], least: int) -> Mask:
    """Drop the islands of fewer than ``least`` pixels that hold no positive click.

    If that would be all, the largest stays; of several, the first by rows.
    """
    if not mask.area:
        return mask
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.bits.view(np.uint8), connectivity=8)
    sizes = stats[:, cv2.CC_STAT_AREA]
    small = sizes < least
    small[0] = False  # the background
    small[_clicked(labels, mask, clicks, positive=True)] = False
    if small[1:].all():
        small[1 + sizes[1:].argmax()] = False
    if not small.any():
        return mask
    return Mask.from_window(mask.height, mask.width, mask.box, mask.bits & ~small[labels])


def without_holes(mask: Mask, clicks: Sequence[Click], least: int, other: Mask) -> Mask:
    """Fill the holes of fewer than ``least`` pixels with no negative click and no ``other`` in."""
    if not mask.area:
        return mask
    ground = np.pad(~mask.bits, 1, constant_values=True).view(np.uint8)
    _, padded, stats, _ = cv2.connectedComponentsWithStats(ground, connectivity=4)
    labels = padded[1:-1, 1:-1]
    small = stats[:, cv2.CC_STAT_AREA] < least
    small[[0, padded[0, 0]]] = False  # the object, and what is around it
    small[_clicked(labels, mask, clicks, positive=False)] = False
    small[labels[other.window(mask.box)]] = False
    if not small.any():
        return mask
    return Mask(mask.height, mask.width, mask.box, mask.bits | small[labels])


def _clicked(
    labels: NDArray[Any], mask: Mask, clicks: Sequence[Click], positive: bool
) -> list[int]:
    """The labels, over the mask's box, under the clicks of a kind."""
    box = mask.box
    places = [(round(c.y), round(c.x)) for c in clicks if c.positive == positive]
    return [
        int(labels[row - box.top, column - box.left])
        for row, column in places
        if box.top <= row < box.bottom and box.left <= column < box.right
    ]
