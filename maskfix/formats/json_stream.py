"""Walk through a JSON file larger than memory, with the byte position of every value.

The bytes are read as Latin-1: a character is a byte, so positions are right, and the structure of
UTF-8 JSON is all ASCII. Only text that is needed is then decoded properly (`JsonStream.as_utf8`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from maskfix.errors import InputError

BLOCK = 1 << 22
_BLANK = re.compile(r"[ \t\n\r]*")
_raw_decode = json.JSONDecoder().raw_decode
_MOST_BRACES = 8  # in one object, for a glance at it
_LONGEST_TOKEN = 16  # a number, word or escape cut at the end of what was read fails this near it


class JsonStream:
    """A cursor in a JSON file; every method leaves it behind what it read.

    Raises:
        InputError: from any method, where the file is no JSON; names file and byte position.
    """

    def __init__(self, path: Path, block: int = BLOCK) -> None:
        self.path = path
        self._block = block
        self._file = path.open("rb")
        self._text = ""  # a stretch of the file, from byte _base on
        self._base = 0
        self._position = 0  # of the cursor in _text
        self._value = (0, 0)  # of the value read last, in _text
        if self._file.read(3) == b"\xef\xbb\xbf":
            self._base = 3
        else:
            self._file.seek(0)

    def __enter__(self) -> JsonStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def offset(self) -> int:
        """Byte position of the cursor."""
        return self._base + self._position

    def peek(self) -> str:
        """Go to the next character that is not blank and return it, "" at the end."""
        while True:
            match = _BLANK.match(self._text, self._position)
            assert match is not None
            self._position = match.end()
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_more():
                return ""

    def take(self, expected: str) -> str:
        """Read one of the expected characters."""
        found = self.peek()
        if not found or found not in expected:
            wanted = " or ".join(repr(character) for character in expected)
            raise self._error(f"expected {wanted}, found {repr(found) if found else 'its end'}")
        self._position += 1
        return found

    def value(self) -> Any:
        """Read a whole value; its text is Latin-1."""
        self.peek()
        while True:
            try:
                value, end = _raw_decode(self._text, self._position)
            except RecursionError as error:
                raise self._error("nested too deep") from error
            except ValueError as error:
                if not (self._may_be_cut(error) and self._read_more()):
                    raise self._error(*_reason(error, self._position)) from error
                continue
            cut = isinstance(value, int | float) and end + _LONGEST_TOKEN > len(self._text)
            if not (cut and self._read_more()):  # "1", "1." and "1e+" may go on
                self._value = (self._position, end)
                self._position = end
                return value

    def glance(self, decoder: msgspec.json.Decoder[Any]) -> Any:
        """Read an object of which a few fields are wanted: several times as fast as `value`.

        Any closing brace may be its last. The decoder accepts nothing but a whole object, so it
        tells; what it refuses for other reasons (NaN, no object, an error) is left to `value`.
        """
        if self.peek() == "{":
            end = self._position
            for _ in range(_MOST_BRACES):
                end = self._text.find("}", end) + 1
                if not end:
                    break
                try:
                    value = decoder.decode(self._text[self._position : end].encode("latin-1"))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue
                self._value = (self._position, end)
                self._position = end
                return value
        return self.value()

    def as_utf8(self) -> Any:
        """The value read last, with its text decoded as UTF-8."""
        start, end = self._value
        return parse(self._text[start:end].encode("latin-1"))

    def members(self) -> Iterator[str]:
        """Walk an object: yields its keys; read the value before going on."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            if self.peek() != '"':
                self.take('"')
            key = self.value()
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def elements(
        self, decoder: msgspec.json.Decoder[Any] | None = None
    ) -> Iterator[tuple[Any, int, int]]:
        """Walk an array: yields every element with its first byte and the byte after its last.

        With a decoder, objects are read by `glance`.
        """
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            self.peek()
            start = self.offset
            value = self.value() if decoder is None else self.glance(decoder)
            yield value, start, self.offset
            if self.take(",]") == "]":
                return

    def skip(self) -> None:
        """Read past a value; an array element by element, so that it may be of any size."""
        if self.peek() == "[":
            for _ in self.elements():
                pass
        else:
            self.value()

    def finish(self) -> None:
        """Make sure that nothing follows."""
        if self.peek():
            raise self._error("something follows the end of the JSON value")

    def _read_more(self) -> bool:
        """Drop what is behind the cursor, read at least as much as is left; False at the end."""
        data = self._file.read(max(self._block, len(self._text) - self._position))
        if not data:
            return False
        self._text = self._text[self._position :] + data.decode("latin-1")
        self._base += self._position
        self._position = 0
        return True

    def _may_be_cut(self, error: ValueError) -> bool:
        """Whether reading more could mend an error."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        near_end = error.pos >= len(self._text) - _LONGEST_TOKEN
        return near_end or error.msg.startswith("Unterminated string")

    def _error(self, reason: str, position: int | None = None) -> InputError:
        at = self._base + (self._position if position is None else position)
        return InputError(f"{self.path}: no valid JSON at byte {at}: {reason}")


def parse(data: bytes) -> Any:
    """Decode one JSON value known to be well-formed; NaN and odd UTF-8 are let through."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(data.decode("utf-8", "surrogateescape"))


def value_spans(text: str) -> dict[str, tuple[int, int]]:
    """Start and end of the value of every key of an object known to be well-formed."""
    spans = {}
    position = text.index("{")
    while text[position] != "}":
        position = _after_blank(text, position + 1)
        if text[position] == "}":
            break
        key, position = _raw_decode(text, position)
        start = _after_blank(text, _after_blank(text, position) + 1)
        _, end = _raw_decode(text, start)
        spans[key] = (start, end)
        position = _after_blank(text, end)
    return spans


def _after_blank(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    assert match is not None
    return match.end()


def _reason(error: ValueError, position: int) -> tuple[str, int]:
    if isinstance(error, json.JSONDecodeError):
        return error.msg, error.pos
    return str(error).split(";")[0], position
