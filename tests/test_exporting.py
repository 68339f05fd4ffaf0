"""``maskfix export``: every format, exactly, and back again."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner, Result

from maskfix.cli.docs import text_of
from maskfix.cli.main import app
from maskfix.errors import UsageError
from maskfix.exporting import export
from maskfix.exporting.cvat import row_runs
from maskfix.exporting.label_studio import brush_rle
from maskfix.exporting.yolo import drawn, joined_outline
from maskfix.formats import open_source
from maskfix.formats.segmentation import encode
from maskfix.masks import Mask, iou

HEIGHT, WIDTH = 40, 60


def masks() -> dict[str, np.ndarray]:
    """Shapes that formats lose: a hole, several parts, a dot, one on top of another."""
    blank = np.zeros((HEIGHT, WIDTH), bool)
    ring, parts, dot, coat = blank.copy(), blank.copy(), blank.copy(), blank.copy()
    ring[5:25, 5:25] = True
    ring[10:18, 12:20] = False
    parts[3:9, 40:50] = parts[20:30, 30:38] = parts[33:36, 52:59] = True
    dot[38, 2] = True
    coat[20:30, 26:40] = True  # under one of the parts
    return {"ring": ring, "parts": parts, "dot": dot, "coat": coat}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images; the second one without masks; a crowd and an empty mask in the first."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / name)
    found = [*masks().values(), masks()["coat"], np.zeros((HEIGHT, WIDTH), bool)]
    annotations = [
        {
            "id": 10 + i,
            "image_id": 7,
            "category_id": 3 if i else 5,
            "segmentation": encode(Mask.from_array(mask), "rle")[0],
            "iscrowd": int(i == 4),
        }
        for i, mask in enumerate(found)
    ]
    size = {"height": HEIGHT, "width": WIDTH}
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", **size},
            {"id": 8, "file_name": "b.png", **size},
        ],
        "annotations": annotations,
        "categories": [{"id": 3, "name": 'a "coat" & <hat>'}, {"id": 5, "name": "ring"}],
    }
    (tmp_path / "masks.json").write_text(json.dumps(content))
    return tmp_path


def run(data: Path, target: str, *more: str) -> Result:
    given = ["export", "--images", data / "images", "--masks", data / "masks.json"]
    arguments = [*given, "--to", target, "--out", data / "out", *more]
    result = CliRunner().invoke(
        app, [str(a) for a in arguments], catch_exceptions=False, standalone_mode=False
    )
    result.exit_code = result.return_value  # as `maskfix.cli.main.main` does
    return result


def back(data: Path, masks_path: str) -> list[Mask]:
    source = open_source(data / "out" / masks_path, data / "images")
    return [a.mask for i in range(len(source)) for a in source[i].annotations if a.mask is not None]


@pytest.mark.parametrize("kind", ["rle", "polygon"])
def test_coco_gives_every_mask_back(data: Path, kind: str) -> None:
    result = run(data, "coco", "--segmentation", kind)
    assert result.exit_code == 0 and result.stdout.endswith("2 images, 6 masks\n")
    content = json.loads((data / "out" / "annotations.json").read_text())
    before = json.loads((data / "masks.json").read_text())
    assert content["images"] == before["images"]
    assert content["categories"] == before["categories"]
    for new, old in zip(content["annotations"], before["annotations"], strict=True):
        assert {key: new[key] for key in ("id", "image_id", "category_id", "iscrowd")} == {
            key: old[key] for key in ("id", "image_id", "category_id", "iscrowd")
        }
    kinds = [isinstance(a["segmentation"], list) for a in content["annotations"]]
    assert kinds == [kind == "polygon" and i in (1, 2, 3) for i in range(6)]
    assert content["annotations"][1]["area"] == 60 + 80 + 21
    assert content["annotations"][1]["bbox"] == [30, 3, 29, 33]
    wanted = open_source(data / "masks.json", data / "images")[0].annotations
    assert back(data, "annotations.json") == [a.mask for a in wanted]


def test_yolo_lines_as_ultralytics_draws_them(data: Path) -> None:
    result = run(data, "yolo")
    assert result.exit_code == 0 and "2 images, 4 masks; 2 left out" in result.stdout
    assert (data / "out" / "labels" / "b.txt").read_text() == ""
    lines = (data / "out" / "labels" / "a.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "0", "0", "0"]
    assert (data / "out" / "images").resolve() == (data / "images").resolve()
    yaml = (data / "out" / "data.yaml").read_text()
    assert yaml.endswith('names:\n  0: "a \\"coat\\" & <hat>"\n  1: "ring"\n')
    for line, mask in zip(lines, masks().values(), strict=True):
        points = np.array(line.split()[1:], float).reshape(-1, 2) * (WIDTH, HEIGHT)
        canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(canvas, [points.astype(np.int32)], 1)
        assert len(points) >= 3
        assert not (mask & ~canvas.view(bool)).any()  # cuts may add, never take away
        assert iou(Mask.from_array(canvas.view(bool)), Mask.from_array(mask)) > 0.8
    assert "costs" in result.stderr
    facts = json.loads((data / "out" / "export.json").read_text())
    assert 0 < facts["iou_loss_mean"] < facts["iou_loss_worst"] < 0.2


def test_outlines_of_holes_and_parts() -> None:
    assert np.array_equal(drawn(joined_outline(masks()["ring"]), (HEIGHT, WIDTH)), masks()["ring"])
    two = np.zeros((9, 20), bool)
    two[2:7, 1:6] = two[2:7, 12:18] = True
    bridge = drawn(joined_outline(two), two.shape) & ~two
    assert bridge.sum() == 6 and bridge.any(axis=0).sum() == 6  # one line from side to side
    square = joined_outline(np.ones((4, 5), bool))
    assert sorted(map(tuple, square.tolist())) == [(0, 0), (0, 3), (4, 0), (4, 3)]


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_any_mask_has_an_outline(bits: np.ndarray) -> None:
    if not bits.any():
        return
    outline = joined_outline(bits)
    assert len(outline) >= 3 and outline.min() >= 0
    assert outline[:, 0].max() < bits.shape[1] and outline[:, 1].max() < bits.shape[0]
    assert not (bits & ~drawn(outline, bits.shape)).any()


def test_label_maps_come_back_but_for_what_is_hidden(data: Path) -> None:
    assert run(data, "png-labels").exit_code == 0
    with (data / "out" / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["image"], r["label"], r["id"], r["hidden"]) for r in rows] == [
        ("a.png", "1", "10", "0"),
        ("a.png", "2", "11", "80"),
        ("a.png", "3", "12", "0"),
        ("a.png", "4", "13", "0"),
    ]
    found, wanted = back(data, "masks"), [Mask.from_array(mask) for mask in masks().values()]
    wanted[1] = Mask.from_array(masks()["parts"] & ~masks()["coat"])
    assert found == wanted


def test_class_maps(data: Path) -> None:
    assert run(data, "png-classes").exit_code == 0
    labels = np.asarray(Image.open(data / "out" / "masks" / "a.png"))
    assert labels.dtype == np.uint8 and set(np.unique(labels)) == {0, 1, 2}
    assert np.array_equal(labels == 2, masks()["ring"])
    assert (data / "out" / "classes.csv").read_text().splitlines()[1:] == [
        '1,"a ""coat"" & <hat>"',
        "2,ring",
    ]
    assert not np.asarray(Image.open(data / "out" / "masks" / "b.png")).any()


def decode_cvat(element: ElementTree.Element) -> Mask:
    """As CVAT reads a mask."""
    left, top, width, height = (
        int(element.attrib[key]) for key in ("left", "top", "width", "height")
    )
    runs = [int(run) for run in element.attrib["rle"].split(",")]
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[top : top + height, left : left + width] = flat.reshape(height, width)
    return Mask.from_array(whole)


def test_cvat(data: Path) -> None:
    assert run(data, "cvat").exit_code == 0
    root = ElementTree.parse(data / "out" / "annotations.xml").getroot()
    assert [i.attrib["name"] for i in root.iter("image")] == ["a.png", "b.png"]
    assert [e.text for e in root.findall("meta/task/labels/label/name")] == [
        'a "coat" & <hat>',
        "ring",
    ]
    found = [decode_cvat(e) for e in root.iter("mask")]
    ordered = sorted(masks().items(), key=lambda pair: -pair[1].sum())
    assert found[:4] != [] and len(found) == 5
    for name, mask in ordered:
        assert Mask.from_array(mask) in found, name
    assert [int(e.attrib["z_order"]) for e in root.iter("mask")] == [0, 1, 2, 3, 4]
    assert {e.attrib["label"] for e in root.iter("mask")} == {'a "coat" & <hat>', "ring"}


@pytest.mark.parametrize(
    ("bits", "runs"),
    [("0110", [1, 2, 1]), ("1100", [0, 2, 2]), ("1", [0, 1]), ("01", [1, 1]), ("0101", [1] * 4)],
)
def test_row_runs(bits: str, runs: list[int]) -> None:
    assert row_runs(np.array([[b == "1" for b in bits]])) == runs


def decode_brush(data: bytes) -> np.ndarray:
    """Samples as Label Studio unpacks them, bit by bit."""
    bits, at = "".join(f"{byte:08b}" for byte in data), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, sample_bits = take(32), take(5) + 1
    sizes, out = [take(4) + 1 for _ in range(4)], []
    while len(out) < total:
        repeats, size = take(1), sizes[take(2)]
        length = take(size) + 1
        samples = (
            [take(sample_bits)] * length if repeats else [take(sample_bits) for _ in range(length)]
        )
        out += samples
    return np.array(out, np.uint8)


def test_label_studio(data: Path) -> None:
    assert run(data, "label-studio", "--url", "s3://bucket/").exit_code == 0
    tasks = json.loads((data / "out" / "tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == ["s3://bucket/a.png", "s3://bucket/b.png"]
    regions = tasks[0]["annotations"][0]["result"]
    assert [r["value"]["brushlabels"] for r in regions][:2] == [["ring"], ['a "coat" & <hat>']]
    assert {(r["original_width"], r["original_height"]) for r in regions} == {(WIDTH, HEIGHT)}
    for region, mask in zip(regions, masks().values(), strict=False):
        rgba = decode_brush(bytes(region["value"]["rle"])).reshape(HEIGHT, WIDTH, 4)
        assert np.array_equal(rgba, 255 * np.repeat(mask[..., None], 4, axis=2))
    config = ElementTree.parse(data / "out" / "config.xml").getroot()
    assert [e.attrib["value"] for e in config.iter("Label")] == ['a "coat" & <hat>', "ring"]


def test_brush_of_a_long_run() -> None:
    mask = Mask.from_array(np.ones((300, 300), bool))
    assert (decode_brush(brush_rle(mask)) == 255).all()
    # 32 bits of length 4, 8-bit samples, run lengths of 3, 4, 8, 16 bits; 4 samples of 255
    header = f"{4:032b}" + "00111" + "0010" + "0011" + "0111" + "1111"
    bits = header + "1" + "00" + "011" + "1" * 8
    one = Mask.from_array(np.ones((1, 1), bool))
    assert brush_rle(one) == int(bits.ljust(72, "0"), 2).to_bytes(9, "big")


def test_label_studio_unpacks_it() -> None:
    brush = pytest.importorskip(
        "label_studio_sdk.converter.brush", reason="label-studio-sdk is not installed"
    )
    for mask in masks().values():
        samples = brush.decode_rle(list(brush_rle(Mask.from_array(mask))))
        assert np.array_equal(samples.reshape(HEIGHT, WIDTH, 4)[..., 3] > 0, mask)


def test_cvat_unpacks_it() -> None:
    cvat = pytest.importorskip("cvat_sdk.masks", reason="cvat-sdk is not installed")
    for array in masks().values():
        mask = Mask.from_array(array)
        box = mask.box
        corners = [box.left, box.top, box.right - 1, box.bottom - 1]
        points = [*row_runs(mask.bits), *corners]
        assert points == cvat.encode_mask(array)
        back = cvat.decode_mask(points, image_width=WIDTH, image_height=HEIGHT)
        assert np.array_equal(back, array)


@pytest.mark.parametrize("kind", ["rle", "polygon"])
def test_fiftyone_and_others_that_use_pycocotools_load_it(
    data: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(data, "coco", "--segmentation", kind)
    coco = COCO(str(data / "out" / "annotations.json"))
    for annotation, mask in zip(coco.loadAnns([10, 11, 12, 13]), masks().values(), strict=True):
        assert np.array_equal(coco.annToMask(annotation), mask)
    assert [coco.loadImgs(i)[0]["file_name"] for i in coco.getImgIds()] == ["a.png", "b.png"]


def test_png_masks_become_coco(data: Path) -> None:
    assert run(data, "png-labels").exit_code == 0
    shutil.move(data / "out", data / "maps")
    facts = export(data / "images", data / "maps" / "masks", data / "out", "coco")
    content = json.loads((data / "out" / "annotations.json").read_text())
    assert (facts["images"], facts["instances"]) == (2, 4)
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3, 4]
    assert content["categories"] == [{"id": 1, "name": "object"}]
    assert [image["file_name"] for image in content["images"]] == ["a.png", "b.png"]


def change(data: Path, **values: Any) -> None:
    content = json.loads((data / "masks.json").read_text())
    content["annotations"][0].update(values)
    (data / "masks.json").write_text(json.dumps(content))


@pytest.mark.parametrize("target", ["coco", "yolo", "png-labels", "cvat", "label-studio"])
def test_a_broken_mask_is_named_and_the_rest_written(data: Path, target: str) -> None:
    change(data, segmentation={"size": [HEIGHT, WIDTH], "counts": [1, 2]})
    result = run(data, target)
    assert result.exit_code == 1
    assert "a.png: instance 10: run lengths cover 3 pixels" in result.stderr
    assert " 2 images" in result.stdout and (data / "out" / "export.json").is_file()


def test_names_that_lead_out_stay_inside(data: Path) -> None:
    content = json.loads((data / "masks.json").read_text())
    content["images"][0]["file_name"] = "../../x/a.png"
    content["images"][1]["file_name"] = "x\\a.jpg"  # the same name but for its suffix
    (data / "masks.json").write_text(json.dumps(content))
    result = run(data, "yolo")
    assert result.exit_code == 1 and "would be that of ../../x/a.png" in result.stderr
    assert [p.name for p in (data / "out" / "labels").rglob("*.txt")] == ["a.txt"]
    assert (data / "out" / "labels" / "x" / "a.txt").is_file()


def test_nothing_is_left_of_an_export_that_fails(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("midway")

    monkeypatch.setattr("maskfix.exporting.coco.CocoWriter.close", fail)
    with pytest.raises(RuntimeError, match="midway"):
        export(data / "images", data / "masks.json", data / "out", "coco")
    assert sorted(path.name for path in data.iterdir()) == ["images", "masks.json"]


def test_an_export_replaces_an_export_only(data: Path) -> None:
    (data / "out").mkdir()
    (data / "out" / "precious").touch()
    for more, message in (((), "exists; give another"), (("--overwrite",), "is no export")):
        with pytest.raises(UsageError, match=message):
            run(data, "coco", *more)
    (data / "out" / "precious").unlink()
    assert run(data, "coco").exit_code == 0
    with pytest.raises(UsageError, match="exists; give another"):
        run(data, "yolo")
    assert run(data, "yolo", "--overwrite").exit_code == 0
    assert not (data / "out" / "annotations.json").exists()
    assert (data / "images" / "a.png").is_file()


def test_the_commands_of_the_documentation(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = text_of("hand-off").splitlines()
    commands = [line for line in lines if line.startswith("maskfix export ")]
    assert {command.split()[7] for command in commands} == {"coco", "yolo", "cvat", "label-studio"}
    (data / "imgs").symlink_to(data / "images")
    (data / "refined").mkdir()
    shutil.copy(data / "masks.json", data / "refined" / "annotations.json")
    monkeypatch.chdir(data)
    for command in commands:
        arguments = command.split()[1:]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False, standalone_mode=False)
        assert result.return_value == 0, command
    for name in ("coco/annotations.json", "yolo/data.yaml", "cvat/annotations.xml"):
        assert (data / name).is_file()
