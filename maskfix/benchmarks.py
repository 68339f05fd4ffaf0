"""The public benchmarks in the layouts they are published in, as cases to evaluate.

`read_benchmark` finds a layout by the benchmark's name; any other name is read by what is there. A
path is a folder or a tar. Pixels are read with OpenCV, as in the published evaluation.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskfix.archive import Files
from maskfix.errors import InputError, InstanceError
from maskfix.evaluate import Case
from maskfix.formats import Annotation, ImageItem, Source, open_source
from maskfix.formats.image import SUFFIXES, read_image
from maskfix.formats.segmentation import decode
from maskfix.masks import Mask
from maskfix.refinement.references import match_references

Labels = NDArray[Any]

GREY_IGNORE = 128  # grey masks: this value does not count, what is above is object
PAPER_ZOOM = {"davis": 600}  # where it is not 400
VOC_VOID_INDEX, VOC_VOID_GREY = 255, 220


@dataclass(frozen=True)
class Benchmark:
    """A set to be evaluated.

    Attributes:
        name: as it is shown in tables.
        cases: instances, those of one image side by side.
        notes: what a reader of the numbers should know, a sentence each.
        paper_zoom: longest side that the published protocol brings a zoomed region to.
    """

    name: str
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()
    paper_zoom: int = 400

    def select(self, min_area: int = 0, limit: int | None = None) -> Benchmark:
        """Evenly spaced instances: every (n // limit)-th of those with `min_area` pixels."""
        cases = [case for case in self.cases if case.reference.area >= min_area]
        if limit is not None and limit < len(cases):
            cases = cases[:: len(cases) // limit][:limit]
        return replace(self, cases=tuple(cases))


def read_benchmark(name: str, path: Path, initial: Path | None = None) -> Benchmark:
    """Read a benchmark.

    Args:
        name: GrabCut, Berkeley, DAVIS, COCO_MVal, SBD, SBD_Train, PascalVOC, DAVIS585 (from
            scratch), DAVIS585_SP or DAVIS585_STM (from its masks), in any spelling; any other name
            for a folder with ``annotations.json`` or ``masks``.
        path: its folder, or a tar of it.
        initial: a COCO file with the masks to start from, under the ids of the reference; for sets
            with ``annotations.json``.

    Raises:
        InputError: something is missing; says what was expected where.
    """
    files = Files(path)
    layouts = {_plain(known): reader for known, reader in LAYOUTS.items()}
    reader = layouts.get(_plain(name), _generic)
    if initial is not None:
        reader = partial(_coco, initial=initial)
    notes: list[str] = []
    benchmark = _benchmark(name, path, reader(Folder(name, files), notes), notes)
    return replace(benchmark, paper_zoom=PAPER_ZOOM.get(_plain(name), benchmark.paper_zoom))


def read_annotated(
    name: str, images: Path, reference: Path, initial: Path | None = None
) -> Benchmark:
    """Read a set in any format that `maskfix.formats.open_source` knows.

    Args:
        name: for tables.
        images: folder of images.
        reference: COCO file or folder of PNG masks.
        initial: masks to start from, matched to the reference by id, else by overlap; those
            without a reference are left out. Without it every instance starts from scratch.

    Raises:
        InputError: something is missing or not what it should be.
    """
    source = open_source(reference, images)
    notes = list(source.notes)
    starts = None if initial is None else open_source(initial, images)
    return _benchmark(name, reference, _annotated(source, starts, notes), notes)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _benchmark(name: str, path: Path, found: Iterable[Case], notes: list[str]) -> Benchmark:
    try:
        cases = list(found)
    except InstanceError as error:
        raise InputError(f"{name}: {error}") from error
    present = [case for case in cases if case.reference.area]
    if not present:
        raise InputError(f"{name}: {path} holds no instance to evaluate")
    if len(present) < len(cases):
        empty = len(cases) - len(present)
        notes.append(f"{empty} empty masks are left out: there is nothing to click")
    return Benchmark(name, tuple(present), tuple(notes))


def _annotated(source: Source, starts: Source | None, notes: list[str]) -> Iterator[Case]:
    left_out = 0
    for ordinal in range(len(source)):
        item = source[ordinal]
        given, targets = _pair(item, source, starts)
        if not targets:
            left_out += len(given)
            continue
        if item.path is None:
            raise InputError(f"{item.file}: {item.problem or 'the image file was not found'}")
        size = None if item.height is None or item.width is None else (item.height, item.width)
        image = partial(read_image, item.path, size)
        for annotation in given:
            target = targets.get(annotation.key)
            if target is None or annotation.mask is None or annotation.is_crowd:
                left_out += 1
                continue
            start = None if starts is None else annotation.mask
            yield Case(f"{item.file}#{annotation.id}", image, target, None, start)
    if left_out:
        notes.append(f"{left_out} instances are crowds, unreadable or without a reference")


def _pair(
    item: ImageItem, source: Source, starts: Source | None
) -> tuple[Sequence[Annotation], Mapping[int, Mask]]:
    """The instances of an image to evaluate, and their references by key."""
    if starts is None:
        known = {a.key: a.mask for a in item.annotations if a.mask is not None}
        return item.annotations, known
    try:
        given = starts[starts.find_image(item.file)]
    except InputError:
        return (), {}
    return given.annotations, match_references(given, source)[0]


@dataclass(frozen=True)
class Folder:
    """The files of a benchmark, with messages that name it."""

    name: str
    files: Files

    def error(self, expected: str) -> InputError:
        """What was expected, where, and what is there instead."""
        there = sorted({n.split("/")[0] for n in self.files.names})[:8]
        return InputError(
            f"{self.name}: expected {expected} in {self.files.path}; "
            f"found {', '.join(there) or 'nothing'}"
        )

    def read(self, name: str, what: str) -> bytes:
        """A file that has to be there."""
        if not self.files.has(name):
            raise self.error(f"{name} ({what})")
        return self.files.read(name)

    def members(self, folder: str, what: str) -> dict[str, str]:
        """Image files of a folder that has to be there: stem -> name, sorted."""
        found = {}
        for name in self.files.names:
            path = PurePosixPath(name)
            if path.parent.as_posix() == folder and path.suffix.lower() in SUFFIXES:
                found[path.stem] = name
        if not found:
            raise self.error(f"a folder {folder} with {what}")
        return found

    def partner(self, found: Mapping[str, str], stem: str, folder: str) -> str:
        """The file of a stem in a folder listed by `members`."""
        if stem not in found:
            raise InputError(
                f"{self.name}: expected {folder}/{stem}.* in {self.files.path}, found none"
            )
        return found[stem]

    def image(self, name: str) -> Callable[[], NDArray[np.uint8]]:
        """Loader of an image file."""
        return partial(_read_rgb, self.files, name)

    def pixels(self, name: str) -> NDArray[np.uint8]:
        """A mask file as it is decoded by default, (H, W, 3) uint8 BGR."""
        return _decode(self.files.read(name), f"{self.files.path}: {name}")


Reader = Callable[[Folder, list[str]], Iterable[Case]]
"""(files, notes to add to) -> cases, empty ones included."""


def _decode(content: bytes, what: str) -> NDArray[np.uint8]:
    data = np.frombuffer(content, np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if content else None
    if decoded is None:
        raise InstanceError(f"{what} cannot be decoded")
    return np.asarray(decoded, np.uint8)


def _read_rgb(files: Files, name: str) -> NDArray[np.uint8]:
    return np.ascontiguousarray(_decode(files.read(name), f"{files.path}: {name}")[:, :, ::-1])


def _case(
    name: str,
    image: Callable[[], NDArray[np.uint8]],
    target: NDArray[np.bool_],
    ignore: NDArray[np.bool_] | None = None,
    initial: NDArray[np.bool_] | None = None,
) -> Case:
    return Case(
        name,
        image,
        Mask.from_array(target),
        Mask.from_array(ignore) if ignore is not None and ignore.any() else None,
        None if initial is None else Mask.from_array(initial),
    )


def _grey(folder: Folder, notes: list[str], images: str, masks: str) -> Iterator[Case]:
    """One grey mask an image: 128 does not count, above is object."""
    pictures = folder.members(images, "the images")
    found = folder.members(masks, "a mask for every image")
    for stem, name in pictures.items():
        grey = folder.pixels(folder.partner(found, stem, masks))[:, :, 0]
        yield _case(stem, folder.image(name), grey > GREY_IGNORE, grey == GREY_IGNORE)


def _merged(folder: Folder, notes: list[str]) -> Iterator[Case]:
    """One color mask an image: whatever is not black is the object."""
    pictures = folder.members("img", "the images")
    found = folder.members("gt", "a mask for every image")
    for stem, name in pictures.items():
        target = folder.pixels(folder.partner(found, stem, "gt")).max(axis=2) > 0
        yield _case(stem, folder.image(name), target)


def _sbd(folder: Folder, notes: list[str], split: str) -> Iterator[Case]:
    """Every instance of every image of the split; MATLAB label maps."""
    from scipy.io import loadmat

    listing = folder.read(f"{split}.txt", "the names of the images")
    for stem in listing.decode().split():
        picture = f"img/{stem}.jpg"
        if not folder.files.has(picture):
            raise folder.error(f"{picture}, named by {split}.txt")
        content = io.BytesIO(folder.read(f"inst/{stem}.mat", f"named by {split}.txt"))
        try:
            labels = loadmat(content)["GTinst"]["Segmentation"][0, 0]
        except (ValueError, KeyError, TypeError, NotImplementedError) as error:
            raise InputError(
                f"{folder.name}: inst/{stem}.mat has no GTinst.Segmentation: {error}"
            ) from error
        yield from _labelled(stem, folder.image(picture), labels, None)


def _labelled(
    stem: str, image: Callable[[], NDArray[np.uint8]], labels: Labels, void: int | None
) -> Iterator[Case]:
    """Every label but 0 and `void` is an instance."""
    ignore = None if void is None else labels == void
    for label in np.unique(labels):
        if label not in (0, void):
            yield _case(f"{stem}#{label}", image, labels == label, ignore)


def _voc(folder: Folder, notes: list[str]) -> Iterator[Case]:
    """Every instance; the void border does not count."""
    pictures = folder.members("JPEGImages", "the images")
    found = folder.members("SegmentationObject", "the instance masks")
    listing = "ImageSets/Segmentation/test.pickle"
    if folder.files.has(listing):
        names, ids = _plain_pickle(folder.files.read(listing), f"{folder.name}: {listing}")
        for stem, grey_value in zip(names, ids, strict=True):
            grey = cv2.cvtColor(
                folder.pixels(folder.partner(found, stem, "SegmentationObject")),
                cv2.COLOR_BGR2GRAY,
            )
            image = folder.image(folder.partner(pictures, stem, "JPEGImages"))
            yield _case(f"{stem}#{grey_value}", image, grey == grey_value, grey == VOC_VOID_GREY)
        return
    notes.append(
        "the list of the published numbers, ImageSets/Segmentation/test.pickle, is not there: "
        "every instance of ImageSets/Segmentation/val.txt is evaluated"
    )
    listing = "ImageSets/Segmentation/val.txt"
    for stem in folder.read(listing, "the names of the images").decode().split():
        name = folder.partner(found, stem, "SegmentationObject")
        with Image.open(io.BytesIO(folder.files.read(name))) as mask:
            if mask.mode not in ("P", "L"):
                raise InputError(f"{folder.name}: {name} has no palette; the masks as published do")
            labels = np.array(mask)
        image = folder.image(folder.partner(pictures, stem, "JPEGImages"))
        yield from _labelled(stem, image, labels, VOC_VOID_INDEX)


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, strings and numbers, numpy's included; nothing that could run."""

    ALLOWED = frozenset({"scalar", "dtype", "ndarray", "_reconstruct"})

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.ALLOWED:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def _plain_pickle(content: bytes, what: str) -> tuple[list[str], list[int]]:
    try:
        names, ids = _PlainUnpickler(io.BytesIO(content)).load()
        if len(names) != len(ids):
            raise ValueError(f"{len(names)} names, {len(ids)} ids")
        return [str(name) for name in names], [int(number) for number in ids]
    except Exception as error:  # a pickle can go wrong in any way
        raise InputError(f"{what} is not two lists, names and instance ids: {error}") from error


def _davis585(folder: Folder, notes: list[str], start: str | None) -> Iterator[Case]:
    """A folder a sequence: FRAME.jpg, OBJECT_FRAME.png, init_{sp,stm}_OBJECT_FRAME.png."""
    names = [PurePosixPath(name) for name in folder.files.names]
    frames = {(path.parent, path.stem): path for path in names if path.suffix.lower() == ".jpg"}
    masks = [
        path
        for path in names
        if path.suffix.lower() == ".png" and not path.name.startswith("init_") and "_" in path.stem
    ]
    if not frames or not masks:
        raise folder.error("a folder a sequence with FRAME.jpg and OBJECT_FRAME.png")
    images: dict[PurePosixPath, Callable[[], NDArray[np.uint8]]] = {}
    for path in sorted(masks, key=lambda p: (p.parent, p.stem.split("_", 1)[1], p.stem)):
        frame = frames.get((path.parent, path.stem.split("_", 1)[1]))
        if frame is None:
            raise folder.error(f"the frame of {path}")
        image = images.setdefault(frame, folder.image(frame.as_posix()))
        target = folder.pixels(path.as_posix())[:, :, 0] > GREY_IGNORE
        initial = None
        if start is not None:
            name = path.with_name(f"init_{start}_{path.name}").as_posix()
            if not folder.files.has(name):
                raise folder.error(f"{name}, the mask to start from")
            initial = folder.pixels(name)[:, :, 0] > GREY_IGNORE
        yield _case(path.with_suffix("").as_posix(), image, target, None, initial)


def _generic(folder: Folder, notes: list[str]) -> Iterable[Case]:
    """``annotations.json`` with images, or ``images`` and ``masks`` with STEM or STEM_N."""
    if folder.files.has("annotations.json"):
        return _coco(folder, notes)
    if not folder.files.has_folder("masks"):
        raise folder.error(
            "images with annotations.json or masks, or the layout of a benchmark given by its name "
            f"({', '.join(LAYOUTS)})"
        )
    return _stems(folder)


def _stems(folder: Folder) -> Iterator[Case]:
    pictures = folder.members("images", "the images")
    found = folder.members("masks", "masks named STEM or STEM_N after their images")
    images = {stem: folder.image(name) for stem, name in pictures.items()}
    for stem, name in found.items():
        of = stem if stem in pictures else stem.rpartition("_")[0]
        if of not in pictures:
            raise InputError(f"{folder.name}: {name} belongs to no image in images")
        grey = folder.pixels(name)[:, :, 0]
        yield _case(stem, images[of], grey > GREY_IGNORE, grey == GREY_IGNORE)


def _coco(folder: Folder, notes: list[str], initial: Path | None = None) -> Iterator[Case]:
    """COCO ground truth; crowds are left out. Starts from masks of the same ids, if given."""
    content = _json(folder.read("annotations.json", "COCO ground truth"), "annotations.json")
    starts: dict[Any, Any] = {}
    if initial is not None:
        starts = _segmentations(initial)
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd"):
            by_image.setdefault(annotation["image_id"], []).append(annotation)
    missing = 0
    for entry in content["images"]:
        name = str(entry["file_name"])
        inside = name if folder.files.has(name) else f"images/{name}"
        size = (int(entry["height"]), int(entry["width"]))
        image = folder.image(inside)
        if by_image.get(entry["id"]) and not folder.files.has(inside):
            raise folder.error(f"{inside}, named by annotations.json")
        for annotation in by_image.get(entry["id"], []):
            if initial is not None and annotation["id"] not in starts:
                missing += 1
                continue
            start = starts.get(annotation["id"])
            yield Case(
                f"{name}#{annotation['id']}",
                image,
                decode(annotation.get("segmentation"), size),
                None,
                None if initial is None else decode(start, size),
            )
    if missing:
        notes.append(f"{missing} instances have no mask in {initial} and are left out")


def _segmentations(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise InputError(f"{path}: expected a COCO file of masks to start from, found no file")
    content = json.loads(path.read_bytes()) if path.suffix == ".json" else None
    annotations = content["annotations"] if isinstance(content, dict) else content
    try:
        return {a["id"]: a.get("segmentation") for a in annotations or ()}
    except (TypeError, KeyError) as error:
        raise InputError(f"{path}: expected annotations with ids, found none") from error


def _json(content: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
        if isinstance(value, dict) and {"images", "annotations"} <= value.keys():
            return value
    except ValueError as error:
        raise InputError(f"{what} is not JSON: {error}") from error
    raise InputError(f"{what} is not COCO ground truth: it lacks images or annotations")


LAYOUTS: Mapping[str, Reader] = {
    "GrabCut": partial(_grey, images="data_GT", masks="boundary_GT"),
    "Berkeley": partial(_grey, images="images", masks="masks"),
    "DAVIS": _merged,
    "COCO_MVal": _merged,
    "SBD": partial(_sbd, split="val"),
    "SBD_Train": partial(_sbd, split="train"),
    "PascalVOC": _voc,
    "DAVIS585": partial(_davis585, start=None),
    "DAVIS585_SP": partial(_davis585, start="sp"),
    "DAVIS585_STM": partial(_davis585, start="stm"),
}
"""Public benchmarks by name."""
