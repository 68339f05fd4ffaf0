"""One's own sets: COCO files, folders of PNG masks, and what `maskfix.formats` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from maskfix.benchmarks.folder import GREY_IGNORE, Folder, make_case
from maskfix.errors import InputError
from maskfix.evaluate import Case
from maskfix.formats import Annotation, ImageItem, Source
from maskfix.formats.image import read_image
from maskfix.formats.segmentation import decode
from maskfix.masks import Mask
from maskfix.refinement.references import match_references


def stems(folder: Folder) -> Iterator[Case]:
    pictures = folder.members("images", "the images")
    found = folder.members("masks", "masks named STEM or STEM_N after their images")
    images = {stem: folder.image(name) for stem, name in pictures.items()}
    for stem, name in found.items():
        of = stem if stem in pictures else stem.rpartition("_")[0]
        if of not in pictures:
            raise InputError(f"{folder.name}: {name} belongs to no image in images")
        grey = folder.pixels(name)[:, :, 0]
        yield make_case(stem, images[of], grey > GREY_IGNORE, grey == GREY_IGNORE)


def coco(folder: Folder, notes: list[str], initial: Path | None = None) -> Iterator[Case]:
    """COCO ground truth; crowds are left out. Starts from masks of the same ids, if given."""
    where = f"{folder.name}: annotations.json in {folder.files.path}"
    content = _load(folder.read("annotations.json", "COCO ground truth"), where)
    starts: dict[Any, Any] | None = None
    if initial is not None:
        if not initial.is_file():
            raise InputError(f"{initial}: expected a COCO file of masks to start from, found none")
        entries = _load(initial.read_bytes(), str(initial))["annotations"]
        starts = {entry.get("id"): entry.get("segmentation") for entry in entries}
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd"):
            by_image.setdefault(annotation.get("image_id"), []).append(annotation)
    missing = 0
    for entry in content["images"]:
        try:
            key, name = entry["id"], str(entry["file_name"])
            size = int(entry["height"]), int(entry["width"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: an image lacks or spoils {error}") from error
        file = name if folder.files.has(name) else f"images/{name}"
        if key in by_image and not folder.files.has(file):
            raise folder.error(f"{file}, named by annotations.json")
        image = folder.image(file)
        for annotation in by_image.get(key, []):
            number = annotation.get("id")
            if starts is not None and number not in starts:
                missing += 1
                continue
            target = decode(annotation.get("segmentation"), size)
            start = None if starts is None else decode(starts[number], size)
            yield Case(f"{name}#{number}", image, target, None, start)
    if missing:
        notes.append(f"{missing} instances have no mask in {initial} and are left out")


def _load(content: bytes, what: str) -> dict[str, list[dict[str, Any]]]:
    """A COCO file; lists of objects are sure to be under "images" and "annotations"."""
    try:
        value = json.loads(content)
    except ValueError as error:
        raise InputError(f"{what} is not JSON: {error}") from error
    for key in ("images", "annotations"):
        entries = value.get(key) if isinstance(value, dict) else None
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise InputError(f'{what} is not COCO ground truth: it has no list "{key}" of objects')
    assert isinstance(value, dict)
    return value


def annotated(source: Source, starts: Source | None, notes: list[str]) -> Iterator[Case]:
    left_out = 0
    for ordinal in range(len(source)):
        item = source[ordinal]
        given, targets = _pair(item, source, starts)
        if not targets:
            left_out += len(given)
            continue
        if item.path is None:
            raise InputError(f"{item.file}: {item.problem or 'the image file was not found'}")
        size = None if item.height is None or item.width is None else (item.height, item.width)
        image = partial(read_image, item.path, size)
        for annotation in given:
            target = targets.get(annotation.key)
            if target is None or annotation.mask is None or annotation.is_crowd:
                left_out += 1
                continue
            start = None if starts is None else annotation.mask
            yield Case(f"{item.file}#{annotation.id}", image, target, None, start)
    if left_out:
        notes.append(f"{left_out} instances are crowds, unreadable or without a reference")


def _pair(
    item: ImageItem, source: Source, starts: Source | None
) -> tuple[Sequence[Annotation], Mapping[int, Mask]]:
    """The instances of an image to evaluate, and their references by key."""
    if starts is None:
        known = {a.key: a.mask for a in item.annotations if a.mask is not None}
        return item.annotations, known
    try:
        given = starts[starts.find_image(item.file)]
    except InputError:
        return (), {}
    return given.annotations, match_references(given, starts, source)[0]
