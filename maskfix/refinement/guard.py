"""What keeps a bad result out: the rules by which the old mask stays.

Thresholds by level; `off` has none of the rules.

| rule | normal | strict |
|---|---|---|
| the mask is emptied | refused | refused |
| its area grows more than | 4 times | 2 times |
| IoU of old and new mask below | 0.2 | 0.5 |
"""

from __future__ import annotations

from dataclasses import dataclass

from maskfix.config import Guard
from maskfix.masks import Mask, iou


@dataclass(frozen=True)
class Limits:
    """Thresholds of one level."""

    growth: float
    least_iou: float


LIMITS: dict[Guard, Limits] = {
    "normal": Limits(growth=4, least_iou=0.2),
    "strict": Limits(growth=2, least_iou=0.5),
}


def refusal(before: Mask, after: Mask, level: Guard) -> str | None:
    """Why a result should not replace the mask it came from; None if it may.

    Args:
        before: the old mask; an empty one had nothing to lose, so only emptiness is checked.
        after: the new one.
        level: which thresholds apply.
    """
    if level == "off":
        return None
    limits = LIMITS[level]
    if not after.area:
        return "the result is empty"
    if not before.area:
        return None
    if after.area > limits.growth * before.area:
        return f"the mask grew {after.area / before.area:.1f} times"
    overlap = iou(before, after)
    if overlap < limits.least_iou:
        return f"little is left of the old mask (IoU {overlap:.2f})"
    return None
