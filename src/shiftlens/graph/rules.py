"""What each torch function does to rows and columns."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from shiftlens.graph.arguments import dims_of
from shiftlens.graph.flow import Flow, added, channel_axis, flow_of, scaled, set_flow, size_along, tensors_in
from shiftlens.graph.sites import Pair, Source
from shiftlens.graph.tracer import Call, Tracer, last_axes, with_layout
from shiftlens.graph.windows import unknown, where
from shiftlens.nn.convolution import PartialConv2d

ATTENTION = ("scaled_dot_product_attention", "multi_head_attention_forward")
PRODUCTS = ("matmul", "bmm", "baddbmm", "einsum")
_ADDS_UP = ("add", "sub", "rsub", "mul", "div", "maximum", "minimum", "where", "cat")


def permute(tracer: Tracer, call: Call) -> None:
    """Axes in another order."""
    dims = [d % call.x.ndim for d in dims_of(call.args[1:], call.kwargs, "dims")]
    tracer.keep(call, (dims.index(call.flow.axes[0]), dims.index(call.flow.axes[1])), call.made[0])


def transpose(tracer: Tracer, call: Call) -> None:
    """Two axes swapped."""
    a, c = (int(call.settings[name]) % call.x.ndim for name in ("dim0", "dim1"))
    swap = {a: c, c: a}
    y, x = call.flow.axes
    tracer.keep(call, (swap.get(y, y), swap.get(x, x)), call.made[0])


def cat(tracer: Tracer, call: Call) -> None:
    """Maps one after another along an axis."""
    _note_places(tracer, call)
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


def linear(tracer: Tracer, call: Call) -> None:
    """A linear layer."""
    if call.flow.axes[1] == call.x.ndim - 1:
        tracer.lose(call, where(call))
        return
    # A linear layer on channels that come last is a 1x1 convolution: the same places, other channels.
    set_flow(call.made[0], replace(call.flow, fresh=None, pending=None))


def view(tracer: Tracer, call: Call) -> None:
    """The same numbers in another shape."""
    for out in call.made:
        axes = _axes_in(out, call.flow, call.x)
        if axes is None:
            tracer.lose(call, where(call))
            return
        tracer.keep(call, axes, out)


def reduction(tracer: Tracer, call: Call) -> None:
    """A sum, mean, maximum, ... over some axes."""
    flow, x = call.flow, call.x
    dims = {d % x.ndim for d in dims_of(call.args[1:2], call.kwargs, "dim")} if _has_dim(call) else set(range(x.ndim))
    if len([t for t in call.given if t.shape != ()]) > 1:  # max(a, b)
        pointwise(tracer, call)
        return
    for out in call.made:
        if not dims & set(flow.axes):
            removed = dims if out.ndim < x.ndim else set()
            y, c = (axis - sum(d < axis for d in removed) for axis in flow.axes)
            set_flow(out, replace(flow, axes=(y, c), fresh=None))
        elif dims >= set(flow.axes) and 0 not in dims and not flow.lost:
            over_space = dims == set(flow.axes) and call.key.name in ("mean", "amax", "amin")
            tracer.whole(call, "pooling", freezable=over_space)
            index = tracer.add(call, "global pool", flow, out, out_size=(1, 1))
            if out.ndim < x.ndim:
                set_flow(out, Flow((1, 1), flow.axes, (Source(index),), lost=where(call)))
        else:
            tracer.whole(call, "pooling")
            set_flow(out, replace(flow, lost=where(call), pending=None))


def _has_dim(call: Call) -> bool:
    return "dim" in call.kwargs or (len(call.args) > 1 and not isinstance(call.args[1], Tensor))


def pointwise(tracer: Tracer, call: Call) -> None:
    """Anything that leaves each place to itself; several maps of one size are joined, smaller ones only steer."""
    _note_places(tracer, call)
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
        if any(flow.lost and flow.size != (1, 1) for flow, _ in flows):
            tracer.whole(replace(call, instead=fitting[0]), "other")
        distinct = {flow.sources: flow for flow in fitting}
        if len(fitting) == 1 or (len(distinct) == 1 and call.kind != "sum"):
            _same_place(tracer, call, fitting[0], out)
        elif call.kind in ("sum", "choice"):
            joined = replace(fitting[0], sources=added(fitting), pending=None)
            tracer.add(replace(call, instead=joined), "sum", joined, out)
        else:
            # A product of two maps: both count, half each.
            set_flow(out, Flow(fitting[0].size, fitting[0].axes, added([scaled(f, 1 / len(fitting)) for f in fitting])))


def _note_places(tracer: Tracer, call: Call) -> None:
    """Remember where places are given numbers of their own: position embeddings, maps of coordinates."""
    if call.key.name not in _ADDS_UP or isinstance(call.part, PartialConv2d):
        return
    flow, n_axes = call.flow, call.x.ndim
    own = [t for t in tensors_in((*call.args, *call.kwargs.values())) if flow_of(t) is None]
    for t in own:
        axes = [axis - n_axes + t.ndim for axis in flow.axes]
        sides = [int(t.shape[axis]) for axis in axes if axis >= 0] if not flow.lost else sorted(t.shape)[:-1]
        if any(side > 1 for side in sides):
            tracer.whole(call, "other")
            return


def _same_place(tracer: Tracer, call: Call, flow: Flow, out: Tensor) -> None:
    set_flow(out, flow)
    if flow.fresh is None:
        return
    draft = tracer.drafts[flow.fresh]
    key = with_layout(call.key, flow.axes, out)
    if key is None or draft.activation is not None:
        return
    if call.kind == "activation":
        draft.after, draft.activation = key, call.key.name
        set_flow(out, replace(flow, fresh=None))
    elif call.kind == "normalisation" and draft.after is None:
        draft.after = key


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


def mix(tracer: Tracer, call: Call) -> None:
    """What moves or mixes places."""
    product = call.key.name in PRODUCTS
    if not product or len(call.given) > 1:
        tracer.whole(call, "attention" if product or call.key.name in ATTENTION else "other")
    tracer.lose(call, where(call))


def softmax(tracer: Tracer, call: Call) -> None:
    """Shares of a whole along one axis: of the channels, or of places."""
    dim = call.settings["dim"]
    channels = channel_axis(call.flow.axes, call.x.ndim)
    if call.flow.lost or dim is None or int(dim) % call.x.ndim != channels:
        tracer.whole(call, "attention")
    pointwise(tracer, call)


def normalisation(tracer: Tracer, call: Call) -> None:
    """Minus a mean, over a spread: of one place's channels, of what training saw, or of the map at hand."""
    name, b, x = call.key.name, call.settings, call.x
    if name in ("layer_norm", "rms_norm"):
        n_axes = len(b["normalized_shape"])
        over_space = n_axes > 1 if call.flow.lost else bool(set(range(x.ndim - n_axes, x.ndim)) & set(call.flow.axes))
        # Weights of each place's own have one size only.
        freezable = name == "layer_norm" and n_axes == x.ndim - 1 and b.get("weight") is None
    else:
        given = {"batch_norm": "training", "instance_norm": "use_input_stats"}.get(name)
        over_space, freezable = given is None or bool(b[given]), True
    if over_space:
        tracer.whole(call, "norm", freezable=freezable)
    pointwise(tracer, call)
