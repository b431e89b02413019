"""What it costs that nothing is lost: the same sweep with checksums and forced writes, and without, in turns.

    python benchmarks/durability.py --net vgg8 --images 32 --repeats 5 --out durability.json

"Without" is what the first version wrote: no seal, no checksums, nothing forced to the disk after the group is made.
Besides the ratio of whole sweeps, which drifts with the machine, the time inside the writing itself is measured: that
is the part that differs. The net has random weights and the pictures are noise: neither matters here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import shiftlens as sl
from header import header
from shiftlens.engine.evaluators import make_plan
from shiftlens.storage.locking import Unsynced
from shiftlens.sweeping import run_sweep
from shiftlens.sweeps import request, runner
from shiftlens.sweeps import sweep_store as store
from shiftlens.sweeps.group import SweepGroup


@contextmanager
def writing_timed() -> Iterator[list[float]]:
    """Seconds of every write of a chunk, and of the end."""
    seconds: list[float] = []

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*args)
            finally:
                seconds.append(time.perf_counter() - start)

        return call

    with (
        patch.object(SweepGroup, "write", timed(SweepGroup.write)),
        patch.object(SweepGroup, "finish", timed(SweepGroup.finish)),
    ):
        yield seconds


@contextmanager
def without() -> Iterator[None]:
    """As the first version wrote."""
    with (
        patch.object(store, "create_group", partial(store.create_group, schema=1)),
        patch.object(Unsynced, "sync", lambda self: None),
    ):
        yield


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--net", default="vgg8")
    arguments.add_argument("--images", type=int, default=32)
    arguments.add_argument("--images-per-chunk", type=int, default=16)
    arguments.add_argument("--max-shift", type=int, default=32)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--plan-for", type=int, default=10_000, help="images that the plan is measured for")
    arguments.add_argument("--out", type=Path)
    asked = arguments.parse_args()
    torch.manual_seed(0)
    model = sl.wrap(sl.nn.VGG(asked.net), mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
    random = np.random.default_rng(0)
    images = sl.ImageSet(random.integers(0, 256, (asked.images, 3, 32, 32), dtype=np.uint8), [0] * asked.images)
    grid = sl.ShiftGrid(asked.max_shift)
    request.CHUNK_EVALUATIONS = asked.images_per_chunk * grid.n_shifts
    plan = make_plan(
        model, images.batch(range(min(64, len(images)))), grid, sl.Fill.parse("black"), n_images=asked.plan_for
    )
    found: dict[str, dict[str, list[float]]] = {
        kind: {"seconds": [], "writing_seconds": []} for kind in ("with", "without")
    }
    with tempfile.TemporaryDirectory(dir=".") as folder, patch.object(runner, "make_plan", lambda *_, **__: plan):
        for repeat in range(asked.repeats):
            # The order changes, so that a drift of the machine favours neither.
            for kind in ("with", "without") if repeat % 2 else ("without", "with"):
                out = Path(folder) / f"{kind}-{repeat}.zarr"
                with writing_timed() as writing:
                    if kind == "without":
                        with without():
                            _, stats = run_sweep(model, images, grid, out=out)
                    else:
                        _, stats = run_sweep(model, images, grid, out=out)
                found[kind]["seconds"].append(stats.seconds)
                found[kind]["writing_seconds"].append(sum(writing))
    medians = {kind: {name: statistics.median(v) for name, v in values.items()} for kind, values in found.items()}
    extra = medians["with"]["writing_seconds"] - medians["without"]["writing_seconds"]
    result = header() | {
        "net": asked.net,
        "n_images": asked.images,
        "images_per_chunk": asked.images_per_chunk,
        "n_shifts": grid.n_shifts,
        "engine": plan.engine,
        "runs": found,
        "medians": medians,
        "overhead_of_whole_sweeps": medians["with"]["seconds"] / medians["without"]["seconds"] - 1,
        "overhead_of_writing": extra / medians["without"]["seconds"],
    }
    text = json.dumps(result, indent=2)
    if asked.out:
        asked.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
