"""`maskfix sheet`: what is in the page, without a browser; see test_browser for the rest."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sheet_data import HEIGHT, HOSTILE, WIDTH, Page, command, disk, encoded, write_disk, write_set

import maskfix.sheet
from maskfix.formats.click_script import ById, parse_click_script
from maskfix.formats.script_text import quoted
from maskfix.masks import Mask
from maskfix.report.sheet_picture import LONGEST, make_picture, outline, region_around
from maskfix.threads import map_ahead
from maskfix.types import Box, Click

SAMPLES = Path(__file__).parent.parent / "samples"


def sheet_of(monkeypatch: pytest.MonkeyPatch, masks: Path, *more: object, status: int = 0) -> Page:
    out = masks.parent / "sheet.html"
    images = masks.parent / "images"
    arguments = ["--images", images, "--masks", masks, "--out", out, *more]
    assert command(monkeypatch, "sheet", *arguments) == status
    return Page(out)


def test_samples(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pages" / "sheet.html"
    arguments = ["--images", SAMPLES / "images", "--masks", SAMPLES / "preds.json", "--out", out]
    assert command(monkeypatch, "sheet", *arguments) == 0
    assert capsys.readouterr().out == f"12 masks in {out}: open it in a browser\n"
    page = Page(out)
    assert [item["selector"] for item in page.items] == [f"id: {i}" for i in range(1, 13)]
    assert page.items[3] == {
        "file": "camera.png", "fileYaml": '"camera.png"', "selector": "id: 4", "category": "person",
        "label": "4", "note": "", "problem": "", "picture": True, "takesClicks": True,
    }  # fmt: skip
    assert ["cup", '"cup"'] in page.about["categories"]
    assert page.about["command"].endswith("--clicks ~/Downloads/clicks.yaml")
    assert out.stat().st_size < 12 * 40_000


def test_only_our_script_may_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    masks = write_set(tmp_path, [{"id": name} for name in HOSTILE], list(HOSTILE))
    page = sheet_of(monkeypatch, masks)
    [program] = page.programs
    assert page.tags.get("img") is None
    hashed = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert f"script-src 'sha256-{hashed}'" in page.policy
    assert page.policy.startswith("default-src 'none'") and "unsafe-eval" not in page.policy
    assert [name for name, _ in page.about["categories"]] == list(HOSTILE)
    data = (tmp_path / "sheet.html").read_text().split("</noscript>")[1]
    assert "owned" in data and "onerror=" not in data.replace("onerror=\\", "")
    assert not set(data) & {"\u2028", "\u2029"}


@given(st.text(min_size=1))
@settings(max_examples=100, deadline=None)
def test_names_survive_the_script(name: str) -> None:
    script = (
        f"version: 1\nimages:\n  - file: {quoted(name)}\n"
        f"    instances:\n      - id: {quoted(name)}\n"
    )
    [image] = parse_click_script(script.encode(), "clicks.yaml").images
    assert image.file == name and image.instances[0].selector == ById(name)


@pytest.mark.parametrize(
    ("entries", "selectors"),
    [
        ([{"id": 7}, {"id": 8}], ["id: 7", "id: 8"]),
        ([{"id": 7}, {"id": 7}], ["index: 0", "index: 1"]),
        ([{"id": "7"}, {"id": 7}], ["index: 0", "index: 1"]),
        ([{"id": "a: b"}, {"id": 2**53 + 1}], ['id: "a: b"', f"id: {2**53 + 1}"]),
        ([{"id": 1, "iscrowd": 1}, {"id": 2}], ["id: 2"]),
    ],
)
def test_selectors(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    entries: list[dict[str, Any]],
    selectors: list[str],
) -> None:
    page = sheet_of(monkeypatch, write_set(tmp_path, entries, ["disk"]))
    assert [item["selector"] for item in page.items] == selectors


def test_results_and_png(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_disk(tmp_path / "images" / "000007.png", disk())
    entry = {"image_id": 7, "category_id": 3, "score": 0.5, "segmentation": encoded(disk())}
    results = tmp_path / "results.json"
    results.write_text(json.dumps([entry, entry]))
    page = sheet_of(monkeypatch, results)
    assert [item["selector"] for item in page.items] == ["id: 0", "id: 1"]
    assert page.items[0]["category"] == "3" and page.about["categories"] == []
    (tmp_path / "masks").mkdir()
    Image.fromarray(disk().astype(np.uint8) * 255).save(tmp_path / "masks" / "000007.png")
    [item] = sheet_of(monkeypatch, tmp_path / "masks").items
    assert item["file"] == "000007.png" and item["category"] == ""


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("image,id\na.png,12\na.png,10\n", [("id: 12", ""), ("id: 10", "")]),
        ("\ufeffimage,id\nimages/a.png,11\n", [("id: 11", "")]),
        ("rank,image,id,index,reasons,x\n1,a.png,,2,\"<b>; \n\",9\n", [("id: 12", "<b>; \n")]),
        ("image,id,index\na.png,10,1\n", [("id: 11", "")]),
        ("image,id,score\na.png,10,0.9\n", [("id: 10", "")]),  # perhaps a detector's
        (
            "rank,image,id,score,reasons,disagreement\n1,a.png,10,1,a box,.3\n2,a.png,11,.5,,\n",
            [("id: 10", "99% likely wrong: a box"), ("id: 11", "50% likely wrong")],
        ),
    ],
)  # fmt: skip
def test_from_csv(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: str, expected: list[tuple[str, str]]
) -> None:
    masks = write_set(tmp_path, [{}, {}, {}], ["disk"])
    (tmp_path / "triage.csv").write_text(table, encoding="utf-8")
    page = sheet_of(monkeypatch, masks, "--from", tmp_path / "triage.csv")
    assert [(item["selector"], item["note"]) for item in page.items] == expected


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"file,id\na.png,10\n", ["expected the columns image and id", "file, id"]),
        (b"", ["expected the columns"]),
        (b"image,id\nb.png,10\n", [":2:", "b.png"]),
        (b"image,id\na.png,99\n", [":2:", "id 99", "other masks"]),
        (b"image,index\na.png,7\n", [":2:", "index 7"]),
        (b"image,id\n\xff,1\n", ["UTF-8"]),
        (b"image,id\n", ["nothing to show"]),
    ],
)
def test_unusable_csv_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    table: bytes,
    words: list[str],
) -> None:
    masks = write_set(tmp_path, [{}], ["disk"])
    triage = tmp_path / "triage.csv"
    triage.write_bytes(table)
    arguments = ["--images", tmp_path / "images", "--masks", masks, "--from", triage]
    arguments += ["--out", tmp_path / "s.html"]
    assert command(monkeypatch, "sheet", *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error
    assert not (tmp_path / "s.html").exists()


def test_ids_choose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = write_set(tmp_path, [{}, {}, {}], ["disk"])
    page = sheet_of(monkeypatch, masks, "--ids", "12, 10")
    assert [item["label"] for item in page.items] == ["10", "12"]
    (tmp_path / "t.csv").write_text("image,id\na.png,12\na.png,11\n")
    page = sheet_of(monkeypatch, masks, "--ids", "11,12", "--from", tmp_path / "t.csv")
    assert [item["label"] for item in page.items] == ["12", "11"]
    sheet_of(monkeypatch, masks, "--ids", "11,99", status=1)
    assert capsys.readouterr().err == "not to be clicked on: 99: no such id\n"


@pytest.mark.parametrize("out", ["preds.json", "sheet", "images"])
def test_out_must_be_a_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    masks = write_set(tmp_path, [{}], ["disk"])
    before = masks.read_bytes()
    arguments = ["--images", tmp_path / "images", "--masks", masks, "--out", tmp_path / out]
    assert command(monkeypatch, "sheet", *arguments) == 2
    assert ".html" in capsys.readouterr().err and masks.read_bytes() == before


def test_what_cannot_be_clicked_on_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [{"segmentation": {"size": [5, 5], "counts": [9, 9]}}, {"image_id": 2}, {}]
    masks = write_set(tmp_path, entries, ["disk"], ["a.png", "b.png"])
    (tmp_path / "images" / "b.png").unlink()
    page = sheet_of(monkeypatch, masks, status=1)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "a.png, 10" in told[0] and "b.png, 11" in told[1]
    found = {i["label"]: (i["picture"], i["takesClicks"], bool(i["note"])) for i in page.items}
    assert found == {
        "10": (True, False, True),
        "11": (False, False, True),
        "12": (True, True, False),
    }
    assert [item["selector"] for item in page.items] == ["id: 10", "id: 12", "id: 11"]


def test_many_go_into_several_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(maskfix.sheet, "MOST", 2)
    masks = write_set(tmp_path, [{}, {}, {}], ["disk"])
    sheet_of(monkeypatch, masks)
    assert "sheet.html, " in capsys.readouterr().out
    pages = [Page(tmp_path / name) for name in ("sheet.html", "sheet-2.html")]
    assert [[item["label"] for item in page.items] for page in pages] == [["10", "11"], ["12"]]
    assert pages[1].about["title"] == "1 mask of preds.json, part 2 of 2"
    assert pages[0].about["key"] != pages[1].about["key"]


def test_marks_belong_to_masks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The browser finds the marks of the same masks again, and shows them on no others."""
    keys = []
    for radius in (22, 22, 21):
        masks = write_set(tmp_path, [{"segmentation": encoded(disk(radius=radius))}], ["disk"])
        keys.append(sheet_of(monkeypatch, masks).about["key"])
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("box", "clicks", "expected"),
    [
        (Box(40, 50, 50, 60), [], Box(24, 34, 66, 76)),  # 10 + 2 (4 + 12), in the middle
        (Box(0, 0, 10, 4), [], Box(0, 0, 42, 42)),  # moved inside
        (Box(0, 0, HEIGHT, WIDTH), [], Box(0, 0, HEIGHT, WIDTH)),
        (None, [], Box(0, 0, HEIGHT, WIDTH)),
        (None, [Click(60, 50, True)], Box(38, 48, 63, 73)),
    ],
)
def test_regions(box: Box | None, clicks: list[Click], expected: Box) -> None:
    bits = np.ones((box.height, box.width), bool) if box else np.zeros((0, 0), bool)
    masks = [Mask.from_window(HEIGHT, WIDTH, box, bits)] if box else []
    assert region_around(HEIGHT, WIDTH, masks, clicks) == expected


def test_outlines_are_in_pixels_of_the_image() -> None:
    bits = np.zeros((HEIGHT, WIDTH), bool)
    bits[10:20, 30:36] = True
    bits[13:16, 32:34] = False
    path = outline(Mask.from_array(bits))
    assert path.startswith("M30 10l0 9l5 0l0 -9z") and path.count("z") == 2
    assert outline(Mask.empty(HEIGHT, WIDTH)) == ""


def decoded(picture: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(picture["src"].removeprefix("data:image/jpeg;base64,"))
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def test_large_crops_are_scaled_down() -> None:
    image = np.zeros((1000, 2000, 3), np.uint8)
    image[:, 1000:] = 255
    picture = make_picture(image, Box(0, 0, 1000, 2000), {"given": [Mask.empty(1000, 2000)]})
    pixels = decoded(picture)
    assert pixels.shape == (LONGEST // 2, LONGEST, 3)
    assert picture["box"] == {"left": 0, "top": 0, "width": 2000, "height": 1000}
    assert pixels[:, : LONGEST // 2 - 4].max() < 30 and pixels[:, LONGEST // 2 + 4 :].min() > 225


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photos_are_shown_upright(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, orientation: int
) -> None:
    """A white spot at (100, 20) of the upright image is there on the crop."""
    upright = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    upright[16:24, 96:104] = 255
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    stored = Image.fromarray(np.rot90(upright, turns).copy())
    exif = Image.Exif()
    exif[0x0112] = orientation
    masks = write_set(tmp_path, [{}], ["disk"], ["a.png"])
    stored.save(tmp_path / "images" / "a.png", exif=exif)
    picture = sheet_of(monkeypatch, masks).picture(0)
    box, pixels = picture["box"], decoded(picture)[:, :, 0]
    rows, cols = np.nonzero(pixels > 200)
    assert abs(cols.mean() + box["left"] - 99.5) < 1 and abs(rows.mean() + box["top"] - 19.5) < 1


def test_map_ahead_is_lazy_and_in_order() -> None:
    taken: list[int] = []

    def numbers() -> Any:
        for number in range(10):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(3) as pool:
        results = map_ahead(lambda n: n * n, numbers(), pool, 2)
        assert next(results) == 0 and len(taken) == 3
        assert list(results) == [n * n for n in range(1, 10)]
