"""Consistency as papers measure it: how often two random views of a picture get the same prediction.

For numbers that can be held against published ones. A sweep says more: it takes every shift, not two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.data.imageset import ImageSet
from shiftlens.devices import resolve_device
from shiftlens.errors import InputError
from shiftlens.models.loading import Model, model_and_images
from shiftlens.models.matching import MAX_PIXELS, labelled_for, on_input_grid, scores_for
from shiftlens.models.probing import evaluating
from shiftlens.naming import Printed, count_of, of_source, unknown_name
from shiftlens.progress_bar import shows_progress
from shiftlens.shifts import Fill, canvas
from shiftlens.stats import Estimate, FloatArray, mean_estimate, wilson

PROTOCOLS = {
    "roll": "two circular shifts by -3 to 2 px on each axis (arXiv 2011.14214)",
    "zero-pad": "padded by 3 px, two crops: shifts by -3 to 2 px on each axis (arXiv 2011.14214)",
    "crop": "resized to 8/7 of the input, two crops: 224 out of 256, offsets 0 to 31 (arXiv 1904.11486)",
}
"""Every protocol, and what it does."""

REACH = 3
"""The CIFAR protocols draw shifts from -REACH to REACH - 1 px."""

MOST_PASSES = 10_000
"""Beyond, a number is a typing error."""

N_PASSES = 5


@dataclass(frozen=True, repr=False)
class PairConsistency(Printed):
    """How often two random views of a picture get the same prediction.

    Attributes
    ----------
    protocol
        A key of `PROTOCOLS`.
    consistency
        Share, mean over images of the share of passes in which both predictions are equal, right or wrong.
    accuracy
        Share of all views that are predicted right.
    passes
        Consistency of each pass, as papers average it.
    offsets
        (lowest, highest) offset drawn, in px: shifts, or positions of the crop.
    fill
        What pads, for "zero-pad"; None for the others.
    seed
        Of the draws.
    model, data
        Names of what was measured.
    n_source
        How many images the source holds.
    """

    protocol: str
    consistency: Estimate
    accuracy: Estimate
    passes: tuple[float, ...]
    offsets: tuple[int, int]
    fill: str | None
    seed: int
    model: str
    data: str
    n_source: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens consistency --json`."""
        return {
            "protocol": self.protocol,
            "consistency": self.consistency.value,
            "consistency_interval": [self.consistency.lo, self.consistency.hi],
            "accuracy": self.accuracy.value,
            "accuracy_interval": [self.accuracy.lo, self.accuracy.hi],
            "passes": list(self.passes),
            "offsets": list(self.offsets),
            "fill": self.fill,
            "n": self.consistency.n,
            "seed": self.seed,
            "model": self.model,
            "data": self.data,
        }

    def lines(self) -> list[str]:
        """The same for people."""
        c, a = ((100 * e.value, 100 * e.lo, 100 * e.hi) for e in (self.consistency, self.accuracy))
        fill = "" if self.fill is None else f", fill {self.fill}"
        n = of_source(self.consistency.n, self.n_source)
        return [
            f"{self.model} on {self.data}: consistency {c[0]:.2f} % [{c[1]:.2f}, {c[2]:.2f}], "
            f"accuracy of the same views {a[0]:.2f} % "
            f"[{a[1]:.2f}, {a[2]:.2f}] ({n}, {count_of(len(self.passes), 'pass', 'passes')})",
            f"protocol {self.protocol}: {PROTOCOLS[self.protocol]}{fill}; one pair an image",
        ]


@dataclass(frozen=True)
class _Views:
    """Pictures with all that can come into view around them, and where to cut."""

    pictures: ImageSet
    size: tuple[int, int]
    offsets: tuple[int, int]
    widen: Callable[[Tensor], Tensor]
    starts: Callable[[NDArray[np.int64]], NDArray[np.int64]]


@shows_progress("measuring", "images")
def consistency(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    protocol: str = "roll",
    *,
    fill: str | float | Fill = "black",
    n_passes: int = N_PASSES,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> PairConsistency:
    """Measure how often two random views of a picture get the same prediction, by a published protocol.

    Papers draw one pair of offsets for a whole batch; here each image has its own, which changes no expectation and
    makes the interval over images right. Two draws may be equal, as in the papers: with 6 x 6 offsets in 1 of 36 pairs.

    Parameters
    ----------
    model, images
        From `load_model` or `wrap`, and `load_images`.
    protocol
        "roll", "zero-pad" or "crop"; see `PROTOCOLS`. Their numbers are not comparable with each other, nor with the
        pairwise consistency of a sweep, which takes all pairs of shifts.
    fill
        What pads under "zero-pad": a constant. "black" is pixel 0; "mean" is 0 after normalisation, which is what
        padding already normalised pictures with zeros gives.
    n_passes
        Pairs drawn for each image.
    seed
        Of the draws, which belong to an image's position in the source.
    device
        `auto`, `cpu` or `cuda`.
    progress
        Called with (images done, images in all).

    Returns
    -------
    PairConsistency
        With 95 % intervals over images.

    Raises
    ------
    InputError
        An unknown protocol, a fill that is not constant or that the protocol does not have, no passes, fewer than two
        images, or a label beyond the model's classes.
    ModelOutputError
        The model raised or gave scores that are not finite; the images are named.

    Source
    ------
    R. Zhang, arXiv 1904.11486; A. Chaman and I. Dokmanic, arXiv 2011.14214.

    Examples
    --------
    >>> found = consistency("runs/vgg", sl.load_images("digits", limit=20), "roll")
    >>> found.consistency.n, found.consistency.unit, 0 <= found.consistency.value <= 1
    (20, 'share', True)
    """
    constant = check_request(protocol, fill, n_passes)
    model, images = model_and_images(model, images, device=device)
    views = _views(model, images, protocol, constant)
    if len(images) < 2:
        raise InputError(f"an interval over images needs at least 2 of them, got {len(images)}")
    target = resolve_device(device)
    h, w = views.size
    model = model.at(views.size)
    images = labelled_for(model, images)
    starts = views.starts(_drawn(images.index, n_passes, views.offsets, seed))
    same = np.empty((len(images), n_passes), np.bool_)
    right = np.empty((len(images), n_passes, 2), np.bool_)
    if isinstance(model.module, nn.Module):
        model.module.to(target)
    batch = max(1, MAX_PIXELS // (h * w))
    with evaluating(model.module), torch.no_grad():
        for first in range(0, len(images), batch):
            rows = np.arange(first, min(first + batch, len(images)))
            pixels = torch.from_numpy(views.pictures.batch(rows)).to(target)
            wide = views.widen(model.preprocessing.normalise(pixels))
            for k in range(n_passes):
                pair = [_predicted(model, _cut(wide, starts[rows, k, m], h, w), images.index[rows]) for m in (0, 1)]
                same[rows, k] = pair[0] == pair[1]
                right[rows, k] = np.stack(pair, axis=1) == images.labels[rows, None]
            if progress is not None:
                progress(int(rows[-1]) + 1, len(images))
    return PairConsistency(
        protocol,
        _share(same.mean(axis=1)),
        _share(right.mean(axis=(1, 2))),
        tuple(float(share) for share in same.mean(axis=0)),
        views.offsets,
        constant.name if protocol == "zero-pad" else None,
        seed,
        model.name,
        images.name,
        images.n_source,
    )


def check_request(protocol: str, fill: str | float | Fill, n_passes: int) -> Fill:
    """Refuse what no model or images are needed to refuse; return the fill."""
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    parsed = Fill.parse(fill)
    if protocol != "zero-pad" and parsed != Fill("black"):
        raise InputError(f"only the protocol zero-pad has a fill, got fill {parsed.name!r} for {protocol}")
    if not parsed.is_constant:
        raise InputError(f"the protocol zero-pad pads with a constant, got fill {parsed.name!r}")
    if isinstance(n_passes, bool) or not isinstance(n_passes, int) or n_passes < 1:
        raise InputError(f"expected at least 1 pass, got {n_passes!r}")
    if n_passes > MOST_PASSES:
        raise InputError(f"expected at most {MOST_PASSES} passes, got {n_passes!r:.40}")
    return parsed


def _views(model: Model, images: ImageSet, protocol: str, fill: Fill) -> _Views:
    """What a protocol makes of the pictures."""
    pictures, size = on_input_grid(model, images)
    if protocol == "crop":
        return _crops(model, images, size)
    p = model.preprocessing
    rule = "circular" if protocol == "roll" else None
    values = None if protocol == "roll" else fill.normalised(p.mean, p.std)
    return _Views(
        pictures,
        size,
        (-REACH, REACH - 1),
        lambda x: canvas(x, REACH, REACH, rule, values),
        # A picture moved right by d is cut d to the left of its place.
        lambda shifts: REACH - shifts,
    )


def _crops(model: Model, images: ImageSet, size: tuple[int, int]) -> _Views:
    larger = (round(size[0] * 8 / 7), round(size[1] * 8 / 7))
    room = min(larger[0] - size[0], larger[1] - size[1])
    if room < 2:
        raise InputError(f"an input of {size[0]}x{size[1]} px is too small for the protocol crop: it leaves no offsets")
    if images.n_channels != model.n_channels:
        images = images.with_channels(model.n_channels)
    pictures = images.fitted(larger, min(larger), model.preprocessing.interpolation)
    return _Views(pictures, size, (0, room - 1), lambda x: x, lambda offsets: offsets)


def _drawn(index: NDArray[np.int64], n_passes: int, offsets: tuple[int, int], seed: int) -> NDArray[np.int64]:
    """Offsets (image, pass, view, axis), axes y and x: an image keeps its draws wherever it stands in the set."""
    drawn = np.random.default_rng(seed).integers(offsets[0], offsets[1] + 1, (len(index), n_passes, 2, 2))
    rank = np.empty(len(index), np.int64)
    rank[np.argsort(index, kind="stable")] = np.arange(len(index))
    out: NDArray[np.int64] = drawn[rank]
    return out


def _cut(wide: Tensor, starts: NDArray[np.int64], h: int, w: int) -> Tensor:
    return torch.stack([wide[k, :, y : y + h, x : x + w] for k, (y, x) in enumerate(starts.tolist())])


def _predicted(model: Model, x: Tensor, index: NDArray[np.int64]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = scores_for(model, x, index).argmax(1).cpu().numpy()
    return found


def _share(values: FloatArray) -> Estimate:
    """Mean over images; where all images have the same value, Student's interval has no width and Wilson's is taken."""
    if np.ptp(values):
        return mean_estimate(values, "share", bounds=(0, 1))
    n, value = len(values), float(values[0])
    lo, hi = wilson(value * n, n)
    return Estimate(value, float(lo), float(hi), "share", n, "Wilson over images, which are all alike")
