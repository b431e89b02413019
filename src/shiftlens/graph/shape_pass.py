"""`trace`: one forward pass of nothing, on torch's device without memory where the net allows it, watched."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from shiftlens.devices import input_dtype
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.graph.flow import Flow, flow_of, set_flow
from shiftlens.graph.operators import follow
from shiftlens.graph.sites import ENDS_AT, Graph, Output, Pair
from shiftlens.graph.tracer import Tracer, last_axes
from shiftlens.naming import one_line
from shiftlens.tasks.outputs import form_of, numbers_of


def trace(
    module: nn.Module, size: Pair, *, n_channels: int = 3, name: str | None = None, on_meta: bool = True
) -> Graph:
    """List a net's spatial sites by watching one forward pass of one empty picture.

    No weight is read: the pass runs on torch's `meta` device, where tensors have shapes and no numbers. A net that
    cannot run there (it looks at its numbers, or keeps tensors that are no parameters) runs on its own device instead.
    The net is run as it is: put it in evaluation mode before, as `arithmetic.graph_of` does.

    Parameters
    ----------
    module
        Any net that takes pictures [n, c, h, w].
    size
        (h, w) in pixels, at least 1.
    n_channels
        Channels of the input.
    name
        Names the net in errors; default its type.
    on_meta
        False runs the net on its own device at once. The meta device needs parts of torch that take 150 MB and seconds
        to import, which a process that only wants one small net's layers does without.

    Returns
    -------
    Graph
        Sites in call order. When the net ends with layers that do not take this size (a linear layer after flatten),
        the sites up to there, and a note.

    Raises
    ------
    InputError
        A layer that does not take the map it gets (layer and sizes are named).

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    >>> [(site.path, site.kind, site.out_size) for site in trace(net, (32, 32))]
    [('0', 'conv', (16, 16)), ('2', 'max pool', (8, 8))]
    """
    title = name or type(module).__name__
    tracer = Tracer(module, follow)
    # torch remarks on copies that an even kernel with padding "same" costs; nothing is computed here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = _run(tracer, module, n_channels, size, on_meta=on_meta)
        if on_meta and error is not None and not tracer.ended_in_linear():
            tracer = Tracer(module, follow)
            error = _run(tracer, module, n_channels, size, on_meta=False)
    if error is not None:
        if not (tracer.drafts and tracer.ended_in_linear()):
            raise InputError(_why_not(tracer, title, n_channels, size, error)) from error
        path = tracer.failed[0] if tracer.failed else ""
        tracer.note(f"{ENDS_AT} {path}, which does not take a picture of {size[0]}x{size[1]}")
    tracer.note_blind_spots()
    layers = tuple(tracer.global_layers)
    return Graph(tracer.sites(), size, n_channels, tuple(tracer.notes), title, layers, tracer.output)


def _run(tracer: Tracer, module: nn.Module, n_channels: int, size: Pair, *, on_meta: bool) -> Exception | None:
    state = _state(module)
    first = next((tensor for tensor in state.values() if tensor.is_floating_point()), torch.zeros(()))
    dtype = input_dtype(module)
    if on_meta:
        device = torch.device("meta")
        without = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in state.values()}
        state = {key: without[id(tensor)] for key, tensor in state.items()}
    else:
        device = torch.device("cpu") if first.is_meta else first.device
        state = {
            key: torch.zeros_like(tensor, device=device) if tensor.is_meta else tensor for key, tensor in state.items()
        }
    x = torch.zeros(1, n_channels, *size, dtype=dtype, device=device)
    set_flow(x, Flow(size, (2, 3)))
    try:
        with torch.no_grad(), tracer:
            raw: Any = torch.func.functional_call(module, state, (x,), tie_weights=False)
        tracer.output = _output(raw)
    except Exception as error:  # a stranger's forward may raise anything
        return error
    return None


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of every module, a module that stands in two places once.

    `functional_call` sets a tensor that it knows by two names of one module twice, and puts back what it set first.
    """
    found: dict[str, Tensor] = {}
    for path, part in module.named_modules():
        own = (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))
        found |= {f"{path}.{name}".lstrip("."): tensor for name, tensor in own}
    return found


def _output(raw: Any) -> Output | None:
    try:
        form = form_of(raw, 1)
    except ModelOutputError:
        return None
    if form.is_detections:
        return Output(form.shape, (), "boxes")
    numbers = numbers_of(raw, form)
    flow = flow_of(numbers)
    if flow is None:
        return Output(form.shape, (), "the output, which cannot be traced to the image")
    turned = flow.axes != last_axes(numbers) or numbers.ndim != 4
    return Output(
        form.shape, flow.sources, flow.lost or ("the output, whose axes are not [n, k, h, w]" if turned else "")
    )


def _why_not(tracer: Tracer, title: str, n_channels: int, size: Pair, error: Exception) -> str:
    text = f"{title} does not take a picture of {n_channels} channels and {size[0]}x{size[1]} pixels"
    if tracer.failed is None:
        return f"{text}: {type(error).__name__}: {one_line(error)}"
    path, part, shape = tracer.failed
    where = f"layer {path} ({type(part).__name__})" if path else type(part).__name__
    if isinstance(part, nn.Conv2d) and len(shape) == 4 and shape[1] != part.in_channels:
        return f"{text}: {where} is made for {part.in_channels} channels and got {shape[1]}"
    got = f" got {shape}" if shape else ""
    return f"{text}: {where}{got}: {one_line(error)}"
