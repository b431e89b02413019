"""`study`: run what is missing of a study, then write its table, page and pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shiftlens.progress_bar import shows_progress
from shiftlens.storage.locking import output_lock
from shiftlens.studies.study_estimate import estimated_seconds
from shiftlens.studies.study_file import Study, read_study
from shiftlens.studies.study_folder import StudyFolder
from shiftlens.studies.study_page import write_page
from shiftlens.studies.study_result import StudyResult
from shiftlens.studies.study_runs import StudyImages
from shiftlens.studies.study_workers import runs_here, runs_on_cluster

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@shows_progress("studying", "runs")
def study(
    file: Study | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    plan: bool = False,
    minutes: float | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    cluster: str | None = None,
    progress: Progress | None = None,
) -> StudyResult:
    """Train and measure every arm of a study with every seed, and test its contrasts over training runs.

    Runs are made in the order of the seeds, all arms of a seed first, so that a part of the study is a smaller study.
    Each has a folder in `out`; what is finished is never made again, and a call that was stopped goes on where it was.
    Seeds, arms, sweeps and contrasts may be added later.

    Parameters
    ----------
    file
        `study.toml`, or a mapping with its keys; see the how-to "Run a study".
    out
        The study's directory: new, empty, or one of the same study.
    plan
        Only say how many runs are missing, and about how long they take.
    minutes
        Start no further run after so many minutes.
    data_root
        Folder with data sets, else `$SHIFTLENS_DATA`.
    device
        `auto`, `cpu` or `cuda`.
    cluster
        Make the runs on Ray, one a core: `"local"`, `"local:N"`, `"HOST:PORT"` or `"auto"`. The machines must share the
        file system of `out`, and see the images.
    progress
        Called with (runs done, runs in all), first with those that were there.

    Returns
    -------
    StudyResult
        With what is there: `.contrasts`, `.dataset`, `.notes`. Written to `study.zarr`, `study.html` and `pictures`.

    Raises
    ------
    InputError
        An unknown key or level (with the nearest), images that cannot be learnt from, or a directory of another study
        (names the keys that differ).
    StoreError
        `out` holds something else, is in use, or cannot be written.

    Examples
    --------
    >>> study("study.toml", out="studies/padding", plan=True).n_missing
    4
    >>> study("study.toml", out="studies/padding").contrasts  # trains all 4 nets  # doctest: +SKIP
    """
    asked, folder = read_study(file), StudyFolder(Path(out))
    if plan:
        folder.check(asked)
        images = StudyImages.of(asked, data_root)
        missing = folder.missing(asked)
        left = estimated_seconds(asked, folder.results(asked), missing, images, device)
        return StudyResult(asked, folder.path, folder.results(asked), left, len(images.test))
    until = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    with output_lock(folder.path):
        folder.check(asked)  # before images are read
        images = StudyImages.of(asked, data_root)
        folder.claim(asked, {"train": images.train.digest, "test": images.test.digest})
        missing, n_runs = folder.missing(asked), len(asked.variants) * len(asked.seeds)

        def go_on() -> bool:
            return time.monotonic() <= until

        if cluster is None:
            runs = runs_here(asked, folder, missing, images, go_on, device)
        else:
            runs = runs_on_cluster(cluster, asked, folder, missing, data_root, go_on, device)
        if progress is not None:
            # Time counts from here: from the first end of a run it would be half of the truth where two run at a time.
            progress(n_runs - len(missing), n_runs)
        for done, result in enumerate(runs, n_runs - len(missing) + 1):
            if result.failed is not None:
                logger.warning("%s, seed %d failed: %s", result.arm, result.seed, result.failed)
            if progress is not None:
                progress(done, n_runs)
        made = StudyResult(asked, folder.path, folder.results(asked), n_test=len(images.test))
        left = estimated_seconds(asked, made.runs, folder.missing(asked), images, device)
        made = replace(made, seconds_left=left)
        return replace(made, files=(made.save(), *write_page(made)))
