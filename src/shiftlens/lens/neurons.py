"""Padding-aware neurons: channels that respond at a border as they never do inside.

That trained nets have them is known (arXiv 2309.08048); its statistic was not at hand. The procedure, the null and the
controls here are this project's own, and are to be quoted as such.
"""

from __future__ import annotations

from collections.abc import Callable
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
from shiftlens.errors import InputError
from shiftlens.graph import Graph, OpKey, Site
from shiftlens.graph.watching import Watch
from shiftlens.lens.aware import Impact, Neuron, NeuronLayer, Neurons
from shiftlens.lens.inputs import batches
from shiftlens.lens.repadding import convolved
from shiftlens.lens.samples import SIDES, Places, ks_distance, places
from shiftlens.models.loading import Model, model_and_images
from shiftlens.models.matching import on_input_grid
from shiftlens.models.probing import evaluating, scores_of
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

Progress = Callable[[int, int], None]


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
    """
    model, images = model_and_images(model, images)
    module = net_of(model)
    pictures, size = on_input_grid(model, images)
    graph = graph_of(model, size)
    sites, skipped = _sites(graph, layers)
    rng = np.random.default_rng(seed)
    where: dict[OpKey, tuple[Site, Places]] = {}
    for site in sites:
        found = places(site.out_size, site.kernel, rng)
        if found is None:
            h, w = site.out_size
            skipped.append(
                Skipped(site.name, f"its map of {h}x{w} has no interior at a distance of {max(site.kernel)}")
            )
        else:
            where[site.op] = (site, found)
    if not where:
        raise InputError(f"{model.name} has no convolution whose map at {size[0]}x{size[1]} has an interior")
    turns = (0, 2, 1) if size[0] == size[1] else (0, 2)
    n_passes = len(turns) + ((2 + N_RANDOM) if impact else 0)
    steps = _Steps(progress, n_passes * len(pictures))
    measured = [_measured(module, model, pictures, where, turn, steps) for turn in turns]
    rows = [_judged(site, [each[site.index] for each in measured]) for site, _ in where.values()]
    effect: Impact | Skipped = Skipped("impact", "it was not asked for")
    if impact:
        effect = _impact(module, model, pictures, [site for site, _ in where.values()], rows, rng, steps)
    return Neurons(model.name, images.name, len(pictures), tuple(rows), effect, tuple(skipped))


class _Steps:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add(self, n: int) -> None:
        self._done += n
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


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


@dataclass(frozen=True)
class _Measured:
    """Of one layer: D [side, channel] at the borders, whether above, p-values, and D with another padding."""

    distance: NDArray[np.float64]
    above: NDArray[np.bool_]
    q_value: NDArray[np.float64]
    changed: NDArray[np.float64] | None


def _measured(
    module: nn.Module,
    model: Model,
    images: ImageSet,
    where: dict[OpKey, tuple[Site, Places]],
    turn: int,
    steps: _Steps,
) -> dict[int, _Measured]:
    kept: dict[OpKey, list[Tensor]] = {key: [] for key in where}
    strips: dict[OpKey, list[Tensor]] = {key: [] for key in where}

    def take(key: OpKey, made: Tensor, other: Tensor | None) -> Tensor:
        spots = where[key][1]
        kept[key].append(made.flatten(2)[:, :, torch.as_tensor(spots.all, device=made.device)].float().cpu())
        if other is not None:
            at = torch.as_tensor(spots.strips.ravel(), device=made.device)
            strips[key].append(other.flatten(2)[:, :, at].float().cpu())
        return made

    with torch.no_grad(), evaluating(module), _Padding(module, set(where), take):
        for x in batches(model, images, MAX_PIXELS, model.device):
            module(x.rot90(turn, (2, 3)) if turn else x)
            steps.add(len(x))
    found = {}
    for key, (site, spots) in where.items():
        border, interior, lines = spots.split(torch.cat(kept[key]))
        distance, above = ks_distance(border, interior.expand(4, -1, -1))
        null = _null(lines, interior)
        reached = len(null) - np.searchsorted(null, distance, side="left")
        q_value = benjamini_hochberg((1 + reached) / (1 + len(null)))
        changed = None
        if strips[key]:
            other = torch.cat(strips[key])
            n, c, _ = other.shape
            moved = other.reshape(n, c, 4, -1).permute(2, 1, 0, 3).reshape(4, c, -1)
            changed = ks_distance(moved, interior.expand(4, -1, -1))[0]
        found[site.index] = _Measured(distance, above, q_value, changed)
    return found


def _null(lines: Tensor, interior: Tensor) -> NDArray[np.float64]:
    """D of every line [l, c, m] against the interior, ascending; each group of pictures gives a value of its own."""
    n_lines, n_channels, m = lines.shape
    n_groups = max(1, min(-(-LEAST_NULL // n_lines), m // 64))
    parts = lines[:, :, : m // n_groups * n_groups].reshape(n_lines, n_channels, n_groups, -1).permute(2, 0, 1, 3)
    distances = [ks_distance(part, interior.expand(n_lines, -1, -1))[0] for part in parts]
    return np.sort(np.concatenate(distances).ravel())


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


def _impact(
    module: nn.Module,
    model: Model,
    images: ImageSet,
    sites: list[Site],
    rows: list[NeuronLayer],
    rng: np.random.Generator,
    steps: _Steps,
) -> Impact | Skipped:
    aware = {
        site.op: np.array([n.channel for n in row.neurons], dtype=np.int64)
        for site, row in zip(sites, rows, strict=True)
        if row.neurons and site.mode == "zeros" and site.own == site.padding
    }
    if not aware:
        return Skipped("impact", "no channel of a layer that pads zeros is flagged")
    plain = _predictions(module, model, images, {}, steps)
    swapped = _predictions(module, model, images, aware, steps)
    n_channels = {site.op: site.out_channels for site in sites}
    random = []
    for _ in range(N_RANDOM):
        drawn = {key: _others(n_channels[key], channels, rng) for key, channels in aware.items()}
        random.append(_predictions(module, model, images, drawn, steps))

    def change(predictions: NDArray[np.int64]) -> tuple[float, float]:
        right, before = predictions == images.labels, plain == images.labels
        return float((predictions != plain).mean()), 100 * float(right.mean() - before.mean())

    by_chance = np.mean([change(each) for each in random], axis=0)
    changed, accuracy = change(swapped)
    n = sum(len(channels) for channels in aware.values())
    return Impact(n, changed, accuracy, float(by_chance[0]), float(by_chance[1]))


def _others(n: int, flagged: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many channels that are not flagged; all of the others where there are not enough."""
    rest = np.setdiff1d(np.arange(n), flagged)
    return rng.choice(rest, min(len(flagged), len(rest)), replace=False)


def _predictions(
    module: nn.Module, model: Model, images: ImageSet, channels: dict[OpKey, NDArray[np.int64]], steps: _Steps
) -> NDArray[np.int64]:
    def swap(key: OpKey, made: Tensor, other: Tensor | None) -> Tensor:
        if other is None:
            return made
        at = torch.as_tensor(channels[key], device=made.device)
        made[:, at] = other[:, at]
        return made

    found = []
    with torch.no_grad(), evaluating(module), _Padding(module, set(channels), swap):
        for x in batches(model, images, MAX_PIXELS, model.device):
            found.append(scores_of(module(x)).argmax(1).cpu().numpy())
            steps.add(len(x))
    return np.concatenate(found)
