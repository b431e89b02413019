"""Following one forward pass: every torch function that runs, and the module it runs in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shiftlens.graph.sites import OpKey

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Watch(TorchFunctionMode):
    """Sees every function call of a net's forward passes, with a key that is the same in every pass.

    Inside a `with`, hooks on every module keep track of where the pass is; they are off again afterwards, also after
    an exception. Calls inside compiled or scripted modules and inside custom autograd functions are not seen.

    Parameters
    ----------
    module
        The net.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module
        self._hooks = ExitStack()
        self._counts: Counter[tuple[str, str]] = Counter()
        self.stack: list[tuple[str, nn.Module]] = []
        self.failed: tuple[str, nn.Module, list[int]] | None = None
        """Where an exception came from: path, module, shape of the first tensor that was given."""

    def __enter__(self) -> Self:
        self.restart()
        for path, part in self._module.named_modules():
            if not isinstance(part, torch.jit.ScriptModule):  # takes no hooks
                self._follow(path, part)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def restart(self) -> None:
        """Begin a new forward pass: calls are counted from 0 again."""
        self._counts.clear()
        self.stack.clear()

    def _follow(self, path: str, part: nn.Module) -> None:
        def before(*_: Any) -> None:
            if not path:
                self.restart()
            self.stack.append((path, part))

        def behind(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if self.stack:
                self.stack.pop()
            self.left(path, module, inputs, output)

        self._hooks.callback(part.register_forward_pre_hook(before).remove)
        self._hooks.callback(part.register_forward_hook(behind).remove)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        path, part = self.stack[-1] if self.stack else ("", self._module)
        name = plain_name(func)
        key = OpKey(path, name, self._counts[path, name])
        self._counts[path, name] += 1
        try:
            output = self.run(key, func, args, kwargs)
            if name == "conv2d" and output.numel() == 0 and (args[0] if args else kwargs["input"]).numel():
                # Where tensors hold no numbers, torch 2.10 lets this pass.
                raise ValueError("the kernel is larger than what it gets, padding included")
        except Exception:
            if self.failed is None:
                first = next((a for a in args if isinstance(a, Tensor)), None)
                self.failed = (path, part, [] if first is None else list(first.shape))
            raise
        self.saw(key, part, args, kwargs, output)
        return output

    def run(self, key: OpKey, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the call; what is returned takes its output's place."""
        return func(*args, **kwargs)

    def saw(self, key: OpKey, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Told of every call when it is done; `part` is the module it happened in."""

    def left(self, path: str, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Told of every module when its forward is done."""


_NAMES = {
    "__add__": "add",
    "__radd__": "add",
    "__iadd__": "add",
    "__mul__": "mul",
    "__rmul__": "mul",
    "__sub__": "sub",
    "__rsub__": "rsub",
    "__truediv__": "div",
    "__matmul__": "matmul",
    "iadd": "add",
    "isub": "sub",
    "imul": "mul",
    "truediv": "div",
    "itruediv": "div",
    "concat": "cat",
    "concatenate": "cat",
    "max_pool2d_with_indices": "max_pool2d",
    "adaptive_max_pool2d_with_indices": "adaptive_max_pool2d",
    "upsample": "interpolate",
}


def plain(name: str) -> str:
    """A function's name as the operator table has it: the same for `add`, `add_` and `__iadd__`."""
    if name in _NAMES:
        return _NAMES[name]
    return name.removesuffix("_") if not name.endswith("__") else name


def plain_name(func: Callable[..., Any]) -> str:
    """The same of a function."""
    return plain(getattr(func, "__name__", type(func).__name__))


def is_layer(part: nn.Module) -> bool:
    """Whether a module is one of torch's own layers (or a subclass): a site in it is named after it alone."""
    if isinstance(part, _CONTAINERS):
        return False
    homes = (cls.__module__ for cls in type(part).__mro__ if cls is not nn.Module)
    ours = type(part).__module__.startswith("shiftlens.nn.")
    return ours or any(home.startswith("torch.nn.modules.") for home in homes)
