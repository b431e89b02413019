"""Ray workers of one core each, against one of them and against the plain engine on the same cores, in turns.

    python benchmarks/cluster.py --net vgg8 --workers 2 --repeats 3 --out cluster.json

Ray is started once and its workers are warm: what is compared is how the work is shared out, not how long a cluster
takes to start (some 10 s). "One worker" is the same cluster with every chunk given all cores, of which it uses one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

import shiftlens as sl
from header import header
from shiftlens.cluster import ray_workers as cluster
from shiftlens.cluster.ray_session import connect
from shiftlens.engine.evaluators import make_plan
from shiftlens.sweeping import run_sweep
from shiftlens.sweeps import request, runner


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--net", default="vgg8")
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--chunks", type=int, default=16, help="best a multiple of the workers")
    arguments.add_argument("--images-per-chunk", type=int, default=4)
    arguments.add_argument("--max-shift", type=int, default=32)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--plan-for", type=int, default=10_000, help="images that the plan is measured for")
    arguments.add_argument("--out", type=Path)
    asked = arguments.parse_args()
    torch.manual_seed(0)
    model = sl.wrap(sl.nn.VGG(asked.net), mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
    n = asked.chunks * asked.images_per_chunk
    random = np.random.default_rng(0)
    images = sl.ImageSet(random.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), [0] * n)
    grid = sl.ShiftGrid(asked.max_shift)
    request.CHUNK_EVALUATIONS = asked.images_per_chunk * grid.n_shifts
    torch.set_num_threads(asked.workers)
    plan = make_plan(model, images.batch(range(min(64, n))), grid, sl.Fill.parse("black"), n_images=asked.plan_for)

    def run(kind: str, out: Path) -> float:
        each = asked.workers if kind == "one worker" else 1
        with patch.object(cluster, "CORES_EACH", each):
            _, stats = run_sweep(model, images, grid, out=out, cluster=None if kind == "plain" else "auto")
        return stats.seconds

    seconds: dict[str, list[float]] = {"one worker": [], "workers": [], "plain": []}
    ray, _ = connect("local", asked.workers)
    try:
        with (
            tempfile.TemporaryDirectory(dir=".") as folder,
            patch.object(runner, "make_plan", lambda *_, **__: plan),
            patch.object(cluster.Cluster, "make_plan", lambda *_, **__: plan),
        ):
            run("workers", Path(folder) / "warm.zarr")
            for repeat in range(asked.repeats):
                kinds = list(seconds)
                for kind in kinds if repeat % 2 else kinds[::-1]:
                    seconds[kind].append(run(kind, Path(folder) / f"{kind}-{repeat}.zarr"))
    finally:
        ray.shutdown()
    median = {kind: statistics.median(values) for kind, values in seconds.items()}
    result = header() | {
        "net": asked.net,
        "n_workers": asked.workers,
        "n_images": n,
        "n_chunks": asked.chunks,
        "n_shifts": grid.n_shifts,
        "engine": plan.engine,
        "dtype": plan.dtype,
        "compiled": plan.compiled,
        "seconds": seconds,
        "medians": median,
        "workers_against_one": median["one worker"] / median["workers"],
        "workers_against_plain": median["plain"] / median["workers"],
    }
    text = json.dumps(result, indent=2)
    if asked.out:
        asked.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
