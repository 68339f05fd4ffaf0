"""Click scripts: which masks to mend, and where. YAML or JSON, version 1.

    version: 1
    units: pixel                      # or normalized: fractions of width and height
    images:
      - file: a.jpg                   # as the annotation file names it, or its last parts
        instances:
          - id: 42                    # or  index: 0  |  at: [x, y]  |  new: cat  |  merge: [4, 5]
            clicks:
              - {x: 120, y: 44, kind: positive}
              - {x: 80, y: 30, kind: negative}
            target: 0.9               # IoU at which simulated clicks stop
            action: accept            # or  delete  |  {category: dog}
            split: true               # with clicks of both kinds: two instances out of one

Reading checks everything that needs no image; `InstanceScript.outside` checks the rest.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import yaml

from maskfix.errors import ClickScriptError
from maskfix.formats.base import Id
from maskfix.formats.script_nodes import Document, Value, place
from maskfix.types import Click

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_SELECTORS = ("id", "index", "at", "new", "merge")
_ACTIONS: tuple[Literal["accept", "delete"], ...] = ("accept", "delete")
_INSTANCE_KEYS = (*_SELECTORS, "clicks", "target", "action", "split")
MOST_BYTES = 1 << 28
"""A longer script is refused before all of it is read: devices have no end."""


@dataclass(frozen=True, slots=True)
class ById:
    """The instance with an annotation id."""

    id: Id

    def __str__(self) -> str:
        return f"id {self.id}"


@dataclass(frozen=True, slots=True)
class ByIndex:
    """The instance at a position within its image, counted from 0."""

    index: int

    def __str__(self) -> str:
        return f"index {self.index}"


@dataclass(frozen=True, slots=True)
class ByPoint:
    """The smallest mask at a point."""

    x: float
    y: float

    def __str__(self) -> str:
        return f"at [{self.x:g}, {self.y:g}]"


@dataclass(frozen=True, slots=True)
class New:
    """A new instance of a category."""

    category: str

    def __str__(self) -> str:
        return f"new {self.category}"


@dataclass(frozen=True, slots=True)
class Merge:
    """Two instances made one: the first gets the pixels of the second."""

    ids: tuple[Id, Id]

    def __str__(self) -> str:
        return f"merge [{self.ids[0]}, {self.ids[1]}]"


Selector = ById | ByIndex | ByPoint | New | Merge


@dataclass(frozen=True, slots=True)
class InstanceScript:
    """What to do with one instance.

    Attributes:
        selector: which one.
        clicks: in the order they are applied.
        target: IoU at which simulated clicks stop, 0 < target <= 1.
        action: accept the mask as it is, or delete it.
        category: the new category, if it changes.
        split: whether positive and negative clicks mark two instances to be told apart.
        line: where it stands in the script, counted from 1.
        origin: script and image.
    """

    selector: Selector
    clicks: tuple[Click, ...] = ()
    target: float | None = None
    action: Literal["accept", "delete"] | None = None
    category: str | None = None
    split: bool = False
    line: int = 0
    origin: tuple[str, str] = ("", "")

    @property
    def where(self) -> str:
        """Script, line, image and instance, to begin a message with."""
        script, image = self.origin
        return place(script, self.line, (f"image {image}", f"instance {self.selector}"))

    def outside(self, width: int, height: int) -> str | None:
        """Which click (in pixels) is outside of an image, as a sentence; None if none is."""
        points = [(f"click {i + 1}", click.x, click.y) for i, click in enumerate(self.clicks)]
        if isinstance(self.selector, ByPoint):
            points.insert(0, ("at", self.selector.x, self.selector.y))
        for name, x, y in points:
            if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
                return f"{name} ({x:g}, {y:g}) is outside of the image, {width}x{height} pixels"
        return None


@dataclass(frozen=True, slots=True)
class ImageScript:
    """What to do in one image.

    Attributes:
        file: its name.
        instances: in script order.
        normalized: whether coordinates are fractions, not pixels.
        line: where it stands in the script, counted from 1.
    """

    file: str
    instances: tuple[InstanceScript, ...] = ()
    normalized: bool = False
    line: int = 0

    def to_pixels(self, width: int, height: int) -> ImageScript:
        """The same with fractions as pixels: x of 0.5 is column 0.5 width, 1 is the last one."""
        if not self.normalized:
            return self

        def column(x: float) -> float:
            return min(x * width, width - 1.0)

        def row(y: float) -> float:
            return min(y * height, height - 1.0)

        instances = []
        for instance in self.instances:
            clicks = tuple(replace(c, x=column(c.x), y=row(c.y)) for c in instance.clicks)
            selector = instance.selector
            if isinstance(selector, ByPoint):
                selector = ByPoint(column(selector.x), row(selector.y))
            instances.append(replace(instance, clicks=clicks, selector=selector))
        return replace(self, instances=tuple(instances), normalized=False)


class PackedImages(Sequence[ImageScript]):
    """Image scripts in a fifth of the memory: each is made anew when it is asked for."""

    def __init__(self) -> None:
        self._packed: list[bytes] = []

    def append(self, image: ImageScript) -> None:
        """Add one."""
        self._packed.append(pickle.dumps(image))

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, position: int) -> ImageScript: ...

    @overload
    def __getitem__(self, position: slice) -> list[ImageScript]: ...

    def __getitem__(self, position: int | slice) -> ImageScript | list[ImageScript]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        image: ImageScript = pickle.loads(self._packed[position])
        return image


@dataclass(frozen=True, slots=True)
class ClickScript:
    """A whole script, in file order."""

    images: Sequence[ImageScript] = ()


def read_click_script(path: Path) -> ClickScript:
    """Read a click script.

    Raises:
        ClickScriptError: with file, line, image and instance.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ClickScriptError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise ClickScriptError(
            f"{path}: more than {MOST_BYTES >> 20} MB; divide it into scripts of some images each"
        )
    return parse_click_script(data, str(path))


def parse_click_script(data: bytes, file: str) -> ClickScript:
    """As `read_click_script`, from bytes; ``file`` is for messages."""
    used, units, images = _read(Document(data, file), "pixel")
    if units != used:  # they stand after the images
        _, _, images = _read(Document(data, file), units)
    return ClickScript(images)


def _read(document: Document, units: str) -> tuple[str, str, PackedImages]:
    """The units that the images were read in, those that the script wants, and the images."""
    used, seen, images = units, set(), PackedImages()
    for key in document.members(("version", "units", "images")):
        seen.add(key)
        if key == "images":
            used, images = units, _images(document.items(), units == "normalized")
        elif key == "units":
            units = document.value().choice(("pixel", "normalized"))
        else:
            document.value().choice(("1",))
    for key in ("version", "images"):
        if key not in seen:
            reason = f'a click script needs "{key}"; the first line is version: 1'
            raise ClickScriptError(f"{document.file}:1: {reason}")
    return used, units, images


def _images(values: Iterable[Value], normalized: bool) -> PackedImages:
    images = PackedImages()
    lines: dict[str, int] = {}
    for value in values:
        image = _image(value, normalized)
        if image.file in lines:
            first = lines[image.file]
            raise value.error(f"image {image.file} is there twice, first in line {first}")
        lines[image.file] = image.line
        images.append(image)
    return images


def _image(value: Value, normalized: bool) -> ImageScript:
    members = value.mapping(("file", "instances"))
    if "file" not in members:
        raise value.error('an image needs "file"')
    file = members["file"].text()
    origin, inside = (value.file, file), f"image {file}"
    found = members["instances"].within(inside).items() if "instances" in members else []
    instances = tuple(_instance(item, normalized, origin) for item in found)
    return ImageScript(file, instances, normalized, value.line)


def _instance(value: Value, normalized: bool, origin: tuple[str, str]) -> InstanceScript:
    members = value.mapping(_INSTANCE_KEYS)
    given = [key for key in _SELECTORS if key in members]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise value.error(f"an instance needs one of {', '.join(_SELECTORS)}; found {found}")
    selector = _selector(given[0], members[given[0]], normalized)
    value = value.within(f"instance {selector}")
    members = {key: member.within(f"instance {selector}") for key, member in members.items()}
    clicks = members["clicks"].items() if "clicks" in members else []
    action, category = _action(members["action"]) if "action" in members else (None, None)
    instance = InstanceScript(
        selector=selector,
        clicks=tuple(_click(click, normalized) for click in clicks),
        target=_target(members["target"]) if "target" in members else None,
        action=action,
        category=category,
        split=members["split"].flag() if "split" in members else False,
        line=value.line,
        origin=origin,
    )
    _check(instance, value)
    return instance


def _selector(kind: str, value: Value, normalized: bool) -> Selector:
    if kind == "id":
        return ById(value.id())
    if kind == "index":
        return ByIndex(value.whole())
    if kind == "new":
        return New(value.text())
    items = value.items()
    if len(items) != 2:
        wanted = "[x, y]" if kind == "at" else "[ID, ID]"
        raise value.error(f"{kind} needs two values, {wanted}; found {len(items)}")
    if kind == "at":
        x, y = (_coordinate(item, normalized) for item in items)
        return ByPoint(x, y)
    first, second = (item.id() for item in items)
    if first == second:
        raise value.error(f"merge needs two different ids; found {first} twice")
    return Merge((first, second))


def _click(value: Value, normalized: bool) -> Click:
    members = value.mapping(("x", "y", "kind"))
    for key in ("x", "y", "kind"):
        if key not in members:
            raise value.error(f'a click needs "x", "y" and "kind"; it has no "{key}"')
    x, y = (_coordinate(members[key], normalized) for key in ("x", "y"))
    return Click(x, y, members["kind"].choice(("positive", "negative")) == "positive")


def _coordinate(value: Value, normalized: bool) -> float:
    number = value.number()
    if normalized and not 0 <= number <= 1:
        raise value.error(f"normalized coordinates are 0 to 1; found {number:g}")
    return number


def _target(value: Value) -> float:
    target = value.number()
    if not 0 < target <= 1:
        raise value.error(f"target is an IoU, above 0 and at most 1; found {target:g}")
    return target


def _action(value: Value) -> tuple[Literal["accept", "delete"] | None, str | None]:
    if not value.is_mapping():
        return value.choice(_ACTIONS), None
    members = value.mapping(("category",))
    if "category" not in members:
        raise value.error("expected accept, delete or {category: NAME}, found no category")
    return None, members["category"].text()


def _check(instance: InstanceScript, value: Value) -> None:
    """What does not go together."""
    if instance.action and (instance.clicks or instance.split):
        raise value.error(f"{instance.action} leaves the mask as it is; leave clicks and split out")
    made = "new" if isinstance(instance.selector, New) else "merge"
    if not isinstance(instance.selector, New | Merge):
        if instance.split and len({click.positive for click in instance.clicks}) < 2:
            raise value.error("split needs positive clicks on one side and negative on the other")
    elif instance.action or instance.split:
        raise value.error(f"{made} cannot be combined with {instance.action or 'split'}")
    elif made == "new" and instance.category:
        raise value.error("new names its category itself; leave the action out")


def dump_click_script(script: ClickScript) -> str:
    """The script as YAML that reads back the same, but for its lines.

    Either all images or none are in normalized units.
    """
    normalized = any(image.normalized for image in script.images)
    assert normalized == all(image.normalized for image in script.images) or not script.images
    content: dict[str, Any] = {"version": 1}
    if normalized:
        content["units"] = "normalized"
    content["images"] = [
        {"file": image.file, "instances": [_plain_instance(item) for item in image.instances]}
        for image in script.images
    ]
    return str(
        yaml.dump(
            content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None,
            width=100,
        )
    )  # fmt: skip


def _plain_instance(instance: InstanceScript) -> dict[str, Any]:
    match instance.selector:
        case ById(number):
            plain: dict[str, Any] = {"id": number}
        case ByIndex(index):
            plain = {"index": index}
        case ByPoint(x, y):
            plain = {"at": [_short(x), _short(y)]}
        case New(category):
            plain = {"new": category}
        case Merge(ids):
            plain = {"merge": list(ids)}
    if instance.clicks:
        plain["clicks"] = [_plain_click(click) for click in instance.clicks]
    if instance.target is not None:
        plain["target"] = instance.target
    if instance.action or instance.category:
        plain["action"] = instance.action or {"category": instance.category}
    if instance.split:
        plain["split"] = True
    return plain


def _plain_click(click: Click) -> dict[str, Any]:
    kind = "positive" if click.positive else "negative"
    return {"x": _short(click.x), "y": _short(click.y), "kind": kind}


def _short(number: float) -> float:
    return int(number) if float(number).is_integer() and abs(number) < 1e15 else number
