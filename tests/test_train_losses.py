"""Losses and training metric against recorded values and gradients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskfix.train.losses import AdaptiveIoU, cross_entropy, focal_loss, soft_iou_loss

Loss = Callable[..., Tensor]

CASES: list[tuple[str, Loss, dict[str, Any], str, str]] = [
    ("nfl_a0.5_g2", focal_loss, {}, "logits", "target"),
    ("nfl_a0.25_g2_default", focal_loss, {"alpha": 0.25}, "logits", "target"),
    ("nfl_a0.5_g1.5", focal_loss, {"gamma": 1.5}, "logits", "target"),
    ("nfl_a0.5_g2_softtarget", focal_loss, {}, "logits", "soft_target"),
    ("nfl_a0.5_g2_saturated", focal_loss, {}, "logits_saturated", "target"),
    ("focal_a0.5_g2", focal_loss, {"normalized": False}, "logits", "target"),
    ("bce", cross_entropy, {}, "logits", "target"),
    ("bce_softtarget", cross_entropy, {}, "logits", "soft_target"),
    ("bce_saturated", cross_entropy, {}, "logits_saturated", "target"),
    ("softiou", soft_iou_loss, {}, "logits", "target"),
    ("softiou_saturated", soft_iou_loss, {}, "logits_saturated", "target"),
]


@pytest.mark.parametrize(
    ("name", "loss", "arguments", "logits", "target"), CASES, ids=[case[0] for case in CASES]
)
def test_values_and_gradients_equal_golden(
    golden: Path, name: str, loss: Loss, arguments: dict[str, Any], logits: str, target: str
) -> None:
    recorded = np.load(golden / "losses.npz")
    x = torch.from_numpy(recorded[logits]).requires_grad_()
    value = loss(x, torch.from_numpy(recorded[target]), **arguments)
    value.mean().backward()
    np.testing.assert_allclose(value.detach(), recorded[f"{name}__value"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x.grad, recorded[f"{name}__grad_of_mean"], rtol=1e-4, atol=1e-8)


def test_adaptive_iou_equals_golden(golden: Path) -> None:
    recorded = np.load(golden / "losses.npz")
    expected = json.loads((golden / "losses.json").read_text())
    sequence = next(v for k, v in expected.items() if k.startswith("adaptive_iou_sequence"))
    logits, target = (torch.from_numpy(recorded[key]) for key in ("logits", "target"))
    metric = AdaptiveIoU()
    for k, row in enumerate(sequence):
        towards = torch.where(target > 0.5, 1.0, -1.0)
        metric.update(logits + 0.3 * k * towards, target)
        assert metric.threshold == pytest.approx(row["iou_thresh"], abs=1e-9)
        assert metric.value == pytest.approx(row["ema_iou"], abs=1e-6)


@pytest.mark.parametrize("loss", [focal_loss, cross_entropy, soft_iou_loss])
def test_ignored_pixels_get_no_gradient(loss: Loss) -> None:
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.zeros(2, 1, 8, 8)
    target[:, :, 2:6, 2:6] = 1
    target[:, :, :, 6:] = -1
    loss(logits, target).sum().backward()
    assert logits.grad is not None
    assert bool((logits.grad[..., 6:] == 0).all()) and bool((logits.grad[..., :6] != 0).any())


def test_normalized_loss_keeps_its_gradient_where_the_focal_loss_fades() -> None:
    """Section 3.4: total gradient of nearly right predictions, as a share of cross entropy's."""
    target = torch.zeros(1, 1, 16, 16)
    target[..., :8] = 1
    shares = {}
    for name, normalized in (("nfl", True), ("focal", False)):
        logits = (8 * (target - 0.5)).requires_grad_()
        focal_loss(logits, target, normalized=normalized).mean().backward()
        assert logits.grad is not None
        shares[name] = float(logits.grad.abs().sum())
    assert shares["nfl"] > 100 * shares["focal"]
