"""Functions that slide windows, pad, cut, resize: one rule for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from shiftlens.graph.arguments import index_sides, pair, pool_sides, same_sides, slices_of
from shiftlens.graph.flow import size_along
from shiftlens.graph.sites import Pair, Sides
from shiftlens.graph.tracer import Call, Tracer, last_axes

_MODES = {"constant": "zeros"}


def conv(tracer: Tracer, call: Call) -> None:
    """A convolution."""
    b = call.settings
    if call.x is not b["input"]:  # weights that are made from the picture
        tracer.whole(call, "other")
        tracer.lose(call, f"conv2d with weights from the picture at {call.key.path or 'the top'}")
        return
    kernel, dilation = pair(b["weight"].shape[2:]), pair(b["dilation"])
    own = same_sides(b["padding"], kernel, dilation)
    tracer.window(
        call, "conv", kernel, own, "zeros", stride=pair(b["stride"]), dilation=dilation, groups=int(b["groups"])
    )


def transposed(tracer: Tracer, call: Call) -> None:
    """A transposed convolution."""
    b = call.settings
    tracer.add(
        call,
        "transposed conv",
        call.flow,
        call.made[0],
        kernel=pair(b["weight"].shape[2:]),
        stride=pair(b["stride"]),
        dilation=pair(b["dilation"]),
        padding=pool_sides(b["padding"]),
        mode="none",
        groups=int(b["groups"]),
        output_padding=pair(b["output_padding"]),
    )


def max_pool(tracer: Tracer, call: Call) -> None:
    """Max pooling."""
    b = call.settings
    kernel = pair(b["kernel_size"])
    tracer.window(
        call,
        "max pool",
        kernel,
        pool_sides(b["padding"]),
        "-inf",
        stride=_stride(b["stride"], kernel),
        dilation=pair(b["dilation"]),
        ceil_mode=bool(b["ceil_mode"]),
    )


def average_pool(tracer: Tracer, call: Call) -> None:
    """Average pooling."""
    b = call.settings
    kernel = pair(b["kernel_size"])
    tracer.window(
        call,
        "average pool",
        kernel,
        pool_sides(b["padding"]),
        "zeros",
        stride=_stride(b["stride"], kernel),
        ceil_mode=bool(b["ceil_mode"]),
        counts_padding=bool(b["count_include_pad"]),
    )


def lp_pool(tracer: Tracer, call: Call) -> None:
    """Power-average pooling."""
    b = call.settings
    kernel = pair(b["kernel_size"])
    tracer.window(
        call,
        "lp pool",
        kernel,
        Sides(),
        "none",
        stride=_stride(b["stride"], kernel),
        ceil_mode=bool(b["ceil_mode"]),
    )


def adaptive_pool(tracer: Tracer, call: Call) -> None:
    """Pooling to a given size."""
    size = size_along(call.made[0], call.flow.axes)
    kind = "global pool" if size == (1, 1) else "adaptive pool"
    wanted = call.settings["output_size"]
    fixed = isinstance(wanted, int) or None not in wanted  # None keeps the map's own side
    freezable = fixed and not call.settings.get("return_indices")
    tracer.whole(call, "pooling", freezable=freezable, cells=size)
    tracer.add(call, kind, call.flow, call.made[0])


def pad(tracer: Tracer, call: Call) -> None:
    """Explicit padding."""
    b = call.settings
    widths = [int(width) for width in b["pad"]] + [0] * 6
    flow, x = call.flow, call.x
    if flow.axes != last_axes(x):
        tracer.lose(call, where(call))
        return
    sides = Sides(*widths[:4])
    if not sides:  # of other axes only, such as new channels for a shortcut
        tracer.keep(call, flow.axes, call.made[0])
        return
    mode = _MODES.get(str(b["mode"]), str(b["mode"]))
    value = b["value"] or 0.0
    tracer.pad(call, sides, ("-inf" if value == -np.inf else "constant") if mode == "zeros" and value else mode)


def index_select(tracer: Tracer, call: Call) -> None:
    """Rows or columns by index: padding, where the index follows one of the known rules."""
    b = call.settings
    axis = int(b["dim"]) % call.x.ndim
    if axis not in call.flow.axes:
        tracer.keep(call, call.flow.axes, call.made[0])
        return
    values = getattr(b["index"], "_shiftlens_values", None)
    found = None if values is None else index_sides(values, int(call.x.shape[axis]))
    if found is None:
        unknown(tracer, call, call.made[0])
        return
    before, after, mode = found
    vertical = axis == call.flow.axes[0]
    tracer.pad(call, Sides.of((before, after) if vertical else (0, 0), (0, 0) if vertical else (before, after)), mode)


def getitem(tracer: Tracer, call: Call) -> None:
    """Slices: a window of one cell, with cells cut off on each side."""
    found = slices_of(call.args[1], call.x.shape)
    out, flow = call.made[0], call.flow
    if found is None or any(found[axis] is None for axis in flow.axes):
        tracer.lose(call, where(call))
        return
    axes = _axes_after(found, flow.axes)
    cuts = [found[axis] for axis in flow.axes]
    if all(cut == (0, 0, 1) for cut in cuts):
        tracer.keep(call, axes, out)
        return
    if axes != flow.axes or axes != last_axes(out):
        tracer.lose(call, where(call))
        return
    (top, bottom, sy), (left, right, sx) = (cut or (0, 0, 1) for cut in cuts)
    sides = Sides(-left, -right, -top, -bottom)
    tracer.window(call, "slice", (1, 1), sides, "cut", stride=(sy, sx))


def resize(tracer: Tracer, call: Call) -> None:
    """Interpolation."""
    b = call.settings
    factor = b["scale_factor"]
    values = tuple(float(f) for f in factor) if isinstance(factor, Sequence) else (factor, factor)
    scale = None if factor is None else (float(values[0]), float(values[-1]))
    tracer.add(
        call,
        "resize",
        call.flow,
        call.made[0],
        scale=scale,
        mode=f"{b['mode']}{' aligned' if b['align_corners'] else ''}",
    )


def shuffle(tracer: Tracer, call: Call) -> None:
    """Channels to space, or back."""
    (h, w), (h_out, w_out) = call.flow.size, size_along(call.made[0], call.flow.axes)
    tracer.add(call, "shuffle", call.flow, call.made[0], scale=(h_out / h, w_out / w))


def _stride(stride: Any, kernel: Pair) -> Pair:
    return kernel if stride is None or (isinstance(stride, Sequence) and not len(stride)) else pair(stride)


def _axes_after(found: list[tuple[int, int, int] | None], axes: Pair) -> Pair:
    removed = [d for d, cut in enumerate(found) if cut is None]
    y, x = (axis - sum(d < axis for d in removed) for axis in axes)
    return y, x


def unknown(tracer: Tracer, call: Call, out: Tensor) -> None:
    """A function that changes the size by a rule that is not known here."""
    flow = call.flow
    if out.ndim != call.x.ndim:
        tracer.lose(call, where(call))
        return
    (h, w), (h_out, w_out) = flow.size, size_along(out, flow.axes)
    tracer.note(f"{where(call)} makes {h_out}x{w_out} of {h}x{w} by a rule that is not known here")
    tracer.add(call, "unknown", replace(flow, pending=None), out)


def where(call: Call) -> str:
    """The function and its module, for people."""
    name = "indexing" if call.key.name == "__getitem__" else call.key.name
    return f"{name} at {call.key.path or 'the top'}"
