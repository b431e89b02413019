"""A report of a full sweep: seconds, memory, size, and how fast headless Chromium opens it.

    python benchmarks/report.py --sweep vgg.zarr --images 10000 --repeats 3 --out docs/benchmarks/report.json

The images of a real sweep are repeated until there are as many as asked for, with the controls it has and without: what
takes time is their number. `shiftlens report` runs as a command of its own, imports and all; the browser opens each
page from disk, five times, until all of it is drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

import shiftlens as sl
from header import header
from shiftlens.sweeps.sweep_store import SweepStore

CHUNK = 250
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def enlarged(source: Path, n: int, out: Path, *, controls: bool) -> None:
    """A sweep of `n` images made of the images of another, over and over, as if it had been measured."""
    small = SweepStore(source)
    times = np.arange(n) % small.main.n_images
    names = small.controls if controls else ()
    about = small.main.header.model_copy(update={"data": f"{small.main.header.data}, repeated"})
    labels, _ = small.main.everyone
    large = SweepStore.create(out, about, labels[times], np.arange(n), chunk_size=CHUNK, controls=names)
    for control in (None, *names):
        read, group = small.group(control), large.group(control)
        arrays = {name: read.array(name) for name in read.measured[:-1]}
        for chunk in range(group.n_chunks):
            span = group.span(chunk)
            # Runs of neighbours: one read each.
            pieces = np.split(times[span], np.flatnonzero(np.diff(times[span]) != 1) + 1)
            group.write(
                chunk,
                {
                    name: np.concatenate([array[int(p[0]) : int(p[-1]) + 1] for p in pieces])
                    for name, array in arrays.items()
                },
            )
        group.finish()


def built(sweep: Path, page: Path) -> tuple[float, int]:
    """Seconds and peak bytes of the whole command."""
    command = [sys.executable, "-m", "shiftlens", "report", str(sweep), "--out", str(page), "--quiet"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def opened(page: Path, repeats: int) -> list[float]:
    """Seconds from the address to the last picture, in a browser that is already there."""
    chromium = next(found for name in NAMES if (found := shutil.which(name)))
    seconds = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=list(FLAGS))
        for _ in range(repeats):
            tab = browser.new_page()
            start = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-ready=yes]", state="attached")
            seconds.append(time.perf_counter() - start)
            tab.close()
        browser.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("report-work"))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/report.json"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for kind in ("without controls", "with controls"):
        place = args.work / f"{kind.replace(' ', '-')}-{args.images}.zarr"
        if not (place.exists() and sl.open_sweep(place).complete):
            shutil.rmtree(place, ignore_errors=True)
            enlarged(args.sweep, args.images, place, controls=kind == "with controls")
        page = (args.work / f"{place.stem}.html").resolve()
        runs = [built(place, page) for _ in range(args.repeats)]
        found[kind] = {
            "controls": list(SweepStore(place).controls),
            "seconds": [seconds for seconds, _ in runs],
            "seconds_median": statistics.median(seconds for seconds, _ in runs),
            "peak_memory_bytes": max(peak for _, peak in runs),
            "page_bytes": page.stat().st_size,
            "opens_in_seconds": opened(page, 5),
        }
        print(json.dumps({kind: found[kind]}), file=sys.stderr, flush=True)
    result = header() | {"n_images": args.images, "n_shifts": sl.open_sweep(args.sweep).header.grid.n_shifts} | found
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
