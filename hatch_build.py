"""What PyPI shows of the README: no links and pictures that only the repository has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """Sets `readme`; without a known address of the repository nothing can be linked to."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README as a page that stands alone."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": alone(text)}


def alone(markdown: str) -> str:
    r"""Markdown whose relative pictures are left out and whose relative links are named by their path.

    Examples
    --------
    >>> alone("![A map](docs/a.png) See [how](docs/b.md#c), [PyPI](https://pypi.org)")
    ' See how (`docs/b.md`), [PyPI](https://pypi.org)'
    """
    relative = r"\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)\s]*)?\)"
    text = re.sub(rf"!\[[^\]]*\]{relative}", "", markdown)
    return re.sub(rf"\[([^\]]+)\]{relative}", r"\1 (`\2`)", text)
