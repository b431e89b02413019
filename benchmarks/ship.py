"""Make shipped weights of a training run: float16, measured as they are shipped, with a card.

    python benchmarks/ship.py runs/seed0 vgg-cifar10 --command "python benchmarks/training.py --seed 0 --out runs/seed0"

Writes `src/shiftlens/weights/NAME/`: a run directory like any other, and CARD.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import shiftlens as sl
from shiftlens.models.loading import SHIPPED, Model
from shiftlens.models.runs import save_run

MOST_BYTES = 10_000_000

CARD = """# {title}

| | |
|---|---|
| Net | `{arch}`, {parameters:,} parameters, stored as float16 ({megabytes:.1f} MB) |
| Accuracy | **{accuracy:.2f} %** [{low:.2f}, {high:.2f}] (95 %, Wilson), the weights as shipped, one forward pass |
| Measured on | the {n:,} test images of {data} |
| Trained on | {trained_on} |
| Recipe | `docs/training.md`; {epochs} epochs, {steps:,} steps of {batch} images |
| Shown besides | shifted crops of up to {crop} px (edges reflected), mirrored pictures: {mirror} |
| Command | `{command}` |
| Made with | torch {torch}, {machine} |
| Digest | `{digest}` |

## What it is for

Trying shiftlens, its tutorials and its tests; a reference case whose blind spots, borders and repairs are described in
the documentation.

## What it must not be used for

Recognising anything that matters. It knows ten classes of 32 x 32 pictures and always names one of them; it can be
certain of nonsense; nobody looked for bias in its training images. Its accuracy is no benchmark result: it is measured
on {data}.
Its behaviour under shifts is that of one training run, not of the architecture: other seeds differ.
"""


def card(name: str, model: Model, accuracy: Any, facts: dict[str, Any], command: str, size: int) -> str:
    """The model card as Markdown."""
    training = facts["training"]
    schedule, machine = training["schedule"], training["machines"][0]
    return CARD.format(
        title=f"pretrained:{name}",
        arch=training["asked"]["settings"]["arch"],
        parameters=model.n_parameters,
        megabytes=size / 1e6,
        accuracy=100 * accuracy.accuracy,
        low=100 * accuracy.accuracy_interval[0],
        high=100 * accuracy.accuracy_interval[1],
        n=accuracy.n,
        data=facts["data"],
        trained_on=facts["trained_on"],
        epochs=len(training["epochs"]),
        steps=schedule["n_steps"],
        batch=schedule["batch"],
        crop=training["augmentation"]["shift"],
        mirror=training["augmentation"]["mirror"],
        command=command,
        torch=machine["torch"],
        machine=machine["machine"],
        digest=model.digest,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--command", required=True, help="what made the run")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--called", help="the test images in words")
    parser.add_argument("--trained-on", required=True, help="the training images in words")
    args = parser.parse_args()
    stored = json.loads((args.run / "model.json").read_text())
    trained = sl.load_model(str(args.run))
    test = sl.load_images(args.data, split="test", data_root=args.data_root)
    before = sl.evaluate(trained, test)
    target = SHIPPED / args.name
    facts = {
        "build": stored["build"],
        "preprocessing": trained.preprocessing,
        "class_names": trained.class_names,
        "training": stored["training"],
    }
    save_run(target, trained.module.half(), **facts, metrics=stored["metrics"])  # type: ignore[union-attr]
    shipped = sl.load_model(f"pretrained:{args.name}")
    after = sl.evaluate(shipped, test)
    size = (target / "model.safetensors").stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{size:,} bytes are too many to ship (at most {MOST_BYTES:,})")
    words = {"data": args.called or args.data, "trained_on": args.trained_on, "training": stored["training"]}
    (target / "CARD.md").write_text(card(args.name, shipped, after, words, args.command, size))
    print(f"float32 {100 * before.accuracy:.2f} %, as shipped {100 * after.accuracy:.2f} %, {size:,} bytes: {target}")


if __name__ == "__main__":
    main()
