"""What a sweep costs as one thing grows: shifts, picture size, images. Milliseconds for one image and all its shifts.

    python benchmarks/scaling.py --out docs/benchmarks/scaling.json

One factor at a time around `vgg8` on 32 x 32 pictures: 4 images, and 17 x 17 shifts where the picture grows; 5 x 5
shifts where the images grow, by the path of cells alone. bfloat16 by name, so that near ties are left.
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
from shiftlens.engine.evaluators import make_plan, prepare


def cost(
    model: sl.Model, size: int, grid: sl.ShiftGrid, n: int, repeats: int, engines: tuple[str, ...]
) -> dict[str, Any]:
    """Median, least and most milliseconds an image on each path, and what the plan shares."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8)
    labels = rng.integers(0, 10, n)
    fill = sl.Fill.parse("black")
    row: dict[str, Any] = {"picture": size, "shifts": list(grid.shape), "images": n}
    for engine in engines:
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


def milliseconds(times: dict[str, float] | None) -> str:
    return "" if times is None else f"{times['median']:.1f} ({times['min']:.1f} to {times['max']:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/scaling.json"))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = sl.wrap(sl.nn.VGG("vgg8"), mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
    rows = []
    with roomy_heap(torch.device("cpu")):
        for factor, engines, cases in (
            ("shifts", ("direct", "dedup"), [(32, reach, 4) for reach in (4, 8, 16, 32)]),
            ("picture", ("direct", "dedup"), [(size, 8, 4) for size in (32, 48, 64, 96)]),
            ("images", ("dedup",), [(32, 2, n) for n in (250, 1000, 4000)]),
        ):
            for size, reach, n in cases:
                at = model.at((size, size))
                # The last case takes as long as all others: it is its own average.
                repeats = args.repeats if n < 4000 else 1
                rows.append({"factor": factor} | cost(at, size, sl.ShiftGrid(reach), n, repeats, engines))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    result = header() | {
        "unit": "ms an image and all its shifts",
        "rows": rows,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        "# Cost of a sweep as one factor grows",
        "",
        f"`{result['command']}` on {of_machine(result['machine'])}; bfloat16; "
        f"median of {args.repeats} (least to most), milliseconds for one image and all its shifts.",
        "",
        "| factor | image size, px | shifts | images | direct | dedup | direct / dedup | multiply-adds fewer by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = [milliseconds(row.get(engine)) for engine in ("direct", "dedup")]
        ratio = f"{row['direct']['median'] / row['dedup']['median']:.2f}" if "direct" in row else ""
        lines.append(
            f"| {row['factor'].replace('picture', 'image size')} | {row['picture']} | "
            f"{row['shifts'][0]} x {row['shifts'][1]} | {row['images']:,} | "
            f"{times[0]} | {times[1]} | {ratio} | {row['fewer']:.2f} x |"
        )
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
