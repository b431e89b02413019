"""Sweeps, feature runs and arithmetic with known numbers, small enough to report on in a second."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from analysis.planted import margins, trend
from shiftlens.data.images import load_images
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeps.sweep_result import Sweep, open_sweep
from sweeps import small_sweeps as small

DTYPES = {"u1": "<u1", "u2": "<u2", "u4": "<u4", "i4": "<i4", "f4": "<f4"}


def sweep(
    path: Path,
    n: int = 60,
    reach: int = 5,
    *,
    centre: tuple[float, float] = (0, 0),
    edge: float = 3.0,
    controls: tuple[str, ...] = (),
    **changes: Any,
) -> Sweep:
    """A sweep of `n` test digits, shuffled, with planted answers: right around `centre` (x, y), up to `edge` px."""
    images = load_images("digits", split="test", limit=n).subset(np.random.default_rng(5).permutation(n), named=True)
    header = {
        "n_classes": 10,
        "class_names": images.class_names,
        "image_size": (32, 32),
        "grid": ShiftGrid(reach),
        "fill": Fill("black"),
        "data": "digits",
        "data_digest": images.digest,
        "model": "net.py:make",
        "preprocessing": Preprocessing((0.5,) * 3, (0.25,) * 3, (32, 32), None, "bilinear", True),
        "training": {},
        "model_notes": (),
    } | changes
    from shiftlens.sweeps.sweep_store import SweepStore

    labels = np.asarray(images.labels, np.int64)
    store = SweepStore.create(path, small.header(**header), labels, images.index, chunk_size=16, controls=controls)
    rng = np.random.default_rng(3)
    d = header["grid"].dxs.astype(np.float64)
    for control in (None, *controls):
        margin = margins(rng, n, trend(d, d, edge=edge, soft=0.6, centre=centre))
        wrong = (labels + rng.integers(1, 10, n)) % 10
        group = store.group(control)
        for chunk in range(group.n_chunks):
            s = group.span(chunk)
            prediction = np.where(margin[s] > 0, labels[s, None, None], wrong[s, None, None])
            loss = np.logaddexp(0, -2 * margin[s]).astype(np.float32)
            group.write(chunk, {"prediction": prediction, "loss": loss, "confidence": np.full(loss.shape, 0.5)})
        group.finish()
    return open_sweep(path)


class Page(HTMLParser):
    """A page taken apart: its elements with their attributes, texts by id, and the data of its script."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.text = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self._open: list[str] = []
        self._json = ""
        self.scripts: list[str] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open.append("json" if dict(attrs).get("type") == "application/json" else tag)
            if self._open[-1] == "script":
                self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._open.pop()

    def handle_data(self, data: str) -> None:
        where = self._open[-1] if self._open else "body"
        if where == "json":
            self._json += data
        elif where == "script":
            self.scripts[-1] += data
        elif where == "body" and data.strip():
            self.said.append(" ".join(data.split()))

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._json)
        return found

    @property
    def visible(self) -> str:
        return " ".join(self.said)

    def named(self, name: str) -> dict[str, str | None]:
        return next(attributes for _, attributes in self.tags if attributes.get("id") == name)

    def all_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def unpacked(packed: dict[str, Any]) -> np.ndarray[Any, Any]:
    """What the page's script does with a packed array."""
    raw = base64.b64decode(packed["data"])
    return np.frombuffer(raw, DTYPES[packed["dtype"]]).reshape(packed["shape"])
