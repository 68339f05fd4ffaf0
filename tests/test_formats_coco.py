"""COCO, LVIS and results: every oddity read, and written back with nothing else touched."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from maskfix.errors import InputError, InstanceError, MaskfixError
from maskfix.files import atomic_stream
from maskfix.formats import Edit, Source, open_source
from maskfix.formats.json_stream import JsonStream, parse, value_spans
from maskfix.formats.lookup import NO_CODE, CodeIndex, code_of
from maskfix.formats.segmentation import decode, encode
from maskfix.masks import Mask

HEIGHT, WIDTH = 20, 30
SQUARE = [[3, 2, 9, 2, 9, 7, 3, 7]]  # 6 wide, 5 high
RING = np.zeros((HEIGHT, WIDTH), bool)
RING[4:12, 5:14] = True
RING[7:9, 8:10] = False


def rectangle(top: int, left: int, bottom: int, right: int) -> Mask:
    image = np.zeros((HEIGHT, WIDTH), bool)
    image[top:bottom, left:right] = True
    return Mask.from_array(image)


def runs(mask: Mask, kind: str = "rle") -> Any:
    return encode(mask, kind)[0]  # type: ignore[arg-type]


def image(number: Any, name: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH, **more}


def annotation(number: Any, image_id: Any, segmentation: Any, **more: Any) -> dict[str, Any]:
    own = {"id": number, "image_id": image_id, "category_id": 1, "segmentation": segmentation}
    return {**own, "area": 30.0, "bbox": [3.0, 2.0, 6.0, 5.0], "iscrowd": 0, **more}


def dataset(annotations: list[Any], images: list[Any] | None = None) -> dict[str, Any]:
    return {
        "info": {"year": 2024, "note": 'odd "text" } ] ,'},
        "images": images or [image(1, "a.jpg"), image(2, "b.jpg")],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "chaise longue à l'été"}],
        "extra": [1, [2, {"x": None}]],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images a.jpg, b.jpg and c_12.jpg (empty files: only names matter here)."""
    for name in ("a.jpg", "b.jpg", "c_12.jpg"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).touch()
    return tmp_path


def opened(folder: Path, content: Any, images_json: Path | None = None) -> Source:
    path = folder / "masks.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return open_source(path, folder / "images", images_json)


def written(source: Source, folder: Path, edits: list[Edit], **options: Any) -> str:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    list(source.write(edits, out, **options))
    assert [path.name for path in out.iterdir()] == ["annotations.json"]
    return (out / "annotations.json").read_text("utf-8-sig", "surrogateescape")


# --- reading ----------------------------------------------------------------------------------


def test_every_kind_of_segmentation_is_read(folder: Path) -> None:
    mask = Mask.from_array(RING)
    source = opened(
        folder,
        dataset(
            [
                annotation(5, 2, SQUARE),
                annotation(6, 1, runs(mask)),
                annotation(7, 2, runs(mask, "counts"), iscrowd=1, score=0.5),
                annotation("x-é", 2, None, category_id=7),
                annotation(9, 2, []),
            ]
        ),
    )
    assert source.format == "coco" and len(source) == 2 and source.notes == ()
    first, second = source[0], source[1]
    assert (first.file, first.image_id, first.height, first.width) == ("a.jpg", 1, HEIGHT, WIDTH)
    assert first.path == folder / "images" / "a.jpg" and first.problem is None
    assert [a.key for a in first.annotations] == [1] and first.annotations[0].mask == mask
    square, crowd, bare, empty = second.annotations
    assert [a.key for a in second.annotations] == [0, 2, 3, 4]
    assert [a.index for a in second.annotations] == [0, 1, 2, 3]
    assert square.mask == rectangle(2, 3, 7, 9)
    assert (crowd.mask, crowd.is_crowd, crowd.score) == (mask, True, 0.5)
    assert (bare.id, bare.mask, bare.category) == ("x-é", empty.mask, "chaise longue à l'été")
    assert empty.mask == Mask.empty(HEIGHT, WIDTH) and empty.problem is None
    assert source.find_annotation(6) == 0 and source.find_annotation("x-é") == 1


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        ({"size": [HEIGHT, WIDTH], "counts": "52"}, "cover 7 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [5, -2]}, "negative"),
        ({"size": [WIDTH, HEIGHT], "counts": [600]}, "image of 20x30, the image is 30x20"),
        ({"size": [HEIGHT, WIDTH]}, "counts"),
        ({"size": ["20", 30], "counts": [600]}, "size"),
        ({"counts": [600]}, "size"),
        ([[1, 2, 3, 4]], "4 numbers"),
        ([1, 2, 3, 4, 5, 6], "must be a list"),
        ([[1, 2, 3, 4, 5, float("nan")]], "nan"),
        ([[]], "0 numbers"),
        ("text", "polygons or run lengths"),
        (5, "polygons or run lengths"),
        ({"size": [10**12, 10**12], "counts": [10**24]}, "image of"),
    ],
)
def test_damaged_masks_are_problems_of_their_annotation(
    folder: Path, segmentation: Any, problem: str
) -> None:
    source = opened(folder, dataset([annotation(1, 1, segmentation), annotation(2, 1, SQUARE)]))
    damaged, sound = source[0].annotations
    assert damaged.mask is None and problem in (damaged.problem or "")
    assert sound.mask == rectangle(2, 3, 7, 9)


def test_odd_files_are_read(folder: Path) -> None:
    content = dataset(
        [
            None,
            annotation(1, 99, SQUARE),
            annotation(2.0, 1.0, SQUARE),
            annotation(3, "1", SQUARE),
            annotation(4, 2, SQUARE, area=float("nan"), attributes={"huge": 10**40}),
            {"image_id": 2},
            annotation(2, 2, SQUARE),
        ]
    )
    reordered = {key: content[key] for key in ("annotations", "categories", "images", "extra")}
    source = opened(folder, b"\xef\xbb\xbf" + json.dumps(reordered, indent=1).encode())
    assert [a.key for a in source[0].annotations] == [2]
    assert [a.id for a in source[1].annotations] == [4, 5, 2]
    assert source[1].annotations[1].category == ""
    assert any("3 annotations belong to no known image" in note for note in source.notes)
    assert any("annotation id 2 is there more than once" in note for note in source.notes)
    with pytest.raises(InputError, match="ambiguous: entries 2 and 6"):
        source.find_annotation(2)
    with pytest.raises(InputError, match="no known image"):
        source.find_annotation(1)
    with pytest.raises(InputError, match="annotation id 77 is not in"):
        source.find_annotation(77)


def test_images_are_found_by_name(folder: Path) -> None:
    (folder / "images" / "x").mkdir()
    (folder / "images" / "x" / "a.jpg").touch()
    names = ["a.jpg", "x/a.jpg", "/elsewhere/b.jpg", "..\\..\\é.jpg", "gone.jpg"]
    (folder / "images" / "e\N{COMBINING ACUTE ACCENT}.jpg").touch()
    source = opened(folder, dataset([], [image(i, name) for i, name in enumerate(names)]))
    found = [item.path for item in (source[i] for i in range(5))]
    images = folder / "images"
    decomposed = images / "e\N{COMBINING ACUTE ACCENT}.jpg"
    assert found == [images / "a.jpg", images / "x/a.jpg", images / "b.jpg", decomposed, None]
    assert "gone.jpg is not in" in (source[4].problem or "")
    assert source.find_image("x/a.jpg") == 1 and source.find_image("a.jpg") == 0
    assert source.find_image("b.jpg") == 2 and source.find_image("images/x/a.jpg") == 1
    with pytest.raises(InputError, match=r"image c\.jpg is not among the 5"):
        source.find_image("c.jpg")


def test_an_ambiguous_name_is_an_error_naming_both(folder: Path) -> None:
    source = opened(folder, dataset([], [image(1, "x/a.jpg"), image(2, "y/a.jpg")]))
    with pytest.raises(InputError, match=r"x/a\.jpg \(image 0\) and y/a\.jpg \(image 1\)"):
        source.find_image("a.jpg")


def test_images_without_name_or_size(folder: Path) -> None:
    entries = [{"id": 1}, {"id": 2, "file_name": "b.jpg", "width": 0, "height": "20"}, 5]
    source = opened(folder, dataset([annotation(1, 2, SQUARE)], entries))
    assert "no file name" in (source[0].problem or "") and "no file name" in (
        source[2].problem or ""
    )
    assert source[1].height is None and "size of the image" in (
        source[1].annotations[0].problem or ""
    )


def test_lvis_names_come_from_the_url(folder: Path) -> None:
    url = "http://images.cocodataset.org/train2017/a.jpg"
    entry = {"id": 3, "coco_url": url, "height": HEIGHT, "width": WIDTH, "neg_category_ids": [4]}
    content = dataset([annotation(1, 3, SQUARE)], [entry])
    source = opened(folder, content)
    assert source.format == "lvis" and source[0].file == "train2017/a.jpg"
    assert source[0].path == folder / "images" / "a.jpg" and source.find_image("a.jpg") == 0
    assert json.loads(written(source, folder, [])) == content


def test_categories(folder: Path) -> None:
    source = opened(folder, dataset([]))
    assert source.category_id("cat") == 1
    with pytest.raises(InputError, match="category cta is unknown; the nearest known one is cat"):
        source.category_id("cta")


# --- results ----------------------------------------------------------------------------------


def result(image_id: Any, **more: Any) -> dict[str, Any]:
    ring = runs(Mask.from_array(RING))
    return {"image_id": image_id, "category_id": 1, "segmentation": ring, "score": 0.25, **more}


def test_results_name_images_by_the_number_in_their_stem(folder: Path) -> None:
    source = opened(folder, [result(12), result(13), result(12, id=40)])
    assert source.format == "coco-results" and len(source) == 3
    item = source[source.find_image("c_12.jpg")]
    assert [a.id for a in item.annotations] == [0, 2] and item.annotations[0].score == 0.25
    assert item.annotations[0].mask == Mask.from_array(RING)
    assert (item.height, item.width) == (HEIGHT, WIDTH) and source[0].height is None
    assert source.find_annotation(2) == item.ordinal
    assert "1 annotations belong to no known image" in source.notes[0]
    assert source.category_id("3") == 3
    with pytest.raises(InputError, match="give a number"):
        source.category_id("cat")


def test_polygons_without_a_size_take_that_of_the_image(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (HEIGHT, WIDTH)).save(folder / "images" / "c_12.jpg", exif=exif)
    source = opened(folder, [result(12, segmentation=SQUARE)])
    item = source[source.find_image("c_12.jpg")]
    assert (item.height, item.width) == (HEIGHT, WIDTH)
    assert item.annotations[0].mask == rectangle(2, 3, 7, 9)


def test_results_with_a_list_of_images(folder: Path) -> None:
    listing = folder / "gt.json"
    listing.write_text(json.dumps(dataset([])))
    source = opened(folder, [result(2, id=8), result(1, id=9)], listing)
    assert source[0].file == "a.jpg" and source[0].annotations[0].id == 9
    assert source[0].annotations[0].category == "cat" and source.find_annotation(8) == 1
    with pytest.raises(InputError, match="leave --images-json out"):
        opened(folder, dataset([]), listing)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([result(77)], "--images-json"),
        ([{"id": 1}], "image_id"),
        ([5], "image_id"),
    ],
)
def test_results_that_cannot_be_placed(folder: Path, content: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        opened(folder, content)


def test_two_images_with_the_number_of_a_result(folder: Path) -> None:
    (folder / "images" / "d_12.jpg").touch()
    with pytest.raises(InputError, match=r"c_12\.jpg or d_12\.jpg .*--images-json"):
        opened(folder, [result(12)])
    assert len(opened(folder, [])) == 4


def test_a_result_gains_no_keys(folder: Path) -> None:
    content = [result(12), {**result(12), "bbox": [0, 0, 1, 1]}]
    source = opened(folder, content)
    mask = rectangle(1, 2, 3, 5)
    edits = [Edit("replace", 2, key, mask) for key in (0, 1)] + [Edit("add", 2, None, mask, "4")]
    changed = json.loads(written(source, folder, edits))
    assert changed[0] == {**content[0], "segmentation": runs(mask)}
    assert changed[1] == {**changed[0], "bbox": [2.0, 1.0, 3.0, 2.0]}
    own = {"image_id": 12, "category_id": 4, "segmentation": runs(mask), "score": 1.0}
    assert changed[2:] == [own]


# --- damaged files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "JSON with"),
        ("hello", "JSON with"),
        ("\x00\x01", "JSON with"),
        ("5", "JSON with"),
        ("{}", 'no "images"'),
        ('{"images": []}', 'no "annotations"'),
        ('{"images": [], "annotations": []} x', "byte 34: something follows"),
        ('{"images": [], "annotations": [{"id": 1}', "byte 40: expected ',' or ']', found its end"),
        ('{"images": [], "annotations": [{"id": 1', "byte 39: Expecting ',' delimiter"),
        ('{"images": [], "annotations": [{"id": "1', "byte 38: Unterminated string"),
        ('{"images": [], "annotations": [{"id": 1,}]}', "byte"),
        ('{"images": [], "annotations": [{"id" 1}]}', "byte 37: Expecting ':'"),
        ('{"images": [], "annotations": 5}', "byte 30: expected '[', found '5'"),
        ('{"images": null, "annotations": []}', "byte 11"),
        ('{"images": [], "images": [], "annotations": []}', "twice"),
        ('{"images": [], "annotations": [], 5: 1}', "byte 34"),
        ('{"images": [], "annotations": [' + "[" * 100_000, "nested too deep"),
        ('{"images": [], "annotations": [' + "1" * 5_000 + "]}", "byte 31: Exceeds the limit"),
    ],
)
def test_damaged_json_is_named_with_its_byte(folder: Path, content: str, reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)) as caught:
        opened(folder, content)
    assert "masks.json" in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_an_input_error(folder: Path, data: st.DataObject) -> None:
    sound = json.dumps(dataset([annotation(1, 1, SQUARE), annotation(2, 1, SQUARE)])).encode()
    start = data.draw(st.integers(0, len(sound)))
    length = data.draw(st.integers(0, 8))
    content = sound[:start] + data.draw(st.binary(max_size=6)) + sound[start + length :]
    try:
        source = opened(folder, content)
        items = [source[i] for i in range(len(source))]
        edits = [
            Edit("replace", item.ordinal, a.key, rectangle(1, 1, 3, 3))
            for item in items
            for a in item.annotations
        ]
        changed = written(source, folder, edits)
    except MaskfixError:
        return
    json.loads(changed)


# --- writing ----------------------------------------------------------------------------------

STYLES: list[dict[str, Any]] = [{}, {"indent": 2}, {"separators": (",", ":")}]


@pytest.mark.parametrize("style", STYLES)
def test_untouched_bytes_come_back(folder: Path, style: dict[str, Any]) -> None:
    text = json.dumps(dataset([annotation(1, 1, SQUARE), None]), ensure_ascii=False, **style)
    text = text.replace("30.0", "3.00e1") + "\n"
    assert written(opened(folder, text), folder, []) == text


def test_a_replacement_changes_three_values_and_nothing_else(folder: Path) -> None:
    text = """{"annotations" : [
      { "iscrowd":0, "note": "ü \\u00fc }],{", "area":  30.5,
        "segmentation": [ [3, 2, 9, 2, 9, 7] ], "score": 1e0,
        "bbox":[0,0,0,0],"image_id":1 , "id" : 4 ,"category_id": 1, "area2": [1, 2]},
      {"id": 5, "image_id": 1, "area": 7, "segmentation": null}
    ], "images": [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 30}]}"""
    source = opened(folder, text)
    mask = rectangle(4, 6, 7, 8)
    square = "[[6.0,3.5,5.5,4.0,5.5,7.0,6.0,7.5,8.0,7.5,8.5,7.0,8.5,4.0,8.0,3.5]]"
    changed = written(source, folder, [Edit("replace", 0, key, mask) for key in (0, 1)])
    polygon = json.loads(changed)["annotations"][0]["segmentation"]
    assert decode(polygon, (HEIGHT, WIDTH)) == mask and len(polygon[0]) <= square.count(",") + 1
    compact = json.dumps(polygon, separators=(",", ":"))
    rle = json.dumps(runs(mask), separators=(",", ":"))
    expected = text.replace("[ [3, 2, 9, 2, 9, 7] ]", compact).replace("30.5", "6.0")
    expected = expected.replace("[0,0,0,0]", "[6.0,4.0,2.0,3.0]")
    expected = expected.replace('"area": 7', '"area": 6').replace("null", rle)
    assert changed == expected


def test_a_missing_segmentation_is_put_last(folder: Path) -> None:
    source = opened(folder, dataset([{"id": 1, "image_id": 1}]))
    changed = written(source, folder, [Edit("replace", 0, 0, rectangle(1, 1, 3, 3))])
    entry = json.loads(changed)["annotations"][0]
    assert entry == {"id": 1, "image_id": 1, "segmentation": runs(rectangle(1, 1, 3, 3))}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_every_combination_of_edits_splices_well(
    folder: Path, style: dict[str, Any], count: int
) -> None:
    content = dataset([annotation(10 + i, 1, SQUARE) for i in range(count)])
    source = opened(folder, json.dumps(content, **style))
    mask = rectangle(1, 2, 3, 4)
    changes = {"replace": mask, "delete": None, "keep": None}
    for code in range(3**count * 3):
        kinds = [list(changes)[code // 3**i % 3] for i in range(count)]
        added = code // 3**count
        edits = [Edit("add", 1, None, mask, "cat")] * added + [
            Edit(kind, 0, key, changes[kind])  # type: ignore[arg-type]
            for key, kind in reversed(list(enumerate(kinds)))
            if kind != "keep"
        ]
        entries = json.loads(written(source, folder, edits))["annotations"]
        kept = [10 + i for i, kind in enumerate(kinds) if kind != "delete"]
        new = [10 + count + i if count else 1 + i for i in range(added)]
        assert [entry["id"] for entry in entries] == kept + new
        for entry in entries:
            replaced = entry["id"] in new or kinds[entry["id"] - 10] == "replace"
            assert entry["bbox"] == ([2.0, 1.0, 2.0, 2.0] if replaced else [3.0, 2.0, 6.0, 5.0])


def test_an_added_annotation_is_complete_and_keeps_the_style(folder: Path) -> None:
    text = json.dumps(dataset([annotation(1, 1, SQUARE), annotation(8, 1, SQUARE)]))
    text = text.replace('0}, {"id": 8', '0},\n  {"id": 8')
    source = opened(folder, text)
    changed = written(source, folder, [Edit("add", 1, None, rectangle(1, 2, 3, 4), "cat")])
    assert '"iscrowd": 0},\n  {"id":9,"image_id":2,"category_id":1,"segmentation":[[' in changed
    entry = json.loads(changed)["annotations"][2]
    assert (entry["area"], entry["bbox"], entry["iscrowd"]) == (4, [2.0, 1.0, 2.0, 2.0], 0)


def test_recategorize_and_replace_with_a_category(folder: Path) -> None:
    source = opened(folder, dataset([annotation(1, 1, SQUARE), annotation(2, 1, SQUARE)]))
    name = "chaise longue à l'été"
    edits = [
        Edit("recategorize", 0, 0, category=name),
        Edit("replace", 0, 1, rectangle(0, 0, 1, 1), name),
    ]
    first, second = json.loads(written(source, folder, edits))["annotations"]
    assert first == annotation(1, 1, SQUARE, category_id=7)
    assert (second["category_id"], second["area"]) == (7, 1.0)
    with pytest.raises(InputError, match="unknown"):
        written(source, folder, [Edit("recategorize", 0, 0, category="dog")])


@pytest.mark.parametrize(
    ("old", "option", "kind"),
    [
        (SQUARE, "same", "polygon"),
        (SQUARE, "rle", "rle"),
        (runs(Mask.from_array(RING)), "same", "rle"),
        (runs(Mask.from_array(RING)), "polygon", "polygon"),
        (runs(Mask.from_array(RING), "counts"), "same", "counts"),
        (runs(Mask.from_array(RING), "counts"), "rle", "rle"),
    ],
)
def test_the_kind_of_segmentation_is_kept_unless_told(
    folder: Path, old: Any, option: str, kind: str
) -> None:
    source = opened(folder, dataset([annotation(1, 1, old)]))
    mask = rectangle(1, 2, 6, 9)
    changed = written(source, folder, [Edit("replace", 0, 0, mask)], segmentation=option)
    assert json.loads(changed)["annotations"][0]["segmentation"] == runs(mask, kind)


def test_what_polygons_cannot_hold_is_noted(folder: Path) -> None:
    source = opened(folder, dataset([annotation(1, 1, SQUARE), annotation(2, 2, SQUARE)]))
    masks = [Mask.from_array(RING), Mask.empty(HEIGHT, WIDTH)]
    edits = [Edit("replace", key, key, mask) for key, mask in enumerate(masks)]
    (folder / "out").mkdir()
    notes = [written.note or "" for written in source.write(edits, folder / "out")]
    assert "has holes" in notes[0] and "is empty" in notes[1]
    entries = json.loads((folder / "out" / "annotations.json").read_text())["annotations"]
    assert [entry["segmentation"] for entry in entries] == [runs(mask) for mask in masks]
    assert entries[1]["bbox"] == [0.0, 0.0, 0.0, 0.0]


def test_crowds_stay_run_lengths_and_other_keys_of_a_segmentation_stay(folder: Path) -> None:
    old = {"note": 1, "counts": runs(Mask.from_array(RING), "counts")["counts"]}
    old["size"] = [HEIGHT, WIDTH]
    source = opened(folder, dataset([annotation(1, 1, old, iscrowd=1)]))
    mask = rectangle(1, 2, 6, 9)
    changed = written(source, folder, [Edit("replace", 0, 0, mask)], segmentation="polygon")
    entry = json.loads(changed)["annotations"][0]
    assert entry["iscrowd"] == 1 and list(entry["segmentation"]) == ["note", "counts", "size"]
    assert decode(entry["segmentation"], (HEIGHT, WIDTH)) == mask


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools.decode on numpy 2
def test_what_is_written_loads_in_pycocotools(folder: Path) -> None:
    ring = Mask.from_array(RING)
    kinds = [SQUARE, runs(ring), runs(ring, "counts"), [], None]
    source = opened(folder, dataset([annotation(i, 1, old) for i, old in enumerate(kinds)]))
    masks = [rectangle(3, 4, 9, 11), ring, ring, ring, Mask.empty(HEIGHT, WIDTH)]
    written(source, folder, [Edit("replace", 0, key, mask) for key, mask in enumerate(masks)])
    coco = COCO(str(folder / "out" / "annotations.json"))
    for key, mask in enumerate(masks):
        assert np.array_equal(coco.annToMask(coco.anns[key]), mask.to_array())


def test_a_source_that_changed_is_not_written(folder: Path) -> None:
    source = opened(folder, dataset([]))
    (folder / "masks.json").write_text("{}")
    with pytest.raises(InputError, match="changed since"):
        written(source, folder, [])


def test_a_source_can_be_sent_to_another_process(folder: Path) -> None:
    source = opened(folder, dataset([annotation(1, 1, SQUARE)]))
    copy = pickle.loads(pickle.dumps(source))
    assert copy[0] == source[0] and copy.find_image("a.jpg") == 0


# --- the parts --------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.lists(values, max_size=6), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_elements_are_found_at_any_block_size(
    tmp_path_factory: pytest.TempPathFactory,
    content: list[Any],
    block: int,
    indent: int | None,
    ascii_only: bool,
) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
    data = text.encode("utf-8", "surrogatepass")
    path = tmp_path_factory.getbasetemp() / "stream.json"
    path.write_bytes(data)
    with JsonStream(path, block) as stream:
        spans = [(start, end) for _, start, end in stream.elements()]
        stream.finish()
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    with JsonStream(path, block) as stream:
        assert [(start, end) for _, start, end in stream.elements(decoder)] == spans
    read = [json.loads(data[start:end].decode("utf-8", "surrogatepass")) for start, end in spans]
    assert repr(read) == repr(content)


@given(st.dictionaries(st.text(max_size=4), values, max_size=5), st.sampled_from([None, 1]))
def test_spans_of_values(content: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(content, indent=indent)
    read = {key: json.loads(text[start:end]) for key, (start, end) in value_spans(text).items()}
    assert repr(read) == repr(content)


def test_parse_lets_nan_and_odd_text_through() -> None:
    assert parse(b'{"a": NaN}')["a"] != 0
    assert parse(b'{"a": "\xff"}') == {"a": "\udcff"}


@pytest.mark.parametrize(
    ("value", "same"), [(7, 7.0), ("\u00e9", "e\N{COMBINING ACUTE ACCENT}"), (0, -0.0)]
)
def test_equal_ids_have_equal_codes(value: object, same: object) -> None:
    assert code_of(value) == code_of(same) != NO_CODE


def test_codes_of_other_values() -> None:
    assert code_of(7) == 7 and code_of("7") != 7 and code_of(7.5) != code_of(8.5)
    assert code_of(2**70) != code_of(2**71) and code_of("\ud800") != NO_CODE
    assert {code_of(value) for value in (None, True, [], {})} == {NO_CODE}


def test_code_index() -> None:
    index = CodeIndex.of([5, "a", 3, 5, None, None])
    assert index.find(5) == [0, 3] and index.find("a") == [1] and index.find(None) == []
    assert index.repeated() == [3]
    codes = np.array([3, 4, NO_CODE, 5, code_of("a")])
    assert index.match(codes).tolist() == [2, -1, -1, 0, 1]
    assert CodeIndex.of([]).match(codes).tolist() == [-1] * 5


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_stream(tmp_path / "a.txt") as stream:
        stream.write(b"new")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_decoding_without_a_known_size() -> None:
    mask = rectangle(1, 2, 3, 4)
    assert decode(runs(mask), None) == mask
    with pytest.raises(InstanceError, match="size of the image"):
        decode(SQUARE, None)


def test_a_list_of_images_names_those_of_results(folder: Path) -> None:
    listing = folder / "image_info.json"
    listing.write_text(json.dumps({"images": [image(5, "b.jpg")], "categories": []}), "utf-8")
    results = [{"image_id": 5, "category_id": 1, "segmentation": SQUARE, "score": 0.5}]
    source = opened(folder, results, listing)
    assert [item.file for item in (source[0],)] == ["b.jpg"]
    assert len(source[0].annotations) == 1
    with pytest.raises(InputError, match='"annotations"'):
        open_source(listing, folder / "images")
