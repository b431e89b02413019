"""The canvas control: the same shifted images, the same weights, and no padding anywhere near them.

The convolutional trunk runs on a larger canvas of fill in whose middle the shifted image lies, so wide that no cell
of the image's own frame is reached by the padding at the canvas' edge. The frame's cells are cut out of the last map
and go to the same head. What differs from the sweep is the padding and nothing else, so a difference is its doing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shiftlens.engine.shared.cells import Cells
from shiftlens.engine.shared.program import Layout, crossing
from shiftlens.engine.shared.states import Axis, shifted_axis
from shiftlens.engine.shared.tracing import Trace
from shiftlens.errors import InputError
from shiftlens.graph.operations import Convolution, GlobalPool, Pad, Pool, Step
from shiftlens.shifts import ShiftGrid

MOST_MARGIN = 4096
"""Pixels of canvas on each side beyond which the padding's reach is taken for unbounded."""
WIDE = "__wide"

Reached = NDArray[np.bool_]
"""Which positions of an axis the padding reaches."""


@dataclass(frozen=True)
class Frame:
    """A trunk on a canvas.

    Attributes
    ----------
    trace
        The net on the canvas, with the frame cut out before the head.
    margin
        Canvas on each side, in pixels: (vertical, horizontal).
    """

    trace: Trace
    margin: tuple[int, int]

    def layout(self, grid: ShiftGrid, size: tuple[int, int], values: tuple[float, ...]) -> Layout:
        """States of the canvas for images of (h, w) pixels; every shift has them."""
        axes = []
        for shifts, n, margin in zip((grid.dys, grid.dxs), size, self.margin, strict=True):
            inner = shifted_axis(shifts, n, None)
            # What is outside the frame stays outside: it is fill, not more of the image.
            table = np.full((len(shifts), n + 2 * margin), n, dtype=np.int64)
            table[:, margin : margin + n] = inner.table
            axes.append(Axis(table, n + 1))
        return Layout(Cells(axes[0], axes[1]), values, (0, 0))


def framed(trace: Trace, name: str) -> Frame:
    """Put a traced net on a canvas.

    Parameters
    ----------
    trace
        The net on images of its own size.
    name
        Of the model, for the error.

    Raises
    ------
    InputError
        The trunk is not one that can be followed cell by cell, or its padding reaches everywhere.
    """
    if trace.refused:
        raise InputError(
            f"the canvas control needs a convolutional trunk that can be followed cell by cell; {name}: {trace.refused}"
        )
    if not trace.steps:
        raise InputError(f"the canvas control needs a convolutional trunk; {name} has none")
    trunk = _Trunk(trace, name)
    margin = trunk.margin(0), trunk.margin(1)
    return Frame(trunk.on_canvas(margin), margin)


class _Trunk:
    """The steps of a net, with the shape and the stride of each map, and which maps the head reads."""

    def __init__(self, trace: Trace, name: str) -> None:
        self._trace, self._name = trace, name
        self._shapes = {trace.source: trace.source_shape} | {step.name: step.shape for step in trace.steps}
        self._strides = {trace.source: (1, 1)}
        for step in trace.steps:
            before = [self._strides[source] for source in step.inputs]
            if len(set(before)) > 1:
                raise InputError(f"the canvas control: {step.name} of {name} joins maps of different strides")
            stride = step.operation.stride if isinstance(step.operation, (Convolution, Pool)) else (1, 1)
            self._strides[step.name] = (before[0][0] * stride[0], before[0][1] * stride[1])
        pools = {step.name: step.inputs[0] for step in trace.steps if isinstance(step.operation, GlobalPool)}
        self._ends = {pools.get(name, name) for name in crossing(trace, len(trace.steps))} | set(pools.values())

    def margin(self, axis: int) -> int:
        """The least margin, a multiple of every stride, under which no cell of the frame is reached."""
        unit = int(np.lcm.reduce([stride[axis] for stride in self._strides.values()]))
        for margin in range(unit, MOST_MARGIN + unit + 1, unit):
            reached = self._reached(margin, axis)
            cut = {end: margin // self._strides[end][axis] for end in self._ends}
            if not any(reached[end][k : k + self._shapes[end][axis + 1]].any() for end, k in cut.items()):
                return margin
        raise InputError(f"the canvas control: the padding of {self._name} reaches farther than {MOST_MARGIN} pixels")

    def _reached(self, margin: int, axis: int) -> dict[str, Reached]:
        """For every map on the canvas, which positions along an axis see padding."""
        source = self._trace.source
        found: dict[str, Reached] = {source: np.zeros(self._shapes[source][axis + 1] + 2 * margin, dtype=np.bool_)}
        for step in self._trace.steps:
            operation = step.operation
            if isinstance(operation, GlobalPool):
                continue
            before = np.logical_or.reduce([found[name] for name in step.inputs])
            length = self._shapes[step.name][axis + 1] + 2 * margin // self._strides[step.name][axis]
            if isinstance(operation, (Convolution, Pool)):
                first, kernel, dilation = _window(operation, axis)
                taps = np.arange(length)[:, None] * operation.stride[axis] - first
                taps = taps + np.arange(kernel)[None, :] * dilation
            elif isinstance(operation, Pad):
                taps = np.arange(length)[:, None] - _before(operation, axis)
            else:
                found[step.name] = before
                continue
            outside = (taps < 0) | (taps >= len(before))
            found[step.name] = (outside | before[np.clip(taps, 0, len(before) - 1)]).any(axis=1)
        return found

    def on_canvas(self, margin: tuple[int, int]) -> Trace:
        """The same steps on larger maps; a map that the head reads is made under another name and then cut."""

        def sides(name: str) -> tuple[int, int]:
            sy, sx = self._strides[name]
            return margin[0] // sy, margin[1] // sx

        def wide(name: str) -> tuple[int, ...]:
            (c, h, w), (y, x) = self._shapes[name], sides(name)
            return c, h + 2 * y, w + 2 * x

        def called(name: str) -> str:
            return name + WIDE if name in self._ends else name

        def cut(name: str) -> Step:
            y, x = sides(name)
            return Step(name, Pad((-x, -x, -y, -y), "replicate"), (name + WIDE,), self._shapes[name])

        # A head that asks the picture for its shape reads the input too: it gets the frame.
        source = self._trace.source
        steps: list[Step] = [cut(source)] if source in self._ends else []
        for step in self._trace.steps:
            if isinstance(step.operation, GlobalPool):
                steps.append(step)
                continue
            inputs = tuple(map(called, step.inputs))
            steps.append(replace(step, name=called(step.name), inputs=inputs, shape=wide(step.name)))
            if step.name in self._ends:
                steps.append(cut(step.name))
        return replace(self._trace, source=called(source), steps=tuple(steps), source_shape=wide(source))


def _before(operation: Convolution | Pad, axis: int) -> int:
    return operation.sides[2] if axis == 0 else operation.sides[0]


def _window(operation: Convolution | Pool, axis: int) -> tuple[int, int, int]:
    """Padding before, taps, dilation."""
    if isinstance(operation, Convolution):
        return _before(operation, axis), int(operation.weight.shape[2 + axis]), operation.dilation[axis]
    return operation.padding[axis], operation.kernel[axis], operation.dilation[axis]
