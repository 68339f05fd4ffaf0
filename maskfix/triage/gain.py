"""How much of all that is wrong a ranking finds early, where the right masks are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SHARES = (0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Gain:
    """One order of looking at masks.

    Attributes:
        found: the share of the total error (1 - IoU, summed) in the first `SHARES` of the masks.
        area: under the curve of that share over the share looked at, 0..1; 0.5 for a random order.
    """

    found: tuple[float, ...]
    area: float


def gain_of(worth: FloatArray, errors: FloatArray) -> Gain:
    """Look at masks from the greatest worth down.

    Args:
        worth: (N,) what the order goes by; equal ones count as in random order.
        errors: (N,) 1 - IoU of each mask with the right one; not all zero.
    """
    _, groups, sizes = np.unique(-worth, return_inverse=True, return_counts=True)
    totals = np.bincount(groups, errors)
    seen = np.concatenate([[0], np.cumsum(sizes)]) / worth.size
    share = np.concatenate([[0], np.cumsum(totals)]) / errors.sum()
    found = np.interp(SHARES, seen, share)
    area = float((np.diff(seen) * (share[1:] + share[:-1]) / 2).sum())
    return Gain(tuple(float(value) for value in found), area)


def compare_orders(scores: FloatArray, areas: FloatArray, errors: FloatArray) -> dict[str, Gain]:
    """The ranking beside simpler orders, and the best there can be."""
    return {
        "triage": gain_of(scores, errors),
        "random": gain_of(np.zeros_like(scores), errors),
        "largest first": gain_of(areas, errors),
        "smallest first": gain_of(-areas, errors),
        "perfect": gain_of(errors, errors),
    }


def gain_table(orders: Mapping[str, Gain]) -> str:
    """The orders as a text table."""
    heads = "".join(f"{share:>8.0%}" for share in SHARES)
    lines = [f"{'share of the error in the first':32}{heads}    area"]
    for name, gain in orders.items():
        found = "".join(f"{value:8.1%}" for value in gain.found)
        lines.append(f"{name:32}{found}{gain.area:8.3f}")
    return "\n".join(lines)
