"""Two evaluations side by side, instance by instance."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskfix.errors import InputError, UsageError
from maskfix.metrics import Interval, noc, paired_bootstrap

Entry = tuple[str, str, str]
"""(set, model, method)."""
CHANGED_MOST = 5


@dataclass(frozen=True)
class Difference:
    """One set: run B against run A.

    Attributes:
        name: of the set, with model and method where the runs have several.
        n: instances in both.
        noc: difference in clicks to the threshold; below 0, B needs fewer.
        first_iou: difference in IoU after the first click.
        wins, losses: instances for which B needs fewer and more clicks.
        changed: (instance, clicks in A, clicks in B), the largest change first.
    """

    name: str
    n: int
    noc: Interval
    first_iou: Interval
    wins: int
    losses: int
    changed: tuple[tuple[str, int, int], ...]

    @property
    def is_worse(self) -> bool:
        """B certainly needs more clicks: the interval lies above 0."""
        return self.noc.low > 0


@dataclass(frozen=True)
class Comparison:
    """All sets that two runs share.

    Attributes:
        threshold: of IoU, the highest that both runs were asked for.
        limit: of clicks.
        differences: one a set, or a set, model and method.
    """

    threshold: float
    limit: int
    differences: tuple[Difference, ...]

    def as_text(self) -> str:
        """A table and the instances that changed most, as Markdown."""
        at = f"NoC@{100 * self.threshold:g}"
        lines = [
            f"| set | n | {at}, B - A | 95 % interval | wins / losses | IoU@1, B - A | verdict |",
            "|---|---:|---:|---:|---:|---:|---|",
        ]
        for d in self.differences:
            verdict = "worse" if d.is_worse else "better" if d.noc.is_certain else "no difference"
            lines.append(
                f"| {d.name} | {d.n} | {d.noc.mean:+.2f} | {d.noc.low:+.2f} to {d.noc.high:+.2f} "
                f"| {d.wins} / {d.losses} | {d.first_iou.mean:+.3f} | {verdict} |"
            )
        for d in self.differences:
            changed = [f"{name}: {a} -> {b}" for name, a, b in d.changed]
            if changed:
                lines += ["", f"{d.name}, changed most: {'; '.join(changed)}"]
        return "\n".join(lines) + "\n"


def compare(run_a: Path, run_b: Path) -> Comparison:
    """Compare two folders that `maskfix eval` wrote.

    Entries are paired by set, model and method; where each run has one model and method, by set.

    Raises:
        InputError: a folder is not that of a finished evaluation.
        UsageError: the runs share no set, or no instance of a set.
    """
    (settings_a, a), (settings_b, b) = _read(run_a), _read(run_b)
    shared = set(settings_a["thresholds"]) & set(settings_b["thresholds"])
    if not shared:
        raise UsageError(f"{run_a} and {run_b} have no threshold in common")
    threshold = max(shared)
    limit = min(20, settings_a["max_clicks"], settings_b["max_clicks"])
    singles = all(len({key[1:] for key in run}) == 1 for run in (a, b))
    if singles:
        a = {(key[0], "", ""): rows for key, rows in a.items()}
        b = {(key[0], "", ""): rows for key, rows in b.items()}
    keys = [key for key in a if key in b]
    if not keys:
        what = "set" if singles else "set, model and method"
        raise UsageError(f"{run_a} and {run_b} have no {what} in common")
    return Comparison(
        threshold, limit, tuple(_differ(key, a[key], b[key], threshold, limit) for key in keys)
    )


def _differ(
    key: Entry,
    a: Mapping[str, list[float]],
    b: Mapping[str, list[float]],
    threshold: float,
    limit: int,
) -> Difference:
    names = [name for name in a if name in b]
    if not names:
        raise UsageError(f"{key[0]}: the two runs have no instance in common")
    lists = [[run[name] for name in names] for run in (a, b)]
    counts = [noc([values[:limit] for values in run], threshold, limit) for run in lists]
    change = counts[1] - counts[0]
    first = [[values[0] for values in run] for run in lists]
    order = [i for i in np.argsort(-np.abs(change), kind="stable") if change[i]][:CHANGED_MOST]
    return Difference(
        name=" ".join(part for part in key if part),
        n=len(names),
        noc=paired_bootstrap(counts[0], counts[1]),
        first_iou=paired_bootstrap(first[0], first[1]),
        wins=int(np.count_nonzero(change < 0)),
        losses=int(np.count_nonzero(change > 0)),
        changed=tuple((names[i], int(counts[0][i]), int(counts[1][i])) for i in order),
    )


def _read(folder: Path) -> tuple[dict[str, Any], dict[Entry, dict[str, list[float]]]]:
    """Settings, and the IoUs of every instance by entry and name."""
    try:
        settings = json.loads((folder / "noc.json").read_bytes())["settings"]
        found: dict[Entry, dict[str, list[float]]] = {}
        with (folder / "instances.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                columns = [f"iou@{k}" for k in range(1, settings["max_clicks"] + 1)]
                ious = [float(row[column]) for column in columns if row[column]]
                key = row["set"], row["model"], row["method"]
                found.setdefault(key, {})[row["name"]] = ious or [float(row["iou@0"])]
        return settings, found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: expected the folder of a finished 'maskfix eval', with noc.json and "
            f"instances.csv; {' '.join(str(error).split())}"
        ) from error
