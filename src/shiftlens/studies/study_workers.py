"""Who makes the runs of a study: this process, one after the other, or the workers of a Ray cluster."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from shiftlens.cluster.ray_session import connect, device_on_cluster, parse_cluster
from shiftlens.cluster.ray_workers import LOST_AT_MOST, SECONDS_BETWEEN_LOOKS, losses
from shiftlens.cluster.remote import Trouble
from shiftlens.errors import ShiftlensError, StoreError
from shiftlens.studies.study_file import Study
from shiftlens.studies.study_folder import StudyFolder
from shiftlens.studies.study_runs import RunResult, StudyImages, run_once

logger = logging.getLogger(__name__)

Run = tuple[str, int]
"""An arm and a seed."""


def runs_here(
    study: Study,
    folder: StudyFolder,
    missing: Sequence[Run],
    images: StudyImages,
    go_on: Callable[[], bool],
    device: str = "auto",
) -> Iterator[RunResult]:
    """Make the missing runs in order, as long as another one may begin."""
    for arm, seed in missing:
        if not go_on():
            return
        yield run_once(study, arm, seed, folder.of_run(arm, seed), images, device=device, say=logger.info)


def runs_on_cluster(
    cluster: str,
    study: Study,
    folder: StudyFolder,
    missing: Sequence[Run],
    data_root: str | Path | None,
    go_on: Callable[[], bool],
    device: str = "auto",
) -> Iterator[RunResult]:
    """Make the missing runs on Ray, one a core; they come as they end. Workers write to the study's own directory.

    Raises
    ------
    InputError
        No such cluster, or a GPU.
    StoreError
        A run has lost several workers, or workers do not see the study's directory.
    """
    kind, n_workers = parse_cluster(cluster)
    device_on_cluster(device)
    if not missing:
        return
    ray, leave = connect(kind, n_workers)
    running: dict[Any, tuple[Run, int]] = {}
    try:
        make = ray.remote(num_cpus=1, max_retries=0)(_on_worker)
        root = None if data_root is None else str(Path(data_root).resolve())
        given = study.model_dump(mode="json"), str(folder.path.resolve()), root
        waiting = deque((run, 0) for run in missing)
        while True:
            n_cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
            while waiting and len(running) < n_cores and go_on():
                run, n_lost = waiting.popleft()
                running[make.remote(*given, *run)] = run, n_lost
            if not running:
                return
            for ended in ray.wait(list(running), timeout=SECONDS_BETWEEN_LOOKS)[0]:
                (arm, seed), n_lost = running.pop(ended)
                try:
                    answer: RunResult | Trouble = ray.get(ended)
                except losses(ray) as error:
                    if n_lost >= LOST_AT_MOST:
                        raise StoreError(f"{arm}, seed {seed} has lost {n_lost + 1} workers; stop here") from error
                    logger.warning("%s, seed %d lost its worker: it is resumed", arm, seed)
                    waiting.appendleft(((arm, seed), n_lost + 1))
                    continue
                if isinstance(answer, Trouble):
                    raise answer.error()
                if RunResult.read(folder.of_run(arm, seed)) is None:
                    raise StoreError(
                        f"workers do not write to {folder.path}: it must be on a file system that all share"
                    )
                yield answer
    finally:
        for unfinished in running:
            with suppress(Exception):
                ray.cancel(unfinished, force=True)
        leave()


def _on_worker(table: dict[str, Any], path: str, data_root: str | None, arm: str, seed: int) -> RunResult | Trouble:
    """One run, on one core; an error that a user can cause comes back as plain data."""
    torch.set_num_threads(1)
    try:
        study = Study.model_validate(table)
        folder = StudyFolder(Path(path)).of_run(arm, seed)
        return run_once(study, arm, seed, folder, StudyImages.of(study, data_root), device="cpu")
    except ShiftlensError as error:
        return Trouble("store" if isinstance(error, StoreError) else "input", str(error))
