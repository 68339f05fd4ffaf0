"""`maskfix refine` from end to end: the real command on real files, with the shipped weights."""

from __future__ import annotations

import csv
import json
import os
import random
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
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from test_graphs import run_anew

from maskfix.cli.main import main
from maskfix.model.checkpoint import Model
from maskfix.model.graphs import Recorded
from maskfix.predictor import Predictor

SAMPLES = Path(__file__).parent.parent / "samples"
HEIGHT, WIDTH = 96, 128

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process; returns its exit status."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["maskfix", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        return int(exit_info.value.code or 0)

    return call


def disk(row: int, col: int, radius: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - row) ** 2 + (x - col) ** 2 < radius**2


def encoded(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def make_set(folder: Path, count: int = 3) -> dict[str, Any]:
    """Images with a bright disk each, reference masks, and predictions that miss its top."""
    (folder / "images").mkdir(parents=True)
    images, references, predictions, tops = [], [], [], []
    for i in range(1, count + 1):
        rng = np.random.default_rng(i)
        row, col, radius = rng.integers(35, 60), rng.integers(40, 88), rng.integers(18, 28)
        right = disk(row, col, radius)
        pixels = rng.integers(20, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        pixels[right] = [60, 90, 210]
        cv2.imwrite(str(folder / "images" / f"{i}.png"), pixels)
        images.append({"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH})
        common = {"id": 10 * i, "image_id": i, "category_id": 1, "iscrowd": 0, "note": f"é{i}"}
        references.append({**common, "segmentation": encoded(right), "area": 1, "bbox": [0] * 4})
        cut = right.copy()
        cut[: row - radius // 3] = False
        tops.append({"x": int(col), "y": int(row - radius // 3 - 6)})
        predictions.append({**common, "segmentation": encoded(cut), "area": 1, "bbox": [0] * 4})
    categories = [{"id": 1, "name": "disk"}, {"id": 2, "name": "ball"}]
    for name, listed in (("reference", references), ("preds", predictions)):
        content = {"images": images, "annotations": listed, "categories": categories}
        (folder / f"{name}.json").write_text(json.dumps(content))
    content["tops"] = tops  # where the missing part is
    return content


def write_clicks(path: Path, *entries: dict[str, Any]) -> Path:
    images: dict[str, list[Any]] = {}
    for entry in entries:
        entry = dict(entry)
        images.setdefault(entry.pop("file"), []).append(entry)
    listed = [{"file": f, "instances": instances} for f, instances in images.items()]
    path.write_text(json.dumps({"version": 1, "images": listed}))
    return path


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]


def annotations_of(out: Path) -> dict[int, dict[str, Any]]:
    content = json.loads((out / "annotations.json").read_text())
    return {a["id"]: a for a in content["annotations"]}


def test_samples_improve_every_one(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--images", SAMPLES / "images", "--clicks", SAMPLES / "clicks.yaml"]
    arguments += ["--reference", SAMPLES / "reference.json"]
    assert run("refine", "--masks", SAMPLES / "preds.json", *arguments, "--out", out) == 0
    rows = rows_of(out)
    assert len(rows) == 12
    for row in rows:
        assert row["status"] == "ok", row
        assert row["iou_after"] > row["iou_before"], row
    written = COCO(str(out / "annotations.json"))
    for annotation in written.anns.values():
        assert written.annToMask(annotation).sum() == annotation["area"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"]["ok"] == 12 and summary["iou_after_mean"] > 0.85
    table = list(csv.DictReader((out / "report.csv").read_text("utf-8").splitlines()))
    assert [row["id"] for row in table] == [str(row["id"]) for row in rows]


def test_samples_as_png(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--images", SAMPLES / "images", "--clicks", SAMPLES / "clicks.yaml"]
    assert run("refine", "--masks", SAMPLES / "preds_png", *arguments, "--out", out) == 0
    before = {p.name: p.read_bytes() for p in (SAMPLES / "preds_png").iterdir()}
    after = {p.name: p.read_bytes() for p in (out / "masks").iterdir()}
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_untouched_annotations_come_back_equal(run: Run, tmp_path: Path) -> None:
    content = make_set(tmp_path)
    clicks = write_clicks(
        tmp_path / "clicks.json",
        {"file": "2.png", "id": 20, "clicks": [{**content["tops"][1], "kind": "positive"}]},
    )
    before = (tmp_path / "preds.json").read_bytes()
    out = tmp_path / "out"
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    assert run("refine", *arguments, "--clicks", clicks, "--out", out) == 0
    assert (tmp_path / "preds.json").read_bytes() == before
    old = {a["id"]: a for a in json.loads(before)["annotations"]}
    new = annotations_of(out)
    assert list(new) == list(old)
    assert new[10] == old[10] and new[30] == old[30]
    changed = {key for key in old[20] if old[20][key] != new[20][key]}
    assert changed == {"segmentation", "area", "bbox"} and list(new[20]) == list(old[20])
    (row,) = rows_of(out)
    assert (row["id"], row["status"], row["clicks"]) == (20, "ok", 1)
    assert row["iou_before"] is None and 0 < row["iou_change"] < 1

    again = tmp_path / "again"
    arguments = ["--images", tmp_path / "images", "--masks", out / "annotations.json"]
    assert run("refine", *arguments, "--clicks", clicks, "--out", again) == 0
    assert rows_of(again)[0]["status"] == "unchanged"
    assert (again / "annotations.json").read_bytes() == (out / "annotations.json").read_bytes()


def test_out_defaults_to_a_new_folder_beside_the_masks(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path)
    clicks = write_clicks(tmp_path / "clicks.json", {"file": "1.png", "id": 10, "clicks": []})
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    for expected in ("preds-refined", "preds-refined-2"):
        assert run("refine", *arguments, "--clicks", clicks) == 0
        assert (tmp_path / expected / "annotations.json").exists()


def test_simulated_clicks_follow_the_script_and_stop_at_the_target(
    run: Run, tmp_path: Path
) -> None:
    make_set(tmp_path)
    clicks = write_clicks(
        tmp_path / "clicks.json", {"file": "1.png", "id": 10, "clicks": [], "target": 0.01}
    )
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    arguments += ["--reference", tmp_path / "reference.json", "--clicks", clicks]
    out = tmp_path / "out"
    simulate = ["--simulate", 3, "--target-iou", 0.97]
    assert run("refine", *arguments, *simulate, "--out", out) == 0
    rows = rows_of(out)
    assert [row["clicks"] > 0 for row in rows] == [False, True, True]
    for row in rows[1:]:
        assert row["iou_after"] > row["iou_before"]
        assert row["clicks"] == 3 or row["iou_after"] >= 0.97
    summary = json.loads((out / "summary.json").read_text())
    assert summary["references_matched_by"] == {"id": 3}


def test_reference_alone_adds_scores_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path)
    out = tmp_path / "out"
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    assert run("refine", *arguments, "--reference", tmp_path / "reference.json", "--out", out) == 0
    assert (out / "annotations.json").read_bytes() == (tmp_path / "preds.json").read_bytes()
    for row in rows_of(out):
        assert row["status"] == "unchanged"
        assert 0 < row["iou_before"] == row["iou_after"] < 1


def test_actions(run: Run, tmp_path: Path) -> None:
    content = make_set(tmp_path, 5)
    top = {**content["tops"][2], "kind": "positive"}
    clicks = write_clicks(
        tmp_path / "clicks.json",
        {"file": "1.png", "id": 10, "action": "delete"},
        {"file": "2.png", "index": 0, "action": {"category": "ball"}},
        {"file": "3.png", "new": "ball", "clicks": [top]},
        {"file": "4.png", "id": 40, "action": "accept"},
    )
    out = tmp_path / "out"
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    assert run("refine", *arguments, "--clicks", clicks, "--out", out) == 0
    old = {a["id"]: a for a in content["annotations"]}
    new = annotations_of(out)
    assert 10 not in new and new[40] == old[40] and new[50] == old[50]
    assert new[20] == {**old[20], "category_id": 2}
    (added,) = [a for number, a in new.items() if number not in old]
    assert added["image_id"] == 3 and added["category_id"] == 2 and added["area"] > 0
    statuses = [(row["id"], row["status"]) for row in rows_of(out)]
    assert statuses == [(10, "ok"), (20, "ok"), (added["id"], "ok"), (40, "unchanged")]


def test_merge_and_split(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path, 1)
    path = tmp_path / "preds.json"
    content = json.loads(path.read_text())
    left, right = disk(40, 40, 14), disk(40, 90, 14)
    first = content["annotations"][0]
    content["annotations"] = [
        {**first, "id": 1, "segmentation": encoded(left)},
        {**first, "id": 2, "segmentation": encoded(right)},
    ]
    path.write_text(json.dumps(content))
    arguments = ["--images", tmp_path / "images"]
    clicks = write_clicks(tmp_path / "m.json", {"file": "1.png", "merge": [1, 2], "clicks": []})
    merged = tmp_path / "merged"
    assert run("refine", *arguments, "--masks", path, "--clicks", clicks, "--out", merged) == 0
    (whole,) = annotations_of(merged).values()
    assert whole["id"] == 1 and whole["area"] == (left | right).sum()
    clicks = write_clicks(
        tmp_path / "s.json",
        {
            "file": "1.png",
            "id": 1,
            "split": True,
            "clicks": [
                {"x": 40, "y": 40, "kind": "positive"},
                {"x": 90, "y": 40, "kind": "negative"},
            ],
        },
    )
    out = tmp_path / "split"
    masks = merged / "annotations.json"
    assert run("refine", *arguments, "--masks", masks, "--clicks", clicks, "--out", out) == 0
    parts = annotations_of(out)
    assert len(parts) == 2
    kept = coco_mask.decode(parts.pop(1)["segmentation"]).astype(bool)
    (rest,) = parts.values()
    assert f"the rest is instance {rest['id']}" in rows_of(out)[0]["reason"]
    rest_mask = coco_mask.decode(rest["segmentation"]).astype(bool)
    assert kept[40, 40] and not kept[40, 90] and rest_mask[40, 90] and not (kept & rest_mask).any()


def test_contradicting_clicks_are_refused(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path, 1)
    both = [{"x": 50, "y": 40, "kind": kind} for kind in ("positive", "negative")]
    clicks = write_clicks(tmp_path / "c.json", {"file": "1.png", "id": 10, "clicks": both})
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    assert run("refine", *arguments, "--clicks", clicks, "--out", tmp_path / "out") == 1
    assert "both kinds at (50, 40)" in rows_of(tmp_path / "out")[0]["reason"]


def test_faults_are_rows_and_the_rest_is_done(run: Run, tmp_path: Path) -> None:
    content = make_set(tmp_path, 6)
    path = tmp_path / "preds.json"
    data = json.loads(path.read_text())
    (tmp_path / "images" / "2.png").write_bytes(b"no image")
    data["annotations"][2]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": "zz~"}
    data["annotations"][3]["segmentation"] = []
    data["images"][4]["width"] = WIDTH + 1
    path.write_text(json.dumps(data))
    tops = [{**top, "kind": "positive"} for top in content["tops"]]
    clicks = write_clicks(
        tmp_path / "clicks.json",
        *({"file": f"{i}.png", "id": 10 * i, "clicks": [tops[i - 1]]} for i in range(1, 6)),
        {"file": "6.png", "id": 60, "clicks": [{"x": 5000, "y": 3, "kind": "positive"}]},
        {"file": "6.png", "id": 61, "clicks": [tops[5]]},
        {"file": "nowhere.png", "id": 1, "clicks": [tops[5]]},
    )
    out = tmp_path / "out"
    arguments = ["--images", tmp_path / "images", "--masks", path, "--clicks", clicks]
    assert run("refine", *arguments, "--out", out) == 1
    rows = {(row["image"], row["id"]): row for row in rows_of(out)}
    assert rows["1.png", 10]["status"] == "ok"
    expected = {
        ("2.png", 20): "cannot be read",
        ("3.png", 30): "run lengths",
        ("5.png", 50): f"{WIDTH + 1}x{HEIGHT}",
        ("nowhere.png", None): "not among",
    }
    for key, text in expected.items():
        assert rows[key]["status"] == "failed" and text in rows[key]["reason"], rows[key]
    outside, unknown = (row for row in rows_of(out) if row["image"] == "6.png")
    assert "outside" in outside["reason"] and "clicks.json:1" in outside["reason"]
    assert "id 61" in unknown["reason"]
    assert run("refine", *arguments, "--out", tmp_path / "fast", "--fail-fast") == 1


def test_unknown_categories_fail_before_any_work(run: Run, tmp_path: Path) -> None:
    content = make_set(tmp_path)
    top = {**content["tops"][0], "kind": "positive"}
    clicks = write_clicks(
        tmp_path / "clicks.json",
        {"file": "1.png", "new": "unicorn", "clicks": [top]},
        {"file": "1.png", "id": 10, "action": {"category": "unicorn"}},
        {"file": "2.png", "id": 20, "action": {"category": "ball"}},
    )
    out = tmp_path / "out"
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    assert run("refine", *arguments, "--clicks", clicks, "--out", out) == 1
    assert [row["status"] for row in rows_of(out)] == ["failed", "failed", "ok"]
    assert all("unicorn" in row["reason"] for row in rows_of(out)[:2])
    assert annotations_of(out)[20]["category_id"] == 2


def test_results_without_ids_are_matched_by_iou(run: Run, tmp_path: Path) -> None:
    content = make_set(tmp_path)
    predictions = json.loads((tmp_path / "preds.json").read_text())["annotations"]
    results = [
        {key: a[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 0.5}
        for a in reversed(predictions)
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    reference = json.loads((tmp_path / "reference.json").read_text())
    for number, annotation in enumerate(reference["annotations"]):
        annotation["id"] = number  # the positions of other objects in the results
    (tmp_path / "reference.json").write_text(json.dumps(reference))
    out = tmp_path / "out"
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "results.json"]
    assert run("refine", *arguments, "--reference", tmp_path / "reference.json", "--out", out) == 0
    assert all(row["iou_before"] > 0.5 for row in rows_of(out)) and len(content["images"]) == 3
    summary = json.loads((out / "summary.json").read_text())
    assert summary["references_matched_by"] == {"IoU": 3}


def test_wrong_folder_of_images_is_an_error_of_the_command(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_set(tmp_path)
    (tmp_path / "other").mkdir()
    arguments = ["--images", tmp_path / "other", "--masks", tmp_path / "preds.json", "--all"]
    assert run("refine", *arguments, "--out", tmp_path / "out") == 2
    assert "none of the 3 images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_with_a_list_of_images_and_a_reference(run: Run, tmp_path: Path) -> None:
    content = make_set(tmp_path)
    results = [
        {"image_id": 100 + a["image_id"], "category_id": 1, "segmentation": a["segmentation"]}
        for a in json.loads((tmp_path / "preds.json").read_text())["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    images = [{**image, "id": 100 + image["id"]} for image in content["images"]]
    (tmp_path / "list.json").write_text(json.dumps({"images": images, "categories": []}))
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "results.json"]
    arguments += ["--images-json", tmp_path / "list.json"]
    reference = tmp_path / "reference.json"
    assert run("refine", *arguments, "--reference", reference, "--out", tmp_path / "out") == 0
    assert all(row["iou_before"] > 0.5 for row in rows_of(tmp_path / "out"))
    arguments += ["--before", tmp_path / "results.json", "--out", tmp_path / "pictures"]
    assert run("show", *arguments) == 0
    assert len(list((tmp_path / "pictures").iterdir())) == len(results)


def test_names_that_are_no_text_do_not_stop_a_run(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path, 2)
    data = json.loads((tmp_path / "preds.json").read_text())
    data["categories"][0]["name"] = "\ud800"
    (tmp_path / "preds.json").write_text(json.dumps(data))
    out = tmp_path / "out"
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    assert run("refine", *arguments, "--all", "--out", out) == 0
    assert [row["category"] for row in rows_of(out)] == ["?", "?"]


@pytest.mark.parametrize("out", ["images", ".", "preds.json"])
def test_outputs_stay_apart_from_inputs(run: Run, tmp_path: Path, out: str) -> None:
    make_set(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()}
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    arguments += ["--out", tmp_path / out]
    assert run("refine", *arguments, "--all", "--overwrite") == 2
    assert run("show", *arguments) == 2
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "nowhere", "--masks", "preds.json", "--clicks", "c.json"], "nowhere"),
        (["--images", "images", "--masks", "nowhere.json", "--clicks", "c.json"], "nowhere.json"),
        (["--images", "images", "--masks", "preds.json"], "--clicks"),
        (["--images", "images", "--masks", "preds.json", "--simulate", "3"], "--reference"),
        (["--images", "images", "--masks", "preds.json", "--clicks", "broken.yaml"], "broken.yaml"),
        (["--images", "images", "--masks", "broken.json", "--clicks", "c.json"], "broken.json"),
        (["--images", "images", "--masks", "preds.json", "--clicks", "c.json", "--model", "lire"],
         "lire"),
        (["--images", "images", "--masks", "preds.json", "--clicks", "c.json", "--device", "cuda"],
         "--device"),
        (["--images", "images", "--masks", "preds.json", "--clicks", "c.json", "--out", "taken"],
         "taken"),
        (["--images", "images", "--masks", "preds.json", "--clicks", "c.json", "--resume"],
         "--out"),
        (["--images", "images", "--masks", "preds.json", "--clicks", "c.json", "--batch-size",
          "0"], "--batch-size"),
        (["--wrong-flag"], "--wrong-flag"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    make_set(tmp_path, 1)
    (tmp_path / "broken.yaml").write_text("version: 1\nimages: [")
    (tmp_path / "broken.json").write_text('{"images": [')
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "work.txt").write_text("mine")
    write_clicks(tmp_path / "c.json", {"file": "1.png", "id": 10, "clicks": []})
    monkeypatch.chdir(tmp_path)
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    assert run("refine", *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error, error
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_dry_run_writes_nothing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_set(tmp_path)
    clicks = write_clicks(
        tmp_path / "c.json",
        {"file": "1.png", "id": 10, "clicks": [{"x": 3, "y": 3, "kind": "negative"}]},
        {"file": "2.png", "id": 99, "clicks": []},
    )
    before = sorted(tmp_path.rglob("*"))
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    assert run("refine", *arguments, "--clicks", clicks, "--dry-run") == 1
    plan = json.loads(capsys.readouterr().out)
    assert (plan["images_to_do"], plan["instances_to_do"], plan["clicks"]) == (2, 2, 1)
    assert len(plan["problems"]) == 1 and "id 99" in plan["problems"][0]
    assert sorted(tmp_path.rglob("*")) == before


def without_times(out: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "ms"} for row in rows_of(out)]


def test_killed_and_resumed_runs_end_the_same(tmp_path: Path) -> None:
    """kill -9 at random moments, as often as it takes; the result is that of one quiet run."""
    make_set(tmp_path, 200)
    command = [sys.executable, "-m", "maskfix", "refine", "--images", "images"]
    command += ["--masks", "preds.json", "--reference", "reference.json", "--simulate", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

    def start(out: str, *more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "--out", out, *more],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    assert start("quiet").wait() == 0
    chance = random.Random(4)
    journal = tmp_path / "cut" / "journal.jsonl"
    kills, more = 0, []
    while kills < 3:
        process = start("cut", *more)
        size = journal.stat().st_size if journal.exists() else 0
        while process.poll() is None:  # strike soon after the journal has grown
            if journal.exists() and journal.stat().st_size > max(size, 400):
                time.sleep(chance.random() * 0.2)
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        kills += process.wait() == -signal.SIGKILL
        if process.returncode == 0:
            break
        with journal.open("ab") as file:  # a torn line, as a crash may leave it
            file.write(b'{"row": {"image"')
        more = ["--resume"]
    assert kills >= 1
    assert start("cut", "--resume").wait() == 0
    quiet, cut = tmp_path / "quiet", tmp_path / "cut"
    assert (cut / "annotations.json").read_bytes() == (quiet / "annotations.json").read_bytes()
    assert without_times(cut) == without_times(quiet)


def test_resume_refuses_another_run(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path)
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    arguments += ["--reference", tmp_path / "reference.json", "--out", tmp_path / "out"]
    assert run("refine", *arguments) == 0
    assert run("refine", *arguments) == 2
    assert run("refine", *arguments, "--resume") == 0
    assert run("refine", *arguments, "--resume", "--simulate", 1) == 2
    assert run("refine", *arguments, "--overwrite", "--simulate", 1) == 0


def test_batches_make_the_masks_of_single_calls(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens on a GPU, carried out on the CPU: recorded sizes, batches of several."""

    class Batching(Predictor):
        def __init__(self, model: Model, batch_size: int) -> None:
            super().__init__(model, batch_size=batch_size)
            self.in_batches = True
            self.logits = Recorded(self.logits, batch_size, run_anew)

    found = []
    for out in ("single", "batches"):
        folder = tmp_path / out
        inputs = ["--images", SAMPLES / "images", "--masks", SAMPLES / "preds.json"]
        script = ["--clicks", SAMPLES / "clicks.yaml", "--reference", SAMPLES / "reference.json"]
        assert run("refine", *inputs, *script, "--batch-size", 3, "--out", folder) == 0
        rows = list(csv.DictReader((folder / "report.csv").read_text().splitlines()))
        found.append([(row["image"], row["id"], float(row["iou_after"])) for row in rows])
        monkeypatch.setattr("maskfix.refinement.run.Predictor", Batching)
    assert [row[:2] for row in found[0]] == [row[:2] for row in found[1]]
    for one, other in zip(*found, strict=True):
        assert one[2] == pytest.approx(other[2], abs=2e-3)
