"""``maskfix sheet``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskfix.cli.options import Ids, ImagesJson, Masks, MasksFormatOption
from maskfix.words import counted


def sheet_command(
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    masks: Masks,
    out: Annotated[Path, typer.Option(help="The page to make, NAME.html.")] = Path("sheet.html"),
    triage: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="CSV of maskfix triage, or with columns image and id: which and in "
            "what order; by default all.",
        ),
    ] = None,
    ids: Ids = None,
    images_json: ImagesJson = None,
    masks_format: MasksFormatOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read images.")] = 2,
) -> int:
    """Make a page on which clicks are made: open it in a browser, click, download the clicks.

    Example: maskfix sheet --images imgs/ --masks preds.json --out sheet.html
    """  # fmt: skip
    from maskfix.cli.show import parse_ids
    from maskfix.sheet import make_sheet

    kind = masks_format.value if masks_format else None
    files, count, problems = make_sheet(
        images, masks, out, triage, parse_ids(ids), images_json, kind, workers
    )
    for problem in problems:
        typer.echo(f"not to be clicked on: {problem}", err=True)
    typer.echo(f"{counted(count, 'mask')} in {', '.join(map(str, files))}: open it in a browser")
    return 1 if problems else 0
