"""Random walker: Grady, "Random walks for image segmentation", TPAMI 2006; scikit-image's.

A pixel is of the object if a walker that starts there, and dislikes changes of colour, reaches a
seed of the object first with a probability of at least one half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import random_walker

from maskfix.baselines.grid import Classical
from maskfix.baselines.seeds import Scene

DISLIKE = 130.0  # of changes of colour: scikit-image's beta, and its default


class RandomWalker(Classical):
    """Probabilities of reaching the object first."""

    def segment(self, scene: Scene) -> NDArray[np.float64]:
        """See `Classical`."""
        labels = np.zeros(scene.inside.shape, np.int32)
        labels[scene.inside], labels[scene.outside] = 1, 2
        colours = scene.image / 255
        if colours.std() == 0:  # scikit-image divides by it
            colours[0, 0] += 1 / 255
        found = random_walker(
            colours, labels, beta=DISLIKE, mode="bf", return_full_prob=True, channel_axis=-1
        )
        return np.asarray(np.clip(found[0], 0, 1))
