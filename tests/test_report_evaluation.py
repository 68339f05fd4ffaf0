"""Tables and page of an evaluation, from made-up traces."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskfix.evaluate import Trace, summarise
from maskfix.masks import Mask
from maskfix.report.evaluation import make_tables, write_report
from maskfix.report.strips import write_strip
from maskfix.types import Click


def make_trace(*ious: float, initial: float = 0.0) -> Trace:
    clicks = tuple(Click(i, 0, True) for i in range(len(ious)))
    return Trace("t", ious, clicks, initial, 0.5, initial > 0, 100, 1000, 10, 20)


def make_content(limit: int, **traces: list[Trace]) -> dict[str, Any]:
    results = [
        {"set": name, "model": "net", "method": "ritm", **summarise(own, (0.8, 0.9), limit)}
        for name, own in traces.items()
    ]
    return {
        "maskfix": "1",
        "settings": {"thresholds": [0.8, 0.9], "max_clicks": limit, "target_iou": 0.9},
        "sets": [{"name": name, "notes": ["odd"]} for name in traces],
        "models": [{"name": "net", "network": "lite", "protocol": "fast", "sha256": "0" * 64}],
        "results": results,
    }


def test_tables_at_the_limit_of_papers() -> None:
    content = make_content(20, a=[make_trace(0.85, 0.95)], b=[make_trace(*[0.5] * 20)])
    [_, overview], *details = make_tables(content)
    assert overview == [
        ["Model", "a NoC@80", "a NoC@90", "b NoC@80", "b NoC@90"],
        ["net", "1.00", "2.00", "20.00", "20.00"],
    ]
    found = [dict(zip(*table, strict=True)) for _, table in details]
    assert [(row[">=20@90"], row["failed@90"], row["IoU@2"]) for row in found] == [
        ("0", "0", "0.950"),
        ("1", "1", "0.500"),
    ]
    assert all("worse@1" not in row and not any("100" in key for key in row) for row in found)


def test_tables_at_a_hundred_clicks_and_from_masks() -> None:
    late = make_trace(*[0.5] * 29, 0.95, initial=0.75)
    content = make_content(100, a=[late, make_trace(0.92, initial=0.91)])
    [row] = [dict(zip(*table, strict=True)) for _, table in make_tables(content)[1:]]
    assert (row["NoC@90"], row["NoC100@90 of 100"]) == ("10.50", "15.50")
    assert (row[">=20@90"], row[">=100@90 of 100"], row["failed@90 of 100"]) == ("1", "0", "0")
    assert (row["IoU@0"], row["already@90"], row["worse@1"]) == ("0.830", "1", "50.0 %")
    assert (row["broken@1"], row["broken@end"]) == ("1.0 %", "2.0 %")


class Balance(HTMLParser):
    """Fails on a tag that is closed but not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_escapes_names(tmp_path: Path) -> None:
    content = make_content(20, **{"<b>&": [make_trace(0.95)]})
    image = np.zeros((40, 50, 3), np.uint8)
    mask = Mask.from_array(np.eye(40, 50, dtype=bool))
    click = Click(3, 3, True)
    strip = tmp_path / "strips/1.png"
    write_strip(strip, image, "n", mask, mask, [mask], [click], [0.5, 0.9])
    write_report(tmp_path, content, [], [(("<b>&", "net", "ritm"), strip)])
    page = (tmp_path / "report.html").read_text()
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "&lt;b&gt;&amp;" in page and "<b>" not in page
    assert "&lt;b&gt;&amp;: odd." in page


@pytest.mark.parametrize("size", [(8, 300), (300, 8), (1, 1)])
def test_strips_of_odd_images(tmp_path: Path, size: tuple[int, int]) -> None:
    mask = Mask.from_array(np.ones(size, bool))
    write_strip(tmp_path / "s.png", np.zeros((*size, 3), np.uint8), "n", mask, None, [], [], [0.0])
    assert (tmp_path / "s.png").stat().st_size > 0
