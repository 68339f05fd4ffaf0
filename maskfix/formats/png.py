"""Folders of PNG masks: a binary mask an image, a label map an image, or one file an instance."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from maskfix.errors import InputError, InstanceError
from maskfix.formats.base import Annotation, Edit, Id, ImageItem, Segmentation, Source, Written
from maskfix.formats.lookup import CodeIndex
from maskfix.formats.png_file import read_png
from maskfix.formats.png_files import MaskFile, MaskFiles, match_mask_files, stamp_of
from maskfix.formats.png_pixels import binary_mask, label_masks, looks_binary
from maskfix.formats.png_write import LABELS, write_png_masks
from maskfix.masks import Mask

PNG_FORMATS = ("png-binary", "png-labels", "png-instances")
_SAMPLED = 16  # files looked at to tell binary masks from label maps


class PngSource(Source):
    """A folder of PNG masks; written to OUT/masks under the same names.

    Ids are what file names say (IMAGE_7.png is 7), labels, or, for one binary mask an image, keys.
    They need not be unique beyond their image.
    """

    def __init__(self, masks_dir: Path, images_dir: Path, files: MaskFiles, format: str) -> None:
        self.format = format
        self.categories = {}
        self._masks_dir, self._images_dir, self._files = masks_dir, images_dir, files
        self._names = CodeIndex.of(files.images)
        self._basenames = CodeIndex.of(posixpath.basename(name) for name in files.images)
        self.notes = tuple(_notes(files))
        self.stamp = stamp_of(masks_dir, files)

    def __len__(self) -> int:
        return len(self._files.images)

    def __getitem__(self, ordinal: int) -> ImageItem:
        if not 0 <= ordinal < len(self):
            raise IndexError(ordinal)
        read = self._read_labels if self.format == "png-labels" else self._read_files
        annotations: tuple[Annotation, ...] = ()
        size: tuple[int, int] | None = None
        problem = None
        try:
            annotations, size = read(ordinal)
        except InstanceError as error:
            problem = str(error)
        return ImageItem(
            ordinal=ordinal,
            image_id=ordinal,
            file=self.file_of(ordinal),
            path=self._images_dir / self.file_of(ordinal),
            height=size[0] if size else None,
            width=size[1] if size else None,
            annotations=annotations,
            problem=problem,
        )

    def file_of(self, ordinal: int) -> str:
        return self._files.images[ordinal]

    def category_id(self, name: str) -> Id | None:
        """None: PNG masks hold no category, so any name will do."""
        return None

    def find_annotation(self, annotation_id: Id) -> int:
        if self.format == "png-labels":
            raise InputError(f"label {annotation_id} alone does not tell which image is meant")
        found = [
            (ordinal, file.name)
            for ordinal, files in enumerate(self._files.masks)
            for file in files
            if _id_of(file) == annotation_id
        ]
        if not found:
            raise InputError(f"instance id {annotation_id} is not in {self._masks_dir}")
        if len(found) > 1:
            raise InputError(
                f"instance id {annotation_id} is ambiguous: {found[0][1]} and {found[1][1]}"
            )
        return found[0][0]

    def write(
        self,
        edits: Iterable[Edit],
        out_dir: Path,
        segmentation: Segmentation = "same",
        simplify: float = 0.0,
    ) -> Iterator[Written]:
        if stamp_of(self._masks_dir, self._files) != self.stamp:
            raise InputError(f"{self._masks_dir}: changed since it was opened; run again")
        labels = self.format == "png-labels"
        yield from write_png_masks(self._masks_dir, self._files, edits, out_dir / "masks", labels)

    def _read_files(self, ordinal: int) -> tuple[tuple[Annotation, ...], tuple[int, int] | None]:
        """One annotation a file; and the size of the first that can be read."""
        annotations: list[Annotation] = []
        first: Mask | None = None
        for index, file in enumerate(self._files.masks[ordinal]):
            mask, problem = None, None
            try:
                mask = binary_mask(read_png(self._masks_dir / file.name))
                first = first or mask
                if (mask.height, mask.width) != (first.height, first.width):
                    raise InstanceError(
                        f"mask {file.name} is {mask.width}x{mask.height}, the first of its image "
                        f"is {first.width}x{first.height}"
                    )
            except InstanceError as error:
                mask, problem = None, str(error)
            annotations.append(Annotation(file.key, _id_of(file), index, "", None, mask, problem))
        return tuple(annotations), (first.height, first.width) if first else None

    def _read_labels(self, ordinal: int) -> tuple[tuple[Annotation, ...], tuple[int, int] | None]:
        """One annotation a label; and the size of the map, which may have none."""
        files = self._files.masks[ordinal]
        if not files:
            return (), None
        file = read_png(self._masks_dir / files[0].name)
        annotations = tuple(
            Annotation(ordinal * LABELS + label, label, index, "", None, mask)
            for index, (label, mask) in enumerate(label_masks(file).items())
        )
        height, width = file.values.shape
        return annotations, (height, width)


def open_png(masks_dir: Path, images_dir: Path, masks_format: str | None = None) -> PngSource:
    """Open a folder of PNG masks.

    Args:
        masks_dir: the masks.
        images_dir: the images they belong to.
        masks_format: one of `PNG_FORMATS`; None to tell from names and content.

    Raises:
        InputError: no mask fits an image.
    """
    per_instance = None if masks_format is None else masks_format == "png-instances"
    files = match_mask_files(masks_dir, images_dir, per_instance)
    if masks_format is None:
        masks_format = (
            "png-instances" if files.per_instance else _told_from_content(masks_dir, files)
        )
    return PngSource(masks_dir, images_dir, files, masks_format)


def _told_from_content(masks_dir: Path, files: MaskFiles) -> str:
    """png-binary if every one of some files looks so; unreadable and empty ones do not count."""
    present = [masks[0].name for masks in files.masks if masks]
    for name in present[:: max(1, len(present) // _SAMPLED)]:
        try:
            if looks_binary(read_png(masks_dir / name)) is False:
                return "png-labels"
        except InstanceError:
            continue
    return "png-binary"


def _id_of(file: MaskFile) -> Id:
    """The instance a file names; of a whole image its key."""
    if not file.instance:
        return file.key
    return file.instance if file.number is None else file.number


def _notes(files: MaskFiles) -> Iterable[str]:
    if files.others:
        more = f" and {len(files.others) - 1} more" if len(files.others) > 1 else ""
        yield f"{files.others[0]}{more} belong to no image; they are kept as they are"
