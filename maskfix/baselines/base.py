"""What a method to compare with is: it stands where a `Predictor` would, one instance at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maskfix.masks import Mask
from maskfix.predictor import Session, note_failure
from maskfix.predictor.session import FloatArray


class Showing(Protocol):
    """How an instance is shown: `PaperProtocol`, `FastProtocol`, or a method's own."""

    @property
    def threshold(self) -> float:
        """A pixel is in the resulting mask where its probability is above this."""

    def start(self, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None) -> Session:
        """Begin an instance on an (H, W, 3) uint8 RGB image, from a mask or from none."""


class Baseline(ABC):
    """Answers clicks on instances, each on its own, so that answers never depend on company.

    Args:
        protocol: how an instance is shown to the method, and how its answers come back into the
            image: as for a network. ``PaperProtocol(zoom_target=None, max_size=320)`` shows the
            whole image, at most 320 pixels long.
    """

    def __init__(self, protocol: Showing) -> None:
        self.protocol = protocol

    def start(self, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None = None) -> Session:
        """Begin an instance; see `maskfix.predictor.Predictor.start`."""
        return self.protocol.start(image, mask)

    def step(self, sessions: Sequence[Session], failures: dict[Session, str] | None = None) -> None:
        """Find each session's mask anew; see `maskfix.predictor.Predictor.step`."""
        for session in sessions:
            try:
                while session.accept(self.answer(session)):
                    pass  # it wants to look closer
            except Exception as error:
                note_failure(session, error, failures)

    @abstractmethod
    def answer(self, session: Session) -> FloatArray:
        """One answer to all clicks of a session.

        Args:
            session: ``session.view()``, to be called once, is what the method sees: image,
                previous mask and clicks; ``session.clicks`` are all clicks in image pixels. A
                method that remembers something of an instance keeps it by session, weakly.

        Returns:
            (h, w) float32 probabilities in [0, 1], of the view's size.
        """
