"""Classical methods: exact small cases, the promises of each, and hostile images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_data
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli_eval import run

from maskfix.baselines import BASELINES
from maskfix.baselines.base import Baseline
from maskfix.baselines.colours import EVEN, NOISE, OUTLIERS, lab, log_density, split
from maskfix.baselines.graphcut import UNIT, cut, minimum_cut
from maskfix.baselines.grid import GridProtocol
from maskfix.baselines.lattice import Edges, geodesic, neighbours, squared_differences
from maskfix.baselines.seeds import make_scene
from maskfix.baselines.star import geodesic_ways, straight_ways
from maskfix.predictor.session import NetworkPoint
from maskfix.types import Click

METHODS = ("gc", "gm", "rw", "esc", "gsc", "grabcut")


def answer(
    method: str, image: np.ndarray, clicks: Sequence[Click], mask: np.ndarray | None = None
) -> np.ndarray:
    """(H, W) float32 probabilities."""
    baseline = BASELINES[method].constructor()()
    assert isinstance(baseline, Baseline)
    session = baseline.start(image, mask)
    session.clicks += clicks
    baseline.step([session])
    found = session.probabilities()
    assert (session.mask().to_array() == (found > 0.49)).all()
    return found


def disk(height: int, width: int, row: int, col: int, radius: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (col, row), radius, 1, -1)
    return mask.astype(bool)


def paint(mask: np.ndarray) -> np.ndarray:
    """An image of an orange object on blue, (H, W, 3) uint8."""
    return np.where(mask[..., None], (220, 120, 40), (40, 80, 160)).astype(np.uint8)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def plus(row: float, col: float) -> NetworkPoint:
    return NetworkPoint(row, col, 0, True)


def minus(row: float, col: float) -> NetworkPoint:
    return NetworkPoint(row, col, 0, False)


def drawing(text: str) -> np.ndarray:
    """Characters of rows that blanks separate."""
    return np.array([list(row) for row in text.split()])


def draw(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    assert not (inside & outside).any()
    return np.where(inside, "+", np.where(outside, "-", "."))


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], "------- -.....- -.....- -.....- -------"),
        ([plus(2, 3)], "------- -..+..- -.+++.- -..+..- -------"),
        ([plus(0, 3)], "--+++-- -..+..- -.....- -.....- -------"),
        ([plus(4, 6)], "------- -.....- -.....- -.....+ -----++"),
        ([plus(2, 3), minus(2, 4)], "------- -..+-.- -.++--- -..+-.- -------"),
        ([minus(2, 3), plus(2, 3)], "------- -..+..- -.+++.- -..+..- -------"),
        ([plus(-9, 3.4), minus(1, 3)], "--+++-- -.---.- -..-..- -.....- -------"),
    ],
)
def test_clicks_become_disks(
    points: list[NetworkPoint], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskfix.baselines.seeds.RADIUS", 1.0)
    scene = make_scene(np.zeros((5, 7, 3), np.uint8), points, None)
    assert (draw(scene.inside, scene.outside) == drawing(expected)).all()


def test_masks_become_trimaps() -> None:
    mask = np.zeros((60, 100), bool)
    mask[10:50, 20:80] = True
    image = np.zeros((60, 100, 3), np.uint8)
    scene = make_scene(image, [], mask)
    assert scene.inside[30, 50] and not scene.inside[12, 50] and not scene.inside[~mask].any()
    assert scene.outside[0, 0] and not scene.outside[8, 50] and not scene.outside[mask].any()
    agreeing = make_scene(image, [plus(30, 50), minus(2, 2)], mask)
    assert (agreeing.inside == scene.inside).all() and (agreeing.outside == scene.outside).all()
    wrong = make_scene(image, [minus(30, 72)], mask)  # 8 pixels deep: frees 16
    distance = np.hypot(*(np.indices(mask.shape) - np.array([30, 72])[:, None, None]))
    assert not wrong.inside[distance <= 14].any() and wrong.outside[distance <= 3].all()
    assert (wrong.inside == scene.inside)[distance > 18].all()


def test_masks_without_an_inside_or_an_outside() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    full = np.ones((9, 9), bool)
    scene = make_scene(image, [], full)
    assert scene.inside.all() and not scene.outside.any()
    thin = np.zeros((9, 9), bool)
    thin[4] = True
    assert (make_scene(image, [], thin).inside == thin).all()
    empty = make_scene(image, [], ~full)
    assert not empty.inside.any() and empty.outside[0].all()


def test_colours_of_one_sample_are_a_gaussian() -> None:
    sample = np.array([[50.0, 10.0, -10.0]])
    colours = np.concatenate([sample, sample + np.array([NOISE, 0, 0])])
    found = np.exp(log_density(colours, sample, np.ones(1))) - OUTLIERS * EVEN
    peak = (1 - OUTLIERS) / (np.sqrt(2 * np.pi) * NOISE) ** 3
    assert found == pytest.approx([peak, peak * np.exp(-0.5)])


def test_colours_are_split_where_they_differ_most() -> None:
    samples = np.repeat([[0.0, 0, 0], [90, 0, 0], [90, 50, 0]], [4, 2, 3], axis=0)
    found = sorted(members.tolist() for members in split(samples, np.full(9, 1 / 9)))
    assert found == [[0, 1, 2, 3], [4, 5], [6, 7, 8]]
    assert len(split(samples[:1], np.ones(1))) == 1


def test_neighbours() -> None:
    edges = neighbours(2, 2)
    pairs = {
        (int(a), int(b)): c for a, b, c in zip(edges.one, edges.other, edges.length, strict=True)
    }
    straight = [(0, 1), (2, 3), (0, 2), (1, 3)]
    assert pairs == {**dict.fromkeys(straight, 1.0), (0, 3): 2**0.5, (1, 2): 2**0.5}
    assert len(neighbours(1, 1).one) == 0 and len(neighbours(1, 5).one) == 4
    assert len(neighbours(5, 1).one) == 4
    values = np.array([[[0.0, 1.0], [2.0, 1.0]], [[0.0, 4.0], [2.0, 4.0]]])
    assert sorted(squared_differences(edges, values)) == [4, 4, 9, 9, 13, 13]


def test_geodesic_distances_go_around_walls() -> None:
    """Steps cost 1 and root 2, and 100 more where the value changes."""
    values = np.array([[0.0, 1, 0], [0, 1, 0], [0, 0, 0]])
    edges = neighbours(3, 3)
    lengths = edges.length + 100 * squared_differences(edges, values)
    sources = np.zeros((3, 3), bool)
    sources[0, 0] = True
    found, ways = geodesic(edges, lengths, sources)
    root = 2**0.5
    expected = [[0, 101, 2 + 2 * root], [1, 100 + root, 1 + 2 * root], [2, 1 + root, 2 + root]]
    assert found == pytest.approx(np.array(expected))
    assert ways[0, 0] == -1 and ways[0, 2] == 5 and ways[1, 2] == 7 and ways[2, 1] == 3


def follow(ways: np.ndarray, pixel: int) -> list[int]:
    """The pixels on a way, from its first to its centre."""
    found = [pixel]
    while ways.ravel()[found[-1]] >= 0:
        found.append(int(ways.ravel()[found[-1]]))
        assert len(found) <= ways.size, "a way in circles"
    return found


def test_straight_ways() -> None:
    centers = np.zeros((3, 7), bool)
    centers[0, 0] = centers[2, 6] = True
    ways = straight_ways(centers)
    assert follow(ways, 3) == [3, 2, 1, 0]
    assert follow(ways, 15) == [15, 8, 0] and follow(ways, 13) == [13, 20]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 14), st.integers(1, 14), st.booleans())
def test_ways_are_short_and_end_at_centers(
    seed: int, height: int, width: int, geodesically: bool
) -> None:
    rng = np.random.default_rng(seed)
    centers = rng.random((height, width)) < 0.1
    centers[rng.integers(height), rng.integers(width)] = True
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    ways = geodesic_ways(image, centers) if geodesically else straight_ways(centers)
    rows, cols = np.divmod(ways, width)
    steps = np.maximum(*abs(np.indices(centers.shape) - (rows, cols)))
    assert ((ways < 0) == centers).all() and (steps[~centers] == 1).all()
    for pixel in range(centers.size):
        assert centers.ravel()[follow(ways, pixel)[-1]]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([(1, 5), (3, 3), (2, 4)]), st.booleans())
def test_cuts_are_the_best_of_all(seed: int, shape: tuple[int, int], star: bool) -> None:
    rng = np.random.default_rng(seed)
    edges = neighbours(*shape)
    preference = rng.integers(-60, 60, shape) / UNIT
    boundary = rng.integers(0, 40, len(edges.one)) / UNIT
    inside, outside = np.zeros(shape, bool), np.zeros(shape, bool)
    inside.flat[rng.integers(inside.size)] = True
    outside.flat[rng.integers(inside.size)] = True
    inside &= ~outside
    if star and not inside.any():
        return
    ways = straight_ways(inside) if star else None
    found = minimum_cut(preference, edges, boundary, inside, outside, ways)

    def cost(labels: np.ndarray) -> float:
        if (inside & ~labels).any() or (outside & labels).any():
            return np.inf
        bound = labels.ravel() & (ways.ravel() >= 0) if ways is not None else np.zeros(9, bool)
        if ways is not None and not labels.ravel()[ways.ravel()[bound]].all():
            return np.inf
        flat = labels.ravel()
        borders = boundary[flat[edges.one] != flat[edges.other]].sum()
        return float(preference[~labels].sum() + borders)

    every = (np.array(bits).reshape(shape) for bits in product([False, True], repeat=found.size))
    assert cost(found) == pytest.approx(min(map(cost, every)))


def test_flow_through_a_bottleneck() -> None:
    """Three pixels in a row, the cheaper border is cut."""
    edges = Edges(np.array([0, 1], np.int32), np.array([1, 2], np.int32), np.ones(2))
    ends = np.array([[True, False, False]]), np.array([[False, False, True]])
    for boundary, middle in (([2.0, 1.0], True), ([1.0, 2.0], False)):
        found = minimum_cut(np.zeros((1, 3)), edges, np.array(boundary), *ends)
        assert found.tolist() == [[True, middle, False]]


@pytest.mark.parametrize("straight", [True, False])
def test_stars_are_convex(straight: bool) -> None:
    """Two blobs of one colour: plain graph cut takes both; a way to the far one must be paid."""
    seen = disk(60, 90, 30, 20, 14)
    image = paint(seen | disk(60, 90, 30, 60, 10))
    scene = make_scene(image, [plus(30, 20)], None)
    assert cv2.connectedComponents(cut(scene).astype(np.uint8))[0] == 3
    ways = straight_ways(scene.inside) if straight else geodesic_ways(image, scene.inside)
    found = cut(scene, ways)
    for pixel in np.flatnonzero(found):
        assert found.ravel()[follow(ways, int(pixel))].all()
    assert (found == seen).all() if straight else found[seen].all()


@pytest.mark.parametrize("method", METHODS)
def test_two_colours(method: str) -> None:
    """What is told apart by colour is found from one click, or a click on either side."""
    mask = disk(48, 64, 22, 30, 13)
    inner, outer = Click(28, 20, True), Click(55, 40, False)
    for clicks in ([inner], [inner, outer], [outer, inner]):
        found = answer(method, paint(mask), clicks)
        assert found.dtype == np.float32 and found.shape == mask.shape
        assert ((found > 0.49) == mask).all()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_tell_objects_by(method: str) -> None:
    image = paint(disk(20, 24, 10, 12, 6))
    assert not answer(method, image, []).any()
    assert not answer(method, image, [Click(12, 10, False)]).any()
    assert answer(method, image, [], np.ones((20, 24), bool)).all()
    assert answer(method, image[:1, :1], [Click(0, 0, True)]) == 1
    assert answer(method, image[:1, :1], [Click(0, 0, False)]) == 0


@pytest.mark.parametrize("method", METHODS)
def test_masks_to_start_from(method: str) -> None:
    """A rough border is mended; what a click contradicts goes, or comes."""
    whole, far = disk(80, 120, 40, 35, 22), disk(80, 120, 40, 95, 14)
    image = paint(whole | far)
    rough = np.roll(whole, 2, axis=1)
    assert iou(answer(method, image, [], rough) > 0.49, whole) > 0.97
    less = answer(method, image, [Click(95, 40, False)], whole | far) > 0.49
    assert not less[40, 95] and less[whole].mean() > 0.97
    if method != "grabcut":  # which goes by colours, and these do not differ
        assert not less[36:44, 91:99].any()
    more = answer(method, image, [Click(95, 40, True)], whole) > 0.49
    assert more[far].mean() > 0.9 and more[whole].mean() > 0.97


@pytest.mark.parametrize("method", METHODS)
def test_large_images(method: str) -> None:
    """The grid is smaller than the image; clicks hold to the pixel all the same."""
    mask = disk(160, 640, 80, 300, 60)
    clicks = [Click(290, 70, True), Click(600, 30, False), Click(300, 80, False)]
    clicks += [Click(301, 80, True), Click(0, 159, True), Click(639, 0, False)]
    assert GridProtocol.longest < 640
    found = answer(method, paint(mask), clicks[:1]) > 0.49
    assert iou(found, mask) > 0.97
    found = answer(method, paint(mask), clicks) > 0.49
    assert [found[int(c.y), int(c.x)] for c in clicks] == [c.positive for c in clicks]


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_hostile_images(method: str, data: st.DataObject) -> None:
    height, width = data.draw(st.tuples(st.integers(1, 16), st.integers(1, 16)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    kind = data.draw(st.sampled_from(["noise", "constant", "two", "ramp"]))
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    if kind == "constant":
        image[:] = image[0, 0]
    elif kind == "two":
        image = np.where(image[..., :1] > 200, np.uint8(255), np.uint8(0)).repeat(3, axis=2)
    elif kind == "ramp":
        image[:] = np.arange(width, dtype=np.uint8)[:, None]
    where = st.builds(Click, st.integers(0, width - 1), st.integers(0, height - 1), st.booleans())
    clicks = data.draw(st.lists(where, max_size=6))
    mask = data.draw(st.sampled_from([None, rng.random((height, width)) < rng.random()]))
    found = answer(method, image, clicks, mask)
    assert found.shape == (height, width) and ((found >= 0) & (found <= 1)).all()
    last = {(int(c.y), int(c.x)): c.positive for c in clicks}
    assert all((found[pixel] > 0.49) == positive for pixel, positive in last.items())
    assert (found == answer(method, image, clicks, mask)).all()


def test_the_given_mask_must_fit() -> None:
    with pytest.raises(ValueError, match="expected shape"):
        answer("gc", np.zeros((4, 5, 3), np.uint8), [], np.zeros((5, 4), bool))


def test_lab_is_the_usual_one() -> None:
    found = lab(np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8))
    assert found[0] == pytest.approx(
        np.array([[100, 0, 0], [0, 0, 0], [53.2, 80.1, 67.2]]), abs=0.2
    )


def test_evaluation(tmp_path: Path) -> None:
    """All six in one run of the command, from nothing and from masks; no network is needed."""
    folder = tiny_data.write_coco(tmp_path / "set", 1)
    content = json.loads((folder / "annotations.json").read_text())
    (tmp_path / "start.json").write_text(json.dumps(content))
    methods = [argument for name in METHODS for argument in ("--method", name)]
    common = [*methods, "--max-clicks", 4, "--strips", 0]
    sets = ["--dataset", f"scratch={folder}", "--dataset", f"given={folder}"]
    starts = ["--masks", f"given={tmp_path / 'start.json'}"]
    run("eval", *sets, *starts, *common, "--out", tmp_path / "out")
    results = json.loads((tmp_path / "out/noc.json").read_text())["results"]
    assert [(r["set"], r["model"], r["method"]) for r in results] == [
        (name, "-", method) for name in ("scratch", "given") for method in METHODS
    ]
    for result in results[: len(METHODS)]:
        assert result["miou@k"][-1] > 0.8 and result["miou@0"] == 0
    assert all(result["noc@90"] == 1 and result["already@90"] == 2 for result in results[6:])
