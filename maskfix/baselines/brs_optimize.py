"""The optimisation that the backpropagating refinement schemes share.

A few numbers inside the network, or added to its input, are changed until its answer agrees with
the clicks: the squared error on small patches at the clicks, plus a penalty for the change, is
minimised by L-BFGS (f-BRS, section 3; settings of the published code).

Legend: B images, 1 or, with the mirror image, 2; h, w network-input pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b
from torch import Tensor

from maskfix.predictor.session import NetworkPoint

LBFGS: dict[str, Any] = {"m": 20, "factr": 0, "pgtol": 1e-8, "maxfun": 20, "maxiter": 40}
PATCH = 1  # pixels on each side of a click
UNCHANGED_IOU = 0.99  # two masks that agree so well are the same
EPSILON = 1e-5

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Parameters (n,) -> logits (B, 1, h, w) and the penalty of the parameters, a scalar."""


class ClickPatches(NamedTuple):
    """Where the answer is known, as (B, 1, h, w) float32 maps of 0 and 1."""

    positive: Tensor
    negative: Tensor


def draw_patches(points: Sequence[NetworkPoint], height: int, width: int) -> ClickPatches:
    """3 x 3 pixels around every click, for one image.

    Patches are cut at the border. (The published code loses clicks in row and column 0, and
    wraps those outside around; not copied.)
    """
    maps = torch.zeros(2, 1, 1, height, width)
    for point in points:
        row, col = round(point.row), round(point.col)
        rows = slice(max(0, row - PATCH), max(0, row + PATCH + 1))
        cols = slice(max(0, col - PATCH), max(0, col + PATCH + 1))
        maps[0 if point.positive else 1, ..., rows, cols] = 1
    return ClickPatches(*maps)


def click_loss(probabilities: Tensor, patches: ClickPatches) -> tuple[Tensor, float, float]:
    """The mean squared error on positive patches plus that on negative ones.

    Returns:
        the loss, and the largest error on positive and on negative patches.
    """
    missed = (1 - probabilities) * patches.positive
    spurious = probabilities * patches.negative
    loss = missed.square().sum() / (patches.positive.sum() + EPSILON)
    loss = loss + spurious.square().sum() / (patches.negative.sum() + EPSILON)
    return loss, float(missed.detach().max()), float(spurious.detach().max())


class Objective:
    """What L-BFGS minimises; remembers the best answer it has seen.

    The gradient is given as zero, which ends the search, where all clicks are satisfied or the mask
    hardly differs from that of the evaluation before.

    Args:
        predict: see `Predict`.
        patches: of the same B as its logits.
        threshold: a pixel is in the mask where its probability is above this.
    """

    def __init__(self, predict: Predict, patches: ClickPatches, threshold: float) -> None:
        self.predict, self.patches, self.threshold = predict, patches, threshold
        self.best: Tensor | None = None  # logits of the smallest value
        self._smallest = float("inf")
        self._mask: Tensor | None = None  # of the evaluation before

    def __call__(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Value and gradient at parameters (n,)."""
        like = self.patches.positive
        parameters = torch.from_numpy(x).to(like.dtype).to(like.device).requires_grad_()
        logits, penalty = self.predict(parameters)
        probabilities = logits.sigmoid()
        loss, missed, spurious = click_loss(probabilities, self.patches)
        total = loss + penalty
        value = float(total.detach())
        if self.best is None or value < self._smallest:
            self.best, self._smallest = logits.detach(), value
        satisfied = missed < 1 - self.threshold and spurious < self.threshold
        if satisfied or self._is_unchanged(probabilities.detach() > self.threshold):
            return value, np.zeros_like(x)
        [gradient] = torch.autograd.grad(total, parameters)
        return value, gradient.cpu().numpy().astype(np.float64)

    def _is_unchanged(self, mask: Tensor) -> bool:
        """Whether a (B, 1, h, w) mask agrees with the one before, which it else replaces."""
        if self._mask is not None:
            common = (mask & self._mask).sum((1, 2, 3)).float()
            either = (mask | self._mask).sum((1, 2, 3)).float()
            ious = (common / either)[either > 0]
            if len(ious) and float(ious.mean()) > UNCHANGED_IOU:
                return True
        self._mask = mask
        return False


def minimise(objective: Objective, start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Search from parameters (n,); returns where the search ended, which need not be its best."""
    end: NDArray[np.float64] = fmin_l_bfgs_b(objective, start, **LBFGS)[0]
    return end
