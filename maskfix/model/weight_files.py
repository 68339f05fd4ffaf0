"""Weight files as bytes and tensors: reading, strict loading, atomic writing, checksums.

Two formats, told apart by their content: safetensors, and what ``torch.save`` writes (read with
``weights_only``, so that nothing in it can run).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from maskfix.errors import CheckpointError, InputError

NAMED = 3  # how many keys an error message names of each kind


def read_weight_file(path: Path) -> tuple[Any, dict[str, str] | None]:
    """Read a weight file of either format onto the CPU.

    Returns:
        the content, and for safetensors (where the content is a dict of tensors) its metadata;
        None for torch files.

    Raises:
        CheckpointError: missing, unreadable, truncated, or of neither format.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: expected a weights file, found a folder")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    return _read_safetensors(path) if start[8:9] == b"{" else (_read_torch(path), None)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: damaged safetensors file ({reason})") from None


def _read_torch(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # given a path, torch would go by its suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises nearly anything on bytes that are no pickle
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        if "weights_only" in str(error) or "Unsupported" in str(error):
            reason = "not a pickle, or one that holds more than tensors and plain values"
        raise CheckpointError(
            f"{path}: expected safetensors or a torch checkpoint; the file is damaged, truncated "
            f"or something else ({reason})"
        ) from None


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load a state whose names and shapes must be exactly those of the network.

    Args:
        network: changed in place; its dtype stays.
        state: name -> tensor.
        what: the source, for the message.

    Raises:
        CheckpointError: names what is missing, unexpected, or of another shape.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} is {_shape(state[key])} instead of {_shape(own[key])}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = [f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in kinds if keys]
    if problems:
        raise CheckpointError(f"{what} does not fit the network: keys {'; '.join(problems)}")
    network.load_state_dict(state)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:NAMED]) + (", ..." if len(keys) > NAMED else "")


def write_safetensors(path: Path, state: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header (under the key ``maskfix``); complete or not at all.

    Raises:
        InputError: the folder does not exist or cannot be written to.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    os.close(handle)
    temporary = Path(name)
    try:
        save_file(tensors, temporary, metadata={"maskfix": json.dumps(header)})
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
