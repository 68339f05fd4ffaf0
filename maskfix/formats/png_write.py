"""Write a folder of PNG masks with edits; files that are not edited are copied as they are."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from maskfix.errors import InstanceError
from maskfix.files import atomic_write
from maskfix.formats.base import Edit, Id, Written
from maskfix.formats.png_file import PngFile, encode_png, read_png
from maskfix.formats.png_files import MaskFile, MaskFiles
from maskfix.formats.png_pixels import binary_mask, new_label, with_binary_mask, with_labels
from maskfix.masks import Mask, union

LABELS = 1 << 16
"""Keys of a label map are the ordinal of the image times this, plus the label."""

_Placed = tuple[int, Edit]
"""An edit of an image with its position among them."""

NO_CATEGORY = "PNG masks hold no category; the new one is not written"


def write_png_masks(
    masks_dir: Path, files: MaskFiles, edits: Iterable[Edit], target: Path, labels: bool
) -> Iterator[Written]:
    """Write all masks below ``target``; see `Source.write`.

    Args:
        masks_dir: the masks as they were.
        files: which belongs to which image.
        edits: image by image, in the order of the images.
        target: a folder, made if it does not exist.
        labels: whether a file is a label map.
    """
    target.mkdir(exist_ok=True)
    groups = groupby(edits, key=lambda edit: edit.image)
    of_image = next(groups, None)
    for ordinal, masks in enumerate(files.masks):
        image = _Image(masks_dir, files, ordinal, labels)
        if of_image is not None and of_image[0] == ordinal:
            yield from image.apply(list(of_image[1]))
            of_image = next(groups, None)
        for name in [mask.name for mask in masks] + [*image.new]:
            if name not in image.removed:
                _put(target, name, image.new.get(name) or (masks_dir / name).read_bytes())
    assert of_image is None, "edits are not in the order of their images"
    for name in files.others:
        _put(target, name, (masks_dir / name).read_bytes())


class _Image:
    """The files of one image after its edits: those that are new, and those that go."""

    def __init__(self, masks_dir: Path, files: MaskFiles, ordinal: int, labels: bool) -> None:
        self.new: dict[str, bytes] = {}
        self.removed: set[str] = set()
        self._masks_dir = masks_dir
        self._stem = posixpath.splitext(files.images[ordinal])[0]
        self._files = files.masks[ordinal]
        self._per_instance = files.per_instance
        self._labels = labels
        self._ids: dict[int, Id] = {}  # by the position of the edit, as notes and refusals
        self._notes: dict[int, str] = {}
        self._refused: set[int] = set()

    def apply(self, edits: list[Edit]) -> list[Written]:
        """Apply the edits of the image; returns what became of each."""
        placed = list(enumerate(edits))
        for position, edit in placed:
            if edit.category is not None and edit.kind != "add":
                self._note(position, NO_CATEGORY)
        placed = [(position, edit) for position, edit in placed if edit.kind != "recategorize"]
        try:
            if placed and self._labels:
                self._apply_to_labels(placed)
            elif placed and self._per_instance:
                self._apply_to_instances(placed)
            elif placed:
                self._apply_to_binary(placed)
        except InstanceError as error:  # a file that cannot be read stays as it is
            for position, _ in placed:
                self._refuse(position, error)
        return [
            Written(self._ids.get(i), self._notes.get(i), i not in self._refused)
            for i in range(len(edits))
        ]

    def _apply_to_instances(self, edits: list[_Placed]) -> None:
        files = {file.key: file for file in self._files}
        for position, edit in edits:
            if edit.key is None:
                assert edit.mask is not None
                name, self._ids[position] = self._new_instance()
                self.new[name] = encode_png(with_binary_mask(_blank(edit.mask), edit.mask))
            elif edit.mask is None:
                self.removed.add(files[edit.key].name)
            else:
                name = files[edit.key].name
                try:
                    old = self._read(files[edit.key])
                    self.new[name] = encode_png(with_binary_mask(old, edit.mask))
                except InstanceError as error:
                    self._refuse(position, error)

    def _apply_to_binary(self, edits: list[_Placed]) -> None:
        """One file: a mask that is added joins what is there."""
        name, file = self._whole(edits)
        for position, edit in sorted(edits, key=_added_last):
            empty = Mask.empty(*file.samples.shape[:2])
            mask = edit.mask or empty
            if edit.key is None:
                there = binary_mask(file)
                if there.area:
                    self._note(position, "joined with the other object of its binary mask")
                mask = union(there, mask)
            file = with_binary_mask(file, mask)
        self.new[name] = encode_png(file)

    def _apply_to_labels(self, edits: list[_Placed]) -> None:
        name, file = self._whole(edits)
        positions: dict[int, int] = {}  # of the edits, by label
        changes: list[tuple[int, Mask | None]] = []
        for position, edit in sorted(edits, key=_added_last):
            try:
                label = new_label(file, positions) if edit.key is None else edit.key % LABELS
            except InstanceError as error:
                self._refuse(position, error)
                continue
            if edit.key is None:
                self._ids[position] = label
            positions[label] = position
            changes.append((label, edit.mask))
        file, lost = with_labels(file, changes)
        for label, count in lost.items():
            note = f"{count} pixels belong to other instances, which keep them"
            self._note(positions[label], note)
        self.new[name] = encode_png(file)

    def _whole(self, edits: list[_Placed]) -> tuple[str, PngFile]:
        """Name and content of the one file of the image; a blank one if it has none."""
        if self._files:
            return self._files[0].name, self._read(self._files[0])
        return f"{self._stem}.png", _blank(next(edit.mask for _, edit in edits if edit.mask))

    def _read(self, file: MaskFile) -> PngFile:
        return read_png(self._masks_dir / file.name)

    def _new_instance(self) -> tuple[str, int]:
        """The next number, in the way the other files of the image are named: file and number."""
        numbers = [file.number or 0 for file in self._files]
        number = max(numbers, default=0) + 1 + len(self.new.keys() - {f.name for f in self._files})
        if not self._files:
            return f"{self._stem}_{number}.png", number
        first = self._files[0]
        return f"{first.name[: -len(first.instance + '.png')]}{number}.png", number

    def _note(self, position: int, text: str) -> None:
        earlier = self._notes.get(position)
        self._notes[position] = f"{earlier}; {text}" if earlier else text

    def _refuse(self, position: int, error: InstanceError) -> None:
        self._refused.add(position)
        self._ids.pop(position, None)
        self._note(position, f"not written: {error}")


def _added_last(placed: _Placed) -> tuple[bool, int]:
    _, edit = placed
    return edit.key is None, edit.key or 0


def _blank(mask: Mask) -> PngFile:
    """A grey file of eight bits without an object."""
    return PngFile(np.zeros((mask.height, mask.width), np.uint8), depth=8)


def _put(target: Path, name: str, data: bytes) -> None:
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, data)
