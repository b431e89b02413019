"""`predict_tiled` on a large Zarr image: peak memory, seconds, and the multiply-adds that it says it costs.

    python benchmarks/tiles.py --side 20000 --tile 1024 --out docs/benchmarks/tiles.json

Each side runs in a process of its own, whose memory before the call (imports, net) is told apart. The image is made of
random pixels chunk by chunk, the output goes to a new Zarr array: nothing else of the image's size exists. What the
first, small side needs is what a tile needs; a larger image must not need more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

import shiftlens as sl
from header import header
from shiftlens.nn.unet import UNet
from shiftlens.sweeps.progress import peak_memory_bytes
from shiftlens.tiles.tile_fitting import fit_tiles

CHUNK = 1024


def net_of(name: str) -> torch.nn.Module:
    """A U-Net of the package, or two convolutions around a pool for large sides in little time."""
    torch.manual_seed(0)
    if name == "unet":
        return UNet(width=4, n_classes=2).eval()
    first, second = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 1, 3, padding=1)
    return torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.MaxPool2d(2), second).eval()


def make_image(path: Path, side: int) -> None:
    """Random pixels, a chunk at a time."""
    random = np.random.default_rng(0)
    image = zarr.create_array(path, shape=(1, side, side), chunks=(1, CHUNK, CHUNK), dtype=np.uint8, compressors=None)
    for y in range(0, side, CHUNK):
        for x in range(0, side, CHUNK):
            h, w = min(CHUNK, side - y), min(CHUNK, side - x)
            image[:, y : y + h, x : x + w] = random.integers(0, 256, (1, h, w), dtype=np.uint8)


def measure(name: str, side: int, tile: int, folder: Path) -> dict[str, Any]:
    """One image in this process."""
    make_image(folder / "image.zarr", side)
    model = sl.wrap(net_of(name), mean=0.5, std=0.25)
    layout = fit_tiles(model, side, tile).layout
    before, start = peak_memory_bytes(), time.perf_counter()
    sl.predict_tiled(model, folder / "image.zarr", tile=tile, out=folder / "out.zarr", quiet=True)
    return {
        "side": side,
        "tiles": len(layout),
        "overhead": round(layout.overhead, 4),
        "image_bytes": side * side,
        "peak_bytes_before": before,
        "peak_bytes": peak_memory_bytes(),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=("small", "unet"), default="small")
    parser.add_argument("--side", type=int, nargs="+", default=[2048, 20_000])
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/tiles.json"))
    parser.add_argument("--here", type=Path, help="measure the first side in this process, in this folder")
    args = parser.parse_args()
    if args.here is not None:
        print(json.dumps(measure(args.net, args.side[0], args.tile, args.here)))
        return
    runs = []
    for side in args.side:
        with tempfile.TemporaryDirectory(dir=args.out.parent) as folder:
            command = [sys.executable, __file__, "--net", args.net, "--side", str(side), "--tile", str(args.tile)]
            done = subprocess.run([*command, "--here", folder], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
        print(json.dumps(runs[-1]))
    report = header(net=args.net, tile=args.tile, runs=runs)
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
