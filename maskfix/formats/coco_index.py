"""The index of a COCO file: where every annotation and image lies, and which belongs to which.

Built in one pass over a file of any size; keeps some 70 bytes an annotation (with what
`CocoSource` adds) and nothing of its content.
"""

from __future__ import annotations

import posixpath
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskfix.errors import InputError
from maskfix.files import describe_file
from maskfix.formats.base import Id
from maskfix.formats.json_stream import JsonStream, parse
from maskfix.formats.lookup import NO_CODE, CodeIndex, code_of


@dataclass(frozen=True, slots=True)
class Elements:
    """The byte spans of the elements of one array of a file.

    Attributes:
        starts: (N,) int64, first byte of each element.
        ends: (N,) int64, the byte after its last.
        begin: the byte after the opening bracket.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    begin: int

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, slots=True)
class ImageEntries:
    """The "images" array.

    Attributes:
        elements: where they are.
        ids: codes of their ids.
        names: codes of their file names.
        basenames: codes of the last parts of these.
        lvis: whether the file has LVIS's fields.
    """

    elements: Elements
    ids: CodeIndex
    names: CodeIndex
    basenames: CodeIndex
    lvis: bool


@dataclass(frozen=True, slots=True)
class CocoIndex:
    """What is where in a COCO ground truth (with images) or results file (without).

    Attributes:
        path: the file.
        stamp: its name, size and time of change when it was read.
        images: None in a results file.
        annotations: where they are.
        ids: codes of their ids; in a results file without ids, their positions.
        image_ids: (N,) int64, codes of the images they name.
        next_id: greater than every numeric id.
        categories: id -> name.
    """

    path: Path
    stamp: str
    images: ImageEntries | None
    annotations: Elements
    ids: CodeIndex
    image_ids: NDArray[np.int64]
    next_id: int
    categories: dict[Id, str]

    def read(self, elements: Elements, ordinal: int) -> bytes:
        """The bytes of one element."""
        start = int(elements.starts[ordinal])
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(int(elements.ends[ordinal]) - start)

    def load(self, elements: Elements, ordinal: int) -> Any:
        """One element, decoded."""
        return parse(self.read(elements, ordinal))

    def check_unchanged(self) -> None:
        """Raise InputError if the file is not the one that was indexed."""
        if describe_file(self.path) != self.stamp:
            raise InputError(f"{self.path}: changed since it was opened; run again")


def index_coco(path: Path, names_only: bool = False) -> CocoIndex:
    """Index a COCO file.

    Args:
        path: the file.
        names_only: it need not have annotations, like COCO's own lists of test images.

    Raises:
        InputError: no JSON (with the byte position), or neither ground truth nor results.
    """
    stamp = describe_file(path)
    with JsonStream(path) as stream:
        opening = stream.peek()
        if opening == "[":
            reader = _Reader(stream)
            reader.read_annotations()
        elif opening == "{":
            reader = _Reader(stream)
            reader.read_dataset(("images",) if names_only else ("images", "annotations"))
        else:
            raise InputError(f"{path}: no COCO file: JSON with {{...}} or [...] was expected")
        stream.finish()
    return reader.index(stamp)


class _Head(msgspec.Struct):
    """What the index keeps of an annotation."""

    id: Any = None
    image_id: Any = None


_HEAD = msgspec.json.Decoder(_Head)


class _Reader:
    """One pass over a file, filling flat arrays."""

    def __init__(self, stream: JsonStream) -> None:
        self.stream = stream
        self.images: ImageEntries | None = None
        self.annotations = _Spans(stream).elements()
        self.ids = array("q")
        self.image_ids = array("q")
        self.categories: dict[Id, str] = {}

    def read_dataset(self, needed: tuple[str, ...]) -> None:
        """The ground truth layout: an object with arrays, those that are needed at least."""
        readers = {
            "images": self.read_images,
            "annotations": self.read_annotations,
            "categories": self.read_categories,
        }
        seen = set()
        for key in self.stream.members():
            if key in readers and key in seen:
                raise InputError(f'{self.stream.path}: "{key}" is there twice')
            seen.add(key)
            readers.get(key, self.stream.skip)()
        for key in needed:
            if key not in seen:
                wanted = " and ".join(f'"{name}"' for name in needed)
                raise InputError(
                    f'{self.stream.path}: a COCO file with {wanted} was expected, it has no "{key}"'
                )

    def read_annotations(self) -> None:
        spans = _Spans(self.stream)
        for value in spans.read(_HEAD):
            head = value if isinstance(value, _Head) else self._head()
            self.ids.append(code_of(head.id))
            self.image_ids.append(code_of(head.image_id))
        self.annotations = spans.elements()

    def _head(self) -> _Head:
        """The ids of the element read last, whatever it is."""
        value = self.stream.as_utf8()
        if not isinstance(value, dict):
            return _Head()
        return _Head(value.get("id"), value.get("image_id"))

    def read_images(self) -> None:
        spans = _Spans(self.stream)
        ids, names, basenames, lvis = array("q"), array("q"), array("q"), False
        for value in spans.read():
            value = self.stream.as_utf8() if isinstance(value, dict) else {}
            name = name_of(value) or ""
            lvis |= "neg_category_ids" in value
            lvis |= "coco_url" in value and "file_name" not in value
            ids.append(code_of(value.get("id")))
            names.append(code_of(name))
            basenames.append(code_of(posixpath.basename(name)))
        self.images = ImageEntries(
            elements=spans.elements(),
            ids=CodeIndex(np.array(ids, np.int64)),
            names=CodeIndex(np.array(names, np.int64)),
            basenames=CodeIndex(np.array(basenames, np.int64)),
            lvis=lvis,
        )

    def read_categories(self) -> None:
        for _ in self.stream.elements():
            value = self.stream.as_utf8()
            if isinstance(value, dict) and isinstance(value.get("id"), int | str):
                self.categories.setdefault(value["id"], str(value.get("name", value["id"])))

    def index(self, stamp: str) -> CocoIndex:
        ids, image_ids = np.array(self.ids, np.int64), np.array(self.image_ids, np.int64)
        if self.images is None and image_ids.size and (image_ids == NO_CODE).all():
            raise InputError(f'{self.stream.path}: no COCO results: no entry has an "image_id"')
        if self.images is None and (ids == NO_CODE).any():
            ids = np.arange(ids.size)
        numeric = ids[(ids >= 0) & (ids < 2**53)]  # hashes of text are rarely that small
        return CocoIndex(
            path=self.stream.path,
            stamp=stamp,
            images=self.images,
            annotations=self.annotations,
            ids=CodeIndex(ids),
            image_ids=image_ids,
            next_id=int(numeric.max(initial=0)) + 1,
            categories=self.categories,
        )


class _Spans:
    """Collects the spans of the elements of the array ahead."""

    def __init__(self, stream: JsonStream) -> None:
        self.stream = stream
        self.starts, self.ends = array("q"), array("q")
        self.begin = 0

    def read(self, decoder: msgspec.json.Decoder[Any] | None = None) -> Iterator[Any]:
        self.stream.peek()
        self.begin = self.stream.offset + 1
        for value, start, end in self.stream.elements(decoder):
            self.starts.append(start)
            self.ends.append(end)
            yield value

    def elements(self) -> Elements:
        starts, ends = np.array(self.starts, np.int64), np.array(self.ends, np.int64)
        return Elements(starts, ends, self.begin)


def name_of(image: dict[str, Any]) -> str | None:
    """File name of an entry of "images": file_name, else the tail of LVIS's coco_url."""
    name, url = image.get("file_name"), image.get("coco_url")
    if isinstance(name, str) and name:
        return name.replace("\\", "/")
    if isinstance(url, str) and url:
        return "/".join(url.split("/")[-2:])
    return None
