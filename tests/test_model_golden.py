"""Networks against recorded outputs of the published code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from published import LAYOUTS, MODELS, formula_state, layouts
from torch import nn

from maskfix.model.checkpoint import load_model
from maskfix.model.click_maps import ClickMaps
from maskfix.model.flops import measure_cost
from maskfix.model.inference import fold_batch_norm
from maskfix.model.registry import build_network, complete_arguments

TOLERANCE = 2e-4


@pytest.mark.parametrize("model", MODELS)
def test_published_checkpoint(model: str, golden: Path, tmp_path: Path) -> None:
    name, arguments = MODELS[model]
    content = {
        "state_dict": formula_state(golden, model),
        "config": layouts(golden)[model]["config"],
    }
    torch.save(content, tmp_path / "published.pth")
    loaded = load_model(tmp_path / "published.pth")
    assert (loaded.network_name, loaded.protocol) == (name, "paper")
    assert loaded.arguments == complete_arguments(name, arguments)
    network = loaded.network
    folded = fold_batch_norm(network)
    cases = sorted(golden.glob(f"net_{model}_?.npz"))
    assert cases
    for case in cases:
        inputs = np.load(golden / f"inputs_{case.stem[-1]}.npz")
        image = torch.from_numpy(inputs["images"]).permute(0, 3, 1, 2).float() / 255
        if network.with_prev_mask:
            image = torch.cat([image, torch.from_numpy(inputs["prev"])], dim=1)
        points = torch.from_numpy(inputs["points"])
        expected = np.load(case)
        for version in (network, folded):
            with torch.no_grad():
                outputs = version(image, points)
            assert sorted(outputs) == sorted(expected.files)
            for key, logits in outputs.items():
                np.testing.assert_allclose(logits.numpy(), expected[key], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("model", LAYOUTS)
def test_layout_and_learning_rates(model: str, golden: Path) -> None:
    name, arguments = LAYOUTS[model]
    network = build_network(name, **arguments)
    layout = layouts(golden)[model]
    state = [[k, list(v.shape), str(v.dtype)] for k, v in network.state_dict().items()]
    expected = [[k, shape, f"torch.{t.split('.')[-1]}"] for k, shape, t in layout["state_dict"]]
    assert state == expected
    names = [k for k, _ in network.named_parameters()]
    fast = [k for k in names if not k.startswith(network.backbone_prefixes)]
    group = layout["lr_mult_groups"]["1.0"]
    assert (fast if isinstance(group, list) else len(fast)) == (
        group if isinstance(group, list) else group["count"]
    )


@pytest.mark.parametrize(
    "model",
    ["hrnet18s_itermask_3p", "r34_dh128_itermask_3p", "r50_dh256_baseline"],
)
def test_cost(model: str, golden: Path) -> None:
    name, arguments = LAYOUTS[model]
    cost = measure_cost(build_network(name, **arguments))
    layout = layouts(golden)[model]
    operations = layout["flops_at_400x400"]
    assert cost.macs == operations["conv"] + operations["matmul"]
    assert cost.parameters == layout["n_params"]


@pytest.mark.parametrize(
    ("key", "encoding", "radius"),
    [
        ("disk_r5", "disk", 5),
        ("disk_r3", "disk", 3),
        ("dist_r260", "distance", 260),
        ("dist_r20", "distance", 20),
    ],
)
def test_click_maps(key: str, encoding: str, radius: float, golden: Path) -> None:
    data = np.load(golden / "distmaps.npz")
    expected = data[key]
    maps = ClickMaps(radius, encoding)(torch.from_numpy(data["points"]), *expected.shape[2:])
    atol = 0 if encoding == "disk" else 1e-6
    np.testing.assert_allclose(maps.numpy(), expected, atol=atol, rtol=0)


def test_folding_leaves_only_the_norms_that_never_run() -> None:
    network = build_network("hrnet18s").eval()
    folded = fold_batch_norm(network)
    left = [k for k, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert left
    assert all(".f_pixel." in key or ".f_object." in key for key in left)
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.feature_extractor.layer1.modules())
