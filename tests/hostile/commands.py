"""The commands that take each sort of file, and the lawful files that they need beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hostile.machinery import run as run_command
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.models.runs import save_run
from shiftlens.nn import VGG
from sweeps import small_sweeps as small

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
"""

CLASSES = ("0", "1", "2")


@dataclass(frozen=True)
class Ground:
    """Lawful files: a net's code, a run directory, a folder of pictures of 16 x 16, a sweep, a feature run, a
    file of layer arithmetic."""

    net: Path
    run: Path
    pictures: Path
    sweep: Path
    features: Path
    inspection: Path

    @classmethod
    def at(cls, folder: Path) -> Ground:
        names = ("net.py", "run", "pictures", "lawful.zarr", "features.zarr", "inspection.json")
        return cls(*(folder / name for name in names))


def lay_out(folder: Path) -> Ground:
    """Make the lawful files in an empty folder."""
    ground = Ground.at(folder)
    ground.net.write_text(NET)
    torch.manual_seed(0)
    module = VGG("vgg6", n_classes=3, width=2, size=16).eval()
    build = {"factory": "shiftlens.nn.vgg:VGG", "kwargs": module.config}
    save_run(
        ground.run, module, build=build, preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3, (16, 16), declared=True)
    )
    random = np.random.default_rng(0)
    for name in CLASSES:
        (ground.pictures / name).mkdir(parents=True)
        for k in range(2):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(ground.pictures / name / f"{k}.png")
    small.fill(small.create(ground.sweep))
    given = f"folder:{ground.pictures}"
    made = run_command("features", "--model", str(ground.run), "--average", given, "--out", str(ground.features))
    assert made.code == 0, made.err
    ground.inspection.write_text(run_command("inspect", "--model", str(ground.run), "--json").out)
    return ground


Line = Callable[[Ground, str, Path], list[str]]
"""Of the ground, the hostile file (or what names it) and a place for results: the arguments of a command."""

QUICK = ["--limit", "2", "--max-shift", "1", "--engine", "direct"]


def _with_model(*arguments: str) -> dict[str, Line]:
    """Commands that measure a model, which `arguments` name ({} is the hostile file)."""

    def model(g: Ground, path: str) -> list[str]:
        return [a.format(path, net=g.net) if "{" in a else a for a in arguments]

    return {
        "evaluate": lambda g, p, out: ["evaluate", *model(g, p), "--data", f"folder:{g.pictures}"],
        "sweep": lambda g, p, out: [
            "sweep",
            *model(g, p),
            "--data",
            f"folder:{g.pictures}",
            *QUICK,
            "--out",
            str(out / "s.zarr"),
        ],
        "features": lambda g, p, out: ["features", *model(g, p), "--out", str(out / "f.zarr")],
        "kernels": lambda g, p, out: ["kernels", *[a for a in model(g, p) if a not in _SCALE]],
        "neurons": lambda g, p, out: ["neurons", *model(g, p), "--data", f"folder:{g.pictures}", "--limit", "2"],
        "repair": lambda g, p, out: ["repair", *model(g, p), "--padding", "reflect", "--out", str(out / "repaired")],
        "consistency": lambda g, p, out: [
            "consistency",
            *model(g, p),
            "--data",
            f"folder:{g.pictures}",
            "--passes",
            "1",
        ],
    }


_SCALE = ("--mean", "--std", "0.5")

WEIGHTS: dict[str, Line] = _with_model(
    "--model", "{net}:make", "--input-size", "16", "--mean", "0.5", "--std", "0.5", "--weights", "{0}"
)

RUNS: dict[str, Line] = {
    **_with_model("--model", "{0}"),
    "inspect": lambda g, p, out: ["inspect", "--model", p, "--size", "16"],
    "foveation": lambda g, p, out: ["foveation", "--model", p, "--size", "16", "--out", str(out / "f.npy")],
}

PICTURE: dict[str, Line] = {
    "features --input": lambda g, p, out: [
        "features",
        "--model",
        str(g.run),
        "--input",
        p,
        "--out",
        str(out / "f.zarr"),
    ],
}

DATA: dict[str, Line] = {
    "evaluate": lambda g, p, out: ["evaluate", "--model", str(g.run), "--data", p],
    "sweep": lambda g, p, out: ["sweep", "--model", str(g.run), "--data", p, *QUICK[2:], "--out", str(out / "s.zarr")],
    "features": lambda g, p, out: [
        "features",
        "--model",
        str(g.run),
        "--average",
        p,
        "--no-controls",
        "--layers",
        "0.0",
        "--out",
        str(out / "f.zarr"),
    ],
    "neurons": lambda g, p, out: ["neurons", "--model", str(g.run), "--data", p, "--no-impact"],
    "consistency": lambda g, p, out: ["consistency", "--model", str(g.run), "--data", p, "--passes", "1"],
    "repair": lambda g, p, out: [
        "repair",
        "--model",
        str(g.run),
        "--padding",
        "reflect",
        "--data",
        p,
        "--out",
        str(out / "repaired"),
    ],
    "train": lambda g, p, out: [
        "train",
        "--data",
        p,
        "--arch",
        "vgg6",
        "--size",
        "16",
        "--epochs",
        "1",
        "--out",
        str(out / "run"),
    ],
}

SWEEPS: dict[str, Line] = {
    "findings": lambda g, p, out: ["findings", p],
    "plot": lambda g, p, out: ["plot", p, "--out", str(out / "plots")],
    "compare": lambda g, p, out: ["compare", str(g.sweep), p],
    "compare as the baseline": lambda g, p, out: ["compare", p, str(g.sweep)],
    "report": lambda g, p, out: ["report", p, "--out", str(out / "report.html")],
    "verify": lambda g, p, out: ["verify", p],
    "reuse": lambda g, p, out: [
        "sweep",
        "--model",
        str(g.run),
        "--data",
        f"folder:{g.pictures}",
        *QUICK[2:],
        "--reuse",
        p,
        "--out",
        str(out / "s.zarr"),
    ],
}

FEATURES: dict[str, Line] = {
    "report": lambda g, p, out: ["report", p, "--out", str(out / "report.html")],
    "report with a sweep": lambda g, p, out: ["report", str(g.sweep), p, "--out", str(out / "report.html")],
}

ARITHMETIC: dict[str, Line] = FEATURES
