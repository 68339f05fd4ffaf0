"""The chunks of a run on a Ray cluster: a worker a GPU, or a core where there are none.

The process that asks for it keeps the journal: a chunk is written when all before it are, so that
killing anything at any moment loses no more than the chunks in work.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from maskfix.errors import MaskfixError, UsageError
from maskfix.model.checkpoint import load_model
from maskfix.model.device import choose_device
from maskfix.predictor import Predictor
from maskfix.refinement.inputs import Inputs
from maskfix.refinement.worker import Finished, Worker
from maskfix.runtime import keep_freed_memory

QUEUED = 2  # chunks that a worker has at a time: one in work, one to go on with
AHEAD = 4  # chunks a worker, finished or in work, after the first that is not finished
RETRIES = 3  # of a chunk whose worker died


class RayWorker:
    """A `Worker` with a process of its own."""

    def __init__(self, inputs: Inputs, checksum: str, device: str) -> None:
        keep_freed_memory()
        config = inputs.config
        model = load_model(config.model, choose_device(device), config.precision)
        if model.checksum != checksum:
            raise UsageError(f"--model: {model.path} is not the same file on every machine")
        self._worker = Worker(inputs, Predictor(model, batch_size=config.batch_size))

    def work(self, chunk: list[int]) -> Finished:
        """See `Worker.work`."""
        return self._worker.work(chunk)


def import_ray() -> Any:
    """The package.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'maskfix[ray]'") from error
    return ray


def work_with_ray(inputs: Inputs, todo: Sequence[list[int]], checksum: str) -> Iterator[Finished]:
    """Do chunks on the cluster that ``RAY_ADDRESS`` names, else on this machine.

    Inputs, weights and images lie at the same paths on every machine.

    Args:
        inputs: of the run.
        todo: chunks of images.
        checksum: of the model.

    Yields:
        what came of each chunk, in order.

    Raises:
        UsageError: Ray is not installed.
        MaskfixError: a chunk ended its worker several times.
    """
    if not todo:
        return
    ray = import_ray()
    own = not ray.is_initialized()
    if own:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
        ray.init(log_to_driver=False)
    workers = _start_workers(ray, inputs, checksum, len(todo))
    try:
        yield from _in_order(ray, workers, todo)
    finally:
        for worker in workers:
            ray.kill(worker)
        if own:
            ray.shutdown()


def _start_workers(ray: Any, inputs: Inputs, checksum: str, most: int) -> list[Any]:
    resources, device = ray.cluster_resources(), inputs.config.device
    gpus = int(resources.get("GPU", 0)) if device == "auto" or device.startswith("cuda") else 0
    count = min(most, gpus or int(resources["CPU"]))
    kind = ray.remote(RayWorker).options(
        num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=-1, max_task_retries=RETRIES
    )
    shared = ray.put(inputs)
    return [kind.remote(shared, checksum, "cuda" if gpus else device) for _ in range(count)]


def _in_order(ray: Any, workers: list[Any], todo: Sequence[list[int]]) -> Iterator[Finished]:
    """Keep all workers busy; yield results in the order of the chunks."""
    free = deque(workers * QUEUED)
    running: dict[Any, tuple[int, Any]] = {}
    finished: dict[int, Finished] = {}
    sent = 0
    for wanted in range(len(todo)):
        while wanted not in finished:
            while free and sent < min(len(todo), wanted + AHEAD * len(workers)):
                worker = free.popleft()
                running[worker.work.remote(todo[sent])] = sent, worker
                sent += 1
            [ref], _ = ray.wait(list(running), num_returns=1)
            number, worker = running.pop(ref)
            finished[number] = _get(ray, ref, number)
            free.append(worker)
        yield finished.pop(wanted)


def _get(ray: Any, ref: Any, number: int) -> Finished:
    try:
        result: Finished = ray.get(ref)
        return result
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, MaskfixError) else error from None
    except ray.exceptions.RayActorError as error:
        reason = " ".join(str(error).split())
        raise MaskfixError(
            f"a chunk ended its worker {RETRIES + 1} times ({reason:.200}); go on with --resume"
        ) from error
