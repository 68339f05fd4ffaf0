"""Networks as ONNX files: the same answers as torch, whatever the size.

Those of the paper take a minute each: tests/bench/bench_onnx.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from maskfix.cli.weights import app
from maskfix.clicks import MASK_THRESHOLD
from maskfix.errors import InputError, UsageError
from maskfix.model import onnx_export
from maskfix.model.checkpoint import load_model, save_weights
from maskfix.model.click_maps import ClickMaps
from maskfix.model.onnx_export import DenseClickMaps
from maskfix.model.registry import build_network

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`lite` as ONNX: exporting takes seconds, so that it is done once."""
    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    save_weights(
        folder / "random.safetensors",
        "lite",
        {},
        build_network("lite").state_dict(),
        {"trained": False},
    )
    arguments = ["export", str(folder / "random.safetensors"), "--out", str(folder / "lite.onnx")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{folder / 'lite.onnx'}: lite, 1")
    return folder / "lite.onnx"


def test_answers_are_those_of_torch_at_any_size(exported: Path) -> None:
    model = load_model(exported.with_name("random.safetensors"))
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(3)
    for batch, height, width, clicks in ((1, 32, 32, 1), (2, 64, 160, 5), (4, 96, 96, 2)):
        image = rng.random((batch, 4, height, width), dtype=np.float32)
        points = np.full((batch, 2 * clicks, 3), -1, np.float32)
        points[:, 0], points[:, -1] = (height / 2, 7.25, 0), (3, width - 1, 1)
        with torch.inference_mode():
            expected = model.network(torch.from_numpy(image), torch.from_numpy(points))["instances"]
        [found] = session.run(None, {"image": image, "points": points})
        assert found.shape == (batch, 1, height, width)
        assert np.abs(found - expected.numpy()).max() < 1e-3


def test_the_file_says_what_goes_in_and_comes_out(exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    contract = json.loads(session.get_modelmeta().custom_metadata_map["maskfix"])
    assert contract["network"] == "lite" and contract["trained"] is False
    assert (
        contract["weights_sha256"] == load_model(exported.with_name("random.safetensors")).checksum
    )
    assert {i.name for i in session.get_inputs()} == set(contract["inputs"]) == {"image", "points"}
    assert {o.name for o in session.get_outputs()} == set(contract["outputs"]) == {"logits"}
    assert "multiples of 32" in contract["inputs"]["image"]
    assert f"sigmoid(logit) > {MASK_THRESHOLD}" in contract["outputs"]["logits"]


def test_a_file_that_exists_is_kept(exported: Path) -> None:
    arguments = ["export", "lite", "--out", str(exported)]
    with pytest.raises(UsageError, match="exists; give --overwrite"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(UsageError, match=r"does not end in \.onnx"):
        CliRunner().invoke(app, ["export", "lite", "--out", "x.pt"], catch_exceptions=False)


def test_a_graph_with_other_answers_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: Path
) -> None:
    import onnx

    graph = onnx.load(str(exported))
    del graph.metadata_props[:]
    monkeypatch.setattr(onnx_export, "trace", lambda _: graph)
    torch.manual_seed(1)
    save_weights(tmp_path / "x.safetensors", "lite", {}, build_network("lite").state_dict(), {})
    with pytest.raises(InputError, match=r"more than 0\.001; not written"):
        model = load_model(tmp_path / "x.safetensors")
        onnx_export.export_onnx(model, tmp_path / "x.onnx", 0.5)
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("radii", [5.0, (2.0, 4.5)])
@pytest.mark.parametrize("encoding", ["disk", "distance"])
def test_dense_maps_are_the_same_maps(radii: Any, encoding: Any) -> None:
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform(-3, 40, (3, 8, 3)).astype(np.float32))
    points[..., 2] = torch.arange(8) % 3
    points[0, 2:4] = points[1] = -1
    maps = [kind(radii, encoding)(points, 32, 44) for kind in (ClickMaps, DenseClickMaps)]
    torch.testing.assert_close(maps[0], maps[1], rtol=0, atol=1e-6)
