"""Tables and page of an evaluation, from made-up traces."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskfix.evaluate import Trace, summarise
from maskfix.masks import Mask
from maskfix.report.evaluation import write_report
from maskfix.report.evaluation_page import Strip
from maskfix.report.published import published_results
from maskfix.report.strips import write_strip
from maskfix.report.tables import BEST, SECOND, Table, make_tables, markdown_tables
from maskfix.types import Click


def make_trace(*ious: float, initial: float = 0.0) -> Trace:
    clicks = tuple(Click(i, 0, True) for i in range(len(ious)))
    return Trace("t", ious, clicks, initial, 0.5, initial > 0, 100, 1000, 10, 20)


def make_content(limit: int, **traces: list[Trace] | dict[str, list[Trace]]) -> dict[str, Any]:
    """Sets with the traces of one method, or of several."""
    results = [
        {"set": name, "model": "net", "method": method, **summarise(own, (0.8, 0.9), limit)}
        for name, given in traces.items()
        for method, own in (given if isinstance(given, dict) else {"ritm": given}).items()
    ]
    return {
        "maskfix": "1",
        "settings": {"thresholds": [0.8, 0.9], "max_clicks": limit, "target_iou": 0.9},
        "sets": [
            {"name": name, "notes": ["odd"], "instances": 9, "evaluated": 3, "initial": None}
            for name in traces
        ],
        "models": [{"name": "net", "network": "lite", "protocol": "fast", "sha256": "0" * 64}],
        "results": results,
    }


def as_dicts(table: Table) -> list[dict[str, str]]:
    titles = [column.title for column in table.columns]
    return [dict(zip(titles, row, strict=True)) for row in table.rows]


def test_tables_at_the_limit_of_papers() -> None:
    content = make_content(20, a=[make_trace(0.85, 0.95)], b=[make_trace(*[0.5] * 20)])
    overview, *details = make_tables(content)
    assert [c.title for c in overview.columns] == [
        *("Model", "a NoC@80", "a NoC@90", "b NoC@80", "b NoC@90"),
    ]
    assert overview.rows == (("net", "1.00", "2.00", "20.00", "20.00"),)
    assert overview.groups() == [("", 1), ("a", 2), ("b", 2)] and not overview.marks
    found = [row for table in details for row in as_dicts(table)]
    assert [(row[">=20@90"], row["failed@90"], row["IoU@2"]) for row in found] == [
        ("0", "0", "0.950"),
        ("1", "1", "0.500"),
    ]
    assert all("worse@1" not in row and not any("100" in key for key in row) for row in found)


def test_tables_at_a_hundred_clicks_and_from_masks() -> None:
    late = make_trace(*[0.5] * 29, 0.95, initial=0.75)
    content = make_content(100, a=[late, make_trace(0.92, initial=0.91)])
    [row] = [row for table in make_tables(content)[1:] for row in as_dicts(table)]
    assert (row["NoC@90"], row["NoC100@90 of 100"]) == ("10.50", "15.50")
    assert (row[">=20@90"], row[">=100@90 of 100"], row["failed@90 of 100"]) == ("1", "0", "0")
    assert (row["IoU@0"], row["already@90"], row["worse@1"]) == ("0.830", "1", "50.0 %")
    assert (row["broken@1"], row["broken@end"]) == ("1.0 %", "2.0 %")


def reached(*clicks: int) -> list[Trace]:
    """Instances that are there after so many clicks."""
    return [make_trace(*[0.5] * (k - 1), 0.95) for k in clicks]


def test_the_best_comes_first_and_is_marked() -> None:
    content = make_content(
        20,
        a={"slow": reached(9, 9), "ritm": reached(1, 2), "gc": reached(2, 2)},
        b={"slow": reached(9), "ritm": reached(4), "gc": reached(3)},
    )
    overview, a, b = make_tables(content)
    assert [row[0] for row in overview.rows] == ["net gc", "net", "net slow"]  # 5.0, 5.5, 18
    assert [row[0] for row in a.rows] == ["net", "net gc", "net slow"]
    assert [row[0] for row in b.rows] == ["net gc", "net", "net slow"]
    columns = [c.title for c in overview.columns]
    marked = {(overview.rows[i][0], columns[j]): m for (i, j), m in overview.marks.items()}
    assert marked["net", "a NoC@90"] == marked["net gc", "b NoC@90"] == BEST
    assert marked["net gc", "a NoC@90"] == marked["net", "b NoC@90"] == SECOND
    text = markdown_tables(content)
    assert "| net gc | <u>2.00</u> | <u>2.00</u> | **3.00** | **3.00** |" in text
    two = make_content(20, a={"ritm": reached(2), "gc": reached(2)})
    assert set(make_tables(two)[0].marks.values()) == {BEST}  # equal, and no second of two


def test_published_numbers_stand_below_the_measured_ones(tmp_path: Path) -> None:
    content = make_content(20, mine=reached(1), grab=reached(2))
    content["published"] = list(published_results({"grab": "GrabCut"}))
    overview = make_tables(content)[0]
    rows = {row[0]: row[1:] for row in overview.rows}
    assert overview.rows[0][0] == "net" and overview.published == len(overview.rows) - 1 > 20
    assert rows["RITM H32 IT-M, COCO+LVIS [1]"] == ("-", "-", "-", "1.56")
    assert not any(label.startswith("SimpleClick") for label in rows)  # SBD only
    assert not overview.marks
    write_report(tmp_path, content, [], [])
    text = (tmp_path / "table.md").read_text()
    assert "| published: CDNet R34, SBD [2] | - | - | - | 2.18 |" in text
    assert "\n[1] Sofiiuk" in text and "not measured here" in text
    page = (tmp_path / "report.html").read_text()
    assert page.index("Published by others, not measured here") < page.index("1.56")


def test_published_numbers_are_those_of_the_paper(golden: Path) -> None:
    """Table 7 in the paper's text: every number, in order, row by row."""
    paper = (golden.parent / "paper.txt").read_text(encoding="utf-8")
    table = paper[paper.index("\nGC [") : paper.index("5.3. Comparison with Previous")]
    lines = [re.sub(r"<.?u>", "", line) for line in table.splitlines() if line.strip()]
    expected = [re.findall(r"\d+\.\d\d\b", line) for line in lines]
    benchmarks = ("GrabCut", "Berkeley", "SBD", "DAVIS", "PascalVOC")
    found: dict[str, list[str]] = {}
    for row in published_results({name: name for name in benchmarks}):
        if "Table 7" in row["source"]:
            numbers = [f"{v:.2f}" for k, v in row.items() if k.startswith("noc@")]
            found.setdefault(row["model"], []).extend(numbers)
    assert list(found.values()) == expected


def test_published_numbers_are_plausible() -> None:
    sets = (*("GrabCut", "Berkeley", "SBD", "DAVIS", "PascalVOC", "COCO_MVal", "DAVIS585"), "own")
    rows = list(published_results({name: name for name in sets}))
    assert {row["set"] for row in rows} == set(sets) - {"own"}
    for row in rows:
        assert row["source"] and all(1 < v <= 20 for k, v in row.items() if k.startswith("noc@"))
        assert row.get("noc@85", 0) < row.get("noc@90", 20)


class Balance(HTMLParser):
    """Fails on a tag that is closed but not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in {"meta", "img"}:  # the others are closed, those of SVG too
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_escapes_names(tmp_path: Path) -> None:
    content = make_content(20, **{"<b>&": [make_trace(0.95)]})
    image = np.zeros((40, 50, 3), np.uint8)
    mask = Mask.from_array(np.eye(40, 50, dtype=bool))
    click = Click(3, 3, True)
    strip = tmp_path / "strips/1.png"
    write_strip(strip, image, mask, mask, [mask], [click], [0.5, 0.9])
    write_report(tmp_path, content, [], [Strip(("<b>&", "net", "ritm"), "<i>", strip)])
    page = (tmp_path / "report.html").read_text()
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "&lt;b&gt;&amp;" in page and "<b>" not in page and "<i>" not in page
    assert "&lt;b&gt;&amp;: odd." in page


@pytest.mark.parametrize("size", [(8, 300), (300, 8), (1, 1)])
def test_strips_of_odd_images(tmp_path: Path, size: tuple[int, int]) -> None:
    mask = Mask.from_array(np.ones(size, bool))
    write_strip(tmp_path / "s.png", np.zeros((*size, 3), np.uint8), mask, None, [], [], [0.0])
    assert (tmp_path / "s.png").stat().st_size > 0
