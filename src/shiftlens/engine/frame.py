"""The canvas control: the same shifted pictures, the same weights, and no padding anywhere near them.

The convolutional trunk runs on a larger canvas of fill in whose middle the shifted picture lies, so wide that no cell
of the picture's own frame is reached by the padding at the canvas' edge. The frame's cells are cut out of the last map
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
        """States of the canvas for pictures of (h, w) pixels; every shift has them."""
        axes = []
        for shifts, n, margin in zip((grid.dys, grid.dxs), size, self.margin, strict=True):
            inner = shifted_axis(shifts, n, None)
            # What is outside the frame stays outside: it is fill, not more of the picture.
            table = np.full((len(shifts), n + 2 * margin), n, dtype=np.int64)
            table[:, margin : margin + n] = inner.table
            axes.append(Axis(table, n + 1))
        return Layout(Cells(axes[0], axes[1]), values, (0, 0))


def framed(trace: Trace, name: str) -> Frame:
    """Put a traced net on a canvas.

    Parameters
    ----------
    trace
        The net on pictures of its own size.
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
    shapes = {trace.source: trace.source_shape} | {step.name: step.shape for step in trace.steps}
    strides = {trace.source: (1, 1)}
    for step in trace.steps:
        before = [strides[source] for source in step.inputs]
        if len(set(before)) > 1:
            raise InputError(f"the canvas control: {step.name} of {name} joins maps of different strides")
        step_stride = step.operation.stride if isinstance(step.operation, (Convolution, Pool)) else (1, 1)
        strides[step.name] = (before[0][0] * step_stride[0], before[0][1] * step_stride[1])
    ends = _ends(trace)
    margin = tuple(_margin(trace, shapes, strides, ends, axis, name) for axis in (0, 1))
    return Frame(_on_canvas(trace, shapes, strides, ends, (margin[0], margin[1])), (margin[0], margin[1]))


def _ends(trace: Trace) -> set[str]:
    """The maps that the head reads, by itself or through a global pool."""
    pools = [step for step in trace.steps if isinstance(step.operation, GlobalPool)]
    made = {step.name for step in pools}
    return {step.inputs[0] for step in pools} | {name for name in crossing(trace, len(trace.steps)) if name not in made}


def _margin(
    trace: Trace,
    shapes: dict[str, tuple[int, ...]],
    strides: dict[str, tuple[int, int]],
    ends: set[str],
    axis: int,
    name: str,
) -> int:
    """The least margin, a multiple of every stride, under which no cell of the frame is reached."""
    unit = int(np.lcm.reduce([stride[axis] for stride in strides.values()]))
    margin = 0
    while margin <= MOST_MARGIN:
        margin += unit
        reached = _reached(trace, shapes, strides, margin, axis)
        cut = {end: margin // strides[end][axis] for end in ends}
        if not any(reached[end][k : k + shapes[end][axis + 1]].any() for end, k in cut.items()):
            return margin
    raise InputError(f"the canvas control: the padding of {name} reaches farther than {MOST_MARGIN} pixels")


def _reached(
    trace: Trace, shapes: dict[str, tuple[int, ...]], strides: dict[str, tuple[int, int]], margin: int, axis: int
) -> dict[str, Reached]:
    """For every map on the canvas, which positions along an axis see padding."""
    found: dict[str, Reached] = {trace.source: np.zeros(shapes[trace.source][axis + 1] + 2 * margin, dtype=np.bool_)}
    for step in trace.steps:
        operation = step.operation
        if isinstance(operation, GlobalPool):
            continue
        before = np.logical_or.reduce([found[source] for source in step.inputs])
        length = shapes[step.name][axis + 1] + 2 * margin // strides[step.name][axis]
        if isinstance(operation, (Convolution, Pool)):
            first, kernel, dilation = _window(operation, axis)
            taps = np.arange(length)[:, None] * operation.stride[axis] - first
            taps = taps + np.arange(kernel)[None, :] * dilation
        elif isinstance(operation, Pad):
            first = operation.sides[2] if axis == 0 else operation.sides[0]
            taps = np.arange(length)[:, None] - first
        else:
            found[step.name] = before
            continue
        outside = (taps < 0) | (taps >= len(before))
        found[step.name] = (outside | before[np.clip(taps, 0, len(before) - 1)]).any(axis=1)
    return found


def _window(operation: Convolution | Pool, axis: int) -> tuple[int, int, int]:
    """Padding before, taps, dilation."""
    if isinstance(operation, Convolution):
        first = operation.sides[2] if axis == 0 else operation.sides[0]
        return first, int(operation.weight.shape[2 + axis]), operation.dilation[axis]
    return operation.padding[axis], operation.kernel[axis], operation.dilation[axis]


def _on_canvas(
    trace: Trace,
    shapes: dict[str, tuple[int, ...]],
    strides: dict[str, tuple[int, int]],
    ends: set[str],
    margin: tuple[int, int],
) -> Trace:
    """The same steps on larger maps; a map that the head reads is made under another name and then cut."""

    def wide(name: str) -> tuple[int, ...]:
        c, h, w = shapes[name]
        sy, sx = strides[name]
        return c, h + 2 * margin[0] // sy, w + 2 * margin[1] // sx

    steps: list[Step] = []
    for step in trace.steps:
        if isinstance(step.operation, GlobalPool):
            steps.append(step)
            continue
        inputs = tuple(source + WIDE if source in ends else source for source in step.inputs)
        name = step.name + WIDE if step.name in ends else step.name
        steps.append(replace(step, name=name, inputs=inputs, shape=wide(step.name)))
        if step.name in ends:
            sy, sx = strides[step.name]
            y, x = margin[0] // sy, margin[1] // sx
            steps.append(Step(step.name, Pad((-x, -x, -y, -y), "replicate"), (name,), shapes[step.name]))
    return replace(trace, steps=tuple(steps), source_shape=wide(trace.source))
