"""The package's page is the README without links and pictures that only the repository has."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`hatch_build.py`, where hatchling is not installed."""
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin", "hatchling.metadata.plugin.interface"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    interface = sys.modules["hatchling.metadata.plugin.interface"]
    interface.MetadataHookInterface = SimpleNamespace  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_stands_alone_and_keeps_every_word(build: ModuleType) -> None:
    metadata: dict[str, dict[str, str]] = {}
    build.Readme.update(SimpleNamespace(root=str(ROOT)), metadata)
    page, readme = metadata["readme"]["text"], (ROOT / "README.md").read_text(encoding="utf-8")
    assert metadata["readme"]["content-type"] == "text/markdown"
    assert not re.search(r"\]\((?!https?:|mailto:|#)", page)
    assert re.search(r"\]\((?!https?:|mailto:|#)", readme)
    words = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", readme)
    for line in words.splitlines():
        plain = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", line)
        assert all(word.strip(",.;:|*()") in page for word in plain.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("![A map](docs/a.png)\nSee [how](docs/b.md#c).", "\nSee how (`docs/b.md`)."),
        ("[PyPI](https://pypi.org) [here](#top) [m](mailto:a@b.c)", None),
        ("![a](https://x.org/a.png)", None),
    ],
)
def test_only_what_is_relative_is_changed(build: ModuleType, text: str, expected: str | None) -> None:
    assert build.alone(text) == (text if expected is None else expected)
