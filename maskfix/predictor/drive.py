"""Many instances, click by click, each to its end.

On a GPU they move in step, with shared network calls a round. On the CPU every instance is followed
by one thread from its first click to its last: network, simulated user and all that lies between
take turns on the same core, and no core waits for another.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from maskfix.masks import Mask
from maskfix.model.inference import one_thread_a_call
from maskfix.predictor import Predictor, Session, note_failure
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


IMAGE_BYTES = 512 << 20
"""No further job begins while the images of those in progress take so much memory."""


def drive(
    predictor: ClickMethod,
    jobs: Iterable[AnyJob],
    in_flight: int,
    pool: Executor | None = None,
) -> Iterator[AnyJob]:
    """Run jobs to their ends; a finished one leaves and the next one enters.

    Args:
        predictor: predicts the sessions.
        jobs: taken from as places become free.
        in_flight: so many at a time, fewer where images are large (`IMAGE_BYTES`).
        pool: threads that ask the jobs for their clicks, where these move in step.

    Yields:
        each job when it is finished, in that order.
    """
    places = Places(in_flight)
    if isinstance(predictor, Predictor) and predictor.is_side_by_side:
        return _side_by_side(predictor, jobs, places)
    return _in_step(predictor, iter(jobs), places, pool)


class Places:
    """Jobs in progress, bounded in number and by the memory of their images.

    Args:
        most: so many jobs at a time.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self.image_bytes = 0
        self._users: Counter[int] = Counter()  # by the image's id: jobs share images

    @property
    def is_free(self) -> bool:
        """Whether another job may begin; one always may."""
        return not self.taken or (self.taken < self.most and self.image_bytes < IMAGE_BYTES)

    def enter(self, job: Job) -> None:
        """A job begins."""
        self._count(job, 1)

    def leave(self, job: Job) -> None:
        """A job has ended."""
        self._count(job, -1)

    def _count(self, job: Job, change: int) -> None:
        self.taken += change
        image = job.session.image
        if image is None:
            return
        users = self._users[id(image)]
        self._users[id(image)] = users + change
        if min(users, users + change) == 0:  # the first to come or the last to go
            self.image_bytes += change * image.nbytes
        self._users = +self._users


def _side_by_side(predictor: Predictor, jobs: Iterable[AnyJob], places: Places) -> Iterator[AnyJob]:
    """Every job in a thread of the predictor's."""
    running: set[Future[AnyJob]] = set()

    def leave() -> AnyJob:
        done = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
        running.remove(done)
        places.leave(done.result())
        return done.result()

    with one_thread_a_call():
        try:
            for job in jobs:
                places.enter(job)
                running.add(predictor.submit(_follow, predictor, job))
                while not places.is_free:
                    yield leave()
            while running:
                yield leave()
        finally:  # nothing is left behind when the caller has had enough
            for future in running:
                future.cancel()
            wait(running)


def _follow(predictor: Predictor, job: AnyJob) -> AnyJob:
    """Bring a job to its end."""
    while clicks := job.next_clicks():
        job.session.clicks += clicks
        began = time.perf_counter()
        failures: dict[Session, str] = {}
        try:
            predictor.step_here(job.session)
        except Exception as error:
            note_failure(job.session, error, failures)
        job.seconds += (time.perf_counter() - began) / predictor.at_once
        job.problem = failures.get(job.session)
        if job.problem is not None:
            break
    return job


def _in_step(
    predictor: ClickMethod, jobs: Iterator[AnyJob], places: Places, pool: Executor | None
) -> Iterator[AnyJob]:
    """One call of the predictor a round, for all jobs in progress."""
    active: list[AnyJob] = []
    while True:
        while places.is_free and (job := next(jobs, None)) is not None:
            places.enter(job)
            active.append(job)
        if not active:
            return
        moving: list[AnyJob] = []
        finished: list[AnyJob] = []
        for job, clicks in zip(active, (pool.map if pool else map)(_ask, active), strict=True):
            job.session.clicks += clicks
            (moving if clicks else finished).append(job)
        began = time.perf_counter()
        failures: dict[Session, str] = {}
        predictor.step([job.session for job in moving], failures)
        active = []
        for job in moving:
            job.seconds += (time.perf_counter() - began) / len(moving)
            job.problem = failures.get(job.session)
            (active if job.problem is None else finished).append(job)
        for job in finished:
            places.leave(job)
            yield job


def _ask(job: Job) -> list[Click]:
    return job.next_clicks()
