"""A net without its weights: enough for everything that depends on its shape only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError
from shiftlens.given import as_given
from shiftlens.models.factories import call_factory
from shiftlens.models.loading import FILES, load_model, run_of
from shiftlens.models.runs import rebuilt, told_by
from shiftlens.models.runspec import MODEL_JSON, read_spec
from shiftlens.models.wrapping import Model
from shiftlens.models.zoo import LIBRARIES, declared_size

Net = nn.Module | Model


def as_net(model: Net | str | Path, size: int | tuple[int, int] | None) -> tuple[Net, int | tuple[int, int]]:
    """A net or a model, or the skeleton of a spec, and the input size to look at it with; `InputError` without one."""
    if isinstance(model, str | Path):
        model = load_skeleton(model)
    if size is None:
        size = model.input_size if isinstance(model, Model) else declared_size(model)
    if size is None:
        name = model.name if isinstance(model, Model) else type(model).__name__
        raise InputError(f"{name} declares no input size: give one (--size)")
    return model, size


def load_skeleton(spec: str | Path, code: str | Path | None = None) -> Model:
    """Build a model by its spec without reading, drawing or downloading weights, where that can be done.

    A spec and the code of a run directory are as in `load_model`; a factory of your own is called as always, and its
    weights are what it makes them. The model has the preprocessing that the spec declares. Its tensors may be on
    torch's `meta` device: it has a shape, and cannot be measured.

    Examples
    --------
    >>> load_skeleton("torchvision:resnet50").input_size
    (224, 224)
    """
    name, run = str(spec), run_of(spec)
    kind, colon, rest = name.partition(":")
    if run is not None:
        stored = read_spec(run)
        with told_by(run / MODEL_JSON):
            build = functools.partial(rebuilt, stored, run, code)
            module = _without_weights(build) if stored.code is None else build()
        size = stored.preprocessing.size
        declared = Preprocessing(size=None if size is None else (size[0], size[1]), declared=True)
        return Model(module.eval(), declared, name, options=as_given(code=code))
    if kind in LIBRARIES and rest:
        module = _without_weights(lambda: LIBRARIES[kind].net(rest, None))
        return Model(module.eval(), LIBRARIES[kind].preprocessing(rest, module), name)
    if kind in FILES and rest:
        return load_model(name)
    if not colon or kind in LIBRARIES:
        raise InputError(
            f"model: {name!r} is no run directory and no spec; expected torchvision:NAME, timm:NAME, file.py:factory "
            "or package.module:factory"
        )
    net = call_factory(name)
    return Model(net.eval() if isinstance(net, nn.Module) else net, Preprocessing(), name)


def _without_weights(build: Callable[[], nn.Module]) -> nn.Module:
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, NotImplementedError):
        return build()  # some nets compute numbers while they are built, which needs memory
