"""COCO JSON in any of its uses: one's own, COCO's download, LVIS, and what `data combine` makes.

A file is parsed once; segmentations stay the bytes they are until they are drawn, so that the
million annotations of COCO or LVIS take about as much memory as the file has bytes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import msgspec
import numpy as np

from maskfix.archive import Files
from maskfix.errors import InputError
from maskfix.formats.segmentation import decode
from maskfix.masks import Mask
from maskfix.train.data import InstanceData, Objects, Record, Size, decode_image

Id = int | str


class CocoImage(msgspec.Struct):
    """An entry of "images"."""

    id: Id
    height: int
    width: int
    file_name: str = ""
    coco_url: str = ""

    @property
    def name(self) -> str:
        """File name; LVIS gives only the URL, whose last two parts are folder and file."""
        return self.file_name or "/".join(self.coco_url.split("/")[-2:])


class CocoAnnotation(msgspec.Struct):
    """An entry of "annotations"; "stuff" is maskfix's own mark of a region without a shape."""

    image_id: Id
    id: Id | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: int | bool = 0
    stuff: bool = False


class CocoFile(msgspec.Struct):
    """The part of a COCO file that training needs."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]


def read_coco(content: bytes, what: str) -> CocoFile:
    """Parse a COCO ground truth file.

    Raises:
        InputError: it is none; names the place.
    """
    try:
        return msgspec.json.decode(content, type=CocoFile)
    except msgspec.DecodeError as error:
        raise InputError(f"{what}: expected COCO ground truth: {error}") from error


def open_coco(
    name: str, images: Files, labels: Files, json_name: str, folder: str = ""
) -> InstanceData:
    """A data set from a COCO file and its images.

    Args:
        name: of the data set.
        images: holds the images, under the names the file gives or under their last parts.
        labels: holds the file.
        json_name: the file.
        folder: of the images, tried first.

    Raises:
        InputError: no COCO file, or none of its images is there.
    """
    parsed = read_coco(labels.read(json_name), f"{labels.path}/{json_name}")
    by_image: dict[Id, list[tuple[msgspec.Raw, bool, Id | None]]] = {}
    for annotation in parsed.annotations:
        if not annotation.iscrowd:
            entry = (annotation.segmentation, annotation.stuff, annotation.id)
            by_image.setdefault(annotation.image_id, []).append(entry)
    present = frozenset(images.names)
    records, found = [], 0
    for image in parsed.images:
        if image.id not in by_image:
            continue
        file = _find(images, present, folder, image.name)
        found += file is not None
        size = Size(image.height, image.width)
        records.append(Record(file or image.name, tuple(by_image[image.id]), size))
    if not found:
        example = f", for instance {parsed.images[0].name}" if parsed.images else ""
        raise InputError(
            f"data set {name}: none of the {len(records)} annotated images is in {images.path}"
            f"{example}"
        )
    return InstanceData(name, images, labels, records, decode_annotations)


def decode_annotations(files: Files, labels: Any, size: Size) -> Objects:
    """Masks of one image's annotations; those without a pixel are left out."""
    things: list[Mask] = []
    stuff: list[Mask] = []
    ids: list[Id | None] = []
    for raw, is_stuff, number in labels:
        mask = decode(msgspec.json.decode(raw), size)
        if mask.bits.size:
            (stuff if is_stuff else things).append(mask)
            if not is_stuff:
                ids.append(number)
    return Objects(things, stuff, ids=ids)


def _find(images: Files, present: frozenset[str], folder: str, name: str) -> str | None:
    name = name.replace("\\", "/").removeprefix("./")
    basename = name.rpartition("/")[2]
    for candidate in (f"{folder}/{name}", f"{folder}/{basename}", name, f"images/{name}"):
        if candidate.removeprefix("/") in present:
            return candidate.removeprefix("/")
    return images.by_basename.get(basename)


def _json_of(files: Files, split: str) -> str | None:
    """The one COCO file of a folder of one's own."""
    if files.has("annotations.json"):
        return "annotations.json"
    found = [n for n in files.names if n.endswith(".json") and n.count("/") <= 1]
    return found[0] if len(found) == 1 else None


def recognizes_own(files: Files, split: str) -> bool:
    """One JSON file, in the folder or one below."""
    return _json_of(files, split) is not None and not recognizes_lvis(files, split)


def open_own(name: str, files: Files, split: str) -> InstanceData:
    """Images with a COCO file of one's own."""
    json_name = _json_of(files, split)
    assert json_name is not None
    return open_coco(name, files, files, json_name, "images")


def _download_json(split: str, kind: str) -> str:
    return f"annotations/{kind}_{split}2017.json"


def recognizes_download(files: Files, split: str) -> bool:
    """COCO 2017 as downloaded."""
    return files.has(_download_json(split, "instances"))


def open_download(name: str, files: Files, split: str) -> InstanceData:
    """COCO 2017 as downloaded; with stuff where the panoptic annotations are there too."""
    data = open_coco(name, files, files, _download_json(split, "instances"), f"{split}2017")
    panoptic = _download_json(split, "panoptic")
    return _with_panoptic_stuff(data, panoptic) if files.has(panoptic) else data


def lvis_json(files: Files, split: str) -> str | None:
    """Name of the split's annotation file, None if there is none."""
    names = (f"{folder}lvis_v1_{split}.json" for folder in ("", "annotations/"))
    return next((name for name in names if files.has(name)), None)


def recognizes_lvis(files: Files, split: str) -> bool:
    """LVIS v1 as downloaded, beside COCO's images."""
    return lvis_json(files, split) is not None


def open_lvis(name: str, files: Files, split: str) -> InstanceData:
    """LVIS v1 as downloaded. Its images are in COCO's train2017/ and val2017/."""
    json_name = lvis_json(files, split)
    assert json_name is not None
    return open_coco(name, files, files, json_name)


class _Segment(msgspec.Struct):
    id: int
    category_id: int
    iscrowd: int = 0


class _Segments(msgspec.Struct):
    file_name: str
    segments_info: list[_Segment]


class _Category(msgspec.Struct):
    id: int
    isthing: int


class _Panoptic(msgspec.Struct):
    annotations: list[_Segments]
    categories: list[_Category]


def _with_panoptic_stuff(data: InstanceData, json_name: str) -> InstanceData:
    """Add the stuff segments of COCO's panoptic annotations to the images that have instances."""
    try:
        parsed = msgspec.json.decode(data.labels.read(json_name), type=_Panoptic)
    except msgspec.DecodeError as error:
        raise InputError(f"{json_name}: expected COCO panoptic annotations: {error}") from error
    folder = json_name.removesuffix(".json")
    stuff = {category.id for category in parsed.categories if not category.isthing}
    segments = {
        PurePosixPath(entry.file_name).stem: (
            f"{folder}/{entry.file_name}",
            tuple(s.id for s in entry.segments_info if s.category_id in stuff),
        )
        for entry in parsed.annotations
    }
    records = [
        replace(r, labels=(r.labels, *segments.get(PurePosixPath(r.file).stem, (None, ()))))
        for r in data.records
    ]
    return replace(data, records=records, decode=decode_with_panoptic)


def decode_with_panoptic(files: Files, labels: Any, size: Size) -> Objects:
    """Instances from annotations, stuff from a PNG whose colours are segment ids."""
    annotations, png, ids = labels
    objects = decode_annotations(files, annotations, size)
    if not ids:
        return objects
    rgb = decode_image(files.read(png), png, size).astype(np.int64)
    segments = rgb @ np.array([1, 256, 65536])
    masks = [Mask.from_array(segments == number) for number in ids]
    return objects._replace(stuff=[mask for mask in masks if mask.bits.size])
