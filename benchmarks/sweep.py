"""Rates of a sweep: the loop that anyone would write, and shiftlens' paths, in one run.

    python benchmarks/sweep.py --out docs/benchmarks/sweep.json

Every repeat measures all candidates one after the other, so that the ratios hold when the machine's speed drifts. The
pictures are random: rates do not depend on what is in them. Written beside the JSON: a table in Markdown. `--nets
resnet18-64 resnet18-224` measures torchvision's net with random weights under shifts of up to 16 pixels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

import shiftlens as sl
from header import header, of_machine
from shiftlens.devices import roomy_heap
from shiftlens.engine.evaluators import make_plan, prepare

NAIVE_BATCHES = (64, 250, 1000)
PICTURES_A_CORE = 2
CONVOLUTIONS = ((64, 32), (128, 16), (256, 8), (512, 4))


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def subject(name: str) -> tuple[sl.Model, int, sl.ShiftGrid]:
    """A net of the benchmark, its input size in pixels, and the shifts."""
    torch.manual_seed(0)
    if name.startswith("resnet18-"):
        size = int(name.removeprefix("resnet18-"))
        net = torchvision.models.resnet18(num_classes=10).eval()
        return sl.wrap(net, mean=(0.5,) * 3, std=(0.25,) * 3, size=size), size, sl.ShiftGrid(16)
    return sl.wrap(sl.nn.VGG(name), mean=(0.5,) * 3, std=(0.25,) * 3, size=32), 32, sl.ShiftGrid(32)


def naive(net: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, shifts: list[tuple[int, int]]) -> None:
    """Translate with torchvision, evaluate in eager float32: what a user writes without this tool."""
    with torch.inference_mode():
        for dx, dy in shifts:
            moved = tv.affine(
                images,
                angle=0.0,
                translate=[dx, dy],
                scale=1.0,
                shear=[0.0, 0.0],
                interpolation=InterpolationMode.NEAREST,
            )
            scores = net(moved)
            scores.argmax(1)
            torch.nn.functional.cross_entropy(scores, labels, reduction="none")


def best_convolution() -> float:
    """The machine's best dense bfloat16 convolution among the nets' shapes, in TFLOP/s."""
    best = 0.0
    for channels, size in CONVOLUTIONS:
        for batch in (32, 128, 256):
            layer = torch.nn.Conv2d(channels, channels, 3, padding=1).bfloat16().to(memory_format=torch.channels_last)
            x = torch.randn(batch, channels, size, size).bfloat16().contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                layer(x)
                times = [seconds_of(lambda layer=layer, x=x: layer(x)) for _ in range(5)]
            flops = 2 * 9 * channels * channels * size * size * batch
            best = max(best, flops / statistics.median(times) / 1e12)
    return best


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(arch: str, repeats: int, n_naive: int, log: Callable[[str], None]) -> dict[str, Any]:
    model, size, grid = subject(arch)
    assert isinstance(model.module, torch.nn.Module)
    net, fill = model.module.eval(), sl.Fill.parse("black")
    rng = np.random.default_rng(0)
    n_pictures = max(2, torch.get_num_threads()) * (PICTURES_A_CORE if size < 224 else 1)
    pictures = rng.integers(0, 256, (n_pictures, 3, size, size), dtype=np.uint8)
    labels = rng.integers(0, 10, n_pictures)
    batches = NAIVE_BATCHES if size == 32 else (16, 64)
    plans = {}
    with roomy_heap(torch.device("cpu")):
        for engine in ("direct", "dedup"):
            log(f"{arch}: choosing the plan of {engine}")
            plans[engine] = make_plan(model, pictures, grid, fill, n_images=10_000, engine=engine)
    if plans["dedup"].settle:
        plans["dedup, near ties left"] = replace(plans["dedup"], settle=0.0)
    evaluators = {path: prepare(model, plan, grid, fill) for path, plan in plans.items()}
    n_shown = {path: 1 if path == "direct" else n_pictures for path in plans}
    rates: dict[str, list[float]] = {f"naive, batch {b}": [] for b in batches} | {path: [] for path in plans}
    for evaluator in evaluators.values():
        evaluator(pictures[:1], labels[:1])
    for repeat in range(repeats):
        for batch in batches:
            x = torch.from_numpy(rng.standard_normal((batch, 3, size, size), dtype=np.float32))
            y = torch.from_numpy(rng.integers(0, 10, batch))
            cost = max(1, round((model.n_macs or 0) / 209e6))
            reach = grid.max_x
            many = max(1, n_naive // (batch * cost))
            shifts = [(int(a), int(b)) for a, b in rng.integers(-reach, reach + 1, (many, 2))]
            taken = seconds_of(lambda x=x, y=y, shifts=shifts: naive(net, x, y, shifts))
            rates[f"naive, batch {batch}"].append(batch * len(shifts) / taken)
        for engine, evaluator in evaluators.items():
            n = n_shown[engine]
            with roomy_heap(torch.device("cpu")):
                taken = seconds_of(lambda run=evaluator, n=n: run(pictures[:n], labels[:n]))
            rates[engine].append(n * grid.n_shifts / taken)
        log(f"{arch}: repeat {repeat + 1} of {repeats}: " + ", ".join(f"{k} {v[-1]:.0f}/s" for k, v in rates.items()))
    best = max(batches, key=lambda b: statistics.median(rates[f"naive, batch {b}"]))

    def over(a: str, b: str) -> dict[str, float]:
        return spread([x / y for x, y in zip(rates[a], rates[b], strict=True)])

    return {
        "multiply_adds": model.n_macs,
        "plans": {engine: json.loads(plan.to_json()) for engine, plan in plans.items()},
        "evaluations_per_second": {name: spread(values) for name, values in rates.items()},
        "naive_best_batch": best,
        "over_naive": {engine: over(engine, f"naive, batch {best}") for engine in plans},
        "dedup_over_direct": over("dedup", "direct"),
        # In the FLOPs of the naive loop, which computes everything.
        "tflops": {e: 2 * (model.n_macs or 0) * statistics.median(rates[e]) / 1e12 for e in plans},
    }


def memory(limits: list[int], log: Callable[[str], None], directory: Path) -> list[dict[str, int]]:
    """Peak memory of the whole process against the number of images (shifts -32 ... 32 in steps of 16)."""
    rows = []
    for n in limits:
        out = directory / f"memory-{n}.zarr"
        command = [sys.executable, __file__, "--memory-run", str(n), str(out)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows.append(json.loads(printed.splitlines()[-1]))
        log(f"memory: {rows[-1]}")
    return rows


def memory_run(n: int, out: str) -> None:
    rng = np.random.default_rng(0)
    images = sl.ImageSet(rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, n))
    torch.manual_seed(0)
    model = sl.wrap(sl.nn.VGG("vgg8"), mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
    from shiftlens.sweeping import run_sweep

    _, stats = run_sweep(model, images, sl.ShiftGrid(32, 16), out=Path(out))
    parameters = 4 * model.n_parameters
    print(json.dumps({"n_images": n, "peak_memory_bytes": stats.peak_memory_bytes, "model_bytes": parameters}))


def table(result: dict[str, Any]) -> str:
    lines = [
        "# Rates of a sweep",
        "",
        f"`{result['command']}` on {of_machine(result['machine'])}; "
        f"{result['repeats']} repeats, median (least to most). "
        f"Best dense bfloat16 convolution: {result['best_convolution_tflops']:.2f} TFLOP/s.",
        "",
        "| net | path | images x shifts per second | against the naive loop at its best batch |",
        "|---|---|---|---|",
    ]
    for arch, row in result["nets"].items():
        for name, rate in row["evaluations_per_second"].items():
            ratio = row["over_naive"].get(name)
            note = f"**{ratio['median']:.2f}** ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else ""
            lines.append(
                f"| {arch} | {name} | {rate['median']:,.0f} ({rate['min']:,.0f} to {rate['max']:,.0f}) | {note} |"
            )
    lines += [
        "",
        "| net | dedup against direct | share of the best convolution, in the naive loop's FLOPs | near ties left | "
        "of the net's multiply-adds run once for all shifts | multiply-adds of the sweep, fewer by |",
        "|---|---|---|---|---|---|",
    ]
    for arch, row in result["nets"].items():
        ratio, plan = row["dedup_over_direct"], row["plans"]["dedup"]
        left = row["tflops"].get("dedup, near ties left", row["tflops"]["dedup"]) / result["best_convolution_tflops"]
        share = row["tflops"]["dedup"] / result["best_convolution_tflops"]
        lines.append(
            f"| {arch} | **{ratio['median']:.2f}** ({ratio['min']:.2f} to {ratio['max']:.2f}) | {share:.2f} | "
            f"{left:.2f} | {100 * plan['shared']:.0f} % | {plan['fewer']:.2f} x |"
        )
    plans = [f"{a}: `{json.dumps(p)}`" for a, r in result["nets"].items() for p in r["plans"].values()]
    lines += ["", "Plans: " + "; ".join(plans), ""]
    if result["memory"]:
        lines += ["| images | peak memory of the process | of it the model's weights |", "|---|---|---|"]
        lines += [
            f"| {r['n_images']:,} | {r['peak_memory_bytes'] / 1e6:,.0f} MB | {r['model_bytes'] / 1e6:,.0f} MB |"
            for r in result["memory"]
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/sweep.json"))
    parser.add_argument("--nets", nargs="+", default=["vgg8", "vgg6"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--naive-evaluations", type=int, default=3000, help="evaluations a repeat of each naive batch")
    parser.add_argument("--limits", nargs="*", type=int, default=[250, 1000, 4000], help="image counts for the memory")
    parser.add_argument("--memory-run", nargs=2, metavar=("N", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_run:
        memory_run(int(args.memory_run[0]), args.memory_run[1])
        return
    import tempfile

    log = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    result = header(
        repeats=args.repeats,
        best_convolution_tflops=best_convolution(),
        nets={arch: measure(arch, args.repeats, args.naive_evaluations, log) for arch in args.nets},
    )
    with tempfile.TemporaryDirectory() as directory:
        result["memory"] = memory(args.limits, log, Path(directory))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
