"""Sweeps on their common images and shifts, one bit for each answer: what all comparisons are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import BoolArray, IntArray, SweepArrays, image_slices
from shiftlens.analysis.comparable import SOURCE_SIDES, Facts, Source, refuse_unlike
from shiftlens.errors import InputError
from shiftlens.stats import FloatArray, Skipped

NEAR = 8.0
"""Radius in px of the mean accuracy by which nets are compared first: the contract's."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class RightCells:
    """Whether each answer is right, one bit each: 10,000 images x 65 x 65 shifts are 5 MB.

    Attributes
    ----------
    packed
        (image, byte).
    shape
        (image, dy, dx).
    """

    packed: NDArray[np.uint8]
    shape: tuple[int, int, int]

    def __getitem__(self, images: slice) -> BoolArray:
        """The answers to some images, (image, dy, dx)."""
        n_cells = self.shape[1] * self.shape[2]
        bits = np.unpackbits(self.packed[images], axis=1, count=n_cells)
        return bits.view(np.bool_).reshape(-1, *self.shape[1:])

    def of(self, chosen: BoolArray | None = None) -> BoolArray:
        """The answers to all images, or to the chosen ones: one byte each."""
        part = self if chosen is None else RightCells(self.packed[chosen], (int(chosen.sum()), *self.shape[1:]))
        out = np.empty(part.shape, np.bool_)
        for s in image_slices(part.shape[0], part.shape[1] * part.shape[2]):
            out[s] = part[s]
        return out


@dataclass(frozen=True, eq=False)
class Arm:
    """One sweep of a comparison, on the common images and shifts.

    Attributes
    ----------
    name
        As the comparison calls it.
    right
        Its answers.
    agreement
        (image,) share of the shifts within 8 px (without (0, 0)) whose prediction is that of (0, 0).
    scale
        px of the source picture (or, where its size is not known, of the baseline's input) for one px of this input.
    facts
        What the sweep says of itself.
    """

    name: str
    right: RightCells
    agreement: FloatArray | Skipped
    scale: float
    facts: Facts


@dataclass(frozen=True, eq=False)
class Aligned:
    """All arms, and what they have in common.

    Attributes
    ----------
    arms
        In the order given.
    baseline
        Which of them.
    index
        (image,) position in the source.
    dys, dxs
        Common shifts in px of each net's own input.
    picture_size
        (h, w) px of the smallest input: a shift that leaves nothing of any net's picture is left out of all means.
    fill_is_constant
        Whether such shifts leave an empty picture.
    n_left_out
        Images that not all sweeps hold.
    unit
        Whose pixels areas are counted in: "source" or "baseline".
    """

    arms: tuple[Arm, ...]
    baseline: int
    index: IntArray
    dys: IntArray
    dxs: IntArray
    picture_size: tuple[int, int]
    fill_is_constant: bool
    n_left_out: int
    unit: str

    @property
    def n_images(self) -> int:
        """Images that all sweeps hold."""
        return len(self.index)

    @property
    def others(self) -> tuple[int, ...]:
        """Which arms are not the baseline."""
        return tuple(k for k in range(len(self.arms)) if k != self.baseline)

    def arrays(self, which: int, chosen: BoolArray | None = None) -> SweepArrays:
        """One arm (of some images) as the metrics want it: class 1 is right, class 0 is wrong, and there is no loss."""
        return self.grid(self.arms[which].right if chosen is None else self.arms[which].right.of(chosen))

    def grid(self, right: RightCells | BoolArray) -> SweepArrays:
        """Right answers of some images on the common shifts, as the metrics want them."""
        return SweepArrays(
            prediction=right,
            loss=right,
            labels=np.ones(right.shape[0], np.int64),
            dys=self.dys,
            dxs=self.dxs,
            class_names=("wrong", "right"),
            fill=self.arms[self.baseline].facts.fill.name,
            fill_is_constant=self.fill_is_constant,
            picture_size=self.picture_size,
        )


def align(
    sources: list[Source], baseline: int = 0, *, partial: bool = False, progress: Progress | None = None
) -> Aligned:
    """Read every sweep once, a chunk of images at a time, onto the common images and shifts.

    Parameters
    ----------
    sources
        At least two.
    baseline
        Which of them.
    partial
        Compare the images that all hold, instead of refusing sweeps of other images.
    progress
        Called with sweeps read and sweeps in all.

    Raises
    ------
    InputError
        Sweeps of another kind, classes, fill, images, labels or grid; says which and what differs.
    """
    base = sources[baseline]
    for other in sources:
        refuse_unlike(base, other, partial=partial)
    index = reduce(np.intersect1d, (each.arrays.positions for each in sources))
    if not len(index):
        raise InputError(f"expected images that all {len(sources)} sweeps hold, got none")
    dys = reduce(np.intersect1d, (each.arrays.dys for each in sources))
    dxs = reduce(np.intersect1d, (each.arrays.dxs for each in sources))
    if len(dys) == len(dxs) == 1 and max(np.prod(each.arrays.shape) for each in sources) > 1:
        grids = ", ".join(f"{each.name} every {max(each.arrays.step)} px" for each in sources)
        raise InputError(f"expected shifts that all sweeps have, got none but (0, 0): {grids}")
    sides = [SOURCE_SIDES.get(each.facts.data) for each in sources]
    known = sides[baseline] is not None
    reference = sides[baseline] or base.facts.side
    sizes = np.array([each.facts.image_size for each in sources]).min(axis=0)
    blank_from = (int(sizes[0]), int(sizes[1]))
    arms = []
    for number, each in enumerate(sources):
        right, agreement = _read(each.arrays, index, dys, dxs, blank_from)
        arms.append(Arm(each.name, right, agreement, reference / each.facts.side, each.facts))
        if progress is not None:
            progress(number + 1, len(sources))
    return Aligned(
        tuple(arms),
        baseline,
        index,
        dys,
        dxs,
        blank_from,
        base.arrays.fill_is_constant,
        n_left_out=max(each.arrays.n_images + each.arrays.n_missing for each in sources) - len(index),
        unit="source" if known else "baseline",
    )


def _read(
    sweep: SweepArrays, index: IntArray, dys: IntArray, dxs: IntArray, blank_from: tuple[int, int]
) -> tuple[RightCells, FloatArray | Skipped]:
    """One pass over a sweep's predictions, in the order in which they are stored."""
    rows, columns = np.searchsorted(sweep.dys, dys), np.searchsorted(sweep.dxs, dxs)
    shape = (len(index), len(dys), len(dxs))
    n_cells = len(dys) * len(dxs)
    packed = np.empty((len(index), -(-n_cells // 8)), np.uint8)
    near = np.hypot(dys[:, None], dxs[None, :]) <= NEAR
    if sweep.fill_is_constant:
        near &= (np.abs(dys)[:, None] < blank_from[0]) & (np.abs(dxs)[None, :] < blank_from[1])
    near[np.flatnonzero(dys == 0)[0], np.flatnonzero(dxs == 0)[0]] = False
    at_rest = (slice(None), slice(*_one(dys)), slice(*_one(dxs)))
    agreement = np.empty(len(index))
    # The common images are ascending positions in the source, whatever the order in the store.
    place = np.searchsorted(index, sweep.positions)
    held = np.isin(sweep.positions, index)
    for s in sweep.slices():
        keep = held[s]
        if not keep.any():
            continue
        values = np.asarray(sweep.prediction[s])[keep][:, rows][:, :, columns]
        where = place[s][keep]
        right = values == sweep.labels[s][keep][:, None, None]
        packed[where] = np.packbits(right.reshape(len(where), -1), axis=1)
        if near.any():
            agreement[where] = (values == values[at_rest])[:, near].mean(axis=1)
    cells = RightCells(packed, shape)
    if not near.any():
        return cells, Skipped("agreement", f"the grid holds no shift within {NEAR:g} px but (0, 0)")
    return cells, agreement


def _one(axis: IntArray) -> tuple[int, int]:
    at = int(np.flatnonzero(axis == 0)[0])
    return at, at + 1
