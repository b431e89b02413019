"""`repair`: look at every layer of a copy, decide on its edit, carry it out, and name what cannot be reached."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from torch import nn

from shiftlens.arithmetic import graph_of
from shiftlens.errors import InputError, NoEffectWarning
from shiftlens.given import CHANGED
from shiftlens.graph import Graph
from shiftlens.models.loading import Model, load_model
from shiftlens.naming import one_line, unknown_name
from shiftlens.nn.batch_renorm import NORM_REPAIRS
from shiftlens.nn.edits import DOWNSAMPLING_REPAIRS, Edit
from shiftlens.nn.padding import check_mode
from shiftlens.surgery.choosing import Choice, Patterns, refuse_closed
from shiftlens.surgery.norm_edits import edit_norms
from shiftlens.surgery.padding_edits import edit_padding
from shiftlens.surgery.repair_plan import Plan
from shiftlens.surgery.striding_edits import edit_strides

SIZES_TO_TRY = (224, 32, 64, 96, 128, 256, 299, 384, 512)
"""Input sizes at which a net is looked at when nobody says one."""


@overload
def repair(
    module: nn.Module,
    padding: str | None = None,
    downsample: str | None = None,
    *,
    only: Patterns = None,
    exclude: Patterns = None,
    size: int | tuple[int, int] | None = None,
    filter_size: int = 3,
    norm: str | None = None,
) -> tuple[nn.Module, list[Edit]]: ...


@overload
def repair(
    module: Model | str | Path,
    padding: str | None = None,
    downsample: str | None = None,
    *,
    only: Patterns = None,
    exclude: Patterns = None,
    size: int | tuple[int, int] | None = None,
    filter_size: int = 3,
    norm: str | None = None,
) -> tuple[Model, list[Edit]]: ...


def repair(
    module: nn.Module | Model | str | Path,
    padding: str | None = None,
    downsample: str | None = None,
    *,
    only: Patterns = None,
    exclude: Patterns = None,
    size: int | tuple[int, int] | None = None,
    filter_size: int = 3,
    norm: str | None = None,
) -> tuple[nn.Module | Model, list[Edit]]:
    """Copy a net with another padding, down-sampling or norm; the weights stay.

    Every layer that pads is given the new mode: convolutions, padded pools (a mean over padded zeros is no longer the
    mean), explicit pad layers. Layers that do not pad, and whatever has the mode already, are left alone. The copy
    keeps parameters, buffers, dtype, device, `requires_grad`, training flags, hooks and ties; a layer used twice is
    still one layer. Its state dict has one entry more, so that its weights do not load strictly into the net as it was.
    Accuracy usually falls at first, since the net was trained with what it had: re-estimate batch norm
    (`surgery.reestimate`) or fine-tune (`surgery.finetune`), and measure again.

    Parameters
    ----------
    module
        Any `nn.Module`, which is not changed; or a `Model` or a spec, which give a `Model`.
    padding
        A name of `shiftlens.nn.PADDING_MODES`. Pools take the modes of `pad`; with `zeros`, `partial` and `full` they
        keep their own.
    downsample
        `blur`: strided layers with stride 1 and then a binomial blur with their stride (arXiv 1904.11486), behind the
        activation where a chain shows which one is theirs, else directly behind the layer. `polyphase`: with stride 1
        and then the grid with the largest norm (arXiv 2011.14214), the same one in branches that meet again.
        `balanced`: at the input size, layers that leave rows over leave them on the side that brings the whole net's
        grid to the middle of the picture (this project's own).
    only, exclude
        Layers by path (`layer1` means all that is in it), by path with `*` and `?`, or by class; one, several with
        commas, or a list. `exclude` is stronger.
    size
        (h, w) or one number, pixels: where given, or known from a `Model`, the result is tried at this size.
    filter_size
        Taps of the blur.
    norm
        `batch-renorm`: norms that read the whole map (instance and group norm, batch norm without running statistics)
        become `nn.BatchRenorm2d`, which is the same in a tile as in the whole image (arXiv 1702.03275, as 2503.19545
        proposes). Measure its statistics (`surgery.reestimate`), then let it learn the original's output
        (`surgery.distill`).

    Returns
    -------
    nn.Module or Model
        In the training mode that the original is in.
    list[Edit]
        What was changed, layer by layer, in order; `nn.edits.carry_out` does the same again.

    Raises
    ------
    InputError
        An unknown name; a scripted, quantised or lazy module; a transposed convolution (leave it out with `exclude`);
        a map that the new mode cannot pad; branches that cannot share a grid.

    Warns
    -----
    NoEffectWarning
        Nothing matched, or something that pads or strides could not be reached, such as a plain function call.

    Examples
    --------
    >>> fixed, edits = repair(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), padding="reflect")
    >>> fixed[0].padding_mode, str(edits[0])
    ('reflect', '0: padding zeros -> reflect')
    """
    if isinstance(module, str | Path):
        module = load_model(module)
    net = module.module if isinstance(module, Model) else module
    check_names(padding, downsample, norm)
    refuse_closed(net)  # type: ignore[arg-type]
    assert isinstance(net, nn.Module)
    if size is None and isinstance(module, Model):
        size = module.input_size
    graph = _graph(net, size)
    choice = Choice(net, only, exclude)
    chosen = {path for path, part in net.named_modules() if choice.has(part)}
    plan = Plan(_copied(net), chosen)
    if padding is not None:
        edit_padding(plan, padding)
        plan.unreached += _padding_functions(graph, choice)
    if downsample is not None:
        edit_strides(plan, downsample, graph, filter_size)
        plan.unreached += _striding_functions(graph, choice)
    if norm is not None:
        edit_norms(plan, norm, graph, choice)
    asked = {
        what: name
        for what, name in (("padding", padding), ("downsample", downsample), ("norm", norm))
        if name is not None
    }
    _report(plan, asked, graph)
    if size is not None:
        graph_of(plan.module, size)  # says which layer does not take its map
    if isinstance(module, Model):
        name = f"{module.name} ({', '.join(f'{what} {each}' for what, each in asked.items())})"
        return replace(module, module=plan.module, name=name, options=CHANGED), plan.edits
    return plan.module, plan.edits


def repadded(module: nn.Module, padding: str) -> nn.Module:
    """A net of the same weights (shared, not copied) whose layers all pad by another mode, as `repair` makes it.

    Nothing is traced, noted or tried.
    """
    refuse_closed(module)
    plan = Plan(
        _copied(module, {id(each): each for each in module.parameters()}), {path for path, _ in module.named_modules()}
    )
    edit_padding(plan, check_mode(padding))
    return plan.module


def check_names(padding: str | None, downsample: str | None, norm: str | None = None) -> None:
    """Refuse a repair that needs no net to be refused: nothing asked for, or an unknown name."""
    if padding is None and downsample is None and norm is None:
        raise InputError("repair needs a padding mode, a down-sampling or a norm, got none")
    if padding is not None:
        check_mode(padding)
    if downsample is not None and downsample not in DOWNSAMPLING_REPAIRS:
        raise unknown_name("down-sampling", downsample, DOWNSAMPLING_REPAIRS)
    if norm is not None and norm not in NORM_REPAIRS:
        raise unknown_name("norm", norm, NORM_REPAIRS)


def _copied(module: nn.Module, shared: dict[int, Any] | None = None) -> nn.Module:
    try:
        return copy.deepcopy(module, shared)
    except Exception as error:  # a stranger's net may hold anything
        raise InputError(f"{type(module).__name__} cannot be copied: {one_line(error)}") from None


def _graph(module: nn.Module, size: int | tuple[int, int] | None) -> Graph | None:
    """The net's sites at its size, or at the first of the usual ones that it takes."""
    for each in SIZES_TO_TRY if size is None else (size,):
        try:
            return graph_of(module, each)
        except InputError:
            if size is not None:
                raise
    return None


# ---- what cannot be reached


def _padding_functions(graph: Graph | None, choice: Choice) -> list[str]:
    sites = [] if graph is None else [s for s in graph if s.path.endswith("()") and s.padding and s.kind != "slice"]
    return [f"{s.path} pads, called as a function" for s in sites if choice.has_path(s.path) and not s.merged]


def _striding_functions(graph: Graph | None, choice: Choice) -> list[str]:
    windows = ("conv", "max pool", "average pool", "lp pool", "slice")
    sites = [] if graph is None else [s for s in graph if s.path.endswith("()") and s.kind in windows]
    return [f"{s.path} strides, called as a function" for s in sites if max(s.stride) > 1 and choice.has_path(s.path)]


def _report(plan: Plan, given: Mapping[str, str], graph: Graph | None) -> None:
    unreached = [*dict.fromkeys(plan.unreached)]
    if graph is None:
        unreached.append("what is called as a plain function could not be looked for: give an input size (size=)")
    named = "; ".join(unreached[:6]) + (f"; and {len(unreached) - 6} more" if len(unreached) > 6 else "")
    if not plan.edits:
        asked = ", ".join(f"{what}={name!r}" for what, name in given.items())
        what = "reads the whole map" if given.keys() == {"norm"} else "pads or strides in another way"
        text = f"repair({asked}) changed nothing: no layer that was asked for {what}"
        warnings.warn(f"{text}{'; not reached: ' + named if named else ''}", NoEffectWarning, stacklevel=3)
    elif unreached:
        warnings.warn(f"left as it is: {named}", NoEffectWarning, stacklevel=3)
