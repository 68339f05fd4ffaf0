"""Random clicks for training (paper, section 3.2; the published code where the paper is silent).

Masks are (H, W) bool of the crop. Clicks carry order index 100, as the random ones of the
published code do: only networks with click groups look at it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.types import Click

BoolArray = NDArray[np.bool_]

RANDOM_INDEX = 100
POSITIVE_ERODED = 0.9
NEGATIVE_BACKGROUND, NEGATIVE_OTHER, NEGATIVE_BORDER = 0.1, 0.4, 0.5
BORDER_WIDTH = 0.1  # of the square root of the object's area
_SQUARE = np.ones((3, 3), np.uint8)


def count_probabilities(most: int, gamma: float) -> NDArray[np.float64]:
    """Probability of 0..most further clicks, each ``gamma`` times as likely as one fewer."""
    shares = gamma ** np.arange(most + 1)
    return np.asarray(shares / shares.sum())


def eroded(mask: BoolArray) -> BoolArray:
    """The mask without its outermost three pixels, or all of it if 10 or fewer would remain.

    Pixels at the border of the image are not outermost for that."""
    inner = cv2.erode(mask.view(np.uint8), _SQUARE, iterations=3).view(bool)
    return inner if np.count_nonzero(inner) > 10 else mask


def border_ring(mask: BoolArray) -> BoolArray:
    """The band around a mask, a tenth of the square root of its area wide."""
    width = math.ceil(BORDER_WIDTH * math.sqrt(np.count_nonzero(mask)))
    grown = cv2.dilate(mask.view(np.uint8), _SQUARE, iterations=width).view(bool)
    return grown & ~mask


def random_clicks(
    objects: list[BoolArray],
    others: BoolArray,
    most: int,
    gamma: float,
    rng: np.random.Generator,
) -> list[Click]:
    """Positive clicks on the target and negative ones around it.

    Args:
        objects: masks whose union is the target: none, one, or several merged. Several get one
            click each and as many more on their union as are drawn.
        others: what belongs to other objects of the image.
        most: at most so many clicks of either sign.
        gamma: see `count_probabilities`.
    """
    target = np.any(objects, axis=0) if objects else np.zeros_like(others)
    clicks = _positives(objects, target, most, gamma, rng)
    count = rng.choice(most + 1, p=count_probabilities(most, gamma))
    regions = {"background": ~target, "other": others & ~target, "border": border_ring(target)}
    if not objects:
        regions = dict.fromkeys(regions, ~target)
    shares = [NEGATIVE_BACKGROUND, NEGATIVE_OTHER, NEGATIVE_BORDER]
    pixels = {name: np.flatnonzero(region) for name, region in regions.items()}
    if not pixels["other"].size:
        pixels["other"] = pixels["background"]
    for kind in rng.choice(list(regions), size=count, p=shares):
        clicks += _draw(pixels[str(kind)], 1, target.shape[1], False, rng)
    return clicks


def _positives(
    objects: list[BoolArray], target: BoolArray, most: int, gamma: float, rng: np.random.Generator
) -> list[Click]:
    if not objects:
        return []
    width = target.shape[1]
    if len(objects) == 1:
        count = 1 + int(rng.choice(most, p=count_probabilities(most - 1, gamma)))
        return _draw(_positive_pixels(target, rng), count, width, True, rng)
    clicks: list[Click] = []
    for mask in objects:
        clicks += _draw(_positive_pixels(mask, rng), 1, width, True, rng)
    count = int(rng.choice(most + 1, p=count_probabilities(most, gamma)))
    clicks += _draw(_positive_pixels(target, rng), count, width, True, rng)
    return clicks[:most]


def _positive_pixels(mask: BoolArray, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.flatnonzero(eroded(mask) if rng.random() < POSITIVE_ERODED else mask)


def _draw(
    pixels: NDArray[np.int64], count: int, width: int, positive: bool, rng: np.random.Generator
) -> list[Click]:
    if not pixels.size:
        return []
    drawn = pixels[rng.integers(pixels.size, size=count)]
    return [Click(x=int(i) % width, y=int(i) // width, positive=positive) for i in drawn]
