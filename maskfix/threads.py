"""Work in threads whose results are wanted in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    pool: Executor,
    ahead: int,
    room: Callable[[Result], int] | None = None,
) -> Iterator[Result]:
    """Map in a pool, results in order; at most ``ahead`` are made before they are asked for.

    Args:
        function: makes a result.
        items: what from.
        pool: makes them.
        ahead: how many may be made before they are asked for.
        room: how many results like a given one may be, if that may be fewer: the largest so far
            counts. The first is then made alone.
    """
    waiting: deque[Future[Result]] = deque()
    most = ahead if room is None else 0

    def take() -> Result:
        nonlocal ahead, most
        result = waiting.popleft().result()
        if room is not None:
            ahead = most = min(ahead, room(result))
        return result

    for item in items:
        waiting.append(pool.submit(function, item))
        del item  # while the next one is made
        while len(waiting) > most:
            yield take()
    while waiting:
        yield take()
