"""Edits: what a repair changes in a net, as plain facts, and how each is carried out again on a fresh one.

A run directory lists the edits of its net, so that it can be built without its author's code: build the net, carry the
edits out in order, put the weights in. The facts may come from a stranger: a path, and names from the tables below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from shiftlens.errors import InputError
from shiftlens.naming import unknown_name
from shiftlens.nn.balance import BalancedStride2d
from shiftlens.nn.batch_renorm import with_norm
from shiftlens.nn.convolution import (
    OWN_CONVOLUTIONS,
    PaddedLayer2d,
    full_sides,
    set_padding_mode,
    sides_of_layer,
    without_padding,
)
from shiftlens.nn.downsample import REDUCERS, BlurPool2d, Polyphase2d, ReducedLayer2d, reducer, stride_of
from shiftlens.nn.padding import Pad2d, Sides, check_mode, pad_mode
from shiftlens.nn.pooling import PaddedPool2d
from shiftlens.nn.repair_mark import mark_repaired

PAD_LAYERS: tuple[type[nn.Module], ...] = (
    Pad2d,
    nn.ZeroPad2d,
    nn.ConstantPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.CircularPad2d,
)
"""Layers that do nothing but pad."""

DOWNSAMPLING_REPAIRS: tuple[str, ...] = (*REDUCERS, "balanced")
"""What can take the place of a stride with the weights that are there."""

MOST_INPUT_PADDING = 1024
LONGEST_PATH = 300
"""Characters of a layer's path: each edit may wrap what the one before has wrapped, which nothing else would end."""


@dataclass(frozen=True)
class Edit:
    """One change to a net.

    Attributes
    ----------
    path
        The layer, as `named_modules` names it after the edits before this one; "" is the net itself.
    what
        `padding`, `downsample`, `norm`, `input padding` or `input size` (which preprocessing holds: nothing to do in
        the net).
    before, after
        Names of modes, down-samplings or norms; sizes as [h, w].
    options
        What else it takes to do the same again; plain JSON.

    Examples
    --------
    >>> fixed, edits = sl.repair(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), padding="reflect")
    >>> edits[0].path, edits[0].what, edits[0].before, edits[0].after
    ('0', 'padding', 'zeros', 'reflect')
    >>> Edit.from_dict(edits[0].to_dict()) == edits[0]
    True
    """

    path: str
    what: str
    before: Any
    after: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"path": self.path, "what": self.what, "before": self.before, "after": self.after, **self.options}

    @staticmethod
    def from_dict(facts: Mapping[str, Any]) -> Edit:
        """From plain JSON; `InputError` where something is missing, of another type, or of an unknown kind."""
        path, what = facts.get("path"), facts.get("what")
        if not isinstance(path, str):
            raise InputError(f"an edit needs a path, got {path!r:.80}")
        if len(path) > LONGEST_PATH:
            raise InputError(f"an edit's path has at most {LONGEST_PATH} characters, got {len(path)}")
        if not isinstance(what, str) or what not in _CARRY_OUT:
            raise unknown_name("edit", what, list(_CARRY_OUT))
        named = ("path", "what", "before", "after")
        options = {name: value for name, value in facts.items() if name not in named}
        return Edit(path, what, facts.get("before"), facts.get("after"), options)

    def __str__(self) -> str:
        """For people."""
        return f"{self.path or 'the net'}: {self.what} {_words(self.before)} -> {_words(self.after)}"


def _words(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def explicit_sides(layer: nn.Module) -> Sides:
    """(left, right, top, bottom) of a layer that does nothing but pad."""
    left, right, top, bottom = layer.padding  # type: ignore[misc]
    return left, right, top, bottom


def _with_padding(root: nn.Module, layer: nn.Module, edit: Edit) -> nn.Module:
    mode = check_mode(edit.after)
    if isinstance(layer, PAD_LAYERS):
        return Pad2d(explicit_sides(layer), mode)
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        return PaddedPool2d(layer, mode)
    if not isinstance(layer, nn.Conv2d):
        raise InputError(f"a {type(layer).__name__} has no padding mode")
    if type(layer) in OWN_CONVOLUTIONS:
        set_padding_mode(layer, mode)
        return layer
    if edit.options.get("way") == "attribute" and mode in ("zeros", "replicate", "reflect", "circular"):
        layer.padding_mode = mode  # type: ignore[assignment]
        return layer
    sides = sides_of_layer(layer)
    if mode == "full":
        sides, mode = full_sides(layer), "zeros"
    if max(sides) == 0:
        raise InputError(f"this {type(layer).__name__} pads nothing")
    return PaddedLayer2d(without_padding(layer), sides, mode)


def _with_downsampling(root: nn.Module, layer: nn.Module, edit: Edit) -> nn.Module:
    if edit.after == "balanced":
        return BalancedStride2d(layer, str(edit.options.get("lean", "end")))
    if edit.after not in REDUCERS:
        raise unknown_name("down-sampling", edit.after, DOWNSAMPLING_REPAIRS)
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | PaddedPool2d):
        raise InputError(f"a {type(layer).__name__} has no stride that could be replaced")
    options = edit.options
    mode, filter_size = pad_mode(str(options.get("padding_mode", "symmetric"))), options.get("filter_size", 3)
    if not isinstance(filter_size, int) or not 1 <= filter_size <= 31:
        raise InputError(f"filter_size lies between 1 and 31, got {filter_size!r}")
    leader = options.get("leader")
    reduce: BlurPool2d | Polyphase2d = reducer(edit.after, stride_of(layer), mode, filter_size)
    if leader is not None:
        first = _submodule(root, str(leader))
        chosen = first.reduce if isinstance(first, ReducedLayer2d) else None
        if not isinstance(chosen, Polyphase2d):
            raise InputError(f"{leader} chooses no grid that {edit.path} could take")
        reduce = Polyphase2d(stride_of(layer), mode, leader=chosen)
    activation = options.get("activation")
    if activation is None:
        return ReducedLayer2d(layer, reduce)
    # Conv(s) + ReLU: the blur stands behind the activation; nothing else reads what is between.
    acting = _submodule(root, str(activation))
    if not isinstance(layer, nn.Conv2d):
        raise InputError(f"{edit.path} is no convolution, {activation} cannot be its activation")
    layer.stride = (1, 1)
    _replace(root, acting, _outside(acting, nn.Sequential(acting, reduce)))
    return layer


def _with_input_padding(root: nn.Module, layer: nn.Module, edit: Edit) -> nn.Module:
    sides = edit.options.get("sides")
    right = isinstance(sides, list | tuple) and len(sides) == 4
    if not right or any(not isinstance(s, int) or not 0 <= s <= MOST_INPUT_PADDING for s in sides):  # type: ignore[union-attr]
        raise InputError(f"input padding needs (left, right, top, bottom) up to {MOST_INPUT_PADDING}, got {sides!r}")
    if layer is not root:
        raise InputError("input padding belongs to the net as a whole")
    if isinstance(layer, PaddedLayer2d):
        raise InputError("the input is padded already")
    return PaddedLayer2d(layer, sides, pad_mode(edit.after))  # type: ignore[arg-type]


def _with_norm(root: nn.Module, layer: nn.Module, edit: Edit) -> nn.Module:
    first = next(root.parameters(), None)
    made = with_norm(layer, str(edit.after))
    return made if first is None else made.to(first.device, first.dtype)


_CARRY_OUT: dict[str, Callable[[nn.Module, nn.Module, Edit], nn.Module]] = {
    "padding": _with_padding,
    "downsample": _with_downsampling,
    "norm": _with_norm,
    "input padding": _with_input_padding,
    "input size": lambda root, layer, edit: layer,
}

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


def _outside(old: nn.Module, new: nn.Module) -> nn.Module:
    """Let a layer take another's place: its mode, and its hooks, which stay hooks of what is now outside."""
    for part in new.modules():
        if not any(part is inner for inner in old.modules()):
            part.training = old.training
    for name in _HOOKS:
        theirs = getattr(old, name)
        setattr(new, name, theirs.copy() if hasattr(theirs, "copy") else theirs)
    if any(part is old for part in new.modules()):
        for name in _HOOKS:
            theirs = getattr(old, name)
            setattr(old, name, type(theirs)() if hasattr(theirs, "copy") else None)
    return new


def _submodule(root: nn.Module, path: str) -> nn.Module:
    try:
        return root.get_submodule(path)
    except AttributeError:
        raise InputError(f"{type(root).__name__} has no layer {path!r}") from None


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Wherever the net uses a layer, under however many names, it uses the new one."""
    for parent in [*root.modules()]:
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def carry_out(module: nn.Module, edits: Iterable[Edit | Mapping[str, Any]]) -> nn.Module:
    """Change a net, in place, as `Edit`s or the same as plain JSON say, one after the other.

    Parameters, buffers, flags, hooks and ties stay; layers used twice stay used twice. Returns the same object or,
    where the net itself is one layer that is replaced, what took its place. Its weights are marked as those of a
    repaired net. `InputError` names the layer that an edit does not fit.
    """
    for each in edits:
        edit = each if isinstance(each, Edit) else Edit.from_dict(each)
        layer = _submodule(module, edit.path)
        try:
            new = _CARRY_OUT[edit.what](module, layer, edit)
        except InputError as error:
            raise InputError(f"{edit.path or type(module).__name__}: {error}") from None
        if new is not layer:
            _outside(layer, new)
            if layer is module:
                module = new
            else:
                _replace(module, layer, new)
        if edit.what != "input size":
            mark_repaired(module)
    return module
