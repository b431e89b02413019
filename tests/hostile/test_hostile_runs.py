"""Every command that reads a run directory, on every hostile one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile.commands import RUNS as COMMANDS
from hostile.commands import Ground
from hostile.corpus_runs import RUNS
from hostile.machinery import EVERYWHERE, through

pytestmark = pytest.mark.timeout(300)


@EVERYWHERE
@pytest.mark.parametrize("name", RUNS)
def test_run_directories(tmp_path: Path, ground: Ground, name: str, everywhere: bool) -> None:
    through(RUNS[name], list(RUNS).index(name), everywhere, tmp_path, COMMANDS, ground)
