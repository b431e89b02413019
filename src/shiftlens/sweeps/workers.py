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
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

Net = Callable[..., Tensor]
Item = TypeVar("Item")
Result = TypeVar("Result")


def replicas(net: nn.Module, n: int) -> list[Net]:
    """`n` nets with the same weights in memory; the modules are copied, so that what a forward pass keeps is apart."""
    shared = {id(tensor): tensor for tensor in chain(net.parameters(), net.buffers())}
    return [net, *(copy.deepcopy(net, dict(shared)) for _ in range(n - 1))]


class Workers:
    """Calls a function for each item, with a net that no other call uses meanwhile; results in the items' order.

    Parameters
    ----------
    nets
        One net: calls come one after another in the caller's thread, with all cores. Several: as many threads, with one
        core each.
    """

    def __init__(self, nets: list[Net]) -> None:
        self._nets = nets
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
                yield function(self._nets[0], item)
            return

        def call(item: Item) -> Result:
            torch.set_num_threads(1)  # of this thread
            with self._lock:
                net = self._free.pop()
            try:
                return function(net, item)
            finally:
                with self._lock:
                    self._free.append(net)

        n_threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self.n, thread_name_prefix="shiftlens") as pool:
                yield from pool.map(call, items)
        finally:
            # torch gives the last number that was set anywhere to threads that are new.
            torch.set_num_threads(n_threads)
