"""Readers of the public layouts, each on a tiny set in that layout."""

from __future__ import annotations

import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from maskfix.archive import Files
from maskfix.benchmarks import LAYOUTS, Benchmark, read_annotated, read_benchmark
from maskfix.errors import InputError
from maskfix.evaluate import Case
from maskfix.masks import Mask
from maskfix.rle import counts_from_mask, text_from_counts

H, W = 12, 16


def picture(path: Path, red: int = 200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((H, W, 3), np.uint8)
    image[..., 0] = red
    Image.fromarray(image).save(path, quality=95)


def grey(path: Path, *boxes: tuple[int, int, int]) -> None:
    """Rows from..to of a grey mask get a value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((H, W), np.uint8)
    for top, bottom, value in boxes:
        mask[top:bottom] = value
    cv2.imwrite(str(path), mask)


def rows(mask: Mask | None) -> list[int]:
    return [] if mask is None else np.flatnonzero(mask.to_array().any(axis=1)).tolist()


def facts(benchmark: Benchmark) -> list[tuple[str, list[int], list[int], list[int]]]:
    """Name, rows of the object, rows ignored, rows to start from."""
    return [(c.name, rows(c.reference), rows(c.ignore), rows(c.initial)) for c in benchmark.cases]


def grabcut(root: Path) -> None:
    picture(root / "data_GT/a.v1.jpg")
    picture(root / "data_GT/b.bmp")
    grey(root / "boundary_GT/a.v1.bmp", (2, 4, 128), (4, 6, 255))
    grey(root / "boundary_GT/b.png", (0, 1, 129))


def berkeley(root: Path) -> None:
    picture(root / "images/x.jpg")
    grey(root / "masks/x.png", (1, 2, 128), (2, 4, 200))


def davis(root: Path) -> None:
    picture(root / "img/f1.jpg")
    picture(root / "img/f2.jpg")
    (root / "gt").mkdir()
    mask = np.zeros((H, W, 3), np.uint8)
    mask[1, :, 0], mask[2, :, 2] = 1, 128  # two objects are merged, no value is ignored
    cv2.imwrite(str(root / "gt/f1.png"), mask)
    cv2.imwrite(str(root / "gt/f2.png"), mask * 0)


def sbd(root: Path) -> None:
    picture(root / "img/s1.jpg")
    labels = np.zeros((H, W), np.uint8)
    labels[3], labels[5] = 1, 2
    (root / "inst").mkdir()
    savemat(root / "inst/s1.mat", {"GTinst": {"Segmentation": labels, "Boundaries": 0}})
    (root / "val.txt").write_text("s1\n")
    (root / "train.txt").write_text("s1\n")


VOC_COLORS = {1: (128, 0, 0), 2: (0, 128, 0), 255: (224, 224, 192)}


def voc(root: Path) -> None:
    picture(root / "JPEGImages/v1.jpg")
    labels = np.zeros((H, W), np.uint8)
    labels[1], labels[2], labels[4] = 1, 255, 2
    mask = Image.fromarray(labels).convert("P")
    palette = np.zeros((256, 3), np.uint8)
    for index, color in VOC_COLORS.items():
        palette[index] = color
    mask.putpalette(palette.tobytes())
    (root / "SegmentationObject").mkdir()
    mask.save(root / "SegmentationObject/v1.png")
    listing = root / "ImageSets/Segmentation/val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("v1\n")


def voc_with_list(root: Path) -> None:
    voc(root)
    green = np.int64(75)  # (0, 128, 0) as grey
    content = pickle.dumps((["v1"], [green]))
    (root / "ImageSets/Segmentation/test.pickle").write_bytes(content)


def davis585(root: Path) -> None:
    picture(root / "goat/00001.jpg")
    for name, row in (("1_00001", 3), ("init_sp_1_00001", 4), ("init_stm_1_00001", 5)):
        grey(root / f"goat/{name}.png", (row, row + 1, 255), (9, 10, 128))


def stems(root: Path) -> None:
    picture(root / "images/a_1.jpg")
    picture(root / "images/b.png")
    grey(root / "masks/a_1.png", (0, 1, 255))
    grey(root / "masks/b_1.png", (1, 2, 255), (3, 4, 128))
    grey(root / "masks/b_2.png", (2, 3, 255))


def rle(top: int, bottom: int) -> dict[str, object]:
    mask = np.zeros((H, W), bool)
    mask[top:bottom] = True
    counts = counts_from_mask(Mask.from_array(mask))
    return {"size": [H, W], "counts": text_from_counts(counts)}


def coco(root: Path, shift: int = 0) -> None:
    picture(root / "images/a.jpg")
    picture(root / "images/b.jpg")
    images = [
        {"id": i, "file_name": f"{n}.jpg", "height": H, "width": W} for i, n in ((1, "a"), (2, "b"))
    ]
    instances = [
        {"id": 7, "image_id": 2, "category_id": 1, "segmentation": rle(shift, shift + 2)},
        {"id": 8, "image_id": 1, "category_id": 1, "segmentation": rle(shift + 2, shift + 5)},
        {"id": 9, "image_id": 1, "category_id": 1, "segmentation": rle(0, 9), "iscrowd": 1},
        {"id": 10, "image_id": 1, "category_id": 1, "segmentation": []},
    ]
    categories = [{"id": 1, "name": "thing"}]
    content = {"images": images, "annotations": instances, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content))


BUILT: list[tuple[str, Callable[[Path], None], list[tuple[str, list[int], list[int], list[int]]]]]
BUILT = [
    ("GrabCut", grabcut, [("a.v1", [4, 5], [2, 3], []), ("b", [0], [], [])]),
    ("Berkeley", berkeley, [("x", [2, 3], [1], [])]),
    ("DAVIS", davis, [("f1", [1, 2], [], [])]),
    ("COCO_MVal", davis, [("f1", [1, 2], [], [])]),
    ("coco-mval", davis, [("f1", [1, 2], [], [])]),
    ("SBD", sbd, [("s1#1", [3], [], []), ("s1#2", [5], [], [])]),
    ("SBD_Train", sbd, [("s1#1", [3], [], []), ("s1#2", [5], [], [])]),
    ("PascalVOC", voc, [("v1#1", [1], [2], []), ("v1#2", [4], [2], [])]),
    ("Pascal VOC", voc_with_list, [("v1#75", [4], [2], [])]),
    ("DAVIS-585", davis585, [("goat/1_00001", [3], [], [])]),
    ("DAVIS585_SP", davis585, [("goat/1_00001", [3], [], [4])]),
    ("DAVIS585_STM", davis585, [("goat/1_00001", [3], [], [5])]),
    ("mine", stems, [("a_1", [0], [], []), ("b_1", [1], [3], []), ("b_2", [2], [], [])]),
    ("mine", coco, [("a.jpg#8", [2, 3, 4], [], []), ("b.jpg#7", [0, 1], [], [])]),
]


@pytest.mark.parametrize(("name", "build", "expected"), BUILT)
@pytest.mark.parametrize("packed", [False, True])
def test_layouts(
    tmp_path: Path,
    name: str,
    build: Callable[[Path], None],
    expected: list[tuple[str, list[int], list[int], list[int]]],
    packed: bool,
) -> None:
    root = tmp_path / "set"
    root.mkdir()
    build(root)
    if packed:
        with tarfile.open(tmp_path / "set.tar", "w") as tar:
            tar.add(root, "set")
        shutil.rmtree(root)
        root = tmp_path / "set.tar"
    benchmark = read_benchmark(name, root)
    assert facts(benchmark) == expected
    image = benchmark.cases[0].image()
    assert image.shape == (H, W, 3) and image.dtype == np.uint8
    assert image[..., 0].min() > 180 > 20 > image[..., 2].max()  # red comes first


def test_notes(tmp_path: Path) -> None:
    for name, build, words in (
        ("PascalVOC", voc, "test.pickle, is not there"),
        ("DAVIS", davis, "1 empty masks are left out"),
    ):
        root = tmp_path / name
        root.mkdir()
        build(root)
        assert any(words in note for note in read_benchmark(name, root).notes)


def test_instances_of_an_image_share_its_loader(tmp_path: Path) -> None:
    sbd(tmp_path)
    first, second = read_benchmark("SBD", tmp_path).cases
    assert first.image is second.image


@pytest.mark.parametrize(
    ("name", "build", "remove", "message"),
    [
        ("GrabCut", grabcut, "data_GT", "GrabCut: expected a folder data_GT with the images"),
        ("GrabCut", grabcut, "boundary_GT/b.png", r"expected boundary_GT/b\.\*"),
        ("DAVIS", davis, "gt", "expected a folder gt with a mask for every image"),
        ("SBD", sbd, "val.txt", r"expected val\.txt .*found img, inst, train\.txt"),
        ("SBD", sbd, "inst/s1.mat", r"inst/s1\.mat \(named by val\.txt\)"),
        ("SBD", sbd, "img/s1.jpg", r"img/s1\.jpg, named by val\.txt"),
        ("PascalVOC", voc, "ImageSets/Segmentation/val.txt", r"val\.txt"),
        ("DAVIS585_SP", davis585, "goat/init_sp_1_00001.png", "the mask to start from"),
        ("DAVIS585", davis585, "goat/00001.jpg", r"FRAME\.jpg"),
        ("mine", stems, "masks", "annotations.json or masks, or the layout of a benchmark"),
        ("mine", stems, "images/b.png", "belongs to no image"),
        ("mine", coco, "images/b.jpg", r"images/b\.jpg, named by annotations\.json"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, name: str, build: Callable[[Path], None], remove: str, message: str
) -> None:
    build(tmp_path)
    target = tmp_path / remove
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(InputError, match=message):
        read_benchmark(name, tmp_path)


def test_a_pickle_that_would_run_is_refused(tmp_path: Path) -> None:
    voc(tmp_path)

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    (tmp_path / "ImageSets/Segmentation/test.pickle").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="not plain data"):
        read_benchmark("PascalVOC", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "annotations.json in .* is not JSON"),
        ("[]", 'no list "images" of objects'),
        ('{"images": [], "annotations": [1]}', 'no list "annotations" of objects'),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": []}', "'height'"),
        ('{"images": [], "annotations": []}', "holds no instance to evaluate"),
    ],
)
def test_files_that_are_not_coco(tmp_path: Path, content: str, message: str) -> None:
    coco(tmp_path)
    (tmp_path / "annotations.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_benchmark("mine", tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    for name, build, file in (
        ("SBD", sbd, "inst/s1.mat"),
        ("GrabCut", grabcut, "boundary_GT/b.png"),
        ("DAVIS585", davis585, "goat/1_00001.png"),
    ):
        root = tmp_path / name
        root.mkdir()
        build(root)
        (root / file).write_bytes((root / file).read_bytes()[:40])
        with pytest.raises(InputError, match=file):
            read_benchmark(name, root)


def test_starting_masks_by_id(tmp_path: Path) -> None:
    root, damaged = tmp_path / "set", tmp_path / "damaged"
    root.mkdir(), damaged.mkdir()
    coco(root)
    coco(damaged, shift=1)
    expected = [("a.jpg#8", [2, 3, 4], [], [3, 4, 5]), ("b.jpg#7", [0, 1], [], [1, 2])]
    start = damaged / "annotations.json"
    assert facts(read_benchmark("mine", root, start)) == expected
    assert facts(read_annotated("mine", root / "images", root / "annotations.json", start)) == [
        *expected
    ]
    scratch = read_annotated("mine", root / "images", root / "annotations.json")
    assert facts(scratch) == [(name, target, [], []) for name, target, _, _ in expected]


def test_select() -> None:
    def case(area: int) -> Case:
        mask = np.zeros((1, 100), bool)
        mask[0, :area] = True
        return Case(str(area), lambda: np.zeros((1, 100, 3), np.uint8), Mask.from_array(mask))

    benchmark = Benchmark("b", tuple(case(area) for area in range(1, 24)))
    assert [c.name for c in benchmark.select(4, 3).cases] == ["4", "10", "16"]  # 20 // 3 = 6
    assert len(benchmark.select(0, 50).cases) == 23


def test_every_layout_is_tested() -> None:
    assert set(LAYOUTS) <= {name.replace("-", "") if "585" in name else name for name, *_ in BUILT}


def test_files_reads_tars_that_are_not_wrapped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.txt").write_text("1")
    (tmp_path / "y.txt").write_text("2")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(tmp_path / "a", "a")
        tar.add(tmp_path / "y.txt", "y.txt")
    files = Files(tmp_path / "t.tar")
    assert files.names == ("a/x.txt", "y.txt")
    assert files.read("a/x.txt") == b"1"
    assert files.has_folder("a") and not files.has_folder("b")
    with pytest.raises(InputError, match="expected a folder or a tar"):
        Files(tmp_path / "nothing")
