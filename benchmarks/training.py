"""One training run of the recipe with some numbers changed: a row of the tables in docs/benchmarks/training.md.

    python benchmarks/training.py --holdout --seed 0 --set lr=0.12 --out runs/lr-0.12-0

With `--holdout` it trains on all but the last 4,000 images of the fixed stratified order of the training split and is
measured on those: choices are made here. Without, it trains on the whole split and looks at the test images once, after
the last epoch. Stopped anywhere, the same command goes on. One line of JSON at the end.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import sys
import time
from pathlib import Path

from shiftlens.cli.console import Shell
from shiftlens.data.images import load_images
from shiftlens.data.selection import stratified_order
from shiftlens.training import Recipe, Stage, TrainSettings, train

N_HELD_OUT = 4000


def changes(pairs: list[str]) -> dict[str, object]:
    """`name=value` pairs as keyword arguments of `Recipe`."""
    changed: dict[str, object] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            value: object = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            value = text
        changed[name] = tuple(Stage(*stage) for stage in value) if name == "stages" else value  # type: ignore[attr-defined]
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--arch", default="vgg8")
    parser.add_argument("--padding", default="zeros")
    parser.add_argument("--downsample", default="max")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--holdout", action="store_true")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="numbers of the recipe")
    args = parser.parse_args()
    images = load_images(args.data, split="train", data_root=args.data_root, limit=args.limit)
    if args.holdout:
        order = stratified_order(images.labels, images.index)
        images, validation = images.subset(order[:-N_HELD_OUT]), images.subset(order[-N_HELD_OUT:])
    else:
        validation = load_images(args.data, split="test", data_root=args.data_root)
    settings = TrainSettings(
        arch=args.arch,
        padding=args.padding,
        downsample=args.downsample,
        width=args.width,
        epochs=args.epochs,
        minutes=args.minutes,
        # A look at the test images after every epoch would be many looks.
        glance=1000 if args.holdout else 0,
        recipe=dataclasses.replace(Recipe(), **changes(args.set)),  # type: ignore[arg-type]
    )
    started = time.perf_counter()
    with Shell().progress("training", "steps") as report:
        result = train(images, validation, out=args.out, seed=args.seed, settings=settings, progress=report)
    row = result.to_dict() | {
        "seconds": round(time.perf_counter() - started, 1),
        "changed": args.set,
        "seed": args.seed,
    }
    print(json.dumps(row))
    print("\n".join(result.lines()), file=sys.stderr)


if __name__ == "__main__":
    main()
