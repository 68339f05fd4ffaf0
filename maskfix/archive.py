"""Folders and tars, read alike."""

from __future__ import annotations

import tarfile
from functools import cached_property
from pathlib import Path, PurePosixPath

from maskfix.errors import InputError, InstanceError


class Files:
    """Reads files by name from a folder or, without unpacking it, from a tar.

    Names are relative, with forward slashes; a single folder that holds all of a tar is left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, tuple[int, int]] | None = None  # name -> (offset, bytes)
        if path.is_file() and tarfile.is_tarfile(path):
            with tarfile.open(path, "r:") as tar:
                members = [m for m in tar.getmembers() if m.isfile()]
            tops = {m.name.partition("/")[0] for m in members}
            skip = len(tops.pop()) + 1 if len(tops) == 1 else 0
            self._members = {m.name[skip:]: (m.offset_data, m.size) for m in members}
        elif not path.is_dir():
            raise InputError(f"data set {path}: expected a folder or a tar, found neither")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All file names, sorted."""
        if self._members is not None:
            return tuple(sorted(self._members))
        found = (p for p in self.path.rglob("*") if p.is_file())
        return tuple(sorted(p.relative_to(self.path).as_posix() for p in found))

    @cached_property
    def by_basename(self) -> dict[str, str]:
        """The last part of every name -> the name; the first in order where several share it."""
        return {PurePosixPath(name).name: name for name in reversed(self.names)}

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self._members if self._members is not None else (self.path / name).is_file()

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of this name with anything in it."""
        if self._members is None:
            return (self.path / name).is_dir()
        return any(member.startswith(f"{name}/") for member in self._members)

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            InstanceError: there is none, or it cannot be read.
        """
        if self._members is None:
            try:
                return (self.path / name).read_bytes()
            except OSError as error:
                raise InstanceError(f"{self.path / name}: {error.strerror}") from error
        if name not in self._members:
            raise InstanceError(f"{self.path} has no {name}")
        offset, size = self._members[name]
        with self.path.open("rb") as tar:
            tar.seek(offset)
            return tar.read(size)
