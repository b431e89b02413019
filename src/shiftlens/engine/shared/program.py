"""A trace cut in two: the steps that run once for all shifts of an image, and the net that runs on every window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from shiftlens.engine.shared.binding import bind
from shiftlens.engine.shared.cells import Bound, Cells, as_index, windows
from shiftlens.engine.shared.states import occluded_axis, shifted_axis
from shiftlens.engine.shared.tracing import Trace
from shiftlens.graph.operations import Affine, Convolution, GlobalPool, Pointwise, Step
from shiftlens.shifts import ShiftGrid


@dataclass(frozen=True)
class Layout:
    """Where a shifted picture's pixels come from: the states of the input.

    `values` is the constant fill in normalised units, one number for each channel, or None for an index rule. Shifts by
    the picture's size and more leave nothing but a constant fill: they have no states, and `first` is the place in the
    grid (y, x) of the first shift that has.
    """

    cells: Cells
    values: tuple[float, ...] | None
    first: tuple[int, int]

    @staticmethod
    def of(
        grid: ShiftGrid,
        size: tuple[int, int],
        rule: str | None,
        values: tuple[float, ...] | None,
        *,
        occluded: bool = False,
    ) -> Layout:
        """For pictures of (h, w) pixels; `occluded`: they stay in place and lose what each shift would push out."""
        axes, first = [], []
        for shifts, n in zip((grid.dys, grid.dxs), size, strict=True):
            kept = np.ones_like(shifts, dtype=np.bool_) if values is None else np.abs(shifts) < n
            first.append(int(np.argmax(kept)))
            axes.append(occluded_axis(shifts[kept], n) if occluded else shifted_axis(shifts[kept], n, rule))
        return Layout(Cells(axes[0], axes[1]), values, (first[0], first[1]))

    def canvas(self, picture: Tensor, fill: Tensor | None, dtype: torch.dtype) -> Tensor:
        """A picture [c, h, w] as cells [row states, column states, c]: itself, and a row and a column of `fill` [c]."""
        pixels = picture.permute(1, 2, 0).to(dtype)
        if fill is None:
            return pixels.contiguous()
        wide = fill.to(dtype).expand(self.cells.rows.n, self.cells.columns.n, -1).clone()
        wide[: pixels.shape[0], : pixels.shape[1]] = pixels
        return wide


def crossing(trace: Trace, n_early: int) -> tuple[str, ...]:
    """Names of the maps that the rest reads when the first `n_early` served steps run once for all shifts."""
    early = {step.name for step in trace.steps[:n_early]} | {trace.source}
    found: dict[str, None] = {}
    for node in trace.module.graph.nodes:
        if node.name not in early:
            found |= {inner.name: None for inner in node.all_input_nodes if inner.name in early}
    return tuple(found)


def rest_of(trace: Trace, n_early: int) -> fx.GraphModule:
    """The net that takes the crossing maps, in their order, to scores."""
    early = {step.name for step in trace.steps[:n_early]} | {trace.source}
    graph = fx.Graph()
    made = {name: graph.placeholder(name) for name in crossing(trace, n_early)}
    for node in trace.module.graph.nodes:
        if node.name not in early:
            made[node.name] = graph.node_copy(node, lambda inner: made[inner.name])
    rest = fx.GraphModule(trace.module, graph)
    rest.delete_all_unused_submodules()
    return rest


@dataclass(frozen=True)
class _Call:
    """A prepared step: what it reads, what is not needed after it, and what is done to each block of its result."""

    name: str
    bound: Bound
    inputs: tuple[str, ...]
    frees: tuple[str, ...]
    epilogue: tuple[Bound, ...]

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        if not self.epilogue:
            return self.bound(inputs)

        def finish(x: Tensor) -> Tensor:
            for bound in self.epilogue:
                x = bound([x])
            return x

        return self.bound(inputs, finish)  # type: ignore[call-arg]


class SoFar(NamedTuple):
    """What the steps up to a map take for one image.

    `macs` multiply-adds, `most` numbers held at once, `taps` numbers gathered for convolutions.
    """

    macs: int
    most: int
    taps: int


CPU = torch.device("cpu")


class Program:
    """The early steps, prepared for a grid.

    Parameters
    ----------
    trace, n_early
        The net, and how many of its served steps run on cells.
    layout
        States of the input.
    device
        Where the net is.
    """

    def __init__(self, trace: Trace, n_early: int, layout: Layout, device: torch.device = CPU) -> None:
        self._layout, self._device = layout, device
        self._fill = None if layout.values is None else torch.tensor(layout.values, device=device)
        self.n_early = n_early
        self._source = trace.source
        self.crossing = crossing(trace, n_early)
        channels = {trace.source: trace.source_shape[0]} | {step.name: step.shape[0] for step in trace.steps}
        self.cells: dict[str, Cells] = {trace.source: layout.cells}
        """States of every map that is kept."""
        self._tables: dict[str, tuple[Tensor, Tensor]] = {}
        self.macs = 0
        """Multiply-adds for one image."""
        self.so_far: dict[str, SoFar] = {}
        """What it takes up to each map."""
        steps = trace.steps[:n_early]
        self._flat = {step.name for step in steps if isinstance(step.operation, GlobalPool) and not step.operation.keep}
        self._channels = channels
        last_use = {name: k for k, step in enumerate(steps) for name in (step.name, *step.inputs)}
        last_use |= dict.fromkeys(self.crossing, len(steps))
        self._calls: list[_Call] = []
        live: dict[str, int] = {trace.source: self._numbers(trace.source, channels)}
        self._most = taps = 0
        skipped: set[str] = set()
        for k, step in enumerate(steps):
            if step.name in skipped:
                continue
            bound = bind(step, [self.cells[name] for name in step.inputs], channels[step.inputs[0]], device)
            self.macs += bound.macs
            if isinstance(step.operation, Convolution):
                taps += bound.macs // len(step.operation.weight)
            tail = list(_tail(trace, steps, k, self.crossing)) if isinstance(step.operation, Convolution) else []
            epilogue = tuple(bind(after, [bound.cells], channels[after.name], device) for after in tail)
            # A convolution finishes each block with what follows it, and its result bears the last one's name.
            name, at = (tail[-1].name, k + len(tail)) if tail else (step.name, k)
            skipped |= {after.name for after in tail}
            self.cells[name] = bound.cells
            live[name] = self._numbers(name, channels)
            self._most = max(self._most, sum(live.values()) + bound.scratch)
            self.so_far[name] = SoFar(self.macs, self._most, taps)
            frees = tuple(other for other in live if last_use.get(other, -1) <= at and other not in self.crossing)
            for other in frees:
                del live[other]
            self._calls.append(_Call(name, bound, step.inputs, frees, epilogue))

    @property
    def crossing_shapes(self) -> list[tuple[int, int, int]]:
        """[row states, column states, c] of the crossing maps."""
        return [(self.cells[n].rows.n, self.cells[n].columns.n, self._channels[n]) for n in self.crossing]

    def _numbers(self, name: str, channels: dict[str, int]) -> int:
        cells = self.cells[name]
        return cells.rows.n * cells.columns.n * channels[name]

    def n_numbers(self) -> int:
        """Most numbers that are held at once for one image."""
        return self._most

    def run(self, picture: Tensor, dtype: torch.dtype, clock: Callable[[str], None] | None = None) -> list[Tensor]:
        """The crossing maps as cells; `picture` is normalised, [c, h, w]. `clock` is told when each step is done."""
        values = {self._source: self._layout.canvas(picture, self._fill, dtype)}
        for call in self._calls:
            values[call.name] = call([values[name] for name in call.inputs])
            for name in call.frees:
                values.pop(name, None)
            if clock is not None:
                clock(call.name)
        return [values[name] for name in self.crossing]

    def windows(
        self,
        maps: Sequence[Tensor],
        iy: Tensor,
        ix: Tensor,
        image: Tensor | None = None,
        *,
        channels_last: bool,
        names: Sequence[str] | None = None,
    ) -> tuple[Tensor, ...]:
        """What the rest reads for some shifts, by their places in the grid; `names` of the maps if not the crossing.

        The maps are those of one image, or of several: then `image` says of which. The shifts must have states
        (`Layout`).
        """
        iy, ix = iy - self._layout.first[0], ix - self._layout.first[1]
        layout = torch.channels_last if channels_last else torch.contiguous_format
        found = []
        for name, x in zip(self.crossing if names is None else names, maps, strict=True):
            window = windows(x, self._tables_of(name), iy, ix, image)
            found.append(window.flatten(1) if name in self._flat else window.contiguous(memory_format=layout))
        return tuple(found)

    def _tables_of(self, name: str) -> tuple[Tensor, Tensor]:
        """The states of a map's rows and columns under each shift, on the net's device."""
        if name not in self._tables:
            cells = self.cells[name]
            self._tables[name] = as_index(cells.rows.table, self._device), as_index(cells.columns.table, self._device)
        return self._tables[name]


def _tail(trace: Trace, steps: Sequence[Step], k: int, needed: Sequence[str]) -> Iterator[Step]:
    """The steps directly behind step `k` that act on each number alone and whose input nobody else reads."""
    users = {node.name: len(node.users) for node in trace.module.graph.nodes}
    name = steps[k].name
    for step in steps[k + 1 :]:
        single = step.inputs == (name,) and users.get(name) == 1 and name not in needed
        if not single or not isinstance(step.operation, (Pointwise, Affine)):
            return
        yield step
        name = step.name
