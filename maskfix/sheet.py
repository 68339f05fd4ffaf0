"""The click sheet: masks as cards on a page in the browser, where a person clicks and decides."""

from __future__ import annotations

import csv
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from maskfix.errors import InputError, InstanceError, UsageError
from maskfix.formats import Annotation, ImageItem, Source, open_source
from maskfix.formats.image import read_item
from maskfix.formats.script_text import card_of, category_names
from maskfix.report.sheet_page import DOWNLOADED, write_page
from maskfix.report.sheet_picture import make_picture, region_around
from maskfix.threads import map_ahead
from maskfix.words import counted

MOST = 5000
"""Instances in one file, 50 to 75 MB; more go into a second one."""

READ_AHEAD = 2  # images, per worker


@dataclass(frozen=True)
class Chosen:
    """One instance of a sheet.

    Attributes:
        image: ordinal in the source.
        index: within the image.
        id: as text.
        note: why it is worth a look.
    """

    image: int
    index: int
    id: str
    note: str = ""


def make_sheet(
    images: Path,
    masks: Path,
    out: Path,
    triage: Path | None = None,
    ids: set[str] | None = None,
    images_json: Path | None = None,
    masks_format: str | None = None,
    workers: int = 2,
) -> tuple[list[Path], int, list[str]]:
    """Write one HTML file, or as many as needed for `MOST` instances each.

    Args:
        images: folder of images.
        masks: in any format that refine takes.
        out: the file; a second one is called NAME-2.html.
        triage: a CSV file with columns image, and index or id, and perhaps reasons and, of
            `maskfix.triage`, score: which instances, and in which order; else all but crowds, in
            source order.
        ids: only these instances, by their ids as text.
        images_json: for COCO results, a COCO file that names the images.
        masks_format: overrules what ``masks`` looks like.
        workers: threads that read images.

    Returns:
        the files, how many instances are in them, and why some have no picture, a line each.

    Raises:
        UsageError: ``out`` is no name of an HTML file, or nothing is left to show.
        InputError: unusable masks or CSV file.
    """
    if out.suffix.lower() not in {".html", ".htm"}:
        raise UsageError(f"--out: {out} does not end in .html; give the name of the page to make")
    source = open_source(masks, images, images_json, masks_format)
    chosen = list(_from_csv(triage, source) if triage else _all(source, ids))
    if ids is not None and triage:
        chosen = [c for c in chosen if c.id in ids]
    if not chosen:
        wanted = f"--ids: no instance has one of {', '.join(sorted(ids))}" if ids else "no masks"
        raise UsageError(f"{masks}: nothing to show: {wanted}")
    command = ["maskfix", "refine", "--images", str(images), "--masks", str(masks)]
    command += ["--images-json", str(images_json)] if images_json else []
    command += ["--masks-format", masks_format] if masks_format else []
    about = {
        "command": f"{shlex.join(command)} --clicks {DOWNLOADED}",
        "categories": category_names(source),
    }
    files: list[Path] = []
    problems = [f"{name}: no such id" for name in sorted((ids or set()) - {c.id for c in chosen})]
    parts = [chosen[start : start + MOST] for start in range(0, len(chosen), MOST)]
    for number, part in enumerate(parts, start=1):
        path = out if number == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
        title = f"{counted(len(part), 'mask')} of {masks.name}"
        title += f", part {number} of {len(parts)}" if len(parts) > 1 else ""
        items: list[dict[str, Any]] = [{} for _ in part]
        pictures = _pictures(source, part, items, problems, workers)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_page(path, "sheet", pictures, items, {**about, "title": title})
        files.append(path)
    return files, len(chosen), problems


def _all(source: Source, ids: set[str] | None) -> Iterator[Chosen]:
    for ordinal in range(len(source)):
        for annotation in source[ordinal].annotations:
            if not annotation.is_crowd if ids is None else str(annotation.id) in ids:
                yield Chosen(ordinal, annotation.index, str(annotation.id))


def _from_csv(path: Path, source: Source) -> Iterator[Chosen]:
    """The instances a triage file names, in its order.

    Raises:
        InputError: no such columns, or an instance that is not there.
    """

    @cache  # rows of one image are anywhere in the file, and to read its masks takes time
    def names_in(image: int) -> list[tuple[int, str]]:
        return [(annotation.index, str(annotation.id)) for annotation in source[image].annotations]

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            if "image" not in columns or not {"id", "index"} & set(columns):
                raise InputError(
                    f"{path}: expected the columns image and id, found {', '.join(columns)}; "
                    "maskfix triage writes such a file"
                )
            for row in rows:
                yield _choose(row, f"{path}:{rows.line_num}", source, names_in)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no CSV file in UTF-8: {error}") from error


def _choose(
    row: dict[str, str],
    where: str,
    source: Source,
    names_in: Callable[[int], list[tuple[int, str]]],
) -> Chosen:
    """What a row names; ``names_in`` gives index and id of all instances of an image."""
    try:
        image = source.find_image(row["image"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if row.get("index"):
        found = [(index, name) for index, name in names_in(image) if str(index) == row["index"]]
    else:
        found = [(index, name) for index, name in names_in(image) if name == row.get("id")]
    if len(found) != 1:
        name = f"index {row['index']}" if row.get("index") else f"id {row.get('id')}"
        count = f"{len(found)} instances" if found else "no instance"
        raise InputError(
            f"{where}: {row['image']} has {count} with {name}: the file is of other masks?"
        )
    return Chosen(image, *found[0], _note(row))


def _note(row: dict[str, str]) -> str:
    """Why an instance is worth a look. Only in a file of triage is a score what it means there."""
    reasons = row.get("reasons") or ""
    if not (row.get("rank") and row.get("score") and "disagreement" in row):
        return reasons
    try:
        likely = f"{min(float(row['score']), 0.99):.0%} likely wrong"
    except ValueError:
        return reasons
    return f"{likely}: {reasons}" if reasons else likely


def _pictures(
    source: Source,
    chosen: Sequence[Chosen],
    items: list[dict[str, Any]],
    problems: list[str],
    workers: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Pictures image by image; fills ``items``, which is ordered as ``chosen``."""
    of_image: dict[int, list[int]] = defaultdict(list)
    for position, choice in enumerate(chosen):
        of_image[choice.image].append(position)

    def load(ordinal: int) -> list[tuple[int, dict[str, Any], dict[str, Any] | None]]:
        item = source[ordinal]
        wanted = [(p, item.annotations[chosen[p].index]) for p in of_image[ordinal]]
        return list(_cards(item, wanted))

    with ThreadPoolExecutor(workers) as pool:
        for cards in map_ahead(load, sorted(of_image), pool, READ_AHEAD * workers):
            for position, card, picture in cards:
                items[position] = card
                if card["problem"]:
                    problems.append(f"{card['file']}, {card['label']}: {card['problem']}")
                notes = [card["problem"], chosen[position].note]
                card["note"] = "; ".join(filter(None, dict.fromkeys(notes)))
                if picture is not None:
                    yield position, picture


def _cards(
    item: ImageItem, wanted: Sequence[tuple[int, Annotation]]
) -> Iterator[tuple[int, dict[str, Any], dict[str, Any] | None]]:
    """Position, card and picture of some instances of one image."""
    image, unread = None, ""
    try:
        image = read_item(item)
    except InstanceError as error:
        unread = str(error)
    for position, annotation in wanted:
        mask, problem = annotation.mask, annotation.problem or unread
        if mask is not None and image is not None and (mask.height, mask.width) != image.shape[:2]:
            mask, problem = None, "the mask is of an image of another size"
        shown = [mask] if mask is not None else []
        picture = None
        if image is not None:
            height, width = image.shape[:2]
            region = region_around(height, width, shown)
            picture = make_picture(image, region, {"given": shown})
        card = card_of(item, annotation)
        card |= {
            "problem": problem,
            "picture": picture is not None,
            "takesClicks": bool(shown) and picture is not None,
        }
        yield position, card, picture
