"""The paper's networks as ONNX files: pytest tests/bench/bench_onnx.py, a minute or more each."""

from __future__ import annotations

from typing import Any

import pytest

from maskfix.model.onnx_export import TOLERANCE, largest_difference, trace
from maskfix.model.registry import build_network

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


@pytest.mark.bench
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (
            "deeplab_r34",
            {"with_prev_mask": False, "encoding": "distance", "input_scheme": "dmf"},
        ),
        ("hrnet18s", {}),
        ("deeplab_r50", {"input_scheme": "conv1e"}),
        ("hrnet18", {"clicks_groups": [2.0, 5.0]}),
        ("hrnet32", {}),
    ],
)
def test_parity(name: str, arguments: dict[str, Any]) -> None:
    network = build_network(name, **arguments).eval()
    assert largest_difference(network, trace(network).SerializeToString()) < TOLERANCE
