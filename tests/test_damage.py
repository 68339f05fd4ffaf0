"""Damaged masks: IoU in the wanted range, seeded, and never a crash on odd masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfix.damage import DAVIS585, DETECTOR, FAMILIES, damage
from maskfix.errors import InstanceError


def blob(size: int = 120) -> np.ndarray:
    mask = np.zeros((size, size + 20), np.uint8)
    cv2.ellipse(mask, (size // 2, size // 2), (size // 3, size // 5), 30, 0, 360, 1, -1)
    return mask.view(bool)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("mixture", [DAVIS585, DETECTOR], ids=["davis585", "detector"])
@pytest.mark.parametrize(("low", "high"), [(0.75, 0.85), (0.3, 0.5), (0.92, 0.97)])
def test_iou_lies_in_the_wanted_range(mixture: dict[str, float], low: float, high: float) -> None:
    mask = blob()
    for seed in range(12):
        damaged = damage(mask, np.random.default_rng(seed), low, high, mixture)
        assert low <= iou(mask, damaged) <= high
        assert damaged.shape == mask.shape and damaged.dtype == bool


def test_the_seed_decides_and_the_reference_stays() -> None:
    mask = blob()
    before = mask.copy()
    results = [damage(mask, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("kind", list(FAMILIES))
def test_every_kind_starts_at_the_reference_and_moves_away(kind: str) -> None:
    mask = blob()
    family = FAMILIES[kind](mask, np.random.default_rng(3))
    scores = [iou(mask, family(strength)) for strength in (0.0, 0.1, 0.9)]
    assert scores[0] > 0.98 and scores[2] < 0.9 and scores[0] >= scores[1] >= scores[2] - 0.02


@pytest.mark.parametrize(
    ("kind", "adds", "removes"), [("false_part", 1, 0), ("missing_part", 0, 1)]
)
def test_parts_are_only_added_or_only_removed(kind: str, adds: bool, removes: bool) -> None:
    mask = blob()
    for seed in range(5):
        damaged = damage(mask, np.random.default_rng(seed), mixture={kind: 1.0})
        assert ((damaged & ~mask).any(), (mask & ~damaged).any()) == (adds, removes)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 24),
    st.integers(1, 24),
    st.floats(0.02, 1.0),
    st.integers(0, 2**32 - 1),
    st.sampled_from([DAVIS585, DETECTOR]),
)
def test_tiny_masks_are_damaged_or_refused(
    height: int, width: int, density: float, seed: int, mixture: dict[str, float]
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < density
    try:
        damaged = damage(mask, rng, 0.6, 0.95, mixture)
    except InstanceError:
        return
    assert mask.any() and 0.6 <= iou(mask, damaged) <= 0.95


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(InstanceError, match="empty"):
        damage(np.zeros((10, 10), bool), np.random.default_rng(0))
