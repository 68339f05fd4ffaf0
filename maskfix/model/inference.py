"""Faster networks that only predict."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from maskfix.model.network import ClickNetwork


def prepare(network: nn.Module) -> nn.Module:
    """A copy made for predicting: batch norm folded, memory laid out channels last.

    Networks that are not maskfix's own are returned as they are, in eval mode.
    """
    if not isinstance(network, ClickNetwork):
        return network.eval()
    folded = fold_batch_norm(network.eval())
    for name, module in list(folded.named_modules()):
        if hasattr(module, "fixed"):
            _replace(folded, name, module.fixed())
    laid_out: nn.Module = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return laid_out


def fold_batch_norm(network: ClickNetwork) -> ClickNetwork:
    """Fold every batch norm that directly follows a convolution into it.

    Which those are is observed in a small forward pass: a batch norm whose input is the very
    tensor that a convolution has put out.

    Args:
        network: in eval mode; not changed.

    Returns:
        a copy for inference, whose logits are the same but for rounding (1e-4).
    """
    assert not network.training, "batch norm can be folded in eval mode only"
    folded = copy.deepcopy(network).requires_grad_(False)
    for convolution, norm in _pairs(folded):
        first, second = folded.get_submodule(convolution), folded.get_submodule(norm)
        assert isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d)
        _replace(folded, convolution, fuse_conv_bn_eval(first, second))
        _replace(folded, norm, nn.Identity())
    return folded


def _pairs(network: ClickNetwork) -> list[tuple[str, str]]:
    """Names of (convolution, batch norm) in the order they run."""
    made_by: dict[int, tuple[str, Tensor]] = {}  # the tensor is kept, so that its id stays unique
    pairs: list[tuple[str, str]] = []

    def observe(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                made_by[id(output)] = name, output
            elif id(inputs[0]) in made_by:
                pairs.append((made_by[id(inputs[0])][0], name))

        return module.register_forward_hook(hook)

    handles = [
        observe(name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        device = network.mean.device
        image = torch.zeros(1, 4 if network.with_prev_mask else 3, 64, 64, device=device)
        with torch.no_grad():
            network(image, torch.full((1, 2, 3), -1.0, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return pairs


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
