"""Every reader of results on every hostile sweep, feature run and layer arithmetic, and every command on some."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile.commands import ARITHMETIC as ARITHMETIC_COMMANDS
from hostile.commands import FEATURES as FEATURE_COMMANDS
from hostile.commands import SWEEPS as SWEEP_COMMANDS
from hostile.commands import Ground
from hostile.corpus_zarr import ARITHMETIC, FEATURES, SWEEPS
from hostile.machinery import for_each, read_by_all, run_one
from hostile.readers import ARITHMETIC_FILES, FEATURE_RUNS, STORED_SWEEPS

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", SWEEPS)
def test_sweeps(tmp_path: Path, ground: Ground, name: str) -> None:
    read_by_all(SWEEPS[name], tmp_path, STORED_SWEEPS, ground)


@for_each(SWEEP_COMMANDS, SWEEPS)
def test_sweeps_given_to_a_command(tmp_path: Path, ground: Ground, command: str, name: str) -> None:
    run_one(SWEEPS[name], tmp_path, command, SWEEP_COMMANDS[command], ground)


@pytest.mark.parametrize("name", FEATURES)
def test_feature_runs(tmp_path: Path, ground: Ground, name: str) -> None:
    read_by_all(FEATURES[name], tmp_path, FEATURE_RUNS, ground)


@for_each(FEATURE_COMMANDS, FEATURES)
def test_feature_runs_given_to_a_command(tmp_path: Path, ground: Ground, command: str, name: str) -> None:
    run_one(FEATURES[name], tmp_path, command, FEATURE_COMMANDS[command], ground)


@pytest.mark.parametrize("name", ARITHMETIC)
def test_layer_arithmetic(tmp_path: Path, ground: Ground, name: str) -> None:
    read_by_all(ARITHMETIC[name], tmp_path, ARITHMETIC_FILES, ground)


@for_each(ARITHMETIC_COMMANDS, ARITHMETIC)
def test_layer_arithmetic_given_to_a_command(tmp_path: Path, ground: Ground, command: str, name: str) -> None:
    run_one(ARITHMETIC[name], tmp_path, command, ARITHMETIC_COMMANDS[command], ground)
