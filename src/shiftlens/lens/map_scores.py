"""How much of a feature map its input cannot explain: scores of one site.

All of them are this project's own definitions (marked [own] where they are shown); they need a map that a picture
without content gave, or an average over many pictures.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.stats import Skipped

Array = NDArray[np.floating[Any]]

CONSTANT = 1e-10
"""Artefact energy below which a float32 map is constant but for rounding."""

LEAVES = 1e-4
"""A cell leaves the reference when it differs by more than this share of the map's largest value."""

MOST_CHANNELS = 5


@dataclass(frozen=True)
class Borders:
    """How much higher the outermost row or column is than the reference, over the mean size of the reference.

    Means over channels and along the side; positive: excited, negative: suppressed.
    """

    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Scores:
    """Scores of one site's map [c, h, w].

    Attributes
    ----------
    artefact_energy
        Sum over channels of the variance over space, over the sum of the mean square: 0 for a constant map, at most 1.
    reach_cells
        Largest distance of a cell from the nearest border (1 at the border itself) at which some channel leaves the
        reference; 0 where none does.
    reach_pixels
        The same in pixels of the picture.
    covered
        Share of cells at which some channel leaves the reference.
    contrast_lr, contrast_ud
        Share of the variation over space that changes its sign when the map is mirrored left/right, up/down: 0 for a
        symmetric map, 1 for one that is opposite.
    borders
        See `Borders`.
    channels
        The channels that carry most of the variation, and their shares.
    noise
        For an average: the artefact energy that chance alone would give, from the variance over pictures.
    """

    artefact_energy: float | Skipped
    reach_cells: int | Skipped
    reach_pixels: float | Skipped
    covered: float | Skipped
    contrast_lr: float | Skipped
    contrast_ud: float | Skipped
    borders: Borders | Skipped
    channels: tuple[tuple[int, float], ...] = ()
    noise: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; what could not be measured is null, and `skipped` says why."""
        values = asdict(self)
        skipped = {name: each.why for name in values if isinstance(each := getattr(self, name), Skipped)}
        return values | dict.fromkeys(skipped) | {"channels": [list(c) for c in self.channels], "skipped": skipped}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Scores:
        """Read back what `to_dict` gave."""
        skipped = values["skipped"]
        found: dict[str, Any] = {name: values[name] for name in values if name != "skipped"}
        found |= {name: Skipped(name, why) for name, why in skipped.items()}
        if isinstance(found["borders"], dict):
            found["borders"] = Borders(**found["borders"])
        found["channels"] = tuple((int(c), float(share)) for c, share in found["channels"])
        return Scores(**found)


def artefact_energy(maps: Array) -> float | Skipped:
    """Variance over space over mean square of a map [c, h, w], both summed over channels; `Skipped` for zeros."""
    power = float(np.square(np.asarray(maps, np.float64)).sum())
    if power == 0:
        return Skipped("artefact energy", "the map is zero everywhere")
    return float(np.square(_centred(maps)).sum() / power)


def _centred(maps: Array) -> NDArray[np.float64]:
    x = np.asarray(maps, np.float64)
    centred: NDArray[np.float64] = x - x.mean((1, 2), keepdims=True)
    return centred


def _is_constant(maps: Array) -> bool:
    """But for rounding."""
    energy = artefact_energy(maps)
    return isinstance(energy, Skipped) or energy <= CONSTANT


def left_at(maps: Array, reference: Array, tolerance: float = LEAVES) -> NDArray[np.bool_]:
    """Cells [h, w] at which some channel leaves the reference [c, h, w]."""
    x, r = np.asarray(maps, np.float64), np.asarray(reference, np.float64)
    largest = float(np.abs(x).max(initial=0.0))
    return np.asarray((np.abs(x - r) > tolerance * largest).any(0))


def depth(h: int, w: int) -> NDArray[np.int64]:
    """Distance [h, w] of each cell from the nearest border; 1 at the border itself."""
    rows, columns = np.arange(h), np.arange(w)
    down, across = np.minimum(rows, h - 1 - rows), np.minimum(columns, w - 1 - columns)
    return np.minimum(down[:, None], across[None, :]) + 1


def contrast(maps: Array, axis: int) -> float | Skipped:
    """Share of the variation over space that is odd under a mirror along `axis` (1 up/down, 2 left/right)."""
    if _is_constant(maps):
        return Skipped("contrast", "the map is constant but for rounding")
    x = _centred(maps)
    odd = (x - np.flip(x, axis)) / 2
    return float(np.square(odd).sum() / np.square(x).sum())


def carriers(maps: Array) -> tuple[tuple[int, float], ...]:
    """The channels with the largest shares of the variation over space, and these shares."""
    if _is_constant(maps):
        return ()
    parts = np.square(_centred(maps)).sum((1, 2))
    order = np.argsort(-parts, kind="stable")[:MOST_CHANNELS]
    return tuple((int(c), float(parts[c] / parts.sum())) for c in order)


def border_excess(maps: Array, reference: Array) -> Borders | Skipped:
    """How far each side's outermost line is above the reference [c, h, w]; see `Borders`."""
    x, r = np.asarray(maps, np.float64), np.asarray(reference, np.float64)
    scale = float(np.abs(r).mean())
    if scale == 0:
        return Skipped("borders", "the reference is zero everywhere")
    gap = (x - r).mean(0) / scale
    return Borders(*(float(line.mean()) for line in (gap[:, 0], gap[:, -1], gap[0], gap[-1])))


def scores_of_picture(
    maps: Array, reference: Array, pixels_a_cell: float, *, is_empty: bool, tolerance: float = LEAVES
) -> Scores:
    """Scores of the maps [c, h, w] of one picture, beside the `reference` that circular padding gives.

    Where the picture `is_empty`, what varies over space is the net's own. `tolerance`: see `LEAVES`; larger for nets of
    lower precision.
    """
    if maps.shape[1:] == (1, 1):
        return skipped_scores("the map is one cell")
    left = left_at(maps, reference, tolerance)
    cells = int((depth(*left.shape) * left).max())
    content = Skipped("artefacts", "the picture has content of its own")
    return Scores(
        artefact_energy=artefact_energy(maps) if is_empty else content,
        reach_cells=cells,
        reach_pixels=cells * pixels_a_cell,
        covered=float(left.mean()),
        contrast_lr=contrast(maps, 2) if is_empty else content,
        contrast_ud=contrast(maps, 1) if is_empty else content,
        borders=border_excess(maps, reference),
        channels=carriers(maps) if is_empty else (),
    )


def scores_of_average(mean: Array, variance: Array, n: int, rolled: Array | None, flipped: Array | None) -> Scores:
    """Scores of an average over `n` pictures: from the control that takes content out, where it was measured.

    All are [c, h, w]. `variance` is over pictures, rolled ones where there are such: what chance leaves in the mean.
    Over `rolled` pictures content is everywhere alike, so what varies over space is the model's (and the seam's). Over
    pictures and their mirror images (`flipped`), what is asymmetric left/right is the model's.
    """
    if mean.shape[1:] == (1, 1):
        return skipped_scores("the map is one cell")
    judged = mean if rolled is None else rolled
    power = float(np.square(judged).mean((1, 2)).sum())
    why = "an average has no reference: see the empty picture's"
    return Scores(
        artefact_energy=artefact_energy(judged),
        reach_cells=Skipped("reach", why),
        reach_pixels=Skipped("reach", why),
        covered=Skipped("reach", why),
        contrast_lr=contrast(mean if flipped is None else flipped, 2),
        contrast_ud=contrast(judged, 1),
        borders=Skipped("borders", why),
        channels=carriers(judged),
        noise=float((variance / n).mean((1, 2)).sum() / power) if power else None,
    )


def skipped_scores(why: str) -> Scores:
    """Scores that could not be measured."""
    energy, reach, contrasts = (Skipped(name, why) for name in ("artefact energy", "reach", "contrast"))
    return Scores(energy, reach, reach, reach, contrasts, contrasts, Skipped("borders", why))
