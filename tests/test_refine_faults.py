"""`maskfix refine` on inputs and in folders that are not as they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from test_refine import (
    HEIGHT,
    WIDTH,
    Run,
    annotations_of,
    disk,
    encoded,
    make_set,
    rows_of,
    run,
    without_times,
    write_clicks,
)

from maskfix.formats import Annotation, ImageItem
from maskfix.formats.click_script import ById, InstanceScript
from maskfix.masks import Mask, subtract
from maskfix.refinement.outcome import conclude
from maskfix.refinement.plan import Task
from maskfix.types import Click

__all__ = ["run"]  # a fixture


def arguments_of(folder: Path, *more: object, out: str = "out") -> list[object]:
    masks = folder / "preds.json"
    return ["refine", "--images", folder / "images", "--masks", masks, "--out", folder / out, *more]


def change_annotations(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def top_of(content: dict[str, Any], number: int) -> dict[str, Any]:
    return {**content["tops"][number - 1], "kind": "positive"}


def test_merge_of_masks_of_different_sizes_is_a_row(run: Run, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            del image["height"], image["width"]
        first = content["annotations"][0]
        runs = {"size": [5, 5], "counts": [5, 20]}
        content["annotations"].append({**first, "id": 11, "segmentation": runs})

    make_set(tmp_path)
    change_annotations(tmp_path / "preds.json", change)
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    clicks = write_clicks(tmp_path / "c.json", {"file": "1.png", "merge": [10, 11], "clicks": []})
    assert run(*arguments_of(tmp_path, "--clicks", clicks)) == 1
    [row] = rows_of(tmp_path / "out")
    assert row["status"] == "failed" and row["id"] == 10


def test_a_failed_wish_keeps_its_id_and_its_instance_is_not_worked_on(
    run: Run, tmp_path: Path
) -> None:
    make_set(tmp_path)
    far = {"x": 5000, "y": 3, "kind": "positive"}
    clicks = write_clicks(tmp_path / "c.json", {"file": "1.png", "id": 10, "clicks": [far]})
    assert run(*arguments_of(tmp_path, "--clicks", clicks, "--all")) == 1
    statuses = [(row["id"], row["status"]) for row in rows_of(tmp_path / "out")]
    assert statuses == [(10, "failed"), (20, "unchanged"), (30, "unchanged")]


def test_an_instance_whose_mask_is_damaged_can_be_deleted(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path)
    change_annotations(
        tmp_path / "preds.json", lambda c: c["annotations"][0].update(segmentation="damaged")
    )
    clicks = write_clicks(tmp_path / "c.json", {"file": "1.png", "id": 10, "action": "delete"})
    assert run(*arguments_of(tmp_path, "--clicks", clicks)) == 0
    assert list(annotations_of(tmp_path / "out")) == [20, 30]


def test_an_empty_label_map_of_another_size_is_a_row(run: Run, tmp_path: Path) -> None:
    content = make_set(tmp_path)
    (tmp_path / "masks").mkdir()
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[disk(40, 40, 9)], labels[disk(40, 90, 9)] = 7, 9
    cv2.imwrite(str(tmp_path / "masks" / "1.png"), np.zeros((10, 10), np.uint8))
    cv2.imwrite(str(tmp_path / "masks" / "2.png"), labels)
    clicks = write_clicks(
        tmp_path / "c.json", {"file": "1.png", "new": "disk", "clicks": [top_of(content, 1)]}
    )
    out = tmp_path / "out"
    images = ["--images", tmp_path / "images", "--clicks", clicks, "--out", out]
    assert run("refine", "--masks", tmp_path / "masks", *images) == 1
    [row] = rows_of(out)
    assert row["status"] == "failed" and "annotated as 10x10" in row["reason"]
    assert {p.name for p in (out / "masks").iterdir()} == {"1.png", "2.png"}


def test_outputs_may_lie_among_the_images_if_they_are_none(run: Run, tmp_path: Path) -> None:
    """All in one folder, and no --out."""
    make_set(tmp_path)
    masks = tmp_path / "images" / "preds.json"
    (tmp_path / "preds.json").rename(masks)
    assert run("refine", "--images", tmp_path / "images", "--masks", masks, "--all") == 0
    assert (tmp_path / "images" / "preds-refined" / "annotations.json").exists()


def test_pngs_must_not_lie_among_the_images(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path)
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "1.png"), 255 * disk(40, 40, 9).astype(np.uint8))
    for place in ("images/new", "masks/new"):
        arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "masks", "--all"]
        assert run("refine", *arguments, "--out", tmp_path / place) == 2
        assert not (tmp_path / place).exists()


def test_overwrite_leaves_nothing_of_the_run_before(run: Run, tmp_path: Path) -> None:
    content = make_set(tmp_path)
    (tmp_path / "masks").mkdir()
    for name in ("1_1", "1_2"):
        pixels = 255 * disk(40, 40, 9).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "masks" / f"{name}.png"), pixels)
    clicks = write_clicks(
        tmp_path / "c.json", {"file": "1.png", "new": "disk", "clicks": [top_of(content, 1)]}
    )
    out = tmp_path / "out"
    arguments = ["refine", "--images", tmp_path / "images", "--masks", tmp_path / "masks"]
    assert run(*arguments, "--clicks", clicks, "--out", out) == 0
    assert (out / "masks" / "1_3.png").exists()
    (out / "notes.txt").write_text("mine")
    assert run(*arguments, "--all", "--out", out, "--overwrite") == 0
    assert {p.name for p in (out / "masks").iterdir()} == {"1_1.png", "1_2.png"}
    assert run(*arguments_of(tmp_path, "--all", "--overwrite")) == 0
    assert not (out / "masks").exists() and (out / "notes.txt").exists()


def test_a_resumed_run_counts_all_references(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path, 70)
    arguments = arguments_of(tmp_path, "--reference", tmp_path / "reference.json")
    assert run(*arguments) == 0
    out = tmp_path / "out"
    rows = without_times(out)
    journal = (out / "journal.jsonl").read_bytes().splitlines(keepends=True)
    first_chunk = next(i for i, line in enumerate(journal) if line.startswith(b'{"closed"')) + 1
    (out / "journal.jsonl").write_bytes(b"".join(journal[:first_chunk]))
    assert run(*arguments, "--resume") == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["references_matched_by"] == {"id": 70}
    assert without_times(out) == rows


def test_resume_refuses_other_images_or_another_format(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path)
    assert run(*arguments_of(tmp_path, "--all")) == 0
    assert run(*arguments_of(tmp_path, "--all", "--resume", "--masks-format", "lvis")) == 2
    (tmp_path / "images").rename(tmp_path / "others")
    (tmp_path / "images").mkdir()
    arguments = arguments_of(tmp_path, "--all", "--resume")
    assert run(*arguments, "--images", tmp_path / "others") == 2


@pytest.mark.parametrize(
    "more",
    [
        ["--seed", "-1"],
        ["--jitter", "inf"],
        ["--jitter", "nan"],
        ["--images-json", "nowhere.json"],
    ],
)
def test_one_line_for_bad_values(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    make_set(tmp_path, 1)
    if "--images-json" in more:
        (tmp_path / "preds.json").write_text("[]")
    assert run(*arguments_of(tmp_path, "--all", *more)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and more[-1] in error


def test_a_dry_run_tells_which_images_are_missing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_set(tmp_path)
    (tmp_path / "images" / "2.png").unlink()
    assert run(*arguments_of(tmp_path, "--all", "--dry-run")) == 1
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert "2.png" in problem


def test_a_small_part_can_be_split_off() -> None:
    """The guard does not mind that most of the old mask goes: that was asked for."""
    whole, small = Mask.from_array(disk(40, 60, 25)), Mask.from_array(disk(40, 80, 4))
    annotation = Annotation(0, 1, 0, "disk", 1, whole)
    item = ImageItem(0, 1, "a.png", None, HEIGHT, WIDTH, (annotation,))
    clicks = (Click(80, 40, True), Click(50, 40, False))
    task = Task(annotation, InstanceScript(ById(1), clicks, split=True), whole)
    outcome = conclude(item, task, small, subtract(whole, small), clicks, None, 0, "strict")
    assert outcome.row.status == "ok"
    assert [edit.kind for edit in outcome.edits] == ["replace", "add"]


@pytest.mark.parametrize("line", [0, 1])
@pytest.mark.parametrize("content", ["5", "no JSON", "[]"])
def test_a_damaged_journal_is_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: int, content: str
) -> None:
    make_set(tmp_path, 1)
    assert run(*arguments_of(tmp_path, "--all")) == 0
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("".join(f"{text}\n" for text in [*lines[:line], content, *lines[line:]]))
    capsys.readouterr()
    assert run(*arguments_of(tmp_path, "--all", "--resume")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"line {line + 1}" in error


def test_show_says_what_it_cannot_draw_and_draws_the_rest(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = make_set(tmp_path)
    earlier = json.loads((tmp_path / "preds.json").read_text())
    earlier["images"][1] |= {"height": 2 * HEIGHT, "width": 2 * WIDTH}
    large = np.kron(disk(40, 60, 25), np.ones((2, 2), bool))
    earlier["annotations"][1]["segmentation"] = encoded(large)
    (tmp_path / "earlier.json").write_text(json.dumps(earlier))
    clicks = write_clicks(
        tmp_path / "c.json",
        {"file": "1.png", "id": 10, "clicks": [top_of(content, 1)]},
        {"file": "nowhere.png", "id": 1, "clicks": [top_of(content, 1)]},
    )
    arguments = ["--images", tmp_path / "images", "--masks", tmp_path / "preds.json"]
    arguments += ["--before", tmp_path / "earlier.json", "--clicks", clicks]
    assert run("show", *arguments, "--out", tmp_path / "pictures") == 1
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["1.png", "3.png"]
    error = capsys.readouterr().err
    assert "nowhere.png" in error and f"{2 * WIDTH}x{2 * HEIGHT}" in error
    assert error.count("not drawn") == 2


@pytest.mark.parametrize("line", ['{"row": 5}', '{"row": {"image": "1.png"}, "edits": []}', "{}"])
def test_a_line_that_no_journal_has_is_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    make_set(tmp_path, 1)
    assert run(*arguments_of(tmp_path, "--all")) == 0
    journal = tmp_path / "out" / "journal.jsonl"
    first, *rest = journal.read_text().splitlines()
    journal.write_text("".join(f"{text}\n" for text in [first, line, *rest]))
    capsys.readouterr()
    assert run(*arguments_of(tmp_path, "--all", "--resume")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "line 2 is no line of this journal" in error


def test_a_mask_file_that_changed_is_noticed_when_resuming(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_set(tmp_path)
    (tmp_path / "masks").mkdir()
    mask = 255 * disk(40, 40, 9).astype(np.uint8)
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / "masks" / f"{number}.png"), mask)
    clicks = write_clicks(tmp_path / "c.json", {"file": "1.png", "index": 0, "action": "accept"})
    arguments = ["refine", "--images", tmp_path / "images", "--masks", tmp_path / "masks"]
    arguments += ["--clicks", clicks, "--out", tmp_path / "out"]
    assert run(*arguments) == 0
    assert run(*arguments, "--resume") == 0
    cv2.imwrite(str(tmp_path / "masks" / "2.png"), mask[::-1])
    capsys.readouterr()
    assert run(*arguments, "--resume") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "masks was" in error and "(2 PNG files, " in error
    assert "[" not in error


def test_clicks_without_an_end_are_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_set(tmp_path, 1)
    assert run(*arguments_of(tmp_path, "--clicks", "/dev/zero")) == 2
    assert "/dev/zero: more than 256 MB" in capsys.readouterr().err


def test_numbers_that_this_processor_lacks_are_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskfix.model.device.multiplies_bfloat16", lambda: False)
    make_set(tmp_path, 1)
    clicks = write_clicks(tmp_path / "c.json", {"file": "1.png", "id": 10, "action": "accept"})
    arguments = arguments_of(tmp_path, "--clicks", clicks, "--precision", "bfloat16")
    assert run(*arguments, "--device", "cpu") == 2
    assert "--precision bfloat16: this processor does not have it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_what_is_clicked_can_be_scored(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path)
    clicks = write_clicks(tmp_path / "c.json", {"file": "2.png", "id": 20, "action": "accept"})
    reference = ["--reference", tmp_path / "reference.json"]
    assert run(*arguments_of(tmp_path, "--clicks", clicks, *reference, "--only-clicked")) == 0
    [row] = rows_of(tmp_path / "out")
    assert row["id"] == 20 and row["iou_before"] > 0
    assert run(*arguments_of(tmp_path, *reference, "--only-clicked", out="nothing")) == 2


def test_labels_that_count_otherwise_are_no_ids(run: Run, tmp_path: Path) -> None:
    make_set(tmp_path, 1)
    first, second = disk(40, 40, 20), disk(40, 90, 20)
    for folder, labels in (("masks", (1, 2)), ("right", (2, 1)), ("same", (1, 2))):
        (tmp_path / folder).mkdir()
        pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
        pixels[first], pixels[second] = labels
        cv2.imwrite(str(tmp_path / folder / "1.png"), pixels)
    for folder, way in (("right", "IoU"), ("same", "id")):
        out = tmp_path / f"out-{folder}"
        arguments = ["refine", "--images", tmp_path / "images", "--masks", tmp_path / "masks"]
        assert run(*arguments, "--reference", tmp_path / folder, "--out", out) == 0
        assert [row["iou_before"] for row in rows_of(out)] == [1, 1]
        summary = json.loads((out / "summary.json").read_text())
        assert summary["references_matched_by"] == {way: 1}


def test_an_addition_to_a_damaged_mask_file_is_a_failure(run: Run, tmp_path: Path) -> None:
    content = make_set(tmp_path)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "1.png").write_bytes(b"damaged")
    cv2.imwrite(str(tmp_path / "masks" / "2.png"), 255 * disk(40, 40, 9).astype(np.uint8))
    clicks = write_clicks(
        tmp_path / "c.json", {"file": "1.png", "new": "disk", "clicks": [top_of(content, 1)]}
    )
    arguments = ["refine", "--images", tmp_path / "images", "--masks", tmp_path / "masks"]
    assert run(*arguments, "--clicks", clicks, "--out", tmp_path / "out") == 1
    [row] = rows_of(tmp_path / "out")
    assert row["status"] == "failed" and "not written" in row["reason"]


def test_repeated_image_ids_are_noted(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_set(tmp_path)
    change_annotations(tmp_path / "preds.json", lambda c: c["images"][1].update(id=1))
    assert run(*arguments_of(tmp_path, "--all")) in (0, 1)
    assert "note: image id 1 is there more than once" in capsys.readouterr().err
