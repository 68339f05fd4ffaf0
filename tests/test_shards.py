"""`--shard`, `maskfix merge` and `torchrun`: parts put together are what one run makes."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from test_refine import Run, disk, make_set, run, without_times, write_clicks

from maskfix import evaluate
from maskfix.errors import UsageError
from maskfix.predictor import drive
from maskfix.refinement import inputs
from maskfix.sharding import Shard, parse_shard
from maskfix.triage import run as ranking

__all__ = ["run"]  # a fixture

SHARDS = 3


@pytest.fixture(autouse=True)
def small_chunks_and_no_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images a chunk; time stands still, so that reports can be compared byte for byte."""
    monkeypatch.setattr(inputs, "CHUNK_IMAGES", 2)
    for module in (drive, evaluate):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: 0.0))


def files_of(folder: Path) -> dict[str, bytes]:
    """All files but the journal's first line and the commands, which say who made them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            data = path.read_bytes()
            if name == "journal.jsonl":
                data = data.partition(b"\n")[2]
            if name == "summary.json":
                data = json.dumps({**json.loads(data), "command": None}).encode()
            if name == "report.html":
                data = re.sub(rb'"ran":"[^"]*"', b'"ran":""', data)
            found[name] = data.replace(str(folder).encode(), b"OUT")
    return found


def as_results(folder: Path) -> None:
    content = json.loads((folder / "preds.json").read_text())
    results = [
        {"image_id": a["image_id"], "category_id": 1, "segmentation": a["segmentation"], "score": 1}
        for a in content["annotations"]
    ]
    (folder / "preds.json").write_text(json.dumps(results))


def as_polygons(folder: Path) -> None:
    content = json.loads((folder / "preds.json").read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = [[40, 40, 80, 40, 80, 60, 40, 60]]
    (folder / "preds.json").write_text(json.dumps(content))


def as_lvis(folder: Path) -> None:
    content = json.loads((folder / "preds.json").read_text())
    for image in content["images"]:
        image["neg_category_ids"] = []
    (folder / "preds.json").write_text(json.dumps(content))


def as_png(folder: Path, name: str, value: int, others: int = 0) -> None:
    content = json.loads((folder / "preds.json").read_text())
    (folder / "preds.json").unlink()
    (folder / "preds.json").mkdir()
    for image in content["images"]:
        number = image["id"]
        pixels = value * disk(45, 60, 20).astype(np.uint8)
        pixels[:8, :8] = others
        cv2.imwrite(str(folder / "preds.json" / name.format(number)), pixels)


FORMATS: dict[str, Any] = {
    "coco": lambda folder: None,
    "polygons": as_polygons,
    "lvis": as_lvis,
    "results": as_results,
    "binary": lambda folder: as_png(folder, "{}.png", 255),
    "labels": lambda folder: as_png(folder, "{}.png", 1, others=2),
    "instances": lambda folder: as_png(folder, "{}_7.png", 255),
}


def prepare(folder: Path, kind: str = "coco") -> list[object]:
    """A set of nine images with a script of every sort of wish; the arguments of a run."""
    content = make_set(folder, 9)
    FORMATS[kind](folder)
    tops = [[{**top, "kind": "positive"}] for top in content["tops"]]
    clicks = write_clicks(
        folder / "clicks.json",
        {"file": "1.png", "index": 0, "clicks": tops[0]},
        {"file": "4.png", "new": "ball" if kind in ("coco", "polygons", "lvis") else "1",
         "clicks": tops[3]},
        {"file": "5.png", "index": 0, "action": "delete"},
        {"file": "6.png", "index": 0, "clicks": tops[5]},
        {"file": "8.png", "new": "disk" if kind in ("coco", "polygons", "lvis") else "1",
         "clicks": tops[7]},
        {"file": "9.png", "index": 5, "clicks": tops[8]},
        {"file": "nowhere.png", "index": 0, "clicks": tops[8]},
    )  # fmt: skip
    arguments: list[object] = ["--images", folder / "images", "--masks", folder / "preds.json"]
    return [*arguments, "--clicks", clicks, "--all"]


def do_shards(run: Run, folder: Path, arguments: list[object]) -> list[Path]:
    outs = [folder / f"part{number}" for number in range(1, SHARDS + 1)]
    for number, out in enumerate(outs, 1):
        assert run("refine", *arguments, "--out", out, "--shard", f"{number}/{SHARDS}") in (0, 1)
        assert [path.name for path in out.iterdir()] == ["journal.jsonl"]
    return outs


@pytest.mark.parametrize("kind", FORMATS)
def test_shards_make_what_one_run_makes(run: Run, tmp_path: Path, kind: str) -> None:
    arguments = prepare(tmp_path, kind)
    assert run("refine", *arguments, "--out", tmp_path / "whole") == 1
    outs = do_shards(run, tmp_path, arguments)
    assert run("merge", *reversed(outs), "--out", tmp_path / "merged") == 1
    whole = files_of(tmp_path / "whole")
    assert files_of(tmp_path / "merged") == whole
    assert whole["report.jsonl"].count(b"\n") >= 13
    cut = tmp_path / "merged" / "journal.jsonl"  # a merge can be killed, too
    cut.write_bytes(cut.read_bytes()[:-30])
    (tmp_path / "merged" / "report.csv").unlink()
    assert run("merge", *outs, "--out", tmp_path / "merged", "--resume") == 1
    assert files_of(tmp_path / "merged") == whole
    assert run("refine", *arguments, "--out", tmp_path / "merged", "--resume") == 1
    assert files_of(tmp_path / "merged") == whole


def test_shards_that_do_not_belong_together(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = prepare(tmp_path)
    outs = do_shards(run, tmp_path, arguments)
    first, second, third = outs
    assert run("refine", *arguments, "--out", tmp_path / "whole") == 1
    other = tmp_path / "other"
    of_two = tmp_path / "of_two"
    assert run("refine", *arguments, "--seed", 1, "--out", other, "--shard", "2/3") in (0, 1)
    assert run("refine", *arguments, "--out", of_two, "--shard", "2/2") in (0, 1)
    cut = tmp_path / "cut"
    cut.mkdir()
    lines = (third / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "journal.jsonl").write_bytes(b"".join(lines[:-1]))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "journal.jsonl").write_text("{}\n")
    cases = [
        ([first, third], "of 3 shards 1 are missing: 2"),
        ([first, second, second, third], "both shard 2/3"),
        ([first, other, third], "seed was 0, now 1"),
        ([first, of_two], "3 parts there, 2 here"),
        ([first, second, cut], "shard 3/3 is not finished, 0 of 1"),
        ([first, second, tmp_path / "images"], "has no journal.jsonl"),
        ([first, second, tmp_path / "whole"], "no shard but a whole run"),
        ([foreign, second, first], "no shard"),
    ]
    for folders, words in cases:
        capsys.readouterr()
        assert run("merge", *folders, "--out", tmp_path / "merged") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and words in error, error
        assert not (tmp_path / "merged").exists()
    with (tmp_path / "clicks.json").open("a") as file:
        file.write("\n")
    assert run("merge", *outs, "--out", tmp_path / "merged") == 2
    assert "inputs have changed: clicks was" in capsys.readouterr().err


def test_a_shard_can_be_resumed_but_not_as_another(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = prepare(tmp_path)
    out = tmp_path / "out"
    assert run("refine", *arguments, "--out", out, "--shard", "1/2") == 1
    assert run("refine", *arguments, "--out", out, "--shard", "1/2", "--resume") == 1
    capsys.readouterr()
    assert run("refine", *arguments, "--out", out, "--shard", "2/2", "--resume") == 2
    assert "shard was 1/2, now 2/2" in capsys.readouterr().err


def test_shards_of_an_evaluation(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_set(tmp_path, 5)
    arguments = ["eval", "--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    arguments += ["--reference", tmp_path / "reference.json", "--max-clicks", 2, "--strips", 1]
    assert run(*arguments, "--out", tmp_path / "whole") == 0
    outs = [tmp_path / f"part{number}" for number in (1, 2)]
    for number, out in enumerate(outs, 1):
        assert run(*arguments, "--out", out, "--shard", f"{number}/2") == 0
        assert [path.name for path in out.iterdir()] == ["journal.jsonl"]
    capsys.readouterr()
    assert run("merge", outs[0], "--out", tmp_path / "merged") == 2
    assert "of 2 shards 1 are missing: 2" in capsys.readouterr().err
    assert run("merge", *outs, "--out", tmp_path / "merged") == 0
    merged, whole = files_of(tmp_path / "merged"), files_of(tmp_path / "whole")
    for files in (merged, whole):
        files.pop("journal.jsonl")  # in the order of finishing
    assert merged == whole and {"noc.json", "instances.csv", "report.html"} <= whole.keys()


def test_shards_of_a_triage(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ranking, "CHUNK_IMAGES", 2)
    make_set(tmp_path, 5)
    arguments = ["triage", "--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    arguments += ["--reference", tmp_path / "reference.json", "--budget", 2]
    assert run(*arguments, "--out", tmp_path / "whole") == 0
    outs = [tmp_path / f"part{number}" for number in (1, 2)]
    for number, out in enumerate(outs, 1):
        assert run(*arguments, "--out", out, "--shard", f"{number}/2") == 0
        assert [path.name for path in out.iterdir()] == ["journal.jsonl"]
    capsys.readouterr()
    assert run("merge", outs[1], "--out", tmp_path / "merged") == 2
    assert "of 2 shards 1 are missing: 1" in capsys.readouterr().err
    assert run("merge", *outs, "--out", tmp_path / "merged") == 0
    assert files_of(tmp_path / "merged") == files_of(tmp_path / "whole")
    assert len(files_of(tmp_path / "whole")["triage.csv"].splitlines()) == 6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--engine", "ray"], "pip install 'maskfix[ray]'"),
        (["--engine", "ray", "--shard", "1/2"], "exclude each other"),
        (["--shard", "1/2/3"], "found '1/2/3'"),
    ],
)
def test_what_cannot_be_shared_out_is_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    words: str,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    make_set(tmp_path, 1)
    arguments = ["refine", "--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    assert run(*arguments, "--all", "--out", tmp_path / "out", *more) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "-1/3", "1/3/4", "1/999999999"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="--shard: expected I/N"):
        parse_shard(text)


def test_every_position_has_one_shard() -> None:
    assert parse_shard(None) is None and parse_shard("2/3") == Shard(2, 3)
    for count in (1, 2, 7):
        shards = [Shard(number, count) for number in range(1, count + 1)]
        for position, shard in itertools.product(range(20), shards):
            assert shard.takes(position) == (position % count + 1 == shard.number)


def test_two_processes_of_torchrun(run: Run, tmp_path: Path) -> None:
    """Chunks are of the usual size here: 66 images are two of them."""
    make_set(tmp_path, 66)
    arguments = ["refine", "--images", "images", "--masks", "preds.json"]
    arguments += ["--reference", "reference.json", "--simulate", "1", "--target-iou", "0.8"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "-m", "maskfix", *arguments, "--out", "shared"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("instances") == 1
    subprocess.run(
        [sys.executable, "-m", "maskfix", *arguments, "--out", "single"],
        cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    outs = [tmp_path / "single", tmp_path / "shared"]
    single, shared = ((out / "annotations.json").read_bytes() for out in outs)
    assert single == shared
    assert without_times(outs[0]) == without_times(outs[1]) and len(without_times(outs[0])) == 66
