"""The operator table: every torch operator that is known here, by layer, function and method.

One entry says what an operator is (`kind`), what its arguments are called, what it does to rows and columns (`follow`,
read by `trace`, and so by layer arithmetic, the lens and surgery), and how it is computed once for all shifts
(`share`, read by `engine.shared`). An operator that is not listed is taken to leave each place to itself if sizes allow
it, and is never shared.
"""

from __future__ import annotations

import operator as python
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from shiftlens.graph import rules, sharing, windows
from shiftlens.graph.flow import Flow
from shiftlens.graph.sites import WINDOWED
from shiftlens.graph.tracer import Call, Tracer, last_axes
from shiftlens.graph.watching import plain
from shiftlens.nn.convolution import OWN_CONVOLUTIONS
from shiftlens.nn.downsample import BlurPool2d, Polyphase2d
from shiftlens.nn.padding import Pad2d, SymmetricPad2d

Rule = Callable[[Tracer, Call], None]
Layers = tuple[type[nn.Module], ...]


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes
    ----------
    name
        The function's name, the same for `relu`, `relu_` and `x.relu()`.
    kind
        What it is: one of the kinds of `Site`, or activation, normalisation, softmax, identity, sum, choice, product,
        linear, view, reduction, mixing, index.
    layers
        Layers that are exactly this operator.
    arguments
        Names of the arguments in torch's order, each with its default; `...` where it has none. A layer keeps them as
        attributes of the same names.
    follow
        What it does to rows and columns.
    share
        How it is computed on cells that many shifts share; None: it is not.
    """

    name: str
    kind: str
    layers: Layers = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    follow: Rule = rules.pointwise
    share: Callable[[sharing.Use], sharing.Shared] | None = None

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that a call was given, by name."""
        return {**dict(zip(self.arguments, args, strict=False)), **kwargs}

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The same with defaults where nothing was given."""
        defaults = {name: value for name, value in self.arguments.items() if value is not ...}
        return {**defaults, **self.given(args, kwargs)}


_POOL = {"input": ..., "kernel_size": ..., "stride": None, "padding": 0}
_CONV = {"input": ..., "weight": ..., "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_TRANSPOSED = {
    **{name: _CONV[name] for name in ("input", "weight", "bias", "stride", "padding")},
    "output_padding": 0,
    "groups": 1,
    "dilation": 1,
}
_RESIZE = {"input": ..., "size": None, "scale_factor": None, "mode": "nearest", "align_corners": None}
_MOMENTS = {"input": ..., "running_mean": None, "running_var": None, "weight": None, "bias": None}
_BATCH_NORM = {**_MOMENTS, "training": False, "momentum": 0.1, "eps": 1e-5}
_INSTANCE_NORM = {**_MOMENTS, "use_input_stats": True, "momentum": 0.1, "eps": 1e-5}
_GROUP_NORM = {"input": ..., "num_groups": ..., "weight": None, "bias": None, "eps": 1e-5}
_LAYER_NORM = {"input": ..., "normalized_shape": ..., "weight": None, "bias": None, "eps": 1e-5}
_DROPOUT = {"input": ..., "p": 0.5, "training": True, "inplace": False}
_PADS = (
    nn.ZeroPad2d,
    nn.ConstantPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.CircularPad2d,
    Pad2d,
    SymmetricPad2d,
)


def _named(kind: str, names: str, **entry: Any) -> list[Operator]:
    return [Operator(name, kind, **entry) for name in names.split()]


def _activation(name: str, *layers: type[nn.Module]) -> Operator:
    return Operator(name, "activation", layers, share=sharing.pointwise)


_TABLE = [
    Operator("conv2d", "conv", OWN_CONVOLUTIONS, _CONV, windows.conv, sharing.convolution),
    Operator("conv1d", "conv", (nn.Conv1d,)),
    Operator("conv3d", "conv", (nn.Conv3d,)),
    Operator("conv_transpose2d", "transposed conv", (nn.ConvTranspose2d,), _TRANSPOSED, windows.transposed),
    Operator("conv_transpose1d", "transposed conv", (nn.ConvTranspose1d,)),
    Operator("conv_transpose3d", "transposed conv", (nn.ConvTranspose3d,)),
    Operator(
        "max_pool2d",
        "max pool",
        (nn.MaxPool2d,),
        {**_POOL, "dilation": 1, "ceil_mode": False, "return_indices": False},
        windows.max_pool,
        sharing.max_pool,
    ),
    Operator(
        "avg_pool2d",
        "average pool",
        (nn.AvgPool2d,),
        {**_POOL, "ceil_mode": False, "count_include_pad": True, "divisor_override": None},
        windows.average_pool,
        sharing.average_pool,
    ),
    Operator(
        "lp_pool2d",
        "lp pool",
        (nn.LPPool2d,),
        {"input": ..., "norm_type": ..., "kernel_size": ..., "stride": None, "ceil_mode": False},
        windows.lp_pool,
    ),
    Operator(
        "adaptive_avg_pool2d",
        "adaptive pool",
        (nn.AdaptiveAvgPool2d,),
        {"input": ..., "output_size": ...},
        windows.adaptive_pool,
        partial(sharing.global_pool, False),
    ),
    Operator(
        "adaptive_max_pool2d",
        "adaptive pool",
        (nn.AdaptiveMaxPool2d,),
        {"input": ..., "output_size": ..., "return_indices": False},
        windows.adaptive_pool,
        partial(sharing.global_pool, True),
    ),
    Operator("blur_pool2d", "blur", (BlurPool2d,), share=sharing.blur),
    Operator("polyphase2d", "polyphase", (Polyphase2d,)),
    Operator(
        "pad", "pad", _PADS, {"input": ..., "pad": ..., "mode": "constant", "value": None}, windows.pad, sharing.pad
    ),
    Operator("interpolate", "resize", (nn.Upsample,), _RESIZE, windows.resize),
    *_named("shuffle", "pixel_shuffle pixel_unshuffle", follow=windows.shuffle),
    Operator("index_select", "index", (), {"input": ..., "dim": ..., "index": ...}, windows.index_select),
    Operator("__getitem__", "index", follow=windows.getitem),
    Operator("linear", "linear", (nn.Linear,), follow=rules.linear),
    Operator("batch_norm", "normalisation", (nn.BatchNorm2d,), _BATCH_NORM, rules.normalisation, sharing.affine),
    Operator("instance_norm", "normalisation", (), _INSTANCE_NORM, rules.normalisation),
    Operator("group_norm", "normalisation", (), _GROUP_NORM, rules.normalisation),
    *_named("normalisation", "layer_norm rms_norm", arguments=_LAYER_NORM, follow=rules.normalisation),
    Operator("local_response_norm", "normalisation"),
    *_named("softmax", "softmax log_softmax", arguments={"input": ..., "dim": None}, follow=rules.softmax),
    _activation("relu", nn.ReLU),
    _activation("relu6", nn.ReLU6),
    _activation("leaky_relu", nn.LeakyReLU),
    _activation("elu", nn.ELU),
    _activation("selu", nn.SELU),
    _activation("celu", nn.CELU),
    _activation("gelu", nn.GELU),
    _activation("silu", nn.SiLU),
    _activation("mish", nn.Mish),
    _activation("hardswish", nn.Hardswish),
    _activation("hardtanh", nn.Hardtanh),
    _activation("hardsigmoid", nn.Hardsigmoid),
    _activation("sigmoid", nn.Sigmoid),
    _activation("tanh", nn.Tanh),
    _activation("softplus", nn.Softplus),
    _activation("softsign", nn.Softsign),
    _activation("logsigmoid", nn.LogSigmoid),
    _activation("hardshrink", nn.Hardshrink),
    _activation("softshrink", nn.Softshrink),
    _activation("tanhshrink", nn.Tanhshrink),
    _activation("clamp"),
    *_named("activation", "prelu rrelu threshold clamp_min"),
    *_named("other", "abs exp neg", share=sharing.pointwise),
    Operator("identity", "identity", (nn.Identity,), share=sharing.nothing),
    *_named("identity", "contiguous clone float", share=sharing.nothing),
    Operator("dropout", "identity", (nn.Dropout,), _DROPOUT, share=sharing.nothing),
    Operator("dropout2d", "identity", (nn.Dropout2d,), _DROPOUT, share=sharing.nothing),
    Operator("alpha_dropout", "identity", (nn.AlphaDropout,), {**_DROPOUT, "training": False}, share=sharing.nothing),
    Operator(
        "feature_alpha_dropout",
        "identity",
        (nn.FeatureAlphaDropout,),
        {**_DROPOUT, "training": False},
        share=sharing.nothing,
    ),
    Operator("add", "sum", share=partial(sharing.combine, torch.add)),
    Operator("sub", "sum", share=partial(sharing.combine, torch.sub)),
    Operator("rsub", "sum"),
    Operator("mul", "product", share=partial(sharing.combine, torch.mul)),
    Operator("div", "product", share=partial(sharing.combine, torch.div)),
    Operator("maximum", "choice", share=partial(sharing.combine, torch.maximum)),
    Operator("minimum", "choice", share=partial(sharing.combine, torch.minimum)),
    *_named("choice", "where __setitem__"),
    Operator("cat", "cat", (), {"tensors": ..., "dim": 0}, rules.cat, sharing.concatenate),
    Operator(
        "mean",
        "reduction",
        (),
        {"input": ..., "dim": None, "keepdim": False},
        rules.reduction,
        sharing.mean,
    ),
    *_named("reduction", "sum amax amin max min std var norm logsumexp prod std_mean var_mean", follow=rules.reduction),
    *_named(
        "view",
        "view reshape flatten unflatten squeeze unsqueeze expand expand_as view_as reshape_as",
        follow=rules.view,
    ),
    Operator("permute", "view", follow=rules.permute),
    *_named("view", "transpose swapaxes", arguments={"input": ..., "dim0": ..., "dim1": ...}, follow=rules.transpose),
    *_named(
        "mixing",
        "roll flip rot90 cumsum matmul bmm baddbmm einsum scaled_dot_product_attention multi_head_attention_forward "
        "grid_sample deform_conv2d fold unfold sort topk",
        follow=rules.mix,
    ),
]

OPERATORS = {entry.name: entry for entry in _TABLE}
"""Every entry by name."""

_BY_LAYER = {layer: entry for entry in _TABLE for layer in entry.layers}
_PYTHON = ("add", "iadd", "sub", "isub", "mul", "imul", "truediv", "itruediv", "neg", "abs")
_BY_FUNCTION = {
    function: OPERATORS[plain(name)]
    for names, home in ((_PYTHON, python), (vars(torch), torch), (vars(F), F))
    for name in names
    if plain(name) in OPERATORS and callable(function := getattr(home, name))
}
_OTHER = Operator("", "other")


def operator_of_layer(layer: nn.Module, *, exact: bool = False) -> Operator | None:
    """The operator that a layer, or the class that it derives from, is; None for a layer that is not listed.

    `exact`: only if it is of a listed class itself, and so computes what that class does.
    """
    if exact:
        return _BY_LAYER.get(type(layer))
    return next((_BY_LAYER[cls] for cls in type(layer).__mro__ if cls in _BY_LAYER), None)


def kind_of(layer: nn.Module) -> str:
    """The kind of the operator that a layer is; "other" for a layer that is not listed."""
    return (operator_of_layer(layer) or _OTHER).kind


def operator_of_call(target: Any) -> Operator | None:
    """The operator that a function, or a method by its name, is; None for one that is not listed.

    A stranger's function of a listed name is not torch's, and so None.
    """
    if isinstance(target, str):
        return OPERATORS.get(plain(target))
    try:
        return _BY_FUNCTION.get(target)
    except TypeError:  # a callable that cannot be hashed
        return None


def follow(tracer: Tracer, call: Call) -> None:
    """Follow one function call whose input comes from the image."""
    entry, flow = OPERATORS.get(call.key.name, _OTHER), call.flow
    call = replace(call, kind=entry.kind, settings=entry.bind(call.args, call.kwargs))
    if not flow.lost or entry.kind in ("mixing", "reduction", "normalisation", "softmax"):
        entry.follow(tracer, call)
    elif entry.kind in WINDOWED:
        # Its own arithmetic is still right: the sizes are real.
        tracer.lost_before(flow.lost)
        size = (int(call.x.shape[-2]), int(call.x.shape[-1]))
        entry.follow(tracer, replace(call, instead=Flow(size, last_axes(call.x), sources=())))
    else:
        rules.pointwise(tracer, call)
