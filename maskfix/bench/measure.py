"""Taking time: several ways to do a thing in turn, and where the time of a run goes."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from typing import Any

MOST_ROUNDS = 50


@dataclass(frozen=True)
class Timing:
    """What the repetitions of one thing took, in seconds by the clock."""

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The shortest: what the machine can do when nothing disturbs it."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The usual."""
        return statistics.median(self.seconds)


def in_turn(
    ways: Mapping[str, Callable[[], object]], budget: float, least_rounds: int = 3
) -> dict[str, Timing]:
    """Time several ways to do a thing, one after the other, round by round.

    What disturbs the machine meanwhile disturbs all of them, so that their ratios hold. A first
    round, in which things settle, does not count.

    Args:
        ways: name -> what to do.
        budget: seconds for all rounds together, to which at least `least_rounds` are made.
        least_rounds: rounds to be made in any case.
    """
    for run in ways.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + budget
    for number in range(MOST_ROUNDS):
        if number >= least_rounds and time.perf_counter() > end:
            break
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


@dataclass
class Stopwatch:
    """Processor time of chosen functions, in all threads, less that of others called inside.

    Attributes:
        seconds: by stage.
        calls: by stage.
    """

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _inner: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def watch(self, stages: Mapping[str, str]) -> Iterator[None]:
        """While in force, time functions where they are looked up.

        Args:
            stages: ``"package.module:name"`` or ``"package.module:Class.method"`` -> stage.
        """
        replaced: list[tuple[Any, str, Any]] = []
        try:
            for place, stage in stages.items():
                module, _, path = place.partition(":")
                *owners, name = path.split(".")
                owner: Any = import_module(module)
                for attribute in owners:
                    owner = getattr(owner, attribute)
                original = getattr(owner, name)
                replaced.append((owner, name, original))
                setattr(owner, name, self._timed(original, stage))
            yield
        finally:
            for owner, name, original in reversed(replaced):
                setattr(owner, name, original)

    def _timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            outside = getattr(self._inner, "seconds", 0.0)
            self._inner.seconds = 0.0
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - began
                with self._lock:
                    self.seconds[stage] += spent - self._inner.seconds
                    self.calls[stage] += 1
                self._inner.seconds = outside + spent

        return timed
