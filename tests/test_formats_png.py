"""PNG masks: binary, label maps, one file an instance; recognised, read, written in kind."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from maskfix.errors import InputError, InstanceError, UsageError
from maskfix.formats import Edit, Source, Written, open_source
from maskfix.formats.png_file import PngFile, encode_png, read_png
from maskfix.formats.png_pixels import looks_binary, new_label, with_labels
from maskfix.masks import Mask

HEIGHT, WIDTH = 8, 11


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    image = np.zeros((HEIGHT, WIDTH), bool)
    image[top:bottom, left:right] = True
    return image


A, B, C = rectangle(1, 1, 4, 4), rectangle(3, 6, 7, 9), rectangle(2, 2, 5, 7)
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 9, 9, 9] * 64


def png(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if mode == "P":
        image = Image.fromarray(pixels.astype(np.uint8)).convert("P")
        image.putpalette(PALETTE)
    elif mode:
        image = image.convert(mode)
    image.save(path)
    return path


def opened(folder: Path, masks: dict[str, Any], images: list[str], **options: Any) -> Source:
    """A source of mask files (pixels, or pixels and a mode) and empty images."""
    for name in images:
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).touch()
    for name, content in masks.items():
        path = folder / "masks" / name
        if isinstance(content, bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        else:
            png(path, *(content if isinstance(content, tuple) else (content,)))
    return open_source(folder / "masks", folder / "images", **options)


def written(
    source: Source, folder: Path, edits: list[Edit]
) -> tuple[dict[str, bytes], list[Written]]:
    (folder / "out").mkdir()
    notes = list(source.write(edits, folder / "out"))
    root = folder / "out" / "masks"
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(files.items())}, notes


def pixels_of(data: bytes, folder: Path) -> np.ndarray:
    (folder / "check.png").write_bytes(data)
    with Image.open(folder / "check.png") as image:
        return np.array(image)


# --- recognition ------------------------------------------------------------------------------

BINARY = A * np.uint8(255)
LABELS = A * np.uint8(1) + B * np.uint8(2)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ({"a.png": BINARY}, "png-binary"),
        ({"a.png": A * np.uint8(1)}, "png-binary"),
        ({"a.png": A}, "png-binary"),
        ({"a.png": np.where(B, 128, BINARY).astype(np.uint8)}, "png-binary"),
        ({"a.png": A * np.uint16(65535)}, "png-binary"),
        ({"a.png": np.dstack([BINARY] * 3)}, "png-binary"),
        ({"a.png": 0 * BINARY, "b.png": BINARY}, "png-binary"),
        ({"a.png": b"damaged", "b.png": BINARY}, "png-binary"),
        ({"a.png": LABELS}, "png-labels"),
        ({"a.png": BINARY, "b.png": LABELS}, "png-labels"),
        ({"a.png": LABELS.astype(np.uint16) * 1000}, "png-labels"),
        ({"a.png": (A, "P")}, "png-labels"),
        ({"a.png": (A * np.uint8(255), "P")}, "png-binary"),
        ({"a_1.png": BINARY, "a_2.png": BINARY, "b_x.png": BINARY}, "png-instances"),
        ({"a/1.png": BINARY, "b/2.png": BINARY}, "png-instances"),
    ],
)
def test_formats_are_told_apart(tmp_path: Path, masks: dict[str, Any], expected: str) -> None:
    assert opened(tmp_path, masks, ["a.jpg", "b.jpg"]).format == expected


def test_half_grey_edges_are_still_binary() -> None:
    edges = np.array([[0, 40, 255, 255, 255, 90]], np.uint8)
    assert looks_binary(PngFile(edges, 8)) is True
    assert looks_binary(PngFile(np.array([[0, 1, 2, 3, 3, 255]], np.uint8), 8)) is False
    assert looks_binary(PngFile(np.zeros((2, 2), np.uint8), 8)) is None


@pytest.mark.parametrize("masks_format", ["png-binary", "png-labels"])
def test_the_format_can_be_told(tmp_path: Path, masks_format: str) -> None:
    source = opened(tmp_path, {"a.png": A}, ["a.jpg"], masks_format=masks_format)
    assert source.format == masks_format and source[0].annotations[0].mask == Mask.from_array(A)


def test_formats_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="masks format yolo is unknown; known: coco, "):
        opened(tmp_path, {"a.png": A}, ["a.jpg"], masks_format="yolo")
    with pytest.raises(UsageError, match="is a folder, which cannot be lvis"):
        opened(tmp_path, {}, [], masks_format="lvis")
    with pytest.raises(UsageError, match="leave --images-json out"):
        opened(tmp_path, {}, [], images_json=tmp_path / "a.json")
    with pytest.raises(UsageError, match="is a file, which cannot be png-labels"):
        open_source(tmp_path / "images" / "a.jpg", tmp_path / "images", None, "png-labels")
    with pytest.raises(InputError, match="does not exist"):
        open_source(tmp_path / "no", tmp_path / "images")
    with pytest.raises(InputError, match="is not a folder"):
        open_source(tmp_path / "masks", tmp_path / "no")


# --- names ------------------------------------------------------------------------------------


def test_masks_find_their_images(tmp_path: Path) -> None:
    images = ["a.jpg", "a_1.jpg", "x/b.jpg", "c.d.jpg"]
    masks = {"a_1.png": A, "x/b.png": B, "c.d.png": C, "x/a.png": C, "odd.png": A, "x/y.png": A}
    source = opened(tmp_path, masks, images)
    assert source.format == "png-binary"
    found = [[a.mask for a in source[i].annotations] for i in range(4)]
    assert found == [[Mask.from_array(m)] for m in (C, A, C, B)]
    assert [source[i].file for i in range(4)] == ["a.jpg", "a_1.jpg", "c.d.jpg", "x/b.jpg"]
    assert source.notes == ("odd.png and 1 more belong to no image; they are kept as they are",)
    assert source.find_image("b.jpg") == 3 and source[3].path == tmp_path / "images" / "x/b.jpg"


def test_instances_find_their_images(tmp_path: Path) -> None:
    images = ["a.jpg", "a_b.jpg", "1.jpg", "2.jpg"]
    masks = {"a_b_10.png": A, "a_b_9.png": B, "a_cat.png": C, "a/7.png": A, "1/2.png": B}
    source = opened(tmp_path, masks, images)
    ids = {source[i].file: [a.id for a in source[i].annotations] for i in range(4)}
    assert ids == {"a.jpg": [7, "cat"], "a_b.jpg": [9, 10], "1.jpg": [2], "2.jpg": []}
    keys = [a.key for i in range(4) for a in source[i].annotations]
    assert keys == [0, 1, 2, 3, 4]
    assert source.find_annotation("cat") == source.find_image("a.jpg")
    with pytest.raises(InputError, match="id 99 is not in"):
        source.find_annotation(99)


def test_instance_numbers_may_repeat_in_other_images(tmp_path: Path) -> None:
    source = opened(tmp_path, {"a_1.png": A, "b_1.png": B}, ["a.jpg", "b.jpg"])
    assert [source[i].annotations[0].id for i in (0, 1)] == [1, 1]
    with pytest.raises(InputError, match=r"ambiguous: a_1\.png and b_1\.png"):
        source.find_annotation(1)


def test_names_that_fit_nothing_or_two(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of its 1 PNG files is named after one of the 1"):
        opened(tmp_path, {"z.png": A}, ["a.jpg"])
    with pytest.raises(InputError, match=r"a\.jpg and a\.webp would have one mask, a\.png"):
        opened(tmp_path, {"a.png": A}, ["a.webp"])


def test_masks_inside_the_images_folder_are_no_images(tmp_path: Path) -> None:
    png(tmp_path / "images" / "masks" / "a.png", BINARY)
    (tmp_path / "images" / "a.jpg").touch()
    source = open_source(tmp_path / "images" / "masks", tmp_path / "images")
    assert len(source) == 1 and source[0].annotations[0].mask == Mask.from_array(A)


# --- reading ----------------------------------------------------------------------------------


def test_ignored_pixels_are_no_object(tmp_path: Path) -> None:
    pixels = np.where(B, 128, np.where(A, 200, 60)).astype(np.uint8)
    source = opened(tmp_path, {"a.png": pixels}, ["a.jpg"], masks_format="png-binary")
    assert source[0].annotations[0].mask == Mask.from_array(A)
    assert (source[0].height, source[0].width) == (HEIGHT, WIDTH)


def test_labels_and_void(tmp_path: Path) -> None:
    void = np.where(C & ~A & ~B, 255, LABELS * 3).astype(np.uint8)
    source = opened(tmp_path, {"a.png": void, "b.png": 0 * void}, ["a.jpg", "b.jpg"])
    first = source[0].annotations
    assert [(a.id, a.index, a.key) for a in first] == [(3, 0, 3), (6, 1, 6)]
    assert [a.mask for a in first] == [Mask.from_array(A), Mask.from_array(B)]
    assert source[1].annotations == ()
    with pytest.raises(InputError, match="alone does not tell"):
        source.find_annotation(3)


def test_damage_is_a_problem_of_its_file(tmp_path: Path) -> None:
    small = rectangle(0, 0, 2, 2)[:4]
    masks = {"a_1.png": A, "a_2.png": b"\x89PNG\r\n\x1a\nx", "a_3.png": small, "a_4.png": LABELS}
    source = opened(tmp_path, masks, ["a.jpg"])
    item = source[0]
    assert [a.problem is None for a in item.annotations] == [True, False, False, False]
    problems = " ".join(a.problem or "" for a in item.annotations)
    assert "a_2.png cannot be read as PNG" in problems
    assert "a_3.png is 11x4, the first of its image is 11x8" in problems
    assert "no binary mask: its largest value is 2" in problems


def test_a_damaged_or_coloured_label_map_is_a_problem_of_its_image(tmp_path: Path) -> None:
    coloured = np.dstack([LABELS * 40, LABELS, LABELS])
    masks = {"a.png": b"\x89PNG\r\n\x1a\n", "b.png": coloured, "c.png": LABELS}
    source = opened(tmp_path, masks, ["a.jpg", "b.jpg", "c.jpg"], masks_format="png-labels")
    assert "cannot be read as PNG" in (source[0].problem or "")
    assert "label map of colours" in (source[1].problem or "")
    assert source[2].problem is None and len(source[2].annotations) == 2


def test_a_source_can_be_sent_to_another_process(tmp_path: Path) -> None:
    source = opened(tmp_path, {"a.png": LABELS}, ["a.jpg"])
    assert pickle.loads(pickle.dumps(source))[0] == source[0]


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "masks",
    [
        {"a.png": (LABELS, "P"), "b.png": LABELS, "odd/one.png": A},
        {"a_1.png": A, "a_2.png": BINARY, "readme.txt.png": BINARY},
        {"a.png": BINARY, "b.png": b"damaged"},
    ],
)
def test_untouched_files_are_copied(tmp_path: Path, masks: dict[str, Any]) -> None:
    source = opened(tmp_path, masks, ["a.jpg", "b.jpg"])
    files, notes = written(source, tmp_path, [])
    assert files == {name: (tmp_path / "masks" / name).read_bytes() for name in sorted(masks)}
    assert notes == []


KINDS: dict[str, tuple[np.ndarray, str | None, int]] = {
    "bits": (A, None, 1),
    "0/1": (A * np.uint8(1), None, 1),
    "0/255": (BINARY, None, 255),
    "0/200": (A * np.uint8(200), None, 200),
    "16 bits": (A * np.uint16(65535), None, 65535),
    "colours": (np.dstack([BINARY] * 3), None, 255),
    "palette": (A, "P", 1),
    "empty": (0 * BINARY, None, 255),
    "empty palette": (0 * BINARY, "P", 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_binary_mask_keeps_its_kind(tmp_path: Path, kind: str) -> None:
    pixels, mode, on = KINDS[kind]
    source = opened(tmp_path, {"a.png": (pixels, mode)}, ["a.jpg"], masks_format="png-binary")
    key = source[0].annotations[0].key
    files, _ = written(source, tmp_path, [Edit("replace", 0, key, Mask.from_array(C))])
    new = pixels_of(files["a.png"], tmp_path)
    expected = C * on
    assert new.dtype == pixels.dtype or pixels.dtype == bool
    assert np.array_equal(new if new.ndim == 2 else new[..., 1], expected)
    old_header = (tmp_path / "masks" / "a.png").read_bytes()[16:26]
    assert files["a.png"][16:26] == old_header  # size, depth and colour type
    with Image.open(tmp_path / "check.png") as image, Image.open(tmp_path / "masks/a.png") as old:
        assert image.mode == old.mode and image.getpalette() == old.getpalette()


def test_pixels_that_do_not_change_keep_their_value(tmp_path: Path) -> None:
    pixels = np.where(B, 128, np.where(A, 200, 60)).astype(np.uint8)
    pixels[1, 1] = 255
    source = opened(tmp_path, {"a.png": pixels}, ["a.jpg"], masks_format="png-binary")
    files, _ = written(source, tmp_path, [Edit("replace", 0, 0, Mask.from_array(C))])
    new = pixels_of(files["a.png"], tmp_path)
    expected = np.where(C & ~A, 255, np.where(A & ~C, 0, pixels))
    assert np.array_equal(new, expected) and new[2, 2] == 200 and 128 in new


def test_alpha_stays(tmp_path: Path) -> None:
    alpha = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    source = opened(tmp_path, {"a.png": np.dstack([BINARY] * 3 + [alpha])}, ["a.jpg"])
    files, _ = written(source, tmp_path, [Edit("replace", 0, 0, Mask.from_array(C))])
    assert np.array_equal(
        pixels_of(files["a.png"], tmp_path), np.dstack([C * np.uint8(255)] * 3 + [alpha])
    )


def test_delete_and_add_among_binary_masks(tmp_path: Path) -> None:
    masks = {"a.png": BINARY, "b.png": BINARY, "c.png": 0 * BINARY}
    source = opened(tmp_path, masks, ["a.jpg", "b.jpg", "c.jpg", "x/d.jpg"])
    edits = [Edit("delete", 0, 0)]
    edits += [Edit("add", image, None, Mask.from_array(B), "cat") for image in (1, 2, 3)]
    files, notes = written(source, tmp_path, edits)
    new = {name: pixels_of(data, tmp_path) for name, data in files.items()}
    assert not new["a.png"].any()
    assert np.array_equal(new["b.png"], (A | B) * 255)
    assert np.array_equal(new["c.png"], B * 255) and np.array_equal(new["x/d.png"], B * 255)
    joined = Written(None, "joined with the other object of its binary mask")
    assert notes == [Written(), joined, Written(), Written()]


@pytest.mark.parametrize("pattern", ["a_{}.png", "a/{}.png", "a/a_{}.png"])
def test_instances_are_replaced_deleted_and_added(tmp_path: Path, pattern: str) -> None:
    names = [pattern.format(number) for number in (1, 2, 7)]
    source = opened(tmp_path, dict.fromkeys(names, BINARY), ["a.jpg", "b.jpg"])
    edits = [
        Edit("add", 0, None, Mask.from_array(B), "cat"),
        Edit("replace", 0, 0, Mask.from_array(C)),
        Edit("delete", 0, 1),
        Edit("add", 0, None, Mask.from_array(C), "cat"),
        Edit("add", 1, None, Mask.from_array(A), "cat"),
    ]
    files, notes = written(source, tmp_path, edits)
    new = {name: pixels_of(data, tmp_path) > 0 for name, data in files.items()}
    expected = {pattern.format(n): m for n, m in ((1, C), (7, A), (8, B), (9, C))} | {"b_1.png": A}
    assert new.keys() == expected.keys() and [w.id for w in notes] == [8, None, None, 9, 1]
    assert all(np.array_equal(new[name], mask) for name, mask in expected.items())


def test_a_label_map_keeps_its_palette_and_its_neighbours(tmp_path: Path) -> None:
    source = opened(tmp_path, {"a.png": (LABELS, "P")}, ["a.jpg"])
    edits = [
        Edit("replace", 0, 1, Mask.from_array(C)),
        Edit("add", 0, None, Mask.from_array(rectangle(0, 0, 2, 2)), "cat"),
    ]
    files, notes = written(source, tmp_path, edits)
    new = pixels_of(files["a.png"], tmp_path)
    expected = np.where(B, 2, np.where(C, 1, np.where(rectangle(0, 0, 2, 2), 3, 0)))
    assert np.array_equal(new, expected)
    lost = int((B & C).sum())
    note = f"{lost} pixels belong to other instances, which keep them"
    assert notes == [Written(None, note), Written(3)]
    with Image.open(tmp_path / "check.png") as image:
        assert image.mode == "P" and image.getpalette() == PALETTE


def test_labels_may_exchange_pixels_and_be_deleted(tmp_path: Path) -> None:
    masks = {"a.png": LABELS.astype(np.uint16) * 1000}
    source = opened(tmp_path, masks, ["a.jpg", "b.jpg"])
    edits = [
        Edit("replace", 0, 2000, Mask.from_array(A | C)),
        Edit("delete", 0, 1000),
        Edit("add", 1, None, Mask.from_array(A), "cat"),
    ]
    files, notes = written(source, tmp_path, edits)
    assert np.array_equal(pixels_of(files["a.png"], tmp_path), (A | C) * 2000)
    assert np.array_equal(pixels_of(files["b.png"], tmp_path), A * 1)
    assert notes == [Written(), Written(), Written(1)]


def test_growth_takes_void_and_of_two_the_lower_label_wins() -> None:
    values = np.array([[1, 0, 255, 2, 3]], np.uint8)
    row = [
        Mask.from_array(np.array([list(map(bool, bits))]))
        for bits in ([1, 1, 1, 0, 0], [0, 1, 1, 1, 1])
    ]
    new, lost = with_labels(PngFile(values, 8), [(1, row[0]), (2, row[1])])
    assert new.samples.tolist() == [[1, 1, 1, 2, 3]] and lost == {2: 3}


def test_a_full_label_map(tmp_path: Path) -> None:
    full = np.zeros((16, 16), np.uint8)
    full.flat[:255] = range(255)
    with pytest.raises(InstanceError, match="holds no instance after 254"):
        new_label(PngFile(full, 8), ())
    assert new_label(PngFile(full.astype(np.uint16), 16), (300,)) == 301
    short = PngFile(np.array([[0, 1]], np.uint8), 8, 3, ((b"PLTE", bytes(6)),))
    with pytest.raises(InstanceError, match="holds no instance after 1"):
        new_label(short, ())
    source = opened(tmp_path, {"a.png": full}, ["a.jpg"])
    edit = Edit("add", 0, None, Mask.from_array(full == 0), "cat")
    files, notes = written(source, tmp_path, [edit])
    assert np.array_equal(pixels_of(files["a.png"], tmp_path), full)
    [added] = notes
    assert "not written: its label map holds" in (added.note or "") and not added.is_done


def test_categories_are_noted(tmp_path: Path) -> None:
    source = opened(tmp_path, {"a.png": LABELS}, ["a.jpg"])
    assert source.category_id("anything") is None
    files, notes = written(source, tmp_path, [Edit("recategorize", 0, 1, category="cat")])
    assert files["a.png"] == (tmp_path / "masks" / "a.png").read_bytes()
    assert notes == [Written(None, "PNG masks hold no category; the new one is not written")]


def test_an_addition_to_a_damaged_file_is_noted(tmp_path: Path) -> None:
    source = opened(tmp_path, {"a.png": b"damaged", "b.png": BINARY}, ["a.jpg", "b.jpg"])
    files, notes = written(source, tmp_path, [Edit("add", 0, None, Mask.from_array(A), "cat")])
    assert files["a.png"] == b"damaged"
    assert "not written: mask" in (notes[0].note or "") and not notes[0].is_done


# --- files ------------------------------------------------------------------------------------


@given(st.sampled_from([1, 2, 4, 8, 16]), st.booleans(), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_samples_come_back(tmp_path: Path, depth: int, palette: bool, data: st.DataObject) -> None:
    shape = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
    dtype = np.uint16 if depth == 16 else np.uint8
    samples = data.draw(hnp.arrays(dtype, shape, elements=st.integers(0, 2**depth - 1)))
    palette = palette and depth <= 8
    chunks = ((b"PLTE", bytes(range(3)) * 2**depth), (b"tRNS", b"\x00")) if palette else ()
    file = PngFile(samples, depth, 3 if palette else 0, (*chunks, (b"tEXt", b"Title\0x")))
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(file))
    read = read_png(path)
    assert np.array_equal(read.samples, samples) and read.samples.dtype == dtype
    assert (read.depth, read.colour, read.chunks) == (depth, file.colour, file.chunks)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match="does not exist"):
        read_png(tmp_path / "a.png")
    sound = png(tmp_path / "a.png", BINARY).read_bytes()
    for damaged in (b"", b"\xff\xd8\xff", sound[:20], sound[:50]):
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(InstanceError, match=r"a\.png cannot be read as PNG"):
            read_png(tmp_path / "a.png")
    deep = PngFile(np.zeros((2, 2, 3), np.uint16), 16, 2)
    (tmp_path / "a.png").write_bytes(encode_png(deep))
    with pytest.raises(InstanceError, match="16 bits a colour"):
        read_png(tmp_path / "a.png")
