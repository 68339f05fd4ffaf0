"""``maskfix triage``: what is odd about masks, the order, the lists, and their measure."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_refine import Run, run

from maskfix.formats import Annotation
from maskfix.formats.segmentation import encode
from maskfix.masks import Mask
from maskfix.triage.gain import compare_orders, gain_of
from maskfix.triage.probe import Signs, edge_strength
from maskfix.triage.score import reasons_of, score_of
from maskfix.triage.shapes import Oddities, oddities

__all__ = ["run"]  # a fixture
HEIGHT, WIDTH = 80, 100
RIGHT = Signs(disagreement=0.02, added=0.01, removed=0.01, border=0.7, found=0.9, edge=3.0)
WRONG = Signs(disagreement=0.2, added=0.15, removed=0.05, border=0.95, found=0.3, edge=1.0)


def disk(row: int, col: int, radius: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - row) ** 2 + (x - col) ** 2 < radius**2


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    array = np.zeros((HEIGHT, WIDTH), bool)
    array[top:bottom, left:right] = True
    return array


def crumbly() -> np.ndarray:
    array = disk(40, 50, 30)
    array[2, 2] = array[2, 6] = array[6, 2] = True
    return array


def odd(*masks: np.ndarray, category: str = "cat") -> list[Oddities]:
    annotations = [
        Annotation(10 + i, i + 1, i, category, 1, Mask.from_array(mask))
        for i, mask in enumerate(masks)
    ]
    found = oddities(annotations)
    return [found[a.key] for a in annotations]


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ([disk(40, 50, 20)], [Oddities()]),
        ([crumbly()], [Oddities(crumbs=3)]),
        ([box(10, 10, 40, 50)], [Oddities(box=True)]),
        ([box(10, 10, 15, 15)], [Oddities()]),  # too small to tell
        ([disk(40, 50, 20) & box(0, 0, 45, WIDTH)], [Oddities(cut=("bottom",))]),
        ([disk(0, 50, 20)], [Oddities()]),  # cut by the image's border
        (
            [disk(40, 50, 20), disk(40, 51, 20), disk(70, 10, 5)],
            [Oddities(twin="2"), Oddities(twin="1"), Oddities()],
        ),
        (
            [disk(40, 30, 15) | disk(40, 70, 15), disk(40, 30, 15), disk(40, 70, 15)],
            [Oddities(holds=("2", "3")), Oddities(), Oddities()],
        ),
        ([disk(40, 50, 20), disk(40, 50, 12)], [Oddities(), Oddities()]),  # one within another
    ],
)
def test_oddities(masks: list[np.ndarray], expected: list[Oddities]) -> None:
    assert odd(*masks) == expected


def test_masks_without_a_pixel_or_unread_have_no_oddities() -> None:
    empty = Annotation(1, 1, 0, "", None, Mask.empty(HEIGHT, WIDTH))
    assert oddities([empty, Annotation(2, 2, 1, "", None, None, "broken")]) == {}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2**16 - 1), max_size=4))
def test_any_masks_can_be_looked_at(patterns: list[int]) -> None:
    masks = [np.array([(p >> i) & 1 for i in range(16)], bool).reshape(4, 4) for p in patterns]
    found = oddities(
        [Annotation(i, i, i, "", None, Mask.from_array(m)) for i, m in enumerate(masks)]
    )
    assert set(found) == {i for i, mask in enumerate(masks) if mask.any()}


def test_edges_are_strong_where_the_image_changes() -> None:
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    image[disk(40, 50, 20)] = (200, 180, 90)
    assert edge_strength(image, disk(40, 50, 20)) > 3
    assert edge_strength(image, disk(40, 50, 28)) < 1
    assert edge_strength(image, np.ones((HEIGHT, WIDTH), bool)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"twin": "7"}, "nearly the same as instance 7"),
        ({"holds": ("3", "4")}, "lies over instances 3, 4: several objects in one?"),
        ({"box": True}, "it is a box"),
        ({"cut": ("left", "top")}, "cut straight at left and top"),
        ({"crumbs": 5}, "5 crumbs"),
    ],
)
def test_oddities_raise_the_score_and_are_said(change: dict[str, Any], words: str) -> None:
    assert reasons_of(RIGHT, Oddities()) == []
    assert reasons_of(RIGHT, Oddities(**change)) == [words]
    assert score_of(RIGHT, Oddities(**change)) > score_of(RIGHT, Oddities())


def test_signs_of_a_wrong_mask() -> None:
    assert score_of(WRONG, Oddities()) > 0.9 > 0.2 > score_of(RIGHT, Oddities(crumbs=2))
    assert reasons_of(WRONG, Oddities()) == [
        "the network would add 15% and remove 5% of it",
        "a click in its middle finds only 30% of it",
        "its outline is not on edges of the image",
    ]


def test_gain_of_orders_whose_curves_are_known() -> None:
    errors = np.array([0.0, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.6])
    perfect = gain_of(errors, errors)
    assert perfect.found == pytest.approx((0.6, 1.0, 1.0))
    assert perfect.area == pytest.approx(0.1 * 0.3 + 0.1 * 0.8 + 0.8)
    assert gain_of(-errors, errors).found == (0.0, 0.0, 0.0)
    ties = gain_of(np.ones(10), errors)
    assert ties.found == pytest.approx((0.1, 0.2, 0.5)) and ties.area == pytest.approx(0.5)
    areas = np.arange(10.0)
    orders = compare_orders(errors, areas, errors)
    assert orders["triage"] == perfect
    assert orders["largest first"].found[0] == pytest.approx(0.6)
    assert orders["smallest first"].found == pytest.approx((0.0, 0.4, 0.4))


def write_set(folder: Path, images: int = 4) -> dict[str, Any]:
    """Images with two bright disks each; of every second image the first mask is far too large."""
    (folder / "images").mkdir(parents=True)
    entries, masks, right = [], [], []
    for i in range(images):
        rng = np.random.default_rng(i)
        image = rng.integers(0, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        for k, (row, col, radius) in enumerate([(30, 28, 16), (50, 72, 18)]):
            image[disk(row, col, radius)] = rng.integers(150, 250, 3)
            given_radius = radius + 9 if (k, i % 2) == (0, 0) else radius
            entry = {"id": 2 * i + k + 1, "image_id": i, "category_id": 1}
            for target, size in ((masks, given_radius), (right, radius)):
                runs = encode(Mask.from_array(disk(row, col, size)), "rle")[0]
                target.append({**entry, "segmentation": runs})
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        entries.append({"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH})
    about = {"images": entries, "categories": [{"id": 1, "name": "disk"}]}
    for name, entries in (("masks", masks), ("right", right)):
        (folder / f"{name}.json").write_text(json.dumps({**about, "annotations": entries}))
    return {**about, "annotations": masks}


def flags(folder: Path, out: str = "out") -> list[object]:
    return [
        *("--images", folder / "images", "--masks", folder / "masks.json"),
        *("--out", folder / out, "--device", "cpu", "--workers", 1),
    ]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_lists_and_the_measure(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path)
    more = ["--reference", tmp_path / "right.json", "--budget", 3]
    assert run("triage", *flags(tmp_path), *more) == 0
    rows = read(tmp_path / "out" / "triage.csv")
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 9)]
    assert sorted(int(row["id"]) for row in rows) == list(range(1, 9))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] <= scores[0] <= 1
    assert {row["category"] for row in rows} == {"disk"}
    wrong = {row["id"] for row in rows if float(row["iou"]) < 1}
    assert wrong == {"1", "5"}
    assert read(tmp_path / "out" / "sheet.csv") == rows[:3]
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split()[-4:] == ["10%", "20%", "50%", "area"]
    area = {line.rsplit(None, 4)[0]: float(line.split()[-1]) for line in printed.splitlines()[1:6]}
    assert area["random"] == pytest.approx(0.5) and area["triage"] <= area["perfect"]
    assert printed.splitlines()[-1].startswith(
        f"{tmp_path / 'out'}: triage.csv ranks 8 masks; the first 3 are in sheet.csv"
    )


def test_what_cannot_be_looked_at_is_said_and_the_rest_ranked(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    content = write_set(tmp_path)
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    annotations = content["annotations"]
    annotations[0]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [3]}
    annotations[1]["segmentation"] = []
    annotations[4]["iscrowd"] = 1
    (tmp_path / "masks.json").write_text(json.dumps(content))
    assert run("triage", *flags(tmp_path)) == 1
    rows = read(tmp_path / "out" / "triage.csv")
    assert len(rows) == 7  # the crowd is not ranked
    first = {row["id"]: row for row in rows[:2]}
    assert set(first) == {"1", "2"} and {row["score"] for row in rows[:2]} == {"1.0000"}
    assert first["2"]["problem"] == first["2"]["reasons"] == "the mask is empty"
    assert "run lengths cover 3 pixels" in first["1"]["reasons"]
    assert {row["image"] for row in rows[-4:]} == {"1.png", "3.png"}
    assert all(row["problem"] for row in rows[-4:])
    listed = read(tmp_path / "out" / "sheet.csv")
    assert len(listed) == 3 and {row["image"] for row in listed} == {"0.png", "2.png"}
    assert "not looked at: 1.png: instance 3: image 1.png is not in" in capsys.readouterr().err


def test_a_run_is_resumed_and_gives_the_same_list(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path)
    monkeypatch.setattr("maskfix.triage.run.CHUNK_IMAGES", 2)
    assert run("triage", *flags(tmp_path)) == 0
    whole = (tmp_path / "out" / "triage.csv").read_bytes()
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 2 * 5
    journal.write_text("".join(lines[:8]))  # one chunk is closed, the second was cut
    (tmp_path / "out" / "triage.csv").unlink()
    assert run("triage", *flags(tmp_path)) == 2
    assert run("triage", *flags(tmp_path), "--resume") == 0
    assert (tmp_path / "out" / "triage.csv").read_bytes() == whole
    assert journal.read_text().splitlines(keepends=True)[:6] == lines[:6]


def test_a_wrong_folder_of_images_is_one_error(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.rename(path.with_suffix(".gif"))
    assert run("triage", *flags(tmp_path)) == 2
    assert "none of the 4 images" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_hostile_names_stay_one_cell(tmp_path: Path, run: Run) -> None:
    content = write_set(tmp_path, images=1)
    content["categories"][0]["name"] = 'a,"b"\n=1+1'
    (tmp_path / "masks.json").write_text(json.dumps(content))
    assert run("triage", *flags(tmp_path)) == 0
    assert {row["category"] for row in read(tmp_path / "out" / "triage.csv")} == {'a,"b"\n=1+1'}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget", "0"], "--budget: expected 1 to"),
        (["--resume", "--overwrite"], "exclude each other"),
        (["--out", "images/x"], "overlap"),
    ],
)
def test_unusable_flags(
    tmp_path: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    message: str,
) -> None:
    write_set(tmp_path, images=1)
    monkeypatch.chdir(tmp_path)
    assert run("triage", *flags(tmp_path), *more) == 2
    assert message in capsys.readouterr().err
