"""What a protocol must provide: one instance being corrected, and what the network is shown of it.

Legend: H, W the image; h, w the network input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from maskfix.masks import Mask
from maskfix.types import Box, Click

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class NetworkPoint:
    """A click in network-input pixels, with its order index among all clicks."""

    row: float
    col: float
    index: int
    positive: bool


@dataclass(frozen=True)
class View:
    """One network input.

    Attributes:
        image: (3, h, w) float32 RGB in [0, 1].
        mask: (1, h, w) float32, probabilities of the previous mask, zeros for none.
        points: the clicks as this view shows them.
    """

    image: Tensor
    mask: Tensor
    points: tuple[NetworkPoint, ...]


class Session(ABC):
    """One instance on its way from a mask, or from nothing, to a better mask.

    Attributes:
        clicks: all clicks so far, in order.
        given: whether there was a mask to start from.
        image: (H, W, 3) uint8 RGB, where a session holds on to it; instances of one image share it.
    """

    image: NDArray[np.uint8] | None = None

    def __init__(self, given: bool) -> None:
        self.clicks: list[Click] = []
        self.given = given

    @abstractmethod
    def view(self) -> View:
        """What the network is to see now, given `clicks` and the state of the mask."""

    @abstractmethod
    def accept(self, probabilities: FloatArray) -> bool:
        """Take the network's (h, w) answer to the last view.

        Returns:
            whether the network should be asked again, with a better view of the same clicks.
        """

    @abstractmethod
    def probabilities(self) -> FloatArray:
        """(H, W) float32 in [0, 1]: how likely each pixel is to belong to the object."""

    def window(self, box: Box) -> FloatArray:
        """`probabilities` within a box of the image, (box.height, box.width) float32."""
        return self.probabilities()[box.slices]

    @abstractmethod
    def mask(self) -> Mask:
        """The object as it stands."""


def as_probabilities(mask: NDArray[Any] | Mask | None, height: int, width: int) -> FloatArray:
    """A given mask as (H, W) float32 in [0, 1]; zeros for None.

    Raises:
        ValueError: wrong shape, or values outside [0, 1].
    """
    if mask is None:
        return np.zeros((height, width), np.float32)
    array = mask.to_array() if isinstance(mask, Mask) else np.asarray(mask)
    if array.shape != (height, width):
        raise ValueError(f"mask: expected shape {(height, width)} as the image, got {array.shape}")
    given = array.astype(np.float32)
    if given.size and not (given.min() >= 0 and given.max() <= 1):
        raise ValueError(
            "mask: expected bool or probabilities in [0, 1], found values from "
            f"{given.min():g} to {given.max():g}"
        )
    return given
