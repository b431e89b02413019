"""Every command that reads images, on every hostile picture, folder and parquet file."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile.commands import DATA, PICTURE, Ground
from hostile.corpus_data import FOLDERS, PARQUET, PICTURES
from hostile.machinery import EVERYWHERE, through

pytestmark = pytest.mark.timeout(300)


@EVERYWHERE
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture(tmp_path: Path, ground: Ground, name: str, everywhere: bool) -> None:
    through(PICTURES[name], list(PICTURES).index(name), everywhere, tmp_path, PICTURE, ground)


@EVERYWHERE
@pytest.mark.parametrize("name", FOLDERS)
def test_folders(tmp_path: Path, ground: Ground, name: str, everywhere: bool) -> None:
    through(FOLDERS[name], list(FOLDERS).index(name), everywhere, tmp_path, DATA, ground)


@EVERYWHERE
@pytest.mark.parametrize("name", PARQUET)
def test_parquet(tmp_path: Path, ground: Ground, name: str, everywhere: bool) -> None:
    through(PARQUET[name], list(PARQUET).index(name), everywhere, tmp_path, DATA, ground)
