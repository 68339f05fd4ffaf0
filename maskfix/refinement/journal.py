"""The journal of a run: what is finished, so that it can be interrupted at any moment.

One file of JSON lines. The first describes the run; then, chunk by chunk, one line an instance and
a line that closes the chunk. A chunk without its closing line did not happen: resuming cuts the
file back to the last closed chunk and does the rest again. Chunks are fixed by the inputs, and
network batches never cross them, so the result does not depend on where a run was cut.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskfix.errors import InputError, UsageError

NAME = "journal.jsonl"


class Journal:
    """Appends finished chunks; reads them back.

    Args:
        path: the file.
        header: what identifies the run; a journal of another run is not continued.
        resume: continue the file if it exists, instead of starting it anew.

    Raises:
        UsageError: the file belongs to a run with other inputs or settings.
        InputError: the file is not a journal.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], resume: bool) -> None:
        self.path = path
        self.chunks_done = 0
        end = 0
        if resume and path.exists():
            end = self._read_back(dict(header))
        self._file = path.open("r+b" if end else "wb")
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._write([dict(header)])

    def append(self, lines: list[dict[str, Any]], about: Mapping[str, Any] | None = None) -> None:
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

    def lines(self) -> Iterator[dict[str, Any]]:
        """The instances' lines of all closed chunks, in order."""
        return self._lines_with("row")

    def closings(self) -> Iterator[dict[str, Any]]:
        """The lines that close the chunks, in order."""
        return self._lines_with("closed")

    def _lines_with(self, key: str) -> Iterator[dict[str, Any]]:
        for line in _complete_lines(self.path):
            content = json.loads(line)
            if key in content:
                yield content

    def _write(self, lines: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        self._file.write(text.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read_back(self, header: dict[str, Any]) -> int:
        """Count closed chunks; returns where the last one ends, in bytes, 0 for an empty file."""
        end = position = 0
        for number, line in enumerate(_complete_lines(self.path)):
            position += len(line)
            try:
                content = json.loads(line)
                if not isinstance(content, dict):
                    raise ValueError("no object")
            except ValueError as error:
                raise InputError(
                    f"{self.path}, line {number + 1} is no JSON object: not a journal, or damaged; "
                    "use --overwrite to start again"
                ) from error
            if number == 0:
                self._compare(content, header)
                end = position
            elif "closed" in content:
                self.chunks_done += 1
                end = position
        return end

    def _compare(self, found: dict[str, Any], header: dict[str, Any]) -> None:
        wanted = json.loads(json.dumps(header))
        odd = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        if odd:
            raise UsageError(
                f"{self.path} is of another run: {odd[0]} was {found.get(odd[0])!r}, now "
                f"{wanted.get(odd[0])!r}; use the same settings, or --overwrite"
            )


def _complete_lines(path: Path) -> Iterator[bytes]:
    """Lines that end in a newline; a torn last one is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line
