"""How a classical method sees an instance: the whole image on a small grid, clicks as seeds.

These methods cost seconds at full size and gain little there. Legend: H, W the image; h, w the
grid, at most `GridProtocol.longest` pixels long.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from maskfix.baselines.base import Baseline
from maskfix.baselines.seeds import Scene, make_scene
from maskfix.clicks import MASK_THRESHOLD
from maskfix.crops import Size, resample, to_network
from maskfix.masks import Mask
from maskfix.predictor.session import FloatArray, NetworkPoint, Session, View, as_probabilities
from maskfix.types import Box


@dataclass(frozen=True)
class GridProtocol:
    """Settings.

    Attributes:
        longest: longest side of the grid; smaller images are not enlarged.
        threshold: a pixel is in the resulting mask where its probability is above this.
    """

    longest: int = 240
    threshold: float = MASK_THRESHOLD

    def start(self, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None) -> GridSession:
        """Begin an instance on an (H, W, 3) uint8 RGB image, from a mask or from none."""
        return GridSession(self, image, mask)


class GridSession(Session):
    """One instance under `GridProtocol`.

    The mask that its views show is the given one for good, zeros if there was none: what a
    classical method answers depends on that mask and the clicks, not on earlier answers.
    """

    def __init__(
        self, protocol: GridProtocol, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None
    ) -> None:
        super().__init__(given=mask is not None)
        height, width = image.shape[:2]
        scale = min(1.0, protocol.longest / max(height, width))
        self.size = Size(max(1, round(height * scale)), max(1, round(width * scale)))
        self.protocol = protocol
        self._box = Box(0, 0, height, width)
        self._image = np.ascontiguousarray(resample(image, self.size))
        self._probabilities = as_probabilities(mask, height, width)
        self._given = resample(self._probabilities, self.size)

    def view(self) -> View:
        """The whole image and all clicks, on the grid."""
        points = []
        for i, click in enumerate(self.clicks):
            row, col = to_network(click.x, click.y, self._box, self.size)
            points.append(NetworkPoint(row, col, i, click.positive))
        image = torch.from_numpy(self._image).permute(2, 0, 1).float() / 255
        return View(image, torch.from_numpy(self._given)[None], tuple(points))

    def accept(self, probabilities: FloatArray) -> bool:
        """Bring the answer to full size; the pixels that were clicked are as they were clicked."""
        full = resample(probabilities, Size(self._box.height, self._box.width)).copy()
        for click in self.clicks:
            row, col = round(click.y), round(click.x)
            if 0 <= row < self._box.height and 0 <= col < self._box.width:
                full[row, col] = click.positive
        self._probabilities = full
        return False

    def probabilities(self) -> FloatArray:
        """See `Session`."""
        return self._probabilities

    def mask(self) -> Mask:
        """See `Session`."""
        return Mask.from_array(self._probabilities > self.protocol.threshold)


class Classical(Baseline):
    """A method that divides the pixels of a `Scene` into object and background."""

    def __init__(self) -> None:
        super().__init__(GridProtocol())

    def answer(self, session: Session) -> FloatArray:
        """See `Baseline`; where seeds of one kind are missing, all is of the other."""
        view = session.view()
        image = np.rint(view.image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        given = view.mask[0].numpy() > self.protocol.threshold if session.given else None
        scene = make_scene(image, view.points, given)
        if not scene.outside.any():
            return np.ones(scene.inside.shape, np.float32)
        if not scene.inside.any() or (scene.inside | scene.outside).all():
            return scene.inside.astype(np.float32)
        return self.segment(scene).astype(np.float32)

    @abstractmethod
    def segment(self, scene: Scene) -> NDArray[Any]:
        """Divide a scene that has seeds of both kinds, and pixels that are none.

        Returns:
            (h, w) bool, or probabilities in [0, 1]; seeds as they are.
        """
