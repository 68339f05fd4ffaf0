"""A network as an ONNX file, to run where torch is not (needs the extra ``onnx``).

What goes in and comes out is written into the file's metadata, under the key ``maskfix``, as JSON.
The graph computes what the predictor's network computes, batch norm folded, to 1e-3
(`largest_difference` measures it), for any batch, number of clicks, and size in steps of 32.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskfix.errors import InputError, UsageError
from maskfix.files import atomic_write
from maskfix.model.checkpoint import Model
from maskfix.model.click_maps import ClickMaps
from maskfix.model.inference import prepare
from maskfix.model.network import ClickNetwork

OPSET = 18
MULTIPLE = 32
"""Heights and widths are multiples of this: the networks' largest stride."""

TOLERANCE = 1e-3
"""How far logits of torch and of ONNX Runtime may be apart."""

NEEDED = "this needs the packages onnx, onnxscript and onnxruntime: pip install 'maskfix[onnx]'"


class DenseClickMaps(ClickMaps):
    """`ClickMaps` for exported graphs: every pixel is compared with every click.

    That needs no loop over the clicks, whose number may vary, and no scattering, which runtimes
    differ in. It is slower where images are large.
    """

    def _disks(self, yx: Tensor, valid: Tensor, channel: Tensor, height: int, width: int) -> Tensor:
        d2 = self._squared(yx, height, width)  # (B, P, H, W)
        radius = yx.new_tensor(self.radii)[channel // 2]
        inside = (d2 <= (radius**2)[..., None, None]) & valid[..., None, None]
        maps = [
            (inside & (channel == c)[..., None, None]).to(d2.dtype).amax(1)
            for c in range(self.channels)
        ]
        return torch.stack(maps, dim=1)

    def _distances(
        self, yx: Tensor, valid: Tensor, channel: Tensor, height: int, width: int
    ) -> Tensor:
        d2 = self._squared(yx, height, width)
        maps = []
        for c in range(self.channels):
            used = (valid & (channel == c))[..., None, None]
            nearest = torch.where(used, d2, torch.inf).amin(1)
            maps.append(torch.tanh(2 * nearest.sqrt() / self.radii[c // 2]))
        return torch.stack(maps, dim=1)

    @staticmethod
    def _squared(yx: Tensor, height: int, width: int) -> Tensor:
        row_d2 = (torch.arange(height, device=yx.device) - yx[..., 0:1]) ** 2
        col_d2 = (torch.arange(width, device=yx.device) - yx[..., 1:2]) ** 2
        return row_d2[..., :, None] + col_d2[..., None, :]


class _Exported(nn.Module):
    """The network with one output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, points: Tensor) -> Tensor:
        logits: Tensor = self.network(image, points)["instances"]
        return logits


def export_onnx(model: Model, path: Path, threshold: float) -> float:
    """Write a model as an ONNX file, complete or not at all, and compare it with torch.

    Args:
        model: on the CPU.
        path: the file; replaced if it exists.
        threshold: a pixel is in the mask where its probability is above this; for the metadata.

    Returns:
        the largest difference of logits that was found, see `largest_difference`.

    Raises:
        UsageError: the extra is not installed.
        InputError: the network cannot be exported, or answers differ by more than `TOLERANCE`, or
            the file cannot be written.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise UsageError(NEEDED) from None
    program = trace(model.network)
    program.doc_string = f"maskfix {model.name}: see the metadata entry 'maskfix'"
    entry = program.metadata_props.add()
    entry.key, entry.value = "maskfix", json.dumps(_contract(model, threshold), indent=1)
    onnx.checker.check_model(program)
    content = program.SerializeToString()
    found = largest_difference(model.network, content)
    if not found <= TOLERANCE:
        raise InputError(
            f"{path}: logits of the exported network differ by {found:.2g} from torch, more than "
            f"{TOLERANCE:g}; not written"
        )
    try:
        atomic_write(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return found


def largest_difference(network: ClickNetwork, onnx_file: bytes | Path, seed: int = 0) -> float:
    """The largest difference of logits between torch and ONNX Runtime, on the CPU.

    Noise images of two sizes and batch sizes, with random masks and different numbers of clicks,
    none among them.
    """
    import onnxruntime

    given = onnx_file if isinstance(onnx_file, bytes) else str(onnx_file)
    session = onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    largest = 0.0
    for batch, height, width, slots in ((1, 96, 64, 1), (3, 64, 128, 3)):
        channels = 4 if network.with_prev_mask else 3
        image = rng.random((batch, channels, height, width), dtype=np.float32)
        points = rng.integers(0, 64, (batch, 2 * slots, 3)).astype(np.float32)
        points[rng.random((batch, 2 * slots)) < 0.4] = -1
        with torch.inference_mode():
            expected = network(torch.from_numpy(image), torch.from_numpy(points))["instances"]
        [found] = session.run(["logits"], {"image": image, "points": points})
        largest = max(largest, float(np.abs(found - expected.numpy()).max()))
    return largest


def trace(network: ClickNetwork) -> Any:
    """The graph of a network in eval mode, as an onnx ``ModelProto`` without metadata.

    Raises:
        InputError: torch cannot export it.
    """
    prepared = prepare(network)  # a copy
    assert isinstance(prepared, ClickNetwork)
    maps = prepared.click_maps
    prepared.click_maps = DenseClickMaps(maps.radii, maps.encoding)
    dims = torch.export.Dim
    batch, half = dims("batch", min=1, max=4096), dims("clicks", min=1, max=512)
    rows, cols = dims("rows", min=1, max=256), dims("columns", min=1, max=256)
    example = torch.rand(2, 4 if network.with_prev_mask else 3, 2 * MULTIPLE, 3 * MULTIPLE)
    points = torch.full((2, 6, 3), -1.0)
    points[:, 0] = torch.tensor([20.0, 30.0, 0.0])
    points[:, 3] = torch.tensor([40.0, 70.0, 1.0])
    shapes = {
        "image": {0: batch, 2: MULTIPLE * rows, 3: MULTIPLE * cols},
        "points": {0: batch, 1: 2 * half},
    }
    try:
        with _quiet():
            program = torch.onnx.export(
                _Exported(prepared).eval(),
                (example, points),
                input_names=["image", "points"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"torch {torch.__version__} cannot export this network: {reason}"
        ) from error
    assert program is not None
    return program.model_proto


def _contract(model: Model, threshold: float) -> dict[str, Any]:
    mask = ", then the previous mask: probabilities in [0, 1], zeros for none"
    channels = f"RGB in [0, 1]{mask if model.network.with_prev_mask else ''}"
    return {
        "format": 1,
        "name": model.name,
        "network": model.network_name,
        "arguments": model.arguments,
        "weights_sha256": model.checksum,
        "trained": model.trained,
        "inputs": {
            "image": f"(B, {4 if model.network.with_prev_mask else 3}, H, W) float32: {channels}; "
            f"H and W are multiples of {MULTIPLE}",
            "points": "(B, 2N, 3) float32, N at least 1: rows (y, x, order of the click from 0) in "
            "pixels of the input; the first N positive, the last N negative; unused ones -1, -1, "
            "-1. The centre of the top left pixel is (0, 0)",
        },
        "outputs": {
            "logits": "(B, 1, H, W) float32; a pixel is in the mask where sigmoid(logit) > "
            f"{threshold}"
        },
        "view": "crop the object with 1.4 times its extent and resize to about "
        + ("256 x 256" if model.protocol == "fast" else "400 pixels, longer side"),
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells its progress and internal deprecations to everybody."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
