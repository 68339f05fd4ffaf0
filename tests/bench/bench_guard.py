"""What each rule of the guard refuses, rightly and wrongly, when users err.

    python tests/bench/bench_guard.py --dataset duts-val=duts-val.tar [--weights lite] [--limit 40]

Reference masks are damaged to an IoU of 0.4 to 0.75, 0.75 to 0.85 or 0.85 to 0.95, one after the
other, and clicked three times by four users:

    exact   the simulated user of the NoC metric
    jitter  he misses by normal noise of a tenth of the square root of the object's area
    wrong   his first click is of the wrong sign, on a pixel that was right, in or near the object
    stray   his first click is anywhere in the image, of either sign

After every click the guard compares the result with the mask before the first click. For every
user: results, how many of them are worse than the mask before (lower IoU); then by level and rule,
rules taken alone: how many of the refused results were worse (true) and how many better or equal
(false), and the mean IoU of what is kept with all rules of the level.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskfix.benchmarks import read_benchmark
from maskfix.clicks import SimulatedUser, miss
from maskfix.damage import damage_mask
from maskfix.errors import InstanceError
from maskfix.evaluate import Case
from maskfix.masks import Mask, iou
from maskfix.model.checkpoint import load_model
from maskfix.predictor import Predictor
from maskfix.refinement.guard import LIMITS, RULES
from maskfix.types import Click

RANGES = ((0.4, 0.75), (0.75, 0.85), (0.85, 0.95))
USERS = ("exact", "jitter", "wrong", "stray")
CLICKS = 3


class Result(NamedTuple):
    """One result, as the guard sees it, and what it is worth."""

    before: Mask
    after: Mask
    clicks: Sequence[Click]
    iou_before: float
    iou_after: float

    @property
    def is_worse(self) -> bool:
        return self.iou_after < self.iou_before


def first_click(user: str, mask: Mask, reference: Mask, rng: np.random.Generator) -> Click:
    """The mistake that `wrong` and `stray` begin with."""
    if user == "stray":
        row, col = rng.integers(mask.height), rng.integers(mask.width)
        return Click(int(col), int(row), bool(rng.random() < 0.5))
    right, there = mask.to_array() == reference.to_array(), reference.to_array()
    positive = bool(rng.random() < 0.5)  # on background
    candidates = right & (there != positive)
    if positive:
        box = reference.box
        near = np.zeros_like(there)
        rows, cols = box.height // 4, box.width // 4
        near[
            max(0, box.top - rows) : box.bottom + rows,
            max(0, box.left - cols) : box.right + cols,
        ] = True
        candidates &= near
    found = np.flatnonzero(candidates if candidates.any() else right)
    row, col = divmod(int(rng.choice(found)), mask.width)
    return Click(col, row, positive)


def results(
    predictor: Predictor, case: Case, start: Mask, user: str, seed: int
) -> Iterator[Result]:
    rng = np.random.default_rng([seed, USERS.index(user)])
    session = predictor.start(case.image(), start)
    simulated, reference = SimulatedUser(case.reference), case.reference
    for number in range(CLICKS):
        mask = session.mask()
        click = simulated.next_click(mask)
        if click is None:
            return
        if user == "jitter":
            noise = 0.1 * reference.area**0.5
            click = miss(click, noise, seed, case.name, number, mask.height, mask.width)
        if user in ("wrong", "stray") and number == 0:
            click = first_click(user, mask, reference, rng)
        session.clicks.append(click)
        if mask.contains(round(click.y), round(click.x)) == click.positive:
            continue  # nothing to do
        predictor.step([session])
        after = session.mask()
        before_iou, after_iou = iou(start, reference), iou(after, reference)
        yield Result(start, after, tuple(session.clicks), before_iou, after_iou)


def print_table(found: dict[str, list[Result]]) -> None:
    print("| | " + " | ".join(USERS) + " |\n|---|" + "---|" * len(USERS))
    cells = [f"{sum(r.is_worse for r in found[u])} of {len(found[u])}" for u in USERS]
    print("| worse than before | " + " | ".join(cells) + " |")
    for level, limits in LIMITS.items():
        refused = {user: [False] * len(found[user]) for user in USERS}
        for name, rule in RULES.items():
            cells = []
            for user in USERS:
                hits = [rule(r.before, r.after, r.clicks, limits) is not None for r in found[user]]
                true = sum(hit and r.is_worse for hit, r in zip(hits, found[user], strict=True))
                cells.append(f"{true} true, {sum(hits) - true} false")
                refused[user] = [a or b for a, b in zip(refused[user], hits, strict=True)]
            print(f"| {level}: {name} | " + " | ".join(cells) + " |")
        cells = []
        for user in USERS:
            pairs = list(zip(refused[user], found[user], strict=True))
            kept = np.mean([r.iou_before if no else r.iou_after for no, r in pairs])
            off = np.mean([r.iou_after for r in found[user]])
            true = sum(no and r.is_worse for no, r in pairs)
            cells.append(
                f"{true} true, {sum(refused[user]) - true} false, IoU {off:.4f} -> {kept:.4f}"
            )
        print(f"| **{level}: all** | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--weights", default="lite")
    parser.add_argument("--protocol", default=None)
    parser.add_argument("--limit", type=int, default=40)
    arguments = parser.parse_args()
    predictor = Predictor(load_model(arguments.weights), arguments.protocol)
    found: dict[str, list[Result]] = {user: [] for user in USERS}
    for text in arguments.dataset:
        name, _, path = text.partition("=")
        cases = read_benchmark(name, Path(path)).select(600, arguments.limit).cases
        for number, case in enumerate(cases):
            try:
                low, high = RANGES[number % len(RANGES)]
                start = damage_mask(case.reference, case.name, 3, low, high)
            except InstanceError:
                continue
            for user in USERS:
                found[user] += results(predictor, case, start, user, number)
    print_table(found)


if __name__ == "__main__":
    main()
