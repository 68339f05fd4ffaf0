"""Many instances, click by click, in step: one shared network call a round."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from maskfix.masks import Mask
from maskfix.predictor import Session
from maskfix.types import Click


class ClickMethod(Protocol):
    """What answers clicks: a `Predictor`, or a method to compare with."""

    def start(self, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None = None) -> Session:
        """Begin an instance; see `maskfix.predictor.Predictor.start`."""

    def step(self, sessions: Sequence[Session], failures: dict[Session, str] | None = None) -> None:
        """Find each session's mask anew; see `maskfix.predictor.Predictor.step`."""


class Job(Protocol):
    """An instance and where its clicks come from.

    Attributes:
        session: the instance in the predictor.
        seconds: its share of the time spent predicting, added to by `drive`.
        problem: set by `drive` when predicting failed, which ends the job.
    """

    session: Session
    seconds: float
    problem: str | None

    def next_clicks(self) -> list[Click]:
        """The clicks to make now, looking at the session's mask; an empty list ends the job."""


AnyJob = TypeVar("AnyJob", bound=Job)


def drive(
    predictor: ClickMethod,
    jobs: Iterable[AnyJob],
    in_flight: int,
    pool: Executor | None = None,
) -> Iterator[AnyJob]:
    """Run jobs to their ends; a finished one leaves and the next one enters.

    Args:
        predictor: predicts all of a round's sessions together.
        jobs: taken from as places become free.
        in_flight: so many at a time.
        pool: threads that ask the jobs for their clicks, several jobs at a time.

    Yields:
        each job when it is finished, in that order.
    """
    waiting = iter(jobs)
    active: list[AnyJob] = []
    exhausted = False
    while active or not exhausted:
        while not exhausted and len(active) < in_flight:
            job = next(waiting, None)
            exhausted = job is None
            if job is not None:
                active.append(job)
        moving = []
        answers = (pool.map if pool else map)(_ask, active)
        for job, clicks in zip(active, answers, strict=True):
            if clicks:
                job.session.clicks += clicks
                moving.append(job)
            else:
                yield job
        began = time.perf_counter()
        failures: dict[Session, str] = {}
        predictor.step([job.session for job in moving], failures)
        active = []
        for job in moving:
            job.seconds += (time.perf_counter() - began) / len(moving)
            job.problem = failures.get(job.session)
            if job.problem is None:
                active.append(job)
            else:
                yield job


def _ask(job: Job) -> list[Click]:
    return job.next_clicks()
