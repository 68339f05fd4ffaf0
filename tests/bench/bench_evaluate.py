"""Instances a second: many in step against one at a time, and threads for the simulated users.

    python tests/bench/bench_evaluate.py WEIGHTS [--device cuda] [--instances 32]

All ways are run in turn, twice; the better time of each counts.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np

from maskfix.damage import smooth_noise
from maskfix.evaluate import Case, Rules, run_cases
from maskfix.masks import Mask
from maskfix.model.checkpoint import load_model
from maskfix.predictor import Predictor

SIZE = (480, 640)


def make_case(number: int) -> Case:
    """A blob on noise, the size of a photograph."""
    rng = np.random.default_rng(number)
    mask = smooth_noise(SIZE, 120, rng) > 0.6
    image = rng.integers(0, 120, (*SIZE, 3)).astype(np.uint8)
    image[mask] += 60
    return Case(str(number), lambda: image, Mask.from_array(mask))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--instances", type=int, default=32)
    arguments = parser.parse_args()
    cases = [make_case(number) for number in range(arguments.instances)]
    model = load_model(arguments.weights, arguments.device)
    ways = {
        "one at a time": (1, 0),
        "32 in step": (32, 0),
        "32 in step, 2 threads": (32, 2),
        "32 in step, 4 threads": (32, 4),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(2):
        for way, (in_flight, threads) in ways.items():
            predictor = Predictor(model, batch_size=16)
            with ThreadPoolExecutor(threads) if threads else nullcontext() as pool:
                began = time.perf_counter()
                rules = Rules(max_clicks=5, target_iou=1.01)
                traces = [trace for _, trace in run_cases(predictor, cases, rules, in_flight, pool)]
                best[way] = min(best[way], time.perf_counter() - began)
    clicks = sum(len(trace.clicks) for trace in traces)
    for way, seconds in best.items():
        rate, each = len(cases) / seconds, 1000 * seconds / clicks
        print(f"{way:24} {rate:6.2f} instances/s {each:7.1f} ms/click")


if __name__ == "__main__":
    main()
