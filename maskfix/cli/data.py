"""``maskfix data``: combine, inspect and damage data sets."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskfix.errors import InputError, InstanceError, UsageError
from maskfix.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maskfix.masks import Mask
    from maskfix.train.data import InstanceData, Record

app = typer.Typer(no_args_is_help=True, help="Combine, inspect and damage data sets.")

Format = Annotated[str, typer.Option(help="Its layout; told from the files by default.")]
Split = Annotated[str, typer.Option(help="For layouts that hold several.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file to be written.")]


class RuleName(str, Enum):
    """How COCO and LVIS are joined."""

    PAPER = "paper"
    CODE = "code"


class Mixture(str, Enum):
    """What kinds of damage are drawn."""

    DAVIS585 = "davis585"
    DETECTOR = "detector"


@app.command("combine")
def combine_command(
    coco: Annotated[Path, typer.Argument(help="COCO's folder: annotations/, train2017/.")],
    lvis: Annotated[Path, typer.Argument(help="Folder of lvis_v1_train.json (and images).")],
    out: Annotated[Path, typer.Argument(help="COCO .json to write; images stay where they are.")],
    rule: Annotated[
        RuleName, typer.Option(help="Of the paper, or of its published code.")
    ] = RuleName.PAPER,
    split: Annotated[str, typer.Option(help="train or val.")] = "train",
    overwrite: Overwrite = False,
) -> None:
    """Join COCO and LVIS: LVIS masks, and those of COCO that LVIS does not have.

    COCO's images without LVIS masks are in it too, but those of LVIS's other split (if its file is
    there).

    Train with --data cocolvis=IMAGES:OUT.json, where IMAGES is COCO's folder.

    Example: maskfix data combine coco/ lvis/ cocolvis.json
    """
    from maskfix.train.combine import combine
    from maskfix.train.data import Objects
    from maskfix.train.readers import open_data

    _check_free(out, overwrite)
    first = open_data("coco", coco, "coco2017", split)
    images = {_stem(record): index for index, record in enumerate(first.records)}
    second = _open_lvis(lvis, coco, split)
    writer, broken = _CocoWriter(), 0

    def add(record: Record, lvis_index: int | None, coco_index: int | None) -> None:
        nonlocal broken
        try:
            ours = second.objects(lvis_index).things if lvis_index is not None else []
            theirs = first.objects(coco_index) if coco_index is not None else Objects([])
        except InstanceError as error:
            typer.echo(f"left out: {error}", err=True)
            broken += 1
            return
        writer.add(record, *combine(ours, theirs.things, theirs.stuff, rule.value))

    for index, record in enumerate(second.records):
        add(record, index, images.pop(_stem(record), None))
    elsewhere = _other_images(lvis, split)
    for stem, index in images.items():
        if stem not in elsewhere:
            add(first.records[index], None, index)
    writer.write(out, f"COCO and LVIS, {split}, joined by the rule of the {rule.value}")
    typer.echo(
        f"{out}: {counted(len(writer.images), 'image')}, {counted(len(writer.annotations), 'mask')}"
        + (f"; {counted(broken, 'image')} left out" if broken else "")
    )


@app.command("stats")
def stats_command(
    path: Annotated[str, typer.Argument(help="Data set: as for maskfix train --data NAME=PATH.")],
    format: Annotated[
        str, typer.Option(help="Its layout; told from the files by default.")
    ] = "auto",
    split: Annotated[str, typer.Option(help="For layouts that hold several.")] = "train",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Read so many evenly spaced images only.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet to write (.png): images with their masks.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Read a data set through: counts, sizes, broken entries. Exit status 1 if any are broken.

    Example: maskfix data stats my_data/ --sheet contact.png
    """
    from maskfix.train.inspect import contact_sheet, measure
    from maskfix.train.readers import open_data

    data = open_data(Path(path).name, path, format, split)
    facts = measure(data, limit).as_json()
    typer.echo(json.dumps(facts, indent=2) if as_json else _as_text(facts))
    if sheet is not None:
        _write_png(sheet, contact_sheet(data))
    if facts["broken"]:
        raise typer.Exit(1)


@app.command("damage")
def damage_command(
    path: Annotated[str, typer.Argument(help="Data set with the right masks.")],
    out: Annotated[Path, typer.Argument(help="COCO .json to write.")],
    low: Annotated[float, typer.Option("--low", help="Least IoU with the right mask.")] = 0.75,
    high: Annotated[float, typer.Option("--high", help="Greatest IoU with it.")] = 0.85,
    mixture: Annotated[
        Mixture, typer.Option(help="Kinds of damage: as in DAVIS-585, or as detectors do.")
    ] = Mixture.DAVIS585,
    share: Annotated[
        float, typer.Option(help="Damage this share of the masks, at random; keep the others.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the damage; with image and instance.")] = 0,
    format: Annotated[
        str, typer.Option(help="Its layout; told from the files by default.")
    ] = "auto",
    split: Annotated[str, typer.Option(help="For layouts that hold several.")] = "train",
    overwrite: Overwrite = False,
) -> None:
    """Damage reference masks as detectors and click tools leave them.

    Annotation ids are kept, so that maskfix eval --masks knows which mask is whose. Masks too small
    to be damaged to that IoU are left out, and counted; with --share below 1 they are kept as they
    are, among the others that no damage was drawn for.

    Example: maskfix data damage my_data/ damaged.json --share 0.2
    """
    from maskfix.damage import DAVIS585, DETECTOR, damage_mask, is_drawn
    from maskfix.train.readers import open_data

    if not 0 < low < high < 1:
        raise UsageError(f"--low and --high: expected 0 < low < high < 1, found {low} and {high}")
    if not 0 < share <= 1:
        raise UsageError(f"--share: expected above 0, at most 1, found {share}")
    _check_free(out, overwrite)
    kinds = DAVIS585 if mixture is Mixture.DAVIS585 else DETECTOR
    data, writer = open_data(Path(path).name, path, format, split), _CocoWriter()
    count = too_small = 0
    for index, record in enumerate(data.records):
        objects = data.objects(index)
        kept: list[Mask] = []
        ids: list[int | str | None] = []
        for number, mask in enumerate(objects.things):
            name = f"{record.file}#{number}"
            if is_drawn(name, seed, share):
                try:
                    mask = damage_mask(mask, name, seed, low, high, kinds)
                    count += 1
                except InstanceError:
                    too_small += 1
                    if share == 1:
                        continue
            kept.append(mask)
            ids.append(objects.ids[number] if objects.ids else None)
        writer.add(record, kept, [], ids)
    what = f"masks damaged to an IoU of {low} to {high} ({mixture.value}, seed {seed})"
    writer.write(out, what if share == 1 else f"a share of {share} of the {what}")
    others = len(writer.annotations) - count
    typer.echo(
        f"{out}: {counted(count, 'damaged mask')}"
        + (f"; {too_small} were too small and are left out" if too_small and share == 1 else "")
        + (f"; {counted(others, 'mask')} as before" if others else "")
    )


class _CocoWriter:
    """Gathers a COCO file."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(
        self,
        record: Record,
        things: list[Mask],
        stuff: list[Mask],
        ids: Sequence[int | str | None] = (),
    ) -> None:
        """One image; left out if it has no mask. Things without ids are numbered."""
        from maskfix.formats.segmentation import encode

        if not things and not stuff:
            return
        number = len(self.images) + 1
        height, width = (things or stuff)[0].height, (things or stuff)[0].width
        self.images.append(
            {"id": number, "file_name": record.file, "height": height, "width": width}
        )
        for position, mask in enumerate([*things, *stuff]):
            is_stuff, box = position >= len(things), mask.box
            known = ids[position] if position < len(ids) else None
            entry = {
                "id": len(self.annotations) + 1 if known is None else known,
                "image_id": number,
                "category_id": 2 if is_stuff else 1,
                "segmentation": encode(mask, "rle")[0],
                "area": mask.area,
                "bbox": [box.left, box.top, box.width, box.height],
                "iscrowd": 0,
            }
            self.annotations.append(entry | ({"stuff": True} if is_stuff else {}))

    def write(self, out: Path, description: str) -> None:
        from maskfix.files import atomic_write

        categories = [{"id": 1, "name": "object"}, {"id": 2, "name": "stuff"}]
        content = {
            "info": {"description": description},
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
        try:
            atomic_write(out, json.dumps(content))
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror})") from error


def _open_lvis(lvis: Path, coco: Path, split: str) -> InstanceData:
    """LVIS annotations with COCO's images, which need not be there twice."""
    from maskfix.archive import Files
    from maskfix.train.readers.coco import lvis_json, open_coco

    labels = Files(lvis)
    name = lvis_json(labels, split)
    if name is None:
        raise InputError(f"{lvis}: expected lvis_v1_{split}.json, there is none")
    return open_coco("lvis", Files(coco), labels, name)


def _other_images(lvis: Path, split: str) -> set[str]:
    """Stems of the images that LVIS has in its other split: not for this one."""
    from maskfix.archive import Files
    from maskfix.train.readers.coco import lvis_json, read_coco

    files, other = Files(lvis), "val" if split == "train" else "train"
    name = lvis_json(files, other)
    parsed = read_coco(files.read(name), name).images if name else []
    return {Path(image.name).stem for image in parsed}


def _stem(record: Record) -> str:
    return Path(record.file).stem


def _check_free(out: Path, overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists; give --overwrite to replace it, or another name")


def _write_png(path: Path, image: Any) -> None:
    from PIL import Image

    try:
        Image.fromarray(image).save(path, "PNG")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    typer.echo(f"contact sheet: {path}", err=True)


def _as_text(facts: dict[str, Any]) -> str:
    lines = []
    for key, value in facts.items():
        if key == "broken":
            lines.append(f"{'broken':24} {len(value)}")
            lines += [f"  {line}" for line in value[:50]]
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{name} {number}" for name, number in value.items()) or "-"
        lines.append(f"{key.replace('_', ' '):24} {value}")
    return "\n".join(lines)
