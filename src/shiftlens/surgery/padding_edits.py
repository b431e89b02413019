"""Which layers of a net take another padding mode, and how."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from shiftlens.errors import InputError
from shiftlens.graph.operators import kind_of, operator_of_layer
from shiftlens.graph.sharing import padding_of
from shiftlens.nn.convolution import OWN_CONVOLUTIONS, full_sides, sides_of_layer
from shiftlens.nn.edits import PAD_LAYERS, Edit, explicit_sides
from shiftlens.nn.padding import PAD_MODES
from shiftlens.surgery.repair_plan import Plan, where
from shiftlens.surgery.subclasses import way_of

_ITS_OWN = ("zeros", "partial", "full")
"""Modes under which a pool keeps its own padding."""


def edit_padding(plan: Plan, mode: str) -> None:
    """Give every chosen layer that pads another mode, on the plan's copy; refuses a transposed convolution."""
    refused = []
    for path, layer in [*plan.module.named_modules()]:
        if path not in plan.chosen:
            continue
        if kind_of(layer) == "transposed conv":
            refused.append(where(path, layer))
            continue
        for edit in _edits(plan, path, layer, mode):
            plan.do(edit)
            if edit.options.get("way") == "wrapped":
                plan.chosen.add(f"{path}.layer".lstrip("."))
    if refused:
        names = ", ".join(refused[:5]) + (f" and {len(refused) - 5} more" if len(refused) > 5 else "")
        raise InputError(
            f"the padding of a transposed convolution cuts its output and has no mode: {names}; leave out with exclude"
        )


def _edits(plan: Plan, path: str, layer: nn.Module, mode: str) -> Iterator[Edit]:
    named = where(path, layer)
    if isinstance(layer, nn.Conv2d):
        yield from _of_convolution(plan, path, layer, mode)
    elif kind_of(layer) in ("max pool", "average pool"):
        if max(sides_of_layer(layer)) == 0 or mode in _ITS_OWN:
            return
        if operator_of_layer(layer, exact=True) is None or getattr(layer, "return_indices", False):
            plan.unreached.append(f"{named}: its own code pads, or it returns indices")
            return
        yield Edit(path, "padding", "-inf" if kind_of(layer) == "max pool" else "zeros", mode)
    elif isinstance(layer, PAD_LAYERS):
        yield from _of_pad_layer(plan, path, layer, mode)
    elif not any(layer.children()) and _pads_otherwise(layer):
        plan.unreached.append(f"{named}: a kind of layer that has no modes")


def _of_convolution(plan: Plan, path: str, layer: nn.Conv2d, mode: str) -> Iterator[Edit]:
    sides = sides_of_layer(layer)
    before = str(layer.padding_mode)
    after = "replicate" if mode == "symmetric" and max(sides) <= 1 else mode
    if max(sides) == 0 or before == after or (mode == "full" and before == "zeros" and sides == full_sides(layer)):
        return
    if type(layer) in OWN_CONVOLUTIONS:
        yield Edit(path, "padding", before, mode)
        return
    way = way_of(layer, mode)
    if way is None:
        plan.unreached.append(f"{where(path, layer)}: its own code pads")
    else:
        yield Edit(path, "padding", before, after if way == "attribute" else mode, {"way": way})


def _of_pad_layer(plan: Plan, path: str, layer: nn.Module, mode: str) -> Iterator[Edit]:
    (rule, value), sides, named = padding_of(layer), explicit_sides(layer), where(path, layer)
    before = "zeros" if rule is None and value == 0 else rule
    if before == mode or not any(sides):
        return
    if before is None:
        plan.unreached.append(f"{named}: it pads by a number other than 0")
    elif min(sides) < 0:
        plan.unreached.append(f"{named}: it cuts the map")
    elif mode not in PAD_MODES:
        plan.unreached.append(f"{named}: {mode} is defined for a convolution only")
    else:
        yield Edit(path, "padding", before, mode)


def _pads_otherwise(layer: nn.Module) -> bool:
    padding = getattr(layer, "padding", 0)
    numbers = padding if isinstance(padding, tuple | list) else (padding,)
    return any(isinstance(number, int) and number > 0 for number in numbers)
