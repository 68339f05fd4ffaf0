"""Cleaning without clicks: borders snap to where the network is sure, the rest stays.

Nobody looks at these masks one by one, so a change must be safe: it is made in a thin band along
the old border only, where the network is sure, and not at all where it amounts to next to nothing,
as on masks that are right already.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.clicks import squared_distances
from maskfix.masks import Mask, grow
from maskfix.refinement.job import InstanceJob
from maskfix.types import Box, Click

BAND = 0.1
"""Half the width of the band, in square roots of the mask's area."""
SURE = 0.8
"""Above this probability a pixel becomes object, below 1 minus this background."""
LEAST_CHANGE = 0.02
"""Smaller changes, in areas of the mask, are not made."""
MARGIN = 0.2
"""How far around the mask background is looked for, in extents of its box."""


class CleaningJob(InstanceJob):
    """Shows the network a mask with one click deep inside and one deep outside: all as it is."""

    def next_clicks(self) -> list[Click]:
        """See `maskfix.predictor.drive.Job`."""
        return [] if self.session.clicks else sure_clicks(self._mask)

    def parts(self) -> tuple[Mask, Mask]:
        """See `InstanceJob`."""
        mask, rest = self._mask, Mask.empty(self._mask.height, self._mask.width)
        box = surroundings(mask)
        return snap(mask, box, self.session.window(box)), rest

    @property
    def _mask(self) -> Mask:
        assert self.task.mask is not None
        return self.task.mask


def sure_clicks(mask: Mask) -> list[Click]:
    """The deepest pixel of a mask, and the deepest one around it: the least doubtful clicks."""
    tall, broad = MARGIN * mask.box.height, MARGIN * mask.box.width
    around = grow(mask.box, tall, broad, mask.height, mask.width)
    clicks = []
    for box, bits, positive in (
        (mask.box, mask.bits, True),
        (around, ~mask.window(around), False),
    ):
        depths = squared_distances(bits)
        if depths.any():
            row, col = divmod(int(depths.argmax()), depths.shape[1])
            clicks.append(Click(x=box.left + col, y=box.top + row, positive=positive))
    return clicks


def surroundings(mask: Mask) -> Box:
    """The part of the image in which cleaning may change something."""
    reach = _reach(mask)
    return grow(mask.box, reach, reach, mask.height, mask.width)


def _reach(mask: Mask) -> float:
    return max(1.5, BAND * float(np.sqrt(mask.area)))


def snap(mask: Mask, box: Box, sure: NDArray[np.float32]) -> Mask:
    """Move the border of a mask to where the network is sure of it.

    No pixel changes that is farther than `BAND` square roots of the area from the old border.

    Args:
        mask: not empty.
        box: its `surroundings`.
        sure: (box.height, box.width), probabilities of the object there.
    """
    reach, old = _reach(mask), mask.window(box)
    inside = cv2.distanceTransform(old.view(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~old).view(np.uint8), cv2.DIST_L2, 5)
    band = np.maximum(inside, outside) <= reach
    new = (old & ~(band & (sure < 1 - SURE))) | (band & (sure > SURE))
    if np.count_nonzero(new != old) <= LEAST_CHANGE * mask.area:
        return mask
    return Mask.from_window(mask.height, mask.width, box, new)
