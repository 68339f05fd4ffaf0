"""Fused convolutions compute what the plain ones do, and learn what they learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskfix.model import convolution
from maskfix.model.convolution import ConvNorm, FixedConv, TrunkConv, convolve
from maskfix.model.inference import PackedConv

# inputs, outputs, kernel, stride, groups, linear, TensorFlow's padding before and after
SHAPES = [
    (3, 8, 1, 1, 1, True, 0, 0),
    (3, 8, 1, 1, 1, False, 0, 0),
    (4, 8, 3, 1, 1, False, 1, 1),
    (4, 8, 3, 2, 1, False, 0, 1),
    (8, 8, 3, 2, 8, False, 0, 1),
    (8, 8, 5, 1, 8, False, 2, 2),
    (8, 8, 5, 2, 8, True, 1, 2),
]
LAYOUTS = [torch.channels_last, torch.contiguous_format]


def plainly(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, groups: int, linear: bool, *pad: int
) -> Tensor:
    before, after = pad
    y = F.conv2d(F.pad(x, (before, after) * 2), weight, bias, stride, groups=groups)
    return y if linear else y.clamp(0, 6)


def tensors(inputs: int, outputs: int, kernel: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(inputs + outputs + kernel + groups)
    x = 3 * torch.randn(2, inputs, 12, 16)
    return x, torch.randn(outputs, inputs // groups, kernel, kernel), torch.randn(outputs)


def close(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fused", [True, False])
def test_values_and_gradients(
    shape: tuple[Any, ...], layout: Any, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:
        monkeypatch.setattr(convolution, "has_pointwise_convolution", lambda: False)
    inputs, outputs, kernel, stride, groups, linear, *pad = shape
    values = tensors(inputs, outputs, kernel, groups)
    own = [v.clone().contiguous(memory_format=layout) if v.ndim == 4 else v.clone() for v in values]
    plain = [v.clone().requires_grad_() for v in values]
    with torch.no_grad():
        expected = plainly(*plain, stride, groups, linear, *pad)
        close(convolve(*own, stride, groups, linear), expected)
    for value in own:
        value.requires_grad_()
    y = convolve(*own, stride, groups, linear)
    expected = plainly(*plain, stride, groups, linear, *pad)
    close(y, expected)
    weights = torch.randn(y.shape)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    for first, second in zip(own, plain, strict=True):
        assert first.grad is not None and second.grad is not None
        close(first.grad, second.grad)


def test_only_wanted_gradients_are_made() -> None:
    x, weight, bias = tensors(4, 8, 3, 1)
    convolve(x, weight, bias.requires_grad_(), 2).sum().backward()
    assert x.grad is weight.grad is None and bias.grad is not None


def test_no_fusing_where_numbers_are_half_as_long() -> None:
    values = tensors(4, 8, 3, 1)
    with torch.autocast("cpu", torch.bfloat16):
        y = convolve(*values)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), plainly(*values, 1, 1, False, 1, 1), rtol=0.1, atol=0.1)


def layers() -> list[TrunkConv | ConvNorm]:
    torch.manual_seed(0)
    trunk = TrunkConv(8, 8, 3, 2, groups=8)
    norms = [ConvNorm(8, 8, 5, groups=8), ConvNorm(8, 4, linear=True)]
    for statistics in (trunk, *(layer[1] for layer in norms)):
        statistics.running_mean.normal_()
        statistics.running_var.uniform_(0.5, 2)
        nn.init.normal_(statistics.bias)
    return [trunk.eval(), *(layer.eval() for layer in norms)]


@pytest.mark.parametrize("which", range(3))
def test_fixed_and_packed_layers_compute_the_same(which: int) -> None:
    layer = layers()[which]
    x = torch.randn(2, 8, 16, 16)
    with torch.no_grad():
        expected = layer(x)
        fixed = FixedConv(layer)
        close(fixed(x), expected)
        close(PackedConv(fixed, keep=True)(x), expected)


@pytest.mark.parametrize("which", [1, 2])
def test_statistics_of_the_batch_in_training_and_fixed_ones_after(which: int) -> None:
    layer = layers()[which]
    assert isinstance(layer, ConvNorm)
    plain = nn.Sequential(*layer)
    x = torch.randn(4, 8, 16, 16)
    with torch.no_grad():
        close(layer(x), plain(x))
        before = layer[1].running_mean.clone()
        close(layer.train()(x), plain.train()(x))
        assert not torch.equal(layer[1].running_mean, before)


def test_fixed_statistics_still_let_a_layer_learn() -> None:
    for layer in layers():
        layer(torch.randn(2, 8, 16, 16)).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in layer.parameters())
