"""GrabCut: Rother, Kolmogorov and Blake, "GrabCut: interactive foreground extraction using iterated
graph cuts", SIGGRAPH 2004; OpenCV's.
"""

from __future__ import annotations

import cv2
import numpy as np

from maskfix.baselines.grid import Classical
from maskfix.baselines.seeds import BoolArray, Scene

ROUNDS = 5  # of learning colours and cutting


class GrabCut(Classical):
    """Graph cuts and colour models in turn, from what is probably the object."""

    def segment(self, scene: Scene) -> BoolArray:
        """See `Classical`.

        Without a mask to start from, the probable object is what lies nearer to a seed of the
        object than to one of the background.
        """
        probable = nearer(scene.inside, scene.outside) if scene.given is None else scene.given
        state = np.where(probable, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        state[scene.inside], state[scene.outside] = cv2.GC_FGD, cv2.GC_BGD
        cv2.setRNGSeed(0)  # its k-means draws the first components
        models = np.zeros((1, 65)), np.zeros((1, 65))
        bgr = np.ascontiguousarray(scene.image[..., ::-1])
        cv2.grabCut(bgr, state, (0, 0, 1, 1), *models, ROUNDS, cv2.GC_INIT_WITH_MASK)
        return np.isin(state, (cv2.GC_FGD, cv2.GC_PR_FGD))


def nearer(inside: BoolArray, outside: BoolArray) -> BoolArray:
    """(h, w) bool: pixels whose nearest seed is one of the object."""
    to_inside, to_outside = (
        cv2.distanceTransform((~seeds).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
        for seeds in (inside, outside)
    )
    return np.asarray(to_inside < to_outside)
