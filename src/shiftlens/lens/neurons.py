"""Padding-aware neurons: channels that respond at a border as they never do inside.

That trained nets have them is known (arXiv 2309.08048); its statistic was not at hand. The procedure, the null and the
controls here are this project's own, and are to be quoted as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.arithmetic import graph_of, net_of
from shiftlens.data.images import ImageSet
from shiftlens.data.surveying import Progress
from shiftlens.errors import InputError
from shiftlens.graph import Graph, OpKey, Site
from shiftlens.graph.watching import Watch
from shiftlens.lens.aware import Impact, Neuron, NeuronLayer, Neurons
from shiftlens.lens.inputs import batches
from shiftlens.lens.repadding import convolved
from shiftlens.lens.samples import SIDES, Places, grouped, ks_distance, places
from shiftlens.models.loading import Model, model_and_images
from shiftlens.models.matching import on_input_grid
from shiftlens.models.probing import evaluating, scores_of
from shiftlens.progress_bar import shows_progress
from shiftlens.stats import Skipped, benjamini_hochberg

LEAST_DISTANCE = 0.5
LEVEL = 0.05
MAX_PIXELS = 2**18
N_RANDOM = 3
"""Draws of random channels that the impact is held against."""

OTHER = "reflect"
"""The padding that takes the place of zeros. Repeating the edge pixel would make differences across it exactly 0."""

LEAST_NULL = 128
"""Values of the null for each channel: with four sides to correct for, fewer could not flag a channel that is alone."""


@shows_progress("looking", "images")
def neurons(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    *,
    layers: list[str] | None = None,
    impact: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Neurons:
    """Find the channels that know where the border is.

    For each channel of each convolution with a kernel of at least 3 cells: responses (before the activation) in a strip
    one cell wide along each side, corners left out, against those in the interior (Kolmogorov and Smirnov's D). The
    null are rows and columns of the interior, taken as if they were borders. A channel is flagged where D >= 0.5 and
    the corrected p-value is at most 0.05, and kept if both hold for the same side with all pictures turned by 180
    degrees (and by 90, where they are square): a sky at the top moves with the picture, padding does not.

    Parameters
    ----------
    model, images
        A few hundred images are enough.
    layers
        Names of convolutions; all by default.
    impact
        Whether to measure what another padding for the flagged channels alone changes.
    seed
        Of the cells that are looked at and of the random channels.
    progress
        Called with (images done, images in all), every pass counted.

    Raises
    ------
    InputError
        No such convolution, an unknown layer, or images that do not fit.

    Examples
    --------
    >>> found = neurons("runs/vgg", sl.load_images("digits", limit=20))
    >>> [(layer.path, layer.n_channels) for layer in found.layers]
    [('0.0', 2), ('0.3', 2), ('1.0', 4), ('1.3', 4)]
    >>> [each.site for each in found.skipped]  # their maps are too small to have an interior
    ['2.0', '2.3']
    """
    model, images = model_and_images(model, images)
    pictures, size = on_input_grid(model, images)
    graph = graph_of(model, size)
    sites, skipped = _sites(graph, layers)
    rng = np.random.default_rng(seed)
    where: dict[OpKey, tuple[Site, Places]] = {}
    for site in sites:
        found, (h, w) = places(site.out_size, site.kernel, rng), site.out_size
        if found is not None:
            where[site.op] = (site, found)
            continue
        skipped.append(Skipped(site.name, f"its map of {h}x{w} has no interior at a distance of {max(site.kernel)}"))
    if not where:
        raise InputError(f"{model.name} has no convolution whose map at {size[0]}x{size[1]} has an interior")
    turns = (0, 2, 1) if size[0] == size[1] else (0, 2)
    n_passes = len(turns) + ((2 + N_RANDOM) if impact else 0)
    shower = _Shower(model, pictures, progress, n_passes * len(pictures))
    measured = [_measured(shower, where, turn) for turn in turns]
    rows = [_judged(site, [each[site.index] for each in measured]) for site, _ in where.values()]
    effect: Impact | Skipped = Skipped("impact", "it was not asked for")
    if impact:
        effect = _impact(shower, [site for site, _ in where.values()], rows, rng)
    return Neurons(model.name, images.name, len(pictures), tuple(rows), effect, tuple(skipped))


def _sites(graph: Graph, layers: list[str] | None) -> tuple[list[Site], list[Skipped]]:
    there = [site for site in graph.of_kind("conv") if min(site.kernel) >= 3 and not site.op.channels_last]
    if layers is not None:
        wanted = {graph.find(name).index for name in layers}
        there = [site for site in there if site.index in wanted]
    if not there:
        raise InputError(f"{graph.name} has no convolution with a kernel of at least 3x3 cells")
    padded = [site for site in there if site.padding]
    return padded, [Skipped(site.name, "it pads nothing") for site in there if not site.padding]


class _Padding(Watch):
    """Shows the output of some convolutions, and what it would be with another padding in that layer alone."""

    def __init__(self, module: nn.Module, keys: set[OpKey], change: Callable[[OpKey, Tensor, Tensor | None], Tensor]):
        super().__init__(module)
        self._keys, self._change = keys, change

    def run(self, key: OpKey, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made = func(*args, **kwargs)
        if key not in self._keys:
            return made
        return self._change(key, made, convolved(F.conv2d, args, kwargs, OTHER))


class _Shower:
    """Shows a model the images, all of them at each call, and counts."""

    def __init__(self, model: Model, images: ImageSet, progress: Progress | None, total: int) -> None:
        self._model, self.images, self._progress, self._total, self._done = model, images, progress, total, 0

    def predictions(
        self, keys: Iterable[OpKey], change: Callable[[OpKey, Tensor, Tensor | None], Tensor], turn: int = 0
    ) -> NDArray[np.int64]:
        module, found = net_of(self._model), []
        with torch.no_grad(), evaluating(module), _Padding(module, set(keys), change):
            for x in batches(self._model, self.images, MAX_PIXELS, self._model.device):
                found.append(scores_of(module(x.rot90(turn, (2, 3)))).argmax(1).cpu().numpy())
                self._done += len(x)
                if self._progress is not None:
                    self._progress(min(self._done, self._total), self._total)
        return np.concatenate(found)


@dataclass(frozen=True)
class _Measured:
    """Of one layer: D [side, channel] at the borders, whether above, p-values, and D with another padding."""

    distance: NDArray[np.float64]
    above: NDArray[np.bool_]
    q_value: NDArray[np.float64]
    changed: NDArray[np.float64] | None


def _measured(shower: _Shower, where: dict[OpKey, tuple[Site, Places]], turn: int) -> dict[int, _Measured]:
    kept: dict[OpKey, list[Tensor]] = {key: [] for key in where}
    strips: dict[OpKey, list[Tensor]] = {key: [] for key in where}

    def cells(of: Tensor, at: NDArray[np.int64]) -> Tensor:
        return of.flatten(2)[:, :, torch.as_tensor(at, device=of.device)].float().cpu()

    def take(key: OpKey, made: Tensor, other: Tensor | None) -> Tensor:
        spots = where[key][1]
        kept[key].append(cells(made, spots.all))
        if other is not None:
            strips[key].append(cells(other, spots.strips.ravel()))
        return made

    shower.predictions(where, take, turn)
    found = {}
    for key, (site, spots) in where.items():
        border, interior, lines = spots.split(torch.cat(kept[key]))
        distance, above = ks_distance(border, interior)
        null = _null(lines, interior)
        reached = len(null) - np.searchsorted(null, distance, side="left")
        q_value = benjamini_hochberg((1 + reached) / (1 + len(null)))
        changed = None
        if strips[key]:
            changed, _ = ks_distance(grouped(torch.cat(strips[key]), 4), interior)
        found[site.index] = _Measured(distance, above, q_value, changed)
    return found


def _null(lines: Tensor, interior: Tensor) -> NDArray[np.float64]:
    """D of every line [l, c, m] against the interior, ascending; each group of pictures gives a value of its own."""
    n_lines, n_channels, m = lines.shape
    n_groups = max(1, min(-(-LEAST_NULL // n_lines), m // 64))
    parts = lines[:, :, : m // n_groups * n_groups].reshape(n_lines, n_channels, n_groups, -1).permute(2, 0, 1, 3)
    # One group after the other: all of them together take several times the memory of the maps themselves.
    return np.sort(np.concatenate([ks_distance(part, interior)[0] for part in parts]).ravel())


def _judged(site: Site, measured: list[_Measured]) -> NeuronLayer:
    flagged = [(m.distance >= LEAST_DISTANCE) & (m.q_value <= LEVEL) for m in measured]
    holds = np.logical_and.reduce(flagged)
    first = measured[0]
    found = []
    for channel in np.flatnonzero(holds.any(0)).tolist():
        at = np.flatnonzero(holds[:, channel])
        own = None if first.changed is None else bool((first.changed[at, channel] < LEAST_DISTANCE).all())
        found.append(
            Neuron(
                channel=channel,
                kind=_kind({SIDES[k] for k in at}),
                sides=tuple(SIDES[k] for k in at),
                excited=tuple(bool(first.above[k, channel]) for k in at),
                distance=tuple(float(first.distance[k, channel]) for k in at),
                q_value=tuple(float(first.q_value[k, channel]) for k in at),
                own=own,
            )
        )
    n_content = int((flagged[0].any(0) & ~holds.any(0)).sum())
    return NeuronLayer(site.name, site.out_channels, tuple(found), n_content)


def _kind(sides: set[str]) -> str:
    if len(sides) == 1:
        return "edge"
    if len(sides) > 2:
        return "frame"
    return "pair" if sides in ({"left", "right"}, {"top", "bottom"}) else "corner"


def _impact(shower: _Shower, sites: list[Site], rows: list[NeuronLayer], rng: np.random.Generator) -> Impact | Skipped:
    aware = {
        site.op: np.array([n.channel for n in row.neurons], dtype=np.int64)
        for site, row in zip(sites, rows, strict=True)
        if row.neurons and site.mode == "zeros" and site.own == site.padding
    }
    if not aware:
        return Skipped("impact", "no channel of a layer that pads zeros is flagged")
    n_channels, labels = {site.op: site.out_channels for site in sites}, shower.images.labels
    plain = _swapped(shower, {})

    def change(channels: dict[OpKey, NDArray[np.int64]]) -> tuple[float, float]:
        predictions = _swapped(shower, channels)
        right, before = predictions == labels, plain == labels
        return float((predictions != plain).mean()), 100 * float(right.mean() - before.mean())

    changed, accuracy = change(aware)
    drawn = ({key: _others(n_channels[key], flagged, rng) for key, flagged in aware.items()} for _ in range(N_RANDOM))
    by_chance = np.mean([change(each) for each in drawn], axis=0)
    n = sum(map(len, aware.values()))
    return Impact(n, changed, accuracy, float(by_chance[0]), float(by_chance[1]))


def _others(n: int, flagged: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many channels that are not flagged; all of the others where there are not enough."""
    rest = np.setdiff1d(np.arange(n), flagged)
    return rng.choice(rest, min(len(flagged), len(rest)), replace=False)


def _swapped(shower: _Shower, channels: dict[OpKey, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Predictions with another padding for some channels of some layers."""

    def swap(key: OpKey, made: Tensor, other: Tensor | None) -> Tensor:
        if other is not None:
            at = torch.as_tensor(channels[key], device=made.device)
            made[:, at] = other[:, at]
        return made

    return shower.predictions(channels, swap)
