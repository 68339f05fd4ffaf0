"""SAM and its kin (Kirillov et al., ICCV 2023) as ONNX files of their public exporters.

A folder holds two files: the image encoder and the prompt decoder. Encoders take a normalised and
padded (1, 3, S, S) image, or the resized (h, w, 3) RGB image where the exporter built that into the
network. Decoders have the inputs of `PROMPTS` (those without a mask prompt are told clicks alone)
and give ``low_res_masks`` or square ``masks``, with ``iou_predictions`` or ``scores``.

Legend: H, W the image; S the square that the encoder works on, mostly 1024; M masks of an answer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from maskfix.baselines.base import Baseline
from maskfix.crops import Size, resample
from maskfix.errors import InputError, UsageError
from maskfix.masks import Mask
from maskfix.predictor import PaperProtocol, Session
from maskfix.predictor.session import FloatArray, View

EMBEDDING = "image_embeddings"
CLICKS = ("point_coords", "point_labels")
PROMPTS = (EMBEDDING, *CLICKS, "mask_input", "has_mask_input", "orig_im_size")
"""Inputs of a decoder; the last three may be missing."""

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
LOW_SIDE = 256  # of a mask prompt, where the decoder's input does not say
SHRINKING = 4  # from the encoder's input to a mask prompt
GIVEN_LOGIT = 10.0  # of a given mask, inside; outside its negative
NO_POINT = -1.0  # label of the point that is added in place of a box


@dataclass(eq=False)
class Picture:
    """An image and, once it is needed, what the encoder says of it."""

    pixels: NDArray[np.uint8]
    embedding: NDArray[Any] | None = None


@dataclass
class State:
    """What is remembered of an instance.

    Attributes:
        picture: shared by instances of one image that follow each other.
        logits: (low, low) float32, the latest answer in the padded square; None before it.
    """

    picture: Picture
    logits: FloatArray | None = None


class SegmentAnything(Baseline):
    """Prompts: all clicks each time, and the mask before them, given or predicted.

    Args:
        folder: with the two .onnx files.

    Raises:
        UsageError: onnxruntime is missing.
        InputError: there are not exactly an encoder and a decoder, or they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(PaperProtocol(zoom_target=None, threshold=0.5))
        self._encoder, self._decoder = _open(folder)
        inputs = {node.name: node.shape for node in self._decoder.get_inputs()}
        self._low_side = _side(inputs.get("mask_input", ()), LOW_SIDE)
        self._side = _side(self._encoder.get_inputs()[0].shape, SHRINKING * self._low_side)
        self._wanted = frozenset(inputs)
        self._states: WeakKeyDictionary[Session, State] = WeakKeyDictionary()
        self._latest: Picture | None = None

    def start(self, image: NDArray[np.uint8], mask: NDArray[Any] | Mask | None = None) -> Session:
        """See `Baseline`; instances of one image share its embedding if they follow each other."""
        session = super().start(image, mask)
        if self._latest is None or self._latest.pixels is not image:
            self._latest = Picture(image)
        self._states[session] = State(self._latest)
        return session

    def answer(self, session: Session) -> FloatArray:
        """See `Baseline`."""
        view, state = session.view(), self._states[session]
        picture = state.picture
        if picture.embedding is None:
            picture.embedding = self._encode(picture.pixels)
        prompt = state.logits
        if prompt is None and session.given:
            prompt = self._given(view.mask[0].numpy())
        logits = self._decode(picture, view, prompt)
        state.logits = resample(logits, Size(self._low_side, self._low_side))
        return _sigmoid(self._place(logits, *picture.pixels.shape[:2]))

    def _shown(self, height: int, width: int) -> Size:
        """The size of an image of H x W within the square."""
        scale = self._side / max(height, width)
        return Size(max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))

    def _encode(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """The embedding of an (H, W, 3) image."""
        [node] = self._encoder.get_inputs()
        shown = resample(image, self._shown(*image.shape[:2])).astype(np.float32)
        if len(node.shape) == 4:
            square = np.zeros((self._side, self._side, 3), np.float32)
            square[: shown.shape[0], : shown.shape[1]] = (shown - MEAN) / STD
            shown = square.transpose(2, 0, 1)[None]
        embedding: NDArray[Any] = self._encoder.run(None, {node.name: shown})[0]
        return embedding

    def _given(self, probabilities: FloatArray) -> FloatArray:
        """The prompt for a mask that was given as (H, W) probabilities."""
        shown = self._shown(*probabilities.shape)
        square = np.zeros((self._side, self._side), np.float32)
        square[: shown.height, : shown.width] = resample(probabilities, shown)
        inside = resample(square, Size(self._low_side, self._low_side))
        logits: FloatArray = np.float32(GIVEN_LOGIT) * (2 * inside - 1)
        return logits

    def _decode(self, picture: Picture, view: View, prompt: FloatArray | None) -> FloatArray:
        """The best mask's logits in the padded square, (low, low)."""
        height, width = picture.pixels.shape[:2]
        shown = self._shown(height, width)
        scale = np.array([shown.width / width, shown.height / height])
        clicks = np.array([(point.col, point.row) for point in view.points]).reshape(-1, 2)
        labels = [float(point.positive) for point in view.points]
        if prompt is None:
            mask = np.zeros((self._low_side, self._low_side), np.float32)
        else:
            mask = prompt
        feeds = {
            EMBEDDING: picture.embedding,
            "point_coords": np.concatenate([clicks * scale, np.zeros((1, 2))])[None],
            "point_labels": np.array([[*labels, NO_POINT]]),
            "mask_input": mask[None, None],
            "has_mask_input": np.array([prompt is not None]),
            "orig_im_size": np.array([height, width]),
        }
        outputs = self._decoder.run(
            None, {k: np.asarray(v, np.float32) for k, v in feeds.items() if k in self._wanted}
        )
        names = (node.name for node in self._decoder.get_outputs())
        return _best(dict(zip(names, outputs, strict=True)), len(labels))

    def _place(self, logits: FloatArray, height: int, width: int) -> FloatArray:
        """Square logits in the image, (H, W)."""
        shown = self._shown(height, width)
        square = resample(logits, Size(self._side, self._side))
        cut = np.ascontiguousarray(square[: shown.height, : shown.width])
        placed: FloatArray = resample(cut, Size(height, width))
        return placed


def _best(outputs: dict[str, NDArray[Any]], clicks: int) -> FloatArray:
    """Of several masks the one for unambiguous prompts, the first of four; for a single click the
    best of the others by predicted IoU (SAM, section 3)."""
    masks = outputs.get("low_res_masks", outputs.get("masks"))
    if masks is None or masks.shape[-1] != masks.shape[-2]:
        found = ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
        raise InputError(f"the decoder gives {found}; expected low_res_masks, (1, M, h, h)")
    masks = masks.reshape(-1, *masks.shape[-2:])
    scores = outputs.get("iou_predictions", outputs.get("scores"))
    if len(masks) == 1 or scores is None:
        best = 0
    elif len(masks) == 4:
        best = 0 if clicks > 1 else 1 + int(scores.reshape(-1)[1:].argmax())
    else:
        best = int(scores.reshape(-1).argmax())
    logits: FloatArray = masks[best].astype(np.float32)
    return logits


def _open(folder: Path) -> tuple[Any, Any]:
    """The encoder and the decoder in a folder, told apart by their inputs."""
    try:
        import onnxruntime
    except ImportError:
        raise UsageError("--method sam needs onnxruntime: pip install 'maskfix[onnx]'") from None
    files = sorted(folder.glob("*.onnx"))
    if len(files) != 2:
        found = ", ".join(file.name for file in files) or "none"
        raise InputError(
            f"{folder}: expected a folder with two .onnx files, image encoder and prompt decoder; "
            f"found {found}"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = _threads()
    decoders, encoders = [], []
    for file in files:
        try:
            session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's have no common base
            line = " ".join(str(error).split())[:200]
            raise InputError(f"{file}: cannot be read as ONNX: {line}") from error
        inputs = [node.name for node in session.get_inputs()]
        if set(CLICKS) <= set(inputs):
            unknown = [name for name in inputs if name not in PROMPTS]
            if unknown or EMBEDDING not in inputs:
                raise InputError(
                    f"{file}: a decoder with inputs {', '.join(inputs)} is of another kind; "
                    f"expected {', '.join(PROMPTS)}"
                )
            decoders.append(session)
        elif len(inputs) == 1:
            encoders.append(session)
    if len(decoders) != 1 or len(encoders) != 1:
        raise InputError(
            f"{folder}: expected one decoder, with inputs {', '.join(PROMPTS)}, and one encoder, "
            f"with the image; found {len(decoders)} and {len(encoders)}"
        )
    return encoders[0], decoders[0]


def _threads() -> int:
    """As many as ``OMP_NUM_THREADS`` says, which torch heeds by itself; else 0, for all cores."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(first) if first.isdecimal() else 0


def _side(shape: Any, default: int) -> int:
    """The extent that a square input asks for."""
    return shape[-1] if len(shape) == 4 and isinstance(shape[-1], int) else default


def _sigmoid(logits: FloatArray) -> FloatArray:
    """Without overflow."""
    probabilities: FloatArray = (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)
    return probabilities
