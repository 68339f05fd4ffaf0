"""``maskfix weights`` through its runner, on real files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from published import official_config
from typer.testing import CliRunner

from maskfix.cli.weights import app
from maskfix.errors import CheckpointError, UsageError
from maskfix.model import registry
from maskfix.model.checkpoint import load_model
from maskfix.model.registry import build_network

runner = CliRunner()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "coco_lvis_h18s_itermask.pth"
    state = build_network("hrnet18s").state_dict()
    torch.save({"state_dict": state, "config": official_config()}, path)
    return path


def run(*arguments: object) -> str:
    result = runner.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_convert(checkpoint: Path, tmp_path: Path) -> None:
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    assert run("convert", checkpoint, full) == f"{full}: hrnet18s, 17.1 MB\n"
    before, after = (load_model(path) for path in (checkpoint, full))
    states = [model.network.state_dict() for model in (before, after)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert after.info["converted_from"] == checkpoint.name
    assert after.info["converted_from_sha256"] == before.checksum
    run("convert", checkpoint, half, "--half")
    assert half.stat().st_size < 0.6 * full.stat().st_size
    with pytest.raises(UsageError, match="exists; give --overwrite"):
        run("convert", checkpoint, half)
    run("convert", checkpoint, half, "--overwrite")
    assert half.read_bytes() == full.read_bytes()


def test_show_file(checkpoint: Path) -> None:
    facts = json.loads(run("show", checkpoint, "--json"))
    assert facts["network"] == "hrnet18s"
    assert facts["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert facts["parameters"] == 4220047
    assert facts["multiply_adds"] == 8851498616
    assert facts["flops"] == 2 * 8851498616
    assert facts["paper"] == {"parameters": 4220000, "flops": 17840000000, "note": None}
    assert facts["arguments"]["input_scheme"] == "conv1s"
    text = run("show", checkpoint)
    assert "FLOPs          17.70 G (Table 4 of the paper: 17.84 G)\n" in text
    assert facts["sha256"] in text


def test_show_network_without_weights() -> None:
    text = run("show", "deeplab_r34")
    assert "weights        none shipped\n" in text
    assert "parameters     23.35 M (Table 4 of the paper: 19.17 M)\n" in text
    assert "the paper's parameter count is an error" in text


def test_show_nothing_known() -> None:
    with pytest.raises(CheckpointError, match="'nonsense' is neither a file nor the name"):
        run("show", "nonsense")


def test_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = {"lite": tmp_path / "lite.safetensors"}
    monkeypatch.setattr(registry, "shipped_weights", lambda: shipped)
    rows = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert list(rows) == list(registry.NETWORKS)
    assert rows["lite"]["weights"] == str(shipped["lite"])
    assert rows["hrnet32"] == {"name": "hrnet32", "title": "HRNet-32 + OCR", "weights": None}
    assert "hrnet32      HRNet-32 + OCR: no weights shipped\n" in run("list")
