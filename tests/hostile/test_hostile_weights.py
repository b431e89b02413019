"""Every command that reads weights, on every hostile file of weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile.commands import WEIGHTS as COMMANDS
from hostile.commands import Ground
from hostile.corpus_weights import WEIGHTS
from hostile.machinery import EVERYWHERE, through

pytestmark = pytest.mark.timeout(300)


@EVERYWHERE
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(tmp_path: Path, ground: Ground, name: str, everywhere: bool) -> None:
    through(WEIGHTS[name], list(WEIGHTS).index(name), everywhere, tmp_path, COMMANDS, ground)
