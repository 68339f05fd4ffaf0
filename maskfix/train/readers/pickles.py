"""Pickles of plain values only: nothing in them can run."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from maskfix.errors import InputError

_MODULES = {"numpy", "numpy.core.multiarray", "numpy._core.multiarray"}
_NAMES = {"ndarray", "dtype", "_reconstruct", "scalar"}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in _NAMES:
            modern = module.replace("numpy.core", "numpy._core") if hasattr(np, "_core") else module
            return super().find_class(modern, name)
        raise pickle.UnpicklingError(f"it wants {module}.{name}")


def load_plain(content: bytes, what: str) -> Any:
    """Unpickle lists, dicts, numbers, texts, bytes and numpy arrays.

    Raises:
        InputError: damaged, or anything else is in it.
    """
    try:
        return _Plain(io.BytesIO(content)).load()
    except Exception as error:  # unpickling raises nearly anything on damaged bytes
        raise InputError(f"{what}: expected a pickle of plain values: {error}") from error
