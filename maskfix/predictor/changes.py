"""Which changes of a mask its clicks have asked for.

A change is what was added to a mask, or removed from it, in one piece; its depth at a pixel is the
distance to where it ends. People click in the middle of what is wrong, the worst first: so a change
that is much deeper than those that were clicked is not what they meant. Lengths are in pixels of
the mask, those of `Limits` in square roots of its area.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.predictor.session import FloatArray

BoolArray = NDArray[np.bool_]


class Place(NamedTuple):
    """A click inside of the arrays."""

    row: int
    col: int
    positive: bool


@dataclass(frozen=True)
class Limits:
    """How far changes may go.

    Attributes:
        unasked_depth: no change without a click is deeper than this.
        deeper: nor is it so many times as deep as the deepest change that was clicked, and nor is
            any part of a clicked change without a click.
        shallow: what is always shallow enough for that.
        sureness: mean distance of the probabilities to the threshold in a change without a click,
            at least.
        reach: of a later click, relative to the change's depth there.
        least_reach: the reach is at least this.
    """

    unasked_depth: float = 0.15
    deeper: float = 1.5
    shallow: float = 0.03
    sureness: float = 0.07
    reach: float = 3.0
    least_reach: float = 0.15


def keep_asked(
    before: BoolArray,
    after: BoolArray,
    sureness: FloatArray,
    clicks: Sequence[Place],
    side: float,
    limits: Limits,
) -> BoolArray:
    """What a first answer may change: what was clicked, and borders where the network is sure.

    Args:
        before, after: (h, w), the mask and the network's answer.
        sureness: (h, w), distance of the probabilities to the threshold.
        clicks: all of them; where the mask agrees with all, depth is limited by itself alone.
        side: square root of the mask's area.

    Returns:
        (h, w), the mask with those changes that may stay.
    """
    taken: BoolArray = before.copy()
    changes = list(_changes(before, after, clicks))
    allowed = np.inf
    if any(before[c.row, c.col] != c.positive for c in clicks):
        clicked = max((c.clicked_depth() for c in changes), default=0.0)
        allowed = max(limits.shallow * side, limits.deeper * clicked)
    for change in changes:
        stays = change.deepest() <= min(allowed, limits.unasked_depth * side)
        stays &= change.means(sureness) >= limits.sureness
        stays[change.labels_of(change.against)] = False
        stays[change.labels_of(change.clicks)] = True
        stays[0] = False
        taken[stays[change.labels] & ~change.deep_without_click(allowed)] = change.added
    return taken


def keep_near(
    before: BoolArray, after: BoolArray, clicks: Sequence[Place], side: float, limits: Limits
) -> BoolArray:
    """What a later answer may change: near the new clicks, the pieces that they lie in.

    Once a mask has been put right by an answer, a click is about what is still wrong where it lies.

    Args, returns: as `keep_asked`; `clicks` are the new ones.
    """
    taken: BoolArray = before.copy()
    for change in _changes(before, after, clicks):
        for click in change.clicks:
            depth = change.depth[click.row, click.col]
            radius = int(max(4, limits.least_reach * side, limits.reach * depth))
            near = np.zeros(before.shape, np.uint8)
            cv2.circle(near, (click.col, click.row), radius, 1, -1)
            piece = change.labels == change.labels[click.row, click.col]
            taken[piece & near.view(bool)] = change.added
    return taken


@dataclass(frozen=True)
class _Change:
    """All that was added, or all that was removed.

    Attributes:
        added: which of the two.
        labels: (h, w) int32, the number of the piece, 0 for none.
        depth: (h, w) float32.
        clicks: those in it that ask for it.
        against: those in it that contradict it.
    """

    added: bool
    count: int
    labels: NDArray[np.int32]
    depth: FloatArray
    clicks: list[Place]
    against: list[Place]

    def labels_of(self, places: list[Place]) -> list[int]:
        return [int(self.labels[place.row, place.col]) for place in places]

    def deepest(self) -> FloatArray:
        """Of every piece."""
        deepest = np.zeros(self.count, np.float32)
        np.maximum.at(deepest, self.labels.ravel(), self.depth.ravel())
        return deepest

    def means(self, values: FloatArray) -> NDArray[np.float64]:
        """Mean value in every piece."""
        flat = self.labels.ravel()
        sums = np.bincount(flat, values.ravel(), minlength=self.count)
        counts = np.bincount(flat, minlength=self.count)
        return np.asarray(sums / counts.clip(min=1))

    def clicked_depth(self) -> float:
        """The depth of what was clicked: users miss the middle, so it is looked for nearby."""
        deepest = 0.0
        for click in self.clicks:
            here = self.labels == self.labels[click.row, click.col]
            near = np.zeros(here.shape, np.uint8)
            radius = int(2 * self.depth[click.row, click.col]) + 1
            cv2.circle(near, (click.col, click.row), radius, 1, -1)
            deepest = max(deepest, float(self.depth[here & near.view(bool)].max()))
        return deepest

    def deep_without_click(self, allowed: float) -> BoolArray:
        """(h, w), of clicked pieces the parts deeper than allowed that hold no click."""
        core = self.depth > allowed
        if not self.clicks or not core.any():
            return np.zeros(core.shape, bool)
        away = cv2.distanceTransform((~core).view(np.uint8), cv2.DIST_L2, 5)
        deep = (self.labels > 0) & (away <= allowed)
        _, parts = cv2.connectedComponents(deep.view(np.uint8), connectivity=8)
        meant = [parts[c.row, c.col] for c in self.clicks]
        return deep & ~np.isin(parts, meant)


def _changes(before: BoolArray, after: BoolArray, clicks: Sequence[Place]) -> Iterator[_Change]:
    """What was added and what was removed, if anything."""
    for added in (True, False):
        change = (after & ~before) if added else (before & ~after)
        if not change.any():
            continue
        count, labels = cv2.connectedComponents(change.view(np.uint8), connectivity=8)
        padded = np.pad(change.view(np.uint8), 1)  # a change ends at the border of the crop
        depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
        depths = np.asarray(depth, np.float32)
        here = [c for c in clicks if change[c.row, c.col]]
        own = [c for c in here if c.positive == added]
        against = [c for c in here if c.positive != added]
        yield _Change(added, count, np.asarray(labels, np.int32), depths, own, against)
