"""Layouts of data sets, behind `open_data`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskfix.archive import Files
from maskfix.errors import InputError, UsageError
from maskfix.train.data import InstanceData
from maskfix.train.readers import ade20k, coco, openimages, pascal, png, published

Opener = Callable[[str, Files, str], InstanceData]
Recognizer = Callable[[Files, str], bool]


@dataclass(frozen=True)
class Layout:
    """One layout.

    Attributes:
        looks: what there is to see, for people.
        recognizes: whether files look like it.
        opens: (name, files, split) -> the data set.
    """

    looks: str
    recognizes: Recognizer
    opens: Opener


FORMATS: dict[str, Layout] = {
    "coco": Layout(
        "images/ and one .json (one's own, or made by 'maskfix data combine')",
        coco.recognizes_own,
        coco.open_own,
    ),
    "coco2017": Layout(
        "annotations/instances_train2017.json and train2017/",
        coco.recognizes_download,
        coco.open_download,
    ),
    "lvis": Layout(
        "lvis_v1_train.json and train2017/, val2017/", coco.recognizes_lvis, coco.open_lvis
    ),
    "hannotation": Layout(
        "train/hannotation.pickle, train/images/, train/masks/",
        published.recognizes,
        published.open_published,
    ),
    "sbd": Layout("img/, inst/*.mat, train.txt", pascal.recognizes_sbd, pascal.open_sbd),
    "voc": Layout(
        "JPEGImages/, SegmentationObject/, ImageSets/Segmentation/",
        pascal.recognizes_voc,
        pascal.open_voc,
    ),
    "ade20k": Layout(
        "images/training/**/NAME.jpg with NAME_seg.png beside it",
        ade20k.recognizes,
        ade20k.open_ade20k,
    ),
    "openimages": Layout(
        "train-annotations-object-segmentation.csv, images and masks anywhere below",
        openimages.recognizes,
        openimages.open_openimages,
    ),
    "png": Layout(
        "images/ and masks/ with NAME.png (labels) or NAME_1.png, NAME_2.png, ... (binary)",
        png.recognizes,
        png.open_png,
    ),
}


def open_data(
    name: str, path: str | Path, format: str = "auto", split: str = "train"
) -> InstanceData:
    """Open a data set.

    Args:
        name: for messages.
        path: a folder or a tar; a COCO .json with its images beside or below it; or
            ``IMAGES:FILE.json`` where these are apart.
        format: of `FORMATS`; ``auto`` tells it from the files.
        split: for layouts that hold several.

    Raises:
        InputError: nothing there, or not of this layout.
        UsageError: no such format.
    """
    if format != "auto" and format not in FORMATS:
        raise UsageError(
            f"data set {name}: format {format!r} is none of auto, {', '.join(FORMATS)}"
        )
    whole, text = Path(path), str(path)
    images, colon, labels = text.rpartition(":")
    if not whole.exists() and colon and labels.endswith(".json"):
        file = Path(labels)
        return coco.open_coco(name, Files(Path(images)), Files(file.parent), file.name)
    if whole.is_file() and whole.suffix == ".json":
        files = Files(whole.parent)
        return coco.open_coco(name, files, files, whole.name, "images")
    files = Files(whole)
    if format != "auto":
        if not FORMATS[format].recognizes(files, split):
            raise InputError(f"data set {name}: {path} does not have {FORMATS[format].looks}")
        return FORMATS[format].opens(name, files, split)
    for layout in FORMATS.values():
        if layout.recognizes(files, split):
            return layout.opens(name, files, split)
    known = "; ".join(f"{key}: {layout.looks}" for key, layout in FORMATS.items())
    raise InputError(f"data set {name}: {path} is of no layout known here: {known}")
