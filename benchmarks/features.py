"""Average feature maps over many images: seconds, memory, and what watching costs over the plain forward pass.

    python benchmarks/features.py --images 10000 --repeats 5 --out docs/benchmarks/features.json

Plain pass and averages take turns in one process, in the same batches, layout and heap, so the ratio holds when the
machine's speed drifts. Weights and pictures are random: neither matters here. Imports are not in the seconds; what they
take of the memory is told apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

import shiftlens as sl
from header import header
from shiftlens.devices import roomy_heap
from shiftlens.lens.feature_maps import MAX_PIXELS
from shiftlens.sweeps.progress import peak_memory_bytes


def plain(model: sl.Model, images: sl.ImageSet) -> None:
    """Every image once through the net, as `features` does it, with nobody watching."""
    batch = MAX_PIXELS // 32**2
    assert isinstance(model.module, torch.nn.Module)
    with torch.no_grad(), roomy_heap(torch.device("cpu")):
        for start in range(0, len(images), batch):
            pixels = torch.from_numpy(images.batch(range(start, min(start + batch, len(images)))))
            model.module(model.preprocessing.normalise(pixels).contiguous(memory_format=torch.channels_last))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="vgg8")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/features.json"))
    args = parser.parse_args()
    torch.manual_seed(0)
    model = sl.wrap(sl.nn.VGG(args.net), mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (args.images, 3, 32, 32), dtype=np.uint8)
    images = sl.ImageSet(pictures, random.integers(0, 10, args.images))
    before = peak_memory_bytes()
    seconds: dict[str, list[float]] = {"plain": [], "averages": []}
    peak = 0
    for repeat in range(args.repeats):
        for kind in ("plain", "averages") if repeat % 2 else ("averages", "plain"):
            start = time.perf_counter()
            if kind == "plain":
                plain(model, images)
            else:
                sl.features(model, average=images, controls=())
            seconds[kind].append(time.perf_counter() - start)
            if kind == "averages" and not peak:
                peak = peak_memory_bytes()  # before anything else has left its mark on it
    ratios = [a / b for a, b in zip(seconds["averages"], seconds["plain"], strict=True)]
    result = header() | {
        "net": args.net,
        "n_images": args.images,
        "seconds": seconds,
        "medians": {kind: statistics.median(values) for kind, values in seconds.items()},
        "averages_over_plain": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "peak_before_bytes": before,
        "peak_memory_bytes": peak,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
