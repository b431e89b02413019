"""A step recorded once and replayed: a GPU is done with a small net's step before Python has asked for the next one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shiftlens.devices import captured, on_side_stream
from shiftlens.naming import one_line
from shiftlens.training.optimiser import Optimiser

Step = Callable[[nn.Module, Optimiser, Tensor, Tensor, "float | Tensor"], Tensor]
Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Of work that reads and writes the same tensors each time: what does it again."""

WARM_UPS = 3

_log = logging.getLogger(__name__)


def cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record work as a CUDA graph, after some rounds in which the libraries set themselves up."""
    on_side_stream(work, WARM_UPS)
    return captured(work)


@dataclass(frozen=True)
class _Recorded:
    x: Tensor
    y: Tensor
    factor: Tensor
    loss: Tensor
    replay: Callable[[], None]


class ReplayedStep:
    """`step(net, optimiser, x, y, factor)` as a call of (x, y, factor), recorded once for each shape of batch.

    `step` changes net and optimiser, whose tensors may be written to, not replaced. What cannot be recorded is done
    step by step, with one line in the log. Recording leaves net and momenta as they were. The loss that is given back
    is overwritten by the next call. `record` is for tests on a CPU.
    """

    def __init__(self, step: Step, net: nn.Module, optimiser: Optimiser, record: Recorder = cuda_graph) -> None:
        self._step, self._net, self._optimiser, self._record = step, net, optimiser, record
        self._recorded: dict[tuple[object, ...], _Recorded] = {}
        self._refused = False

    def __call__(self, x: Tensor, y: Tensor, factor: float) -> Tensor:
        """Take one step, give its loss (a tensor of no axes)."""
        kind = (x.shape, y.shape, y.dtype)
        if not self._refused and kind not in self._recorded:
            self._prepare(kind, x, y)
        if self._refused:
            return self._step(self._net, self._optimiser, x, y, factor)
        found = self._recorded[kind]
        found.x.copy_(x)
        found.y.copy_(y)
        found.factor.fill_(factor)
        found.replay()
        return found.loss

    def _prepare(self, kind: tuple[object, ...], x: Tensor, y: Tensor) -> None:
        x, y = x.clone(), y.clone()
        factor = torch.ones((), device=x.device)
        loss = torch.zeros((), device=x.device)

        def work() -> None:
            loss.copy_(self._step(self._net, self._optimiser, x, y, factor))

        written = [*self._net.state_dict().values(), *self._optimiser.state().values()]
        before = [tensor.clone() for tensor in written]
        try:
            self._recorded[kind] = _Recorded(x, y, factor, loss, self._record(work))
        except RuntimeError as error:
            self._refused = True
            _log.warning("steps are not recorded (%s): training takes them one by one, slower", one_line(error))
        finally:
            self._net.zero_grad(set_to_none=True)
            for tensor, old in zip(written, before, strict=True):
                tensor.copy_(old)
