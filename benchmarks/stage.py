"""Bytes that the stage of a report takes, part by part, where two sweeps are under one drag.

    python benchmarks/stage.py vgg.zarr repaired.zarr --data cifar10 --out docs/benchmarks/stage.json

Numbers are kept as they are displayed, in three digits. Bytes are those of the JSON in the page; `of_60` is what 60
images would take at the same rate.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import shiftlens as sl
from header import header
from shiftlens.reporting.stage_part import stage_part
from shiftlens.reporting.thumbnails import Source

MOST = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", type=Path, nargs=2)
    parser.add_argument("--data")
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/stage.json"))
    args = parser.parse_args()
    sweeps = [sl.open_sweep(path) for path in args.sweeps]
    part = stage_part(sweeps, [path.stem for path in args.sweeps], Source(args.data, args.data_root))
    if part is None:
        raise SystemExit("these sweeps have no stage: are their images at hand (--data)?")
    sizes = {key: len(json.dumps(value)) for key, value in part.data.items() if key != "models"}
    for model in part.data["models"]:
        sizes |= {f"{model['name']}: {key}": len(json.dumps(value)) for key, value in model.items()}
    whole, n = len(json.dumps(part.data)), part.view["n"]
    made = {"data": sweeps[0].header.data, "models": [each.header.model for each in sweeps]}
    result = header() | made | {"n_images": n, "n_shifts": sweeps[0].grid.n_shifts, "kind": part.data["kind"]}
    result |= {"bytes": whole, "of_60": round(whole / n * MOST), "parts": sizes}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in ("n_images", "bytes", "of_60")}))


if __name__ == "__main__":
    main()
