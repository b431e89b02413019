"""What replacing instance norm by batch renorm does to a trained U-Net: its seams, and its answers on whole images.

    python benchmarks/norm_repair.py --out docs/benchmarks/norm_repair.json --seeds 3

For each seed: a U-Net with instance norm learns `digits-scenes` (the recipe of `shiftlens train-scenes`); its norms
become batch renorm; their statistics are measured; the copy learns the original's output for whole images, without
labels. Whole images are 3x3 scenes side by side, 288x288: train scenes to learn from, test scenes to measure on. Seeds
that the file already holds are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import shiftlens as sl
from header import header
from shiftlens import surgery
from shiftlens.nn.unet import UNet
from shiftlens.training.machine import tuned
from shiftlens.training.scene_nets import NETS, SceneRecipe, _learn
from shiftlens.training.scene_scores import segmentation_scores, with_intervals

SIDE, TILE, N_TEST, N_TRAIN = 3, 64, 12, 40


def whole_images(split: str, n: int) -> tuple[sl.ImageSet, np.ndarray[Any, np.dtype[np.int64]]]:
    """Scenes side by side, and their masks."""
    source = sl.load_images("digits-scenes", split=split, limit=SIDE**2 * n)
    assert source.targets is not None
    assert source.targets.masks is not None
    assert len(source) == SIDE**2 * n
    pixels = source.batch(range(len(source)))[:, 0]
    made = [
        each.reshape(n, SIDE, SIDE, 96, 96).transpose(0, 1, 3, 2, 4).reshape(n, SIDE * 96, SIDE * 96)
        for each in (pixels, np.asarray(source.targets.masks))
    ]
    return sl.ImageSet(made[0][:, None], [0] * n, name=f"digits-scenes {split}, 3x3"), made[1].astype(np.int64)


def with_instance_norm(net: nn.Module) -> None:
    for part in list(net.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(part, name, nn.InstanceNorm2d(child.num_features, affine=True))


def trained(seed: int, n_steps: int) -> sl.Model:
    kind = NETS["unet"]
    with tuned(torch.device("cpu")), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = UNet()
        with_instance_norm(net)
        preprocessing = _learn(net, kind, sl.load_images("digits-scenes"), SceneRecipe(n_steps), seed, None)
    (mean,), (std,) = preprocessing.mean, preprocessing.std
    return sl.wrap(net.eval(), mean=mean, std=std, name=f"U-Net with instance norm, seed {seed}")


def answers(model: sl.Model, images: sl.ImageSet) -> torch.Tensor:
    with torch.no_grad(), model.evaluating():
        x = model.preprocessing.normalise(torch.from_numpy(images.batch(range(len(images)))))
        return torch.cat([model.module(each) for each in x.split(2)])


def state_of(
    model: sl.Model, original: torch.Tensor, images: sl.ImageSet, masks: np.ndarray[Any, np.dtype[np.int64]]
) -> dict[str, Any]:
    """Its seams by a tile report, its mean IoU on whole images and in tiles, and how it differs from the original."""
    report = sl.tile_report(model, images, tile=TILE, task="segmentation")
    print(report, flush=True)
    found = answers(model, images)
    scores = with_intervals(segmentation_scores(found.argmax(1).numpy(), masks, found.shape[1]), len(masks))
    return {
        "report": report.to_dict(),
        **scores,
        "mean_difference": float((found - original).abs().mean()),
        "pixels_changed": float((found.argmax(1) != original.argmax(1)).double().mean()),
        "explained": 1 - float((found - original).square().mean() / original.var()),
    }


def measured(seed: int, n_steps: int, epochs: int, lr: float) -> dict[str, Any]:
    begin = time.perf_counter()
    model = trained(seed, n_steps)
    seconds = {"training": time.perf_counter() - begin}
    test, masks = whole_images("test", N_TEST)
    learnt, _ = whole_images("train", N_TRAIN)
    original = answers(model, test)
    found: dict[str, Any] = {"original": state_of(model, original, test, masks)}
    fixed, edits = sl.repair(model, norm="batch-renorm")
    fixed, _ = surgery.reestimate(fixed, learnt, seed=seed)
    found["replaced"] = state_of(fixed, original, test, masks)
    begin = time.perf_counter()
    fixed, facts = surgery.distill(fixed, model, learnt, epochs=epochs, lr=lr, seed=seed)
    seconds["distilling"] = time.perf_counter() - begin
    found["distilled"] = state_of(fixed, original, test, masks)
    return found | {"n_norms": len(edits), "losses": facts.losses, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=NETS["unet"].n_steps)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-4, help="of distilling, at its start")
    given = parser.parse_args()
    runs = json.loads(given.out.read_text())["runs"] if given.out.exists() else {}
    for seed in range(given.seeds):
        if str(seed) not in runs:
            runs[str(seed)] = measured(seed, given.steps, given.epochs, given.lr)
            about = {"tile": TILE, "steps": given.steps, "epochs": given.epochs, "lr": given.lr}
            about |= {"test": N_TEST, "train": N_TRAIN}
            given.out.write_text(json.dumps(header(about=about, runs=runs), indent=1) + "\n")


if __name__ == "__main__":
    main()
