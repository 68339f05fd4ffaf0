"""Instances a second of `maskfix eval`: one at a time, many in progress, and in step.

    python tests/bench/bench_evaluate.py [--model lite] [--device cuda] [--scenes 4] [--seconds 30]

All ways run in turn, round by round, on the same synthetic instances with five clicks each, and
give the same clicks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from maskfix.bench.measure import in_turn
from maskfix.bench.scenes import make_scene
from maskfix.evaluate import Case, CaseJob, Rules, Trace, run_cases
from maskfix.model.checkpoint import load_model
from maskfix.predictor import Predictor

RULES = Rules(max_clicks=5, target_iou=1.01)


def make_cases(scenes: int) -> list[Case]:
    """Three a scene; they share its image."""
    cases = []
    for number in range(scenes):
        scene = make_scene(number)

        def read(image: NDArray[np.uint8] = scene.image) -> NDArray[np.uint8]:
            return image

        cases += [Case(f"{number}/{k}", read, mask) for k, mask in enumerate(scene.objects)]
    return cases


def one_at_a_time(predictor: Predictor, cases: list[Case]) -> list[Trace]:
    """The published loop: the network has all threads, and waits for the simulated user."""
    traces = []
    for position, case in enumerate(cases):
        session = predictor.start(case.image())
        job = CaseJob(case, position, session, RULES, keep_masks=False)
        while clicks := job.next_clicks():
            session.clicks += clicks
            predictor.step_here(session)
        traces.append(job.trace())
    return traces


def many(predictor: Predictor, cases: list[Case], in_flight: int) -> list[Trace]:
    """As `maskfix eval` does it."""
    return [trace for _, trace in sorted(run_cases(predictor, cases, RULES, in_flight))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    cases = make_cases(arguments.scenes)
    predictor = Predictor(load_model(arguments.model, arguments.device))
    in_step = Predictor(load_model(arguments.model, arguments.device))
    in_step.in_batches = True
    ways: dict[str, Callable[[], list[Trace]]] = {
        "one at a time": lambda: one_at_a_time(predictor, cases),
        "4 in progress": lambda: many(predictor, cases, 4),
        "32 in progress": lambda: many(predictor, cases, 32),
        "32 in step, in batches": lambda: many(in_step, cases, 32),
    }
    clicks = {name: [trace.clicks for trace in run()] for name, run in ways.items()}
    timings = in_turn(ways, arguments.seconds, least_rounds=2)
    first = timings["one at a time"].best
    made = sum(map(len, clicks["one at a time"]))
    for name, timing in timings.items():
        rate, each = len(cases) / timing.best, 1000 * timing.best / made
        same = sum(a == b for a, b in zip(clicks[name], clicks["one at a time"], strict=True))
        print(
            f"{name:24} {rate:6.2f} instances/s {each:7.1f} ms/click {first / timing.best:5.2f} "
            f"times; same clicks for {same} of {len(cases)}"
        )


if __name__ == "__main__":
    main()
