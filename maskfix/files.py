"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from maskfix.errors import UsageError


def keep_apart(out: Path, inputs: Iterable[Path | None], around: Path | None = None) -> None:
    """Refuse an output folder in which an input could be overwritten, or taken for an output.

    Args:
        out: the folder.
        inputs: files and folders.
        around: the one of them that ``out`` may lie inside of.

    Raises:
        UsageError: ``out`` is an input, lies inside one, or holds one.
    """
    out = out.resolve()
    for given in inputs:
        if given is None:
            continue
        path = given.resolve()
        is_inside = out.is_relative_to(path) and (out == path or given != around)
        if is_inside or path.is_relative_to(out):
            raise UsageError(
                f"--out: {out} and the input {given} overlap; give a folder of its own"
            )


def describe_file(path: Path) -> str:
    """Name, size and time of change of a file: what tells whether it is still the same."""
    status = path.stat()
    seconds, rest = divmod(status.st_mtime_ns, 10**9)
    changed = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    return f"{path.resolve()} ({status.st_size} bytes, of {changed}.{rest:09} UTC)"


@contextmanager
def atomic_stream(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; it takes its place at ``path`` when the block ends without error.

    The bytes go to a temporary file in the same folder, which must exist.
    """
    partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")
    try:
        with partial.open("xb") as stream:
            yield stream
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a whole file at once; text as UTF-8."""
    with atomic_stream(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
