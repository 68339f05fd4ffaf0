"""maskfix: repair instance masks in batch with a few clicks.

    import maskfix
    model = maskfix.load_model("lite")
    predictor = maskfix.Predictor(model)
    probabilities = predictor.predict(image, [maskfix.Click(x=120, y=44, positive=True)], mask)

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskfix.config import RefineConfig
    from maskfix.masks import Mask
    from maskfix.model.checkpoint import load_model
    from maskfix.model.registry import build_network
    from maskfix.predictor import FastProtocol, PaperProtocol, Predictor, Request
    from maskfix.refinement.run import refine
    from maskfix.types import Click
    from maskfix.version import __version__

_HOMES = {
    "Click": "maskfix.types",
    "FastProtocol": "maskfix.predictor",
    "Mask": "maskfix.masks",
    "PaperProtocol": "maskfix.predictor",
    "Predictor": "maskfix.predictor",
    "RefineConfig": "maskfix.config",
    "Request": "maskfix.predictor",
    "__version__": "maskfix.version",
    "build_network": "maskfix.model.registry",
    "load_model": "maskfix.model.checkpoint",
    "refine": "maskfix.refinement.run",
}

__all__ = [
    "Click",
    "FastProtocol",
    "Mask",
    "PaperProtocol",
    "Predictor",
    "RefineConfig",
    "Request",
    "__version__",
    "build_network",
    "load_model",
    "refine",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maskfix' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
