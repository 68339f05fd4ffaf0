"""``maskfix show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskfix.cli.options import Ids, ImagesJson, Masks, MasksFormatOption
from maskfix.words import counted


def show_command(
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    masks: Masks,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    before: Annotated[
        Path | None, typer.Option(help="Earlier masks of the same images, shown to the left.")
    ] = None,
    clicks: Annotated[
        Path | None, typer.Option(help="Click script; its clicks are drawn on the left.")
    ] = None,
    ids: Ids = None,
    images_json: ImagesJson = None,
    masks_format: MasksFormatOption = None,
) -> int:
    """Draw masks on their images, one PNG an image.

    Example: maskfix show --images imgs/ --masks refined/annotations.json --out pictures/
    """
    from maskfix.showing import show

    kind = masks_format.value if masks_format else None
    written, problems = show(images, masks, out, before, clicks, parse_ids(ids), kind, images_json)
    for problem in problems:
        typer.echo(f"not drawn: {problem}", err=True)
    typer.echo(f"{counted(written, 'picture')} in {out}")
    return 1 if problems else 0


def parse_ids(ids: str | None) -> set[str] | None:
    """The value of --ids."""
    return None if ids is None else {part.strip() for part in ids.split(",") if part.strip()}
