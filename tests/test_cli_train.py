"""``maskfix train``, through its runner on real files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import typer
from tiny_data import SETTINGS, write_coco
from typer.testing import CliRunner, Result

from maskfix.cli.train import train_command
from maskfix.errors import CheckpointError, MaskfixError, UsageError
from maskfix.model.checkpoint import load_model
from maskfix.model.registry import build_network

CHANGES = [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("tiny") / "set")


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(train_command)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def train(tiny: Path, out: Path, *arguments: object) -> Result:
    data = ("--data", f"tiny={tiny}", "--out", out, "--workers", 0, "--device", "cpu")
    return run("--recipe", "lite", *data, *CHANGES, *arguments)


def test_train_stop_resume(tiny: Path, tmp_path: Path) -> None:
    first = train(tiny, tmp_path, "--max-minutes", 0)
    assert first.exit_code == 0 and "go on with --resume" in first.stdout
    with pytest.raises(UsageError, match=r"holds a run; go on with --resume"):
        train(tiny, tmp_path)
    second = train(tiny, tmp_path, "--resume")
    assert "done: 16 samples" in second.stdout
    assert load_model(tmp_path / "last.safetensors").info["data"] == ["tiny"]


@pytest.mark.skipif(sys.platform == "win32", reason="no process groups on Windows")
def test_a_signal_to_all_processes_of_a_job_saves(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maskfix", "train", "--recipe", "lite", "--device", "cpu"]
    command += ["--data", f"tiny={tiny}", "--out", str(tmp_path), "--workers", "1", *CHANGES]
    command += ["--set", "epochs=1000", "--set", "validation=[]", "--set", "log_steps=1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        log = tmp_path / "loss.csv"
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 1):
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error.decode()
    assert (tmp_path / "last.pt").exists()


def test_dry_run_checks_all_and_writes_nothing(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(tiny, out, "--dry-run")
    assert result.exit_code == 0 and not out.exists()
    for text in ("lite, 3.3", "tiny: 6 images, 100%", "2 epochs of 2 batches of 4"):
        assert text in result.stdout


def test_finetune_starts_from_maskfix_weights(tiny: Path, tmp_path: Path) -> None:
    train(tiny, tmp_path / "a", "--max-minutes", 0)
    weights = tmp_path / "a" / "last.safetensors"
    still = ("--set", "optimizer.lr=0", "--set", "optimizer.weight_decay=0")
    fixed = (*still, "--set", "optimizer.freeze_norm=true", "--set", "optimizer.ema=0")
    train(tiny, tmp_path / "b", "--init", weights, "--max-minutes", 0, *fixed)
    before, after = (
        load_model(tmp_path / run / "last.safetensors").network.state_dict() for run in "ab"
    )
    assert all(torch.equal(before[key], after[key]) for key in before)
    with pytest.raises(UsageError, match=r"is a lite with .*asks for hrnet18s"):
        network = ("--set", "network={name: hrnet18s}")
        train(tiny, tmp_path / "c", "--init", weights, *network, "--dry-run")


def test_finetuning_scores_the_weights_it_starts_from(tiny: Path, tmp_path: Path) -> None:
    train(tiny, tmp_path / "a", "--max-minutes", 0)
    weights = tmp_path / "a" / "last.safetensors"
    validation = ("--set", "validation=[{name: tiny, limit: 2, min_area: 20}]")
    train(tiny, tmp_path / "b", "--init", weights, *validation)
    rows = (tmp_path / "b" / "validation.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["samples", "0.0", "16.0"]


def test_init_lists_the_keys_of_a_foreign_file(tiny: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, foreign)
    with pytest.raises(CheckpointError, match=r"EfficientNet-Lite0.*_conv_stem"):
        train(tiny, tmp_path / "run", "--init", foreign, "--dry-run")
    with pytest.raises(CheckpointError, match="neither a file nor the name"):
        train(tiny, tmp_path / "run", "--init", "nowhere.pth", "--dry-run")


def test_init_takes_a_hrnet_classifier_file(tiny: Path, tmp_path: Path) -> None:
    network = build_network("hrnet18s")
    state = network.state_dict()
    heads = ("aux_head", "cls_head", "conv3x3_ocr", "ocr_")
    trunk = {
        key.removeprefix("feature_extractor."): value
        for key, value in state.items()
        if key.startswith("feature_extractor.")
        and not key.removeprefix("feature_extractor.").startswith(heads)
    }
    extra = {"classifier.weight": torch.zeros(1000, 2048), "classifier.bias": torch.zeros(1000)}
    torch.save({**trunk, **extra}, tmp_path / "hrnet.pth")
    change = ("--set", "network={name: hrnet18s}", "--init", tmp_path / "hrnet.pth")
    assert train(tiny, tmp_path / "run", *change, "--dry-run").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "--recipe and --out"),
        (("--recipe", "lite", "--out", "x", "--data", "tiny"), "NAME=PATH"),
        (("--recipe", "lite", "--out", "x", *CHANGES), "--data tiny=PATH is missing"),
        (("--recipe", "lite", "--out", "x", "--set", "rl=1"), "rl"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], error: str) -> None:
    with pytest.raises(MaskfixError, match=error):
        run(*arguments)


def test_a_name_the_recipe_does_not_know(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no set of this name, only tiny"):
        train(tiny, tmp_path, "--data", f"other={tiny}", "--dry-run")


def test_list_recipes() -> None:
    result = run("--list-recipes")
    assert result.exit_code == 0
    assert "cocolvis_h18_itm " in result.stdout and "the final model." in result.stdout
