"""Pictures of masks on their images, before and after, for a look at the quality."""

from __future__ import annotations

from pathlib import Path

import cv2

from maskfix.errors import InputError, InstanceError, UsageError
from maskfix.files import atomic_write, keep_apart
from maskfix.formats import ImageItem, Source, open_source
from maskfix.formats.click_script import ImageScript, read_click_script
from maskfix.formats.image import read_item
from maskfix.masks import Mask
from maskfix.report.overlay import Image, draw_clicks, draw_masks, side_by_side


def show(
    images: Path,
    masks: Path,
    out: Path,
    before: Path | None = None,
    clicks: Path | None = None,
    ids: set[str] | None = None,
    masks_format: str | None = None,
    images_json: Path | None = None,
) -> tuple[int, list[str]]:
    """Write one PNG an image that has something to show.

    Args:
        images: folder of images.
        masks: what to draw.
        out: folder for the pictures, made if needed.
        before: earlier masks, drawn to the left.
        clicks: a click script whose clicks are drawn on the left.
        ids: draw only these instances, by their ids as text; all if None.
        masks_format: overrules what ``masks`` looks like.
        images_json: for COCO results, a COCO file that names the images.

    Returns:
        the number of pictures, and what went wrong with the others, a line each.

    Raises:
        UsageError: ``out`` overlaps an input, or no instance has one of the ids.
    """
    source = open_source(masks, images, images_json, masks_format)
    earlier = open_source(before, images, images_json) if before else None
    scripts, problems = _scripts(clicks, source)
    keep_apart(out, [images, masks, before, clicks, images_json])
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for ordinal in range(len(source)):
        item = source[ordinal]
        chosen = _chosen(item, ids)
        if not chosen:
            continue
        try:
            picture = _draw(item, chosen, earlier, scripts.get(ordinal), ids)
        except InstanceError as error:
            problems.append(f"{item.file}: {error}")
            continue
        encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
        name = "_".join(Path(item.file).with_suffix("").parts)
        atomic_write(out / f"{name}.png", encoded.tobytes())
        written += 1
    if ids and not written and not problems:
        raise UsageError(f"--ids: no instance of {masks} has one of {', '.join(sorted(ids))}")
    return written, problems


def _scripts(clicks: Path | None, source: Source) -> tuple[dict[int, ImageScript], list[str]]:
    """The click script by image ordinal, and a line for every image in it that is not there."""
    scripts, problems = {}, []
    for script in read_click_script(clicks).images if clicks else ():
        try:
            scripts[source.find_image(script.file)] = script
        except InputError as error:
            problems.append(f"{clicks}:{script.line}: {error}")
    return scripts, problems


def _chosen(item: ImageItem, ids: set[str] | None) -> list[Mask]:
    return [
        a.mask for a in item.annotations if a.mask is not None and (ids is None or str(a.id) in ids)
    ]


def _draw(
    item: ImageItem,
    chosen: list[Mask],
    earlier: Source | None,
    script: ImageScript | None,
    ids: set[str] | None,
) -> Image:
    image = read_item(item)
    after = _draw_fitting(image, chosen, "masks")
    if earlier is None and script is None:
        return after
    left = image
    if earlier is not None:
        try:
            there = earlier[earlier.find_image(item.file)]
        except InputError as error:
            raise InstanceError(str(error)) from error
        left = _draw_fitting(image, _chosen(there, ids), "earlier masks")
    if script is not None:
        for instance in script.to_pixels(image.shape[1], image.shape[0]).instances:
            left = draw_clicks(left, instance.clicks)
    return side_by_side([left, after])


def _draw_fitting(image: Image, masks: list[Mask], what: str) -> Image:
    """The image with masks on it, which must be of its size."""
    height, width = image.shape[:2]
    for mask in masks:
        if (mask.height, mask.width) != (height, width):
            raise InstanceError(
                f"the {what} are {mask.width}x{mask.height}, the image is {width}x{height}"
            )
    return draw_masks(image, masks)
