"""What a training run is made of. A recipe is a YAML file of these fields.

Every field has the paper's value as its default, so a recipe states what differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from maskfix.errors import UsageError

RECIPES = Path(__file__).parent / "recipes"


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base: unknown fields and wrong types are refused."""


class NetworkConfig(Struct, frozen=True):
    """The network to build.

    Attributes:
        name: of the registry.
        arguments: of its constructor; "maskfix weights show NAME" lists them.
    """

    name: str = "hrnet18"
    arguments: dict[str, Any] = {}


class DataConfig(Struct, frozen=True):
    """One data set of the mixture.

    Attributes:
        name: as given by ``--data NAME=PATH``.
        format: its layout, of `maskfix.train.readers.FORMATS`; ``auto`` tells it from the files.
        split: for layouts that hold several.
        weight: share of samples drawn from it, relative to the others.
        holdout: share of its images (by a hash of their names) kept for validation.
        min_area: smaller objects, in pixels of the crop, are not targets.
        stuff: probability that regions without a shape of their own (sky, grass) count as objects
            of an image; otherwise they are background.
        background: probability that a sample may show no object at all.
        importance: images that came with a score s (an IoU, of a network trained before) are drawn
            with a frequency of (1 - s) to this power; 0 draws evenly.
    """

    name: str
    format: str = "auto"
    split: str = "train"
    weight: float = 1.0
    holdout: float = 0.0
    min_area: int = 80
    stuff: float = 0.0
    background: float = 0.0
    importance: float = 0.0


class CropConfig(Struct, frozen=True):
    """How a sample is cut from an image.

    Attributes:
        mode: ``scale`` resizes the image by a random factor, pads and crops at random (paper,
            section 5); ``zoom`` cuts around the object as test-time zooming will show it.
        sizes: network inputs (height, width); every batch has one of them.
        scale: range of the random factor of ``scale``.
        turn: of ``scale``: turn by quarters and mirror upside down too, and with probability 0.75
            shift by up to 3 % and rotate by up to 3 degrees.
        expansion: range of the region's extent relative to the object's, of ``zoom``.
        wide: share of ``zoom`` crops that show much more than the object, up to the whole image.
    """

    mode: Literal["scale", "zoom"] = "scale"
    sizes: tuple[tuple[int, int], ...] = ((320, 480),)
    scale: tuple[float, float] = (0.75, 1.4)
    turn: bool = False
    expansion: tuple[float, float] = (1.1, 1.9)
    wide: float = 0.35


class ClickConfig(Struct, frozen=True):
    """How clicks are drawn (paper, section 3.2).

    Attributes:
        max_points: most random clicks of either sign.
        gamma: every further random click is this much less likely.
        merge: share of samples whose target is two objects together.
        iterations: at most so many clicks on the network's own errors, drawn evenly from 0.
        learn_each: learn from the prediction after every click instead of the last one only.
    """

    max_points: int = 24
    gamma: float = 0.8
    merge: float = 0.15
    iterations: int = 3
    learn_each: bool = False


class StartConfig(Struct, frozen=True):
    """Masks that a sample starts from (beyond the paper: it starts from none).

    Attributes:
        damaged: share of samples that start from a damaged reference mask.
        detector: share of those damaged as detectors do, the rest as DAVIS-585.
        iou: range of the damaged mask's IoU with the reference.
        unclicked: share of the damaged ones whose first prediction is made without a click.
        several: probability of each further click before that prediction, on another error; at
            most three in all.
        context: share of the damaged ones that get random clicks besides, which the mask may agree
            with already.
    """

    damaged: float = 0.0
    detector: float = 0.5
    iou: tuple[float, float] = (0.6, 0.95)
    unclicked: float = 0.1
    several: float = 0.0
    context: float = 0.0


class LossConfig(Struct, frozen=True):
    """Losses and their weights.

    Attributes:
        instances: normalized focal loss (section 3.4), focal loss, cross entropy or soft IoU.
        alpha, gamma: of the focal losses.
        auxiliary: weight of the cross entropy on the auxiliary head, where there is one.
    """

    instances: Literal["nfl", "focal", "bce", "soft_iou"] = "nfl"
    alpha: float = 0.5
    gamma: float = 2.0
    auxiliary: float = 0.4


class OptimizerConfig(Struct, frozen=True):
    """Adam and the course of its learning rate.

    Attributes:
        lr: learning rate of new layers.
        trunk: factor on it for the pre-trained trunk.
        weight_decay: decoupled (AdamW); 0 is Adam.
        warmup: optimizer steps over which the rate rises from 0.
        milestones: epochs (fractions allowed) after which the rate falls to a tenth.
        cosine: let the rate fall to 1 % along a half cosine over the whole run.
        clip_norm: gradients are scaled down to this norm; 0 leaves them.
        ema: decay of the running average of the weights that is validated and shipped; 0 for none.
        accumulate: lessons whose gradients are averaged before a step.
        freeze_norm: leave the statistics of batch norm as they are; for small batches.
    """

    lr: float = 5e-4
    trunk: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 0
    milestones: tuple[float, ...] = ()
    cosine: bool = False
    clip_norm: float = 0.0
    ema: float = 0.0
    accumulate: int = 1
    freeze_norm: bool = False


class ValidationConfig(Struct, frozen=True):
    """NoC on fixed instances of one data set.

    Attributes:
        name: as given by ``--data NAME=PATH``.
        format, split: as of `DataConfig`, for a set that is not trained on.
        limit: so many instances, evenly spaced.
        min_area: smaller ones are passed over.
        heldout: use the images that ``holdout`` keeps from training.
        damaged: start from masks damaged to an IoU of 0.75 to 0.85 instead of from none.
    """

    name: str
    format: str = "auto"
    split: str = "val"
    limit: int = 40
    min_area: int = 600
    heldout: bool = False
    damaged: bool = False


class TrainConfig(Struct, frozen=True):
    """A whole run.

    Attributes:
        epochs: number of epochs.
        epoch_samples: samples an epoch, drawn with replacement; 0 for a pass over all images.
        batch_size: samples a batch, over all processes.
        validate_minutes: at most this long between two validations.
        log_steps: lessons between two lines of the loss log.
        amp: bfloat16 autocast in the forward pass.
        channels_last: memory layout of the network.
        seed: every draw is made from (seed, epoch, sample).
    """

    network: NetworkConfig = NetworkConfig()
    data: tuple[DataConfig, ...] = ()
    validation: tuple[ValidationConfig, ...] = ()
    crop: CropConfig = CropConfig()
    clicks: ClickConfig = ClickConfig()
    start: StartConfig = StartConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    epochs: int = 55
    epoch_samples: int = 0
    batch_size: int = 32
    validate_minutes: float = 30.0
    log_steps: int = 20
    amp: bool = False
    channels_last: bool = True
    seed: int = 0


def list_recipes() -> list[str]:
    """Names of the recipes that come with maskfix."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml") if not path.stem.startswith("_"))


def describe_recipes() -> dict[str, str]:
    """Name -> the first line of its header, for every recipe that comes with maskfix."""
    titles = {}
    for name in list_recipes():
        first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        titles[name] = first.removeprefix("#").strip()
    return titles


def load_recipe(name_or_file: str, changes: list[str] | None = None) -> TrainConfig:
    """Read a recipe, its base files first.

    Args:
        name_or_file: a shipped recipe's name, or the path of a YAML file.
        changes: ``key=value`` with dotted keys and YAML values, as given by ``--set``.

    Raises:
        UsageError: no such recipe, or a field that does not exist or has a wrong type.
    """
    path = Path(name_or_file)
    if path.suffix not in {".yaml", ".yml"}:
        path = RECIPES / f"{name_or_file}.yaml"
        if not path.exists():
            known = ", ".join(list_recipes())
            raise UsageError(f"no recipe {name_or_file!r}; there are {known}, or give a .yaml file")
    settings = _read(path)
    for change in changes or []:
        key, found, value = change.partition("=")
        if not found:
            raise UsageError(f"--set needs key=value, found {change!r}")
        try:
            _merge(settings, _nest(key.split("."), yaml.safe_load(value)))
        except yaml.YAMLError as error:
            raise UsageError(f"--set {key}: {value!r} is not a YAML value") from error
    try:
        return msgspec.convert(settings, TrainConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"recipe {name_or_file}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise UsageError(
            f"recipe {path}: expected settings by name, found {type(settings).__name__}"
        )
    base = settings.pop("base", None)
    if base is None:
        return settings
    merged = _read(path.with_name(f"{base}.yaml"))
    _merge(merged, settings)
    return merged


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nest(keys[1:], value)}


def _merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
