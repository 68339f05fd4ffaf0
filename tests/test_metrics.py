"""The numbers of the metric, against recorded ones and by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from maskfix import metrics


def test_noc_equals_golden(golden: Path) -> None:
    recorded = json.loads((golden / "noc.json").read_text())
    lists = [[math.nan if v is None else v for v in row] for row in recorded["all_ious_float32"]]
    assert recorded["results"]
    for expected in recorded["results"]:
        limit = expected["max_clicks"]
        for i, threshold in enumerate(expected["iou_thrs"]):
            counts = metrics.noc(lists, threshold, limit)
            assert counts.tolist() == expected["per_image_noc"][i]
            assert counts.mean() == pytest.approx(expected["noc"][i], abs=1e-12)
            assert metrics.at_limit(counts, limit) == expected["over_max"][i]


def test_iou_equals_golden(golden: Path) -> None:
    arrays = np.load(golden / "iou.npz")
    for case, expected in json.loads((golden / "iou.json").read_text()).items():
        found = metrics.iou(arrays[f"{case}_gt"], arrays[f"{case}_pred"])
        assert found == expected or (expected is None and math.isnan(found))


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        ([1, 1, 0, 0], [1, 0, 0, 0], 1 / 2),
        ([1, 1, -1, 0], [1, 1, 1, 0], 1.0),
        ([1, 0, -1, -1], [0, 1, 1, 0], 0.0),
        ([0, 0, 0, -1], [0, 0, 0, 1], math.nan),
        ([0, 0, 0, 0], [0, 1, 0, 0], 0.0),
    ],
)
def test_iou(reference: list[int], prediction: list[int], expected: float) -> None:
    found = metrics.iou(np.array([reference], np.int8), np.array([prediction], bool))
    assert found == pytest.approx(expected, nan_ok=True)


def test_failed_differs_from_at_limit() -> None:
    """Reached with the very last click: at the limit, not failed."""
    lists = [[0.5, 0.91], [0.5, 0.6], [0.95], [math.nan, math.nan]]
    counts = metrics.noc(lists, 0.9, 2)
    assert counts.tolist() == [2, 2, 1, 2]
    assert (metrics.at_limit(counts, 2), metrics.failed(lists, 0.9)) == (3, 2)


def test_miou_curve_keeps_the_last_value() -> None:
    curve = metrics.miou_curve([[0.5, 0.75], [0.25], [math.nan, 0.5]], 3)
    np.testing.assert_allclose(curve, [0.375, 0.5, 0.5])
    assert np.isnan(metrics.miou_curve([[math.nan]], 1)).all()


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([[0.5, 0.48, 0.9], [0.8]], 0.5),
        ([[0.5, 0.495]], 0.0),  # 0.5 % is no drop
        ([[0.9], []], 0.0),
        ([[0.9, 0.8], [0.9, 0.7], [0.1, 0.2], [0.1, 0.2]], 0.5),
        ([[math.nan, 0.5, 0.4]], 0.5),
    ],
)
def test_drops(lists: list[list[float]], expected: float) -> None:
    assert metrics.drops(lists) == expected


def test_bootstrap() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=200)
    better = metrics.paired_bootstrap(a, a + 1 + 0.1 * rng.normal(size=200))
    assert better.low < better.mean < better.high
    assert better.mean == pytest.approx(1, abs=0.05)
    assert better.high - better.low == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(200), rel=0.2)
    assert better.is_certain
    assert not metrics.paired_bootstrap(a, a[::-1]).is_certain
    assert metrics.paired_bootstrap([1], [3], resamples=7) == metrics.Interval(2, 2, 2)
    assert metrics.paired_bootstrap(a, a[::-1], seed=3) == metrics.paired_bootstrap(
        a, a[::-1], seed=3
    )
