"""Where training starts: random weights as the paper's code draws them, ImageNet for the trunk."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from maskfix.errors import CheckpointError
from maskfix.model.network import ClickNetwork
from maskfix.model.weight_files import load_strictly, read_weight_file


def initialise_weights(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw convolutions from a Xavier normal distribution (magnitude 2, mean of both fans).

    The standard deviation is sqrt(2 / ((fan_in + fan_out) / 2)), where fan_out is output channels
    times kernel area even for depthwise convolutions. Biases are 0, batch norms the identity.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            outputs, inputs, height, width = module.weight.shape
            std = math.sqrt(4 / ((inputs + outputs) * height * width))
            nn.init.normal_(module.weight, 0.0, std, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def load_trunk(network: ClickNetwork, file: Path) -> None:
    """Start the trunk of a network from an ImageNet classification checkpoint.

    Args:
        network: changed in place.
        file: .pth or .safetensors in the keys of the network family's usual source:
            HRNet-Image-Classification, torchvision's ResNets ("v1s" for ResNet-50), or
            efficientnet_lite_pytorch.

    Raises:
        CheckpointError: the file is unreadable, or not of this architecture; names the keys.
    """
    content, _ = read_weight_file(file)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{file}: expected the tensors of an ImageNet network; found others")
    state = {key.removeprefix("module.").removeprefix("model."): state[key] for key in state}
    try:
        network.load_trunk_state(state)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None


def load_trunk_state(
    module: nn.Module, trunk: tuple[str, ...], state: dict[str, Tensor], classifier: tuple[str, ...]
) -> None:
    """Load those tensors whose names start with `trunk`, all of which must be there.

    Args:
        module: holds the trunk; what else it holds stays as it is.
        trunk: starts of names, in `module` and in `state`.
        state: name -> tensor.
        classifier: starts of names in `state` that are left aside.

    Raises:
        CheckpointError: a tensor is missing, foreign or of another shape. The counters
            ``num_batches_tracked``, which old files lack, may be missing.
    """
    own = module.state_dict()
    counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
    wanted = {k: v for k, v in own.items() if k.startswith(trunk)}
    given = {k: v for k, v in state.items() if not k.startswith(classifier)}
    rest = {k: v for k, v in own.items() if k not in wanted}
    given = {**{k: v for k, v in counters.items() if k in wanted}, **given}
    load_strictly(module, {**rest, **given}, "the trunk")
