"""Every data set layout, on a tiny set in the exact public form."""

from __future__ import annotations

import csv
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from tiny_data import scene, write_coco

from maskfix.errors import InputError, InstanceError, UsageError
from maskfix.formats.segmentation import encode
from maskfix.masks import Mask
from maskfix.train.data import InstanceData
from maskfix.train.readers import FORMATS, open_data

COUNT = 2


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(path.suffix, image[..., ::-1])[1]
    path.write_bytes(encoded.tobytes())


def dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def labels(masks: list[np.ndarray]) -> np.ndarray:
    return sum((i + 1) * m.astype(np.uint8) for i, m in enumerate(masks))  # type: ignore[return-value]


def annotation(mask: np.ndarray, number: int, image: int, kind: str = "rle") -> dict[str, object]:
    value, _ = encode(Mask.from_array(mask), kind)  # type: ignore[arg-type]
    return {"id": number, "image_id": image, "category_id": 1, "segmentation": value, "iscrowd": 0}


def coco2017(root: Path) -> None:
    images, annotations, segments = [], [], []
    for i in range(COUNT):
        image, masks = scene(i)
        name = f"{i:012}"
        write_image(root / "train2017" / f"{name}.jpg", image)
        images.append({"id": i, "file_name": f"{name}.jpg", "height": 80, "width": 96})
        annotations += [annotation(m, 2 * i + k, i, "polygon") for k, m in enumerate(masks)]
        crowd = annotation(np.ones((80, 96), bool), 100 + i, i)
        annotations.append({**crowd, "iscrowd": 1})
        background = ~np.any(masks, axis=0)
        png = np.zeros((80, 96, 3), np.uint8)
        png[background] = (7, 1, 0)  # R + 256 G
        png[masks[0]] = (9, 0, 0)
        write_image(root / "annotations" / "panoptic_train2017" / f"{name}.png", png)
        info = [{"id": 263, "category_id": 200}, {"id": 9, "category_id": 1}]
        segments.append({"image_id": i, "file_name": f"{name}.png", "segments_info": info})
    dump(
        root / "annotations" / "instances_train2017.json",
        {"info": {}, "images": images, "annotations": annotations, "categories": []},
    )
    categories = [{"id": 1, "isthing": 1, "name": "a"}, {"id": 200, "isthing": 0, "name": "b"}]
    dump(
        root / "annotations" / "panoptic_train2017.json",
        {"images": images, "annotations": segments, "categories": categories},
    )


def lvis(root: Path) -> None:
    images, annotations = [], []
    for i, folder in enumerate(("train2017", "val2017")):
        image, masks = scene(i)
        write_image(root / folder / f"{i:012}.jpg", image)
        url = f"http://images.cocodataset.org/{folder}/{i:012}.jpg"
        entry = {"id": i, "coco_url": url, "height": 80, "width": 96, "neg_category_ids": []}
        images.append(entry)
        annotations += [annotation(m, 2 * i + k, i, "polygon") for k, m in enumerate(masks)]
    dump(root / "lvis_v1_train.json", {"images": images, "annotations": annotations})


def sbd(root: Path) -> None:
    for i in range(COUNT):
        image, masks = scene(i)
        write_image(root / "img" / f"2008_00000{i}.jpg", image)
        segmentation = labels(masks)
        if i == 0:  # fills less than 8 % of its box
            segmentation[0, 0] = segmentation[-1, -1] = 3
        (root / "inst").mkdir(exist_ok=True)
        content = {
            "Segmentation": segmentation,
            "Boundaries": np.zeros((2, 1), object),
            "Categories": np.ones((2, 1)),
        }
        savemat(root / "inst" / f"2008_00000{i}.mat", {"GTinst": content})
    (root / "train.txt").write_text("2008_000000\n2008_000001\n")
    rows = [(0, "2008_000000", 0.9), (1, "2008_000001", np.float64(0.4))]
    (root / "sbd_samples_weights.pkl").write_bytes(pickle.dumps(rows))


def voc(root: Path) -> None:
    for i in range(COUNT):
        image, masks = scene(i)
        write_image(root / "JPEGImages" / f"2007_00000{i}.jpg", image)
        indices = labels(masks)
        indices[:3] = 255
        (root / "SegmentationObject").mkdir(exist_ok=True)
        palette = Image.fromarray(indices)
        palette.putpalette([k % 256 for k in range(768)])
        palette.save(root / "SegmentationObject" / f"2007_00000{i}.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000000\n2007_000001\n")


def ade20k(root: Path) -> None:
    for i in range(COUNT):
        image, masks = scene(i)
        folder = root / "images" / "ADE" / "training" / "urban" / "street"
        write_image(folder / f"ADE_train_0000000{i}.jpg", image)
        segments = np.zeros((80, 96, 3), np.uint8)
        for k, mask in enumerate(masks):
            segments[mask] = (10, 44, k + 1)
        write_image(folder / f"ADE_train_0000000{i}_seg.png", segments)
        write_image(folder / f"ADE_train_0000000{i}_parts_1.png", segments)


def openimages(root: Path) -> None:
    rows = []
    for i in range(COUNT):
        image, masks = scene(i)
        write_image(root / "train" / f"{i:016x}.jpg", image)
        for k, mask in enumerate(masks):
            name = f"{i:016x}_m0{k}_box{k}.png"
            double = cv2.resize(255 * mask.astype(np.uint8), None, fx=2, fy=2, interpolation=0)
            path = root / f"train-masks-{i}" / name
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), double)
            rows.append({"MaskPath": name, "ImageID": f"{i:016x}", "LabelName": "/m/01"})
        rows.append({"MaskPath": "none.png", "ImageID": "ffff", "LabelName": "/m/01"})
    with (root / "train-annotations-object-segmentation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def hannotation(root: Path) -> None:
    index = {}
    for i in range(COUNT):
        image, masks = scene(i)
        write_image(root / "train" / "images" / f"{i}.jpg", image)
        part = np.zeros_like(masks[0])
        part[int(np.argwhere(masks[0])[0][0])] = True
        second = (~np.any(masks, axis=0)).astype(np.uint8) * 5
        layers = [labels(masks), second, part.astype(np.uint8)]
        packed = [cv2.imencode(".png", layer)[1] for layer in layers]
        where = [(0, 1), (0, 2), (2, 1), (1, 5)]
        folder = root / "train" / "masks"
        folder.mkdir(exist_ok=True)
        (folder / f"{i}.pickle").write_bytes(pickle.dumps((packed, where)))
        child = {"children": [], "parent": 0, "node_level": 1}
        parent = {"children": [2], "parent": None, "node_level": 0}
        index[str(i)] = {
            "num_instance_masks": 3,
            "hierarchy": {0: parent, 1: None, 2: child, 3: None},
        }
    (root / "train" / "hannotation.pickle").write_bytes(pickle.dumps(index))


def png_labels(root: Path) -> None:
    for i in range(COUNT):
        image, masks = scene(i)
        write_image(root / "images" / f"{i}.jpg", image)
        (root / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(root / "masks" / f"{i}.png"), labels(masks))


def png_numbered(root: Path) -> None:
    for i in range(COUNT):
        image, masks = scene(i)
        write_image(root / "images" / f"shot_{i}.jpg", image)
        (root / "masks").mkdir(exist_ok=True)
        for k, mask in enumerate(masks):
            path = root / "masks" / f"shot_{i}_{k}.png"
            cv2.imwrite(str(path), 255 * mask.astype(np.uint8))


def own_coco(root: Path) -> None:
    write_coco(root / "set", COUNT)
    for path in (root / "set").iterdir():
        path.rename(root / path.name)
    (root / "set").rmdir()


WRITERS: list[tuple[str, Callable[[Path], None]]] = [
    ("coco", own_coco),
    ("coco2017", coco2017),
    ("lvis", lvis),
    ("hannotation", hannotation),
    ("sbd", sbd),
    ("voc", voc),
    ("ade20k", ade20k),
    ("openimages", openimages),
    ("png", png_labels),
    ("png", png_numbered),
]


def check(data: InstanceData, void_rows: int = 0) -> None:
    assert len(data.records) == COUNT
    for i in range(COUNT):
        image, masks = scene(i)
        assert np.abs(data.image(i).astype(int) - image).mean() < 25  # JPEG
        found = data.objects(i).things
        assert len(found) == len(masks)
        for mask, reference in zip(found, masks, strict=True):
            reference[:void_rows] = False
            np.testing.assert_array_equal(mask.to_array(), reference)


@pytest.mark.parametrize(("format", "write"), WRITERS, ids=[write.__name__ for _, write in WRITERS])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar"])
def test_public_layout(
    tmp_path: Path, format: str, write: Callable[[Path], None], packed: bool
) -> None:
    root = tmp_path / "download"
    root.mkdir()
    write(root)
    path = root
    if packed:
        path = tmp_path / "download.tar"
        with tarfile.open(path, "w") as tar:
            tar.add(root, arcname="download")
    for asked in ("auto", format):
        check(open_data("tiny", path, asked), void_rows=3 if format == "voc" else 0)


def test_every_format_is_tested() -> None:
    assert {format for format, _ in WRITERS} == set(FORMATS)


def test_stuff_of_coco_and_of_the_published_layout(tmp_path: Path) -> None:
    for name, write in (("a", coco2017), ("b", hannotation)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
        stuff = open_data("tiny", tmp_path / name).objects(1).stuff
        background = ~np.any(scene(1)[1], axis=0)
        assert len(stuff) == 1
        np.testing.assert_array_equal(stuff[0].to_array(), background)


def test_void_of_voc_and_scores_of_sbd(tmp_path: Path) -> None:
    for name, write in (("v", voc), ("s", sbd)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    ignore = open_data("tiny", tmp_path / "v").objects(0).ignore
    assert ignore is not None and ignore.area == 3 * 96
    shares = [record.share for record in open_data("tiny", tmp_path / "s").records]
    assert shares == pytest.approx([0.1, 0.6])


def test_json_beside_or_apart_from_images(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", COUNT)
    check(open_data("tiny", root / "annotations.json"))
    moved = tmp_path / "labels.json"
    (root / "annotations.json").rename(moved)
    check(open_data("tiny", f"{root / 'images'}:{moved}"))
    with pytest.raises(InputError, match="none of the 2 annotated images"):
        (tmp_path / "empty").mkdir()
        open_data("tiny", f"{tmp_path / 'empty'}:{moved}")


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder or a tar"):
        open_data("x", tmp_path / "nothing")
    with pytest.raises(InputError, match="no layout known here: coco: images/"):
        open_data("x", tmp_path)
    with pytest.raises(InputError, match="does not have JPEGImages"):
        open_data("x", tmp_path, "voc")
    with pytest.raises(UsageError, match="none of auto, coco"):
        open_data("x", tmp_path, "coc")
    (tmp_path / "annotations.json").write_text('{"images": [{"id": 1}]}')
    with pytest.raises(InputError, match=r"expected COCO ground truth.*height"):
        open_data("x", tmp_path)


@pytest.mark.parametrize(
    ("segmentation", "error"),
    [
        ({"size": [80, 96], "counts": "~~"}, "character"),
        ({"size": [8, 9], "counts": "0"}, "image of 9x8"),
        ([[1, 2, 3]], "3 numbers"),
    ],
)
def test_broken_masks_name_data_set_and_image(
    tmp_path: Path, segmentation: object, error: str
) -> None:
    root = write_coco(tmp_path / "set", COUNT)
    content = json.loads((root / "annotations.json").read_text())
    content["annotations"][0]["segmentation"] = segmentation
    dump(root / "annotations.json", content)
    with pytest.raises(InstanceError, match=rf"tiny: images/000\.png: .*{error}"):
        open_data("tiny", root).objects(0)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (exec, ("raise SystemExit",))

    (tmp_path / "train").mkdir()
    buffer = io.BytesIO()
    pickle.dump({"1": Evil()}, buffer)
    (tmp_path / "train" / "hannotation.pickle").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"plain values: it wants builtins\.exec"):
        open_data("x", tmp_path)
