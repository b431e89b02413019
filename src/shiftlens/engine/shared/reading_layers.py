"""A layer of a net as an operation on every cell alike, or the reason why it is none."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, fx, nn

from shiftlens.engine.shared.operations import Affine, Convolution, GlobalPool, Operation, Pad, Pointwise, Pool
from shiftlens.engine.shared.refusing import RefusedError, has_hooks, pair, same, sides_of, single, unshared
from shiftlens.indexing import RULES
from shiftlens.nn.convolution import OWN_CONVOLUTIONS, PartialConv2d, sides_of_layer
from shiftlens.nn.downsample import BlurPool2d
from shiftlens.nn.padding import Pad2d, SymmetricPad2d

OWN_PADS: tuple[type[nn.Module], ...] = (Pad2d, SymmetricPad2d)
ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Softsign,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.LogSigmoid,
    nn.Identity,
)
_NOTHING_IN_EVAL: tuple[type[nn.Module], ...] = (nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_PAD_LAYERS: dict[type[nn.Module], str] = {
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.CircularPad2d: "circular",
}


def read_layer(graph: fx.GraphModule, node: fx.Node) -> tuple[Operation, tuple[str, ...]]:
    """The operation of a node that calls a module, and the maps it reads.

    Raises
    ------
    RefusedError
        It does something else to maps.
    """
    module = graph.get_submodule(str(node.target))
    kind = type(module)
    if getattr(module, "inplace", False):
        unshared(node)
    if has_hooks(module):
        raise RefusedError("it has hooks")
    inputs = single(node)
    operation: Operation
    if isinstance(module, nn.Conv2d) and kind in OWN_CONVOLUTIONS:
        operation = _convolution(module)
    elif isinstance(module, nn.MaxPool2d) and kind is nn.MaxPool2d:
        if module.return_indices:
            raise RefusedError("it returns indices")
        stride = module.kernel_size if module.stride is None else module.stride
        operation = Pool(True, pair(module.kernel_size), pair(stride), pair(module.dilation), pair(module.padding))
    elif isinstance(module, nn.AvgPool2d) and kind is nn.AvgPool2d:
        stride = module.kernel_size if module.stride is None else module.stride
        operation = Pool(
            False,
            pair(module.kernel_size),
            pair(stride),
            (1, 1),
            pair(module.padding),
            module.count_include_pad,
            module.divisor_override,
        )
    elif isinstance(module, BlurPool2d) and kind is BlurPool2d:
        operation = _blur(module, node)
    elif isinstance(module, nn.BatchNorm2d) and kind is nn.BatchNorm2d:
        operation = _affine(module)
    elif isinstance(module, (nn.ZeroPad2d, nn.ConstantPad2d)) and kind in (nn.ZeroPad2d, nn.ConstantPad2d):
        operation = Pad(sides_of(module.padding), None, float(getattr(module, "value", 0.0)))
    elif isinstance(module, Pad2d) and kind in OWN_PADS:
        if module.mode not in RULES:
            raise RefusedError(f"padding mode {module.mode!r} is no index rule")
        operation = Pad(module.padding, None if module.mode == "zeros" else module.mode)
    elif kind in _PAD_LAYERS:
        operation = Pad(sides_of(module.padding), _PAD_LAYERS[kind])
    elif kind in ELEMENTWISE or kind in _NOTHING_IN_EVAL:
        if module.training:
            raise RefusedError("it is in training mode")
        # Out of place whatever it says: the map may be a view of another.
        operation = Pointwise(_out_of_place(module))
    elif isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
        if module.output_size not in (1, (1, 1)) or getattr(module, "return_indices", False):
            raise RefusedError("adaptive pooling to more than one cell")
        operation = GlobalPool(isinstance(module, nn.AdaptiveMaxPool2d), keep=True)
    else:
        raise RefusedError(f"{kind.__name__} is not a layer that acts on every cell alike")
    return operation, inputs


def _out_of_place(module: nn.Module) -> Callable[[Tensor], Tensor]:
    if isinstance(module, (nn.Identity, *_NOTHING_IN_EVAL)):
        return same
    if not getattr(module, "inplace", False):
        return module
    copied = type(module).__new__(type(module))
    copied.__dict__ = dict(module.__dict__)
    copied.inplace = False  # type: ignore[assignment]
    return copied


def _convolution(module: nn.Conv2d) -> Convolution:
    partial = type(module) is PartialConv2d
    # In eval mode random padding is zeros.
    named = str(module.padding_mode)
    mode = "zeros" if partial or named == "random" else named
    if mode not in RULES or (module.training and named == "random"):
        raise RefusedError(f"padding mode {named!r} is no index rule")
    return Convolution(
        module.weight,
        module.bias,
        pair(module.stride),
        pair(module.dilation),
        sides_of_layer(module),
        mode,
        module.groups,
        partial,
    )


def _blur(module: BlurPool2d, node: fx.Node) -> Convolution:
    (source,) = node.all_input_nodes
    meta = source.meta["tensor_meta"]
    kernel = module.kernel.to(meta.dtype)
    weight = kernel.expand(meta.shape[1], 1, *kernel.shape).contiguous()
    return Convolution(weight, None, module.stride, (1, 1), module.sides, module.padding_mode, meta.shape[1])


def _affine(module: nn.BatchNorm2d) -> Affine:
    if module.training or module.running_mean is None or module.running_var is None:
        raise RefusedError("batch norm that uses the batch's own statistics")
    scale = (module.running_var.double() + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight.double()
    shift = -module.running_mean.double() * scale
    if module.bias is not None:
        shift = shift + module.bias.double()
    kind = module.running_mean.dtype
    return Affine(scale.to(kind), shift.to(kind))
