"""Chunks computed on a Ray cluster: this process alone reads pictures and writes results, workers only compute.

A chunk is a pure function of what is sent, so it may be computed twice and anywhere: a chunk whose worker was lost is
sent again. Ray would do that too, but tell nobody; so its own retries are off and each loss is announced and counted.
"""

from __future__ import annotations

import sys
import sysconfig
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.cluster import remote
from shiftlens.cluster.pools import Pool, pool_of
from shiftlens.cluster.ray_session import connect, device_on_cluster, parse_cluster
from shiftlens.data.imageset import ImageSet
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.errors import InputError, ModelOutputError, StoreError
from shiftlens.models.wrapping import Model
from shiftlens.naming import count_of, one_line
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeps.header import SweepHeader
from shiftlens.sweeps.jobs import Compute, Computer, Job, with_sources
from shiftlens.sweeps.request import targets_of

LOST_AT_MOST = 4
"""Workers that one chunk may lose, one after the other, before it is taken for their death."""
SECONDS_BETWEEN_LOOKS = 2.0
"""How often the cluster is asked who is there."""


class Cluster(Computer):
    """The workers of a sweep; joined when first needed, left at the end of the `with`.

    Parameters
    ----------
    cluster
        `local`, `local:N`, `auto` or `HOST:PORT`.
    announce
        Told in one line who computes, who was lost, what is computed again.

    Raises
    ------
    InputError
        Another form, or Ray is not installed.
    """

    def __init__(self, cluster: str, announce: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._kind, self._n_workers = parse_cluster(cluster)
        self._announce = announce
        self._ray: Any = None
        self._leave: Callable[[], None] = lambda: None
        self._pool: Pool | None = None
        self._nodes: dict[str, tuple[str, int]] = {}
        self._looked = 0.0
        self._sent: tuple[SweepHeader, Any, str] | None = None

    def __exit__(self, *error: object) -> None:
        """Leave the cluster."""
        self._sent = None
        if self._pool is not None:
            self._pool.end()
        self._leave()

    def device(self, asked: str) -> str:
        """`cpu` or `cuda`: each worker has a core, or a GPU."""
        return device_on_cluster(asked, self._cluster, gpus=True)

    def check(self, plan: Plan) -> None:
        """Refuse a GPU's plan where there is none; each worker refuses a plan of another kind of machine itself."""
        if plan.device != "cpu":
            self.device(plan.device)

    def make_plan(self, model: Model, images: NDArray[np.uint8], grid: ShiftGrid, fill: Fill, **options: Any) -> Plan:
        """`engine.make_plan`, on one core or GPU of a worker: what is measured is what will compute."""
        ray, pool = self._joined(options["device"])
        package = ray.put(_packed((model, grid, fill)))
        wanted = {"num_cpus": 1, "num_gpus": int(pool.resource == "GPU")}
        choose = ray.remote(**wanted, max_retries=LOST_AT_MOST)(remote.choose_plan)
        try:
            answer: Plan | remote.Trouble = ray.get(choose.remote([package], images, options))
        except losses(ray) as error:
            raise StoreError(
                f"the cluster lost {LOST_AT_MOST + 1} workers while they made a plan: {_why(error)}"
            ) from None
        if isinstance(answer, remote.Trouble):
            raise answer.error()
        return answer

    def evaluator(self, model: Model, images: ImageSet, header: SweepHeader) -> Compute:
        """What computes the chunks of a sweep; see `compute`."""
        return lambda jobs, tick: self.compute(jobs, model, images, header)

    def compute(
        self, jobs: Iterable[Job], model: Model, images: ImageSet, header: SweepHeader
    ) -> Iterator[tuple[Job, ChunkResult]]:
        """Results of jobs as they come in; the pictures of a job are read only when a worker wants one.

        Raises
        ------
        ModelOutputError
            As without a cluster.
        StoreError
            A worker is of another machine or version, or chunk after chunk is lost.
        """
        waiting = deque((job, 0) for job in jobs)
        if not waiting:
            return  # nobody is called together for nothing
        ray, pool = self._joined(header.plan.device)
        package, digest = self._package(model, header)
        running: dict[Any, tuple[Job, int]] = {}
        try:
            while True:
                while waiting and pool.has_room(len(running), self._n_members()):
                    job, n_lost = waiting.popleft()
                    pictures, targets = images.batch(job.span), targets_of(images, header.task, job.span)
                    question = [package], digest, pictures, remote.digest_of(pictures), targets, job.control
                    sent = pool.send(*question)
                    running[sent] = job, n_lost
                if not (running or waiting):
                    return
                if not running:  # nobody is there
                    pool.wait(self._n_members(), SECONDS_BETWEEN_LOOKS)
                    self._look()
                    continue
                for answered in ray.wait(list(running), timeout=SECONDS_BETWEEN_LOOKS)[0]:
                    job, n_lost = running.pop(answered)
                    try:
                        answer: ChunkResult | remote.Trouble = ray.get(answered)
                    except losses(ray) as error:
                        blamed = pool.lost(answered)  # else it only waited for its worker
                        waiting.appendleft((job, n_lost + blamed))
                        if blamed:
                            self._tell_loss(job, n_lost + 1, error)
                        continue
                    pool.answered(answered)
                    yield job, _result(answer, job, images.name)
                self._look()
        finally:
            for unfinished in running:
                with suppress(Exception):
                    ray.cancel(unfinished, force=True)
            if running:
                pool.end()

    def _package(self, model: Model, header: SweepHeader) -> tuple[Any, str]:
        if self._sent is None or self._sent[0] is not header:
            question = remote.Question(model, header.plan, header.grid, header.fill, header.n_classes, header.task)
            package = _packed(question)
            self._sent = header, self._ray.put(package), package.digest
        return self._sent[1:]

    def _joined(self, device: str) -> tuple[Any, Pool]:
        """Ray, and who computes for a device."""
        kind = pool_of(device)
        if self._ray is None:
            if self._kind == "local":
                self._announce("starting Ray on this machine")
            self._ray, self._leave = connect(self._kind, self._n_workers, gpus=kind.resource == "GPU")
        if not isinstance(self._pool, kind):
            self._pool = kind(self._ray)
            self._look(first=True)
            n, n_nodes = self._n_members(), sum(each > 0 for _, each in self._nodes.values())
            self._announce(f"computing on {self._pool.called(n)} of {count_of(n_nodes, 'node')}")
            if not n:
                one = self._pool.called(1).removeprefix("1 ")
                self._announce(f"no node of the cluster has a {one} to give yet: waiting for one to join")
        return self._ray, self._pool

    def _n_members(self) -> int:
        return sum(n for _, n in self._nodes.values())

    def _look(self, *, first: bool = False) -> None:
        """Who has come and who has gone."""
        if not first and time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        pool = self._pool
        assert pool is not None
        self._looked = time.monotonic()
        alive = {
            str(node["NodeID"]): (str(node["NodeManagerAddress"]), int(node["Resources"].get(pool.resource, 0)))
            for node in self._ray.nodes()
            if node["Alive"]
        }
        if not first:
            for name in self._nodes.keys() - alive.keys():
                self._announce(f"node {self._nodes[name][0]} has left the cluster")
            for name in (each for each in alive.keys() - self._nodes.keys() if alive[each][1]):
                self._announce(f"node {alive[name][0]} has joined the cluster with {pool.called(alive[name][1])}")
        self._nodes = alive

    def _tell_loss(self, job: Job, n_lost: int, error: Exception) -> None:
        if n_lost > LOST_AT_MOST:
            raise StoreError(
                f"{job} has lost {n_lost} workers one after the other, the last by {_why(error)}; the chunks finished "
                f"before stay in {job.group.path}"
            ) from None
        self._announce(f"{job} lost its worker ({_why(error)}): it is computed again")
        self._looked = float("-inf")  # its node may have gone with it


def losses(ray: Any) -> tuple[type[Exception], ...]:
    """What says that a worker, its node or its result is gone, and nothing about the chunk."""
    e = ray.exceptions
    return (
        e.WorkerCrashedError,
        e.RayActorError,
        e.NodeDiedError,
        e.ObjectLostError,
        e.OutOfMemoryError,
        e.LocalRayletDiedError,
        e.TaskUnschedulableError,
    )


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)[:160]}"


def _result(answer: ChunkResult | remote.Trouble, job: Job, name: str) -> ChunkResult:
    if not isinstance(answer, remote.Trouble):
        return answer
    error = answer.error()
    raise with_sources(error, job, name) if isinstance(error, ModelOutputError) else error


def _packed(content: Any) -> remote.Package:
    """Pickle, with the code of modules that only this machine has; installed packages travel by name."""
    from ray import cloudpickle

    with _own_modules_by_value(cloudpickle):
        try:
            return remote.Package.of(cloudpickle.dumps(content))
        except Exception as error:  # what a user's module holds may refuse to be pickled in any way
            raise InputError(
                f"the model cannot be sent to a cluster ({type(error).__name__}: {one_line(error)}); keep locks, open "
                "files and generators out of its attributes"
            ) from error


@contextmanager
def _own_modules_by_value(cloudpickle: Any) -> Iterator[None]:
    paths = sysconfig.get_paths()
    installed = [Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    own = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or name == "__main__" or name.partition(".")[0] == "shiftlens":
            continue
        if not any(Path(file).resolve().is_relative_to(place) for place in installed):
            own.append(module)
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
