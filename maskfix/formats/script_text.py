"""Names of images, instances and categories for pages that make click scripts.

What a script will hold is YAML as it stands here, whatever is in a name.
"""

from __future__ import annotations

from typing import Any

import yaml

from maskfix.formats.base import Annotation, ImageItem, Source

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def quoted(text: str) -> str:
    """Text in double quotes on one line."""
    plain = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be kept
    dumped = yaml.dump(plain, Dumper=_Dumper, default_style='"', allow_unicode=True, width=1 << 30)
    return str(dumped).rstrip("\n")


def card_of(item: ImageItem, annotation: Annotation) -> dict[str, Any]:
    """What a page says of an instance, and how a script names it; see assets/gallery.js."""
    return {
        "file": item.file,
        "fileYaml": quoted(item.file),
        "selector": selector_of(annotation, item),
        "category": annotation.category,
        "label": str(annotation.id),
        "note": "",
    }


def category_names(source: Source) -> list[tuple[str, str]]:
    """The names an instance can be given, each with its YAML; none that stands for two."""
    names = list(source.categories.values())
    return [(name, quoted(name)) for name in names if name and names.count(name) == 1]


def selector_of(annotation: Annotation, item: ImageItem) -> str:
    """The key and value that name an instance: its id, its index where the id is there twice."""
    same = [other for other in item.annotations if str(other.id) == str(annotation.id)]
    if len(same) > 1:
        return index_selector(annotation.index)
    own = annotation.id
    return f"id: {own}" if isinstance(own, int) else f"id: {quoted(own)}"


def index_selector(index: int) -> str:
    """The key and value that name an instance by its place in its image."""
    return f"index: {index}"
