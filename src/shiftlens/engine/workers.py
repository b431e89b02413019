"""Batches side by side: one thread of Python for each core, each computing on that core alone.

Threads that share one convolution wait for each other at the end of every layer, and when another process takes one of
the cores, all of them wait for the slowest: a third of the rate was measured beside one busy process. Whole batches on
single cores never wait, and a small batch stays in the core's own cache. The result of a batch does not depend on how
many workers there are.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Net = Callable[..., Tensor]
Item = TypeVar("Item")
Result = TypeVar("Result")


def replicas(net: nn.Module, n: int) -> list[Net]:
    """`n` nets with the same weights in memory; modules and buffers are copied: a forward pass may write into them."""
    shared = {id(tensor): tensor for tensor in net.parameters()}
    return [net, *(copy.deepcopy(net, dict(shared)) for _ in range(n - 1))]


class Workers:
    """Calls a function for each item, with a net that no other call uses meanwhile; results in the items' order.

    Parameters
    ----------
    nets
        One net: calls come one after another in the caller's thread. Several: as many threads.
    n_threads
        What torch computes each call with, whatever the machine has: some layers sum in another order with another
        number.
    """

    def __init__(self, nets: list[Net], n_threads: int = 1) -> None:
        self._nets = nets
        self._n_threads = n_threads
        self._free = list(nets)
        self._lock = threading.Lock()

    @property
    def n(self) -> int:
        """Calls that run side by side."""
        return len(self._nets)

    def map(self, function: Callable[[Net, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(net, item)` for each item; an exception ends it, and what was not begun is not begun."""
        if self.n == 1:
            for item in items:
                with _threads(self._n_threads):
                    result = function(self._nets[0], item)
                yield result
            return

        def call(item: Item) -> Result:
            torch.set_num_threads(self._n_threads)  # of this thread
            with self._lock:
                net = self._free.pop()
            try:
                return function(net, item)
            finally:
                with self._lock:
                    self._free.append(net)

        with _threads(torch.get_num_threads()), ThreadPoolExecutor(self.n, thread_name_prefix="shiftlens") as pool:
            yield from pool.map(call, items)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Torch computes with `n` threads inside, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        # torch gives the last number that was set anywhere to threads that are new.
        torch.set_num_threads(before)
