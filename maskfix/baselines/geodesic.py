"""Geodesic matting: Bai and Sapiro, "Geodesic matting: a framework for fast interactive image and
video segmentation and matting", IJCV 2009.

A pixel is of the object if the way to the object's seeds is shorter than that to the background's,
where the length of a way is the change along it of how much its colours look like the object.
Colour densities are those of `colours`, in place of the paper's kernel estimates; its matting of a
narrow band along the border is left out, since masks have no opacities.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskfix.baselines.colours import lab, log_densities
from maskfix.baselines.grid import Classical
from maskfix.baselines.lattice import geodesic, neighbours, squared_differences
from maskfix.baselines.seeds import Scene

FloatArray = NDArray[np.float64]

FLAT = 1e-3  # length of a way of one pixel without any change, so that ties go to the nearer seed


class GeodesicMatting(Classical):
    """The nearer seeds decide, by geodesic distances."""

    def segment(self, scene: Scene) -> FloatArray:
        """See `Classical`."""
        as_object, as_background = log_densities(scene, lab(scene.image))
        likeness = 1 / (1 + np.exp(as_background - as_object))
        edges = neighbours(*scene.inside.shape)
        lengths = np.sqrt(squared_differences(edges, likeness)) + FLAT * edges.length
        to_object, _ = geodesic(edges, lengths, scene.inside)
        to_background, _ = geodesic(edges, lengths, scene.outside)
        return to_background / (to_object + to_background)
