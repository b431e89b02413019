"""Pictures are the same whatever matplotlib was told, by a file in the working folder or in a notebook."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch

from analysis.planted import arrays, margins, trend
from comparison.pairs import pair_of, plateau, sources
from shiftlens import figures
from shiftlens.figures.feature_figures import plot_features
from shiftlens.figures.path_figures import foveation_map, kernel_tiles
from shiftlens.lens.feature_maps import features
from shiftlens.lens.kernels import kernels
from shiftlens.models.loading import wrap
from shiftlens.narrative.comparing import compared
from shiftlens.nn.vgg import VGG
from shiftlens.sweeps.sweep_result import open_sweep
from shiftlens.training.curve import save_curve
from sweeps import small_sweeps as small

STRANGE = {
    "axes.facecolor": "red",
    "figure.facecolor": "blue",
    "figure.dpi": 37,
    "font.size": 23,
    "image.origin": "lower",
    "image.cmap": "gray",
    "lines.linewidth": 9,
    "savefig.bbox": "tight",
    "savefig.transparent": True,
    "text.usetex": True,
    "xtick.labelsize": 30,
}

LATEX = """#!/bin/sh
touch {canary}
exit 1
"""


def of_a_sweep(folder: Path) -> None:
    rng = np.random.default_rng(0)
    d = np.arange(-3, 4.0)
    made = arrays(margins(rng, 20, trend(d, d, edge=2, centre=(1, -1))), rng)
    object.__setattr__(made, "controls", {"occlusion": made, "flip": made})
    figures.plot(made, folder)


def of_a_comparison(folder: Path) -> None:
    rng = np.random.default_rng(0)
    compared(sources(pair_of(rng, 30, [plateau(4), plateau(4)]))).plot(folder)


def of_features(folder: Path) -> None:
    torch.manual_seed(0)
    plot_features(features(wrap(VGG("vgg6", width=2), mean=0.2, std=0.5, size=32), layers=["0.0", "1.0"]), folder)


def of_paths(folder: Path) -> None:
    torch.manual_seed(0)
    figures.save(foveation_map(np.ones((8, 8)), "net"), folder / "paths.png")
    figures.save(kernel_tiles(kernels(wrap(VGG("vgg6", width=2), mean=0.2, std=0.5, size=32))), folder / "kernels.svg")


def of_a_training(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    save_curve(folder, [{"epoch": k, "train_loss": 1 / k, "accuracy": 0.1 * k} for k in (1, 2, 3)], "net")


@pytest.fixture
def strange_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))  # where LaTeX is installed, it must not serve either
    with mpl.rc_context(STRANGE):
        yield


@pytest.mark.parametrize("draw", [of_a_sweep, of_a_comparison, of_features, of_paths, of_a_training])
def test_settings_of_a_notebook_change_no_picture_and_stay(
    draw: Callable[[Path], None], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    draw(tmp_path / "plain")
    request.getfixturevalue("strange_settings")
    before = dict(mpl.rcParams)
    draw(tmp_path / "strange")
    assert dict(mpl.rcParams) == before
    plain, strange = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("plain", "strange")
    )
    assert len(plain) >= 1
    assert strange == plain


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    programs = folder / "programs"
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path),
    }
    command = [sys.executable, "-P", "-c", "import sys; from shiftlens.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(
        command, cwd=folder / "work", env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.parametrize(
    "kind",
    ["settings", pytest.param("no text", marks=pytest.mark.slow), pytest.param("a pipe", marks=pytest.mark.slow)],
)
def test_a_file_in_the_working_folder_is_not_obeyed(tmp_path: Path, kind: str) -> None:
    canary, programs, work = tmp_path / "canary", tmp_path / "programs", tmp_path / "work"
    programs.mkdir()
    work.mkdir()
    for name in ("latex", "dvipng", "pdflatex", "xelatex", "kpsewhich"):
        (programs / name).write_text(LATEX.format(canary=canary))
        (programs / name).chmod(0o755)
    rc = work / "matplotlibrc"
    if kind == "a pipe":
        os.mkfifo(rc)
    else:
        rc.write_bytes(b"text.usetex: True\nfont.size: 23\nno setting\n" if kind == "settings" else b"\xff\xfe: \x80\n")
    small.fill(small.create(tmp_path / "s.zarr"))
    done = run(tmp_path, "plot", "../s.zarr", "--out", "pictures")
    assert done.returncode == 0, done.stderr
    assert "matplotlibrc" not in done.stderr
    assert not canary.exists()
    figures.plot(open_sweep(tmp_path / "s.zarr"), tmp_path / "plain")
    made = {path.name: path.read_bytes() for path in (work / "pictures").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()}
