"""The list of sites while a forward pass is running."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shiftlens.graph.flow import (
    Flow,
    Pending,
    channel_axis,
    flow_of,
    level_of,
    set_flow,
    set_level,
    size_along,
    tensors_in,
)
from shiftlens.graph.sites import GlobalLayer, OpKey, Output, Pair, Sides, Site, Source
from shiftlens.graph.watching import Watch, is_layer
from shiftlens.nn.convolution import PartialConv2d


@dataclass
class Draft:
    """A site while the pass is still running: some facts are only known later."""

    site: Site
    after: OpKey | None = None
    activation: str | None = None
    merged: bool = False


class Tracer(Watch):
    """Builds the list of sites during one forward pass."""

    def __init__(self, module: nn.Module, follow: Callable[[Tracer, Call], None]) -> None:
        super().__init__(module)
        self._follow_call = follow
        self.drafts: list[Draft] = []
        self.notes: list[str] = []
        self.global_layers: list[GlobalLayer] = []
        self.output: Output | None = None
        self._calls: Counter[str] = Counter()
        self._lost_at: dict[str, None] = {}

    # ---- what is asked afterwards

    def sites(self) -> tuple[Site, ...]:
        """The sites in call order."""
        return tuple(
            replace(d.site, after=d.after or d.site.op, activation=d.activation, merged=d.merged) for d in self.drafts
        )

    def note(self, text: str) -> None:
        """Remember a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)

    def note_blind_spots(self) -> None:
        """Name what could not be followed, and the modules whose inside cannot be watched."""
        if self._lost_at:
            first, *more = self._lost_at
            rest = f" and {len(more)} more places" if more else ""
            self.note(f"rows and columns cannot be followed past {first}{rest}")
        for path, part in self._module.named_modules():
            if isinstance(part, torch.jit.ScriptModule):
                self.note(f"{path or type(part).__name__} is compiled TorchScript: its layers cannot be seen")
                return

    def ended_in_linear(self) -> bool:
        """Whether the pass broke off at a linear layer, where a size that the head is not made for shows."""
        return self.failed is not None and isinstance(self.failed[1], nn.Linear)

    # ---- what the pass tells

    def saw(self, key: OpKey, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Follow one function call."""
        if key.name in ("as_tensor", "tensor", "from_numpy") and isinstance(output, Tensor):
            _remember_values(output, args)
            return
        given = [tensor for tensor in tensors_in((*args, *kwargs.values())) if flow_of(tensor) is not None]
        made = [tensor for tensor in tensors_in((output,)) if tensor.is_floating_point()]
        if key.name == "__setitem__" and given:
            made = [args[0]]
        if not given or not made:
            return
        level, n_before = level_of(given), len(self.global_layers)
        self._follow_call(self, Call(key, part, args, kwargs, given, made))
        for tensor in made:
            set_level(tensor, level + (len(self.global_layers) > n_before))

    def left(self, path: str, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A module whose output cannot be traced to its input is named; what follows is known by size only."""
        known = [flow for flow in map(flow_of, tensors_in(inputs)) if flow is not None]
        strange = [t for t in tensors_in((output,)) if flow_of(t) is None and t.is_floating_point()]
        if known and strange:
            where = f"{path or 'the net'} ({type(part).__name__})"
            self.note(f"{where}: its output cannot be traced to its input")
            for tensor in strange:
                set_flow(tensor, replace(known[0], lost=where, pending=None, fresh=None))
                set_level(tensor, level_of(tensors_in(inputs)))

    # ---- building

    def add(self, call: Call, kind: str, flow: Flow, out: Tensor, **facts: Any) -> int:
        """Append a site that reads `flow` and makes `out`, and let `out` flow from it."""
        path, layer = self._named(call)
        axes = flow.axes
        axis = channel_axis(axes, call.x.ndim)
        n_in = int(call.x.shape[axis]) if axis is not None else 0
        defaults: dict[str, Any] = {
            "kernel": (1, 1),
            "stride": (1, 1),
            "dilation": (1, 1),
            "padding": Sides(),
            "own": facts.get("padding", Sides()),
            "mode": "none",
            "ceil_mode": False,
            "counts_padding": True,
            "groups": 1,
            "scale": None,
            "output_padding": (0, 0),
            "in_size": flow.size,
            "sources": flow.sources,
            "in_channels": n_in,
            "out_channels": int(out.shape[axis]) if axis is not None and out.ndim > axis else 0,
        }
        index = len(self.drafts)
        key = with_layout(call.key, axes, out)
        size: Pair = facts.pop("out_size", None) or size_along(out, axes)
        site = Site(
            index=index,
            path=path,
            call=self._calls[path],
            kind=kind,
            out_size=size,
            merged=False,
            op=key,
            after=key,
            activation=None,
            layer=layer,
            **{**defaults, **facts},
        )
        self._calls[path] += 1
        self.drafts.append(Draft(site))
        set_flow(out, Flow(size, axes, (Source(index),), fresh=index))
        return index

    def _named(self, call: Call) -> tuple[str, str]:
        if is_layer(call.part):
            return call.key.path or type(call.part).__name__, type(call.part).__name__
        return f"{call.key.path}.{call.key.name}()".lstrip("."), call.key.name

    def window(self, call: Call, kind: str, kernel: Pair, own: Sides, own_mode: str, **facts: Any) -> None:
        """Append a site that slides a window; explicit padding right before it is counted as its own."""
        flow, out, total = call.flow, call.made[0], own
        if flow.axes != last_axes(call.x):
            self.lose(call, f"{call.key.name} at {call.key.path or 'the top'}")
            return
        pending = flow.pending
        if pending is not None:
            if pending.site is not None:
                self.drafts[pending.site].merged = True
            modes = [pending.mode] if not own or own_mode == pending.mode else [pending.mode, own_mode]
            flow = replace(flow, sources=pending.sources, size=pending.size, pending=None)
            total, own, own_mode = own + pending.sides, own + pending.own, "+".join(modes)
        mode = own_mode if total else "none"
        if isinstance(call.part, PartialConv2d):
            # Zeros, and a factor that makes up for them.
            mode = "+".join([*mode.split("+")[:-1], call.part.padding_mode])
        self.add(call, kind, flow, out, kernel=kernel, padding=total, own=own, mode=mode, **facts)
        for other in call.made[1:]:  # the places of the largest values, which are no map
            set_flow(other, replace(flow, lost=f"indices of {call.key.name}", pending=None, fresh=None))

    def pad(self, call: Call, sides: Sides, mode: str) -> None:
        """Follow explicit padding: a site of its own outside a layer, and pending for the next window."""
        flow, out = call.flow, call.made[0]
        own_layer = is_layer(call.part) and not type(call.part).__name__.endswith("Pad2d")
        size = size_along(out, flow.axes)
        before = flow.pending
        start = (flow.sources, flow.size) if before is None else (before.sources, before.size)
        modes = mode if before is None or before.mode == mode else f"{before.mode}+{mode}"
        total = sides if before is None else before.sides + sides
        if own_layer:
            made = Pending(total, modes, *start, None if before is None else before.site, sides)
            set_flow(out, replace(flow, size=size, pending=made, fresh=None))
            return
        path = self._named(call)[0]
        if before is not None and before.site is not None and self.drafts[before.site].site.path == path:
            # The two axes of one padding, done one after the other.
            site = self.drafts[before.site].site
            self.drafts[before.site].site = replace(
                site, padding=total, mode=modes, out_size=size, op=with_layout(call.key, flow.axes, out)
            )
            index = before.site
        else:
            index = self.add(call, "pad", flow, out, padding=sides, mode=mode)
        set_flow(out, Flow(size, flow.axes, (Source(index),), Pending(total, modes, *start, index)))

    def whole(self, call: Call, kind: str, *, freezable: bool = False, cells: Pair = (1, 1)) -> None:
        """Remember a call whose output at one place depends on the whole map; none where the map is one cell."""
        flow = call.flow
        if flow.size == (1, 1):
            return
        path, layer = self._named(call)
        freezable = freezable and not flow.lost and call.x.ndim == 4 and flow.axes == last_axes(call.x)
        level = level_of(call.given) + 1
        self.global_layers.append(
            GlobalLayer(path, kind, layer, level, freezable, call.key, flow.sources, flow.size, cells)
        )

    def lost_before(self, where: str) -> None:
        """Remember that a window slides over a map whose rows and columns could not be followed."""
        self._lost_at.setdefault(where, None)

    def keep(self, call: Call, axes: Pair, out: Tensor) -> None:
        """The same map in a tensor of another layout."""
        set_flow(out, replace(call.flow, axes=axes))

    def lose(self, call: Call, where: str) -> None:
        """What comes out has no rows and columns that could be told apart."""
        for out in call.made:
            set_flow(out, replace(call.flow, lost=call.flow.lost or where, pending=None, fresh=None))


@dataclass(frozen=True)
class Call:
    """One function call.

    `given` are the tensors in it that come from the image, `made` those it returned; `kind` and `settings` are the
    operator's kind and its arguments by name.
    """

    key: OpKey
    part: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: list[Tensor]
    made: list[Tensor]
    instead: Flow | None = None
    kind: str = "other"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def x(self) -> Tensor:
        """The first tensor that comes from the picture."""
        return self.given[0]

    @property
    def flow(self) -> Flow:
        """What is known of `x`."""
        flow = self.instead or flow_of(self.x)
        if flow is None:
            raise RuntimeError(f"{self.key} has no input that comes from the picture")
        return flow


def last_axes(tensor: Tensor) -> Pair:
    """The axes that torch takes for the picture's."""
    return tensor.ndim - 2, tensor.ndim - 1


def with_layout(key: OpKey, axes: Pair, out: Tensor) -> OpKey:
    """A key that says where the channels of its output are."""
    return replace(key, channels_last=axes == (1, 2) and out.ndim == 4)


def _remember_values(tensor: Tensor, args: tuple[Any, ...]) -> None:
    """On the meta device an index loses its numbers; padding by index needs them."""
    if args and isinstance(args[0], np.ndarray | list) and tensor.ndim == 1 and not tensor.is_floating_point():
        tensor._shiftlens_values = np.asarray(args[0])  # type: ignore[attr-defined]
