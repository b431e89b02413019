"""`shiftlens sweep --half-width`: as many images as it takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import shiftlens as sl
from shiftlens.cli import main

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 10)).eval()
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "net.py").write_text(NET)
    model = f"{tmp_path / 'net.py'}:make"
    grid = ["--split", "test", "--max-shift", "1", "--engine", "direct", "--dtype", "float32"]
    return ["sweep", "--model", model, "--mean", "0", "--std", "1", *grid, "--out", str(tmp_path / "s.zarr")]


def test_it_stops_says_so_and_goes_on_to_a_narrower_one(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--half-width", "5"]) == 0
    said = capsys.readouterr()
    sweep = sl.open_sweep(tmp_path / "s.zarr")
    assert 200 <= sweep.n_images < sweep.n_population == 359
    assert sweep.half_width is not None
    assert f"{sweep.n_images} of 359 images x 9 shifts" in said.out
    assert f"known to ±{sweep.half_width:.2f} points together, with 95 % confidence" in said.out
    assert f"after {sweep.n_images} of 359 images every accuracy is known to ±{sweep.half_width:.2f} points" in said.err
    assert main([*command, "--half-width", "1", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["n_images"], values["n_images_used"], values["half_width"]) == (359, 359, 0)
    assert values["images_resumed"] == sweep.n_images
    assert values["n_source"] == 1797
    assert main([*command, "--half-width", "1"]) == 0
    assert "nothing was left to compute (" in capsys.readouterr().out
    assert main([*command, "--quiet"]) == 2
    assert "adaptive sweep" in capsys.readouterr().err


def test_few_images_promise_nothing_about_others(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six images are soon all measured: that says nothing about any seventh."""
    assert main([*command, "--half-width", "5", "--limit", "6"]) == 0
    said = capsys.readouterr()
    assert "±0.00" not in said.out + said.err
    assert "all 6 images are measured: over these images no accuracy is uncertain; over other images" in said.out
    assert (
        "6 images are too few to stop early: all are measured. They promise no ±5 points over other images: that"
        in said.err
    )
    wide = float(re.search(r"of the same kind, each is known to ±([0-9.]+) points", said.out)[1])
    # Nine shifts, Bonferroni: z = 2.77. At 3 right of 6, Wilson's interval is ±0.378.
    assert 37.8 <= wide <= 57
    assert main(["findings", str(tmp_path / "s.zarr"), "--no-map"]) == 0
    assert "over these images no accuracy is uncertain. Over other images of the same kind" in capsys.readouterr().out
    # 359 images promise more than 6, and less than for themselves.
    assert main([*command[:-1], str(tmp_path / "more.zarr"), "--half-width", "5"]) == 0
    more = capsys.readouterr().out
    assert float(re.search(r"of the same kind, each is known to ±([0-9.]+) points", more)[1]) > 5


def test_a_wrong_width_is_one_line_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--model", "nowhere", "--out", str(tmp_path / "s.zarr"), "--half-width", "100"]) == 2
    assert "half-width in points, from 0 (all images) to below 100, got 100" in capsys.readouterr().err


def test_the_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--help"]) == 0
    assert "--half-width 5 --out vgg.zarr" in " ".join(capsys.readouterr().out.split())
