"""CUDA graphs: a network's kernels are recorded once for a size of input, then launched together.

A small network on a fast GPU spends its time waiting for Python, which launches kernel by kernel.
Recordings are for one size; so batches and clicks are filled up to powers of two, and few remain.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

MOST_RECORDED = 64  # sizes; each keeps memory for its inputs
WORTHWHILE = 3  # times that a size turns up before it is recorded
WARM_UP = 2  # runs before a recording, in which libraries choose their kernels

Run = Callable[[], Tensor]
Record = Callable[[Run], tuple[Callable[[], object], Tensor]]
"""Record what a function does on the device: returns what does it again, and where the result of
that will lie."""


class Recording(NamedTuple):
    """One size: the inputs it reads, what starts it, and where its result lies."""

    image: Tensor
    points: Tensor
    replay: Callable[[], object]
    result: Tensor


class CudaGraphs:
    """Records CUDA graphs on the current device, all in the same memory.

    That is safe because they run one after the other on one stream, and a result is copied before
    the next one runs.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, run: Run) -> tuple[Callable[[], object], Tensor]:
        """See `Record`."""
        # A recording must not begin on the default stream.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
            result = run()
        return graph.replay, result


class Recorded:
    """A network that is recorded for the sizes that turn up often, and called for the others.

    To be called in inference mode, from any thread, on one stream.

    Args:
        network: (B, C, H, W) image and (B, 2N, 3) points to (B, 1, H, W) float32; what it makes of
            one image does not depend on the others, and nothing in it waits for the device.
        record: how to record it; by default as CUDA graphs.
    """

    def __init__(
        self, network: Callable[[Tensor, Tensor], Tensor], record: Record | None = None
    ) -> None:
        self.network, self.record = network, record or CudaGraphs()
        self.recordings: dict[tuple[int, ...], Recording] = {}
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, image: Tensor, points: Tensor) -> Tensor:
        """See the class; the result is the caller's own."""
        slots = points.shape[1] // 2  # of either sign
        size = power_of_two(len(image)), *image.shape[1:], power_of_two(slots)
        with self._lock:
            recording = self.recordings.get(size) or self._record(size, image, points)
            if recording is None:
                return self.network(image, points)
            # Rows beyond the batch keep what they held: nobody looks at their results.
            recording.image[: len(image)].copy_(image)
            rows = recording.points[: len(points)].fill_(-1).view(len(points), 2, -1, 3)
            rows[:, :, :slots].copy_(points.view(len(points), 2, -1, 3))
            recording.replay()
            return recording.result[: len(image)].clone()

    def _record(self, size: tuple[int, ...], image: Tensor, points: Tensor) -> Recording | None:
        """Record a size if that is worthwhile and there is room for it."""
        self._seen[size] += 1
        if self._seen[size] != WORTHWHILE or len(self.recordings) >= MOST_RECORDED:
            return None
        batch, *of_image, slots = size
        own_image = image.new_zeros((batch, *of_image))
        own_image = own_image.contiguous(memory_format=torch.channels_last)
        own_points = points.new_full((batch, 2 * slots, 3), -1)
        try:
            with torch.cuda.device(image.device if image.is_cuda else -1):
                replay, result = self.record(lambda: self.network(own_image, own_points))
        except RuntimeError:  # no memory for it, or something that cannot be recorded
            return None
        self.recordings[size] = Recording(own_image, own_points, replay, result)
        return self.recordings[size]


def power_of_two(number: int) -> int:
    """The smallest one that is not below a positive number."""
    return 1 << (number - 1).bit_length()
