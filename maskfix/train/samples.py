"""From a data set to batches: choose an object, cut a crop, draw clicks, damage a start mask.

Every choice is drawn from a generator made of (seed, epoch, sample), so that neither the number of
workers nor a resumed run changes a batch. Shapes: h, w the crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskfix.crops import Size, fit_region, resample
from maskfix.damage import DAVIS585, DETECTOR, damage
from maskfix.errors import InstanceError
from maskfix.masks import Mask
from maskfix.train.config import CropConfig, TrainConfig
from maskfix.train.data import InstanceData
from maskfix.train.sampling import RANDOM_INDEX, random_clicks
from maskfix.types import Box, Click

BoolArray = NDArray[np.bool_]
_TRIES = 20


@dataclass(frozen=True)
class Crop:
    """One crop of an image with what lies in it.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        objects: the target's objects, (h, w) bool each; more than one when merged.
        others: (h, w) bool, pixels of other objects.
    """

    image: NDArray[np.uint8]
    objects: list[BoolArray]
    others: BoolArray


@dataclass(frozen=True)
class Batch:
    """What one training step starts from.

    Attributes:
        image: (B, 3, h, w) float32 RGB in [0, 1].
        target: (B, 1, h, w) float32, 1 on the object.
        mask: (B, 1, h, w) float32, the previous or external mask; zeros for none.
        points: (B, 2N, 3) float32, see `maskfix.model.network.ClickNetwork`.
        awaits_click: (B,) bool: a click on the errors of `mask` comes before the first prediction.
    """

    image: Tensor
    target: Tensor
    mask: Tensor
    points: Tensor
    awaits_click: Tensor


class BatchSource(torch.utils.data.Dataset[Batch]):
    """The batches of a run, addressed by (epoch, batch)."""

    def __init__(self, config: TrainConfig, data: list[InstanceData]) -> None:
        self.config, self.data = config, data
        weights = np.array([spec.weight for spec in config.data])
        self.shares = weights / weights.sum()
        self.batches = max(1, config.epoch_samples // config.batch_size)

    def __getitem__(self, index: tuple[int, int]) -> Batch:
        epoch, batch = index
        config = self.config
        sizes = config.crop.sizes
        choice = np.random.default_rng([config.seed, epoch, batch, 1]).integers(len(sizes))
        size = Size(*sizes[choice])
        first = batch * config.batch_size
        samples = []
        for i in range(first, first + config.batch_size):
            samples.append(self.sample(np.random.default_rng([config.seed, epoch, i]), size))
        image, target, mask, points, awaits = (
            np.stack(part) for part in zip(*samples, strict=True)
        )
        return Batch(
            torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255,
            torch.from_numpy(target)[:, None].float(),
            torch.from_numpy(mask)[:, None],
            torch.from_numpy(points),
            torch.from_numpy(awaits),
        )

    def sample(self, rng: np.random.Generator, size: Size) -> tuple[NDArray[Any], ...]:
        """One sample: image, target, mask, points, whether a click comes first."""
        crop = self._crop(rng, size)
        image = jitter_colors(crop.image, rng)
        target = np.any(crop.objects, axis=0) if crop.objects else np.zeros(size, bool)
        start, clicks = self.config.start, self.config.clicks
        mask, awaits = None, False
        if target.any() and rng.random() < start.damaged:
            mixture = DETECTOR if rng.random() < start.detector else DAVIS585
            try:
                mask = damage(target, rng, *start.iou, mixture)
            except InstanceError:  # too small for that
                pass
        points = np.full((2 * clicks.max_points, 3), -1, np.float32)
        if mask is None:
            made = random_clicks(crop.objects, crop.others, clicks.max_points, clicks.gamma, rng)
            write_points(points, made)
        else:
            awaits = rng.random() >= start.unclicked
        given = np.zeros(size, np.float32) if mask is None else mask.astype(np.float32)
        return image, target, given, points, np.array(awaits)

    def _crop(self, rng: np.random.Generator, size: Size) -> Crop:
        """Draw until a crop holds an object that is large enough."""
        for _ in range(_TRIES):
            which = int(rng.choice(len(self.data), p=self.shares))
            data, spec = self.data[which], self.config.data[which]
            index = int(rng.integers(len(data.records)))
            masks = data.masks(index)
            order = rng.permutation(len(masks))
            count = 2 if len(masks) > 1 and rng.random() < self.config.clicks.merge else 1
            chosen, rest = order[:count], order[count:]
            cut = _zoom if self.config.crop.mode == "zoom" else _scale
            crop = cut(
                data.image(index),
                [masks[i] for i in chosen],
                [masks[i] for i in rest],
                self.config.crop,
                size,
                rng,
            )
            if all(np.count_nonzero(m) >= spec.min_area for m in crop.objects):
                return crop
        return crop


def _zoom(
    image: NDArray[np.uint8],
    objects: list[Mask],
    others: list[Mask],
    config: CropConfig,
    size: Size,
    rng: np.random.Generator,
) -> Crop:
    """A crop around the objects as test-time zooming shows it, or a wider one."""
    height, width = image.shape[:2]
    boxes = [m.box for m in objects]
    top, left = min(b.top for b in boxes), min(b.left for b in boxes)
    bottom, right = max(b.bottom for b in boxes), max(b.right for b in boxes)
    wide = rng.random() < config.wide
    low, high = (config.expansion[1], 6.0) if wide else config.expansion
    factor = np.exp(rng.uniform(np.log(low), np.log(high), 2 if not wide else 1))
    tall, broad = (bottom - top) * factor[0], (right - left) * factor[-1]
    slack_row, slack_col = tall - (bottom - top), broad - (right - left)
    region = fit_region(
        (top + bottom) / 2 + slack_row * rng.uniform(-0.45, 0.45),
        (left + right) / 2 + slack_col * rng.uniform(-0.45, 0.45),
        max(tall, 24),
        max(broad, 24),
        size,
        height,
        width,
    )
    flip = rng.random() < 0.5
    return _cut(image, objects, others, region, size, flip)


def _cut(
    image: NDArray[np.uint8],
    objects: list[Mask],
    others: list[Mask],
    region: Box,
    size: Size,
    flip: bool,
) -> Crop:
    def mirrored(array: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(array[:, ::-1]) if flip else array

    def resampled(mask: Mask) -> BoolArray:
        soft = resample(mask.window(region).astype(np.float32), size)
        return mirrored(soft > 0.5)

    rest = np.zeros(size, bool)
    for mask in others:
        rest |= resampled(mask)
    return Crop(
        mirrored(resample(image[region.slices], size)), [resampled(m) for m in objects], rest
    )


def _scale(
    image: NDArray[np.uint8],
    objects: list[Mask],
    others: list[Mask],
    config: CropConfig,
    size: Size,
    rng: np.random.Generator,
) -> Crop:
    """Random scale, padding with black where too small, random crop, mirrored at times."""
    factor = rng.uniform(*config.scale)
    height, width = image.shape[:2]
    rows, cols = max(1, round(height * factor)), max(1, round(width * factor))
    top, left = _offset(rows, size.height, rng), _offset(cols, size.width, rng)
    flip = rng.random() < 0.5

    def cut(array: NDArray[Any], interpolation: int) -> NDArray[Any]:
        scaled = cv2.resize(array, (cols, rows), interpolation=interpolation)
        scaled = scaled[max(top, 0) : max(top, 0) + size.height]
        scaled = scaled[:, max(left, 0) : max(left, 0) + size.width]
        before_row, before_col = max(-top, 0), max(-left, 0)
        margins = [
            (before_row, size.height - scaled.shape[0] - before_row),
            (before_col, size.width - scaled.shape[1] - before_col),
        ]
        padded = np.pad(scaled, margins + [(0, 0)] * (array.ndim - 2))
        return np.ascontiguousarray(padded[:, ::-1]) if flip else padded

    def cut_mask(mask: Mask) -> BoolArray:
        return cut(mask.to_array().view(np.uint8), cv2.INTER_NEAREST).view(bool)

    rest = np.zeros(size, bool)
    for mask in others:
        rest |= cut_mask(mask)
    return Crop(cut(image, cv2.INTER_LINEAR), [cut_mask(m) for m in objects], rest)


def _offset(length: int, wanted: int, rng: np.random.Generator) -> int:
    """Where a crop begins: drawn where there is room, else minus half of what is missing."""
    if length < wanted:
        return -((wanted - length) // 2)
    return int(rng.integers(length - wanted + 1))


def jitter_colors(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness and contrast, then a shift of each channel, each with probability 0.75.

    Brightness moves by up to a quarter of the range, contrast by -15 % to +40 %, channels by up to
    10 of 255 (paper, section 5; numbers of the published configurations).
    """
    table = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, axis=1)
    if rng.random() < 0.75:
        table = table * (1 + rng.uniform(-0.15, 0.4)) + 255 * rng.uniform(-0.25, 0.25)
    if rng.random() < 0.75:
        table = table.clip(0, 255) + rng.uniform(-10, 10, 3)
    lookup = table.clip(0, 255).round().astype(np.uint8)
    return np.asarray(cv2.LUT(image, lookup[:, None]), np.uint8)


def write_points(points: NDArray[np.float32], clicks: list[Click]) -> None:
    """Put clicks into the free slots of a (2N, 3) array, positives first."""
    half = len(points) // 2
    taken = {True: 0, False: half}
    for click in clicks:
        slot = taken[click.positive]
        points[slot] = click.y, click.x, RANDOM_INDEX
        taken[click.positive] += 1
