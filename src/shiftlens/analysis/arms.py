"""Sweeps on their common images and shifts, one metric of each: what all comparisons are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import BoolArray, FloatArray, IntArray, SweepArrays
from shiftlens.analysis.comparable import SOURCE_SIDES, Source, refuse_unlike
from shiftlens.errors import InputError
from shiftlens.stats import Skipped
from shiftlens.tasks.task import Stored, Variable

NEAR = 8.0
"""Radius in px of the mean by which nets are compared first."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Packed:
    """A share's values, one bit each: 10,000 images x 65 x 65 shifts are 5 MB.

    Attributes
    ----------
    bits
        (image, byte).
    shape
        (image, dy, dx).
    """

    bits: NDArray[np.uint8]
    shape: tuple[int, int, int]

    def __getitem__(self, images: slice | BoolArray) -> BoolArray:
        """The values of some images, (image, dy, dx): one byte each."""
        cells = np.unpackbits(self.bits[images], axis=1, count=self.shape[1] * self.shape[2])
        return cells.view(np.bool_).reshape(-1, *self.shape[1:])


@dataclass(frozen=True, eq=False)
class Arm(Source):
    """One sweep of a comparison, on the common images and shifts.

    Attributes
    ----------
    cells
        (image, dy, dx) its values: one bit each of a share, four bytes of a number.
    agreement
        (image,) share of the shifts within 8 px (without (0, 0)) whose prediction is that of (0, 0).
    scale
        px of the source picture (or, where its size is not known, of the baseline's input) for one px of this input.
    """

    cells: Packed | NDArray[np.float32] = field(kw_only=True)
    agreement: FloatArray | Skipped = field(kw_only=True)
    scale: float = field(kw_only=True)

    def of(self, chosen: BoolArray | None = None) -> NDArray[Any]:
        """The values of all images, or of the chosen ones, (image, dy, dx)."""
        return self.cells[slice(None) if chosen is None else chosen]


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
    metric
        What is compared.
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
    metric: Variable

    @property
    def n_images(self) -> int:
        """Images that all sweeps hold."""
        return len(self.index)

    @property
    def others(self) -> tuple[int, ...]:
        """Which arms are not the baseline."""
        return tuple(k for k in range(len(self.arms)) if k != self.baseline)

    @property
    def tested(self) -> BoolArray:
        """(dy, dx): the shift leaves some of every net's picture."""
        return ~self.arrays(self.baseline, np.arange(self.n_images) < 1).blank

    def arrays(self, which: int, chosen: BoolArray | None = None) -> SweepArrays:
        """One arm (of some images) as the metrics want it, on the common shifts; it has nothing but the metric."""
        return SweepArrays(
            variables={self.metric.name: self.arms[which].of(chosen)},
            labels=np.zeros(0, np.int64),
            dys=self.dys,
            dxs=self.dxs,
            task=Stored((self.metric,)),
            fill=self.arms[self.baseline].header.fill.name,
            fill_is_constant=self.fill_is_constant,
            picture_size=self.picture_size,
            index=self.index if chosen is None else self.index[chosen],
        )


def align(
    sources: list[Source],
    baseline: int = 0,
    *,
    metric: str | None = None,
    partial: bool = False,
    progress: Progress | None = None,
) -> Aligned:
    """Read every sweep once, a chunk of images at a time, onto the common images and shifts.

    `metric` is the task's default by default; with `partial` the images that all hold are compared, instead of refusing
    sweeps of other images; `progress` is called with sweeps read and sweeps in all.

    Raises
    ------
    InputError
        Sweeps of another kind, classes, fill, images, labels or grid; says which and what differs.
    """
    base = sources[baseline]
    for other in sources:
        refuse_unlike(base, other, partial=partial)
    index = reduce(np.intersect1d, (each.arrays.positions for each in sources), np.unique(base.arrays.positions))
    if not len(index):
        raise InputError(f"expected images that all {len(sources)} sweeps hold, got none")
    dys = reduce(np.intersect1d, (each.arrays.dys for each in sources))
    dxs = reduce(np.intersect1d, (each.arrays.dxs for each in sources))
    if len(dys) == len(dxs) == 1 and max(np.prod(each.arrays.shape) for each in sources) > 1:
        grids = ", ".join(f"{each.name} every {max(each.arrays.step)} px" for each in sources)
        raise InputError(f"expected shifts that all sweeps have, got none but (0, 0): {grids}")
    sides = [SOURCE_SIDES.get(each.header.data) for each in sources]
    known = sides[baseline] is not None
    reference = sides[baseline] or base.side
    sizes = np.array([each.header.image_size for each in sources]).min(axis=0)
    blank_from = (int(sizes[0]), int(sizes[1]))
    arms, measured = [], base.arrays.values(metric).metric
    for number, each in enumerate(sources):
        cells, agreement = _read(each.arrays, measured, index, dys, dxs, blank_from)
        arms.append(Arm(**vars(each), cells=cells, agreement=agreement, scale=reference / each.side))
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
        metric=measured,
    )


def _read(
    sweep: SweepArrays, metric: Variable, index: IntArray, dys: IntArray, dxs: IntArray, blank_from: tuple[int, int]
) -> tuple[Packed | NDArray[np.float32], FloatArray | Skipped]:
    """One pass over a sweep, in the order in which it is stored."""
    rows, columns = np.searchsorted(sweep.dys, dys), np.searchsorted(sweep.dxs, dxs)
    shape, origin = (len(index), len(dys), len(dxs)), (int(np.searchsorted(dys, 0)), int(np.searchsorted(dxs, 0)))
    near = np.hypot(dys[:, None], dxs[None, :]) <= NEAR
    if sweep.fill_is_constant:
        near &= (np.abs(dys)[:, None] < blank_from[0]) & (np.abs(dxs)[None, :] < blank_from[1])
    near[origin] = False
    packed = np.empty((shape[0], -(-shape[1] * shape[2] // 8)), np.uint8)
    numbers = np.empty((0, 0, 0) if metric.is_share else shape, np.float32)
    agreement = np.empty(len(index))
    predicted = "prediction" in sweep.variables
    # The common images are ascending positions in the source, whatever the order in the store.
    place = np.searchsorted(index, sweep.positions)
    held = np.isin(sweep.positions, index)
    for s in sweep.slices():
        keep = held[s]
        if not keep.any():
            continue
        stored = {name: np.asarray(cells[s])[keep][:, rows][:, :, columns] for name, cells in sweep.variables.items()
                  if name in (*(metric.needs or (metric.name,)), "prediction")}  # fmt: skip
        labels = sweep.labels[s][keep] if len(sweep.labels) else sweep.labels
        values = sweep.task.measured(metric.name, stored.__getitem__, labels, origin)
        where = place[s][keep]
        if metric.is_share:
            packed[where] = np.packbits(values.reshape(len(where), -1), axis=1)
        else:
            numbers[where] = values
        if predicted and near.any():
            said = stored["prediction"]
            agreement[where] = (said == said[:, origin[0], origin[1], None, None])[:, near].mean(axis=1)
    cells = Packed(packed, shape) if metric.is_share else numbers
    if not predicted:
        return cells, Skipped("agreement", "the task predicts no class")
    if not near.any():
        return cells, Skipped("agreement", f"the grid holds no shift within {NEAR:g} px but (0, 0)")
    return cells, agreement
