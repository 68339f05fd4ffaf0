"""What is done to an image before the network sees it (paper, section 5; numbers of the published
configurations where the paper is silent)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.crops import Size
from maskfix.masks import Mask
from maskfix.train.config import CropConfig

_TURN_PROBABILITY, _TURN_DEGREES, _TURN_SHIFT = 0.75, 3.0, 0.03
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """An affine view of an image, black where it leaves it.

    Attributes:
        matrix: (3, 3), from (x, y, 1) of the image to those of the view, pixel corners.
        size: of the view.
    """

    matrix: Matrix
    size: Size

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 -> (h, w, 3), bilinear."""
        return np.asarray(self._warp(image, self.matrix, cv2.INTER_LINEAR), np.uint8)

    def mask(self, mask: Mask) -> NDArray[np.bool_]:
        """(h, w) bool, nearest pixels."""
        if not mask.bits.size:
            return np.zeros(self.size, bool)
        matrix = self.matrix @ _shift(mask.box.left, mask.box.top)
        return self._warp(mask.bits.view(np.uint8), matrix, cv2.INTER_NEAREST).view(bool)

    def _warp(self, array: NDArray[np.uint8], matrix: Matrix, mode: int) -> NDArray[np.uint8]:
        centers = _shift(-0.5, -0.5) @ matrix @ _shift(0.5, 0.5)  # cv2 counts from pixel centres
        warped = cv2.warpAffine(array, centers[:2], (self.size.width, self.size.height), flags=mode)
        return np.asarray(warped, np.uint8)


def random_view(
    height: int, width: int, size: Size, config: CropConfig, rng: np.random.Generator
) -> View:
    """Resize by a random factor, mirror at times, turn where wanted; then pad where too small
    (evenly) and crop at random where too large."""
    factor = rng.uniform(*config.scale)
    matrix = np.diag([factor, factor, 1.0])
    wide, tall = width * factor, height * factor
    if rng.random() < 0.5:
        matrix = _mirror(wide) @ matrix
    if config.turn:
        for _ in range(rng.integers(4)):
            matrix = np.array([[0, -1, tall], [1, 0, 0], [0, 0, 1.0]]) @ matrix
            wide, tall = tall, wide
        if rng.random() < _TURN_PROBABILITY:
            matrix = _wobble(wide, tall, rng) @ matrix
    left, top = _offset(wide, size.width, rng), _offset(tall, size.height, rng)
    return View(_shift(-left, -top) @ matrix, size)


def _wobble(wide: float, tall: float, rng: np.random.Generator) -> Matrix:
    """A small shift and rotation about the middle."""
    angle = np.deg2rad(rng.uniform(-_TURN_DEGREES, _TURN_DEGREES))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    dx, dy = rng.uniform(-_TURN_SHIFT, _TURN_SHIFT, 2) * (wide, tall)
    there = _shift(wide / 2 + dx, tall / 2 + dy)
    return np.asarray(there @ turn @ _shift(-wide / 2, -tall / 2))


def _offset(length: float, wanted: int, rng: np.random.Generator) -> int:
    """Where a crop begins: drawn where there is room, else minus half of what is missing."""
    whole = round(length)
    if whole < wanted:
        return -((wanted - whole) // 2)
    return int(rng.integers(whole - wanted + 1))


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _mirror(wide: float) -> Matrix:
    return np.array([[-1, 0, wide], [0, 1, 0], [0, 0, 1.0]])


def jitter_colors(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness and contrast, then a shift of each channel, each with probability 0.75.

    Brightness moves by up to a quarter of the range, contrast by -15 % to +40 %, channels by up to
    10 of 255.
    """
    table = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, axis=1)
    if rng.random() < 0.75:
        contrast, brightness = 1 + rng.uniform(-0.15, 0.4), rng.uniform(-0.25, 0.25)
        table = np.float32(contrast) * table + np.float32(255 * brightness)
    if rng.random() < 0.75:
        table = table.clip(0, 255) + rng.uniform(-10, 10, 3).astype(np.float32)
    lookup = table.clip(0, 255).round().astype(np.uint8)
    return np.asarray(cv2.LUT(image, lookup[:, None]), np.uint8)
