"""The values of a YAML or JSON document with their lines, read one expectation at a time.

A `Document` is read from its beginning to its end, and composes no more of it than it is asked for:
the elements of a long list come one by one.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

from maskfix.errors import ClickScriptError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.I)
_Option = TypeVar("_Option", bound=str)
_DEEPEST = 100  # levels of a document; a click script has nine


def place(file: str, line: int, context: Iterable[str] = ()) -> str:
    """Where something stands, on one line, to begin a message with."""
    return f"{file}:{line}: " + " ".join(", ".join(context).splitlines())


@dataclass(slots=True)
class Value:
    """One value of a document.

    Attributes:
        node: as YAML composes it, untyped.
        file: the document, for messages.
        context: what the value belongs to, for messages.
    """

    node: yaml.Node
    file: str
    context: tuple[str, ...] = ()

    @property
    def line(self) -> int:
        """Where it stands, counted from 1."""
        return int(self.node.start_mark.line) + 1

    @property
    def where(self) -> str:
        """File, line and context."""
        return place(self.file, self.line, self.context)

    def error(self, reason: str) -> ClickScriptError:
        """An error at this place."""
        reason = " ".join(reason.splitlines())
        return ClickScriptError(f"{self.where}: {reason}" if self.context else self.where + reason)

    def within(self, *context: str) -> Value:
        """The same value as a part of something."""
        return Value(self.node, self.file, self.context + context)

    def mapping(self, known: Collection[str]) -> dict[str, Value]:
        """Keys with values; every key is one of those known, once."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"expected keys ({', '.join(known)}), found {self._found()}")
        members: dict[str, Value] = {}
        for key, value in self.node.value:
            members[self._at(key).key(known, members)] = self._at(value)
        return members

    def key(self, known: Collection[str], seen: Collection[str]) -> str:
        """A key: one of those known that was not seen before."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error(f"expected a key, found {self._found()}")
        name = str(self.node.value)
        if name not in known:
            near = difflib.get_close_matches(name[:40], known, 1, 0)[0]
            raise self.error(f"unknown key {name!r:.40}; the nearest known one is {near}")
        if name in seen:
            raise self.error(f"{name} is there twice")
        return name

    def items(self) -> list[Value]:
        """Elements of a list; nothing is an empty list."""
        if self._is_null():
            return []
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"expected a list, found {self._found()}")
        return [self._at(node) for node in self.node.value]

    def number(self) -> float:
        """A finite number."""
        if self._is_plain():
            try:
                number = float(self.node.value)
            except ValueError:
                number = math.nan
            if math.isfinite(number):
                return number
        raise self.error(f"expected a finite number, found {self._found()}")

    def text(self) -> str:
        """Text that is not empty, quoted or not."""
        if isinstance(self.node, yaml.ScalarNode) and self.node.value and not self._is_null():
            return str(self.node.value)
        raise self.error(f"expected text, found {self._found()}")

    def whole(self) -> int:
        """A whole number from 0."""
        if self._is_plain() and _WHOLE_NUMBER.fullmatch(self.node.value):
            number = int(self.node.value)
            if number >= 0:
                return number
        raise self.error(f"expected a whole number from 0, found {self._found()}")

    def id(self) -> int | str:
        """A whole number or text."""
        if self._is_plain() and _WHOLE_NUMBER.fullmatch(self.node.value):
            return int(self.node.value)
        return self.text()

    def flag(self) -> bool:
        """true or false."""
        if self._is_plain() and self.node.value.lower() in ("true", "false"):
            return bool(self.node.value.lower() == "true")
        raise self.error(f"expected true or false, found {self._found()}")

    def choice(self, options: Collection[_Option]) -> _Option:
        """One of some words."""
        for option in options:
            if isinstance(self.node, yaml.ScalarNode) and self.node.value == option:
                return option
        raise self.error(f"expected {' or '.join(options)}, found {self._found()}")

    def is_mapping(self) -> bool:
        """Whether it has keys."""
        return isinstance(self.node, yaml.MappingNode)

    def _at(self, node: yaml.Node) -> Value:
        return Value(node, self.file, self.context)

    def _is_plain(self) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.node.style not in (
            '"',
            "'",
            "|",
            ">",
        )

    def _is_null(self) -> bool:
        return self._is_plain() and self.node.value in ("", "~", "null", "Null", "NULL")

    def _found(self) -> str:
        if isinstance(self.node, yaml.ScalarNode):
            return "nothing" if self._is_null() else f"{self.node.value!r:.40}"
        return "keys" if self.is_mapping() else "a list"


class Document:
    """A whole document; no tag or type in it is obeyed.

    Args:
        data: UTF-8.
        file: for messages.

    Raises:
        ClickScriptError: no UTF-8 or empty; from any method, where the document is no YAML.
    """

    def __init__(self, data: bytes, file: str) -> None:
        self.file = file
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ClickScriptError(f"{file}:{line}: not UTF-8 text") from error
        if text.lstrip().startswith("{"):  # JSON may spell characters beyond U+FFFF as two halves
            text = _SURROGATES.sub(_join_surrogates, text)
        with self._errors():
            self._events: Any = _Loader(text)
        self._take(yaml.StreamStartEvent)
        if not self._take(yaml.DocumentStartEvent):
            raise ClickScriptError(f"{file}: empty; a click script begins with version: 1")

    def members(self, known: Collection[str]) -> Iterator[str]:
        """Walk the keys; read the `value` or the `items` of each before going on."""
        if not self._take(yaml.MappingStartEvent):
            self.value().mapping(known)
        seen: list[str] = []
        while not self._take(yaml.MappingEndEvent):
            seen.append(self.value().key(known, seen))
            yield seen[-1]
        self._take(yaml.DocumentEndEvent)
        if not self._take(yaml.StreamEndEvent):
            raise self._error(self._next().start_mark, "but found another document")

    def items(self) -> Iterator[Value]:
        """The elements of the list ahead, one by one; nothing is an empty list."""
        if not self._take(yaml.SequenceStartEvent):
            yield from self.value().items()
            return
        while not self._take(yaml.SequenceEndEvent):
            yield self.value()

    def value(self) -> Value:
        """The whole value ahead."""
        return Value(self._compose(self._next(), 0), self.file)

    def _compose(self, event: Any, depth: int) -> yaml.Node:
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise self._error(mark, "aliases (*) are not supported; write it out")
        if depth > _DEEPEST:
            raise self._error(mark, "nested too deep")
        if isinstance(event, yaml.ScalarEvent):
            return yaml.ScalarNode("", event.value, mark, style=event.style)
        is_list = isinstance(event, yaml.SequenceStartEvent)
        end = yaml.SequenceEndEvent if is_list else yaml.MappingEndEvent
        parts = []
        while not isinstance(event := self._next(), end):
            parts.append(self._compose(event, depth + 1))
        if is_list:
            return yaml.SequenceNode("", parts, mark)
        return yaml.MappingNode("", list(zip(parts[::2], parts[1::2], strict=True)), mark)

    def _take(self, kind: type[yaml.Event]) -> bool:
        """Pass the next event if it is of a kind."""
        with self._errors():
            if not self._events.check_event(kind):
                return False
            self._events.get_event()
            return True

    def _next(self) -> Any:
        with self._errors():
            return self._events.get_event()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What YAML has to say, with the line."""
        try:
            yield
        except yaml.MarkedYAMLError as error:
            reason = str(error.problem or error.context)
            raise self._error(error.problem_mark, reason) from error
        except yaml.YAMLError as error:
            raise ClickScriptError(f"{self.file}: {' '.join(str(error).split())}") from error

    def _error(self, mark: yaml.Mark | None, reason: str) -> ClickScriptError:
        return ClickScriptError(f"{self.file}:{mark.line + 1 if mark else 1}: {reason}")


def _join_surrogates(match: re.Match[str]) -> str:
    backslashes, high, low = match.groups()
    return backslashes + chr(0x10000 + (int(high, 16) - 0xD800) * 0x400 + int(low, 16) - 0xDC00)
