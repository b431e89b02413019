"""Every reader of images on every hostile picture, folder and parquet file, and every command on some."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile.commands import DATA, PICTURE, Ground
from hostile.corpus_data import FOLDERS, PARQUET, PICTURES
from hostile.machinery import for_each, read_by_all, run_one
from hostile.readers import IMAGES, PICTURE_FILE

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture(tmp_path: Path, ground: Ground, name: str) -> None:
    read_by_all(PICTURES[name], tmp_path, PICTURE_FILE, ground)


@for_each(PICTURE, PICTURES)
def test_a_picture_given_to_a_command(tmp_path: Path, ground: Ground, command: str, name: str) -> None:
    run_one(PICTURES[name], tmp_path, command, PICTURE[command], ground)


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(tmp_path: Path, ground: Ground, name: str) -> None:
    read_by_all(FOLDERS[name], tmp_path, IMAGES, ground)


@for_each(DATA, FOLDERS)
def test_folders_given_to_a_command(tmp_path: Path, ground: Ground, command: str, name: str) -> None:
    run_one(FOLDERS[name], tmp_path, command, DATA[command], ground)


@pytest.mark.parametrize("name", PARQUET)
def test_parquet(tmp_path: Path, ground: Ground, name: str) -> None:
    read_by_all(PARQUET[name], tmp_path, IMAGES, ground)


@for_each(DATA, PARQUET)
def test_parquet_given_to_a_command(tmp_path: Path, ground: Ground, command: str, name: str) -> None:
    run_one(PARQUET[name], tmp_path, command, DATA[command], ground)
