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

from maskfix.clicks import rough_depth
from maskfix.predictor.session import FloatArray
from maskfix.types import Box

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
        stays[change.pieces_of(change.against)] = False
        stays[change.pieces_of(change.clicks)] = True
        kept = stays[change.pieces] & ~change.deep_without_click(allowed)
        taken[change.rows[kept], change.cols[kept]] = change.added
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
        for click, piece in zip(change.clicks, change.pieces_of(change.clicks), strict=True):
            radius = int(max(4, limits.least_reach * side, limits.reach * change.depth_at(click)))
            kept = (change.pieces == piece) & change.is_near(click, radius)
            taken[change.rows[kept], change.cols[kept]] = change.added
    return taken


@dataclass(frozen=True)
class _Change:
    """All that was added, or all that was removed: N pixels, and a window that holds them.

    Attributes:
        added: which of the two.
        box: of the window in the arrays.
        labels: (h, w) int32 in the window, the number of the piece, 0 for none.
        depth: (h, w) float32 in the window.
        rows, cols: (N,) where the pixels are in the arrays.
        pieces: (N,) their labels.
        depths: (N,) float32.
        clicks: those in it that ask for it.
        against: those in it that contradict it.
    """

    added: bool
    box: Box
    labels: NDArray[np.int32]
    depth: FloatArray
    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    pieces: NDArray[np.int32]
    depths: FloatArray
    clicks: list[Place]
    against: list[Place]

    def pieces_of(self, places: list[Place]) -> list[int]:
        """The numbers of the pieces that places lie in."""
        return [int(self.labels[self._in_window(place)]) for place in places]

    def depth_at(self, place: Place) -> float:
        """The depth of a pixel."""
        return float(self.depth[self._in_window(place)])

    def is_near(self, place: Place, radius: int) -> BoolArray:
        """(N,), which pixels a disk covers."""
        disk = np.zeros(self.labels.shape, np.uint8)
        row, col = self._in_window(place)
        cv2.circle(disk, (col, row), radius, 1, -1)
        return self._at_pixels(disk.view(bool))

    def deepest(self) -> FloatArray:
        """Of every piece."""
        deepest = np.zeros(self.pieces.max() + 1, np.float32)
        np.maximum.at(deepest, self.pieces, self.depths)
        return deepest

    def means(self, values: FloatArray) -> NDArray[np.float64]:
        """Mean in every piece of values (h, w) of the arrays."""
        sums = np.bincount(self.pieces, values[self.rows, self.cols])
        return np.asarray(sums / np.bincount(self.pieces).clip(min=1))

    def clicked_depth(self) -> float:
        """The depth of what was clicked: users miss the middle, so it is looked for nearby."""
        deepest = 0.0
        for click, piece in zip(self.clicks, self.pieces_of(self.clicks), strict=True):
            near = self.is_near(click, int(2 * self.depth_at(click)) + 1)
            deepest = max(deepest, float(self.depths[near & (self.pieces == piece)].max()))
        return deepest

    def deep_without_click(self, allowed: float) -> BoolArray:
        """(N,), of clicked pieces the parts deeper than allowed that hold no click."""
        core = self.depth > allowed
        if not self.clicks or not core.any():
            return np.zeros(self.pieces.shape, bool)
        away = cv2.distanceTransform((~core).view(np.uint8), cv2.DIST_L2, 5)
        deep = (self.labels > 0) & (away <= allowed)
        _, parts = cv2.connectedComponents(deep.view(np.uint8), connectivity=8)
        meant = [parts[self._in_window(click)] for click in self.clicks]
        return self._at_pixels(deep & ~np.isin(parts, meant))

    def _in_window(self, place: Place) -> tuple[int, int]:
        """(row, col)."""
        return place.row - self.box.top, place.col - self.box.left

    def _at_pixels(self, window: BoolArray) -> BoolArray:
        """Of (h, w) in the window, the values of the pixels, (N,)."""
        return window[self.rows - self.box.top, self.cols - self.box.left]


def _changes(before: BoolArray, after: BoolArray, clicks: Sequence[Place]) -> Iterator[_Change]:
    """What was added and what was removed, if anything."""
    for added in (True, False):
        change = (after & ~before) if added else (before & ~after)
        left, top, width, height = cv2.boundingRect(change.view(np.uint8))
        if not width:
            continue
        box = Box(top, left, top + height, left + width)
        bits = change[box.slices]
        _, labels = cv2.connectedComponents(bits.view(np.uint8), connectivity=8)
        depth = np.asarray(rough_depth(bits), np.float32)
        rows, cols = np.nonzero(bits)
        here = [click for click in clicks if change[click.row, click.col]]
        yield _Change(
            added,
            box,
            np.asarray(labels, np.int32),
            depth,
            rows + top,
            cols + left,
            np.asarray(labels[rows, cols], np.int32),
            depth[rows, cols],
            [click for click in here if click.positive == added],
            [click for click in here if click.positive != added],
        )
