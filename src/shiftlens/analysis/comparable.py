"""What is to be compared: sweeps opened, named, and refused where they do not ask the same question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shiftlens.analysis.arrays import SweepArrays, from_sweep
from shiftlens.data.digits import CANVAS
from shiftlens.errors import InputError, StoreError
from shiftlens.naming import distinct, printable, unknown_name
from shiftlens.shifts import Fill
from shiftlens.sweeps.header import SweepHeader
from shiftlens.sweeps.sweep_result import Sweep, open_sweep

SOURCE_SIDES = {"cifar10": 32, "digits": CANVAS}
"""Shorter side in px of the pictures of the data sets whose size is part of their name."""


@dataclass(frozen=True, eq=False)
class Source:
    """One sweep to compare.

    Attributes
    ----------
    name
        As the comparison calls it.
    arrays
        Read lazily; without controls.
    header, path
        Of the sweep.
    n_images, n_population
        Images that are measured, of those that could be.
    half_width
        At which an adaptive sweep has stopped (points of a share), None for others.
    """

    name: str
    arrays: SweepArrays
    header: SweepHeader
    path: str
    n_images: int
    n_population: int
    half_width: float | None = None

    @property
    def side(self) -> int:
        """Length in px to which the shorter side of a source picture is brought before the net sees it."""
        side = self.header.preprocessing.resize or min(self.header.image_size)
        return side if isinstance(side, int) else min(side)


def opened(sweeps: Sequence[Sweep | str | Path], names: Sequence[str] | None, *, partial: bool) -> list[Source]:
    """Open and name what a user gave.

    Raises
    ------
    InputError
        Fewer than two sweeps, something that is no sweep, or names that are not one a sweep and distinct.
    StoreError
        Nothing is there, or it is damaged, or not complete while `partial` is False.
    """
    if isinstance(sweeps, Sweep | str | Path):
        raise InputError("expected a list of at least 2 sweeps to compare, got a single one")
    given = list(sweeps)
    if len(given) < 2:
        raise InputError(f"expected at least 2 sweeps to compare, got {len(given)}")
    ready = [_opened(each, partial) for each in given]
    return list(map(source_of, _names(ready, names), ready))


def _opened(each: Any, partial: bool) -> Sweep:
    if not isinstance(each, Sweep | str | Path):
        raise InputError(f"expected sweeps or their paths to compare, got {type(each).__name__}")
    sweep = each if isinstance(each, Sweep) else open_sweep(each, partial=True)
    if not sweep.complete:
        there = f"{sweep.path} is not complete: {sweep.n_written:,} of {sweep.n_images:,} images are there"
        if not sweep.n_written:
            raise StoreError(f"{there}; run the same sweep again to go on with it")
        if not partial:
            raise StoreError(
                f"{there}; run the same sweep again to finish it, or compare the images that all sweeps hold (partial)"
            )
    return sweep


def source_of(name: str, sweep: Sweep) -> Source:
    """One open sweep under a name."""
    # A control has no part in a comparison: it is not even looked at.
    arrays = replace(from_sweep(sweep), controls={})
    return Source(name, arrays, sweep.header, str(sweep.path), sweep.n_written, sweep.n_population, sweep.half_width)


def _names(sweeps: list[Sweep], names: Sequence[str] | None) -> list[str]:
    if names is None:
        return distinct(printable(sweep.path.stem) or "sweep" for sweep in sweeps)
    wanted = [names] if isinstance(names, str) else [str(name).strip() for name in names]
    if len(wanted) != len(sweeps):
        raise InputError(f"expected {len(sweeps)} names, one a sweep, got {len(wanted)}: {', '.join(wanted)}")
    if len(set(wanted)) < len(wanted) or not all(wanted):
        raise InputError(f"expected {len(sweeps)} distinct names that are not empty, got {', '.join(wanted)}")
    return [printable(name) for name in wanted]


def position_of(baseline: int | str, names: Sequence[str]) -> int:
    """Which sweep is the baseline, by position or by name; `InputError` where there is none."""
    if isinstance(baseline, str):
        if baseline not in names:
            raise unknown_name("baseline", baseline, names)
        return list(names).index(baseline)
    if isinstance(baseline, bool) or not isinstance(baseline, int | np.integer) or not 0 <= baseline < len(names):
        raise InputError(f"expected a baseline from 0 to {len(names) - 1} or a name, got {baseline!r}")
    return int(baseline)


def refuse_unlike(base: Source, other: Source, *, partial: bool) -> None:
    """Refuse a sweep that cannot be compared with the baseline, and say what differs.

    With `partial` other images are no reason: those that both hold are compared. Nor are they where an adaptive sweep
    stopped.

    Raises
    ------
    InputError
        Another kind (sweep or control), classes, fill, images, labels, or grid at the same input size.
    """

    def differs(what: str, expected: object, got: object) -> InputError:
        return InputError(
            f"{other.name} cannot be compared with {base.name}: expected the same {what}, {expected}, got {got}"
        )

    a, b = base.header, other.header
    if a.control != b.control:
        raise differs("kind of result", _kind(a), _kind(b))
    if base.arrays.metrics != other.arrays.metrics:
        raise differs("metrics", *(", ".join(m.name for m in each.arrays.metrics) for each in (base, other)))
    if a.n_classes != b.n_classes:
        raise differs("number of classes", a.n_classes, b.n_classes)
    for k, (one, two) in enumerate(zip(base.arrays.class_names, other.arrays.class_names, strict=False)):
        if one != two and not (_numbered(base.arrays) or _numbered(other.arrays)):
            raise differs("classes", f"{printable(one)!r} for class {k}", f"{printable(two)!r}")
    if a.fill != b.fill:
        raise differs("fill", _fill(a.fill), _fill(b.fill))
    _refuse_other_images(base, other, differs, partial)
    if a.image_size == b.image_size:
        for axis, here, there in (
            ("vertical", base.arrays.dys, other.arrays.dys),
            ("horizontal", base.arrays.dxs, other.arrays.dxs),
        ):
            if not np.array_equal(here, there):
                raise differs(f"grid of {axis} shifts", _axis(here), _axis(there))


def _refuse_other_images(base: Source, other: Source, differs: Any, partial: bool) -> None:
    a, b = base.header, other.header
    n_a, n_b = base.arrays.n_images, other.arrays.n_images
    partial = partial or base.half_width is not None or other.half_width is not None
    if a.data != b.data:
        raise differs("images", printable(a.data), printable(b.data))
    common, at_a, at_b = np.intersect1d(
        base.arrays.positions, other.arrays.positions, assume_unique=True, return_indices=True
    )
    if not partial and not len(common) == n_a == n_b:
        shared = f"{len(common):,} of them the same; --partial compares those" if len(common) else "none the same"
        raise differs("images", f"{n_a:,} of {printable(a.data)}", f"{n_b:,} ({shared})")
    if not len(common):
        raise differs("images", f"some of the {n_a:,} of {printable(a.data)}", "none of them")
    if len(base.arrays.labels) and len(other.arrays.labels):
        _refuse_other_labels(base, other, differs, common, at_a, at_b)
    # Pictures are brought to each net's own size and channels, which the digest covers too: only where both nets are
    # shown the same thing, and the sets hold the same images, must the digests agree.
    same_view = view_of(a) == view_of(b) and len(common) == n_a == n_b
    complete = not (base.arrays.n_missing or other.arrays.n_missing)
    # A digest is of all images that could be measured, in their order.
    alike = base.n_population == other.n_population and np.array_equal(base.arrays.positions, other.arrays.positions)
    if same_view and complete and alike and a.data_digest != b.data_digest:
        raise differs("images", f"{printable(a.data)} ({a.data_digest[:19]})", f"others ({b.data_digest[:19]})")


def _refuse_other_labels(base: Source, other: Source, differs: Any, common: Any, at_a: Any, at_b: Any) -> None:
    unequal = np.flatnonzero(base.arrays.labels[at_a] != other.arrays.labels[at_b])
    if len(unequal):
        k = unequal[0]
        raise differs(
            "labels",
            f"{base.arrays.labels[at_a[k]]} for image {common[k]}",
            f"{other.arrays.labels[at_b[k]]} ({len(unequal):,} of {len(common):,} differ)",
        )


def view_of(header: SweepHeader) -> tuple[Any, ...]:
    """What decides how a source image is shown to the net: nets of equal views are shown the same pixels."""
    p = header.preprocessing
    return header.image_size, p.resize, p.interpolation, len(p.mean)


def _numbered(arrays: SweepArrays) -> bool:
    """Whether the class names are only the classes' numbers, which say nothing."""
    return arrays.class_names == tuple(str(k) for k in range(len(arrays.class_names)))


def _kind(header: SweepHeader) -> str:
    return "a sweep" if header.control is None else f"the control {header.control}"


def _fill(fill: Fill) -> str:
    return fill.name if fill.values is None else f"{fill.name} {list(fill.values)}"


def _axis(shifts: np.ndarray[Any, Any]) -> str:
    step = int(shifts[1] - shifts[0]) if len(shifts) > 1 else 1
    return f"{shifts[0]} to {shifts[-1]} px" + (f" in steps of {step}" if step > 1 else "")
