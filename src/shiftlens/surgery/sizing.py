"""Input sizes at which no layer uses its padding unevenly: by resizing the pictures, or by padding them."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn

from shiftlens.arithmetic import inspect
from shiftlens.errors import InputError
from shiftlens.given import CHANGED
from shiftlens.models.wrapping import Model
from shiftlens.nn.edits import Edit, carry_out
from shiftlens.nn.padding import pad_mode

Size = tuple[int, int]


def even_size(module: nn.Module | Model, size: Size, *, at_least: bool = False) -> Size:
    """The nearest input size (h, w) in pixels at which every layer treats opposite sides alike.

    Of two that are equally near the larger is taken, which loses nothing of the picture; with `at_least`, none that is
    smaller. `InputError` where there is none nearby, or the net does not take this size.

    Examples
    --------
    >>> even_size(nn.Conv2d(3, 8, 3, stride=2, padding=1), (32, 32))
    (33, 33)
    """
    found = inspect(module, size)
    if found.is_even:
        return size
    chosen = []
    for axis, n in (("h", size[0]), ("w", size[1])):
        known = [m for m in found.even_sizes[axis] if m >= n or not at_least]
        if not known:
            if found.takes_one_size:
                raise InputError(f"{found.model} takes pictures of {size[0]}x{size[1]} only, and is uneven there")
            more = " or above" if at_least else " nearby"
            raise InputError(f"{found.model} has no even size at {n}{more}: see shiftlens inspect")
        chosen.append(min(known, key=lambda m, n=n: (abs(m - n), -m)))  # type: ignore[misc]
    even = (chosen[0], chosen[1])
    left = inspect(module, even).uneven
    if left:
        raise InputError(f"{found.model} is still uneven at {even[0]}x{even[1]}: {left[0].name}")
    return even


def with_input_size(model: Model, size: Size | None = None, *, pad: str | None = None) -> tuple[Model, list[Edit]]:
    """The same net for pictures of another size: the nearest even one, unless a size is given.

    Parameters
    ----------
    model
        Its own input size must be known.
    size
        (h, w) in pixels; None: `even_size`.
    pad
        None: pictures are resized. A mode of `pad`: pictures keep their size, and the net pads them to the new one,
        the odd row and column at the bottom and right.

    Returns
    -------
    Model, list[Edit]
        A new `Model` (of the same net where pictures are resized), and what was changed: nothing when it is that size.

    Raises
    ------
    InputError
        No size is known, none is even nearby, the net does not take it, or it is smaller where it must be padded.
    """
    before = model.input_size
    if before is None:
        raise InputError(f"{model.name} declares no input size: give one (--input-size)")
    if not isinstance(model.module, nn.Module):
        raise InputError(f"{model.name} is a plain callable: it shows no layers")
    after = size or even_size(model, before, at_least=pad is not None)
    if after == before:
        return model, []
    h, w = (b - a for a, b in zip(before, after, strict=True))
    if pad is None:
        preprocessing = model.preprocessing.overridden(size=after)
        resized = replace(model, preprocessing=preprocessing, native_size=after, options=CHANGED)
        _ = resized.probed
        return resized, [Edit("", "input size", list(before), list(after))]
    if min(h, w) < 0:
        raise InputError(f"pictures of {before[0]}x{before[1]} cannot be padded to {after[0]}x{after[1]}")
    edit = Edit("", "input padding", list(before), pad_mode(pad), {"sides": [w // 2, w - w // 2, h // 2, h - h // 2]})
    padded = replace(model, module=carry_out(copy.deepcopy(model.module), [edit]), options=CHANGED)
    _ = padded.probed
    return padded, [edit]
