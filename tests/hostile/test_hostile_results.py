"""Every command that reads a result, on every hostile sweep, feature run and file of layer arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile.commands import ARITHMETIC as ARITHMETIC_COMMANDS
from hostile.commands import FEATURES as FEATURE_COMMANDS
from hostile.commands import SWEEPS as SWEEP_COMMANDS
from hostile.commands import Ground
from hostile.corpus_zarr import ARITHMETIC, FEATURES, SWEEPS
from hostile.machinery import EVERYWHERE, through

pytestmark = pytest.mark.timeout(300)


@EVERYWHERE
@pytest.mark.parametrize("name", SWEEPS)
def test_sweeps(tmp_path: Path, ground: Ground, name: str, everywhere: bool) -> None:
    through(SWEEPS[name], list(SWEEPS).index(name), everywhere, tmp_path, SWEEP_COMMANDS, ground)


@EVERYWHERE
@pytest.mark.parametrize("name", FEATURES)
def test_feature_runs(tmp_path: Path, ground: Ground, name: str, everywhere: bool) -> None:
    through(FEATURES[name], list(FEATURES).index(name), everywhere, tmp_path, FEATURE_COMMANDS, ground)


@EVERYWHERE
@pytest.mark.parametrize("name", ARITHMETIC)
def test_layer_arithmetic(tmp_path: Path, ground: Ground, name: str, everywhere: bool) -> None:
    through(ARITHMETIC[name], list(ARITHMETIC).index(name), everywhere, tmp_path, ARITHMETIC_COMMANDS, ground)
