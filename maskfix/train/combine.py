"""COCO and LVIS as one data set (paper, section 4.2), and what the published code does instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from maskfix.masks import Mask, intersect, intersection
from maskfix.types import Box

Rule = Literal["paper", "code"]

PAPER_IOU = 0.8
CODE_MATCH_BOX, CODE_MATCH = 0.7, 0.7
CODE_TWIN_BOX, CODE_TWIN = 0.7, 0.85
CODE_MIN_THING, CODE_MIN_STUFF = 80, 500
CODE_INSIDE, CODE_INSIDE_BOX = 0.8, 0.7


def combine(
    lvis: Sequence[Mask], coco: Sequence[Mask], stuff: Sequence[Mask], rule: Rule
) -> tuple[list[Mask], list[Mask]]:
    """The instances and the stuff of one image.

    Args:
        lvis: instances of LVIS.
        coco: instances of COCO, crowds left out.
        stuff: regions without a shape of their own.
        rule: ``"paper"`` joins all masks but those of COCO that have an LVIS mask with an IoU above
            80 %. ``"code"`` keeps COCO masks without a match (IoU of boxes and of masks above
            70 %), drops twins within LVIS (85 %), small objects, and objects inside others (their
            parents alone are drawn); stuff loses what belongs to instances.
    """
    if rule == "paper":
        new = [mask for mask in coco if not _has_match(mask, lvis, 0.0, PAPER_IOU)]
        return [*lvis, *new], list(stuff)
    kept: list[Mask] = []
    for mask in lvis:
        if not _has_match(mask, kept, CODE_TWIN_BOX, CODE_TWIN):
            kept.append(mask)
    kept += [mask for mask in coco if not _has_match(mask, lvis, CODE_MATCH_BOX, CODE_MATCH)]
    kept = [mask for mask in kept if mask.area >= CODE_MIN_THING]
    roots = [m for m in kept if not any(_is_inside(m, other) for other in kept if other is not m)]
    rest = [_minus(mask, kept) for mask in stuff]
    return roots, [mask for mask in rest if mask.area > CODE_MIN_STUFF]


def _has_match(mask: Mask, others: Sequence[Mask], box_iou: float, iou: float) -> bool:
    for other in others:
        common = _area(intersect(mask.box, other.box))
        if common <= box_iou * (_area(mask.box) + _area(other.box) - common):
            continue
        shared = intersection(mask, other)
        if shared > iou * (mask.area + other.area - shared):
            return True
    return False


def _is_inside(mask: Mask, parent: Mask) -> bool:
    """Whether most of a mask lies in a larger one; of equals, neither is inside."""
    common = _area(intersect(mask.box, parent.box))
    if parent.area <= mask.area or common <= CODE_INSIDE_BOX * _area(mask.box):
        return False
    return intersection(mask, parent) > CODE_INSIDE * mask.area


def _minus(mask: Mask, others: Sequence[Mask]) -> Mask:
    bits: NDArray[np.bool_] = mask.bits.copy()
    for other in others:
        bits &= ~other.window(mask.box)
    return Mask.from_window(mask.height, mask.width, mask.box, bits)


def _area(box: Box) -> int:
    return max(0, box.height) * max(0, box.width)
