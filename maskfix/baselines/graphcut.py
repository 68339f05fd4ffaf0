"""Graph cut: Boykov and Jolly, "Interactive graph cuts for optimal boundary and region
segmentation of objects in N-D images", ICCV 2001.

Region costs are log densities of mixtures of Gaussians where the paper has histograms, as in
Gulshan et al. 2010 have them. Boundary costs fall with contrast, on 8 neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from maskfix.baselines.colours import lab, log_densities
from maskfix.baselines.grid import Classical
from maskfix.baselines.lattice import Edges, IntArray, neighbours, squared_differences
from maskfix.baselines.seeds import BoolArray, Scene

FloatArray = NDArray[np.float64]

SMOOTHNESS = 15.0  # of a border between equal colours, in nats a pixel
UNIT = 20  # of flow to a nat: capacities are whole numbers
FORCED = 1 << 30  # capacity that is never cut


class GraphCut(Classical):
    """Object and background of least energy."""

    def segment(self, scene: Scene) -> BoolArray:
        """See `Classical`."""
        return cut(scene)


def cut(scene: Scene, towards: IntArray | None = None) -> BoolArray:
    """The division of least energy, exact up to the rounding of capacities.

    Args:
        scene: with seeds of both kinds.
        towards: (h, w), a pixel that each pixel implies: a pixel is of the object only if that is,
            too; -1 for none. Seeds of the object imply none.

    Returns:
        (h, w) bool.
    """
    colours = lab(scene.image)
    edges = neighbours(*scene.inside.shape)
    boundary = contrast(edges, colours) * SMOOTHNESS
    as_object, as_background = log_densities(scene, colours)
    return minimum_cut(
        as_object - as_background, edges, boundary, scene.inside, scene.outside, towards
    )


def contrast(edges: Edges, colours: FloatArray) -> FloatArray:
    """(E,) in [0, 1]: low where a border is likely, by colours and length."""
    squared = squared_differences(edges, colours)
    mean = squared.mean() if squared.size else 0.0
    return np.asarray(np.exp(-squared / max(2 * mean, 1e-9)) / edges.length)


def minimum_cut(
    preference: FloatArray,
    edges: Edges,
    boundary: FloatArray,
    inside: BoolArray,
    outside: BoolArray,
    towards: IntArray | None = None,
) -> BoolArray:
    """Divide pixels so that the costs of pixels and of cut edges are least.

    Seeds are merged into the terminals of the network.

    Args:
        preference: (h, w), what a pixel costs as background less what it costs as object.
        edges: between pixels.
        boundary: (E,), what it costs to cut them.
        inside: (h, w), seeds of the object.
        outside: (h, w), seeds of the background, others.
        towards: see `cut`.

    Returns:
        (h, w) bool; of several equally good divisions the one with the least object.
    """
    count = preference.size
    source, sink = count, count + 1
    pixels = np.arange(count, dtype=np.int32)
    gain = np.rint(preference.ravel() * UNIT).astype(np.int32)
    wanted, unwanted = pixels[gain > 0], pixels[gain < 0]
    price = np.rint(boundary * UNIT).astype(np.int32)
    tails = [edges.one, edges.other, np.full(len(wanted), source), unwanted]
    heads = [edges.other, edges.one, wanted, np.full(len(unwanted), sink)]
    capacities = [price, price, gain[wanted], -gain[unwanted]]
    if towards is not None:
        bound = pixels[towards.ravel() >= 0]
        tails.append(bound)
        heads.append(towards.ravel()[bound])
        capacities.append(np.full(len(bound), FORCED))
    node = np.append(pixels, [source, sink])
    node[:count][inside.ravel()] = source
    node[:count][outside.ravel()] = sink
    tail, head = node[np.concatenate(tails)], node[np.concatenate(heads)]
    capacity = np.concatenate(capacities)
    useful = (tail != head) & (tail != sink) & (head != source) & (capacity > 0)
    reached = _source_side(tail[useful], head[useful], capacity[useful], count + 2)
    return np.asarray(reached[node[:count]].reshape(preference.shape))


def _source_side(tail: IntArray, head: IntArray, capacity: IntArray, count: int) -> BoolArray:
    """Which nodes a maximum flow leaves connected with the source; that and the sink are last."""
    shape = (count, count)
    network = csr_array(coo_array((capacity.astype(np.int32), (tail, head)), shape=shape))
    flow = maximum_flow(network, count - 2, count - 1).flow
    residual = csr_array(network - flow)
    residual.eliminate_zeros()
    reached = np.zeros(count, bool)
    reached[breadth_first_order(residual, count - 2, return_predecessors=False)] = True
    return reached
