"""Make `pretrained:unet-digits` and `pretrained:detector-digits`: train, round to float16, measure, write the card.

    python benchmarks/shipped_scenes.py --net unet --out runs/unet-digits

The folder `--out/shipped` is what is shipped under `src/shiftlens/weights/`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from shiftlens.cli.console import Shell
from shiftlens.data.images import load_images
from shiftlens.models.loading import load_model
from shiftlens.models.runs import save_run
from shiftlens.models.runspec import MODEL_JSON, WEIGHTS, read_spec
from shiftlens.training.scene_nets import NETS, measure_on_scenes, train_on_scenes
from shiftlens.training.scene_scores import scores_text

WHAT = {
    "unet": ("U-Net of four levels", "segmentation: classes of pixels, 0 for background, digit + 1", "segmentation"),
    "detector": ("detector of centre points with stride 4", "detection: boxes of digits with their class", "detection"),
}

CARD = """# pretrained:{name}

| | |
|---|---|
| Net | {kind}, {n_weights:,} parameters, stored as float16 ({size:.2f} MB) |
| Task | {task} |
| Accuracy | {scores} (95 %, bootstrap over scenes), the weights as shipped, unshifted |
| Measured on | the {n_test} test scenes of `digits-scenes`, 96 x 96 pixels: digits that no training scene shows |
| Trained on | the {n_train:,} train scenes, neither mirrored nor shifted: digits are everywhere already |
| Recipe | AdamW with a cosine, {n_steps:,} steps of 16 scenes, `src/shiftlens/training/scene_nets.py` |
| Command | `python benchmarks/shipped_scenes.py --net {net} --seed {seed} --out runs/{net}-digits` |
| Made with | torch {torch}, {machine}, {threads} thread(s), {dtype} |
| Digest | `{digest}` |

## What it is for

Trying `shiftlens sweep --task {task_name}`, its tutorials and its tests: a net that is small enough for a laptop.

    shiftlens sweep --model pretrained:{name} --data digits-scenes --task {task_name} --limit 50 --out {net}.zarr

## What it must not be used for

Reading digits that matter. It knows scikit-learn's handwritten digits, 14 to 24 pixels large, bright on dark, apart
from each other; nothing else. The recipe was tried out on some of the same test scenes beforehand, so the scores may be
slightly too good. Its behaviour under shifts is that of one training run, not of the architecture: other seeds
differ.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", required=True, choices=tuple(NETS))
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    with Shell().progress("training", "steps") as report:
        trained = train_on_scenes(args.net, out=args.out, seed=args.seed, n_steps=args.steps, progress=report)
    spec, model = read_spec(trained.out), load_model(trained.out, device="cpu")
    test = load_images("digits-scenes", split="test")
    shipped = args.out / "shipped"
    rounded = model.module.half()  # type: ignore[union-attr]
    metrics = measure_on_scenes(args.net, rounded.float(), model.preprocessing, test)
    save_run(
        shipped,
        rounded.half(),
        build=spec.build.model_dump(),
        preprocessing=model.preprocessing,
        training=spec.training,
        metrics=metrics,
    )
    again = load_model(shipped, device="cpu")
    machine = spec.training["machines"][0]  # type: ignore[index, call-overload]
    kind, task, task_name = WHAT[args.net]
    card = CARD.format(
        name=f"{args.net}-digits",
        net=args.net,
        kind=kind,
        task=task,
        task_name=task_name,
        n_weights=sum(parameter.numel() for parameter in again.module.parameters()),  # type: ignore[union-attr]
        size=sum((shipped / file).stat().st_size for file in (WEIGHTS, MODEL_JSON)) / 1e6,
        scores=scores_text(metrics, NETS[args.net].scores),
        n_test=metrics["n_validation"],
        n_train=len(load_images("digits-scenes", split="train")),
        n_steps=trained.n_steps,
        seed=args.seed,
        **machine,  # type: ignore[arg-type]
        dtype=spec.training["dtype"],
        digest=again.digest,
    )
    (shipped / "CARD.md").write_text(card, encoding="utf-8")
    print(json.dumps({**trained.to_dict(), "shipped": metrics, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
