"""The published RITM checkpoints (.pth): their configuration in terms of our networks.

Such a file holds ``{"state_dict", "config"}``; the configuration names a class and its parameters,
each with the mark whether the training script specified it. The class is looked up in a table,
never imported. Tensor names need no translation: ours are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskfix.errors import CheckpointError
from maskfix.model.network import IMAGENET_MEAN, IMAGENET_STD

BATCH_NORM = "torch.nn.modules.batchnorm.BatchNorm2d"
HRNET = "isegm.model.is_hrnet_model.HRNetModel"
DEEPLAB = "isegm.model.is_deeplab_model.DeeplabModel"

# What the published classes assume where a file says nothing.
_SHARED = {
    "use_rgb_conv": True,
    "conv_extend": False,
    "use_leaky_relu": False,
    "use_disks": False,
    "norm_radius": 260,
    "clicks_groups": None,
    "with_prev_mask": False,
    "binary_prev_mask": False,
    "with_aux_output": False,
    "norm_layer": BATCH_NORM,
    "norm_mean_std": (IMAGENET_MEAN, IMAGENET_STD),
    "backbone_lr_mult": 0.1,
    "cpu_dist_maps": False,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    HRNET: {**_SHARED, "width": 48, "ocr_width": 256, "small": False},
    DEEPLAB: {
        **_SHARED,
        "backbone": "resnet50",
        "deeplab_ch": 256,
        "aspp_dropout": 0.5,
        "backbone_norm_layer": None,
    },
}
# What no published model uses and our networks do not have: only these values can be loaded.
FIXED = {
    "binary_prev_mask": (False,),
    "norm_layer": (BATCH_NORM,),
    "backbone_norm_layer": (None, BATCH_NORM),
    "norm_mean_std": (((*IMAGENET_MEAN,), (*IMAGENET_STD,)),),
}
_HRNETS = {(18, True): "hrnet18s", (18, False): "hrnet18", (32, False): "hrnet32"}
_BACKBONES = {"resnet34": "deeplab_r34", "resnet50": "deeplab_r50"}


def read_official(content: Any) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Translate the content of a published checkpoint.

    Returns:
        network name, build arguments, state.

    Raises:
        CheckpointError: not such a checkpoint, or one of a class or with parameters that have no
            counterpart here.
    """
    if isinstance(content, list | tuple):
        raise CheckpointError(
            f"a list of {len(content)} networks, one a click index; only single networks can be "
            "loaded: save the one wanted on its own"
        )
    if not isinstance(content, Mapping) or not {"state_dict", "config"} <= content.keys():
        raise CheckpointError("no 'state_dict' and 'config' in it: not an official checkpoint")
    config, state = content["config"], content["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError("its 'state_dict' does not hold tensors by name")
    if not isinstance(config, Mapping) or not isinstance(config.get("params"), Mapping):
        raise CheckpointError("its 'config' has no 'class' and 'params'")
    path = config.get("class")
    if not isinstance(path, str) or path not in DEFAULTS:
        raise CheckpointError(f"foreign class '{path}'; those that can be read: {HRNET}, {DEEPLAB}")
    parameters = _parameters(path, config["params"])
    name, arguments = _hrnet(parameters) if path == HRNET else _deeplab(parameters)
    return name, {**arguments, **_input_arguments(parameters)}, dict(state)


def _parameters(path: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored values over the class's defaults.

    An unknown parameter is an error if the training script specified it; otherwise it is the
    default of another revision of the class, and left aside.
    """
    parameters = dict(DEFAULTS[path])
    for name, record in stored.items():
        if not isinstance(record, Mapping) or "value" not in record:
            raise CheckpointError(f"parameter '{name}' in its 'config' has no 'value'")
        if name in parameters:
            parameters[name] = record["value"]
        elif record.get("specified", True):
            raise CheckpointError(f"parameter '{name}' is unknown to {path.rpartition('.')[2]}")
    for name, allowed in FIXED.items():
        if name in parameters and _as_tuples(parameters[name]) not in allowed:
            raise CheckpointError(f"{name} = {parameters[name]!r} has no counterpart here")
    if not parameters["use_leaky_relu"] and (
        parameters["use_rgb_conv"] or not parameters["conv_extend"]
    ):
        raise CheckpointError("use_leaky_relu = False has no counterpart here")
    return parameters


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _input_arguments(parameters: dict[str, Any]) -> dict[str, Any]:
    scheme = "conv1e" if parameters["conv_extend"] else "conv1s"
    return {
        "with_prev_mask": parameters["with_prev_mask"],
        "input_scheme": "dmf" if parameters["use_rgb_conv"] else scheme,
        "encoding": "disk" if parameters["use_disks"] else "distance",
        "radius": parameters["norm_radius"],
        "clicks_groups": parameters["clicks_groups"],
    }


def _hrnet(parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    width, small = parameters["width"], parameters["small"]
    names = [name for size, name in _HRNETS.items() if size == (width, small)]
    if not names:
        raise CheckpointError(
            f"width = {width!r}, small = {small!r} is none of {', '.join(_HRNETS.values())}"
        )
    return names[0], {key: parameters[key] for key in ("ocr_width", "with_aux_output")}


def _deeplab(parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    backbone = parameters["backbone"]
    names = [name for key, name in _BACKBONES.items() if key == backbone]
    if not names or parameters["with_aux_output"]:
        raise CheckpointError(
            f"backbone = {backbone!r}, with_aux_output = {parameters['with_aux_output']!r} is none "
            f"of {', '.join(_BACKBONES)} without auxiliary output"
        )
    return names[0], {"deeplab_channels": parameters["deeplab_ch"]}
