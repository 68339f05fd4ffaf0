"""The sheet and the report in a real browser: mouse, keys, files, and what must not run.

Needs Playwright for Python (in the extra ``test``) and a Chromium: of MASKFIX_CHROMIUM, or on the
PATH, as Debian's package ``chromium`` puts it there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from sheet_data import COL, HEIGHT, HOSTILE, ROW, WIDTH, command, disk, encoded, write_set

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no Playwright: pip install 'maskfix[test]'"
)

OFFLINE = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("MASKFIX_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found or not Path(found).exists():
        pytest.skip("no Chromium: apt-get install chromium, or set MASKFIX_CHROMIUM to its file")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=found, args=OFFLINE, timeout=120_000)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test at the first error or refused script."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        opened = context.new_page()
        opened.set_default_timeout(60_000)
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        yield opened
        assert errors == []


def make_sheet(monkeypatch: pytest.MonkeyPatch, masks: Path, *more: object) -> str:
    out = masks.parent / "sheet.html"
    images = masks.parent / "images"
    arguments = ["--images", images, "--masks", masks, "--out", out]
    assert command(monkeypatch, "sheet", *arguments, *more) == 0
    return out.as_uri()


def downloaded(page: Any, to: Path) -> Any:
    """Press the button; the click script that comes."""
    with page.expect_download() as waiting:
        page.locator("#download").click()
    name = waiting.value.suggested_filename
    assert re.fullmatch(r"clicks-\d{8}-\d{6}\.yaml", name)
    assert page.locator("#saved-command").text_content().endswith(f" --clicks ~/Downloads/{name}")
    waiting.value.save_as(to)
    return yaml.safe_load(to.read_text(encoding="utf-8"))


def instances(script: Any) -> dict[Any, Any]:
    """What a script says, by id."""
    return {
        instance.pop("id"): instance
        for image in script["images"]
        for instance in image["instances"]
    }


def clicks_of(script: Any) -> list[tuple[int, int, str]]:
    return [
        (click["x"], click["y"], click["kind"])
        for instance in instances(script).values()
        for click in instance.get("clicks", ())
    ]


def point_at(page: Any, x: float, y: float, card: int = 0) -> tuple[float, float]:
    """Where the middle of a pixel of the image is in the window: told from the data of the page."""
    box = json.loads(page.locator(f"#picture-{card}").text_content())["box"]
    shown = page.locator(".card .live").nth(card).bounding_box()
    return (
        shown["x"] + (x + 0.5 - box["left"]) * shown["width"] / box["width"],
        shown["y"] + (y + 0.5 - box["top"]) * shown["height"] / box["height"],
    )


def test_from_sheet_to_report_and_a_second_round(
    page: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is typed but commands: the loop a person goes through."""
    masks = write_set(tmp_path, [{}, {}, {}, {}], ["disk", "ball"])
    page.goto(make_sheet(monkeypatch, masks))
    page.mouse.click(*point_at(page, COL, ROW - 14))
    page.mouse.click(*point_at(page, COL - 30, ROW - 28), button="right")
    page.locator(".card").nth(1).get_by_role("button", name="Delete").click()
    page.locator(".card").nth(2).get_by_role("button", name="Class").click()
    page.get_by_role("option", name="ball").click()
    script = downloaded(page, tmp_path / "clicks.yaml")
    assert instances(script) == {
        10: {
            "clicks": [
                {"x": COL, "y": ROW - 14, "kind": "positive"},
                {"x": COL - 30, "y": ROW - 28, "kind": "negative"},
            ]
        },
        11: {"action": "delete"},
        12: {"action": {"category": "ball"}},
    }
    assert "maskfix refine --images" in page.locator("#saved-command").text_content()
    arguments = ["--images", tmp_path / "images", "--out", tmp_path / "refined"]
    arguments += ["--masks", masks, "--clicks", tmp_path / "clicks.yaml"]
    assert command(monkeypatch, "refine", *arguments) == 0, capsys.readouterr().err

    page.goto((tmp_path / "refined" / "report.html").as_uri())
    assert page.locator(".tile", has_text="instances").locator("b").text_content() == "3"
    labels = page.locator(".card h2").all_text_contents()
    assert sorted(labels) == ["ball 12", "disk 10", "disk 11"]
    first = page.locator(".card", has_text="disk 10")
    assert first.locator(".click.old").count() == 2
    deleted = page.locator(".card", has_text="disk 11")
    assert deleted.locator(".live").count() == deleted.get_by_role("button").count() == 0
    first.locator(".live").click(position={"x": 40, "y": 30})
    page.locator(".card", has_text="ball 12").get_by_role("button", name="Fine").click()
    script = downloaded(page, tmp_path / "second.yaml")
    assert set(instances(script)) == {10, 12}
    arguments = ["--images", tmp_path / "images", "--out", tmp_path / "again"]
    arguments += ["--masks", tmp_path / "refined" / "annotations.json"]
    assert command(monkeypatch, "refine", *arguments, "--clicks", tmp_path / "second.yaml") == 0, (
        capsys.readouterr().err
    )


def test_keys_alone(page: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    masks = write_set(tmp_path, [{} for _ in range(6)], ["disk", "ball"])
    page.goto(make_sheet(monkeypatch, masks))
    keys = "f d c b Enter Enter ArrowRight ArrowDown Shift+ArrowLeft p Shift+ArrowUp n Escape"
    for key in [*keys.split(" "), "ArrowRight", "s", "ArrowRight", "t", "o", "f"]:
        page.keyboard.press(key)
    assert page.evaluate("document.body.dataset.outline") == "tint"
    assert page.locator("#negative").is_checked()
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == "disk 15 in a.png: no mark"
    box = json.loads(page.locator("#picture-2").text_content())["box"]
    step = round(box["width"] / 40)
    x = box["left"] + box["width"] // 2 + step - 1
    y = box["top"] + box["height"] // 2 + step
    with page.expect_download() as waiting:
        page.keyboard.press("Control+s")
    waiting.value.save_as(tmp_path / "clicks.yaml")
    script = yaml.safe_load((tmp_path / "clicks.yaml").read_text())
    assert instances(script) == {
        10: {"action": "accept"},
        11: {"action": "delete"},
        12: {
            "action": {"category": "ball"},
            "clicks": [
                {"x": x, "y": y, "kind": "positive"},
                {"x": x, "y": y - 1, "kind": "negative"},
            ],
        },
        14: {"action": "accept"},
    }  # 13 is split without clicks: left out, and said
    assert "1 split" in page.locator("#saved-text").text_content()
    for key in ["z", "Control+z", "Control+z"]:
        page.keyboard.press(key)
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#marked").text_content() == "3 of 6 marked"
    assert set(instances(downloaded(page, tmp_path / "less.yaml"))) == {10, 11, 12}


def test_reload_restores_and_undo_goes_on(
    page: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page.goto(make_sheet(monkeypatch, write_set(tmp_path, [{}, {}], ["disk"])))
    page.locator(".live").first.click(position={"x": 50, "y": 60})
    page.keyboard.press("t")
    page.locator(".live").first.click(position={"x": 90, "y": 60})
    page.locator(".card").nth(1).get_by_role("button", name="Fine").click()
    before = instances(downloaded(page, tmp_path / "before.yaml"))
    assert [click["kind"] for click in before[10]["clicks"]] == ["positive", "negative"]
    page.reload()
    assert page.locator("#marked").text_content() == "2 of 2 marked"
    assert instances(downloaded(page, tmp_path / "after.yaml")) == before
    page.locator(".card").nth(0).get_by_role("button", name="Undo").click()
    assert page.locator(".card").nth(0).locator(".badge").all_text_contents() == ["+1"]
    # The same masks made into a page again are the same page; other masks are not.
    page.goto(make_sheet(monkeypatch, write_set(tmp_path, [{}, {}], ["disk"])))
    assert page.locator("#marked").text_content() == "2 of 2 marked"
    page.goto(make_sheet(monkeypatch, write_set(tmp_path, [{}], ["disk"])))
    assert page.locator("#marked").text_content() == "0 of 1 marked"


@pytest.mark.parametrize(
    ("height", "width", "orientation"), [(90, 120, 1), (90, 120, 6), (2400, 1800, 8)]
)
def test_clicks_are_right_to_the_pixel(
    page: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    height: int,
    width: int,
    orientation: int,
) -> None:
    """A spot that is seen on the screen is clicked on; the script names its pixel in the image.

    The spot is looked for in a screenshot, so nothing of the page's own arithmetic is believed:
    not the crop, not its scale, not how a photo lying on its side was turned.
    """
    block = max(1, width // 120)
    spot_x, spot_y = (width // 3 // block) * block, (2 * height // 3 // block) * block
    upright = np.full((height, width, 3), 30, np.uint8)
    upright[spot_y : spot_y + block, spot_x : spot_x + block] = 255
    stored = Image.fromarray(np.rot90(upright, {1: 0, 6: 1, 8: 3}[orientation]).copy())
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "images").mkdir()
    stored.save(tmp_path / "images" / "photo.png", exif=exif)
    mask = np.zeros((height, width), bool)
    mask[height // 2 : height // 2 + height // 4, width // 4 : width // 2] = True
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": encoded(mask)}
    image = {"id": 1, "file_name": "photo.png", "height": height, "width": width}
    content = {"images": [image], "annotations": [annotation], "categories": []}
    masks = tmp_path / "preds.json"
    masks.write_text(json.dumps(content))
    page.goto(make_sheet(monkeypatch, masks))
    page.keyboard.press("o")
    page.keyboard.press("o")  # nothing drawn over the picture
    page.keyboard.press("l")  # large: a pixel of the image may be several of the screen
    page.wait_for_function("document.querySelector('.stage img').complete")
    page.screenshot(path=tmp_path / "screen.png")
    stage = page.locator(".live").bounding_box()
    seen = np.array(Image.open(tmp_path / "screen.png").convert("L")).astype(int)
    top, left = round(stage["y"]), round(stage["x"])
    inside = seen[top : top + int(stage["height"]), left : left + int(stage["width"])]
    rows, cols = np.nonzero(inside > 0.6 * inside.max())
    page.mouse.click(left + cols.mean() + 0.5, top + rows.mean() + 0.5)
    page.keyboard.press("l")
    [(x, y, _)] = clicks_of(downloaded(page, tmp_path / "clicks.yaml"))
    assert spot_x <= x < spot_x + block and spot_y <= y < spot_y + block, (x, y, spot_x, spot_y)


def test_every_pixel_under_the_mouse(
    page: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Corners of the image, and pixels within it, small and large."""
    whole = encoded(np.ones((HEIGHT, WIDTH), bool))
    masks = write_set(tmp_path, [{"segmentation": whole}] * 2, ["disk"])
    page.goto(make_sheet(monkeypatch, masks))
    wanted = [(0, 0), (WIDTH - 1, 0), (0, HEIGHT - 1), (WIDTH - 1, HEIGHT - 1), (37, 11), (38, 11)]
    for x, y in wanted:
        page.mouse.click(*point_at(page, x, y))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("l")
    for x, y in wanted:
        page.mouse.click(*point_at(page, x, y, 1), button="right")
    page.keyboard.press("l")
    found = clicks_of(downloaded(page, tmp_path / "clicks.yaml"))
    assert found == [(x, y, kind) for kind in ("positive", "negative") for x, y in wanted]


def test_names_never_run(
    page: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names of images, categories and instances are text, in the page and in the script."""
    plain = [name.replace("/", "|").replace("\\", "|") for name in HOSTILE]  # no folders
    files = ["a.png", *(f"{i} {name}.png" for i, name in enumerate(plain))]
    entries = [
        {"id": name, "image_id": i + 2, "category_id": i + 1} for i, name in enumerate(HOSTILE)
    ]
    masks = write_set(tmp_path, entries, list(HOSTILE), files)
    page.goto(make_sheet(monkeypatch, masks))
    assert page.locator("script:not([type='application/json'])").count() == 1
    assert page.locator(".card img").count() == page.locator("img").count() == len(HOSTILE)
    for i, name in enumerate(HOSTILE):
        card = page.locator(".card").nth(i)
        assert card.locator("h2 b").text_content() == name
        assert card.locator(".file").text_content() == files[i + 1]
        card.get_by_role("button", name="Class").click()
        page.locator("#class-list li").nth((i + 1) % len(HOSTILE)).click()
        page.mouse.click(*point_at(page, COL, ROW - 14, i))
    assert page.title() == "maskfix: click sheet"
    downloaded(page, tmp_path / "clicks.yaml")
    arguments = ["--images", tmp_path / "images", "--masks", masks, "--out", tmp_path / "out"]
    assert command(monkeypatch, "refine", *arguments, "--clicks", tmp_path / "clicks.yaml") == 0
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [a["category_id"] for a in content["annotations"]] == [2, 3, 4, 1]
    page.goto((tmp_path / "out" / "report.html").as_uri())
    assert page.locator("script:not([type='application/json'])").count() == 1
    assert sorted(page.locator(".card h2 b").all_text_contents()) == sorted(HOSTILE)
    assert page.title() == "maskfix: refined masks"


CONTRAST = """() => {
  const channel = (v) => (v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
    const skipped = node.closest("svg, script, noscript, .unseen, :disabled");
    if (!own || skipped || !node.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${node.className || node.tagName}: ${ratio.toFixed(2)}`);
  }
  return bad;
}"""

UNNAMED = """() => [...document.querySelectorAll("button, input, select, a, img, dialog")]
  .filter((node) => node.checkVisibility() && !(
    node.textContent.trim() || node.getAttribute("aria-label") || node.alt ||
    node.labels?.length || node.getAttribute("aria-labelledby")))
  .map((node) => node.outerHTML)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(
    browser: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    """Contrast of all text, names of all controls, focus that is seen, in both schemes."""
    masks = write_set(tmp_path, [{}, {}, {}], ["disk", "ball"])
    url = make_sheet(monkeypatch, masks)
    with browser.new_context(color_scheme=scheme, viewport={"width": 400, "height": 800}) as opened:
        page = opened.new_page()
        page.goto(url)
        page.locator(".live").first.click(position={"x": 50, "y": 60})
        for key in ["f", "d", "Enter"]:
            page.keyboard.press(key)
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate(UNNAMED) == []
        assert page.evaluate("document.documentElement.lang") == "en"
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid"
        page.keyboard.press("Escape")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Fine"
        stops = page.locator(".card button:not([tabindex='-1'])").count()
        assert stops == 6, "only the current card's buttons are stops of the Tab key"


def test_report_sorts_and_filters(
    page: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = ["c.png", "a.png", "b.png"]
    right = [{"image_id": i, "segmentation": encoded(disk())} for i in (1, 2, 3)]
    reference = write_set(tmp_path / "reference", right, ["disk"], files)
    entries = [
        {"image_id": i, "segmentation": encoded(disk(radius=radius)), "category_id": category}
        for i, (radius, category) in enumerate([(20, 1), (14, 2), (17, 1)], start=1)
    ]
    masks = write_set(tmp_path, entries, ["disk", "ball"], files)
    arguments = ["--images", tmp_path / "images", "--masks", masks, "--reference", reference]
    assert command(monkeypatch, "refine", *arguments, "--out", tmp_path / "out") == 0
    page.goto((tmp_path / "out" / "report.html").as_uri())
    labels = page.locator(".card h2")
    assert labels.all_text_contents() == ["ball 11", "disk 12", "disk 10"]  # worst first
    page.locator("#sort").select_option(label="By class")
    assert labels.all_text_contents() == ["ball 11", "disk 12", "disk 10"]
    page.locator("#sort").select_option(label="By image")
    assert page.locator(".card .file").all_text_contents() == ["a.png", "b.png", "c.png"]
    page.locator("#category").select_option(label="ball")
    assert labels.all_text_contents() == ["ball 11"]
    page.locator("#category").select_option(label="Any class")
    page.locator("#search").fill("12")
    assert labels.all_text_contents() == ["disk 12"]
    page.locator("#search").fill("")
    page.locator("#filter").select_option(label="Status: unchanged")
    assert labels.count() == 3
    assert page.locator(".chart svg").count() == 2
    assert page.locator(".chart table").first.locator("tr").count() == 21


def test_pages_of_a_long_sheet(page: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    masks = write_set(tmp_path, [{} for _ in range(100)], ["disk"])
    page.goto(make_sheet(monkeypatch, masks))
    assert page.locator(".card").count() == 48
    page.keyboard.press("]")
    assert page.locator("#page").text_content() == "page 2 of 3"
    page.keyboard.press("ArrowLeft")  # back over the edge of the page, to the last one before it
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("disk 57 ")
    page.keyboard.press("f")  # and on again
    assert page.locator("#page").text_content() == "page 2 of 3"
    page.locator("#filter").select_option(label="Marked")
    assert page.locator(".card h2").all_text_contents() == ["disk 57"]
