"""What the network is asked about one mask, and what its answers say.

Two questions, both with one click at the deepest point of the mask: what would you make of this
mask, and what do you find there without it? All is done on the crop that the network sees, so that
the cost does not depend on the size of the image.

Legend: h, w the network input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from maskfix.clicks import SimulatedUser
from maskfix.masks import BoolArray, Mask
from maskfix.metrics import iou
from maskfix.predictor import Predictor
from maskfix.predictor.session import FloatArray, NetworkPoint, Session, View

BAND = 3
"""Width in network pixels of the border that two masks are compared on."""

RINGS = (-9, -6, -3, 3, 6, 9)
"""Distances in network pixels from the outline of the parallels it is compared with."""


class Question(Session):
    """One view for the network, and its answer."""

    def __init__(self, view: View, threshold: float) -> None:
        super().__init__(given=bool(view.mask.any()))
        self._view, self._threshold = view, threshold
        self._answer: FloatArray | None = None

    def view(self) -> View:
        """See `Session`."""
        return self._view

    def accept(self, probabilities: FloatArray) -> bool:
        """See `Session`; one answer is enough."""
        self._answer = probabilities
        return False

    def probabilities(self) -> FloatArray:
        """The answer, (h, w) float32."""
        assert self._answer is not None, "not asked yet"
        return self._answer

    def mask(self) -> Mask:
        """What the answer takes for the object, a mask of h x w."""
        return Mask.from_array(self.probabilities() > self._threshold)


@dataclass(frozen=True)
class Signs:
    """What the network and the image say about one mask.

    Attributes:
        disagreement: 1 - IoU of the mask and of what the network makes of it; 0..1.
        added, removed: pixels that the network would add and remove, as shares of the mask.
        border: 1 - IoU of the inner borders of the mask and of what is found without it; 0..1.
        found: share of the mask that is found without it.
        edge: how much stronger the image changes across the outline than beside it; about 3 where
            an outline is right, 1 where it is anywhere; at most 6.
    """

    disagreement: float
    added: float
    removed: float
    border: float
    found: float
    edge: float


class Probe:
    """One mask and the questions about it.

    Args:
        predictor: with crops of fixed sizes (protocol ``fast``).
        image: (H, W, 3) uint8 RGB.
        mask: not empty.
    """

    def __init__(self, predictor: Predictor, image: NDArray[np.uint8], mask: Mask) -> None:
        view = predictor.start(image, mask).view()
        given = view.mask[0].numpy()
        self._bits: BoolArray = given > min(0.5, 0.5 * float(given.max()))
        click = SimulatedUser(self._bits).next_click(np.zeros_like(self._bits))
        assert click is not None, "an empty mask"
        view = replace(view, points=(NetworkPoint(click.y, click.x, 0, True),))
        blank = replace(view, mask=torch.zeros_like(view.mask))
        threshold = predictor.protocol.threshold
        self._image = view.image
        self.questions = (Question(view, threshold), Question(blank, threshold))

    def signs(self) -> Signs:
        """What was found; when both questions are answered."""
        bits, area = self._bits, int(np.count_nonzero(self._bits))
        corrected, found = (question.mask().to_array() for question in self.questions)
        pixels = np.rint(255 * self._image.permute(1, 2, 0).numpy()).astype(np.uint8)
        return Signs(
            disagreement=1 - iou(bits, corrected),
            added=int(np.count_nonzero(corrected & ~bits)) / area,
            removed=int(np.count_nonzero(bits & ~corrected)) / area,
            border=1 - _iou_of_borders(bits, found),
            found=int(np.count_nonzero(bits & found)) / area,
            edge=edge_strength(pixels, bits),
        )


def _iou_of_borders(a: BoolArray, b: BoolArray) -> float:
    """IoU of the inner borders of two masks, whose first is not empty."""
    kernel = np.ones((2 * BAND + 1, 2 * BAND + 1), np.uint8)
    inner = [m & ~cv2.erode(m.view(np.uint8), kernel).view(bool) for m in (a, b)]
    overlap = iou(inner[0], inner[1])
    return 1.0 if np.isnan(overlap) else overlap  # the mask fills the view, and is found to


def edge_strength(pixels: NDArray[np.uint8], bits: BoolArray) -> float:
    """Change of the image across an outline, relative to that across its parallels; 0..6.

    Args:
        pixels: (h, w, 3) uint8 RGB.
        bits: (h, w) bool.
    """
    inside = cv2.distanceTransform(np.pad(bits, 1).view(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    outside = cv2.distanceTransform((~bits).view(np.uint8), cv2.DIST_L2, 3)
    distance = np.where(bits, inside - 0.5, 0.5 - outside).astype(np.float32)
    smooth = cv2.GaussianBlur(distance, (0, 0), 1)
    normal = np.stack([cv2.Sobel(smooth, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1))])
    normal = normal / (np.hypot(normal[0], normal[1]) + 1e-3)
    colours = cv2.cvtColor(cv2.GaussianBlur(pixels, (0, 0), 1), cv2.COLOR_RGB2LAB)
    lab = colours.astype(np.float32)
    dx, dy = (cv2.Sobel(lab, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    across = dx * normal[0][..., None] + dy * normal[1][..., None]
    change = np.sqrt((across**2).sum(axis=2))
    framed = np.zeros(bits.shape, bool)
    framed[2:-2, 2:-2] = True

    def mean(ring: float) -> float:
        there = framed & (distance > ring - 1.5) & (distance <= ring + 1.5)
        return float(change[there].mean()) if there.any() else 0.0

    return min(6.0, mean(0) / (float(np.mean([mean(ring) for ring in RINGS])) + 1))
