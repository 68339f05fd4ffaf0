"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of recorded outputs of the published code; tests that need it skip without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "spec" / "golden"
    folder = Path(os.environ.get("MASKFIX_GOLDEN", beside))
    if not folder.is_dir():
        pytest.skip(f"no golden data in {folder}; set MASKFIX_GOLDEN to its folder")
    return folder
