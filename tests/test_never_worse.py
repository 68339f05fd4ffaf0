"""Never worse: on real images with damaged masks, few instances end below where they began."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maskfix.benchmarks import read_benchmark
from maskfix.evaluate import evaluate_cases
from maskfix.model.checkpoint import load_model
from maskfix.predictor import Predictor

SETS = ("duts-val", "ecssd-val", "ccp-val")
INSTANCES = 20  # of each
MOST_CLICKS = 3


@pytest.fixture(scope="module")
def data() -> Path:
    """Folder of NAME.tar and NAME.damaged.json, as `maskfix data damage` makes them."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MASKFIX_DATA", beside))
    missing = [name for name in SETS if not (folder / f"{name}.damaged.json").is_file()]
    if missing:
        pytest.skip(f"no {missing[0]}.damaged.json in {folder}; set MASKFIX_DATA to its folder")
    return folder


def test_at_most_two_percent_end_lower_than_they_began(data: Path) -> None:
    predictor = Predictor(load_model("lite"))
    lower, total = [], 0
    for name in SETS:
        whole = read_benchmark(name, data / f"{name}.tar", data / f"{name}.damaged.json")
        cases = whole.select(600, INSTANCES).cases
        traces = evaluate_cases(predictor, cases, MOST_CLICKS)
        total += len(traces)
        lower += [t.name for t in traces if t.counted_ious[-1] < t.initial_iou]
    assert total == len(SETS) * INSTANCES
    assert len(lower) <= 0.02 * total, lower
