"""Signals as a wish to stop soon."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """Whether a signal asked to stop."""

    requested: bool = False


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Take SIGTERM and SIGINT as a wish to stop soon; a second one works as ever.

    The handlers of before come back at the first signal and at the end. Outside the main thread,
    where Python delivers no signals, nothing is changed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    wanted = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in wanted}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        restore()

    for number in wanted:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()
