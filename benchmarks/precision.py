"""What bfloat16 does to an accuracy map: the fast path, near ties settled and not, against the direct path in float32.

    python benchmarks/precision.py --limit 2000 --out docs/benchmarks/precision.json

The sweep in float32 is kept in `--work` and goes on where it stopped. The grid covers the full range in steps of 5 px,
13 x 13. Margins of other sizes settle fewer or more windows: `--doubts` are theirs, in root mean squares of what
bfloat16 does to margins. What settling costs is timed on whole grids, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shiftlens as sl
from header import header
from shiftlens.cli.console import Shell
from shiftlens.devices import roomy_heap
from shiftlens.engine.evaluators import make_plan, prepare
from shiftlens.engine.outcomes import Chunk
from shiftlens.engine.plan import Plan
from shiftlens.engine.settling import DOUBT
from shiftlens.engine.shared.dedup import DedupEvaluator
from shiftlens.tasks.task import MARGIN

AT_ONCE = 20
"""Images in a chunk."""
PLANNED = 8
"""Images that the plan is chosen on."""


Windows = dict[str, np.ndarray[Any, Any]]
"""`prediction`, `loss` and `margin` [n, shifts]."""


def rounded(model: sl.Model, images: sl.ImageSet, plan: Plan, grid: sl.ShiftGrid) -> Windows:
    """What the plan gives with nothing settled."""
    path = DedupEvaluator(model, replace(plan, settle=0.0), grid, sl.Fill.parse("black"))
    parts: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in ("prediction", "loss", MARGIN)}
    with roomy_heap(torch.device("cpu")):
        for first in range(0, len(images), AT_ONCE):
            which = np.arange(first, min(first + AT_ONCE, len(images)))
            chunk = path.prepared(Chunk(images.batch(which), images.labels[which]))
            found = path.begin(chunk, np.ones((len(which), grid.n_shifts), dtype=np.bool_))()
            for name, rows in parts.items():
                rows.append(found[name])
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def settled(fast: Windows, exact: Windows, margin: float) -> tuple[Windows, float]:
    """Windows below the margin in float32, the others as they are; and the share of the former."""
    near = fast[MARGIN] < margin
    return {name: np.where(near, exact[name], fast[name]) for name in exact}, float(near.mean())


def differences(fast: Windows, exact: Windows, labels: np.ndarray[Any, Any]) -> dict[str, float]:
    """Of the same images and shifts; points are per cent of the images."""
    hits = [(windows["prediction"] == labels[:, None]).mean(axis=0) for windows in (fast, exact)]
    points = 100 * (hits[0] - hits[1])
    return {
        "points_mean_absolute": float(np.abs(points).mean()),
        "points_signed_mean": float(points.mean()),
        "points_largest": float(np.abs(points).max()),
        "shifts_above_half_a_point": int((np.abs(points).round(6) > 0.5).sum()),
        "share_of_predictions_that_differ": float((fast["prediction"] != exact["prediction"]).mean()),
        "loss_mean_absolute_difference": float(np.abs(fast["loss"].astype(np.float64) - exact["loss"]).mean()),
    }


def cost_of_settling(
    model: sl.Model, images: sl.ImageSet, plan: Plan, margins: dict[str, float], n_images: int, repeats: int
) -> dict[str, Any]:
    """Evaluations per second over all shifts by margin, and how much longer it takes than without; in turns."""
    grid, fill, which = sl.ShiftGrid(32), sl.Fill.parse("black"), np.arange(n_images)
    pictures, labels = images.batch(which), images.labels[which]
    margins = {"not_settled": 0.0} | margins
    rates: dict[str, list[float]] = {name: [] for name in margins}
    with roomy_heap(torch.device("cpu")):
        paths = [prepare(model, replace(plan, settle=margin), grid, fill) for margin in margins.values()]
        for turn in range(repeats + 1):
            for name, path in zip(rates, paths, strict=True):
                begin = time.perf_counter()
                path(pictures, labels)
                if turn:  # the first warms up
                    rates[name].append(n_images * grid.n_shifts / (time.perf_counter() - begin))
    return {
        name: {
            "evaluations_per_second": spread(values),
            "times_as_long": spread([b / a for a, b in zip(values, rates["not_settled"], strict=True)]),
        }
        for name, values in rates.items()
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pretrained:vgg-cifar10")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--work", type=Path, default=Path("precision-work"))
    parser.add_argument("--doubts", type=float, nargs="+", default=[1.5, 1.25, 1.0, 0.75])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/precision.json"))
    args = parser.parse_args()
    model = sl.load_model(args.model)
    images = sl.load_images(args.data, split="test", data_root=args.data_root, limit=args.limit)
    args.work.mkdir(parents=True, exist_ok=True)
    grid = sl.ShiftGrid(30, step=5)
    with Shell().progress("direct float32", "evaluations") as report:
        out = args.work / "direct-float32.zarr"
        sweep = sl.sweep(model, images, grid, out=out, engine="direct", dtype="float32", progress=report)
    exact = {name: sweep.dataset[name].to_numpy().reshape(len(images), -1) for name in ("prediction", "loss")}
    with roomy_heap(torch.device("cpu")):
        shown = images.batch(range(PLANNED))
        plan = make_plan(model, shown, sl.ShiftGrid(32), sl.Fill.parse("black"), n_images=10_000, engine="dedup")
    fast = rounded(model, images, plan, grid)
    margins = {f"{doubt:g}": plan.settle * doubt / DOUBT for doubt in args.doubts}
    by_doubt = {}
    for name, margin in ({"not_settled": 0.0} | margins).items():
        found, share = settled(fast, exact, margin)
        by_doubt[name] = {"margin": margin, "share_settled": share, **differences(found, exact, images.labels)}
    result = header() | {
        "model": model.digest,
        "data": images.digest,
        "n_images": len(images),
        "n_shifts": grid.n_shifts,
        "plan": json.loads(plan.to_json()),
        "by_doubt": by_doubt,
        "cost": cost_of_settling(model, images, plan, margins, n_images=8, repeats=5),
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
