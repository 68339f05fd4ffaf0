"""What the writers of all formats share: what they are given, and names that are safe to write."""

from __future__ import annotations

import posixpath
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np

from maskfix.errors import InstanceError
from maskfix.formats import Annotation, ImageItem, Source
from maskfix.formats.base import Id
from maskfix.masks import Mask

NO_CATEGORY = "object"
"""The name of the class of masks that have none."""


class Thing(NamedTuple):
    """An instance whose mask could be read."""

    annotation: Annotation
    mask: Mask


class SizedItem(ImageItem):
    """An image whose size is known."""

    __slots__ = ()
    height: int
    width: int


@dataclass(frozen=True)
class Settings:
    """What a writer needs to know; attributes as the arguments of `maskfix.exporting.export`."""

    source: Source
    images: Path
    segmentation: Literal["rle", "polygon"]
    url: str
    simplify: float


@dataclass(frozen=True)
class Facts:
    """What a writer has to say in the end.

    Attributes:
        numbers: for the table and for export.json.
        notes: sentences for a person.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Writer(ABC):
    """Writes image after image into a new folder.

    Attributes:
        opened: closes the writer's files.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.opened = ExitStack()
        self.classes = Classes(settings.source.categories)

    @abstractmethod
    def add(self, item: SizedItem, things: list[Thing]) -> int:
        """Write one image; returns how many of its instances are written.

        Raises:
            InstanceError: the image cannot be written in this format.
        """

    @abstractmethod
    def close(self) -> Facts:
        """Write what is left."""

    def create(self, name: str) -> TextIO:
        """A new text file of the folder, UTF-8."""
        file = (self.folder / name).open("w", encoding="utf-8", newline="")
        return self.opened.enter_context(file)

    def spill(self) -> TextIO:
        """A temporary text file, for what comes later in a file."""
        file = tempfile.TemporaryFile("w+", encoding="utf-8", newline="")
        return self.opened.enter_context(file)


class Classes:
    """Numbers categories from 0, in the order of the source, then as they are met."""

    def __init__(self, known: Mapping[Id, str]) -> None:
        self.names = list(known.values())
        self._places: dict[Id | None, int] = {key: place for place, key in enumerate(known)}

    def place(self, annotation: Annotation) -> int:
        """The number of an annotation's category."""
        key = annotation.category_id
        if key not in self._places:
            self._places[key] = len(self.names)
            self.names.append(annotation.category or NO_CATEGORY)
        return self._places[key]

    def items(self) -> list[tuple[Id | None, str]]:
        """(category id in the source, name) by number."""
        return list(zip(self._places, self.names, strict=True))


def cost(what: str, losses: Sequence[float]) -> tuple[dict[str, float], str]:
    """What a format costs in IoU, 0..1 an instance: numbers for `Facts`, and a sentence."""
    mean, worst = float(np.mean(losses or [0.0])), max(losses, default=0.0)
    note = f"{what} {mean:.2%} of IoU on average, {worst:.2%} at worst"
    return {"iou_loss_mean": round(mean, 6), "iou_loss_worst": round(worst, 6)}, note


def sized(item: ImageItem) -> SizedItem:
    """The item, if its size is known.

    Raises:
        InstanceError: it is not.
    """
    if item.height is None or item.width is None:
        raise InstanceError(item.problem or "the size of the image is not known")
    return SizedItem(**{name: getattr(item, name) for name in ImageItem.__slots__})


class FileNames:
    """Names below a folder for the files of images, each given once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: dict[str, str] = {}

    def path(self, item: ImageItem, suffix: str) -> Path:
        """FOLDER/NAME-OF-IMAGE.suffix, its folder made; never outside FOLDER.

        Raises:
            InstanceError: another image has this name, but for its suffix.
        """
        name = posixpath.splitext(safe_name(item))[0] + suffix
        if name in self._taken:
            raise InstanceError(f"its {suffix} file would be that of {self._taken[name]}")
        self._taken[name] = item.file
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def safe_name(item: ImageItem) -> str:
    """The image's name as a relative path without ways out."""
    name = item.file.replace("\\", "/").replace("\0", "").replace(":", "_")
    parts = [part for part in PurePosixPath(name).parts if part not in {"/", "..", "."}]
    return "/".join(parts) or f"image-{item.image_id}".replace("/", "_")
