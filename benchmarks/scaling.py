"""What a sweep costs as one thing grows: shifts, picture size, images. Milliseconds for one image and all its shifts.

    python benchmarks/scaling.py --out docs/benchmarks/scaling.json

One factor at a time around `vgg8` on 32 x 32 pictures and 33 x 33 shifts (17 x 17 where the picture grows).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shiftlens as sl
from header import header, of_machine
from shiftlens.devices import roomy_heap
from shiftlens.sweeps.engine import make_plan, prepare


def cost(model: sl.Model, size: int, grid: sl.ShiftGrid, n: int, repeats: int) -> dict[str, Any]:
    """Median, least and most milliseconds an image on both paths, and what the plan shares."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8)
    labels = rng.integers(0, 10, n)
    fill = sl.Fill.parse("black")
    row: dict[str, Any] = {"picture": size, "shifts": list(grid.shape), "images": n}
    for engine in ("direct", "dedup"):
        plan = make_plan(model, pictures[:2], grid, fill, n_images=n, engine=engine, dtype="bfloat16")
        evaluator = prepare(model, plan, grid, fill)
        evaluator(pictures[:2], labels[:2])
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            evaluator(pictures, labels)
            times.append(1e3 * (time.perf_counter() - begin) / n)
        row[engine] = {"median": statistics.median(times), "min": min(times), "max": max(times)}
        if engine == "dedup":
            row["shared"], row["fewer"] = plan.shared, plan.fewer
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/scaling.json"))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = sl.wrap(sl.nn.VGG("vgg8"), mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
    rows = []
    with roomy_heap(torch.device("cpu")):
        for factor, cases in (
            ("shifts", [(32, reach, 4) for reach in (4, 8, 16, 32)]),
            ("picture", [(size, 8, 4) for size in (32, 48, 64, 96)]),
            ("images", [(32, 16, n) for n in (2, 8, 32)]),
        ):
            for size, reach, n in cases:
                at = model.at((size, size))
                rows.append({"factor": factor} | cost(at, size, sl.ShiftGrid(reach), n, args.repeats))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    result = header() | {
        "unit": "ms an image and all its shifts",
        "rows": rows,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        "# What a sweep costs as one thing grows",
        "",
        f"`{result['command']}` on {of_machine(result['machine'])}; bfloat16; "
        f"median of {args.repeats} (least to most), milliseconds for one image and all its shifts.",
        "",
        "| grows | picture | shifts | images | direct | dedup | direct / dedup | multiply-adds fewer by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = [f"{t['median']:.0f} ({t['min']:.0f} to {t['max']:.0f})" for t in (row["direct"], row["dedup"])]
        ratio = row["direct"]["median"] / row["dedup"]["median"]
        lines.append(
            f"| {row['factor']} | {row['picture']} | {row['shifts'][0]} x {row['shifts'][1]} | {row['images']} | "
            f"{times[0]} | {times[1]} | {ratio:.2f} | {row['fewer']:.2f} x |"
        )
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
