"""Reference masks damaged as detectors and click tools leave them, at a chosen IoU.

Every kind of damage is a family of masks that drifts away from the reference as one number grows;
bisection finds the number that lands in the wanted range. After DAVIS-585 (Chen et al. 2022,
"FocalClick"): errors of the boundary, parts falsely added, parts missing; and beyond it what
detectors do: coarse polygons, low resolution, shifts, a wrong size.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.errors import InstanceError
from maskfix.masks import Mask

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]
Family = Callable[[float], BoolArray]
"""Damage at a strength: 0 or less leaves the mask as it is."""

DAVIS585: Mapping[str, float] = {"boundary": 0.65, "false_part": 0.25, "missing_part": 0.10}
DETECTOR: Mapping[str, float] = {
    "boundary": 0.35,
    "false_part": 0.15,
    "missing_part": 0.15,
    "polygon": 0.1,
    "coarse": 0.1,
    "shift": 0.075,
    "size": 0.075,
}
"""Mixtures: how often each kind of damage is drawn."""

_BISECTIONS = 12
_TRIES = 8


def damage(
    mask: BoolArray,
    rng: np.random.Generator,
    low: float = 0.75,
    high: float = 0.85,
    mixture: Mapping[str, float] = DAVIS585,
) -> BoolArray:
    """Damage a mask until its IoU with the original lies in [low, high].

    Args:
        mask: (H, W) bool, the reference.
        rng: source of every choice; the same state gives the same damage.
        low, high: the wanted range of IoU.
        mixture: probability of each kind of damage, of `DAVIS585` or `DETECTOR`.

    Returns:
        (H, W) bool.

    Raises:
        InstanceError: the object is empty or too small to be damaged to that range.
    """
    if not mask.any():
        raise InstanceError("an empty mask cannot be damaged")
    kinds, shares = list(mixture), np.array(list(mixture.values()))
    for _ in range(_TRIES):
        kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
        wanted = rng.uniform(low, high)
        found = _bisect(mask, FAMILIES[kind](mask, rng), wanted)
        if low <= _iou(mask, found) <= high:
            return found
    raise InstanceError(f"no damage brings this mask to an IoU of {low:.2f} to {high:.2f}")


def damage_mask(
    mask: Mask,
    name: str,
    seed: int,
    low: float = 0.75,
    high: float = 0.85,
    mixture: Mapping[str, float] = DAVIS585,
) -> Mask:
    """Damage an instance; its name and the seed decide how. See `damage`."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return Mask.from_array(damage(mask.to_array(), rng, low, high, mixture))


def is_drawn(name: str, seed: int, share: float) -> bool:
    """Whether an instance is among a random share; its name and the seed decide."""
    drawn = np.random.default_rng([seed, zlib.crc32(name.encode()), 1]).random()
    return bool(drawn < share)


def signed_distance(mask: BoolArray) -> FloatArray:
    """Distance to the border in pixels, (H, W) float32: positive inside, negative outside."""
    inside = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 3)
    outside = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(inside - outside, np.float32)


def smooth_noise(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> FloatArray:
    """Noise of unit deviation without detail finer than ``scale`` pixels, (H, W) float32."""
    rows, cols = (max(2, int(np.ceil(n / scale)) + 1) for n in shape)
    grid = rng.standard_normal((rows, cols)).astype(np.float32)
    return np.asarray(cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def _boundary(mask: BoolArray, rng: np.random.Generator) -> Family:
    """The border wanders in and out."""
    distance = signed_distance(mask)
    size = np.sqrt(mask.sum())
    noise = smooth_noise(mask.shape, size * rng.uniform(0.08, 0.35), rng)
    noise += rng.normal(0, 0.3)
    return lambda strength: distance + strength * size * noise > 0


def _blob(start: BoolArray, size: float, rng: np.random.Generator) -> FloatArray:
    """Distance from a random pixel of `start`, warped so that its level sets are blobs."""
    pixels = np.flatnonzero(start)
    row, col = divmod(int(pixels[rng.integers(pixels.size)]), start.shape[1])
    angle, ratio = rng.uniform(0, np.pi), rng.uniform(0.4, 1.0)
    y = np.arange(start.shape[0], dtype=np.float32)[:, None] - row
    x = np.arange(start.shape[1], dtype=np.float32)[None] - col
    along = x * np.cos(angle) + y * np.sin(angle)
    across = (y * np.cos(angle) - x * np.sin(angle)) / ratio
    noise = smooth_noise(start.shape, size * rng.uniform(0.15, 0.4), rng)
    return np.asarray(np.sqrt(along**2 + across**2) * (1 + 0.25 * noise) / size, np.float32)


def _false_part(mask: BoolArray, rng: np.random.Generator) -> Family:
    """One to three blobs outside, mostly touching the object, are taken for it."""
    size = np.sqrt(mask.sum())
    distance = signed_distance(mask)
    reach = rng.choice([0.08, 0.3, 0.8], p=[0.5, 0.3, 0.2]) * size
    ring = ~mask & (distance > -max(reach, 2))
    start = ring if ring.any() else mask
    blobs = np.min([_blob(start, size, rng) for _ in range(rng.integers(1, 4))], axis=0)
    return lambda strength: mask | (blobs < strength)


def _missing_part(mask: BoolArray, rng: np.random.Generator) -> Family:
    """One or two blobs of the object are gone."""
    size = np.sqrt(mask.sum())
    blobs = np.min([_blob(mask, size, rng) for _ in range(rng.integers(1, 3))], axis=0)
    return lambda strength: mask & ~(blobs < strength)


def _polygon(mask: BoolArray, rng: np.random.Generator) -> Family:
    """The outline loses its corners."""
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    size = np.sqrt(mask.sum())

    def family(strength: float) -> BoolArray:
        drawn = np.zeros(mask.shape, np.uint8)
        coarse = [cv2.approxPolyDP(c, max(strength, 0) * size, True) for c in contours]
        cv2.fillPoly(drawn, coarse, 1)
        return drawn.view(bool)

    return family


def _coarse(mask: BoolArray, rng: np.random.Generator) -> Family:
    """As predicted on a small grid and enlarged."""
    size = np.sqrt(mask.sum())

    def family(strength: float) -> BoolArray:
        cell = max(1.0, strength * size)
        rows, cols = (max(1, round(n / cell)) for n in mask.shape)
        small = cv2.resize(mask.astype(np.float32), (cols, rows), interpolation=cv2.INTER_AREA)
        large = cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(large > 0.5)

    return family


def _shift(mask: BoolArray, rng: np.random.Generator) -> Family:
    """Moved aside."""
    size, angle = float(np.sqrt(mask.sum())), rng.uniform(0, 2 * np.pi)

    def family(strength: float) -> BoolArray:
        step = strength * size
        matrix = np.array([[1, 0, step * np.cos(angle)], [0, 1, step * np.sin(angle)]], np.float32)
        moved = cv2.warpAffine(
            mask.view(np.uint8), matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST
        )
        return moved.view(bool)

    return family


def _size(mask: BoolArray, rng: np.random.Generator) -> Family:
    """Too fat or too thin all around."""
    distance, size = signed_distance(mask), float(np.sqrt(mask.sum()))
    sign = rng.choice([-1, 1])
    return lambda strength: distance + sign * strength * size > 0


FAMILIES: Mapping[str, Callable[[BoolArray, np.random.Generator], Family]] = {
    "boundary": _boundary,
    "false_part": _false_part,
    "missing_part": _missing_part,
    "polygon": _polygon,
    "coarse": _coarse,
    "shift": _shift,
    "size": _size,
}


def _bisect(mask: BoolArray, family: Family, wanted: float) -> BoolArray:
    """The member of the family whose IoU with the mask is nearest to `wanted`, from above."""
    weak, strong = 0.0, 1.0
    best = mask
    for _ in range(_BISECTIONS):
        middle = (weak + strong) / 2
        candidate = family(middle)
        score = _iou(mask, candidate)
        if abs(score - wanted) < abs(_iou(mask, best) - wanted):
            best = candidate
        if abs(score - wanted) < 0.005:
            break
        weak, strong = (middle, strong) if score > wanted else (weak, middle)
    return best


def _iou(a: BoolArray, b: BoolArray) -> float:
    return int(np.count_nonzero(a & b)) / max(1, int(np.count_nonzero(a | b)))
