"""HRNet-18s, HRNet-18 and HRNet-32 with the OCR head: the paper's main networks.

Four branches at strides 4, 8, 16 and 32 run side by side and exchange features; their
concatenation at stride 4 feeds the head. Module names are those of the published checkpoints.
"""

from __future__ import annotations

from functools import reduce
from typing import Annotated

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from maskfix.model.blocks import BasicBlock, Bottleneck, conv, conv_bn_relu, resize
from maskfix.model.click_maps import Encoding
from maskfix.model.fusion import ClicksGroups, InputScheme, PaperNetwork, Radius
from maskfix.model.initialise import load_trunk_state
from maskfix.model.network import Features
from maskfix.model.ocr import ObjectContextHead

# (blocks in layer 1 and in every branch, modules of stages 2, 3 and 4)
DEPTHS = {"small": (2, (1, 3, 2)), "full": (4, (1, 4, 3))}

TRUNK = ("conv1", "bn1", "conv2", "bn2", "layer1", "transition", "stage")
CLASSIFIER = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")


class HRModule(nn.Module):
    """Every branch goes through its blocks, then every branch receives from all the others."""

    def __init__(self, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(blocks))) for width in widths
        )
        ranks = range(len(widths))
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_exchange(widths, source, target) for source in ranks) for target in ranks
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        features = [blocks(x) for blocks, x in zip(self.branches, branches, strict=True)]
        fused = []
        for target, layers in zip(features, self.fuse_layers, strict=True):
            assert isinstance(layers, nn.ModuleList)
            size = target.shape[2:]
            received = (resize(f(x), size) for f, x in zip(layers, features, strict=True))
            fused.append(F.relu(reduce(torch.add, received)))
        return fused


def _exchange(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
    """From one branch to another; towards finer ones the resizing is left to the caller."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            conv(widths[source], widths[target], 1), nn.BatchNorm2d(widths[target])
        )
    steps = [conv_bn_relu(widths[source], widths[source], 3, 2) for _ in range(source, target - 1)]
    last = nn.Sequential(conv(widths[source], widths[target], 3, 2), nn.BatchNorm2d(widths[target]))
    return nn.Sequential(*steps, last)


def _transition(before: tuple[int, ...], after: tuple[int, ...]) -> nn.ModuleList:
    """Adapts the widths and starts one more branch from the last one."""
    layers: list[nn.Module] = [
        nn.Identity() if inputs == outputs else conv_bn_relu(inputs, outputs, 3)
        for inputs, outputs in zip(before, after, strict=False)
    ]
    return nn.ModuleList([*layers, nn.Sequential(conv_bn_relu(before[-1], after[-1], 3, 2))])


class HRNet(nn.Module):
    """The layers of trunk and head. See `HRNetNetwork` for the arguments."""

    def __init__(self, width: int, depth: str, ocr_width: int) -> None:
        super().__init__()
        blocks, modules = DEPTHS[depth]
        self.conv1 = conv(3, 64, 3, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = conv(64, 64, 3, 2)
        self.bn2 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(
            Bottleneck(64, 64), *(Bottleneck(256, 64) for _ in range(blocks - 1))
        )
        widths: tuple[int, ...] = (256,)
        for stage, count in zip((2, 3, 4), modules, strict=True):
            wider = tuple(width * 2**i for i in range(stage))
            self.add_module(f"transition{stage - 1}", _transition(widths, wider))
            steps = (HRModule(wider, blocks) for _ in range(count))
            self.add_module(f"stage{stage}", nn.Sequential(*steps))
            widths = wider
        channels = sum(widths)
        self.ocr_width = ocr_width
        if ocr_width:
            self.conv3x3_ocr = conv_bn_relu(channels, 2 * ocr_width, 3, bias=True)
            self.ocr_distri_head = ObjectContextHead(2 * ocr_width, ocr_width)
            self.cls_head: nn.Module = conv(2 * ocr_width, 1, 1, bias=True)
            self.aux_head = _convolutional_head(channels, 1)
        else:
            self.cls_head = _convolutional_head(channels, 3)

    def trunk(self, rgb: Tensor, fused: Tensor | None) -> Tensor:
        """rgb (B, 3, H, W); fused (B, 64, H/2, W/2) or None -> (B, 15 * width, H/4, W/4)."""
        x = F.relu(self.bn1(self.conv1(rgb)), inplace=True)
        if fused is not None:
            x = x + fused
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        branches = [self.layer1(x)]
        for stage in (2, 3, 4):
            transition = self.get_submodule(f"transition{stage - 1}")
            assert isinstance(transition, nn.ModuleList)
            last = len(branches) - 1
            branches = [layer(branches[min(i, last)]) for i, layer in enumerate(transition)]
            branches = self.get_submodule(f"stage{stage}")(branches)
        size = branches[0].shape[2:]
        return torch.cat([resize(branch, size) for branch in branches], dim=1)

    def object_context(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """OCR: features -> features (B, 2 * ocr_width, H/4, W/4), auxiliary logits, one channel."""
        auxiliary = self.aux_head(features)
        return self.ocr_distri_head(self.conv3x3_ocr(features), auxiliary), auxiliary


def _convolutional_head(channels: int, kernel: int) -> nn.Sequential:
    head = conv_bn_relu(channels, channels, kernel, bias=True)
    return head.append(conv(channels, 1, 1, bias=True))


class HRNetNetwork(PaperNetwork):
    """HRNet with OCR as a click network. The defaults are the paper's final choice (ITER-M).

    Args:
        width: channels of the finest branch.
        depth: ``"full"``, or ``"small"`` for HRNet-W18-C-Small-v2.
        ocr_width: key channels of the OCR head; 0 is a plain convolutional head, which has no
            auxiliary output.
        with_aux_output: return the auxiliary logits too.
        with_prev_mask, input_scheme, encoding, radius, clicks_groups: see `PaperNetwork`.
    """

    backbone_prefixes = tuple(
        f"feature_extractor.{name}" for name in (*TRUNK, "cls_head", "aux_head")
    )

    def __init__(
        self,
        width: int,
        depth: str,
        ocr_width: Annotated[int, Meta(ge=0)],
        with_aux_output: bool = True,
        with_prev_mask: bool = True,
        input_scheme: InputScheme = "conv1s",
        encoding: Encoding = "disk",
        radius: Radius = 5,
        clicks_groups: ClicksGroups = None,
    ) -> None:
        super().__init__(with_prev_mask, input_scheme, encoding, radius, clicks_groups)
        self.with_aux_output = with_aux_output
        self.feature_extractor = HRNet(width, depth, ocr_width)

    def trunk(self, rgb: Tensor, encoding: Tensor) -> Features:
        """All branches together, at stride 4."""
        return Features(self.feature_extractor.trunk(*self.fuse(rgb, encoding)))

    def decode(self, features: Features) -> Features:
        """OCR, and its auxiliary logits beside it."""
        if not self.feature_extractor.ocr_width:
            return features
        mixed, auxiliary = self.feature_extractor.object_context(features.main)
        return Features(mixed, (auxiliary,) if self.with_aux_output else ())

    def classify(self, features: Features, height: int, width: int) -> dict[str, Tensor]:
        """See `ClickNetwork`."""
        auxiliary = features.rest[0] if features.rest else None
        logits = self.feature_extractor.cls_head(features.main)
        return self.outputs(logits, auxiliary, height, width)

    def load_trunk_state(self, state: dict[str, Tensor]) -> None:
        """Start the trunk from ImageNet weights in the keys of HRNet-Image-Classification.

        Raises:
            CheckpointError: keys are missing, foreign, or of another shape.
        """
        load_trunk_state(self.feature_extractor, TRUNK, state, CLASSIFIER)
