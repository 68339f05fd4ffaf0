"""COCO ground truth, COCO results and LVIS, read image by image from an index of the file."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maskfix.errors import InputError, InstanceError
from maskfix.formats.base import Annotation, Edit, Id, ImageItem, Segmentation, Source, Written
from maskfix.formats.coco_index import CocoIndex, ImageEntries, index_coco, name_of
from maskfix.formats.coco_write import write_edits
from maskfix.formats.image import find_image_file, image_size, list_images
from maskfix.formats.lookup import NO_CODE, CodeIndex, code_of
from maskfix.formats.segmentation import Size, decode, stated_size

ADVICE = "give the file that lists its images with --images-json"


class ImageTable(Protocol):
    """The images of a source, in its order."""

    ids: CodeIndex
    names: CodeIndex
    basenames: CodeIndex

    def __len__(self) -> int: ...

    def name(self, ordinal: int) -> str: ...

    def read(self, ordinal: int) -> ImageItem: ...


class CocoSource(Source):
    """COCO ground truth, LVIS or results over an image table."""

    def __init__(self, index: CocoIndex, images: ImageTable, format: str) -> None:
        self.format = format
        self.categories = index.categories
        self._index = index
        self.stamp = index.stamp
        self._images = images
        self._names, self._basenames = images.names, images.basenames
        self._image_of = images.ids.match(index.image_ids)  # (annotations,) ordinals, -1 unknown
        self._keys = np.argsort(self._image_of, kind="stable")
        self._first = np.searchsorted(self._image_of[self._keys], np.arange(len(images) + 1))
        self.notes = tuple(_notes(index, images.ids, self._image_of))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, ordinal: int) -> ImageItem:
        if not 0 <= ordinal < len(self):
            raise IndexError(ordinal)
        item = self._images.read(ordinal)
        keys = [int(key) for key in self._keys[self._first[ordinal] : self._first[ordinal + 1]]]
        entries = [self._index.load(self._index.annotations, key) for key in keys]
        size = _annotated_size(item, entries)
        annotations = tuple(
            self._annotation(key, position, entry, size)
            for position, (key, entry) in enumerate(zip(keys, entries, strict=True))
        )
        height, width = size or (None, None)
        return replace(item, height=height, width=width, annotations=annotations)

    def file_of(self, ordinal: int) -> str:
        return self._images.name(ordinal)

    def find_annotation(self, annotation_id: Id) -> int:
        found = self._index.ids.find(annotation_id)
        if len(found) > 1:
            raise InputError(
                f"annotation id {annotation_id} is ambiguous: entries {found[0]} and {found[1]} "
                f"(counted from 0) of {self._index.path} have it; select by index instead"
            )
        if not found:
            raise InputError(f"annotation id {annotation_id} is not in {self._index.path}")
        image = int(self._image_of[found[0]])
        if image < 0:
            raise InputError(f"annotation id {annotation_id} belongs to no known image")
        return image

    def write(
        self,
        edits: Iterable[Edit],
        out_dir: Path,
        segmentation: Segmentation = "same",
        simplify: float = 0.0,
    ) -> Iterator[Written]:
        return write_edits(
            self._index, edits, out_dir / "annotations.json", segmentation, simplify,
            image_id=lambda ordinal: self._images.read(ordinal).image_id,
            category_id=self.category_id,
        )  # fmt: skip

    def _annotation(
        self, key: int, position: int, entry: dict[str, Any], size: Size | None
    ) -> Annotation:
        category = entry.get("category_id")
        mask, problem = None, None
        try:
            mask = decode(entry.get("segmentation"), size)
        except InstanceError as error:
            problem = str(error)
        return Annotation(
            key=key,
            id=self._id(entry, key),
            index=position,
            category=_category_name(self.categories, category),
            category_id=category if isinstance(category, int | str) else None,
            mask=mask,
            problem=problem,
            is_crowd=bool(entry.get("iscrowd")),
            score=_number(entry.get("score")),
        )

    def _id(self, entry: dict[str, Any], key: int) -> Id:
        """Id of an annotation; its position if it has none, or results do not have them."""
        own = entry.get("id")
        code = code_of(own)
        if code == NO_CODE or code != self._index.ids.codes[key]:
            return key
        return own if isinstance(own, str) else code


class JsonImages:
    """The "images" array of a COCO file."""

    def __init__(self, index: CocoIndex, entries: ImageEntries, folder: Path) -> None:
        self._index, self._entries, self._folder = index, entries, folder
        self.ids, self.names = entries.ids, entries.names
        self.basenames = entries.basenames

    def __len__(self) -> int:
        return len(self._entries.elements)

    def name(self, ordinal: int) -> str:
        return name_of(self._load(ordinal)) or ""

    def read(self, ordinal: int) -> ImageItem:
        entry = self._load(ordinal)
        name = name_of(entry)
        path = find_image_file(self._folder, name) if name else None
        problem = None
        if name is None:
            problem = "the annotation file gives no file name for this image"
        elif path is None:
            problem = f"image {name} is not in {self._folder}"
        height, width = _pixels(entry.get("height")), _pixels(entry.get("width"))
        return ImageItem(
            ordinal, entry.get("id", ordinal), name or "", path, height, width, (), problem
        )

    def _load(self, ordinal: int) -> dict[str, Any]:
        entry = self._index.load(self._entries.elements, ordinal)
        return entry if isinstance(entry, dict) else {}


class FolderImages:
    """The images of a folder; the id of each is the last number in its stem."""

    def __init__(self, folder: Path, used: NDArray[np.int64]) -> None:
        self._folder = folder
        self._files = [path.relative_to(folder).as_posix() for path in list_images(folder)]
        self._ids = [_id_of_stem(file) for file in self._files]
        self.ids, self.names = CodeIndex.of(self._ids), CodeIndex.of(self._files)
        self.basenames = CodeIndex.of(posixpath.basename(file) for file in self._files)
        for ordinal in self.ids.repeated():
            if np.any(used == self.ids.codes[ordinal]):
                other = self._files[self.ids.find(self._ids[ordinal])[0]]
                raise InputError(
                    f"image id {self._ids[ordinal]} may be {other} or {self._files[ordinal]} "
                    f"in {folder}; {ADVICE}"
                )

    def __len__(self) -> int:
        return len(self._files)

    def name(self, ordinal: int) -> str:
        return self._files[ordinal]

    def read(self, ordinal: int) -> ImageItem:
        file = self._files[ordinal]
        return ImageItem(ordinal, self._ids[ordinal], file, self._folder / file, None, None)


def open_coco(
    path: Path,
    images_dir: Path,
    images_json: Path | None = None,
    masks_format: str | None = None,
) -> CocoSource:
    """Open a COCO or LVIS file.

    Args:
        path: ground truth or results.
        images_dir: the images.
        images_json: for results, a COCO file that names the images.
        masks_format: coco, coco-results or lvis, if it must be that.

    Raises:
        InputError: see `index_coco`; another format; or results whose images cannot be told.
    """
    index = index_coco(path)
    if masks_format is not None and (masks_format == "coco-results") != (index.images is None):
        found = "ground truth, an object with images" if index.images else "results, a list"
        raise InputError(f"{path} is COCO {found}; it cannot be read as {masks_format}")
    if index.images is not None:
        if images_json is not None:
            raise InputError(f"{path} names its images itself; leave --images-json out")
        images = JsonImages(index, index.images, images_dir)
        told = "lvis" if index.images.lvis else "coco"
        return CocoSource(index, images, masks_format or told)
    if images_json is None:
        folder = FolderImages(images_dir, index.image_ids)
        if index.image_ids.size and (folder.ids.match(index.image_ids) < 0).all():
            raise InputError(
                f"{path} has no file names, and no image in {images_dir} has one of its image ids "
                f"as the number in its name; {ADVICE}"
            )
        return CocoSource(index, folder, "coco-results")
    listing = index_coco(images_json, names_only=True)
    if listing.images is None:
        raise InputError(f'{images_json}: "images" was expected, these are results')
    index.categories.update(listing.categories)
    return CocoSource(index, JsonImages(listing, listing.images, images_dir), "coco-results")


def _notes(index: CocoIndex, images: CodeIndex, image_of: NDArray[np.int64]) -> Iterable[str]:
    """What is odd in a file, a sentence each."""
    unknown = int((image_of < 0).sum())
    if unknown:
        yield f"{unknown} annotations belong to no known image; they are kept as they are"
    for what, codes in (("annotation", index.ids), ("image", images)):
        repeated = codes.repeated()
        if repeated:
            yield f"{what} id {codes.codes[repeated[0]]} is there more than once" + (
                f", and {len(repeated) - 1} other {what} ids" if len(repeated) > 1 else ""
            )
    if index.images is not None and (index.ids.codes == NO_CODE).any():
        missing = int((index.ids.codes == NO_CODE).sum())
        yield f"{missing} annotations have no id; they are named by their position"


def _annotated_size(item: ImageItem, entries: list[dict[str, Any]]) -> Size | None:
    """Size of an image: as its entry says, else as run lengths say, else as its file is."""
    if item.height and item.width:
        return item.height, item.width
    for entry in entries:
        if (size := stated_size(entry.get("segmentation"))) is not None:
            return size
    return image_size(item.path) if item.path is not None else None


def _category_name(categories: Any, category: object) -> str:
    if category is None:
        return ""
    known = categories.get(category) if isinstance(category, int | float | str) else None
    return known if known is not None else str(category)


def _id_of_stem(file: str) -> Id:
    stem = posixpath.splitext(posixpath.basename(file))[0]
    numbers = re.findall(r"[0-9]+", stem)
    return int(numbers[-1]) if numbers else stem


def _pixels(value: object) -> int | None:
    """A number of pixels, None if it is none."""
    number = _number(value)
    return int(number) if number is not None and number > 0 and number.is_integer() else None


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    return None
