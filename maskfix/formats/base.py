"""What every annotation format offers: images with their instances, and edits written back."""

from __future__ import annotations

import difflib
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maskfix.errors import InputError
from maskfix.formats.lookup import CodeIndex
from maskfix.masks import Mask

Id = int | str
Segmentation = Literal["same", "rle", "polygon"]
EditKind = Literal["replace", "delete", "add", "recategorize"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One instance as the source has it.

    Attributes:
        key: the handle for edits, unique and ascending in source order; for COCO the ordinal in
            the file, counted from 0.
        id: id of the annotation; its ordinal where the format has none.
        index: ordinal within its image, 0-based.
        category: name, or the id as text where no names are known; "" where there is none.
        category_id: as the source has it.
        mask: None if it could not be read; an annotation without one yet has an empty mask.
        problem: why the mask could not be read.
        is_crowd: COCO's iscrowd.
        score: of a detector, if any.
    """

    key: int
    id: Id
    index: int
    category: str
    category_id: Id | None
    mask: Mask | None
    problem: str | None = None
    is_crowd: bool = False
    score: float | None = None


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One image with its instances.

    Attributes:
        ordinal: position in the source, 0-based.
        image_id: as the source has it; the ordinal where the format has none.
        file: the name the source gives it.
        path: the file, None if it was not found.
        height: rows as annotated; of the image file where that is not said; None if unknown.
        width: columns, likewise.
        annotations: in source order.
        problem: why the image cannot be used.
    """

    ordinal: int
    image_id: Id
    file: str
    path: Path | None
    height: int | None
    width: int | None
    annotations: tuple[Annotation, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """One change to a source; at most one for a key.

    Attributes:
        kind: replace the mask (and, if ``category`` is given, the category), delete the
            annotation, add one to the image, or only give it another category.
        image: ordinal of the image.
        key: of the annotation; None to add one.
        mask: for replace and add.
        category: name, for add and recategorize.
    """

    kind: EditKind
    image: int
    key: int | None = None
    mask: Mask | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one edit.

    Attributes:
        id: of the annotation that was added; None for other edits, or where it has none.
        note: something a person should know.
        is_done: whether the files say what the edit wanted.
    """

    id: Id | None = None
    note: str | None = None
    is_done: bool = True


class Source(ABC):
    """A set of annotated images, read image by image.

    Safe to use from many threads and cheap to send to another process.

    Attributes:
        format: name of the format, as --masks-format spells it.
        categories: id -> name, in source order; empty where the format has none.
        notes: what was noticed on opening, a sentence each.
        stamp: what and of when the masks are; another one after a change.
    """

    format: str
    stamp: str
    categories: Mapping[Id, str]
    notes: tuple[str, ...]
    _names: CodeIndex
    _basenames: CodeIndex

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def __getitem__(self, ordinal: int) -> ImageItem:
        """Read one image's entry and decode its masks (not its pixels).

        Raises:
            IndexError: no such ordinal.
        """

    @abstractmethod
    def file_of(self, ordinal: int) -> str:
        """Name of an image, without decoding its masks."""

    @abstractmethod
    def find_annotation(self, annotation_id: Id) -> int:
        """Ordinal of the image that has an annotation.

        Raises:
            InputError: no annotation, or several, with this id.
        """

    @abstractmethod
    def write(
        self,
        edits: Iterable[Edit],
        out_dir: Path,
        segmentation: Segmentation = "same",
        simplify: float = 0.0,
    ) -> Iterator[Written]:
        """Write the source with edits applied; everything else stays as it is, byte for byte.

        Args:
            edits: image by image, in the order of the images; consumed one by one.
            out_dir: an existing folder.
            segmentation: how changed masks are written, where the format has a choice.
            simplify: see `maskfix.polygons.polygons_from_mask`; where there are no polygons,
                nothing.

        Yields:
            what became of every edit, in their order. The files are complete when this ends.

        Raises:
            InputError: the source changed since it was opened.
        """

    def find_image(self, name: str) -> int:
        """Ordinal of the image with a file name: as the source gives it, or its last parts.

        Raises:
            InputError: no image, or several, with this name.
        """
        name = name.replace("\\", "/").removeprefix("./")
        found = self._names.find(name)
        if not found:
            candidates = self._basenames.find(posixpath.basename(name))
            shared = {ordinal: _shared_tail(self.file_of(ordinal), name) for ordinal in candidates}
            most = max(shared.values(), default=0)
            found = [ordinal for ordinal in candidates if shared[ordinal] == most > 0]
        if len(found) > 1:
            first, second = (self.file_of(ordinal) for ordinal in found[:2])
            raise InputError(
                f"image {name} is ambiguous: {first} (image {found[0]}) and {second} "
                f"(image {found[1]}); give the longer name"
            )
        if not found:
            raise InputError(f"image {name} is not among the {len(self)} annotated images")
        return found[0]

    def category_id(self, name: str) -> Id | None:
        """The id of a category name; a number where the source names none.

        Raises:
            InputError: unknown or ambiguous name.
        """
        found = [number for number, known in self.categories.items() if known == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"category {name} is ambiguous: ids {found[0]} and {found[1]}")
        if not self.categories:
            if name.isascii() and name.isdigit():
                return int(name)
            raise InputError(f"category {name}: this file has no category names; give a number")
        near = difflib.get_close_matches(name, list(self.categories.values()), 1, 0)
        raise InputError(f"category {name} is unknown; the nearest known one is {near[0]}")


def _shared_tail(file: str, name: str) -> int:
    """How many last parts two paths share if one is the end of the other, else 0."""
    parts, others = file.split("/")[::-1], name.split("/")[::-1]
    pairs = list(zip(parts, others, strict=False))
    return len(pairs) if all(a == b for a, b in pairs) else 0
