"""Polygons with fewer points: how far outlines move, and what ``--simplify`` writes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskfix.cli.docs import text_of
from maskfix.cli.main import main
from maskfix.exporting.yolo import drawn, joined_outline
from maskfix.formats import open_source
from maskfix.formats.segmentation import decode
from maskfix.masks import Mask, components, iou
from maskfix.polygons import Points, mask_from_polygons, polygons_from_mask, simplified

SAMPLES = Path(__file__).parent.parent / "samples"

Run = Callable[..., int]


def points(*pairs: tuple[int, int]) -> Points:
    return np.array(pairs, np.int64)


SQUARE = points((0, 0), (5, 1), (10, 0), (10, 10), (0, 10))  # a dent of 1 in its top
LINE = points((0, 0), (20, 0), (20, 1), (0, 1))
SPIKE = points((7, 3), (10, 8), (9, 5), (15, 9), (20, 9))  # without (15, 9), 9 of 19 pixels
BEYOND = points((23, 14), (23, 17), (15, 15), (19, 21), (17, 3), (22, 8), (21, 11))


@pytest.mark.parametrize(
    ("outline", "tolerance", "corners"),
    [
        (SQUARE, 0, 5),
        (SQUARE, 0.9, 5),
        (SQUARE, 1, 4),
        (SQUARE, 2, 4),
        (SQUARE, 100, 5),  # two points would be left: exact
        (LINE, 0.9, 4),
        (LINE, 1, 4),
        (SPIKE, 2, 5),  # half of the area would be gone: exact
        (BEYOND, 2, 5),  # OpenCV leaves four, and one of the others 2.6 away
        (points((0, 0)), 1, 1),
        (points((0, 0), (3, 0)), 1, 2),
    ],
)
def test_small_outlines(outline: Points, tolerance: float, corners: int) -> None:
    kept = simplified(outline, tolerance)
    assert len(kept) == corners
    assert moved(outline, kept) <= tolerance
    assert {tuple(p) for p in kept.tolist()} <= {tuple(p) for p in outline.tolist()}


def moved(outline: Points, kept: Points) -> float:
    """How far a point of an outline lies, at most, from the nearest side of another."""
    ends = np.roll(kept, -1, axis=0)
    along = (ends - kept).astype(float)
    square = np.maximum((along**2).sum(axis=1), 1e-9)
    far = 0.0
    for point in outline:
        share = (((point - kept) * along).sum(axis=1) / square).clip(0, 1)
        apart = np.linalg.norm(point - kept - share[:, None] * along, axis=1)
        far = max(far, float(apart.min()))
    return far


def blob(seed: int) -> np.ndarray:
    """A random shape, (h, w) bool."""
    rng = np.random.default_rng(seed)
    noise = rng.random((int(rng.integers(8, 50)), int(rng.integers(8, 50))))
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), rng.uniform(1, 4)) > 0.5)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 1, 1.5, 2, 4]))
def test_the_outline_moves_by_no_more_than_was_asked_for(seed: int, pixels: float) -> None:
    bits = blob(seed)
    for part in components(Mask.from_array(bits)):
        [exact], _ = polygons_from_mask(part)
        [kept], _ = polygons_from_mask(part, pixels)
        outlines = [np.array(polygon).reshape(-1, 2) for polygon in (exact, kept)]
        assert len(outlines[1]) >= 3
        assert moved(*outlines) <= pixels + 1e-9
        assert mask_from_polygons([kept], *bits.shape).area > 0


@settings(max_examples=100, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.floats(0, 5))
def test_any_mask_has_polygons_and_a_yolo_line(bits: np.ndarray, pixels: float) -> None:
    mask = Mask.from_array(bits)
    polygons, has_holes = polygons_from_mask(mask, pixels)
    exact, had_holes = polygons_from_mask(mask)
    assert has_holes == had_holes and len(polygons) == len(exact) == len(components(mask))
    assert all(6 <= len(new) <= len(old) for new, old in zip(polygons, exact, strict=True))
    if bits.any():
        outline = joined_outline(mask.bits, pixels)
        assert len(outline) >= 3 and drawn(outline, mask.bits.shape).any()


# The commands on the samples.


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process; returns its exit status."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["maskfix", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        return int(exit_info.value.code or 0)

    return call


def exported(run: Run, out: Path, target: str, pixels: float) -> dict[str, Any]:
    given = ["--images", SAMPLES / "images", "--masks", SAMPLES / "reference.json", "--to", target]
    more = ["--segmentation", "polygon", "--simplify", pixels, "--out", out]
    assert run("export", *given, *more) == 0
    facts: dict[str, Any] = json.loads((out / "export.json").read_text())
    return facts


def documented() -> dict[str, list[float]]:
    """The numbers of the table in the docs, by PX."""
    rows = re.findall(r"^\| ([\d.]+) \| (\d.*) \|$", text_of("formats"), re.MULTILINE)
    return {px: [float(cell.split()[0]) for cell in cells.split("|")] for px, cells in rows}


def test_it_costs_what_the_docs_say(run: Run, tmp_path: Path) -> None:
    assert list(documented()) == ["0", "0.5", "1", "2"]
    for px, (points, mean, worst, *yolo) in documented().items():
        for target, stated in (("coco", (points, mean, worst)), ("yolo", yolo)):
            facts = exported(run, tmp_path / f"{target}{px}", target, float(px))
            losses = [facts.get("iou_loss_mean", 0), facts.get("iou_loss_worst", 0)]
            assert facts["points"] == pytest.approx(stated[0], rel=0.02)
            assert [100 * loss for loss in losses] == pytest.approx(stated[1:], abs=0.1)


@pytest.mark.parametrize("pixels", [0, 2])
def test_export_says_area_and_box_of_what_it_writes(
    run: Run, tmp_path: Path, pixels: float
) -> None:
    exported(run, tmp_path / "out", "coco", pixels)
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    size = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    kinds = set()
    for entry in content["annotations"]:
        mask = decode(entry["segmentation"], size[entry["image_id"]])
        kinds.add(isinstance(entry["segmentation"], list))
        assert entry["area"] == mask.area
        box = mask.box
        assert entry["bbox"] == [box.left, box.top, box.width, box.height]
    assert True in kinds


def test_run_lengths_and_png_are_exact(run: Run, tmp_path: Path) -> None:
    given = ["--images", SAMPLES / "images", "--masks", SAMPLES / "reference.json"]
    for target, name in (("coco", "annotations.json"), ("cvat", "annotations.xml")):
        for px in (0, 2):
            more = ["--to", target, "--simplify", px, "--out", tmp_path / f"{target}{px}"]
            assert run("export", *given, *more) == 0
        first, second = ((tmp_path / f"{target}{px}" / name).read_bytes() for px in (0, 2))
        assert first == second


def test_refine_simplifies_the_polygons_that_it_changes(run: Run, tmp_path: Path) -> None:
    """Instances 7 and 9 are polygons, 8 is not; 10 is one that no click is for."""
    text = (SAMPLES / "clicks.yaml").read_text("utf-8")
    head, coffee = text[: text.index("  - file:")], text[text.index("  - file: coffee") :]
    clicks = tmp_path / "clicks.yaml"
    clicks.write_text(head + coffee[: coffee.index("  - file: grace")], encoding="utf-8")
    given = ["--images", SAMPLES / "images", "--masks", SAMPLES / "preds.json", "--clicks", clicks]
    for px in (0, 1):
        assert run("refine", *given, "--simplify", px, "--out", tmp_path / f"out{px}") == 0
    before, exact, simple = (
        {a["id"]: a for a in json.loads(path.read_text())["annotations"]}
        for path in (SAMPLES / "preds.json", *(tmp_path / f"out{p}/annotations.json" for p in "01"))
    )
    assert before[10] == simple[10] and exact[8] == simple[8] != before[8]
    source = open_source(tmp_path / "out1" / "annotations.json", SAMPLES / "images")
    masks = {a.id: a.mask for a in source[source.find_annotation(7)].annotations}
    for number in (7, 9):
        mask, old = masks[number], exact[number]
        assert mask is not None
        lengths = [sum(map(len, a["segmentation"])) for a in (simple[number], old)]
        assert 3 * lengths[0] < lengths[1]
        assert simple[number]["area"] == mask.area
        box = mask.box
        assert simple[number]["bbox"] == [box.left, box.top, box.width, box.height]
        assert iou(mask, decode(old["segmentation"], (mask.height, mask.width))) > 0.96
    rows = [(tmp_path / f"out{px}" / "report.csv").read_text().splitlines() for px in (0, 1)]
    first, second = ([row.rsplit(",", 1)[0] for row in table] for table in rows)  # but the times
    assert first == second


def test_export_refuses_impossible_sizes(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--images", SAMPLES / "images", "--masks", SAMPLES / "reference.json"]
    for value in (-1, "nan", 1e9):
        more = ["--to", "yolo", "--simplify", value, "--out", tmp_path / "out"]
        assert run("export", *given, *more) == 2
        assert "--simplify: expected 0 to 1000" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
