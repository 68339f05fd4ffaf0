"""What every click-segmentation network of maskfix has in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from maskfix.model.click_maps import ClickMaps

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Features(NamedTuple):
    """What passes from one stage of a network to the next.

    Attributes:
        main: (B, C, h, w), what the next stage works on.
        rest: what later stages need beside it.
    """

    main: Tensor
    rest: tuple[Tensor, ...] = ()


class ClickNetwork(nn.Module):
    """Base class: image, previous mask and clicks in, logits out.

    Called as ``network(image, points)``:

    * image: (B, 3, H, W) float32 RGB in [0, 1], or (B, 4, H, W) with the probabilities of the
      previous mask in [0, 1] as fourth channel where `with_prev_mask` is set (zeros when there is
      none).
    * points: (B, 2N, 3) rows (y, x, order index) in input pixels; the first N positive, the last
      N negative, unused slots -1.

    Returns ``{"instances": (B, 1, H, W) logits}`` and, where there is an auxiliary head,
    ``"instances_aux"`` of the same shape (of `lite` in training only). Sigmoid is left to the
    caller.

    A network runs in stages: `encode`, `trunk`, `context`, `decode`, `classify`; in between, its
    features can be taken hold of.

    Attributes:
        backbone_prefixes: starts of the names of those parameters that come from ImageNet weights
            or learn as slowly as these do; training multiplies their learning rate by 0.1.
        precise: layers near the input, of one argument, that keep float32 where the rest computes
            with bfloat16: what is lost there is lost for all that follows.
    """

    backbone_prefixes: tuple[str, ...] = ()
    precise: tuple[str, ...] = ()
    mean: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, click_maps: ClickMaps, with_prev_mask: bool) -> None:
        super().__init__()
        self.click_maps = click_maps
        self.with_prev_mask = with_prev_mask
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / std, persistent=False)
        self.register_buffer("shift", -self.mean / std, persistent=False)

    @property
    def encoding_channels(self) -> int:
        """Channels beside RGB: the previous mask, if any, and the click maps."""
        return self.click_maps.channels + int(self.with_prev_mask)

    def forward(self, image: Tensor, points: Tensor) -> dict[str, Tensor]:
        """See the class."""
        features = self.trunk(*self.encode(image, points))
        features = self.decode(self.context(features))
        return self.classify(features, image.shape[2], image.shape[3])

    def encode(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Split and normalise the input.

        Returns:
            the normalised RGB image (B, 3, H, W), and the encoding (B, E, H, W): previous mask
            (raw probabilities), positive map, negative map.
        """
        rgb = torch.addcmul(self.shift, image[:, :3], self.scale)
        maps = self.click_maps(points, image.shape[2], image.shape[3]).to(image.dtype)
        encoding = torch.cat([image[:, 3:], maps], dim=1) if self.with_prev_mask else maps
        return rgb, encoding

    @abstractmethod
    def trunk(self, rgb: Tensor, encoding: Tensor) -> Features:
        """What `encode` made -> features of the pre-trained part of the network."""

    def context(self, features: Features) -> Features:
        """Let every place know of the rest of the image; nothing, in networks without such a part.

        The numbers of channels may differ from stage to stage.
        """
        return features

    def decode(self, features: Features) -> Features:
        """Features from which each pixel is classified; nothing is done where `classify` does."""
        return features

    @abstractmethod
    def classify(self, features: Features, height: int, width: int) -> dict[str, Tensor]:
        """Logits of the size of the image, as the network returns them."""

    def load_trunk_state(self, state: dict[str, Tensor]) -> None:
        """Start the trunk from the tensors of an ImageNet classification network.

        Raises:
            CheckpointError: keys are missing, foreign, or of another shape.
        """
        raise NotImplementedError
