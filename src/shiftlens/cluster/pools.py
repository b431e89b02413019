"""Who computes a chunk on a Ray cluster: any core that is free, or the one worker that each GPU has."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from shiftlens.cluster import remote
from shiftlens.errors import StoreError
from shiftlens.naming import count_of

CORES_EACH = 1
"""Cores that Ray gives a chunk; it computes on one of them."""
AHEAD = 2
"""Chunks that wait for a core, beside the one that each core computes: a core that is free need not wait for us."""
PER_GPU = 2
"""Chunks that a GPU has: one that it computes, one that waits."""


class Pool(ABC):
    """Where chunks are sent to.

    Attributes
    ----------
    resource
        What Ray calls one of its members.
    """

    resource: str

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    @abstractmethod
    def called(self, n: int) -> str:
        """So many members, in words."""

    @abstractmethod
    def has_room(self, n_running: int, n_members: int) -> bool:
        """Whether one more chunk should be sent, where so many are on their way."""

    @abstractmethod
    def send(self, *question: Any) -> Any:
        """Have `remote.evaluate` asked; returns the reference of the answer."""

    def wait(self, n_members: int, seconds: float) -> None:  # noqa: B027  # one can always be sent to a pool of cores
        """Wait for a member to be there, where none was."""

    def answered(self, reference: Any) -> None:  # noqa: B027  # a pool of cores remembers nothing
        """An answer is there."""

    def lost(self, reference: Any) -> bool:
        """No answer will come. Whether the chunk was being computed, and may be why; else it only waited."""
        return True

    def end(self) -> None:  # noqa: B027  # a pool of cores holds nothing
        """Let go of what is held, with all that is on its way."""


class Cores(Pool):
    """Ray finds a free core for each chunk."""

    resource = "CPU"

    def __init__(self, ray: Any) -> None:
        super().__init__(ray)
        self._evaluate = ray.remote(num_cpus=CORES_EACH, max_retries=0)(remote.evaluate)

    def called(self, n: int) -> str:
        """See `Pool`."""
        return count_of(n, "core")

    def has_room(self, n_running: int, n_members: int) -> bool:
        """See `Pool`."""
        return n_running < max(1, n_members // CORES_EACH) + AHEAD

    def send(self, *question: Any) -> Any:
        """See `Pool`."""
        return self._evaluate.remote(*question)


@dataclass(eq=False)
class _Gpu:
    """A worker that keeps its GPU as long as it lives; it computes what it is sent in order.

    `greeting` is the reference of what it says when it is there; `sent` are the references of the answers that it owes,
    `computing` is the one that it worked on when it died.
    """

    actor: Any
    greeting: Any
    sent: list[Any] = field(default_factory=list)
    computing: Any = None


class Gpus(Pool):
    """One worker for each GPU: Ray's tasks would give theirs back after every chunk, with the net that is prepared.

    Chunks go only to workers that are there: a GPU that others use, or that is broken, has none. The worker that finds
    its GPU broken keeps it, so that Ray does not hand it out again.
    """

    resource = "GPU"

    def __init__(self, ray: Any) -> None:
        super().__init__(ray)
        self._worker = ray.remote(num_cpus=1, num_gpus=1, max_restarts=0, max_task_retries=0)(remote.GpuWorker)
        self._coming: list[_Gpu] = []
        self._there: list[_Gpu] = []
        self._dead: list[_Gpu] = []
        self._broken: list[_Gpu] = []

    def called(self, n: int) -> str:
        """See `Pool`."""
        return count_of(n, "GPU")

    def has_room(self, n_running: int, n_members: int) -> bool:
        """See `Pool`."""
        self._gather(n_members, seconds=0)
        return any(len(gpu.sent) < PER_GPU for gpu in self._there)

    def wait(self, n_members: int, seconds: float) -> None:
        """See `Pool`."""
        self._gather(n_members, seconds)
        if not (self._coming or self._there):
            time.sleep(seconds)

    def send(self, *question: Any) -> Any:
        """See `Pool`."""
        gpu = min(self._there, key=lambda each: len(each.sent))
        gpu.sent.append(gpu.actor.evaluate.remote(*question))
        return gpu.sent[-1]

    def answered(self, reference: Any) -> None:
        """See `Pool`."""
        self._forget(self._of(reference), reference)

    def lost(self, reference: Any) -> bool:
        """See `Pool`; all that the worker was sent is lost with it."""
        gpu = self._of(reference)
        if gpu in self._there:
            self._there.remove(gpu)
            self._dead.append(gpu)
            gpu.computing = gpu.sent[0]
            self._kill(gpu)  # it may only be out of reach, and its GPU is wanted
        self._forget(gpu, reference)
        return bool(reference == gpu.computing)

    def end(self) -> None:
        """See `Pool`."""
        for gpu in (*self._coming, *self._there, *self._broken):
            self._kill(gpu)
        self._coming, self._there, self._dead, self._broken = [], [], [], []

    def _gather(self, n_members: int, seconds: float) -> None:
        """Call for a worker on each GPU that has none, and see who has come.

        Raises
        ------
        StoreError
            None of the GPUs can be used.
        """
        for _ in range(n_members - len(self._coming) - len(self._there) - len(self._broken)):
            actor = self._worker.remote()
            self._coming.append(_Gpu(actor, actor.greet.remote()))
        greetings = [gpu.greeting for gpu in self._coming]
        if not greetings:
            return
        come, _ = self._ray.wait(greetings, num_returns=1 if seconds else len(greetings), timeout=seconds)
        for gpu in [each for each in self._coming if each.greeting in come]:
            self._coming.remove(gpu)
            try:
                problem = self._ray.get(gpu.greeting)
            except self._ray.exceptions.RayError:  # it died on the way: another one is called
                self._kill(gpu)
                continue
            (self._broken if problem else self._there).append(gpu)
            if problem and len(self._broken) == n_members:
                raise StoreError(f"no GPU of the cluster can be used: {problem}")

    def _forget(self, gpu: _Gpu, reference: Any) -> None:
        gpu.sent.remove(reference)
        if not gpu.sent and gpu in self._dead:
            self._dead.remove(gpu)

    def _kill(self, gpu: _Gpu) -> None:
        with suppress(Exception):
            self._ray.kill(gpu.actor)

    def _of(self, reference: Any) -> _Gpu:
        return next(gpu for gpu in (*self._there, *self._dead) if reference in gpu.sent)


def pool_of(device: str) -> type[Pool]:
    """Who computes the chunks of a plan for a device."""
    return Gpus if device.startswith("cuda") else Cores
