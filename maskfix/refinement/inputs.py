"""What a run works on: masks, references and the click script matched, images cut into chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfix.config import RefineConfig
from maskfix.errors import InputError, InstanceError, UsageError
from maskfix.files import describe_file
from maskfix.formats import ImageItem, Source, open_source
from maskfix.formats.click_script import ImageScript, read_click_script
from maskfix.formats.image import read_item
from maskfix.masks import Mask
from maskfix.refinement.outcome import Outcome
from maskfix.refinement.plan import Task, plan_image
from maskfix.refinement.references import match_references
from maskfix.report.rows import Row
from maskfix.version import __version__

CHUNK_IMAGES = 64


@dataclass(frozen=True)
class Loaded:
    """One image that is ready to be worked on.

    Attributes:
        item: its entry.
        image: (H, W, 3) uint8 RGB; None where there is a problem.
        tasks: what is to be done in it.
        references: the right masks, by instance key.
        matched_by: see `match_references`.
        problem: why it cannot be worked on.
    """

    item: ImageItem
    image: NDArray[np.uint8] | None
    tasks: list[Task]
    references: dict[int, Mask]
    matched_by: str
    problem: str | None = None


class Inputs:
    """Everything a run reads but the model. Can be sent to another process.

    Args:
        config: what to do.

    Attributes:
        source: the masks.
        references: the right ones.
        scripts: what a person wants, an image each, and
        places: where in them an image is, by its ordinal.
        lost: rows for images that the script names and nobody has.
        images: ordinals of the images with something to do.

    Raises:
        InputError, UsageError: inputs that cannot be used.
    """

    def __init__(self, config: RefineConfig) -> None:
        self.config = config
        self.source = open_source(
            config.masks, config.images, config.images_json, config.masks_format
        )
        self.references = _open_reference(config)
        everything = config.everything
        self.everything = self.references is not None if everything is None else everything
        self.scripts, self.places, self.lost = self._read_script()
        self.images = list(range(len(self.source))) if self.everything else sorted(self.places)
        self._check_images()

    def chunks(self) -> list[list[int]]:
        """The images to work on, as ordinals, in chunks; those of this process's shard."""
        starts = range(0, len(self.images), CHUNK_IMAGES)
        shard = self.config.shard
        return [
            self.images[start : start + CHUNK_IMAGES]
            for number, start in enumerate(starts)
            if shard is None or shard.takes(number)
        ]

    def load(self, ordinal: int) -> Loaded:
        """Read one image and plan its tasks."""
        item = self.source[ordinal]
        try:
            image = read_item(item)
        except InstanceError as error:
            return Loaded(item, None, self._tasks(item, None), {}, "", str(error))
        tasks = self._tasks(item, image.shape[:2])
        references, matched_by = {}, ""
        if self.references is not None:
            found, matched_by = match_references(item, self.source, self.references)
            shape = image.shape[:2]
            references = {k: m for k, m in found.items() if (m.height, m.width) == shape}
        return Loaded(item, image, tasks, references, matched_by if references else "")

    def plan(self) -> dict[str, Any]:
        """What a run would do, for ``--dry-run``: everything is read but the pixels."""
        images = [ordinal for chunk in self.chunks() for ordinal in chunk]
        instances = clicks = 0
        problems = [outcome.row.reason for outcome in self.lost]
        for ordinal in images:
            item = self.source[ordinal]
            tasks = self._tasks(item, None)
            instances += len(tasks)
            clicks += sum(len(task.script.clicks) for task in tasks)
            problems += [p for p in (item.problem, *(task.problem for task in tasks)) if p]
        return {
            "format": self.source.format,
            "images": len(self.source),
            "images_to_do": len(images),
            "instances_to_do": instances,
            "clicks": clicks,
            "problems": problems,
            "notes": list(self.source.notes),
        }

    def identity(self, model_checksum: str) -> dict[str, Any]:
        """What tells whether another run has the same results: inputs, settings, model."""
        config = self.config
        return {
            "command": "refine",
            "maskfix": __version__,
            "model": model_checksum,
            "masks": self.source.stamp,
            "reference": None if self.references is None else self.references.stamp,
            "clicks": config.clicks and describe_file(config.clicks),
            "images_json": config.images_json and describe_file(config.images_json),
            "images": f"{config.images.resolve()} ({len(self.source)} images)",
            "format": self.source.format,
            "segmentation": config.segmentation,
            "simplify": config.simplify,
            "chunk": CHUNK_IMAGES,
            "simulate": config.simulate,
            "target_iou": config.target_iou,
            "jitter": config.jitter,
            "seed": config.seed,
            "everything": self.everything,
            "guard": config.guard,
            "min_part": config.min_part,
            "precision": config.precision,
            "batch_size": config.batch_size,
            "shard": config.shard and str(config.shard),
        }

    def _tasks(self, item: ImageItem, shape: tuple[int, ...] | None) -> list[Task]:
        height, width = shape or (item.height or 1 << 30, item.width or 1 << 30)
        place = self.places.get(item.ordinal)
        script = None if place is None else self.scripts[place]
        return plan_image(item, script, height, width, self.everything, self.source.category_id)

    def _read_script(self) -> tuple[Sequence[ImageScript], dict[int, int], list[Outcome]]:
        """Scripts, their places by image ordinal, and rows for images that do not exist."""
        places: dict[int, int] = {}
        lost: list[Outcome] = []
        if self.config.clicks is None:
            return (), places, lost
        scripts = read_click_script(self.config.clicks).images
        for place, script in enumerate(scripts):
            try:
                ordinal = self.source.find_image(script.file)
            except InputError as error:
                reason = f"{self.config.clicks}:{script.line}: {error}"
                row = Row(script.file, None, status="failed", reason=reason)
                lost.append(Outcome(row))
                continue
            if ordinal in places:
                line = scripts[places[ordinal]].line
                raise UsageError(
                    f"{self.config.clicks}:{script.line}: {script.file} is the image of line "
                    f"{line} under another name; put its instances together"
                )
            places[ordinal] = place
        return scripts, places, lost

    def _check_images(self) -> None:
        """A wrong folder of images is an error of the command, not of every image."""
        if len(self.images) < 2 or any(self.source[i].path is not None for i in self.images):
            return
        raise InputError(
            f"--images: none of the {len(self.images)} images to work on is in "
            f"{self.config.images}; the first is {self.source.file_of(self.images[0])}"
        )


def memory_of(
    item: ImageItem, image: NDArray[np.uint8] | None, references: Mapping[int, Mask]
) -> int:
    """Bytes that an image takes with its masks, about; at least 1."""
    masks = [annotation.mask for annotation in item.annotations]
    bits = sum(mask.bits.nbytes for mask in (*masks, *references.values()) if mask is not None)
    return max(1, bits + (0 if image is None else image.nbytes))


def _open_reference(config: RefineConfig) -> Source | None:
    """The reference masks; ``--images-json`` is for them too if they name no images themselves."""
    if config.reference is None:
        return None
    try:
        return open_source(config.reference, config.images, config.images_json)
    except InputError as error:
        if config.images_json is None:
            raise
        try:
            return open_source(config.reference, config.images)
        except InputError:
            raise error from None
