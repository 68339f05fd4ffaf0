"""Clicks as images: disks of a fixed radius, or a distance transform (paper, section 3.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Encoding = Literal["disk", "distance"]


class ClickMaps(nn.Module):
    """Turns lists of clicks into maps that a network can read.

    Args:
        radii: one radius in network-input pixels per click group; a single number for the usual
            case of one group. With several groups, a click with order index i belongs to group i,
            clicks past the last group to the last, and negative first clicks to the last too.
        encoding: ``"disk"`` is 1 within the radius (inclusive) and 0 elsewhere; ``"distance"`` is
            tanh(2 d / radius) of the distance d to the nearest click, 1 where there is none.

    The maps have 2 channels a group, positive then negative.
    """

    radius: Tensor

    def __init__(self, radii: float | tuple[float, ...] = 5, encoding: Encoding = "disk") -> None:
        super().__init__()
        self.radii = radii if isinstance(radii, tuple) else (radii,)
        self.encoding = encoding
        # A tensor from the start: a device is waited for where one is made of Python's numbers.
        radius = torch.tensor(self.radii, dtype=torch.float32)
        self.register_buffer("radius", radius, persistent=False)

    @property
    def channels(self) -> int:
        """Number of maps made: 2 a group."""
        return 2 * len(self.radii)

    def forward(self, points: Tensor, height: int, width: int) -> Tensor:
        """Draw the maps.

        Args:
            points: (B, 2N, 3) rows (y, x, order index) in input pixels, fractions allowed; the
                first N are positive, the last N negative; void where max(y, x) < 0.
            height, width: size of the maps in pixels.

        Returns:
            (B, channels, height, width) float32 in [0, 1].
        """
        batch, slots = points.shape[0], points.shape[1]
        points = points.float()
        valid = points[..., :2].amax(-1) >= 0  # (B, 2N)
        negative = (torch.arange(slots, device=points.device) >= slots // 2).expand(batch, -1)
        last = len(self.radii) - 1
        group = points[..., 2].long().clamp(0, last)  # (B, 2N)
        group = torch.where(negative & (group == 0), last, group)
        channel = 2 * group + negative.long()
        draw = self._disks if self.encoding == "disk" else self._distances
        return draw(points[..., :2], valid, channel, height, width)

    def _disks(self, yx: Tensor, valid: Tensor, channel: Tensor, height: int, width: int) -> Tensor:
        """Paint only the window around each click, so the cost does not grow with the image."""
        batch = yx.shape[0]
        reach = int(max(self.radii)) + 1
        radius = self.radius[channel // 2]  # (B, P)
        offsets = torch.arange(-reach, reach + 1, device=yx.device)
        rows = yx[..., 0].floor().long()[..., None] + offsets  # (B, P, K)
        cols = yx[..., 1].floor().long()[..., None] + offsets
        row_d2 = (rows - yx[..., 0:1]) ** 2
        col_d2 = (cols - yx[..., 1:2]) ** 2
        inside = row_d2[..., :, None] + col_d2[..., None, :] <= (radius**2)[..., None, None]
        inside = inside & valid[..., None, None]
        inside = inside & ((rows >= 0) & (rows < height))[..., :, None]
        inside = inside & ((cols >= 0) & (cols < width))[..., None, :]
        plane = torch.arange(batch, device=yx.device)[:, None] * self.channels + channel
        index = (plane[..., None] * height + rows)[..., :, None] * width + cols[..., None, :]
        spare = batch * self.channels * height * width  # one cell more takes what is not painted
        index = torch.where(inside, index, spare)
        maps = torch.zeros(spare + 1, device=yx.device)
        maps.index_fill_(0, index.flatten(), 1.0)
        return maps[:spare].view(batch, self.channels, height, width)

    def _distances(
        self, yx: Tensor, valid: Tensor, channel: Tensor, height: int, width: int
    ) -> Tensor:
        batch = yx.shape[0]
        row_d2 = (torch.arange(height, device=yx.device) - yx[..., 0:1]) ** 2  # (B, P, H)
        col_d2 = (torch.arange(width, device=yx.device) - yx[..., 1:2]) ** 2
        nearest = torch.full((batch, self.channels, height, width), torch.inf, device=yx.device)
        for p in range(yx.shape[1]):
            d2 = row_d2[:, p, :, None] + col_d2[:, p, None, :]
            d2 = torch.where(valid[:, p, None, None], d2, torch.inf)
            rows = torch.arange(batch, device=yx.device)
            nearest[rows, channel[:, p]] = torch.minimum(nearest[rows, channel[:, p]], d2)
        radius = self.radius.repeat_interleave(2)[:, None, None]
        return torch.tanh(2 * nearest.sqrt() / radius)
