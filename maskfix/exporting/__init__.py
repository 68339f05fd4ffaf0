"""Masks handed on in the formats of other programs, from any format that maskfix reads.

One pass over the source; memory does not grow with the number of images. The folder appears whole
or not at all.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from maskfix.config import MOST_SIMPLIFY
from maskfix.errors import InputError, InstanceError, UsageError
from maskfix.exporting.coco import CocoWriter
from maskfix.exporting.cvat import CvatWriter
from maskfix.exporting.label_maps import ClassMapWriter, LabelMapWriter
from maskfix.exporting.label_studio import LabelStudioWriter
from maskfix.exporting.writer import Settings, Thing, Writer, sized
from maskfix.exporting.yolo import YoloWriter
from maskfix.files import keep_apart
from maskfix.formats import ImageItem, open_source

Target = Literal["coco", "yolo", "png-labels", "png-classes", "cvat", "label-studio"]

WRITERS: Mapping[str, Callable[[Path, Settings], Writer]] = {
    "coco": CocoWriter,
    "yolo": YoloWriter,
    "png-labels": LabelMapWriter,
    "png-classes": ClassMapWriter,
    "cvat": CvatWriter,
    "label-studio": LabelStudioWriter,
}


def export(
    images: Path,
    masks: Path,
    out: Path,
    target: str,
    images_json: Path | None = None,
    masks_format: str | None = None,
    segmentation: Literal["rle", "polygon"] = "rle",
    url: str = "/data/local-files/?d=",
    overwrite: bool = False,
    simplify: float = 0.0,
) -> dict[str, Any]:
    """Write masks in another format.

    Args:
        images: folder of images.
        masks: in any format that `maskfix.formats.open_source` reads.
        out: folder to make.
        target: one of `WRITERS`.
        images_json: for COCO results, a COCO file that names the images.
        masks_format: overrules what ``masks`` looks like.
        segmentation: for COCO: run lengths, or polygons for masks without holes.
        url: for Label Studio: what to put before the names of images.
        overwrite: replace ``out`` if an export is there.
        simplify: leave out vertices of COCO polygons and of YOLO's that move the outline by at
            most so many pixels; 0 is exact.

    Returns:
        counts (images, instances, left_out, and what the format adds), ``problems``: what could
        not be written, a line each, and ``notes``.

    Raises:
        UsageError: ``out`` exists or overlaps an input, no such target, or ``simplify`` is out of
            range.
        InputError: inputs that cannot be used, or a folder that cannot be written.
    """
    if target not in WRITERS:
        raise UsageError(f"--to {target}: expected one of {', '.join(WRITERS)}")
    if not 0 <= simplify <= MOST_SIMPLIFY:
        raise UsageError(f"--simplify: expected 0 to {MOST_SIMPLIFY}, found {simplify}")
    source = open_source(masks, images, images_json, masks_format)
    keep_apart(out, [images, masks, images_json])
    settings = Settings(source, images, segmentation, url, simplify)
    problems: list[str] = []
    counts = {"images": 0, "instances": 0, "left_out": 0}
    with _new_folder(out, overwrite) as folder:
        writer = WRITERS[target](folder, settings)
        with writer.opened:
            for ordinal in tqdm(range(len(source)), unit=" images", disable=None):
                item = source[ordinal]
                written = _add(writer, item, problems)
                counts["images"] += 1
                counts["instances"] += written
                counts["left_out"] += len(item.annotations) - written
            facts = writer.close()
        about = {"format": target, **counts, **facts.numbers}
        (folder / "export.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
    return {**about, "problems": problems, "notes": [*source.notes, *facts.notes]}


def _add(writer: Writer, item: ImageItem, problems: list[str]) -> int:
    """Write one image; returns how many of its instances are written."""
    things = list(_readable(item, problems))
    try:
        return writer.add(sized(item), things)
    except InstanceError as error:
        problems.append(f"{item.file}: {error}")
        return 0


def _readable(item: ImageItem, problems: list[str]) -> Iterator[Thing]:
    """The instances of an image whose masks could be read."""
    if item.problem and not item.annotations:
        problems.append(f"{item.file}: {item.problem}")
    for annotation in item.annotations:
        if annotation.mask is None:
            problems.append(f"{item.file}: instance {annotation.id}: {annotation.problem}")
        else:
            yield Thing(annotation, annotation.mask)


@contextmanager
def _new_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to fill, which becomes ``out`` when the block ends without error."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not overwrite:
            raise UsageError(f"--out: {out} exists; give another, or --overwrite")
        if not (out / "export.json").is_file():
            raise UsageError(f"--out: {out} is no export of maskfix; it is not overwritten")
    partial = out.with_name(f".{out.name[:40]}.{secrets.token_hex(4)}.part")
    try:
        partial.mkdir(parents=True)
        yield partial
        if out.is_dir():
            shutil.rmtree(out)
        os.replace(partial, out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(f"--out: {out} cannot be written: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
