"""Rates of a sweep: the loop that anyone would write, and shiftlens' paths, in one run.

    python benchmarks/sweep.py --out docs/benchmarks/sweep.json

Every repeat measures all candidates one after the other, so that the ratios hold when the machine's speed drifts. The
pictures are random: rates do not depend on what is in them. Written beside the JSON: a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

import shiftlens as sl
from shiftlens.devices import roomy_heap
from shiftlens.sweeps.engine import make_plan, prepare

NAIVE_BATCHES = (64, 250, 1000)
CONVOLUTIONS = ((64, 32), (128, 16), (256, 8), (512, 4))


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


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
    torch.manual_seed(0)
    model = sl.wrap(sl.nn.VGG(arch), mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
    net = model.module.eval()
    grid, fill = sl.ShiftGrid(32), sl.Fill.parse("black")
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, 2)
    log(f"{arch}: choosing the plan")
    with roomy_heap(torch.device("cpu")):
        plan = make_plan(model, pictures, grid, fill, n_images=10_000)
    evaluator = prepare(model, plan, grid, fill)
    evaluator(pictures[:1], labels[:1])
    rates: dict[str, list[float]] = {f"naive, batch {b}": [] for b in NAIVE_BATCHES} | {"direct": []}
    for repeat in range(repeats):
        for batch in NAIVE_BATCHES:
            x = torch.from_numpy(rng.standard_normal((batch, 3, 32, 32), dtype=np.float32))
            y = torch.from_numpy(rng.integers(0, 10, batch))
            shifts = [(int(a), int(b)) for a, b in rng.integers(-32, 33, (max(1, n_naive // batch), 2))]
            taken = seconds_of(lambda x=x, y=y, shifts=shifts: naive(net, x, y, shifts))
            rates[f"naive, batch {batch}"].append(batch * len(shifts) / taken)
        with roomy_heap(torch.device("cpu")):
            taken = seconds_of(lambda: evaluator(pictures, labels))
        rates["direct"].append(len(pictures) * grid.n_shifts / taken)
        log(f"{arch}: repeat {repeat + 1} of {repeats}: " + ", ".join(f"{k} {v[-1]:.0f}/s" for k, v in rates.items()))
    best = max(NAIVE_BATCHES, key=lambda b: statistics.median(rates[f"naive, batch {b}"]))
    ratios = [d / n for d, n in zip(rates["direct"], rates[f"naive, batch {best}"], strict=True)]
    return {
        "multiply_adds": model.n_macs,
        "plan": json.loads(plan.to_json()),
        "evaluations_per_second": {name: spread(values) for name, values in rates.items()},
        "naive_best_batch": best,
        "direct_over_naive": spread(ratios),
        "direct_tflops": 2 * (model.n_macs or 0) * statistics.median(rates["direct"]) / 1e12,
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
    from shiftlens.sweeps.runner import run_sweep

    _, stats = run_sweep(model, images, sl.ShiftGrid(32, 16), out=Path(out))
    parameters = 4 * model.n_parameters
    print(json.dumps({"n_images": n, "peak_memory_bytes": stats.peak_memory_bytes, "model_bytes": parameters}))


def machine() -> dict[str, Any]:
    name = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return {
        "processor": name,
        "vector_unit": torch.backends.cpu.get_cpu_capability(),
        "matrix_unit": bool(torch.cpu._is_amx_tile_supported()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
    }


def table(result: dict[str, Any]) -> str:
    m = result["machine"]
    lines = [
        "# Rates of a sweep",
        "",
        f"`{result['command']}` on {m['cores']} cores {m['processor']} ({m['vector_unit']}, "
        f"{'with' if m['matrix_unit'] else 'without'} matrix unit), torch {m['torch']}, Python {m['python']}; "
        f"{result['repeats']} repeats, median (least to most). "
        f"Best dense bfloat16 convolution: {result['best_convolution_tflops']:.2f} TFLOP/s.",
        "",
        "| net | path | images x shifts per second | against the naive loop at its best batch |",
        "|---|---|---|---|",
    ]
    for arch, row in result["nets"].items():
        for name, rate in row["evaluations_per_second"].items():
            ratio = row["direct_over_naive"]
            note = f"**{ratio['median']:.2f}** ({ratio['min']:.2f} to {ratio['max']:.2f})" if name == "direct" else ""
            lines.append(
                f"| {arch} | {name} | {rate['median']:,.0f} ({rate['min']:,.0f} to {rate['max']:,.0f}) | {note} |"
            )
    lines += ["", "Plans: " + "; ".join(f"{a}: `{json.dumps(r['plan'])}`" for a, r in result["nets"].items()), ""]
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
    result: dict[str, Any] = {
        "kind": "benchmark",
        "schema_version": 1,
        "command": "python benchmarks/sweep.py",
        "repeats": args.repeats,
        "machine": machine(),
        "best_convolution_tflops": best_convolution(),
        "nets": {arch: measure(arch, args.repeats, args.naive_evaluations, log) for arch in args.nets},
    }
    with tempfile.TemporaryDirectory() as directory:
        result["memory"] = memory(args.limits, log, Path(directory))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
