"""Random clicks of training, against the recorded statistics of the published sampler."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from maskfix.train.sampling import border_ring, count_probabilities, eroded, random_clicks

GAMMA, MOST = 0.8, 24


def test_counts_are_drawn_as_recorded(golden: Path) -> None:
    parts = np.load(golden / "sampler_parts.npz")
    np.testing.assert_allclose(count_probabilities(MOST - 1, GAMMA), parts["pos_probs_n1..24"])
    np.testing.assert_allclose(count_probabilities(MOST, GAMMA), parts["neg_probs_n0..24"])


@pytest.mark.parametrize("number", range(4))
def test_regions_equal_golden(golden: Path, number: int) -> None:
    parts = np.load(golden / "sampler_parts.npz")
    mask = parts[f"mask{number}"] > 0
    np.testing.assert_array_equal(border_ring(mask), parts[f"mask{number}_border"] > 0)
    np.testing.assert_array_equal(eroded(mask), parts[f"mask{number}_eroded"] > 0)


def recorded_scene() -> list[np.ndarray]:
    rows, cols = np.mgrid[:200, :240]
    disk = (rows - 60) ** 2 + (cols - 60) ** 2 <= 40**2
    big, small = np.zeros((200, 240), bool), np.zeros((200, 240), bool)
    big[111:180, 131:220] = True
    small[21:60, 151:200] = True
    return [disk, big, small]


def test_statistics_of_the_recorded_scene(golden: Path) -> None:
    measured = json.loads((golden / "sampling.json").read_text())["sampler"]["measured"]
    masks, rng, draws = recorded_scene(), np.random.default_rng(0), 3000
    positives: list[int] = []
    where: Counter[str] = Counter()
    for _ in range(draws):
        target = int(rng.integers(3))
        others = np.any([m for i, m in enumerate(masks) if i != target], axis=0)
        clicks = random_clicks([masks[target]], others, MOST, GAMMA, rng)
        positives.append(sum(c.positive for c in clicks))
        ring = border_ring(masks[target])
        for click in clicks:
            row, col = int(click.y), int(click.x)
            assert masks[target][row, col] == click.positive
            if not click.positive:
                kind = "border" if ring[row, col] else "other" if others[row, col] else "plain"
                where[kind] += 1
    assert np.mean(positives) == pytest.approx(measured["pos_mean_single"], abs=0.25)
    assert where.total() / draws == pytest.approx(measured["neg_mean"], abs=0.25)
    total = sum(measured["neg_where"].values())
    for kind, key in (("border", "on_border"), ("other", "on_other"), ("plain", "on_plain_bg")):
        share = measured["neg_where"][key] / total
        assert where[kind] / where.total() == pytest.approx(share, abs=0.03), kind


def test_merged_objects_get_a_click_each() -> None:
    masks, rng = recorded_scene(), np.random.default_rng(1)
    for _ in range(50):
        clicks = random_clicks(masks[:2], masks[2], MOST, GAMMA, rng)
        for mask in masks[:2]:
            assert any(mask[int(c.y), int(c.x)] for c in clicks if c.positive)
        assert sum(c.positive for c in clicks) <= MOST


def test_no_object_gives_negative_clicks_only_and_no_background_none() -> None:
    rng = np.random.default_rng(2)
    empty = np.zeros((20, 30), bool)
    drawn = [random_clicks([], empty, MOST, GAMMA, rng) for _ in range(30)]
    assert any(drawn) and not any(c.positive for clicks in drawn for c in clicks)
    full = ~empty
    clicks = random_clicks([full], empty, MOST, GAMMA, rng)
    assert clicks and all(c.positive for c in clicks)


def test_mask_of_few_pixels_is_not_eroded_away() -> None:
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    np.testing.assert_array_equal(eroded(mask), mask)
