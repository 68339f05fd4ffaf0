"""How much masks change when the network computes with bfloat16, and what that saves.

    python tests/bench/bench_precision.py --data duts-val=duts-val.tar --data ccp-val=ccp-val.tar

Of every set, damaged masks are mended by the first click of a simulated user in float32 and in
bfloat16: mean and least IoU between the two results, and the seconds that either took. A processor
without bfloat16 imitates it: the masks are right then, the seconds mean nothing.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from maskfix.clicks import SimulatedUser
from maskfix.evaluate import Case
from maskfix.masks import Mask, iou
from maskfix.model.checkpoint import load_model
from maskfix.predictor import Predictor
from maskfix.train.config import ValidationConfig
from maskfix.train.readers import open_data
from maskfix.train.validation import make_cases


def mend(predictor: Predictor, cases: list[Case]) -> tuple[list[Mask], float]:
    """Masks after a click, and the seconds of a mask."""
    sessions = []
    for case in cases:
        session = predictor.start(case.image(), case.initial)
        click = SimulatedUser(case.reference).next_click(session.mask())
        assert click is not None
        session.clicks = [click]
        sessions.append(session)
    began = time.perf_counter()
    predictor.step(sessions)
    return [s.mask() for s in sessions], (time.perf_counter() - began) / len(cases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", metavar="NAME=PATH", action="append", required=True)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int, default=40)
    options = parser.parse_args()
    model = load_model(options.model, options.device)
    predictors = [Predictor(model), Predictor(replace(model, precision="bfloat16"))]
    for text in options.data:
        name, _, path = text.partition("=")
        settings = ValidationConfig(name=name, damaged=True, limit=options.limit)
        cases = make_cases(settings, open_data(name, path, "auto", "val"))
        (plain, plain_seconds), (half, half_seconds) = (mend(p, cases) for p in predictors)
        ious = [iou(a, b) for a, b in zip(plain, half, strict=True)]
        print(f"{name}: {len(ious)} masks, IoU {np.mean(ious):.5f}, at least {min(ious):.4f}")
        print(f"  {1000 * plain_seconds:.1f} ms a mask, in bfloat16 {1000 * half_seconds:.1f} ms")


if __name__ == "__main__":
    main()
