"""Published checkpoints as the tests make them: layout and configuration with formula weights."""

from __future__ import annotations

import json
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# network name and build arguments of every recorded model that has formula weights
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "hrnet18s_itermask_3p": ("hrnet18s", {}),
    "hrnet18_itermask_3p": ("hrnet18", {}),
    "hrnet32_itermask_3p": ("hrnet32", {}),
    "hrnet18_baseline": ("hrnet18", {"with_prev_mask": False}),
    "r34_dh128_baseline": ("deeplab_r34", {"with_prev_mask": False}),
    "r34_dh128_itermask_3p": ("deeplab_r34", {}),
    "r50_dh256_baseline": ("deeplab_r50", {"with_prev_mask": False, "deeplab_channels": 256}),
    "variant_hrnet18s_rgbconv_prevmask": ("hrnet18s", {"input_scheme": "dmf"}),
    "variant_hrnet18s_convextend_prevmask": ("hrnet18s", {"input_scheme": "conv1e"}),
    "variant_hrnet18s_distmap260": (
        "hrnet18s",
        {"with_prev_mask": False, "encoding": "distance", "radius": 260},
    ),
    "variant_r34_clicksgroups": ("deeplab_r34", {"clicks_groups": (3, 5, 5), "radius": 260}),
}
# recorded as a layout only
LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    **MODELS,
    "r50_dh256_itermask_3p": ("deeplab_r50", {"deeplab_channels": 256}),
    "r50_dh128_baseline": ("deeplab_r50", {"with_prev_mask": False}),
}


@cache
def layouts(golden: Path) -> dict[str, Any]:
    """Per model: configuration, entries of the state, cost, learning-rate groups."""
    models: dict[str, Any] = json.loads((golden.parent / "checkpoint_layout.json").read_text())
    return models["models"]


def formula_state(golden: Path, model: str) -> dict[str, Tensor]:
    """The state of a model with weights from the formula, in the order of its checkpoint."""
    fill = runpy.run_path(str(golden / "formula.py"))["fill"]
    entries = layouts(golden)[model]["state_dict"]
    return {
        key: torch.as_tensor(fill(model, key, shape)).to(getattr(torch, dtype.split(".")[-1]))
        for key, shape, dtype in entries
    }


def official_config(**parameters: Any) -> dict[str, Any]:
    """A configuration as the published code writes it: HRNet-18s with the given parameters."""
    specified = {
        "width": 18,
        "ocr_width": 48,
        "small": True,
        "with_aux_output": True,
        "use_leaky_relu": True,
        "use_rgb_conv": False,
        "use_disks": True,
        "norm_radius": 5,
        "with_prev_mask": True,
        **parameters,
    }
    batch_norm = {
        "type": "class",
        "value": "torch.nn.modules.batchnorm.BatchNorm2d",
        "specified": False,
    }
    return {
        "class": "isegm.model.is_hrnet_model.HRNetModel",
        "params": {
            **{k: {"type": "builtin", "value": v, "specified": True} for k, v in specified.items()},
            "norm_layer": batch_norm,
        },
    }
