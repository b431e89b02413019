"""One look at a net with two blank pictures: its classes, its cost, its strides, and whether it takes this size."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shiftlens.devices import input_dtype
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.graph import WINDOWED
from shiftlens.graph.operators import kind_of
from shiftlens.naming import one_line
from shiftlens.tasks.outputs import form_of

Classifier = Callable[[Tensor], Any]
"""Normalised float32 pictures [n, c, h, w] to scores [n, k], or to something that `scores_of` understands."""

_OTHER_PRECISIONS = (torch.float16, torch.bfloat16, torch.float64)
_PLAUSIBLE_SIZE = (64, 64)
# As torch's convolutions say it, with numbers and on the meta device.
_OTHER_CHANNELS = r"to have \d+ channels, but got|Invalid channel dimensions"


@dataclass(frozen=True)
class Probe:
    """What one look at blank pictures told.

    `n_channels`: of the pictures that the net took. `n_classes`: columns of the scores. `n_macs`: multiply-adds of the
    convolutions and linear layers for one picture (layers only: what a net calls as a plain function is not counted),
    None for a bare callable. `strides`: distinct cumulative down-sampling factors met on the way, ascending, 1 left
    out; empty for a bare callable.
    """

    n_channels: int
    n_classes: int | None
    n_macs: int | None
    strides: tuple[int, ...]
    no_classes: str = ""


@contextmanager
def evaluating(module: Classifier) -> Iterator[None]:
    """Every layer in evaluation mode inside, and each back in its own mode afterwards; nothing for a bare callable."""
    if not isinstance(module, nn.Module):
        yield
        return
    modes = [(part, part.training) for part in module.modules()]
    if not any(training for _, training in modes):
        yield
        return
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def scores_of(output: Any) -> Float[Tensor, "n k"]:
    """Find the scores in what a net returned: floating point, [n, k] with k at least 2; else `ModelOutputError`.

    Understood: a tensor; anything with `.logits`; a mapping with `logits`, else its first tensor; the first tensor of a
    tuple or list.
    """
    found = output
    if not isinstance(found, Tensor) and isinstance(getattr(found, "logits", None), Tensor):
        found = found.logits
    elif isinstance(found, Mapping):
        found = found.get("logits", next((value for value in found.values() if isinstance(value, Tensor)), None))
    elif isinstance(found, tuple | list):
        found = next((value for value in found if isinstance(value, Tensor)), None)
    if not isinstance(found, Tensor):
        raise ModelOutputError(f"expected scores [n, classes] as a tensor, got {type(output).__name__} without one")
    if found.ndim != 2 or not found.is_floating_point():
        raise ModelOutputError(f"expected floating-point scores [n, classes], got {found.dtype} {list(found.shape)}")
    if found.shape[1] < 2:
        raise ModelOutputError(f"expected scores of at least 2 classes, got {list(found.shape)}")
    return found


def input_channels(module: Classifier) -> int | None:
    """Channels that the first convolution takes, in the order of definition; None when there is none."""
    if not isinstance(module, nn.Module):
        return None
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    return None if first is None or isinstance(first, nn.LazyConv2d) else first.in_channels


def channel_candidates(module: Classifier, *likely: int | None) -> tuple[int, ...]:
    """Numbers of channels that a net's input may have, the likeliest first.

    What its first convolution takes is only a guess: that may be a gate on a single channel, or see coordinates beside
    the picture. So a net is asked (`probe`, `plausible_channels`), and where it takes several numbers the first is
    meant. `likely` is what else is known, in order: the number of means, the channels of the images.
    """
    return tuple(dict.fromkeys(n for n in (*likely, 3, input_channels(module), 1) if n))


def refuse_script(module: Classifier, name: str) -> None:
    """Refuse TorchScript, whose layers can be neither watched nor copied."""
    if not isinstance(module, nn.Module):
        return
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            what = f"holds a TorchScript module ({path})" if path else "is a TorchScript module"
            raise InputError(f"{name} {what}, whose layers cannot be watched: pass the Python module it was made from")


class _Watch:
    """Hooks that follow one forward pass: where it is, what it costs, how far it has down-sampled."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.n_macs = 0
        self.entered: list[tuple[str, nn.Module, list[int]]] = []
        self.last_done: str | None = None
        self.factors: set[int] = set()
        # Cumulative stride by map size: a size identifies the resolution also where shortcuts run in parallel.
        self._known: dict[tuple[int, int], tuple[int, int]] = {size: (1, 1)}
        self._size = size

    def before(self, name: str, part: nn.Module, inputs: tuple[Any, ...]) -> None:
        shape = list(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else []
        self.entered.append((name, part, shape))

    def after(self, name: str, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if self.entered:
            self.entered.pop()
        self.last_done = name
        if not inputs or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            return
        x, kind = inputs[0], kind_of(part)
        layer: Any = part
        if kind == "conv":
            self.n_macs += output.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        elif kind == "transposed conv":
            self.n_macs += x.numel() * layer.out_channels // layer.groups * math.prod(layer.kernel_size)
        elif kind == "linear":
            self.n_macs += output.numel() * layer.in_features
        if kind in WINDOWED and x.ndim == 4 and output.ndim == 4:
            self._follow(layer, (x.shape[2], x.shape[3]), (output.shape[2], output.shape[3]))

    def _follow(self, part: Any, size_in: tuple[int, int], size_out: tuple[int, int]) -> None:
        stride = part.stride if part.stride is not None else part.kernel_size
        sy, sx = (int(stride),) * 2 if isinstance(stride, int) else tuple(int(s) for s in stride)
        # Sizes that no hooked layer made (a functional pool before) are placed by their ratio to the input.
        guess = tuple(max(1, round(full / side)) for full, side in zip(self._size, size_in, strict=True))
        fy, fx = self._known.get(size_in, (guess[0], guess[1]))
        factor = (fy * sy, fx * sx)
        self._known.setdefault(size_out, factor)
        if (sy, sx) != (1, 1):
            self.factors.update(f for f in factor if f > 1)


def probe(
    module: Classifier,
    n_channels: Sequence[int],
    size: tuple[int, int],
    *,
    name: str,
    declared_size: tuple[int, int] | None = None,
) -> Probe:
    """Show two blank pictures of `size` (h, w) to a net, in evaluation mode and without gradients.

    Of `n_channels`, the first number counts that the net takes. `InputError`: the net does not take this input (names
    the layer, and both sizes, `declared_size` too, as far as they are known), or what it returns is no table of scores.
    """
    looks = []
    for n in n_channels:
        look = _Look(module, n, size)
        if look.error is None:
            n_macs = look.watch.n_macs // 2 if isinstance(module, nn.Module) else None
            n_classes, why = _n_classes(look.output, name)
            return Probe(n, n_classes, n_macs, tuple(sorted(look.watch.factors)), why)
        looks.append(look)
    look = next((look for look in looks if not look.wants_other_channels), looks[0])
    raise InputError(look.why_not(name, declared_size)) from look.error


def plausible_channels(module: Classifier, candidates: Sequence[int], size: tuple[int, int] | None) -> int:
    """The first candidate that no convolution objects to, whatever else fails; the very first if all are objected to.

    For nets whose input size is not known yet, or that do not take it: at a size that serves most nets.
    """
    if not isinstance(module, nn.Module):
        return candidates[0]
    # In the net's own format: it may be looked at without being measured.
    looks = (_Look(module, n, size or _PLAUSIBLE_SIZE, input_dtype(module)) for n in candidates)
    return next((look.n_channels for look in looks if not look.wants_other_channels), candidates[0])


def copied(module: Classifier) -> Classifier:
    """A copy with the same weights, so that a look sets nothing; the module itself where it cannot be copied."""
    if not isinstance(module, nn.Module):
        return module
    try:
        return copy.deepcopy(module, {id(tensor): tensor for tensor in module.parameters()})
    except Exception:  # what a user's module holds may refuse to be copied in any way
        return module


class _Look:
    """A net's answer to two blank pictures: `output`, or `error`, and what was seen on the way."""

    def __init__(
        self, module: Classifier, n_channels: int, size: tuple[int, int], dtype: torch.dtype = torch.float32
    ) -> None:
        self.n_channels = n_channels
        self.watch = _Watch(size)
        self.output: Any = None
        self.error: Exception | None = None
        self._module = module = copied(module)
        x = torch.zeros(2, n_channels, *size, dtype=dtype)
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(evaluating(module))
            if isinstance(module, nn.Module):
                x = x.to(next(module.parameters(), next(module.buffers(), x)).device)
                for path, part in module.named_modules():
                    if next(part.children(), None) is None:
                        _follow_layer(stack, self.watch, path or type(part).__name__, part)
            try:
                self.output = module(x)
            except Exception as error:  # a stranger's forward may raise anything
                self.error = error
        self._text = _text(x)
        self._size = size

    @property
    def wants_other_channels(self) -> bool:
        """Whether a convolution was given another number of channels than it is made for."""
        return self.error is not None and re.search(_OTHER_CHANNELS, str(self.error)) is not None

    def why_not(self, name: str, declared_size: tuple[int, int] | None) -> str:
        """What failed, in a line."""
        module, watch, error = self._module, self.watch, self.error
        assert error is not None
        if not isinstance(module, nn.Module):
            return f"{name} fails on {self._text}: {type(error).__name__}: {one_line(error)}"
        parts = [f"{name} does not take {self._text}"]
        if watch.entered:
            path, layer, shape = watch.entered[-1]
            where = f"layer {path} ({type(layer).__name__})"
            if isinstance(layer, nn.Linear) and shape and shape[-1] != layer.in_features:
                parts.append(f"{where} is made for {layer.in_features} values and got {shape[-1]}")
            elif isinstance(layer, nn.Conv2d) and len(shape) == 4 and shape[1] != layer.in_channels:
                parts.append(f"{where} is made for {layer.in_channels} channels and got {shape[1]}")
            else:
                parts.append(f"{where} got {_shape(shape)}: {one_line(error)}")
        else:
            after = f"after layer {watch.last_done}: " if watch.last_done else ""
            parts.append(f"{after}{type(error).__name__}: {one_line(error)}")
        if declared_size is not None and declared_size != self._size:
            parts.append(f"it declares {declared_size[0]}x{declared_size[1]}")
        dtype = next((tensor.dtype for tensor in module.parameters() if tensor.dtype in _OTHER_PRECISIONS), None)
        if dtype is not None:
            parts.append(
                f"its weights are {str(dtype).removeprefix('torch.')} and pictures float32: call .float() first"
            )
        return "; ".join(parts)


def _follow_layer(stack: ExitStack, watch: _Watch, path: str, part: nn.Module) -> None:
    def before(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        watch.before(path, layer, inputs)

    def after(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        watch.after(path, layer, inputs, output)

    stack.callback(part.register_forward_pre_hook(before).remove)
    stack.callback(part.register_forward_hook(after).remove)


def _n_classes(output: Any, name: str) -> tuple[int | None, str]:
    """Columns of the scores; or None and why there are none, of a model that another task may have a use for.

    `InputError`: no task has.
    """
    try:
        scores = scores_of(output)
    except ModelOutputError as error:
        why = f"{name} is no classifier for two pictures: {error}"
        try:
            form_of(output, 2)
        except ModelOutputError:
            raise InputError(why) from None
        return None, why
    if scores.shape[0] != 2:
        raise InputError(f"{name} gave {scores.shape[0]} rows of scores for 2 pictures")
    return int(scores.shape[1]), ""


def _shape(shape: Sequence[int]) -> str:
    return str(list(shape)) if shape else "no tensor"


def _text(x: Tensor) -> str:
    n, c, h, w = x.shape
    return f"{n} pictures of {c} channels and {h}x{w} pixels"
