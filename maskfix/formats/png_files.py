"""Which PNG masks of a folder belong to which images, by their names.

    IMAGE.png                one file an image: a binary mask or a label map
    IMAGE_INSTANCE.png       one file an instance
    IMAGE/INSTANCE.png       the same

IMAGE is the image's path without its extension; its last part is enough where it is unique.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import posixpath
from dataclasses import dataclass, replace
from pathlib import Path

from maskfix.errors import InputError
from maskfix.formats.image import list_images, natural_key


@dataclass(frozen=True, slots=True)
class MaskFile:
    """One file of masks.

    Attributes:
        key: ordinal in the order of the images.
        name: within the folder of masks.
        instance: the instance it names, "" for a whole image.
    """

    key: int
    name: str
    instance: str = ""

    @property
    def number(self) -> int | None:
        """The instance as a number, if it is one."""
        is_number = self.instance.isascii() and self.instance.isdigit()
        return int(self.instance) if is_number else None


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """The files of a set of PNG masks.

    Attributes:
        images: names of the images within their folder, in natural order.
        masks: for every image its mask files, in natural order.
        per_instance: whether a file is one instance.
        others: names of PNG files that belong to no image, or not in this way.
    """

    images: list[str]
    masks: list[list[MaskFile]]
    per_instance: bool
    others: list[str]


def match_mask_files(
    masks_dir: Path, images_dir: Path, per_instance: bool | None = None
) -> MaskFiles:
    """Match the PNG files of a folder with the images of another.

    Args:
        masks_dir: the masks.
        images_dir: the images; a folder of masks within it holds none.
        per_instance: None to tell from the names, by majority.

    Raises:
        InputError: no PNG fits an image, or two images have one name.
    """
    inside = masks_dir.resolve()
    images = [
        path.relative_to(images_dir).as_posix()
        for path in list_images(images_dir)
        if inside not in path.resolve().parents
    ]
    stems = _Stems(images, images_dir)
    names = _png_names(masks_dir)
    whole = [stems.whole(name) for name in names]
    parts = [stems.part(name) for name in names]
    if per_instance is None:
        only_parts = sum(
            part is not None and image is None for image, part in zip(whole, parts, strict=True)
        )
        per_instance = only_parts > sum(image is not None for image in whole)
    masks: list[list[MaskFile]] = [[] for _ in images]
    others = []
    for name, image, part in zip(names, whole, parts, strict=True):
        if per_instance and part is not None:
            masks[part[0]].append(MaskFile(0, name, part[1]))
        elif not per_instance and image is not None and not masks[image]:
            masks[image].append(MaskFile(0, name))
        else:
            others.append(name)
    if not any(masks):
        raise InputError(
            f"{masks_dir}: none of its {len(names)} PNG files is named after one of the "
            f"{len(images)} images in {images_dir} (IMAGE.png, IMAGE_INSTANCE.png or "
            "IMAGE/INSTANCE.png)"
        )
    keys = itertools.count()
    numbered = [[replace(file, key=next(keys)) for file in files] for files in masks]
    return MaskFiles(images, numbered, per_instance, others)


def stamp_of(masks_dir: Path, files: MaskFiles) -> str:
    """What tells whether the masks are still the same: names, sizes and times of all files."""
    names = [mask.name for masks in files.masks for mask in masks] + files.others
    digest, size = hashlib.blake2b(digest_size=8), 0
    for name in names:
        status = os.stat(masks_dir / name)
        size += status.st_size
        digest.update(
            f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "replace")
        )
    where = masks_dir.resolve()
    return f"{where} ({len(names)} PNG files, {size} bytes, stamp {digest.hexdigest()})"


class _Stems:
    """Images by their paths without extension, whole or the last part."""

    def __init__(self, images: list[str], folder: Path) -> None:
        self._whole: dict[str, int] = {}
        self._last: dict[str, int | None] = {}
        for ordinal, image in enumerate(images):
            stem = posixpath.splitext(image)[0]
            if stem in self._whole:
                other = images[self._whole[stem]]
                raise InputError(f"{folder}: {other} and {image} would have one mask, {stem}.png")
            self._whole[stem] = ordinal
            last = posixpath.basename(stem)
            self._last[last] = None if last in self._last else ordinal

    def whole(self, name: str) -> int | None:
        """The image that IMAGE.png is a mask of."""
        stem = posixpath.splitext(name)[0]
        if stem in self._whole:
            return self._whole[stem]
        return None if self.part(name) else self._last.get(posixpath.basename(stem))

    def part(self, name: str) -> tuple[int, str] | None:
        """The image that IMAGE_INSTANCE.png or IMAGE/INSTANCE.png belongs to, and INSTANCE."""
        stem = posixpath.splitext(name)[0]
        folder, _, last = stem.rpartition("/")
        if folder and (image := self._find(folder)) is not None:
            return image, last.removeprefix(f"{posixpath.basename(folder)}_") or last
        prefix = last
        while "_" in prefix:
            prefix = prefix.rpartition("_")[0]
            if (image := self._find(posixpath.join(folder, prefix))) is not None:
                return image, last[len(prefix) + 1 :]
        return None

    def _find(self, stem: str) -> int | None:
        if stem in self._whole:
            return self._whole[stem]
        return self._last.get(posixpath.basename(stem))


def _png_names(folder: Path) -> list[str]:
    """PNG files of a folder and those below it, in natural order."""
    found = [
        Path(directory, name).relative_to(folder).as_posix()
        for directory, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(".png") and not name.startswith(".")
    ]
    return sorted(found, key=natural_key)
