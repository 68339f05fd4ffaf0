"""Losses of the paper (section 3.4) and the metric shown while training.

Legend: B batch, H, W pixels. Logits and targets are (B, 1, H, W); a target is 1 on the object, 0 on
background, values between for soft targets, and -1 where it is to be ignored. Every loss returns
one value a sample, (B,).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-12
AXES = (1, 2, 3)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.5,
    gamma: float = 2.0,
    normalized: bool = True,
) -> Tensor:
    """(Normalized) focal loss, equations 1 and 2.

    Args:
        alpha: weight of the object's pixels; background weighs 1 - alpha.
        gamma: how strongly pixels that are right are discounted.
        normalized: scale a sample's weights to sum to its number of valid pixels. The factor is
            taken as a constant: no gradient flows through it.

    Returns:
        (B,) the mean over valid pixels.
    """
    valid = target != -1
    weight = torch.where(target > 0.5, alpha, 1 - alpha) * valid
    pt = torch.where(valid, 1 - (target - logits.sigmoid()).abs(), 1.0)
    beta = (1 - pt) ** gamma
    count = valid.sum(AXES, keepdim=True)
    if normalized:
        beta = beta * (count / (beta.sum(AXES, keepdim=True) + EPS)).detach()
    loss = -weight * beta * (pt + EPS).clamp(max=1).log()
    return loss.sum(AXES) / (count.view(-1) + EPS)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy, averaged over all pixels; ignored ones cost 0 but are counted."""
    valid = target != -1
    loss = F.binary_cross_entropy_with_logits(
        logits, torch.where(valid, target, 0.0), reduction="none"
    )
    return (loss * valid).mean(AXES)


def soft_iou_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - sum(p y) / sum(max(p, y)) over valid pixels (Rahman and Wang 2016); 1 for no object."""
    valid = target != -1
    p = logits.sigmoid() * valid
    y = torch.where(valid, target, 0.0)
    return 1 - (p * y).sum(AXES) / (torch.maximum(p, y).sum(AXES) + 1e-8)


class AdaptiveIoU:
    """IoU at a threshold that drifts to where IoU is best: the number shown while training.

    Attributes:
        threshold: where probabilities are cut now.
        value: running average of the batches' IoU, decay 0.9.
    """

    STEP, THRESHOLD_DECAY, VALUE_DECAY = 0.025, 0.99, 0.9

    def __init__(self) -> None:
        self.threshold, self.value = 0.4, 0.0

    def update(self, logits: Tensor, target: Tensor) -> float:
        """Take one batch into the average; returns its IoU, 0 where no sample has an object."""
        if not bool((target > 0.5).any()):
            return 0.0
        p = logits.detach().sigmoid()
        tried = [self.threshold, self.threshold - self.STEP, self.threshold + self.STEP]
        scores = [self._iou(p, target, threshold) for threshold in tried]
        best = max(range(3), key=lambda i: scores[i])  # the first of equals
        self.threshold += (1 - self.THRESHOLD_DECAY) * (tried[best] - self.threshold)
        self.value = self.VALUE_DECAY * self.value + (1 - self.VALUE_DECAY) * scores[best]
        return scores[best]

    @staticmethod
    def _iou(p: Tensor, target: Tensor, threshold: float) -> float:
        predicted = (p > threshold) & (target != -1)
        truth = target > 0.5
        meet = (predicted & truth).sum(AXES).float()
        join = (predicted | truth).sum(AXES).float()
        return float((meet / join.clamp(min=1)).mean())
