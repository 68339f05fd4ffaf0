"""Click scripts: what they say, and an error with its place for everything that is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfix.errors import ClickScriptError
from maskfix.formats.click_script import (
    ById,
    ByIndex,
    ByPoint,
    ClickScript,
    ImageScript,
    InstanceScript,
    Merge,
    New,
    dump_click_script,
    parse_click_script,
    read_click_script,
)
from maskfix.types import Click

EXAMPLE = """\
version: 1
images:
  - file: a.jpg
    instances:
      - id: 42
        clicks:
          - {x: 120, y: 44.5, kind: positive}
          - {kind: negative, x: -0.5, y: 0}
        target: 0.9
      - {id: "42", action: accept}
      - {index: 0, action: delete}
      - {at: [3, 4], action: {category: no}}
      - new: 2024-01-01
        clicks: [{x: 1, y: 2, kind: positive}]
      - {merge: [4, x]}
      - id: 5
        split: true
        clicks: [{x: 1, y: 2, kind: positive}, {x: 9, y: 2, kind: negative}]
  - {file: 007, instances: }
"""


def parse(text: str) -> ClickScript:
    return parse_click_script(text.encode(), "clicks.yaml")


def without_lines(script: ClickScript) -> ClickScript:
    images = [
        replace(
            image,
            line=0,
            instances=tuple(replace(item, line=0, origin=("", "")) for item in image.instances),
        )
        for image in script.images
    ]
    return ClickScript(tuple(images))


def test_every_form(tmp_path: Path) -> None:
    (tmp_path / "clicks.yaml").write_text(EXAMPLE)
    script = read_click_script(tmp_path / "clicks.yaml")
    first, second = without_lines(script).images
    yes, no = Click(1, 2, True), Click(9, 2, False)
    assert first.instances == (
        InstanceScript(ById(42), (Click(120, 44.5, True), Click(-0.5, 0, False)), 0.9),
        InstanceScript(ById("42"), action="accept"),
        InstanceScript(ByIndex(0), action="delete"),
        InstanceScript(ByPoint(3, 4), category="no"),
        InstanceScript(New("2024-01-01"), (yes,)),
        InstanceScript(Merge((4, "x"))),
        InstanceScript(ById(5), (yes, no), split=True),
    )
    assert second == ImageScript("007")
    assert [item.line for item in script.images[0].instances] == [5, 10, 11, 12, 13, 15, 16]
    where = f"{tmp_path}/clicks.yaml:12: image a.jpg, instance at [3, 4]"
    assert script.images[0].instances[3].where == where and script.images[1].line == 19


def test_json_reads_the_same() -> None:
    plain = {
        "version": 1,
        "units": "pixel",
        "images": [
            {
                "file": "\N{GRINNING FACE}\\ud83d\\ude00 é.jpg",
                "instances": [{"id": 3, "clicks": [{"x": 1e1, "y": 2, "kind": "positive"}]}],
            }
        ],
    }
    for options in ({}, {"indent": 1}, {"indent": "\t"}, {"ensure_ascii": False}):
        image = parse(json.dumps(plain, **options)).images[0]  # type: ignore[arg-type]
        assert image.file == "\N{GRINNING FACE}\\ud83d\\ude00 é.jpg"
        assert image.instances[0].clicks == (Click(10, 2, True),)


@pytest.mark.parametrize(
    "text", ["version: 1\nimages: []", "version: 1\nimages:", "\ufeffversion: 1\nimages: []"]
)
def test_nothing_to_do_is_no_error(text: str) -> None:
    assert not parse(text).images


def one(instance: str, head: str = "version: 1\n") -> str:
    return f"{head}images:\n- file: a.jpg\n  instances:\n  - {instance}\n"


PLACE = "clicks.yaml:5: image a.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "clicks.yaml: empty"),
        ("images: []", 'clicks.yaml:1: a click script needs "version"'),
        ("version: 1", 'clicks.yaml:1: a click script needs "images"'),
        ("version: 2\nimages: []", "clicks.yaml:1: expected 1, found '2'"),
        (
            "version: 1\nimage: []",
            "clicks.yaml:2: unknown key 'image'; the nearest known one is im",
        ),
        ("version: 1\nversion: 1\nimages: []", "clicks.yaml:2: version is there twice"),
        ("version: 1\nunits: metres\nimages: []", "clicks.yaml:2: expected pixel or normalized"),
        ("version: 1\nimages: {}", "clicks.yaml:2: expected a list, found keys"),
        ("version: 1\nimages: [5]", "clicks.yaml:2: expected keys (file, instances), found '5'"),
        ("version: 1\nimages: [{}]", 'clicks.yaml:2: an image needs "file"'),
        ("version: 1\nimages: [{file: }]", "clicks.yaml:2: expected text, found nothing"),
        ("version: 1\nimages: [{file: [a]}]", "clicks.yaml:2: expected text, found a list"),
        (
            "version: 1\nimages:\n- file: a\n- file: b\n- file: a",
            "clicks.yaml:5: image a is there twice, first in line 3",
        ),
        ("- 1", "clicks.yaml:1: expected keys (version, units, images), found a list"),
        ("version: 1\n[x]: 1", "clicks.yaml:2: "),
        ("version: 1\n? [x]\n: 1", "clicks.yaml:2: expected a key, found a list"),
        ("version: 1\nimages: [", "clicks.yaml:"),
        ("version: 1\nimages: []\n---\nb", "clicks.yaml:3: but found another document"),
        ("[" * 5000, "clicks.yaml:1: "),
        ("version: 1\nimages: [\x01]", "clicks.yaml: "),
        ("version: 1\nimages: &a [*a]", "clicks.yaml:2: aliases (*) are not supported"),
        ("version: 1\nimages:\n- &a {file: a}\n- *a", "aliases (*) are not supported"),
        (one("{}"), f"{PLACE}: an instance needs one of id, index, at, new, merge; found none"),
        (one("{id: 1, new: cat}"), f"{PLACE}: an instance needs one of"),
        (
            one("{id: 1, click: []}"),
            f"{PLACE}: unknown key 'click'; the nearest known one is clicks",
        ),
        (one("{id: }"), f"{PLACE}: expected text, found nothing"),
        (one("{index: -1}"), f"{PLACE}: expected a whole number from 0, found '-1'"),
        (one("{index: true}"), f"{PLACE}: expected a whole number from 0, found 'true'"),
        (one("{at: [1]}"), f"{PLACE}: at needs two values, [x, y]; found 1"),
        (one("{at: [1, .nan]}"), f"{PLACE}: expected a finite number, found '.nan'"),
        (one("{merge: [1, 1]}"), f"{PLACE}: merge needs two different ids; found 1 twice"),
        (one("{merge: [1, 2], split: true}"), f"{PLACE}, instance merge [1, 2]: merge cannot be"),
        (one("{new: cat, action: delete}"), f"{PLACE}, instance new cat: new cannot be combined"),
        (one("{new: cat, action: {category: x}}"), f"{PLACE}, instance new cat: new names its"),
        (one("{id: 1, split: true}"), f"{PLACE}, instance id 1: split needs positive clicks"),
        (one("{id: 1, split: 1}"), f"{PLACE}, instance id 1: expected true or false, found '1'"),
        (one("{id: 1, action: remove}"), f"{PLACE}, instance id 1: expected accept or delete"),
        (one("{id: 1, action: {name: x}}"), f"{PLACE}, instance id 1: unknown key 'name'"),
        (one("{id: 1, action: {}}"), f"{PLACE}, instance id 1: expected accept, delete or"),
        (one("{id: 1, target: 0}"), f"{PLACE}, instance id 1: target is an IoU"),
        (one("{id: 1, target: 90%}"), f"{PLACE}, instance id 1: expected a finite number"),
        (one("{id: 1, target: true}"), f"{PLACE}, instance id 1: expected a finite number"),
        (one("{id: 1, clicks: {x: 1}}"), f"{PLACE}, instance id 1: expected a list, found keys"),
        (one("{id: 1, clicks: [[1, 2]]}"), f"{PLACE}, instance id 1: expected keys (x, y, kind)"),
        (one("{id: 1, clicks: [{x: 1, y: 2}]}"), f'{PLACE}, instance id 1: a click needs "x", "y"'),
        (
            one("{id: 1, clicks: [{x: 1, y: '2', kind: positive}]}"),
            f"{PLACE}, instance id 1: expected a finite number, found '2'",
        ),
        (
            one("{id: 1, clicks: [{x: 1, y: 1.e999, kind: positive}]}"),
            f"{PLACE}, instance id 1: expected a finite number, found '1.e999'",
        ),
        (
            one("{id: 1, clicks: [{x: 1, y: 2, kind: pos}]}"),
            f"{PLACE}, instance id 1: expected positive or negative, found 'pos'",
        ),
        (
            'version: 1\nimages: [{file: "a\\nb", instances: [{}]}]',
            "2: image a b: an instance needs",
        ),
        (
            one("{id: 1, action: accept, clicks: [{x: 1, y: 2, kind: positive}]}"),
            f"{PLACE}, instance id 1: accept leaves the mask as it is",
        ),
        (
            one("{id: 1, clicks: [{x: 1.2, y: 0, kind: positive}]}", "{version: 1, units: x}\n"),
            "clicks.yaml:",
        ),
    ],
)
def test_errors_name_their_place(text: str, message: str) -> None:
    with pytest.raises(ClickScriptError) as caught:
        parse(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_click_in_a_later_line_is_named_by_its_own_line() -> None:
    text = one("id: 1\n    clicks:\n    - {x: 1, y: 2, kind: positive}\n    - {x: a, y: 2}")
    with pytest.raises(ClickScriptError, match=r"clicks\.yaml:8: image a.jpg, instance id 1: a cl"):
        parse(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ClickScriptError, match=r"no\.yaml: cannot be read: No such file"):
        read_click_script(tmp_path / "no.yaml")
    with pytest.raises(ClickScriptError, match=r"clicks\.yaml:2: not UTF-8 text"):
        parse_click_script(b"version: 1\nimages: [\xff]", "clicks.yaml")


def test_normalized_units_become_pixels() -> None:
    text = one(
        "{at: [0.5, 1], clicks: [{x: 0, y: 0.25, kind: negative}]}",
        "version: 1\nunits: normalized\n",
    )
    image = parse(text).images[0]
    assert image.normalized
    pixels = image.to_pixels(200, 100)
    assert not pixels.normalized and pixels.to_pixels(7, 7) == pixels
    assert pixels.instances[0].selector == ByPoint(100, 99)
    assert pixels.instances[0].clicks == (Click(0, 25, False),)
    with pytest.raises(ClickScriptError, match=r"normalized coordinates are 0 to 1; found 1.01"):
        parse(text.replace("0.25", "1.01"))


@pytest.mark.parametrize(
    ("instance", "problem"),
    [
        (InstanceScript(ById(1), (Click(0, 0, True), Click(9.4, 4.4, True))), None),
        (InstanceScript(ById(1), (Click(-0.5, 0, True), Click(10, 0, True))), "click 2 (10, 0)"),
        (InstanceScript(ById(1), (Click(0, 4.5, True),)), "click 1 (0, 4.5) is outside of the"),
        (InstanceScript(ById(1), (Click(-0.6, 0, True),)), "image, 10x5 pixels"),
        (InstanceScript(ByPoint(3, 5)), "at (3, 5)"),
        (InstanceScript(ByPoint(3, 4)), None),
    ],
)
def test_clicks_outside_of_the_image(instance: InstanceScript, problem: str | None) -> None:
    found = instance.outside(10, 5)
    assert found is None if problem is None else problem in (found or "")


ids = (
    st.integers(0, 10**17) | st.text(min_size=1, max_size=5) | st.sampled_from(["12", "no", "1e3"])
)
names = st.text(min_size=1, max_size=6) | st.sampled_from(["null", "~", "007", "a: b", "\x85"])
fractions = st.floats(0, 1) | st.integers(0, 1)
clicks = st.builds(Click, fractions, fractions, st.booleans())
marks = st.builds(
    InstanceScript,
    ids.map(ById) | st.integers(0, 99).map(ByIndex) | st.builds(ByPoint, fractions, fractions),
    st.lists(clicks, max_size=3).map(tuple),
    st.none() | st.floats(0.01, 1),
    st.none(),
    st.none() | names,
)
others = (
    st.builds(InstanceScript, names.map(New), st.lists(clicks, max_size=2).map(tuple))
    | st.builds(InstanceScript, st.tuples(ids, ids).filter(lambda i: i[0] != i[1]).map(Merge))
    | st.builds(InstanceScript, ids.map(ById), action=st.sampled_from(["accept", "delete"]))
)


@given(
    st.dictionaries(names, st.lists(marks | others, max_size=3).map(tuple), max_size=3),
    st.booleans(),
)
def test_what_is_dumped_reads_back(content: dict[str, Any], normalized: bool) -> None:
    images = [ImageScript(file, items, normalized) for file, items in content.items()]
    script = ClickScript(tuple(images))
    assert without_lines(parse(dump_click_script(script))) == script


def test_the_dump_is_pleasant() -> None:
    lines = dump_click_script(parse(EXAMPLE)).splitlines()
    assert lines[:7] == [
        "version: 1",
        "images:",
        "- file: a.jpg",
        "  instances:",
        "  - id: 42",
        "    clicks:",
        "    - {x: 120, y: 44.5, kind: positive}",
    ]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["file", "instances", "id", "clicks", "x", "y", "kind", "at", "action"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


def parses_or_is_refused(data: bytes) -> None:
    try:
        script = parse_click_script(data, "clicks.yaml")
    except ClickScriptError as error:
        assert "\n" not in str(error)
        return
    assert isinstance(script, ClickScript)


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    parses_or_is_refused(data)


@given(st.text(alphabet="-:[]{}&*!|>'\"% \n\tax1.", max_size=40))
def test_any_yaml(text: str) -> None:
    parses_or_is_refused(b"version: 1\nimages: " + text.encode())


@given(plain)
def test_any_structure(images: Any) -> None:
    parses_or_is_refused(json.dumps({"version": 1, "images": images}).encode())


@given(st.data())
def test_any_damage_to_a_sound_script(data: st.DataObject) -> None:
    sound = EXAMPLE.encode()
    start = data.draw(st.integers(0, len(sound)))
    end = start + data.draw(st.integers(0, 9))
    parses_or_is_refused(sound[:start] + data.draw(st.binary(max_size=5)) + sound[end:])
