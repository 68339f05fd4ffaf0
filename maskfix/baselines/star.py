"""Star convexity: Gulshan, Rother, Criminisi, Blake and Zisserman, "Geodesic star convexity for
interactive image segmentation", CVPR 2010; the Euclidean kind with one star is due to Veksler,
"Star shape prior for graph-cut image segmentation", ECCV 2008.

Every pixel of the object sees a seed of the object: the way from it to its nearest seed lies in the
object. Ways are straight, or geodesic: short and without change of colour. Otherwise, graph cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from maskfix.baselines.colours import lab
from maskfix.baselines.graphcut import cut
from maskfix.baselines.grid import Classical
from maskfix.baselines.lattice import IntArray, geodesic, neighbours, squared_differences
from maskfix.baselines.seeds import BoolArray, Scene

GRADIENT = 0.7  # share of changes of colour in the length of a way


class EuclideanStar(Classical):
    """Graph cut where straight ways to the nearest seed stay in the object."""

    def segment(self, scene: Scene) -> BoolArray:
        """See `Classical`."""
        return cut(scene, straight_ways(scene.inside))


class GeodesicStar(Classical):
    """Graph cut where geodesic ways to the nearest seed stay in the object."""

    def segment(self, scene: Scene) -> BoolArray:
        """See `Classical`."""
        return cut(scene, geodesic_ways(scene.image, scene.inside))


def straight_ways(centers: BoolArray) -> IntArray:
    """The next pixel on the straight way to the nearest centre, of 8 neighbours.

    Args:
        centers: (h, w) bool, at least one.

    Returns:
        (h, w) int32, numbers of pixels in reading order; -1 at centres.
    """
    nearest = distance_transform_edt(~centers, return_distances=False, return_indices=True)
    rows, cols = np.indices(centers.shape)
    down, right = nearest[0] - rows, nearest[1] - cols
    longer = np.maximum(np.maximum(abs(down), abs(right)), 1)
    next_rows, next_cols = rows + np.rint(down / longer), cols + np.rint(right / longer)
    return np.where(centers, -1, next_rows * centers.shape[1] + next_cols).astype(np.int32)


def geodesic_ways(image: NDArray[np.uint8], centers: BoolArray) -> IntArray:
    """The next pixel on the geodesic way to the nearest centre; see `straight_ways`.

    The squared length of a step is a weighted mean of its squared length in pixels and its squared
    change of colour, in units of the mean change over the image.
    """
    colours = lab(image)
    edges = neighbours(*centers.shape)
    change = squared_differences(edges, colours)
    change /= max(change.mean() if change.size else 0.0, 1e-9)
    lengths = np.sqrt((1 - GRADIENT) * edges.length**2 + GRADIENT * change)
    return geodesic(edges, lengths, centers)[1]
