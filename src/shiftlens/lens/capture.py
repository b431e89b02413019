"""What a net computes on the way: stepping through a chain by hand, and watching any net's sites by key.

A chain of layers (`nn.Sequential`) can be stepped through in four lines, and that is all there is to it: see `step`.
Most nets are no chains. Then the forward pass runs as it is, and whoever wants a site's map is shown it the moment it
is made (`capture`): nothing is kept unless the caller keeps it, so memory does not grow with the net.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shiftlens.errors import InputError
from shiftlens.graph import OpKey, Site
from shiftlens.graph.flow import tensors_in
from shiftlens.graph.watching import Watch
from shiftlens.models.probing import evaluating

Visit = Callable[[Site, Tensor], None]
"""Called with a site and its map [n, c, h, w], which is valid only during the call: the net may overwrite it."""


def step(chain: nn.Sequential, x: Tensor, path: str = "") -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Go through a chain of layers one by one: path, layer and output of each; chains inside are stepped through too.

    Parameters
    ----------
    chain
        Layers that follow each other.
    x
        The input.
    path
        What stands before each path.

    Yields
    ------
    path, layer, output
        The output is a copy, since a layer that works in place changes the one before.

    Examples
    --------
    >>> chain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    >>> [(path, tuple(y.shape)) for path, layer, y in step(chain, torch.zeros(1, 1, 5, 5))]
    [('0', (1, 2, 3, 3)), ('1', (1, 2, 3, 3))]
    """
    for name, layer in chain.named_children():
        if isinstance(layer, nn.Sequential):
            for each in step(layer, x, f"{path}{name}."):
                yield each
                x = each[2]
        else:
            x = layer(x)
            yield f"{path}{name}", layer, x.clone()


class _Recorder(Watch):
    """Shows the maps of some sites to a visitor."""

    def __init__(self, module: nn.Module, wanted: dict[OpKey, list[Site]], layouts: dict[OpKey, bool], visit: Visit):
        super().__init__(module)
        self._wanted = wanted
        self._layouts = layouts
        self._visit = visit
        self._left = set(wanted)

    def restart(self) -> None:
        super().restart()
        self._left = set(self._wanted)

    @property
    def missed(self) -> list[Site]:
        """Sites that the last pass did not come by."""
        return [site for key in self._left for site in self._wanted[key]]

    def saw(self, key: OpKey, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        sites = self._wanted.get(key)
        if sites is None:
            return
        made = output if isinstance(output, Tensor) else next(tensors_in((output,)), None)
        if made is None:
            return
        self._left.discard(key)
        shown = made.detach()
        if self._layouts[key]:
            shown = shown.permute(0, 3, 1, 2)
        for site in sites:
            self._visit(site, shown)


@contextmanager
def capture(module: nn.Module, sites: Iterable[Site], visit: Visit, *, after: bool = True) -> Iterator[None]:
    """Show a visitor the maps of some sites, in every forward pass inside a `with`.

    Hooks are off again afterwards, also after an exception; the net computes what it always does. Maps are shown in
    call order, `after` the site's activation (or normalisation, where no activation follows directly), or as the layer
    itself gives them. `InputError` names a site that the last forward pass did not come by.
    """
    wanted: dict[OpKey, list[Site]] = {}
    layouts: dict[OpKey, bool] = {}
    for site in sites:
        key = site.after if after else site.op
        wanted.setdefault(key, []).append(site)
        layouts[key] = key.channels_last
    recorder = _Recorder(module, wanted, layouts, visit)
    with recorder:
        yield
    if recorder.missed:
        names = ", ".join(site.name for site in recorder.missed[:3])
        raise InputError(f"the net did not come by {names} in this forward pass: it decides its way by its numbers")


def maps_of(
    module: nn.Module, sites: Iterable[Site], x: Float[Tensor, "n c h w"], *, after: bool = True
) -> dict[str, Float[Tensor, "n c h w"]]:
    """Copies of the sites' maps for some normalised pictures, by site name, in the order of `sites`; see `capture`."""
    if len(x) == 0:
        raise InputError("expected at least one picture, got an empty batch")
    found: dict[str, Tensor] = {}

    def keep(site: Site, made: Tensor) -> None:
        found[site.name] = made.clone()

    sites = tuple(sites)
    with torch.no_grad(), evaluating(module), capture(module, sites, keep, after=after):
        module(x)
    return {site.name: found[site.name] for site in sites if site.name in found}
