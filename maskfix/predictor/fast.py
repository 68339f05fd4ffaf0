"""The protocol for batches: crops of a few fixed sizes, and what is outside them is kept.

A crop shows the object with some surroundings at one of `SIZES`; many instances then share one
network call. Pixels stay aligned between image and crop. A session holds the object's bits and one
small patch of probabilities, never an array of the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from maskfix.crops import Size, fit_region, nearest_size, resample, to_network
from maskfix.errors import UsageError
from maskfix.masks import NO_BOX, Mask, enclose, intersect
from maskfix.predictor.changes import BoolArray, Limits, Place, keep_asked, keep_near
from maskfix.predictor.session import FloatArray, NetworkPoint, Session, View, as_probabilities
from maskfix.types import Box, Click


@dataclass(frozen=True)
class FastProtocol:
    """Settings of the batch protocol.

    Attributes:
        zoom_target: side of the square crops in network pixels, a multiple of 32; tall and broad
            crops have about as many pixels. Small regions have smaller crops, which take less time.
        expansion: the crop is this much larger than the object, in each direction.
        min_crop: smallest extent of a crop in image pixels.
        threshold: a pixel is in the resulting mask where its probability is above this.
    """

    zoom_target: int = 320
    expansion: float = 1.4
    min_crop: int = 48
    threshold: float = 0.49

    SMALL = 0.8  # side of a small crop relative to `zoom_target`, and of its regions to its side
    KEEP_IOU = 0.6  # a crop is kept while it overlaps the wished one so much
    LIMITS = Limits()  # of what clicks on given masks change
    DISK = 2.5  # radius in network pixels of what a click is sure to change

    def __post_init__(self) -> None:
        side = self.zoom_target
        if not isinstance(side, int) or side < 32 or side % 32:
            raise UsageError(
                f"zoom_target: the fast protocol expects a multiple of 32 pixels, found {side!r}"
            )

    def size_for(self, height: float, width: float) -> Size:
        """The network input, square, tall or broad, for a region of so many image pixels."""
        small = _rounded(self.SMALL * self.zoom_target)
        square = small if height * width < (self.SMALL * small) ** 2 else self.zoom_target
        long = _rounded(square * 1.25)
        short = _rounded(square * square / long)
        sizes = Size(square, square), Size(long, short), Size(short, long)
        return nearest_size(height, width, sizes)

    def start(self, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None) -> FastSession:
        """Begin an instance on an (H, W, 3) uint8 RGB image, from a mask or from none."""
        return FastSession(self, image, mask)


class FastSession(Session):
    """One instance under `FastProtocol`."""

    def __init__(
        self, protocol: FastProtocol, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None
    ) -> None:
        super().__init__(given=mask is not None)
        self.protocol = protocol
        self.image: NDArray[np.uint8] = image
        height, width = image.shape[:2]
        self.region: Box | None = None
        self.size = protocol.size_for(height, width)
        self._patch: FloatArray | None = None  # (h, w), the last answer
        self._followed = 0  # clicks that the mask follows already
        if isinstance(mask, Mask):
            self._mask = mask
        else:
            given = as_probabilities(mask, height, width)
            self._mask = Mask.from_array(given > protocol.threshold)

    def view(self) -> View:
        """The crop around the object, or all of the image when there is no object yet."""
        self._choose_region()
        assert self.region is not None
        crop = resample(self.image[self.region.slices], self.size)
        if self._patch is None:
            window = self._mask.window(self.region).astype(np.float32)
            given = resample(window, self.size)
        else:
            given = self._patch
        points = []
        for i, click in enumerate(self.clicks):
            row, col = to_network(click.x, click.y, self.region, self.size)
            if -0.5 <= row < self.size.height - 0.5 and -0.5 <= col < self.size.width - 0.5:
                points.append(NetworkPoint(row, col, i, click.positive))
        return View(
            torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1).float() / 255,
            torch.from_numpy(given)[None],
            tuple(points),
        )

    def accept(self, probabilities: FloatArray) -> bool:
        """Replace the mask inside the crop; asks again when a first look found a small object."""
        assert self.region is not None
        looked_at_all = not self._mask.bits.size
        self._patch = probabilities
        soft = self._in_region()
        inside = soft > self.protocol.threshold
        if self.given:
            inside = self._keep_asked(soft, inside)
        self._obey_clicks(inside)
        changed = inside != (soft > self.protocol.threshold)
        if changed.any():  # the network is to see the mask as it stands
            self._patch = resample(np.where(changed, inside.astype(np.float32), soft), self.size)
        self._paste(inside)
        if looked_at_all and self._mask.bits.size:
            region = self.region
            self._choose_region()
            if self.region != region:
                return True
        self._followed = len(self.clicks)
        return False

    def probabilities(self) -> FloatArray:
        """See `Session`; outside the last crop the mask's 0 or 1."""
        return self.window(Box(0, 0, self._mask.height, self._mask.width))

    def window(self, box: Box) -> FloatArray:
        """See `Session`; makes no array of the whole image."""
        soft = self._mask.window(box).astype(np.float32)
        shared = NO_BOX if self.region is None else intersect(box, self.region)
        if self._patch is not None and self.region is not None:
            answer = self._in_region()
            soft[_within(shared, box).slices] = answer[_within(shared, self.region).slices]
        return soft

    def mask(self) -> Mask:
        """See `Session`."""
        return self._mask

    def _paste(self, inside: BoolArray) -> None:
        """Put a mask of the region in the place of what was there."""
        region = self.region
        assert region is not None
        whole = enclose(region, self._mask.box)
        bits = self._mask.window(whole)
        rows, cols = region.top - whole.top, region.left - whole.left
        bits[rows : rows + region.height, cols : cols + region.width] = inside
        self._mask = Mask.from_window(self._mask.height, self._mask.width, whole, bits)

    def _in_region(self) -> FloatArray:
        assert self.region is not None and self._patch is not None
        return resample(self._patch, Size(self.region.height, self.region.width))

    def _keep_asked(self, soft: FloatArray, inside: BoolArray) -> BoolArray:
        """The given mask in the region with those changes that its clicks have asked for."""
        assert self.region is not None
        before = self._mask.window(self.region)
        side, limits = float(np.sqrt(self._mask.area)), self.protocol.LIMITS
        if self._followed:
            return keep_near(before, inside, self._places(self._followed), side, limits)
        sureness = np.abs(soft - self.protocol.threshold)
        return keep_asked(before, inside, sureness, self._places(), side, limits)

    def _places(self, first: int = 0) -> list[Place]:
        """The clicks, from the given one on, that lie in the region."""
        places = [Place(*self._pixel(c), c.positive) for c in self.clicks[first:]]
        return [place for place in places if self._holds(place.row, place.col)]

    def _obey_clicks(self, inside: BoolArray) -> None:
        """Make a mask of the region agree with every click, by small disks where it does not."""
        assert self.region is not None
        radius = max(1, round(self.protocol.DISK * self.region.height / self.size.height))
        disk = np.zeros(inside.shape, np.uint8)
        places = self._places()
        for row, col, positive in places:
            if inside[row, col] != positive:
                disk[:] = 0
                cv2.circle(disk, (col, row), radius, 1, -1)
                inside[disk.view(bool)] = positive
        for row, col, positive in places:  # disks of other clicks may have covered these
            inside[row, col] = positive

    def _pixel(self, click: Click) -> tuple[int, int]:
        """(row, col) of a click in the region, which may not hold it."""
        assert self.region is not None
        return round(click.y) - self.region.top, round(click.x) - self.region.left

    def _holds(self, row: int, col: int) -> bool:
        assert self.region is not None
        return 0 <= row < self.region.height and 0 <= col < self.region.width

    def _choose_region(self) -> None:
        """Set region and size; a new region drops the patch, the mask's bits stand in for it."""
        height, width = self.image.shape[:2]
        box = self._mask.box
        for click in self.clicks:
            if click.positive and box.height:
                row, col = round(click.y), round(click.x)
                box = enclose(box, Box(row, col, row + 1, col + 1))
        if not box.height:
            box, expansion = Box(0, 0, height, width), 1.0
        else:
            expansion = self.protocol.expansion
        tall = max(box.height * expansion, self.protocol.min_crop)
        broad = max(box.width * expansion, self.protocol.min_crop)
        size = self.protocol.size_for(tall, broad)
        center_row, center_col = (box.top + box.bottom) / 2, (box.left + box.right) / 2
        wished = fit_region(center_row, center_col, tall, broad, size, height, width)
        if self.region is not None and self._is_good_enough(wished, box):
            return
        self.region, self.size, self._patch = wished, size, None

    def _is_good_enough(self, wished: Box, needed: Box) -> bool:
        current = self.region
        assert current is not None
        if enclose(current, needed) != current:
            return False
        rows = min(current.bottom, wished.bottom) - max(current.top, wished.top)
        cols = min(current.right, wished.right) - max(current.left, wished.left)
        common = max(0, rows) * max(0, cols)
        total = current.height * current.width + wished.height * wished.width - common
        return common / total >= self.protocol.KEEP_IOU


def _rounded(length: float) -> int:
    """To what the network divides by."""
    return 32 * max(1, round(length / 32))


def _within(box: Box, frame: Box) -> Box:
    """A box in the rows and columns of another one that holds it."""
    if not box.height:
        return box
    return Box(
        box.top - frame.top, box.left - frame.left, box.bottom - frame.top, box.right - frame.left
    )
