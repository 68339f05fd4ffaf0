"""Convolution with the batch norm and the activation that follow it, as one step.

On the CPU half of a small network's time goes into passes over memory between its convolutions.
Here batch norm is folded into the kernel wherever its statistics are fixed, while learning too,
oneDNN clips in passing, and stride 2 needs no padded copy of its input.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CEILING = 6.0
"""Of ReLU6."""


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, groups: int = 1, linear: bool = False
) -> Tensor:
    """Convolution that divides the size by its stride and, unless `linear`, ReLU6.

    Where kernel and stride do not fit symmetrically, one more is padded at the bottom and right:
    TensorFlow's SAME rule for even sizes.

    Args:
        x: (B, C, H, W); H and W multiples of the stride.
        weight: (K, C / groups, k, k).
        bias: (K,).

    Returns:
        (B, K, H / stride, W / stride).
    """
    before, surplus = divmod(weight.shape[2] - stride, 2)
    if surplus:
        if _gains_if_even(weight):
            weight, before = even(weight, stride), before + 1
        else:
            x, before = F.pad(x, (before, before + 1, before, before + 1)), 0
    if _is_fused(x, weight):
        y: Tensor = _Fused.apply(  # type: ignore[no-untyped-call]
            x, weight, bias, stride, before, groups, linear
        )
    else:
        y = F.conv2d(x, weight, bias, stride, before, groups=groups)
        y = y if linear else F.relu6(y, inplace=True)
    return y


def even(weight: Tensor, stride: int) -> Tensor:
    """The same kernel (K, C, k, k), a row and a column of zeros before it where it needs more
    padding after than before: it then wants the same on both sides, which is done in passing."""
    return F.pad(weight, (1, 0, 1, 0)) if (weight.shape[2] - stride) % 2 else weight


def _gains_if_even(weight: Tensor) -> bool:
    learns = weight.requires_grad and torch.is_grad_enabled()
    return weight.device.type == "cpu" and not (learns and weight.shape[2] == 3)


@cache
def has_pointwise_convolution(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this build of torch has oneDNN and what is called of it; other versions may not. For
    other numbers than float32 it is tried out: not every processor has them."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    names = "_convolution_pointwise", "_reorder_convolution_weight"
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return dtype == torch.float32 or _works(dtype)


def _works(dtype: torch.dtype) -> bool:
    x = torch.linspace(-2, 2, 512, dtype=dtype).view(1, 8, 8, 8)
    weight, bias = torch.linspace(-1, 1, 128, dtype=dtype).view(16, 8, 1, 1), x[0, 0].flatten()[:16]
    geometry = [0, 0], [1, 1], [1, 1], 1
    try:
        arranged = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, list(x.shape))
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, arranged, bias, *geometry, "hardtanh", [0.0, CEILING], ""
        )
    except RuntimeError:
        return False
    expected = F.conv2d(x.float(), weight.float(), bias.float()).clamp(0, CEILING)
    return y.dtype == dtype and torch.allclose(y.float(), expected, rtol=0, atol=0.05)


def _is_fused(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and not torch.compiler.is_compiling()
        and has_pointwise_convolution()
    )


class _Fused(torch.autograd.Function):
    """oneDNN's convolution that clips in passing.

    The gradient of the bias is summed by itself: with wide outputs oneDNN takes two and a half
    times as long for the gradient of the weights if it has to make that too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        stride: int,
        padding: int,
        groups: int,
        linear: bool,
    ) -> Tensor:
        geometry = [padding] * 2, [stride] * 2, [1, 1], groups
        activation = ("none", []) if linear else ("hardtanh", [0.0, CEILING])
        run = torch.ops.mkldnn._convolution_pointwise
        y: Tensor = run(x, weight, bias, *geometry, *activation, "")
        ctx.save_for_backward(x, weight, None if linear else y)
        ctx.stride, ctx.padding, ctx.groups = stride, padding, groups
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        if y is not None:
            gradient = torch.ops.aten.hardtanh_backward(gradient, y, 0.0, CEILING)
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        wanted = [of_x, of_weight, False]
        sizes = [ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], ctx.groups
        back = torch.ops.aten.convolution_backward
        to_x, to_weight, _ = back(gradient, x, weight, None, *sizes, wanted)
        to_bias = gradient.sum((0, 2, 3)) if of_bias else None
        return to_x, to_weight, to_bias, None, None, None, None


class FoldingConv:
    """Of a layer that, where its statistics are fixed, amounts to one convolution."""

    stride: int
    groups: int
    linear: bool

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of that convolution."""
        raise NotImplementedError

    def convolved(self, x: Tensor) -> Tensor:
        """What it makes of (B, C, H, W), its statistics as they are."""
        return convolve(x, *self.folded(), self.stride, self.groups, self.linear)


class FixedConv(nn.Module):
    """A `FoldingConv` that no longer learns."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: FoldingConv) -> None:
        super().__init__()
        weight, bias = layer.folded()
        weight = weight.detach()
        on_cpu = weight.device.type == "cpu"
        self.register_buffer("weight", even(weight, layer.stride) if on_cpu else weight)
        self.register_buffer("bias", bias.detach())
        self.stride, self.groups, self.linear = layer.stride, layer.groups, layer.linear

    @property
    def padding(self) -> int:
        """Rows before and after the image, columns alike; for kernels that are `even`."""
        return (self.weight.shape[2] - self.stride) // 2

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias, self.stride, self.groups, self.linear)


class TrunkConv(nn.Module, FoldingConv):
    """Convolution, batch norm with fixed statistics and, unless `linear`, ReLU6.

    The statistics are those of ImageNet: a small network trained on small batches does not gain
    from moving them. Padding is TensorFlow's, which the ImageNet weights were made with.
    """

    running_mean: Tensor
    running_var: Tensor
    EPS = 1e-3

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.groups, self.linear = stride, groups, linear
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        self.gain = nn.Parameter(torch.ones(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("running_mean", torch.zeros(outputs))
        self.register_buffer("running_var", torch.ones(outputs))
        nn.init.kaiming_normal_(self.weight, mode="fan_out")

    def folded(self) -> tuple[Tensor, Tensor]:
        """See `FoldingConv`."""
        scale = self.gain * torch.rsqrt(self.running_var + self.EPS)
        return self.weight * scale[:, None, None, None], self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        return self.convolved(x)


class ConvNorm(nn.Sequential, FoldingConv):
    """Convolution, batch norm and, unless `linear`, ReLU6.

    The statistics are those of the batch in training, and fixed in eval mode.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, momentum=0.03),
        )
        if not linear:
            self.append(nn.ReLU6(inplace=True))
        self.stride, self.groups, self.linear = 1, groups, linear

    def folded(self) -> tuple[Tensor, Tensor]:
        """See `FoldingConv`."""
        convolution, norm = self[0], self[1]
        assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = convolution.weight * scale[:, None, None, None]
        return weight, norm.bias - norm.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        if not self[1].training:
            return self.convolved(x)
        for step in self:
            x = step(x)
        return x
