"""Networks and weights by name: what exists, and which arguments each network takes.

Importing this module does not import torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import msgspec

from maskfix.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from maskfix.model.network import ClickNetwork

Protocol = Literal["paper", "fast"]


@dataclass(frozen=True)
class Entry:
    """One network.

    Attributes:
        where: ``module:class`` below ``maskfix.model``; the constructor's annotations and defaults
            say which arguments there are.
        title: for people.
        fixed: arguments that make this network what it is; not for the user to give.
        defaults: defaults that differ from the constructor's.
        protocol: how the predictor runs it unless told otherwise.
    """

    where: str
    title: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    protocol: Protocol = "paper"

    def constructor(self) -> type[ClickNetwork]:
        """The class; imports torch."""
        module, name = self.where.split(":")
        constructor: type[ClickNetwork] = getattr(import_module(f"maskfix.model.{module}"), name)
        return constructor


_HRNET, _DEEPLAB = "hrnet:HRNetNetwork", "deeplab:DeepLabNetwork"

NETWORKS: dict[str, Entry] = {
    "lite": Entry("lite:Lite", "small network for machines without a GPU", protocol="fast"),
    "hrnet18s": Entry(
        _HRNET, "HRNet-18s + OCR", {"width": 18, "depth": "small"}, {"ocr_width": 48}
    ),
    "hrnet18": Entry(_HRNET, "HRNet-18 + OCR", {"width": 18, "depth": "full"}, {"ocr_width": 64}),
    "hrnet32": Entry(_HRNET, "HRNet-32 + OCR", {"width": 32, "depth": "full"}, {"ocr_width": 128}),
    "deeplab_r34": Entry(_DEEPLAB, "DeepLabV3+ on ResNet-34", {"backbone": "resnet34"}),
    "deeplab_r50": Entry(_DEEPLAB, "DeepLabV3+ on ResNet-50", {"backbone": "resnet50"}),
}


def find_network(name: str) -> Entry:
    """The entry of a network.

    Raises:
        UsageError: there is none of this name; lists those that are.
    """
    if name not in NETWORKS:
        raise UsageError(f"no network is named '{name}'; there are: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def complete_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Check build arguments and add the defaults of those not given.

    Raises:
        UsageError: unknown network or argument, or a value of the wrong type or range.
    """
    entry = find_network(name)
    constructor = entry.constructor().__init__
    hints = get_type_hints(constructor, include_extras=True)
    taken = inspect.signature(constructor).parameters
    allowed = [key for key in taken if key != "self" and key not in entry.fixed]
    foreign = [key for key in arguments if key not in allowed]
    if foreign:
        raise UsageError(
            f"network '{name}' has no argument '{foreign[0]}'; it has: {', '.join(allowed)}"
        )
    defaults = {key: taken[key].default for key in allowed} | dict(entry.defaults)
    complete = {}
    for key in allowed:
        try:
            complete[key] = msgspec.convert(arguments.get(key, defaults[key]), hints[key])
        except msgspec.ValidationError as error:
            raise UsageError(f"network '{name}', argument '{key}': {error}") from None
    return complete


def build_network(name: str, **arguments: Any) -> ClickNetwork:
    """Build a network with random weights, in training mode.

    Args:
        name: one of `NETWORKS`.
        arguments: see the constructor of its class; for the paper's networks among others
            ``with_prev_mask``, ``input_scheme`` ("conv1s", "conv1e", "dmf"), ``encoding`` ("disk",
            "distance"), ``radius``, ``clicks_groups``, ``ocr_width`` or ``deeplab_channels``.
            The defaults are those of the paper's final models.

    Raises:
        UsageError: unknown network or argument, or a value of the wrong type or range.
    """
    entry = find_network(name)
    return entry.constructor()(**entry.fixed, **complete_arguments(name, arguments))


def shipped_weights() -> dict[str, Path]:
    """The weights that come with maskfix: name -> file. In a checkout, those of ``weights/``."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "weights"
    folder = inside if inside.is_dir() else package.parent / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_weights(name_or_file: str | Path) -> Path:
    """The file of shipped weights, or the file itself.

    Raises:
        CheckpointError: neither; says which weights there are and how to get others.
    """
    shipped = shipped_weights()
    name, path = str(name_or_file), Path(name_or_file)
    if name in shipped:
        return shipped[name]
    if path.exists():
        return path
    found = ", ".join(shipped) or "none"
    if name in NETWORKS:
        raise CheckpointError(
            f"no weights for '{name}' are shipped (shipped: {found}); give a file: train one, or "
            "convert an official checkpoint with 'maskfix weights convert'"
        )
    raise CheckpointError(f"'{name}' is neither a file nor the name of shipped weights ({found})")
