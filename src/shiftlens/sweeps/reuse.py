"""A sweep of more images reuses the results of a sweep of fewer images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from shiftlens.data.imageset import ImageSet
from shiftlens.engine.evaluators import check_machine
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.errors import StoreError
from shiftlens.storage.locking import disk_errors
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.header import SweepHeader, sweep_exists
from shiftlens.sweeps.jobs import Compute, Job
from shiftlens.sweeps.sweep_store import SweepStore
from shiftlens.tasks.embedding import Embedding
from shiftlens.tasks.task import Task, has_sums


class Reuse:
    """Another sweep with the same model, grid and fill, on some of the same images; it is only read.

    The new sweep takes its plan and begins with its images in its order. A chunk is copied where computing it would
    give the same bytes: the engine `dedup` computes each image by itself; `direct` shares batches among the images of
    a chunk, so there the chunk must hold the same images.

    Parameters
    ----------
    path
        The sweep; it may be incomplete, and torn chunks of it are computed anew.
    images
        All images of the new sweep, on the model's input grid.

    Raises
    ------
    StoreError
        No sweep, or one that holds other images than these.
    """

    def __init__(self, path: Path, images: ImageSet) -> None:
        if not sweep_exists(path):
            raise StoreError(f"there is no sweep at {path} to reuse")
        self.path = path
        self._store = SweepStore(path)
        # All that it was to be measured on, also where it stopped early: that is what its digest is of.
        _, index = self._store.main.everyone
        places = {int(source): place for place, source in enumerate(images.index)}
        missing = [int(source) for source in index if int(source) not in places]
        if missing:
            raise StoreError(
                f"{path} holds images that are not among the {len(images):,} asked for, such as number {missing[0]} "
                "of the source; only a sweep of some of the same images can be reused"
            )
        first = np.array([places[int(source)] for source in index], dtype=np.int64)
        # Pixels and labels are compared, not just numbers: another source may count in the same way.
        if images.subset(first).digest != self._store.main.header.data_digest:
            raise StoreError(f"{path} holds a sweep of other images than the ones asked for; it cannot be reused")
        order = np.concatenate([first, np.setdiff1d(np.arange(len(images)), first)])
        self.images = images.subset(order, named=True)
        self._whole: dict[tuple[str | None, int], bool] = {}

    @property
    def plan(self) -> Plan:
        """How the other sweep was computed, and this one will be."""
        return self._store.main.header.plan

    @property
    def n_images(self) -> int:
        """Images of the other sweep."""
        return self._store.main.n_images

    @property
    def chunk_size(self) -> int:
        """Images in a chunk of the other sweep."""
        return self._store.main.chunk_size

    def adjusted(self, task: Task) -> Task:
        """The task as the other sweep has measured it: ranks are in its gallery, not in one of more images."""
        stored = self._store.main.header.task
        if isinstance(task, Embedding) and isinstance(stored, Embedding):
            return replace(task, n_gallery=stored.n_gallery)
        return task

    def check(self, header: SweepHeader) -> None:
        """Refuse to mix numbers of two questions, or of two ways to compute them.

        Raises
        ------
        StoreError
            Says what differs: model, grid, fill, plan, machine, torch.
        """
        stored, where = self._store.main.header, str(self.path)
        header.model_copy(update={"data_digest": stored.data_digest}).refuse_other(stored, where)
        if header.plan != self.plan:
            raise StoreError(
                f"{where} was computed by another plan than the sweep that is resumed; leave reuse out to resume it"
            )
        stored.refuse_other_torch(where)
        check_machine(self.plan)

    def serving(self, compute: Compute) -> Compute:
        """The same, but for chunks that need not be computed."""

        def serve(jobs: Iterable[Job], tick: Callable[[int], None]) -> Iterator[tuple[Job, ChunkResult]]:
            left = []
            for job in jobs:
                known = self._known(job)
                if known is None:
                    left.append(job)
                else:
                    yield job, known
            yield from compute(left, tick)

        return serve

    def _known(self, job: Job) -> ChunkResult | None:
        if job.control is not None and job.control not in self._store.controls:
            return None
        group, span = self._store.group(job.control), job.span
        if span.stop > group.n_images:
            return None
        chunks = range(span.start // group.chunk_size, (span.stop - 1) // group.chunk_size + 1)
        # A sum over the images of a chunk is that of no others.
        task = group.header.task
        # On a GPU a batch holds windows of several images.
        alone = self.plan.engine == "dedup" and self.plan.device == "cpu"
        by_itself = (alone or job.control == "canvas") and not has_sums(task)
        if not (by_itself or (len(chunks) == 1 and group.span(chunks[0]) == span)):
            return None
        if not all(self._is_whole(group, chunk) for chunk in chunks):
            return None
        with disk_errors(self.path, "read"):
            return group.read_images(span)

    def _is_whole(self, group: SweepGroup, chunk: int) -> bool:
        key = group.header.control, chunk
        if key not in self._whole:
            self._whole[key] = group.is_finished(chunk)
        return self._whole[key]
