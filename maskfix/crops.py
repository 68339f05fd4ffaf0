"""Which part of an image a network looks at, and how it is brought to a fixed size.

Networks without a published protocol of their own see crops of a few fixed sizes, so that batches
form. Training cuts its crops with the same functions. Shapes: H, W image; h, w network input.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.types import Box


class Size(NamedTuple):
    """Height and width of a network input in pixels."""

    height: int
    width: int


def nearest_size(height: float, width: float, sizes: tuple[Size, ...]) -> Size:
    """The size whose shape is nearest to that of a region of height x width."""
    aspect = np.log(height / width)
    return min(sizes, key=lambda size: abs(np.log(size.height / size.width) - aspect))


def fit_region(
    center_row: float,
    center_col: float,
    height: float,
    width: float,
    size: Size,
    image_height: int,
    image_width: int,
) -> Box:
    """A region of the image that holds a wished one and, where it can, has the shape of `size`.

    Args:
        center_row, center_col: middle of the wished region.
        height, width: its extent in image pixels.
        size: the network input it will be brought to; the shorter side grows to its shape.
        image_height, image_width: the region is moved, then cut, to stay inside the image.
    """
    shape = size.height / size.width
    height, width = max(height, width * shape), max(width, height / shape)
    top, bottom = _span(center_row, height, image_height)
    left, right = _span(center_col, width, image_width)
    return Box(top, left, bottom, right)


def _span(center: float, length: float, limit: int) -> tuple[int, int]:
    whole = min(max(1, round(length)), limit)
    start = min(max(0, round(center - length / 2)), limit - whole)
    return start, start + whole


def resample(window: NDArray[Any], size: Size) -> NDArray[Any]:
    """Bring an (h', w') or (h', w', C) array of uint8 or float32 to a size; dtype kept.

    Pixel centres stay aligned: what lies at (row + 0.5) / h' lies at (row + 0.5) / h afterwards.
    Shrinking averages, so that nothing is skipped; enlarging is bilinear.
    """
    if window.shape[:2] == size:
        return window
    shrinks = window.shape[0] * window.shape[1] > size.height * size.width
    mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(window, (size.width, size.height), interpolation=mode)


def to_network(x: float, y: float, region: Box, size: Size) -> tuple[float, float]:
    """Where the image point (x, y) lies in the network input, as (row, column)."""
    row = (y - region.top + 0.5) * size.height / region.height - 0.5
    col = (x - region.left + 0.5) * size.width / region.width - 0.5
    return row, col
