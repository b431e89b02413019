"""What the tests of the tutorials take out of their pages."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
QUOTE = re.compile(r"^> `(?P<id>[a-z0-9_-]+)`: (?P<text>.+(?:\n> .+)*)", re.MULTILINE)


SHOWN = {"px^2": "px²", "points": "points", "nats": "nats", "share": "%", "px": " px"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def units(text: str) -> set[str]:
    return {unit for unit in SHOWN.values() if re.search(rf"\d ?{unit.strip()}", text)}
