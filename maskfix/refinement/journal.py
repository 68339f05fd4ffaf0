"""The journal of a run: what is finished, so that it can be interrupted at any moment.

One file of JSON lines. The first describes the run; then, chunk by chunk, one line an instance and
a line that closes the chunk. A chunk without its closing line did not happen: resuming cuts the
file back to the last closed chunk and does the rest again. Chunks are fixed by the inputs, and
network batches never cross them, so the result does not depend on where a run was cut, nor on
which process did which of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from maskfix.errors import InputError, InstanceError, UsageError

NAME = "journal.jsonl"

Line = dict[str, Any]
Chunk = tuple[list[Line], Line]
"""The instances' lines, and the line that closes the chunk."""

_ABOUT = "about"  # the part of the header that may differ when a run goes on


class Record:
    """What a journal on disk holds.

    Args:
        path: the file.
        check: looks at an instance's line; raises any of `DAMAGED` if it cannot be one.

    Attributes:
        header: what identifies the run; empty if the file does not even have that.
        about: what else was known when it began.
        chunks: how many are closed.
        end: where the last of them ends, in bytes.

    Raises:
        InputError: the file is not a journal, or damaged.
    """

    def __init__(self, path: Path, check: Callable[[Line], object]) -> None:
        self.path = path
        self.header: Line = {}
        self.chunks = self.end = 0
        position = 0
        for number, line in enumerate(_complete_lines(path)):
            position += len(line)
            try:
                content = msgspec.json.decode(line, type=Line)
                if number == 0:
                    self.header, self.end = content, position
                elif "closed" in content:
                    self.chunks += 1
                    self.end = position
                else:
                    check(content)
            except DAMAGED as error:
                raise InputError(
                    f"{path}, line {number + 1} is no line of this journal: damaged, or of another "
                    "program; use --overwrite to start again"
                ) from error
        self.about: Line = self.header.pop(_ABOUT, {})

    def compare(self, wanted: Mapping[str, Any], but: str | None = None) -> str | None:
        """The first thing in which a run differs from this one; None if it is the same.

        Args:
            wanted: the header of that run.
            but: a key that may differ.
        """
        wanted = json.loads(json.dumps(wanted))
        for key in {**self.header, **wanted}:
            if key != but and self.header.get(key) != wanted.get(key):
                return f"{key} was {_shown(self.header.get(key))}, now {_shown(wanted.get(key))}"
        return None

    def lines(self) -> Iterator[Line]:
        """The instances' lines of all closed chunks, in order."""
        return (line for lines, _ in read_chunks(self.path) for line in lines)


DAMAGED = (msgspec.MsgspecError, ValueError, TypeError, KeyError, IndexError, InstanceError)
"""What reading a line that is none raises."""


class Journal:
    """Appends finished chunks; reads them back.

    Args:
        path: the file.
        header: what identifies the run; a journal of another run is not continued.
        resume: continue the file if it exists, instead of starting it anew.
        check: see `Record`.
        about: what else is to be known, and may be another thing when the run goes on.

    Attributes:
        chunks_done: how many it holds.

    Raises:
        UsageError: the file belongs to a run with other inputs or settings.
        InputError: the file is not a journal.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        resume: bool,
        check: Callable[[Line], object],
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.chunks_done = end = 0
        if resume and path.exists():
            found = Record(path, check)
            difference = found.compare(header) if found.header else None
            if difference:
                raise UsageError(
                    f"{path} is of another run: {difference}; use the same settings, or --overwrite"
                )
            self.chunks_done, end = found.chunks, found.end
        self._file = path.open("r+b" if end else "wb")
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._write([{**header, _ABOUT: dict(about or {})}])

    def append(self, lines: list[Line], about: Mapping[str, Any] | None = None) -> None:
        """Add a finished chunk: its instances' lines, then the line that closes it.

        Args:
            lines: each with a key ``row``.
            about: of the chunk as a whole, for its closing line.
        """
        self._write([*lines, {"closed": self.chunks_done, **(about or {})}])
        self.chunks_done += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def chunks(self) -> Iterator[Chunk]:
        """What it holds, chunk by chunk."""
        return read_chunks(self.path)

    def lines(self) -> Iterator[Line]:
        """The instances' lines of all closed chunks, in order."""
        return (line for lines, _ in self.chunks() for line in lines)

    def _write(self, lines: list[Line]) -> None:
        self._file.writelines(json.dumps(line).encode() + b"\n" for line in lines)
        self._file.flush()
        os.fsync(self._file.fileno())


def read_header(path: Path) -> Line:
    """What identifies the run that a journal is of.

    Raises:
        InputError: the file is not a journal.
    """
    line = next(_complete_lines(path), b"")
    try:
        return msgspec.json.decode(line, type=Line)
    except msgspec.MsgspecError as error:
        raise InputError(f"{path}, line 1: no header of a journal") from error


def read_chunks(path: Path) -> Iterator[Chunk]:
    """The closed chunks of a journal, one by one."""
    lines: list[Line] = []
    for number, text in enumerate(_complete_lines(path)):
        if number:
            line = msgspec.json.decode(text, type=Line)
            if "closed" in line:
                yield lines, line
                lines = []
            else:
                lines.append(line)


def _complete_lines(path: Path) -> Iterator[bytes]:
    """Lines that end in a newline; a torn last one is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def _shown(value: Any) -> str:
    return "not said" if value is None else value if isinstance(value, str) else json.dumps(value)
