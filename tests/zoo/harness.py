"""The zoo: nets with a verdict each, a naive loop that anyone can check, and every way of computing held against it."""

from __future__ import annotations

import copy
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import shiftlens as sl
from reference import translated
from shiftlens.devices import machine_kind
from shiftlens.engine.checking import Check
from shiftlens.engine.direct import prepare_module
from shiftlens.engine.evaluators import make_plan, prepare
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.engine.shared.tracing import trace
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.loading import Model
from shiftlens.models.probing import scores_of
from shiftlens.shifts import Fill, ShiftGrid

H, W = 9, 8
"""Pixels of the zoo's images: two sizes, so that swapped axes show."""
N_CLASSES = 4
MEAN, STD = 0.45, 0.25
LOSS = 1e-4
"""Largest difference from the naive loop, in nats; and the margin below which another class may come first."""
ONE_BY_ONE = "batch_size=1"
"""What the refusal of a net whose answer depends on its batch names as the way out."""

Net = Callable[[Tensor], Any]


class Small(nn.Module):
    """A convolution, something in the middle, a linear head: most nets of the zoo change one of the three."""

    def __init__(self, n: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(n, N_CLASSES)
        # Logits that differ enough for a mistake to show.
        nn.init.normal_(self.head.weight, std=2 / n**0.5)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.middle(self.conv(x)))

    def middle(self, x: Tensor) -> Tensor:
        """From maps [n, 6, H, W] to what the head takes."""
        return x.relu().mean((2, 3))


def told(bn: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """A batch norm that has seen something: its statistics are not those that it begins with."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    bn.running_mean.normal_(std=0.5)
    bn.running_var.uniform_(0.5, 2)
    return bn


@dataclass(frozen=True)
class Case:
    """A net of the zoo and what must come of it.

    `verdict`: `equal` (to the naive loop, whatever the way), `one_by_one` (refused as dependent on its batch, and equal
    with `batch_size=1`) or `refused` (in one line that holds `says`). `shares`: engine dedup must serve it. `around`:
    what must be in force while it is used. `views`: names of the image sets it is run with.
    """

    name: str
    make: Callable[[], Net]
    verdict: str
    says: str = ""
    fast: bool = False
    shares: bool = False
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    views: tuple[str, ...] = ("black", "constant", "ordinary")

    def net(self) -> Net:
        """The same net every time."""
        torch.manual_seed(zlib.crc32(self.name.encode()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old ways of making a net are deprecated, and people use them
            return self.make()


CASES: dict[str, Case] = {}
PLAIN_ROOMS = ("nets_layers", "nets_heads", "nets_architectures")
"""Nets of common layers, traced as they are: no first image could hide anything, and one set of images is enough."""


def zoo(verdict: str, **facts: Any) -> Callable[[Callable[[], Net]], Any]:
    """Put a class or a function that makes a net into the zoo."""

    def add(make: Callable[[], Net]) -> Callable[[], Net]:
        assert make.__name__ not in CASES, make.__name__
        if make.__module__ in PLAIN_ROOMS:
            facts.setdefault("views", ("ordinary",))
        CASES[make.__name__] = Case(make.__name__, make, verdict, **facts)
        return make

    return add


def equal(**facts: Any) -> Callable[[Callable[[], Net]], Any]:
    return zoo("equal", **facts)


def one_by_one(**facts: Any) -> Callable[[Callable[[], Net]], Any]:
    return zoo("one_by_one", **facts)


def refused(says: str, **facts: Any) -> Callable[[Callable[[], Net]], Any]:
    return zoo("refused", says=says, **facts)


@dataclass(frozen=True)
class View:
    """Images and shifts that a net is seen with; the first image is what a check must not rely on."""

    name: str
    grid: ShiftGrid
    fill: Fill
    thorough: bool

    @property
    def images(self) -> np.ndarray:
        """uint8 [n, 3, H, W]."""
        random = np.random.default_rng(7)
        noise = random.integers(0, 256, (3, H, W))
        blob = np.hypot(*np.meshgrid(np.arange(W) - 5, np.arange(H) - 3))
        shapes = 255 * np.exp(-(blob**2) / np.array([6.0, 12.0, 3.0])[:, None, None])
        first = {"black": [np.zeros((3, H, W))], "constant": [np.full((3, H, W), 90)], "ordinary": []}[self.name]
        return np.stack([*first, shapes, noise]).astype(np.uint8)

    @property
    def labels(self) -> np.ndarray:
        return np.arange(len(self.images), dtype=np.int64) % N_CLASSES


VIEWS = {
    view.name: view
    for view in (
        # The first image is all fill, and so are the windows at the ends of the grid.
        View("black", ShiftGrid((3, 9), 3), Fill.parse("black"), False),
        # All windows of the first image are the same.
        View("constant", ShiftGrid((2, 3)), Fill.parse("edge"), False),
        View("ordinary", ShiftGrid((2, 3)), Fill.parse("mean"), True),
    )
}


@cache
def windows(view: View) -> Tensor:
    """Every window [image x shift, 3, H, W] by the slow reference."""
    values = [(0.0 - MEAN) / STD] * 3 if view.fill.name == "black" else [0.0] * 3
    name = "constant" if view.fill.is_constant else view.fill.name
    pictures = ((view.images.astype(np.float32) / np.float32(255)) - np.float32(MEAN)) / np.float32(STD)
    moved = [translated(picture, s.dx, s.dy, name, values) for picture in pictures for s in view.grid]
    return torch.from_numpy(np.stack(moved))


def alone(net: Net, batch: Tensor) -> Tensor:
    """Logits [n, k] of the untouched module, a window at a time, in float32, in the order given."""
    used = copy.deepcopy(net)
    if isinstance(used, nn.Module):
        used.eval()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            rows = [_row(used, window.clone()) for window in batch.split(1)]
    finally:
        torch.set_num_threads(n_threads)
    return torch.cat(rows)


def _row(used: Net, window: Tensor) -> Tensor:
    """Logits [1, k] of a window by itself; of a net that takes no batch of one, beside its own copy."""
    try:
        return scores_of(used(window)).double()
    except ModelOutputError:
        return scores_of(used(torch.cat([window, window])))[:1].double()


def naive(net: Net, view: View) -> Tensor:
    """Logits [image, dy, dx, class] of the naive loop."""
    n = len(view.images)
    return alone(net, windows(view)).view(n, *view.grid.shape, -1)


def wrong(found: ChunkResult, exact: Tensor, labels: np.ndarray) -> str:
    """What differs from the naive loop's logits [image, dy, dx, class], in one line; "" if nothing does."""
    log_total = exact.logsumexp(-1)
    targets = torch.from_numpy(labels)[:, None, None, None].expand(*exact.shape[:3], 1)
    losses = (log_total - exact.gather(-1, targets)[..., 0]).numpy()
    best = exact.topk(2, dim=-1)
    margin = (best.values[..., 0] - best.values[..., 1]).numpy()
    differs = (found["prediction"] != best.indices[..., 0].numpy()) & (margin >= LOSS)
    off = float(np.abs(found["loss"] - losses).max())
    sure = np.abs(found["confidence"].astype(np.float64) - torch.exp(best.values[..., 0] - log_total).numpy()).max()
    if off <= LOSS and not differs.any() and sure <= 1e-3:
        return ""
    return f"losses off by up to {off:.3g}, {differs.sum()} of {differs.size} predictions differ, confidence {sure:.2g}"


def wrapped(net: Net) -> Model:
    """As a user would, with the pictures' size known."""
    return sl.wrap(net, mean=MEAN, std=STD, size=(H, W))  # type: ignore[arg-type]


def candidates(model: Model, view: View) -> Iterator[Plan]:
    """Ways of computing that a sweep could take, in float32; fewer where only the first image is another."""
    plain = Plan("direct", "float32", 64, False, False, False, "cpu", machine_kind(torch.device("cpu")))
    both = replace(plain, channels_last=True, fold_batch_norm=True)
    yield both
    if view.thorough:
        yield replace(plain, channels_last=True)
        yield replace(plain, fold_batch_norm=True, batch_size=5)
        yield replace(both, batch_size=1)
        yield replace(plain, batch_size=1)
    if not isinstance(model.module, nn.Module):
        return
    for plan in (plain, both) if view.thorough else (both,):
        try:
            n = len(trace(prepare_module(model, plan), (3, H, W)).steps)
        except Exception:  # cannot be traced: no candidate
            continue
        cuts = {1, (n + 1) // 2, n} if view.thorough and plan == both else {n}
        for cut in sorted(cuts - {0}):
            yield replace(plan, engine="dedup", cut=cut, batch_size=50)


def check_candidates(model: Model, view: View, exact: Tensor, batch_size: int | None = None) -> list[str]:
    """Every candidate that the check lets pass is held against the naive loop; returns what is wrong."""
    check = Check(model, view.images, view.grid, view.fill, batch_size=batch_size)
    found: list[str] = []
    for plan in candidates(model, view):
        if batch_size is not None and (plan.engine, plan.batch_size) != ("direct", batch_size):
            continue
        if check.why_not(plan):
            continue
        result = prepare(model, plan, view.grid, view.fill)(view.images, view.labels)
        if why := wrong(result, exact, view.labels):
            found.append(f"{view.name}: accepted {plan}: {why}")
    return found


def run_engine(model: Model, view: View, engine: str, batch_size: int | None = None) -> ChunkResult:
    """What a sweep of these images computes with an engine of that name."""
    images, n = view.images, len(view.images)
    plan = make_plan(
        model,
        images,
        view.grid,
        view.fill,
        n_images=n,
        engine=engine,
        dtype="float32",
        device="cpu",
        batch_size=batch_size,
    )
    return prepare(model, plan, view.grid, view.fill)(images, view.labels)


def refusal(work: Callable[[], Any]) -> str:
    """The one line in which something is refused; "" where it is not."""
    try:
        work()
    except (InputError, ModelOutputError) as error:
        return str(error)
    return ""
