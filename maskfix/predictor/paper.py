"""The published test-time protocol: Zoom-In on the object (paper, section 5; from f-BRS).

Regions are inclusive (first row, last row, first column, last column), as published; the numbers
that depend on that convention are kept to the bit. Two defects of the published code are not: when
a prediction empties after zooming, the whole image is looked at and the answer is put there, not
into the old region; and a prediction that is made twice keeps the mask it started from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from maskfix.masks import Mask
from maskfix.predictor.session import FloatArray, NetworkPoint, Session, View, as_probabilities
from maskfix.types import Click


class Region(NamedTuple):
    """Rows and columns of an image, both ends included."""

    first_row: int
    last_row: int
    first_col: int
    last_col: int

    @property
    def height(self) -> int:
        """Rows covered."""
        return self.last_row - self.first_row + 1

    @property
    def width(self) -> int:
        """Columns covered."""
        return self.last_col - self.first_col + 1

    @property
    def slices(self) -> tuple[slice, slice]:
        """To index an array of the image."""
        rows = slice(self.first_row, self.last_row + 1)
        return rows, slice(self.first_col, self.last_col + 1)


@dataclass(frozen=True)
class PaperProtocol:
    """Settings of the published protocol; the defaults are those of its evaluation.

    Attributes:
        zoom_target: longest side that a zoomed region is brought to, or (height, width) to bring
            it to regardless of its shape; None never zooms.
        skip_clicks: no zooming up to so many clicks; -1 zooms from the start, on the whole image
            while there is no object.
        expansion: the region is this much larger than the object, in each direction.
        min_crop: smallest extent of a region in image pixels.
        max_size: longest side that anything is shown at, None for any.
        clicks_limit: the network sees the first so many clicks only, None for all.
        threshold: a pixel is in the resulting mask where its probability is above this.
    """

    zoom_target: int | tuple[int, int] | None = 400
    skip_clicks: int = 1
    expansion: float = 1.4
    min_crop: int = 200
    max_size: int | None = None
    clicks_limit: int | None = None
    threshold: float = 0.49

    RECOMPUTE_IOU = 0.5  # a region is kept while it overlaps the wished one so much
    OBJECT_PROBABILITY = 0.5  # what counts as object when the region is chosen

    def start(self, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None) -> PaperSession:
        """Begin an instance on an (H, W, 3) uint8 RGB image, from a mask or from none."""
        return PaperSession(self, image, mask)


class PaperSession(Session):
    """One instance under `PaperProtocol`."""

    def __init__(
        self, protocol: PaperProtocol, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None
    ) -> None:
        super().__init__(given=mask is not None)
        self.protocol = protocol
        self.image: NDArray[np.uint8] = image
        self.height, self.width = image.shape[:2]
        self.region: Region | None = None
        self._previous = as_probabilities(mask, self.height, self.width)  # what the network sees
        self._probabilities = self._previous  # its latest answer

    def view(self) -> View:
        """The whole image, or the zoomed region."""
        self.region = self._choose_region()
        frame = self.region or Region(0, self.height - 1, 0, self.width - 1)
        image = torch.from_numpy(np.ascontiguousarray(self.image[frame.slices]))
        mask = torch.from_numpy(self._previous[frame.slices])
        scene = torch.cat([image.permute(2, 0, 1).float() / 255, mask[None]])
        points = [(c.y, c.x) for c in self.clicks]
        if self.region is not None:
            assert self.protocol.zoom_target is not None
            scene, points = _zoom(scene, points, frame, self.protocol.zoom_target)
        longest = max(scene.shape[1:])
        if self.protocol.max_size is not None and longest > self.protocol.max_size:
            frame = Region(0, scene.shape[1] - 1, 0, scene.shape[2] - 1)
            scene, points = _zoom(scene, points, frame, self.protocol.max_size)
        shown = [
            NetworkPoint(row, col, i, click.positive)
            for i, (click, (row, col)) in enumerate(zip(self.clicks, points, strict=True))
        ]
        return View(scene[:3], scene[3:], tuple(shown[: self.protocol.clicks_limit]))

    def accept(self, probabilities: FloatArray) -> bool:
        """Put the answer back into the image; what lies outside the region becomes background."""
        region = self.region or Region(0, self.height - 1, 0, self.width - 1)
        answer = _resize(torch.from_numpy(probabilities)[None], region.height, region.width)
        placed = np.zeros((self.height, self.width), np.float32)
        placed[region.slices] = answer[0].numpy()
        self._probabilities = placed
        if self._should_look_closer(placed):
            return True
        self._previous = placed
        return False

    def probabilities(self) -> FloatArray:
        """See `Session`."""
        return self._probabilities

    def mask(self) -> Mask:
        """See `Session`."""
        return Mask.from_array(self._probabilities > self.protocol.threshold)

    def _choose_region(self) -> Region | None:
        """The region to zoom on, None for the whole image as it is."""
        protocol = self.protocol
        if protocol.zoom_target is None or len(self.clicks) <= protocol.skip_clicks:
            return None
        wished = self._object_region(self._probabilities, self.clicks)
        if wished is None:
            if protocol.skip_clicks >= 0:
                return None
            wished = Region(0, self.height - 1, 0, self.width - 1)
        current = self.region
        if (
            current is None
            or not _holds_positive_clicks(current, self.clicks)
            or region_iou(wished, current) < protocol.RECOMPUTE_IOU
        ):
            return wished
        return current

    def _should_look_closer(self, placed: FloatArray) -> bool:
        """With `skip_clicks` 0 the first answer may show that zooming pays at once."""
        protocol = self.protocol
        if protocol.zoom_target is None or protocol.skip_clicks > 0 or self.region is not None:
            return False
        wished = self._object_region(placed, [])
        frame = Region(0, self.height - 1, 0, self.width - 1)
        return wished is not None and region_iou(wished, frame) < protocol.RECOMPUTE_IOU

    def _object_region(self, probabilities: FloatArray, clicks: list[Click]) -> Region | None:
        """The box of the object and the positive clicks, expanded; None without an object."""
        present = probabilities > self.protocol.OBJECT_PROBABILITY
        if not present.any():
            return None
        for click in clicks:
            if click.positive:
                present[int(click.y), int(click.x)] = True
        rows, cols = np.flatnonzero(present.any(axis=1)), np.flatnonzero(present.any(axis=0))
        box = Region(int(rows[0]), int(rows[-1]), int(cols[0]), int(cols[-1]))
        grown = expand_region(box, self.protocol.expansion, self.protocol.min_crop)
        return Region(
            max(0, grown.first_row),
            min(self.height - 1, grown.last_row),
            max(0, grown.first_col),
            min(self.width - 1, grown.last_col),
        )


def expand_region(region: Region, ratio: float, least: float | None = None) -> Region:
    """Scale a region about its centre, to at least `least` pixels each way; halves go to even."""
    row = (region.first_row + region.last_row) / 2
    col = (region.first_col + region.last_col) / 2
    height, width = ratio * region.height, ratio * region.width
    if least is not None:
        height, width = max(height, least), max(width, least)
    return Region(
        round(row - height / 2),
        round(row + height / 2),
        round(col - width / 2),
        round(col + width / 2),
    )


def region_iou(a: Region, b: Region) -> float:
    """Product of the IoU of the row ranges and that of the column ranges."""

    def overlap(first_a: int, last_a: int, first_b: int, last_b: int) -> float:
        common = max(0, min(last_a, last_b) - max(first_a, first_b) + 1)
        return common / max(1e-6, max(last_a, last_b) - min(first_a, first_b) + 1)

    return overlap(*a[:2], *b[:2]) * overlap(*a[2:], *b[2:])


def _holds_positive_clicks(region: Region, clicks: list[Click]) -> bool:
    """Whether all lie inside; the last row and column count as outside, as published."""
    return all(
        region.first_row <= c.y < region.last_row and region.first_col <= c.x < region.last_col
        for c in clicks
        if c.positive
    )


def _zoom(
    scene: Tensor, points: list[tuple[float, float]], region: Region, target: int | tuple[int, int]
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Resize the (C, h, w) scene of a region; points are (row, column) of the image.

    The published mapping of clicks does not quite match that of pixels, by up to one; kept.
    """
    if isinstance(target, tuple):
        height, width = target
    else:
        scale = target / max(region.height, region.width)
        height, width = round(region.height * scale), round(region.width * scale)
    moved = [
        (
            height * (row - region.first_row) / region.height,
            width * (col - region.first_col) / region.width,
        )
        for row, col in points
    ]
    return _resize(scene, height, width), moved


def _resize(scene: Tensor, height: int, width: int) -> Tensor:
    if scene.shape[1:] == (height, width):
        return scene
    size = (height, width)
    return F.interpolate(scene[None], size=size, mode="bilinear", align_corners=True)[0]
