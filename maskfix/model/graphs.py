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

MOST_BYTES = 1 << 30  # of the inputs and results of all recordings
WORTHWHILE = 3  # times that a size turns up before it is recorded
WARM_UP = 2  # runs before a recording, in which libraries choose their kernels

Run = Callable[[], Tensor]
Record = Callable[[Run], tuple[Callable[[], object], Tensor]]
"""Record what a function does on the device: returns what does it again, and where the result of
that will lie."""

_one_at_a_time = threading.Lock()  # two recordings at the same time would spoil each other


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
        self._streams: tuple[Any, Any] | None = None  # libraries keep memory for every stream
        self._pool: Any = None

    def __call__(self, run: Run) -> tuple[Callable[[], object], Tensor]:
        """See `Record`.

        Raises:
            RuntimeError: there is no memory for it, or something that cannot be recorded.
        """
        if self._streams is None:
            make: Any = torch.cuda.Stream
            self._streams = make(), make()
        (warm, recording), before = self._streams, torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        with _one_at_a_time:
            try:
                warm.wait_stream(before)
                with torch.cuda.stream(warm):
                    for _ in range(WARM_UP):
                        run()
                # Other threads may use the device meanwhile.
                with torch.cuda.graph(
                    graph, self._pool, recording, capture_error_mode="thread_local"
                ):
                    result = run()
            finally:  # a recording that failed may leave its stream behind
                torch.cuda.set_stream(before)
                before.wait_stream(warm)
        self._pool = graph.pool()
        return graph.replay, result


class Recorded:
    """A network that is recorded for the sizes that turn up often, and called for the others.

    To be called in inference mode, from any thread, on one stream.

    Args:
        network: (B, C, H, W) image and (B, 2N, 3) points to (B, 1, H, W) float32; what it makes of
            one image does not depend on the others, and nothing in it waits for the device.
        most: images in a call; larger ones are not recorded.
        record: how to record it; by default as CUDA graphs.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        most: int,
        record: Record | None = None,
    ) -> None:
        self.network, self.most, self.record = network, most, record or CudaGraphs()
        self.recordings: dict[tuple[int, ...], Recording] = {}
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._bytes = 0
        self._lock = threading.Lock()

    def __call__(self, image: Tensor, points: Tensor) -> Tensor:
        """See the class; the result is the caller's own."""
        if len(image) > self.most:
            return self.network(image, points)
        slots = points.shape[1] // 2  # of either sign
        batch = min(power_of_two(len(image)), self.most)
        size = batch, *image.shape[1:], power_of_two(slots)
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

    def stop(self) -> None:
        """Give the memory of all recordings back, and make no more."""
        with self._lock:
            self.recordings.clear()
            self._bytes = MOST_BYTES

    def _record(self, size: tuple[int, ...], image: Tensor, points: Tensor) -> Recording | None:
        """Record a size if that is worthwhile and there is room for it."""
        self._seen[size] += 1
        if self._seen[size] < WORTHWHILE or self._bytes >= MOST_BYTES:
            return None
        batch, *of_image, slots = size
        own_image = image.new_zeros((batch, *of_image))
        own_image = own_image.contiguous(memory_format=torch.channels_last)
        own_points = points.new_full((batch, 2 * slots, 3), -1)
        try:
            with torch.cuda.device(image.device if image.is_cuda else -1):
                replay, result = self.record(lambda: self.network(own_image, own_points))
        except RuntimeError:  # and the next one would fail, too
            self._bytes = MOST_BYTES
            return None
        self._bytes += own_image.nbytes + result.nbytes
        self.recordings[size] = Recording(own_image, own_points, replay, result)
        return self.recordings[size]


def power_of_two(number: int) -> int:
    """The smallest one that is not below a positive number."""
    return 1 << (number - 1).bit_length()
