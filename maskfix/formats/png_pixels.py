"""What the pixels of a PNG mask mean, and the pixels after edits.

Binary: 0 is background, above half of white is object, exactly 128 is "ignore" (GrabCut, Berkeley;
it counts as background). A file that holds only 0 and 1 has 1 for the object.

Label map: every value is an instance, 0 is background; in 8 bits 255 is void, no instance.

A pixel keeps its value unless the edit turns it on or off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from maskfix.errors import InstanceError
from maskfix.formats.png_file import PngFile
from maskfix.masks import Mask

IGNORE = 128
VOID = 255


def looks_binary(file: PngFile) -> bool | None:
    """Whether a file is a binary mask rather than a label map; None if it is all background."""
    values = file.values[file.values > 0]
    if not values.size:
        return None
    if file.is_palette or file.depth == 16:
        return bool((values == file.white).all())
    if file.depth == 1 or values.max() == 1:
        return True
    return bool(np.mean((values == file.white) | (values == IGNORE)) > 0.5)


def binary_mask(file: PngFile) -> Mask:
    """The object of a binary mask.

    Raises:
        InstanceError: values of a label map.
    """
    return Mask.from_array(_is_object(file))


def with_binary_mask(file: PngFile, mask: Mask) -> PngFile:
    """The file with another object."""
    is_object, wanted = _is_object(file), mask.to_array()
    values = file.values.copy()
    values[is_object & ~wanted] = 0
    values[wanted & ~is_object] = _on_value(file)
    return file.with_values(values)


def labels_of(file: PngFile) -> list[int]:
    """The instances of a label map, ascending.

    Raises:
        InstanceError: a map of colours, not of numbers.
    """
    if file.samples.ndim == 3 and (file.samples[..., :1] != file.samples[..., :-1]).any():
        raise InstanceError("a label map of colours; grey or palette values were expected")
    present = np.flatnonzero(np.bincount(file.values.ravel()))
    return [int(value) for value in present if value and not _is_void(file, int(value))]


def label_masks(file: PngFile) -> dict[int, Mask]:
    """Every instance of a label map with its mask."""
    values = file.values
    return {label: Mask.from_array(values == label) for label in labels_of(file)}


def with_labels(
    file: PngFile, changes: Sequence[tuple[int, Mask | None]]
) -> tuple[PngFile, dict[int, int]]:
    """A label map after changes to some of its instances.

    An instance that grows takes only background, void, and what other changes give up; of two
    that grow into the same pixels, the one that comes first in the list takes them.

    Args:
        file: the label map.
        changes: labels with their new masks, None to delete.

    Returns:
        The new map, and for labels that could not get all of their mask how many pixels are lost.
    """
    values = file.values.copy()
    for label, mask in changes:
        values[(values == label) & ~_array_of(mask, values)] = 0
    lost = {}
    for label, mask in changes:
        wanted = _array_of(mask, values) & (values != label)
        free = wanted & ((values == 0) | _void_pixels(file, values))
        values[free] = label
        missing = int(np.count_nonzero(wanted)) - int(np.count_nonzero(free))
        if missing:
            lost[label] = missing
    return file.with_values(values), lost


def new_label(file: PngFile, taken: Iterable[int]) -> int:
    """The label for an instance that is added.

    Raises:
        InstanceError: bits or palette of the file hold no more.
    """
    label = max((*labels_of(file), *taken), default=0) + 1
    if label > file.largest or _is_void(file, label):
        raise InstanceError(f"its label map holds no instance after {label - 1}")
    return label


def _is_object(file: PngFile) -> NDArray[np.bool_]:
    values = file.values
    largest = int(values.max(initial=0))
    if largest == 1:
        return np.asarray(values == 1)
    wide = values.astype(np.uint32) * 255 // file.white
    if 0 < largest and int(wide.max()) < IGNORE:
        raise InstanceError(
            f"no binary mask: its largest value is {largest}; for a label map say "
            "--masks-format png-labels"
        )
    return np.asarray(wide > IGNORE)


def _on_value(file: PngFile) -> int:
    """The value of the object in a file; white, or for a palette 1, where there is none yet."""
    is_object = _is_object(file)
    if is_object.any():
        return int(file.values[is_object].max())
    return 1 if file.is_palette else file.white


def _is_void(file: PngFile, value: int) -> bool:
    return value == VOID and file.depth == 8


def _void_pixels(file: PngFile, values: NDArray[np.generic]) -> NDArray[np.bool_]:
    return np.asarray(values == VOID) if file.depth == 8 else np.zeros(values.shape, bool)


def _array_of(mask: Mask | None, values: NDArray[np.generic]) -> NDArray[np.bool_]:
    return np.zeros(values.shape, bool) if mask is None else mask.to_array()
