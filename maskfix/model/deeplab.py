"""DeepLabV3+ on ResNet-34 and ResNet-50, the paper's comparison networks.

A ResNet with dilated last layers (stride 8), atrous spatial pyramid pooling, and a decoder that
joins the features of stride 4. Module names are those of the published checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from maskfix.model.blocks import BasicBlock, Bottleneck, conv, conv_bn_relu, resize
from maskfix.model.click_maps import Encoding
from maskfix.model.fusion import ClicksGroups, InputScheme, PaperNetwork, Radius
from maskfix.model.initialise import load_trunk_state
from maskfix.model.network import Features

Backbone = Literal["resnet34", "resnet50"]

# (block, deep stem, (blocks of layers 1 to 4))
BACKBONES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], bool, tuple[int, ...]]] = {
    "resnet34": (BasicBlock, False, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, True, (3, 4, 6, 3)),
}
# (width, stride, dilation of the layer's first convolution, dilation of the rest)
LAYERS = ((64, 1, 1, 1), (128, 2, 1, 1), (256, 1, 1, 2), (512, 1, 2, 4))
ASPP_DILATIONS = (12, 24, 36)
SKIP_CHANNELS = 32


class ResNet(nn.Module):
    """Dilated ResNet. The 50-layer one has a stem of three 3x3 convolutions ("v1s")."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        block, deep_stem, depths = BACKBONES[backbone]
        channels = 128 if deep_stem else 64
        self.conv1: nn.Module = conv(3, channels, 7, 2)
        if deep_stem:
            stem = [*conv_bn_relu(3, 64, 3, 2), *conv_bn_relu(64, 64, 3), conv(64, channels, 3)]
            self.conv1 = nn.Sequential(*stem)
        self.bn1 = nn.BatchNorm2d(channels)
        for rank, (width, stride, first, rest) in enumerate(LAYERS, start=1):
            layer = nn.Sequential()
            for i in range(depths[rank - 1]):
                dilations = (first if i == 0 else rest, rest)
                layer.append(block(channels, width, stride if i == 0 else 1, dilations))
                channels = width * block.expansion
            self.add_module(f"layer{rank}", layer)
        self.skip_channels = LAYERS[0][0] * block.expansion
        self.channels = channels

    def forward(self, rgb: Tensor, fused: Tensor | None) -> tuple[Tensor, Tensor]:
        """rgb (B, 3, H, W), fused (B, 64, H/2, W/2) or None -> features at strides 4 and 8."""
        x = F.relu(self.bn1(self.conv1(rgb)), inplace=True)
        if fused is not None:
            missing = x.shape[1] - fused.shape[1]
            x = x + F.pad(fused, (0, 0, 0, 0, 0, missing))
        x = F.max_pool2d(x, 3, 2, 1)
        features = []
        for rank in range(1, len(LAYERS) + 1):
            x = self.get_submodule(f"layer{rank}")(x)
            features.append(x)
        return features[0], features[-1]


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: five views of the features, the last one of all the image."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(inputs, channels, 1))
        self.concurent = nn.ModuleList(
            [
                conv_bn_relu(inputs, channels, 1),
                *(conv_bn_relu(inputs, channels, 3, 1, d) for d in ASPP_DILATIONS),
                nn.Sequential(OrderedDict(gap=pool)),
            ]
        )
        self.project = conv_bn_relu(5 * channels, channels, 1).append(nn.Dropout(0.2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, channels, h, w)."""
        views = [view(x).expand(-1, -1, *x.shape[2:]) for view in self.concurent]
        mixed: Tensor = self.project(torch.cat(views, dim=1))
        return mixed


class SeparableConv(nn.Module):
    """Depthwise 3x3, then pointwise convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.body = nn.Sequential(depthwise, *conv_bn_relu(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


def _separable_head(inputs: int, channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        SeparableConv(inputs, channels),
        SeparableConv(channels, channels),
        conv(channels, outputs, 1, bias=True),
    )


class DeepLab(nn.Module):
    """Trunk, pyramid pooling and decoder; `DeepLabNetwork` runs them."""

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.backbone = ResNet(backbone)
        decoder = _separable_head(channels + SKIP_CHANNELS, channels, channels)
        self.head = nn.Sequential(OrderedDict(block=decoder))
        skip = conv_bn_relu(self.backbone.skip_channels, SKIP_CHANNELS, 1)
        self.skip_project = nn.Sequential(OrderedDict(skip_project=skip))
        self.aspp = ASPP(self.backbone.channels, channels)


class DeepLabNetwork(PaperNetwork):
    """DeepLabV3+ as a click network; it has no auxiliary output.

    Args:
        backbone: ``"resnet34"`` or ``"resnet50"``.
        deeplab_channels: of pyramid pooling and decoder.
        with_prev_mask, input_scheme, encoding, radius, clicks_groups: see `PaperNetwork`.
    """

    backbone_prefixes = ("feature_extractor.backbone.",)

    def __init__(
        self,
        backbone: Backbone,
        deeplab_channels: Annotated[int, Meta(ge=2)] = 128,
        with_prev_mask: bool = True,
        input_scheme: InputScheme = "conv1s",
        encoding: Encoding = "disk",
        radius: Radius = 5,
        clicks_groups: ClicksGroups = None,
    ) -> None:
        super().__init__(with_prev_mask, input_scheme, encoding, radius, clicks_groups)
        self.feature_extractor = DeepLab(backbone, deeplab_channels)
        head = _separable_head(deeplab_channels, deeplab_channels // 2, 1)
        self.head = nn.Sequential(OrderedDict(layers=head))

    def trunk(self, rgb: Tensor, encoding: Tensor) -> Features:
        """Features at stride 8; beside them, those that skip the pyramid, at stride 4."""
        fine, coarse = self.feature_extractor.backbone(*self.fuse(rgb, encoding))
        return Features(coarse, (self.feature_extractor.skip_project(fine),))

    def context(self, features: Features) -> Features:
        """Pyramid pooling, joined with the fine features."""
        [fine] = features.rest
        coarse = resize(self.feature_extractor.aspp(features.main), fine.shape[2:])
        return Features(torch.cat([coarse, fine], dim=1))

    def decode(self, features: Features) -> Features:
        """(B, deeplab_channels, H/4, W/4)."""
        return Features(self.feature_extractor.head(features.main))

    def classify(self, features: Features, height: int, width: int) -> dict[str, Tensor]:
        """See `ClickNetwork`."""
        return self.outputs(self.head(features.main), None, height, width)

    def load_trunk_state(self, state: dict[str, Tensor]) -> None:
        """Start the trunk from ImageNet weights in torchvision's keys (ResNet-50: "v1s").

        Raises:
            CheckpointError: keys are missing, foreign, or of another shape.
        """
        load_trunk_state(self.feature_extractor.backbone, ("",), state, ("fc.",))
