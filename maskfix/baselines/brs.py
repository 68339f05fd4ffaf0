"""Backpropagating refinement: clicks are forced upon a network by changing it for the instance.

BRS (Jang and Kim, "Interactive image segmentation via backpropagating refinement scheme", CVPR
2019) optimises the click maps; f-BRS (Sofiiuk et al., "f-BRS: rethinking backpropagating refinement
for interactive segmentation", CVPR 2020) a scale and a bias for every channel of late features,
which is quicker, as only what comes after them is run again. The places are the stages of a
`ClickNetwork`: A in front of `context`, B in front of `decode`, C in front of `classify`. On the
paper's DeepLabV3+ these are the published ones (before and after pyramid pooling, after the
decoder); on HRNet A and B coincide in front of OCR, and C follows it, as published; on lite A and B
surround self-attention, and C follows the decoder.

From the second click on, every click is followed by an optimisation (see `brs_optimize`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from maskfix.baselines.base import Baseline
from maskfix.baselines.brs_optimize import (
    ClickPatches,
    Objective,
    Predict,
    draw_patches,
    minimise,
)
from maskfix.model.checkpoint import Model
from maskfix.model.inference import prepare
from maskfix.model.network import ClickNetwork, Features
from maskfix.predictor import (
    FastProtocol,
    PaperProtocol,
    Session,
    average_mirrored,
    network_inputs,
)
from maskfix.predictor.session import FloatArray

PENALTY = 1e-3  # of a squared parameter
BIAS_PENALTY = 10  # times as much for biases of features


@dataclass
class Memory:
    """What is kept of an instance between clicks.

    Attributes:
        image: (3, h, w), what the network saw last.
        parameters: (n,), where the last search ended, and the next one begins.
        features: of `image`, once further clicks no longer change them.
    """

    image: Tensor
    parameters: NDArray[np.float64] | None = None
    features: Features | None = None


class Refinement(Baseline):
    """What all schemes share.

    Args:
        model: the network that is refined.
        protocol: how instances are shown to it; under the paper's, with their mirror images.
    """

    SHOWN_CLICKS: int  # the network sees so many clicks, the first ones; the search, all of them

    def __init__(self, model: Model, protocol: PaperProtocol | FastProtocol) -> None:
        super().__init__(protocol)
        network = prepare(model.network)
        assert isinstance(network, ClickNetwork)
        self.network = network
        self.flip = isinstance(protocol, PaperProtocol)
        self._memories: WeakKeyDictionary[Session, Memory] = WeakKeyDictionary()

    def answer(self, session: Session) -> FloatArray:
        """See `Baseline`."""
        view = session.view()
        memory = self._memories.get(session)
        if memory is None or not torch.equal(memory.image, view.image):
            memory = self._look_elsewhere(memory, view.image)
            self._memories[session] = memory
        shown = tuple(point for point in view.points if point.index < self.SHOWN_CLICKS)
        inputs = network_inputs(
            [replace(view, points=shown)], self.network.with_prev_mask, self.flip
        )
        patches = draw_patches(view.points, *view.image.shape[1:])
        logits = self._refine(memory, *inputs, patches, len(session.clicks))
        if self.flip:
            logits = average_mirrored(logits)
        answer: FloatArray = logits.sigmoid().cpu().numpy()[0, 0]
        return answer

    def _refine(
        self, memory: Memory, image: Tensor, points: Tensor, patches: ClickPatches, clicks: int
    ) -> Tensor:
        """The best logits found, (B, 1, h, w)."""
        device = self.network.mean.device
        predict, count = self._problem(memory, image.to(device), points.to(device), clicks)
        start = np.zeros(count) if memory.parameters is None else memory.parameters
        if clicks <= 1:
            with torch.no_grad():
                return predict(torch.from_numpy(start).to(image.dtype).to(device))[0]
        if self.flip:
            patches = ClickPatches(*(torch.cat([map_, map_.flip(3)]) for map_ in patches))
        patches = ClickPatches(*(map_.to(device) for map_ in patches))
        objective = Objective(predict, patches, self.protocol.threshold)
        memory.parameters = minimise(objective, start)
        assert objective.best is not None
        return objective.best

    def _look_elsewhere(self, memory: Memory | None, image: Tensor) -> Memory:
        """What is left of the memory when the network is shown another part of the image."""
        return Memory(image)

    @abstractmethod
    def _problem(
        self, memory: Memory, image: Tensor, points: Tensor, clicks: int
    ) -> tuple[Predict, int]:
        """The function of the parameters that gives logits, and how many parameters it has.

        Parameters of zero change nothing.
        """


class FeatureBRS(Refinement):
    """f-BRS: a scale and a bias for every channel of the features at one place.

    Args:
        model, protocol: see `Refinement`.
        place: A, B or C; see the module.
    """

    SHOWN_CLICKS = 8

    def __init__(
        self, model: Model, protocol: PaperProtocol | FastProtocol, place: Literal["A", "B", "C"]
    ) -> None:
        super().__init__(model, protocol)
        stages = (self.network.context, self.network.decode)
        number = "ABC".index(place)
        self._before, self._after = stages[:number], stages[number:]

    def _look_elsewhere(self, memory: Memory | None, image: Tensor) -> Memory:
        """The parameters stay: what they change means the same anywhere."""
        return Memory(image, None if memory is None else memory.parameters)

    def _problem(
        self, memory: Memory, image: Tensor, points: Tensor, clicks: int
    ) -> tuple[Predict, int]:
        features = memory.features
        if features is None or clicks <= self.SHOWN_CLICKS:
            features = self._features(image, points)
        if clicks >= self.SHOWN_CLICKS:
            memory.features = features
        height, width = image.shape[2:]

        def predict(parameters: Tensor) -> tuple[Tensor, Tensor]:
            scale, bias = parameters.view(2, 1, -1, 1, 1)
            penalty = PENALTY * (scale.square().sum() + BIAS_PENALTY * bias.square().sum())
            changed = Features(features.main * (1 + scale) + bias, features.rest)
            for stage in self._after:
                changed = stage(changed)
            return self.network.classify(changed, height, width)["instances"], penalty

        return predict, 2 * features.main.shape[1]

    @torch.no_grad()
    def _features(self, image: Tensor, points: Tensor) -> Features:
        features = self.network.trunk(*self.network.encode(image, points))
        for stage in self._before:
            features = stage(features)
        return features


class InputBRS(Refinement):
    """BRS on the input: a number is added to every pixel of the image, or of the click maps.

    The numbers for the mirror image are mirrored ones. The previous mask is left alone.

    Args:
        model, protocol: see `Refinement`.
        target: ``"rgb"`` changes the normalised image, ``"clicks"`` the click maps.
    """

    SHOWN_CLICKS = 5

    def __init__(
        self, model: Model, protocol: PaperProtocol | FastProtocol, target: Literal["rgb", "clicks"]
    ) -> None:
        super().__init__(model, protocol)
        self.target = target

    def _problem(
        self, memory: Memory, image: Tensor, points: Tensor, clicks: int
    ) -> tuple[Predict, int]:
        network = self.network
        rgb, encoding = network.encode(image, points)
        height, width = image.shape[2:]
        padding = (0, rgb.shape[3] - width, 0, rgb.shape[2] - height)
        first = int(network.with_prev_mask)  # of the channels that hold clicks
        channels = 3 if self.target == "rgb" else encoding.shape[1] - first

        def predict(parameters: Tensor) -> tuple[Tensor, Tensor]:
            added = parameters.view(1, channels, height, width)
            if self.flip:
                added = torch.cat([added, added.flip(3)])
            penalty = PENALTY * added.square().sum()
            added = F.pad(added, padding)
            if self.target == "rgb":
                features = network.trunk(rgb + added, encoding)
            else:
                maps = encoding[:, first:] + added
                features = network.trunk(rgb, torch.cat([encoding[:, :first], maps], dim=1))
            features = network.decode(network.context(features))
            return network.classify(features, height, width)["instances"], penalty

        return predict, channels * height * width
