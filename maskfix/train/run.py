"""From a recipe and paths to a trainer that is ready to run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch

from maskfix.errors import CheckpointError, UsageError
from maskfix.model.checkpoint import load_model
from maskfix.model.initialise import initialise_weights, load_trunk
from maskfix.model.network import ClickNetwork
from maskfix.model.registry import (
    build_network,
    complete_arguments,
    find_network,
    shipped_weights,
)
from maskfix.train.config import DataConfig, TrainConfig, ValidationConfig
from maskfix.train.data import InstanceData
from maskfix.train.distributed import Group
from maskfix.train.loop import Trainer
from maskfix.train.readers import open_data
from maskfix.train.samples import BatchSource
from maskfix.train.validation import make_validation


def open_sets(
    config: TrainConfig, paths: Mapping[str, str]
) -> tuple[list[InstanceData], list[tuple[ValidationConfig, InstanceData]]]:
    """Open a recipe's data sets: (those to train on, those to validate on).

    Raises:
        UsageError: a name has no path, or a path no name in the recipe.
        InputError: a data set cannot be read.
    """
    wanted = [data.name for data in config.data] + [v.name for v in config.validation]
    missing = [name for name in wanted if name not in paths]
    if missing:
        given = ", ".join(paths) or "none"
        raise UsageError(
            f"the recipe trains and validates on {', '.join(dict.fromkeys(wanted))}; "
            f"--data {missing[0]}=PATH is missing (given: {given})"
        )
    foreign = [name for name in paths if name not in wanted]
    if foreign:
        raise UsageError(
            f"--data {foreign[0]}: the recipe has no set of this name, only "
            f"{', '.join(dict.fromkeys(wanted)) or 'none'}"
        )
    opened: dict[tuple[str, str], InstanceData] = {}

    def get(spec: DataConfig | ValidationConfig, format: str, split: str) -> InstanceData:
        key = spec.name, split
        if key not in opened:
            opened[key] = open_data(spec.name, paths[spec.name], format, split)
        return opened[key]

    training = [get(s, s.format, s.split).subset(s.holdout, heldout=False) for s in config.data]
    by_name = {spec.name: spec for spec in config.data}
    validation = []
    for spec in config.validation:
        if not spec.heldout:
            validation.append((spec, get(spec, spec.format, spec.split)))
            continue
        if spec.name not in by_name or not by_name[spec.name].holdout:
            raise UsageError(
                f"validation {spec.name}: heldout needs data of that name with holdout"
            )
        source = by_name[spec.name]
        whole = get(source, source.format, source.split)
        validation.append((spec, whole.subset(source.holdout, heldout=True)))
    return training, validation


def make_network(config: TrainConfig, init: str | None) -> ClickNetwork:
    """The recipe's network with the weights it starts from.

    Args:
        init: shipped weights or a maskfix weights file (all of it is loaded), or an ImageNet
            classification file in the keys of the network's trunk; None for random weights.

    Raises:
        UsageError: the recipe's network does not exist or is not that of the weights.
        CheckpointError: the file does not fit; names the keys.
    """
    recipe = config.network
    torch.manual_seed(config.seed)
    network = build_network(recipe.name, **recipe.arguments)
    if find_network(recipe.name).protocol == "paper":
        initialise_weights(network)
    if init is None:
        return network
    if _is_whole(init):
        with contextlib.suppress(_NotOurs):
            return _load_whole(config, init)
    if not Path(init).exists():
        raise CheckpointError(f"--init {init}: neither a file nor the name of shipped weights")
    load_trunk(network, Path(init))
    return network


def _is_whole(init: str) -> bool:
    return init in shipped_weights() or init.endswith(".safetensors")


class _NotOurs(Exception):
    """A safetensors file of somebody else."""


def _load_whole(config: TrainConfig, init: str) -> ClickNetwork:
    try:
        model = load_model(init)
    except CheckpointError as error:
        if "not one of maskfix" in str(error):
            raise _NotOurs from error
        raise
    wanted = complete_arguments(config.network.name, config.network.arguments)
    if (model.network_name, model.arguments) != (config.network.name, wanted):
        raise UsageError(
            f"--init {init} is a {model.network_name} with {model.arguments}; the recipe asks for "
            f"{config.network.name} with {wanted}"
        )
    return model.network.train()


def make_trainer(
    config: TrainConfig,
    paths: Mapping[str, str],
    out: Path,
    init: str | None,
    device: torch.device,
    workers: int,
    group: Group,
) -> Trainer:
    """A trainer for a recipe; see `Trainer` and the functions above."""
    data, validation = open_sets(config, paths)
    validate = make_validation(config.network.name, validation) if validation else None
    trainer = Trainer(
        config,
        make_network(config, init),
        BatchSource(config, data, group.rank, group.world),
        out,
        validate,
        device,
        workers,
        group,
    )
    trainer.validates_first = init is not None and _is_whole(init)
    return trainer
