"""What others have published of the public benchmarks, from ``published.yaml`` beside this file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import yaml


def published_results(sets: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Published numbers of clicks, in the order of the file.

    Args:
        sets: benchmark by the name that tables show it under; others than those of the file give
            nothing.

    Yields:
        ``set`` (as shown), ``model``, ``source``, and ``noc@85`` and such, where published.
    """
    content = files("maskfix.report").joinpath("published.yaml").read_text(encoding="utf-8")
    for table in yaml.safe_load(content):
        columns = [column.split("@") for column in table["columns"]]
        for model, numbers in table["rows"].items():
            for shown, benchmark in sets.items():
                found = {
                    f"noc@{percent}": number
                    for (name, percent), number in zip(columns, numbers, strict=True)
                    if name == benchmark and number is not None
                }
                if found:
                    yield {"set": shown, "model": model, "source": table["source"], **found}
