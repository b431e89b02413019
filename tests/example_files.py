"""The files that examples in docstrings open: runs, sweeps, feature maps, tiles and a study, as small as they get."""

from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import shiftlens as sl
from shiftlens.surgery import origin_of, save_repaired
from shiftlens.training import Recipe, TrainSettings

STUDY = """\
name = "padding"
seeds = 2

[data]
images = "digits"
train_limit = 40
test_limit = 20

[training]
epochs = 1
dtype = "float32"
recipe = { min_steps_per_epoch = 1 }

[factors]
padding = ["zeros", "circular"]
arch = "vgg6"
width = 2
size = 16

[sweeps.black]
max_shift = 4
step = 4

[[contrasts]]
name = "zeros against circular"
arm = "zeros"
against = "circular"
measure = "black.near"
"""

SETTINGS = TrainSettings(
    arch="vgg6", width=2, size=(16, 16), epochs=1, dtype="float32", recipe=Recipe(min_steps_per_epoch=1)
)

SWEEPS: dict[str, Any] = {"engine": "direct", "dtype": "float32", "batch_size": 64}
"""Said, so that no sweep measures what is fastest first."""

NAMES = (
    "runs",
    "vgg.zarr",
    "zeros.zarr",
    "symmetric.zarr",
    "features.zarr",
    "depth.zarr",
    "tiles.zarr",
    "study.toml",
)
"""What `make` leaves."""


def make(folder: Path) -> None:
    """Fill a folder with them; they name each other as the examples do, seen from that folder."""
    with chdir(folder):
        learnt, shown = sl.load_images("digits", split="train", limit=40), sl.load_images("digits", limit=20)
        sl.train(learnt, out="runs/vgg", settings=SETTINGS)
        fixed, edits = sl.repair(sl.load_model("runs/vgg"), padding="symmetric")
        save_repaired("runs/vgg-symmetric", fixed, origin_of("runs/vgg", fixed), edits)
        sl.sweep("runs/vgg", shown, sl.ShiftGrid(4), out="vgg.zarr", **SWEEPS)
        shutil.copytree("vgg.zarr", "zeros.zarr")
        sl.sweep("runs/vgg-symmetric", shown, sl.ShiftGrid(4), out="symmetric.zarr", **SWEEPS)
        sl.features("runs/vgg", average=shown, out="features.zarr")
        torch.manual_seed(0)
        net = sl.wrap(nn.Conv2d(1, 1, 3, padding=1), mean=0.5, std=0.25, name="conv")
        noise = np.random.default_rng(0).integers(0, 256, (8, 1, 32, 32), np.uint8)
        images = sl.ImageSet(noise, [0] * 8, name="noise")
        sl.tile_report(net, images, tile=16, out="tiles.zarr")
        sl.sweep(net, images, sl.ShiftGrid(1), out="depth.zarr", task="dense", **SWEEPS)
        Path("study.toml").write_text(STUDY, encoding="utf-8")
