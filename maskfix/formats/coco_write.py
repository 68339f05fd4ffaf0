"""Write a COCO file with edits spliced in: every byte that is not edited is copied as it is."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from maskfix.files import atomic_stream
from maskfix.formats.base import Edit, Id, Segmentation, Written
from maskfix.formats.coco_index import CocoIndex, Elements
from maskfix.formats.json_stream import parse, value_spans
from maskfix.formats.segmentation import Kind, as_written, encode, kind_of
from maskfix.masks import Mask

BLOCK = 1 << 20
_ADDED = np.iinfo(np.int64).max  # the key of an annotation that is added: after all others


def write_edits(
    index: CocoIndex,
    edits: Iterable[Edit],
    path: Path,
    segmentation: Segmentation,
    simplify: float,
    *,
    image_id: Callable[[int], Id],
    category_id: Callable[[str], Id | None],
) -> Iterator[Written]:
    """Copy the indexed file to ``path`` with edits; see `Source.write`.

    Edits are encoded one by one into a temporary file, so that memory stays flat.
    """
    index.check_unchanged()
    encoder = _Encoder(index, segmentation, simplify, image_id, category_id)
    with tempfile.TemporaryFile(dir=path.parent) as spill, index.path.open("rb") as source:
        patches = _Patches(spill)
        for edit in edits:
            data, written = encoder.encode(edit)
            patches.add(_ADDED if edit.key is None else edit.key, data)
            yield written
        with atomic_stream(path) as target:
            _splice(source, target, index.annotations, patches)


class _Encoder:
    """Turns edits into the bytes of whole annotations."""

    def __init__(
        self,
        index: CocoIndex,
        segmentation: Segmentation,
        simplify: float,
        image_id: Callable[[int], Id],
        category_id: Callable[[str], Id | None],
    ) -> None:
        self._index = index
        self._segmentation = segmentation
        self._simplify = simplify
        self._image_id = image_id
        self._category_id = category_id
        self._next_id = index.next_id

    def encode(self, edit: Edit) -> tuple[bytes, Written]:
        """The new text of an annotation (none to delete it), and what is to be said of it."""
        if edit.kind == "delete":
            return b"", Written()
        if edit.kind == "add":
            added, remark = self._added(edit)
            return _dump(added).encode("ascii"), Written(added.get("id"), remark)
        assert edit.key is not None
        data = self._index.read(self._index.annotations, edit.key)
        old = parse(data)
        new: dict[str, Any] = {}
        note: str | None = None
        if edit.category is not None:
            new["category_id"] = self._category_id(edit.category)
        if edit.kind == "replace":
            assert edit.mask is not None
            kind = self._kind(kind_of(old.get("segmentation")), crowd=bool(old.get("iscrowd")))
            new["segmentation"], note, written = self._encoded(edit.mask, kind, old)
            new |= {key: value for key, value in _measures(written, old).items() if key in old}
        return _with_values(data.decode("latin-1"), new).encode("latin-1"), Written(note=note)

    def _added(self, edit: Edit) -> tuple[dict[str, Any], str | None]:
        assert edit.mask is not None and edit.category is not None
        category = self._category_id(edit.category)
        entry = {"image_id": self._image_id(edit.image), "category_id": category}
        if self._index.images is None:  # results
            segmentation, note, _ = self._encoded(edit.mask, self._kind("rle"), {})
            return {**entry, "segmentation": segmentation, "score": 1.0}, note
        own = {"id": self._next_id, **entry}
        self._next_id += 1
        segmentation, note, written = self._encoded(edit.mask, self._kind(self._usual_kind()), {})
        measures = _measures(written, {})
        return {**own, "segmentation": segmentation, **measures, "iscrowd": 0}, note

    def _encoded(self, mask: Mask, kind: Kind, old: dict[str, Any]) -> tuple[Any, str | None, Mask]:
        """A mask's segmentation, what is to be said of it, and the mask that it says."""
        segmentation, note = encode(mask, kind, old.get("segmentation"), self._simplify)
        return segmentation, note, as_written(mask, segmentation, self._simplify)

    def _usual_kind(self) -> Kind:
        """The kind of the first annotation, for one that is added."""
        if not len(self._index.annotations):
            return "rle"
        first = self._index.load(self._index.annotations, 0)
        return kind_of(first.get("segmentation") if isinstance(first, dict) else None)

    def _kind(self, own: Kind, *, crowd: bool = False) -> Kind:
        """The kind to write; COCO has crowds as run lengths only."""
        if self._segmentation == "same" or (crowd and self._segmentation == "polygon"):
            return own
        return self._segmentation


@dataclass(frozen=True, slots=True)
class _Patch:
    key: int
    data: bytes


class _Patches:
    """New texts of annotations in a temporary file, given back in the order of their keys."""

    def __init__(self, spill: BinaryIO) -> None:
        self._spill = spill
        self._keys, self._ends = array("q"), array("q", [0])

    def add(self, key: int, data: bytes) -> None:
        self._spill.write(data)
        self._keys.append(key)
        self._ends.append(self._ends[-1] + len(data))

    def __iter__(self) -> Iterator[_Patch]:
        keys = np.array(self._keys, np.int64)
        order = np.argsort(keys, kind="stable")
        old = keys[order][keys[order] != _ADDED]
        assert np.all(old[1:] != old[:-1]), "two edits of one annotation"
        for position in order:
            start = self._ends[position]
            self._spill.seek(start)
            data = self._spill.read(self._ends[position + 1] - start)
            yield _Patch(int(keys[position]), data)


def _splice(
    source: BinaryIO, target: BinaryIO, elements: Elements, patches: Iterable[_Patch]
) -> None:
    """Copy source to target with patches in place of elements of one array."""
    starts, ends = elements.starts, elements.ends
    count = len(elements)
    cursor = leading = 0  # leading: how many elements from the first on are deleted
    for patch in patches:
        key = patch.key
        if key == _ADDED:
            end = int(ends[-1]) if count else elements.begin
            _copy(source, target, cursor, max(cursor, end))
            cursor = max(cursor, end)
            alone = leading == count
            target.write((b"" if alone else b"," + _gap(source, elements)) + patch.data)
            leading = -1
        elif patch.data:
            _copy(source, target, cursor, int(starts[key]))
            target.write(patch.data)
            cursor = int(ends[key])
        elif key == leading:  # nothing before it: its comma follows
            _copy(source, target, cursor, int(starts[key]))
            cursor = int(starts[key + 1] if key + 1 < count else ends[key])
            leading += 1
        else:
            _copy(source, target, cursor, int(ends[key - 1]))
            cursor = int(ends[key])
    source.seek(cursor)
    while block := source.read(BLOCK):
        target.write(block)


def _copy(source: BinaryIO, target: BinaryIO, start: int, end: int) -> None:
    """Copy bytes start..end - 1; nothing if there are none."""
    source.seek(start)
    while start < end:
        block = source.read(min(BLOCK, end - start))
        target.write(block)
        start += len(block)


def _gap(source: BinaryIO, elements: Elements) -> bytes:
    """The blanks the file has after the comma between its first two elements."""
    if len(elements) < 2:
        return b" "
    between = (int(elements.ends[0]), int(elements.starts[1]))
    source.seek(between[0])
    return source.read(between[1] - between[0]).partition(b",")[2]


def _measures(mask: Mask, old: dict[str, Any]) -> dict[str, Any]:
    """COCO's area (as whole or real a number as it was) and bbox [x, y, width, height]."""
    area, box = mask.area, mask.box
    return {
        "area": float(area) if isinstance(old.get("area"), float) else area,
        "bbox": [float(value) for value in (box.left, box.top, box.width, box.height)],
    }


def _with_values(text: str, values: dict[str, Any]) -> str:
    """The text of an object with some values replaced; a key that is missing is put last."""
    spans = value_spans(text)
    close = text.rindex("}")
    places = {key: spans.get(key, (close, close)) for key in values}
    for key, (start, end) in sorted(places.items(), key=lambda item: item[1], reverse=True):
        separator = "" if key in spans else f', "{key}": '
        text = text[:start] + separator + _dump(values[key]) + text[end:]
    return text


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
