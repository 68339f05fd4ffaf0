"""Networks with weights: `load_model`, and maskfix's own file format.

A maskfix weights file is a safetensors file whose metadata has one key, ``maskfix``, with JSON:
``{"format": 1, "network": NAME, "arguments": {...}, "info": {...}}``. Arguments are those of
`build_network`; info is free: training data, scores, ``"trained": false`` for random weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskfix.config import Precision
from maskfix.errors import CheckpointError, MaskfixError, UsageError
from maskfix.model.device import check_precision
from maskfix.model.network import ClickNetwork
from maskfix.model.official import read_official
from maskfix.model.registry import (
    Protocol,
    build_network,
    complete_arguments,
    find_network,
    find_weights,
)
from maskfix.model.weight_files import (
    file_checksum,
    load_strictly,
    read_weight_file,
    write_safetensors,
)

FORMAT = 1


@dataclass(frozen=True)
class Model:
    """A network with its weights, ready to predict.

    Attributes:
        network: in eval mode, float32; see `ClickNetwork` for how it is called.
        name: what it is called: the name of shipped weights, or the stem of the file.
        network_name: which of `NETWORKS` it is.
        arguments: its build arguments, complete.
        protocol: how the predictor runs it unless told otherwise.
        path: the file it came from.
        checksum: SHA-256 of that file.
        info: what the file says about its making.
        precision: numbers that the predictor lets it compute with.
    """

    network: ClickNetwork
    name: str
    network_name: str
    arguments: dict[str, Any]
    protocol: Protocol
    path: Path
    checksum: str
    info: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "float32"

    @property
    def trained(self) -> bool:
        """False for weights that the file declares to be random."""
        return bool(self.info.get("trained", True))


def load_model(
    name_or_file: str | Path,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
) -> Model:
    """Load a network with its weights.

    Args:
        name_or_file: name of shipped weights, a maskfix weights file, or an official RITM
            checkpoint (recognised by content).
        device: a torch device.
        precision: numbers to compute with.

    Raises:
        CheckpointError: no such weights, or a file that is damaged, foreign, or does not fit.
        UsageError: the device cannot be used here, or lacks the precision.
    """
    path = find_weights(name_or_file)
    content, metadata = read_weight_file(path)
    try:
        if metadata is None:
            network_name, arguments, state = read_official(content)
            info: dict[str, Any] = {"source": "official RITM checkpoint"}
        else:
            network_name, arguments, info = _read_header(metadata)
            state = content
        network = build_network(network_name, **arguments)
        load_strictly(network, state, "the file")
    except MaskfixError as error:
        raise CheckpointError(f"{path}: {error}") from None
    network = _to_device(network.eval(), device)
    check_precision(precision, network.mean.device)
    return Model(
        network=network,
        name=path.stem,
        network_name=network_name,
        arguments=complete_arguments(network_name, arguments),
        protocol=find_network(network_name).protocol,
        path=path,
        checksum=file_checksum(path),
        info=info,
        precision=precision,
    )


def _read_header(metadata: Mapping[str, str]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    try:
        header = json.loads(metadata["maskfix"])
        number, name = header["format"], str(header["network"])
        arguments, info = dict(header["arguments"]), dict(header["info"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            "a safetensors file, but not one of maskfix: its metadata has no valid 'maskfix' entry"
        ) from None
    if number != FORMAT:
        raise CheckpointError(f"format {number}; this version of maskfix reads format {FORMAT}")
    return name, arguments, info


def _to_device(network: ClickNetwork, device: str | torch.device) -> ClickNetwork:
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"device '{device}' cannot be used here: {reason}") from None


def save_weights(
    path: Path,
    network_name: str,
    arguments: Mapping[str, Any],
    state_dict: Mapping[str, Tensor],
    info: Mapping[str, Any],
    half: bool = True,
) -> None:
    """Write a maskfix weights file; complete or not at all.

    Args:
        path: the file; replaced if it exists.
        network_name: one of `NETWORKS`.
        arguments: of `build_network`; defaults are filled in.
        state_dict: of the network.
        info: JSON values about the making of the weights.
        half: store kernels and matrices in half precision. Vectors (biases, batch-norm
            statistics) stay as they are, as does what half precision cannot hold.

    Raises:
        UsageError: the arguments are not the network's.
        InputError: the file cannot be written.
    """
    header = {
        "format": FORMAT,
        "network": network_name,
        "arguments": complete_arguments(network_name, arguments),
        "info": dict(info),
    }
    state = {key: _halved(value) if half else value for key, value in state_dict.items()}
    write_safetensors(path, state, header)


def _halved(value: Tensor) -> Tensor:
    half = value.half() if value.ndim > 1 and value.is_floating_point() else value
    return half if half.isfinite().all() else value
