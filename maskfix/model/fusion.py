"""How clicks and previous mask enter a network made for RGB images (paper, section 3.1).

Conv1S: a small convolutional block brings the encoding to the shape of the trunk's first features
and is added to them, scaled by one learnt number. Conv1E: a single convolution, added at the same
place. DMF: image and encoding are mixed back to three channels in front of the trunk.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn

from maskfix.model.blocks import conv, resize
from maskfix.model.click_maps import ClickMaps, Encoding
from maskfix.model.network import ClickNetwork

InputScheme = Literal["conv1s", "conv1e", "dmf"]
Radius = Annotated[float, Meta(gt=0)]
ClicksGroups = Annotated[tuple[Radius, ...], Meta(min_length=1)] | None

FUSED_CHANNELS = 64  # what Conv1S and Conv1E make, at stride 2
LEAK = 0.2


class Scale(nn.Module):
    """Multiplies by the magnitude of one learnt number, 0.05 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 0.05))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.abs()


def conv1s(channels: int) -> nn.Module:
    """Encoding (B, channels, H, W) -> (B, 64, H/2, W/2), near zero at first."""
    return nn.Sequential(
        conv(channels, 16, 1, bias=True),
        nn.LeakyReLU(LEAK),
        conv(16, FUSED_CHANNELS, 3, stride=2, bias=True),
        Scale(),
    )


def conv1e(channels: int) -> nn.Module:
    """Encoding (B, channels, H, W) -> (B, 64, H/2, W/2)."""
    return conv(channels, FUSED_CHANNELS, 3, stride=2, bias=True)


def dmf(channels: int) -> nn.Module:
    """Image and encoding (B, 3 + channels, H, W) -> (B, 3, H, W)."""
    return nn.Sequential(
        conv(3 + channels, 6 + channels, 1, bias=True),
        nn.BatchNorm2d(6 + channels),
        nn.LeakyReLU(LEAK),
        conv(6 + channels, 3, 1, bias=True),
    )


class PaperNetwork(ClickNetwork):
    """What the paper's networks share: click maps, one of the input schemes, the form of outputs.

    Args:
        with_prev_mask: the image has the previous mask as fourth channel.
        input_scheme: ``"conv1s"``, ``"conv1e"`` or ``"dmf"``.
        encoding: clicks as ``"disk"`` or ``"distance"`` maps.
        radius: of the disks, or the distances' unit, in network-input pixels.
        clicks_groups: radii of several click groups (see `ClickMaps`), in place of `radius`.
    """

    def __init__(
        self,
        with_prev_mask: bool,
        input_scheme: InputScheme,
        encoding: Encoding,
        radius: float,
        clicks_groups: tuple[float, ...] | None,
    ) -> None:
        super().__init__(ClickMaps(clicks_groups or radius, encoding), with_prev_mask)
        self.input_scheme = input_scheme
        if input_scheme == "dmf":
            self.rgb_conv = dmf(self.encoding_channels)
        else:
            scheme = conv1s if input_scheme == "conv1s" else conv1e
            self.maps_transform = scheme(self.encoding_channels)
        if input_scheme == "conv1e":  # takes part in the trunk's first layer, and learns as slowly
            self.backbone_prefixes = (*self.backbone_prefixes, "maps_transform.")

    def fuse(self, rgb: Tensor, encoding: Tensor) -> tuple[Tensor, Tensor | None]:
        """Input of the trunk (B, 3, H, W), and what to add to its stride-2 features, or None."""
        if self.input_scheme == "dmf":
            return self.rgb_conv(torch.cat([rgb, encoding], dim=1)), None
        return rgb, self.maps_transform(encoding)

    @staticmethod
    def outputs(
        logits: Tensor, auxiliary: Tensor | None, height: int, width: int
    ) -> dict[str, Tensor]:
        """Bring the heads' logits to the size of the image, under their published names."""
        named = {"instances": logits}
        if auxiliary is not None:
            named["instances_aux"] = auxiliary
        return {name: resize(value, (height, width)) for name, value in named.items()}
