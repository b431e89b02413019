"""Every reader of run directories on every hostile one, and every command on some."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile.commands import RUNS as COMMANDS
from hostile.commands import Ground
from hostile.corpus_runs import RUNS
from hostile.machinery import for_each, read_by_all, run_one
from hostile.readers import RUN_DIRECTORIES

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", RUNS)
def test_run_directories(tmp_path: Path, ground: Ground, name: str) -> None:
    read_by_all(RUNS[name], tmp_path, RUN_DIRECTORIES, ground)


@for_each(COMMANDS, RUNS)
def test_run_directories_given_to_a_command(tmp_path: Path, ground: Ground, command: str, name: str) -> None:
    run_one(RUNS[name], tmp_path, command, COMMANDS[command], ground)
