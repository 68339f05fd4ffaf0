"""Optimizer, course of the learning rate, running average of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from maskfix.model.network import ClickNetwork
from maskfix.train.config import OptimizerConfig


def make_optimizer(network: ClickNetwork, settings: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam with the trunk's learning rate lowered; decay only where weights are multiplied."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
            factor = settings.trunk if name.startswith(network.backbone_prefixes) else 1.0
            groups.setdefault((factor, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": params, "factor": factor, "weight_decay": decay}
            for (factor, decay), params in groups.items()
        ],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=True,
    )


def rate_factor(settings: OptimizerConfig, step: int, epoch: float, fraction: float) -> float:
    """The learning rate relative to its peak.

    Args:
        step: number of the optimizer step, from 1.
        epoch: epochs done, with fractions.
        fraction: of the whole run that is done.
    """
    factor = min(1.0, step / settings.warmup) if settings.warmup else 1.0
    factor *= 0.1 ** sum(epoch >= milestone for milestone in settings.milestones)
    if settings.cosine:
        factor *= 0.01 + 0.99 * (1 + math.cos(math.pi * fraction)) / 2
    return factor


class Average:
    """Running average of a network's weights and statistics.

    Args:
        network: what to average.
        decay: weight of the past; starts smaller and rises to this. 0 keeps no average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        if decay:
            self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after an optimizer step."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)

    def shipped(self, network: ClickNetwork) -> ClickNetwork:
        """A copy of the network with the averaged weights, in eval mode."""
        clone = copy.deepcopy(network)
        if self.decay:
            clone.load_state_dict(self.weights)
        return clone.eval()
