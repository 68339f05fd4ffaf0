"""Write a folder of PNG masks with edits; files that are not edited are copied as they are."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskfix.errors import InstanceError
from maskfix.files import atomic_write
from maskfix.formats.base import Edit, Note
from maskfix.formats.png_file import PngFile, encode_png, read_png
from maskfix.formats.png_files import MaskFile, MaskFiles
from maskfix.formats.png_pixels import binary_mask, new_label, with_binary_mask, with_labels
from maskfix.masks import Mask, union
from maskfix.rle import counts_from_mask, counts_from_text, mask_from_counts, text_from_counts

LABELS = 1 << 16
"""Keys of a label map are the ordinal of the image times this, plus the label."""

NO_CATEGORY = "PNG masks hold no category; the new one is not written"


def write_png_masks(
    masks_dir: Path, files: MaskFiles, edits: Iterable[Edit], target: Path, labels: bool
) -> list[Note]:
    """Write all masks below ``target``; see `Source.write`.

    Args:
        masks_dir: the masks as they were.
        files: which belongs to which image.
        edits: in any order.
        target: a folder, made if it does not exist.
        labels: whether a file is a label map.
    """
    target.mkdir(exist_ok=True)
    of_image: dict[int, list[_PackedEdit]] = defaultdict(list)
    for edit in edits:
        of_image[edit.image].append(_pack(edit))
    notes: list[Note] = []
    for ordinal, masks in enumerate(files.masks):
        image = _Image(masks_dir, files, ordinal, labels)
        image.apply([packed.edit() for packed in of_image.pop(ordinal, [])])
        notes += image.notes
        for name in [mask.name for mask in masks] + [*image.new]:
            if name not in image.removed:
                _put(target, name, image.new.get(name) or (masks_dir / name).read_bytes())
    for name in files.others:
        _put(target, name, (masks_dir / name).read_bytes())
    return notes


@dataclass(frozen=True, slots=True)
class _PackedEdit:
    """An edit that waits for its turn, its mask as run lengths."""

    bare: Edit
    size: tuple[int, int] = (0, 0)
    runs: str | None = None

    def edit(self) -> Edit:
        if self.runs is None:
            return self.bare
        return replace(self.bare, mask=mask_from_counts(counts_from_text(self.runs), *self.size))


def _pack(edit: Edit) -> _PackedEdit:
    if edit.mask is None:
        return _PackedEdit(edit)
    size = (edit.mask.height, edit.mask.width)
    return _PackedEdit(
        replace(edit, mask=None), size, text_from_counts(counts_from_mask(edit.mask))
    )


class _Image:
    """The files of one image after its edits: those that are new, and those that go."""

    def __init__(self, masks_dir: Path, files: MaskFiles, ordinal: int, labels: bool) -> None:
        self.new: dict[str, bytes] = {}
        self.removed: set[str] = set()
        self.notes: list[Note] = []
        self._masks_dir = masks_dir
        self._ordinal = ordinal
        self._stem = posixpath.splitext(files.images[ordinal])[0]
        self._files = files.masks[ordinal]
        self._per_instance = files.per_instance
        self._labels = labels

    def apply(self, edits: list[Edit]) -> None:
        for edit in edits:
            if edit.category is not None and edit.kind != "add":
                self._note(edit.key, NO_CATEGORY)
        edits = [edit for edit in edits if edit.kind != "recategorize"]
        try:
            if edits and self._labels:
                self._apply_to_labels(edits)
            elif edits and self._per_instance:
                self._apply_to_instances(edits)
            elif edits:
                self._apply_to_binary(edits)
        except InstanceError as error:  # a file that cannot be read stays as it is
            for edit in edits:
                self._note(edit.key, f"not written: {error}")

    def _apply_to_instances(self, edits: list[Edit]) -> None:
        files = {file.key: file for file in self._files}
        for edit in edits:
            if edit.key is None:
                assert edit.mask is not None
                name = self._new_instance_name()
                self.new[name] = encode_png(with_binary_mask(_blank(edit.mask), edit.mask))
            elif edit.mask is None:
                self.removed.add(files[edit.key].name)
            else:
                old = self._read(files[edit.key])
                self.new[files[edit.key].name] = encode_png(with_binary_mask(old, edit.mask))

    def _apply_to_binary(self, edits: list[Edit]) -> None:
        """One file: a mask that is added joins what is there."""
        name, file = self._whole(edits)
        for edit in sorted(edits, key=_added_last):
            empty = Mask.empty(*file.samples.shape[:2])
            mask = edit.mask or empty
            if edit.key is None:
                there = binary_mask(file)
                if there.area:
                    self._note(None, "joined with the other object of its binary mask")
                mask = union(there, mask)
            file = with_binary_mask(file, mask)
        self.new[name] = encode_png(file)

    def _apply_to_labels(self, edits: list[Edit]) -> None:
        name, file = self._whole(edits)
        keys: dict[int, int | None] = {}
        changes: list[tuple[int, Mask | None]] = []
        for edit in sorted(edits, key=_added_last):
            try:
                label = new_label(file, keys) if edit.key is None else edit.key % LABELS
            except InstanceError as error:
                self._note(None, f"not written: {error}")
                continue
            keys[label] = edit.key
            changes.append((label, edit.mask))
        file, lost = with_labels(file, changes)
        for label, count in lost.items():
            self._note(keys[label], f"{count} pixels belong to other instances, which keep them")
        self.new[name] = encode_png(file)

    def _whole(self, edits: list[Edit]) -> tuple[str, PngFile]:
        """Name and content of the one file of the image; a blank one if it has none."""
        if self._files:
            return self._files[0].name, self._read(self._files[0])
        return f"{self._stem}.png", _blank(next(edit.mask for edit in edits if edit.mask))

    def _read(self, file: MaskFile) -> PngFile:
        return read_png(self._masks_dir / file.name)

    def _new_instance_name(self) -> str:
        """The next number, in the way the other files of the image are named."""
        numbers = [file.number or 0 for file in self._files]
        number = max(numbers, default=0) + 1 + len(self.new.keys() - {f.name for f in self._files})
        if not self._files:
            return f"{self._stem}_{number}.png"
        first = self._files[0]
        return f"{first.name[: -len(first.instance + '.png')]}{number}.png"

    def _note(self, key: int | None, text: str) -> None:
        self.notes.append(Note(self._ordinal, key, text))


def _added_last(edit: Edit) -> tuple[bool, int]:
    return edit.key is None, edit.key or 0


def _blank(mask: Mask) -> PngFile:
    """A grey file of eight bits without an object."""
    return PngFile(np.zeros((mask.height, mask.width), np.uint8), depth=8)


def _put(target: Path, name: str, data: bytes) -> None:
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, data)
