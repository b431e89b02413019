"""What a sweep of a segmenter, detector or dense net costs beside its forward passes, and how much memory it takes.

    python benchmarks/tasks.py --out docs/benchmarks/tasks.json

Run it on a machine that does nothing else (about 15 minutes on two cores). It writes after every step; the same command
goes on where it was stopped, and measures nothing again.

Cost is processor time, not wall time. Of each net two sweeps are made in turn, one of twice as many images; the
difference is what the further images cost (outcomes, matching, checks, writing), without what a sweep does once. It is
compared with the forward passes of as many windows, in batches of the same size and by the same prepared net. `outcome`
is the task's part of a batch alone. Memory is the highest resident set of a process that makes one sweep, of few and of
four times as many images, and of four times as many shifts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shiftlens as sl
from header import header, machine, of_machine
from shiftlens.data.imageset import ImageSet
from shiftlens.engine.direct import prepare_module
from shiftlens.models.adapting import adapted
from shiftlens.models.loading import Model
from shiftlens.models.matching import targets_for
from shiftlens.sweeping import run_sweep
from shiftlens.sweeps import request
from shiftlens.sweeps.request import targets_of
from shiftlens.tasks.stored_form import known_task

CASES = {"unet": "segmentation", "unet-dense": "dense", "detector": "detection", "deeplab": "segmentation"}
"""By name of a case, the task of its net."""
GOALS = {"unet": 1.25, "unet-dense": 1.25, "detector": 1.25, "deeplab": 1.10}
BATCH = 16
GRID = sl.ShiftGrid(16, 4)  # no window is blank


def case(name: str, n_images: int) -> tuple[Model, ImageSet]:
    if name != "deeplab":
        net = name.removesuffix("-dense")
        return sl.load_model(f"pretrained:{net}-digits"), sl.load_images("digits-scenes", limit=n_images)
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    torch.manual_seed(0)  # random weights, 21 classes, photographs' size
    net = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (n_images, 3, 224, 224), dtype=np.uint8)
    masks = draw.integers(0, 21, (n_images, 28, 28), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    model = sl.wrap(net, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, name="deeplab")
    return model, ImageSet(pixels, masks, name="noise")


def processor_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def n_images(name: str, asked: argparse.Namespace) -> int:
    return int(asked.images if name != "deeplab" else max(2, asked.images // 4))


def options(name: str) -> dict[str, Any]:
    return {"task": CASES[name], "engine": "direct", "dtype": "float32", "batch_size": BATCH}


def cost(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the further images of a sweep, and of their forward passes."""
    n = n_images(name, asked)
    model, images = case(name, 2 * n)
    few = images.subset(np.arange(n))
    request.CHUNK_EVALUATIONS = n * GRID.n_shifts
    with tempfile.TemporaryDirectory() as folder:
        plan = sl.sweep(model, few, GRID, out=f"{folder}/first.zarr", **options(name)).header.plan
        once, twice = (
            processor_seconds(
                lambda some=some: sl.sweep(model, some, GRID, out=f"{folder}/{len(some)}.zarr", **options(name))
            )
            for some in (few, images)
        )
    net = prepare_module(model, plan)
    x = model.preprocessing.normalise(torch.from_numpy(few.batch(slice(0, n))))
    windows = torch.stack([sl.translate(x, dx, dy) for dy in GRID.dys.tolist() for dx in GRID.dxs.tolist()], 1)
    windows = windows.flatten(0, 1)
    if plan.channels_last:
        windows = windows.contiguous(memory_format=torch.channels_last)

    def passes() -> None:
        with torch.no_grad():
            for start in range(0, len(windows), BATCH):
                net(windows[start : start + BATCH])

    forward = processor_seconds(passes)
    return {
        "n_windows": n * GRID.n_shifts,
        "size": list(images.size or (0, 0)),
        "sweep_seconds": twice - once,
        "forward_seconds": forward,
        "ratio": (twice - once) / forward,
    }


def outcome(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of a batch's forward pass, and of what the task makes of its outputs."""
    model, images = case(name, 4)
    size, task = images.size or (0, 0), known_task(CASES[name])
    images = targets_for(model, images, task.uses)
    rows, task = adapted(model, task, size)
    x = model.preprocessing.normalise(torch.from_numpy(images.batch(slice(0, 4))))
    image = torch.arange(BATCH) % 4
    shifts = torch.tensor([(dx, dy) for dy in GRID.dys.tolist() for dx in GRID.dxs.tolist()])[:BATCH]
    windows = torch.cat(
        [sl.translate(x[k : k + 1], dx, dy) for k, (dx, dy) in zip(image.tolist(), shifts.tolist(), strict=True)]
    )
    forwards, outcomes = [], []
    with rows.evaluating(), torch.no_grad():
        state = task.prepare(rows.module(x), torch.from_numpy(np.array(targets_of(images, task, slice(0, 4)))))
        mine = {key: values[image] for key, values in state.items()}
        outputs = rows.module(windows)
        for _ in range(5):
            forwards.append(processor_seconds(lambda: rows.module(windows)))
            outcomes.append(processor_seconds(lambda: task.outcome(outputs, shifts, mine)))
    forward, made = statistics.median(forwards), statistics.median(outcomes)
    return {"batch": BATCH, "forward_seconds": forward, "outcome_seconds": made, "share": made / forward}


def memory(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Highest resident set in bytes of a sweep in a process of its own: of some, of more images, of more shifts."""
    n = n_images(name, asked)
    peaks = {}
    for what, images, step in (("some", n, 4), ("four_times_the_images", 4 * n, 4), ("four_times_the_shifts", n, 2)):
        words = [sys.executable, __file__, "--child", name, str(images), str(step)]
        peaks[what] = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])
    return {"n_images": n, "peak_bytes": peaks}


def child(name: str, n: int, step: int) -> None:
    """One sweep in this process; prints its highest resident set in bytes."""
    torch.set_num_threads(1)
    model, images = case(name, n)
    with tempfile.TemporaryDirectory() as folder:
        grid = sl.ShiftGrid(16, step)
        print(run_sweep(model, images, grid, out=f"{folder}/s.zarr", **options(name))[1].peak_memory_bytes)


def summary(steps: dict[str, Any], repeats: int) -> list[str]:
    """A row of the table for each case that is complete."""
    lines = [
        "| net | task | windows | times the forward passes (repeats) | goal | outcome | memory (x4 images, x4 shifts) |"
    ]
    for name, task in CASES.items():
        found = [steps[f"{name} cost {k}"] for k in range(repeats) if f"{name} cost {k}" in steps]
        if len(found) == repeats and f"{name} outcome" in steps and f"{name} memory" in steps:
            ratios = sorted(each["ratio"] for each in found)
            peaks = ", ".join(f"{value / 1e6:,.0f}" for value in steps[f"{name} memory"]["peak_bytes"].values())
            lines.append(
                f"| {name} | {task} | {found[0]['n_windows']} | {statistics.median(ratios):.2f} ({ratios[0]:.2f} to "
                f"{ratios[-1]:.2f}, {repeats}) | {GOALS[name]} | {100 * steps[f'{name} outcome']['share']:.1f} % | "
                f"{peaks} MB |"
            )
    return lines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--nets", nargs="+", default=list(CASES), choices=list(CASES))
    arguments.add_argument("--images", type=int, default=8, help="of deeplab a quarter")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--out", type=Path, help="JSON that is written after each step, and gone on with")
    arguments.add_argument("--child", nargs=3, metavar=("NET", "IMAGES", "STEP"), help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.child:
        return child(asked.child[0], *map(int, asked.child[1:]))
    torch.set_num_threads(1)
    steps: dict[str, Any] = {}
    setting = {"images": asked.images, "batch_size": BATCH}
    if asked.out is not None and asked.out.exists():
        stored = json.loads(asked.out.read_text())
        if stored["machine"] != machine() or stored["setting"] != setting:
            sys.exit(f"{asked.out} is of another machine, version or setting: choose another file, or remove it")
        steps = stored["steps"]
    kinds = [*((f"cost {k}", cost) for k in range(asked.repeats)), ("outcome", outcome), ("memory", memory)]
    for name in asked.nets:
        for what, measure in kinds:
            if f"{name} {what}" in steps:
                continue
            steps[f"{name} {what}"] = found = measure(name, asked)
            print(f"{name} {what}: {found}", flush=True)
            if asked.out is not None:
                made = header(setting=setting, goals=GOALS, tasks=CASES, steps=steps)
                asked.out.write_text(json.dumps(made, indent=1) + "\n")
    print(of_machine(machine()), *summary(steps, asked.repeats), sep="\n")
    return None


if __name__ == "__main__":
    main()
