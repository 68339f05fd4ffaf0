"""Masks drawn on images, to look at."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.masks import Mask
from maskfix.types import Click

Image = NDArray[np.uint8]

FILL = 0.35
CLICK_COLORS = {True: (40, 200, 60), False: (230, 40, 40)}


def instance_color(index: int) -> tuple[int, int, int]:
    """A color that is far from those of the neighbouring indices, RGB."""
    red, green, blue = colorsys.hsv_to_rgb(0.6 + 0.381966 * index % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_masks(image: Image, masks: Sequence[Mask], first_index: int = 0) -> Image:
    """A copy of an (H, W, 3) uint8 RGB image with every mask tinted and outlined."""
    drawn: Image = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 400))
    for index, mask in enumerate(masks, start=first_index):
        if not mask.area:
            continue
        color = instance_color(index)
        inside = drawn[mask.box.slices]
        tint = inside[mask.bits].astype(np.float32) * (1 - FILL) + np.array(color) * FILL
        inside[mask.bits] = tint.round().astype(np.uint8)
        contours, _ = cv2.findContours(
            mask.bits.view(np.uint8),
            cv2.RETR_CCOMP,
            cv2.CHAIN_APPROX_NONE,
            offset=(mask.box.left, mask.box.top),
        )
        cv2.drawContours(drawn, contours, -1, color, thickness, cv2.LINE_AA)
    return drawn


def draw_clicks(image: Image, clicks: Sequence[Click]) -> Image:
    """A copy with positive clicks as green dots and negative ones as red dots."""
    drawn: Image = image.copy()
    radius = max(3, round(max(image.shape[:2]) / 110))
    for click in clicks:
        center = round(click.x), round(click.y)
        cv2.circle(drawn, center, radius + 1, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(drawn, center, radius, CLICK_COLORS[click.positive], -1, cv2.LINE_AA)
    return drawn


def side_by_side(images: Sequence[Image], gap: int = 6, ground: int = 255) -> Image:
    """Images of one height in a row, on white or another grey."""
    bar: NDArray[Any] = np.full((images[0].shape[0], gap, 3), ground, np.uint8)
    parts: list[NDArray[Any]] = [images[0]]
    for image in images[1:]:
        parts += [bar, image]
    return np.hstack(parts)
