"""What bfloat16 does to an accuracy map: the fast path, near ties settled and not, against the direct path in float32.

    python benchmarks/precision.py --limit 2000 --out docs/benchmarks/precision.json

All sweeps are kept in `--work` and go on where they stopped. The grid covers the full range in steps of 5 px, 13 x 13.
What settling costs is timed on whole grids, in turns.
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
from shiftlens.engine.evaluators import prepare
from shiftlens.engine.plan import Plan


def differences(fast: sl.Sweep, exact: sl.Sweep) -> dict[str, float]:
    """Of two sweeps of the same images and shifts; points are per cent of the images."""
    points = 100 * (fast.accuracy.to_numpy() - exact.accuracy.to_numpy())
    predictions = [sweep.dataset.prediction.to_numpy() for sweep in (fast, exact)]
    losses = [sweep.dataset.loss.to_numpy().astype(np.float64) for sweep in (fast, exact)]
    return {
        "points_mean_absolute": float(np.abs(points).mean()),
        "points_signed_mean": float(points.mean()),
        "points_largest": float(np.abs(points).max()),
        "shifts_above_half_a_point": int((np.abs(points).round(6) > 0.5).sum()),
        "share_of_predictions_that_differ": float((predictions[0] != predictions[1]).mean()),
        "loss_mean_absolute_difference": float(np.abs(losses[0] - losses[1]).mean()),
    }


def cost_of_settling(model: sl.Model, images: sl.ImageSet, plan: Plan, n_images: int, repeats: int) -> dict[str, Any]:
    """Evaluations per second over all shifts with and without, and how much longer it takes; median, least and most."""
    grid, fill, which = sl.ShiftGrid(32), sl.Fill.parse("black"), np.arange(n_images)
    pictures, labels = images.batch(which), images.labels[which]
    rates: dict[str, list[float]] = {"settled": [], "not_settled": []}
    with roomy_heap(torch.device("cpu")):
        paths = [prepare(model, replace(plan, settle=margin), grid, fill) for margin in (plan.settle, 0.0)]
        for turn in range(repeats + 1):
            for name, path in zip(rates, paths, strict=True):
                begin = time.perf_counter()
                path(pictures, labels)
                if turn:  # the first warms up
                    rates[name].append(n_images * grid.n_shifts / (time.perf_counter() - begin))
    longer = [b / a for a, b in zip(*rates.values(), strict=True)]
    return {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for name, values in (rates | {"times_as_long": longer}).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pretrained:vgg-cifar10")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--work", type=Path, default=Path("precision-work"))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/precision.json"))
    args = parser.parse_args()
    model = sl.load_model(args.model)
    images = sl.load_images(args.data, split="test", data_root=args.data_root, limit=args.limit)
    args.work.mkdir(parents=True, exist_ok=True)
    grid = sl.ShiftGrid(30, step=5)
    sweeps = {}
    # Asked for by name, bfloat16 settles nothing.
    for engine, dtype in (("direct", "float32"), ("dedup", "auto"), ("dedup", "bfloat16")):
        with Shell().progress(f"{engine} {dtype}", "evaluations") as report:
            out = args.work / f"{engine}-{dtype}.zarr"
            sweeps[dtype] = sl.sweep(model, images, grid, out=out, engine=engine, dtype=dtype, progress=report)
    plan = Plan.from_json(sweeps["auto"].dataset.attrs["plan"])
    result = header() | {
        "model": model.digest,
        "data": images.digest,
        "n_images": len(images),
        "n_shifts": grid.n_shifts,
        "settled_below": plan.settle,
        "settled": differences(sweeps["auto"], sweeps["float32"]),
        "not_settled": differences(sweeps["bfloat16"], sweeps["float32"]),
        "evaluations_per_second": cost_of_settling(model, images, plan, n_images=8, repeats=5),
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
