"""A model's behaviour: its scores on fixed pictures, as numbers, to tell whether it is still the same model.

A digest covers what can be read of a model. What it computes may change otherwise: an environment variable, a data
file, a C extension, something global. Then these scores change. They are compared as numbers, never hashed, since
another machine rounds otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.models.probing import copied, evaluating, scores_of
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line, printable

TOLERANCE = 1e-4
"""Largest difference of the same model, as a share of the range of its scores."""

MOST_CLASSES = 64
"""Up to here the scores are kept as they are, above it as so many signed sums of them."""

_MOST_MACS = 8_000_000_000
"""Multiply-adds spent, about; but never fewer than `_FEWEST` pictures."""

_FEWEST, _UNKNOWN = 2, 4
_ROUNDING = 1e-6
_LONGEST_REASON = 200

Answer = tuple[float, ...] | str
"""The scores of one picture, or why there are none."""


@dataclass(frozen=True)
class Behaviour:
    """What a model answered on the fixed pictures.

    `answers` holds for each picture its scores (7 significant digits), or in words why there are none. `unrest` is how
    far the scores of the first picture move when its numbers change by what rounding does (1e-6 of each): next to
    nothing, but much for a net that rounds or draws random numbers itself.
    """

    answers: tuple[Answer, ...]
    unrest: float = 0.0

    def difference(self, other: Behaviour) -> Difference | None:
        """What tells `other` from this one, None if nothing does beyond rounding; pictures in common are compared."""
        pairs = list(zip(self.answers, other.answers, strict=False))
        span, allowed = _allowed((answer for answer, _ in pairs), self.unrest)
        worst: Difference | None = None
        for k, (one, two) in enumerate(pairs):
            if isinstance(one, str) or isinstance(two, str):
                if isinstance(one, str) != isinstance(two, str):
                    return Difference(k, f"{_said(one)} then, {_said(two)} now")
                continue
            if len(one) != len(two):
                return Difference(k, f"{len(one)} scores then, {len(two)} now")
            gap = max((abs(a - b) for a, b in zip(one, two, strict=True)), default=0.0)
            if gap > allowed and (worst is None or gap > worst.gap):
                share = f"{gap / span:.2g} of their range" if span else "they were all the same"
                worst = Difference(k, f"scores differ by up to {gap:.3g} ({share}; rounding allows {allowed:.2g})", gap)
        return worst

    @property
    def tells(self) -> bool:
        """Whether another model would be noticed: there are scores that differ, and they hold still."""
        span, allowed = _allowed(self.answers, self.unrest)
        return allowed < 0.01 * span

    def to_json(self) -> dict[str, Any]:
        """`{"scores": [[number, ...] or reason, ...], "unrest": number}`."""
        return {"scores": [a if isinstance(a, str) else list(a) for a in self.answers], "unrest": self.unrest}

    @staticmethod
    def from_json(table: Any) -> Behaviour:
        """Read `to_json`; `ValueError` for anything else."""
        if not isinstance(table, dict) or not isinstance(table.get("scores"), list) or len(table["scores"]) > 64:
            raise ValueError("behaviour must hold scores")
        answers = tuple(_read(answer) for answer in table["scores"])
        return Behaviour(answers, _number(table.get("unrest")))


@dataclass(frozen=True)
class Difference:
    """Where two behaviours differ: the picture, from 0, what is seen there, and by how much the scores differ."""

    picture: int
    text: str
    gap: float = math.inf


def _allowed(answers: Iterable[Answer], unrest: float) -> tuple[float, float]:
    """The range of the scores, and how much they may differ."""
    numbers = [value for answer in answers if not isinstance(answer, str) for value in answer]
    span = max(numbers) - min(numbers) if numbers else 0.0
    # A common offset makes a float32 coarser than the range of what is added to it.
    largest = max((abs(value) for value in numbers), default=0.0)
    return span, max(TOLERANCE * span, 0.1 * TOLERANCE * largest, 10 * unrest)


def behaviour_of(model: Model, shape: tuple[int, int, int]) -> Behaviour:
    """A model's scores on the fixed pictures of `shape` (c, h, w), each by itself, in float32, on one core.

    A module is copied first (its parameters are not), so that nothing of what it keeps changes. A model that raises, or
    gives scores that are not finite, has a reason in place of scores. Takes about as long as 8 thousand million
    multiply-adds, or `_FEWEST` pictures.
    """
    n_macs = model.n_macs
    n = _UNKNOWN if n_macs is None else max(_FEWEST, _MOST_MACS // max(1, n_macs))
    batches = [model.preprocessing.normalise(torch.from_numpy(picture[None])) for picture in pictures(*shape)[:n]]
    module = copied(model.module)
    with _calm(), evaluating(module):
        answers = [_answer(module, batch.to(model.device)) for batch in batches]
        again = _answer(module, _rounded(batches[0]).to(model.device))
    unrest = 0.0
    if not isinstance(again, str) and not isinstance(answers[0], str):
        unrest = max(abs(a - b) for a, b in zip(answers[0], again, strict=True))
    return Behaviour(tuple(answers), float(f"{unrest:.3g}"))


def pictures(n_channels: int, h: int, w: int) -> list[NDArray[np.uint8]]:
    """The fixed pictures, uint8 [c, h, w], the most telling first: smooth, its shift, noise, shapes, their shift, ...

    Their numbers come from the raw output of a bit generator, which is the same in every version of NumPy.
    """
    y, x = np.mgrid[0:h, 0:w]
    noise = _random(n_channels * h * w).reshape(n_channels, h, w)
    coarse = _random(n_channels * 64).reshape(n_channels, 8, 8)
    smooth = coarse[:, y * 8 // h, x * 8 // w] // 2 + (128 * (y * w + x * h) // (2 * h * w)).astype(np.uint8)
    checkers = np.stack([255 * ((y // (2 + c % 3) + x // 3) % 2) for c in range(n_channels)])
    far = np.stack([((y * 16 // h - 5 - c % 3) ** 2 + (x * 16 // w - 9) ** 2) for c in range(n_channels)])
    blobs = np.maximum(0, 240 - 12 * far)
    shapes = np.where(far < 20, blobs, checkers // 3)
    black = np.zeros_like(noise)
    made = [smooth, _shifted(smooth, 1, 2), noise, shapes, _shifted(shapes, -1, 1), black]
    return [np.ascontiguousarray(picture, dtype=np.uint8) for picture in (*made, 255 - checkers)]


def _random(n: int) -> NDArray[np.uint8]:
    raw = np.random.PCG64(n).random_raw(-(-n // 8))
    return np.asarray(raw, dtype="<u8").view(np.uint8)[:n]


def _shifted(picture: NDArray[Any], dy: int, dx: int) -> NDArray[Any]:
    """Down and to the right; black enters."""
    h, w = picture.shape[1:]
    wide = np.pad(picture, ((0, 0), (abs(dy), abs(dy)), (abs(dx), abs(dx))))
    return wide[:, abs(dy) - dy :, abs(dx) - dx :][:, :h, :w]


def _rounded(batch: Tensor) -> Tensor:
    """The same numbers with an error as rounding makes it, up or down."""
    signs = torch.from_numpy(_random(batch.numel()).astype(np.float32)).reshape(batch.shape) % 2 * 2 - 1
    return batch * (1 + _ROUNDING * signs)


@contextmanager
def _calm() -> Iterator[None]:
    """One core, full float32 on a GPU, random numbers of torch in one state afterwards; no gradients."""
    n_threads = torch.get_num_threads()
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng())
        if torch.cuda.is_available():
            stack.enter_context(torch.backends.cudnn.flags(allow_tf32=False))
        stack.callback(torch.set_num_threads, n_threads)
        torch.set_num_threads(1)
        yield


def _answer(module: Callable[..., Any], batch: Tensor) -> Answer:
    torch.manual_seed(0)
    try:
        scores = scores_of(module(batch))[0].double().cpu().numpy()
    except Exception as error:  # a net may raise anything on a picture it was not made for
        return f"raises {type(error).__name__}: {one_line(error)}"[:_LONGEST_REASON]
    if not np.isfinite(scores).all():
        return "gives scores that are not finite"
    return tuple(float(f"{value:.7g}") for value in _few(scores))


def _few(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Few numbers in which every score counts fully: each enters one of the sums, with a sign; both by lot, seed 0.

    A subset of the classes would not see what happens to the others, and a projection on random directions would see a
    change of one class only by a share of it.
    """
    if len(scores) <= MOST_CLASSES:
        return scores
    lots = np.random.PCG64(0).random_raw(len(scores))
    signs = np.where(lots >> np.uint64(32) & np.uint64(1), 1.0, -1.0)
    place = (lots % np.uint64(MOST_CLASSES)).astype(np.int64)
    return np.bincount(place, weights=signs * scores, minlength=MOST_CLASSES).astype(np.float64)


def _said(answer: Answer) -> str:
    return answer if isinstance(answer, str) else "gives scores"


def _read(answer: Any) -> Answer:
    if isinstance(answer, str):
        return printable(answer[:_LONGEST_REASON])
    if not isinstance(answer, list) or len(answer) > MOST_CLASSES:
        raise ValueError("behaviour must hold lists of scores")
    return tuple(_number(value) for value in answer)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("behaviour must hold finite numbers")
    return float(value)
