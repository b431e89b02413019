"""Batch norm folded into the convolution before it: the same function with less to do.

Only convolution -> batch norm is folded. The other order (batch norm -> convolution, as in densenet) is wrong wherever
the convolution pads with zeros, and is left alone.
"""

from __future__ import annotations

from collections import Counter

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

from shiftlens.engine.shared.reading_nodes import has_hooks
from shiftlens.engine.shared.tracing import trace_module

_PAIRS: tuple[tuple[type[nn.Module], type[nn.Module]], ...] = (
    (nn.Conv1d, nn.BatchNorm1d),
    (nn.Conv2d, nn.BatchNorm2d),
    (nn.Conv3d, nn.BatchNorm3d),
)


def fold_batch_norm(module: nn.Module) -> tuple[nn.Module, int]:
    """Fold every batch norm in eval mode that directly follows a convolution used for nothing else.

    Parameters
    ----------
    module
        A net in eval mode. It is changed in place where something is folded: hand over a copy.

    Returns
    -------
    module, n_folded
        The traced net and how many batch norms went into a convolution; the module itself and 0 where there is nothing
        to fold.

    Raises
    ------
    Exception
        Whatever torch's tracer raises for a net that branches on its input; the caller says so and goes on unfolded.
    """
    traced = trace_module(module)
    modules = dict(traced.named_modules())
    # A module that is called twice must keep its weights for the other call.
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    n_folded = 0
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        before = node.args[0]
        if before.op != "call_module" or len(before.users) > 1 or calls[node.target] > 1 or calls[before.target] > 1:
            continue
        convolution, norm = modules[str(before.target)], modules[str(node.target)]
        if not any(isinstance(convolution, c) and isinstance(norm, b) for c, b in _PAIRS):
            continue
        if norm.training or norm.running_mean is None:
            continue
        if any(has_hooks(part) or is_parametrized(part) for part in (convolution, norm)):
            continue  # its weights are computed anew at every call
        fused = fuse_conv_bn_eval(convolution, norm)
        traced.set_submodule(str(before.target), fused)
        modules[str(before.target)] = fused
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
        n_folded += 1
    if not n_folded:
        return module, 0
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced, n_folded
