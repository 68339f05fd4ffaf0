"""The forms of the click script beside plain clicks, with the shipped weights: new, merge, split,
holes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from test_refine import (
    HEIGHT,
    SAMPLES,
    WIDTH,
    Run,
    annotations_of,
    disk,
    encoded,
    rows_of,
    run,
    write_clicks,
)

__all__ = ["run"]  # a fixture

LEFT, RIGHT = disk(48, 40, 26), disk(48, 84, 26)  # they touch
RED, BLUE = (200, 60, 60), (60, 90, 210)


def write_set(folder: Path, masks: dict[int, np.ndarray], ring: bool = False) -> None:
    """One image of a red and a blue disk, or of a red ring, and annotations."""
    (folder / "images").mkdir()
    image = np.random.default_rng(0).integers(20, 50, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    image[LEFT] = RED
    image[RIGHT & ~LEFT] = BLUE
    if ring:
        image[:] = 30
        image[disk(48, 64, 36)] = RED
        image[disk(48, 64, 14)] = (30, 120, 30)
    cv2.imwrite(str(folder / "images" / "1.png"), image[..., ::-1])
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": encoded(m)}
        for i, m in masks.items()
    ]
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "disk"}],
    }
    (folder / "preds.json").write_text(json.dumps(content))


def refine(
    run: Run, folder: Path, instance: dict[str, Any], status: int = 0, out: str = "out"
) -> dict[int, np.ndarray]:
    """Run a script of one instance; the masks that come out."""
    masks = folder / "preds.json" if out == "out" else folder / "out" / "annotations.json"
    clicks = write_clicks(folder / "clicks.json", {"file": "1.png", **instance})
    arguments = ["--images", folder / "images", "--masks", masks, "--clicks", clicks]
    assert run("refine", *arguments, "--out", folder / out) == status
    return {
        number: coco_mask.decode(entry["segmentation"]).astype(bool)
        for number, entry in annotations_of(folder / out).items()
    }


def click(x: int, y: int, kind: str = "positive") -> dict[str, Any]:
    return {"x": x, "y": y, "kind": kind}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_new_makes_an_object_out_of_one_click(run: Run, tmp_path: Path) -> None:
    write_set(tmp_path, {7: LEFT})
    masks = refine(
        run, tmp_path, {"new": "disk", "clicks": [click(92, 48), click(34, 48, "negative")]}
    )
    [added] = [mask for number, mask in masks.items() if number != 7]
    np.testing.assert_array_equal(masks[7], LEFT)
    assert added[48, 92] and not added[48, 34] and iou(added, RIGHT & ~LEFT) > 0.4
    [row] = rows_of(tmp_path / "out")
    assert (row["status"], row["category"]) == ("ok", "disk")


def test_merge_with_a_click_in_the_gap(run: Run, tmp_path: Path) -> None:
    first, second = LEFT & ~disk(48, 64, 12), RIGHT & ~LEFT & ~disk(48, 64, 12)
    write_set(tmp_path, {1: first, 2: second})
    masks = refine(run, tmp_path, {"merge": [1, 2], "clicks": [click(60, 48)]})
    assert list(masks) == [1] and masks[1][48, 60]
    assert iou(masks[1], LEFT | RIGHT) > iou(first | second, LEFT | RIGHT)


@pytest.mark.parametrize("positive_left", [True, False])
def test_split_of_a_connected_mask(run: Run, tmp_path: Path, positive_left: bool) -> None:
    write_set(tmp_path, {5: LEFT | RIGHT})
    kinds = ("positive", "negative") if positive_left else ("negative", "positive")
    clicks = [click(34, 48, kinds[0]), click(92, 48, kinds[1])]
    masks = refine(run, tmp_path, {"id": 5, "split": True, "clicks": clicks})
    kept = masks.pop(5)
    [rest] = masks.values()
    np.testing.assert_array_equal(kept ^ rest, LEFT | RIGHT)
    left, right = (kept, rest) if positive_left else (rest, kept)
    assert iou(left, LEFT) > 0.75 and iou(right, RIGHT & ~LEFT) > 0.75
    [row] = rows_of(tmp_path / "out")
    assert (row["status"], row["clicks"]) == ("ok", 2)

    again = refine(run, tmp_path, {"id": 5, "split": True, "clicks": clicks}, out="again")
    assert len(again) == 2 and rows_of(tmp_path / "again")[0]["status"] == "unchanged"


def test_split_needs_its_positive_clicks_in_the_mask(run: Run, tmp_path: Path) -> None:
    write_set(tmp_path, {5: LEFT})
    clicks = [click(100, 48), click(34, 48, "negative")]
    masks = refine(run, tmp_path, {"id": 5, "split": True, "clicks": clicks}, status=1)
    np.testing.assert_array_equal(masks[5], LEFT)
    assert "(100, 48) is not in the mask" in rows_of(tmp_path / "out")[0]["reason"]


def test_a_negative_click_cuts_a_hole(run: Run, tmp_path: Path) -> None:
    whole, hole = disk(48, 64, 36), disk(48, 64, 14)
    write_set(tmp_path, {3: whole}, ring=True)
    masks = refine(run, tmp_path, {"id": 3, "clicks": [click(64, 48, "negative")]})
    assert not masks[3][48, 64] and masks[3][48, 36] and masks[3][48, 92]
    assert iou(masks[3], whole & ~hole) > 0.9
    assert rows_of(tmp_path / "out")[0]["status"] == "ok"


def test_all_without_clicks_cleans_and_harms_nobody(run: Run, tmp_path: Path) -> None:
    arguments = ["--images", SAMPLES / "images", "--reference", SAMPLES / "reference.json", "--all"]
    for masks, least in (("preds.json", 0.01), ("reference.json", -0.002)):
        out = tmp_path / masks
        assert run("refine", *arguments, "--masks", SAMPLES / masks, "--out", out) == 0
        summary = json.loads((out / "summary.json").read_text())
        assert summary["iou_after_mean"] - summary["iou_before_mean"] > least
        assert summary["clicks"] == 0
        for row in rows_of(out):
            assert row["iou_after"] >= row["iou_before"] - 0.01, row
            cleaned = row["reason"].startswith("cleaned without clicks")
            assert row["status"] == "unchanged" or cleaned


def test_all_beside_a_script_reports_the_others_and_leaves_them(run: Run, tmp_path: Path) -> None:
    write_set(tmp_path, {1: LEFT & ~disk(48, 20, 14), 2: RIGHT})
    clicks = write_clicks(
        tmp_path / "c.json", {"file": "1.png", "id": 1, "clicks": [click(20, 48)]}
    )
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json", "--all"]
    assert run("refine", *arguments, "--clicks", clicks, "--out", tmp_path / "out") == 0
    assert [(r["id"], r["status"]) for r in rows_of(tmp_path / "out")] == [
        (1, "ok"),
        (2, "unchanged"),
    ]


def test_the_forms_of_the_samples(run: Run, tmp_path: Path) -> None:
    arguments = ["--images", SAMPLES / "images", "--masks", SAMPLES / "forms.json"]
    arguments += ["--clicks", SAMPLES / "forms.yaml", "--out", tmp_path / "out"]
    assert run("refine", *arguments) == 0
    before = {
        a["id"]: coco_mask.decode(a["segmentation"]).astype(bool)
        for a in json.loads((SAMPLES / "forms.json").read_text())["annotations"]
    }
    after = {
        number: coco_mask.decode(a["segmentation"]).astype(bool)
        for number, a in annotations_of(tmp_path / "out").items()
    }
    assert list(after) == [1, 2, 4, 5, 6]  # 3 is part of 2; 5 was split off, 6 is new
    np.testing.assert_array_equal(after[1] ^ after[5], before[1])
    right = {
        a["id"]: coco_mask.decode(a["segmentation"]).astype(bool)
        for a in json.loads((SAMPLES / "reference.json").read_text())["annotations"]
    }
    assert iou(after[1], right[1]) > 0.9 and iou(after[5], right[2]) > 0.8
    assert iou(after[2], right[3]) > iou(before[2] | before[3], right[3])
    assert before[4][140, 240] and not after[4][140, 240] and after[4][280, 150]
    assert after[6][75, 215] and not after[6][200, 210]
