"""Small islands and small holes: exact on drawings, then ``--min-part`` on the samples."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskfix.cli.main import main
from maskfix.formats import Annotation, ImageItem, open_source
from maskfix.formats.click_script import ById, InstanceScript, Merge
from maskfix.formats.segmentation import encode
from maskfix.masks import Mask, components, intersection, iou, union
from maskfix.refinement.outcome import Outcome, conclude
from maskfix.refinement.parts import tidy
from maskfix.refinement.plan import Task
from maskfix.types import Click

SAMPLES = Path(__file__).parent.parent / "samples"

Run = Callable[..., int]


def drawn(text: str) -> np.ndarray:
    """A drawing as (H, W) bool: # and + are object; rows are separated by blanks."""
    return np.array([[c in "#+" for c in row] for row in text.split()])


def marks(text: str) -> list[Click]:
    """The clicks of a drawing: + is positive, - is negative."""
    return [
        Click(x, y, c == "+")
        for y, row in enumerate(text.split())
        for x, c in enumerate(row)
        if c in "+-"
    ]


def shown(mask: Mask) -> str:
    return " ".join("".join(".#"[int(pixel)] for pixel in row) for row in mask.to_array())


def tidied(text: str, least: int) -> str:
    mask = Mask.from_array(drawn(text))
    return shown(tidy(mask, Mask.empty(mask.height, mask.width), marks(text), least)[0])


@pytest.mark.parametrize(
    ("least", "before", "after"),
    [
        # islands
        (3, "##..#.. ###.#.. .......", "##..... ###.... ......."),
        (2, "##..#.. ###.#.. .......", "##..#.. ###.#.. ......."),  # as large as PX: stays
        (9, "####... ####.#. ####...", "####... ####... ####..."),
        (9, "####... ####.+. ####...", "####... ####.#. ####..."),  # a click holds it
        (9, "####... ####..# ####.#.", "####... ####... ####..."),  # a corner: one island of two
        (2, "####... ####..# ####.#.", "####... ####..# ####.#."),
        (9, "##..#.. ##..#.. .......", "##..... ##..... ......."),  # the largest of small ones
        (9, "##..##. ....... .......", "##..... ....... ......."),  # of equal ones the first
        (9, "##..+.. ##..#.. .......", "....#.. ....#.. ......."),  # one has a click: it stays
        (9, "..+.... ....... .......", "..#.... ....... ......."),
        (9, "....... ....... .......", "....... ....... ......."),
        # holes
        (2, "##### #.#.# ##### #..## #####", "##### ##### ##### #..## #####"),
        (3, "##### #.#.# ##### #..## #####", "##### ##### ##### ##### #####"),
        (1, "##### #.#.# ##### #..## #####", "##### #.#.# ##### #..## #####"),
        (9, "##### #.#-# ##### #..## #####", "##### ###.# ##### ##### #####"),  # a click holds it
        (9, "##### #.#.. ##### ##### #####", "##### ###.. ##### ##### #####"),  # open: no hole
        (9, "#.### #.### ##### ##### #####", "#.### #.### ##### ##### #####"),  # at the border
        (9, "##### ##.## #.### ##### #####", "##### ##### ##### ##### #####"),
        (
            2,
            "##### ##.## #.### ##### #####",
            "##### ##### ##### ##### #####",
        ),  # a corner: two holes
        (2, "##### #..## #.### ##### #####", "##### #..## #.### ##### #####"),
        # an island in a hole: it goes first, and the hole is as large as without it
        (9, "##### #...# #.#.# #...# #####", "##### #...# #...# #...# #####"),
        (10, "##### #...# #.#.# #...# #####", "##### ##### ##### ##### #####"),
        (9, "##### #...# #.+.# #...# #####", "##### ##### ##### ##### #####"),  # a hole of eight
        (8, "##### #...# #.+.# #...# #####", "##### #...# #.#.# #...# #####"),
        # an island counts without its hole
        (9, "###.### #.#.### ###.### .......", "....### ....### ....### ......."),
    ],
)
def test_small_islands_and_holes(least: int, before: str, after: str) -> None:
    assert tidied(before, least) == after


def test_what_is_split_off_is_filtered_by_its_own_clicks() -> None:
    mask = Mask.from_array(drawn(".#### .#..# .#..# .####"))
    rest = Mask.from_array(drawn("#.... ..#.. ..... #...."))
    clicks = [Click(1, 0, True), Click(2, 1, False)]
    first, second = tidy(mask, rest, clicks, 9)
    assert shown(first) == ".#### .#..# .#..# .####"  # the other one is in the hole, with a click
    assert shown(second) == "..... ..#.. ..... ....."


@st.composite
def results(draw: st.DrawFn) -> tuple[Mask, Mask, list[Click]]:
    """A mask, one beside it, and clicks that agree with both."""
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    whole = draw(arrays(bool, shape))
    side = draw(arrays(bool, shape)) if draw(st.booleans()) else np.zeros(shape, bool)
    places = st.tuples(st.integers(0, shape[0] - 1), st.integers(0, shape[1] - 1))
    clicks = [Click(x, y, bool(whole[y, x] and not side[y, x])) for y, x in draw(st.lists(places))]
    return Mask.from_array(whole & ~side), Mask.from_array(whole & side), clicks


@settings(max_examples=300, deadline=None)
@given(results(), st.integers(1, 30))
def test_clicks_hold_and_nothing_is_emptied(
    result: tuple[Mask, Mask, list[Click]], least: int
) -> None:
    *masks, clicks = result
    first, second = tidy(*masks, clicks, least)
    assert (first.area > 0, second.area > 0) == tuple(mask.area > 0 for mask in masks)
    assert intersection(first, second) == 0
    turned = [replace(click, positive=not click.positive) for click in clicks]
    for before, after, own in ((masks[0], first, clicks), (masks[1], second, turned)):
        for click in own:
            if before.contains(int(click.y), int(click.x)) == click.positive:
                assert after.contains(int(click.y), int(click.x)) == click.positive
        for part in components(after)[1:]:
            assert part.area >= least or any(
                click.positive and part.contains(int(click.y), int(click.x)) for click in own
            )
    assert tidy(first, second, clicks, least) == (first, second)
    assert tidy(first, second, clicks, 1) == (first, second)


# What `conclude` makes of it.

BODY = "........... .#######... .#######... .##.####... .#######... ..........."
SPECK = BODY.replace("...........", "..........#", 1)
GROWN = SPECK.replace(".#######...", "########...", 1)  # by the pixel (0, 1)


def concluded(
    before: str, after: str, *clicks: Click, min_part: int = 4, guard: str = "normal", **more: Any
) -> Outcome:
    old, new = Mask.from_array(drawn(before)), Mask.from_array(drawn(after))
    annotation = Annotation(0, 1, 0, "thing", 1, old)
    item = ImageItem(0, 1, "a.png", None, old.height, old.width, (annotation,))
    task = Task(annotation, InstanceScript(ById(1), clicks), old, **more)
    return conclude(item, task, new, None, clicks, old, 0, guard, min_part)  # type: ignore[arg-type]


def test_a_mask_that_does_not_change_keeps_its_parts() -> None:
    outcome = concluded(SPECK, SPECK)
    assert outcome.row.status == "unchanged" and not outcome.edits
    assert outcome.row.pixels_added == outcome.row.pixels_removed == 0


def test_the_parts_of_the_given_mask_go_with_a_change_and_are_reported() -> None:
    outcome = concluded(SPECK, GROWN, Click(0, 1, True))
    [edit] = outcome.edits
    assert edit.mask is not None
    assert shown(edit.mask) == (
        "........... ########... .#######... .#######... .#######... ..........."
    )
    row = outcome.row
    assert (row.status, row.pixels_added, row.pixels_removed) == ("ok", 2, 1)
    assert row.iou_after == row.iou_change == iou(Mask.from_array(drawn(SPECK)), edit.mask)
    [edit] = concluded(SPECK, GROWN, Click(0, 1, True), min_part=0).edits
    assert edit.mask is not None and shown(edit.mask) == GROWN


def test_a_change_that_is_all_filtered_is_none() -> None:
    solid = BODY.replace("##.####", "#######")
    outcome = concluded(solid, SPECK)
    assert outcome.row.status == "unchanged" and not outcome.edits


def test_a_rejected_result_leaves_the_parts_of_the_old_mask() -> None:
    outcome = concluded(SPECK, BODY, Click(0, 0, True))
    assert outcome.row.status == "rejected" and not outcome.edits
    assert outcome.refused is not None and shown(outcome.refused) == BODY.replace("##.#", "####")


def test_the_guard_judges_what_is_left() -> None:
    """Here an island goes for its size, and with it nearly all of the area."""
    before, after = "######.... ######.... ..........", "######.... ######...+ .........."
    click = Click(9, 1, True)
    assert concluded(before, after, click).row.status == "ok"
    outcome = concluded(before, after, click, min_part=13)
    assert outcome.row.status == "rejected" and "is left" in (outcome.row.reason or "")
    assert concluded(before, after, click, min_part=13, guard="off").row.pixels_removed == 12


def test_the_guard_does_not_mind_that_parts_of_the_given_mask_go() -> None:
    before = "######..## ######..## ######...."
    click = Click(6, 2, True)
    after = "######..## ######..## #######..."
    assert concluded(before, "######.... ######.... #######...", click).row.status == "rejected"
    outcome = concluded(before, after, click, min_part=5)
    assert outcome.row.status == "ok" and outcome.row.pixels_removed == 4


def test_a_merge_without_clicks_is_filtered_too() -> None:
    old = Mask.from_array(drawn("####.... ####...# ####...."))
    speck = Mask.from_array(drawn("......## ........ ........"))
    annotations = (Annotation(0, 1, 0, "thing", 1, old), Annotation(1, 2, 1, "thing", 1, speck))
    item = ImageItem(0, 1, "a.png", None, 3, 8, annotations)
    both = union(old, speck)
    task = Task(annotations[0], InstanceScript(Merge((1, 2))), both, annotations[1])
    outcome = conclude(item, task, both, None, (), None, 0, "normal", 4)
    assert [edit.kind for edit in outcome.edits] == ["replace", "delete"]
    assert outcome.edits[0].mask is not None
    assert shown(outcome.edits[0].mask) == "####.... ####.... ####...."


# The command on the samples.


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process; returns its exit status."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["maskfix", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        return int(exit_info.value.code or 0)

    return call


EYES = (5, 6)
SPECKS = np.s_[20:23, 30:33], np.s_[250:252, 300:305]  # 9 and 10 pixels, far from the eyes
CLICKED = 251, 302  # row and column, in the second speck
LEAST = 25


def eyes() -> dict[int, np.ndarray]:
    """The masks of the cat's eyes with two specks and a hole of 4 pixels each, (H, W) bool."""
    found = {}
    for number in EYES:
        path = SAMPLES / "preds_png" / f"chelsea_{number}.png"
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127
        row, column = (int(np.median(places)) for places in np.nonzero(mask))
        mask[row : row + 2, column : column + 2] = False
        for speck in SPECKS:
            mask[speck] = True
        found[number] = mask
    return found


def write_set(folder: Path, kind: str) -> Path:
    """The eyes as COCO or PNG; returns what ``--masks`` takes."""
    images = folder / "images"
    images.mkdir(parents=True)
    (images / "chelsea.jpg").write_bytes((SAMPLES / "images" / "chelsea.jpg").read_bytes())
    if kind == "png":
        (folder / "masks").mkdir()
        for number, mask in eyes().items():
            path = folder / "masks" / f"chelsea_{number}.png"
            cv2.imwrite(str(path), 255 * mask.astype(np.uint8))
        return folder / "masks"
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "segmentation": encode(Mask.from_array(mask), "rle")[0],
            "area": int(mask.sum()),
            "bbox": [0, 0, 1, 1],
            "iscrowd": 0,
        }
        for number, mask in eyes().items()
    ]
    height, width = next(iter(eyes().values())).shape
    image = {"id": 1, "file_name": "chelsea.jpg", "height": height, "width": width}
    content = {
        "images": [image],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "eye"}],
    }
    (folder / "masks.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "masks.json"


def write_clicks(folder: Path) -> Path:
    """Clicks for the first eye: those of the samples, and one on its second speck."""
    lines = ["{x: 144, y: 105, kind: positive}", "{x: 206, y: 122, kind: negative}"]
    lines.append("{x: 302, y: 251, kind: positive}")
    text = "version: 1\nimages:\n  - file: chelsea.jpg\n    instances:\n      - id: 5\n"
    path = folder / "clicks.yaml"
    path.write_text(f"{text}        clicks: [{', '.join(lines)}]\n", encoding="utf-8")
    return path


def masks_in(out: Path, images: Path) -> dict[str, np.ndarray]:
    name = "annotations.json" if (out / "annotations.json").exists() else "masks"
    source = open_source(out / name, images)
    return {str(a.id): a.mask.to_array() for a in source[0].annotations if a.mask is not None}


def islands(mask: np.ndarray, connectivity: int = 8) -> list[int]:
    """Areas of the parts, (H, W) bool."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=connectivity
    )
    return sorted(stats[1:, cv2.CC_STAT_AREA].tolist())


def small_parts(mask: np.ndarray, row: int, column: int) -> int:
    """How many islands, but for that of a pixel, and holes are smaller than `LEAST`."""
    parts = [p for p in components(Mask.from_array(mask)) if not p.contains(row, column)]
    holes = islands(np.pad(~mask, 1, constant_values=True), connectivity=4)
    return sum(part.area < LEAST for part in parts) + sum(size < LEAST for size in holes)


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    rows = map(json.loads, (out / "report.jsonl").read_text("utf-8").splitlines())
    return {str(row["id"]): row for row in rows}


@pytest.mark.parametrize("kind", ["coco", "png"])
def test_a_run_filters_what_it_changes_and_nothing_else(
    run: Run, tmp_path: Path, kind: str
) -> None:
    masks, clicks = write_set(tmp_path, kind), write_clicks(tmp_path)
    given = ("refine", "--images", tmp_path / "images", "--masks", masks, "--clicks", clicks)
    out = tmp_path / "out"
    assert run(*given, "--min-part", LEAST, "--out", out) == 0
    assert run(*given, "--out", tmp_path / "all") == 0
    found, plain = (masks_in(o, tmp_path / "images") for o in (out, tmp_path / "all"))
    before = eyes()
    assert not np.array_equal(plain["5"], before[5])
    assert small_parts(plain["5"], *CLICKED) > 0 == small_parts(found["5"], *CLICKED)
    assert [found["5"][y, x] for y, x in (CLICKED, (105, 144), (122, 206))] == [1, 1, 0]
    assert np.array_equal(found["6"], before[6])
    row = rows_of(out)["5"]
    assert row["pixels_added"] == np.count_nonzero(found["5"] & ~before[5])
    assert row["pixels_removed"] == np.count_nonzero(before[5] & ~found["5"])
    if kind == "coco":
        new, old = (json.loads(p.read_text()) for p in (out / "annotations.json", masks))
        assert new["annotations"][0]["area"] == np.count_nonzero(found["5"])
        assert new["annotations"][1] == old["annotations"][1]
    else:
        name = "chelsea_6.png"
        assert (out / "masks" / name).read_bytes() == (masks / name).read_bytes()


def write_disks(folder: Path) -> dict[str, np.ndarray]:
    """Bright disks; masks of them two pixels aside, with a hole of 4 pixels and a speck of 4."""
    masks = {}
    for name in ("images", "masks"):
        (folder / name).mkdir()
    y, x = np.mgrid[:96, :128]
    for i, radius in enumerate((26, 28, 30)):
        pixels = np.random.default_rng(i).integers(20, 60, (96, 128, 3)).astype(np.uint8)
        pixels[(y - 48) ** 2 + (x - 64) ** 2 < radius**2] = (60, 90, 210)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), pixels)
        mask = (y - 48) ** 2 + (x - 66) ** 2 < radius**2
        mask[48:50, 60:62], mask[74:76, 40:42] = False, True
        cv2.imwrite(str(folder / "masks" / f"{i}.png"), 255 * mask.astype(np.uint8))
        masks[f"{i}.png"] = mask
    return masks


def test_cleaning_filters_what_it_changes(run: Run, tmp_path: Path) -> None:
    before, out = write_disks(tmp_path), tmp_path / "out"
    given = ("refine", "--images", tmp_path / "images", "--masks", tmp_path / "masks", "--all")
    assert run(*given, "--min-part", 5, "--out", out) == 0
    rows = map(json.loads, (out / "report.jsonl").read_text("utf-8").splitlines())
    status = {row["image"]: row["status"] for row in rows}
    assert "ok" in status.values()
    for name, mask in before.items():
        after = cv2.imread(str(out / "masks" / name), cv2.IMREAD_GRAYSCALE) > 127
        holes = islands(np.pad(~after, 1, constant_values=True), connectivity=4)
        if status[name] == "ok":
            assert len(islands(after)) == len(holes) == 1
        else:
            assert np.array_equal(after, mask)


@pytest.mark.parametrize("flag", ["--min-part", "--simplify"])
def test_a_run_goes_on_with_the_same_settings_only(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    masks, clicks = write_set(tmp_path, "coco"), write_clicks(tmp_path)
    given = ("refine", "--images", tmp_path / "images", "--masks", masks, "--clicks", clicks)
    given = (*given, "--out", tmp_path / "out")
    assert run(*given, flag, 3) == 0
    written = (tmp_path / "out" / "annotations.json").read_bytes()
    assert run(*given, "--resume") == run(*given, "--resume", flag, 4) == 2
    name = flag.removeprefix("--").replace("-", "_")
    assert f"{name} was 3" in capsys.readouterr().err
    assert run(*given, "--resume", flag, 3) == 0
    assert (tmp_path / "out" / "annotations.json").read_bytes() == written


@pytest.mark.parametrize("flags", [("--min-part", -1), ("--simplify", -1), ("--simplify", "nan")])
def test_impossible_sizes_are_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[object, ...]
) -> None:
    masks, clicks = write_set(tmp_path, "coco"), write_clicks(tmp_path)
    given = ("refine", "--images", tmp_path / "images", "--masks", masks, "--clicks", clicks)
    assert run(*given, "--out", tmp_path / "out", *flags) == 2
    assert f"{flags[0]}: expected 0 to" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
