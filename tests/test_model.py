"""Networks, click maps and initial weights, without recorded data."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from maskfix.errors import CheckpointError, UsageError
from maskfix.model.click_maps import ClickMaps
from maskfix.model.flops import TABLE4, measure_cost
from maskfix.model.initialise import initialise_weights, load_trunk
from maskfix.model.ocr import ObjectContextHead
from maskfix.model.registry import build_network, complete_arguments


def points(*rows: tuple[float, float, int], slots: int = 2) -> Tensor:
    """(1, 2 * slots, 3) of positive clicks, the other slots void."""
    table = torch.full((1, 2 * slots, 3), -1.0)
    for i, row in enumerate(rows):
        table[0, i] = torch.tensor(row)
    return table


@pytest.mark.parametrize(
    ("name", "arguments", "outputs"),
    [
        ("hrnet18s", {}, ["instances", "instances_aux"]),
        ("hrnet18s", {"with_aux_output": False}, ["instances"]),
        ("hrnet18s", {"ocr_width": 0}, ["instances"]),
        ("hrnet18s", {"with_prev_mask": False}, ["instances", "instances_aux"]),
        ("deeplab_r34", {"input_scheme": "conv1e"}, ["instances"]),
        ("deeplab_r50", {"input_scheme": "dmf", "deeplab_channels": 32}, ["instances"]),
        ("lite", {}, ["instances"]),
    ],
)
def test_outputs_have_the_size_of_the_image(
    name: str, arguments: dict[str, Any], outputs: list[str]
) -> None:
    network = build_network(name, **arguments).eval()
    image = torch.rand(1, 4 if network.with_prev_mask else 3, 33, 47)
    with torch.no_grad():
        result = network(image, points((3, 40, 0)))
    assert sorted(result) == outputs
    assert all(logits.shape == (1, 1, 33, 47) for logits in result.values())
    assert all(logits.isfinite().all() for logits in result.values())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("hrnet48", {}, "no network is named 'hrnet48'; there are: lite, hrnet18s, hrnet18,"),
        ("hrnet18", {"depth": "small"}, "has no argument 'depth'; it has: ocr_width, with_aux"),
        ("deeplab_r34", {"ocr_width": 64}, "has no argument 'ocr_width'; it has: deeplab_chan"),
        ("hrnet18", {"input_scheme": "conv3"}, "argument 'input_scheme': Invalid enum value 'con"),
        ("hrnet18", {"radius": 0}, "argument 'radius': Expected `float` > 0"),
        ("hrnet18", {"radius": "5"}, "argument 'radius': Expected `float`, got `str`"),
        ("hrnet18", {"ocr_width": -1}, "argument 'ocr_width': Expected `int` >= 0"),
        ("hrnet18", {"with_prev_mask": 1}, "argument 'with_prev_mask': Expected `bool`"),
        ("hrnet18", {"clicks_groups": []}, "argument 'clicks_groups': Expected `array` of length"),
    ],
)
def test_wrong_build_arguments(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_network(name, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_defaults_are_the_final_models() -> None:
    assert complete_arguments("hrnet32", {"clicks_groups": [3, 5]}) == {
        "ocr_width": 128,
        "with_aux_output": True,
        "with_prev_mask": True,
        "input_scheme": "conv1s",
        "encoding": "disk",
        "radius": 5,
        "clicks_groups": (3, 5),
    }


def test_cost_agrees_with_table_4() -> None:
    cost = measure_cost(build_network("deeplab_r50"))
    assert cost.parameters / 1e6 == pytest.approx(TABLE4["deeplab_r50"].parameters, abs=0.01)
    assert cost.flops / 1e9 == pytest.approx(TABLE4["deeplab_r50"].flops, rel=0.01)


def test_every_parameter_learns_but_the_dead_ones() -> None:
    network = build_network("hrnet18s").train()
    image = torch.rand(2, 4, 64, 64)
    outputs = network(image, points((3, 40, 0)).expand(2, -1, -1))
    sum(logits.square().mean() for logits in outputs.values()).backward()
    without = {k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    block = "feature_extractor.ocr_distri_head.object_context_block"
    dead = {
        k for k, _ in network.named_parameters() if k.startswith((f"{block}.f_p", f"{block}.f_o"))
    }
    # a bias in front of a batch norm has no effect in training beyond rounding
    assert dead <= without <= dead | {k for k in without if k.endswith(".0.bias")}


def attend(head: ObjectContextHead, features: Tensor, guess: Tensor) -> Tensor:
    """The head in its general form: every pixel attends to the (one) region."""
    block = head.object_context_block
    height, width = features.shape[2:]
    region = torch.einsum("bchw,bkhw->bck", features, guess.flatten(2).softmax(2).view_as(guess))
    query = block.f_pixel(features).flatten(2).transpose(1, 2)
    key, value = block.f_object(region[..., None]).flatten(2), block.f_down(region[..., None])
    attention = (query @ key / key.shape[1] ** 0.5).softmax(-1)
    context = (attention @ value.flatten(2).transpose(1, 2)).transpose(1, 2)
    context = block.f_up(context.unflatten(2, (height, width)))
    return head.conv_bn_dropout(torch.cat([context, features], 1))


@pytest.mark.parametrize("training", [True, False])
def test_skipping_the_attention_changes_nothing(training: bool) -> None:
    torch.manual_seed(0)
    head = ObjectContextHead(8, 4).double().train(training)
    head.conv_bn_dropout[2] = nn.Identity()  # no random part
    data = [torch.randn(3, c, 5, 7, dtype=torch.double, requires_grad=True) for c in (8, 1)]
    results = []
    for form in (head.forward, lambda *inputs: attend(head, *inputs)):
        state = {k: v.clone() for k, v in head.state_dict().items()}
        output = form(*data)
        gradients = torch.autograd.grad(output.square().sum(), data)
        moved = {k: v.clone() for k, v in head.state_dict().items() if ".f_up." in k}
        results.append([output, *gradients, *moved.values()])
        head.load_state_dict(state)
    for ours, general in zip(*results, strict=True):
        torch.testing.assert_close(ours, general)


coordinates = st.floats(-12, 30, width=32)


@given(
    clicks=st.lists(st.tuples(coordinates, coordinates, st.integers(0, 4)), max_size=6),
    radii=st.lists(st.floats(0.5, 6, width=32), min_size=1, max_size=3),
    encoding=st.sampled_from(["disk", "distance"]),
)
@settings(deadline=None, max_examples=60)
def test_click_maps_follow_their_definition(
    clicks: list[tuple[float, float, int]], radii: list[float], encoding: str
) -> None:
    slots = -(-len(clicks) // 2)  # the first half is positive
    table = torch.full((1, 2 * slots, 3), -1.0)
    expected = torch.full((2 * len(radii), 11, 17), math.inf)
    rows, cols = torch.meshgrid(torch.arange(11), torch.arange(17), indexing="ij")
    for i, (y, x, order) in enumerate(clicks):
        table[0, i] = torch.tensor([y, x, order])
        if max(y, x) < 0:
            continue
        negative, last = i >= slots, len(radii) - 1
        group = last if order > last or (negative and order == 0) else order
        plane = expected[2 * group + negative]
        plane.copy_(torch.minimum(plane, (rows - y) ** 2 + (cols - x) ** 2))
    scale = torch.tensor(radii).repeat_interleave(2)[:, None, None]
    if encoding == "disk":
        expected = (expected <= scale**2).float()
    else:
        expected = torch.tanh(2 * expected.sqrt() / scale)
    maps = ClickMaps(tuple(radii), encoding)(table, 11, 17)
    torch.testing.assert_close(maps[0], expected, atol=1e-6, rtol=0)


def test_initial_weights() -> None:
    networks = [build_network("deeplab_r34") for _ in range(2)]
    for network in networks:
        initialise_weights(network, torch.Generator().manual_seed(7))
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[k], second[k]) for k in first)
    spread = {
        "feature_extractor.backbone.layer2.1.conv1.weight": 2 / (128 * 9),  # var = 2 / mean fan
        "feature_extractor.backbone.conv1.weight": 4 / ((3 + 64) * 49),
        "head.layers.0.body.0.weight": 4 / ((1 + 128) * 9),  # depthwise
    }
    for key, variance in spread.items():
        assert first[key].var().item() == pytest.approx(variance, rel=0.1)
    assert not first["maps_transform.0.bias"].any()
    assert first["maps_transform.3.scale"].item() == pytest.approx(0.05)


def imagenet_state(name: str) -> dict[str, Tensor]:
    """A classification network's tensors, as the usual sources name them."""
    trunk = build_network(name).feature_extractor
    module = trunk.backbone if name.startswith("deeplab") else trunk
    heads = ("conv3x3_ocr", "ocr_distri", "cls_head", "aux_head")
    state = {k: torch.ones_like(v) for k, v in module.state_dict().items()}
    return {k: v for k, v in state.items() if not k.startswith(heads)}


@pytest.mark.parametrize(
    ("name", "wrap", "classifier"),
    [
        ("hrnet18s", {}, ["classifier.weight", "incre_modules.0.0.conv1.weight"]),
        ("hrnet18s", {"prefix": "model."}, ["final_layer.0.bias"]),
        ("deeplab_r34", {}, ["fc.weight", "fc.bias"]),
        ("deeplab_r50", {"key": "state_dict", "prefix": "module."}, ["fc.weight"]),
    ],
)
def test_trunk_from_imagenet(
    name: str, wrap: dict[str, str], classifier: list[str], tmp_path: Path
) -> None:
    state = imagenet_state(name) | {key: torch.ones(1) for key in classifier}
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    content: Any = {wrap.get("prefix", "") + k: v for k, v in state.items()}
    torch.save({wrap["key"]: content} if "key" in wrap else content, tmp_path / "trunk.pth")
    network = build_network(name)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    load_trunk(network, tmp_path / "trunk.pth")
    for key, value in network.state_dict().items():
        inner = key.removeprefix("feature_extractor.").removeprefix("backbone.")
        expected = torch.ones_like(value) if inner in state else before[key]
        assert torch.equal(value, expected), key


def without_a_key(state: dict[str, Tensor]) -> Any:
    del state["layer1.0.conv1.weight"]
    return state


@pytest.mark.parametrize(
    ("name", "source", "change", "message"),
    [
        ("hrnet18s", "hrnet18s", without_a_key, "1 missing (layer1.0.conv1.weight)"),
        ("hrnet18s", "deeplab_r34", dict, "missing (conv2.weight, bn2.weight, bn2.bias, ...)"),
        ("deeplab_r50", "deeplab_r34", dict, "missing (conv1.0.weight, conv1.1.weight, conv1.1"),
        ("deeplab_r34", "deeplab_r34", lambda s: s | {"odd": torch.ones(1)}, "unexpected (odd)"),
        ("deeplab_r34", "deeplab_r34", lambda s: [s], "expected the tensors of an ImageNet"),
    ],
)
def test_trunk_that_does_not_fit(
    name: str, source: str, change: Any, message: str, tmp_path: Path
) -> None:
    torch.save(change(imagenet_state(source)), tmp_path / "trunk.pth")
    with pytest.raises(CheckpointError) as caught:
        load_trunk(build_network(name), tmp_path / "trunk.pth")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'trunk.pth'}: ")


def test_names_are_known_without_torch() -> None:
    imports = "import sys, maskfix.model.registry, maskfix.cli.weights"
    subprocess.run(
        [sys.executable, "-c", f"{imports}; sys.exit('torch' in sys.modules)"], check=True
    )
