"""What keeps a bad result out: the rules by which the old mask stays.

Sizes are in areas of the old mask, lengths in square roots of its area. A result is refused when

| rule | it | normal | strict |
|---|---|---|---|
| contradicts | disagrees with a click | any | any |
| empties | has less area than | 0.1 | 0.4 |
| explodes | has more area than | 4 | 2 |
| strays | has more new area, farther than | 0.1 | 0.05 |
| | from the old mask, than | 1.5 | 1 |
| unasked | adds or removes a piece without a click of that sign, deeper than | 0.2 | 0.15 |

``off`` has none of the rules. A new instance has no old mask: only the first rule is for it, and
that it must not be empty. ``tests/bench/bench_guard.py`` measures what each rule refuses, rightly
and wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from maskfix.clicks import rough_depth
from maskfix.config import Guard
from maskfix.masks import Mask, enclose
from maskfix.types import Box, Click


@dataclass(frozen=True)
class Limits:
    """Thresholds of one level; see the table above."""

    least_area: float
    most_area: float
    stray_area: float
    stray_distance: float
    unasked_depth: float


LIMITS: Mapping[Guard, Limits] = {
    "normal": Limits(0.1, 4, 0.1, 1.5, 0.2),
    "strict": Limits(0.4, 2, 0.05, 1, 0.15),
}

Rule = Callable[[Mask, Mask, Sequence[Click], Limits], str | None]
"""(old mask, not empty; new one; clicks; thresholds) -> what is wrong, None if nothing."""


def refusal(before: Mask, after: Mask, clicks: Sequence[Click], level: Guard) -> str | None:
    """Why a result should not replace the mask it came from; None if it may.

    Args:
        before: the old mask; empty for a new instance.
        after: the new one, of the same image.
        clicks: all that led to it.
        level: which thresholds apply.
    """
    if level == "off":
        return None
    limits = LIMITS[level]
    rules = RULES if before.area else {"contradicts": _contradicts, "empties": _is_empty}
    reasons = (rule(before, after, clicks, limits) for rule in rules.values())
    return next((reason for reason in reasons if reason), None)


def _contradicts(before: Mask, after: Mask, clicks: Sequence[Click], limits: Limits) -> str | None:
    last = {(round(click.y), round(click.x)): click for click in clicks}
    for click in last.values():
        if after.contains(round(click.y), round(click.x)) != click.positive:
            kind = "positive" if click.positive else "negative"
            return f"the result contradicts the {kind} click at ({click.x:g}, {click.y:g})"
    return None


def _is_empty(before: Mask, after: Mask, clicks: Sequence[Click], limits: Limits) -> str | None:
    return None if after.area else "the result is empty"


def _empties(before: Mask, after: Mask, clicks: Sequence[Click], limits: Limits) -> str | None:
    left = after.area / before.area
    if left >= limits.least_area:
        return None
    return f"only {100 * left:.0f} % of the mask is left" if after.area else "the result is empty"


def _explodes(before: Mask, after: Mask, clicks: Sequence[Click], limits: Limits) -> str | None:
    growth = after.area / before.area
    return f"the mask grew {growth:.1f} times" if growth > limits.most_area else None


def _strays(before: Mask, after: Mask, clicks: Sequence[Click], limits: Limits) -> str | None:
    box = enclose(before.box, after.box)
    old, new = before.window(box), after.window(box)
    added = new & ~old
    if np.count_nonzero(added) <= limits.stray_area * before.area:
        return None  # wherever it is
    distance = cv2.distanceTransform((~old).view(np.uint8), cv2.DIST_L2, 5)
    far = distance > limits.stray_distance * np.sqrt(before.area)
    share = np.count_nonzero(added & far) / before.area
    if share <= limits.stray_area:
        return None
    return f"the mask grew far away from where it was, by {100 * share:.0f} % of its area"


def _unasked(before: Mask, after: Mask, clicks: Sequence[Click], limits: Limits) -> str | None:
    box = enclose(before.box, after.box)
    old, new = before.window(box), after.window(box)
    allowed = limits.unasked_depth * np.sqrt(before.area)
    for change, positive in ((new & ~old, True), (old & ~new, False)):
        if np.count_nonzero(change) <= allowed**2:
            continue  # nothing that deep has so few pixels
        depth = rough_depth(change)
        if depth.max(initial=0) <= allowed:
            continue
        _, labels = cv2.connectedComponents(change.view(np.uint8), connectivity=8)
        asked = [
            labels[round(click.y) - box.top, round(click.x) - box.left]
            for click in clicks
            if click.positive == positive and _is_in(click, box)
        ]
        row, col = np.unravel_index(
            np.where(np.isin(labels, asked), 0, depth).argmax(), depth.shape
        )
        if labels[row, col] not in asked and depth[row, col] > allowed:
            what = "added" if positive else "removed"
            where = f"({col + box.left}, {row + box.top})"
            return f"a large part around {where} was {what} without a click on it"
    return None


def _is_in(click: Click, box: Box) -> bool:
    row, col = round(click.y), round(click.x)
    return box.top <= row < box.bottom and box.left <= col < box.right


RULES: Mapping[str, Rule] = {
    "contradicts": _contradicts,
    "empties": _empties,
    "explodes": _explodes,
    "strays": _strays,
    "unasked": _unasked,
}
"""In the order they are tried; the first that objects is named."""
