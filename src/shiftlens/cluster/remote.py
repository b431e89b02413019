"""What runs in a worker of a cluster: one core or GPU, one chunk at a time, and a net that is prepared once."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import socket
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shiftlens.devices import give_back, refuse_gone, resolve_device, roomy_heap
from shiftlens.engine.evaluators import make_plan, prepare
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.engine.window_evaluator import WindowEvaluator
from shiftlens.errors import DeviceError, InputError, ModelOutputError, ShiftlensError, StoreError
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeps.header import software_versions
from shiftlens.sweeps.jobs import check_result
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.task import Task

SAME = ("torch", "shiftlens")
"""Packages whose version must be that of the process that writes: others could move the last bits."""


@dataclass(frozen=True)
class Question:
    """All that the chunks of a sweep have in common; travels once to each worker."""

    model: Model
    plan: Plan
    grid: ShiftGrid
    fill: Fill
    n_classes: int
    task: Task = CLASSIFICATION


@dataclass(frozen=True)
class Package:
    """A pickled object, its digest, and the versions it was made with."""

    content: bytes
    digest: str
    versions: dict[str, str]

    @staticmethod
    def of(content: bytes) -> Package:
        """Wrap what was pickled here."""
        return Package(content, digest_of(content), software_versions())


@dataclass(frozen=True)
class Trouble:
    """An error that a user can cause, as plain data: an exception of a stranger's class could not be unpacked."""

    kind: str
    message: str
    positions: tuple[int, ...] = ()

    def error(self) -> ShiftlensError:
        """The error again."""
        if self.kind == "model":
            return ModelOutputError(self.message, self.positions)
        return StoreError(self.message) if self.kind == "store" else InputError(self.message)


_prepared: tuple[str, Question, WindowEvaluator] | None = None
_heap: AbstractContextManager[None] | None = None


def digest_of(content: bytes | NDArray[Any]) -> str:
    """Digest of what travels: a worker computes it again and compares."""
    data = content if isinstance(content, bytes) else np.ascontiguousarray(content).data
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def evaluate(
    package: list[Any],
    digest: str,
    images: NDArray[np.uint8],
    images_digest: str,
    targets: NDArray[Any],
    control: str | None,
) -> ChunkResult | Trouble:
    """One chunk: images [n, c, h, w] and targets [n, ...] of the sweep that `package` (a reference to it) describes."""
    try:
        question, evaluator = _evaluator(package, digest)
        _refuse_other(images, images_digest, "pictures of a chunk")
        give_back(torch.device("cpu"))  # what the chunk before needed
        # Copies, since torch wants to be able to write to what it looks at, and the object store is read-only.
        result = evaluator(images.copy(), targets.copy(), control, question.task)
        check_result(result, question.task, question.n_classes, targets)
        return result
    except ModelOutputError as error:
        return Trouble("model", str(error), error.positions)
    except StoreError as error:
        return Trouble("store", f"worker on {socket.gethostname()}: {error}")
    except ShiftlensError as error:
        return Trouble("input", f"worker on {socket.gethostname()}: {error}")


class GpuWorker:
    """A worker that has a GPU for itself: what is prepared for a sweep stays there."""

    def greet(self) -> str:
        """Why its GPU cannot be used; nothing where it can."""
        try:
            torch.zeros(1, device=resolve_device("cuda")).sum().item()
        except (ShiftlensError, RuntimeError) as error:
            return f"worker on {socket.gethostname()}: {one_line(error)}"
        return ""

    def evaluate(self, *question: Any) -> ChunkResult | Trouble:
        """See the function; where the GPU is lost this worker ends, so that another one computes the chunk."""
        try:
            answer = evaluate(*question)
        except RuntimeError:
            _end_if_gone()
            raise
        if isinstance(answer, Trouble):
            _end_if_gone()
        return answer


def _end_if_gone() -> None:
    """End this process where its GPU failed."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch says no types here
        return
    try:
        refuse_gone(torch.device("cuda"), "another worker takes its place")
    except DeviceError:
        os._exit(1)


def choose_plan(package: list[Any], images: NDArray[np.uint8], options: dict[str, Any]) -> Plan | Trouble:
    """`engine.make_plan` where the chunks will be computed: on one core, or GPU, of a worker."""
    try:
        _one_core()
        model, grid, fill = _unpacked(package)
        return make_plan(model, images, grid, fill, **options)
    except ModelOutputError as error:
        return Trouble("model", str(error), error.positions)
    except ShiftlensError as error:
        return Trouble("input", str(error))
    except RuntimeError as error:
        return Trouble("input", f"worker on {socket.gethostname()}: {one_line(error)}")


def _evaluator(package: list[Any], digest: str) -> tuple[Question, WindowEvaluator]:
    global _prepared
    if _prepared is None or _prepared[0] != digest:
        _one_core()
        _prepared = None  # the memory of the sweep before
        gc.collect()
        question = _unpacked(package)
        _prepared = digest, question, prepare(question.model, question.plan, question.grid, question.fill)
    return _prepared[1], _prepared[2]


def _one_core() -> None:
    global _heap
    torch.set_num_threads(1)
    if _heap is None:
        _heap = roomy_heap(torch.device("cpu"))  # kept for the life of this process
        _heap.__enter__()


def _unpacked(package: list[Any]) -> Any:
    import ray

    sent: Package = ray.get(package[0])
    _refuse_other(sent.content, sent.digest, "model")
    here = software_versions()
    for name in SAME:
        if here[name] != sent.versions[name]:
            raise StoreError(
                f"{name} is {here[name]} here and {sent.versions[name]} where the sweep is written: its results could "
                "differ in the last bits; install the same version"
            )
    try:
        return pickle.loads(sent.content)
    except Exception as error:  # a stranger's classes raise whatever they like
        raise InputError(
            f"the model cannot be unpacked ({type(error).__name__}: {one_line(error)}); the packages that it needs "
            "must be installed on every worker"
        ) from error


def _refuse_other(content: bytes | NDArray[Any], digest: str, what: str) -> None:
    if digest_of(content) != digest:
        raise StoreError(f"the {what} changed on the way to the worker")
