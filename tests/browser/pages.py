"""What the browser tests look at: reports on small sweeps, made in seconds without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import nn

import shiftlens as sl
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.engine.plan import Plan
from shiftlens.reporting import report
from shiftlens.sweeps.header import SweepHeader, software_versions
from shiftlens.sweeps.sweep_store import SweepStore
from tasks.small_tasks import CASES, PIXELS, wrapped

MARK = "window.hacked=1"
HOSTILE = (
    f"<img src=x onerror={MARK}>",
    f"</script><script>{MARK}</script>",
    "{{7*7}}{% raise %}${7*7}",
    f'" onmouseover="{MARK}" x=\'',
    f"<svg onload={MARK}>",
    f"javascript:{MARK}",
    "]]><!--",
    "&lt;b&gt; &amp; <b>bold</b>",
    "%s %(x)s \\u003cscript\\u003e",
    "\u202egpj.exe",
)
"""One for each class of `digits`."""


INSIDE = ("file", "data", "blob", "about")


class Watch:
    """What a page asked for and complained about."""

    def __init__(self, page: Any) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("console", self.said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self.asked)

    def said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def asked(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    @property
    def outside(self) -> list[str]:
        return [url for url in self.requests if urlsplit(url).scheme not in INSIDE]

    def hold(self) -> None:
        assert self.outside == []
        assert self.complaints == []


@dataclass(frozen=True)
class Built:
    """A report and what it was made of."""

    report: Path
    sweep: Path
    other: Path

    @classmethod
    def at(cls, folder: Path) -> Built:
        sweeps = sorted(path for path in folder.glob("*.zarr") if not path.name.startswith("features"))
        return cls(folder / "report.html", sweeps[0], sweeps[-1])


class Net(nn.Module):
    """Random filters and a linear layer solved for, not trained; it knows where things are, since it flattens."""

    def __init__(self, padding_mode: str = "zeros") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, padding_mode=padding_mode),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1, padding_mode=padding_mode),
            nn.ReLU(),
            nn.AvgPool2d(4),
        )
        self.head = nn.Linear(16 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.body(x).flatten(1))
        return scores


@torch.no_grad()
def solved(padding_mode: str = "zeros") -> Net:
    train = sl.load_images("digits", split="train", limit=600)
    net = Net(padding_mode)
    x = torch.from_numpy(train.batch(slice(None))).float() / 255
    features = net.body(x).flatten(1)
    wanted = 8.0 * nn.functional.one_hot(torch.from_numpy(np.array(train.labels)), 10).float()
    eye = torch.eye(features.shape[1])
    net.head.weight.copy_(torch.linalg.solve(features.T @ features + 0.1 * eye, features.T @ wanted).T)
    net.head.bias.zero_()
    return net.eval()


def build(folder: Path) -> Built:
    images = sl.load_images("digits", split="test", limit=40)
    grid = sl.ShiftGrid(6)
    first = sl.wrap(solved(), mean=0, std=1, size=32, name="first net")
    second = sl.wrap(solved("replicate"), mean=0, std=1, size=32, name="second net")
    one = sl.sweep(
        first, images, grid, out=folder / "a.zarr", engine="direct", dtype="float32", controls=("occlusion", "flip")
    )
    two = sl.sweep(second, images, grid, out=folder / "b.zarr", engine="direct", dtype="float32")
    maps = sl.features(first, "zeros", average=images, out=folder / "features.zarr")
    report([one, two, maps, sl.inspect(first, 33)], folder / "report.html")
    return Built.at(folder)


OUTPUTS = {"boxes": "detection", "masks": "segmentation"}
"""What is kept, and the task."""
KEPT_GRID = sl.ShiftGrid(6, 2)


def build_outputs(folder: Path) -> None:
    """Pages of two sweeps each that have kept masks or boxes: `boxes.html`, `masks.html`; `boxes-alone.html`."""
    for kind, task in OUTPUTS.items():
        make, targets, _ = CASES[task]
        images, sweeps = sl.ImageSet(PIXELS, targets), []
        for name in ("first", "second"):
            net = make()
            if sweeps:
                for values in net.parameters():
                    values.data *= 1.05
            options: dict[str, Any] = {"engine": "direct", "dtype": "float32", "task": task, "keep_outputs": 3}
            sweeps.append(sl.sweep(wrapped(net), images, KEPT_GRID, out=folder / f"{kind}-{name}.zarr", **options))
        report(sweeps, folder / f"{kind}.html", images=images)
        if kind == "boxes":
            report(sweeps[:1], folder / f"{kind}-alone.html", images=images)


def build_hostile(folder: Path) -> Built:
    digits = sl.load_images("digits", split="test", limit=40)
    images = sl.ImageSet(digits.batch(slice(None)), digits.labels, class_names=HOSTILE, name=HOSTILE[1])
    model = sl.wrap(solved(), mean=0, std=1, size=32, class_names=HOSTILE, name=HOSTILE[0] + HOSTILE[2])
    sweeps = []
    for name in (f"a{HOSTILE[0]}", f"b{HOSTILE[2]}{HOSTILE[3]}"):
        out = folder / f"{name.replace('/', '_')}.zarr"
        sweeps.append(sl.sweep(model, images, sl.ShiftGrid(2), out=out, engine="direct", dtype="float32"))
    maps = sl.features(model, "zeros", average=images, out=folder / "features.zarr")
    report([*sweeps, maps, sl.inspect(model, 33)], folder / "report.html", images=images, title=HOSTILE[1] + HOSTILE[2])
    return Built.at(folder)


MIRRORS = ("edge", "reflect", "symmetric", "wrap")
"""Fills that are rules, not colours."""


def build_mirrored(folder: Path) -> Path:
    """One sweep for each of `MIRRORS`, a few shifts far apart."""
    images = sl.load_images("digits", split="test", limit=8)
    model = sl.wrap(Net().eval(), mean=0, std=1, size=32, name="a net")
    grid = sl.ShiftGrid(40, step=20)
    options: dict[str, Any] = {"engine": "direct", "dtype": "float32"}
    sweeps = [sl.sweep(model, images, grid, out=folder / f"{fill}.zarr", fill=fill, **options) for fill in MIRRORS]
    return report(sweeps, folder / "report.html").path


def build_full(folder: Path) -> Built:
    """65 x 65 shifts of all test digits with made-up answers, right the less often the further out."""
    images = sl.load_images("digits", split="test")
    grid = sl.ShiftGrid(32)
    net = sl.nn.VGG("vgg8", width=16).eval()
    model = sl.wrap(net, mean=0, std=1, size=32, name="a net")
    header = SweepHeader(
        model="a net",
        model_digest=model.digest,
        model_notes=(),
        data="digits",
        data_digest=images.digest,
        data_notes=(),
        n_classes=10,
        class_names=images.class_names,
        image_size=(32, 32),
        grid=grid,
        fill=sl.Fill.parse("black"),
        plan=Plan("direct", "float32", 64, False, False, False, "cpu", "cpu X"),
        n_parameters=1,
        n_macs=1,
        strides=(2, 4, 8, 16),
        preprocessing=Preprocessing((0.0,) * 3, (1.0,) * 3, (32, 32), None, "bilinear", True),
        training={},
        software=software_versions(),
    )
    labels = np.array(images.labels)
    store = SweepStore.create(
        folder / "a.zarr",
        header,
        labels,
        np.array(images.index),
        chunk_size=64,
        controls=("occlusion", "flip", "canvas"),
    )
    random = np.random.default_rng(0)
    far = np.hypot(*np.meshgrid(grid.dys, grid.dxs, indexing="ij"))
    for control in (None, "occlusion", "flip", "canvas"):
        group = store.group(control)
        for chunk in range(group.n_chunks):
            span = group.span(chunk)
            own = labels[span, None, None]
            wrong = random.random((len(own), 65, 65)) < far / 40
            prediction = np.where(wrong, (own + random.integers(1, 10, wrong.shape)) % 10, own)
            loss = np.where(wrong, 2.5, 0.1) * random.uniform(0.5, 1.5, wrong.shape)
            group.write(chunk, {"prediction": prediction, "loss": loss, "confidence": np.full(wrong.shape, 0.5)})
        group.finish()
    maps = sl.features(model, "zeros", average=images, out=folder / "features.zarr")
    report([folder / "a.zarr", maps, sl.inspect(model, 33)], folder / "report.html")
    return Built.at(folder)
