"""report.html of `maskfix refine`: what is in it, without a browser; see test_browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sheet_data import COL, ROW, Page, command, disk, encoded, write_disk, write_set

import maskfix.refinement.gallery as gallery
import maskfix.report.refinement_page as refinement_page
from maskfix.formats import open_source
from maskfix.formats.click_script import parse_click_script
from maskfix.refinement import outcome
from maskfix.refinement.plan import plan_image
from maskfix.report.sheet_picture import outline

SAMPLES = Path(__file__).parent.parent / "samples"
TOP = {"x": COL, "y": ROW - 14, "kind": "positive"}  # in the part of the disk that is missing


def refined(
    monkeypatch: pytest.MonkeyPatch,
    masks: Path,
    images: list[dict[str, Any]],
    *more: object,
    status: int = 0,
) -> Page:
    """Run refine with a script of these images; the report."""
    folder = masks.parent
    script = folder / "clicks.yaml"
    script.write_text(json.dumps({"version": 1, "images": images}))
    arguments = ["--images", folder / "images", "--masks", masks, "--clicks", script]
    assert command(monkeypatch, "refine", *arguments, "--out", folder / "out", *more) == status
    return Page(folder / "out" / "report.html")


def found_by(page: Page, images: Path, masks: Path) -> dict[str, str]:
    """Label of every item that can be marked -> outline of the mask that its selector names."""
    source = open_source(masks, images)
    found = {}
    for item in page.items:
        if item["selector"] is None:
            continue
        text = f"version: 1\nimages:\n  - file: {item['fileYaml']}\n    instances:\n"
        text += f"      - {item['selector']}\n        action: accept\n"
        [script] = parse_click_script(text.encode(), "clicks.yaml").images
        image = source[source.find_image(script.file)]
        [task] = plan_image(image, script, 96, 128, False, str)
        assert task.problem is None and task.mask is not None
        found[item["label"]] = outline(task.mask)
    return found


def outlines_of(page: Page) -> dict[str, str]:
    """Label of every item with a picture -> outline of its mask after the run."""
    return {
        item["label"]: page.picture(i)["masks"]["after"]
        for i, item in enumerate(page.items)
        if item.get("picture")
    }


def test_samples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = ["--images", SAMPLES / "images", "--clicks", SAMPLES / "clicks.yaml"]
    arguments += ["--masks", SAMPLES / "preds.json", "--reference", SAMPLES / "reference.json"]
    assert command(monkeypatch, "refine", *arguments, "--out", tmp_path / "out") == 0
    page = Page(tmp_path / "out" / "report.html")
    scores = [item["row"]["iou_after"] for item in page.items]
    assert len(scores) == 12 and scores == sorted(scores)
    assert all(item["picture"] and item["takesClicks"] for item in page.items)
    summary = page.blocks["content"]["summary"]
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == {k: v for k, v in written.items() if k not in {"worst", "command"}}
    number = next(i for i, item in enumerate(page.items) if item["label"] == "5")
    picture = page.picture(number)
    assert picture["clicks"][0] == {"x": 144, "y": 105, "positive": True}
    assert picture["masks"]["before"] != picture["masks"]["after"]
    assert picture["masks"]["refused"] == ""
    assert str(tmp_path / "out" / "annotations.json") in page.about["command"]


@pytest.mark.parametrize("kind", ["coco", "results", "labels", "instances"])
def test_names_of_the_second_round(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """After some are deleted and one is new, every selector names the mask that is shown."""
    shapes = [disk(30, 30, 12), disk(30, 90, 14), disk(70, 40, 15), disk(70, 100, 9)]
    write_disk(tmp_path / "images" / "7.png", shapes[2])
    first = 0 if kind == "results" else 1
    masks = write_masks(tmp_path, kind, shapes)
    wishes: list[dict[str, Any]] = [
        {"id": first, "action": "delete"},
        {"id": first + 2, "action": "delete"},
        {"id": first + 1, "clicks": [{"x": 90, "y": 17, "kind": "positive"}]},
        {"id": first + 3, "action": "accept"},
        {"new": "1", "clicks": [{"x": 40, "y": 70, "kind": "positive"}]},
    ]
    page = refined(monkeypatch, masks, [{"file": "7.png", "instances": wishes}])
    after = outlines_of(page)
    assert len(after) == 5 and after[str(first)] == ""
    out = tmp_path / "out" / ("masks" if masks.is_dir() else "annotations.json")
    found = found_by(page, tmp_path / "images", out)
    assert found == {label: path for label, path in after.items() if path}
    assert len(found) == 3


def write_masks(folder: Path, kind: str, shapes: list[np.ndarray]) -> Path:
    if kind in {"coco", "results"}:
        entries = [
            {"image_id": 7, "category_id": 1, "score": 0.5, "segmentation": encoded(shape)}
            for shape in shapes
        ]
        content: Any = entries
        if kind == "coco":
            image = {"id": 7, "file_name": "7.png", "height": 96, "width": 128}
            listed = [{"id": i, **entry} for i, entry in enumerate(entries, start=1)]
            names = [{"id": 1, "name": "1"}]
            content = {"images": [image], "annotations": listed, "categories": names}
        path = folder / "preds.json"
        path.write_text(json.dumps(content))
        return path
    (folder / "masks").mkdir()
    if kind == "labels":
        labels = np.zeros((96, 128), np.uint8)
        for i, shape in enumerate(shapes, start=1):
            labels[shape] = i
        Image.fromarray(labels).save(folder / "masks" / "7.png")
        return folder / "masks"
    for i, shape in enumerate(shapes, start=1):
        Image.fromarray(shape.astype(np.uint8) * 255).save(folder / "masks" / f"7_{i}.png")
    return folder / "masks"


def test_a_refused_mask_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    masks = write_set(tmp_path, [{}, {}], ["disk"])
    monkeypatch.setattr(outcome, "refusal", lambda *args, **kw: "looks wrong")
    wishes = [{"id": 10, "action": "accept"}, {"id": 11, "clicks": [TOP]}]
    page = refined(monkeypatch, masks, [{"file": "a.png", "instances": wishes}])
    assert [item["label"] for item in page.items] == ["11", "10"]  # the rejected one first
    assert page.items[0]["row"]["reason"] == "looks wrong"
    shown = page.picture(0)["masks"]
    assert shown["before"] == shown["after"] != shown["refused"] != ""


def test_what_failed_has_numbers_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entries = [{}, {"image_id": 2}, {"segmentation": {"size": [5, 5], "counts": [9, 9]}}]
    masks = write_set(tmp_path, entries, ["disk"], ["a.png", "b.png"])
    (tmp_path / "images" / "b.png").write_bytes(b"no picture")
    images: list[dict[str, Any]] = [
        {"file": "a.png", "instances": [{"id": 10, "action": "accept"}, {"id": 12}]},
        {"file": "b.png", "instances": [{"id": 11, "clicks": [TOP]}]},
        {"file": "nowhere.png", "instances": []},
    ]
    page = refined(monkeypatch, masks, images, status=1)
    found = {i["label"]: (i.get("picture"), i.get("takesClicks")) for i in page.items}
    assert found == {
        "10": (True, True),
        "11": (None, None),
        "12": (True, False),
        "new": (None, None),
    }
    assert page.items[-1]["label"] == "10" and page.items[0]["row"]["status"] == "failed"


def test_the_worst_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beyond its limits the page says what it leaves out."""
    monkeypatch.setattr(refinement_page, "MOST_ROWS", 4)
    for module in (refinement_page, gallery):
        monkeypatch.setattr(module, "MOST_PICTURES", 2)
    radii = (22, 12, 20, 14, 18, 16)
    write_set(tmp_path, [{"segmentation": encoded(disk())}] * 6, ["disk"]).rename(
        tmp_path / "reference.json"
    )
    entries = [{"segmentation": encoded(disk(radius=radius))} for radius in radii]
    masks = write_set(tmp_path, entries, ["disk"])
    page = refined(monkeypatch, masks, [], "--reference", tmp_path / "reference.json")
    assert [item["label"] for item in page.items] == ["11", "13", "15", "14"]
    assert [name for name in page.blocks if name != "content"] == ["picture-0", "picture-1"]
    assert page.about["limits"] == (
        "The 4 worst of 6 instances are listed here. The 2 worst have pictures. "
        "report.csv has a row for every instance."
    )


def test_resuming_a_finished_run_writes_the_same_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    masks = write_set(tmp_path, [{}], ["disk"])
    images = [{"file": "a.png", "instances": [{"id": 10, "clicks": [TOP]}]}]
    pages = [refined(monkeypatch, masks, images)]
    arguments = ["--images", tmp_path / "images", "--masks", masks, "--out", tmp_path / "out"]
    more = ["--clicks", tmp_path / "clicks.yaml", "--resume"]
    assert command(monkeypatch, "refine", *arguments, *more) == 0
    pages.append(Page(tmp_path / "out" / "report.html"))
    assert pages[0].about["key"] == pages[1].about["key"]
    assert pages[0].items == pages[1].items
