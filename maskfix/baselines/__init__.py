"""Methods to compare with: what ``maskfix eval --method`` offers beside the paper's own.

`BASELINES` names them; `base.Baseline` is what each of them is. Importing this module loads none of
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal


@dataclass(frozen=True)
class Entry:
    """One method.

    Attributes:
        where: ``module:class`` below ``maskfix.baselines``; the class is a `base.Baseline`.
        title: for people, with its source.
        needs: what it runs on, given to its constructor first: ``"model"`` is one of ours and the
            protocol it is run under (`PaperProtocol` or `FastProtocol`), ``"file"`` a path that
            the user gives as ``--method NAME=PATH``.
        arguments: further ones of its constructor.
    """

    where: str
    title: str
    needs: Literal["model", "file", "nothing"] = "nothing"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def constructor(self) -> Any:
        """The class; imports what it needs."""
        module, name = self.where.split(":")
        return getattr(import_module(f"maskfix.baselines.{module}"), name)


_F_BRS = "Sofiiuk et al., CVPR 2020"
_BRS = "Jang and Kim, CVPR 2019"

BASELINES: dict[str, Entry] = {
    **{
        f"f-brs-{place.lower()}": Entry(
            "brs:FeatureBRS", f"f-BRS-{place} ({_F_BRS})", "model", {"place": place}
        )
        for place in "ABC"
    },
    "rgb-brs": Entry("brs:InputBRS", f"RGB-BRS ({_F_BRS})", "model", {"target": "rgb"}),
    "distmap-brs": Entry("brs:InputBRS", f"DistMap-BRS ({_BRS})", "model", {"target": "clicks"}),
    "gc": Entry("graphcut:GraphCut", "graph cut (Boykov and Jolly, ICCV 2001)"),
    "gm": Entry("geodesic:GeodesicMatting", "geodesic matting (Bai and Sapiro, IJCV 2009)"),
    "rw": Entry("random_walker:RandomWalker", "random walker (Grady, TPAMI 2006)"),
    "esc": Entry("star:EuclideanStar", "Euclidean star convexity (Gulshan et al., CVPR 2010)"),
    "gsc": Entry("star:GeodesicStar", "geodesic star convexity (Gulshan et al., CVPR 2010)"),
    "grabcut": Entry("grabcut:GrabCut", "GrabCut (Rother et al., SIGGRAPH 2004)"),
    "sam": Entry("sam:SegmentAnything", "SAM as ONNX files (Kirillov et al., ICCV 2023)", "file"),
}
"""All methods to compare with, by name."""
