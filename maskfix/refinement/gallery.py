"""Pictures for the report: what a run found and what it left, read from its journal."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

from maskfix.config import RefineConfig
from maskfix.errors import InstanceError
from maskfix.formats import Annotation, ImageItem, Source
from maskfix.formats.image import read_item
from maskfix.formats.script_text import category_names, index_selector, quoted, selector_of
from maskfix.masks import Mask
from maskfix.refinement.inputs import memory_of
from maskfix.refinement.outcome import unpack_edits, unpack_mask
from maskfix.refinement.references import WITHOUT_IDS
from maskfix.refinement.worker import READ_AHEAD, READ_BYTES
from maskfix.report.refinement_page import (
    MOST_PICTURES,
    row_card,
    worst_rows,
    write_refinement_page,
)
from maskfix.report.sheet_page import DOWNLOADED
from maskfix.report.sheet_picture import make_picture, region_around
from maskfix.threads import map_ahead
from maskfix.types import Click
from maskfix.words import counted

Line = dict[str, Any]
Card = tuple[int, dict[str, Any], dict[str, Any]]
"""Rank, additions to the item, and picture."""


def write_report_page(
    out: Path,
    rows: Iterable[dict[str, Any]],
    lines: Iterable[Line],
    lost: int,
    source: Source,
    config: RefineConfig,
    summary: dict[str, Any],
) -> None:
    """Write report.html in ``out``.

    Args:
        out: folder of the run, with its annotations in it.
        rows: of the report.
        lines: of the journal, for all rows but the first.
        lost: how many rows come before those of the journal.
        source: the masks as they were.
        config: of the run.
        summary: as in summary.json.
    """
    worst = worst_rows(rows)
    items = [row_card(row) for _, row in worst]
    ranks = {position - lost: rank for rank, (position, _) in enumerate(worst[:MOST_PICTURES])}
    del worst  # the items have what is shown of them
    pictures = _pictures(_by_image(lines, ranks), source, items, config.workers)
    command = ["maskfix", "refine", "--images", str(config.images), "--masks"]
    command += [str(out / ("masks" if config.masks.is_dir() else "annotations.json"))]
    if config.images_json is not None:
        command += ["--images-json", str(config.images_json)]
    about = {
        "title": f"{config.masks.name}, {counted(summary['instances'], 'instance')}",
        "command": f"{shlex.join(command)} --clicks {DOWNLOADED}",
        "categories": category_names(source),
    }
    write_refinement_page(out / "report.html", items, pictures, summary, about)


def _by_image(
    lines: Iterable[Line], ranks: Mapping[int, int]
) -> Iterator[list[tuple[int | None, Line]]]:
    """The lines of each image that wants a picture, each with its rank, if it has one.

    Args:
        lines: of the whole run; those of one image stand together.
        ranks: by position of the line.
    """
    for image, group in groupby(enumerate(lines), key=lambda pair: pair[1]["image"]):
        inside = [(ranks.get(position), line) for position, line in group]
        if image is not None and any(rank is not None for rank, _ in inside):
            yield inside


def _pictures(
    images: Iterable[list[tuple[int | None, Line]]],
    source: Source,
    items: list[dict[str, Any]],
    workers: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Pictures by rank; adds to ``items`` what a script calls the instances."""

    def load(lines: list[tuple[int | None, Line]]) -> tuple[int, list[Card]]:
        """Bytes that it took, about, and what came of it."""
        try:
            image = ImageAfter(source, [line for _, line in lines])
        except InstanceError:  # the row says so
            return 1, []
        return memory_of(image.item, image.image, {}), list(image.cards(lines))

    def room(made: tuple[int, list[Card]]) -> int:
        return READ_BYTES // made[0]  # it is not the cards that are large

    with ThreadPoolExecutor(workers) as pool:
        for _, cards in map_ahead(load, images, pool, READ_AHEAD * workers, room):
            for rank, more, picture in cards:
                items[rank] |= more
                yield rank, picture


class ImageAfter:
    """One image after a run: which instances are left, under which names, with which masks.

    Args:
        source: the masks as they were.
        lines: of the image in the journal, all of them.

    Raises:
        InstanceError: the image cannot be read.
    """

    def __init__(self, source: Source, lines: list[Line]) -> None:
        self.item: ImageItem = source[lines[0]["image"]]
        self.image = read_item(self.item)
        self.has_ids = source.format not in WITHOUT_IDS
        self.by_key = {a.key: a for a in self.item.annotations}
        edits = [(line, edit) for line in lines for edit in line["edits"]]
        self.deleted = {edit["key"] for _, edit in edits if edit["kind"] == "delete"}
        self.added = [id(line) for line, edit in edits if edit["kind"] == "add"]

    def cards(self, lines: list[tuple[int | None, Line]]) -> Iterator[Card]:
        """What comes of each line with a rank."""
        height, width = self.image.shape[:2]
        for rank, line in lines:
            if rank is None:
                continue
            masks = self._masks(line)
            clicks = [Click(*values) for values in line["clicks"]]
            everything = [mask for group in masks.values() for mask in group]
            if any((mask.height, mask.width) != (height, width) for mask in everything):
                continue  # masks of another image: the row says so
            region = region_around(height, width, everything, clicks)
            selector = self._selector(line)
            more = {
                "fileYaml": quoted(self.item.file),
                "selector": selector,
                "picture": True,
                "takesClicks": selector is not None and self._problem(line) is None,
            }
            yield rank, more, make_picture(self.image, region, masks, clicks)

    def _masks(self, line: Line) -> dict[str, list[Mask]]:
        """Before, after, and refused, where there was something."""
        edits = unpack_edits(line)
        own = line["key"]
        involved = {own} | {edit.key for edit in edits if edit.kind == "delete"}
        before = [a.mask for a in self.item.annotations if a.key in involved and a.mask]
        after = [edit.mask for edit in edits if edit.mask is not None]
        if not any(edit.kind in {"replace", "delete"} and edit.key == own for edit in edits):
            after += [a.mask for a in self.item.annotations if a.key == own and a.mask]
        refused = [unpack_mask(line["refused"])] if line["refused"] else []
        return {"before": before, "after": after, "refused": refused}

    def _selector(self, line: Line) -> str | None:
        """What a script for the new annotations calls the instance; None if it is gone."""
        annotation = self.by_key.get(line["key"])
        if annotation is None:  # it came with this run
            if id(line) not in self.added:
                return None
            left = len(self.item.annotations) - len(self.deleted)
            return index_selector(left + self.added.index(id(line)))
        if annotation.key in self.deleted:
            return None
        return self._name(annotation)

    def _name(self, annotation: Annotation) -> str:
        own = selector_of(annotation, self.item)
        if self.has_ids and own.startswith("id:"):
            return own
        before = [a for a in self.item.annotations if a.index < annotation.index]
        return index_selector(sum(a.key not in self.deleted for a in before))

    def _problem(self, line: Line) -> str | None:
        annotation = self.by_key.get(line["key"])
        return annotation.problem if annotation else None
