"""How often the band of an adaptive sweep holds, and how many images it takes.

    python benchmarks/adaptive.py --sweep SWEEP.zarr --out docs/benchmarks/adaptive.json

Coverage: images are drawn without replacement, in as many orders as there are draws, from a population whose accuracies
are known: the images of a real sweep, and planted populations that are made to be difficult. Each draw is looked at by
the declared schedule and stops at the width asked for; the band holds if no cell's true accuracy lies outside.

Widths: the half-widths of the real sweep in the fixed order, as its images would be the first ones of a larger set.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import shiftlens as sl
from header import header, of_machine
from shiftlens import sequential
from shiftlens.data.selection import stratified_order
from shiftlens.sequential import LEAST_OF_A_CLASS, N_MULTIPLIERS, RunningBand, look_schedule, random_signs

WIDTHS = (6, 5, 4, 3, 2, 1)
Cells = NDArray[np.bool_]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """A population, what is asked of it, and the share of the draws that it gets."""

    name: str
    right: Cells
    labels: Labels
    half_width: float
    chunk: int = 16
    # The planted ones are there to find a hole, not to measure a share to a tenth of a per cent.
    part: float = 0.2


class SignTable:
    """The very same signs, made once for all draws instead of once a draw."""

    def __init__(self, n: int) -> None:
        self._table = random_signs(np.arange(n), N_MULTIPLIERS).astype(np.int8)

    def __call__(self, positions: Labels, n_draws: int, seed: int = 0) -> NDArray[np.float32]:
        # Another seed turns the table: the chance of one set of signs is not common to all draws.
        return self._table[(positions + seed) % len(self._table)].astype(np.float32)


def from_sweep(path: Path) -> tuple[Cells, Labels, Labels]:
    """Right answers (image, dy, dx), labels and positions of what is there of a sweep."""
    sweep = sl.open_sweep(path, partial=True)
    there = sweep.written
    data = sweep.dataset
    labels = data["label"].values[there].astype(np.int64)
    right = np.concatenate([data["prediction"][k : k + 100].values for k in range(0, sweep.n_images, 100)])[there]
    return right == labels[:, None, None], labels, data["index"].values[there].astype(np.int64)


def enlarged(right: Cells, labels: Labels, n: int, seed: int) -> tuple[Cells, Labels]:
    """A population of `n` images drawn with replacement from the real ones, each class in its share."""
    random = np.random.default_rng(seed)
    share = np.bincount(labels) / len(labels)
    pick = np.concatenate([random.choice(np.flatnonzero(labels == k), round(p * n)) for k, p in enumerate(share) if p])
    return right[pick], labels[pick]


def planted(real: Cells, labels: Labels) -> list[Case]:
    """Populations that are made to be difficult."""
    random = np.random.default_rng(5)
    tens = np.arange(2000) % 10
    many = np.minimum(random.geometric(0.03, 2000) - 1, 149)
    by_class = random.uniform(0, 1, (150, 60))
    rare = np.ones((2000, 100), np.bool_)
    rare[random.choice(2000, 12, replace=False), 0] = False
    small = random.permutation(len(real))[:300]
    seldom = np.repeat((random.random(2000) > 0.03)[:, None], 100, axis=1)
    correlated = np.repeat((random.random(2000) < 0.5)[:, None], 100, axis=1)
    return [
        Case("independent cells, each half right", random.random((2000, 100)) < 0.5, tens, 6),
        Case("independent cells, 99 % right", random.random((2000, 100)) < 0.99, tens, 2.5),
        Case("one cell a hundred times", correlated, tens, 5),
        Case("always right but for 12 answers in one cell", rare, tens, 2.5),
        Case("images right or wrong in all cells, 3 % wrong", seldom, tens, 3),
        Case("150 classes of unequal size, which decide", random.random((2000, 60)) < by_class[many], many, 7),
        Case("outcomes fixed by class", random.random((10, 100))[tens] < 0.5, tens, 4),
        Case("300 images of the real sweep", real[small], labels[small], 6, chunk=4),
    ]


def coverage(case: Case, draws: int) -> dict[str, Any]:
    """Draw, look, stop; and count."""
    n, n_cells = case.right.shape
    looks = look_schedule(n, case.chunk)
    truth = case.right.mean(axis=0)
    held, used, widths, ratios = 0, [], [], []
    started = time.perf_counter()
    for draw in range(draws):
        order = stratified_order(case.labels, np.arange(n), draw + 1)
        band = RunningBand(case.labels[order], order, n_cells, looks, seed=draw % n)
        for start, stop in zip((0, *looks), looks, strict=False):
            band.add(case.right[order[start:stop]])
            look = band.look()
            if look.half_width <= case.half_width:
                break
        error = 100 * float(np.abs(case.right[order[: look.n_images]].mean(axis=0) - truth).max())
        # Both come from sums of the same whole numbers; a thousandth of a point is far below either.
        held += int(error <= look.half_width + 1e-9)
        used.append(look.n_images)
        widths.append(look.half_width)
        ratios.append(error / look.half_width if look.half_width else 0.0)
    return {
        "case": case.name,
        "n": n,
        "cells": n_cells,
        "half_width": case.half_width,
        "draws": draws,
        "coverage": held / draws,
        "images_used": [int(v) for v in np.quantile(used, (0, 0.5, 1), method="nearest")],
        "reached": float(np.median(widths)),
        "error_over_width": [float(v) for v in np.quantile(ratios, (0.5, 0.95, 1))],
        "seconds": time.perf_counter() - started,
    }


def widths(right: Cells, labels: Labels, index: Labels, n_population: int) -> dict[str, Any]:
    """The band of the real images, in the fixed order, as the first ones of `n_population`."""
    order = stratified_order(labels, index)
    flat, here = right.reshape(len(right), -1)[order], labels[order]
    repeats = -(-n_population // len(here))
    everyone = np.tile(here, repeats)[:n_population]
    places = np.concatenate([index[order], np.arange(n_population - len(here)) + 10**9])[:n_population]
    looks = look_schedule(n_population, 16)
    band, rows = RunningBand(everyone, places, flat.shape[1], looks), []
    seconds = 0.0
    start = 0
    for stop in looks:
        if stop > len(flat):
            break
        began = time.perf_counter()
        for a in range(start, stop, 16):
            band.add(flat[a : min(a + 16, stop)])
        look = band.look()
        seconds += time.perf_counter() - began
        start = stop
        rows.append({"images": stop, "half_width": look.half_width, "one_look": one_look(flat, everyone, places, stop)})
    last = [row for row in rows if row["images"] < n_population][-1]
    needed = {}
    for width in WIDTHS:
        reached = [row["images"] for row in rows if row["half_width"] <= width]
        guess = sequential.Look(last["images"], n_population, last["half_width"]).images_for(width, looks)
        needed[str(width)] = {"images": reached[0] if reached else guess, "measured": bool(reached)}
    return {
        "n_population": n_population,
        "looks": list(looks),
        "rows": rows,
        "needed": needed,
        "seconds_per_image": seconds / max(start, 1),
    }


def one_look(flat: Cells, labels: Labels, places: Labels, n: int) -> float:
    """The half-width if this were the only look, at a time fixed beforehand: what looking often costs."""
    if n == len(labels):
        return 0.0
    band = RunningBand(labels, places, flat.shape[1], (n, len(labels)))
    for a in range(0, n, 100):
        band.add(flat[a : min(a + 100, n)])
    return band.look().half_width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/adaptive.json"))
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--population", type=int, default=10_000)
    args = parser.parse_args()
    right, labels, index = from_sweep(args.sweep)
    result = header() | {
        "images": len(right),
        "shifts": list(right.shape[1:]),
        "widths": [widths(right, labels, index, n) for n in dict.fromkeys((len(right), args.population))],
    }
    print(json.dumps(result["widths"]), file=sys.stderr, flush=True)
    thin = right[:, ::8, ::8].reshape(len(right), -1)
    cases = [
        Case("the real sweep, every eighth shift", thin, labels, 6, part=1),
        Case("its images, each several times", *enlarged(thin, labels, args.population, 3), 5, part=1),
        *planted(thin, labels),
        Case("the real sweep, all shifts", right.reshape(len(right), -1), labels, 6, part=0.1),
    ]
    sequential.random_signs = SignTable(args.population)
    result["coverage"] = []
    for case in cases:
        result["coverage"].append(coverage(case, max(round(case.part * args.draws), 1)))
        print(json.dumps(result["coverage"][-1]), file=sys.stderr, flush=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(table(result))


def table(result: dict[str, Any]) -> str:
    """The same for people."""
    ny, nx = result["shifts"]
    lines = [
        "# Adaptive sweeps",
        "",
        f"`{result['command']}` on {of_machine(result['machine'])}.",
        f"The real sweep: {result['images']:,} images x {ny} x {nx} shifts.",
        "",
        "## How often the band holds where the sweep stops",
        "",
        "The band must hold in at least 94 % of draws. 95 % is promised for all looks of a run together, so one look "
        "errs less.",
        "",
        "| population | images | cells | half-width requested | band held | images used, median (least to most) | "
        "half-width reached | error over width, median, 95 %, largest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["coverage"]:
        low, middle, high = row["images_used"]
        ratios = ", ".join(f"{v:.2f}" for v in row["error_over_width"])
        lines.append(
            f"| {row['case']} | {row['n']:,} | {row['cells']} | ±{row['half_width']:g} "
            f"| **{100 * row['coverage']:.1f} %** of {row['draws']:,} | {middle:,} ({low:,} to {high:,}) "
            f"| ±{row['reached']:.2f} | {ratios} |"
        )
    lines += ["", "## How many images a half-width takes", ""]
    for each in result["widths"]:
        n = each["n_population"]
        lines += [
            f"Of {n:,} images, {ny * nx:,} cells at once, in the fixed order. Bookkeeping takes "
            f"{1000 * each['seconds_per_image']:.1f} ms an image.",
            "",
            "| half-width | images | share of all | |",
            "|---|---|---|---|",
        ]
        for width, needed in each["needed"].items():
            how = "measured" if needed["measured"] else "extrapolated from the last width measured"
            lines.append(f"| ±{width} | {needed['images']:,} | {100 * needed['images'] / n:.1f} % | {how} |")
        lines += ["", "| look after | half-width | if it were the only look |", "|---|---|---|"]
        lines += [f"| {r['images']:,} | ±{r['half_width']:.2f} | ±{r['one_look']:.2f} |" for r in each["rows"]]
        lines.append("")
    lines += [
        f"Bootstrap of {N_MULTIPLIERS:,} draws; centred by class from {LEAST_OF_A_CLASS} images of each class on.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
