"""The numbers of interactive segmentation, as the field counts them (paper, section 5).

Legend: H, W the image. A *list of IoUs* holds the IoU after each click of one instance; lists of
one set differ in length, because an instance that reaches its target is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
Ious = Sequence[float] | NDArray[Any]

DROP = 0.01
"""A click hurts when it lowers the IoU by more than this."""


def iou(reference: NDArray[Any], prediction: BoolArray) -> float:
    """Intersection over union on the pixels that count.

    Args:
        reference: (H, W) bool, or integers with 1 object, 0 background, -1 ignore.
        prediction: (H, W) bool.

    Returns:
        0..1; NaN where reference and prediction are both empty.
    """
    if reference.dtype == np.bool_:
        target = reference
    else:
        target, prediction = reference == 1, prediction & (reference != -1)
    union = int(np.count_nonzero(target | prediction))
    return int(np.count_nonzero(target & prediction)) / union if union else float("nan")


def reaches(iou: float | NDArray[Any], threshold: float) -> Any:
    """Whether an IoU is at a threshold or above, both in single precision; NaN never is."""
    return np.asarray(iou, np.float32) >= np.float32(threshold)


def noc(ious: Sequence[Ious], threshold: float, max_clicks: int) -> IntArray:
    """Number of clicks to a threshold (NoC) of each instance, (N,) int64.

    The first click whose IoU reaches the threshold, else ``max_clicks``. As in the published code a
    longer list is looked at to its end: cut it to ``max_clicks`` to count at a lower limit.
    """
    counts = np.full(len(ious), max_clicks, np.int64)
    for i, values in enumerate(ious):
        found = np.flatnonzero(reaches(np.asarray(values), threshold))
        if found.size:
            counts[i] = found[0] + 1
    return counts


def at_limit(counts: IntArray, max_clicks: int) -> int:
    """Instances whose NoC is the limit, as published tables count (``>= 20 @ 90``).

    Includes those that reach the threshold with their very last click; see `failed`.
    """
    return int(np.count_nonzero(counts == max_clicks))


def failed(ious: Sequence[Ious], threshold: float) -> int:
    """Instances that reach a threshold with no click of their list."""
    return sum(not reaches(np.asarray(values), threshold).any() for values in ious)


def miou_curve(ious: Sequence[Ious], clicks: int) -> NDArray[np.float64]:
    """Mean IoU after 1, 2, ... clicks, (clicks,) float64.

    An instance that is finished keeps its last IoU. NaN counts for nothing; an instance without a
    click is an error of the caller.
    """
    table = np.full((len(ious), clicks), np.nan)
    for row, values in zip(table, ious, strict=True):
        kept = np.asarray(values, np.float32)[:clicks]
        row[: kept.size] = kept
        row[kept.size :] = kept[-1]
    known = ~np.isnan(table)
    counted = known.sum(axis=0)
    total = np.where(known, table, 0).sum(axis=0)
    mean: NDArray[np.float64] = np.full(clicks, np.nan)
    np.divide(total, counted, out=mean, where=counted > 0)
    return mean


def drops(ious: Sequence[Ious]) -> float:
    """Share of steps within the lists that lower the IoU by more than `DROP`; 0 without a step."""
    steps = [np.diff(np.asarray(values, np.float64)) for values in ious]
    changes = np.concatenate(steps) if steps else np.zeros(0)
    return float(np.mean(changes < -DROP)) if changes.size else 0.0


@dataclass(frozen=True)
class Interval:
    """A mean difference with its bootstrap interval.

    Attributes:
        mean: of b - a.
        low, high: the middle 95 % of the resampled means.
    """

    mean: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(a: Ious, b: Ious, seed: int = 0, resamples: int = 10_000) -> Interval:
    """The mean of b - a over paired instances, with its 95 % percentile interval.

    Args:
        a, b: one number an instance, (N,) each, N > 0.
        seed: the same seed gives the same interval.
        resamples: draws of N instances with replacement.
    """
    differences = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    assert differences.size, "no pairs"
    rng = np.random.default_rng(seed)
    block = max(1, 1_000_000 // differences.size)
    means = []
    for start in range(0, resamples, block):
        shape = (min(block, resamples - start), differences.size)
        means.append(differences[rng.integers(differences.size, size=shape)].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(differences.mean()), float(low), float(high))
