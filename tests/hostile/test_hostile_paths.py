"""Paths that lead nowhere or too far, as every argument of every command: links in a circle, folders 3,000 deep."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostile.commands import DATA, FEATURES, PICTURE, QUICK, RUNS, SWEEPS, WEIGHTS, Ground, Line
from hostile.machinery import assert_calm, run

DEPTH = 3000


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with 3,000 in it, each in the one before: longer than a path may be, so they are made step by step."""
    top = tmp_path_factory.mktemp("deep")
    here = os.open(top, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    yield top
    subprocess.run(["rm", "-r", str(top)], check=True)  # Python's own rmtree gives up


def _folder(line: Line) -> Line:
    return lambda ground, path, out: line(ground, f"folder:{path}", out)


INPUTS: dict[str, Line] = {
    **{f"weights, {name}": line for name, line in WEIGHTS.items()},
    **{f"run, {name}": line for name, line in RUNS.items()},
    **{f"picture, {name}": line for name, line in PICTURE.items()},
    **{f"data, {name}": _folder(line) for name, line in DATA.items()},
    **{f"sweep, {name}": line for name, line in SWEEPS.items()},
    **{f"features, {name}": line for name, line in FEATURES.items()},
}

OUTPUTS: dict[str, Line] = {
    "sweep": lambda g, p, _: ["sweep", "--model", str(g.run), "--data", f"folder:{g.pictures}", *QUICK, "--out", p],
    "features": lambda g, p, _: ["features", "--model", str(g.run), "--out", p],
    "plot": lambda g, p, _: ["plot", str(g.sweep), "--out", p],
    "plot features": lambda g, p, _: ["plot", str(g.features), "--out", p],
    "report": lambda g, p, _: ["report", str(g.sweep), "--out", p],
    "compare": lambda g, p, _: ["compare", str(g.sweep), str(g.sweep), "--plots", p],
    "repair": lambda g, p, _: ["repair", "--model", str(g.run), "--padding", "reflect", "--out", p],
    "train": lambda g, p, _: ["train", "--data", f"folder:{g.pictures}", "--arch", "vgg6", "--size", "16", "--out", p],
    "kernels": lambda g, p, _: ["kernels", "--model", str(g.run), "--picture", p],
    "foveation": lambda g, p, _: ["foveation", "--model", str(g.run), "--size", "16", "--out", p],
}


def _refused(arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert_calm(outcome)
    assert outcome.code == 2, outcome.out + outcome.err


@pytest.mark.parametrize("command", INPUTS)
@pytest.mark.parametrize("place", ["loop", "other/x"])
def test_links_in_a_circle_are_refused_as_inputs(tmp_path: Path, ground: Ground, command: str, place: str) -> None:
    _circle(tmp_path)
    _refused(INPUTS[command](ground, str(tmp_path / place), tmp_path))


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("place", ["loop", "other/x", "/dev/null/x"])
def test_links_in_a_circle_are_refused_as_outputs(tmp_path: Path, ground: Ground, command: str, place: str) -> None:
    _circle(tmp_path)
    _refused(OUTPUTS[command](ground, str(tmp_path / place), tmp_path))


def _circle(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "other").symlink_to("another")
    (folder / "another").symlink_to("other")


@pytest.mark.parametrize("command", INPUTS)
@pytest.mark.parametrize("way", [lambda top: top, lambda top: top.joinpath(*["d"] * DEPTH)], ids=["top", "bottom"])
def test_folders_3000_deep_are_refused(
    tmp_path: Path, deep: Path, ground: Ground, command: str, way: Callable[[Path], Path]
) -> None:
    (deep / "class" if command.startswith("data") else deep).mkdir(exist_ok=True)
    _refused(INPUTS[command](ground, str(way(deep)), tmp_path))


@pytest.mark.parametrize("command", SWEEPS)
def test_a_result_with_folders_3000_deep_is_refused(tmp_path: Path, deep: Path, ground: Ground, command: str) -> None:
    result = tmp_path / "deep.zarr"
    shutil.copytree(ground.sweep, result, ignore=shutil.ignore_patterns("loss"))
    (deep / "d").rename(result / "loss")
    try:
        outcome = run(*SWEEPS[command](ground, str(result), tmp_path))
    finally:
        (result / "loss").rename(deep / "d")
    assert_calm(outcome)
    assert outcome.code == 2
    assert "nested deeper than anything in a result" in outcome.err + outcome.out
