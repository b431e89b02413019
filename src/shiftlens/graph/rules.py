"""What each torch function does to rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from shiftlens.graph.arguments import dims_of
from shiftlens.graph.flow import Flow, added, flow_of, scaled, set_flow, size_along
from shiftlens.graph.sites import Pair, Source
from shiftlens.graph.tracer import Call, Tracer, last_axes, replace_flow, with_layout
from shiftlens.graph.windows import (
    adaptive_pool,
    average_pool,
    conv,
    getitem,
    index_select,
    lp_pool,
    max_pool,
    pad,
    resize,
    shuffle,
    transposed,
    unknown,
    where,
)

ACTIVATIONS = frozenset(
    (
        "relu",
        "relu6",
        "leaky_relu",
        "prelu",
        "rrelu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "hardtanh",
        "hardsigmoid",
        "hardshrink",
        "sigmoid",
        "tanh",
        "softplus",
        "softsign",
        "threshold",
        "logsigmoid",
        "clamp",
        "clamp_min",
    )
)
NORMALISATIONS = frozenset(
    ("batch_norm", "group_norm", "layer_norm", "instance_norm", "local_response_norm", "rms_norm")
)

_VIEWS = frozenset(
    ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "view_as", "reshape_as")
)
_REDUCTIONS = frozenset(
    ("mean", "sum", "amax", "amin", "max", "min", "std", "var", "norm", "logsumexp", "prod", "std_mean", "var_mean")
)
_SUMS = frozenset(("add", "sub", "rsub"))
_MIXERS = frozenset(
    (
        "roll",
        "flip",
        "rot90",
        "cumsum",
        "matmul",
        "bmm",
        "baddbmm",
        "einsum",
        "scaled_dot_product_attention",
        "multi_head_attention_forward",
        "grid_sample",
        "fold",
        "unfold",
        "sort",
        "topk",
    )
)
_WINDOWS = ("conv2d", "max_pool2d", "avg_pool2d", "lp_pool2d")


def follow(tracer: Tracer, call: Call) -> None:
    """Follow one function call whose input comes from the picture."""
    name, flow = call.key.name, call.flow
    rule = RULES.get(name)
    if rule is not None and not flow.lost:
        rule(tracer, call)
    elif rule is not None and name in _WINDOWS:
        # Its own arithmetic is still right: the sizes are real.
        tracer.lost_before(flow.lost)
        size = (int(call.x.shape[-2]), int(call.x.shape[-1]))
        rule(tracer, replace_flow(call, Flow(size, last_axes(call.x), sources=())))
    elif name in _MIXERS:
        tracer.lose(call, where(call))
    elif name in _REDUCTIONS:
        _reduction(tracer, call)
    else:
        _pointwise(tracer, call)


# ---- one rule for each function


def _permute(tracer: Tracer, call: Call) -> None:
    dims = [d % call.x.ndim for d in dims_of(call.args[1:], call.kwargs, "dims")]
    tracer.keep(call, (dims.index(call.flow.axes[0]), dims.index(call.flow.axes[1])), call.made[0])


def _transpose(tracer: Tracer, call: Call) -> None:
    b = call.bound("input dim0 dim1")
    a, c = int(b["dim0"]) % call.x.ndim, int(b["dim1"]) % call.x.ndim
    swap = {a: c, c: a}
    y, x = call.flow.axes
    tracer.keep(call, (swap.get(y, y), swap.get(x, x)), call.made[0])


def _cat(tracer: Tracer, call: Call) -> None:
    first = call.args[0] if call.args else call.kwargs["tensors"]
    axis = int(call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", call.kwargs.get("axis", 0)))
    out = call.made[0]
    axis %= out.ndim
    flows = [(flow, t) for t in first if (flow := flow_of(t)) is not None]
    size = size_along(out, flows[0][0].axes)
    same = all(not f.lost and f.axes == flows[0][0].axes and f.size == size for f, _ in flows)
    if axis in flows[0][0].axes or not same:
        tracer.lose(call, where(call))
        return
    n_all = int(out.shape[axis])
    parts = [scaled(flow, t.shape[axis] / n_all) for flow, t in flows]
    set_flow(out, Flow(size, flows[0][0].axes, added(parts)))


def _linear(tracer: Tracer, call: Call) -> None:
    if call.flow.axes[1] == call.x.ndim - 1:
        tracer.lose(call, where(call))
        return
    # A linear layer on channels that come last is a 1x1 convolution: the same places, other channels.
    set_flow(call.made[0], replace(call.flow, fresh=None, pending=None))


def _view(tracer: Tracer, call: Call) -> None:
    for out in call.made:
        axes = _axes_in(out, call.flow, call.x)
        if axes is None:
            tracer.lose(call, where(call))
            return
        tracer.keep(call, axes, out)


def _reduction(tracer: Tracer, call: Call) -> None:
    flow, x = call.flow, call.x
    dims = {d % x.ndim for d in dims_of(call.args[1:2], call.kwargs, "dim")} if _has_dim(call) else set(range(x.ndim))
    if len([t for t in call.given if t.shape != ()]) > 1:  # max(a, b)
        _pointwise(tracer, call)
        return
    for out in call.made:
        if not dims & set(flow.axes):
            removed = dims if out.ndim < x.ndim else set()
            y, c = (axis - sum(d < axis for d in removed) for axis in flow.axes)
            set_flow(out, replace(flow, axes=(y, c), fresh=None))
        elif dims >= set(flow.axes) and 0 not in dims and not flow.lost:
            index = tracer.add(call, "global pool", flow, out, out_size=(1, 1))
            if out.ndim < x.ndim:
                set_flow(out, Flow((1, 1), flow.axes, (Source(index),), lost=where(call)))
        else:
            set_flow(out, replace(flow, lost=where(call), pending=None))


def _has_dim(call: Call) -> bool:
    return "dim" in call.kwargs or (len(call.args) > 1 and not isinstance(call.args[1], Tensor))


def _pointwise(tracer: Tracer, call: Call) -> None:
    """Anything that leaves each place to itself; several maps of one size are joined, smaller ones only steer."""
    name = call.key.name
    for out in call.made:
        flows = [(flow, t) for t in call.given if (flow := flow_of(t)) is not None]
        fitting: list[Flow] = []
        for flow, t in flows:
            shift = out.ndim - t.ndim
            axes = (flow.axes[0] + shift, flow.axes[1] + shift)
            if not flow.lost and min(axes) >= 0 and max(axes) < out.ndim and size_along(out, axes) == flow.size:
                fitting.append(replace(flow, axes=axes))
        if not fitting:
            if flows[0][0].lost or out.ndim < call.x.ndim:
                tracer.lose(call, where(call))
            else:
                unknown(tracer, call, out)
            continue
        distinct = {flow.sources: flow for flow in fitting}
        if len(fitting) == 1 or (len(distinct) == 1 and name not in _SUMS):
            _same_place(tracer, call, fitting[0], out)
        elif name in _SUMS or name in ("__setitem__", "where", "maximum", "minimum"):
            joined = replace(fitting[0], sources=added(fitting), pending=None)
            tracer.add(replace_flow(call, joined), "sum", joined, out)
        else:
            # A product of two maps: both count, half each.
            set_flow(out, Flow(fitting[0].size, fitting[0].axes, added([scaled(f, 1 / len(fitting)) for f in fitting])))


def _same_place(tracer: Tracer, call: Call, flow: Flow, out: Tensor) -> None:
    set_flow(out, flow)
    if flow.fresh is None:
        return
    draft = tracer.drafts[flow.fresh]
    key = with_layout(call.key, flow.axes, out)
    if key is None or draft.activation is not None:
        return
    if call.key.name in ACTIVATIONS:
        draft.after, draft.activation = key, call.key.name
        set_flow(out, replace(flow, fresh=None))
    elif call.key.name in NORMALISATIONS and draft.after is None:
        draft.after = key


# ---- small things


def _axes_in(out: Tensor, flow: Flow, x: Tensor) -> Pair | None:
    """Where the map's axes are after a change of shape: the only place where (h, w) stand side by side."""
    if flow.lost:
        return None
    if flow.axes == last_axes(x) and out.ndim >= 2 and size_along(out, last_axes(out)) == flow.size:
        return last_axes(out)
    places = [k for k in range(1, out.ndim - 1) if size_along(out, (k, k + 1)) == flow.size]
    if len(places) == 1 and flow.axes[1] == flow.axes[0] + 1 and min(flow.size) > 1:
        return places[0], places[0] + 1
    return None


Rule = Callable[[Tracer, Call], None]

RULES: dict[str, Rule] = {
    "conv2d": conv,
    "conv_transpose2d": transposed,
    "max_pool2d": max_pool,
    "avg_pool2d": average_pool,
    "lp_pool2d": lp_pool,
    "adaptive_avg_pool2d": adaptive_pool,
    "adaptive_max_pool2d": adaptive_pool,
    "pad": pad,
    "index_select": index_select,
    "__getitem__": getitem,
    "interpolate": resize,
    "pixel_shuffle": shuffle,
    "pixel_unshuffle": shuffle,
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "cat": _cat,
    "linear": _linear,
    **dict.fromkeys(_VIEWS, _view),
}
"""What is known of each function; one that is not here is taken to leave each place to itself, if sizes allow it."""
