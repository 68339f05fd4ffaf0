"""``maskfix eval`` and ``maskfix compare`` on real files: outputs, resume, messages."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
from PIL import Image
from test_predictor import scene
from typer.testing import CliRunner

from maskfix.benchmarks import PAPER_ZOOM, Benchmark
from maskfix.cli.eval import compare_command, evaluate_command
from maskfix.errors import InputError, MaskfixError, UsageError
from maskfix.evaluation import Entry, EvalConfig, SetConfig
from maskfix.masks import Mask
from maskfix.methods import Contestant
from maskfix.model.checkpoint import load_model, save_weights
from maskfix.model.registry import build_network
from maskfix.predictor import PaperProtocol, Predictor
from maskfix.rle import counts_from_mask, text_from_counts

app = typer.Typer()
app.command("eval")(evaluate_command)
app.command("compare")(compare_command)
runner = CliRunner()

TIMINGS = re.compile(r'"spc(_published)?": [0-9.e-]+')


def run(*arguments: object, status: int = 0) -> str:
    result = runner.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.output


def annotation(number: int, image: int, mask: np.ndarray) -> dict[str, Any]:
    counts = text_from_counts(counts_from_mask(Mask.from_array(mask)))
    runs = {"size": list(mask.shape), "counts": counts}
    return {"id": number, "image_id": image, "category_id": 1, "segmentation": runs}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, a set of four instances in three images, and masks to start from."""
    root = tmp_path_factory.mktemp("eval")
    torch.manual_seed(3)
    network = build_network("lite").eval()
    info = {"trained": False}
    save_weights(root / "net.safetensors", "lite", {}, network.state_dict(), info)
    (root / "set/images").mkdir(parents=True)
    (root / "set/masks").mkdir()
    images, references, starts = [], [], []
    for i in range(4):
        image, mask = scene(i, 64, 96)
        file = f"{i}.png"
        Image.fromarray(image).save(root / "set/images" / file)
        cv2.imwrite(str(root / "set/masks" / file), mask.astype(np.uint8) * 255)
        images.append({"id": i, "file_name": file, "height": 64, "width": 96})
        references.append(annotation(10 + i, i, mask))
        starts.append(annotation(10 + i, i, np.roll(mask, 4, axis=1)))
    for name, masks in (("set/annotations.json", references), ("start.json", starts)):
        content = {"images": images, "annotations": masks, "categories": []}
        (root / name).write_text(json.dumps(content))
    return root


def flags(data: Path, *more: object) -> list[object]:
    return ["eval", "--model", data / "net.safetensors", "--max-clicks", 3, *more]


def read_rows(out: Path) -> list[dict[str, str]]:
    with (out / "instances.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without_timings(path: Path) -> str:
    text = path.read_text()
    assert TIMINGS.search(text)
    return TIMINGS.sub("", text)


def test_one_call_makes_one_table(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = run(*flags(
        data, "--dataset", f"scratch={data / 'set'}", "--dataset", f"given={data / 'set'}",
        "--masks", f"given={data / 'start.json'}", "--out", out, "--strips", 1,
    ))  # fmt: skip
    assert "warning: " in text and "random weights" in text
    content = json.loads((out / "noc.json").read_text())
    scratch, given = content["results"]
    assert [(r["set"], r["model"], r["method"], r["n"]) for r in (scratch, given)] == [
        ("scratch", "net", "ritm", 4),
        ("given", "net", "ritm", 4),
    ]
    assert scratch["worse@1"] is None and scratch["miou@0"] == 0
    assert 0 <= given["broken@1"] <= 1 and 0.5 < given["miou@0"] < 0.9
    assert len(given["miou@k"]) == 3
    rows = read_rows(out)
    assert [row["name"] for row in rows[:2]] == ["0.png#10", "1.png#11"]
    for result, own in ((scratch, rows[:4]), (given, rows[4:])):
        assert {row["set"] for row in own} == {result["set"]}
        noc = np.mean([int(row["noc@90"]) for row in own])
        assert noc == result["noc@90"]
        assert np.mean([float(row["iou@1"]) for row in own]) == pytest.approx(
            result["miou@k"][0], abs=1e-8
        )
    table = (out / "table.md").read_text()
    assert f"| net | {scratch['noc@80']:.2f} |" in table
    assert "worse@1" in table.split("## given")[1]
    assert "worse@1" not in table.split("## given")[0]
    page = (out / "report.html").read_text()
    assert "data:image/jpeg;base64," in page and "https" not in page and 'src="/' not in page
    strip = cv2.imread(str(out / "strips/given_net_ritm/01.png"))
    assert strip.shape[0] == 266


def test_plots(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    arguments = flags(data, "--dataset", f"a/b={data / 'set'}", "--limit", 1, "--strips", 0)
    run(*arguments, "--out", tmp_path / "with")
    found = sorted(path.name for path in (tmp_path / "with/plots").iterdir())
    assert found == ["a_b-miou.png", "a_b-noc.png"]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    text = run(*arguments, "--out", tmp_path / "without")
    assert "no plots without matplotlib: pip install 'maskfix[report]'" in text
    assert not (tmp_path / "without/plots").exists()


def test_any_format(data: Path, tmp_path: Path) -> None:
    """COCO files beside a folder of images; the initial masks are matched by id."""
    out = tmp_path / "out"
    run(*flags(
        data, "--images", data / "set/images", "--reference", data / "set/annotations.json",
        "--masks", data / "start.json", "--out", out, "--limit", 2, "--strips", 0,
    ))  # fmt: skip
    content = json.loads((out / "noc.json").read_text())
    assert content["results"][0]["n"] == 2
    assert content["sets"][0]["instances"] == 4 and content["sets"][0]["name"] == "images"
    rows = read_rows(out)
    assert [row["name"] for row in rows] == ["0.png#10", "2.png#12"]


def test_numbers_do_not_depend_on_batches_and_workers(data: Path, tmp_path: Path) -> None:
    written = []
    for batch_size, workers in ((1, 1), (16, 3)):
        out = tmp_path / str(batch_size)
        run(*flags(
            data, "--dataset", f"s={data / 'set'}", "--out", out, "--strips", 0,
            "--batch-size", batch_size, "--workers", workers,
        ))  # fmt: skip
        written.append((without_timings(out / "noc.json"), (out / "instances.csv").read_text()))
    assert written[0] == written[1]


def test_protocol_of_the_published_numbers(data: Path, tmp_path: Path) -> None:
    """``--protocol paper`` zooms to 600 on DAVIS, to 400 elsewhere."""
    for name, expected in (("DAVIS", 600), ("mine", 400)):
        config = EvalConfig(
            sets=(SetConfig(name, data),), out=tmp_path / "out", protocol="paper", device="cpu"
        )
        model = load_model(data / "net.safetensors")
        zoom = PAPER_ZOOM.get(name.lower(), 400)
        entry = Entry(Benchmark(name, (), paper_zoom=zoom), Contestant("ritm", model))
        predictor = entry.make(config)
        assert isinstance(predictor, Predictor)
        assert isinstance(predictor.protocol, PaperProtocol)
        assert predictor.protocol.zoom_target == expected and predictor.flip


def test_killed_and_resumed(data: Path, tmp_path: Path) -> None:
    common = flags(
        data, "--dataset", f"s={data / 'set'}", "--strips", 0, "--batch-size", 1, "--masks",
        f"s={data / 'start.json'}", "--target-iou", 1.01, "--max-clicks", 9,
    )  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(*common, "--out", whole)
    arguments = [str(a) for a in (*common, "--out", cut)]
    program = f"from test_cli_eval import app; app({arguments!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    journal = cut / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"closed") >= 1):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cut / "noc.json").exists()
    done = journal.read_bytes()
    with journal.open("ab") as file:
        file.write(b'{"row": {"set": "s", "na')  # as a write that was cut
    run(*common, "--out", cut, "--resume")
    assert journal.read_bytes().startswith(done[: done.rindex(b"closed")])
    assert without_timings(cut / "noc.json") == without_timings(whole / "noc.json")
    assert (cut / "instances.csv").read_bytes() == (whole / "instances.csv").read_bytes()
    with pytest.raises(UsageError, match="is of another run: settings"):
        run(*common, "--out", cut, "--resume", "--jitter", 1)


SET = "--dataset=s={data}/set"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to evaluate: give --dataset NAME=PATH"),
        (["--dataset", "where"], "expected NAME=PATH, found 'where'"),
        ([SET, SET], "s is given twice"),
        (["--dataset", "s={data}/none"], "expected a folder or a tar"),
        ([SET, "--masks", "{data}/start.json"], "belongs to no set; give NAME=FILE"),
        ([SET, "--masks", "s={data}/none.json"], "masks to start from, found none"),
        ([SET, "--images", "{data}"], "--images and --reference go together"),
        ([SET, "--thresholds", "0.9,0.8"], "expected rising numbers"),
        ([SET, "--thresholds", "0.9;1"], "expected numbers with commas"),
        ([SET, "--method", "magic"], "there is no magic; there are: ritm"),
        ([SET, "--max-clicks", "0"], "--max-clicks: expected at least 1, found 0"),
        ([SET, "--min-area", "100000"], "no instance of s has 100000 pixels"),
        ([SET, "--out", "{data}"], "overlap; give a folder of its own"),
        ([SET, "--out", "{data}/net.safetensors"], "exists; give another, or --overwrite"),
    ],
)
def test_messages(data: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    filled = [argument.replace("{data}", str(data)) for argument in arguments]
    with pytest.raises(MaskfixError, match=re.escape(message)):
        run(*flags(data, "--out", tmp_path / "out", *filled))
    assert not (tmp_path / "out").exists()


def make_run(folder: Path, model: str, change: Callable[[int], float]) -> Path:
    """A finished run of 30 instances whose first IoU is `change(i)`, the second one 0.95."""
    folder.mkdir()
    settings = {"thresholds": [0.8, 0.9], "max_clicks": 2}
    (folder / "noc.json").write_text(json.dumps({"settings": settings}))
    lines = ["set,model,method,name,iou@0,iou@1,iou@2"]
    lines += [f"s,{model},ritm,i{i},0,{change(i)},0.95" for i in range(30)]
    (folder / "instances.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_compare(tmp_path: Path) -> None:
    good = make_run(tmp_path / "good", "old", lambda i: 0.92)
    bad = make_run(tmp_path / "bad", "new", lambda i: 0.92 if i % 2 else 0.5)
    noise = make_run(tmp_path / "noise", "new", lambda i: 0.5 if i == 7 else 0.91)
    text = run("compare", good, bad, "--fail-if-worse", status=1)
    assert "| s | 30 | +0.50 |" in text and "| 0 / 15 | -0.210 | worse |" in text
    assert "changed most: i0: 1 -> 2; i2: 1 -> 2" in text
    assert "| better |" in run("compare", bad, good, "--fail-if-worse")
    assert "| no difference |" in run("compare", good, noise, "--fail-if-worse")
    run("compare", good, bad)
    with pytest.raises(InputError, match="expected the folder of a finished 'maskfix eval'"):
        run("compare", good, tmp_path)
