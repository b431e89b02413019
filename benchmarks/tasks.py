"""What a sweep of a segmenter or detector costs beside its forward passes: outcomes, matching, writing.

    python benchmarks/tasks.py --nets unet detector deeplab --repeats 3 --out docs/benchmarks/tasks.json

Processor time, not wall time, so that a busy machine changes little. Of each net, two sweeps are made in turn, one of
twice as many images; the difference is what the further images cost, without what a sweep does once. The forward passes
of as many windows, in batches of the same size and by the same prepared net, are what it is compared with.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shiftlens as sl
from header import header, of_machine
from shiftlens.engine.direct import prepare_module
from shiftlens.models.loading import Model
from shiftlens.sweeps import request

GOALS = {"unet": 1.25, "detector": 1.25, "deeplab": 1.10}


def deeplab(n_images: int) -> tuple[Model, sl.ImageSet, str]:
    """Random weights, 21 classes, photographs' size."""
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    torch.manual_seed(0)
    net = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (n_images, 3, 224, 224), dtype=np.uint8)
    masks = draw.integers(0, 21, (n_images, 28, 28), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    model = sl.wrap(net, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, name="deeplab")
    return model, sl.ImageSet(pixels, masks, name="noise"), "segmentation"


def case(name: str, n_images: int) -> tuple[Model, sl.ImageSet, str]:
    if name == "deeplab":
        return deeplab(n_images)
    images = sl.load_images("digits-scenes", limit=n_images)
    return sl.load_model(f"pretrained:{name}-digits"), images, "detection" if name == "detector" else "segmentation"


def processor_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measured(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    n = asked.images if name != "deeplab" else max(2, asked.images // 4)
    model, images, task = case(name, 2 * n)
    grid = sl.ShiftGrid(16, 4)  # no window is blank
    options: dict[str, Any] = {"task": task, "engine": "direct", "dtype": "float32", "batch_size": asked.batch_size}
    request.CHUNK_EVALUATIONS = n * grid.n_shifts
    h, w = images.size or (0, 0)
    ratios, forwards, sweeps = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        few = images.subset(np.arange(n))
        plan = sl.sweep(model, few, grid, out=f"{folder}/first.zarr", **options).header.plan
        net = prepare_module(model, plan)
        x = model.preprocessing.normalise(torch.from_numpy(few.batch(slice(0, n))))
        shifted = [sl.translate(x, dx, dy) for dy in grid.dys.tolist() for dx in grid.dxs.tolist()]
        windows = torch.stack(shifted, 1).flatten(0, 1)
        if plan.channels_last:
            windows = windows.contiguous(memory_format=torch.channels_last)

        def passes() -> None:
            with torch.no_grad():
                for start in range(0, len(windows), asked.batch_size):
                    net(windows[start : start + asked.batch_size])

        for k in range(asked.repeats):
            once, twice = (
                processor_seconds(
                    lambda k=k, some=some: sl.sweep(  # type: ignore[misc]
                        model, some, grid, out=f"{folder}/{k}-{len(some)}.zarr", **options
                    )
                )
                for some in (few, images)
            )
            forward = processor_seconds(passes)
            forwards.append(forward)
            sweeps.append(twice - once)
            ratios.append((twice - once) / forward)
    return {
        "net": name,
        "task": task,
        "size": [h, w],
        "n_windows": n * grid.n_shifts,
        "batch_size": asked.batch_size,
        "forward_seconds": forwards,
        "sweep_seconds": sweeps,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "goal": GOALS[name],
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--nets", nargs="+", default=list(GOALS), choices=list(GOALS))
    arguments.add_argument("--images", type=int, default=8, help="of deeplab a quarter")
    arguments.add_argument("--batch-size", type=int, default=16)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--out", type=Path)
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    found = []
    for name in asked.nets:
        row = measured(name, asked)
        found.append(row)
        print(
            f"{name}: {row['ratio']:.3f} times the forward passes ({min(row['ratios']):.3f} to "
            f"{max(row['ratios']):.3f}), goal {row['goal']}"
        )
    result = header(nets=found)
    print(of_machine(result["machine"]))
    if asked.out is not None:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
