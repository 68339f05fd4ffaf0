"""Telling two instances in one mask apart.

The network is asked twice, once for either side: the clicks on it as positive ones, those on the
other as negative ones. Neither answer sees the mask, which holds both sides and says nothing about
where one ends. Each pixel of the mask then goes to the side whose answer is the surer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.masks import Mask, components, subtract, union
from maskfix.predictor import Session
from maskfix.refinement.job import InstanceJob
from maskfix.types import Click

FloatArray = NDArray[np.float32]

LEAST_SHARE = 0.02
"""A side with less of a part than this is one that the network has not found."""


@dataclass(kw_only=True)
class SplitJob(InstanceJob):
    """Asks for the side of the positive clicks, then for that of the negative ones.

    Attributes:
        other: a second session of the same image; both start without a mask.
    """

    other: Session
    _answers: list[FloatArray] = field(default_factory=list)  # (h, w) each, over the mask's box

    def next_clicks(self) -> list[Click]:
        """See `maskfix.predictor.drive.Job`."""
        if self.session.clicks:
            assert self.task.mask is not None
            self._answers.append(self.session.window(self.task.mask.box))
            if len(self._answers) == 2:
                return []
            self.session = self.other
            return [replace(click, positive=not click.positive) for click in self.used]
        if not self._is_needed():
            return []
        self.used += self.task.script.clicks
        return list(self.used)

    def parts(self) -> tuple[Mask, Mask]:
        """See `InstanceJob`."""
        mask = self.task.mask
        assert mask is not None
        if len(self._answers) < 2:
            return mask, Mask.empty(mask.height, mask.width)
        return split_mask(mask, self._answers[0] - self._answers[1], self.task.script.clicks)

    def _is_needed(self) -> bool:
        """Whether the mask holds a part to be split off; else it has been done."""
        mask = self.task.mask
        assert mask is not None
        return _holds(mask, self.task.script.clicks, positive=False)


def split_mask(mask: Mask, lead: FloatArray, clicks: Sequence[Click]) -> tuple[Mask, Mask]:
    """Divide a mask between its positive and its negative clicks.

    Parts that do not touch go to the side whose clicks they hold; without any, to the side that
    leads in them. A part with clicks of both kinds is divided pixel by pixel, and what then is cut
    off from all clicks of its side goes to the other one. Where the network finds next to nothing
    of a side, its share are the pixels nearer to its clicks, on ways through the part.

    Args:
        mask: both instances together; at least one click of each kind lies in it.
        lead: (h, w) over the mask's box, how much likelier a pixel belongs to the side of the
            positive clicks than to the other; -1 to 1.
        clicks: positive ones on the part that is kept, negative ones on the other.

    Returns:
        the kept part and the other. Neither is empty, they do not overlap, together they are the
        mask, and every click in the mask lies in its own side.
    """
    rest = Mask.empty(mask.height, mask.width)
    for part in components(mask):
        has_positive = _holds(part, clicks, positive=True)
        has_negative = _holds(part, clicks, positive=False)
        if has_positive and has_negative:
            rest = union(rest, _cut_off(part, _over(lead, mask, part), clicks))
        elif has_negative or (not has_positive and _over(lead, mask, part)[part.bits].sum() < 0):
            rest = union(rest, part)
    return subtract(mask, rest), rest


def _cut_off(part: Mask, lead: FloatArray, clicks: Sequence[Click]) -> Mask:
    """The side of the negative clicks of a part that holds clicks of both kinds."""
    bits = part.bits
    seeds = np.zeros(bits.shape, np.int32)
    for click in clicks:
        if part.contains(round(click.y), round(click.x)):
            row, col = round(click.y) - part.box.top, round(click.x) - part.box.left
            seeds[row, col] = 1 if click.positive else 2
    first = np.where(seeds > 0, seeds == 1, lead > 0) & bits
    first &= _connected(first, seeds == 1)
    second = _connected(bits & ~first, seeds == 2)
    if min(second.sum(), bits.sum() - second.sum()) < LEAST_SHARE * bits.sum():
        from skimage.segmentation import watershed  # slow to import, seldom needed

        divided = watershed(np.zeros(bits.shape), seeds, mask=bits)  # type: ignore[no-untyped-call]
        second = np.asarray(divided == 2)
    return Mask.from_window(part.height, part.width, part.box, second)


def _connected(region: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pieces of a region that hold a seed."""
    _, labels = cv2.connectedComponents(region.view(np.uint8), connectivity=8)
    return region & np.isin(labels, np.unique(labels[seeds]))


def _over(lead: FloatArray, mask: Mask, part: Mask) -> FloatArray:
    """The lead within the box of a part."""
    top, left = part.box.top - mask.box.top, part.box.left - mask.box.left
    return lead[top : top + part.box.height, left : left + part.box.width]


def _holds(part: Mask, clicks: Sequence[Click], positive: bool) -> bool:
    return any(
        part.contains(round(click.y), round(click.x))
        for click in clicks
        if click.positive == positive
    )
