"""`shiftlens sweep --task`: every task from the command line, its result said in the task's own metric."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shiftlens.cli import main
from shiftlens.sweeps.sweep_result import open_sweep

NETS = """
import torch
from torch import nn
from shiftlens.nn.unet import UNet
from shiftlens.nn.center_points import CenterPoints

def seeded(make):
    torch.manual_seed(0)
    return make().eval()

def segmenter():
    return seeded(lambda: UNet(n_classes=3, in_channels=3, width=2))

def detector():
    return seeded(lambda: CenterPoints(n_classes=2, in_channels=3, width=2))

def vectors():
    return seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Flatten()))
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


def sweep(nets: Path, out: Path, factory: str, task: str, *more: str) -> int:
    return main(
        ["sweep", "--model", f"{nets}:{factory}", "--data", "digits", "--limit", "3", "--max-shift", "4", "--step", "2",
         "--mean", "0.5", "--std", "0.25", "--out", str(out), "--task", task, *more]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("factory", "task", "said", "worst"),
    [
        ("segmenter", "segmentation", "pixel agreement 100.00 % at (0, 0)", "lowest"),
        ("segmenter", "dense", "\nMAE ", "highest"),
        ("vectors", "embedding", "\ncosine 1", "lowest"),
    ],
)
def test_the_result_is_said_in_the_tasks_own_metric(
    nets: Path, tmp_path: Path, factory: str, task: str, said: str, worst: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(nets, tmp_path / "s.zarr", factory, task) == 0
    printed = capsys.readouterr().out
    assert said in printed
    assert f"on average, {worst} " in printed
    assert "accuracy" not in printed
    assert open_sweep(tmp_path / "s.zarr").header.task.name == task


def test_the_worst_shift_is_the_highest_of_an_error(
    nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(nets, tmp_path / "s.zarr", "segmenter", "dense") == 0
    mean = open_sweep(tmp_path / "s.zarr").mean_of("mae")
    worst = mean[mean.argmax(...)]
    assert f"at (dx, dy) = ({int(worst.dx)}, {int(worst.dy)})" in capsys.readouterr().out


def test_a_task_is_resumed_and_keeps_its_json(nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n_resumed in (0, 3):
        assert sweep(nets, tmp_path / "s.zarr", "segmenter", "segmentation", "--json") == 0
        values = json.loads(capsys.readouterr().out)
        assert (values["n_images"], values["images_resumed"]) == (3, n_resumed)


@pytest.mark.parametrize(
    ("factory", "task", "why"),
    [
        ("segmenter", "segment", "unknown task .segment."),
        ("detector", "detection", "has no boxes, and .* nothing can be followed"),
        ("vectors", "dense", "dense needs a map over the image"),
    ],
)
def test_what_a_task_cannot_use_is_one_line(
    nets: Path, tmp_path: Path, factory: str, task: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(nets, tmp_path / "s.zarr", factory, task) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("shiftlens: ")]
    assert re.search(why, line)
    assert not (tmp_path / "s.zarr").exists()
