"""``maskfix export``."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

from maskfix.cli.options import ImagesJson, Masks, MasksFormatOption, Simplify
from maskfix.words import counted

SHOWN_PROBLEMS = 20


class Target(str, Enum):
    """Formats that can be written."""

    coco = "coco"
    yolo = "yolo"
    png_labels = "png-labels"
    png_classes = "png-classes"
    cvat = "cvat"
    label_studio = "label-studio"


class CocoKind(str, Enum):
    """How COCO masks are written."""

    rle = "rle"
    polygon = "polygon"


def export_command(
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    masks: Masks,
    to: Annotated[
        Target,
        typer.Option(
            help="COCO ground truth, YOLO-seg, PNG maps of instances or of classes, CVAT's XML, or "
            "Label Studio's tasks."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    segmentation: Annotated[
        CocoKind, typer.Option(help="COCO masks; those with holes are run lengths always.")
    ] = CocoKind.rle,
    simplify: Simplify = 0.0,
    url: Annotated[
        str, typer.Option(help="Label Studio: what is put before the names of images.")
    ] = "/data/local-files/?d=",
    images_json: ImagesJson = None,
    masks_format: MasksFormatOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in OUT.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> int:
    """Write masks in the formats of other programs. Exit status 1 if any could not be written.

    Example: maskfix export --images imgs/ --masks refined/annotations.json --to yolo --out yolo/
    """
    from maskfix.exporting import export

    kind: Literal["rle", "polygon"] = "rle" if segmentation is CocoKind.rle else "polygon"
    facts = export(
        images,
        masks,
        out,
        to.value,
        images_json,
        masks_format.value if masks_format else None,
        kind,
        url,
        overwrite,
        simplify,
    )
    problems, notes = facts["problems"], facts["notes"]
    if as_json:
        typer.echo(json.dumps({**facts, "out": str(out)}, indent=2, ensure_ascii=False))
        return 1 if problems else 0
    for problem in problems[:SHOWN_PROBLEMS]:
        typer.echo(f"not written: {problem}", err=True)
    if len(problems) > SHOWN_PROBLEMS:
        typer.echo(f"and {len(problems) - SHOWN_PROBLEMS} more", err=True)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    left = f"; {facts['left_out']} left out" if facts["left_out"] else ""
    typer.echo(
        f"{out}: {counted(facts['images'], 'image')}, {counted(facts['instances'], 'mask')}{left}"
    )
    return 1 if problems else 0
