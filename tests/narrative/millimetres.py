"""A sweep of a task that is none of ours: an error in millimetres, lower is better, and no class is predicted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from analysis.planted import margins, trend
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeps.sweep_result import Sweep, open_sweep
from shiftlens.tasks.task import Stored, Variable
from sweeps import small_sweeps as small

MAE = Variable("mae", "float32", "mm", "lower", "number", "MAE", bounds=(0, np.inf))
BIAS = Variable("signed_bias", "float32", "mm", "higher", "number", "signed bias")
TASK = Stored((MAE, BIAS), "depth")
REACH = 6
D = np.arange(-REACH, REACH + 1.0)


def distances(n: int, seed: int = 0, *, scale: float = 1.0, lean: float = 0.0) -> Any:
    """(image, dy, dx) in mm: about 0.1 in the middle, more further out, and `lean` more to the right than left."""
    mean = trend(D, D, edge=3, soft=0.8)
    outwards = mean.max() - mean + lean * np.tanh(D)[None, :]
    noise = margins(np.random.default_rng(seed), n, np.zeros_like(mean))
    return (scale * (0.1 + 0.05 * np.clip(outwards, 0, None)) * np.exp(0.2 * noise)).astype(np.float32)


def sweep(
    path: Path, n: int = 40, *, scale: float = 1.0, lean: float = 0.5, controls: tuple[str, ...] = (), **changes: Any
) -> Sweep:
    """Measured images of `TASK`, with planted errors."""
    header = {"grid": ShiftGrid(REACH), "image_size": (32, 32), "fill": Fill("black"), "data": "rooms", "strides": (2,)}
    task = {"task": TASK, "model": "net.py:make", "training": {}, "model_notes": ()}
    store = small.create(path, n, 16, controls, **header | task | changes)
    for k, control in enumerate((None, *controls)):
        group = store.group(control)
        # A canvas and an occluded image are easier than a moved one; mirrored images lean the other way.
        made = distances(n, scale=scale * (1.0, 0.8, 1.0, 0.7)[k], lean=-lean if control == "flip" else lean)
        for chunk in range(group.n_chunks):
            s = group.span(chunk)
            group.write(chunk, {"mae": made[s], "signed_bias": (made[s] - 0.12)})
        group.finish()
    return open_sweep(path)


def says_nothing_of_shares(text: str) -> None:
    """No accuracy, and no per cent but levels, probabilities and how much of an image is lost."""
    assert not re.search("accura|predicted right|classified", text, re.IGNORECASE)
    allowed = (
        r"\b\d+ %(?= (confidence|interval|intervals|probability|simultaneous)|\))|at (95|5|2) %|retained at 95 %|"
        r"[\d.]+ % of the image is lost|lost-content +\w+ +[\d.]+ %"
    )
    assert "%" not in re.sub(allowed, "", text), re.findall(r".{40}%.{20}", re.sub(allowed, "", text))
