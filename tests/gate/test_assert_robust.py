"""`assert_robust` and the pytest plugin."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shiftlens as sl
from shiftlens.errors import InputError


class Rows(nn.Module):
    """Class 1 where a bright pixel stands in the upper half of the image: wrong as soon as it moves far enough down."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        upper = x[:, 0, :6].amax((1, 2))
        return torch.stack([torch.full_like(upper, 0.5), upper], dim=1) * 5


def model() -> sl.Model:
    return sl.wrap(Rows(), mean=[0], std=[1], size=(12, 12))


def images(n: int = 60) -> sl.ImageSet:
    """Half of the images have a bright pixel in row 4, the others none."""
    pixels = np.zeros((n, 1, 12, 12), np.uint8)
    labels = np.arange(n) % 2
    pixels[labels == 1, 0, 4, 6] = 255
    return sl.ImageSet(pixels, labels)


def test_a_robust_model_passes_and_says_how_many_images_it_took() -> None:
    found = sl.assert_robust(model(), images(400), max_drop=(25, 1), max_shift=2, device="cpu")
    assert found.passed
    assert found.notes == ("decided after 100 of 400 images under 25 shifts, look 1 of 3",)


def test_the_message_of_a_failure_shows_the_map_and_the_worst_shifts() -> None:
    with pytest.raises(AssertionError) as failure:
        sl.assert_robust(model(), images(), max_drop=(10, 2), max_shift=2, budget_s=100, device="cpu")
    text = str(failure.value)
    assert "drop within 2 px at most 10.00 points: 50.00 points" in text
    assert "a breach is proven" in text
    lines = text.splitlines()
    middle = next(k for k, line in enumerate(lines) if line == "@@X@@")
    assert lines[middle + 1] == "=" * 5 or lines[middle + 1] == "+" * 5  # two rows further down
    assert "worst shifts (dx, dy): (-2, +2) 50 %" in text


def test_a_budget_ends_the_looks_and_the_seed_decides_which_images_come_first() -> None:
    found = sl.assert_robust(
        model(), images(400), mode="lenient", min_unshifted=0.999, max_shift=1, budget_s=1e-6, device="cpu"
    )
    assert found.n_images == 25
    assert found.notes[-1].startswith(
        "undecided after 25 of 400 images under 9 shifts, the budget allows no further look"
    )
    with pytest.raises(InputError, match="budget above 0"):
        sl.assert_robust(model(), images(), max_drop=(10, 2), budget_s=0)
    with pytest.raises(InputError, match="at least one condition"):
        sl.assert_robust(model(), images())
    with pytest.raises(InputError, match="did you mean 'max_drop'"):
        sl.assert_robust(model(), images(), gate={"max_drp": "1@2"})


OWN_TEST = """
import numpy as np, torch
from torch import nn

class Mean(nn.Module):
    def forward(self, x):
        bright = x.mean((1, 2, 3))
        return torch.stack([0 * bright, 20 * (bright - 0.1)], dim=1)

def test_good(shift_robustness):
    import shiftlens as sl
    pixels = np.zeros((100, 1, 8, 8), np.uint8)
    labels = np.arange(100) % 2
    pixels[labels == 1, 0, 3:6, 3:6] = 255
    model = sl.wrap(Mean(), mean=[0], std=[1], size=8)
    found = shift_robustness(model, (pixels, labels), max_drop=(20, 1), max_shift=1, budget_s=60, device="cpu")
    assert found.passed
"""


def own_run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of the tests in a folder, the plugin loaded by name: it may not be installed, or with another path."""
    plugin = ["-p", "shiftlens.gate.pytest_plugin", "-p", "no:cacheprovider"]
    where = {"PYTHONPATH": str(Path(sl.__file__).parents[1]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", *plugin, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, env=os.environ | where)


def test_the_fixture_is_there_in_a_users_own_tests(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(OWN_TEST)
    done = own_run(tmp_path, "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_runs_that_do_not_use_it_load_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_it():\n    assert 'shiftlens.gate.pytest_plugin' in sys.modules\n"
        "    heavy = {'torch', 'numpy', 'pydantic', 'scipy', 'zarr', 'xarray', 'matplotlib'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    done = own_run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"shiftlens": "shiftlens.gate.pytest_plugin"}
