"""What is odd about the shape of a mask, and about masks beside it; the image is not looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskfix.formats import Annotation
from maskfix.masks import BoolArray, Mask, components, intersection, iou

CRUMB = 0.005
"""A part smaller than this share of the mask is a crumb."""

FULL_BOX = 0.97
"""A mask that fills its box so much is a box."""

CUT = 0.6
"""A side of the box that is border for so much of its length, in one piece, looks cut."""

LEAST_AREA = 64
"""Pixels: below, every mask has straight sides and fills its box."""

TWIN_IOU = 0.8
INSIDE, SIZABLE = 0.85, 0.15
"""A mask holds another if so much of it lies inside, and that is so much of the mask."""


@dataclass(frozen=True)
class Oddities:
    """Attributes:
    crumbs: number of tiny parts.
    box: whether the mask is a rectangle.
    cut: the sides that look cut straight: left, right, top, bottom.
    twin: id of another mask that is nearly the same.
    holds: ids of two or more masks of its category that it lies over.
    """

    crumbs: int = 0
    box: bool = False
    cut: tuple[str, ...] = ()
    twin: str | None = None
    holds: tuple[str, ...] = ()


def oddities(annotations: Sequence[Annotation]) -> dict[int, Oddities]:
    """What is odd about each mask of an image, by key; masks that are empty or unread have none."""
    known = [(a, a.mask) for a in annotations if a.mask is not None and a.mask.area]
    near = _neighbours([mask for _, mask in known])
    found = {}
    for place, (annotation, mask) in enumerate(known):
        others = [known[other] for other in near[place]]
        box = mask.area >= max(LEAST_AREA, FULL_BOX * mask.bits.size)
        found[annotation.key] = Oddities(
            crumbs=sum(part.area < CRUMB * mask.area for part in components(mask)[1:]),
            box=box,
            cut=() if box else cut_sides(mask),
            twin=next((str(a.id) for a, other in others if iou(mask, other) >= TWIN_IOU), None),
            holds=_held(annotation, mask, others),
        )
    return found


def cut_sides(mask: Mask) -> tuple[str, ...]:
    """The sides where a mask ends in a long straight line, which is not the image's border."""
    if mask.area < LEAST_AREA:
        return ()
    box, bits = mask.box, mask.bits
    sides = {
        "left": (bits[:, 0], box.left > 0),
        "right": (bits[:, -1], box.right < mask.width),
        "top": (bits[0], box.top > 0),
        "bottom": (bits[-1], box.bottom < mask.height),
    }
    return tuple(
        side for side, (line, within) in sides.items() if within and _run(line) >= CUT * line.size
    )


def _run(line: BoolArray) -> int:
    """Length of the longest run."""
    edges = np.flatnonzero(np.diff(np.pad(line, 1)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _neighbours(masks: list[Mask]) -> list[list[int]]:
    """For every mask the others whose boxes meet its own."""
    boxes = np.array([(m.box.top, m.box.left, m.box.bottom, m.box.right) for m in masks])
    near = []
    for place, (top, left, bottom, right) in enumerate(boxes):
        meets = (boxes[:, 0] < bottom) & (boxes[:, 2] > top)
        meets &= (boxes[:, 1] < right) & (boxes[:, 3] > left)
        meets[place] = False
        near.append(np.flatnonzero(meets).tolist())
    return near


def _held(
    annotation: Annotation, mask: Mask, others: Sequence[tuple[Annotation, Mask]]
) -> tuple[str, ...]:
    """Two or more masks of one category that lie inside, apart from each other."""
    inside = [
        (a, other)
        for a, other in others
        if a.category == annotation.category
        and SIZABLE * mask.area <= other.area < TWIN_IOU * mask.area
        and intersection(mask, other) >= INSIDE * other.area
    ]
    apart = [
        (a, other)
        for a, other in inside
        if all(other is m or intersection(other, m) < INSIDE * other.area for _, m in inside)
    ]
    return tuple(str(a.id) for a, _ in apart) if len(apart) > 1 else ()
