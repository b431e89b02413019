"""From a net or a `Model` to the list of its spatial sites."""

from __future__ import annotations

from torch import nn

from shiftlens.errors import InputError
from shiftlens.graph import Graph, trace
from shiftlens.graph.geometry import TileGeometry, geometry_of
from shiftlens.graph.sites import Pair
from shiftlens.models.probing import channel_candidates, evaluating, input_channels, refuse_script
from shiftlens.models.wrapping import Model

Net = nn.Module | Model


def net_of(model: Net) -> nn.Module:
    """The `nn.Module` itself.

    Raises
    ------
    InputError
        A bare callable or TorchScript, which show no layers, or something else.
    """
    module = model.module if isinstance(model, Model) else model
    if not isinstance(module, nn.Module):
        raise InputError(f"expected an nn.Module or a Model of one, got {type(module).__name__}: it shows no layers")
    refuse_script(module, model.name if isinstance(model, Model) else type(module).__name__)
    return module


def pixels(size: int | Pair) -> Pair:
    """One number or (h, w) as (h, w); `InputError` for anything that is not whole pixels of at least 1."""
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in both):
        raise InputError(f"size must be H or (h, w), whole pixels of at least 1, got {size!r}")
    return both[0], both[1]


def graph_of(model: Net, size: int | Pair, *, name: str | None = None, on_meta: bool = True) -> Graph:
    """The sites of a net, in evaluation mode, each layer back in its own mode afterwards; see `graph.trace`.

    Parameters
    ----------
    model
        An `nn.Module`, or a `Model`, which knows its number of channels.
    size
        (h, w) or one number, pixels.
    name
        For people; default the model's name, or the net's type.
    on_meta
        See `graph.trace`.

    Raises
    ------
    InputError
        See `graph.trace`, `net_of` and `pixels`.
    """
    module = net_of(model)
    title = name or (model.name if isinstance(model, Model) else type(module).__name__)
    guesses = (model.n_channels,) if isinstance(model, Model) else channel_candidates(module)
    refused: InputError | None = None
    with evaluating(module):
        for n_channels in guesses:
            try:
                return trace(module, pixels(size), n_channels=n_channels, name=title, on_meta=on_meta)
            except InputError as error:
                # What fails with the channels of its first convolution fails for another reason.
                refused = error if refused is None or n_channels == input_channels(module) else refused
    assert refused is not None
    raise refused


def tile_geometry(model: Net, size: int | Pair, *, name: str | None = None) -> TileGeometry:
    """The grid that tiles of an image must stand on, and the real context that they need, in evaluation mode.

    Parameters
    ----------
    model, name
        As in `graph_of`.
    size
        (h, w) or one number, pixels; any that the net takes. Sides that are no multiples of the grid are rounded up.

    Raises
    ------
    InputError
        See `graph_of`; and a net that returns no map, such as a classifier.

    Examples
    --------
    >>> from shiftlens.nn.unet import UNet
    >>> found = tile_geometry(UNet(width=4), 64)
    >>> found.grid, found.overlap, found.is_local
    ((8, 8), (48, 48), True)
    """
    return geometry_of(graph_of(model, size, name=name), lambda other: graph_of(model, other, name=name))
