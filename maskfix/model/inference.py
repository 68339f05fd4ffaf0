"""Faster networks that only predict.

`prepare` folds batch norm and lays memory out channels last; the result can still be differentiated
and exported. `halve` turns it into bfloat16. `pack` goes further on the CPU, for nothing but
prediction.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from maskfix.model.convolution import FixedConv, FoldingConv, has_pointwise_convolution
from maskfix.model.network import ClickNetwork

ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}
"""What oneDNN calls them, with their parameters."""

MOST_KEPT = 12  # arrangements of a layer's weights


def prepare(network: nn.Module) -> nn.Module:
    """A copy made for predicting: batch norm folded, memory laid out channels last.

    Networks that are not maskfix's own are returned as they are, in eval mode.
    """
    if not isinstance(network, ClickNetwork):
        return network.eval()
    folded = fold_batch_norm(network.eval())
    for name, module in list(folded.named_modules()):
        if isinstance(module, FoldingConv):
            _replace(folded, name, FixedConv(module))
    laid_out: nn.Module = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return laid_out


class InFloat32(nn.Module):
    """A layer that computes with float32 under autocast, too."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.layer(x.float())
        return y


def halve(network: nn.Module) -> nn.Module:
    """Turn kernels and matrices of a prepared network into bfloat16, in place, so that autocast
    finds nothing to convert; what is `ClickNetwork.precise` stays float32."""
    precise = network.precise if isinstance(network, ClickNetwork) else ()
    for name in precise:
        _replace(network, name, InFloat32(network.get_submodule(name)))
    kept = tuple(f"{name}." for name in precise)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | FixedConv) and not name.startswith(kept):
            module.to(torch.bfloat16)
    return network


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
        _run_once(network, 64)
    finally:
        for handle in handles:
            handle.remove()
    return pairs


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


class PackedConv(nn.Module):
    """A convolution on the CPU: weights as oneDNN reads them, the activation done in passing.

    torch's own convolution arranges the weights anew at every call, and with one thread takes a
    slow path for 1x1 kernels. Which arrangement is right depends on the size of the input and the
    number of threads; a wrong one is slower than none. Results are the same to rounding (1e-5 in
    float32).

    Args:
        layer: a convolution with its bias.
        keep: keep arranged weights, for the first `MOST_KEPT` sizes that turn up. Small kernels on
            few pixels gain most.
        activation: one of the keys of `ACTIVATIONS`, None for none.
    """

    def __init__(
        self,
        layer: nn.Conv2d | FixedConv,
        keep: bool,
        activation: type[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.keep = keep
        if isinstance(layer, nn.Conv2d):
            padding, strides, dilations = layer.padding, list(layer.stride), list(layer.dilation)
            assert not isinstance(padding, str)
            paddings = list(padding)
        else:
            paddings, strides, dilations = [layer.padding] * 2, [layer.stride] * 2, [1, 1]
            activation = None if layer.linear else nn.ReLU6
        self.geometry = paddings, strides, dilations, layer.groups
        self.weight, self.bias = layer.weight, layer.bias
        self.activation = ACTIVATIONS[activation] if activation else ("none", [])
        self.packed: dict[tuple[int, ...], Tensor] = {}  # by shape of the input and threads

    def forward(self, x: Tensor) -> Tensor:
        weight = self._arranged(tuple(x.shape)) if self.keep else self.weight
        run = torch.ops.mkldnn._convolution_pointwise
        y: Tensor = run(
            x.to(self.weight.dtype), weight, self.bias, *self.geometry, *self.activation, ""
        )
        return y

    def _arranged(self, shape: tuple[int, ...]) -> Tensor:
        key = (*shape, torch.get_num_threads())
        if key not in self.packed:
            if len(self.packed) >= MOST_KEPT:
                return self.weight
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            # Threads may come here at once; they make the same.
            self.packed[key] = reorder(self.weight.detach(), *self.geometry, list(shape))
        return self.packed[key]


def pack(network: nn.Module, keep: bool) -> nn.Module:
    """Replace the convolutions of a prepared network by `PackedConv`, in place.

    Args:
        network: from `prepare` or `halve`. Off the CPU, without oneDNN, or if it is not maskfix's
            own, it is returned as it is; layers with numbers that the processor lacks stay.
        keep: inputs are of few sizes, for which arranged weights are kept.
    """
    if not isinstance(network, ClickNetwork) or network.mean.device.type != "cpu":
        return network
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _pack_with_activations(module, keep)
    for name, module in list(network.named_modules()):
        if _can_be_packed(module):
            _replace(network, name, PackedConv(module, keep))
    return network


def _can_be_packed(layer: nn.Module) -> TypeGuard[nn.Conv2d | FixedConv]:
    is_one = isinstance(layer, nn.Conv2d | FixedConv)
    return is_one and has_pointwise_convolution(layer.weight.dtype)


def _pack_with_activations(steps: nn.Sequential, keep: bool) -> None:
    """Join convolutions with the activations that follow them."""
    layers = [i for i, step in enumerate(steps) if not isinstance(step, nn.Identity)]
    for first, second in pairwise(layers):
        convolution, activation = steps[first], type(steps[second])
        if _can_be_packed(convolution) and activation in ACTIVATIONS:
            steps[first] = PackedConv(convolution, keep, activation)
            steps[second] = nn.Identity()


def input_shapes(network: nn.Module, size: int) -> dict[nn.Module, tuple[int, ...]]:
    """The input (B, C, H, W) of every convolution that is called as a layer.

    Args:
        network: one of maskfix's own, from `prepare`.
        size: side of the square image that it is shown.
    """
    assert isinstance(network, ClickNetwork)
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes[module] = tuple(inputs[0].shape)

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | FixedConv)]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    _run_once(network, size)
    for handle in handles:
        handle.remove()
    return shapes


def _run_once(network: ClickNetwork, size: int) -> None:
    """Run on an empty square image without clicks."""
    device = network.mean.device
    image = torch.zeros(1, 4 if network.with_prev_mask else 3, size, size, device=device)
    with torch.inference_mode():
        network(image, torch.full((1, 2, 3), -1.0, device=device))


class _Threads:
    """torch's setting while `one_thread_a_call` is in force somewhere."""

    lock = threading.Lock()
    users = 0
    before = 0


@contextmanager
def one_thread_a_call() -> Iterator[None]:
    """While in force, a network call keeps to its own thread, so that several run side by side.

    On two cores two calls with a thread each answer a third more than one call with two (small
    layers leave the second thread without work), and their last bits do not depend on the number
    of cores. torch has one setting for the process: it is restored when the last user leaves.
    """
    with _Threads.lock:
        if _Threads.users == 0:
            _Threads.before = torch.get_num_threads()
            torch.set_num_threads(1)
        _Threads.users += 1
    try:
        yield
    finally:
        with _Threads.lock:
            _Threads.users -= 1
            if _Threads.users == 0:
                torch.set_num_threads(_Threads.before)
