"""The cost of a network, next to the paper's Table 4."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from maskfix.model.network import ClickNetwork
from maskfix.model.ocr import ObjectContextBlock

TABLE4_SIZE = 400  # images of 400 x 400 pixels


@dataclass(frozen=True)
class PublishedCost:
    """A row of Table 4: parameters in millions, FLOPs in thousand millions, and what to know."""

    parameters: float
    flops: float
    note: str = ""


TABLE4 = {
    "hrnet18s": PublishedCost(4.22, 17.84),
    "hrnet18": PublishedCost(10.03, 30.80),
    "hrnet32": PublishedCost(30.95, 82.84),
    "deeplab_r34": PublishedCost(
        19.17,
        122.28,
        "the paper's parameter count is an error: a ResNet-34 alone has 21.3 M, and the network "
        "that agrees with its FLOPs has 23.35 M",
    ),
    "deeplab_r50": PublishedCost(
        31.40, 170.13, "the paper's figures are those of deeplab_channels = 128"
    ),
}


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        parameters: learnt numbers, as published checkpoints hold them.
        macs: multiply-adds of the architecture as published, in convolutions and matrix products.
        skipped: those of `macs` that maskfix does not spend, because they never touch the result.
    """

    parameters: int
    macs: int
    skipped: int

    @property
    def flops(self) -> int:
        """Two a multiply-add, as the paper counts."""
        return 2 * self.macs


def measure_cost(network: ClickNetwork, size: int = TABLE4_SIZE) -> Cost:
    """Count for one square image. Nothing is computed: the count runs on torch's meta device."""
    network = copy.deepcopy(network).to("meta").eval()
    image = torch.zeros(1, 4 if network.with_prev_mask else 3, size, size, device="meta")
    points = torch.full((1, 2, 3), -1.0, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image, points)
    pixels = (size // 4) ** 2  # OCR works at stride 4
    skipped = sum(
        module.skipped_macs(pixels)
        for module in network.modules()
        if isinstance(module, ObjectContextBlock)
    )
    macs = int(counter.get_total_flops()) // 2 + skipped
    return Cost(sum(p.numel() for p in network.parameters()), macs, skipped)
