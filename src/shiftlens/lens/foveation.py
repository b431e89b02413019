"""`foveation`: in how many ways each pixel contributes to what a net computes.

With zero padding a pixel in the corner enters fewer windows than one in the middle; with reflect padding the pixels
just inside the border enter more. Counted through a whole net, these differences multiply.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shiftlens.arithmetic import Net, Unseen, graph_of, net_of
from shiftlens.errors import InputError
from shiftlens.graph import PICTURE, Graph, Site
from shiftlens.graph.sites import Pair
from shiftlens.lens.path_counts import Matrix, Override, axis_matrix
from shiftlens.models.skeletons import as_net

FloatArray = NDArray[np.float64]


def foveation(
    module: Net | str | Path,
    size: int | Pair | None = None,
    padding: str | None = None,
    *,
    layers: str | None = None,
    pools: bool = True,
) -> FloatArray:
    """Count the paths from each pixel to the last layer of a net.

    Weights play no part: every convolution tap counts 1, every tap of a pool 1 / k^2, activations and normalisation
    nothing. That is the gradient of the sum of the last layer's map, if every weight were 1. Numbers of channels are
    left out, but for the input's; branches that are added count each, those that are concatenated count by their share
    of the channels.

    Parameters
    ----------
    module
        A net or one layer; a `Model`; or a spec, of which no weights are loaded.
    size
        (h, w) or one number, pixels; default what the model declares.
    padding
        In place of the padding of every layer that pads: zeros, replicate, reflect, symmetric, circular, partial, full
        (kernel - 1 zeros on each side of every convolution) or none.
    layers
        "A:B", names of the first and the last layer; either may be left out. By default from the picture to the last
        convolution or sum of branches; what comes after (a last pool) is left out.
    pools
        Whether `padding` also holds for pools that pad.

    Returns
    -------
    NDArray[float64]
        [h, w] of the picture (or of the map that layer A reads).

    Raises
    ------
    InputError
        An unknown mode or layer (suggests), a layer whose rule is not known, branches that no longer fit together.

    Warns
    -----
    UserWarning
        The net does more than windows do, such as attention: the counts then end before it.

    Source
    ------
    One layer: arXiv 2010.02178, section 4. Whole nets: this project's formula, which agrees with the published figure.

    Examples
    --------
    >>> import torch
    >>> foveation(torch.nn.Conv2d(1, 1, 3, padding=1), (3, 4)).astype(int).tolist()
    [[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]]
    """
    override = None if padding is None else Override(padding, pools)
    net, size = as_net(module, size)
    with Unseen(net_of(net)) as unseen:
        graph = graph_of(net, size)
    first, last = _range(graph, layers)
    if layers is None and unseen.sentences():
        warnings.warn(
            f"paths are counted up to {last.name} of {graph.name} only; {'; '.join(unseen.sentences())}", stacklevel=2
        )
    matrices = _matrices(graph, first, last, override)
    h, w = (matrices[last.index][axis].shape[0] for axis in (0, 1))
    flow: dict[int, FloatArray] = {last.index: np.ones((h, w))}
    target = first.sources[0].index if first is not None and first.sources else PICTURE
    for site in reversed(graph.sites[: last.index + 1]):
        above = flow.pop(site.index, None) if site.index != target else None
        if above is None or (first is not None and site.index < first.index):
            continue
        if not site.sources:
            raise InputError(f"paths cannot be counted through {site.name}: {'; '.join(graph.notes)}")
        vertical, horizontal = matrices[site.index]
        below = np.asarray((vertical.T @ above) @ horizontal)
        for source in site.sources:
            part = source.share * below
            flow[source.index] = flow[source.index] + part if source.index in flow else part
    if target not in flow:
        raise InputError(f"{last.name} does not depend on the input of {first.name if first else 'the net'}")
    n_channels = graph.n_channels if target == PICTURE else graph.sites[target].out_channels
    return n_channels * flow[target]


def _range(graph: Graph, layers: str | None) -> tuple[Site | None, Site]:
    maps = [site for site in graph.of_kind("conv", "transposed conv", "sum") if max(site.out_size) > 1]
    maps = maps or [site for site in graph if site.kind != "unknown"]
    if not maps:
        raise InputError(f"{graph.name} has no spatial layers (convolutions or pools) that can be seen")
    if layers is None:
        return None, maps[-1]
    start, colon, end = layers.partition(":")
    if not colon:
        raise InputError(f"layers must be A:B, the names of the first and last layer, got {layers!r}")
    first = graph.find(start) if start else None
    last = graph.find(end) if end else maps[-1]
    if first is not None and first.index > last.index:
        raise InputError(f"layers must be in call order: {first.name} comes after {last.name}")
    return first, last


def _matrices(graph: Graph, first: Site | None, last: Site, override: Override | None) -> dict[int, list[Matrix]]:
    """Both axes of every site up to the last; sizes follow from the padding, which may not be the net's own."""
    found: dict[int, list[Matrix]] = {}
    needed = {last.index}
    for site in reversed(graph.sites[: last.index + 1]):
        needed |= {source.index for source in site.sources if site.index in needed}
    for site in graph.sites[0 if first is None else first.index : last.index + 1]:
        if site.index not in needed:
            continue
        sizes = []
        for source in site.sources:
            if source.index == PICTURE:
                sizes.append(graph.size)
            elif source.index in found:
                sizes.append((found[source.index][0].shape[0], found[source.index][1].shape[0]))
            else:  # before the first layer: as the net is
                sizes.append(graph.sites[source.index].out_size)
        if len(set(sizes)) > 1:
            shown = " and ".join(f"{h}x{w}" for h, w in dict.fromkeys(sizes))
            raise InputError(f"with this padding, branches of {shown} cells would meet at {site.name}")
        size = sizes[0] if sizes else site.in_size
        found[site.index] = [axis_matrix(site, axis, size[axis], override) for axis in (0, 1)]
    return found
