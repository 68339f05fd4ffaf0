"""The values of a YAML or JSON document with their lines, read one expectation at a time."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeVar

import yaml

from maskfix.errors import ClickScriptError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.I)
_Option = TypeVar("_Option", bound=str)


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
    _visited: set[int] = field(default_factory=set)

    @property
    def line(self) -> int:
        """Where it stands, counted from 1."""
        return int(self.node.start_mark.line) + 1

    @property
    def where(self) -> str:
        """File, line and context."""
        return f"{self.file}:{self.line}: " + " ".join(", ".join(self.context).splitlines())

    def error(self, reason: str) -> ClickScriptError:
        """An error at this place."""
        reason = " ".join(reason.splitlines())
        return ClickScriptError(f"{self.where}: {reason}" if self.context else self.where + reason)

    def within(self, *context: str) -> Value:
        """The same value as a part of something."""
        return Value(self.node, self.file, self.context + context, self._visited)

    def mapping(self, known: Collection[str]) -> dict[str, Value]:
        """Keys with values; every key is one of those known, once."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"expected keys ({', '.join(known)}), found {self._found()}")
        self._visit()
        members: dict[str, Value] = {}
        for key_node, value_node in self.node.value:
            key = self._at(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise key.error(f"expected a key, found {key._found()}")
            name = str(key_node.value)
            if name not in known:
                near = difflib.get_close_matches(name[:40], known, 1, 0)[0]
                raise key.error(f"unknown key {name!r:.40}; the nearest known one is {near}")
            if name in members:
                raise key.error(f"{name} is there twice")
            members[name] = self._at(value_node)
        return members

    def items(self) -> list[Value]:
        """Elements of a list; nothing is an empty list."""
        if self._is_null():
            return []
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"expected a list, found {self._found()}")
        self._visit()
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
        return Value(node, self.file, self.context, self._visited)

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

    def _visit(self) -> None:
        """Refuse what aliases repeat: a few lines could stand for billions."""
        if id(self.node) in self._visited:
            raise self.error("aliases (*) are not supported; write it out")
        self._visited.add(id(self.node))


def compose(data: bytes, file: str) -> Value:
    """The value of a whole document; no tag or type in it is obeyed.

    Raises:
        ClickScriptError: no UTF-8, no YAML, empty, or more than one document.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ClickScriptError(f"{file}:{line}: not UTF-8 text") from error
    if text.lstrip().startswith("{"):  # JSON may spell characters beyond U+FFFF as two halves
        text = _SURROGATES.sub(_join_surrogates, text)
    try:
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ClickScriptError(f"{file}:{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ClickScriptError(f"{file}: {' '.join(str(error).split())}") from error
    if node is None:
        raise ClickScriptError(f"{file}: empty; a click script begins with version: 1")
    return Value(node, file)


def _join_surrogates(match: re.Match[str]) -> str:
    backslashes, high, low = match.groups()
    return backslashes + chr(0x10000 + (int(high, 16) - 0xD800) * 0x400 + int(low, 16) - 0xDC00)
