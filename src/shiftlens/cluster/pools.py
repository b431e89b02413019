"""Who computes a chunk on a Ray cluster: any core that is free, or the one worker that each GPU has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from shiftlens.cluster import remote
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
    def send(self, n_members: int, *question: Any) -> Any:
        """Have `remote.evaluate` asked; returns the reference of the answer."""

    def answered(self, reference: Any) -> None:  # noqa: B027  # a pool of cores remembers nothing
        """An answer is there."""

    def lost(self, reference: Any) -> bool:
        """No answer will come. Whether the chunk was being computed, and may be why; else it only waited."""
        return True

    def end(self) -> None:  # noqa: B027
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

    def send(self, n_members: int, *question: Any) -> Any:
        """See `Pool`."""
        return self._evaluate.remote(*question)


@dataclass(eq=False)
class _Gpu:
    """A worker that keeps its GPU as long as it lives; it computes what it is sent in order."""

    actor: Any
    waiting: list[Any] = field(default_factory=list)
    computing: Any = None


class Gpus(Pool):
    """One worker for each GPU: Ray's tasks would give theirs back after every chunk, with the net that is prepared."""

    resource = "GPU"

    def __init__(self, ray: Any) -> None:
        super().__init__(ray)
        self._worker = ray.remote(num_cpus=1, num_gpus=1, max_restarts=0, max_task_retries=0)(remote.GpuWorker)
        self._gpus: list[_Gpu] = []
        self._dead: list[_Gpu] = []

    def called(self, n: int) -> str:
        """See `Pool`."""
        return count_of(n, "GPU")

    def has_room(self, n_running: int, n_members: int) -> bool:
        """See `Pool`."""
        return n_running < PER_GPU * max(1, n_members)

    def send(self, n_members: int, *question: Any) -> Any:
        """See `Pool`."""
        if len(self._gpus) < max(1, n_members) and all(gpu.waiting for gpu in self._gpus):
            self._gpus.append(_Gpu(self._worker.remote()))
        gpu = min(self._gpus, key=lambda each: len(each.waiting))
        gpu.waiting.append(gpu.actor.evaluate.remote(*question))
        return gpu.waiting[-1]

    def answered(self, reference: Any) -> None:
        """See `Pool`."""
        self._of(reference).waiting.remove(reference)

    def lost(self, reference: Any) -> bool:
        """See `Pool`; the worker is dead, and all that it was sent is lost."""
        gpu = self._of(reference)
        if gpu in self._gpus:
            self._gpus.remove(gpu)
            self._dead.append(gpu)
            gpu.computing = gpu.waiting[0]
        gpu.waiting.remove(reference)
        return bool(reference == gpu.computing)

    def end(self) -> None:
        """See `Pool`."""
        for gpu in self._gpus:
            with suppress(Exception):
                self._ray.kill(gpu.actor)
        self._gpus, self._dead = [], []

    def _of(self, reference: Any) -> _Gpu:
        return next(gpu for gpu in (*self._gpus, *self._dead) if reference in gpu.waiting)


def pool_of(device: str) -> type[Pool]:
    """Who computes the chunks of a plan for a device."""
    return Gpus if device.startswith("cuda") else Cores
