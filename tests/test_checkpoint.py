"""Weight files: published checkpoints, maskfix's own, and files that are neither."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import formula_state, official_config
from safetensors.torch import save_file
from torch import Tensor

from maskfix.errors import CheckpointError, InputError, UsageError
from maskfix.model import registry
from maskfix.model.checkpoint import load_model, save_weights
from maskfix.model.registry import build_network


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random weights of an HRNet-18s."""
    torch.manual_seed(0)
    return build_network("hrnet18s").state_dict()


def test_own_file_predicts_as_recorded(golden: Path, tmp_path: Path) -> None:
    save_weights(
        tmp_path / "w", "hrnet18s", {}, formula_state(golden, "hrnet18s_itermask_3p"), {}, False
    )
    inputs = np.load(golden / "inputs_a.npz")
    image = torch.from_numpy(inputs["images"]).permute(0, 3, 1, 2).float() / 255
    image = torch.cat([image, torch.from_numpy(inputs["prev"])], dim=1)
    with torch.no_grad():
        logits = load_model(tmp_path / "w").network(image, torch.from_numpy(inputs["points"]))
    expected = np.load(golden / "net_hrnet18s_itermask_3p_a.npz")["instances"]
    np.testing.assert_allclose(logits["instances"].numpy(), expected, atol=2e-4, rtol=0)


Content = dict[str, Any]


def set_parameter(name: str, value: Any, specified: bool | None) -> Callable[[Content], Any]:
    def change(content: Content) -> Any:
        content["config"]["params"][name] = {"type": "builtin", "value": value}
        if specified is not None:
            content["config"]["params"][name]["specified"] = specified
        return content

    return change


def set_class(path: str) -> Callable[[Content], Any]:
    return lambda content: {**content, "config": {**content["config"], "class": path}}


def set_key(key: str, value: Any) -> Callable[[Content], Any]:
    return lambda content: {**content, "state_dict": {**content["state_dict"], key: value}}


def drop_key(key: str) -> Callable[[Content], Any]:
    return lambda content: {
        **content,
        "state_dict": {k: v for k, v in content["state_dict"].items() if k != key},
    }


SCALE, STEM = "maps_transform.3.scale", "feature_extractor.conv1.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_key(SCALE), f"does not fit the network: keys 1 missing ({SCALE})"),
        (set_key("head.bias", torch.ones(1)), "keys 1 unexpected (head.bias)"),
        (set_key(SCALE, torch.ones(2)), f"1 of another shape ({SCALE} is 2 instead of 1)"),
        (set_key(STEM, torch.ones(())), f"({STEM} is a single number instead of 64x3x3x3)"),
        (set_key(SCALE, 0.05), "'state_dict' does not hold tensors by name"),
        (set_class("os.system"), "foreign class 'os.system'; those that can be read: isegm."),
        (set_class("isegm.model.is_deeplab_model.DeeplabModel"), "'width' is unknown to Deeplab"),
        (set_parameter("colour", 3, True), "parameter 'colour' is unknown to HRNetModel"),
        (set_parameter("colour", 3, None), "parameter 'colour' is unknown to HRNetModel"),
        (set_parameter("width", 48, True), "width = 48, small = True is none of hrnet18s, hrnet"),
        (set_parameter("width", [18], True), "width = [18], small = True is none of"),
        (set_parameter("use_leaky_relu", False, True), "use_leaky_relu = False has no counterpart"),
        (set_parameter("binary_prev_mask", True, False), "binary_prev_mask = True has no counter"),
        (set_parameter("norm_layer", "x.GroupNorm", False), "norm_layer = 'x.GroupNorm' has no"),
        (set_parameter("norm_radius", "5", True), "argument 'radius': Expected `float`, got `str`"),
        (lambda content: [content, content], "a list of 2 networks, one a click index"),
        (lambda content: content["state_dict"], "no 'state_dict' and 'config' in it"),
        (lambda content: {**content, "config": {}}, "'config' has no 'class' and 'params'"),
        (lambda content: 3, "no 'state_dict' and 'config' in it"),
    ],
)
def test_published_checkpoint_refused(
    change: Callable[[Content], Any], message: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "bad.pth"
    torch.save(change({"state_dict": dict(state), "config": official_config()}), path)
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        (set_parameter("colour", 3, False), {}),  # unknown and not specified: left aside
        (set_parameter("clicks_groups", None, False), {}),
        (set_parameter("norm_radius", 3, False), {"radius": 3}),  # differs from the default
        (set_parameter("with_aux_output", False, False), {"with_aux_output": False}),
        (
            set_parameter("norm_mean_std", [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], False),
            {},
        ),
    ],
)
def test_stored_parameters(
    change: Callable[[Content], Any],
    arguments: dict[str, Any],
    state: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    content = {"state_dict": dict(state), "config": official_config()}
    torch.save(change(content), tmp_path / "odd.safetensors")  # the suffix does not matter
    model = load_model(tmp_path / "odd.safetensors")
    expected = registry.complete_arguments("hrnet18s", arguments)
    assert (model.network_name, model.arguments) == ("hrnet18s", expected)


def test_absent_parameters_take_the_published_defaults(tmp_path: Path) -> None:
    config = official_config()
    for name in ("with_prev_mask", "use_disks", "norm_radius", "with_aux_output"):
        del config["params"][name]
    arguments = {
        "with_prev_mask": False,
        "encoding": "distance",
        "radius": 260,
        "with_aux_output": False,
    }
    network = build_network("hrnet18s", **arguments)
    torch.save({"state_dict": network.state_dict(), "config": config}, tmp_path / "w.pth")
    expected = registry.complete_arguments("hrnet18s", arguments)
    assert load_model(tmp_path / "w.pth").arguments == expected


class Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, ("hostile",)


def test_hostile_pickle_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "config": Hostile()}, "hostile.pth")
    with pytest.raises(CheckpointError, match=r"^hostile\.pth: .*more than tensors") as caught:
        load_model("hostile.pth")
    assert "\n" not in str(caught.value)
    assert not Path("hostile").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected safetensors or a torch checkpoint"),
        (b"hello, I am text", "expected safetensors or a torch checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "expected safetensors or a torch checkpoint"),
        (b"\x10\0\0\0\0\0\0\0{}", "damaged safetensors file"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{}", "damaged safetensors file"),
    ],
)
def test_not_a_weights_file(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("official", [True, False])
def test_truncated_file(official: bool, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "cut"
    if official:
        torch.save({"state_dict": dict(state), "config": official_config()}, path)
    else:
        save_weights(path, "hrnet18s", {}, state, {})
    complete = path.read_bytes()
    for size in (5, 12, 1000, len(complete) // 2, len(complete) - 1):
        path.write_bytes(complete[:size])
        with pytest.raises(CheckpointError) as caught:
            load_model(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "not one of maskfix: its metadata has no valid 'maskfix' entry"),
        ({"maskfix": "{"}, "no valid 'maskfix' entry"),
        ({"maskfix": '{"format": 1, "network": "hrnet18"}'}, "no valid 'maskfix' entry"),
        ({"format": 2}, "format 2; this version of maskfix reads format 1"),
        ({"network": "hrnet99"}, "no network is named 'hrnet99'"),
        ({"arguments": {"wide": True}}, "network 'hrnet18' has no argument 'wide'"),
        ({}, "does not fit the network: keys"),
    ],
)
def test_own_file_refused(metadata: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    if metadata is not None and "maskfix" not in metadata:
        header = {"format": 1, "network": "hrnet18", "arguments": {}, "info": {}, **metadata}
        metadata = {"maskfix": json.dumps(header)}
    path = tmp_path / "own.safetensors"
    save_file({"a": torch.ones(1)}, path, metadata=metadata)
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_half_precision(state: dict[str, Tensor], tmp_path: Path) -> None:
    big = {**state, STEM: torch.full_like(state[STEM], 1e6)}  # more than 16 bits can hold
    info = {"data": "none", "trained": False}
    save_weights(tmp_path / "half", "hrnet18s", {"radius": 3}, big, info)
    save_weights(tmp_path / "full", "hrnet18s", {"radius": 3}, big, info, half=False)
    assert (tmp_path / "half").stat().st_size < 0.55 * (tmp_path / "full").stat().st_size
    model = load_model(tmp_path / "half")
    assert (model.info, model.trained, model.arguments["radius"]) == (info, False, 3)
    for key, value in model.network.state_dict().items():
        assert value.dtype == big[key].dtype
        exact = value.ndim < 2 or key == STEM
        torch.testing.assert_close(value, big[key], rtol=0 if exact else 1e-3, atol=1e-7)


def test_checksum_tells_files_apart(state: dict[str, Tensor], tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save_weights(tmp_path / name, "hrnet18s", {}, state, {"note": name == "c"})
    a, b, c = (load_model(tmp_path / name).checksum for name in ("a", "b", "c"))
    assert len(a) == 64
    assert a == b != c


def test_writing_is_complete_or_not_at_all(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save_weights(path, "hrnet18s", {}, state, {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_weights(path, "hrnet18s", {}, state, {"cannot": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="cannot be written"):
        save_weights(tmp_path / "no" / "folder", "hrnet18s", {}, state, {})


def test_names(state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_weights(tmp_path / "mine.safetensors", "hrnet18s", {}, state, {})
    shipped = {"mine": tmp_path / "mine.safetensors"}
    monkeypatch.setattr(registry, "shipped_weights", lambda: shipped)
    model = load_model("mine")
    assert (model.name, model.path) == ("mine", shipped["mine"])
    for name, message in {
        "hrnet32": r"no weights for 'hrnet32' are shipped \(shipped: mine\); give a file: train",
        "missing.pth": r"'missing.pth' is neither a file nor the name of shipped weights \(mine\)",
        str(tmp_path): "expected a weights file, found a folder",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            load_model(name)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_device_that_is_not_there(device: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    save_weights(tmp_path / "w", "hrnet18s", {}, state, {})
    with pytest.raises(UsageError, match=f"device '{device}' cannot be used here: ") as caught:
        load_model(tmp_path / "w", device)
    assert "\n" not in str(caught.value)
