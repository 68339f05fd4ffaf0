"""One chunk of images through the predictor: where the work of a run is done.

Images are read, and results judged, in threads while the network works.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from maskfix.errors import InstanceError
from maskfix.formats import ImageItem
from maskfix.masks import Mask
from maskfix.predictor import Predictor
from maskfix.predictor.drive import drive
from maskfix.refinement.clean import CleaningJob
from maskfix.refinement.inputs import Inputs, Loaded, memory_of
from maskfix.refinement.job import InstanceJob
from maskfix.refinement.outcome import Outcome, conclude, failed, pack
from maskfix.refinement.plan import Task
from maskfix.refinement.split import SplitJob
from maskfix.threads import map_ahead

READ_AHEAD = 2  # images, per thread
READ_BYTES = 256 << 20  # of images that wait, with their masks; a larger one is read when wanted


@dataclass(frozen=True)
class Finished:
    """What came of a chunk.

    Attributes:
        lines: of the journal, one an instance, in the order of the report.
        matched_by: how many images found their references in which way.
    """

    lines: list[dict[str, Any]]
    matched_by: dict[str, int]


class Result(NamedTuple):
    """What came of an instance: a finished job, or at once the outcome."""

    place: int  # in the report
    item: ImageItem
    came: InstanceJob | Outcome


class Worker:
    """Works on chunks of images.

    Args:
        inputs: of the run.
        predictor: what answers clicks.
    """

    def __init__(self, inputs: Inputs, predictor: Predictor) -> None:
        self.inputs, self.config, self.predictor = inputs, inputs.config, predictor
        self._pool = ThreadPoolExecutor(self.config.workers)
        self._matched_by: Counter[str] = Counter()  # images of the present chunk

    def work(
        self, chunk: list[int], tell: Callable[[int, int], object] = lambda images, instances: None
    ) -> Finished:
        """Do all instances of a chunk.

        Args:
            chunk: ordinals of images.
            tell: called now and then: so many images more are read, so many instances done.

        Raises:
            InstanceError: one failed, and that is to stop the run.
        """
        self._matched_by.clear()
        lines: list[tuple[int, dict[str, Any]]] = []
        results, ahead = self._results(chunk, tell), 2 * self.config.workers
        for place, line in map_ahead(self._settle, results, self._pool, ahead):
            row = line["row"]
            if row["status"] == "failed" and self.config.fail_fast:
                raise InstanceError(f"{row['image']}: {row['reason']}")
            lines.append((place, line))
            tell(0, 1)
        lines.sort(key=lambda pair: pair[0])
        return Finished([line for _, line in lines], dict(self._matched_by))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _results(self, chunk: list[int], tell: Callable[[int, int], object]) -> Iterator[Result]:
        """The instances of a chunk as they finish, each with its place in the report."""
        done: deque[Result] = deque()
        places: dict[int, tuple[int, ImageItem]] = {}

        def jobs() -> Iterator[InstanceJob]:
            place = 0
            for loaded in self._read_ahead(chunk):
                tell(1, 0)
                bare = replace(loaded.item, annotations=())  # jobs outlive the others' masks
                if loaded.problem:
                    affected: list[Task | None] = [*loaded.tasks] or [None]
                    for task in affected:
                        done.append(Result(place, bare, failed(bare, task, loaded.problem)))
                        place += 1
                    continue
                for task in loaded.tasks:
                    job = self._begin(loaded, task)
                    if isinstance(job, Outcome):
                        done.append(Result(place, bare, job))
                    else:
                        places[id(job)] = place, bare
                        yield job
                    place += 1
                del loaded  # before the next one is read

        for job in drive(self.predictor, jobs(), self.predictor.in_flight):
            yield Result(*places.pop(id(job)), job)
            while done:
                yield done.popleft()
        yield from done

    def _settle(self, result: Result) -> tuple[int, dict[str, Any]]:
        """A place, and its line of the journal: masks as bits would fill the memory."""
        came = result.came
        outcome = came if isinstance(came, Outcome) else self._conclude(result.item, came)
        return result.place, pack(outcome)

    def _begin(self, loaded: Loaded, task: Task) -> InstanceJob | Outcome:
        """Start a task, or finish it at once when the network has no part in it."""
        if task.problem:
            return failed(loaded.item, task, task.problem)
        assert loaded.image is not None
        height, width = loaded.image.shape[:2]
        reference = loaded.references.get(task.annotation.key) if task.annotation else None
        mask = task.mask or Mask.empty(height, width)
        script, config = task.script, self.config
        simulate = config.simulate
        cleans = config.cleans and mask.area > 0
        if script.action is not None or not (script.clicks or (simulate and reference) or cleans):
            return conclude(
                loaded.item, task, mask, None, (), reference, 0, config.guard, config.min_part
            )
        if script.split:
            first, second = (self.predictor.start(loaded.image) for _ in range(2))
            return SplitJob(task, first, reference, other=second)
        session = self.predictor.start(loaded.image, task.mask)
        if cleans:
            return CleaningJob(task, session, reference)
        target = script.target or config.target_iou
        name = f"{loaded.item.file}/{task.annotation.id if task.annotation else 'new'}"
        return InstanceJob(
            task, session, reference, simulate, target, config.jitter, config.seed, name
        )

    def _conclude(self, item: ImageItem, job: InstanceJob) -> Outcome:
        if job.problem:
            return failed(item, job.task, f"it could not be predicted: {job.problem}")
        return conclude(
            item,
            job.task,
            *job.parts(),
            job.used,
            job.reference,
            job.seconds,
            self.config.guard,
            self.config.min_part,
        )

    def _read_ahead(self, chunk: list[int]) -> Iterator[Loaded]:
        """Load images in order, some of them before they are asked for."""
        ahead = READ_AHEAD * self.config.workers
        for loaded in map_ahead(self.inputs.load, chunk, self._pool, ahead, _room):
            if self.inputs.references is not None:
                self._matched_by[loaded.matched_by or "none"] += 1
            yield loaded
            del loaded


def _room(loaded: Loaded) -> int:
    """How many images like this one may wait."""
    return READ_BYTES // memory_of(loaded.item, loaded.image, loaded.references)
