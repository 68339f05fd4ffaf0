"""What the readers of benchmarks have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from maskfix.archive import Files
from maskfix.errors import InputError, InstanceError
from maskfix.evaluate import Case
from maskfix.formats.image import SUFFIXES
from maskfix.masks import Mask

Image = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]

GREY_IGNORE = 128
"""Grey masks: this value does not count, what is above is object."""


@dataclass(frozen=True)
class Folder:
    """The files of a benchmark, with messages that name it."""

    name: str
    files: Files

    def error(self, expected: str) -> InputError:
        """What was expected, where, and what is there instead."""
        there = sorted({n.split("/")[0] for n in self.files.names})[:8]
        return InputError(
            f"{self.name}: expected {expected} in {self.files.path}; "
            f"found {', '.join(there) or 'nothing'}"
        )

    def read(self, name: str, what: str) -> bytes:
        """A file that has to be there."""
        if not self.files.has(name):
            raise self.error(f"{name} ({what})")
        return self.files.read(name)

    def members(self, folder: str, what: str) -> dict[str, str]:
        """Image files of a folder that has to be there: stem -> name, sorted."""
        found = {}
        for name in self.files.names:
            path = PurePosixPath(name)
            if path.parent.as_posix() == folder and path.suffix.lower() in SUFFIXES:
                found[path.stem] = name
        if not found:
            raise self.error(f"a folder {folder} with {what}")
        return found

    def partner(self, found: Mapping[str, str], stem: str, folder: str) -> str:
        """The file of a stem in a folder listed by `members`."""
        if stem not in found:
            raise InputError(
                f"{self.name}: expected {folder}/{stem}.* in {self.files.path}, found none"
            )
        return found[stem]

    def image(self, name: str) -> Callable[[], Image]:
        """Loader of an image file."""
        return partial(_read_rgb, self.files, name)

    def pixels(self, name: str) -> Image:
        """A mask file as it is decoded by default, (H, W, 3) uint8 BGR."""
        return _decode(self.files.read(name), f"{self.files.path}: {name}")


Reader = Callable[[Folder, list[str]], Iterable[Case]]
"""(files, notes to add to) -> cases, empty ones included."""


def _decode(content: bytes, what: str) -> Image:
    data = np.frombuffer(content, np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if content else None
    if decoded is None:
        raise InstanceError(f"{what} cannot be decoded")
    return np.asarray(decoded, np.uint8)


def _read_rgb(files: Files, name: str) -> Image:
    return np.ascontiguousarray(_decode(files.read(name), f"{files.path}: {name}")[:, :, ::-1])


def make_case(
    name: str,
    image: Callable[[], Image],
    target: BoolArray,
    ignore: BoolArray | None = None,
    initial: BoolArray | None = None,
) -> Case:
    return Case(
        name,
        image,
        Mask.from_array(target),
        Mask.from_array(ignore) if ignore is not None and ignore.any() else None,
        None if initial is None else Mask.from_array(initial),
    )
