"""From a data set to batches: choose an object, cut a crop, draw clicks, damage a start mask.

Every choice is drawn from a generator made of (seed, epoch, sample), so that neither the number of
workers or processes nor a resumed run changes a sample. Shapes: h, w the crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskfix.crops import Size, fit_region, resample
from maskfix.damage import DAVIS585, DETECTOR, damage
from maskfix.errors import InputError, InstanceError
from maskfix.masks import Mask
from maskfix.train.augment import jitter_colors, random_view
from maskfix.train.config import CropConfig, DataConfig, TrainConfig
from maskfix.train.data import InstanceData, Objects
from maskfix.train.sampling import RANDOM_INDEX, random_clicks
from maskfix.types import Box, Click

BoolArray = NDArray[np.bool_]
_TRIES = 20  # crops without an object before one is taken as it is
_MOST_BROKEN = 100
IGNORE = -1
CONTEXT_CLICKS = 3  # at most, of either sign, beside a damaged mask


@dataclass(frozen=True)
class Crop:
    """One crop of an image with what lies in it.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        objects: the target's objects, (h, w) bool each; more than one when merged, none at times.
        others: (h, w) bool, pixels of other objects.
        ignore: (h, w) bool, pixels that are neither object nor background.
    """

    image: NDArray[np.uint8]
    objects: list[BoolArray]
    others: BoolArray
    ignore: BoolArray


@dataclass(frozen=True)
class Batch:
    """What one training step starts from; this process's share of a batch.

    Attributes:
        image: (B, 3, h, w) uint8 RGB.
        target: (B, 1, h, w) int8: 1 object, 0 background, -1 ignore.
        mask: (B, 1, h, w) uint8, the external mask to start from, 0 or 1; zeros for none.
        points: (B, 2N, 3) float32, see `maskfix.model.network.ClickNetwork`.
        awaits_click: (B,) bool: a click on the errors of `mask` comes before the first prediction.
        first: number of its first sample within the epoch.
        broken: what could not be read and was passed over, a line each.
    """

    image: Tensor
    target: Tensor
    mask: Tensor
    points: Tensor
    awaits_click: Tensor
    first: int
    broken: tuple[str, ...] = ()


class Sample(NamedTuple):
    """One sample, arrays as in `Batch`."""

    image: NDArray[np.uint8]
    target: NDArray[np.int8]
    mask: NDArray[np.uint8]
    points: NDArray[np.float32]
    awaits_click: NDArray[np.bool_]


class BatchSource(torch.utils.data.Dataset[Batch]):
    """The batches of a run, addressed by (epoch, batch).

    Args:
        config: the recipe.
        data: the data sets of ``config.data``, in that order.
        rank: which of `world` equal shares of every batch to make.
        world: number of processes that train together; divides the batch size.

    Attributes:
        batches: number of batches in an epoch.
    """

    def __init__(
        self, config: TrainConfig, data: list[InstanceData], rank: int = 0, world: int = 1
    ) -> None:
        empty = [d.name for d in data if not d.records]
        if empty or not data:
            raise InputError(
                f"nothing to train on in {', '.join(empty) or 'an empty list of data'}"
            )
        self.config, self.data = config, data
        self.share = config.batch_size // world
        self.offset = rank * self.share
        weights = np.array([spec.weight for spec in config.data])
        self.shares = weights / weights.sum()
        self.chances = [_chances(spec, d) for spec, d in zip(config.data, data, strict=True)]
        self.images = sum(len(d.records) for d in data)
        self.batches = max(1, (config.epoch_samples or self.images) // config.batch_size)

    def __getitem__(self, index: tuple[int, int]) -> Batch:
        epoch, batch = index
        config = self.config
        sizes = config.crop.sizes
        choice = np.random.default_rng([config.seed, epoch, batch, 1]).integers(len(sizes))
        size = Size(*sizes[choice])
        first = batch * config.batch_size + self.offset
        broken: list[str] = []
        samples = [self.sample(epoch, i, size, broken) for i in range(first, first + self.share)]
        image, target, mask, points, awaits = (np.stack(p) for p in zip(*samples, strict=True))
        return Batch(
            torch.from_numpy(image).permute(0, 3, 1, 2),
            torch.from_numpy(target)[:, None],
            torch.from_numpy(mask)[:, None],
            torch.from_numpy(points),
            torch.from_numpy(awaits),
            first,
            tuple(broken),
        )

    def sample(self, epoch: int, number: int, size: Size, broken: list[str]) -> Sample:
        """Sample `number` of an epoch.

        Args:
            size: of the crop.
            broken: what cannot be read is passed over for the next draw, and noted here.

        Raises:
            InputError: nothing but broken images is drawn.
        """
        rng = np.random.default_rng([self.config.seed, epoch, number])
        crop = self._crop(rng, epoch, number, size, broken)
        target = np.any(crop.objects, axis=0) if crop.objects else np.zeros(size, bool)
        start, clicks = self.config.start, self.config.clicks
        image = jitter_colors(crop.image, rng)
        mask, awaits = None, False
        if target.any() and rng.random() < start.damaged:
            mixture = DETECTOR if rng.random() < start.detector else DAVIS585
            try:
                mask = damage(target, rng, *start.iou, mixture)
            except InstanceError:  # too small for that
                pass
        points = np.full((2 * clicks.max_points, 3), -1, np.float32)
        most = clicks.max_points
        if mask is not None:
            awaits = rng.random() >= start.unclicked
            most = CONTEXT_CLICKS if rng.random() < start.context else 0
        if most:
            made = random_clicks(crop.objects, crop.others, most, clicks.gamma, rng)
            write_points(points, made)
        labels = target.astype(np.int8)
        labels[crop.ignore & ~target] = IGNORE
        given = np.zeros(size, np.uint8) if mask is None else mask.view(np.uint8)
        return Sample(image, labels, given, points, np.array(awaits))

    def _crop(
        self, rng: np.random.Generator, epoch: int, number: int, size: Size, broken: list[str]
    ) -> Crop:
        """Draw until a crop holds an object that is large enough, where one is wanted."""
        failures = 0
        crop: Crop | None = None
        for attempt in range(_TRIES + _MOST_BROKEN):
            which, index = self._choose(rng, epoch, number, fixed=not failures)
            data, spec = self.data[which], self.config.data[which]
            try:
                objects, image = data.objects(index), data.image(index)
            except InstanceError as error:
                broken.append(str(error))
                failures += 1
                if failures == _MOST_BROKEN:
                    raise InputError(
                        f"{failures} images drawn one after the other are broken: {error}"
                    ) from error
                continue
            crop = self._cut(rng, image, objects, spec, size)
            wanted = not (spec.background and rng.random() < spec.background)
            if crop.objects or not wanted or attempt - failures >= _TRIES:
                break
        assert crop is not None
        return crop

    def _choose(
        self, rng: np.random.Generator, epoch: int, number: int, fixed: bool
    ) -> tuple[int, int]:
        """Data set and image of a sample."""
        evenly = all(chances is None for chances in self.chances)
        if fixed and evenly and not self.config.epoch_samples:
            position = _order(self.config.seed, epoch, self.images)[number]
            for which, data in enumerate(self.data):
                if position < len(data.records):
                    return which, int(position)
                position -= len(data.records)
        shares = self.shares
        if not self.config.epoch_samples:
            shares = np.array([len(d.records) for d in self.data]) / self.images
        which = int(rng.choice(len(self.data), p=shares))
        chances = self.chances[which]
        count = len(self.data[which].records)
        return which, int(rng.integers(count) if chances is None else rng.choice(count, p=chances))

    def _cut(
        self,
        rng: np.random.Generator,
        image: NDArray[np.uint8],
        objects: Objects,
        spec: DataConfig,
        size: Size,
    ) -> Crop:
        masks = list(objects.things)
        if objects.stuff and rng.random() < spec.stuff:
            masks += objects.stuff
        cut = _zoom if self.config.crop.mode == "zoom" else _scale
        merge = self.config.clicks.merge
        ignore = objects.ignore or Mask.empty(*image.shape[:2])
        return cut(image, masks, ignore, merge, spec.min_area, self.config.crop, size, rng)


def _chances(spec: DataConfig, data: InstanceData) -> NDArray[np.float64] | None:
    """Frequencies of a data set's images, or None where all are alike."""
    shares = np.array([record.share for record in data.records], float)
    if not spec.importance or not shares.size or (shares == shares[0]).all():
        return None
    powers = shares**spec.importance
    return np.asarray(powers / powers.sum())


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """A pass over all images."""
    return np.random.default_rng([seed, epoch, 0, 3]).permutation(count)


def _choose_objects(
    count: int, merge: float, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Which of `count` objects are the target, and the rest."""
    order = [int(i) for i in rng.permutation(count)]
    taken = 2 if count > 1 and rng.random() < merge else 1
    return order[:taken], order[taken:]


def _zoom(
    image: NDArray[np.uint8],
    masks: list[Mask],
    ignore: Mask,
    merge: float,
    min_area: int,
    config: CropConfig,
    size: Size,
    rng: np.random.Generator,
) -> Crop:
    """A crop around the objects as test-time zooming shows it, or a wider one."""
    height, width = image.shape[:2]
    chosen, rest = _choose_objects(len(masks), merge, rng)
    objects, others = [masks[i] for i in chosen], [masks[i] for i in rest]
    if not objects:
        region = fit_region(height / 2, width / 2, height, width, size, height, width)
        return _window(image, [], others, ignore, region, size, rng.random() < 0.5)
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
    crop = _window(image, objects, others, ignore, region, size, flip)
    if any(np.count_nonzero(m) < min_area for m in crop.objects):
        crop.objects.clear()
    return crop


def _window(
    image: NDArray[np.uint8],
    objects: list[Mask],
    others: list[Mask],
    ignore: Mask,
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
        mirrored(resample(image[region.slices], size)),
        [resampled(m) for m in objects],
        rest,
        resampled(ignore),
    )


def _scale(
    image: NDArray[np.uint8],
    masks: list[Mask],
    ignore: Mask,
    merge: float,
    min_area: int,
    config: CropConfig,
    size: Size,
    rng: np.random.Generator,
) -> Crop:
    """A random view of the image, and of what is large enough in it a target."""
    height, width = image.shape[:2]
    view = random_view(height, width, size, config, rng)
    cut = [view.mask(m) for m in masks]
    large = [m for m in cut if np.count_nonzero(m) >= min_area]
    chosen, rest = _choose_objects(len(large), merge, rng)
    others = np.any([large[i] for i in rest], axis=0) if rest else np.zeros(size, bool)
    return Crop(view.image(image), [large[i] for i in chosen], others, view.mask(ignore))


def write_points(points: NDArray[np.float32], clicks: list[Click]) -> None:
    """Put clicks into the free slots of a (2N, 3) array, positives first."""
    half = len(points) // 2
    taken = {True: 0, False: half}
    for click in clicks:
        slot = taken[click.positive]
        points[slot] = click.y, click.x, RANDOM_INDEX
        taken[click.positive] += 1
