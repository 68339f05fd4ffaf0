"""Validation: clicks needed on fixed instances, from scratch or from damaged masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from maskfix.damage import damage_mask
from maskfix.errors import InputError, InstanceError
from maskfix.evaluate import Case, evaluate_cases, summarise
from maskfix.masks import Mask
from maskfix.model.network import ClickNetwork
from maskfix.model.registry import find_network
from maskfix.predictor import Predictor
from maskfix.train.config import ValidationConfig
from maskfix.train.data import InstanceData

SEED = 585


def make_cases(settings: ValidationConfig, data: InstanceData) -> list[Case]:
    """The fixed instances of one validation set, evenly spaced over those that are large enough.

    Raises:
        InputError: there is none.
    """
    found: list[tuple[int, int, Mask, Mask | None]] = []
    for index in range(len(data.records)):
        try:
            objects = data.objects(index)
        except InstanceError:
            continue
        for number, mask in enumerate(objects.things):
            if mask.area >= settings.min_area:
                found.append((index, number, mask, objects.ignore))
    if not found:
        raise InputError(
            f"validation set {settings.name}: no instance of at least {settings.min_area} pixels"
        )
    chosen = np.linspace(0, len(found) - 1, min(settings.limit, len(found))).round().astype(int)
    loaders = {found[i][0]: partial(data.image, found[i][0]) for i in chosen}
    cases = []
    for index, number, mask, ignore in (found[i] for i in chosen):
        name = f"{data.records[index].file}#{number}"
        initial = None
        if settings.damaged:
            try:
                initial = damage_mask(mask, name, SEED)
            except InstanceError:
                continue
        cases.append(Case(name, loaders[index], mask, ignore, initial))
    return cases


def make_validation(
    network_name: str, sets: list[tuple[ValidationConfig, InstanceData]]
) -> Callable[[ClickNetwork], dict[str, float]]:
    """A function that scores a network: ``SET_noc85`` and ``SET_noc90`` of every set, and
    ``score``, the mean of the latter. The same network has the same scores always."""
    cases = [(_title(settings), make_cases(settings, data)) for settings, data in sets]
    protocol = find_network(network_name).protocol

    def validate(network: ClickNetwork) -> dict[str, float]:
        predictor = Predictor(network, protocol=protocol)
        scores: dict[str, float] = {}
        for title, of_set in cases:
            summary = summarise(evaluate_cases(predictor, of_set))
            for threshold in (85, 90):
                scores[f"{title}_noc{threshold}"] = summary[f"noc@{threshold}"]
        reached = [value for name, value in scores.items() if name.endswith("noc90")]
        return {"score": float(np.mean(reached)) if reached else math.nan, **scores}

    return validate


def _title(settings: ValidationConfig) -> str:
    return f"{settings.name}_damaged" if settings.damaged else settings.name
